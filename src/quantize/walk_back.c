/* How much a float model's answers depend on its matrices: random directions of the logits, taken back through its layers. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "quantize/walk_internal.h"

typedef struct back {
    walk *w;
    walk_fisher *f;
    walk_pass pass;
    int64_t first, n; /* tokens of the batch */
    uint64_t seed;
} back;

static size_t rows_of(walk *w, int place)
{
    walk_matrix m = walk_matrix_at(w, (net_place)place);
    return (size_t)m.n * (size_t)m.rows;
}

/* sum += share * d^2 by element; returns the sum of share * d^2. */
static float add_squares(float *sum, const float *d, int n, float share)
{
    float lane[8] = {0};
    int i = 0;
    for (; i + 8 <= n; i += 8)
        for (int k = 0; k < 8; k++) {
            float square = share * d[i + k] * d[i + k];
            sum[i + k] += square;
            lane[k] += square;
        }
    for (; i < n; i++) {
        sum[i] += share * d[i] * d[i];
        lane[0] += share * d[i] * d[i];
    }
    return ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7]));
}

/* Experts: gradients of slots (gate, up), or of tokens that reach each of their experts with its share (down). */
static void watch_slots(back *b, net_place place, const float *dy, int width, float *token, float *row)
{
    const routing *r = &b->w->n->layers[0].r;
    if (place == NET_DOWN)
        for (int64_t t = 0; t < b->n; t++)
            for (int i = 0; i < width; i++)
                token[t] += dy[t * width + i] * dy[t * width + i];
    for (int e = 0; e < r->n_experts; e++)
        for (int32_t slot = r->first[e]; slot < r->first[e + 1]; slot++) {
            int32_t t = r->token[slot];
            float share = r->slot_share[slot], *of = row + (size_t)e * (size_t)width;
            if (place == NET_DOWN)
                (void)add_squares(of, dy + (int64_t)t * width, width, share * share);
            else
                token[t] += add_squares(of, dy + (int64_t)slot * width, width, 1.0f);
        }
}

/* Values: the heads of a group read the same rows. */
static void watch_heads(back *b, const float *dy, int width, float *token, float *row)
{
    const net_config *c = &b->w->n->c;
    const int of_group = c->n_head / c->n_head_kv;
    for (int64_t t = 0; t < b->n; t++) {
        token[t] = 0;
        for (int h = 0; h < c->n_head; h++)
            token[t] += add_squares(row + (size_t)(h / of_group) * (size_t)c->head_dim, dy + t * width + (int64_t)h * c->head_dim,
                                    c->head_dim, 1.0f);
    }
}

static void watch(void *ctx, net_place place, const float *dy, int width)
{
    back *b = ctx;
    float *token = b->f->token[place] + (size_t)b->pass.layer * (size_t)walk_n_tokens(b->w) + b->first;
    float *row = b->f->row[place] + (size_t)b->pass.layer * rows_of(b->w, (int)place);
    if (place == NET_V)
        watch_heads(b, dy, width, token, row);
    else if (walk_groups(b->w, walk_stage_of(place)) > 1)
        watch_slots(b, place, dy, width, token, row);
    else
        for (int64_t t = 0; t < b->n; t++)
            token[t] = add_squares(row, dy + t * width, width, 1.0f);
}

/* n->dn: gradients of what the output matrix reads; what its words' errors cost. */
static void head_back(back *b)
{
    net *n = b->w->n;
    const size_t width = (size_t)n->c.n_embd, n_vocab = (size_t)n->c.n_vocab;
    const int64_t piece = walk_head_tokens(b->w);
    for (int64_t first = 0; first < b->n; first += piece) {
        int64_t count = b->n - first < piece ? b->n - first : piece;
        float *dx = n->dn + (size_t)first * width;
        head_run(&n->crew, &(head_pass){.w = &n->head,
                                        .x = n->normed_last + (size_t)first * width,
                                        .targets = n->targets,
                                        .n_tokens = count,
                                        .logits = n->logits,
                                        .nats = n->nats,
                                        .log_sum = n->log_sum,
                                        .dx = dx,
                                        .draw_seed = b->seed,
                                        .draw_first = b->first + first});
        for (size_t i = 0; i < (size_t)count * width; i++)
            dx[i] *= (float)count;
        for (int64_t t = 0; t < count; t++) {
            const float *g = n->logits + (size_t)t * n_vocab;
            b->f->head_token[b->first + first + t] = add_squares(b->f->vocabulary, g, (int)n_vocab, (float)count * (float)count);
        }
    }
}

static dil_status back_batch(back *b, dil_error *err)
{
    walk *w = b->w;
    net *n = w->n;
    DIL_TRY(walk_pass_forward(&b->pass, err));
    head_back(b);
    n->watch = watch;
    n->watch_ctx = b;
    dil_status status = walk_pass_back(&b->pass, NULL, NULL, err);
    n->watch = NULL;
    if (status != DIL_OK)
        return status;
    for (int64_t i = 0; i < b->n * n->c.n_embd; i++)
        n->dx[i] *= n->c.embd_scale;
    walk_add_outer(w, n->dx, b->n, (size_t)n->c.n_embd, n->c.n_embd, b->f->input);
    walk_mirror(b->f->input, n->c.n_embd);
    for (int64_t t = b->first; t < b->first + b->n; t++)
        b->f->used[w->tokens[t]] += 1.0f;
    return DIL_OK;
}

static void to_mean(float *v, size_t n, double count)
{
    for (size_t i = 0; i < n; i++)
        v[i] = (float)((double)v[i] / count);
}

/* |dy| instead of its square: a few tokens would stand for all the others, and what is learnt from them does not hold for other texts
 * (measured: docs/decisions/016). */
static void temper(float *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        v[i] = sqrtf(v[i]);
}

/* Mean 1; all 1 where nothing was seen. */
static void to_weights(float *v, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)v[i];
    for (size_t i = 0; i < n; i++)
        v[i] = sum > 0 ? (float)((double)v[i] * (double)n / sum) : 1.0f;
}

static void finish(walk *w, walk_fisher *f)
{
    const net_config *c = &w->n->c;
    const size_t tokens = (size_t)walk_n_tokens(w);
    for (int place = 0; place < NET_PLACES; place++) {
        to_mean(f->row[place], (size_t)f->n_layer * rows_of(w, place), (double)tokens);
        temper(f->token[place], (size_t)f->n_layer * tokens);
        for (int i = 0; i < f->n_layer; i++)
            to_weights(f->token[place] + (size_t)i * tokens, tokens);
    }
    to_weights(f->head_token, tokens);
    to_mean(f->vocabulary, (size_t)c->n_vocab, (double)tokens);
    to_mean(f->used, (size_t)c->n_vocab, (double)tokens);
    to_mean(f->input, (size_t)c->n_embd * (size_t)c->n_embd, (double)tokens);
}

/* base NULL: only counts. */
static void carve(walk *w, walk_fisher *f, void *base)
{
    const net_config *c = &w->n->c;
    const size_t tokens = (size_t)walk_n_tokens(w), layers = w->h.n_layer, size = sizeof(float);
    size_t used = 0;
    f->n_layer = (int)layers;
    f->done = mem_carve(base, &used, sizeof *f->done);
    for (int place = 0; place < NET_PLACES; place++) {
        f->token[place] = mem_carve(base, &used, layers * tokens * size);
        f->row[place] = mem_carve(base, &used, layers * rows_of(w, place) * size);
    }
    f->vocabulary = mem_carve(base, &used, (size_t)c->n_vocab * size);
    f->head_token = mem_carve(base, &used, tokens * size);
    f->used = mem_carve(base, &used, (size_t)c->n_vocab * size);
    f->input = mem_carve(base, &used, (size_t)c->n_embd * (size_t)c->n_embd * size);
    f->n_bytes = used;
}

dil_status walk_fisher_new(walk *w, walk_fisher *out, dil_error *err)
{
    walk_fisher f = {0};
    carve(w, &f, NULL);
    f.block = mem_map(f.n_bytes, MEM_MISC);
    if (!f.block)
        return DIL_FAIL(err, DIL_NO_MEMORY, "calibration: no memory for the gradients of %lld tokens", (long long)walk_n_tokens(w));
    carve(w, &f, f.block);
    *out = f;
    return DIL_OK;
}

void walk_fisher_free(walk_fisher *f)
{
    if (f->block)
        mem_unmap(f->block, f->n_bytes, MEM_MISC);
    *f = (walk_fisher){0};
}

/* The layer's weights get no gradients. */
static void freeze(net_layer *l)
{
    weight *list[] = {&l->q, &l->k, &l->v, &l->o, &l->f.gate, &l->f.up, &l->f.down, &l->router};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        list[i]->g = NULL;
}

dil_status walk_look_back(walk *w, uint64_t seed, walk_fisher *f, dil_error *err)
{
    int n = w->n_sequences - *f->done < w->batch ? w->n_sequences - *f->done : w->batch;
    back b = {.w = w, .f = f, .seed = seed, .first = (int64_t)*f->done * w->n_context, .n = (int64_t)n * w->n_context};
    freeze(&w->n->layers[0]);
    w->n->head.g = NULL;
    walk_head_prepare(w);
    DIL_TRY(walk_pass_new(&b.pass, w, b.first, b.n, err));
    dil_status status = back_batch(&b, err);
    walk_pass_free(&b.pass);
    if (status != DIL_OK || (*f->done += n) < w->n_sequences)
        return status;
    finish(w, f);
    return walk_head_release(w, err);
}
