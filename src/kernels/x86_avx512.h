/*
 * What the AVX-512 kernel files share: the parts kernels_add_avx512 is made of, and small vector helpers. Private to
 * x86_avx512*.c. Instruction sets: F, BW, DQ, VL, VNNI, VBMI.
 */
#ifndef KERNELS_X86_AVX512_H
#define KERNELS_X86_AVX512_H

#include <immintrin.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/packed.h"

/*
 * Bytes from the weights that are used to those that are fetched: the next page, at whose edge the hardware stops prefetching. Where memory
 * is far (beside busy neighbours above all) one core alone does not look far enough ahead to keep it busy; other processors are better
 * left alone with one token (docs/PERFORMANCE.md).
 */
#define AVX512_AHEAD 4096

#define AVX512_INLINE static inline __attribute__((always_inline))

/* Each sets the entries of its family. */
void avx512_add_legacy(kernels *k);
void avx512_add_kquants(kernels *k);
void avx512_add_small(kernels *k);
void avx512_add_grid(kernels *k);
void avx512_add_float(kernels *k);
void avx512_add_vector(kernels *k);
void avx512_add_attention(kernels *k);
void avx512_bf16_add_attention(kernels *k); /* over avx512_add_attention, which it leaves F32 pages to */

/* Attention in f32: what the entries for bf16 leave to it. */
void avx512_attn_pv(const attn_page *v, const float *p, size_t p_stride, float *acc, size_t acc_stride);
void avx512_attn_softmax(dil_type type, float *s, int lo, int hi, int n, float cap, float *m, float *l);
void avx512_add_peak(kernels *k);
void avx512_add_training(kernels *k);
void avx512_bf16_add_training(kernels *k);

/* The first n lanes of 16; n <= 0: none, n >= 16: all. */
AVX512_INLINE __mmask16 avx512_lanes(int64_t n)
{
    return n >= 16 ? (__mmask16)0xffff : n <= 0 ? (__mmask16)0 : (__mmask16)((1u << n) - 1u);
}

/* Shifts by a number that need not be a literal (it is constant after inlining). */
typedef uint16_t avx512_u16s __attribute__((vector_size(64)));
typedef uint32_t avx512_u32s __attribute__((vector_size(64)));

AVX512_INLINE __m512i avx512_shift_left16(__m512i v, int n) { return (__m512i)((avx512_u16s)v << n); }
AVX512_INLINE __m512i avx512_shift_right16(__m512i v, int n) { return (__m512i)((avx512_u16s)v >> n); }
AVX512_INLINE __m512i avx512_shift_left32(__m512i v, int n) { return (__m512i)((avx512_u32s)v << n); }

/* 16 little-endian halves as f32. */
AVX512_INLINE __m512 avx512_load_f16(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

/* 16 bytes as int32. */
AVX512_INLINE __m512i avx512_load_u8(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
}

AVX512_INLINE __m512i avx512_load_i8(const uint8_t *p)
{
    return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
}

#endif
