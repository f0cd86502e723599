/* Walking through a model: the same states as the trainer's network has, curvature as it is defined, and expected divergence that comes true. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "file/gguf.h"
#include "quantize/sense.h"
#include "quantize/walk.h"
#include "theorem/random.h"
#include "train/net_internal.h"

#include "net_file.h"

enum { SEQUENCES = 6, CONTEXT = 32, TOKENS = SEQUENCES * CONTEXT };

static const net_config base = {.n_vocab = 96,
                                .n_context = CONTEXT,
                                .n_embd = 32,
                                .n_layer = 3,
                                .n_head = 4,
                                .n_head_kv = 2,
                                .head_dim = 8,
                                .n_ff = 64,
                                .tied = true,
                                .pairs = ROPE_ADJACENT,
                                .rope_base = 10000.0f,
                                .norm_eps = 1e-5f,
                                .embd_scale = 1.0f};

static net_config shape(bool experts)
{
    net_config c = base;
    if (experts) {
        c.n_ff = 0;
        c.n_experts = 4;
        c.n_used = 2;
        c.n_ff_expert = 32;
        c.qk_norm = true;
        c.pairs = ROPE_HALVES;
    }
    return c;
}

typedef struct bench {
    char path[64];
    team *workers;
    kernels k;
    net *n;
    gguf *file;
    int32_t tokens[TOKENS];
} bench;

static void ok(dil_status st, const dil_error *err)
{
    if (st != DIL_OK)
        fail_msg("%s", err->text);
}

static void begin(bench *b, bool experts)
{
    dil_error err;
    uint64_t seed = 5;
    const net_config c = shape(experts);
    snprintf(b->path, sizeof b->path, "/tmp/dil_walk_%d.gguf", (int)getpid());
    ok(team_new(&b->workers, 2, &err), &err);
    ok(kernels_select(&b->k, NULL, &err), &err);
    ok(net_new(&b->n, &c, NET_COMPUTE_F32, TOKENS, b->workers, &b->k, &err), &err);
    net_initialise(b->n, 3);
    for (size_t i = 0; i < net_size(b->n); i++) /* so that answers depend on what was read */
        if (fabsf(net_values(b->n)[i]) < 0.2f)
            net_values(b->n)[i] *= 8.0f;
    net_refresh(b->n);
    for (int i = 0; i < TOKENS; i++)
        b->tokens[i] = (int32_t)(random_next(&seed) % (uint64_t)c.n_vocab);
    ok(net_file_write(b->n, b->path, &err), &err);
    ok(gguf_open(&b->file, b->path, NULL, &err), &err);
}

static void end(bench *b)
{
    gguf_close(b->file);
    net_free(b->n);
    team_free(b->workers);
    unlink(b->path);
}

static walk *walk_of(const bench *b)
{
    dil_error err;
    walk *w = NULL;
    ok(walk_new(&w, b->file, b->tokens, SEQUENCES, CONTEXT, b->workers, &b->k, &err), &err);
    return w;
}

static void forward(bench *b)
{
    memcpy(b->n->inputs, b->tokens, sizeof b->tokens);
    net_forward(b->n, SEQUENCES, CONTEXT);
}

/* [width][width]: mean of weight x x^T. */
static void outer_mean(const float *x, const float *weights, int n, int width, double *out)
{
    for (int i = 0; i < width * width; i++)
        out[i] = 0;
    for (int t = 0; t < n; t++)
        for (int i = 0; i < width; i++)
            for (int j = 0; j < width; j++)
                out[i * width + j] +=
                    (weights ? (double)weights[t] : 1.0) * (double)x[t * width + i] * (double)x[t * width + j] / n;
}

static void assert_near(const float *found, const double *wanted, int n, double share, const char *what)
{
    double most = 0, worst = 0;
    for (int i = 0; i < n; i++) {
        most = fmax(most, fabs(wanted[i]));
        worst = fmax(worst, fabs((double)found[i] - wanted[i]));
    }
    if (!(worst <= share * most))
        fail_msg("%s: differs by %g of %g", what, worst, most);
}

/* With half the room, the halves of the columns are looked at for themselves: h [64][64] of the layer's down matrix. */
static void assert_parts(walk *w, const float *h)
{
    double wanted[2 * 32 * 32];
    float parts[2 * 32 * 32];
    for (int i = 0; i < 2 * 32 * 32; i++) {
        const int part = i / (32 * 32), row = i / 32 % 32 + 32 * part, column = i % 32 + 32 * part;
        wanted[i] = (double)h[row * 64 + column];
    }
    assert_int_equal(walk_parts(w, WALK_DOWN), 1);
    walk_limit(w, 64 * 32);
    assert_int_equal(walk_parts(w, WALK_QK), 1);
    assert_int_equal(walk_parts(w, WALK_DOWN), 2);
    assert_int_equal(walk_group_floats(w, WALK_DOWN), 2 * 32 * 32);
    walk_look(w, WALK_DOWN, NULL, 1, parts);
    assert_near(parts, wanted, 2 * 32 * 32, 1e-5, "inputs of down, in parts");
    walk_limit(w, 64 * 64);
}

static void look_through(bool experts)
{
    dil_error err;
    bench b = {0};
    double wanted[64 * 64];
    float h[4 * 64 * 64], weights[TOKENS];
    const float *list[1] = {weights};
    begin(&b, experts);
    forward(&b);
    walk *w = walk_of(&b);
    for (int t = 0; t < TOKENS; t++)
        weights[t] = 0.5f + (float)(t % 3) * 0.5f; /* mean 1 */
    ok(walk_begin(w, &err), &err);
    for (int i = 0; i < base.n_layer; i++) {
        const net_layer *l = &b.n->layers[i];
        ok(walk_load(w, i, &err), &err);
        walk_look(w, WALK_QK, list, 1, h);
        outer_mean(l->normed, weights, TOKENS, 32, wanted);
        assert_near(h, wanted, 32 * 32, 0.02, "inputs of q, k, v"); /* the walk may compute in bf16 */
        walk_look(w, WALK_OUTPUT, NULL, 1, h);
        outer_mean(l->attended, NULL, TOKENS, 32, wanted);
        assert_near(h, wanted, 32 * 32, 0.02, "inputs of the output projection");
        walk_look(w, WALK_GATE_UP, NULL, 1, h);
        outer_mean(l->normed_ffn, NULL, TOKENS, 32, wanted);
        if (!experts)
            assert_near(h, wanted, 32 * 32, 0.02, "inputs of gate and up");
        walk_look(w, WALK_DOWN, NULL, 1, h);
        if (!experts)
            assert_parts(w, h);
        walk_advance(w);
    }
    walk_look_head(w, NULL, h);
    outer_mean(b.n->normed_last, NULL, TOKENS, 32, wanted);
    assert_near(h, wanted, 32 * 32, 0.03, "inputs of the output matrix");
    walk_free(w);
    end(&b);
}

static void looks_are_those_of_the_network(void **state)
{
    (void)state;
    look_through(false);
    look_through(true);
}

/* ---- expected divergence ---- */

static void softmax(double *p, const float *z, int n)
{
    double most = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++)
        most = fmax(most, (double)z[i]);
    for (int i = 0; i < n; i++)
        sum += p[i] = exp((double)z[i] - most);
    for (int i = 0; i < n; i++)
        p[i] /= sum;
}

static double divergence(const float *from, const float *to, int n_vocab)
{
    double sum = 0, p[96], q[96];
    for (int t = 0; t < TOKENS; t++) {
        softmax(p, from + (size_t)t * (size_t)n_vocab, n_vocab);
        softmax(q, to + (size_t)t * (size_t)n_vocab, n_vocab);
        for (int i = 0; i < n_vocab; i++)
            sum += p[i] * log(p[i] / q[i]) / TOKENS;
    }
    return sum;
}

static void logits_of(bench *b, float *out)
{
    for (int s = 0; s < SEQUENCES; s++)
        net_logits(b->n, b->tokens + s * CONTEXT, CONTEXT, out + (size_t)s * CONTEXT * (size_t)b->n->c.n_vocab);
}

/* 0.5 * sum over rows of G_r e_r H e_r^T for the error e of a place. */
static double expected(const walk_fisher *f, net_place place, int layer, const float *e, int n_rows, int columns, const float *h,
                       int groups)
{
    double sum = 0;
    for (int r = 0; r < n_rows; r++) {
        const float *of = h + (size_t)(r / (n_rows / groups)) * (size_t)columns * (size_t)columns;
        double cost = 0;
        for (int i = 0; i < columns; i++)
            for (int j = 0; j < columns; j++)
                cost += (double)e[r * columns + i] * (double)of[i * columns + j] * (double)e[r * columns + j];
        sum += 0.5 * (double)f->row[place][layer * n_rows + r] * cost;
    }
    return sum;
}

static void expected_divergence_comes_true(void **state)
{
    dil_error err;
    bench b = {0};
    walk_fisher f;
    static float before[TOKENS * 96], after[TOKENS * 96], h[3 * 64 * 64], e[64 * 64];
    uint64_t seed = 9;
    (void)state;
    begin(&b, false);
    logits_of(&b, before);
    walk *w = walk_of(&b);
    ok(walk_fisher_new(w, &f, &err), &err);
    ok(walk_begin(w, &err), &err);
    while (*f.done < SEQUENCES)
        ok(walk_look_back(w, 1, &f, &err), &err);
    double used = 0;
    for (int i = 0; i < base.n_vocab; i++)
        used += (double)f.used[i];
    assert_float_equal(used, 1.0, 1e-4);
    for (int i = 0; i < base.n_layer; i++) {
        ok(walk_load(w, i, &err), &err);
        for (int stage = 0; stage < WALK_STAGES; stage++) {
            walk_look(w, (walk_stage)stage, NULL, 1, h);
            for (int place = 0; place < NET_PLACES; place++) {
                if (walk_stage_of((net_place)place) != (walk_stage)stage)
                    continue;
                net_layer *l = &b.n->layers[i];
                weight *const of[NET_PLACES] = {&l->q, &l->k, &l->v, &l->o, &l->f.gate, &l->f.up, &l->f.down};
                size_t n = (size_t)of[place]->n_out * (size_t)of[place]->n_in;
                memset(e, 0, sizeof e);
                for (size_t j = n / 2; j < n; j++) { /* rows, heads differ */
                    e[j] = ((float)(random_next(&seed) >> 40) * 0x1p-24f - 0.5f) * 0.03f;
                    of[place]->w[j] += e[j];
                }
                net_refresh(b.n);
                logits_of(&b, after);
                for (size_t j = 0; j < n; j++)
                    of[place]->w[j] -= e[j];
                double real = divergence(before, after, base.n_vocab);
                double wanted =
                    expected(&f, (net_place)place, i, e, of[place]->n_out, of[place]->n_in, h, walk_groups(w, (walk_stage)stage));
                double within = 1.6;
                if (!(real < within * wanted && real > wanted / within))
                    fail_msg("layer %d, place %d: expected %g, found %g", i, place, wanted, real);
            }
        }
        walk_advance(w);
    }
    walk_fisher_free(&f);
    walk_free(w);
    end(&b);
}

/* ---- random directions ---- */

enum { WORDS = 128, DRAWS = 6000 };

/* The mean product of gradients i and j of tokens `apart` from each other. */
static double mean_product(const float *g, int i, int j, int apart)
{
    double sum = 0;
    for (int t = 0; t + apart < DRAWS; t++)
        sum += (double)g[t * WORDS + i] * (double)g[(t + apart) * WORDS + j] * DRAWS * DRAWS;
    return sum / (DRAWS - apart);
}

static void directions_have_the_curvature_of_the_divergence(void **state)
{
    dil_error err;
    team *workers = NULL;
    kernels k;
    net *n = NULL;
    net_config c = base;
    double p[WORDS], worst = 0;
    (void)state;
    c.n_vocab = WORDS;
    c.n_layer = 1;
    c.n_context = DRAWS;
    ok(team_new(&workers, 2, &err), &err);
    ok(kernels_select(&k, NULL, &err), &err);
    ok(net_new(&n, &c, NET_COMPUTE_F32, DRAWS, workers, &k, &err), &err);
    for (int i = 0; i < WORDS; i++)
        n->head.w[i * c.n_embd] = (float)(i % 8 == 0) * 2.5f - (float)(i % 3);
    net_refresh(n);
    memset(n->normed_last, 0, (size_t)DRAWS * (size_t)c.n_embd * sizeof(float));
    for (int t = 0; t < DRAWS; t++)
        n->normed_last[t * c.n_embd] = 1.0f;
    memset(n->targets, 0, DRAWS * sizeof *n->targets);
    n->head.g = NULL;
    head_run(&n->crew, &(head_pass){.w = &n->head,
                                    .x = n->normed_last,
                                    .targets = n->targets,
                                    .n_tokens = DRAWS,
                                    .logits = n->logits,
                                    .nats = n->nats,
                                    .log_sum = n->log_sum,
                                    .dx = n->dn,
                                    .draw_seed = 5});
    float logits[WORDS];
    for (int i = 0; i < WORDS; i++)
        logits[i] = n->head.w[i * c.n_embd];
    softmax(p, logits, WORDS);
    for (int i = 0; i < WORDS; i += 5)
        for (int j = 0; j < WORDS; j++) {
            double wanted = (i == j ? p[i] : 0) - p[i] * p[j], of = sqrt(p[i] * p[j]);
            worst = fmax(worst, fabs(mean_product(n->logits, i, j, 0) - wanted) / of);
            worst = fmax(worst, fabs(mean_product(n->logits, i, j, 1)) / of); /* tokens have nothing to do with each other */
        }
    if (worst > 0.07) /* 5 deviations of a mean of 6000 */
        fail_msg("differs by %g", worst);
    net_free(n);
    team_free(workers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(looks_are_those_of_the_network),
                                       cmocka_unit_test(expected_divergence_comes_true),
                                       cmocka_unit_test(directions_have_the_curvature_of_the_divergence)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
