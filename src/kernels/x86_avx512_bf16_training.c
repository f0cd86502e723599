/* The trainer's products in bf16: pairs of columns (or rows) at a time, summed in f32. */
#include "kernels/x86_avx512_training.h"

AVX512_INLINE __m512 dot_pairs(__m512 acc, __m512 x, __m512 b) { return _mm512_dpbf16_ps(acc, (__m512bh)x, (__m512bh)b); }

static void bf16_product(const product_args *p) { avx512_product_with(p, dot_pairs); }

/* 16 values each of two rows as 16 words. */
AVX512_INLINE __m512i pair_up(__m512 low, __m512 high)
{
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh(high, low);
    __m256i first = _mm512_castsi512_si256(both), second = _mm512_extracti64x4_epi64(both, 1);
    return _mm512_or_si512(_mm512_cvtepu16_epi32(first), _mm512_slli_epi32(_mm512_cvtepu16_epi32(second), 16));
}

static void bf16_interleave(const float *r0, const float *r1, int64_t n, uint32_t *dst, size_t stride)
{
    for (int64_t i = 0; i < n; i += PRODUCT_COLS, dst += stride)
        for (int v = 0; v < PRODUCT_COLS; v += 16) {
            __mmask16 there = avx512_lanes(n - i - v);
            __m512 low = _mm512_maskz_loadu_ps(there, r0 + i + v);
            __m512 high = r1 ? _mm512_maskz_loadu_ps(there, r1 + i + v) : _mm512_setzero_ps();
            _mm512_storeu_si512(dst + v, pair_up(low, high));
        }
}

void avx512_bf16_add_training(kernels *k)
{
    k->training.product_bf16 = bf16_product;
    k->training.interleave = bf16_interleave;
}
