/*
 * The small steps around the matrices: embedding, norms (with the residual add of post-norm models), rotation of queries
 * and keys, storing keys and values.
 */
#include "compute/exec.h"

#include <math.h>
#include <string.h>

void act_quantize_from(const compute *c, act_buffer *a, const float *f, size_t f_stride, int32_t row, int32_t n_rows, int64_t from,
                       int64_t n)
{
    size_t r = (size_t)row;
    for (size_t i = 0; a->rounded && i < (size_t)n_rows; i++)
        c->k->round_bf16(f + i * f_stride, n, a->bf16 + (r + i) * a->view.bf16_stride + from);
    if (!a->quantized)
        return;
    size_t at = r * a->view.b_stride + (size_t)from / ACT_BLOCK;
    c->k->quantize(&(quantize_args){.f = f,
                                    .f_stride = f_stride,
                                    .k = n,
                                    .n_rows = n_rows,
                                    .q = a->q + r * a->view.q_stride + from,
                                    .d = a->d + at,
                                    .s = a->s + at,
                                    .isum = a->isum + at,
                                    .s16 = a->halves ? a->s16 + 2 * at : NULL,
                                    .isum16 = a->halves ? a->isum16 + 2 * at : NULL,
                                    .q_stride = a->view.q_stride,
                                    .b_stride = a->view.b_stride});
}

void act_quantize(const compute *c, act_buffer *a, int32_t row, int32_t n_rows, int64_t from, int64_t n)
{
    act_quantize_from(c, a, a->f + (size_t)row * a->view.f_stride + from, a->view.f_stride, row, n_rows, from, n);
}

/* cosine and sine of every pair at every position of the batch; YaRN mixes interpolated and extrapolated angles. */
static void rope_angles(compute *c, int variant, int32_t t)
{
    const rope_params *r = &c->h->rope[variant];
    float *cs = c->cs[variant] + (size_t)t * c->h->n_rot;
    for (uint32_t i = 0; i < c->h->n_rot / 2; i++) {
        double angle = c->position[t] * c->inverse_frequency[variant][i];
        double mix = c->correction[variant][i] * (double)r->extrapolation;
        angle = angle * (double)r->scale * (1.0 - mix) + angle * mix;
        cs[2 * i] = (float)(cos(angle) * (double)r->magnitude);
        cs[2 * i + 1] = (float)(sin(angle) * (double)r->magnitude);
    }
}

/* A row is what the experts read, and what they say is added to nothing. */
void step_input(compute *c, const step *s, int worker)
{
    (void)s;
    const size_t n_embd = c->h->n_embd;
    uint32_t n_items[TEAM_QUEUES], index;
    count_items(c, c->n, 1, 1, n_items);
    for (claims cl = claims_begin(c, worker); claims_next(&cl, n_items, &index);) {
        size_t t = (size_t)(part_first(c, cl.part) + (int32_t)index);
        float *row = c->nrm.floats ? c->nrm.f + t * c->nrm.view.f_stride : c->scratch[worker].rows; /* has room behind its end */
        memcpy(row, c->input + t * n_embd, n_embd * sizeof *row);
        memset(c->x + t * c->x_stride, 0, n_embd * sizeof *c->x);
        act_quantize_from(c, &c->nrm, row, n_embd, (int32_t)t, 1, 0, (int64_t)n_embd);
    }
}

void step_embed(compute *c, const step *s, int worker)
{
    (void)s;
    uint32_t n_items[TEAM_QUEUES], index;
    count_items(c, c->n, 1, 1, n_items);
    for (claims cl = claims_begin(c, worker); claims_next(&cl, n_items, &index);) {
        int32_t t = part_first(c, cl.part) + (int32_t)index;
        float *x = c->x + (size_t)t * c->x_stride;
        if (model_embed(c->m, c->tokens[t].id, x, NULL) != DIL_OK)
            atomic_store_explicit(&c->unreadable, true, memory_order_relaxed); /* compute_run looks after the last barrier */
        if (c->h->embd_scale != 1.0f)
            c->k->scale(x, c->h->embd_scale, c->h->n_embd);
        rope_angles(c, 0, t);
        if (c->h->window)
            rope_angles(c, 1, t);
    }
}

/* Rows per claim in steps that take whole rows: claims cost little, workers stay balanced. */
static int32_t claim_rows(const compute *c, int32_t n)
{
    int32_t share = n / (8 * c->n_workers);
    return share < 1 ? 1 : share < COMPUTE_NORM_ROWS ? share : COMPUTE_NORM_ROWS;
}

/* nrm: [n_embd] */
static void norm_row(compute *c, const step *s, int32_t t, float *nrm)
{
    const hparams *h = c->h;
    float *x = c->x + (size_t)t * c->x_stride, *tmp = c->tmp + (size_t)t * c->x_stride;
    if (s->post_weight) {
        c->k->rmsnorm(tmp, s->post_weight, h->norm_eps, h->n_embd, tmp);
        c->k->add_scaled(x, tmp, h->residual_scale, h->n_embd);
    }
    if (s->normalise)
        c->k->rmsnorm(x, s->pre_weight, h->norm_eps, h->n_embd, nrm);
    else
        memcpy(nrm, x, h->n_embd * sizeof *nrm);
}

/* Where nobody reads f32 the rows stay in the worker's cache until they are quantized. */
void step_norm(compute *c, const step *s, int worker)
{
    int32_t n = step_rows(c, s), rows = claim_rows(c, n);
    uint32_t n_items[TEAM_QUEUES], index;
    count_items(c, n, rows, 1, n_items);
    for (claims cl = claims_begin(c, worker); claims_next(&cl, n_items, &index);) {
        int32_t first = part_first(c, cl.part), end = first + part_size(c, cl.part, n), from = first + (int32_t)index * rows;
        int32_t to = from + rows < end ? from + rows : end;
        float *nrm = c->nrm.floats ? c->nrm.f + (size_t)from * c->nrm.view.f_stride : c->scratch[worker].rows;
        size_t stride = c->nrm.floats ? c->nrm.view.f_stride : c->x_stride;
        for (int32_t t = from; t < to; t++)
            norm_row(c, s, t, nrm + (size_t)(t - from) * stride);
        act_quantize_from(c, &c->nrm, nrm, stride, from, to - from, 0, c->h->n_embd);
    }
}

static void norm_heads(const compute *c, float *x, const float *w, uint32_t first, uint32_t n)
{
    for (uint32_t i = first; i < first + n; i++)
        c->k->rmsnorm(x + (size_t)i * c->h->head_dim, w, c->h->norm_eps, c->h->head_dim, x + (size_t)i * c->h->head_dim);
}

void store_kv(const compute *c, uint32_t layer_index, int32_t t, uint32_t kv_head, float *k, float *v)
{
    const kv_seq *seq = c->tokens[t].seq;
    int32_t page = seq->pages[c->position[t] / KV_PAGE];
    int slot = c->position[t] % KV_PAGE;
    if (kv_turned(kv_type_k(seq->pool)))
        c->k->hadamard(k, (int)c->h->head_dim);
    if (kv_turned(kv_type_v(seq->pool)))
        c->k->hadamard(v, (int)c->h->head_dim_v);
    c->k->kv_store_k(kv_type_k(seq->pool), kv_k(seq->pool, layer_index, page, kv_head), slot, k, (int)c->h->head_dim);
    c->k->kv_store_v(kv_type_v(seq->pool), kv_v(seq->pool, layer_index, page, kv_head), slot, v, (int)c->h->head_dim_v);
}

/* One KV head of one token, with the query heads that read it. */
static void rope_and_store(compute *c, const step *s, int32_t t, uint32_t kv_head)
{
    const hparams *h = c->h;
    const layer_weights *l = &c->m->layers[s->layer];
    uint32_t group = h->n_head / h->n_head_kv, dim = h->head_dim;
    float *q = c->q + (size_t)t * c->q_stride, *k = c->kk + (size_t)t * c->k_stride, *v = c->v + (size_t)t * c->v_stride;
    if (h->qk == QK_NORM_HEAD) {
        norm_heads(c, q, l->q_norm, kv_head * group, group);
        norm_heads(c, k, l->k_norm, kv_head, 1);
    }
    const float *cs = c->cs[h->windowed[s->layer]] + (size_t)t * h->n_rot;
    for (uint32_t i = kv_head * group; i < (kv_head + 1) * group; i++)
        c->k->rope(q + (size_t)i * dim, cs, (int)h->n_rot, h->pairs);
    k += (size_t)kv_head * dim;
    c->k->rope(k, cs, (int)h->n_rot, h->pairs);
    store_kv(c, s->layer, t, kv_head, k, v + (size_t)kv_head * h->head_dim_v);
}

void step_rope(compute *c, const step *s, int worker)
{
    const hparams *h = c->h;
    const layer_weights *l = &c->m->layers[s->layer];
    bool whole_rows = h->qk == QK_NORM_FULL;
    uint32_t per_block = whole_rows ? 1 : h->n_head_kv, n_items[TEAM_QUEUES], item;
    count_items(c, c->n, COMPUTE_ROPE_TOKENS, per_block, n_items);
    for (claims cl = claims_begin(c, worker); claims_next(&cl, n_items, &item);) {
        int32_t first = part_first(c, cl.part), end = first + part_size(c, cl.part, c->n);
        int32_t from = first + (int32_t)(item / per_block) * COMPUTE_ROPE_TOKENS,
                to = from + COMPUTE_ROPE_TOKENS < end ? from + COMPUTE_ROPE_TOKENS : end;
        for (int32_t t = from; t < to; t++) {
            if (!whole_rows) {
                rope_and_store(c, s, t, item % per_block);
                continue;
            }
            float *q = c->q + (size_t)t * c->q_stride, *k = c->kk + (size_t)t * c->k_stride;
            c->k->rmsnorm(q, l->q_norm, h->norm_eps, (int64_t)h->n_head * h->head_dim, q);
            c->k->rmsnorm(k, l->k_norm, h->norm_eps, (int64_t)h->n_head_kv * h->head_dim, k);
            for (uint32_t head = 0; head < h->n_head_kv; head++)
                rope_and_store(c, s, t, head);
        }
    }
}

/* Frequencies of each pair and YaRN's ramp, once. */
void rope_prepare(compute *c)
{
    const hparams *h = c->h;
    uint32_t pairs = h->n_rot / 2;
    for (int variant = 0; variant < 2; variant++) {
        const rope_params *r = &h->rope[variant];
        const float *factors = NULL;
        if (r->use_factors)
            factors = c->m->rope_freqs                                     ? c->m->rope_freqs
                      : (uint32_t)c->options.context > r->original_context ? c->m->rope_long
                                                                           : c->m->rope_short;
        double span = 2.0 * log((double)r->base);
        double low = floor(h->n_rot * log(r->original_context / (r->beta_fast * 2.0 * M_PI)) / span);
        double high = ceil(h->n_rot * log(r->original_context / (r->beta_slow * 2.0 * M_PI)) / span);
        low = low > 0 ? low : 0;
        high = high < h->n_rot - 1 ? high : h->n_rot - 1;
        for (uint32_t i = 0; i < pairs; i++) {
            double f = pow((double)r->base, -2.0 * i / h->n_rot);
            c->inverse_frequency[variant][i] = factors ? f / (double)factors[i] : f;
            double ramp = (i - low) / (high - low > 0.001 ? high - low : 0.001);
            c->correction[variant][i] = r->extrapolation > 0 ? 1.0 - fmin(1.0, fmax(0.0, ramp)) : 0.0;
        }
    }
}
