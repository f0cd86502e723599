/* Linear layers, and how work is divided. */
#include <string.h>

#include "train/layers.h"

typedef struct items_run {
    team *workers;
    int64_t n_items;
    crew_fn fn;
    void *ctx;
} items_run;

static void run_items(void *ctx, int worker)
{
    items_run *r = ctx;
    for (int64_t i = team_claim(r->workers); i < r->n_items; i = team_claim(r->workers))
        r->fn(r->ctx, i, worker);
}

void crew_items(const crew *c, int64_t n_items, crew_fn fn, void *ctx)
{
    team_run(c->workers, run_items, &(items_run){c->workers, n_items, fn, ctx});
}

typedef struct blocks_run {
    int64_t n_tokens;
    crew_block_fn fn;
    void *ctx;
} blocks_run;

static void run_block(void *ctx, int64_t item, int worker)
{
    blocks_run *r = ctx;
    int64_t first = item * BLOCK_TOKENS, left = r->n_tokens - first;
    r->fn(r->ctx, first, left < BLOCK_TOKENS ? (int)left : BLOCK_TOKENS, worker);
}

void crew_tokens(const crew *c, int64_t n_tokens, crew_block_fn fn, void *ctx)
{
    crew_items(c, crew_blocks(n_tokens), run_block, &(blocks_run){n_tokens, fn, ctx});
}

/* ---- weights ---- */

size_t weight_forward_words(const weight *w) { return prepared_words(w->kind, w->n_in, w->n_out); }
size_t weight_backward_words(const weight *w) { return prepared_words(w->kind, w->n_out, w->n_in); }

typedef struct prepare_run {
    const crew *c;
    const weight *const *weights;
    int n_weights;
} prepare_run;

/* Items are matrices, one weight after the other. */
static void prepare_matrix(void *ctx, int64_t item, int worker)
{
    prepare_run *r = ctx;
    int i = 0;
    for (; item >= r->weights[i]->n; i++)
        item -= r->weights[i]->n;
    const weight *w = r->weights[i];
    rows from = {w->w + (size_t)item * (size_t)w->n_out * (size_t)w->n_in, (size_t)w->n_in, NULL};
    prepare_transposed(w->kind, from, w->n_out, w->n_in, w->forward + (size_t)item * weight_forward_words(w),
                       crew_scratch(r->c, worker));
    prepare_rows(w->kind, from, w->n_out, w->n_in, w->n_out, w->backward + (size_t)item * weight_backward_words(w));
}

void weight_prepare_rows(const crew *c, const weight *w, int first, int n, int worker)
{
    rows from = {w->w + (size_t)first * (size_t)w->n_in, (size_t)w->n_in, NULL};
    prepare_transposed(w->kind, from, n, w->n_in, w->forward + (size_t)first * (size_t)product_steps(w->kind, w->n_in),
                       crew_scratch(c, worker));
    prepare_rows(w->kind, from, n, w->n_in, w->n_out, w->backward + product_steps(w->kind, first) * PRODUCT_COLS);
}

void weight_prepare(const crew *c, const weight *const *weights, int n_weights)
{
    int64_t n = 0;
    for (int i = 0; i < n_weights; i++)
        n += weights[i]->n;
    crew_items(c, n, prepare_matrix, &(prepare_run){c, weights, n_weights});
}

/* ---- forward ---- */

typedef struct linear_run {
    const crew *c;
    const weight *w;
    const float *x, *dy;
    float *y, *dx;
    int64_t n_tokens, n_dx_items, n_dw_items;
    bool add;
} linear_run;

static void forward_block(void *ctx, int64_t first, int n, int worker)
{
    linear_run *r = ctx;
    const weight *w = r->w;
    uint32_t *a = crew_scratch(r->c, worker);
    pack_rows(w->kind, (rows){r->x + (size_t)first * (size_t)w->n_in, (size_t)w->n_in, NULL}, n, w->n_in, a);
    product_block b = {a,
                       (size_t)product_steps(w->kind, w->n_in),
                       n,
                       w->forward,
                       w->n_in,
                       w->n_in,
                       w->n_out,
                       r->y + (size_t)first * (size_t)w->n_out,
                       (size_t)w->n_out,
                       r->add};
    product_run(w->kind, &b);
    for (int i = 0; w->bias && i < n; i++)
        w->kind.k->add(b.y + (size_t)i * (size_t)w->n_out, w->bias, w->n_out);
}

void linear_forward(const crew *c, const weight *w, const float *x, int64_t n_tokens, float *y, bool add)
{
    linear_run r = {.c = c, .w = w, .x = x, .y = y, .n_tokens = n_tokens, .add = add};
    crew_tokens(c, n_tokens, forward_block, &r);
}

/* ---- backward ---- */

static void backward_rows(const linear_run *r, int64_t first, int n, int worker)
{
    const weight *w = r->w;
    uint32_t *a = crew_scratch(r->c, worker);
    pack_rows(w->kind, (rows){r->dy + (size_t)first * (size_t)w->n_out, (size_t)w->n_out, NULL}, n, w->n_out, a);
    product_run(w->kind, &(product_block){a, (size_t)product_steps(w->kind, w->n_out), n, w->backward, w->n_out, w->n_out, w->n_in,
                                          r->dx + (size_t)first * (size_t)w->n_in, (size_t)w->n_in, r->add});
}

static void backward_weight(const linear_run *r, int64_t first, int worker)
{
    const weight *w = r->w;
    int n = w->n_out - first < OUTER_ROWS ? (int)(w->n_out - first) : OUTER_ROWS;
    outer_run(w->kind,
              &(outer_block){{r->dy, (size_t)w->n_out, NULL},
                             {r->x, (size_t)w->n_in, NULL},
                             first,
                             r->n_tokens,
                             n,
                             w->n_in,
                             w->g + (size_t)first * (size_t)w->n_in,
                             (size_t)w->n_in},
              crew_scratch(r->c, worker));
}

static void backward_bias(const linear_run *r)
{
    const weight *w = r->w;
    for (int64_t t = 0; t < r->n_tokens; t++)
        w->kind.k->add(w->bias_g, r->dy + (size_t)t * (size_t)w->n_out, w->n_out);
}

/* Rows of dW first, they take longest; then blocks of dx, then the bias. */
static void backward_item(void *ctx, int64_t item, int worker)
{
    const linear_run *r = ctx;
    int64_t first = (item - r->n_dw_items) * BLOCK_TOKENS, left = r->n_tokens - first;
    if (item < r->n_dw_items)
        backward_weight(r, item * OUTER_ROWS, worker);
    else if (item < r->n_dw_items + r->n_dx_items)
        backward_rows(r, first, left < BLOCK_TOKENS ? (int)left : BLOCK_TOKENS, worker);
    else
        backward_bias(r);
}

void linear_backward(const crew *c, const weight *w, const float *x, const float *dy, int64_t n_tokens, float *dx, bool add)
{
    linear_run r = {.c = c, .w = w, .x = x, .dy = dy, .dx = dx, .n_tokens = n_tokens, .add = add};
    r.n_dw_items = w->g ? (w->n_out + OUTER_ROWS - 1) / OUTER_ROWS : 0;
    r.n_dx_items = dx ? crew_blocks(n_tokens) : 0;
    crew_items(c, r.n_dw_items + r.n_dx_items + (w->bias && w->g ? 1 : 0), backward_item, &r);
}
