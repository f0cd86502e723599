/* The tile of products that the f32 and the bf16 kernels of the trainer share: 8 rows by a panel of 2 vectors, 16 sums. */
#ifndef KERNELS_X86_AVX512_TRAINING_H
#define KERNELS_X86_AVX512_TRAINING_H

#include "kernels/x86_avx512.h"

/* acc + a word of every lane times the word beside it. */
typedef __m512 (*avx512_step_fn)(__m512 acc, __m512 x, __m512 b);

AVX512_INLINE void avx512_product_tile(const product_args *p, const avx512_step_fn step, int row, const int rows)
{
    __m512 acc[PRODUCT_ROWS][2];
    const uint32_t *a = p->a + (size_t)row * p->a_row, *b = p->b;
    const size_t a_row = p->a_row;
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
        acc[r][0] = acc[r][1] = _mm512_setzero_ps();
#pragma GCC unroll 2
    for (int64_t s = 0; s < p->n_steps; s++, a += p->a_step, b += PRODUCT_COLS) {
        __m512 b0 = _mm512_loadu_ps(b), b1 = _mm512_loadu_ps(b + 16);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            __m512 x = (__m512)_mm512_set1_epi32((int32_t)a[(size_t)r * a_row]);
            acc[r][0] = step(acc[r][0], x, b0);
            acc[r][1] = step(acc[r][1], x, b1);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        float *c = p->c + (size_t)(row + r) * p->c_row;
        if (p->add) {
            acc[r][0] = _mm512_add_ps(_mm512_loadu_ps(c), acc[r][0]);
            acc[r][1] = _mm512_add_ps(_mm512_loadu_ps(c + 16), acc[r][1]);
        }
        _mm512_storeu_ps(c, acc[r][0]);
        _mm512_storeu_ps(c + 16, acc[r][1]);
    }
}

AVX512_INLINE void avx512_product_with(const product_args *p, const avx512_step_fn step)
{
    int r = 0;
    for (; r + PRODUCT_ROWS <= p->n_rows; r += PRODUCT_ROWS)
        avx512_product_tile(p, step, r, PRODUCT_ROWS);
    for (; r + 2 <= p->n_rows; r += 2)
        avx512_product_tile(p, step, r, 2);
    if (r < p->n_rows)
        avx512_product_tile(p, step, r, 1);
}

#endif
