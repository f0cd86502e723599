/*
 * Purely local routing: only the last token's experts, their neighbours in the flock and the often used ones are looked at.
 * Approximate: nothing proves that a row that was not read is worse. Weak evidence brings the full scan.
 */
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "experts/router_internal.h"

enum { FIRST_TOKENS = 8, MEMORY_TOKENS = 64 }; /* scored in full; how far back means reach */

struct router_memory {
    router_memory_options o;
    uint32_t n_experts, n_used, n_tokens;
    double mean, square; /* of the k-th values */
    uint16_t *last;      /* [n_used] */
    uint16_t *hot;       /* [n_hot] */
    float *uses;         /* [n_experts]: fading counts */
};

/* ---- the flock ---- */

dil_status router_screen_flock(router_screen *s, team *workers, dil_error *err)
{
    int32_t n = (int32_t)s->n, k = n - 1 < SWARM_NEIGHBOURS ? n - 1 : SWARM_NEIGHBOURS;
    float *white = mem_calloc((size_t)n * (size_t)s->n_embd, sizeof *white, MEM_MISC);
    int32_t *lists = mem_calloc((size_t)n * SWARM_NEIGHBOURS, sizeof *lists, MEM_MISC);
    swarm_graph flock = {0};
    dil_status status =
        white && lists ? DIL_OK : DIL_FAIL(err, DIL_NO_MEMORY, "router: no memory for the neighbours of %d rows", n);
    if (status == DIL_OK && n > 1) {
        swarm_whiten(s->rows, n, s->n_embd, white);
        status = swarm_nearest(white, n, (int32_t)s->n_embd, SWARM_COSINE, k, workers, lists, NULL, err);
    }
    if (status == DIL_OK)
        status = swarm_graph_of(lists, n, k, &flock, err);
    if (status == DIL_OK) {
        swarm_graph_free(&s->flock);
        s->flock = flock;
    }
    mem_free(white);
    mem_free(lists);
    return status;
}

/* ---- memory ---- */

dil_status router_memory_new(router_memory **out, const router_rule *r, const router_memory_options *o, dil_error *err)
{
    if (o->n_hot > r->n_experts || o->margin != o->margin)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "router: wanted at most %u hot experts and a margin, found %u and %g", r->n_experts,
                        o->n_hot, (double)o->margin);
    router_memory *m = mem_calloc(1, sizeof *m, MEM_ACTIVATIONS);
    uint16_t *sets = mem_calloc(r->n_used + o->n_hot, sizeof *sets, MEM_ACTIVATIONS);
    float *uses = mem_calloc(r->n_experts, sizeof *uses, MEM_ACTIVATIONS);
    if (!m || !sets || !uses) {
        mem_free(m);
        mem_free(sets);
        mem_free(uses);
        return DIL_FAIL(err, DIL_NO_MEMORY, "router: no memory for what a sequence used");
    }
    *m = (router_memory){
        .o = *o, .n_experts = r->n_experts, .n_used = r->n_used, .last = sets, .hot = sets + r->n_used, .uses = uses};
    *out = m;
    return DIL_OK;
}

void router_memory_clear(router_memory *m)
{
    memset(m->uses, 0, m->n_experts * sizeof *m->uses);
    m->n_tokens = 0;
    m->mean = m->square = 0.0;
}

void router_memory_free(router_memory *m)
{
    if (!m)
        return;
    mem_free(m->last);
    mem_free(m->uses);
    mem_free(m);
}

static void remember(router_memory *m, const uint16_t *chosen, double kth)
{
    m->n_tokens++;
    double rate = 1.0 / (m->n_tokens < MEMORY_TOKENS ? m->n_tokens : MEMORY_TOKENS);
    if (isfinite(kth)) {
        m->mean += rate * (kth - m->mean);
        m->square += rate * (kth * kth - m->square);
    }
    memcpy(m->last, chosen, m->n_used * sizeof *chosen);
    for (uint32_t i = 0; i < m->n_experts; i++)
        m->uses[i] *= 1.0f - 1.0f / MEMORY_TOKENS;
    for (uint32_t j = 0; j < m->n_used; j++)
        m->uses[chosen[j]] += 1.0f;
    if (m->o.n_hot > 0)
        router_pick(m->uses, m->n_experts, m->o.n_hot, m->hot);
}

/* ---- a token ---- */

/* Adds an expert that is not yet in the list. */
static uint32_t add(router_work *w, uint32_t n, uint32_t expert)
{
    if (!w->seen[expert]) {
        w->seen[expert] = 1;
        w->index[n++] = (uint16_t)expert;
    }
    return n;
}

static uint32_t candidates(const router_screen *s, const router_memory *m, router_work *w)
{
    uint32_t n = 0;
    for (uint32_t j = 0; j < m->n_used; j++)
        n = add(w, n, m->last[j]);
    for (uint32_t j = 0; j < m->n_used; j++)
        for (int64_t at = s->flock.first[m->last[j]]; at < s->flock.first[m->last[j] + 1]; at++)
            n = add(w, n, (uint32_t)s->flock.other[at]);
    for (uint32_t j = 0; j < m->o.n_hot; j++)
        n = add(w, n, m->hot[j]);
    return n;
}

/* Whether the k-th best candidate is worse than k-th values of this sequence use to be: somebody better was not asked. */
static bool weak(const router_memory *m, double kth)
{
    double variance = m->square - m->mean * m->mean;
    double deviation = variance > 0.0 ? sqrt(variance) : 0.0;
    double least = m->o.margin < INFINITY ? m->mean - (double)m->o.margin * deviation : -INFINITY;
    return !(kth >= least) || kth == -INFINITY;
}

void router_local(const router_screen *s, const router_rule *r, const float *x, router_memory *m, void *work, uint16_t *chosen,
                  float *weights, router_evidence *e)
{
    router_work w = router_work_of(s, work);
    uint32_t n = 0;
    router_work_clear(s, &w);
    bool all = m->n_tokens < FIRST_TOKENS || (m->o.refresh > 0 && m->n_tokens % m->o.refresh == 0);
    if (!all) {
        n = candidates(s, m, &w);
        router_score(s, r, x, &w, 0, n);
        router_conclude(s, r, &w, chosen, weights);
        all = weak(m, (double)w.values[chosen[r->n_used - 1]]);
    }
    if (all) {
        uint32_t before = n;
        for (uint32_t i = 0; i < s->n; i++)
            n = add(&w, n, i);
        router_score(s, r, x, &w, before, n);
        router_conclude(s, r, &w, chosen, weights);
    }
    remember(m, chosen, (double)w.values[chosen[r->n_used - 1]]);
    *e = (router_evidence){.n_scored = n,
                           .fell_back = all,
                           .read_bytes = n * (uint64_t)s->n_embd * sizeof(float),
                           .full_bytes = s->n * (uint64_t)s->n_embd * sizeof(float)};
}
