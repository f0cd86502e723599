/*
 * Attention over the paged KV cache, with an online softmax.
 *
 * A work item is a block of tokens of one run and the query heads of one KV head: its rows share every page they read.
 * For one row the result is defined by absolute positions alone: pages are visited in order, ATTN_CHUNK pages form a partial
 * (max m, sum l, accumulator), partials are merged in order. So neither the batch, nor the thread count, nor a reused
 * prefix changes a bit:
 *     partial:  m' = max(m, max s),  acc = acc * e^(m - m') + sum_j e^(s_j - m') v_j,  l likewise
 *     merge:    M = max(m_a, m_b),   acc = acc_a * e^(m_a - M) + acc_b * e^(m_b - M),  l likewise
 */
#include "compute/exec.h"

#include <math.h>
#include <string.h>

typedef struct attn_item {
    const kv_seq *seq;
    uint32_t layer, kv_head, first_head;
    int n_heads, n_rows;          /* rows: token-major, heads within */
    int32_t position[ATTN_ROWS];  /* of each row's token */
    int32_t out_row[ATTN_ROWS];
    float m[ATTN_ROWS], l[ATTN_ROWS];             /* of the chunk */
    float total_m[ATTN_ROWS], total_l[ATTN_ROWS];
    int32_t lowest, highest;      /* positions any row sees: [lowest, highest] */
} attn_item;

static uint32_t head_blocks(const compute *c)
{
    uint32_t group = c->h->n_head / c->h->n_head_kv;
    return (group + (uint32_t)c->heads_per_item - 1) / (uint32_t)c->heads_per_item;
}

uint32_t attention_items(const compute *c, int32_t n_tokens)
{
    uint32_t blocks = (uint32_t)((n_tokens + c->tokens_per_item - 1) / c->tokens_per_item);
    return blocks * c->h->n_head_kv * head_blocks(c);
}

static size_t pad16(size_t n) { return (n + 15) & ~(size_t)15; }

/* First position a token at `position` sees. */
static int32_t window_start(const compute *c, uint32_t layer_index, int32_t position)
{
    if (!c->h->windowed[layer_index])
        return 0;
    int64_t from = (int64_t)position - c->h->window + 1;
    return from > 0 ? (int32_t)from : 0;
}

/* Finds which rows item number `index` of a run has, and gathers their queries. */
static void item_open(compute *c, const step *s, const batch_run *run, uint32_t index, attn_item *it, worker_scratch *ws)
{
    const hparams *h = c->h;
    uint32_t group = h->n_head / h->n_head_kv, per_block = h->n_head_kv * head_blocks(c);
    int32_t block = (int32_t)(index / per_block);
    uint32_t within = index % per_block, head_block = within / h->n_head_kv;
    bool outputs_only = s->layer + 1 == h->n_layer;
    size_t dim_pad = pad16(h->head_dim);
    it->seq = run->seq;
    it->layer = s->layer;
    it->kv_head = within % h->n_head_kv;
    it->first_head = it->kv_head * group + head_block * (uint32_t)c->heads_per_item;
    uint32_t heads_left = (it->kv_head + 1) * group - it->first_head;
    it->n_heads = heads_left < (uint32_t)c->heads_per_item ? (int)heads_left : c->heads_per_item;
    it->n_rows = 0;
    it->lowest = INT32_MAX;
    it->highest = -1;
    int32_t skip = block * c->tokens_per_item, taken = 0;
    for (int32_t t = run->first; t < run->first + run->n && taken < c->tokens_per_item; t++) {
        if (outputs_only && c->output_of[t] < 0)
            continue;
        if (skip-- > 0)
            continue;
        taken++;
        for (int g = 0; g < it->n_heads; g++) {
            const float *q = c->q + (size_t)t * c->q_stride + (size_t)(it->first_head + (uint32_t)g) * h->head_dim;
            memcpy(ws->queries + (size_t)it->n_rows * dim_pad, q, h->head_dim * sizeof *q);
            it->position[it->n_rows] = c->position[t];
            it->out_row[it->n_rows++] = outputs_only ? c->output_of[t] : t;
        }
        int32_t from = window_start(c, s->layer, c->position[t]);
        it->lowest = from < it->lowest ? from : it->lowest;
        it->highest = c->position[t] > it->highest ? c->position[t] : it->highest;
    }
}

static void attend_page(compute *c, attn_item *it, int32_t page, worker_scratch *ws)
{
    const hparams *h = c->h;
    const kernels *k = c->k;
    kv_pool *pool = it->seq->pool;
    size_t dim_pad = pad16(h->head_dim);
    int dim = (int)h->head_dim;
    int32_t start = page * KV_PAGE;
    int n_slots = it->highest + 1 - start < KV_PAGE ? it->highest + 1 - start : KV_PAGE;
    k->kv_load_k(kv_type_k(pool), kv_k(pool, it->layer, it->seq->pages[page], it->kv_head), dim, n_slots, ws->k_page);
    k->kv_load_v(kv_type_v(pool), kv_v(pool, it->layer, it->seq->pages[page], it->kv_head), dim, n_slots, ws->v_page, dim_pad);
    k->attn_qk(ws->queries, dim_pad, it->n_rows, ws->k_page, dim, n_slots, h->attn_scale, ws->scores);
    for (int r = 0; r < it->n_rows; r++) {
        int32_t lo = window_start(c, it->layer, it->position[r]) - start, hi = it->position[r] + 1 - start;
        float f = k->attn_softmax(ws->scores + (size_t)r * KV_PAGE, lo > 0 ? lo : 0, hi < n_slots ? hi : n_slots, n_slots,
                                  h->attn_softcap, &it->m[r], &it->l[r]);
        if (f != 1.0f)
            k->scale(ws->chunk + (size_t)r * dim_pad, f, (int64_t)dim_pad);
    }
    k->attn_pv(ws->scores, it->n_rows, ws->v_page, dim_pad, dim, n_slots, ws->chunk, dim_pad);
}

static void merge_chunk(const compute *c, attn_item *it, worker_scratch *ws)
{
    size_t dim_pad = pad16(c->h->head_dim);
    for (int r = 0; r < it->n_rows; r++) {
        if (it->l[r] == 0.0f)
            continue; /* this row saw nothing of the chunk */
        float *total = ws->total + (size_t)r * dim_pad;
        float m = it->total_m[r] > it->m[r] ? it->total_m[r] : it->m[r];
        float old = it->total_l[r] == 0.0f ? 0.0f : expf(it->total_m[r] - m), fresh = expf(it->m[r] - m);
        c->k->scale(total, old, (int64_t)dim_pad);
        c->k->add_scaled(total, ws->chunk + (size_t)r * dim_pad, fresh, (int64_t)dim_pad);
        it->total_l[r] = it->total_l[r] * old + it->l[r] * fresh;
        it->total_m[r] = m;
    }
}

static void item_run(compute *c, attn_item *it, worker_scratch *ws)
{
    size_t dim_pad = pad16(c->h->head_dim);
    size_t acc_bytes = (size_t)it->n_rows * dim_pad * sizeof(float);
    int32_t first_page = it->lowest / KV_PAGE, last_page = it->highest / KV_PAGE;
    memset(ws->total, 0, acc_bytes);
    for (int r = 0; r < it->n_rows; r++) {
        it->total_m[r] = -INFINITY;
        it->total_l[r] = 0.0f;
    }
    for (int32_t page = first_page; page <= last_page;) {
        int32_t chunk_end = (page / ATTN_CHUNK + 1) * ATTN_CHUNK;
        memset(ws->chunk, 0, acc_bytes);
        for (int r = 0; r < it->n_rows; r++) {
            it->m[r] = -INFINITY;
            it->l[r] = 0.0f;
        }
        for (; page <= last_page && page < chunk_end; page++)
            attend_page(c, it, page, ws);
        merge_chunk(c, it, ws);
    }
}

static void item_store(compute *c, const attn_item *it, const worker_scratch *ws)
{
    const hparams *h = c->h;
    size_t dim_pad = pad16(h->head_dim);
    int64_t first = (int64_t)it->first_head * h->head_dim, width = (int64_t)it->n_heads * h->head_dim;
    for (int r = 0; r < it->n_rows; r++) {
        float *out = c->attn.f + (size_t)it->out_row[r] * c->attn.view.f_stride + first + (r % it->n_heads) * (int64_t)h->head_dim;
        const float *total = ws->total + (size_t)r * dim_pad;
        float inverse = 1.0f / it->total_l[r];
        for (uint32_t d = 0; d < h->head_dim; d++)
            out[d] = total[d] * inverse;
        if (r % it->n_heads == it->n_heads - 1 && first % ACT_BLOCK == 0 && width % ACT_BLOCK == 0)
            act_quantize(c, &c->attn, it->out_row[r], 1, first, width);
    }
}

/* From here on only outputs are wanted: their rows of the residual stream move to the front. */
static void select_outputs(compute *c)
{
    for (int32_t i = 0; i < c->n_outputs; i++)
        if (c->token_of[i] != i)
            memcpy(c->x + (size_t)i * c->x_stride, c->x + (size_t)c->token_of[i] * c->x_stride, c->h->n_embd * sizeof *c->x);
}

void step_attention(compute *c, const step *s, int worker)
{
    bool last = s->layer + 1 == c->h->n_layer;
    if (last && worker == 0)
        select_outputs(c);
    attn_item it;
    int32_t r = 0;
    for (uint32_t item;;) {
        item = team_claim(c->workers);
        while (r < c->n_runs && item >= (last ? c->runs[r + 1].items_before_outputs : c->runs[r + 1].items_before))
            r++;
        if (r == c->n_runs)
            return;
        const batch_run *run = &c->runs[r];
        item_open(c, s, run, item - (last ? run->items_before_outputs : run->items_before), &it, &c->scratch[worker]);
        item_run(c, &it, &c->scratch[worker]);
        item_store(c, &it, &c->scratch[worker]);
    }
}

/* Heads whose columns do not fill whole blocks of 32 are quantized here, row by row. */
void step_attn_quantize(compute *c, const step *s, int worker)
{
    (void)worker;
    int64_t width = (int64_t)c->h->n_head * c->h->head_dim;
    for (uint32_t t; (t = team_claim(c->workers)) < (uint32_t)step_rows(c, s);)
        act_quantize(c, &c->attn, (int32_t)t, 1, 0, width);
}
