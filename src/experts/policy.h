/*
 * What an expert in memory is worth keeping: one rule per policy, used by the pool and by the simulator alike. A policy sees the
 * requests in their order and nothing else, so the same sequence gives the same answers. It owns the counts it needs, in memory
 * the caller gives; it does not know who is in memory.
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

#endif
