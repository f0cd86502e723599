/*
 * Matrix products of the trainer on one worker, over the kernel table's tiles. Three products make a linear layer: its outputs
 * y = x W^T, the gradient of its inputs dx = dy W, and of its weights dW = dy^T x. The right operand of the first two is prepared
 * once after each step of the optimiser; rows of the left one are packed where they are used. Every element of a result is a sum in one fixed
 * order, whoever computes it.
 */
#ifndef TRAIN_PRODUCT_H
#define TRAIN_PRODUCT_H

#include "kernels/kernels.h"

#define BLOCK_TOKENS 128 /* rows of the left operand taken at a time */
#define OUTER_ROWS 256   /* rows of dW taken at a time */
#define PANEL_STEPS 128  /* steps of a panel used at a time: 16 KB, half of the L1 cache */

/* Rows of floats anywhere: row i at p + (index ? index[i] : i) * stride. */
typedef struct rows {
    const float *p;
    size_t stride;
    const int32_t *index;
} rows;

static inline const float *row_at(rows r, int64_t i) { return r.p + (size_t)(r.index ? r.index[i] : i) * r.stride; }
static inline rows rows_from(rows r, int64_t first)
{
    return r.index ? (rows){r.p, r.stride, r.index + first} : (rows){r.p + (size_t)first * r.stride, r.stride, NULL};
}

/* How products are computed. */
typedef struct product_kind {
    const kernels *k;
    bool bf16;
} product_kind;

static inline int64_t product_steps(product_kind p, int64_t n) { return p.bf16 ? (n + 1) / 2 : n; }

/* Words of a prepared right operand that sums over n_sum values and has n_columns. */
size_t prepared_words(product_kind p, int64_t n_sum, int64_t n_columns);
/* The right operand of y = x W^T: W is [n_columns][n_sum]. scratch: PRODUCT_COLS * product_steps(n_sum) words. */
void prepare_transposed(product_kind p, rows w, int64_t n_columns, int64_t n_sum, uint32_t *dst, uint32_t *scratch);
/* The right operand of y = x M: M is [n_sum][n_columns]. pitch: sums that dst has room for per column (>= n_sum). */
void prepare_rows(product_kind p, rows m, int64_t n_sum, int64_t n_columns, int64_t pitch, uint32_t *dst);

/* n rows of n_sum values as words [n][product_steps(n_sum)]. */
void pack_rows(product_kind p, rows x, int n, int64_t n_sum, uint32_t *dst);

/*
 * y[i][0 .. n_columns) (+)= packed rows times a prepared operand; sums over the first n_sum values. pitch as in prepare_rows
 * (n_sum where the operand was prepared for it alone); a_pitch: words from one packed row to the next.
 */
typedef struct product_block {
    const uint32_t *a;
    size_t a_pitch;
    int n_rows;
    const uint32_t *b;
    int64_t n_sum, pitch;
    int64_t n_columns;
    float *y;
    size_t y_stride;
    bool add;
} product_block;
void product_run(product_kind p, const product_block *b);

/* c[i][j] += sum over t < n_tokens of y[t][first + i] * x[t][j], i < n_rows <= OUTER_ROWS, j < n_columns. */
typedef struct outer_block {
    rows y, x;
    int64_t first, n_tokens;
    int n_rows;
    int64_t n_columns;
    float *c;
    size_t c_stride;
} outer_block;
size_t outer_scratch_words(int64_t n_columns);
void outer_run(product_kind p, const outer_block *b, uint32_t *scratch);

#endif
