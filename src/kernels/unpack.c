/*
 * Scalar reading of packed panels: quants of 1 to 8 bits, code books, and the IQ1, IQ2, IQ3 rows. Bytes are handled four at a
 * time: a 32-bit word holds the 4 columns that one row has in a step.
 */
#include "kernels/unpack.h"

#include "formats/iq_tables.h"

static inline void put_word(unpacked *out, int step, int row, uint32_t word)
{
    memcpy(out->u[step] + 4 * row, &word, sizeof word);
}

/* ---- quants ---- */

static inline uint32_t plane4_word(const uint8_t *q, int step, int row)
{
    return packed_u32(q + (step & 3) * STEP_BYTES + 4 * row) >> (step >> 2) * 4 & 0x0f0f0f0fu;
}

static inline uint32_t plane2_word(const uint8_t *q, int step, int row)
{
    return packed_u32(q + (step >> 2) * STEP_BYTES + 4 * row) >> (step & 3) * 2 & 0x03030303u;
}

static inline uint32_t plane1_word(const uint8_t *q, int step, int row)
{
    return packed_u32(q + 4 * row) >> step & 0x01010101u;
}

/* The bytes of one block as they are stored: indices or u. */
static void unpack_quants(int bits, const uint8_t *q, unpacked *out)
{
    if (bits == 8) {
        memcpy(out->u, q, sizeof out->u);
        return;
    }
    for (int step = 0; step < BLOCK_STEPS; step++) {
        for (int row = 0; row < PANEL_ROWS; row++) {
            uint32_t word = 0;
            switch (bits) {
            case 1: word = plane1_word(q, step, row); break;
            case 2: word = plane2_word(q, step, row); break;
            case 3: word = plane2_word(q, step, row) | plane1_word(q + 128, step, row) << 2; break;
            case 4: word = plane4_word(q, step, row); break;
            case 5: word = plane4_word(q, step, row) | plane1_word(q + 256, step, row) << 4; break;
            case 6: word = plane4_word(q, step, row) | plane2_word(q + 256, step, row) << 4; break;
            default: break;
            }
            put_word(out, step, row, word);
        }
    }
}

/* Replaces 4-bit indices by values of a code book, shifted by 128. */
static void look_up(const int8_t *values, unpacked *out)
{
    uint8_t *u = out->u[0];
    for (int i = 0; i < BLOCK_STEPS * STEP_BYTES; i++)
        u[i] = (uint8_t)(values[u[i] & 15] + 128);
}

/* ---- scales ---- */

static inline float half_at(const uint8_t *p, int row)
{
    return f16_to_f32(packed_u16(p + 2 * row));
}

/* d of every row */
static void scales_d(const uint8_t *group, unpacked *out)
{
    for (int row = 0; row < PANEL_ROWS; row++)
        out->ws[0][row] = half_at(group, row);
}

/* d and m of every row */
static void scales_d_m(const uint8_t *group, unpacked *out)
{
    scales_d(group, out);
    for (int row = 0; row < PANEL_ROWS; row++)
        out->nm[0][row] = half_at(group + 32, row);
}

/* Q4_K, Q5_K: d, dmin, sc[8][16], m[8][16] */
static void scales_k32(const uint8_t *group, int block, unpacked *out)
{
    const uint8_t *sc = group + 64 + 16 * block, *m = group + 192 + 16 * block;
    for (int row = 0; row < PANEL_ROWS; row++) {
        out->ws[0][row] = half_at(group, row) * (float)sc[row];
        out->nm[0][row] = -(half_at(group + 32, row) * (float)m[row]);
    }
}

/* Q6_K, Q3_K: d, int8 sc[16][16] */
static void scales_k16(const uint8_t *group, int block, unpacked *out)
{
    const uint8_t *sc = group + 32 + 32 * block;
    for (int half = 0; half < 2; half++)
        for (int row = 0; row < PANEL_ROWS; row++)
            out->ws[half][row] = half_at(group, row) * (float)(int8_t)sc[16 * half + row];
}

/* Q2_K: d, dmin, (sc | m << 4)[16][16] */
static void scales_q2_k(const uint8_t *group, int block, unpacked *out)
{
    const uint8_t *both = group + 64 + 32 * block;
    for (int half = 0; half < 2; half++) {
        for (int row = 0; row < PANEL_ROWS; row++) {
            uint8_t b = both[16 * half + row];
            out->ws[half][row] = half_at(group, row) * (float)(b & 15);
            out->nm[half][row] = -(half_at(group + 32, row) * (float)(b >> 4));
        }
    }
}

/* IQ4_XS: d, int8 ls[8][16] */
static void scales_iq4_xs(const uint8_t *group, int block, unpacked *out)
{
    const uint8_t *ls = group + 32 + 16 * block;
    for (int row = 0; row < PANEL_ROWS; row++)
        out->ws[0][row] = half_at(group, row) * (float)(int8_t)ls[row];
}

/* ---- one function per type ---- */

#define UNPACK(name) static void unpack_##name(const uint8_t *group, int block, unpacked *out)
#define QUANTS(header, bits) ((group) + (header) + (block) * (bits)*64)

UNPACK(q4_0)
{
    scales_d(group, out);
    unpack_quants(4, QUANTS(32, 4), out);
}
UNPACK(q5_0)
{
    scales_d(group, out);
    unpack_quants(5, QUANTS(32, 5), out);
}
UNPACK(q8_0)
{
    scales_d(group, out);
    unpack_quants(8, QUANTS(32, 8), out);
}
UNPACK(q4_1)
{
    scales_d_m(group, out);
    unpack_quants(4, QUANTS(64, 4), out);
}
UNPACK(q5_1)
{
    scales_d_m(group, out);
    unpack_quants(5, QUANTS(64, 5), out);
}
UNPACK(q4_k)
{
    scales_k32(group, block, out);
    unpack_quants(4, QUANTS(320, 4), out);
}
UNPACK(q5_k)
{
    scales_k32(group, block, out);
    unpack_quants(5, QUANTS(320, 5), out);
}
UNPACK(q6_k)
{
    scales_k16(group, block, out);
    unpack_quants(6, QUANTS(288, 6), out);
}
UNPACK(q3_k)
{
    scales_k16(group, block, out);
    unpack_quants(3, QUANTS(288, 3), out);
}
UNPACK(q2_k)
{
    scales_q2_k(group, block, out);
    unpack_quants(2, QUANTS(320, 2), out);
}
UNPACK(tq)
{
    scales_d(group, out);
    unpack_quants(2, QUANTS(32, 2), out);
} /* TQ1_0, TQ2_0, Q2_0 */

UNPACK(q1_0) /* the stored bit b stands for 2 b - 1 */
{
    scales_d(group, out);
    unpack_quants(1, QUANTS(32, 1), out);
    uint8_t *u = out->u[0];
    for (int i = 0; i < BLOCK_STEPS * STEP_BYTES; i++)
        u[i] = (uint8_t)(2 * u[i]);
}

UNPACK(iq4_nl)
{
    scales_d(group, out);
    unpack_quants(4, QUANTS(32, 4), out);
    look_up(iq4_values, out);
}

UNPACK(iq4_xs)
{
    scales_iq4_xs(group, block, out);
    unpack_quants(4, QUANTS(160, 4), out);
    look_up(iq4_values, out);
}

UNPACK(mxfp4)
{
    for (int row = 0; row < PANEL_ROWS; row++)
        out->ws[0][row] = e8m0_to_f32_half(group[row]);
    unpack_quants(4, QUANTS(16, 4), out);
    look_up(fp4_values, out);
}

UNPACK(nvfp4)
{
    const uint8_t *sc = group + 32 * block;
    for (int half = 0; half < 2; half++)
        for (int row = 0; row < PANEL_ROWS; row++)
            out->ws[half][row] = ue4m3_to_f32(sc[16 * half + row]);
    unpack_quants(4, QUANTS(64, 4), out);
    look_up(fp4_values, out);
}

/* ---- IQ1, IQ2, IQ3: 16 blocks of 256 values, one per row; layouts in formats/iquants.c ---- */

static inline unsigned nibble_at(const uint8_t *p, int j)
{
    return (unsigned)p[j / 2] >> (j % 2 * 4) & 15u;
}

/* Bits of an IQ1_M block's f16 scale: the top nibbles of its four scale words, lowest first. */
static inline float iq1_m_scale(const uint8_t *scales)
{
    unsigned h = 0;
    for (int k = 0; k < 4; k++)
        h |= (unsigned)(packed_u16(scales + 2 * k) >> 12) << (4 * k);
    return f16_to_f32((uint16_t)h);
}

/* Eight columns from column 8 * group8 of the block: magnitudes of a code word, negative where signs has a bit; off 128. */
static inline void put_grid8(unpacked *out, int row, int group8, uint64_t entry, unsigned signs)
{
    uint8_t u[8];
    for (int k = 0; k < 8; k++) {
        int v = (int)(entry >> (8 * k) & 255);
        u[k] = (uint8_t)(128 + (signs >> k & 1 ? -v : v));
    }
    memcpy(out->u[2 * group8] + 4 * row, u, 4);
    memcpy(out->u[2 * group8 + 1] + 4 * row, u + 4, 4);
}

/* Eight columns of IQ1: 8 * grid + 1 or - 1. */
static inline void put_ternary8(unpacked *out, int row, int group8, uint64_t entry, bool negative)
{
    uint8_t u[8];
    for (int k = 0; k < 8; k++)
        u[k] = (uint8_t)(128 + 8 * (int8_t)(entry >> (8 * k) & 255) + (negative ? -1 : 1));
    memcpy(out->u[2 * group8] + 4 * row, u, 4);
    memcpy(out->u[2 * group8 + 1] + 4 * row, u + 4, 4);
}

UNPACK(iq2_xxs)
{
    for (int row = 0; row < PANEL_ROWS; row++) {
        const uint8_t *p = group + 66 * row, *part = p + 2 + 8 * block;
        uint32_t word = packed_u32(part + 4);
        out->ws[0][row] = half_at(p, 0) * (0.5f + (float)(word >> 28)) * 0.25f;
        for (int g = 0; g < 4; g++)
            put_grid8(out, row, g, iq2_xxs_grid[part[g]], iq_signs[word >> (7 * g) & 127]);
    }
}

UNPACK(iq2_xs)
{
    for (int row = 0; row < PANEL_ROWS; row++) {
        const uint8_t *p = group + 74 * row;
        for (int half = 0; half < 2; half++) {
            float s = (float)nibble_at(p + 66, 2 * block + half);
            out->ws[half][row] = half_at(p, 0) * (0.5f + s) * 0.25f;
        }
        for (int g = 0; g < 4; g++) {
            unsigned both = packed_u16(p + 2 + 2 * (4 * block + g));
            put_grid8(out, row, g, iq2_xs_grid[both & 511], iq_signs[both >> 9]);
        }
    }
}

UNPACK(iq2_s)
{
    for (int row = 0; row < PANEL_ROWS; row++) {
        const uint8_t *p = group + 82 * row;
        for (int half = 0; half < 2; half++) {
            float s = (float)nibble_at(p + 74, 2 * block + half);
            out->ws[half][row] = half_at(p, 0) * (0.5f + s) * 0.25f;
        }
        for (int g = 0; g < 4; g++) {
            unsigned high = p[66 + block] >> (2 * g) & 3u, index = p[2 + 4 * block + g] | high << 8;
            put_grid8(out, row, g, iq2_s_grid[index], p[34 + 4 * block + g]);
        }
    }
}

UNPACK(iq3_xxs)
{
    for (int row = 0; row < PANEL_ROWS; row++) {
        const uint8_t *p = group + 98 * row, *index = p + 2 + 8 * block;
        uint32_t word = packed_u32(p + 66 + 4 * block);
        out->ws[0][row] = half_at(p, 0) * (0.5f + (float)(word >> 28)) * 0.5f;
        for (int g = 0; g < 4; g++) {
            uint64_t entry = iq3_xxs_grid[index[2 * g]] | (uint64_t)iq3_xxs_grid[index[2 * g + 1]]
                                                              << 32;
            put_grid8(out, row, g, entry, iq_signs[word >> (7 * g) & 127]);
        }
    }
}

UNPACK(iq3_s)
{
    for (int row = 0; row < PANEL_ROWS; row++) {
        const uint8_t *p = group + 110 * row, *index = p + 2 + 8 * block;
        unsigned high = p[66 + block];
        out->ws[0][row] = half_at(p, 0) * (float)(1 + 2 * nibble_at(p + 106, block));
        for (int g = 0; g < 4; g++) {
            uint64_t first = iq3_s_grid[index[2 * g] | (high >> (2 * g) & 1u) << 8];
            uint64_t second = iq3_s_grid[index[2 * g + 1] | (high >> (2 * g + 1) & 1u) << 8];
            put_grid8(out, row, g, first | second << 32, p[74 + 4 * block + g]);
        }
    }
}

UNPACK(iq1_s)
{
    for (int row = 0; row < PANEL_ROWS; row++) {
        const uint8_t *p = group + 50 * row;
        unsigned word = packed_u16(p + 34 + 2 * block);
        out->ws[0][row] = half_at(p, 0) * (float)(2 * (word >> 12 & 7) + 1) * 0.125f;
        for (int g = 0; g < 4; g++) {
            unsigned index = p[2 + 4 * block + g] | (word >> (3 * g) & 7) << 8;
            put_ternary8(out, row, g, iq1_grid[index], word >> 15);
        }
    }
}

UNPACK(iq1_m)
{
    for (int row = 0; row < PANEL_ROWS; row++) {
        const uint8_t *p = group + 56 * row, *scales = p + 48;
        float d = iq1_m_scale(scales);
        unsigned word = packed_u16(scales + block / 2 * 2);
        for (int half = 0; half < 2; half++) {
            unsigned s = word >> (3 * (2 * (block % 2) + half)) & 7;
            out->ws[half][row] = d * (float)(2 * s + 1) * 0.125f;
        }
        for (int g = 0; g < 4; g++) {
            unsigned high = nibble_at(p + 32, 4 * block + g), index = p[4 * block + g] | (high & 7)
                                                                                             << 8;
            put_ternary8(out, row, g, iq1_grid[index], high >> 3);
        }
    }
}

/* columns, header, bits, sub-block, off, minimum */
#define PACKED(type, columns, header, bits, sub, off, has_min, name)                \
    [DIL_TYPE_##type] = {columns,   header,  (header) + (columns) / 32 * (bits)*64, \
                         (bits)*64, bits,    sub,                                   \
                         off,       has_min, unpack_##name}
/* 16 blocks of 256 values of `bytes` bytes */
#define RAW(type, bytes, sub, name) \
    [DIL_TYPE_##type] = {256, 0, 16 * (bytes), 0, 0, sub, 128, false, unpack_##name}

static const packed_type packed_types[DIL_TYPE_COUNT] = {
    PACKED(Q4_0, 32, 32, 4, 32, 8, false, q4_0),
    PACKED(Q4_1, 32, 64, 4, 32, 0, true, q4_1),
    PACKED(Q5_0, 32, 32, 5, 32, 16, false, q5_0),
    PACKED(Q5_1, 32, 64, 5, 32, 0, true, q5_1),
    PACKED(Q8_0, 32, 32, 8, 32, 128, false, q8_0),
    PACKED(Q2_K, 256, 320, 2, 16, 0, true, q2_k),
    PACKED(Q3_K, 256, 288, 3, 16, 4, false, q3_k),
    PACKED(Q4_K, 256, 320, 4, 32, 0, true, q4_k),
    PACKED(Q5_K, 256, 320, 5, 32, 0, true, q5_k),
    PACKED(Q6_K, 256, 288, 6, 16, 32, false, q6_k),
    PACKED(IQ4_NL, 32, 32, 4, 32, 128, false, iq4_nl),
    PACKED(IQ4_XS, 256, 160, 4, 32, 128, false, iq4_xs),
    PACKED(TQ1_0, 256, 32, 2, 32, 1, false, tq),
    PACKED(TQ2_0, 256, 32, 2, 32, 1, false, tq),
    PACKED(MXFP4, 32, 16, 4, 32, 128, false, mxfp4),
    PACKED(NVFP4, 64, 64, 4, 16, 128, false, nvfp4),
    PACKED(Q1_0, 128, 32, 1, 32, 1, false, q1_0),
    PACKED(Q2_0, 64, 32, 2, 32, 1, false, tq),
    RAW(IQ1_S, 50, 32, iq1_s),
    RAW(IQ1_M, 56, 16, iq1_m),
    RAW(IQ2_XXS, 66, 32, iq2_xxs),
    RAW(IQ2_XS, 74, 16, iq2_xs),
    RAW(IQ2_S, 82, 16, iq2_s),
    RAW(IQ3_XXS, 98, 32, iq3_xxs),
    RAW(IQ3_S, 110, 32, iq3_s),
};

const packed_type *packed_type_get(dil_type type)
{
    if ((unsigned)type >= DIL_TYPE_COUNT || packed_types[type].columns == 0)
        return NULL;
    return &packed_types[type];
}
