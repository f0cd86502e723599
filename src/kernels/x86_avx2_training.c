/* The trainer's kernels for AVX2: tiles of 4 rows by half a panel, 8 sums that cover the latency of the multiply-add. */
#include "kernels/training_vector.h"
#include "kernels/x86_avx2.h"

/* `rows` rows from `row` on, the panel's columns 16 * h ... */
AVX2_INLINE void tile(const product_args *p, int row, int h, const int rows)
{
    __m256 acc[4][2];
    const uint32_t *a = p->a + (size_t)row * p->a_row;
    const float *b = (const float *)(const void *)p->b + 16 * h;
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
        acc[r][0] = acc[r][1] = _mm256_setzero_ps();
    for (int64_t s = 0; s < p->n_steps; s++, a += p->a_step, b += PRODUCT_COLS) {
        __m256 b0 = _mm256_loadu_ps(b), b1 = _mm256_loadu_ps(b + 8);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            __m256 x = _mm256_broadcast_ss((const float *)(const void *)(a + (size_t)r * p->a_row));
            acc[r][0] = _mm256_fmadd_ps(x, b0, acc[r][0]);
            acc[r][1] = _mm256_fmadd_ps(x, b1, acc[r][1]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < 2; v++) {
            float *c = p->c + (size_t)(row + r) * p->c_row + 16 * h + 8 * v;
            _mm256_storeu_ps(c, p->add ? _mm256_add_ps(_mm256_loadu_ps(c), acc[r][v]) : acc[r][v]);
        }
}

static void avx2_product(const product_args *p)
{
    for (int h = 0; h < 2; h++) {
        int r = 0;
        for (; r + 4 <= p->n_rows; r += 4)
            tile(p, r, h, 4);
        for (; r < p->n_rows; r++)
            tile(p, r, h, 1);
    }
}

void avx2_add_training(kernels *k)
{
    k->training.product_f32 = avx2_product;
    training_add_vector(&k->training);
}
