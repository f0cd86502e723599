/* Both ends of the network: the embedding, and the output matrix with cross-entropy. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "theorem/random.h"
#include "train/layers.h"

typedef struct embed_run {
    const crew *c;
    const float *table, *dx;
    float *x, *table_g;
    const int32_t *tokens;
    int64_t n_tokens;
    int n_embd;
    float scale;
} embed_run;

static void embed_block(void *ctx, int64_t first, int n, int worker)
{
    const embed_run *r = ctx;
    (void)worker;
    for (int64_t t = first; t < first + n; t++) {
        float *x = r->x + t * r->n_embd;
        memcpy(x, r->table + (int64_t)r->tokens[t] * r->n_embd, (size_t)r->n_embd * sizeof *x);
        if (r->scale != 1.0f)
            r->c->kind.k->scale(x, r->scale, r->n_embd);
    }
}

void embed_forward(const crew *c, const float *table, int n_embd, float scale, const int32_t *tokens, int64_t n_tokens, float *x)
{
    crew_tokens(c, n_tokens, embed_block,
                &(embed_run){.c = c, .table = table, .x = x, .tokens = tokens, .n_embd = n_embd, .scale = scale});
}

/* A slice of columns of all tokens, in their order: tokens that occur twice never meet. */
#define EMBED_COLUMNS 64

static void embed_columns(void *ctx, int64_t item, int worker)
{
    const embed_run *r = ctx;
    int64_t first = item * EMBED_COLUMNS, n = r->n_embd - first < EMBED_COLUMNS ? r->n_embd - first : EMBED_COLUMNS;
    (void)worker;
    for (int64_t t = 0; t < r->n_tokens; t++)
        r->c->kind.k->add_scaled(r->table_g + (int64_t)r->tokens[t] * r->n_embd + first, r->dx + t * r->n_embd + first, r->scale,
                                 n);
}

void embed_backward(const crew *c, float *table_g, int n_embd, float scale, const int32_t *tokens, int64_t n_tokens,
                    const float *dx)
{
    crew_items(c, (n_embd + EMBED_COLUMNS - 1) / EMBED_COLUMNS, embed_columns,
               &(embed_run){c, NULL, dx, NULL, table_g, tokens, n_tokens, n_embd, scale});
}

/* ---- output ---- */

typedef struct head_pass_run {
    const crew *c;
    const head_pass *h;
} head_pass_run;

/* A random direction g with E[g g^T] = diag(p) - p p^T, the curvature of the divergence in the logits: sqrt(p) times random signs, less its
 * part along p. The same in expectation as drawing words from p, without the rare words that outweigh everything. */
static void draw_direction(float *p, int n, uint64_t seed, int64_t t, float scale)
{
    uint64_t state = seed + (uint64_t)t * 0x9E3779B97F4A7C15u, signs = 0;
    const uint64_t begin = random_next(&state); /* else the next token's numbers would be these, one further on */
    double sum = 0;
    state = begin;
    for (int i = 0; i < n; i++, signs >>= 1) {
        if (i % 64 == 0)
            signs = random_next(&state);
        float root = sqrtf(p[i]);
        sum += (double)(signs & 1 ? root : -root);
    }
    state = begin;
    for (int i = 0; i < n; i++, signs >>= 1) {
        if (i % 64 == 0)
            signs = random_next(&state);
        float root = sqrtf(p[i]);
        p[i] = scale * ((signs & 1 ? root : -root) - p[i] * (float)sum);
    }
}

/* A block's answers of the teacher: n rows of probabilities in the worker's room. */
static float *teacher_block(const head_pass_run *r, int64_t first, int n, int worker)
{
    const head_teacher *t = r->h->teacher;
    const weight *w = t->w;
    uint32_t *a = crew_scratch(r->c, worker);
    float *p = t->logits + (int64_t)worker * BLOCK_TOKENS * w->n_out;
    pack_rows(w->kind, (rows){t->x + first * w->n_in, (size_t)w->n_in, NULL}, n, w->n_in, a);
    product_run(w->kind, &(product_block){a, (size_t)product_steps(w->kind, w->n_in), n, w->forward, w->n_in, w->n_in, w->n_out, p,
                                          (size_t)w->n_out, false});
    for (int i = 0; i < n; i++)
        (void)w->kind.k->training.softmax(p + (int64_t)i * w->n_out, w->n_out);
    return p;
}

/* KL(p || q); q becomes its gradient in the logits, q - p. */
static float distil_row(const float *p, float *q, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        if (p[i] > 0)
            sum += (double)(p[i] * logf(p[i] / (q[i] > FLT_MIN ? q[i] : FLT_MIN)));
        q[i] -= p[i];
    }
    return (float)sum;
}

/* Logits become their gradient: p - [target], and 2 z_weight log_sum p, over n_tokens. */
static void gradient_of_logits(const head_pass *h, float *p, int64_t t, const kernels *k)
{
    float each = 1.0f / (float)h->n_tokens;
    k->scale(p, each * (1.0f + 2.0f * h->z_weight * h->log_sum[t]), h->w->n_out);
    p[h->targets[t]] -= each;
}

static void head_block(void *ctx, int64_t first, int n, int worker)
{
    const head_pass_run *r = ctx;
    const head_pass *h = r->h;
    const weight *w = h->w;
    uint32_t *a = crew_scratch(r->c, worker);
    float *logits = h->logits + (h->dx ? first : (int64_t)worker * BLOCK_TOKENS) * w->n_out;
    pack_rows(w->kind, (rows){h->x + first * w->n_in, (size_t)w->n_in, NULL}, n, w->n_in, a);
    product_run(w->kind, &(product_block){a, (size_t)product_steps(w->kind, w->n_in), n, w->forward, w->n_in, w->n_in, w->n_out,
                                          logits, (size_t)w->n_out, false});
    const float *taught = h->teacher ? teacher_block(r, first, n, worker) : NULL;
    for (int64_t t = first; t < first + n; t++) {
        float *row = logits + (t - first) * w->n_out;
        if (taught) {
            h->log_sum[t] = w->kind.k->training.softmax(row, w->n_out);
            h->nats[t] = distil_row(taught + (t - first) * w->n_out, row, w->n_out);
            continue;
        }
        float target = row[h->targets[t]];
        h->log_sum[t] = w->kind.k->training.softmax(row, w->n_out);
        h->nats[t] = h->log_sum[t] - target;
        if (h->draw_seed)
            draw_direction(row, w->n_out, h->draw_seed, h->draw_first + t, 1.0f / (float)h->n_tokens);
        else if (h->dx)
            gradient_of_logits(h, row, t, w->kind.k);
    }
    if (!h->dx)
        return;
    pack_rows(w->kind, (rows){logits, (size_t)w->n_out, NULL}, n, w->n_out, a);
    product_run(w->kind, &(product_block){a, (size_t)product_steps(w->kind, w->n_out), n, w->backward, w->n_out, w->n_out, w->n_in,
                                          h->dx + first * w->n_in, (size_t)w->n_in, false});
}

static void head_weight(void *ctx, int64_t item, int worker)
{
    const head_pass_run *r = ctx;
    const head_pass *h = r->h;
    const weight *w = h->w;
    int64_t first = item * OUTER_ROWS;
    int n = w->n_out - first < OUTER_ROWS ? (int)(w->n_out - first) : OUTER_ROWS;
    outer_run(w->kind,
              &(outer_block){{h->logits, (size_t)w->n_out, NULL},
                             {h->x, (size_t)w->n_in, NULL},
                             first,
                             h->n_tokens,
                             n,
                             w->n_in,
                             w->g + first * w->n_in,
                             (size_t)w->n_in},
              crew_scratch(r->c, worker));
}

void head_run(const crew *c, const head_pass *h)
{
    head_pass_run r = {c, h};
    crew_tokens(c, h->n_tokens, head_block, &r);
    if (h->dx && h->w->g)
        crew_items(c, (h->w->n_out + OUTER_ROWS - 1) / OUTER_ROWS, head_weight, &r);
}
