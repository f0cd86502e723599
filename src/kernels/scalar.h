/* The scalar kernels by file: each adds its entries to the table. For kernels_add_scalar only. */
#ifndef KERNELS_SCALAR_H
#define KERNELS_SCALAR_H

#include "kernels/kernels.h"

void scalar_add_linear(kernels *k);
void scalar_add_vector(kernels *k);
void scalar_add_attention(kernels *k);
void scalar_add_peak(kernels *k);
void scalar_add_training(kernels *k);

#endif
