/*
 * Who is in memory: slots, the experts in them, pins, hints and the choice of what goes. Bookkeeping only: it reads no file and
 * moves no byte, so that the simulator replays exactly what the pool does.
 *
 * Slots come in classes of one size each (layers quantized differently have experts of different sizes); layers share the slots
 * of their class, and what goes is chosen within it.
 */
#ifndef EXPERTS_RESIDENCY_H
#define EXPERTS_RESIDENCY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dilmodeli.h"
#include "experts/policy.h"

#define RESIDENCY_CLASSES 8
#define RESIDENCY_ALIGN 4096u
#define RESIDENCY_MOST_EXPERTS 65535u /* of a layer */

/* Experts of each layer: how many, and the bytes of one. */
typedef struct residency_layer {
    uint64_t bytes;
    uint32_t n_experts; /* 0: none */
} residency_layer;

typedef struct residency_options {
    const residency_layer *layers; /* [n_layers] [borrowed during the call] */
    uint32_t n_layers, n_used;
    uint64_t budget_bytes; /* of the slots, of the tables and of what the caller keeps per slot */
    size_t per_slot_bytes; /* the latter */
    policy_kind policy;
} residency_options;

typedef struct residency_class {
    uint64_t slot_bytes;        /* multiple of RESIDENCY_ALIGN */
    uint32_t n_experts;         /* that could lie in it */
    uint32_t first, n, n_taken; /* its slots; the first n_taken of them have been used */
    uint32_t n_closed;          /* given back */
    uint64_t offset;            /* of its first slot in the memory of all */
} residency_class;

typedef struct residency_counts {
    uint64_t requests;   /* experts asked for */
    uint64_t hits;       /* of these in memory already, hinted ones among them */
    uint64_t joined;     /* of these still being read because of a hint */
    uint64_t hinted;     /* reads that a hint started */
    uint64_t wasted;     /* of these not asked for when their layer's turn came, or evicted before */
    uint64_t bytes_read; /* of all reads started */
    uint64_t stall_ns;   /* time in pool_wait: of each expert that of the first thread that had to wait */
} residency_counts;

typedef struct residency_slot {
    uint32_t layer, expert; /* layer RESIDENCY_NOBODY: empty */
    bool pinned, closed;
    bool hinted; /* a hint brought it, nobody has asked for it yet */
    bool due;    /* hinted and not asked for yet, whoever brought it */
} residency_slot;
#define RESIDENCY_NOBODY UINT32_MAX

/* A slot that may be emptied. */
typedef struct residency_candidate {
    policy_worth worth;
    int32_t slot;
    bool due; /* goes after all that are not */
} residency_candidate;

typedef struct residency {
    uint32_t n_layers, n_classes, n_slots, n_used;
    uint32_t layer;          /* the last requested; n_layers: none */
    bool alone;              /* only one layer has experts */
    residency_layer *layers; /* [n_layers] */
    uint32_t *first;         /* [n_layers]: number of the layer's expert 0 among all */
    uint8_t *class_of;       /* [n_layers] */
    int32_t *where;          /* [experts of all layers]: slot or -1 */
    residency_slot *slots;   /* [n_slots] */
    residency_class classes[RESIDENCY_CLASSES];
    residency_counts *counts;        /* [n_layers] */
    residency_candidate *candidates; /* [most experts of a layer] */
    policy *rule;
    uint64_t slots_bytes, tables_bytes; /* without what the caller keeps per slot */
} residency;

/* The least budget for these layers: n_used slots of each class and the tables. 0: sizes that do not fit 64 bits. */
uint64_t residency_least(const residency_options *o);
/* NO_MEMORY: the budget is below the least. [out: owned: free with residency_free] */
DIL_MUST_CHECK dil_status residency_new(residency **out, const residency_options *o, dil_error *err);
void residency_free(residency *r); /* NULL is allowed */

uint32_t residency_capacity(const residency *r, uint32_t layer);
static inline int32_t residency_find(const residency *r, uint32_t at_layer, uint32_t expert)
{
    return r->where[r->first[at_layer] + expert];
}
uint64_t residency_slot_offset(const residency *r, int32_t slot); /* in the memory of all slots */
uint64_t residency_slot_bytes(const residency *r, int32_t slot);

/* Where an expert was found or put. */
typedef struct residency_place {
    int32_t slot; /* -1: no place, everything in its class is pinned */
    bool missing; /* not there before: the slot's bytes are to be read */
    bool hinted;  /* there, and its first use since a hint brought it */
} residency_place;

/* Requests: tells the policy, pins, makes room. places [n]. What is there is pinned before anything is evicted. */
void residency_request(residency *r, uint32_t layer, const uint16_t *experts, int n, residency_place *places);
void residency_release(residency *r, uint32_t layer);
/* The slot an expert is to be read into, or -1: it is there already, or nothing worth less may go for it. */
int32_t residency_hint(residency *r, uint32_t layer, uint32_t expert);
/* Closes the slot that is worth least of those that may be closed; -1: none. Nothing may be pinned. */
int32_t residency_close(residency *r);

#endif
