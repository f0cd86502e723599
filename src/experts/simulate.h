/*
 * Router logs replayed: what a pool of a given budget and policy would have read, with the pool's own bookkeeping and policies,
 * and what the log itself says about reuse. Reads no expert.
 */
#ifndef EXPERTS_SIMULATE_H
#define EXPERTS_SIMULATE_H

#include "experts/residency.h"
#include "experts/trace.h"

typedef struct simulation {
    residency_counts total, first; /* first: of these, what no policy could have had: first uses */
    uint64_t budget_bytes, slots_bytes, tables_bytes;
    uint32_t n_slots, least_capacity; /* experts of a layer that can be in memory, of the layer that has fewest */
} simulation;

/* Replays t. budget_bytes: of slots and tables, as the pool counts it. layers [t->n_layers] or NULL: counts of each. NO_MEMORY:
 * the budget is below simulate_least, which the text names. */
DIL_MUST_CHECK dil_status simulate(const trace *t, policy_kind kind, uint64_t budget_bytes, simulation *out,
                                   residency_counts *layers, dil_error *err);
uint64_t simulate_least(const trace *t, policy_kind kind);
uint64_t simulate_all_bytes(const trace *t);   /* of all experts */
uint64_t simulate_token_bytes(const trace *t); /* of those one token uses */

/* What a layer's log says, whatever the policy. */
#define SIMULATE_DISTANCES 5
typedef struct simulate_reuse {
    uint64_t uses;
    uint32_t distinct;                   /* experts ever used */
    uint64_t busiest;                    /* uses of the expert used most */
    uint64_t within[SIMULATE_DISTANCES]; /* uses whose expert was used within the last 1, 2, 4, 8, 16 tokens */
    uint64_t recalled;                   /* uses that are among the last token's experts and their flocks (7 neighbours) */
    uint64_t candidates;                 /* how many those were, summed over the tokens but the first */
} simulate_reuse;
/* out [t->n_places] */
DIL_MUST_CHECK dil_status simulate_measure(const trace *t, simulate_reuse *out, dil_error *err);

#endif
