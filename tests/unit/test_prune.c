/* Pruning: columns leave as least squares says, and a file without experts or layers answers as the whole one with those switched off. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "quantize/blocks.h"
#include "quantize/prune.h"
#include "quantize/surgeon.h"
#include "theorem/random.h"
#include "train/net_internal.h"

#include "net_file.h"

static void ok(dil_status st, const dil_error *err)
{
    if (st != DIL_OK)
        fail_msg("%s", err->text);
}

static double draw(uint64_t *seed) { return (double)(random_next(seed) >> 11) / (double)(UINT64_C(1) << 52) - 1.0; }

/* ---- columns ---- */

enum { COLUMNS = 9, ROWS = 5, REMOVED = 4, SAMPLES = 40 };

typedef struct problem {
    float h[COLUMNS * COLUMNS], w[ROWS * COLUMNS], weight[ROWS];
} problem;

static problem draw_problem(uint64_t seed)
{
    problem p = {0};
    for (int t = 0; t < SAMPLES; t++) {
        double x[COLUMNS], common = draw(&seed);
        for (int i = 0; i < COLUMNS; i++)
            x[i] = draw(&seed) + (i % 3 == 0 ? 2.0 * common : 0.0); /* some say nearly the same */
        for (int i = 0; i < COLUMNS * COLUMNS; i++)
            p.h[i] += (float)(x[i / COLUMNS] * x[i % COLUMNS] / SAMPLES);
    }
    for (int i = 0; i < ROWS * COLUMNS; i++)
        p.w[i] = (float)draw(&seed);
    for (int r = 0; r < ROWS; r++)
        p.weight[r] = (float)(draw(&seed) + 1.1);
    return p;
}

static void solve(double a[COLUMNS][COLUMNS + 1], int n)
{
    for (int i = 0; i < n; i++) {
        int pivot = i;
        for (int r = i; r < n; r++)
            pivot = fabs(a[r][i]) > fabs(a[pivot][i]) ? r : pivot;
        for (int c = 0; c <= n; c++) {
            double v = a[i][c];
            a[i][c] = a[pivot][c];
            a[pivot][c] = v;
        }
        for (int r = 0; r < n; r++) {
            double share = r == i ? 0 : a[r][i] / a[i][i];
            for (int c = i; c <= n && r != i; c++)
                a[r][c] -= share * a[i][c];
        }
    }
    for (int i = 0; i < n; i++)
        a[i][n] /= a[i][i];
}

/* The row over the columns that are left which is nearest to the whole one; returns its cost, (out - w) H (out - w)^T. */
static double refit(const problem *p, double add, const float *w, const bool *gone, double *out)
{
    double a[COLUMNS][COLUMNS + 1], cost = 0;
    int left[COLUMNS], n = 0;
    for (int i = 0; i < COLUMNS; i++)
        if (!gone[i])
            left[n++] = i;
    for (int i = 0; i < n; i++) {
        a[i][n] = 0;
        for (int j = 0; j < n; j++)
            a[i][j] = (double)p->h[left[i] * COLUMNS + left[j]] + (i == j ? add : 0);
        for (int j = 0; j < COLUMNS; j++)
            a[i][n] += ((double)p->h[left[i] * COLUMNS + j] + (left[i] == j ? add : 0)) * (double)w[j];
    }
    solve(a, n);
    for (int i = 0; i < COLUMNS; i++)
        out[i] = 0;
    for (int i = 0; i < n; i++)
        out[left[i]] = a[i][n];
    for (int i = 0; i < COLUMNS; i++)
        for (int j = 0; j < COLUMNS; j++)
            cost += (out[i] - (double)w[i]) * ((double)p->h[i * COLUMNS + j] + (i == j ? add : 0)) * (out[j] - (double)w[j]);
    return cost;
}

static double refit_all(const problem *p, double add, const bool *gone, double out[ROWS][COLUMNS])
{
    double cost = 0;
    for (int r = 0; r < ROWS; r++)
        cost += 0.5 * (double)p->weight[r] * refit(p, add, p->w + r * COLUMNS, gone, out[r]);
    return cost;
}

static void columns_leave_as_least_squares_says(void **state)
{
    (void)state;
    dil_error err;
    team *workers = NULL;
    ok(team_new(&workers, 2, &err), &err);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        const problem p = draw_problem(seed);
        problem found = p;
        int32_t removed[REMOVED];
        double cost[REMOVED], add = 0, out[ROWS][COLUMNS];
        bool gone[COLUMNS] = {false};
        for (int i = 0; i < COLUMNS; i++)
            add += 0.01 * (double)p.h[i * COLUMNS + i] / COLUMNS;
        ok(surgeon_remove(&(surgeon_task){.w = found.w,
                                          .row_weight = p.weight,
                                          .rows = ROWS,
                                          .columns = COLUMNS,
                                          .h = p.h,
                                          .damping = 0.01f,
                                          .n_remove = REMOVED,
                                          .workers = workers,
                                          .removed = removed,
                                          .cost = cost},
                          &err),
           &err);
        for (int i = 0; i < REMOVED; i++) {
            int best = -1;
            double least = INFINITY;
            for (int j = 0; j < COLUMNS; j++) {
                if (gone[j])
                    continue;
                gone[j] = true;
                double without = refit_all(&p, add, gone, out);
                gone[j] = false;
                if (without < least) {
                    least = without;
                    best = j;
                }
            }
            assert_int_equal(removed[i], best);
            gone[best] = true;
            assert_true(fabs(cost[i] - least) < 1e-6 * (1 + least));
        }
        (void)refit_all(&p, add, gone, out);
        for (int i = 0; i < ROWS * COLUMNS; i++)
            if (fabs((double)found.w[i] - out[i / COLUMNS][i % COLUMNS]) > 1e-5)
                fail_msg("seed %d, weight %d: wanted %g, found %g", (int)seed, i, out[i / COLUMNS][i % COLUMNS],
                         (double)found.w[i]);
    }
    team_free(workers);
}

static void bad_curvature_is_refused(void **state)
{
    (void)state;
    dil_error err;
    team *workers = NULL;
    int32_t removed[1];
    double cost[1];
    ok(team_new(&workers, 1, &err), &err);
    problem p = draw_problem(3);
    surgeon_task t = {
        .w = p.w, .rows = ROWS, .columns = COLUMNS, .h = p.h, .n_remove = 1, .workers = workers, .removed = removed, .cost = cost};
    p.h[4] = NAN;
    assert_int_equal(surgeon_remove(&t, &err), DIL_FORMAT);
    assert_non_null(strstr(err.text, "finite"));
    team_free(workers);
}

/* ---- blocks ---- */

enum { WIDE = 3 * BLOCK_COLUMNS, TALL = 6 };

/* What zeros in the columns zeroed cost at least, (x - w) H (x - w)^T, when those behind them may move: by solving for them. */
static double least_cost(const double *h, const float *w, int first, int n_zero, double *x)
{
    static double a[WIDE][WIDE + 1];
    const int from = first + n_zero, n = WIDE - from;
    double cost = 0;
    for (int i = 0; i < WIDE; i++)
        x[i] = i >= first && i < from ? 0 : (double)w[i];
    for (int i = 0; i < n; i++) { /* H_rr d_r = H_rz w_z */
        a[i][n] = 0;
        for (int j = 0; j < n; j++)
            a[i][j] = h[(from + i) * WIDE + from + j];
        for (int j = first; j < from; j++)
            a[i][n] += h[(from + i) * WIDE + j] * (double)w[j];
    }
    for (int i = 0; i < n; i++)
        for (int r = i + 1; r < n; r++) {
            double share = a[r][i] / a[i][i];
            for (int c = i; c <= n; c++)
                a[r][c] -= share * a[i][c];
        }
    for (int i = n - 1; i >= 0; i--) {
        for (int j = i + 1; j < n; j++)
            a[i][n] -= a[i][j] * a[j][n];
        a[i][n] /= a[i][i];
        x[from + i] += a[i][n];
    }
    for (int i = 0; i < WIDE; i++)
        for (int j = 0; j < WIDE; j++)
            cost += (x[i] - (double)w[i]) * h[i * WIDE + j] * (x[j] - (double)w[j]);
    return cost;
}

/* The cheapest blocks go, and what is behind them becomes what least squares says, whatever the number of workers. */
static void blocks_leave_as_least_squares_says(void **state)
{
    (void)state;
    dil_error err;
    static float h[WIDE * WIDE], w[TALL * WIDE], weight[TALL], found[TALL * WIDE], again[TALL * WIDE];
    static double damped[WIDE * WIDE], x[WIDE];
    double cost[TALL * 3], add = 0;
    uint64_t seed = 7;
    kernels k;
    ok(kernels_select(&k, NULL, &err), &err);
    for (int t = 0; t < 400; t++) {
        double in[WIDE], common = draw(&seed);
        for (int i = 0; i < WIDE; i++)
            in[i] = draw(&seed) + (i % 3 == 0 ? 2.0 * common : 0.0);
        for (int i = 0; i < WIDE * WIDE; i++)
            h[i] += (float)(in[i / WIDE] * in[i % WIDE] / 400);
    }
    for (int i = 0; i < TALL * WIDE; i++)
        w[i] = (float)draw(&seed);
    for (int r = 0; r < TALL; r++)
        weight[r] = (float)(draw(&seed) + 1.1);
    for (int i = 0; i < WIDE; i++)
        add += 0.01 * (double)h[i * WIDE + i] / WIDE;
    for (int i = 0; i < WIDE * WIDE; i++)
        damped[i] = (double)h[i] + (i / WIDE == i % WIDE ? add : 0);
    for (int workers = 1; workers <= 3; workers++) {
        team *team = NULL;
        metric *m = NULL;
        ok(team_new(&team, workers, &err), &err);
        ok(metric_new(&m, h, WIDE, 0.01f, &k, team, &err), &err);
        memcpy(found, w, sizeof w);
        ok(blocks_remove(&(blocks_task){found, weight, TALL, WIDE, m, 1, team}, &err), &err);
        if (workers > 1)
            assert_memory_equal(found, again, sizeof found);
        memcpy(again, found, sizeof found);
        metric_free(m);
        team_free(team);
    }
    int best = 0;
    for (int i = 0; i < TALL * 3; i++) {
        cost[i] = (double)weight[i / 3] * least_cost(damped, w + i / 3 * WIDE, i % 3 * BLOCK_COLUMNS, BLOCK_COLUMNS, x);
        best = cost[i] < cost[best] ? i : best;
    }
    (void)least_cost(damped, w + best / 3 * WIDE, best % 3 * BLOCK_COLUMNS, BLOCK_COLUMNS, x);
    for (int i = 0; i < TALL * WIDE; i++) {
        double wanted = i / WIDE == best / 3 ? x[i % WIDE] : (double)w[i];
        if (fabs((double)found[i] - wanted) > 1e-4)
            fail_msg("weight %d: wanted %g, found %g (block %d goes)", i, wanted, (double)found[i], best);
    }
}

/* ---- files ---- */

enum { SEQUENCES = 6, CONTEXT = 32, TOKENS = SEQUENCES * CONTEXT, LAYERS = 3, VOCAB = 96 };

static net_config shape(bool experts)
{
    net_config c = {.n_vocab = VOCAB,
                    .n_context = CONTEXT,
                    .n_embd = 32,
                    .n_layer = LAYERS,
                    .n_head = 4,
                    .n_head_kv = 2,
                    .head_dim = 8,
                    .n_ff = 96,
                    .tied = true,
                    .pairs = ROPE_ADJACENT,
                    .rope_base = 10000.0f,
                    .norm_eps = 1e-5f,
                    .embd_scale = 1.0f};
    if (experts) {
        c.n_ff = 0;
        c.n_experts = 8;
        c.n_used = 2;
        c.n_ff_expert = 32;
        c.qk_norm = true;
        c.pairs = ROPE_HALVES;
    }
    return c;
}

/* A network, its file, its statistics, and what pruning made of it. */
typedef struct bench {
    char path[64], stats[64], out[64];
    team *workers;
    kernels k;
    net *n, *small;
    gguf *file;
    int32_t tokens[TOKENS];
    float before[TOKENS * VOCAB]; /* logits of the whole network */
    prune_report report;
} bench;

static net *net_of(const bench *b, const net_config *c)
{
    dil_error err;
    net *n = NULL;
    ok(net_new(&n, c, NET_COMPUTE_F32, TOKENS, b->workers, &b->k, &err), &err);
    return n;
}

static void logits_of(net *n, const int32_t *tokens, float *out)
{
    for (int s = 0; s < SEQUENCES; s++)
        net_logits(n, tokens + s * CONTEXT, CONTEXT, out + (size_t)s * CONTEXT * VOCAB);
}

static void write_stats(bench *b)
{
    dil_error err;
    gguf *in = NULL;
    players p;
    walk *w = NULL;
    calibration c;
    ok(gguf_open(&in, b->path, NULL, &err), &err);
    ok(players_new(&p, in, &err), &err);
    for (int i = 0; i < p.n; i++)
        player_offer(&p.p[i]);
    ok(walk_new(&w, in, b->tokens, SEQUENCES, CONTEXT, b->workers, &b->k, &err), &err);
    int32_t *copy = mem_alloc(sizeof b->tokens, MEM_MISC);
    assert_non_null(copy);
    memcpy(copy, b->tokens, sizeof b->tokens);
    const calibration_options o = {
        .text_name = "text", .n_sequences = SEQUENCES, .n_context = CONTEXT, .workers = b->workers, .k = &b->k};
    ok(calibration_make(&c, &p, w, copy, &o, &err), &err);
    ok(calibration_write(&c, &p, b->stats, &err), &err);
    calibration_free(&c);
    walk_free(w);
    players_free(&p);
    gguf_close(in);
}

static void begin(bench *b, bool experts)
{
    dil_error err;
    uint64_t seed = 5;
    const net_config c = shape(experts);
    const int id = (int)getpid();
    snprintf(b->path, sizeof b->path, "/tmp/dil_prune_%d.gguf", id);
    snprintf(b->stats, sizeof b->stats, "/tmp/dil_prune_%d.stats", id);
    snprintf(b->out, sizeof b->out, "/tmp/dil_prune_%d_out.gguf", id);
    ok(team_new(&b->workers, 2, &err), &err);
    ok(kernels_select(&b->k, NULL, &err), &err);
    b->n = net_of(b, &c);
    net_initialise(b->n, 3);
    for (size_t i = 0; i < net_size(b->n); i++) /* so that answers depend on what was read */
        if (fabsf(net_values(b->n)[i]) < 0.2f)
            net_values(b->n)[i] *= 8.0f;
    net_refresh(b->n);
    for (int i = 0; i < TOKENS; i++)
        b->tokens[i] = (int32_t)(random_next(&seed) % VOCAB);
    ok(net_file_write(b->n, b->path, &err), &err);
    write_stats(b);
    logits_of(b->n, b->tokens, b->before);
}

static void end(bench *b)
{
    prune_report_free(&b->report);
    if (b->file)
        gguf_close(b->file);
    net_free(b->small);
    net_free(b->n);
    team_free(b->workers);
    unlink(b->path);
    unlink(b->stats);
    unlink(b->out);
}

static void log_softmax(const float *z, double *out)
{
    double sum = 0;
    for (int i = 0; i < VOCAB; i++)
        sum += exp((double)z[i]);
    for (int i = 0; i < VOCAB; i++)
        out[i] = (double)z[i] - log(sum);
}

/* What the report says was lost on the calibration text is what its answers have lost. */
static void assert_found(bench *b)
{
    static float small[TOKENS * VOCAB];
    double sum = 0, p[VOCAB], q[VOCAB];
    logits_of(b->small, b->tokens, small);
    for (int t = 0; t < TOKENS; t++) {
        log_softmax(b->before + t * VOCAB, p);
        log_softmax(small + t * VOCAB, q);
        for (int i = 0; i < VOCAB; i++)
            sum += exp(p[i]) * (p[i] - q[i]) / TOKENS;
    }
    if (fabs(sum - b->report.found) > 0.05 * sum + 1e-4) /* the walk may compute in bf16 */
        fail_msg("wanted a divergence of %g, found %g", sum, b->report.found);
}

static prune_options options_of(const bench *b, prune_kind kind, double share, int n_layers)
{
    return (prune_options){.kind = kind, .share = share, .n_layers = n_layers, .stats = b->stats, .n_threads = 2};
}

/* Prunes, and reads the result into a network of that shape. */
static void prune(bench *b, const prune_options *o, const net_config *c)
{
    dil_error err;
    ok(prune_file(&b->report, b->path, b->out, o, &err), &err);
    ok(gguf_open(&b->file, b->out, NULL, &err), &err);
    b->small = net_of(b, c);
    ok(net_file_read(b->small, b->file, &err), &err);
    assert_found(b);
}

/* The pruned file answers as the whole network, which was masked meanwhile. */
static void assert_same_answers(const bench *b)
{
    static float whole[TOKENS * VOCAB], small[TOKENS * VOCAB];
    float most = 0, worst = 0;
    net_refresh(b->n);
    logits_of(b->n, b->tokens, whole);
    logits_of(b->small, b->tokens, small);
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
        most = fmaxf(most, fabsf(whole[i]));
        worst = fmaxf(worst, fabsf(whole[i] - small[i]));
    }
    if (!(worst <= 1e-4f * most))
        fail_msg("logits differ by %g of %g", (double)worst, (double)most);
}

static parameter *find_parameter(net *n, int layer, const char *rest)
{
    char name[64];
    snprintf(name, sizeof name, "blk.%d.%s", layer, rest);
    for (int i = 0; i < net_n_parameters(n); i++)
        if (strcmp(net_parameter_at(n, i)->name, name) == 0)
            return net_parameter_at(n, i);
    fail_msg("%s: not there", name);
    return NULL;
}

static const int32_t *removed_of(const bench *b, int list) { return b->report.plan.removed + list * b->report.plan.n_removed; }

static bool contains(const int32_t *list, int n, int value)
{
    for (int i = 0; i < n; i++)
        if (list[i] == value)
            return true;
    return false;
}

/* parts: the curvature of down's 96 columns is known for each third only. */
static void without_neurons(bool parts)
{
    static bench b;
    b = (bench){0};
    begin(&b, false);
    net_config c = shape(false);
    c.n_ff = 64;
    prune_options o = options_of(&b, PRUNE_NEURONS, 0.34, 0);
    o.most_curvature = parts ? 96 * 32 : 0;
    prune(&b, &o, &c);
    assert_int_equal(b.report.plan.n_removed, 32);
    for (int i = 0; i < LAYERS; i++) { /* the others' new weights, at their old places */
        parameter *whole = find_parameter(b.n, i, "ffn_down.weight");
        const parameter *small = find_parameter(b.small, i, "ffn_down.weight");
        int thirds[3] = {0};
        for (int r = 0; r < whole->rows; r++)
            for (int j = 0, at = 0; j < whole->columns; j++)
                whole->w[r * whole->columns + j] = contains(removed_of(&b, i), 32, j) ? 0.0f : small->w[r * small->columns + at++];
        for (int k = 0; k < 32; k++) {
            thirds[removed_of(&b, i)[k] / 32]++;
            assert_true(k == 0 || b.report.plan.cost[i * 32 + k] >= b.report.plan.cost[i * 32 + k - 1]);
        }
        assert_true(!parts || (thirds[0] == 11 && thirds[1] == 11 && thirds[2] == 10));
    }
    assert_same_answers(&b);
    end(&b);
}

static void without_neurons_as_masked(void **state)
{
    (void)state;
    without_neurons(false);
    without_neurons(true);
}

static void without_experts_as_masked(void **state)
{
    (void)state;
    static bench b;
    b = (bench){0};
    begin(&b, true);
    net_config c = shape(true);
    c.n_experts = 5;
    const prune_options o = options_of(&b, PRUNE_EXPERTS, 0.4, 0);
    prune(&b, &o, &c);
    assert_int_equal(b.report.plan.n_removed, 3);
    for (int i = 0; i < LAYERS; i++)
        for (int k = 0; k < 3; k++) {
            net_prices(b.n)[i * 8 + removed_of(&b, i)[k]] = 1e30f;
            double before = k ? b.report.plan.cost[i * 3 + k - 1] : 0;
            assert_true(b.report.plan.cost[i * 3 + k] >= before * 0.5); /* others may lose less than was lost, but not all of it */
        }
    memcpy(b.n->inputs, b.tokens, sizeof b.tokens);
    memcpy(b.small->inputs, b.tokens, sizeof b.tokens);
    net_forward(b.n, SEQUENCES, CONTEXT);
    net_forward(b.small, SEQUENCES, CONTEXT);
    for (int t = 0; t < TOKENS * 32; t++)
        assert_true(fabsf(b.n->normed_last[t] - b.small->normed_last[t]) < 1e-4f);
    end(&b);
}

/* Lists with something for each layer lose what the layers lost; others do not. */
static void assert_lists_cut(const bench *b, const char *key, int left)
{
    dil_error err;
    const int32_t *numbers = NULL;
    uint64_t n = 0;
    ok(gguf_get_i32_array(b->file, key, &numbers, &n, &err), &err);
    assert_int_equal(n, left);
    for (int i = 0; i < left; i++)
        assert_false(contains(removed_of(b, 0), b->report.plan.n_removed, numbers[i]));
    ok(gguf_get_i32_array(b->file, "general.test_numbers", &numbers, &n, &err), &err);
    assert_int_equal(n, LAYERS);
}

static void without_layers_as_masked(void **state)
{
    (void)state;
    for (int experts = 0; experts < 2; experts++) {
        static bench b;
        b = (bench){0};
        begin(&b, experts);
        net_config c = shape(experts);
        c.n_layer = 1;
        const prune_options o = options_of(&b, PRUNE_LAYERS, 0, 2);
        prune(&b, &o, &c);
        assert_lists_cut(&b, experts ? "qwen3moe.test.layer_numbers" : "llama.test.layer_numbers", 1);
        for (int k = 0; k < 2; k++) {
            parameter *out = find_parameter(b.n, removed_of(&b, 0)[k], "attn_output.weight"),
                      *down = find_parameter(b.n, removed_of(&b, 0)[k], experts ? "ffn_down_exps.weight" : "ffn_down.weight");
            memset(out->w, 0, out->count * sizeof(float));
            memset(down->w, 0, down->count * sizeof(float));
        }
        assert_same_answers(&b);
        end(&b);
    }
}

/* A third of the blocks is zero, the rest is there; the file is as large, and answers as the report says. */
static void blocks_are_zero_and_there(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) { /* the third time with half the room for down's curvature */
        static bench b;
        b = (bench){0};
        begin(&b, i == 1);
        const net_config c = shape(i == 1);
        prune_options o = options_of(&b, PRUNE_BLOCKS, 1.0 / 3, 0);
        o.most_curvature = i == 2 ? 96 * 32 : 0;
        prune(&b, &o, &c);
        int64_t zero = 0, all = 0;
        for (int k = 0; k < net_n_parameters(b.small); k++) {
            const parameter *p = net_parameter_at(b.small, k);
            if (strncmp(p->name, "blk.", 4) != 0 || strstr(p->name, "norm") || strstr(p->name, "ffn_gate_inp"))
                continue;
            for (size_t at = 0; at < p->count; at += BLOCK_COLUMNS, all++) {
                bool any = false;
                for (int j = 0; j < BLOCK_COLUMNS; j++)
                    any = any || p->w[at + (size_t)j] != 0.0f;
                zero += !any;
            }
        }
        assert_int_equal(b.report.plan.n_before, all);
        assert_int_equal(b.report.plan.n_removed, zero);
        assert_true(3 * zero <= all && 4 * zero > all); /* whole blocks of each head and expert */
        assert_int_equal(b.report.out_bytes, b.report.in_bytes);
        assert_true(b.report.stored_bytes < b.report.out_bytes);
        end(&b);
    }
}

static void wrong_wishes_are_refused(void **state)
{
    (void)state;
    dil_error err;
    static bench b;
    b = (bench){0};
    begin(&b, true);
    struct {
        prune_kind kind;
        double share;
        int n_layers;
        dil_status status;
        const char *text;
    } cases[] = {{PRUNE_NEURONS, 0.5, 0, DIL_UNSUPPORTED, "--experts"},
                 {PRUNE_EXPERTS, 0.9, 0, DIL_BAD_ARGUMENT, "0.75"},
                 {PRUNE_EXPERTS, 0.01, 0, DIL_BAD_ARGUMENT, "0.125"},
                 {PRUNE_LAYERS, 0, 3, DIL_BAD_ARGUMENT, "1 to 2"},
                 {PRUNE_BLOCKS, 1e-6, 0, DIL_BAD_ARGUMENT, "one block"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const prune_options o = options_of(&b, cases[i].kind, cases[i].share, cases[i].n_layers);
        assert_int_equal(prune_file(&b.report, b.path, b.out, &o, &err), cases[i].status);
        if (!strstr(err.text, cases[i].text))
            fail_msg("wanted '%s', found '%s'", cases[i].text, err.text);
    }
    const prune_options same = options_of(&b, PRUNE_EXPERTS, 0.5, 0);
    assert_int_equal(prune_file(&b.report, b.path, b.path, &same, &err), DIL_BAD_ARGUMENT);
    assert_int_not_equal(access(b.out, F_OK), 0);
    end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(columns_leave_as_least_squares_says),
                                       cmocka_unit_test(bad_curvature_is_refused),
                                       cmocka_unit_test(blocks_leave_as_least_squares_says),
                                       cmocka_unit_test(blocks_are_zero_and_there),
                                       cmocka_unit_test(without_neurons_as_masked),
                                       cmocka_unit_test(without_experts_as_masked),
                                       cmocka_unit_test(without_layers_as_masked),
                                       cmocka_unit_test(wrong_wishes_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
