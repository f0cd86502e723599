#include "experts/policy.h"

#include <string.h>

#include "experts/flock.h"

/* The swarm's estimate of a use at the next visit: of its own recent uses, of its lasting share, of its flock's recent uses. */
#define FAST_KEEP 0.5f  /* per visit: uses of the last visits */
#define SLOW_KEEP 0.99f /* uses of the last hundred visits */
#define PART_FAST 0.35f
#define PART_FLOCK 0.15f
#define PART_SLOW 0.5f
#define HORIZON 1.0

typedef struct expert_use {
    uint64_t last;  /* clock of the last request; 0: never */
    uint64_t pass;  /* of the last request */
    uint64_t count; /* requests; POLICY_BELADY: the next request */
} expert_use;

typedef struct layer_state {
    uint32_t n_experts, first; /* number of its expert 0 among all */
    uint32_t turn;             /* its place among the layers with experts */
    flock near;
} layer_state;

struct policy {
    policy_kind kind;
    uint32_t n_layers, n_turns;
    uint32_t layer; /* the last requested */
    uint64_t clock, pass;
    layer_state *layers;           /* [n_layers] */
    expert_use *uses;              /* [experts of all layers] */
    float *fast, *slow, *expected; /* the same; swarm only */
};

static const char *const names[POLICY_KINDS] = {"swarm", "lru", "lfu", "stale", "belady"};

const char *policy_name(policy_kind kind) { return (unsigned)kind < POLICY_KINDS ? names[kind] : "?"; }

bool policy_find(const char *name, policy_kind *out)
{
    for (int i = 0; i < POLICY_KINDS; i++)
        if (strcmp(names[i], name) == 0) {
            *out = (policy_kind)i;
            return true;
        }
    return false;
}

/* ---- memory ---- */

static void *take(char *memory, size_t *at, size_t bytes)
{
    void *p = memory ? memory + *at : NULL;
    *at += (bytes + 63) & ~(size_t)63;
    return p;
}

/* Places everything; memory NULL: only counts. Returns the bytes. */
static size_t place(char *memory, policy_kind kind, const uint32_t *n_experts, uint32_t n_layers)
{
    size_t at = 0, total = 0;
    policy *p = take(memory, &at, sizeof *p);
    layer_state *layers = take(memory, &at, n_layers * sizeof *layers);
    for (uint32_t l = 0; l < n_layers; l++) {
        if (layers)
            layers[l] = (layer_state){.n_experts = n_experts[l], .first = (uint32_t)total, .turn = p->n_turns};
        if (p && n_experts[l] > 0)
            p->n_turns++;
        total += n_experts[l];
        if (kind != POLICY_SWARM)
            continue;
        void *near = take(memory, &at, flock_bytes(n_experts[l]));
        if (near)
            flock_init(&layers[l].near, n_experts[l], near);
    }
    expert_use *uses = take(memory, &at, total * sizeof *uses);
    float *rates[3] = {NULL};
    for (int i = 0; kind == POLICY_SWARM && i < 3; i++)
        rates[i] = take(memory, &at, total * sizeof(float));
    if (p) {
        p->kind = kind;
        p->n_layers = n_layers;
        p->layer = n_layers;
        p->layers = layers;
        p->uses = uses;
        p->fast = rates[0];
        p->slow = rates[1];
        p->expected = rates[2];
    }
    return at;
}

size_t policy_bytes(policy_kind kind, const uint32_t *n_experts, uint32_t n_layers)
{
    return place(NULL, kind, n_experts, n_layers);
}

policy *policy_init(void *memory, policy_kind kind, const uint32_t *n_experts, uint32_t n_layers)
{
    (void)place(memory, kind, n_experts, n_layers);
    return memory;
}

/* ---- the swarm ---- */

/* Expected uses at the layer's next visit, from the rates after this one. The flock is symmetrised: who is minded minds back. */
static void expect(policy *p, const layer_state *s)
{
    const float *fast = p->fast + s->first, *slow = p->slow + s->first;
    float *expected = p->expected + s->first, share[FLOCK_SIZE];
    uint16_t near[FLOCK_SIZE];
    for (uint32_t e = 0; e < s->n_experts; e++)
        expected[e] = PART_FAST * fast[e] + PART_SLOW * slow[e];
    for (uint32_t e = 0; e < s->n_experts; e++) {
        int n = flock_neighbours(&s->near, e, near, share);
        for (int i = 0; i < n; i++) {
            expected[e] += 0.5f * PART_FLOCK * share[i] * fast[near[i]];
            expected[near[i]] += 0.5f * PART_FLOCK * share[i] * fast[e];
        }
    }
}

static void learn(policy *p, layer_state *s, const uint16_t *experts, int n)
{
    float *fast = p->fast + s->first, *slow = p->slow + s->first;
    for (uint32_t e = 0; e < s->n_experts; e++) {
        fast[e] *= FAST_KEEP;
        slow[e] *= SLOW_KEEP;
    }
    for (int i = 0; i < n; i++) {
        fast[experts[i]] += 1 - FAST_KEEP;
        slow[experts[i]] += 1 - SLOW_KEEP;
    }
    flock_note(&s->near, experts, n);
    expect(p, s);
}

/* Passes until the layer's next visit, 1 for the one just visited. */
static double distance(const policy *p, const layer_state *s)
{
    if (p->layer >= p->n_layers)
        return 1;
    uint32_t now = p->layers[p->layer].turn, ahead = (s->turn + p->n_turns - now) % p->n_turns;
    return (double)(ahead ? ahead : p->n_turns) / p->n_turns;
}

/* Uses per pass of holding it to the next visit and HORIZON beyond. */
static double rate(const policy *p, const layer_state *s, double expected, double lasting)
{
    return (expected + HORIZON * lasting) / (distance(p, s) + HORIZON);
}

/* ---- all ---- */

void policy_use(policy *p, uint32_t layer, const uint16_t *experts, int n)
{
    layer_state *s = &p->layers[layer];
    if (p->layer >= p->n_layers || layer < p->layer || (layer == p->layer && p->n_turns == 1))
        p->pass++;
    p->layer = layer;
    p->clock++;
    for (int i = 0; i < n; i++) {
        expert_use *u = &p->uses[s->first + experts[i]];
        u->last = p->clock;
        u->pass = p->pass;
        if (p->kind != POLICY_BELADY)
            u->count++;
    }
    if (p->kind == POLICY_SWARM)
        learn(p, s, experts, n);
}

policy_worth policy_worth_of(const policy *p, uint32_t layer, uint32_t expert)
{
    const layer_state *s = &p->layers[layer];
    const expert_use *u = &p->uses[s->first + expert];
    double last = (double)u->last;
    switch (p->kind) {
    case POLICY_LFU: return (policy_worth){(double)u->count, last};
    case POLICY_STALE: return u->pass == p->pass ? (policy_worth){1, -last} : (policy_worth){0, last};
    case POLICY_BELADY: return (policy_worth){-(double)u->count, last};
    case POLICY_SWARM:
        return (policy_worth){rate(p, s, (double)p->expected[s->first + expert], (double)p->slow[s->first + expert]), last};
    default: return (policy_worth){last, 0};
    }
}

/* LRU and LFU know nothing of the future: a hint beats everything, as a request would. */
policy_worth policy_worth_of_hint(const policy *p, uint32_t layer)
{
    if (p->kind == POLICY_SWARM)
        return (policy_worth){rate(p, &p->layers[layer], 0.7, 0.0), 0};
    return (policy_worth){1e300, 0};
}

void policy_set_next(policy *p, uint32_t layer, uint32_t expert, uint64_t when)
{
    p->uses[p->layers[layer].first + expert].count = when;
}
