/*
 * The scalar reading of packed panels, shared by the files of this module: what a type's groups look like and how one block of
 * 32 columns becomes bytes and scales. It is the reference that every other reading (x86_*.c, arm_*.c) is checked against.
 * Layouts: packed.h.
 */
#ifndef KERNELS_UNPACK_H
#define KERNELS_UNPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/grid.h"
#include "kernels/packed.h"

/* One block of 32 columns of a panel. weight(row, column) = ws * (u - off) + nm; index 1 of halves that have their own. */
typedef struct unpacked {
    _Alignas(64) uint8_t u[BLOCK_STEPS][STEP_BYTES]; /* [step][row][4 columns] */
    _Alignas(64) float ws[2][PANEL_ROWS];
    _Alignas(64) float nm[2][PANEL_ROWS]; /* where there are minima */
} unpacked;

typedef struct packed_type {
    uint16_t columns;                                               /* of a group; 0: the type is not a quantized weight type */
    uint16_t header_bytes;                                          /* scales before the quants of a group */
    uint16_t group_bytes;                                           /* all of it */
    uint16_t block_bytes;                                           /* quants of 32 columns */
    uint8_t bits;                                                   /* per quant; 0: code words as in grid.h */
    uint8_t sub;                                                    /* columns that share a scale: 32 or 16 */
    uint8_t off;                                                    /* subtracted from u */
    uint8_t n_minima;                                               /* of a block: 0, 1 or one for each half */
    void (*unpack)(const uint8_t *group, int block, unpacked *out); /* block: 0 .. columns / 32 - 1 */
} packed_type;

/* NULL for types that are not quantized weights. */
const packed_type *packed_type_get(dil_type type);

/* The group that block b (of 32 columns) of a panel lies in. */
static inline const uint8_t *packed_group(const packed_type *t, const uint8_t *panel, int64_t b)
{
    return panel + (size_t)(b / (t->columns / ACT_BLOCK)) * t->group_bytes;
}

/* Packs a block of a code-book type; NULL for other types. */
grid_pack_fn grid_pack_get(dil_type type);

#define GRID_UNPACK(type, words, high, sub, marks) void unpack_##type(const uint8_t *group, int block, unpacked *out);
GRID_TYPES(GRID_UNPACK) /* the unpack functions of code-book types */

static inline uint16_t packed_u16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t packed_u32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

#endif
