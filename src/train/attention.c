/*
 * Causal attention within sequences: per sequence and KV head, queries in blocks against all keys up to the block's end. Backward
 * computes the probabilities P again rather than keep them: dP = dO V^T, dS = P (dP - P.dP), dQ = dS K, dK = dS^T Q, dV = P^T dO.
 */
#include <math.h>
#include <string.h>

#include "train/layers.h"

#define QUERIES 64 /* of a block */

typedef struct attention_run {
    const crew *c;
    const attention_shape *s;
    const float *q, *k, *v, *d_o;
    float *o, *dq, *dk, *dv;
    float scale;
} attention_run;

/* A worker's memory for one KV head of one sequence. */
typedef struct head_scratch {
    uint32_t *k_columns, *v_rows; /* K^T and V as right operands */
    uint32_t *v_columns, *k_rows; /* V^T and K: backward only */
    uint32_t *a, *outer;
    float *p, *dp; /* [QUERIES][n_tokens] */
    float *q;      /* [QUERIES][head_dim], scaled */
} head_scratch;

static size_t padded(size_t n) { return (n + PRODUCT_COLS - 1) / PRODUCT_COLS * PRODUCT_COLS; }

/* Every part is sized for f32, the larger of the two kinds. base NULL: only counts. */
static size_t carve(const attention_shape *s, uint32_t *base, head_scratch *out)
{
    size_t tokens = padded((size_t)s->n_tokens), dim = padded((size_t)s->head_dim), at = 0;
    size_t longest = tokens > dim ? tokens : dim;
    const size_t sizes[] = {tokens * dim,     tokens * dim,      tokens * dim,
                            tokens * dim,     QUERIES * longest, QUERIES * tokens,
                            QUERIES * tokens, QUERIES * dim,     outer_scratch_words(s->head_dim)};
    uint32_t *part[sizeof sizes / sizeof *sizes];
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        part[i] = base ? base + at : NULL;
        at += sizes[i];
    }
    if (base)
        *out = (head_scratch){.k_columns = part[0],
                              .v_rows = part[1],
                              .v_columns = part[2],
                              .k_rows = part[3],
                              .a = part[4],
                              .p = (float *)(void *)part[5],
                              .dp = (float *)(void *)part[6],
                              .q = (float *)(void *)part[7],
                              .outer = part[8]};
    return at;
}

size_t attention_scratch_words(const attention_shape *s) { return carve(s, NULL, NULL); }

/* Rows of one head of one sequence of x, which has n_head of them per token. */
static rows head_rows(const attention_shape *s, const float *x, int n_head, int sequence, int head)
{
    size_t stride = (size_t)n_head * (size_t)s->head_dim;
    return (rows){x + (size_t)sequence * (size_t)s->n_tokens * stride + (size_t)head * (size_t)s->head_dim, stride, NULL};
}

static void multiply(product_kind k, const uint32_t *a, int n, int64_t n_sum, const uint32_t *b, int64_t pitch, int64_t n_columns,
                     float *y, size_t y_stride)
{
    product_run(k, &(product_block){a, (size_t)product_steps(k, n_sum), n, b, n_sum, pitch, n_columns, y, y_stride, false});
}

/* Queries first .. first + n of one head, scaled, into h->q; h->p becomes their probabilities over keys 0 .. first + n. */
static void probabilities(const attention_run *r, const head_scratch *h, rows q, int first, int n)
{
    product_kind kind = r->c->kind;
    const int dim = r->s->head_dim, n_keys = first + n;
    for (int i = 0; i < n; i++) {
        memcpy(h->q + i * dim, row_at(q, first + i), (size_t)dim * sizeof(float));
        kind.k->scale(h->q + i * dim, r->scale, dim);
    }
    pack_rows(kind, (rows){h->q, (size_t)dim, NULL}, n, dim, h->a);
    multiply(kind, h->a, n, dim, h->k_columns, dim, n_keys, h->p, (size_t)n_keys);
    for (int i = 0; i < n; i++) {
        float *p = h->p + (size_t)i * (size_t)n_keys;
        kind.k->training.softmax(p, first + i + 1);
        memset(p + first + i + 1, 0, (size_t)(n - 1 - i) * sizeof *p);
    }
}

static int queries_from(const attention_run *r, int first)
{
    return r->s->n_tokens - first < QUERIES ? r->s->n_tokens - first : QUERIES;
}

static void forward_head(void *ctx, int64_t item, int worker)
{
    const attention_run *r = ctx;
    const attention_shape *s = r->s;
    const product_kind kind = r->c->kind;
    head_scratch h;
    int sequence = (int)(item / s->n_head_kv), kv = (int)(item % s->n_head_kv), group = s->n_head / s->n_head_kv;
    carve(s, crew_scratch(r->c, worker), &h);
    prepare_transposed(kind, head_rows(s, r->k, s->n_head_kv, sequence, kv), s->n_tokens, s->head_dim, h.k_columns, h.a);
    prepare_rows(kind, head_rows(s, r->v, s->n_head_kv, sequence, kv), s->n_tokens, s->head_dim, s->n_tokens, h.v_rows);
    for (int head = kv * group; head < (kv + 1) * group; head++) {
        rows o = head_rows(s, r->o, s->n_head, sequence, head);
        for (int first = 0; first < s->n_tokens; first += QUERIES) {
            int n = queries_from(r, first), n_keys = first + n;
            probabilities(r, &h, head_rows(s, r->q, s->n_head, sequence, head), first, n);
            pack_rows(kind, (rows){h.p, (size_t)n_keys, NULL}, n, n_keys, h.a);
            multiply(kind, h.a, n, n_keys, h.v_rows, s->n_tokens, s->head_dim, r->o + (row_at(o, first) - r->o), o.stride);
        }
    }
}

void attention_forward(const crew *c, const attention_shape *s, const float *q, const float *k, const float *v, float *o)
{
    attention_run r = {.c = c, .s = s, .q = q, .k = k, .v = v, .o = o, .scale = 1.0f / sqrtf((float)s->head_dim)};
    crew_items(c, (int64_t)s->n_sequences * s->n_head_kv, forward_head, &r);
}

/* One block of queries of one head: its dq, and what it adds to dk and dv. */
static void backward_queries(const attention_run *r, const head_scratch *h, int sequence, int head, int first)
{
    const attention_shape *s = r->s;
    const product_kind kind = r->c->kind;
    const training_kernels *t = &kind.k->training;
    int n = queries_from(r, first), n_keys = first + n, dim = s->head_dim, kv = head / (s->n_head / s->n_head_kv);
    rows d_o = rows_from(head_rows(s, r->d_o, s->n_head, sequence, head), first);
    rows dq = rows_from(head_rows(s, r->dq, s->n_head, sequence, head), first);
    float *dk = r->dk + (head_rows(s, r->dk, s->n_head_kv, sequence, kv).p - r->dk);
    float *dv = r->dv + (head_rows(s, r->dv, s->n_head_kv, sequence, kv).p - r->dv);
    size_t kv_stride = (size_t)s->n_head_kv * (size_t)dim;
    probabilities(r, h, head_rows(s, r->q, s->n_head, sequence, head), first, n);
    pack_rows(kind, d_o, n, dim, h->a);
    multiply(kind, h->a, n, dim, h->v_columns, dim, n_keys, h->dp, (size_t)n_keys);
    rows p = {h->p, (size_t)n_keys, NULL}, ds = {h->dp, (size_t)n_keys, NULL}, q = {h->q, (size_t)dim, NULL};
    for (int64_t j = 0; j < n_keys; j += OUTER_ROWS)
        outer_run(kind,
                  &(outer_block){p, d_o, j, n, n_keys - j < OUTER_ROWS ? (int)(n_keys - j) : OUTER_ROWS, dim,
                                 dv + (size_t)j * kv_stride, kv_stride},
                  h->outer);
    for (int i = 0; i < n; i++) {
        float *pi = h->p + (size_t)i * (size_t)n_keys, *di = h->dp + (size_t)i * (size_t)n_keys;
        float mean = t->dot(pi, di, first + i + 1);
        for (int j = 0; j <= first + i; j++)
            di[j] = pi[j] * (di[j] - mean);
        memset(di + first + i + 1, 0, (size_t)(n - 1 - i) * sizeof *di);
    }
    pack_rows(kind, ds, n, n_keys, h->a);
    multiply(kind, h->a, n, n_keys, h->k_rows, s->n_tokens, dim, r->dq + (dq.p - r->dq), dq.stride);
    for (int i = 0; i < n; i++)
        kind.k->scale(r->dq + (row_at(dq, i) - r->dq), r->scale, dim);
    for (int64_t j = 0; j < n_keys; j += OUTER_ROWS)
        outer_run(kind,
                  &(outer_block){ds, q, j, n, n_keys - j < OUTER_ROWS ? (int)(n_keys - j) : OUTER_ROWS, dim,
                                 dk + (size_t)j * kv_stride, kv_stride},
                  h->outer);
}

static void backward_head(void *ctx, int64_t item, int worker)
{
    const attention_run *r = ctx;
    const attention_shape *s = r->s;
    head_scratch h;
    int sequence = (int)(item / s->n_head_kv), kv = (int)(item % s->n_head_kv), group = s->n_head / s->n_head_kv;
    rows k = head_rows(s, r->k, s->n_head_kv, sequence, kv), v = head_rows(s, r->v, s->n_head_kv, sequence, kv);
    carve(s, crew_scratch(r->c, worker), &h);
    prepare_transposed(r->c->kind, k, s->n_tokens, s->head_dim, h.k_columns, h.a);
    prepare_transposed(r->c->kind, v, s->n_tokens, s->head_dim, h.v_columns, h.a);
    prepare_rows(r->c->kind, k, s->n_tokens, s->head_dim, s->n_tokens, h.k_rows);
    for (int t = 0; t < s->n_tokens; t++) {
        memset(r->dk + (row_at(k, t) - r->k), 0, (size_t)s->head_dim * sizeof(float));
        memset(r->dv + (row_at(v, t) - r->v), 0, (size_t)s->head_dim * sizeof(float));
    }
    for (int head = kv * group; head < (kv + 1) * group; head++)
        for (int first = 0; first < s->n_tokens; first += QUERIES)
            backward_queries(r, &h, sequence, head, first);
}

void attention_backward(const crew *c, const attention_shape *s, const float *q, const float *k, const float *v, const float *d_o,
                        float *dq, float *dk, float *dv)
{
    attention_run r = {c, s, q, k, v, d_o, NULL, dq, dk, dv, 1.0f / sqrtf((float)s->head_dim)};
    crew_items(c, (int64_t)s->n_sequences * s->n_head_kv, backward_head, &r);
}
