/*
 * Layout of packed weights. A panel holds PANEL_ROWS = 16 rows; lane r of a vector is row r. It is a run of groups, one per
 * block (32 columns) or super-block (256 columns) of the type, each: scales of the 16 rows, then the quants of its 32-column
 * blocks. Within a 32-column block, "step" s = 0..7 is the 64 bytes [16 rows][4 columns 4s..4s+3]: what one int8 dot-product
 * instruction takes. Sizes stay within 1.07x of the GGUF's, but for TQ1_0, whose base-3 digits become 2 bits (1.22x).
 *
 * Codes of b bits of a 32-column block lie in b vectors of 64 bytes, as packed_fields says: as many steps as fit lie whole in
 * the low bits of a vector, the others are put together from the bits left over. 8 bits: u = q + 128.
 *
 * Groups (f16 d[16] means 16 little-endian halves, one per row):
 *   Q4_0 Q5_0 Q8_0 IQ4_NL  32:  f16 d[16]; quants                      off 8, 16, 128; IQ4_NL: table index
 *   Q4_1 Q5_1              32:  f16 d[16]; f16 m[16]; quants           off 0
 *   MXFP4                  32:  u8 e[16] (e8m0); quants (table index)
 *   NVFP4                  64:  u8 ue4m3[4][16] per 16 columns; quants (table index) of 2 blocks
 *   Q4_K Q5_K             256:  f16 d[16]; f16 dmin[16]; six sc[8], m[8]; quants                off 0
 *   Q6_K                  256:  f16 d[16]; i8 sc[16][16] per 16 columns; quants                 off 32
 *   Q3_K                  256:  f16 d[16]; six sc[16] per 16 columns, plus 32; quants           off 4
 *   Q2_K                  256:  f16 d[16]; f16 dmin[16]; u8 sc|m<<4 [16][16] per 16 columns; quants   u = code * sc, off 0
 *   IQ4_XS                256:  f16 d[16]; six ls[8], plus 32; quants (table index)
 *   TQ1_0 TQ2_0           256:  f16 d[16]; 2-bit quants                                         off 1
 *   Q1_0, Q2_0                  as their blocks: f16 d[16]; 1-bit or 2-bit quants
 * "six" are n lists of 16 rows of 6-bit numbers in 12 n bytes: the first 3 n / 4 in the low bits of [3 n / 4][16] bytes; of those
 * left, number k in bits 6 and 7 of the rows of bytes k, k + n / 4, k + n / 2, lowest first. Not a byte more than in the file.
 *   IQ1_* IQ2_* IQ3_*     256:  code words and signs, field by field: grid.h
 * F32:  float [k][16].  F16, BF16: u16 [ceil(k/2)][16][2] (two columns side by side, as the bf16 dot product takes them; an
 * odd last column is padded with zero).
 * Table-index types: u = table value + 128 (int8 tables of formats/iq_tables.h), off 128. IQ1: u from 8 * grid + delta (+-1), ws / 8.
 */
#ifndef KERNELS_PACKED_H
#define KERNELS_PACKED_H

#include "kernels/kernels.h"

/* Number `list` of n lists of six-bit numbers, of one row. */
static inline unsigned packed_six(const uint8_t *p, int n, int list, int row)
{
    int whole = 3 * n / 4, k = list - whole, third = n / 4;
    if (k < 0)
        return p[16 * list + row] & 63u;
    return (unsigned)p[16 * k + row] >> 6 | (unsigned)p[16 * (k + third) + row] >> 6 << 2 |
           (unsigned)p[16 * (k + 2 * third) + row] >> 6 << 4;
}

#define STEP_BYTES 64
#define BLOCK_STEPS 8
#define STEP_FIELDS 3 /* most parts of a code */

/* Some bits of a step's codes, from bit `to` of the code on: bits from `at` on of the bytes of a vector. bits 0: none. */
typedef struct packed_field {
    uint8_t vector, at, to, bits;
} packed_field;

/* clang-format off */
#define WHOLE(vector, at, bits) {{vector, at, 0, bits}}
static const packed_field packed_fields[9][BLOCK_STEPS][STEP_FIELDS] = {
    [1] = {WHOLE(0, 0, 1), WHOLE(0, 1, 1), WHOLE(0, 2, 1), WHOLE(0, 3, 1), WHOLE(0, 4, 1), WHOLE(0, 5, 1), WHOLE(0, 6, 1), WHOLE(0, 7, 1)},
    [2] = {WHOLE(0, 0, 2), WHOLE(0, 2, 2), WHOLE(0, 4, 2), WHOLE(0, 6, 2), WHOLE(1, 0, 2), WHOLE(1, 2, 2), WHOLE(1, 4, 2), WHOLE(1, 6, 2)},
    [3] = {WHOLE(0, 0, 3), WHOLE(0, 3, 3), WHOLE(1, 0, 3), WHOLE(1, 3, 3), WHOLE(2, 0, 3), WHOLE(2, 3, 3),
           {{0, 6, 0, 2}, {1, 6, 2, 1}}, {{2, 6, 0, 2}, {1, 7, 2, 1}}},
    [4] = {WHOLE(0, 0, 4), WHOLE(1, 0, 4), WHOLE(2, 0, 4), WHOLE(3, 0, 4), WHOLE(0, 4, 4), WHOLE(1, 4, 4), WHOLE(2, 4, 4), WHOLE(3, 4, 4)},
    [5] = {WHOLE(0, 0, 5), WHOLE(1, 0, 5), WHOLE(2, 0, 5), WHOLE(3, 0, 5), WHOLE(4, 0, 5), {{0, 5, 0, 3}, {1, 5, 3, 2}},
           {{2, 5, 0, 3}, {3, 5, 3, 2}}, {{4, 5, 0, 3}, {1, 7, 3, 1}, {3, 7, 4, 1}}},
    [6] = {WHOLE(0, 0, 6), WHOLE(1, 0, 6), WHOLE(2, 0, 6), WHOLE(3, 0, 6), WHOLE(4, 0, 6), WHOLE(5, 0, 6),
           {{0, 6, 0, 2}, {1, 6, 2, 2}, {2, 6, 4, 2}}, {{3, 6, 0, 2}, {4, 6, 2, 2}, {5, 6, 4, 2}}},
    [8] = {WHOLE(0, 0, 8), WHOLE(1, 0, 8), WHOLE(2, 0, 8), WHOLE(3, 0, 8), WHOLE(4, 0, 8), WHOLE(5, 0, 8), WHOLE(6, 0, 8), WHOLE(7, 0, 8)},
};
#undef WHOLE
/* clang-format on */

/* The bits that a field has in a code. */
static inline unsigned packed_mask(packed_field f) { return ((1u << f.bits) - 1) << f.to; }

/* The most a gemm expands into its scratch at a time, besides one whole panel: columns, and panels of so many. */
#define GEMM_K 1024
#define GEMM_CHUNK 8

#endif
