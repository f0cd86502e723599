/* Looking: what the matrices of a layer read, as mean outer products. */
#include <math.h>
#include <string.h>

#include "quantize/walk_internal.h"

typedef struct outer_sum {
    const crew *c;
    const float *x;
    int64_t n;
    size_t pitch;
    int width;
    float *h;
} outer_sum;

#define BAND 128 /* rows of h that are a worker's: few are computed in vain, and there are some for everyone */

/* From the band's first column on: the rest is known by symmetry. */
static void add_outer(void *ctx, int64_t item, int worker)
{
    const outer_sum *k = ctx;
    const int64_t first = item * BAND;
    const int n = k->width - first < BAND ? (int)(k->width - first) : BAND;
    const rows y = {k->x, k->pitch, NULL}, x = {k->x + first, k->pitch, NULL};
    outer_run(k->c->kind,
              &(outer_block){y, x, first, k->n, n, k->width - first, k->h + (size_t)first * (size_t)(k->width + 1),
                             (size_t)k->width},
              crew_scratch(k->c, worker));
}

void walk_add_outer(const walk *w, const float *x, int64_t n, size_t pitch, int width, float *h)
{
    outer_sum k = {&w->n->crew, x, n, pitch, width, h};
    crew_items(k.c, (width + BAND - 1) / BAND, add_outer, &k);
}

void walk_mirror(float *h, int width)
{
    for (size_t i = 0; i < (size_t)width; i++)
        for (size_t j = 0; j < i; j++)
            h[i * (size_t)width + j] = h[j * (size_t)width + i];
}

#define MOST_HEAD_FLOATS ((size_t)1 << 26) /* beyond, all heads' values are rounded for their common inputs */
#define MOST_SUMS (WALK_MOST_LOOKS * NET_MAX_EXPERTS)

/* n_looks weightings of the tokens, groups of slots (experts; else 1): a sum for each, in this order. */
typedef struct look {
    walk_stage stage;
    int width, groups, parts, n_looks;
    const float *const *weight; /* [n_looks] or NULL; [n_tokens] or NULL: 1 */
    float *h;                   /* [n_looks][groups][parts][part][part] */
    double seen[MOST_SUMS];     /* [n_looks][groups]: sum of weights */
    int64_t n_rows;             /* of each look */
} look;

/* Adds rows of x, row i being of token token[i] (NULL: i) behind `first`, scaled by share[i] (NULL: 1). */
static void add_rows(const walk *w, look *k, int at, const float *x, const int32_t *token, const float *share, int64_t first,
                     int64_t n, bool by_token)
{
    const size_t width = (size_t)k->width;
    const float *weights = k->weight ? k->weight[at / k->groups] : NULL, *from = x;
    double seen = 0;
    if (weights || token) {
        for (int64_t i = 0; i < n; i++) {
            int64_t t = token ? token[i] : i;
            float of = weights ? weights[first + t] : 1.0f, root = sqrtf(of) * (share ? share[i] : 1.0f);
            const float *row = x + (size_t)(by_token ? t : i) * width;
            for (size_t j = 0; j < width; j++)
                w->weighted[(size_t)i * width + j] = root * row[j];
            seen += (double)of * (share ? (double)share[i] * (double)share[i] : 1.0);
        }
        from = w->weighted;
    } else {
        seen = (double)n;
    }
    k->seen[at] += seen;
    k->n_rows += at < k->groups ? n : 0;
    const size_t part = width / (size_t)k->parts;
    for (size_t i = 0; i < (size_t)k->parts; i++)
        walk_add_outer(w, from + i * part, n, width, (int)part, k->h + ((size_t)at * (size_t)k->parts + i) * part * part);
}

static void count_rows(const walk *w, const look *k, int group, const float *x, const int32_t *token, int64_t n)
{
    const size_t width = (size_t)k->width;
    if (!w->squares)
        return;
    float *sum = w->squares + (size_t)group * width;
    for (int64_t i = 0; i < n; i++)
        for (size_t j = 0; j < width; j++) {
            float v = x[(size_t)(token ? token[i] : i) * width + j];
            sum[j] += v * v;
        }
    w->counts[group] += (float)n;
}

void walk_count_squares(walk *w, float *sums, float *counts)
{
    w->squares = sums;
    w->counts = counts;
}

static void add_tokens(const walk *w, look *k, const float *x, int64_t first, int64_t n)
{
    count_rows(w, k, 0, x, NULL, n);
    for (int i = 0; i < k->n_looks; i++)
        add_rows(w, k, i, x, NULL, NULL, first, n, true);
}

/* Slots in their order: x is of tokens, or of slots that count with their share. */
static void add_slots(const walk *w, look *k, const routing *r, const float *x, int64_t first, bool of_slots)
{
    for (int e = 0; e < k->groups; e++) {
        int32_t at = r->first[e];
        count_rows(w, k, e, of_slots ? x + (size_t)at * (size_t)k->width : x, of_slots ? NULL : r->token + at,
                   r->first[e + 1] - at);
    }
    for (int i = 0; i < k->n_looks; i++)
        for (int e = 0; e < k->groups; e++) {
            int32_t at = r->first[e];
            add_rows(w, k, i * k->groups + e, of_slots ? x + (size_t)at * (size_t)k->width : x, r->token + at,
                     of_slots ? r->slot_share + at : NULL, first, r->first[e + 1] - at, !of_slots);
        }
}

/* The heads' means of what the values read: attention over columns of the inputs in the place of values. */
static void add_attended_inputs(const walk *w, look *k, const net_layer *l, int64_t first, int64_t n)
{
    net *t = w->n;
    const net_config *c = &t->c;
    const attention_shape shape = {(int)(n / w->n_context), w->n_context, c->n_head, c->n_head_kv, c->head_dim};
    const size_t width = (size_t)c->n_embd, size = (size_t)c->head_dim, head_floats = (size_t)n * width;
    float *means = w->heads; /* [n_head][n][n_embd] */
    for (size_t from = 0; from < width; from += size) {
        size_t count = width - from < size ? width - from : size;
        for (int64_t i = 0; i < n; i++)
            for (int h = 0; h < c->n_head_kv; h++) {
                float *to = t->dv + ((size_t)i * (size_t)c->n_head_kv + (size_t)h) * size;
                memset(to, 0, size * sizeof *to);
                memcpy(to, l->normed + (size_t)i * width + from, count * sizeof *to);
            }
        attention_forward(&t->crew, &shape, l->q_out, l->k_out, t->dv, t->d_o);
        for (int64_t i = 0; i < n; i++)
            for (int h = 0; h < c->n_head; h++)
                memcpy(means + (size_t)h * head_floats + (size_t)i * width + from,
                       t->d_o + ((size_t)i * (size_t)c->n_head + (size_t)h) * size, count * sizeof *means);
    }
    const int share = c->n_head / k->groups; /* heads that read the same values take turns: one token, one head */
    for (int h = 0; h < c->n_head; h++) {
        int64_t count = 0;
        for (int64_t token = h % share; token < n; token += share)
            w->turns[count++] = (int32_t)token;
        for (int i = 0; i < k->n_looks; i++)
            add_rows(w, k, i * k->groups + h / share, means + (size_t)h * head_floats, w->turns, NULL, first, count, true);
    }
}

typedef struct activate_run {
    const crew *c;
    const net_layer *l;
    float *out;
    int n_ff;
} activate_run;

static void activate_block(void *ctx, int64_t first, int n, int worker)
{
    const activate_run *a = ctx;
    const kernels *k = a->c->kind.k;
    size_t at = (size_t)first * (size_t)a->n_ff;
    (void)worker;
    (a->l->f.activation == NET_SWIGLU ? k->silu_mul : k->gelu_mul)(a->l->gate + at, a->l->up + at, a->out + at,
                                                                   (int64_t)n * a->n_ff);
}

static void look_batch(walk *w, net_layer *l, int64_t first, int64_t n, void *ctx)
{
    look *k = ctx;
    net *t = w->n;
    l->x = walk_state(w, first);
    l->attended = walk_attended(w, first);
    switch (k->stage) {
    case WALK_QK:
        layer_attention_norm(t, l, n);
        add_tokens(w, k, l->normed, first, n);
        break;
    case WALK_VALUES:
        layer_attention_norm(t, l, n);
        if (k->n_looks) {
            layer_attend(t, l, n, w->n_context);
            add_attended_inputs(w, k, l, first, n);
        }
        break;
    case WALK_OUTPUT:
        layer_attention_norm(t, l, n);
        layer_attend(t, l, n, w->n_context);
        add_tokens(w, k, l->attended, first, n);
        break;
    case WALK_GATE_UP: /* x_ffn takes the place of the state */
        l->x_ffn = w->own_x_ffn;
        layer_project(t, l, n);
        memcpy(l->x, l->x_ffn, (size_t)n * w->h.n_embd * sizeof(float));
        layer_ffn_norm(t, l, walk_price(w), n);
        if (k->groups > 1)
            add_slots(w, k, &l->r, l->normed_ffn, first, false);
        else
            add_tokens(w, k, l->normed_ffn, first, n);
        break;
    default:
        l->x_ffn = l->x;
        layer_ffn_norm(t, l, walk_price(w), n);
        layer_ffn(t, l, n, t->dx);
        int64_t slots = k->groups > 1 ? n * t->c.n_used : n;
        crew_tokens(&t->crew, slots, activate_block, &(activate_run){&t->crew, l, t->act, k->width});
        if (k->groups > 1)
            add_slots(w, k, &l->r, t->act, first, true);
        else
            add_tokens(w, k, t->act, first, n);
    }
}

int walk_width(const walk *w, walk_stage stage)
{
    const net_config *c = &w->n->c;
    return stage == WALK_OUTPUT ? c->n_head * c->head_dim
           : stage == WALK_DOWN ? (c->n_experts ? c->n_ff_expert : c->n_ff)
                                : c->n_embd;
}

int walk_groups(const walk *w, walk_stage stage)
{
    const net_config *c = &w->n->c;
    if (stage == WALK_VALUES && (size_t)c->n_head_kv * (size_t)c->n_embd * (size_t)c->n_embd <= MOST_HEAD_FLOATS)
        return c->n_head_kv;
    return c->n_experts && (stage == WALK_GATE_UP || stage == WALK_DOWN) ? c->n_experts : 1;
}

#define PART_MULTIPLE 256 /* of columns: the widest block of a format */
#define MOST_PART 8192    /* columns; factoring takes time that grows with their cube */

int walk_looks(const walk *w, walk_stage stage)
{
    return stage == WALK_QK || (stage == WALK_GATE_UP && walk_groups(w, stage) == 1) ? 2 : 1;
}

int walk_parts(const walk *w, walk_stage stage)
{
    const int width = walk_width(w, stage), multiple = width % PART_MULTIPLE ? 32 : PART_MULTIPLE;
    const size_t sums = (size_t)walk_looks(w, stage) * (size_t)walk_groups(w, stage) * (size_t)width;
    int parts = 1;
    for (int i = 1; i <= width / multiple; i++) {
        const int part = width / i;
        if (width % i || part % multiple)
            continue;
        parts = i;
        if (part <= MOST_PART && sums * (size_t)part <= w->most_floats)
            break;
    }
    return parts;
}

size_t walk_group_floats(const walk *w, walk_stage stage)
{
    const size_t width = (size_t)walk_width(w, stage);
    return width * (width / (size_t)walk_parts(w, stage));
}

void walk_limit(walk *w, size_t most_floats) { w->most_floats = most_floats; }

/* Sums become means. An expert that met few tokens borrows from all of them: as if it had met as many of the average kind as it
 * has columns. */
static void finish(const look *k)
{
    const int part = k->width / k->parts;
    const size_t size = (size_t)k->width * (size_t)part;
    for (int i = 0; i < k->n_looks * k->groups * k->parts; i++)
        walk_mirror(k->h + (size_t)i * (size_t)part * (size_t)part, part);
    for (int i = 0; i < k->n_looks; i++) {
        const double *seen = k->seen + i * k->groups;
        float *h = k->h + (size_t)i * (size_t)k->groups * size;
        double all = 0, borrowed = 0;
        for (int e = 0; e < k->groups; e++)
            all += seen[e];
        if (k->groups > 1 && k->n_rows > 0)
            borrowed = (double)k->width * all / (double)k->n_rows;
        for (size_t j = 0; j < size; j++) {
            double sum = 0;
            for (int e = 0; e < k->groups; e++)
                sum += (double)h[(size_t)e * size + j];
            double mean = all > 0 ? sum / all : 0;
            for (int e = 0; e < k->groups; e++) {
                double weight_sum = seen[e] + borrowed;
                h[(size_t)e * size + j] =
                    weight_sum > 0 ? (float)(((double)h[(size_t)e * size + j] + borrowed * mean) / weight_sum) : 0.0f;
            }
        }
    }
}

static void begin(look *k)
{
    memset(k->h, 0, (size_t)k->n_looks * (size_t)k->groups * (size_t)k->width * (size_t)(k->width / k->parts) * sizeof *k->h);
}

void walk_look(walk *w, walk_stage stage, const float *const *weights, int n, float *h)
{
    look k = {.stage = stage,
              .width = walk_width(w, stage),
              .groups = walk_groups(w, stage),
              .parts = walk_parts(w, stage),
              .n_looks = n,
              .weight = weights,
              .h = h};
    begin(&k);
    walk_batches(w, look_batch, &k);
    finish(&k);
}

static void look_head_batch(walk *w, net_layer *l, int64_t first, int64_t n, void *ctx)
{
    (void)l;
    norm_forward(&w->n->crew, &w->n->out_norm, walk_state(w, first), n, w->n->normed_last);
    add_tokens(w, ctx, w->n->normed_last, first, n);
}

void walk_look_head(walk *w, const float *weights, float *h)
{
    look k = {.width = (int)w->h.n_embd, .groups = 1, .parts = 1, .n_looks = 1, .weight = &weights, .h = h};
    begin(&k);
    walk_batches(w, look_head_batch, &k);
    finish(&k);
}
