/*
 * IQ1, IQ2, IQ3 in AVX2 (grid.h): for each row the 32 columns of a block as one vector, from code words of 8 or 4 columns; 8
 * such rows are turned into 8 steps by an 8x8 transpose of groups of 4 columns, and the steps get their signs.
 */
#include "formats/iq_tables.h"
#include "kernels/x86_avx2.h"

/* Where the fields of a block lie; a constant where it is used. */
typedef struct grid_form {
    int words, high, sub, marks;
} grid_form;

/* The 64 indices at p in full: bit i of a mask in high is a further bit of the index in byte i. */
AVX2_INLINE void full_indices(const uint8_t *p, const uint8_t *high, const int n_high, uint16_t index[64])
{
    const __m256i lane = _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, (short)0x8000);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m256i v = _mm256_cvtepu8_epi16(load_128(p + 16 * i));
#pragma GCC unroll 3
        for (int bit = 0; bit < n_high; bit++) {
            __m256i mask = _mm256_set1_epi16((short)packed_u16(high + 8 * bit + 2 * i));
            __m256i set = _mm256_cmpeq_epi16(_mm256_and_si256(mask, lane), lane);
            v = _mm256_or_si256(v, _mm256_and_si256(set, _mm256_set1_epi16((short)(256 << bit))));
        }
        _mm256_storeu_si256((__m256i_u *)(index + 16 * i), v);
    }
}

AVX2_INLINE const uint64_t *book_of(dil_type type)
{
    return type == DIL_TYPE_IQ2_XXS  ? iq2_xxs_grid
           : type == DIL_TYPE_IQ2_XS ? iq2_xs_grid
           : type == DIL_TYPE_IQ2_S  ? iq2_s_grid
                                     : iq1_grid;
}

/* Magnitudes, or ternary values, of the 32 columns of a row: 4 words of 8. */
AVX2_INLINE __m256i row_values(dil_type type, const uint16_t *index, int row)
{
    uint64_t entry[4];
    for (int g = 0; g < 4; g++)
        entry[g] = book_of(type)[index[grid_index_at(4, row, g)]];
    return _mm256_setr_epi64x((int64_t)entry[0], (int64_t)entry[1], (int64_t)entry[2], (int64_t)entry[3]);
}

/* v[row] of 8 groups of 4 columns -> u[step] of 8 rows, at half h */
AVX2_INLINE void store_transposed(const __m256i v[8], int h, unpacked *out)
{
    __m256i a[8], b[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
        a[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i += 4) {
        b[i] = _mm256_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm256_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm256_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm256_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
#pragma GCC unroll 8
    for (int s = 0; s < 4; s++) {
        _mm256_store_si256((__m256i *)(void *)(out->u[s] + 32 * h), _mm256_permute2x128_si256(b[s], b[s + 4], 0x20));
        _mm256_store_si256((__m256i *)(void *)(out->u[s + 4] + 32 * h), _mm256_permute2x128_si256(b[s], b[s + 4], 0x31));
    }
}

/* Byte 4 r + c: 0xff where bit 4 r + c of the bits is set. */
AVX2_INLINE __m256i bytes_of_bits(uint32_t bits)
{
    __m256i spread = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    __m256i bit = _mm256_set1_epi64x((int64_t)0x8040201008040201u);
    __m256i v = _mm256_shuffle_epi8(_mm256_set1_epi32((int32_t)bits), spread);
    return _mm256_cmpeq_epi8(_mm256_and_si256(v, bit), bit);
}

/* Magnitudes of step s, half h with their signs and the bias. */
AVX2_INLINE __m256i with_signs(__m256i v, const uint8_t *signs, int s, int h, __m256i bias)
{
    const __m256i negative = bytes_of_bits(packed_u32(signs + 8 * s + 4 * h));
    return _mm256_add_epi8(_mm256_sub_epi8(_mm256_xor_si256(v, negative), negative), bias);
}

/* u of rows 8 h .. 8 h + 7: magnitudes get their signs and the bias. */
AVX2_INLINE void mark_signs(const uint8_t *signs, int h, __m256i bias, unpacked *out)
{
#pragma GCC unroll 8
    for (int s = 0; s < BLOCK_STEPS; s++) {
        __m256i *u = (__m256i *)(void *)(out->u[s] + 32 * h);
        *u = with_signs(*u, signs, s, h, bias);
    }
}

/* Words of 4 columns are steps as they are: word s of 8 rows from 8 h on. */
AVX2_INLINE __m256i step_words(const uint32_t *book, const uint16_t *index, int s, int h)
{
    const uint16_t *i = index + 64 * (s / 4) + grid_index_at(8, 8 * h, s % 4);
    return _mm256_setr_epi32((int32_t)book[i[0]], (int32_t)book[i[2]], (int32_t)book[i[4]], (int32_t)book[i[6]],
                             (int32_t)book[i[16]], (int32_t)book[i[18]], (int32_t)book[i[20]], (int32_t)book[i[22]]);
}

/* IQ3: all of a block's steps. The magnitudes of IQ3_XXS are even; halved, twice as many products fit into 16 bits. */
AVX2_INLINE void unpack_words(dil_type type, const uint16_t *index, const uint8_t *signs, __m256i bias, unpacked *out)
{
    const bool halves = type == DIL_TYPE_IQ3_XXS;
#pragma GCC unroll 8
    for (int s = 0; s < BLOCK_STEPS; s++)
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            const __m256i v = step_words(halves ? iq3_xxs_grid : iq3_s_grid, index, s, h);
            _mm256_store_si256((__m256i *)(void *)(out->u[s] + 32 * h),
                               with_signs(halves ? _mm256_srli_epi16(v, 1) : v, signs, s, h, bias));
        }
}

/* IQ1: 8 v + 1, or - 1 for the rows of which a bit is set in negative[g]. */
AVX2_INLINE void mark_shifts(const uint16_t negative[4], int h, __m256i bias, unpacked *out)
{
    const __m256i row_bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
#pragma GCC unroll 8
    for (int s = 0; s < BLOCK_STEPS; s++) {
        __m256i *u = (__m256i *)(void *)(out->u[s] + 32 * h), v = *u;
        __m256i rows = _mm256_and_si256(_mm256_set1_epi32(negative[s / 2] >> (8 * h)), row_bit);
        __m256i minus = _mm256_cmpeq_epi32(rows, row_bit);
        v = _mm256_add_epi8(v, v);
        v = _mm256_add_epi8(v, v);
        v = _mm256_add_epi8(v, v);
        v = _mm256_add_epi8(_mm256_add_epi8(v, _mm256_set1_epi8(1)), _mm256_add_epi8(minus, minus));
        *u = _mm256_add_epi8(v, bias);
    }
}

/* s of 8 rows from row 8 h on, of the sub-block i; mask: its bits */
AVX2_INLINE __m256 scale_floats8(grid_form f, const uint8_t *group, int block, int i, int h, int mask)
{
    const uint8_t *p = group + GRID_SCALES + 8 * h + (f.sub == 16 ? 16 * block : block / 2 * 16);
    int shift = f.sub == 16 ? 4 * i : 4 * (block % 2);
    __m256i s = _mm256_srl_epi32(_mm256_cvtepu8_epi32(load_64(p)), _mm_cvtsi32_si128(shift));
    return _mm256_cvtepi32_ps(_mm256_and_si256(s, _mm256_set1_epi32(mask)));
}

/* ws = d (s + 0.5) factor (IQ2, IQ3_XXS) or d (2 s + 1) factor; twice that for the halved values of IQ3_XXS */
AVX2_INLINE void grid_scales(dil_type type, grid_form f, const uint8_t *group, int block, unpacked *out)
{
    bool ternary = type == DIL_TYPE_IQ1_S || type == DIL_TYPE_IQ1_M;
    bool odd = ternary || type == DIL_TYPE_IQ3_S;
    float factor = ternary ? 0.125f : odd || type == DIL_TYPE_IQ3_XXS ? 1.0f : 0.25f;
    for (int i = 0; i < 32 / f.sub; i++) {
        for (int h = 0; h < 2; h++) {
            __m256 s = scale_floats8(f, group, block, i, h, ternary ? 7 : 15);
            __m256 n = odd ? _mm256_add_ps(_mm256_add_ps(s, s), _mm256_set1_ps(1.0f)) : _mm256_add_ps(s, _mm256_set1_ps(0.5f));
            __m256 d = _mm256_cvtph_ps(load_128(group + 16 * h));
            _mm256_store_ps(out->ws[i] + 8 * h, _mm256_mul_ps(_mm256_mul_ps(d, n), _mm256_set1_ps(factor)));
        }
    }
}

AVX2_INLINE void unpack_grid(dil_type type, grid_form f, const uint8_t *group, int block, int bias, unpacked *out)
{
    const uint8_t *p = group + GRID_HEADER(f.sub) + (size_t)block * (size_t)GRID_BLOCK(f.words, f.high, f.marks);
    const uint8_t *marks = p + GRID_MARKS_AT(f.words, f.high);
    uint16_t index[128], negative[4] = {0};
    for (int i = 0; i < f.words / 4; i++)
        full_indices(p + 64 * i, p + GRID_HIGH_AT(f.words) + 8 * i * f.high, f.high, index + 64 * i);
    __asm__("" : "+m"(index)); /* look-ups load their indices: taken out of vectors one by one they cost twice as much */
    if (f.marks == GRID_SHIFTS)
        memcpy(negative, marks, sizeof negative);
    if (type == DIL_TYPE_IQ1_S) { /* bit 3 of the scales, at bit 7 */
        __m128i scales = load_128(group + GRID_SCALES + block / 2 * 16);
        scales = _mm_sll_epi16(scales, _mm_cvtsi32_si128(4 * (1 - block % 2)));
        for (int g = 0; g < 4; g++)
            negative[g] = (uint16_t)_mm_movemask_epi8(scales);
    }
    grid_scales(type, f, group, block, out);
    if (f.words == 8) {
        unpack_words(type, index, marks, _mm256_set1_epi8((char)bias), out);
        return;
    }
    for (int h = 0; h < 2; h++) {
        __m256i v[8];
        for (int r = 0; r < 8; r++)
            v[r] = row_values(type, index, 8 * h + r);
        store_transposed(v, h, out);
        if (f.marks == GRID_SIGNS)
            mark_signs(marks, h, _mm256_set1_epi8((char)bias), out);
        else
            mark_shifts(negative, h, _mm256_set1_epi8((char)bias), out);
    }
}

#define CASE(type, words, high, sub, marks) \
    case DIL_TYPE_##type: unpack_grid(DIL_TYPE_##type, (grid_form){words, high, sub, marks}, group, block, bias, out); break;

void avx2_unpack_grid(dil_type type, const uint8_t *group, int block, int bias, unpacked *out)
{
    switch (type) {
        GRID_TYPES(CASE)
    default: break;
    }
}
