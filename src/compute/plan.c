/*
 * The plan: which steps a pass walks, and every buffer it needs, laid out once in one region. compute_bytes() does the same
 * arithmetic without taking memory, so that a plan can be shown before a model is loaded.
 */
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "base/mem.h"
#include "base/status.h"
#include "compute/exec.h"

/* Hands out pieces of the region; with base NULL only counts. */
typedef struct carver {
    uint8_t *base;
    size_t used;
} carver;

static void *carve(carver *cv, size_t count, size_t size)
{
    void *p = cv->base ? cv->base + cv->used : NULL;
    cv->used += round_up_size(count * size + 64, 64); /* a guard line: kernels may read whole vectors at a row's end */
    return p;
}

/* Which forms of some activations the weights read. Half precision reads bf16 or, on levels without bf16_dot, f32: plans know
 * no level. */
typedef struct readers {
    bool q, halves, bf16, f32;
} readers;

static void carve_act(carver *cv, act_buffer *a, size_t n_tokens, int64_t k, readers by)
{
    size_t width = round_up_size((size_t)k, 64), blocks = width / ACT_BLOCK;
    a->k = k;
    a->quantized = by.q;
    a->halves = by.halves;
    a->rounded = by.bf16;
    a->floats = by.f32;
    a->f = carve(cv, n_tokens * width, sizeof *a->f);
    size_t n = by.q ? n_tokens : 0;
    a->q = carve(cv, n * width, 1);
    a->d = carve(cv, n * blocks, sizeof *a->d);
    a->s = carve(cv, n * blocks, sizeof *a->s);
    a->isum = carve(cv, n * blocks, sizeof *a->isum);
    a->s16 = carve(cv, by.halves ? n * 2 * blocks : 0, sizeof *a->s16);
    a->isum16 = carve(cv, by.halves ? n * 2 * blocks : 0, sizeof *a->isum16);
    size_t bf16_stride = width + 32; /* not a power of 2: a tile's rows would share cache sets */
    a->bf16 = carve(cv, by.bf16 ? n_tokens * bf16_stride : 0, sizeof *a->bf16);
    a->view = (act){.f = a->f,
                    .q = a->q,
                    .d = a->d,
                    .s = a->s,
                    .isum = a->isum,
                    .s16 = a->s16,
                    .isum16 = a->isum16,
                    .f_stride = width,
                    .q_stride = width,
                    .b_stride = blocks,
                    .bf16 = a->bf16,
                    .bf16_stride = bf16_stride};
}

static void add_reader(const compute *c, const weight *w, readers *by)
{
    bool is_half = w->type == DIL_TYPE_F16 || w->type == DIL_TYPE_BF16;
    if (w->rows == 0)
        return;
    bool f32 = w->type == DIL_TYPE_F32 || c->options.exact;
    by->f32 = by->f32 || f32;
    by->bf16 = by->bf16 || (is_half && !f32);
    by->q = by->q || (!is_half && !f32);
    by->halves = by->halves || (!f32 && panel_reads_halves(w->type));
}

/* Who reads which activations. */
typedef struct all_readers {
    readers nrm, attn, hidden;
    readers slots; /* hidden values of experts */
    readers q_latent, kv_latent, plain, mixed;
} all_readers;

static void find_layer_readers(const compute *c, const layer_weights *l, all_readers *r)
{
    const weight *of_nrm[] = {&l->q, &l->k, &l->v, &l->gate, &l->up};
    for (size_t j = 0; j < sizeof of_nrm / sizeof *of_nrm; j++)
        add_reader(c, of_nrm[j], &r->nrm);
    add_reader(c, &l->o, &r->attn);
    add_reader(c, &l->down, &r->hidden);
    if (l->latent) {
        add_reader(c, &l->latent->q_a, &r->nrm);
        add_reader(c, &l->latent->kv_a, &r->nrm);
        add_reader(c, &l->latent->q_b, &r->q_latent);
        add_reader(c, &l->latent->kv_b, &r->kv_latent);
    }
    if (l->latent && l->latent->k_b) {
        add_reader(c, &l->latent->k_b[0], &r->plain);
        add_reader(c, &l->latent->v_b[0], &r->mixed);
    }
    if (l->moe) {
        add_reader(c, &l->moe->router, &r->nrm);
        add_reader(c, &l->moe->experts[0].gate, &r->nrm);
        add_reader(c, &l->moe->experts[0].up, &r->nrm);
        add_reader(c, &l->moe->experts[0].down, &r->slots);
        r->nrm.f32 = r->nrm.f32 || l->moe->shared_gate || c->options.route.mode != ROUTE_EXACT;
    }
}

static all_readers find_readers(const compute *c)
{
    all_readers r = {0};
    add_reader(c, &c->m->head, &r.nrm);
    for (uint32_t i = 0; i < c->h->n_layer; i++)
        find_layer_readers(c, &c->m->layers[i], &r);
    return r;
}

/* Of dense layers and shared experts. */
static int64_t widest_hidden(const compute *c)
{
    uint32_t most = 1;
    for (uint32_t i = 0; i < c->h->n_layer; i++)
        most = c->m->layers[i].gate.rows > most ? c->m->layers[i].gate.rows : most;
    return most;
}

static void carve_scratch(carver *cv, compute *c, readers nrm, worker_scratch *ws)
{
    const hparams *h = c->h;
    int64_t widest = h->n_embd, n_ff = widest_hidden(c);
    widest = widest > n_ff ? widest : n_ff;
    widest = widest > (int64_t)h->experts.n_ff ? widest : (int64_t)h->experts.n_ff;
    int64_t values = c->attn.k, ranks = h->latent.q_rank > h->latent.kv_rank ? h->latent.q_rank : h->latent.kv_rank;
    widest = widest > values ? widest : values;
    widest = widest > ranks ? widest : ranks;
    widest = widest > (int64_t)h->latent.n_plain ? widest : (int64_t)h->latent.n_plain;
    size_t tokens = (size_t)c->options.max_tokens;
    ws->linear = carve(cv, linear_scratch_bytes(widest), 1);
    ws->exact = carve(cv, c->options.exact ? (size_t)widest * (PANEL_ROWS + 1) : 0, sizeof *ws->exact);
    size_t part = tokens < GEMM_TOKENS_MOST ? tokens : GEMM_TOKENS_MOST;
    bool mixed = h->experts.n_experts > 0;
    size_t few_slots = (tokens < COMPUTE_FEW_ROWS ? tokens : COMPUTE_FEW_ROWS) * (h->experts.n_used > 0 ? h->experts.n_used : 1);
    size_t one = FFN_CHUNK_FEW / FFN_CHUNK, rows = part > few_slots ? part : few_slots;
    c->ffn_room = (rows > one ? rows : one) * FFN_CHUNK * PANEL_ROWS;
    carve_act(cv, &ws->gathered, mixed ? part : 0, h->n_embd, nrm);
    ws->choosing = carve(cv, 4 * (size_t)h->experts.n_experts, sizeof *ws->choosing);
    ws->rows = carve(cv, COMPUTE_NORM_ROWS * c->x_stride, sizeof *ws->rows);
    ws->gate = carve(cv, c->ffn_room, sizeof *ws->gate);
    ws->up = carve(cv, c->ffn_room, sizeof *ws->up);
    ws->queries = carve(cv, ATTN_ROWS, attn_row_bytes((int)h->head_dim));
    ws->page = carve(cv, 1, attn_scratch_bytes((int)(h->head_dim > h->head_dim_v ? h->head_dim : h->head_dim_v)));
    ws->head = carve(cv, HEAD_ROWS * c->head_out_stride, sizeof *ws->head);
    ws->scores = carve(cv, ATTN_ROWS * ATTN_SCORE_STRIDE, sizeof *ws->scores);
    ws->chunk = carve(cv, ATTN_ROWS * c->head_stride, sizeof *ws->chunk);
    ws->total = carve(cv, ATTN_ROWS * c->head_stride, sizeof *ws->total);
}

static void carve_experts(carver *cv, compute *c, size_t n_tokens, readers slots)
{
    const expert_params *p = &c->h->experts;
    expert_batch *b = &c->moe;
    size_t n = n_tokens * p->n_used;
    b->score_stride = round_up_size(p->n_experts, 16);
    b->scores = carve(cv, n_tokens * b->score_stride, sizeof *b->scores);
    b->chosen = carve(cv, n, sizeof *b->chosen);
    b->weights = carve(cv, n, sizeof *b->weights);
    b->shared_weight = carve(cv, n_tokens, sizeof *b->shared_weight);
    b->slot_of = carve(cv, n, sizeof *b->slot_of);
    b->row_of = carve(cv, n, sizeof *b->row_of);
    b->first_slot = carve(cv, (size_t)p->n_experts + 1, sizeof *b->first_slot);
    b->blocks = carve(cv, p->n_experts + n / LEAST_TOKEN_CHUNK + 1, sizeof *b->blocks);
    carve_act(cv, &b->hidden, n, p->n_ff, slots);
    bool apart = c->options.experts != NULL;
    b->out = carve(cv, n_tokens > COMPUTE_FEW_ROWS || apart ? n * c->x_stride : 0, sizeof *b->out);
    b->round_first = carve(cv, (size_t)p->n_experts + 2, sizeof *b->round_first);
    b->resident = carve(cv, p->n_experts, sizeof *b->resident);
    b->wanted = carve(cv, p->n_experts, sizeof *b->wanted);
    b->ahead = carve(cv, apart ? COMPUTE_FEW_ROWS * c->x_stride : 0, sizeof *b->ahead);
    b->held_layer = -1;
}

static void carve_latent(carver *cv, compute *c, size_t n, const all_readers *by)
{
    const latent_params *p = &c->h->latent;
    latent_batch *b = &c->latent;
    size_t n_head = c->h->n_head, n_rot = c->h->n_rot;
    b->q_a_stride = round_up_size(p->q_rank, 16);
    b->kv_stride = round_up_size(p->kv_rank + n_rot, 16);
    b->raw_q_stride = p->absorbed ? round_up_size(n_head * (p->n_plain + n_rot), 16) : c->q_stride;
    b->expanded_stride = round_up_size(n_head * (p->n_plain + p->n_value), 16);
    b->q_a = carve(cv, n * b->q_a_stride, sizeof *b->q_a);
    b->kv = carve(cv, n * b->kv_stride, sizeof *b->kv);
    b->raw_q = p->absorbed ? carve(cv, n * b->raw_q_stride, sizeof *b->raw_q) : c->q;
    b->expanded = carve(cv, p->absorbed ? 0 : n * b->expanded_stride, sizeof *b->expanded);
    carve_act(cv, &b->q_latent, p->q_rank ? n : 0, p->q_rank, by->q_latent);
    carve_act(cv, &b->kv_latent, p->absorbed ? 0 : n, p->kv_rank, by->kv_latent);
    carve_act(cv, &b->plain, p->absorbed ? n * n_head : 0, p->n_plain, by->plain);
    carve_act(cv, &b->mixed, p->absorbed ? n * n_head : 0, p->kv_rank, by->mixed);
}

/* Every buffer, in the order of use. The worker scratch array itself comes from the arena. */
static void carve_all(carver *cv, compute *c, int n_workers, worker_scratch *scratch)
{
    const hparams *h = c->h;
    size_t n = (size_t)c->options.max_tokens;
    all_readers by = find_readers(c);
    c->x_stride = round_up_size(h->n_embd, 16);
    c->q_stride = round_up_size((size_t)h->n_head * h->head_dim, 16);
    c->k_stride = round_up_size((size_t)h->n_head_kv * h->head_dim, 16);
    c->v_stride = round_up_size((size_t)h->n_head_kv * h->head_dim_v, 16);
    c->logit_stride = round_up_size(h->n_vocab, 16);
    c->head_stride = round_up_size(h->head_dim_v, 16);
    uint32_t head_out = h->head_dim > h->latent.n_value ? h->head_dim : h->latent.n_value;
    c->head_out_stride = h->latent.kv_rank ? round_up_size(head_out, PANEL_ROWS) : 0;
    c->max_chunks = ((size_t)c->options.context + ATTN_SLOTS - 1) / ATTN_SLOTS;
    c->x = carve(cv, n * c->x_stride, sizeof *c->x);
    c->tmp = carve(cv, n * c->x_stride, sizeof *c->tmp);
    carve_act(cv, &c->nrm, n, h->n_embd, by.nrm);
    c->q = carve(cv, n * c->q_stride, sizeof *c->q);
    c->kk = carve(cv, h->latent.kv_rank ? 0 : n * c->k_stride, sizeof *c->kk);
    c->v = carve(cv, h->latent.kv_rank ? 0 : n * c->v_stride, sizeof *c->v);
    carve_act(cv, &c->attn, n, (int64_t)h->n_head * (h->latent.kv_rank ? h->latent.n_value : h->head_dim_v), by.attn);
    if (h->latent.kv_rank)
        carve_latent(cv, c, n, &by);
    carve_act(cv, &c->hidden, n, widest_hidden(c), by.hidden);
    if (h->experts.n_experts)
        carve_experts(cv, c, n, by.slots);
    for (int variant = 0; variant < 2; variant++) {
        c->cs[variant] = carve(cv, n * h->n_rot, sizeof *c->cs[variant]);
        c->inverse_frequency[variant] = carve(cv, h->n_rot / 2, sizeof *c->inverse_frequency[variant]);
        c->correction[variant] = carve(cv, h->n_rot / 2, sizeof *c->correction[variant]);
    }
    c->logits = carve(cv, (size_t)c->options.max_outputs * c->logit_stride, sizeof *c->logits);
    c->position = carve(cv, n, sizeof *c->position);
    c->run_of = carve(cv, n, sizeof *c->run_of);
    c->output_of = carve(cv, n, sizeof *c->output_of);
    c->token_of = carve(cv, (size_t)c->options.max_outputs, sizeof *c->token_of);
    c->runs = carve(cv, n + 1, sizeof *c->runs);
    size_t split_rows = (n < COMPUTE_SPLIT_TOKENS ? n : COMPUTE_SPLIT_TOKENS) * h->n_head;
    c->partials = carve(cv, split_rows * c->max_chunks * (c->head_stride + 16), sizeof *c->partials);
    c->chunks_done = carve(cv, split_rows, sizeof *c->chunks_done);
    worker_scratch none;
    for (int i = 0; i < n_workers; i++)
        carve_scratch(cv, c, by.nrm, scratch ? &scratch[i] : &none);
}

size_t compute_bytes(const model *m, const compute_options *options, int n_workers)
{
    compute c = {.m = m, .h = &m->h, .options = *options};
    carver cv = {NULL, 0};
    carve_all(&cv, &c, n_workers, NULL);
    return cv.used;
}

static void each_latent_weight(const model *m, const latent_layer *a, void (*each)(void *ctx, const weight *w), void *ctx)
{
    if (!a)
        return;
    const weight *whole[] = {&a->q_a, &a->q_b, &a->kv_a, &a->kv_b};
    for (size_t j = 0; j < sizeof whole / sizeof *whole; j++)
        each(ctx, whole[j]);
    for (uint32_t head = 0; a->k_b && head < m->h.n_head; head++) {
        each(ctx, &a->k_b[head]);
        each(ctx, &a->v_b[head]);
    }
}

/* Calls each(ctx, w) for the weights of the layers that one token passes through, those of an expert n_used times. */
static void each_weight(const model *m, void (*each)(void *ctx, const weight *w), void *ctx)
{
    for (uint32_t i = 0; i < m->h.n_layer; i++) {
        const layer_weights *l = &m->layers[i];
        const weight *dense[] = {&l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down};
        for (size_t j = 0; j < sizeof dense / sizeof *dense; j++)
            each(ctx, dense[j]);
        each_latent_weight(m, l->latent, each, ctx);
        if (!l->moe)
            continue;
        each(ctx, &l->moe->router);
        for (uint32_t j = 0; j < m->h.experts.n_used; j++) {
            each(ctx, &l->moe->experts[j].gate);
            each(ctx, &l->moe->experts[j].up);
            each(ctx, &l->moe->experts[j].down);
        }
    }
}

static void add_bytes(void *ctx, const weight *w) { *(uint64_t *)ctx += w->panel_bytes * (uint64_t)w->n_panels; }
static void add_macs(void *ctx, const weight *w) { ((uint64_t *)ctx)[w->type] += (uint64_t)w->rows * w->cols; }

uint64_t compute_weight_bytes(const model *m)
{
    uint64_t bytes = m->head.panel_bytes * (uint64_t)m->head.n_panels;
    each_weight(m, add_bytes, &bytes);
    return bytes;
}

void compute_macs(const model *m, uint64_t macs[DIL_TYPE_COUNT])
{
    memset(macs, 0, DIL_TYPE_COUNT * sizeof *macs);
    each_weight(m, add_macs, macs);
}

#define MOST_LAYER_STEPS 16

static step *add_step(compute *c, step s)
{
    s.weight_bytes = step_weight_bytes(c, &s);
    c->steps[c->n_steps] = s;
    return &c->steps[c->n_steps++];
}

/* Experts come before the shared one, which is added to what they say. */
static void plan_feed_forward(compute *c, uint32_t i, bool last)
{
    const layer_weights *l = &c->m->layers[i];
    if (l->moe) {
        add_step(c, (step){.kind = STEP_ROUTE, .layer = i, .on_outputs = last});
        add_step(c, (step){.kind = STEP_CHOOSE, .layer = i, .on_outputs = last});
        add_step(c, (step){.kind = STEP_EXPERTS, .layer = i, .on_outputs = last});
    }
    if (l->gate.rows == 0)
        return;
    add_step(c, (step){.kind = STEP_GATE_UP, .layer = i, .on_outputs = last});
    add_step(c, (step){.kind = STEP_DOWN, .layer = i, .on_outputs = last});
}

/* From nrm to what the output projection reads. */
static void plan_attention(compute *c, uint32_t i, bool last)
{
    const hparams *h = c->h;
    const latent_layer *a = c->m->layers[i].latent;
    int64_t dim = h->head_dim_v, item_width = c->heads_per_item * dim, group_width = (int64_t)(h->n_head / h->n_head_kv) * dim;
    bool aligned = item_width % ACT_BLOCK == 0 && group_width % ACT_BLOCK == 0;
    if (a) {
        add_step(c, (step){.kind = STEP_LATENT_DOWN, .layer = i});
        add_step(c, (step){.kind = STEP_LATENT_NORM, .layer = i});
        if (a->q_b.rows || a->kv_b.rows)
            add_step(c, (step){.kind = STEP_LATENT_UP, .layer = i});
        add_step(c, (step){.kind = h->latent.absorbed ? STEP_ABSORB : STEP_LATENT_STORE, .layer = i});
    } else {
        add_step(c, (step){.kind = STEP_QKV, .layer = i});
        add_step(c, (step){.kind = STEP_ROPE, .layer = i});
    }
    add_step(c, (step){.kind = STEP_ATTENTION, .layer = i});
    if (h->latent.absorbed) {
        add_step(c, (step){.kind = STEP_EXPAND, .layer = i, .on_outputs = last});
        aligned = h->latent.n_value % ACT_BLOCK == 0;
    }
    if (!aligned && (c->attn.quantized || c->attn.rounded))
        add_step(c, (step){.kind = STEP_ATTN_QUANTIZE, .layer = i, .on_outputs = last});
}

static void plan_layer(compute *c, uint32_t i)
{
    const hparams *h = c->h;
    const layer_weights *l = &c->m->layers[i];
    bool last = i + 1 == h->n_layer;
    add_step(c, (step){.kind = STEP_NORM,
                       .layer = i,
                       .pre_weight = l->attn_norm,
                       .normalise = h->pre_norm,
                       .post_weight = i > 0 ? c->m->layers[i - 1].ffn_post_norm : NULL});
    plan_attention(c, i, last);
    add_step(c, (step){.kind = STEP_ATTN_OUT, .layer = i, .on_outputs = last});
    add_step(c, (step){.kind = STEP_NORM,
                       .layer = i,
                       .pre_weight = l->ffn_norm,
                       .normalise = h->pre_norm,
                       .post_weight = l->attn_post_norm,
                       .on_outputs = last});
    plan_feed_forward(c, i, last);
}

static dil_status make_plan(compute *c, dil_error *err)
{
    const model *m = c->m;
    c->steps = arena_calloc(c->memory, (size_t)c->h->n_layer * MOST_LAYER_STEPS + 3, sizeof *c->steps);
    if (!c->steps)
        return DIL_FAIL(err, DIL_NO_MEMORY, "plan: no memory for its steps");
    if (c->h->lone) {
        add_step(c, (step){.kind = STEP_INPUT});
        plan_feed_forward(c, 0, false);
        return DIL_OK;
    }
    add_step(c, (step){.kind = STEP_EMBED});
    for (uint32_t i = 0; i < c->h->n_layer; i++)
        plan_layer(c, i);
    add_step(c, (step){.kind = STEP_NORM,
                       .pre_weight = m->output_norm,
                       .normalise = true,
                       .on_outputs = true,
                       .post_weight = m->layers[c->h->n_layer - 1].ffn_post_norm});
    add_step(c, (step){.kind = STEP_HEAD, .on_outputs = true});
    return DIL_OK;
}

void compute_attention_tile(const hparams *h, int most_rows, int *n_heads, int *n_tokens)
{
    int group = (int)(h->n_head / h->n_head_kv);
    *n_heads = group < most_rows ? group : (most_rows + 1) / 2;
    *n_tokens = most_rows / *n_heads;
}

static int32_t within(int32_t value, int32_t usual, int32_t least, int32_t most)
{
    value = value > 0 ? value : usual;
    return value < least ? least : value < most ? value : most;
}

void compute_tune(compute *c, const compute_tuning *tuning)
{
    compute_tuning *t = &c->tuning;
    const int32_t n = team_size(c->workers), unit = c->k->token_tile;
    *t = *tuning;
    for (int i = 0; i < STEP_KINDS; i++) {
        compute_tile *cut = &t->tile[i];
        const bool narrow = i == STEP_GATE_UP && c->k->panel_chunk > FFN_CHUNK;
        const int32_t usual = narrow ? FFN_CHUNK : c->k->panel_chunk,
                      least = i == STEP_EXPERTS ? LEAST_TOKEN_CHUNK + unit - 1 : unit;
        cut->tokens = within(cut->tokens, c->k->token_chunk, least, GEMM_TOKENS_MOST) / unit * unit;
        const int32_t room = i == STEP_GATE_UP ? (int32_t)(c->ffn_room / PANEL_ROWS) / cut->tokens / 2 * 2 : 256;
        cut->panels = within(cut->panels, usual, 2, room > FFN_CHUNK ? room : FFN_CHUNK) / 2 * 2;
    }
    t->items_few = within(t->items_few, COMPUTE_ITEMS_FEW, 1, 64);
    t->items_many = within(t->items_many, COMPUTE_ITEMS_MANY, 1, 64);
    t->threads_few = within(t->threads_few, n, 1, n);
    t->threads_many = within(t->threads_many, n, 1, n);
    t->part_rows = within(t->part_rows, COMPUTE_PART_ROWS, unit, INT32_MAX / TEAM_MAX);
    t->ahead = within(t->ahead, c->k->ahead, 0, 1 << 16);
    t->attention_rows = within(t->attention_rows, ATTN_ROWS, 1, ATTN_ROWS);
    /* Heads per item stay: which of them share a partial result's memory and are quantized together follows from them. */
    int heads;
    compute_attention_tile(c->h, ATTN_ROWS, &c->heads_per_item, &heads);
    c->tokens_per_item = t->attention_rows > c->heads_per_item ? t->attention_rows / c->heads_per_item : 1;
}

const compute_tuning *compute_tuned(const compute *c) { return &c->tuning; }

static dil_status build(compute *c, dil_error *err)
{
    int n_workers = team_size(c->workers);
    c->memory = arena_new(MEM_ACTIVATIONS, (size_t)1 << 30);
    if (!c->memory || !(c->scratch = arena_calloc(c->memory, (size_t)n_workers, sizeof *c->scratch)))
        return DIL_FAIL(err, DIL_NO_MEMORY, "plan: no memory");
    compute_tune(c, &(compute_tuning){0});
    size_t bytes = compute_bytes(c->m, &c->options, n_workers);
    carver cv = {mem_map(bytes, MEM_ACTIVATIONS), 0};
    if (!cv.base)
        return DIL_FAIL(err, DIL_NO_MEMORY, "plan: no memory for %zu bytes of buffers; a smaller batch (-ub) needs less", bytes);
    c->region = cv.base;
    c->region_bytes = bytes;
    carve_all(&cv, c, n_workers, c->scratch);
    act_buffer *acts[] = {&c->nrm,          &c->attn,        &c->hidden, &c->moe.hidden, &c->latent.q_latent, &c->latent.kv_latent,
                          &c->latent.plain, &c->latent.mixed};
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++) {
        acts[i]->floats = acts[i]->floats || (acts[i]->rounded && !c->k->bf16_dot);
        acts[i]->rounded = acts[i]->rounded && c->k->bf16_dot;
    }
    rope_prepare(c);
    DIL_TRY(route_new(c, err));
    return make_plan(c, err);
}

dil_status compute_new(compute **out, const model *m, const kernels *k, team *workers, const compute_options *options,
                       dil_error *err)
{
    if (options->max_tokens < 1 || options->max_tokens > 1 << 16 || options->max_outputs < 1 || options->context < 1)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "batch: wanted 1..65536 tokens and at least 1 output, found %d and %d",
                        options->max_tokens, options->max_outputs);
    if (options->on_input && !options->exact)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "inputs can be looked at with exact activations only");
    compute *c = mem_calloc(1, sizeof *c, MEM_ACTIVATIONS);
    if (!c)
        return DIL_FAIL(err, DIL_NO_MEMORY, "plan: no memory");
    c->m = m;
    c->h = &m->h;
    c->k = k;
    c->workers = workers;
    c->options = *options;
    dil_status status = build(c, err);
    if (status != DIL_OK) {
        compute_free(c);
        return status;
    }
    *out = c;
    return DIL_OK;
}

void compute_free(compute *c)
{
    if (!c)
        return;
    mem_unmap(c->region, c->region_bytes, MEM_ACTIVATIONS);
    route_free(c);
    arena_free(c->memory);
    mem_free(c);
}
