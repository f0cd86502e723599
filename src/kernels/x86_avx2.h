/*
 * What the AVX2 files share: who adds what, and small helpers. A vector of 8 lanes is half a panel's rows; "h" = 0, 1 names
 * the half.
 */
#ifndef KERNELS_X86_AVX2_H
#define KERNELS_X86_AVX2_H

#include <immintrin.h>

#include "kernels/unpack.h"

#define AVX2_INLINE static inline __attribute__((always_inline))

void avx2_add_linear(kernels *k);
void avx2_add_grid(kernels *k);
void avx2_add_float(kernels *k);
void avx2_add_vector(kernels *k);
void avx2_add_attention(kernels *k);
void avx2_add_peak(kernels *k);
void avx2_add_training(kernels *k);

AVX2_INLINE __m256i load_256(const void *p) { return _mm256_loadu_si256((const __m256i_u *)p); }
AVX2_INLINE __m128i load_128(const void *p) { return _mm_loadu_si128((const __m128i_u *)p); }
AVX2_INLINE __m128i load_64(const void *p) { return _mm_loadl_epi64((const __m128i_u *)p); }

/* Asks for what a stream will need some time later; any address is allowed. */
AVX2_INLINE void avx2_prefetch(const uint8_t *p) { _mm_prefetch((const char *)p, _MM_HINT_T0); }

#define AVX2_AHEAD 4096 /* bytes from what is used to what is asked for: the next page, at whose edge the hardware stops */

/* The first n (0..8) lanes. */
AVX2_INLINE __m256i first_lanes(int64_t n)
{
    static const int32_t ones[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    return load_256(ones + 8 - n);
}

AVX2_INLINE int32_t sum_of_lanes(__m256i v)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

/* Sums of x * y, 8 of 4 products each, over 32 int16. */
AVX2_INLINE __m256i block_products(const __m256i x[2], const __m256i y[2])
{
    return _mm256_add_epi32(_mm256_madd_epi16(x[0], y[0]), _mm256_madd_epi16(x[1], y[1]));
}

AVX2_INLINE int32_t block_dot(const __m256i x[2], const __m256i y[2]) { return sum_of_lanes(block_products(x, y)); }

#endif
