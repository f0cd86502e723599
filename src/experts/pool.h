/*
 * The expert pool: the experts that are in memory now, of a model with more of them than memory holds. It owns the slots, which
 * expert lies in which, the reads and their checksums. One expert is one aligned read from the file of packed weights, outside
 * the page cache where the file system allows it. The pool never holds more than its budget. It computes nothing and knows no
 * router.
 *
 * Of a layer's life:   pool_request (pins, starts the reads of what is missing)
 *                      pool_hint    (the next layer's likely experts, behind those reads)
 *                      pool_wait    (any thread; expert by expert, in the order they are worked on)
 *                      pool_release (unpins)
 * pool_request, pool_hint, pool_release, pool_resident, pool_stats, pool_error, pool_shrink and pool_adjust belong to one caller at a time;
 * pool_wait may be called by any number of threads in between, for experts of requests that are not released yet.
 * Which experts stay depends on the sequence of these calls alone, never on how fast the disk was.
 */
#ifndef EXPERTS_POOL_H
#define EXPERTS_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dilmodeli.h"
#include "experts/policy.h"
#include "experts/residency.h"

#define POOL_ALIGN 4096u

/* Where the experts of one layer lie in the file. */
typedef struct pool_layer {
    uint64_t offset;      /* of expert 0; multiple of POOL_ALIGN */
    uint64_t stride;      /* from expert to expert; multiple of POOL_ALIGN */
    size_t bytes;         /* of one expert, 1 .. stride */
    uint32_t n_experts;   /* 0: a layer without experts, the other fields do not count */
    const uint64_t *sums; /* [n_experts] XXH3-64 of the bytes [borrowed for the pool's life], or NULL */
} pool_layer;

/* The file the caller means. Fields that are 0 are not compared. */
typedef struct pool_identity {
    uint64_t size_bytes, device, inode;
    int64_t mtime_ns; /* with this, and without sums, a file that changes in place is noticed at every read */
} pool_identity;

typedef struct pool_options {
    const char *path; /* [borrowed during the call] */
    pool_identity identity;
    const pool_layer *layers; /* [n_layers] [borrowed during the call, but for their sums] */
    uint32_t n_layers;
    uint32_t n_used;         /* experts a token uses in each layer, at least 1 */
    uint64_t budget_bytes;   /* of everything the pool allocates; stacks of its I/O threads and kernel memory are not in it */
    policy_kind policy;      /* not POLICY_BELADY */
    int depth;               /* reads at once; 0: 16 with io_uring, 4 without */
    bool no_sums;            /* true: read experts are not checked against their sums */
    bool no_ring, no_direct; /* true: threads instead of io_uring; through the page cache */
} pool_options;

typedef struct pool pool;

/* The least budget pool_new takes for these options: room for n_used experts of each size and the tables. 0: bad options. */
uint64_t pool_least_budget(const pool_options *o);

/* Opens the file and allocates. NO_MEMORY: the budget is below pool_least_budget (the text names it), or an allocation failed;
 * IO: the file cannot be opened or is another than wanted; BAD_ARGUMENT. [out: owned: free with pool_free] */
DIL_MUST_CHECK dil_status pool_new(pool **out, const pool_options *o, dil_error *err);
void pool_free(pool *p); /* waits for reads under way; NULL is allowed */

/* How many experts of that layer can be in memory, hence pinned, at the same time: at least n_used, at most n_experts. A batch
 * that needs more asks in portions: request, compute, release, request the next. 0: a layer without experts. */
uint32_t pool_capacity(const pool *p, uint32_t layer);

/* The layer's experts are needed now: pins them and starts the reads of what is missing. Distinct; with what is pinned already
 * (of all layers of the same size of experts) at most pool_capacity, else pool_wait gives NULL for those that found no place. */
void pool_request(pool *p, uint32_t layer, const uint16_t *experts, int n);

/* The expert's bytes, page-aligned, once they are in memory and verified; valid until pool_release. NULL: it could not be read,
 * or was not requested; pool_error says why. */
const uint8_t *pool_wait(pool *p, uint32_t layer, uint32_t expert);

/* All experts of the layer may be evicted again. */
void pool_release(pool *p, uint32_t layer);

/* These are likely to be requested soon: starts reads behind the requested ones, into slots that are free or hold what is worth
 * less. Never evicts what is pinned, or hinted and not asked for yet; a hint holds until the layer's turn is over (a request of
 * another layer follows). A request of the same expert joins the read under way. */
void pool_hint(pool *p, uint32_t layer, const uint16_t *experts, int n);

/* flags [n_experts]: 1 for experts that are in memory or being read, 0 for others. For routers that mind the price. */
void pool_resident(const pool *p, uint32_t layer, uint8_t *flags);

/* OK, or what went wrong with the first failed pool_wait or pool_request since the last call. Reading it clears it: the next
 * request tries again, unless the file itself is another now. IO: read, truncated, replaced; FORMAT: checksum; BAD_ARGUMENT. */
dil_status pool_error(pool *p, dil_error *err);

typedef residency_counts pool_counts;

/* layer n_layers or more: of all layers. */
void pool_stats(const pool *p, uint32_t layer, pool_counts *out);

typedef struct pool_info {
    uint64_t budget_bytes, held_bytes, slot_bytes; /* held: allocated; slot: of the slots alone */
    uint32_t n_slots, n_classes;
    uint64_t all_bytes; /* of all experts of the file */
    const char *how;    /* "io_uring, direct", "4 threads, page cache", ... [static] */
} pool_info;
void pool_info_get(const pool *p, pool_info *out);

/*
 * A budget for experts of all_bytes when the rest of the process takes other_bytes: what the control group or the machine has,
 * less the rest, less room for everybody else (an eighth, at least 64 MB); at most what all experts and the tables take.
 * 0: there is no room.
 */
uint64_t pool_budget_auto(uint64_t all_bytes, uint64_t other_bytes);
uint64_t pool_budget_within(uint64_t memory_bytes, uint64_t all_bytes,
                            uint64_t other_bytes); /* the same on a machine with that much */

/* Gives back about that many bytes of slots, those worth least first, for good; pool_capacity falls, never below n_used.
 * Between tokens only: nothing may be pinned. Returns what was given back. */
uint64_t pool_shrink(pool *p, uint64_t bytes);

/* pool_shrink when little memory is left until a control group's limit (os_limits.memory_left_bytes): a sixteenth of the slots,
 * at least 32 MB, are kept clear of it. Between tokens, now and then; returns what was given back. */
uint64_t pool_adjust(pool *p, uint64_t memory_left_bytes);

#endif
