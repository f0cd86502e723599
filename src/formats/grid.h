/*
 * The parts of a block of the formats whose values are levels: what a rounding that looks at other blocks too may choose. Value i of
 * a group is
 *
 *     scale * level[code] + offset,   scale = d * scale_of[group] * unit, or a number of a table: scales[scale_of[group]]
 *     offset = 0, m, or -m * min_of[group]
 *
 * with d and m in f16, or d a power of two. In formats with a code book (codebook.h) codes of values that stand together depend on each other. Reading and writing are exact: writing what was read gives the same bytes, and the values computed from
 * the parts are those of format_decode_fn, bit for bit.
 */
#ifndef FORMATS_GRID_H
#define FORMATS_GRID_H

#include "formats/formats.h"

#define GRID_MAX_BLOCK 256
#define GRID_MAX_GROUPS 16

typedef enum grid_offset {
    GRID_NO_OFFSET,
    GRID_OFFSET_OWN,  /* + m, any sign: one group per block */
    GRID_OFFSET_STEPS /* - m * an integer of the group, both not negative */
} grid_offset;

typedef enum grid_number {
    GRID_F16,
    GRID_POWER, /* of two: 2^-128 .. 2^127 */
    GRID_ONE    /* always 1: groups have scales of their own */
} grid_number;

typedef struct grid_block {
    float d, m; /* as stored */
    int8_t scale[GRID_MAX_GROUPS];
    uint8_t min[GRID_MAX_GROUPS]; /* of GRID_OFFSET_STEPS; in books whose groups share a shift: it, as in the groups' codes */
    uint8_t code[GRID_MAX_BLOCK];
} grid_block;

typedef struct grid {
    dil_type type;
    int block, group;       /* values of a block; values with one scale */
    grid_number number;     /* what d (and m) is stored as */
    int n_levels;           /* codes are 0 .. n_levels - 1 */
    const int8_t *level;    /* [n_levels], ascending, none smaller than the one before */
    int scale_lo, scale_hi; /* a group's integer; 1, 1: there is none */
    int scale_step;         /* from one such integer to the next */
    float unit;             /* a power of two */
    const float *scales;    /* GRID_ONE: [scale_hi + 1], ascending; else NULL */
    grid_offset offset;
    int min_hi; /* of GRID_OFFSET_STEPS */
    void (*read)(const uint8_t *block, grid_block *out);
    void (*write)(const grid_block *b, uint8_t *block);
    const struct codebook *book; /* NULL: every code is free */
} grid;

const grid *grid_get(dil_type type); /* NULL: the format has no such parts */

/* The number nearest to v that d and m can be; finite. */
float grid_storable(const grid *g, float v);

/* The next number that d and m can be, up (step 1) or down (-1); the present one at the end of what is finite. */
float grid_beside(const grid *g, float v, int step);

/* Index of the level nearest to v (in units of the scale); NaN: 0. */
int grid_nearest(const grid *g, float v);

/* What is nearer to a level than to the others lies between these; infinite at the ends. */
typedef struct grid_borders {
    float lower[256], upper[256]; /* [n_levels] */
} grid_borders;
void grid_borders_of(const grid *g, grid_borders *out);

static inline float grid_scale_at(const grid *g, float d, int scale)
{
    return g->scales ? g->scales[scale] : d * (float)scale * g->unit;
}
static inline float grid_scale(const grid *g, const grid_block *b, int group) { return grid_scale_at(g, b->d, b->scale[group]); }
static inline float grid_offset_of(const grid *g, const grid_block *b, int group)
{
    return g->offset == GRID_NO_OFFSET ? 0.0f : g->offset == GRID_OFFSET_OWN ? b->m : -(b->m * (float)b->min[group]);
}
/* All values of a block, as they decode: [g->block]. */
void grid_values(const grid *g, const grid_block *b, float *out);

#endif
