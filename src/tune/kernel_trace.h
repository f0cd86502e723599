/*
 * What the kernels touch, in their order, for the cache model: the same arguments as the kernel gets, of which only addresses
 * and sizes are looked at (they need not be memory). Owns the knowledge of how each level of src/kernels walks through panels,
 * columns and tokens; a kernel that walks differently is changed here too, and bench/cache_table.py tells when they disagree.
 *
 * Arrays that a loop reads side by side are touched side by side, each line once per sweep, whatever the width of the loads.
 * Left out: constants, and what a kernel asks for but does not use; the stack is a guess.
 */
#ifndef TUNE_KERNEL_TRACE_H
#define TUNE_KERNEL_TRACE_H

#include "kernels/kernels.h"
#include "tune/cache_model.h"

/* A matrix times some tokens, as compute's linear() does it: by gemm, or by gemv for GEMV_TOKENS at a time. */
void kernel_trace_linear(cache_model *c, const kernels *k, dil_type type, const linear_args *a);

/* Attention of n_rows queries over a chunk of pages: scores of every page, softmax, weighted sums of every page onto acc. */
typedef struct trace_chunk {
    dil_type type_k, type_v;
    int head_dim_k, head_dim_v;
    int n_pages;                                 /* at most ATTN_CHUNK */
    const void *const *k_pages, *const *v_pages; /* [n_pages] */
    int n_rows;
    const int32_t *n_seen; /* [n_rows], ascending: of the chunk's tokens, those the row sees */
    const void *queries;
    size_t query_stride; /* bytes */
    float *scores, *acc;
    size_t score_stride, acc_stride; /* floats */
    void *scratch;
} trace_chunk;
void kernel_trace_attention(cache_model *c, const kernels *k, const trace_chunk *a);

void kernel_trace_rmsnorm(cache_model *c, const float *x, const float *w, int64_t n, float *y);
void kernel_trace_quantize(cache_model *c, const quantize_args *a);
/* silu_mul and its relatives */
void kernel_trace_mul(cache_model *c, const float *gate, const float *up, float *y, int64_t n);

#endif
