/* Reading pages of keys and values, 16 values at a time as f32; layouts in kernels.h. */
#ifndef KERNELS_X86_AVX512_KV_H
#define KERNELS_X86_AVX512_KV_H

#include "kernels/kv_page.h"
#include "kernels/x86_avx512.h"

/* 16 values of a page of 16-bit floats. */
AVX512_INLINE __m512 kv_from_16_bits(dil_type type, __m256i v)
{
    return type == DIL_TYPE_BF16 ? _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16)) : _mm512_cvtph_ps(v);
}

/* u - 8 of the lowest nibbles of 16 lanes; what else the lanes hold does not matter. */
AVX512_INLINE __m512 kv_from_nibbles(__m512i u)
{
    const __m512 values =
        _mm512_setr_ps(-8.0f, -7.0f, -6.0f, -5.0f, -4.0f, -3.0f, -2.0f, -1.0f, 0.0f, 1.0f, 2.0f, 3.0f, 4.0f, 5.0f, 6.0f, 7.0f);
    return _mm512_permutexvar_ps(u, values);
}

/* 16 values of a token of Q4_0, from 8 bytes. */
AVX512_INLINE __m512 kv_from_pairs(const uint8_t *p)
{
    const __m512i bits = _mm512_set_epi64(0x3c00000038, 0x3400000030, 0x2c00000028, 0x2400000020, 0x1c00000018, 0x1400000010,
                                          0x0c00000008, 0x0400000000); /* nibble i of 16 begins at bit 4i */
    int64_t all;
    memcpy(&all, p, sizeof all);
    return kv_from_nibbles(_mm512_multishift_epi64_epi8(bits, _mm512_set1_epi64(all)));
}

/* Dim d of slots j .. j + 15 of a page of K. */
AVX512_INLINE __m512 kv_k16(dil_type type, const void *page, int head_dim, int d, int j)
{
    const size_t at = (size_t)d * KV_PAGE + (size_t)j;
    if (type == DIL_TYPE_F32)
        return _mm512_loadu_ps((const float *)page + at);
    if (kv_quantized(type)) {
        const uint8_t *scales = kv_scales(type, page, head_dim) + 2 * (d / KV_BLOCK * KV_PAGE + j);
        const uint8_t *values = (const uint8_t *)page + (size_t)(type == DIL_TYPE_Q4_0 ? d / 2 : d) * KV_PAGE + j;
        const __m512 x = type == DIL_TYPE_Q4_0
                             ? kv_from_nibbles(_mm512_srlv_epi32(avx512_load_u8(values), _mm512_set1_epi32(d % 2 * 4)))
                             : _mm512_cvtepi32_ps(avx512_load_i8(values));
        return _mm512_mul_ps(x, avx512_load_f16(scales));
    }
    return kv_from_16_bits(type, _mm256_loadu_si256((const __m256i *)(const void *)((const uint16_t *)page + at)));
}

/* Those of the dims d .. d + 15 of slot j of a page of V that are in lanes. */
AVX512_INLINE __m512 kv_v16(dil_type type, const void *page, int head_dim, int j, int d, __mmask16 lanes)
{
    const size_t at = (size_t)j * (size_t)head_dim + (size_t)d;
    if (type == DIL_TYPE_F32)
        return _mm512_maskz_loadu_ps(lanes, (const float *)page + at);
    if (kv_quantized(type)) {
        const size_t scale_at = (size_t)j * kv_n_scales(head_dim) + (size_t)(d / KV_BLOCK);
        const uint8_t *values = (const uint8_t *)page + (size_t)j * kv_value_bytes(type, head_dim);
        uint16_t scale;
        memcpy(&scale, kv_scales(type, page, head_dim) + 2 * scale_at, sizeof scale);
        /* 8 bytes of nibbles may reach over the row's end, but not over the page's, which has scales behind its values. */
        const __m512 x = type == DIL_TYPE_Q4_0 ? kv_from_pairs(values + d / 2)
                                               : _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(lanes, values + d)));
        return _mm512_maskz_mul_ps(lanes, x, _mm512_set1_ps(_cvtsh_ss(scale)));
    }
    return kv_from_16_bits(type, _mm256_maskz_loadu_epi16(lanes, (const uint16_t *)page + at));
}

#endif
