/*
 * AVX-512 linear kernels of the code-book formats IQ1, IQ2, IQ3, whose panels are 16 rows of blocks as they are in the file
 * (formats/iquants.c has their fields). Fields of the 16 rows are brought into the 16 lanes of a vector. The magnitudes of a
 * code word are few, so that a word shrinks to a 16-bit code (2 or 3 bits per value) and the book to a table that register
 * permutations look up; it is made at the start of a call.
 */
#include "formats/iq_tables.h"
#include "kernels/x86_avx512_block.h"

/* ---- code books: codes[i] from the bits `mask` of every byte of entry i ---- */

static const uint16_t *codes_of_64(const uint64_t *grid, int n, uint64_t mask, uint16_t *codes)
{
    for (int i = 0; i < n; i++)
        codes[i] = (uint16_t)_pext_u64(grid[i], mask);
    return codes;
}

static const uint16_t *codes_of_32(const uint32_t *grid, int n, uint32_t mask, uint16_t *codes)
{
    for (int i = 0; i < n; i++)
        codes[i] = (uint16_t)_pext_u32(grid[i], mask);
    return codes;
}

/* codes[index] of 32 words, index < 256. */
AVX512_INLINE __m512i look_up_256(const uint16_t *codes, __m512i index)
{
    __m512i found[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        found[i] = _mm512_permutex2var_epi16(_mm512_load_si512(codes + 64 * i), index,
                                             _mm512_load_si512(codes + 64 * i + 32));
    const __mmask32 bit6 = _mm512_test_epi16_mask(index, _mm512_set1_epi16(64));
    const __mmask32 bit7 = _mm512_test_epi16_mask(index, _mm512_set1_epi16(128));
    return _mm512_mask_blend_epi16(bit7, _mm512_mask_blend_epi16(bit6, found[0], found[1]),
                                   _mm512_mask_blend_epi16(bit6, found[2], found[3]));
}

/* codes[index] of 32 words, index < n = 256, 512, 1024 or 2048. */
AVX512_INLINE __m512i look_up(const uint16_t *codes, const int n, __m512i index)
{
    __m512i part[8];
#pragma GCC unroll 8
    for (int i = 0; i < n / 256; i++)
        part[i] = look_up_256(codes + 256 * i, index);
#pragma GCC unroll 3
    for (int bit = 256; bit < n; bit *= 2) {
        const __mmask32 set = _mm512_test_epi16_mask(index, _mm512_set1_epi16((short)bit));
#pragma GCC unroll 4
        for (int i = 0; i < n / bit / 2; i++)
            part[i] = _mm512_mask_blend_epi16(set, part[2 * i], part[2 * i + 1]);
    }
    return part[0];
}

/* ---- fields ---- */

AVX512_INLINE int dword_at(const uint8_t *p)
{
    int v;
    memcpy(&v, p, sizeof v);
    return v;
}

AVX512_INLINE __m128i four_rows_at(const uint8_t *p, const int row_bytes)
{
    __m128i v = _mm_cvtsi32_si128(dword_at(p));
    v = _mm_insert_epi32(v, dword_at(p + row_bytes), 1);
    v = _mm_insert_epi32(v, dword_at(p + 2 * row_bytes), 2);
    return _mm_insert_epi32(v, dword_at(p + 3 * row_bytes), 3);
}

/* The dword at p of row 0, and so on, row_bytes apart. Inserts are several times faster than a gather on Zen 4. */
AVX512_INLINE __m512i rows_at(const uint8_t *p, const int row_bytes)
{
    const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(four_rows_at(p, row_bytes)),
                                                four_rows_at(p + 4 * row_bytes, row_bytes), 1);
    const __m256i high =
        _mm256_inserti128_si256(_mm256_castsi128_si256(four_rows_at(p + 8 * row_bytes, row_bytes)),
                                four_rows_at(p + 12 * row_bytes, row_bytes), 1);
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

AVX512_INLINE __m512i shift_right(__m512i v, int64_t n)
{
    return _mm512_srl_epi32(v, _mm_cvtsi64_si128(n));
}

/* v << n (n < 0: right), the bits of mask */
AVX512_INLINE __m512i bits_moved(__m512i v, const int n, const int mask)
{
    const __m512i moved = n < 0 ? (__m512i)((avx512_u32s)v >> -n) : avx512_shift_left32(v, n);
    return _mm512_and_si512(moved, _mm512_set1_epi32(mask));
}

/* Bytes 0, 1 (low) or 2, 3 of every dword as two words. */
AVX512_INLINE __m512i bytes_as_words(__m512i v, const int high)
{
    const __m128i low = _mm_setr_epi8(0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1);
    const __m128i top = _mm_setr_epi8(2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14, -1, 15, -1);
    return _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(high ? top : low));
}

AVX512_INLINE __m512 f16_of_dwords(__m512i d) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(d)); }

AVX512_INLINE __m512 float_of(__m512i v, const int mask)
{
    return _mm512_cvtepi32_ps(_mm512_and_si512(v, _mm512_set1_epi32(mask)));
}

/* d * (s + 0.5) * factor */
AVX512_INLINE __m512 scale_half(__m512 d, __m512 s, float factor)
{
    return _mm512_mul_ps(_mm512_mul_ps(d, _mm512_add_ps(_mm512_set1_ps(0.5f), s)),
                         _mm512_set1_ps(factor));
}

/* d * (2 s + 1) * factor */
AVX512_INLINE __m512 scale_odd(__m512 d, __m512 s, float factor)
{
    const __m512 n = _mm512_fmadd_ps(s, _mm512_set1_ps(2.0f), _mm512_set1_ps(1.0f));
    return _mm512_mul_ps(_mm512_mul_ps(d, n), _mm512_set1_ps(factor));
}

/* Sign bits of 8 values from 7 in every byte: bit 7 makes the number of set bits even. */
AVX512_INLINE __m512i even_signs(__m512i seven)
{
    const __m512i nibble = _mm512_set1_epi8(15);
    const __m512i odd = _mm512_broadcast_i32x4(
        _mm_setr_epi8(0, -128, -128, 0, -128, 0, 0, -128, -128, 0, 0, -128, 0, -128, -128, 0));
    const __m512i folded =
        _mm512_xor_si512(seven, avx512_shift_right16(_mm512_andnot_si512(nibble, seven), 4));
    return _mm512_or_si512(seven, _mm512_shuffle_epi8(odd, _mm512_and_si512(folded, nibble)));
}

/* The same from dwords of four indices of 7 bits. */
AVX512_INLINE __m512i word_signs(__m512i word)
{
    const __m512i from =
        _mm512_set1_epi64(0x352e2720150e0700); /* byte g of a dword from its bit 7 g */
    return even_signs(
        _mm512_and_si512(_mm512_multishift_epi64_epi8(from, word), _mm512_set1_epi8(0x7f)));
}

/* ---- steps ---- */

/* Byte c of lane r: bits first + width * c and up of dword r, as index into table (64 entries, all 6 bits looked at). */
AVX512_INLINE __m512i step_values(__m512i codes, const int first, const int width, __m512i table)
{
    const int64_t one = 0x0101010101010101 * first + (int64_t)0x2020202000000000;
    const int64_t each = (int64_t)0x0302010003020100 * width;
    return _mm512_permutexvar_epi8(_mm512_multishift_epi64_epi8(_mm512_set1_epi64(one + each),
                                                                codes),
                                   table);
}

/* u = 128 - v instead of 128 + v where bit 4 s + c of the row's signs is set. */
AVX512_INLINE __m512i step_signs(__m512i u, __m512i signs, const int s)
{
    const __m512i lanes =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12));
    const __m512i spread =
        _mm512_shuffle_epi8(signs, _mm512_add_epi8(lanes, _mm512_set1_epi8((char)(s / 2))));
    const __mmask64 negative =
        _mm512_test_epi8_mask(spread, _mm512_set1_epi32(s & 1 ? (int)0x80402010u : 0x08040201));
    return _mm512_mask_sub_epi8(u, negative, _mm512_setzero_si512(), u);
}

/* u of the 4 codes of 2 bits or the 8 of 3 bits, lowest first, repeated to 64 entries. */
AVX512_INLINE __m512i table_of_4(int values) { return _mm512_set1_epi32(values); }
AVX512_INLINE __m512i table_of_8(int64_t values) { return _mm512_set1_epi64(values); }

/* IQ2: index[i] holds the words of groups 2 i and 2 i + 1 of 8 columns. */
AVX512_INLINE void grid2_steps(const uint16_t *codes, const int n, const __m512i index[2],
                               __m512i signs, weight_block *w)
{
    const __m512i table = table_of_4((int)0x00ab9988u); /* 128 + 8, 25, 43 */
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        const __m512i found = look_up(codes, n, index[i]);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
            w->u[4 * i + j] = step_signs(step_values(found, 8 * j, 2, table), signs, 4 * i + j);
    }
}

/* IQ3: index[i] holds the words of steps 2 i and 2 i + 1. */
AVX512_INLINE void grid3_steps(const uint16_t *codes, const int n, const __m512i index[4],
                               __m512i signs, __m512i table, weight_block *w)
{
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m512i found = look_up(codes, n, index[i]);
#pragma GCC unroll 2
        for (int j = 0; j < 2; j++)
            w->u[2 * i + j] = step_signs(step_values(found, 16 * j, 3, table), signs, 2 * i + j);
    }
}

/* IQ1: u = 128 + 8 v + 1 or - 1; negative[g]: rows whose group g of 8 columns has the - 1. */
AVX512_INLINE void grid1_steps(const uint16_t *codes, const __m512i index[2],
                               const __mmask16 negative[4], weight_block *w)
{
    const __m512i table = table_of_4((int)0x78008880u); /* codes 0, 1, 3 of v = 0, 1, -1 */
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        const __m512i found = look_up(codes, 2048, index[i]);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            const __m512i shift =
                _mm512_mask_mov_epi32(_mm512_set1_epi8(1), negative[2 * i + j / 2],
                                      _mm512_set1_epi8(-1));
            w->u[4 * i + j] = _mm512_add_epi8(step_values(found, 8 * j, 2, table), shift);
        }
    }
}

/* ---- one function per type; j: block of the super-block ---- */

AVX512_UNPACK(iq2_xxs)
{
    const int64_t j = block & 7;
    const uint8_t *group = panel + (size_t)(block >> 3) * (66 * PANEL_ROWS);
    const __m512i bytes = rows_at(group + 2 + 8 * j, 66), word = rows_at(group + 6 + 8 * j, 66);
    const __m512i index[2] = {bytes_as_words(bytes, 0), bytes_as_words(bytes, 1)};
    const __m512 s = _mm512_cvtepi32_ps(_mm512_srli_epi32(word, 28));
    w->ws[0] = scale_half(f16_of_dwords(rows_at(group, 66)), s, 0.25f);
    grid2_steps(codes, 256, index, word_signs(word), w);
}

AVX512_UNPACK(iq2_xs)
{
    const int64_t j = block & 7;
    const uint8_t *group = panel + (size_t)(block >> 3) * (74 * PANEL_ROWS);
    const __m512i low = rows_at(group + 2 + 8 * j, 74), high = rows_at(group + 6 + 8 * j, 74);
    const __m512i index[2] = {bits_moved(low, 0, 0x01ff01ff), bits_moved(high, 0, 0x01ff01ff)};
    /* the upper 7 bits of the four words side by side */
    const __m512i first = bits_moved(low, -9, 0x7f), second = bits_moved(low, -17, 0x7f00);
    const __m512i third = bits_moved(high, 7, 0x7f0000), fourth = bits_moved(high, -1, 0x7f000000);
    const __m512i seven =
        _mm512_or_si512(_mm512_or_si512(first, second), _mm512_or_si512(third, fourth));
    const __m512i scales = shift_right(rows_at(group + 66 + (j & 4), 74), 8 * (j & 3));
    const __m512 d = f16_of_dwords(rows_at(group, 74));
    w->ws[0] = scale_half(d, float_of(scales, 15), 0.25f);
    w->ws[1] = scale_half(d, float_of(_mm512_srli_epi32(scales, 4), 15), 0.25f);
    grid2_steps(codes, 512, index, even_signs(seven), w);
}

AVX512_UNPACK(iq2_s)
{
    const int64_t j = block & 7;
    const uint8_t *group = panel + (size_t)(block >> 3) * (82 * PANEL_ROWS);
    const __m512i bytes = rows_at(group + 2 + 4 * j, 82), signs = rows_at(group + 34 + 4 * j, 82);
    const __m512i high = shift_right(rows_at(group + 66 + (j & 4), 82), 8 * (j & 3));
    const __m512i scales = shift_right(rows_at(group + 74 + (j & 4), 82), 8 * (j & 3));
    const __m512i top[2] = {_mm512_or_si512(bits_moved(high, 8, 0x300),
                                            bits_moved(high, 22, 0x3000000)),
                            _mm512_or_si512(bits_moved(high, 4, 0x300),
                                            bits_moved(high, 18, 0x3000000))};
    const __m512i index[2] = {_mm512_or_si512(bytes_as_words(bytes, 0), top[0]),
                              _mm512_or_si512(bytes_as_words(bytes, 1), top[1])};
    const __m512 d = f16_of_dwords(rows_at(group, 82));
    w->ws[0] = scale_half(d, float_of(scales, 15), 0.25f);
    w->ws[1] = scale_half(d, float_of(_mm512_srli_epi32(scales, 4), 15), 0.25f);
    grid2_steps(codes, 1024, index, signs, w);
}

AVX512_UNPACK(iq3_xxs)
{
    const int64_t j = block & 7;
    const uint8_t *group = panel + (size_t)(block >> 3) * (98 * PANEL_ROWS);
    const __m512i low = rows_at(group + 2 + 8 * j, 98), high = rows_at(group + 6 + 8 * j, 98);
    const __m512i word = rows_at(group + 66 + 4 * j, 98);
    const __m512i index[4] = {bytes_as_words(low, 0), bytes_as_words(low, 1),
                              bytes_as_words(high, 0), bytes_as_words(high, 1)};
    const __m512 s = _mm512_cvtepi32_ps(_mm512_srli_epi32(word, 28));
    w->ws[0] = scale_half(f16_of_dwords(rows_at(group, 98)), s, 0.5f);
    /* 128 + 4, 12, 20, 28, 36, 44, 52, 62 */
    grid3_steps(codes, 256, index, word_signs(word), table_of_8((int64_t)0xbeb4aca49c948c84u), w);
}

AVX512_UNPACK(iq3_s)
{
    const int64_t j = block & 7;
    const uint8_t *group = panel + (size_t)(block >> 3) * (110 * PANEL_ROWS);
    const __m512i bytes[2] = {rows_at(group + 2 + 8 * j, 110), rows_at(group + 6 + 8 * j, 110)};
    const __m512i high = shift_right(rows_at(group + 66 + (j & 4), 110), 8 * (j & 3));
    const __m512i signs = rows_at(group + 74 + 4 * j, 110);
    __m512i index[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m512i top = _mm512_or_si512(bits_moved(high, 8 - 2 * i, 0x100),
                                            bits_moved(high, 23 - 2 * i, 0x1000000));
        index[i] = _mm512_or_si512(bytes_as_words(bytes[i / 2], i & 1), top);
    }
    const __m512 s = float_of(shift_right(rows_at(group + 106, 110), 4 * j), 15);
    w->ws[0] = scale_odd(f16_of_dwords(rows_at(group, 110)), s, 1.0f);
    /* 128 + 1, 3, 5, ... 15 */
    grid3_steps(codes, 512, index, signs, table_of_8((int64_t)0x8f8d8b8987858381u), w);
}

AVX512_UNPACK(iq1_s)
{
    const int64_t j = block & 7;
    const uint8_t *group = panel + (size_t)(block >> 3) * (50 * PANEL_ROWS);
    const __m512i bytes = rows_at(group + 2 + 4 * j, 50);
    const __m512i word = shift_right(rows_at(group + 34 + 4 * (j >> 1), 50), 16 * (j & 1));
    const __m512i top[2] = {_mm512_or_si512(bits_moved(word, 8, 0x700),
                                            bits_moved(word, 21, 0x7000000)),
                            _mm512_or_si512(bits_moved(word, 2, 0x700),
                                            bits_moved(word, 15, 0x7000000))};
    const __m512i index[2] = {_mm512_or_si512(bytes_as_words(bytes, 0), top[0]),
                              _mm512_or_si512(bytes_as_words(bytes, 1), top[1])};
    const __mmask16 minus = _mm512_test_epi32_mask(word, _mm512_set1_epi32(0x8000));
    const __mmask16 negative[4] = {minus, minus, minus, minus};
    w->ws[0] = scale_odd(f16_of_dwords(rows_at(group, 50)),
                         float_of(_mm512_srli_epi32(word, 12), 7), 0.125f);
    grid1_steps(codes, index, negative, w);
}

AVX512_UNPACK(iq1_m)
{
    const int64_t j = block & 7;
    const uint8_t *group = panel + (size_t)(block >> 3) * (56 * PANEL_ROWS);
    const __m512i bytes = rows_at(group + 4 * j, 56);
    const __m512i high = shift_right(rows_at(group + 32 + 4 * (j >> 1), 56), 16 * (j & 1));
    const __m512i scales[2] = {rows_at(group + 48, 56), rows_at(group + 52, 56)};
    const __m512i top[2] = {_mm512_or_si512(bits_moved(high, 8, 0x700),
                                            bits_moved(high, 20, 0x7000000)),
                            _mm512_or_si512(bits_moved(high, 0, 0x700),
                                            bits_moved(high, 12, 0x7000000))};
    const __m512i index[2] = {_mm512_or_si512(bytes_as_words(bytes, 0), top[0]),
                              _mm512_or_si512(bytes_as_words(bytes, 1), top[1])};
    __mmask16 negative[4];
#pragma GCC unroll 4
    for (int g = 0; g < 4; g++)
        negative[g] = _mm512_test_epi32_mask(high, _mm512_set1_epi32(8 << (4 * g)));
    /* d: the top nibbles of the four scale words, lowest first */
    const __m512i low =
        _mm512_or_si512(bits_moved(scales[0], -12, 0x0f), bits_moved(scales[0], -24, 0xf0));
    const __m512i up =
        _mm512_or_si512(bits_moved(scales[1], -4, 0xf00), bits_moved(scales[1], -16, 0xf000));
    const __m512 d = f16_of_dwords(_mm512_or_si512(low, up));
    const __m512i s = shift_right(j & 4 ? scales[1] : scales[0], 16 * (j >> 1 & 1) + 6 * (j & 1));
    w->ws[0] = scale_odd(d, float_of(s, 7), 0.125f);
    w->ws[1] = scale_odd(d, float_of(_mm512_srli_epi32(s, 3), 7), 0.125f);
    grid1_steps(codes, index, negative, w);
}

#define GRID(NAME, KIND, N, WIDTH, BOOK, MASK)                                     \
    AVX512_LINEAR_CODES(NAME, 7, KIND, GEMV_TOKENS, _Alignas(64) uint16_t book[N]; \
                        , codes_of_##WIDTH(BOOK, N, MASK, book))

GRID(iq1_s, KIND_32, 2048, 64, iq1_grid, 0x0303030303030303u)
GRID(iq1_m, KIND_16, 2048, 64, iq1_grid, 0x0303030303030303u)
GRID(iq2_xxs, KIND_32, 256, 64, iq2_xxs_grid, 0x3030303030303030u)
GRID(iq2_xs, KIND_16, 512, 64, iq2_xs_grid, 0x3030303030303030u)
GRID(iq2_s, KIND_16, 1024, 64, iq2_s_grid, 0x3030303030303030u)
GRID(iq3_xxs, KIND_32, 256, 32, iq3_xxs_grid, 0x38383838u)
GRID(iq3_s, KIND_32, 512, 32, iq3_s_grid, 0x0e0e0e0eu)

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
