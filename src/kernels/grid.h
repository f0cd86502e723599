/*
 * The panel layout of the code-book types IQ1, IQ2 and IQ3: every field of the 16 rows lies together, so that one load brings
 * it for all of them. The numbers of the file are kept, but for the 7-bit sign indices, which become plain sign bits.
 *
 * A group of 256 columns, after its f16 d[16]:
 *     scales  4 bits s each. One per 32 columns: u8 [4][16], low nibble the even block; one per 16 columns: u8 [8][16], low
 *             nibble the first half. IQ1_S: bit 3 of s set where the shift of the row's block is negative.
 *     blocks  8 times: indices, high bits, marks.
 * A block:
 *     indices the low 8 bits of the code words. 4 words of 8 columns: u8 [16 rows][4 words]. 8 words of 4 columns: twice (4
 *             words each) u8 [4][2][4][2], word 2 p + e of row 4 i + r at [i][p][r][e]: interleaving two results of a lookup
 *             by bytes then puts the words 2 p and 2 p + 1 of a row side by side.
 *     high    per 64 indices and higher bit one u64: bit i belongs to the index in byte i.
 *     marks   signs: u8 [16][4], bit s of row and c set where column 4 s + c of the row is negative, so that a shift of all
 *             bytes brings the signs of a step to their top; IQ1_M: u16 [4], bit row set where the shift of word g is negative.
 * A code word of 8 columns is one of 8 magnitudes of 3 values, or of ternary values (IQ1); one of 4 columns has 8 values.
 */
#ifndef KERNELS_GRID_H
#define KERNELS_GRID_H

#include <stddef.h>
#include <stdint.h>

enum {
    GRID_COLUMNS = 256,
    GRID_SCALES = 32, /* offset in a group */
    GRID_SIGNS = 64,  /* bytes of marks: signs */
    GRID_SHIFTS = 8   /* bytes of marks: shifts */
};

/* bytes before the blocks; sub: columns that share a scale, 32 or 16 */
#define GRID_HEADER(sub) (GRID_SCALES + 2048 / (sub))
/* words: 4 or 8 per row and block; high: bits of an index above 8; marks: bytes */
#define GRID_HIGH_AT(words) (16 * (words))
#define GRID_MARKS_AT(words, high) (16 * (words) + 2 * (words) * (high))
#define GRID_BLOCK(words, high, marks) (GRID_MARKS_AT(words, high) + (marks))

/* X(type, words, high, sub, marks) */
#define GRID_TYPES(X)                \
    X(IQ1_S, 4, 3, 32, 0)            \
    X(IQ1_M, 4, 3, 16, GRID_SHIFTS)  \
    X(IQ2_XXS, 4, 0, 32, GRID_SIGNS) \
    X(IQ2_XS, 4, 1, 16, GRID_SIGNS)  \
    X(IQ2_S, 4, 2, 16, GRID_SIGNS)   \
    X(IQ3_XXS, 8, 0, 32, GRID_SIGNS) \
    X(IQ3_S, 8, 1, 32, GRID_SIGNS)

/* Byte of the index of code word i (0..3 of 64 indices) of a row. */
static inline int grid_index_at(int words, int row, int i)
{
    return words == 4 ? 4 * row + i : 16 * (row / 4) + 8 * (i / 2) + 2 * (row % 4) + i % 2;
}

/* Writes block b (256 columns) of one row of the file's layout into its place; the group was zero there. */
typedef void (*grid_pack_fn)(const uint8_t *block, int row, uint8_t *group);

#endif
