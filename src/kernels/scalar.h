/* The scalar kernels by file: each adds its entries to the table, for kernels_add_scalar only; and what other levels leave to them. */
#ifndef KERNELS_SCALAR_H
#define KERNELS_SCALAR_H

#include "kernels/kernels.h"

void scalar_add_linear(kernels *k);
void scalar_add_vector(kernels *k);
void scalar_add_attention(kernels *k);
void scalar_add_peak(kernels *k);
void scalar_add_training(kernels *k);

void scalar_kv_store_k(dil_type type, void *page, int slot, const float *k, int head_dim);
void scalar_kv_store_v(dil_type type, void *page, int slot, const float *v, int head_dim);

#endif
