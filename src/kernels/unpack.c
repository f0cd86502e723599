/*
 * Scalar reading of packed panels: quants of 1 to 8 bits and value tables. Bytes are handled four at a time: a 32-bit word holds the 4 columns that one row has in a step.
 */
#include "kernels/unpack.h"

#include "formats/iq_tables.h"

static inline void put_word(unpacked *out, int step, int row, uint32_t word) { memcpy(out->u[step] + 4 * row, &word, sizeof word); }

/* ---- quants ---- */

/* The bytes of one block as they are stored: indices or u. */
static void unpack_quants(int bits, const uint8_t *q, unpacked *out)
{
    for (int step = 0; step < BLOCK_STEPS; step++) {
        const packed_field *f = packed_fields[bits][step];
        for (int row = 0; row < PANEL_ROWS; row++) {
            uint32_t word = 0;
            for (int i = 0; i < STEP_FIELDS && f[i].bits; i++)
                word |= packed_u32(q + f[i].vector * STEP_BYTES + 4 * row) >> f[i].at << f[i].to & packed_mask(f[i]) * 0x01010101u;
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

static inline float half_at(const uint8_t *p, int row) { return f16_to_f32(packed_u16(p + 2 * row)); }

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

/* Q4_K, Q5_K: d, dmin, six sc[8], m[8] */
static void scales_k32(const uint8_t *group, int block, unpacked *out)
{
    for (int row = 0; row < PANEL_ROWS; row++) {
        out->ws[0][row] = half_at(group, row) * (float)packed_six(group + 64, 16, block, row);
        out->nm[0][row] = -(half_at(group + 32, row) * (float)packed_six(group + 64, 16, 8 + block, row));
    }
}

/* Q3_K: d, six sc[16] */
static void scales_q3_k(const uint8_t *group, int block, unpacked *out)
{
    for (int half = 0; half < 2; half++)
        for (int row = 0; row < PANEL_ROWS; row++)
            out->ws[half][row] = half_at(group, row) * (float)((int)packed_six(group + 32, 16, 2 * block + half, row) - 32);
}

/* Q6_K: d, int8 sc[16][16] */
static void scales_k16(const uint8_t *group, int block, unpacked *out)
{
    const uint8_t *sc = group + 32 + 32 * block;
    for (int half = 0; half < 2; half++)
        for (int row = 0; row < PANEL_ROWS; row++)
            out->ws[half][row] = half_at(group, row) * (float)(int8_t)sc[16 * half + row];
}

/* Q2_K: d, dmin, (sc | m << 4)[16][16]; u, the codes, times sc */
static void scales_q2_k(const uint8_t *group, int block, unpacked *out)
{
    const uint8_t *both = group + 64 + 32 * block;
    scales_d(group, out);
    for (int half = 0; half < 2; half++) {
        for (int row = 0; row < PANEL_ROWS; row++) {
            const uint8_t b = both[16 * half + row];
            out->nm[half][row] = -(half_at(group + 32, row) * (float)(b >> 4));
            for (int step = 4 * half; step < 4 * half + 4; step++)
                for (int c = 0; c < 4; c++)
                    out->u[step][4 * row + c] = (uint8_t)(out->u[step][4 * row + c] * (b & 15));
        }
    }
}

/* IQ4_XS: d, six ls[8] */
static void scales_iq4_xs(const uint8_t *group, int block, unpacked *out)
{
    for (int row = 0; row < PANEL_ROWS; row++)
        out->ws[0][row] = half_at(group, row) * (float)((int)packed_six(group + 32, 8, block, row) - 32);
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
    unpack_quants(4, QUANTS(256, 4), out);
}
UNPACK(q5_k)
{
    scales_k32(group, block, out);
    unpack_quants(5, QUANTS(256, 5), out);
}
UNPACK(q6_k)
{
    scales_k16(group, block, out);
    unpack_quants(6, QUANTS(288, 6), out);
}
UNPACK(q3_k)
{
    scales_q3_k(group, block, out);
    unpack_quants(3, QUANTS(224, 3), out);
}
UNPACK(q2_k)
{
    unpack_quants(2, QUANTS(320, 2), out);
    scales_q2_k(group, block, out);
}
UNPACK(d3_0)
{
    scales_d(group, out);
    unpack_quants(3, QUANTS(32, 3), out);
}
UNPACK(d6_0)
{
    scales_d(group, out);
    unpack_quants(6, QUANTS(32, 6), out);
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
    unpack_quants(4, QUANTS(128, 4), out);
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

/* columns, header, bits, sub-block, off, minima */
#define PACKED(type, columns, header, bits, sub, off, n_minima, name) \
    [DIL_TYPE_##type] = {columns, header, (header) + (columns) / 32 * (bits)*64, (bits)*64, bits, sub, off, n_minima, unpack_##name}
/* code words */
#define GRID(type, words, high, sub, marks)                                     \
    [DIL_TYPE_##type] = {GRID_COLUMNS,                                          \
                         GRID_HEADER(sub),                                      \
                         GRID_HEADER(sub) + 8 * GRID_BLOCK(words, high, marks), \
                         GRID_BLOCK(words, high, marks),                        \
                         0,                                                     \
                         sub,                                                   \
                         128,                                                   \
                         0,                                                     \
                         unpack_##type},

static const packed_type packed_types[DIL_TYPE_COUNT] = {PACKED(Q4_0, 32, 32, 4, 32, 8, 0, q4_0),
                                                         PACKED(Q4_1, 32, 64, 4, 32, 0, 1, q4_1),
                                                         PACKED(Q5_0, 32, 32, 5, 32, 16, 0, q5_0),
                                                         PACKED(Q5_1, 32, 64, 5, 32, 0, 1, q5_1),
                                                         PACKED(Q8_0, 32, 32, 8, 32, 128, 0, q8_0),
                                                         PACKED(Q2_K, 256, 320, 2, 32, 0, 2, q2_k),
                                                         PACKED(Q3_K, 256, 224, 3, 16, 4, 0, q3_k),
                                                         PACKED(Q4_K, 256, 256, 4, 32, 0, 1, q4_k),
                                                         PACKED(Q5_K, 256, 256, 5, 32, 0, 1, q5_k),
                                                         PACKED(Q6_K, 256, 288, 6, 16, 32, 0, q6_k),
                                                         PACKED(IQ4_NL, 32, 32, 4, 32, 128, 0, iq4_nl),
                                                         PACKED(IQ4_XS, 256, 128, 4, 32, 128, 0, iq4_xs),
                                                         PACKED(TQ1_0, 256, 32, 2, 32, 1, 0, tq),
                                                         PACKED(TQ2_0, 256, 32, 2, 32, 1, 0, tq),
                                                         PACKED(MXFP4, 32, 16, 4, 32, 128, 0, mxfp4),
                                                         PACKED(NVFP4, 64, 64, 4, 16, 128, 0, nvfp4),
                                                         PACKED(Q1_0, 128, 32, 1, 32, 1, 0, q1_0),
                                                         PACKED(Q2_0, 64, 32, 2, 32, 1, 0, tq),
                                                         PACKED(D3_0, 32, 32, 3, 32, 4, 0, d3_0),
                                                         PACKED(D6_0, 32, 32, 6, 32, 32, 0, d6_0),
                                                         GRID_TYPES(GRID)};

const packed_type *packed_type_get(dil_type type)
{
    if ((unsigned)type >= DIL_TYPE_COUNT || packed_types[type].columns == 0)
        return NULL;
    return &packed_types[type];
}
