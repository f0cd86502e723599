/*
 * What a tile of a matrix product costs the memory: the bytes of each level per multiply-add, from the kernels' traces and the cache
 * model. For choosing how many panels and tokens a worker takes at a time.
 */
#ifndef TUNE_TILE_H
#define TUNE_TILE_H

#include "kernels/kernels.h"
#include "tune/cache_model.h"

typedef struct tile_shape {
    dil_type type;
    int64_t columns;
    int n_panels, n_tokens;
} tile_shape;

/* Bytes per multiply-add; each level gives what the one above it misses. */
typedef struct tile_bytes {
    double l2, l3, memory;
} tile_bytes;

/*
 * A worker that takes one tile after the other: the second of two tiles of different panels and the same tokens, outputs of each in
 * columns of their own. So weights and outputs come from memory, activations and expanded weights from where the tile's size
 * leaves them. levels: L1, L2, L3 as one core has them. Fails with BAD_ARGUMENT (no panels of such columns, or nothing to
 * do), NO_MEMORY or LIMIT.
 */
DIL_MUST_CHECK dil_status tile_measure(tile_bytes *out, const kernels *k, const tile_shape *shape, const cache_level levels[3],
                                       dil_error *err);

#endif
