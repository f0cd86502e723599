/*
 * What an expert in memory is worth keeping: one rule per policy, used by the pool and by the simulator alike. A policy sees the
 * requests in their order and nothing else, so the same sequence gives the same answers. It owns the counts it needs, in memory
 * the caller gives; it does not know who is in memory.
 *
 * A pass is one way through the layers (one token, or one batch). It begins when the layer requested is earlier than the one
 * before, or the same in a model with only one layer of experts.
 */
#ifndef EXPERTS_POLICY_H
#define EXPERTS_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum policy_kind {
    POLICY_SWARM,  /* expected use, of the expert and its flock, over the time it must be held */
    POLICY_LRU,    /* least recently used goes first */
    POLICY_LFU,    /* least often used goes first, of these the least recently used */
    POLICY_STALE,  /* least-stale: what this pass has not used goes first, oldest first; then the latest of this pass */
    POLICY_BELADY, /* used farthest in the future goes first: only where the future is known */
    POLICY_KINDS
} policy_kind;

const char *policy_name(policy_kind kind); /* "swarm", "lru", "lfu", "stale", "belady" */
bool policy_find(const char *name, policy_kind *out);

typedef struct policy policy;

size_t policy_bytes(policy_kind kind, const uint32_t *n_experts, uint32_t n_layers); /* n_experts [n_layers], 0: no experts */
/* memory: policy_bytes, zeroed, aligned to 64; the policy lies in it and ends with it. */
policy *policy_init(void *memory, policy_kind kind, const uint32_t *n_experts, uint32_t n_layers);

/* How many passes' experts memory holds (at first 1): how far the swarm looks ahead. */
void policy_set_depth(policy *p, double depth);

/* The experts of that layer are requested now. */
void policy_use(policy *p, uint32_t layer, const uint16_t *experts, int n);

/* What it is worth to keep: the least goes first. Comparable between all experts until the next policy_use. */
typedef struct policy_worth {
    double value, age; /* age decides between equal values */
} policy_worth;
policy_worth policy_worth_of(const policy *p, uint32_t layer, uint32_t expert);
policy_worth policy_worth_of_hint(const policy *p, uint32_t layer); /* of an expert that is likely to be used there next */
static inline bool policy_less(policy_worth a, policy_worth b)
{
    return a.value < b.value || (!(b.value < a.value) && a.age < b.age);
}

/* POLICY_BELADY: when the expert will be requested after now; any scale that grows with time. */
void policy_set_next(policy *p, uint32_t layer, uint32_t expert, uint64_t when);

#endif
