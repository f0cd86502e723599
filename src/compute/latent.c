/*
 * Attention through latents (DeepSeek): one short vector per token, and one rotated piece of key, stand for the keys and values of
 * all heads.
 *
 *     down:   q or q_a, and kv = [latent | piece]     norm: of q_a and of the latent     up: q_b, and kv_b unless absorbed
 *     expanded:  key = [k_plain | rot(piece)], value = v     of each head, from kv_b
 *     absorbed:  key = [latent | rot(piece)], value = latent     of the one head they share;
 *                query = [k_b q_plain | rot(q_rot)], and what attention mixes goes through v_b
 */
#include "compute/exec.h"

#include <string.h>

static const latent_layer *layer_latent(const compute *c, const step *s) { return c->m->layers[s->layer].latent; }

void step_latent_down(compute *c, const step *s, int worker)
{
    const layer_weights *l = &c->m->layers[s->layer];
    const latent_layer *a = l->latent;
    latent_batch *b = &c->latent;
    const act *x = &c->nrm.view;
    projection queries = a->q_a.rows ? (projection){&a->q_a, NULL, x, b->q_a, b->q_a_stride}
                                     : (projection){&l->q, l->q_bias, x, b->raw_q, b->raw_q_stride};
    projection list[] = {queries, {&a->kv_a, NULL, x, b->kv, b->kv_stride}};
    project_all(c, s->kind, worker, list, 2);
}

void step_latent_norm(compute *c, const step *s, int worker)
{
    const hparams *h = c->h;
    const latent_layer *a = layer_latent(c, s);
    latent_batch *b = &c->latent;
    uint32_t n_items[TEAM_QUEUES], index;
    count_items(c, c->n, 1, 1, n_items);
    for (claims cl = claims_begin(c, worker); claims_next(&cl, n_items, &index);) {
        int32_t t = part_first(c, cl.part) + (int32_t)index;
        float *latent = b->kv + (size_t)t * b->kv_stride;
        c->k->rmsnorm(latent, a->kv_a_norm, h->norm_eps, h->latent.kv_rank, latent);
        if (a->kv_b.rows) {
            memcpy(b->kv_latent.f + (size_t)t * b->kv_latent.view.f_stride, latent, h->latent.kv_rank * sizeof *latent);
            act_quantize(c, &b->kv_latent, t, 1, 0, h->latent.kv_rank);
        }
        if (a->q_a.rows) {
            float *q = b->q_latent.f + (size_t)t * b->q_latent.view.f_stride;
            c->k->rmsnorm(b->q_a + (size_t)t * b->q_a_stride, a->q_a_norm, h->norm_eps, h->latent.q_rank, q);
            act_quantize(c, &b->q_latent, t, 1, 0, h->latent.q_rank);
        }
    }
}

void step_latent_up(compute *c, const step *s, int worker)
{
    const latent_layer *a = layer_latent(c, s);
    latent_batch *b = &c->latent;
    projection list[2];
    int n = 0;
    if (a->q_b.rows)
        list[n++] = (projection){&a->q_b, NULL, &b->q_latent.view, b->raw_q, b->raw_q_stride};
    if (a->kv_b.rows)
        list[n++] = (projection){&a->kv_b, NULL, &b->kv_latent.view, b->expanded, b->expanded_stride};
    project_all(c, s->kind, worker, list, n);
}

static const float *angles(const compute *c, int32_t t) { return c->cs[0] + (size_t)t * c->h->n_rot; }

/* Blocks of rows of the batch, each for one head. */
typedef struct head_item {
    int32_t from, to;
    uint32_t head;
} head_item;

static head_item nth_head_item(const compute *c, int part, uint32_t index, int32_t n_rows, int32_t block)
{
    int32_t first = part_first(c, part), end = first + part_size(c, part, n_rows);
    int32_t from = first + (int32_t)(index / c->h->n_head) * block;
    return (head_item){from, from + block < end ? from + block : end, index % c->h->n_head};
}

void step_latent_store(compute *c, const step *s, int worker)
{
    const hparams *h = c->h;
    const latent_params *p = &h->latent;
    latent_batch *b = &c->latent;
    float *key = c->scratch[worker].head;
    uint32_t n_items[TEAM_QUEUES], index;
    count_items(c, c->n, COMPUTE_ROPE_TOKENS, h->n_head, n_items);
    for (claims cl = claims_begin(c, worker); claims_next(&cl, n_items, &index);) {
        head_item it = nth_head_item(c, cl.part, index, c->n, COMPUTE_ROPE_TOKENS);
        for (int32_t t = it.from; t < it.to; t++) {
            c->k->rope(c->q + (size_t)t * c->q_stride + (size_t)it.head * h->head_dim + p->n_plain, angles(c, t), (int)h->n_rot,
                       h->pairs);
            float *kv = b->expanded + (size_t)t * b->expanded_stride + (size_t)it.head * (p->n_plain + p->n_value);
            memcpy(key, kv, p->n_plain * sizeof *key);
            memcpy(key + p->n_plain, b->kv + (size_t)t * b->kv_stride + p->kv_rank, h->n_rot * sizeof *key);
            c->k->rope(key + p->n_plain, angles(c, t), (int)h->n_rot, h->pairs);
            store_kv(c, s->layer, t, it.head, key, kv + p->n_plain);
        }
    }
}

/* The rows of one head in a buffer that has a row for each head of each token. */
static act rows_of_head(const compute *c, const act_buffer *a, uint32_t head)
{
    act v = a->view;
    size_t n = c->h->n_head, blocks = (size_t)head * v.b_stride;
    v.f += head * v.f_stride;
    v.q += head * v.q_stride;
    v.d += blocks;
    v.s += blocks;
    v.isum += blocks;
    v.s16 += 2 * blocks;
    v.isum16 += 2 * blocks;
    v.bf16 += head * v.bf16_stride;
    v.f_stride *= n;
    v.q_stride *= n;
    v.b_stride *= n;
    v.bf16_stride *= n;
    return v;
}

static int32_t head_rows(const compute *c, int32_t n)
{
    int32_t share = n / (2 * c->n_parts) + 1;
    return share < HEAD_ROWS ? share : HEAD_ROWS;
}

/* w times the rows of a head: ws->head [rows][head_out_stride]. */
static void apply_head(compute *c, const weight *w, const act_buffer *a, const head_item *it, worker_scratch *ws)
{
    act x = rows_of_head(c, a, it->head);
    linear(c, w, &x, 0, w->n_panels, it->from, it->to - it->from, ws->head, c->head_out_stride, ws);
}

static void absorb_head(compute *c, const latent_layer *a, const head_item *it, worker_scratch *ws)
{
    const hparams *h = c->h;
    const latent_params *p = &h->latent;
    latent_batch *b = &c->latent;
    for (int32_t t = it->from; t < it->to; t++) {
        int32_t row = t * (int32_t)h->n_head + (int32_t)it->head;
        const float *q = b->raw_q + (size_t)t * b->raw_q_stride + (size_t)it->head * (p->n_plain + h->n_rot);
        memcpy(b->plain.f + (size_t)row * b->plain.view.f_stride, q, p->n_plain * sizeof *q);
        act_quantize(c, &b->plain, row, 1, 0, p->n_plain);
    }
    apply_head(c, &a->k_b[it->head], &b->plain, it, ws);
    for (int32_t t = it->from; t < it->to; t++) {
        const float *q = b->raw_q + (size_t)t * b->raw_q_stride + (size_t)it->head * (p->n_plain + h->n_rot);
        float *wide = c->q + (size_t)t * c->q_stride + (size_t)it->head * h->head_dim;
        memcpy(wide, ws->head + (size_t)(t - it->from) * c->head_out_stride, p->kv_rank * sizeof *wide);
        memcpy(wide + p->kv_rank, q + p->n_plain, h->n_rot * sizeof *wide);
        c->k->rope(wide + p->kv_rank, angles(c, t), (int)h->n_rot, h->pairs);
    }
}

void step_absorb(compute *c, const step *s, int worker)
{
    const hparams *h = c->h;
    const latent_layer *a = layer_latent(c, s);
    latent_batch *b = &c->latent;
    int32_t block = head_rows(c, c->n);
    uint32_t n_items[TEAM_QUEUES], index;
    count_items(c, c->n, block, h->n_head, n_items);
    for (claims cl = claims_begin(c, worker); claims_next(&cl, n_items, &index);) {
        head_item it = nth_head_item(c, cl.part, index, c->n, block);
        absorb_head(c, a, &it, &c->scratch[worker]);
        for (int32_t t = it.from; it.head == 0 && t < it.to; t++) {
            float *latent = b->kv + (size_t)t * b->kv_stride, *key = c->scratch[worker].head;
            memcpy(key, latent, h->head_dim * sizeof *key);
            c->k->rope(key + h->latent.kv_rank, angles(c, t), (int)h->n_rot, h->pairs);
            store_kv(c, s->layer, t, 0, key, latent);
        }
    }
}

void step_expand(compute *c, const step *s, int worker)
{
    const hparams *h = c->h;
    const latent_layer *a = layer_latent(c, s);
    worker_scratch *ws = &c->scratch[worker];
    int64_t width = h->latent.n_value;
    int32_t n = step_rows(c, s), block = head_rows(c, n);
    uint32_t n_items[TEAM_QUEUES], index;
    count_items(c, n, block, h->n_head, n_items);
    for (claims cl = claims_begin(c, worker); claims_next(&cl, n_items, &index);) {
        head_item it = nth_head_item(c, cl.part, index, n, block);
        apply_head(c, &a->v_b[it.head], &c->latent.mixed, &it, ws);
        for (int32_t t = it.from; t < it.to; t++) {
            float *out = c->attn.f + (size_t)t * c->attn.view.f_stride + it.head * width;
            memcpy(out, ws->head + (size_t)(t - it.from) * c->head_out_stride, (size_t)width * sizeof *out);
            if (width % ACT_BLOCK == 0)
                act_quantize(c, &c->attn, t, 1, it.head * width, width);
        }
    }
}
