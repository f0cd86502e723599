/*
 * Layers with experts. Who takes which is chosen (route.c); then tokens are put in order of their experts, so that each expert's
 * weights are read once for all that take it. A token's place with one of its experts is a slot:
 * slots lie by expert, then by row of the batch.
 *
 *     hidden[slot] = act(gate_e nrm[row]) * (up_e nrm[row])
 *     x[row] += residual_scale * sum over ranks r of weight[row][r] * (down_e hidden[slot(row, r)])     in order of r, whatever the batch
 */
#include "compute/exec.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "experts/router.h"

/* Slots by expert, then by row. */
static void number_slots(compute *c, int32_t n_rows)
{
    expert_batch *b = &c->moe;
    const expert_params *p = &c->h->experts;
    size_t n = (size_t)n_rows * p->n_used;
    memset(b->first_slot, 0, (p->n_experts + 1) * sizeof *b->first_slot);
    for (size_t i = 0; i < n; i++)
        b->first_slot[b->chosen[i] + 1]++;
    for (uint32_t e = 0; e < p->n_experts; e++)
        b->first_slot[e + 1] += b->first_slot[e];
    for (size_t i = 0; i < n; i++) {
        int32_t slot = b->first_slot[b->chosen[i]]++;
        b->slot_of[i] = slot;
        b->row_of[slot] = (int32_t)(i / p->n_used);
    }
    memmove(b->first_slot + 1, b->first_slot, p->n_experts * sizeof *b->first_slot); /* each stands at the next one's start now */
    b->first_slot[0] = 0;
}

/* ---- blocks and rounds ---- */

/* Blocks of slots of one expert. */
static void add_blocks(compute *c, uint32_t e)
{
    expert_batch *b = &c->moe;
    int32_t n = b->first_slot[e + 1] - b->first_slot[e], most = c->tuning.tile[STEP_EXPERTS].tokens,
            n_parts = (n + most - 1) / most;
    for (int32_t i = 0; i < n_parts; i++) {
        int32_t from = b->first_slot[e] + n * i / n_parts, to = b->first_slot[e] + n * (i + 1) / n_parts;
        b->blocks[b->n_blocks++] = (expert_block){e, from, to - from};
    }
}

/* What a block costs, in rows: expanding an expert's weights is worth about so many. */
#define BLOCK_COST 8

/* The blocks of a round: an equal part for every worker, so that none waits for one that has a popular expert. Experts that are still
 * being read stand last, and whoever is free takes the next one. */
static void share_blocks(compute *c, int32_t from, int32_t to)
{
    expert_batch *b = &c->moe;
    int64_t total = 0, done = 0;
    int part = 0;
    for (int32_t i = from; i < to; i++)
        total += b->blocks[i].n + BLOCK_COST;
    b->part_block[part++] = from;
    for (int32_t i = from; i < to && !c->options.experts; i++) {
        while (part < c->n_parts && done * c->n_parts >= total * part)
            b->part_block[part++] = i;
        done += b->blocks[i].n + BLOCK_COST;
    }
    while (part <= c->n_parts)
        b->part_block[part++] = to;
}

/* Pins the experts of a round, whose reads begin, and lets the last ones go. */
static void begin_round(compute *c, const step *s, int32_t round)
{
    expert_batch *b = &c->moe;
    pool *p = c->options.experts;
    int32_t from = b->round_first[round], to = b->round_first[round + 1];
    share_blocks(c, from, to);
    if (!p)
        return;
    moe_release(c);
    int n = 0;
    for (int32_t i = from; i < to; i++)
        if (i == from || b->blocks[i].expert != b->blocks[i - 1].expert)
            b->wanted[n++] = (uint16_t)b->blocks[i].expert;
    b->held_layer = s->layer;
    pool_request(p, s->layer, b->wanted, n);
    n = 0;
    for (int32_t i = to; round + 1 < b->n_rounds && i < b->round_first[round + 2]; i++)
        if (b->blocks[i].expert != b->blocks[i - 1].expert)
            b->wanted[n++] = (uint16_t)b->blocks[i].expert;
    pool_hint(p, s->layer, b->wanted, n);
}

void moe_release(compute *c)
{
    if (c->options.experts && c->moe.held_layer >= 0)
        pool_release(c->options.experts, (uint32_t)c->moe.held_layer);
    c->moe.held_layer = -1;
}

static void plan_rounds(compute *c, const step *s)
{
    expert_batch *b = &c->moe;
    uint32_t n_experts = c->h->experts.n_experts, capacity = n_experts, n = 0;
    b->n_blocks = 0;
    if (c->options.experts) {
        capacity = pool_capacity(c->options.experts, s->layer);
        pool_resident(c->options.experts, s->layer, b->resident);
    }
    for (int pass = 0; pass < 2; pass++) /* what is there first, while the rest is read */
        for (uint32_t e = 0; e < n_experts; e++)
            if ((pass == 0) == (!c->options.experts || b->resident[e]))
                add_blocks(c, e);
    b->n_rounds = 0;
    b->round_first[b->n_rounds++] = 0;
    for (int32_t i = 0; i < b->n_blocks; i++) {
        n += i == 0 || b->blocks[i].expert != b->blocks[i - 1].expert;
        if (n > capacity) {
            b->round_first[b->n_rounds++] = i;
            n = 1;
        }
    }
    b->round_first[b->n_rounds] = b->n_blocks;
}

void moe_prepare(compute *c, const step *s)
{
    number_slots(c, step_rows(c, s));
    plan_rounds(c, s);
    begin_round(c, s, 0);
}

/* ---- looking ahead ---- */

static uint32_t next_moe_layer(const compute *c, uint32_t i)
{
    do
        i++;
    while (i < c->h->n_layer && !c->m->layers[i].moe);
    return i;
}

#define HINTS_WEIGHED 64  /* reads after which it is asked what guessing is worth */
#define PASSES_SILENT 256 /* before it is tried again */

/* Whether guessing pays: at least half of the reads it began were for experts that were asked for. Called once per layer. */
static bool guesses_pay(compute *c)
{
    expert_batch *b = &c->moe;
    pool_counts n;
    if (b->silent > 0) {
        b->silent--;
        return false;
    }
    pool_stats(c->options.experts, UINT32_MAX, &n);
    uint64_t tried = n.hinted - b->hinted, wasted = n.wasted - b->wasted;
    if (tried < HINTS_WEIGHED)
        return true;
    b->hinted = n.hinted;
    b->wasted = n.wasted;
    if (2 * wasted <= tried)
        return true;
    b->silent = PASSES_SILENT * (int32_t)c->h->n_layer;
    return false;
}

/* With few rows: what the router of the next layer would choose from the state of this one is read already. */
static void hint_next_layer(compute *c, const step *s, int worker)
{
    expert_batch *b = &c->moe;
    const hparams *h = c->h;
    uint32_t next = next_moe_layer(c, s->layer), n_used = h->experts.n_used;
    int32_t n = step_rows(c, s);
    if (next == h->n_layer || n > COMPUTE_FEW_ROWS || c->m->layers[next].moe->router.type != DIL_TYPE_F32 || !guesses_pay(c))
        return;
    const layer_weights *l = &c->m->layers[next];
    const weight *w = &l->moe->router;
    worker_scratch *ws = &c->scratch[worker];
    act x = {.f = b->ahead, .f_stride = c->x_stride};
    router_rule rule = route_rule(c, next);
    uint16_t *guess = b->wanted;
    memset(b->resident, 0, h->experts.n_experts);
    for (int32_t row = 0; row < n; row++)
        c->k->rmsnorm(c->x + (size_t)row * c->x_stride, l->ffn_norm, h->norm_eps, h->n_embd, b->ahead + (size_t)row * c->x_stride);
    for (int32_t row = 0; row < n; row++) {
        linear(c, w, &x, 0, w->n_panels, row, 1, ws->gate, b->score_stride, ws);
        add_bias(ws->gate, b->score_stride, l->moe->router_bias, 0, (int)w->rows, 1, c->k);
        router_exact(&rule, ws->gate, guess, ws->up, ws->choosing);
        for (uint32_t i = 0; i < n_used; i++)
            b->resident[guess[i]] = 1;
    }
    int n_wanted = 0;
    for (uint32_t e = 0; e < h->experts.n_experts; e++)
        if (b->resident[e])
            b->wanted[n_wanted++] = (uint16_t)e;
    pool_hint(c->options.experts, next, b->wanted, n_wanted);
}

/* ---- computing ---- */

/* Copies what weights of this type read of some rows of nrm, one after the other; returns them as they are when it is one row. */
static act gather(const compute *c, const weight *w, const expert_block *blk, int32_t *token, worker_scratch *ws)
{
    const act *x = &c->nrm.view;
    const int32_t *rows = c->moe.row_of + blk->slot;
    *token = rows[0];
    if (blk->n == 1)
        return *x;
    act_buffer *g = &ws->gathered;
    bool f32 = c->options.exact || w->type == DIL_TYPE_F32, half = w->type == DIL_TYPE_F16 || w->type == DIL_TYPE_BF16;
    size_t k = w->cols, blocks = (k + ACT_BLOCK - 1) / ACT_BLOCK;
    *token = 0;
    for (size_t i = 0; i < (size_t)blk->n; i++) {
        size_t r = (size_t)rows[i];
        if (f32 || (half && !c->k->bf16_dot)) {
            memcpy(g->f + i * g->view.f_stride, x->f + r * x->f_stride, k * sizeof *x->f);
        } else if (half) {
            memcpy(g->bf16 + i * g->view.bf16_stride, x->bf16 + r * x->bf16_stride, (k + k % 2) * sizeof *x->bf16);
        } else {
            memcpy(g->q + i * g->view.q_stride, x->q + r * x->q_stride, blocks * ACT_BLOCK);
            memcpy(g->d + i * g->view.b_stride, x->d + r * x->b_stride, blocks * sizeof *x->d);
            memcpy(g->s + i * g->view.b_stride, x->s + r * x->b_stride, blocks * sizeof *x->s);
            memcpy(g->isum + i * g->view.b_stride, x->isum + r * x->b_stride, blocks * sizeof *x->isum);
            if (panel_reads_halves(w->type)) {
                memcpy(g->s16 + i * 2 * g->view.b_stride, x->s16 + r * 2 * x->b_stride, 2 * blocks * sizeof *x->s16);
                memcpy(g->isum16 + i * 2 * g->view.b_stride, x->isum16 + r * 2 * x->b_stride, 2 * blocks * sizeof *x->isum16);
            }
        }
    }
    return g->view;
}

/* Blocks times chunks of panels: every worker gets several items, and weights that are expanded serve as many panels as may be. */
static int block_chunks(const compute *c, int n_panels, size_t panel_bytes)
{
    int least = (int)(8192 / (panel_bytes + 1)) + 1, most = n_panels / (least > 2 ? least : 2);
    int wanted = (c->tuning.items_many * c->n_workers - 1) / (c->moe.n_blocks > 0 ? c->moe.n_blocks : 1) + 1;
    return c->n_workers == 1 || most < 1 ? 1 : wanted < most ? wanted : most;
}

/* An item of a phase: some panels of a block; n_chunks items per block. */
typedef struct block_item {
    const expert_block *block;
    int panel, end;
} block_item;

static void count_block_items(const compute *c, int n_chunks, uint32_t n_items[TEAM_QUEUES])
{
    for (int p = 0; p < c->n_parts; p++)
        n_items[p] = (uint32_t)((c->moe.part_block[p + 1] - c->moe.part_block[p]) * n_chunks);
}

static block_item nth_block_item(const compute *c, int part, uint32_t index, int n_chunks, int n_panels)
{
    int chunk = (int)(index % (uint32_t)n_chunks), pairs = (n_panels + 1) / 2; /* gemm and blocks of 32 want even panels */
    block_item it = {&c->moe.blocks[c->moe.part_block[part] + (int32_t)(index / (uint32_t)n_chunks)], pairs * chunk / n_chunks * 2,
                     pairs * (chunk + 1) / n_chunks * 2};
    it.end = it.end < n_panels ? it.end : n_panels;
    return it;
}

/* A matrix of an expert, where it lies now; false: it could not be read. */
static bool find_matrix(compute *c, const step *s, uint32_t expert_index, size_t member, weight *out)
{
    const expert_weights *x = &layer_experts(c, s)->experts[expert_index];
    const weight *w = (const weight *)((const char *)x + member);
    *out = *w;
    if (!c->options.experts)
        return true;
    const uint8_t *base = pool_wait(c->options.experts, s->layer, expert_index);
    if (!base) {
        atomic_store_explicit(&c->moe.lost, true, memory_order_relaxed); /* compute_run looks after the last barrier */
        return false;
    }
    *out = expert_weight_at(x, w, base);
    return true;
}

static void gate_up_item(compute *c, const step *s, const block_item *bi, worker_scratch *ws)
{
    const expert_layer *e = layer_experts(c, s);
    const expert_block *blk = bi->block;
    weight gate, up;
    if (!find_matrix(c, s, blk->expert, offsetof(expert_weights, gate), &gate) ||
        !find_matrix(c, s, blk->expert, offsetof(expert_weights, up), &up))
        return;
    size_t bias_at = (size_t)blk->expert * gate.rows;
    int32_t token;
    act in = gather(c, &gate, blk, &token, ws), up_in = in;
    if (up.type != gate.type) /* rare: another form may be needed */
        up_in = gather(c, &up, blk, &token, ws);
    int chunk = ffn_chunk(c, s, blk->n);
    for (int p = bi->panel; p < bi->end; p += chunk) {
        tile it = {p, bi->end - p < chunk ? bi->end - p : chunk, blk->slot, blk->n};
        int first = p * PANEL_ROWS, values = chunk_values(&gate, p, it.n_panels);
        size_t stride = (size_t)it.n_panels * PANEL_ROWS;
        linear(c, &gate, &in, p, it.n_panels, token, blk->n, ws->gate, stride, ws);
        linear(c, &up, &up_in, p, it.n_panels, token, blk->n, ws->up, stride, ws);
        add_bias(ws->gate, stride, e->gate_bias ? e->gate_bias + bias_at : NULL, first, values, blk->n, c->k);
        add_bias(ws->up, stride, e->up_bias ? e->up_bias + bias_at : NULL, first, values, blk->n, c->k);
        finish_hidden(c, &c->moe.hidden, &it, values, stride, ws);
    }
}

/* down_e * hidden of a block's slots for some panels: y[slot][..], slots counted from the block's first. */
static void down_block(compute *c, const step *s, const expert_block *blk, int panel, int n_panels, float *y, size_t stride,
                       worker_scratch *ws)
{
    const expert_layer *e = layer_experts(c, s);
    weight w;
    if (!find_matrix(c, s, blk->expert, offsetof(expert_weights, down), &w))
        return;
    const float *bias = e->down_bias ? e->down_bias + (size_t)blk->expert * w.rows : NULL;
    linear(c, &w, &c->moe.hidden.view, panel, n_panels, blk->slot, blk->n, y, stride, ws);
    add_bias(y, stride, bias, panel * PANEL_ROWS, chunk_values(&w, panel, n_panels), blk->n, c->k);
}

/* x[row] += residual_scale * the weighted sum of its slots, over n values from `first` on; out[slot][..] holds them from its start. */
static void combine(const compute *c, int32_t row, int64_t first, int64_t n, const float *out, size_t stride, float *sum)
{
    const expert_batch *b = &c->moe;
    uint32_t n_used = c->h->experts.n_used;
    float *x = c->x + (size_t)row * c->x_stride + first;
    memset(sum, 0, (size_t)n * sizeof *sum);
    for (size_t i = (size_t)row * n_used; i < ((size_t)row + 1) * n_used; i++)
        c->k->add_scaled(sum, out + (size_t)b->slot_of[i] * stride, b->weights[i], n);
    c->k->add_scaled(x, sum, c->h->residual_scale, n);
}

/* Few rows: a worker takes some panels of all experts at hand and adds them up on the spot. */
static void down_and_combine(compute *c, const step *s, int worker)
{
    const expert_batch *b = &c->moe;
    worker_scratch *ws = &c->scratch[worker];
    const weight *any = &layer_experts(c, s)->experts[0].down;
    int32_t n = step_rows(c, s);
    int most = ffn_chunk(c, s, n * (int32_t)c->h->experts.n_used);
    split parts = split_matrix(c, s->kind, any->n_panels, most, 1, n, any->panel_bytes * (size_t)b->n_blocks);
    uint32_t index;
    for (claims cl = claims_begin(c, worker); claims_next(&cl, parts.n_items, &index);) {
        tile it = split_tile(c, &parts, cl.part, index);
        size_t stride = (size_t)it.n_panels * PANEL_ROWS;
        for (int32_t i = 0; i < b->n_blocks; i++)
            down_block(c, s, &b->blocks[i], it.panel, it.n_panels, ws->gate + (size_t)b->blocks[i].slot * stride, stride, ws);
        for (int32_t row = 0; row < n; row++)
            combine(c, row, (int64_t)it.panel * PANEL_ROWS, chunk_values(any, it.panel, it.n_panels), ws->gate, stride, ws->up);
    }
}

static void combine_rows(compute *c, const step *s, int worker)
{
    int32_t n = step_rows(c, s);
    uint32_t n_items[TEAM_QUEUES], index;
    count_items(c, n, 1, 1, n_items);
    for (claims cl = claims_begin(c, worker); claims_next(&cl, n_items, &index);)
        combine(c, part_first(c, cl.part) + (int32_t)index, 0, c->h->n_embd, c->moe.out, c->x_stride, c->scratch[worker].rows);
}

static void gate_up_phase(compute *c, const step *s, int worker)
{
    const weight *any = &layer_experts(c, s)->experts[0].gate;
    int n_chunks = block_chunks(c, any->n_panels, 2 * any->panel_bytes);
    uint32_t n_items[TEAM_QUEUES], index;
    count_block_items(c, n_chunks, n_items);
    for (claims cl = claims_begin(c, worker); claims_next(&cl, n_items, &index);) {
        block_item it = nth_block_item(c, cl.part, index, n_chunks, any->n_panels);
        gate_up_item(c, s, &it, &c->scratch[worker]);
    }
}

static void down_phase(compute *c, const step *s, int worker)
{
    const weight *any = &layer_experts(c, s)->experts[0].down;
    int n_chunks = block_chunks(c, any->n_panels, any->panel_bytes);
    uint32_t n_items[TEAM_QUEUES], index;
    count_block_items(c, n_chunks, n_items);
    for (claims cl = claims_begin(c, worker); claims_next(&cl, n_items, &index);) {
        block_item it = nth_block_item(c, cl.part, index, n_chunks, any->n_panels);
        float *y = c->moe.out + (size_t)it.block->slot * c->x_stride + it.panel * PANEL_ROWS;
        down_block(c, s, it.block, it.panel, it.end - it.panel, y, c->x_stride, &c->scratch[worker]);
    }
}

void step_experts(compute *c, const step *s, int worker)
{
    int32_t n_rounds = c->moe.n_rounds; /* nobody changes it before all have read it */
    bool few = n_rounds == 1 && step_rows(c, s) <= COMPUTE_FEW_ROWS;
    for (int32_t round = 0; round < n_rounds; round++) {
        if (round > 0) {
            if (worker == 0)
                begin_round(c, s, round);
            team_barrier(c->workers);
        } else if (worker == 0 && c->options.experts) {
            hint_next_layer(c, s, worker);
        }
        gate_up_phase(c, s, worker);
        team_barrier(c->workers);
        if (few) {
            down_and_combine(c, s, worker);
            return;
        }
        down_phase(c, s, worker);
        team_barrier(c->workers);
    }
    combine_rows(c, s, worker);
}
