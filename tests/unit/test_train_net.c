/* The trainer's network: gradients against finite differences, the same bits for any number of workers, bf16 near f32, the optimiser. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "leaks.h"
#include "theorem/random.h"
#include "train/optimiser.h"

static const net_config moe = {.n_vocab = 50,
                               .n_context = 12,
                               .n_embd = 24,
                               .n_layer = 2,
                               .n_head = 4,
                               .n_head_kv = 2,
                               .head_dim = 8,
                               .n_experts = 5,
                               .n_used = 2,
                               .n_ff_expert = 20,
                               .qk_norm = true,
                               .tied = true,
                               .pairs = ROPE_HALVES,
                               .rope_base = 10000.0f,
                               .norm_eps = 1e-6f,
                               .embd_scale = 1.0f};

static net_config with(int shape)
{
    net_config c = moe;
    if (shape == 0)
        return c;
    c.n_experts = c.n_used = c.n_ff_expert = 0;
    c.n_ff = 40;
    if (shape == 2) { /* llama */
        c.qk_norm = false;
        c.pairs = ROPE_ADJACENT;
        c.tied = false;
        c.n_head_kv = 4;
    }
    if (shape == 3) { /* gemma */
        c.activation = NET_GEGLU;
        c.post_norm = true;
        c.embd_scale = 4.5f;
        c.head_dim = 10;
        c.n_head_kv = 1;
    }
    if (shape == 4) { /* biases */
        c.qkv_bias = true;
        c.qk_norm = false;
    }
    if (shape == 5) { /* experts with GEGLU, norms behind, one expert per token */
        c = moe;
        c.activation = NET_GEGLU;
        c.post_norm = true;
        c.n_used = 1;
        c.n_experts = 3;
    }
    return c;
}
enum { N_SHAPES = 6, SEQUENCES = 3 };

typedef struct bench {
    team *workers;
    kernels k;
    net *n;
    int32_t tokens[SEQUENCES * 13];
} bench;

static void fill(float *w, size_t n, float deviation, uint64_t seed)
{
    for (size_t i = 0; i < n; i++) {
        float u = 0.0f;
        for (int j = 0; j < 4; j++)
            u += (float)(random_next(&seed) >> 40) * 0x1p-24f - 0.5f;
        w[i] = u * deviation * 1.7f;
    }
}

/* Larger values than training starts from, so that nothing is nearly linear. */
static void bench_new(bench *b, const net_config *c, net_compute compute, int n_workers, const char *level)
{
    dil_error err;
    assert_int_equal(team_new(&b->workers, n_workers, &err), DIL_OK);
    assert_int_equal(kernels_select(&b->k, level, &err), DIL_OK);
    assert_int_equal(net_new(&b->n, c, compute, SEQUENCES * c->n_context, b->workers, &b->k, &err), DIL_OK);
}

static void bench_fill(bench *b)
{
    uint64_t state = 7;
    for (int i = 0; i < net_n_parameters(b->n); i++) {
        parameter *p = net_parameter_at(b->n, i);
        fill(p->w, p->count, p->kind == PARAMETER_VECTOR ? 0.3f : p->kind == PARAMETER_EMBEDDING ? 0.8f : 0.25f, (uint64_t)i + 1);
        for (size_t j = 0; p->kind == PARAMETER_VECTOR && !strstr(p->name, "bias") && j < p->count; j++)
            p->w[j] += 1.0f;
    }
    for (size_t i = 0; i < sizeof b->tokens / sizeof *b->tokens; i++)
        b->tokens[i] = (int32_t)(random_next(&state) % (uint64_t)net_config_of(b->n)->n_vocab);
    if (net_prices(b->n))
        fill(net_prices(b->n), 2 * (size_t)net_config_of(b->n)->n_experts, 0.1f, 99);
    net_refresh(b->n);
}

static void bench_free(bench *b)
{
    net_free(b->n);
    team_free(b->workers);
}

static const loss_config terms = {.balance = 0.3f, .z = 0.05f, .recency = 0.9f, .beta = 0.5f};

/* The whole loss whose gradient net_train makes: cross-entropy, z-loss, and those router terms that hold nothing constant. */
static double loss_of(bench *b)
{
    net_result r;
    net_clear_gradients(b->n);
    dil_error err;
    assert_int_equal(net_train(b->n, b->tokens, SEQUENCES, &(net_loss){0.02f, &terms}, &r, &err), DIL_OK);
    return r.total;
}

/* Along direction v of one parameter: the slope by the gradient, and by central differences. */
static void check_direction(bench *b, parameter *p, const float *v, double slope, const char *what)
{
    float *kept = mem_alloc(p->count * sizeof *kept, MEM_MISC);
    double best = INFINITY, length = 0.0;
    for (size_t i = 0; i < p->count; i++)
        length += (double)v[i] * (double)v[i];
    memcpy(kept, p->w, p->count * sizeof *kept);
    for (double step = 0.03; step > 0.002; step /= 2.0) { /* between rounding and curvature, and away from where a choice flips */
        double e = step / sqrt(length), side[2];
        for (int s = 0; s < 2; s++) {
            for (size_t i = 0; i < p->count; i++)
                p->w[i] = kept[i] + (float)(s ? -e : e) * v[i];
            net_refresh(b->n);
            side[s] = loss_of(b);
        }
        double error = fabs((side[0] - side[1]) / (2.0 * e) - slope);
        best = error < best ? error : best;
    }
    memcpy(p->w, kept, p->count * sizeof *kept);
    net_refresh(b->n);
    mem_free(kept);
    if (!(best <= 1e-3 * fabs(slope)))
        fail_msg("%s %s: slope %.6g, off by %.3g", what, p->name, slope, best);
}

static void gradients_of_a_shape(int shape)
{
    net_config c = with(shape);
    bench b;
    bench_new(&b, &c, NET_COMPUTE_F32, 2, "auto");
    bench_fill(&b);
    (void)loss_of(&b);
    float *g = mem_alloc(net_size(b.n) * sizeof *g, MEM_MISC), *v = mem_alloc(net_size(b.n) * sizeof *v, MEM_MISC);
    memcpy(g, net_gradients(b.n), net_size(b.n) * sizeof *g);
    for (int i = 0; i < net_n_parameters(b.n); i++) {
        parameter *p = net_parameter_at(b.n, i);
        const float *mine = g + (p->w - net_values(b.n));
        double slope = 0.0, mixed = 0.0;
        for (size_t j = 0; j < p->count; j++)
            slope += (double)mine[j] * (double)mine[j];
        check_direction(&b, p, mine, slope, "along");
        fill(v, p->count, 1.0f, (uint64_t)i + 1000); /* and half at random: what the gradient forgot would show */
        double length = 0.0;
        for (size_t j = 0; j < p->count; j++)
            length += (double)v[j] * (double)v[j];
        for (size_t j = 0; j < p->count; j++) {
            v[j] = v[j] / (float)sqrt(length) + mine[j] / (float)sqrt(slope);
            mixed += (double)v[j] * (double)mine[j];
        }
        check_direction(&b, p, v, mixed, "across");
    }
    mem_free(g);
    mem_free(v);
    bench_free(&b);
}

static void gradients_are_slopes(void **state)
{
    (void)state;
    for (int shape = 0; shape < N_SHAPES; shape++)
        gradients_of_a_shape(shape);
}

/* ---- what a pass gives ---- */

static const loss_config all_terms = {0.3f, 0.2f, 0.2f, 0.4f, 0.05f, 0.9f, 0.5f};

/* The gradient after one pass, [owned: mem_free]. */
static float *gradient_of(const net_config *c, net_compute compute, int n_workers, const char *level, net_result *r)
{
    dil_error err;
    bench b;
    bench_new(&b, c, compute, n_workers, level);
    bench_fill(&b);
    net_clear_gradients(b.n);
    assert_int_equal(net_train(b.n, b.tokens, SEQUENCES, &(net_loss){0.02f, &all_terms}, r, &err), DIL_OK);
    float *g = mem_alloc(net_size(b.n) * sizeof *g, MEM_MISC);
    memcpy(g, net_gradients(b.n), net_size(b.n) * sizeof *g);
    bench_free(&b);
    return g;
}

/* Long enough that work is cut into several blocks of tokens and of rows. */
static net_config longer(void)
{
    net_config c = moe;
    c.n_context = 100;
    c.n_vocab = 300;
    return c;
}

static void same_for_any_number_of_workers(void **state)
{
    (void)state;
    net_config c = longer();
    net_result first, r;
    dil_error err;
    for (int compute = NET_COMPUTE_AUTO; compute <= NET_COMPUTE_F32; compute++) {
        bench b;
        bench_new(&b, &c, (net_compute)compute, 1, "auto");
        size_t size = net_size(b.n);
        int32_t tokens[SEQUENCES * 101];
        for (int i = 0; i < SEQUENCES * 101; i++)
            tokens[i] = (i * i * 7 + i) % 300;
        float *one = mem_alloc(size * sizeof *one, MEM_MISC);
        bench_fill(&b);
        net_clear_gradients(b.n);
        assert_int_equal(net_train(b.n, tokens, SEQUENCES, &(net_loss){0.02f, &all_terms}, &first, &err), DIL_OK);
        memcpy(one, net_gradients(b.n), size * sizeof *one);
        bench_free(&b);
        for (int workers = 2; workers <= 3; workers++) {
            bench_new(&b, &c, (net_compute)compute, workers, "auto");
            bench_fill(&b);
            net_clear_gradients(b.n);
            assert_int_equal(net_train(b.n, tokens, SEQUENCES, &(net_loss){0.02f, &all_terms}, &r, &err), DIL_OK);
            assert_memory_equal(net_gradients(b.n), one, size * sizeof *one);
            assert_true(r.ce == first.ce && r.total == first.total);
            bench_free(&b);
        }
        mem_free(one);
    }
}

/* Levels differ by rounding only; bf16 by its rounding of operands. */
static void levels_agree(void **state)
{
    (void)state;
    static const char *const levels[] = {"scalar", "avx2", "avx512"};
    net_result wanted, r;
    kernels k;
    dil_error err;
    float *g = gradient_of(&moe, NET_COMPUTE_F32, 1, "scalar", &wanted);
    size_t size = 0;
    for (int i = 0; i < 4; i++) {
        bool bf16 = i == 3;
        if (kernels_select(&k, bf16 ? "avx512_bf16" : levels[i], &err) != DIL_OK)
            continue;
        bench b;
        bench_new(&b, &moe, bf16 ? NET_COMPUTE_BF16 : NET_COMPUTE_F32, 1, bf16 ? "avx512_bf16" : levels[i]);
        size = net_size(b.n);
        bench_free(&b);
        float *mine = gradient_of(&moe, bf16 ? NET_COMPUTE_BF16 : NET_COMPUTE_F32, 1, bf16 ? "avx512_bf16" : levels[i], &r);
        double apart = 0.0, length = 0.0;
        for (size_t j = 0; j < size; j++) {
            apart += ((double)mine[j] - (double)g[j]) * ((double)mine[j] - (double)g[j]);
            length += (double)g[j] * (double)g[j];
        }
        if (!(sqrt(apart / length) <= (bf16 ? 0.05 : 1e-5)))
            fail_msg("level %d: gradients %g apart", i, sqrt(apart / length));
        assert_true(fabs(r.ce - wanted.ce) <= (bf16 ? 0.05 : 1e-5) * wanted.ce);
        mem_free(mine);
    }
    mem_free(g);
}

/* Evaluation and logits are the pass's own: log of the target's share of softmax(logits). */
static void evaluation_is_the_loss(void **state)
{
    (void)state;
    net_result r;
    dil_error err;
    float nats[SEQUENCES * 12], *logits = mem_alloc(12 * 50 * sizeof *logits, MEM_MISC);
    bench b;
    bench_new(&b, &moe, NET_COMPUTE_F32, 2, "auto");
    bench_fill(&b);
    assert_int_equal(net_train(b.n, b.tokens, SEQUENCES, &(net_loss){0}, &r, &err), DIL_OK);
    net_evaluate(b.n, b.tokens, SEQUENCES, nats);
    double mean = 0.0;
    for (int i = 0; i < SEQUENCES * 12; i++)
        mean += (double)nats[i] / (SEQUENCES * 12);
    assert_true(fabs(mean - r.ce) <= 1e-6 * r.ce);
    net_logits(b.n, b.tokens + 13, 12, logits); /* the second sequence */
    for (int t = 0; t < 12; t++) {
        double sum = 0.0;
        for (int v = 0; v < 50; v++)
            sum += exp((double)logits[t * 50 + v]);
        assert_true(fabs(log(sum) - (double)logits[t * 50 + b.tokens[13 + t + 1]] - (double)nats[12 + t]) < 1e-4);
    }
    mem_free(logits);
    bench_free(&b);
}

static void shapes_are_checked(void **state)
{
    (void)state;
    dil_error err;
    net_config c = moe;
    c.head_dim = 7;
    assert_int_equal(net_config_check(&c, &err), DIL_BAD_ARGUMENT);
    assert_non_null(strstr(err.text, "head_dim: wanted an even number, found 7"));
    c = moe;
    c.n_head_kv = 3;
    assert_int_equal(net_config_check(&c, &err), DIL_BAD_ARGUMENT);
    assert_non_null(strstr(err.text, "num_key_value_heads: wanted a divisor of 4 heads, found 3"));
    c = moe;
    c.n_used = 6;
    assert_int_equal(net_config_check(&c, &err), DIL_BAD_ARGUMENT);
    assert_non_null(strstr(err.text, "num_experts_per_tok: wanted 1 to 8 of 5 experts, found 6"));
    c = moe;
    c.n_ff = 4;
    assert_int_equal(net_config_check(&c, &err), DIL_BAD_ARGUMENT);
    assert_non_null(strstr(err.text, "intermediate_size: wanted 0 with experts, found 4"));
}

/* ---- the optimiser ---- */

static const optimiser_config plain = {.lr = 0.01f,
                                       .lr_router = 0.5f,
                                       .lr_embedding = 2.0f,
                                       .beta1 = 0.9f,
                                       .beta2 = 0.95f,
                                       .eps = 1e-8f,
                                       .weight_decay = 0.1f,
                                       .clip = 1.0f,
                                       .muon_lr = 0.02f,
                                       .lr_end = 0.1};

/* Two steps of AdamW against the formula in double, for every kind of parameter, with clipping. */
static void adamw_is_its_formula(void **state)
{
    (void)state;
    dil_error err;
    optimiser *o;
    bench b;
    bench_new(&b, &moe, NET_COMPUTE_F32, 2, "auto");
    bench_fill(&b);
    size_t size = net_size(b.n);
    assert_int_equal(optimiser_new(&o, b.n, &plain, b.workers, &b.k, &err), DIL_OK);
    double *w = mem_calloc(3 * size, sizeof *w, MEM_MISC), *m = w + size, *v = m + size;
    for (size_t i = 0; i < size; i++)
        w[i] = (double)net_values(b.n)[i];
    for (uint64_t step = 0; step < 2; step++) {
        fill(net_gradients(b.n), size, 0.5f, 11 + step);
        double norm = 0.0, factor = optimiser_schedule(&plain, step, 10);
        for (size_t i = 0; i < size; i++)
            norm += (double)net_gradients(b.n)[i] * (double)net_gradients(b.n)[i];
        norm = sqrt(norm);
        assert_true(fabs(optimiser_step(o, step, 10) - norm) <= 1e-5 * norm);
        for (int p = 0; p < net_n_parameters(b.n); p++) {
            const parameter *q = net_parameter_at(b.n, p);
            double kind = q->kind == PARAMETER_ROUTER ? 0.5 : q->kind == PARAMETER_EMBEDDING ? 2.0 : 1.0, lr = 0.01 * kind * factor;
            for (size_t i = (size_t)(q->w - net_values(b.n)), n = 0; n < q->count; n++, i++) {
                double g = (double)net_gradients(b.n)[i] / norm;
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.95 * v[i] + 0.05 * g * g;
                double t = (double)step + 1.0, step_size = (m[i] / (1 - pow(0.9, t))) / (sqrt(v[i] / (1 - pow(0.95, t))) + 1e-8);
                w[i] -= lr * step_size + (q->kind == PARAMETER_VECTOR ? 0.0 : 0.1 * lr * w[i]);
                if (!(fabs(w[i] - (double)net_values(b.n)[i]) <= 1e-5))
                    fail_msg("step %d, %s: %g, wanted %g", (int)step, q->name, (double)net_values(b.n)[i], w[i]);
            }
        }
    }
    memset(net_gradients(b.n), 0xff, sizeof(float)); /* NaN: nothing may move */
    float before = net_values(b.n)[5];
    assert_false(isfinite(optimiser_step(o, 2, 10)));
    assert_true(net_values(b.n)[5] == before);
    mem_free(w);
    optimiser_free(o);
    bench_free(&b);
}

/* Muon's step of a matrix, without decay, is orthogonal: singular values near 0.2 sqrt(longer side) lr, whatever the gradient's. */
static void muon_steps_are_orthogonal(void **state)
{
    (void)state;
    dil_error err;
    optimiser *o;
    optimiser_config c = plain;
    c.muon = MUON_ALL;
    c.weight_decay = 0.0f;
    bench b;
    bench_new(&b, &moe, NET_COMPUTE_F32, 2, "auto");
    bench_fill(&b);
    size_t size = net_size(b.n);
    float *before = mem_alloc(size * sizeof *before, MEM_MISC);
    memcpy(before, net_values(b.n), size * sizeof *before);
    fill(net_gradients(b.n), size, 0.5f, 3);
    assert_int_equal(optimiser_new(&o, b.n, &c, b.workers, &b.k, &err), DIL_OK);
    (void)optimiser_step(o, 0, 1);
    double lr = 0.02 * optimiser_schedule(&c, 0, 1);
    int seen = 0;
    for (int i = 0; i < net_n_parameters(b.n); i++) {
        const parameter *p = net_parameter_at(b.n, i);
        bool wanted = p->kind == PARAMETER_EXPERTS || p->kind == PARAMETER_MATRIX;
        for (int e = 0; wanted && e < p->n; e++, seen++) {
            size_t at = (size_t)(p->w - net_values(b.n)) + (size_t)e * (size_t)(p->rows * p->columns);
            int least = p->rows < p->columns ? p->rows : p->columns, most = p->rows < p->columns ? p->columns : p->rows;
            double sum = 0.0;
            for (int j = 0; j < p->rows * p->columns; j++) {
                double d = ((double)before[at + (size_t)j] - (double)net_values(b.n)[at + (size_t)j]) / (lr * 0.2 * sqrt(most));
                sum += d * d;
            }
            if (!(sum / least > 0.5 && sum / least < 1.5)) /* the mean squared singular value */
                fail_msg("%s %d: mean squared singular value %g", p->name, e, sum / least);
        }
    }
    assert_int_equal(seen, 2 * (4 + 3 * 5));
    mem_free(before);
    optimiser_free(o);
    bench_free(&b);
}

/* What Muon keeps is 0.95 of what it had and the gradient; without a gradient only the decay moves a matrix. */
static void muon_keeps_momentum_and_decays(void **state)
{
    (void)state;
    dil_error err;
    optimiser *o;
    optimiser_config c = plain;
    c.muon = MUON_ATTENTION;
    c.clip = 0.0f;
    bench b;
    bench_new(&b, &moe, NET_COMPUTE_F32, 2, "auto");
    bench_fill(&b);
    assert_int_equal(optimiser_new(&o, b.n, &c, b.workers, &b.k, &err), DIL_OK);
    const parameter *p = net_parameter_at(b.n, 2);
    assert_string_equal(p->name, "blk.0.attn_q.weight");
    float *kept = mem_calloc(2 * p->count, sizeof *kept, MEM_MISC), *w = kept + p->count;
    const float *momentum = optimiser_state(o) + (p->w - net_values(b.n));
    memcpy(w, p->w, p->count * sizeof *w);
    net_clear_gradients(b.n);
    (void)optimiser_step(o, 0, 1);
    for (size_t i = 0; i < p->count; i++)
        assert_true(fabsf(p->w[i] - w[i] * (1.0f - 0.02f * 0.1f * (float)optimiser_schedule(&c, 0, 1))) <= 1e-6f);
    for (uint64_t step = 0; step < 2; step++) {
        fill(net_gradients(b.n), net_size(b.n), 0.5f, 3 + step);
        for (size_t i = 0; i < p->count; i++)
            kept[i] = 0.95f * kept[i] + p->g[i];
        (void)optimiser_step(o, step, 2);
    }
    for (size_t i = 0; i < p->count; i++)
        assert_true(fabsf(momentum[i] - kept[i]) <= 1e-5f);
    mem_free(kept);
    optimiser_free(o);
    bench_free(&b);
}

static void schedules(void **state)
{
    (void)state;
    optimiser_config c = {.schedule = SCHEDULE_COSINE, .warmup = 0.1, .decay = 0.2, .lr_end = 0.1};
    assert_true(fabs(optimiser_schedule(&c, 4, 100) - 0.5) < 1e-12);
    assert_true(fabs(optimiser_schedule(&c, 9, 100) - 1.0) < 1e-12);
    assert_true(fabs(optimiser_schedule(&c, 54, 100) - 0.55) < 1e-12);
    assert_true(fabs(optimiser_schedule(&c, 99, 100) - 0.1) < 1e-12);
    c.schedule = SCHEDULE_WSD;
    assert_true(fabs(optimiser_schedule(&c, 79, 100) - 1.0) < 1e-12);
    assert_true(fabs(optimiser_schedule(&c, 89, 100) - 0.55) < 1e-12);
    assert_true(fabs(optimiser_schedule(&c, 99, 100) - 0.1) < 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_are_slopes),
        cmocka_unit_test(same_for_any_number_of_workers),
        cmocka_unit_test(levels_agree),
        cmocka_unit_test(evaluation_is_the_loss),
        cmocka_unit_test(shapes_are_checked),
        cmocka_unit_test(adamw_is_its_formula),
        cmocka_unit_test(muon_steps_are_orthogonal),
        cmocka_unit_test(muon_keeps_momentum_and_decays),
        cmocka_unit_test(schedules),
    };
    return leaks_run_group_tests(tests, NULL, NULL);
}
