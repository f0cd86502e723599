#include "train/locality.h"

#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "theorem/neighbours.h"

#define NEVER SIZE_MAX

typedef struct work {
    const loss_input *in;
    const locality_options *o;
    locality *out;
    size_t n, experts, used; /* tokens of all sequences */
    int32_t *flocks;         /* [experts][n_flock] */
    int n_flock;
    int16_t *stack; /* [experts]: by time since their last use */
    bool *mark;     /* [2][experts] */
    size_t *at;     /* [experts]: an access in the future */
    size_t *next;   /* [n * used]: the next access to the same expert */
    void *scratch;  /* of loss_router */
} work;

/* Accesses that share a cache. */
static size_t stretch(const work *w) { return (w->o->keep ? w->n : (size_t)w->in->n_tokens) * w->used; }

/* ---- least recently used ---- */

/* One stack serves all capacities: an expert is in a cache of c exactly when it is among the c used last. */
static void measure_lru(work *w)
{
    size_t accesses = w->n * w->used, hits[LOCALITY_MOST_CAPACITIES] = {0}, depth = 0;
    for (size_t i = 0; i < accesses; i++) {
        int16_t e = w->in->chosen[i];
        if (i % stretch(w) == 0)
            depth = 0;
        size_t at = 0;
        while (at < depth && w->stack[at] != e)
            at++;
        for (int c = 0; c < w->o->n_capacities; c++)
            hits[c] += at < depth && at < (size_t)w->o->capacities[c];
        depth += at == depth;
        memmove(w->stack + 1, w->stack, at * sizeof *w->stack);
        w->stack[0] = e;
    }
    for (int c = 0; c < w->o->n_capacities; c++)
        w->out->lru[c] = (double)hits[c] / (double)accesses;
}

/* ---- the best there could be ---- */

static void find_next(work *w)
{
    for (size_t i = w->n * w->used; i-- > 0;) {
        if ((i + 1) % stretch(w) == 0)
            for (size_t e = 0; e < w->experts; e++)
                w->at[e] = NEVER;
        size_t *e = &w->at[w->in->chosen[i]];
        w->next[i] = *e;
        *e = i;
    }
}

/* Out goes what is used again last, of several never used again the lowest. w->at: next use of who is in. */
static double belady(work *w, int capacity)
{
    size_t accesses = w->n * w->used, hits = 0;
    int held = 0;
    for (size_t i = 0; i < accesses; i++) {
        int16_t e = w->in->chosen[i];
        if (i % stretch(w) == 0) {
            memset(w->mark, 0, w->experts);
            held = 0;
        }
        hits += w->mark[e];
        if (!w->mark[e] && held == capacity) {
            size_t last = w->experts;
            for (size_t o = 0; o < w->experts; o++)
                last = w->mark[o] && (last == w->experts || w->at[o] > w->at[last]) ? o : last;
            w->mark[last] = false;
            held--;
        }
        held += !w->mark[e];
        w->mark[e] = true;
        w->at[e] = w->next[i];
    }
    return (double)hits / (double)accesses;
}

/* ---- windows and candidates ---- */

static void measure_windows(work *w)
{
    size_t tokens = (size_t)w->in->n_tokens, window = tokens < LOCALITY_WINDOW ? tokens : LOCALITY_WINDOW, windows = 0,
           distinct = 0;
    for (size_t s = 0; s < (size_t)w->in->n_sequences; s++)
        for (size_t t = 0; t + window <= tokens; t += window, windows++) {
            const int16_t *chosen = w->in->chosen + (s * tokens + t) * w->used;
            memset(w->mark, 0, w->experts);
            for (size_t i = 0; i < window * w->used; i++) {
                distinct += !w->mark[chosen[i]];
                w->mark[chosen[i]] = true;
            }
        }
    w->out->distinct = (double)distinct / (double)windows;
}

/* Marks these experts and their flocks; returns how many they are. */
static size_t mark_candidates(work *w, const int16_t *chosen)
{
    size_t n = 0;
    memset(w->mark, 0, w->experts);
    for (size_t i = 0; i < w->used; i++) {
        const int32_t *flock = w->flocks + (size_t)chosen[i] * (size_t)w->n_flock;
        n += !w->mark[chosen[i]];
        w->mark[chosen[i]] = true;
        for (int f = 0; f < w->n_flock; f++) {
            n += !w->mark[flock[f]];
            w->mark[flock[f]] = true;
        }
    }
    return n;
}

static void measure_candidates(work *w)
{
    size_t asked = 0, inside = 0, recalled = 0, candidates = 0;
    for (size_t t = 0; t < w->n; t++) {
        if (t % (size_t)w->in->n_tokens == 0)
            continue;
        const int16_t *chosen = w->in->chosen + t * w->used;
        size_t found = 0;
        candidates += mark_candidates(w, chosen - w->used);
        for (size_t i = 0; i < w->used; i++)
            found += w->mark[chosen[i]];
        recalled += found;
        inside += found == w->used;
        asked++;
    }
    double part = asked ? 1.0 / (double)asked : 0.0;
    w->out->inside = (double)inside * part;
    w->out->recalled = (double)recalled * part / (double)w->used;
    w->out->candidates = (double)candidates * part;
}

/* ---- prices ---- */

/* Marks the n_used largest of z - price, ties to the lowest index. price NULL: of z. */
static void mark_top(const work *w, const float *z, const float *price, bool *mark)
{
    memset(mark, 0, w->experts);
    for (size_t k = 0; k < w->used; k++) {
        size_t best = w->experts;
        float most = 0.0f;
        for (size_t e = 0; e < w->experts; e++) {
            float worth = z[e] - (price ? price[e] : 0.0f);
            if (!mark[e] && (best == w->experts || worth > most)) {
                best = e;
                most = worth;
            }
        }
        mark[best] = true;
    }
}

static void measure_agreement(work *w)
{
    size_t same = 0;
    bool *with = w->mark, *without = w->mark + w->experts;
    for (size_t t = 0; t < w->n; t++) {
        const float *z = w->in->z + t * w->experts;
        mark_top(w, z, w->in->price, with);
        mark_top(w, z, NULL, without);
        for (size_t e = 0; e < w->experts; e++)
            same += with[e] && without[e];
    }
    w->out->agreement = (double)same / (double)(w->n * w->used);
}

/* ---- all of it ---- */

static void measure_equilibrium(work *w)
{
    loss_input in = *w->in;
    loss_config c = {.recency = w->o->recency, .beta = w->o->beta};
    loss_values v;
    in.flock = NULL;
    loss_router(&in, &c, 0.0f, NULL, &v, w->scratch, NULL);
    w->out->exploitability = v.nash;
    w->out->entropy = v.entropy;
    w->out->violation = v.violation;
}

static dil_status take_memory(work *w, dil_error *err)
{
    w->flocks = mem_calloc(w->experts, SWARM_NEIGHBOURS * sizeof *w->flocks, MEM_MISC);
    w->stack = mem_calloc(w->experts + 1, sizeof *w->stack, MEM_MISC);
    w->mark = mem_calloc(w->experts, 2 * sizeof *w->mark, MEM_MISC);
    w->at = mem_calloc(w->experts, sizeof *w->at, MEM_MISC);
    w->next = mem_calloc(w->n * w->used, sizeof *w->next, MEM_MISC);
    w->scratch = mem_alloc(loss_scratch_bytes(w->in), MEM_MISC);
    if (!w->flocks || !w->stack || !w->mark || !w->at || !w->next || !w->scratch)
        return DIL_FAIL(err, DIL_NO_MEMORY, "locality: no memory for %zu tokens", w->n);
    return DIL_OK;
}

static dil_status find_flocks(work *w, dil_error *err)
{
    int others = w->in->n_experts - 1;
    w->n_flock = !w->o->rows ? 0 : others < SWARM_NEIGHBOURS ? others : SWARM_NEIGHBOURS;
    if (w->n_flock == 0)
        return DIL_OK;
    return swarm_nearest(w->o->rows, w->in->n_experts, w->o->n_embd, SWARM_COSINE, w->n_flock, NULL, w->flocks, NULL, err);
}

dil_status locality_measure(const loss_input *in, const locality_options *o, locality *out, dil_error *err)
{
    locality found = {0};
    work w = {.in = in,
              .o = o,
              .out = &found,
              .n = (size_t)in->n_sequences * (size_t)in->n_tokens,
              .experts = (size_t)in->n_experts,
              .used = (size_t)in->n_used};
    if (o->n_capacities < 0 || o->n_capacities > LOCALITY_MOST_CAPACITIES)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "locality: wanted at most %d capacities, found %d", LOCALITY_MOST_CAPACITIES,
                        o->n_capacities);
    for (int c = 0; c < o->n_capacities; c++)
        if (o->capacities[c] < 1)
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "locality: wanted caches of at least 1 expert, found %d", o->capacities[c]);
    dil_status status = take_memory(&w, err);
    if (status == DIL_OK)
        status = find_flocks(&w, err);
    if (status != DIL_OK)
        goto done;
    measure_lru(&w);
    find_next(&w);
    for (int c = 0; c < o->n_capacities; c++)
        found.belady[c] = belady(&w, o->capacities[c]);
    measure_windows(&w);
    measure_candidates(&w);
    measure_agreement(&w);
    measure_equilibrium(&w);
    *out = found;
done:
    mem_free(w.flocks);
    mem_free(w.stack);
    mem_free(w.mark);
    mem_free(w.at);
    mem_free(w.next);
    mem_free(w.scratch);
    return status;
}
