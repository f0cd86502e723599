/*
 * AVX-512 linear kernels of the code-book formats IQ1, IQ2, IQ3 (grid.h). The magnitudes of a code word are few, so that half
 * a word is one byte of 2- or 3-bit codes (iq_tables.h) and a book is two tables of bytes, which register permutations look up
 * for 64 code words at once.
 */
#include "formats/iq_tables.h"
#include "kernels/grid.h"
#include "kernels/x86_avx512_block.h"

/* ---- code books: table[index] of 64 indices; bit7: bit 7 of the low bytes; high: further bits, a mask each ---- */

AVX512_INLINE __m512i look_up_256(const uint8_t *table, __m512i index, __mmask64 bit7)
{
    const __m512i low = _mm512_permutex2var_epi8(_mm512_load_si512(table), index, _mm512_load_si512(table + 64));
    const __m512i high = _mm512_permutex2var_epi8(_mm512_load_si512(table + 128), index, _mm512_load_si512(table + 192));
    return _mm512_mask_blend_epi8(bit7, low, high);
}

AVX512_INLINE __m512i look_up(const uint8_t *table, const int entries, __m512i index, const __mmask64 *high)
{
    const __mmask64 bit7 = _mm512_movepi8_mask(index);
    __m512i part[8];
#pragma GCC unroll 8
    for (int i = 0; i < entries / 256; i++)
        part[i] = look_up_256(table + 256 * i, index, bit7);
#pragma GCC unroll 3
    for (int n = entries / 512, bit = 0; n > 0; n /= 2, bit++) {
#pragma GCC unroll 4
        for (int i = 0; i < n; i++)
            part[i] = _mm512_mask_blend_epi8(high[bit], part[2 * i], part[2 * i + 1]);
    }
    return part[0];
}

/* ---- fields of a block ---- */

AVX512_INLINE __mmask64 mask_at(const uint8_t *p)
{
    __mmask64 mask;
    memcpy(&mask, p, sizeof mask);
    return mask;
}

AVX512_INLINE void high_at(const uint8_t *p, const int n, __mmask64 high[3])
{
#pragma GCC unroll 3
    for (int i = 0; i < n; i++)
        high[i] = mask_at(p + 8 * i);
}

/* s of block j, or of its half h */
AVX512_INLINE __m512i scale_bits(const uint8_t *group, const int sub, int64_t j, const int h)
{
    const uint8_t *p = group + GRID_SCALES + (sub == 16 ? 16 * j : j / 2 * 16);
    const int64_t shift = sub == 16 ? 4 * h : 4 * (j & 1);
    const __m512i both = _mm512_srl_epi32(avx512_load_u8(p), _mm_cvtsi64_si128(shift));
    return _mm512_and_si512(both, _mm512_set1_epi32(15));
}

/* d * (s + 0.5) * factor */
AVX512_INLINE void scales_half(const uint8_t *group, const int sub, int64_t j, float factor, weight_block *w)
{
#pragma GCC unroll 2
    for (int h = 0; h < 32 / sub; h++) {
        const __m512 s = _mm512_cvtepi32_ps(scale_bits(group, sub, j, h));
        w->ws[h] =
            _mm512_mul_ps(_mm512_mul_ps(avx512_load_f16(group), _mm512_add_ps(_mm512_set1_ps(0.5f), s)), _mm512_set1_ps(factor));
    }
}

/* d * (2 s + 1) * factor, s of the bits in mask */
AVX512_INLINE void scales_odd(const uint8_t *group, const int sub, int64_t j, const int mask, float factor, weight_block *w)
{
#pragma GCC unroll 2
    for (int h = 0; h < 32 / sub; h++) {
        const __m512i s = _mm512_and_si512(scale_bits(group, sub, j, h), _mm512_set1_epi32(mask));
        const __m512 n = _mm512_fmadd_ps(_mm512_cvtepi32_ps(s), _mm512_set1_ps(2.0f), _mm512_set1_ps(1.0f));
        w->ws[h] = _mm512_mul_ps(_mm512_mul_ps(avx512_load_f16(group), n), _mm512_set1_ps(factor));
    }
}

/* ---- steps ---- */

/*
 * Byte c of lane r: the bits from `first` + offset c of dword r on, as index into table. Offsets: 4 bytes of a dword. The table
 * repeats, so that it does not matter what stands above the code's bits.
 */
AVX512_INLINE __m512i step_values(__m512i codes, const int first, const int offsets, __m512i table)
{
    const uint64_t low = (uint32_t)offsets + 0x01010101u * (uint32_t)first;
    const uint64_t both = (low + 0x20202020u) << 32 | low;
    return _mm512_permutexvar_epi8(_mm512_multishift_epi64_epi8(_mm512_set1_epi64((int64_t)both), codes), table);
}

/* u = 128 - v instead of 128 + v where bit s of the byte's signs says so. */
AVX512_INLINE __m512i step_signs(__m512i u, __m512i signs, const int s)
{
    const __mmask64 negative = _mm512_movepi8_mask(_mm512_slli_epi16(signs, 7 - s));
    return _mm512_mask_sub_epi8(u, negative, _mm512_setzero_si512(), u);
}

/* u of the 4 codes of 2 bits or the 8 of 3 bits, lowest first, repeated to 64 entries. */
AVX512_INLINE __m512i table_of_4(int values) { return _mm512_set1_epi32(values); }
AVX512_INLINE __m512i table_of_8(int64_t values) { return _mm512_set1_epi64(values); }

enum { BITS_2 = 0x06040200, BITS_3 = 0x0b080300 }; /* places of four codes; of 3 bits: two per byte */

/* Steps 2 g and 2 g + 1 are the two halves of word g of every row. */
AVX512_INLINE void words8_steps(const uint8_t *codes, const int entries, const uint8_t *p, const int high_bits, __m512i table,
                                weight_block *w)
{
    __mmask64 high[3] = {0};
    high_at(p + GRID_HIGH_AT(4), high_bits, high);
    const __m512i index = block_load(p);
    const __m512i half[2] = {look_up(codes, entries, index, high), look_up(codes + entries, entries, index, high)};
#pragma GCC unroll 8
    for (int s = 0; s < BLOCK_STEPS; s++)
        w->u[s] = step_values(half[s % 2], s / 2 * 8, BITS_2, table);
}

/* Step s is word s of every row; two results interleaved have two words of a row side by side. */
AVX512_INLINE void words4_steps(const uint8_t *codes, const int entries, const uint8_t *p, const int high_bits, __m512i table,
                                weight_block *w)
{
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        __mmask64 high[3] = {0};
        high_at(p + GRID_HIGH_AT(8) + 8 * high_bits * i, high_bits, high);
        const __m512i index = block_load(p + 64 * i);
        const __m512i first = look_up(codes, entries, index, high);
        const __m512i second = look_up(codes + entries, entries, index, high);
        const __m512i words[2] = {_mm512_unpacklo_epi8(first, second), _mm512_unpackhi_epi8(first, second)};
#pragma GCC unroll 4
        for (int s = 0; s < 4; s++)
            w->u[4 * i + s] = step_values(words[s / 2], s % 2 * 16, BITS_3, table);
    }
}

AVX512_INLINE void signed_steps(const uint8_t *marks, weight_block *w)
{
    const __m512i signs = block_load(marks);
#pragma GCC unroll 8
    for (int s = 0; s < BLOCK_STEPS; s++)
        w->u[s] = step_signs(w->u[s], signs, s);
}

AVX512_INLINE __m512i values_iq2(void) { return table_of_4((int)0x00ab9988u); } /* 128 + 8, 25, 43 */

/* IQ1: u = 128 + 8 v + 1, two less for the rows in negative[g] */
AVX512_INLINE void ternary_steps(const uint8_t *p, const __mmask16 negative[4], weight_block *w)
{
    /* codes 0, 1, 3 of v = 0, 1, -1 */
    words8_steps(iq1_codes, 2048, p, 3, table_of_4((int)0x79008981u), w);
#pragma GCC unroll 8
    for (int s = 0; s < BLOCK_STEPS; s++)
        w->u[s] = _mm512_mask_sub_epi32(w->u[s], negative[s / 2], w->u[s], _mm512_set1_epi8(2));
}

/* ---- one function per type ---- */

/* Places: group and j, the block of the super-block; p: its fields, marks: its signs or shifts. */
#define GRID_PLACES(words, high, sub, marks_bytes)                                                                               \
    const int64_t j = block & 7;                                                                                                 \
    const uint8_t *group = panel + (size_t)(block >> 3) * (GRID_HEADER(sub) + 8 * (size_t)GRID_BLOCK(words, high, marks_bytes)); \
    const uint8_t *p = group + GRID_HEADER(sub) + j * GRID_BLOCK(words, high, marks_bytes)

AVX512_UNPACK(iq2_xxs)
{
    GRID_PLACES(4, 0, 32, GRID_SIGNS);
    scales_half(group, 32, j, 0.25f, w);
    words8_steps(iq2_xxs_codes, 256, p, 0, values_iq2(), w);
    signed_steps(p + GRID_MARKS_AT(4, 0), w);
}

AVX512_UNPACK(iq2_xs)
{
    GRID_PLACES(4, 1, 16, GRID_SIGNS);
    scales_half(group, 16, j, 0.25f, w);
    words8_steps(iq2_xs_codes, 512, p, 1, values_iq2(), w);
    signed_steps(p + GRID_MARKS_AT(4, 1), w);
}

AVX512_UNPACK(iq2_s)
{
    GRID_PLACES(4, 2, 16, GRID_SIGNS);
    scales_half(group, 16, j, 0.25f, w);
    words8_steps(iq2_s_codes, 1024, p, 2, values_iq2(), w);
    signed_steps(p + GRID_MARKS_AT(4, 2), w);
}

AVX512_UNPACK(iq3_xxs)
{
    GRID_PLACES(8, 0, 32, GRID_SIGNS);
    scales_half(group, 32, j, 0.5f, w);
    /* 128 + 4, 12, 20, 28, 36, 44, 52, 62 */
    words4_steps(iq3_xxs_codes, 256, p, 0, table_of_8((int64_t)0xbeb4aca49c948c84u), w);
    signed_steps(p + GRID_MARKS_AT(8, 0), w);
}

AVX512_UNPACK(iq3_s)
{
    GRID_PLACES(8, 1, 32, GRID_SIGNS);
    scales_odd(group, 32, j, 15, 1.0f, w);
    /* 128 + 1, 3, 5, ... 15 */
    words4_steps(iq3_s_codes, 512, p, 1, table_of_8((int64_t)0x8f8d8b8987858381u), w);
    signed_steps(p + GRID_MARKS_AT(8, 1), w);
}

AVX512_UNPACK(iq1_s)
{
    GRID_PLACES(4, 3, 32, 0);
    const __mmask16 minus = _mm512_test_epi32_mask(scale_bits(group, 32, j, 0), _mm512_set1_epi32(8));
    const __mmask16 negative[4] = {minus, minus, minus, minus};
    scales_odd(group, 32, j, 7, 0.125f, w);
    ternary_steps(p, negative, w);
}

AVX512_UNPACK(iq1_m)
{
    GRID_PLACES(4, 3, 16, GRID_SHIFTS);
    __mmask16 negative[4];
    memcpy(negative, p + GRID_MARKS_AT(4, 3), sizeof negative);
    scales_odd(group, 16, j, 7, 0.125f, w);
    ternary_steps(p, negative, w);
}

AVX512_LINEAR(iq1_s, 7, KIND_32, FEW_TOKENS)
AVX512_LINEAR(iq1_m, 7, KIND_16, FEW_TOKENS)
AVX512_LINEAR(iq2_xxs, 7, KIND_32, FEW_TOKENS)
AVX512_LINEAR(iq2_xs, 7, KIND_16, FEW_TOKENS)
AVX512_LINEAR(iq2_s, 7, KIND_16, FEW_TOKENS)
AVX512_LINEAR(iq3_xxs, 7, KIND_32, FEW_TOKENS)
AVX512_LINEAR(iq3_s, 7, KIND_32, FEW_TOKENS)

void avx512_add_grid(kernels *k)
{
    AVX512_SET(IQ1_S, iq1_s);
    AVX512_SET(IQ1_M, iq1_m);
    AVX512_SET(IQ2_XXS, iq2_xxs);
    AVX512_SET(IQ2_XS, iq2_xs);
    AVX512_SET(IQ2_S, iq2_s);
    AVX512_SET(IQ3_XXS, iq3_xxs);
    AVX512_SET(IQ3_S, iq3_s);
}
