/* Scalar reading of the groups of the code-book types (grid.h). IQ1: u = 128 + 8 v + 1 or - 1, its ws is an eighth. */
#include "formats/iq_tables.h"
#include "kernels/unpack.h"

/* Where the fields of a block lie; constant where it is used. */
typedef struct grid_form {
    int words, high, sub, marks;
} grid_form;

static const uint8_t *block_of(grid_form f, const uint8_t *group, int block)
{
    return group + GRID_HEADER(f.sub) + (size_t)block * (size_t)GRID_BLOCK(f.words, f.high, f.marks);
}

static unsigned mask_bit(const uint8_t *mask, int bit) { return mask[bit / 8] >> bit % 8 & 1u; }

/* Code word i of a row. */
static unsigned index_of(grid_form f, const uint8_t *p, int row, int i)
{
    int at = grid_index_at(f.words, row, i % 4), part = i / 4;
    unsigned index = p[64 * part + at];
    for (int bit = 0; bit < f.high; bit++)
        index |= mask_bit(p + GRID_HIGH_AT(f.words) + 8 * (part * f.high + bit), at) << (8 + bit);
    return index;
}

static unsigned scale_of(grid_form f, const uint8_t *group, int block, int half, int row)
{
    const uint8_t *scales = group + GRID_SCALES + row;
    return f.sub == 16 ? scales[16 * block] >> (4 * half) & 15u : scales[block / 2 * 16] >> (4 * (block % 2)) & 15u;
}

/* Four columns of step s: magnitudes, with the signs of the row; 128 is added. */
static void put_signed(const uint8_t *signs, int s, int row, uint32_t values, unpacked *out)
{
    for (int c = 0; c < 4; c++) {
        int v = (int)(values >> (8 * c) & 255);
        out->u[s][4 * row + c] = (uint8_t)(128 + (signs[4 * row + c] >> s & 1 ? -v : v));
    }
}

static void put_shifted(int s, int row, uint32_t values, bool negative, unpacked *out)
{
    for (int c = 0; c < 4; c++)
        out->u[s][4 * row + c] = (uint8_t)(128 + 8 * (int8_t)(values >> (8 * c) & 255) + (negative ? -1 : 1));
}

/* d (0.5 + s) factor */
static void scales_half(grid_form f, const uint8_t *group, int block, float factor, unpacked *out)
{
    for (int half = 0; half < 32 / f.sub; half++)
        for (int row = 0; row < PANEL_ROWS; row++)
            out->ws[half][row] =
                f16_to_f32(packed_u16(group + 2 * row)) * (0.5f + (float)scale_of(f, group, block, half, row)) * factor;
}

/* d (2 s + 1) factor, s of the bits in mask */
static void scales_odd(grid_form f, const uint8_t *group, int block, unsigned mask, float factor, unpacked *out)
{
    for (int half = 0; half < 32 / f.sub; half++)
        for (int row = 0; row < PANEL_ROWS; row++)
            out->ws[half][row] =
                f16_to_f32(packed_u16(group + 2 * row)) * (float)(2 * (scale_of(f, group, block, half, row) & mask) + 1) * factor;
}

static void unpack_words8(grid_form f, const uint64_t *book, const uint8_t *group, int block, unpacked *out)
{
    const uint8_t *p = block_of(f, group, block), *signs = p + GRID_MARKS_AT(f.words, f.high);
    for (int row = 0; row < PANEL_ROWS; row++) {
        for (int g = 0; g < 4; g++) {
            uint64_t entry = book[index_of(f, p, row, g)];
            put_signed(signs, 2 * g, row, (uint32_t)entry, out);
            put_signed(signs, 2 * g + 1, row, (uint32_t)(entry >> 32), out);
        }
    }
}

static void unpack_words4(grid_form f, const uint32_t *book, const uint8_t *group, int block, unpacked *out)
{
    const uint8_t *p = block_of(f, group, block), *signs = p + GRID_MARKS_AT(f.words, f.high);
    for (int row = 0; row < PANEL_ROWS; row++)
        for (int s = 0; s < BLOCK_STEPS; s++)
            put_signed(signs, s, row, book[index_of(f, p, row, s)], out);
}

static void unpack_ternary(grid_form f, const uint8_t *group, int block, unpacked *out)
{
    const uint8_t *p = block_of(f, group, block), *shifts = p + GRID_MARKS_AT(f.words, f.high);
    for (int row = 0; row < PANEL_ROWS; row++) {
        for (int g = 0; g < 4; g++) {
            uint64_t entry = iq1_grid[index_of(f, p, row, g)];
            bool negative = f.marks ? mask_bit(shifts, 16 * g + row) != 0 : scale_of(f, group, block, 0, row) >> 3 != 0;
            put_shifted(2 * g, row, (uint32_t)entry, negative, out);
            put_shifted(2 * g + 1, row, (uint32_t)(entry >> 32), negative, out);
        }
    }
}

static void unpack_block(dil_type type, grid_form f, const uint8_t *group, int block, unpacked *out)
{
    switch (type) {
    case DIL_TYPE_IQ2_XXS:
        scales_half(f, group, block, 0.25f, out);
        unpack_words8(f, iq2_xxs_grid, group, block, out);
        break;
    case DIL_TYPE_IQ2_XS:
        scales_half(f, group, block, 0.25f, out);
        unpack_words8(f, iq2_xs_grid, group, block, out);
        break;
    case DIL_TYPE_IQ2_S:
        scales_half(f, group, block, 0.25f, out);
        unpack_words8(f, iq2_s_grid, group, block, out);
        break;
    case DIL_TYPE_IQ3_XXS:
        scales_half(f, group, block, 0.5f, out);
        unpack_words4(f, iq3_xxs_grid, group, block, out);
        break;
    case DIL_TYPE_IQ3_S:
        scales_odd(f, group, block, 15, 1.0f, out);
        unpack_words4(f, iq3_s_grid, group, block, out);
        break;
    default: /* IQ1 */
        scales_odd(f, group, block, 7, 0.125f, out);
        unpack_ternary(f, group, block, out);
        break;
    }
}

#define UNPACK(type, words, high, sub, marks)                                                   \
    void unpack_##type(const uint8_t *group, int block, unpacked *out)                          \
    {                                                                                           \
        unpack_block(DIL_TYPE_##type, (grid_form){words, high, sub, marks}, group, block, out); \
    }
GRID_TYPES(UNPACK)
