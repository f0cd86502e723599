#include "tune/levels.h"

#include <string.h>

#include "base/checked.h"

#define LINE 64
#define GRANULE 16384 /* steps touch runs of memory: coarser than a kernel's trace needs */
#define MOST_PIECES ((size_t)1 << 24)

/* Places of what a pass touches, at addresses that are not memory: weights and caches where a layer's stand, buffers shared by all. */
typedef struct walk {
    const predictor *p;
    const predict_pass *pass;
    cache_model *c;
    level_bytes *out;
    const cache_level *levels;
    int32_t n, n_outputs;
    uint64_t next;                                     /* of the weights to come */
    uint64_t x, nrm, q, kv, attn, hidden, logits, end; /* buffers */
} walk;

static uint64_t place(uint64_t *next, double bytes)
{
    const uint64_t at = *next;
    *next += round_up_size((size_t)bytes + 1, GRANULE);
    return at;
}

static void place_buffers(walk *w)
{
    const hparams *h = &w->p->m->h;
    const double rows = w->n;
    w->x = place(&w->end, rows * h->n_embd * 4);
    w->nrm = place(&w->end, rows * h->n_embd * 1.5);
    w->q = place(&w->end, rows * h->n_head * h->head_dim * 4);
    w->kv = place(&w->end, rows * h->n_head_kv * (h->head_dim + h->head_dim_v) * 4);
    w->attn = place(&w->end, rows * h->n_head * h->head_dim_v * 5.5);
    w->hidden = place(&w->end, rows * (h->experts.n_experts ? (double)h->experts.n_ff * h->experts.n_used : h->n_ff) * 1.5);
    w->logits = place(&w->end, (double)w->n_outputs * h->n_vocab * 4);
    w->next = w->end;
}

static void touch(walk *w, uint64_t at, double bytes)
{
    if (bytes >= 1)
        cache_model_touch(w->c, at, (size_t)bytes);
}

/* Lines touched, and of them those beyond each level. */
static void count(const walk *w, double counts[4])
{
    counts[0] = (double)cache_model_touched(w->c);
    for (int i = 0; i < 3; i++)
        counts[i + 1] = w->levels[i].size_bytes ? cache_model_misses(w->c, w->levels[i]) : counts[i];
}

static void finish(walk *w, step_kind kind)
{
    double now[4];
    level_bytes *b = &w->out[kind];
    count(w, now);
    b->touched += LINE * now[0];
    b->l2 += LINE * (now[1] - now[2]);
    b->l3 += LINE * (now[2] - now[3]);
    b->memory += LINE * now[3];
    cache_model_restart(w->c);
}

static void touch_weight(walk *w, const weight *m)
{
    const double bytes = (double)m->panel_bytes * m->n_panels;
    if (m->rows)
        touch(w, place(&w->next, bytes), bytes);
}

/* ---- the steps, in the order of the plan ---- */

static void walk_norm(walk *w, int32_t rows)
{
    touch(w, w->x, (double)rows * w->p->m->h.n_embd * 4);
    touch(w, w->nrm, (double)rows * w->p->m->h.n_embd * 1.5);
    finish(w, STEP_NORM);
}

static void walk_attention(walk *w, uint32_t i, int32_t rows)
{
    const hparams *h = &w->p->m->h;
    const double token = (double)(kv_page_bytes(w->p->type_k, (int)h->head_dim) + kv_page_bytes(w->p->type_v, (int)h->head_dim_v)) /
                         KV_PAGE * h->n_head_kv;
    int32_t seen = w->pass->depth + w->pass->n_tokens;
    if (h->windowed[i] && seen > (int32_t)h->window + w->pass->n_tokens)
        seen = (int32_t)h->window + w->pass->n_tokens;
    const double cached = seen * token * w->pass->n_sequences, fresh = w->n * token;
    const uint64_t cache = place(&w->next, cached);
    touch(w, w->q, (double)w->n * h->n_head * h->head_dim * 4);
    touch(w, w->kv, (double)w->n * h->n_head_kv * (h->head_dim + h->head_dim_v) * 4);
    touch(w, cache + (uint64_t)(cached - fresh) / GRANULE * GRANULE, fresh);
    finish(w, STEP_ROPE);
    touch(w, w->q, (double)rows * h->n_head * h->head_dim * 4);
    touch(w, cache, cached);
    touch(w, w->attn, (double)rows * h->n_head * h->head_dim_v * 5.5);
    finish(w, STEP_ATTENTION);
}

static void walk_experts(walk *w, const expert_layer *e, int32_t rows)
{
    const expert_params *x = &w->p->m->h.experts;
    touch_weight(w, &e->router);
    touch(w, w->nrm, (double)rows * w->p->m->h.n_embd * 1.5);
    finish(w, STEP_ROUTE);
    const double distinct = predict_distinct_experts(x, rows);
    const weight *all[] = {&e->experts[0].gate, &e->experts[0].up, &e->experts[0].down};
    for (int j = 0; j < 3; j++) { /* which experts differs from pass to pass: a share of all that moves on */
        const double bytes = (double)all[j]->panel_bytes * all[j]->n_panels, whole = bytes * x->n_experts;
        const uint64_t at = place(&w->next, whole);
        touch(w, at, distinct * bytes);
    }
    touch(w, w->hidden, (double)rows * x->n_used * x->n_ff * 1.5);
    touch(w, w->x, (double)rows * w->p->m->h.n_embd * 4);
    finish(w, STEP_EXPERTS);
}

static void walk_feed_forward(walk *w, const layer_weights *l, int32_t rows)
{
    const hparams *h = &w->p->m->h;
    if (l->moe)
        walk_experts(w, l->moe, rows);
    if (l->gate.rows == 0)
        return;
    touch_weight(w, &l->gate);
    touch_weight(w, &l->up);
    touch(w, w->nrm, (double)rows * h->n_embd * 1.5);
    touch(w, w->hidden, (double)rows * l->gate.rows * 1.5);
    finish(w, STEP_GATE_UP);
    touch_weight(w, &l->down);
    touch(w, w->hidden, (double)rows * l->gate.rows * 1.5);
    touch(w, w->x, (double)rows * h->n_embd * 4);
    finish(w, STEP_DOWN);
}

static void walk_layer(walk *w, uint32_t i)
{
    const hparams *h = &w->p->m->h;
    const layer_weights *l = &w->p->m->layers[i];
    const int32_t rows = i + 1 == h->n_layer ? w->n_outputs : w->n;
    walk_norm(w, w->n);
    const weight *in[] = {&l->q, &l->k, &l->v};
    for (int j = 0; j < 3; j++)
        touch_weight(w, in[j]);
    if (l->latent) {
        const weight *latent[] = {&l->latent->q_a, &l->latent->q_b, &l->latent->kv_a, &l->latent->kv_b};
        for (int j = 0; j < 4; j++)
            touch_weight(w, latent[j]);
    }
    touch(w, w->nrm, (double)w->n * h->n_embd * 1.5);
    touch(w, w->q, (double)w->n * h->n_head * h->head_dim * 4);
    finish(w, l->latent ? STEP_LATENT_DOWN : STEP_QKV);
    walk_attention(w, i, rows);
    touch_weight(w, &l->o);
    touch(w, w->attn, (double)rows * h->n_head * h->head_dim_v * 1.5);
    touch(w, w->x, (double)rows * h->n_embd * 4);
    finish(w, STEP_ATTN_OUT);
    walk_norm(w, rows);
    walk_feed_forward(w, l, rows);
}

static void walk_pass(walk *w)
{
    const hparams *h = &w->p->m->h;
    w->next = w->end;
    touch(w, w->x, (double)w->n * h->n_embd * 4);
    finish(w, STEP_EMBED);
    for (uint32_t i = 0; i < h->n_layer; i++)
        walk_layer(w, i);
    walk_norm(w, w->n_outputs);
    touch_weight(w, &w->p->m->head);
    touch(w, w->logits, (double)w->n_outputs * h->n_vocab * 4);
    finish(w, STEP_HEAD);
}

dil_status levels_of_pass(level_bytes out[STEP_KINDS], const predictor *p, const predict_pass *pass, dil_error *err)
{
    const machine *m = p->machine;
    cache_level levels[3];
    for (int i = 0; i < 3; i++) {
        const machine_level *l = &m->caches[i];
        const int used = l->n_cores > 0 ? (p->n_threads + l->n_cores - 1) / l->n_cores : 1;
        levels[i] = (cache_level){.size_bytes = l->size_bytes * (uint64_t)(used < l->n_caches ? used : l->n_caches)};
    }
    walk w = {.p = p,
              .pass = pass,
              .out = out,
              .levels = levels,
              .n = pass->n_tokens * pass->n_sequences,
              .n_outputs = pass->n_outputs,
              .end = GRANULE};
    DIL_TRY(cache_model_new(&w.c, LINE, GRANULE, MOST_PIECES, err));
    place_buffers(&w);
    for (int passes = 0; passes < 2; passes++) { /* the second finds what the first has left */
        memset(out, 0, STEP_KINDS * sizeof *out);
        walk_pass(&w);
    }
    const dil_status status = cache_model_check(w.c, err);
    cache_model_free(w.c);
    return status;
}
