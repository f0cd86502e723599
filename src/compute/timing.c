/* Where the time goes: per kind of pass and step, and step by step as events. Workers write what is their own. */
#include <string.h>

#include "compute/exec.h"

static uint64_t bytes_of(const weight *w) { return w->panel_bytes * (uint64_t)w->n_panels; }

static uint64_t bytes_of_heads(const weight *of_head, uint32_t n_head)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; of_head && i < n_head; i++)
        bytes += bytes_of(&of_head[i]);
    return bytes;
}

uint64_t step_weight_bytes(const compute *c, const step *s)
{
    const layer_weights *l = &c->m->layers[s->layer];
    const latent_layer *a = l->latent;
    switch (s->kind) {
    case STEP_QKV: return bytes_of(&l->q) + bytes_of(&l->k) + bytes_of(&l->v);
    case STEP_LATENT_DOWN: return bytes_of(&l->q) + bytes_of(&a->q_a) + bytes_of(&a->kv_a);
    case STEP_LATENT_UP: return bytes_of(&a->q_b) + bytes_of(&a->kv_b);
    case STEP_ABSORB: return bytes_of_heads(a->k_b, c->h->n_head);
    case STEP_EXPAND: return bytes_of_heads(a->v_b, c->h->n_head);
    case STEP_ATTN_OUT: return bytes_of(&l->o);
    case STEP_ROUTE: return bytes_of(&l->moe->router);
    case STEP_EXPERTS: return bytes_of(&l->moe->experts->gate) + bytes_of(&l->moe->experts->up) + bytes_of(&l->moe->experts->down);
    case STEP_GATE_UP: return bytes_of(&l->gate) + bytes_of(&l->up);
    case STEP_DOWN: return bytes_of(&l->down);
    case STEP_HEAD: return bytes_of(&c->m->head);
    default: return 0;
    }
}

/* What it read in the pass at hand. */
static uint64_t bytes_read(const compute *c, const step *s)
{
    uint64_t n = step_rows(c, s) > 0;
    if (s->kind == STEP_EXPERTS) {
        n = 0;
        for (uint32_t e = 0; e < c->h->experts.n_experts; e++)
            n += c->moe.first_slot[e + 1] > c->moe.first_slot[e];
    }
    return n * s->weight_bytes;
}

/* -1: before the first or behind the last. */
static int32_t layer_of(const compute *c, const step *s)
{
    bool outside = s->kind == STEP_EMBED || s->kind == STEP_HEAD || s->pre_weight == c->m->output_norm;
    return outside ? -1 : (int32_t)s->layer;
}

void timing_add_step(compute *c, const step *s, int worker, uint64_t start, uint64_t done, uint64_t end)
{
    worker_times *t = &c->scratch[worker].times[c->pass][s->kind];
    t->n++;
    t->work_ns += done - start;
    t->wait_ns += end - done;
    t->weight_bytes += worker == 0 ? bytes_read(c, s) : 0;
    if (c->options.events)
        events_add(c->options.events, &(event_span){.start_ns = start,
                                                    .end_ns = done,
                                                    .name = step_name(s->kind),
                                                    .layer = layer_of(c, s),
                                                    .rows = step_rows(c, s),
                                                    .track = (uint16_t)worker});
}

void timing_add_pass(compute *c, uint64_t start, uint64_t end)
{
    static const char *const names[PASS_KINDS] = {[PASS_PREFILL] = "prefill", [PASS_DECODE] = "decode"};
    pass_times *t = &c->times[c->pass];
    t->n++;
    t->n_tokens += (uint64_t)c->n;
    t->time_ns += end - start;
    if (c->options.events)
        events_add(c->options.events, &(event_span){start, end, names[c->pass], -1, c->n, EVENTS_PASSES});
}

const pass_times *compute_times(compute *c)
{
    for (int pass = 0; pass < PASS_KINDS; pass++) {
        memset(c->times[pass].steps, 0, sizeof c->times[pass].steps);
        for (int worker = 0; worker < team_size(c->workers); worker++)
            for (int kind = 0; kind < STEP_KINDS; kind++) {
                const worker_times *w = &c->scratch[worker].times[pass][kind];
                step_times *t = &c->times[pass].steps[kind];
                t->n += worker == 0 ? w->n : 0;
                t->time_ns += worker == 0 ? w->work_ns + w->wait_ns : 0;
                t->work_ns += w->work_ns;
                t->wait_ns += w->wait_ns;
                t->weight_bytes += w->weight_bytes;
            }
    }
    return c->times;
}

void compute_times_reset(compute *c)
{
    memset(c->times, 0, sizeof c->times);
    for (int worker = 0; worker < team_size(c->workers); worker++)
        memset(c->scratch[worker].times, 0, sizeof c->scratch[worker].times);
}
