/* AVX-512 linear kernels of the formats with blocks of 32 columns and of the k-quants: how each unpacks a block. */
#include "kernels/x86_avx512_block.h"

enum { HALVES = 32 }; /* bytes of f16 [16] */

/* ---- blocks of 32: Q4_0 Q4_1 Q5_0 Q5_1 Q8_0, and our D3_0 D6_0 ---- */

AVX512_UNPACK(q4_0)
{
    const uint8_t *p = panel + (size_t)block * (HALVES + 256);
    w->ws[0] = avx512_load_f16(p);
    block_codes(4, p + HALVES, w->u);
}

AVX512_UNPACK(q4_1)
{
    const uint8_t *p = panel + (size_t)block * (2 * HALVES + 256);
    w->ws[0] = avx512_load_f16(p);
    w->nm[0] = avx512_load_f16(p + HALVES);
    block_codes(4, p + 2 * HALVES, w->u);
}

AVX512_UNPACK(q5_0)
{
    const uint8_t *p = panel + (size_t)block * (HALVES + 320);
    w->ws[0] = avx512_load_f16(p);
    block_codes(5, p + HALVES, w->u);
}

AVX512_UNPACK(q5_1)
{
    const uint8_t *p = panel + (size_t)block * (2 * HALVES + 320);
    w->ws[0] = avx512_load_f16(p);
    w->nm[0] = avx512_load_f16(p + HALVES);
    block_codes(5, p + 2 * HALVES, w->u);
}

AVX512_UNPACK(q8_0)
{
    const uint8_t *p = panel + (size_t)block * (HALVES + 512);
    w->ws[0] = avx512_load_f16(p);
#pragma GCC unroll 8
    for (int s = 0; s < BLOCK_STEPS; s++)
        w->u[s] = block_load(p + HALVES + 64 * s);
}

AVX512_UNPACK(d3_0)
{
    const uint8_t *p = panel + (size_t)block * (HALVES + 192);
    w->ws[0] = avx512_load_f16(p);
    block_codes(3, p + HALVES, w->u);
}

AVX512_UNPACK(d6_0)
{
    const uint8_t *p = panel + (size_t)block * (HALVES + 384);
    w->ws[0] = avx512_load_f16(p);
    block_codes(6, p + HALVES, w->u);
}

AVX512_LINEAR(q4_0, 3, KIND_32, 32)
AVX512_LINEAR(q4_1, -1, KIND_32_MIN, 32)
AVX512_LINEAR(q5_0, 4, KIND_32, 12)
AVX512_LINEAR(q5_1, -1, KIND_32_MIN, 32)
AVX512_LINEAR(q8_0, 7, KIND_32, 32)
AVX512_LINEAR(d3_0, 2, KIND_32, 12)
AVX512_LINEAR(d6_0, 5, KIND_32, 16)

void avx512_add_legacy(kernels *k)
{
    AVX512_SET(Q4_0, q4_0);
    AVX512_SET(Q4_1, q4_1);
    AVX512_SET(Q5_0, q5_0);
    AVX512_SET(Q5_1, q5_1);
    AVX512_SET(Q8_0, q8_0);
    AVX512_SET(D3_0, d3_0);
    AVX512_SET(D6_0, d6_0);
}

/* ---- super-blocks of 256: Q2_K .. Q6_K ---- */

enum { SIXES = 192 }; /* bytes of 16 lists of six-bit numbers */

/* (float)d * (float)n for the 16 numbers of a list. */
AVX512_INLINE __m512 times_six(__m512 d, const uint8_t *lists, int64_t list)
{
    return _mm512_mul_ps(d, _mm512_cvtepi32_ps(block_six(lists, 16, list)));
}

AVX512_INLINE __m512 times_i8(__m512 d, const uint8_t *n) { return _mm512_mul_ps(d, _mm512_cvtepi32_ps(avx512_load_i8(n))); }

AVX512_INLINE __m512 negative(__m512 v) { return _mm512_xor_ps(v, _mm512_set1_ps(-0.0f)); }

/* Scales and minima of Q4_K and Q5_K; returns the quants. */
AVX512_INLINE const uint8_t *scale_min_k(const uint8_t *group, int64_t j, weight_block *w)
{
    w->ws[0] = times_six(avx512_load_f16(group), group + 2 * HALVES, j);
    w->nm[0] = negative(times_six(avx512_load_f16(group + HALVES), group + 2 * HALVES, 8 + j));
    return group + 2 * HALVES + SIXES;
}

AVX512_UNPACK(q4_k)
{
    const uint8_t *quants = scale_min_k(panel + (size_t)(block >> 3) * 2304, block & 7, w);
    block_codes(4, quants + 256 * (block & 7), w->u);
}

AVX512_UNPACK(q5_k)
{
    const uint8_t *quants = scale_min_k(panel + (size_t)(block >> 3) * 2816, block & 7, w) + 320 * (block & 7);
    block_codes(5, quants, w->u);
}

/* Scales of Q6_K; returns the quants. */
AVX512_INLINE const uint8_t *scales_of_16(const uint8_t *group, int64_t j, weight_block *w)
{
    const __m512 d = avx512_load_f16(group);
    w->ws[0] = times_i8(d, group + HALVES + 32 * j);
    w->ws[1] = times_i8(d, group + HALVES + 32 * j + 16);
    return group + HALVES + 256;
}

AVX512_UNPACK(q6_k)
{
    const uint8_t *quants = scales_of_16(panel + (size_t)(block >> 3) * 3360, block & 7, w) + 384 * (block & 7);
    block_codes(6, quants, w->u);
}

AVX512_UNPACK(q3_k)
{
    const uint8_t *group = panel + (size_t)(block >> 3) * (HALVES + SIXES + 1536);
    const __m512 d = avx512_load_f16(group);
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        const __m512i sc = _mm512_sub_epi32(block_six(group + HALVES, 16, 2 * (block & 7) + h), _mm512_set1_epi32(32));
        w->ws[h] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(sc));
    }
    const uint8_t *quants = group + HALVES + SIXES + 192 * (block & 7);
    block_codes(3, quants, w->u);
}

/* u = code * sc: two bytes at a time, of which no product leaves its own. */
AVX512_UNPACK(q2_k)
{
    const uint8_t *group = panel + (size_t)(block >> 3) * (2 * HALVES + 256 + 1024);
    const __m512 dmin = avx512_load_f16(group + HALVES);
    w->ws[0] = avx512_load_f16(group);
    block_codes(2, group + 2 * HALVES + 256 + 128 * (block & 7), w->u);
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        const __m512i both = avx512_load_u8(group + 2 * HALVES + 16 * (2 * (block & 7) + h));
        const __m512i sc = _mm512_and_si512(both, _mm512_set1_epi32(15)), twice = _mm512_or_si512(sc, _mm512_slli_epi32(sc, 16));
        w->nm[h] = negative(_mm512_mul_ps(dmin, _mm512_cvtepi32_ps(_mm512_srli_epi32(both, 4))));
#pragma GCC unroll 4
        for (int s = 4 * h; s < 4 * h + 4; s++)
            w->u[s] = _mm512_mullo_epi16(w->u[s], twice);
    }
}

AVX512_LINEAR(q2_k, -1, KIND_32_MIN_16, 32)
AVX512_LINEAR(q3_k, 2, KIND_16, 12)
AVX512_LINEAR(q4_k, -1, KIND_32_MIN, 32)
AVX512_LINEAR(q5_k, -1, KIND_32_MIN, 16)
AVX512_LINEAR(q6_k, 5, KIND_16, 16)

void avx512_add_kquants(kernels *k)
{
    AVX512_SET(Q2_K, q2_k);
    AVX512_SET(Q3_K, q3_k);
    AVX512_SET(Q4_K, q4_k);
    AVX512_SET(Q5_K, q5_k);
    AVX512_SET(Q6_K, q6_k);
}
