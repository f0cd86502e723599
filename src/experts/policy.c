#include "experts/policy.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "experts/flock.h"

/*
 * The swarm wants to know how soon an expert is used again: the value V of an expert that is used at the T-th visit of its layer from
 * now is the mean of g^(T-1). g, the discount, tells how far ahead it pays to look: as far as memory holds passes. V is a weighted
 * sum of what is known of the expert: whether it was used now, its share of the last visits (two spans), its lasting share, how long ago
 * its last use was, and how much its flock was used lately. From one visit to the next
 *     V(known before) = 1 where it was used, else g V(known after)
 * and the weights are those that come nearest to it over what has happened (least squares of temporal differences), of all layers,
 * old visits fading; so a model whose routers keep to their experts gets other weights than one whose routers do not.
 */
enum { KNOWN_NOW, KNOWN_FAST, KNOWN_SLOW, KNOWN_LASTING, KNOWN_AGE, KNOWN_FAR, KNOWN_FLOCK, KNOWN };
static const float keep[KNOWN] = {0.0f, 0.6f, 0.93f, 0.998f, 0.8f, 0.95f, 0.0f}; /* per visit; the flock's is made of KNOWN_FAST */
static const double first_weights[KNOWN] = {0.25, 0.15, 0.2, 0.3, 0.05, 0.05, 0.1};
#define FIRST_TRUST 20.0 /* the first weights count as much as so many visits of an expert in use */
#define FADE 0.99        /* of the evidence, per pass */
#define HINT_VALUE 0.7   /* of an expert that another router guessed */
#define REACH 1.0        /* how far it pays to look, in what memory holds */

typedef struct expert_use {
    uint64_t last;  /* clock of the last request; 0: never */
    uint64_t pass;  /* of the last request */
    uint64_t count; /* requests; POLICY_BELADY: the next request */
} expert_use;

typedef struct layer_state {
    uint32_t n_experts, first; /* number of its expert 0 among all */
    uint32_t turn;             /* its place among the layers with experts */
    uint32_t n_visits;
    flock near;
} layer_state;

struct policy {
    policy_kind kind;
    uint32_t n_layers, n_turns;
    uint32_t layer; /* the last requested */
    uint64_t clock, pass;
    layer_state *layers; /* [n_layers] */
    expert_use *uses;    /* [experts of all layers] */
    float *known;        /* [the same, KNOWN]; swarm only, as what follows */
    float *value;        /* [the same]: V */
    float *before;       /* [experts of the largest layer, KNOWN]: what was known at the visit before */
    double discount;     /* g, per pass */
    double square[KNOWN][KNOWN], product[KNOWN], weights[KNOWN];
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

/* Places everything; memory NULL: only counts. Returns the bytes. */
static size_t place(char *memory, policy_kind kind, const uint32_t *n_experts, uint32_t n_layers)
{
    size_t at = 0, total = 0, largest = 0;
    policy *p = mem_carve(memory, &at, sizeof *p);
    layer_state *layers = mem_carve(memory, &at, n_layers * sizeof *layers);
    for (uint32_t l = 0; l < n_layers; l++) {
        if (layers)
            layers[l] = (layer_state){.n_experts = n_experts[l], .first = (uint32_t)total, .turn = p->n_turns};
        if (p && n_experts[l] > 0)
            p->n_turns++;
        total += n_experts[l];
        largest = n_experts[l] > largest ? n_experts[l] : largest;
        if (kind != POLICY_SWARM)
            continue;
        void *near = mem_carve(memory, &at, flock_bytes(n_experts[l]));
        if (near)
            flock_init(&layers[l].near, n_experts[l], near);
    }
    expert_use *uses = mem_carve(memory, &at, total * sizeof *uses);
    float *known = kind == POLICY_SWARM ? mem_carve(memory, &at, total * KNOWN * sizeof *known) : NULL;
    float *value = kind == POLICY_SWARM ? mem_carve(memory, &at, total * sizeof *value) : NULL;
    float *before = kind == POLICY_SWARM ? mem_carve(memory, &at, largest * KNOWN * sizeof *before) : NULL;
    if (p) {
        p->kind = kind;
        p->n_layers = n_layers;
        p->layer = n_layers;
        p->layers = layers;
        p->uses = uses;
        p->known = known;
        p->value = value;
        p->before = before;
        policy_set_depth(p, 1.0);
        for (int i = 0; i < KNOWN; i++) {
            p->weights[i] = first_weights[i];
            p->square[i][i] = FIRST_TRUST;
            p->product[i] = FIRST_TRUST * first_weights[i];
        }
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

/* Weights from the evidence: Gaussian elimination; the first weights' trust never fades, which keeps pivots away from 0. */
static void fit(policy *p)
{
    double a[KNOWN][KNOWN + 1];
    for (int i = 0; i < KNOWN; i++) {
        memcpy(a[i], p->square[i], sizeof p->square[i]);
        a[i][KNOWN] = p->product[i];
    }
    for (int i = 0; i < KNOWN; i++)
        for (int row = 0; row < KNOWN; row++) {
            double times = row == i ? 0 : a[row][i] / a[i][i];
            for (int k = i; k <= KNOWN && row != i; k++)
                a[row][k] -= times * a[i][k];
        }
    for (int i = 0; i < KNOWN; i++) {
        p->weights[i] = a[i][KNOWN] / a[i][i];
        p->product[i] = FADE * p->product[i] + (1 - FADE) * FIRST_TRUST * first_weights[i];
        for (int k = 0; k < KNOWN; k++)
            p->square[i][k] = FADE * p->square[i][k] + (k == i ? (1 - FADE) * FIRST_TRUST : 0);
    }
}

/* One expert from visit to visit. Nothing known teaches nothing. */
static void take_evidence(policy *p, const float *before, const float *known, bool used)
{
    if (!(before[KNOWN_SLOW] > 0.0f) && !used)
        return;
    double later = used ? 0.0 : p->discount;
    for (int i = 0; i < KNOWN; i++) {
        for (int k = 0; k < KNOWN; k++)
            p->square[i][k] += (double)before[i] * ((double)before[k] - later * (double)known[k]);
        p->product[i] += used ? (double)before[i] : 0.0;
    }
}

/* The flock's recent uses, symmetrised: who is minded minds back. */
static void ask_flock(policy *p, const layer_state *s)
{
    float *known = p->known + (size_t)s->first * KNOWN, share[FLOCK_SIZE];
    uint16_t near[FLOCK_SIZE];
    for (uint32_t e = 0; e < s->n_experts; e++)
        known[e * KNOWN + KNOWN_FLOCK] = 0;
    for (uint32_t e = 0; e < s->n_experts; e++) {
        int n = flock_neighbours(&s->near, e, near, share);
        for (int i = 0; i < n; i++) {
            known[e * KNOWN + KNOWN_FLOCK] += 0.5f * share[i] * known[near[i] * KNOWN + KNOWN_FAST];
            known[near[i] * KNOWN + KNOWN_FLOCK] += 0.5f * share[i] * known[e * KNOWN + KNOWN_FAST];
        }
    }
}

/* uses: the layer's, with the present request already in. */
static void learn(policy *p, layer_state *s, const uint16_t *experts, int n)
{
    const expert_use *uses = p->uses + s->first;
    float share = (float)s->n_visits / (float)(s->n_visits + 1); /* a young mean forgets nothing */
    float keeps[KNOWN];
    for (int i = 0; i < KNOWN; i++)
        keeps[i] = keep[i] < share ? keep[i] : share;
    s->n_visits++;
    float *layer_known = p->known + (size_t)s->first * KNOWN, *value = p->value + s->first;
    memcpy(p->before, layer_known, (size_t)s->n_experts * KNOWN * sizeof *p->before);
    for (uint32_t e = 0; e < s->n_experts; e++) {
        float *known = layer_known + e * KNOWN;
        bool used = uses[e].last == p->clock;
        for (int i = 0; i < KNOWN_AGE; i++)
            known[i] = keeps[i] * known[i] + (used ? 1 - keeps[i] : 0.0f);
        for (int i = KNOWN_AGE; i <= KNOWN_FAR; i++)
            known[i] = used ? 1.0f : keep[i] * known[i];
    }
    flock_note(&s->near, experts, n);
    ask_flock(p, s);
    for (uint32_t e = 0; e < s->n_experts; e++) {
        const float *known = layer_known + e * KNOWN;
        double sum = 0;
        take_evidence(p, p->before + e * KNOWN, known, uses[e].last == p->clock);
        for (int i = 0; i < KNOWN; i++)
            sum += p->weights[i] * (double)known[i];
        value[e] = sum > 0 ? (float)sum : 0.0f;
    }
}

/* Passes until the layer's next visit, 1 for the one just visited. */
static double distance(const policy *p, const layer_state *s)
{
    if (p->layer >= p->n_layers)
        return 1;
    uint32_t now = p->layers[p->layer].turn, ahead = (s->turn + p->n_turns - now) % p->n_turns;
    return (double)(ahead ? ahead : p->n_turns) / p->n_turns;
}

/* The value now of an expert whose layer comes after some of the pass. */
static double worth_now(const policy *p, const layer_state *s, double value) { return pow(p->discount, distance(p, s)) * value; }

void policy_set_depth(policy *p, double depth)
{
    double reach = REACH * (depth > 0.1 ? depth : 0.1);
    p->discount = exp(-1.0 / reach);
}

/* ---- all ---- */

static void next_pass(policy *p)
{
    p->pass++;
    if (p->kind == POLICY_SWARM)
        fit(p);
}

void policy_use(policy *p, uint32_t layer, const uint16_t *experts, int n)
{
    layer_state *s = &p->layers[layer];
    if (p->layer >= p->n_layers || layer < p->layer || (layer == p->layer && p->n_turns == 1))
        next_pass(p);
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
    case POLICY_SWARM: return (policy_worth){worth_now(p, s, (double)p->value[s->first + expert]), last};
    default: return (policy_worth){last, 0};
    }
}

/* LRU and LFU know nothing of the future: a hint beats everything, as a request would. */
policy_worth policy_worth_of_hint(const policy *p, uint32_t layer)
{
    if (p->kind == POLICY_SWARM)
        return (policy_worth){worth_now(p, &p->layers[layer], HINT_VALUE), 0};
    return (policy_worth){1e300, 0};
}

void policy_set_next(policy *p, uint32_t layer, uint32_t expert, uint64_t when)
{
    p->uses[p->layers[layer].first + expert].count = when;
}
