/*
 * Attention over the paged KV cache.
 *
 * A work item is a block of tokens of one run and the query heads of one KV head: its rows share every page they read.
 * For one row the result is defined by absolute positions alone: ATTN_CHUNK pages form a partial (max m, sum l, accumulator),
 * partials are merged in order. So neither the batch, nor the thread count, nor a reused prefix changes a bit:
 *     partial:  m = max s,           acc = sum_j e^(s_j - m) v_j,  l = sum_j e^(s_j - m)
 *     merge:    M = max(m_a, m_b),   acc = acc_a * e^(m_a - M) + acc_b * e^(m_b - M),  l likewise
 * In a batch of few tokens the chunks of one block are items of their own, so that all workers share a long context; who
 * finishes a block's last chunk merges.
 */
#include "compute/exec.h"

#include <math.h>
#include <string.h>

typedef struct attn_item {
    const kv_seq *seq;
    uint32_t layer, kv_head, first_head;
    int n_heads, n_rows;         /* rows: token-major, heads within */
    int32_t token[ATTN_ROWS];    /* of the batch */
    int32_t position[ATTN_ROWS]; /* of each row's token */
    int32_t out_row[ATTN_ROWS];
    float m[ATTN_ROWS], l[ATTN_ROWS]; /* of the chunk */
    float total_m[ATTN_ROWS], total_l[ATTN_ROWS];
    int32_t lowest, highest; /* positions any row sees: [lowest, highest] */
} attn_item;

static uint32_t head_blocks(const compute *c)
{
    uint32_t group = c->h->n_head / c->h->n_head_kv;
    return (group + (uint32_t)c->heads_per_item - 1) / (uint32_t)c->heads_per_item;
}

uint32_t attention_items(const compute *c, const batch_run *run, int32_t n_tokens)
{
    uint32_t blocks = (uint32_t)((n_tokens + c->tokens_per_item - 1) / c->tokens_per_item);
    return blocks * c->h->n_head_kv * head_blocks(c) * run->n_splits;
}

uint32_t attention_splits(const compute *c, const batch_run *run)
{
    int32_t chunks = (run->position + run->n - 1) / ATTN_SLOTS + 1;
    return c->n <= COMPUTE_SPLIT_TOKENS && (size_t)chunks <= c->max_chunks ? (uint32_t)chunks : 1;
}

/* First position a token at `position` sees. */
static int32_t window_start(const compute *c, uint32_t layer_index, int32_t position)
{
    if (!c->h->windowed[layer_index])
        return 0;
    int64_t from = (int64_t)position - c->h->window + 1;
    return from > 0 ? (int32_t)from : 0;
}

/* A head's query in the form attn_qk reads. */
static void gather_query(const compute *c, const kv_pool *kv, const float *q, float *dst)
{
    const int dim = (int)c->h->head_dim;
    if (kv_turned(kv_type_k(kv))) {
        memcpy(dst, q, (size_t)dim * sizeof *q);
        c->k->hadamard(dst, dim);
        q = dst;
    }
    c->k->attn_query(kv_type_k(kv), q, dim, c->h->attn_scale, dst);
}

/* Finds which rows block number `index` of a run has, and gathers their queries. */
static void item_open(compute *c, const step *s, const batch_run *run, uint32_t index, attn_item *it, worker_scratch *ws)
{
    const hparams *h = c->h;
    uint32_t group = h->n_head / h->n_head_kv, per_block = h->n_head_kv * head_blocks(c);
    int32_t block = (int32_t)(index / per_block);
    uint32_t within = index % per_block, head_block = within / h->n_head_kv;
    bool outputs_only = s->layer + 1 == h->n_layer;
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
            gather_query(c, run->seq->pool, c->q + (size_t)t * c->q_stride + (size_t)(it->first_head + (uint32_t)g) * h->head_dim,
                         ws->queries + (size_t)it->n_rows * attn_row_bytes((int)h->head_dim) / sizeof *ws->queries);
            it->token[it->n_rows] = t;
            it->position[it->n_rows] = c->position[t];
            it->out_row[it->n_rows++] = outputs_only ? c->output_of[t] : t;
        }
        int32_t from = window_start(c, s->layer, c->position[t]);
        it->lowest = from < it->lowest ? from : it->lowest;
        it->highest = c->position[t] > it->highest ? c->position[t] : it->highest;
    }
}

/* Keys in the first pass over a chunk, values in the second. */
static const void *page_of(const attn_item *it, int32_t page, int pass)
{
    return (pass ? kv_v : kv_k)(it->seq->pool, it->layer, it->seq->pages[page], it->kv_head);
}

/* Pages lie apart, so that the hardware fetches nothing of the next one ahead. */
static void fetch_page(const void *page, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i += 64)
        __builtin_prefetch((const uint8_t *)page + i, 0, 2);
}

/* One chunk of pages: its partial of every row in it->m, it->l and acc [n_rows][acc_stride]. */
static void attend_chunk(compute *c, attn_item *it, int32_t chunk, float *acc, worker_scratch *ws)
{
    const hparams *h = c->h;
    const kernels *k = c->k;
    const kv_pool *kv = it->seq->pool;
    int32_t first = it->lowest / KV_PAGE, last = it->highest / KV_PAGE, start = chunk * ATTN_SLOTS, n_slots[ATTN_ROWS];
    first = first > chunk * ATTN_CHUNK ? first : chunk * ATTN_CHUNK;
    last = last < (chunk + 1) * ATTN_CHUNK ? last : (chunk + 1) * ATTN_CHUNK - 1;
    attn_page p = {.n_rows = it->n_rows, .n_slots = n_slots, .scratch = ws->page};
    for (int pass = 0; pass < 2; pass++) {
        p.type = pass ? kv_type_v(kv) : kv_type_k(kv);
        p.head_dim = (int)(pass ? h->head_dim_v : h->head_dim);
        for (int32_t page = first; page <= last; page++) {
            for (int r = 0; r < it->n_rows; r++) {
                int32_t seen = it->position[r] + 1 - page * KV_PAGE;
                n_slots[r] = seen < 0 ? 0 : seen < KV_PAGE ? seen : KV_PAGE;
            }
            p.first_slot = page * KV_PAGE - start;
            p.page = page_of(it, page, pass);
            if (page < last)
                fetch_page(page_of(it, page + 1, pass), kv_page_bytes(p.type, p.head_dim));
            else if (!pass)
                fetch_page(page_of(it, first, 1), kv_page_bytes(kv_type_v(kv), (int)h->head_dim_v));
            if (pass)
                k->attn_pv(&p, ws->scores, ATTN_SCORE_STRIDE, acc, c->head_stride);
            else
                k->attn_qk(&p, ws->queries, attn_row_bytes((int)h->head_dim), ws->scores, ATTN_SCORE_STRIDE);
        }
        for (int r = 0; r < it->n_rows && !pass; r++) {
            int32_t lo = window_start(c, it->layer, it->position[r]) - start, hi = it->position[r] + 1 - start;
            int32_t n = it->highest + 1 - start;
            k->attn_softmax(kv_type_v(kv), ws->scores + (size_t)r * ATTN_SCORE_STRIDE, lo > 0 ? lo : 0,
                            hi < ATTN_SLOTS ? hi : ATTN_SLOTS, n < ATTN_SLOTS ? n : ATTN_SLOTS, h->attn_softcap, &it->m[r],
                            &it->l[r]);
            memset(acc + (size_t)r * c->head_stride, 0, c->head_stride * sizeof *acc);
        }
    }
}

/* The next partial of row r: max m, sum l, accumulator acc. */
static void merge(const compute *c, attn_item *it, int r, float m, float l, const float *acc, worker_scratch *ws)
{
    float *total = ws->total + (size_t)r * c->head_stride;
    if (l == 0.0f)
        return; /* this row saw nothing of the chunk */
    if (it->total_l[r] == 0.0f) {
        if (total != acc)
            memcpy(total, acc, c->head_stride * sizeof *total);
        it->total_m[r] = m;
        it->total_l[r] = l;
        return;
    }
    float top = it->total_m[r] > m ? it->total_m[r] : m;
    float old = expf(it->total_m[r] - top), fresh = expf(m - top);
    c->k->scale(total, old, (int64_t)c->head_stride);
    c->k->add_scaled(total, acc, fresh, (int64_t)c->head_stride);
    it->total_l[r] = it->total_l[r] * old + l * fresh;
    it->total_m[r] = top;
}

static void item_run(compute *c, attn_item *it, worker_scratch *ws)
{
    memset(it->total_l, 0, sizeof it->total_l);
    int32_t first = it->lowest / ATTN_SLOTS, last = it->highest / ATTN_SLOTS;
    for (int32_t chunk = first; chunk <= last; chunk++) {
        float *acc = chunk == first ? ws->total : ws->chunk;
        attend_chunk(c, it, chunk, acc, ws);
        for (int r = 0; r < it->n_rows; r++)
            merge(c, it, r, it->m[r], it->l[r], acc + (size_t)r * c->head_stride, ws);
    }
}

/* The sum of a row's weights, with the share of its head's sink, relative to the row's maximum. */
static float total_weight(const compute *c, const attn_item *it, int r)
{
    const float *sinks = c->m->layers[it->layer].sinks;
    return sinks ? it->total_l[r] + expf(sinks[it->first_head + (uint32_t)(r % it->n_heads)] - it->total_m[r]) : it->total_l[r];
}

static void item_store(compute *c, const attn_item *it, const worker_scratch *ws)
{
    const hparams *h = c->h;
    act_buffer *mix = h->latent.absorbed ? &c->latent.mixed : &c->attn; /* a row per head, or per token */
    int64_t dim = h->head_dim_v, first = (int64_t)it->first_head * dim, width = (int64_t)it->n_heads * dim;
    for (int r = 0; r < it->n_rows; r++) {
        int64_t head = (int64_t)it->first_head + r % it->n_heads;
        int32_t row = h->latent.absorbed ? it->out_row[r] * (int32_t)h->n_head + (int32_t)head : it->out_row[r];
        float *out = mix->f + (size_t)row * mix->view.f_stride + (h->latent.absorbed ? 0 : head * dim);
        memcpy(out, ws->total + (size_t)r * c->head_stride, (size_t)dim * sizeof *out);
        c->k->scale(out, 1.0f / total_weight(c, it, r), dim);
        if (kv_turned(kv_type_v(it->seq->pool)))
            c->k->hadamard(out, (int)dim);
        if (h->latent.absorbed)
            act_quantize(c, mix, row, 1, 0, dim);
        else if (r % it->n_heads == it->n_heads - 1 && first % ACT_BLOCK == 0 && width % ACT_BLOCK == 0)
            act_quantize(c, mix, row, 1, first, width);
    }
}

/* Where row r's partial of a chunk lies: [head_stride] accumulator, then m and l. */
static float *partial(const compute *c, const attn_item *it, int r, int32_t chunk)
{
    size_t head = it->first_head + (uint32_t)(r % it->n_heads), row = (size_t)it->token[r] * c->h->n_head + head;
    return c->partials + (row * c->max_chunks + (size_t)chunk) * (c->head_stride + 16);
}

/* One chunk of a block whose chunks are items of their own; block counts over all runs. */
static void item_run_split(compute *c, attn_item *it, int32_t chunk, uint32_t n_splits, uint32_t block, worker_scratch *ws)
{
    int32_t first = it->lowest / ATTN_SLOTS, last = it->highest / ATTN_SLOTS;
    if (chunk >= first && chunk <= last)
        attend_chunk(c, it, chunk, ws->chunk, ws);
    for (int r = 0; r < it->n_rows && chunk >= first && chunk <= last; r++) {
        float *p = partial(c, it, r, chunk);
        memcpy(p, ws->chunk + (size_t)r * c->head_stride, c->head_stride * sizeof *p);
        p[c->head_stride] = it->m[r];
        p[c->head_stride + 1] = it->l[r];
    }
    if (atomic_fetch_add_explicit(&c->chunks_done[block], 1, memory_order_acq_rel) + 1 != n_splits)
        return;
    atomic_store_explicit(&c->chunks_done[block], 0, memory_order_relaxed); /* for the next layer, after a barrier */
    memset(it->total_l, 0, sizeof it->total_l);
    for (int r = 0; r < it->n_rows; r++) {
        for (chunk = first; chunk <= last; chunk++) {
            const float *p = partial(c, it, r, chunk);
            merge(c, it, r, p[c->head_stride], p[c->head_stride + 1], p, ws);
        }
    }
    item_store(c, it, ws);
}

/* From here on only outputs are wanted: their rows of the residual stream move to the front. */
static void select_outputs(compute *c)
{
    for (int32_t i = 0; i < c->n_outputs; i++)
        if (c->token_of[i] != i)
            memcpy(c->x + (size_t)i * c->x_stride, c->x + (size_t)c->token_of[i] * c->x_stride, c->h->n_embd * sizeof *c->x);
}

static uint32_t items_before(const compute *c, int32_t run, bool last_layer)
{
    return last_layer ? c->runs[run].items_before_outputs : c->runs[run].items_before;
}

/* First item of a part, of total in all. */
static uint32_t part_item(const compute *c, int part, uint32_t total)
{
    if (!c->by_rows)
        return total * (uint32_t)part / (uint32_t)c->n_parts;
    int64_t row = part < c->n_parts ? part_first(c, part) : c->n;
    return (uint32_t)((row < c->n ? row : c->n) * total / c->n);
}

static uint32_t run_blocks(const compute *c, int32_t run, bool last_layer)
{
    return (items_before(c, run + 1, last_layer) - items_before(c, run, last_layer)) / c->runs[run].n_splits;
}

/* Item number `index` of run r when all its chunks are items; counts the blocks of the runs before, which are few then. */
static void run_split_item(compute *c, const step *s, int32_t r, uint32_t index, bool last, attn_item *it, worker_scratch *ws)
{
    uint32_t n_splits = c->runs[r].n_splits, block = index / n_splits, before = 0;
    for (int32_t i = 0; i < r; i++)
        before += run_blocks(c, i, last);
    item_open(c, s, &c->runs[r], block, it, ws);
    item_run_split(c, it, (int32_t)(index % n_splits), n_splits, before + block, ws);
}

/* Items in order of their tokens, shared out by parts; within a part the last, which see most, come first. */
void step_attention(compute *c, const step *s, int worker)
{
    bool last = s->layer + 1 == c->h->n_layer;
    if (last && worker == 0)
        select_outputs(c);
    attn_item it;
    worker_scratch *ws = &c->scratch[worker];
    uint32_t total = items_before(c, c->n_runs, last), n_items[TEAM_QUEUES], index;
    for (int p = 0; p < c->n_parts; p++)
        n_items[p] = part_item(c, p + 1, total) - part_item(c, p, total);
    int32_t r = 0;
    for (claims cl = claims_begin(c, worker); claims_next(&cl, n_items, &index);) {
        uint32_t item = part_item(c, cl.part + 1, total) - 1 - index;
        for (; item < items_before(c, r, last); r--)
            ;
        for (; item >= items_before(c, r + 1, last); r++)
            ;
        item -= items_before(c, r, last);
        if (c->runs[r].n_splits > 1) {
            run_split_item(c, s, r, item, last, &it, ws);
            continue;
        }
        item_open(c, s, &c->runs[r], item, &it, ws);
        item_run(c, &it, ws);
        item_store(c, &it, ws);
    }
}

/* Heads whose columns do not fill whole blocks of 32 are quantized here, row by row. */
void step_attn_quantize(compute *c, const step *s, int worker)
{
    int64_t width = c->attn.k;
    uint32_t n_items[TEAM_QUEUES], index;
    count_items(c, step_rows(c, s), 1, 1, n_items);
    for (claims cl = claims_begin(c, worker); claims_next(&cl, n_items, &index);)
        act_quantize(c, &c->attn, part_first(c, cl.part) + (int32_t)index, 1, 0, width);
}
