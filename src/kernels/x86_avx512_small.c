/* AVX-512 linear kernels of the formats with a value table (IQ4, FP4) and of one and two bits (TQ, Q1_0, Q2_0). */
#include "formats/iq_tables.h"
#include "kernels/x86_avx512_block.h"

enum { HALVES = 32 }; /* bytes of f16 [16] */

/* ---- value tables: u = table + 128 ---- */

AVX512_INLINE __m512i value_table(const int8_t values[16])
{
    const __m128i table = _mm_load_si128((const __m128i *)(const void *)values);
    return _mm512_xor_si512(_mm512_broadcast_i32x4(table), _mm512_set1_epi8((char)0x80));
}

AVX512_UNPACK(iq4_nl)
{
    const uint8_t *p = panel + (size_t)block * (HALVES + 256);
    w->ws[0] = avx512_load_f16(p);
    block_codes(4, p + HALVES, w->u);
    block_look_up(value_table(iq4_values), w->u);
}

AVX512_UNPACK(iq4_xs)
{
    const uint8_t *group = panel + (size_t)(block >> 3) * (HALVES + 96 + 2048);
    const int64_t j = block & 7;
    const __m512i ls = _mm512_sub_epi32(block_six(group + HALVES, 8, j), _mm512_set1_epi32(32));
    w->ws[0] = _mm512_mul_ps(avx512_load_f16(group), _mm512_cvtepi32_ps(ls));
    block_codes(4, group + HALVES + 96 + 256 * j, w->u);
    block_look_up(value_table(iq4_values), w->u);
}

/* 2^(e-128): exponent e - 1 of an f32, subnormal for e < 2. */
AVX512_UNPACK(mxfp4)
{
    const uint8_t *p = panel + (size_t)block * (16 + 256);
    const __m512i e = avx512_load_u8(p);
    const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    const __mmask16 tiny = _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2));
    w->ws[0] = _mm512_castsi512_ps(_mm512_mask_sllv_epi32(normal, tiny, _mm512_set1_epi32(0x00200000), e));
    block_codes(4, p + 16, w->u);
    block_look_up(value_table(fp4_values), w->u);
}

/*
 * Half of an unsigned E4M3: with x = eeeemmm, (1 + m/8) 2^(e-8) has the f32 bits (x << 20) + (119 << 23); m 2^-10 for e = 0;
 * 0 for the code 0x7f. The top bit is not looked at, except that 0xff is a number.
 */
AVX512_INLINE __m512 half_ue4m3(const uint8_t *p)
{
    const __m512i code = avx512_load_u8(p), x = _mm512_and_si512(code, _mm512_set1_epi32(0x7f));
    const __m512i normal = _mm512_add_epi32(_mm512_slli_epi32(x, 20), _mm512_set1_epi32(119 << 23));
    const __mmask16 tiny = _mm512_cmplt_epi32_mask(x, _mm512_set1_epi32(8));
    const __mmask16 number = _mm512_cmpneq_epi32_mask(code, _mm512_set1_epi32(0x7f));
    const __m512 small = _mm512_mul_ps(_mm512_cvtepi32_ps(x), _mm512_set1_ps(0x1p-10f));
    return _mm512_maskz_mov_ps(number, _mm512_mask_mov_ps(_mm512_castsi512_ps(normal), tiny, small));
}

AVX512_UNPACK(nvfp4)
{
    const uint8_t *group = panel + (size_t)(block >> 1) * (64 + 512);
    const int64_t j = block & 1;
    w->ws[0] = half_ue4m3(group + 32 * j);
    w->ws[1] = half_ue4m3(group + 32 * j + 16);
    block_codes(4, group + 64 + 256 * j, w->u);
    block_look_up(value_table(fp4_values), w->u);
}

AVX512_LINEAR(iq4_nl, 7, KIND_32, 32)
AVX512_LINEAR(iq4_xs, 7, KIND_32, 16)
AVX512_LINEAR(mxfp4, 7, KIND_32, 16)
AVX512_LINEAR(nvfp4, 7, KIND_16, 16)

/* ---- one and two bits ---- */

/* TQ1_0, TQ2_0: 8 blocks per group; Q2_0: 2. */
AVX512_UNPACK(tq)
{
    const uint8_t *group = panel + (size_t)(block >> 3) * (HALVES + 1024);
    w->ws[0] = avx512_load_f16(group);
    block_codes(2, group + HALVES + 128 * (block & 7), w->u);
}

AVX512_UNPACK(q2_0)
{
    const uint8_t *group = panel + (size_t)(block >> 1) * (HALVES + 256);
    w->ws[0] = avx512_load_f16(group);
    block_codes(2, group + HALVES + 128 * (block & 1), w->u);
}

/* u = 2 * bit, so that u - 1 is the sign. */
AVX512_UNPACK(q1_0)
{
    const uint8_t *group = panel + (size_t)(block >> 2) * (HALVES + 256);
    const __m512i bits = block_load(group + HALVES + 64 * (block & 3)), two = _mm512_set1_epi8(2);
    w->ws[0] = avx512_load_f16(group);
    w->u[0] = _mm512_and_si512(_mm512_add_epi8(bits, bits), two);
#pragma GCC unroll 8
    for (int s = 1; s < BLOCK_STEPS; s++)
        w->u[s] = _mm512_and_si512(avx512_shift_right16(bits, s - 1), two);
}

AVX512_LINEAR(tq, 0, KIND_32, 32)
AVX512_LINEAR(q2_0, 0, KIND_32, 32)
AVX512_LINEAR(q1_0, 0, KIND_32, 32)

void avx512_add_small(kernels *k)
{
    AVX512_SET(IQ4_NL, iq4_nl);
    AVX512_SET(IQ4_XS, iq4_xs);
    AVX512_SET(MXFP4, mxfp4);
    AVX512_SET(NVFP4, nvfp4);
    AVX512_SET(TQ1_0, tq);
    AVX512_SET(TQ2_0, tq);
    AVX512_SET(Q2_0, q2_0);
    AVX512_SET(Q1_0, q1_0);
}
