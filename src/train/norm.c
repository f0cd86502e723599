/* RMS norm and rotary positions. */
#include <string.h>

#include "train/layers.h"

typedef struct norm_run {
    const crew *c;
    const norm *m;
    const float *x, *dy;
    float *y, *dx;
} norm_run;

static void forward_block(void *ctx, int64_t first, int n, int worker)
{
    norm_run *r = ctx;
    const norm *m = r->m;
    (void)worker;
    for (int64_t i = first * m->per_token; i < (first + n) * m->per_token; i++)
        r->c->kind.k->rmsnorm(r->x + i * m->n, m->w, m->eps, m->n, r->y + i * m->n);
}

void norm_forward(const crew *c, const norm *m, const float *x, int64_t n_tokens, float *y)
{
    crew_tokens(c, n_tokens, forward_block, &(norm_run){.c = c, .m = m, .x = x, .y = y});
}

/* A block's share of the weight's gradient goes into its own row of c->partial. */
static void backward_block(void *ctx, int64_t first, int n, int worker)
{
    norm_run *r = ctx;
    const norm *m = r->m;
    float *dw = r->c->partial + first / BLOCK_TOKENS * m->n;
    (void)worker;
    memset(dw, 0, (size_t)m->n * sizeof *dw);
    for (int64_t i = first * m->per_token; i < (first + n) * m->per_token; i++)
        r->c->kind.k->training.rmsnorm_back(r->x + i * m->n, m->w, r->dy + i * m->n, m->eps, r->dx + i * m->n, dw, m->n);
}

void norm_backward(const crew *c, const norm *m, const float *x, const float *dy, int64_t n_tokens, float *dx)
{
    crew_tokens(c, n_tokens, backward_block, &(norm_run){.c = c, .m = m, .x = x, .dy = dy, .dx = dx});
    for (int64_t b = 0; b < crew_blocks(n_tokens); b++)
        c->kind.k->add(m->g, c->partial + b * m->n, m->n);
}

typedef struct rope_run {
    const crew *c;
    float *x;
    const float *cs;
    int n_head, head_dim, n_context;
    rope_pairs pairs;
} rope_run;

static void rotate_block(void *ctx, int64_t first, int n, int worker)
{
    rope_run *r = ctx;
    (void)worker;
    for (int64_t t = first; t < first + n; t++)
        for (int h = 0; h < r->n_head; h++)
            r->c->kind.k->rope(r->x + (t * r->n_head + h) * r->head_dim, r->cs + t % r->n_context * r->head_dim, r->head_dim,
                               r->pairs);
}

void rope_rotate(const crew *c, float *x, int n_head, int head_dim, const float *cs, int n_context, rope_pairs pairs,
                 int64_t n_tokens)
{
    crew_tokens(c, n_tokens, rotate_block, &(rope_run){c, x, cs, n_head, head_dim, n_context, pairs});
}
