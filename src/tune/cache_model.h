/*
 * The cache model: one pass over what a program touches tells how much of it misses in a cache of any size. The cache is LRU,
 * so a touch misses exactly when more was touched since the last time than the cache holds: its reuse distance (Mattson, Gecsei,
 * Slutz and Traiger 1970). Distances come from a Fenwick tree over time stamps and are kept as a histogram. Knows nothing
 * about what it counts: traces are made by kernel_trace.h. Not modelled: prefetching, writing back, other cores.
 *
 * A touched range is cut at multiples of the granule. A piece is known by its first line and weighs its lines; with a granule
 * of one line that is exact, coarser ones are faster and see ranges as the same only when they begin on the same line or cover
 * whole granules.
 */
#ifndef TUNE_CACHE_MODEL_H
#define TUNE_CACHE_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct cache_model cache_model;

typedef struct cache_level {
    uint64_t size_bytes; /* 0: there is none */
    int ways;            /* 0: any line may lie anywhere, or it is unknown */
} cache_level;

/* line_bytes and granule_bytes are powers of 2, the granule not the smaller. most_pieces bounds how many different pieces may be
 * touched. Fails with NO_MEMORY or BAD_ARGUMENT. [owned: free with cache_model_free] */
DIL_MUST_CHECK dil_status cache_model_new(cache_model **out, size_t line_bytes, size_t granule_bytes, size_t most_pieces,
                                          dil_error *err);
void cache_model_free(cache_model *c); /* NULL is allowed */

/* A read or a write of bytes [address, address + n_bytes). The first failure is remembered, what follows it is not counted. */
void cache_model_touch(cache_model *c, uint64_t address, size_t n_bytes);
/* Says that n_rows ranges of n_bytes each are touched from end to end, by touches of their own; see cache_model_misses. */
void cache_model_note_runs(cache_model *c, size_t n_bytes, size_t n_rows);
/* NO_MEMORY, or LIMIT: more than most_pieces were touched, or 2^32 lines. To be asked before any of the counts. */
DIL_MUST_CHECK dil_status cache_model_check(const cache_model *c, dil_error *err);
/* Counts start again from 0; what was touched before stays in the cache. */
void cache_model_restart(cache_model *c);

size_t cache_model_granule(const cache_model *c);
uint64_t cache_model_touched(const cache_model *c); /* lines touched, every time they were */
uint64_t cache_model_cold(const cache_model *c);    /* of these, lines never touched before: they miss in every cache */
/* The share of the lines of runs that do not fill whole rounds of CACHE_ROUND lines; 1 where no runs were noted. */
#define CACHE_ROUND 64
double cache_model_loose(const cache_model *c);
/*
 * Lines that miss in a cache of this size, cold ones among them; size 0: all. Without ways: exact for caches of up to 2048 lines
 * and for sizes of at most 11 significant bits, others are rounded up to those.
 * With ways: a line misses when `ways` of the d lines touched since fell into its own set. With a share r of loose lines, n_sets =
 * lines / ways and p = 1 / n_sets: r d of them fall by chance, which has a binomial distribution (Smith 1978, for r = 1), the others
 * fill all sets alike, and as far as they come from the line's own run not its own place:
 *     loose line:  P(B(r d, p) >= ways - (1 - r) d p)        other:  P(B(r d, p) >= ways + 1 - (1 - r) (d + 1) p)
 */
double cache_model_misses(const cache_model *c, cache_level level);

/* The chance that at least `ways` of n lines fall into one of n_sets sets: 1 - sum over i < ways of
 * C(n, i) p^i (1 - p)^(n - i), p = 1 / n_sets. */
double cache_set_full(uint64_t n, double n_sets, uint64_t ways);

#endif
