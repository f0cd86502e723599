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
static bench bench_new(const net_config *c, net_compute compute, int n_workers, const char *level)
{
    dil_error err;
    bench b = {0};
    assert_int_equal(team_new(&b.workers, n_workers, &err), DIL_OK);
    assert_int_equal(kernels_select(&b.k, level, &err), DIL_OK);
    assert_int_equal(net_new(&b.n, c, compute, SEQUENCES * c->n_context, b.workers, &b.k, &err), DIL_OK);
    return b;
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
    bench b = bench_new(&c, NET_COMPUTE_F32, 2, "auto");
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_are_slopes),
    };
    return leaks_run_group_tests(tests, NULL, NULL);
}
