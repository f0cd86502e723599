/*
 * Router logs made up for tests and benchmarks: per layer some experts are popular (Zipf), a topic prefers a set of its own and
 * changes now and then, a token keeps some of the experts of the token before, and experts of one clique come together.
 */
#ifndef TESTS_ROUTER_TRACE_H
#define TESTS_ROUTER_TRACE_H

#include <math.h>
#include <stdlib.h>

#include "experts/trace.h"
#include "theorem/random.h"

#define ROUTER_TOPICS 12
#define ROUTER_CLIQUE 4

typedef struct router_kind {
    const char *name;
    uint32_t n_layers, n_experts, n_used, n_tokens;
    double zipf;      /* exponent of the popularity: 0 all alike */
    double sticky;    /* chance that an expert of the token before stays */
    double topic;     /* share of the choices that the topic makes */
    double together;  /* chance that the next expert comes from the clique of the one chosen last */
    double shift;     /* chance that a token begins another topic */
    uint64_t bytes;   /* of an expert */
    bool mixed;       /* every third layer has experts of one and a half times the size */
    bool first_dense; /* layer 0 has no experts */
} router_kind;

static const router_kind router_kinds[] = {
    {"chat", 24, 64, 6, 700, 0.8, 0.30, 0.5, 0.25, 0.005, 1 << 20, false, false},
    {"code", 24, 128, 8, 700, 1.1, 0.45, 0.4, 0.35, 0.003, 3 << 19, true, true},
    {"mixed", 32, 60, 4, 700, 0.4, 0.15, 0.6, 0.15, 0.02, 2 << 20, true, false},
};
enum { ROUTER_KINDS = sizeof router_kinds / sizeof *router_kinds };

typedef struct router_state {
    const router_kind *kind;
    uint64_t seed;
    uint32_t topic;
    double *popular;  /* [n_experts]: cumulative, of ranks */
    uint16_t *rank;   /* [1 + ROUTER_TOPICS, n_layers, n_experts]: the expert of each rank, for everybody and for each topic */
    uint16_t *before; /* [n_layers, n_used] */
} router_state;

static inline double router_uniform(router_state *s) { return (double)(random_next(&s->seed) >> 11) * 0x1p-53; }

static inline trace_layer *router_layers(const router_kind *k)
{
    trace_layer *layers = calloc(k->n_layers, sizeof *layers);
    for (uint32_t l = 0; l < k->n_layers; l++)
        if (l > 0 || !k->first_dense)
            layers[l] = (trace_layer){.bytes = k->mixed && l % 3 == 0 ? k->bytes * 3 / 2 : k->bytes, .n_experts = k->n_experts};
    return layers;
}

static inline void router_shuffle(router_state *s, uint16_t *list)
{
    for (uint32_t i = 0; i < s->kind->n_experts; i++)
        list[i] = (uint16_t)i;
    for (uint32_t i = s->kind->n_experts; i-- > 1;) {
        uint32_t j = (uint32_t)(random_next(&s->seed) % (i + 1));
        uint16_t other = list[i];
        list[i] = list[j];
        list[j] = other;
    }
}

static inline router_state router_begin(const router_kind *k, uint64_t seed)
{
    router_state s = {.kind = k, .seed = seed};
    double sum = 0;
    s.popular = calloc(k->n_experts, sizeof *s.popular);
    s.rank = calloc((size_t)(1 + ROUTER_TOPICS) * k->n_layers * k->n_experts, sizeof *s.rank);
    s.before = calloc((size_t)k->n_layers * k->n_used, sizeof *s.before);
    for (uint32_t i = 0; i < k->n_experts; i++)
        s.popular[i] = sum += pow(i + 1, -k->zipf);
    for (uint32_t i = 0; i < (1 + ROUTER_TOPICS) * k->n_layers; i++)
        router_shuffle(&s, s.rank + (size_t)i * k->n_experts);
    for (uint32_t i = 0; i < k->n_layers; i++)
        for (uint32_t j = 0; j < k->n_used; j++)
            s.before[i * k->n_used + j] = (uint16_t)j;
    return s;
}

static inline void router_end(router_state *s)
{
    free(s->popular);
    free(s->rank);
    free(s->before);
}

/* A topic's ranks fall twice as steeply as everybody's. */
static inline uint16_t router_draw(router_state *s, uint32_t layer)
{
    const router_kind *k = s->kind;
    bool by_topic = router_uniform(s) < k->topic;
    double at = router_uniform(s) * s->popular[k->n_experts - 1];
    uint32_t low = 0, high = k->n_experts - 1, list = by_topic ? 1 + s->topic : 0;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (s->popular[middle] < at)
            low = middle + 1;
        else
            high = middle;
    }
    if (by_topic)
        low /= 3;
    return s->rank[((size_t)list * k->n_layers + layer) * k->n_experts + low];
}

static inline bool router_has(const uint16_t *list, uint32_t n, uint16_t e)
{
    for (uint32_t i = 0; i < n; i++)
        if (list[i] == e)
            return true;
    return false;
}

/* The experts of the next token in that layer into out [n_used]; layers in order. */
static inline void router_choose(router_state *s, uint32_t layer, uint16_t *out)
{
    const router_kind *k = s->kind;
    uint16_t *before = s->before + (size_t)layer * k->n_used;
    uint32_t n = 0;
    if (layer == 0 && router_uniform(s) < k->shift)
        s->topic = (uint32_t)(random_next(&s->seed) % ROUTER_TOPICS);
    for (uint32_t i = 0; i < k->n_used; i++)
        if (router_uniform(s) < k->sticky)
            out[n++] = before[i];
    while (n < k->n_used) {
        uint16_t e = router_draw(s, layer);
        if (n > 0 && router_uniform(s) < k->together)
            e = (uint16_t)((out[n - 1] / ROUTER_CLIQUE * ROUTER_CLIQUE + random_next(&s->seed) % ROUTER_CLIQUE) % k->n_experts);
        if (!router_has(out, n, e))
            out[n++] = e;
    }
    for (uint32_t i = 0; i < k->n_used; i++)
        before[i] = out[i];
}

/* Writes n_tokens in passes of `batch` tokens. */
static inline dil_status router_write(const router_kind *k, uint64_t seed, uint32_t batch, bool weights, const char *path,
                                      dil_error *err)
{
    trace_layer *layers = router_layers(k);
    uint16_t chosen[TRACE_MOST_USED];
    float parts[TRACE_MOST_USED];
    trace_options o = {
        .name = k->name, .layers = layers, .n_layers = k->n_layers, .n_used = k->n_used, .most_tokens = batch, .weights = weights};
    router_state s = router_begin(k, seed);
    trace_writer *w = NULL;
    dil_status status = trace_writer_open(&w, path, &o, err);
    for (uint32_t i = 0; i < k->n_used; i++)
        parts[i] = 1.0f / (float)(i + 2);
    for (uint32_t done = 0, n; status == DIL_OK && done < k->n_tokens; done += n) {
        n = k->n_tokens - done < batch ? k->n_tokens - done : batch;
        status = trace_writer_begin(w, n, err);
        for (uint32_t i = 0; status == DIL_OK && i < n; i++)
            for (uint32_t l = 0; l < k->n_layers; l++) {
                router_choose(&s, l, chosen);
                if (layers[l].n_experts > 0)
                    trace_writer_put(w, i, l, chosen, parts);
            }
        if (status == DIL_OK)
            status = trace_writer_end(w, err);
    }
    if (status == DIL_OK)
        status = trace_writer_commit(w, err);
    else
        trace_writer_abort(w);
    router_end(&s);
    free(layers);
    return status;
}

#endif
