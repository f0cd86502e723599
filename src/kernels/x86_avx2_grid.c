/*
 * IQ1, IQ2, IQ3 in AVX2: for each row the 32 columns of a block as one vector, from four code words of 8 columns with their
 * signs; 8 such rows are turned into 8 steps by an 8x8 transpose of groups of 4 columns. Layouts: formats/iquants.c.
 */
#include "formats/iq_tables.h"
#include "kernels/x86_avx2.h"

/* Block b of one row: code words and signs (a byte each of 8 columns), scales of its sub-blocks. */
typedef struct code_words {
    uint64_t entry[4];
    uint32_t
        signs; /* bit 8 g + k: column k of word g is negative; IQ1: bit 8 g: the shift of word g is negative */
    float ws[2];
} code_words;

AVX2_INLINE float half_float(const uint8_t *p) { return _cvtsh_ss(packed_u16(p)); }

AVX2_INLINE unsigned nibble_at(const uint8_t *p, int j)
{
    return (unsigned)p[j / 2] >> (j % 2 * 4) & 15u;
}

/* Signs of IQ2_XXS and IQ3_XXS: four indices of 7 bits. */
AVX2_INLINE uint32_t signs_of_word(uint32_t word)
{
    uint32_t signs = 0;
    for (int g = 0; g < 4; g++)
        signs |= (uint32_t)iq_signs[word >> (7 * g) & 127] << (8 * g);
    return signs;
}

AVX2_INLINE void read_iq2_xxs(const uint8_t *p, int b, code_words *out)
{
    const uint8_t *part = p + 2 + 8 * b;
    uint32_t word = packed_u32(part + 4);
    out->ws[0] = half_float(p) * (0.5f + (float)(word >> 28)) * 0.25f;
    out->signs = signs_of_word(word);
    for (int g = 0; g < 4; g++)
        out->entry[g] = iq2_xxs_grid[part[g]];
}

/* ws of two sub-blocks from nibbles: d (0.5 + s) / 4 */
AVX2_INLINE void read_iq2_scales(const uint8_t *p, int scales_at, int b, code_words *out)
{
    float d = half_float(p);
    for (int i = 0; i < 2; i++)
        out->ws[i] = d * (0.5f + (float)nibble_at(p + scales_at, 2 * b + i)) * 0.25f;
}

AVX2_INLINE void read_iq2_xs(const uint8_t *p, int b, code_words *out)
{
    read_iq2_scales(p, 66, b, out);
    out->signs = 0;
    for (int g = 0; g < 4; g++) {
        unsigned both = packed_u16(p + 2 + 2 * (4 * b + g));
        out->entry[g] = iq2_xs_grid[both & 511];
        out->signs |= (uint32_t)iq_signs[both >> 9] << (8 * g);
    }
}

AVX2_INLINE void read_iq2_s(const uint8_t *p, int b, code_words *out)
{
    read_iq2_scales(p, 74, b, out);
    out->signs = packed_u32(p + 34 + 4 * b);
    for (int g = 0; g < 4; g++)
        out->entry[g] = iq2_s_grid[p[2 + 4 * b + g] | (p[66 + b] >> (2 * g) & 3u) << 8];
}

AVX2_INLINE void read_iq3_xxs(const uint8_t *p, int b, code_words *out)
{
    const uint8_t *index = p + 2 + 8 * b;
    uint32_t word = packed_u32(p + 66 + 4 * b);
    out->ws[0] = half_float(p) * (0.5f + (float)(word >> 28)) * 0.5f;
    out->signs = signs_of_word(word);
    for (int g = 0; g < 4; g++)
        out->entry[g] = iq3_xxs_grid[index[2 * g]] | (uint64_t)iq3_xxs_grid[index[2 * g + 1]] << 32;
}

AVX2_INLINE void read_iq3_s(const uint8_t *p, int b, code_words *out)
{
    const uint8_t *index = p + 2 + 8 * b;
    unsigned high = p[66 + b];
    out->ws[0] = half_float(p) * (float)(1 + 2 * nibble_at(p + 106, b));
    out->signs = packed_u32(p + 74 + 4 * b);
    for (int g = 0; g < 4; g++) {
        uint64_t first = iq3_s_grid[index[2 * g] | (high >> (2 * g) & 1u) << 8];
        uint64_t second = iq3_s_grid[index[2 * g + 1] | (high >> (2 * g + 1) & 1u) << 8];
        out->entry[g] = first | second << 32;
    }
}

AVX2_INLINE void read_iq1_s(const uint8_t *p, int b, code_words *out)
{
    unsigned word = packed_u16(p + 34 + 2 * b);
    out->ws[0] = half_float(p) * (float)(2 * (word >> 12 & 7) + 1) * 0.125f;
    out->signs = word >> 15 ? 0x01010101u : 0;
    for (int g = 0; g < 4; g++)
        out->entry[g] = iq1_grid[p[2 + 4 * b + g] | (word >> (3 * g) & 7) << 8];
}

AVX2_INLINE void read_iq1_m(const uint8_t *p, int b, code_words *out)
{
    /* d: the top nibbles of the four scale words, lowest first */
    unsigned h = 0;
    for (int i = 0; i < 4; i++)
        h |= (unsigned)(p[49 + 2 * i] >> 4) << (4 * i);
    unsigned word = packed_u16(p + 48 + b / 2 * 2), high = packed_u16(p + 32 + 2 * b);
    float d = _cvtsh_ss((uint16_t)h);
    out->signs = 0;
    for (int i = 0; i < 2; i++)
        out->ws[i] = d * (float)(2 * (word >> (3 * (2 * (b % 2) + i)) & 7) + 1) * 0.125f;
    for (int g = 0; g < 4; g++) {
        out->entry[g] = iq1_grid[p[4 * b + g] | (high >> (4 * g) & 7) << 8];
        out->signs |= (uint32_t)(high >> (4 * g + 3) & 1) << (8 * g);
    }
}

AVX2_INLINE void read_row(dil_type type, const uint8_t *p, int b, code_words *out)
{
    switch (type) {
    case DIL_TYPE_IQ2_XXS: read_iq2_xxs(p, b, out); break;
    case DIL_TYPE_IQ2_XS: read_iq2_xs(p, b, out); break;
    case DIL_TYPE_IQ2_S: read_iq2_s(p, b, out); break;
    case DIL_TYPE_IQ3_XXS: read_iq3_xxs(p, b, out); break;
    case DIL_TYPE_IQ3_S: read_iq3_s(p, b, out); break;
    case DIL_TYPE_IQ1_S: read_iq1_s(p, b, out); break;
    default: read_iq1_m(p, b, out); break;
    }
}

/* Byte 8 g + k: 0xff where bit 8 g + k of signs is set. */
AVX2_INLINE __m256i sign_bytes(uint32_t signs)
{
    __m256i spread =
        _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    __m256i bit = _mm256_set1_epi64x((int64_t)0x8040201008040201u);
    __m256i v = _mm256_shuffle_epi8(_mm256_set1_epi32((int32_t)signs), spread);
    return _mm256_cmpeq_epi8(_mm256_and_si256(v, bit), bit);
}

/* u of 32 columns with the bias added. */
AVX2_INLINE __m256i row_bytes(dil_type type, const code_words *c, __m256i bias)
{
    __m256i v = load_256(c->entry);
    if (type == DIL_TYPE_IQ1_S || type == DIL_TYPE_IQ1_M) {
        /* 8 grid + 1, or - 1 where the word's bit is set */
        __m256i spread =
            _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
        __m256i negative = _mm256_shuffle_epi8(_mm256_set1_epi32((int32_t)c->signs), spread);
        v = _mm256_add_epi8(v, v);
        v = _mm256_add_epi8(v, v);
        v = _mm256_add_epi8(v, v);
        v = _mm256_sub_epi8(_mm256_add_epi8(v, _mm256_set1_epi8(1)),
                            _mm256_add_epi8(negative, negative));
    } else {
        __m256i negative = sign_bytes(c->signs);
        v = _mm256_sub_epi8(_mm256_xor_si256(v, negative), negative);
    }
    return _mm256_add_epi8(v, bias);
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
        _mm256_store_si256((__m256i *)(void *)(out->u[s] + 32 * h),
                           _mm256_permute2x128_si256(b[s], b[s + 4], 0x20));
        _mm256_store_si256((__m256i *)(void *)(out->u[s + 4] + 32 * h),
                           _mm256_permute2x128_si256(b[s], b[s + 4], 0x31));
    }
}

AVX2_INLINE void unpack_grid(dil_type type, const uint8_t *group, size_t row_size, int block,
                             int bias, unpacked *out)
{
    __m256i bias_bytes = _mm256_set1_epi8((char)bias);
    for (int h = 0; h < 2; h++) {
        __m256i v[8];
        for (int r = 0; r < 8; r++) {
            int row = 8 * h + r;
            code_words c = {{0}, 0, {0}};
            read_row(type, group + (size_t)row * row_size, block, &c);
            v[r] = row_bytes(type, &c, bias_bytes);
            out->ws[0][row] = c.ws[0];
            out->ws[1][row] = c.ws[1];
        }
        store_transposed(v, h, out);
    }
}

void avx2_unpack_grid(dil_type type, const uint8_t *group, int block, int bias, unpacked *out)
{
    switch (type) {
    case DIL_TYPE_IQ2_XXS: unpack_grid(DIL_TYPE_IQ2_XXS, group, 66, block, bias, out); break;
    case DIL_TYPE_IQ2_XS: unpack_grid(DIL_TYPE_IQ2_XS, group, 74, block, bias, out); break;
    case DIL_TYPE_IQ2_S: unpack_grid(DIL_TYPE_IQ2_S, group, 82, block, bias, out); break;
    case DIL_TYPE_IQ3_XXS: unpack_grid(DIL_TYPE_IQ3_XXS, group, 98, block, bias, out); break;
    case DIL_TYPE_IQ3_S: unpack_grid(DIL_TYPE_IQ3_S, group, 110, block, bias, out); break;
    case DIL_TYPE_IQ1_S: unpack_grid(DIL_TYPE_IQ1_S, group, 50, block, bias, out); break;
    default: unpack_grid(DIL_TYPE_IQ1_M, group, 56, block, bias, out); break;
    }
}
