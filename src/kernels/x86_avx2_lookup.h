/*
 * How AVX2 reads the blocks of IQ1, IQ2 and IQ3 (grid.h): the weights of a step, looked up in the order in which they are multiplied.
 * A look-up is two loads, and that is what these types take; what is done with the weights fits in between.
 */
#ifndef KERNELS_X86_AVX2_LOOKUP_H
#define KERNELS_X86_AVX2_LOOKUP_H

#include "formats/iq_tables.h"
#include "kernels/x86_avx2.h"

/* Where the fields of a block lie. */
typedef struct grid_form {
    int words, high, sub, marks;
} grid_form;

/* One block of 32 columns. */
typedef struct grid_block {
    const uint8_t *low;   /* indices of code words where 8 bits are all */
    uint16_t full[128];   /* else the indices in full */
    uint16_t negative[4]; /* IQ1: bit row set where the shift of word g is negative */
} grid_block;

/* A constant of the type. */
AVX2_INLINE grid_form grid_form_of(dil_type type)
{
#define CASE(name, words, high, sub, marks) \
    case DIL_TYPE_##name: return (grid_form){words, high, sub, marks};
    switch (type) {
        GRID_TYPES(CASE)
    default: return (grid_form){4, 0, 32, 0};
    }
#undef CASE
}

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

/* Where a block's signs or shifts are. */
AVX2_INLINE int grid_marks_at(dil_type type) { return GRID_MARKS_AT(grid_form_of(type).words, grid_form_of(type).high); }

/* Block `block` of a group, its fields from p on. */
AVX2_INLINE void grid_start(dil_type type, const uint8_t *group, int block, const uint8_t *p, grid_block *out)
{
    const grid_form f = grid_form_of(type);
    out->low = p;
    for (int i = 0; f.high && i < f.words / 4; i++)
        full_indices(p + 64 * i, p + GRID_HIGH_AT(f.words) + 8 * i * f.high, f.high, out->full + 64 * i);
    __asm__("" : "+m"(out->full)); /* look-ups load their indices: taken out of vectors one by one they cost twice as much */
    if (f.marks == GRID_SHIFTS)
        memcpy(out->negative, p + grid_marks_at(type), sizeof out->negative);
    if (type == DIL_TYPE_IQ1_S) { /* bit 3 of the scales, at bit 7 */
        __m128i scales = load_128(group + GRID_SCALES + block / 2 * 16);
        scales = _mm_sll_epi16(scales, _mm_cvtsi32_si128(4 * (1 - block % 2)));
        for (int g = 0; g < 4; g++)
            out->negative[g] = (uint16_t)_mm_movemask_epi8(scales);
    }
}

AVX2_INLINE unsigned index_at(grid_form f, const grid_block *b, int i) { return f.high ? b->full[i] : b->low[i]; }

/* Words of 4 columns are steps as they are: word s of 8 rows from 8 h on. */
AVX2_INLINE __m256i step_of_words4(const uint32_t *book, grid_form f, const grid_block *b, int s, int h)
{
    const int first = 64 * (s / 4) + grid_index_at(8, 8 * h, s % 4);
    int32_t word[8];
#pragma GCC unroll 8
    for (int r = 0; r < 8; r++)
        word[r] = (int32_t)book[index_at(f, b, first + 16 * (r / 4) + 2 * (r % 4))];
    return _mm256_setr_epi32(word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7]);
}

/* Steps 2 g and 2 g + 1 are the halves of word g of each row. */
AVX2_INLINE __m256i step_of_words8(const uint64_t *book, grid_form f, const grid_block *b, int s, int h)
{
    int64_t word[8];
#pragma GCC unroll 8
    for (int r = 0; r < 8; r++)
        word[r] = (int64_t)book[index_at(f, b, grid_index_at(4, 8 * h + r, s / 2))];
    const __m256 first = _mm256_castsi256_ps(_mm256_setr_epi64x(word[0], word[1], word[4], word[5]));
    const __m256 second = _mm256_castsi256_ps(_mm256_setr_epi64x(word[2], word[3], word[6], word[7]));
    return _mm256_castps_si256(s % 2 ? _mm256_shuffle_ps(first, second, 0xdd) : _mm256_shuffle_ps(first, second, 0x88));
}

/* IQ1: 9 + 8 v + 1, or - 1 for the rows of which a bit is set in negative[s / 2]. */
AVX2_INLINE __m256i shifted_step(__m256i v, const grid_block *b, int s, int h)
{
    const __m256i row_bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i rows = _mm256_and_si256(_mm256_set1_epi32(b->negative[s / 2] >> (8 * h)), row_bit);
    const __m256i minus = _mm256_cmpeq_epi32(rows, row_bit);
    v = _mm256_add_epi8(v, v);
    v = _mm256_add_epi8(v, v);
    v = _mm256_add_epi8(v, v);
    return _mm256_add_epi8(_mm256_add_epi8(v, _mm256_set1_epi8(10)), _mm256_add_epi8(minus, minus));
}

/* Step s, half h of the rows. IQ2, IQ3: magnitudes; IQ1: 9 + w. */
AVX2_INLINE __m256i grid_of_step(dil_type type, const grid_block *b, int s, int h)
{
    const grid_form f = grid_form_of(type);
    if (f.words == 8)
        return step_of_words4(type == DIL_TYPE_IQ3_XXS ? iq3_xxs_grid : iq3_s_grid, f, b, s, h);
    const __m256i v = step_of_words8(book_of(type), f, b, s, h);
    return f.marks == GRID_SIGNS ? v : shifted_step(v, b, s, h);
}

/* Scales of the sub-block i, half h of the rows: d (s + 0.5) factor (IQ2, IQ3_XXS) or d (2 s + 1) factor. */
AVX2_INLINE __m256 grid_scale(dil_type type, const uint8_t *group, int block, int i, int h)
{
    const grid_form f = grid_form_of(type);
    const bool ternary = f.marks != GRID_SIGNS, odd = ternary || type == DIL_TYPE_IQ3_S;
    const float factor = ternary ? 0.125f : odd ? 1.0f : type == DIL_TYPE_IQ3_XXS ? 0.5f : 0.25f;
    const uint8_t *p = group + GRID_SCALES + 8 * h + (f.sub == 16 ? 16 * block : block / 2 * 16);
    const int shift = f.sub == 16 ? 4 * i : 4 * (block % 2);
    __m256i bits = _mm256_srl_epi32(_mm256_cvtepu8_epi32(load_64(p)), _mm_cvtsi32_si128(shift));
    const __m256 s = _mm256_cvtepi32_ps(_mm256_and_si256(bits, _mm256_set1_epi32(ternary ? 7 : 15)));
    const __m256 n = odd ? _mm256_add_ps(_mm256_add_ps(s, s), _mm256_set1_ps(1.0f)) : _mm256_add_ps(s, _mm256_set1_ps(0.5f));
    return _mm256_mul_ps(_mm256_mul_ps(_mm256_cvtph_ps(load_128(group + 16 * h)), n), _mm256_set1_ps(factor));
}

#endif
