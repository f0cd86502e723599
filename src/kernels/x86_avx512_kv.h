/* Reading pages of keys and values, 16 values at a time as f32; layouts in kernels.h. */
#ifndef KERNELS_X86_AVX512_KV_H
#define KERNELS_X86_AVX512_KV_H

#include "kernels/x86_avx512.h"

#define SCALE_DIMS 32 /* head dims that share a Q8_0 scale */

/* 16 values of a page of 16-bit floats. */
AVX512_INLINE __m512 kv_from_16_bits(dil_type type, __m256i v)
{
    return type == DIL_TYPE_BF16 ? _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16)) : _mm512_cvtph_ps(v);
}

AVX512_INLINE const uint16_t *kv_scales(const void *page, int head_dim)
{
    return (const uint16_t *)(const void *)((const int8_t *)page + (size_t)head_dim * KV_PAGE);
}

/* Dim d of slots j .. j + 15 of a page of K. */
AVX512_INLINE __m512 kv_k16(dil_type type, const void *page, int head_dim, int d, int j)
{
    const size_t at = (size_t)d * KV_PAGE + (size_t)j;
    if (type == DIL_TYPE_F32)
        return _mm512_loadu_ps((const float *)page + at);
    if (type == DIL_TYPE_Q8_0) {
        const uint16_t *scales = kv_scales(page, head_dim) + d / SCALE_DIMS * KV_PAGE + j;
        return _mm512_mul_ps(_mm512_cvtepi32_ps(avx512_load_i8((const uint8_t *)page + at)),
                             avx512_load_f16((const uint8_t *)scales));
    }
    return kv_from_16_bits(type, _mm256_loadu_si256((const __m256i *)(const void *)((const uint16_t *)page + at)));
}

/* Those of the dims d .. d + 15 of slot j of a page of V that are in lanes. */
AVX512_INLINE __m512 kv_v16(dil_type type, const void *page, int head_dim, int j, int d, __mmask16 lanes)
{
    const size_t at = (size_t)j * (size_t)head_dim + (size_t)d;
    if (type == DIL_TYPE_F32)
        return _mm512_maskz_loadu_ps(lanes, (const float *)page + at);
    if (type == DIL_TYPE_Q8_0) {
        const int n_scales = (head_dim + SCALE_DIMS - 1) / SCALE_DIMS;
        const uint16_t scale = kv_scales(page, head_dim)[j * n_scales + d / SCALE_DIMS];
        const __m128i q = _mm_maskz_loadu_epi8(lanes, (const int8_t *)page + at);
        return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)), _mm512_set1_ps(_cvtsh_ss(scale)));
    }
    return kv_from_16_bits(type, _mm256_maskz_loadu_epi16(lanes, (const uint16_t *)page + at));
}

#endif
