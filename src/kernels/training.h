/*
 * The inner loops of the trainer, part of the kernel table. Products take operands as 32-bit words: a float, or a pair of bf16 whose
 * columns (or rows) are summed together. Kernels of the table may differ between instruction sets by rounding; none depends on
 * how work is divided.
 */
#ifndef KERNELS_TRAINING_H
#define KERNELS_TRAINING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PRODUCT_ROWS 8  /* rows of a tile of products: callers' blocks are best multiples */
#define PRODUCT_COLS 32 /* columns of a panel of the right operand */

/* c[r][j] (+)= sum over s of a(r, s) * b[s][j], s ascending, for r < n_rows and j < PRODUCT_COLS. */
typedef struct product_args {
    const uint32_t *a; /* word (r, s) at a[r * a_row + s * a_step] */
    size_t a_row, a_step;
    const uint32_t *b; /* [n_steps][PRODUCT_COLS] */
    int64_t n_steps;   /* of one word: 1 value, or 2 in bf16 */
    int n_rows;        /* any */
    float *c;          /* all PRODUCT_COLS columns are written */
    size_t c_row;
    bool add; /* onto what c holds */
} product_args;

typedef void (*product_fn)(const product_args *p);

/* AdamW (Loshchilov and Hutter 2019): m and v are the moments, correction1/2 = 1 - beta^t. */
typedef struct adamw_args {
    float lr, beta1, beta2, eps, decay; /* decay: weight decay times lr */
    float correction1, correction2;
    float g_scale; /* of gradients: clipping */
} adamw_args;

typedef struct training_kernels {
    product_fn product_f32;
    product_fn product_bf16; /* NULL without the dot product of bf16 pairs */
    /* Two rows of n values as words of bf16 pairs (low half: r0; r1 NULL: zeros), panel by panel of PRODUCT_COLS columns:
     * dst[p * stride + j]; the last panel is filled with zeros. NULL without product_bf16. */
    void (*interleave)(const float *r0, const float *r1, int64_t n, uint32_t *dst, size_t stride);

    float (*dot)(const float *x, const float *y, int64_t n);
    /* x becomes exp(x - max) / sum; returns log of the sum of exp(x). */
    float (*softmax)(float *x, int64_t n);
    /* y = act(gate) * up and, from dy, the gradients of both; dgate and dup may be gate and up; scale multiplies dy. */
    void (*silu_mul_back)(const float *gate, const float *up, const float *dy, float scale, float *y, float *dgate, float *dup,
                          int64_t n);
    void (*gelu_mul_back)(const float *gate, const float *up, const float *dy, float scale, float *y, float *dgate, float *dup,
                          int64_t n);
    /* Of y = x * r * w, r = 1 / sqrt(mean(x^2) + eps): adds to dx [n] and dw [n]; w NULL: ones, dw unused. */
    void (*rmsnorm_back)(const float *x, const float *w, const float *dy, float eps, float *dx, float *dw, int64_t n);
    void (*adamw)(float *w, const float *g, float *m, float *v, int64_t n, const adamw_args *a);
} training_kernels;

#endif
