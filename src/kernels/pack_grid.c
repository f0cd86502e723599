/* Packing of the code-book types IQ1, IQ2, IQ3: a row's block of the file (formats/iquants.c) into its group (grid.h). */
#include "formats/iq_tables.h"
#include "kernels/unpack.h"

/* What one row's block of 32 columns says. */
typedef struct grid_words {
    uint16_t index[8];
    uint32_t signs; /* bit c: column c is negative */
    uint8_t shifts; /* IQ1: bit g: the shift of word g is negative */
    uint8_t scale;  /* s, or s of the first half and in the high nibble s of the second */
} grid_words;

static void put_bit64(uint8_t *mask, int bit) { mask[bit / 8] = (uint8_t)(mask[bit / 8] | 1u << bit % 8); }

/* Block b of a row; marks as in grid.h. */
static void put_words(const grid_words *w, int words, int high, int sub, int marks, int b, int row, uint8_t *group)
{
    uint8_t *scales = group + GRID_SCALES, *block = group + GRID_HEADER(sub);
    block += (size_t)b * (size_t)GRID_BLOCK(words, high, marks);
    if (sub == 16)
        scales[16 * b + row] = w->scale;
    else
        scales[b / 2 * 16 + row] = (uint8_t)(scales[b / 2 * 16 + row] | (w->scale & 15) << 4 * (b % 2));
    for (int i = 0; i < words; i++) {
        int at = grid_index_at(words, row, i % 4), part = i / 4;
        block[64 * part + at] = (uint8_t)w->index[i];
        for (int bit = 0; bit < high; bit++)
            if (w->index[i] >> (8 + bit) & 1)
                put_bit64(block + GRID_HIGH_AT(words) + 8 * (part * high + bit), at);
    }
    uint8_t *mark = block + GRID_MARKS_AT(words, high);
    for (int c = 0; marks == GRID_SIGNS && c < ACT_BLOCK; c++)
        if (w->signs >> c & 1)
            mark[4 * row + c % 4] = (uint8_t)(mark[4 * row + c % 4] | 1u << c / 4);
    for (int g = 0; marks == GRID_SHIFTS && g < 4; g++)
        if (w->shifts >> g & 1)
            put_bit64(mark, 16 * g + row);
}

static uint8_t nibble_of(const uint8_t *p, int j) { return p[j / 2] >> (j % 2 * 4) & 15; }

/* Signs of four indices of 7 bits. */
static uint32_t signs_of_word(uint32_t word)
{
    uint32_t signs = 0;
    for (int g = 0; g < 4; g++)
        signs |= (uint32_t)iq_signs[word >> (7 * g) & 127] << (8 * g);
    return signs;
}

/* ---- one reader per type: block b of p ---- */

#define READ(name) static void read_##name(const uint8_t *p, int b, grid_words *w)

READ(IQ2_XXS)
{
    const uint8_t *part = p + 2 + 8 * b;
    uint32_t word = packed_u32(part + 4);
    w->signs = signs_of_word(word);
    w->scale = (uint8_t)(word >> 28);
    for (int g = 0; g < 4; g++)
        w->index[g] = part[g];
}

READ(IQ2_XS)
{
    w->scale = p[66 + b];
    for (int g = 0; g < 4; g++) {
        unsigned both = packed_u16(p + 2 + 2 * (4 * b + g));
        w->index[g] = both & 511;
        w->signs |= (uint32_t)iq_signs[both >> 9] << (8 * g);
    }
}

READ(IQ2_S)
{
    w->scale = p[74 + b];
    w->signs = packed_u32(p + 34 + 4 * b);
    for (int g = 0; g < 4; g++)
        w->index[g] = (uint16_t)(p[2 + 4 * b + g] | (p[66 + b] >> (2 * g) & 3u) << 8);
}

READ(IQ3_XXS)
{
    uint32_t word = packed_u32(p + 66 + 4 * b);
    w->signs = signs_of_word(word);
    w->scale = (uint8_t)(word >> 28);
    for (int i = 0; i < 8; i++)
        w->index[i] = p[2 + 8 * b + i];
}

READ(IQ3_S)
{
    w->scale = nibble_of(p + 106, b);
    w->signs = packed_u32(p + 74 + 4 * b);
    for (int i = 0; i < 8; i++)
        w->index[i] = (uint16_t)(p[2 + 8 * b + i] | (p[66 + b] >> i & 1u) << 8);
}

READ(IQ1_S)
{
    unsigned word = packed_u16(p + 34 + 2 * b);
    w->scale = (uint8_t)(word >> 12);
    for (int g = 0; g < 4; g++)
        w->index[g] = (uint16_t)(p[2 + 4 * b + g] | (word >> (3 * g) & 7) << 8);
}

READ(IQ1_M)
{
    unsigned scales = packed_u16(p + 48 + b / 2 * 2) >> (6 * (b % 2));
    w->scale = (uint8_t)((scales & 7) | (scales >> 3 & 7) << 4);
    for (int g = 0; g < 4; g++) {
        unsigned high = nibble_of(p + 32, 4 * b + g);
        w->index[g] = (uint16_t)(p[4 * b + g] | (high & 7) << 8);
        w->shifts = (uint8_t)(w->shifts | high >> 3 << g);
    }
}

/* IQ1_M has its f16 d in the top nibbles of its four scale words, lowest first. */
static uint16_t scale_bits(dil_type type, const uint8_t *p)
{
    unsigned h = 0;
    if (type != DIL_TYPE_IQ1_M)
        return packed_u16(p);
    for (int i = 0; i < 4; i++)
        h |= (unsigned)(packed_u16(p + 48 + 2 * i) >> 12) << (4 * i);
    return (uint16_t)h;
}

#define PACK(type, words, high, sub, marks)                                \
    static void pack_##type(const uint8_t *block, int row, uint8_t *group) \
    {                                                                      \
        uint16_t d = scale_bits(DIL_TYPE_##type, block);                   \
        memcpy(group + 2 * row, &d, sizeof d);                             \
        for (int b = 0; b < GRID_COLUMNS / ACT_BLOCK; b++) {               \
            grid_words w = {{0}, 0, 0, 0};                                 \
            read_##type(block, b, &w);                                     \
            put_words(&w, words, high, sub, marks, b, row, group);         \
        }                                                                  \
    }
GRID_TYPES(PACK)

#define ENTRY(type, words, high, sub, marks) [DIL_TYPE_##type] = pack_##type,
static const grid_pack_fn packs[DIL_TYPE_COUNT] = {GRID_TYPES(ENTRY)};

grid_pack_fn grid_pack_get(dil_type type) { return packs[type]; }
