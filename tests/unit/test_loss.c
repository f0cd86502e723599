/*
 * The balancing loss against its definition, written again in double: values of the terms, and gradients by central differences
 * of that definition, in which what counts as constant is held.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "leaks.h"
#include "theorem/price.h"
#include "theorem/random.h"
#include "train/loss.h"

#define MOST_EXPERTS 48
#define MOST_TOKENS 256 /* of a batch */
#define MOST_USED 4

static uint64_t seed = 20261126;
static double uniform(void) { return (double)(random_next(&seed) >> 11) * 0x1p-53; }
static double normal(void) { return sqrt(-2.0 * log(1.0 - uniform())) * cos(6.283185307179586 * uniform()); }

static void near(const char *what, double a, double b, double most)
{
    if (!(fabs(a - b) <= most))
        fail_msg("%s: %.9g and %.9g differ by more than %g", what, a, b, most);
}

/* ---- a batch ---- */

typedef struct batch {
    loss_input in;
    int n; /* tokens of all sequences */
    float z[MOST_TOKENS * MOST_EXPERTS], price[MOST_EXPERTS], flock[MOST_EXPERTS * MOST_EXPERTS];
    int16_t chosen[MOST_TOKENS * MOST_USED];
} batch;

/* The n_used largest of z - price, ties to the lowest index. */
static void choose(const float *z, const float *price, int n_experts, int n_used, int16_t *chosen)
{
    for (int k = 0; k < n_used; k++) {
        int best = -1;
        for (int e = 0; e < n_experts; e++) {
            bool taken = false;
            for (int i = 0; i < k; i++)
                taken |= chosen[i] == e;
            if (!taken && (best < 0 || z[e] - (price ? price[e] : 0.0f) > z[best] - (price ? price[best] : 0.0f)))
                best = e;
        }
        chosen[k] = (int16_t)best;
    }
}

static void random_flock(float *flock, int n)
{
    float rows[MOST_EXPERTS * 12];
    dil_error err;
    for (int i = 0; i < n * 12; i++)
        rows[i] = (float)normal();
    assert_int_equal(loss_flock(rows, n, 12, flock, &err), DIL_OK);
}

/* Scores around a level far from 0, and drifting, so that routing has something to do with the past. */
static void random_batch(batch *b, int n_sequences, int n_tokens, int n_experts, int n_used)
{
    b->in = (loss_input){n_sequences, n_tokens, n_experts, n_used, b->z, b->chosen, b->price, b->flock};
    b->n = n_sequences * n_tokens;
    for (int e = 0; e < n_experts; e++)
        b->price[e] = (float)(0.4 * normal());
    for (int i = 0; i < b->n * n_experts; i++)
        b->z[i] = (float)(3.0 + normal() + (i >= n_experts ? 0.5 * ((double)b->z[i - n_experts] - 3.0) : 0.0));
    for (int t = 0; t < b->n; t++)
        choose(b->z + t * n_experts, b->price, n_experts, n_used, b->chosen + t * n_used);
    random_flock(b->flock, n_experts);
}

static loss_values compute(const batch *b, const loss_config *c, float scale, float *dz, team *workers)
{
    loss_values out;
    void *scratch = mem_alloc(loss_scratch_bytes(&b->in), MEM_MISC);
    memset(scratch, 0xA5, loss_scratch_bytes(&b->in));
    loss_router(&b->in, c, scale, dz, &out, scratch, workers);
    mem_free(scratch);
    return out;
}

/* ---- the definition ---- */

static double softmax(const double *x, int n, double *p)
{
    double sum = 0.0, top = x[0];
    for (int e = 0; e < n; e++)
        top = x[e] > top ? x[e] : top;
    for (int e = 0; e < n; e++)
        sum += p[e] = exp(x[e] - top);
    for (int e = 0; e < n; e++)
        p[e] /= sum;
    return top + log(sum);
}

/* What is constant to the gradient. */
typedef struct constants {
    double f[MOST_EXPERTS], h[MOST_TOKENS][MOST_EXPERTS], v[MOST_TOKENS][MOST_EXPERTS], target[MOST_TOKENS][MOST_EXPERTS];
    double rho[MOST_TOKENS][MOST_EXPERTS];
} constants;

static double deviation(const batch *b)
{
    int n = b->n * b->in.n_experts;
    double mean = 0.0, square = 0.0;
    for (int i = 0; i < n; i++)
        mean += (double)b->z[i] / n;
    for (int i = 0; i < n; i++)
        square += ((double)b->z[i] - mean) * ((double)b->z[i] - mean) / n;
    return sqrt(square);
}

static void constants_of(const batch *b, const loss_config *c, constants *k)
{
    int n = b->in.n_experts, used = b->in.n_used;
    double beta = (double)c->beta * deviation(b), x[MOST_EXPERTS], mean[MOST_EXPERTS];
    memset(k, 0, sizeof *k);
    for (int i = 0; i < b->n * used; i++)
        k->f[b->chosen[i]] += 1.0 / (b->n * used);
    for (int t = 0; t < b->n; t++) {
        int since = t % b->in.n_tokens;
        for (int e = 0; e < n && since > 0; e++) {
            double a = 0.0;
            for (int i = 0; i < used; i++)
                a += b->chosen[(t - 1) * used + i] == e;
            k->h[t][e] = (double)c->recency * fmax(a, k->h[t - 1][e]);
        }
        for (int e = 0; e < n; e++)
            x[e] = (double)b->z[t * n + e];
        softmax(x, n, k->rho[t]);
        for (int e = 0; e < n; e++)
            x[e] -= (b->in.price ? (double)b->price[e] : 0.0) - beta * k->h[t][e];
        softmax(x, n, k->target[t]);
        int last = since < LOSS_SWARM_TOKENS ? since : LOSS_SWARM_TOKENS;
        for (int e = 0; e < n; e++) {
            mean[e] = 0.0;
            for (int back = 1; back <= last; back++)
                mean[e] += k->rho[t - back][e] / last;
        }
        for (int e = 0; e < n; e++)
            for (int i = 0; i < n; i++)
                k->v[t][e] += (b->in.flock ? (double)b->flock[e * n + i] : (double)(e == i)) * mean[i];
    }
}

/* Terms of one token with scores x; only x varies. */
static loss_values token_terms(const batch *b, const constants *k, int t, const double *x)
{
    int n = b->in.n_experts;
    double rho[MOST_EXPERTS], dot = 0.0, own = 0.0, ahead = 0.0;
    loss_values v = {.z = softmax(x, n, rho)};
    v.z *= v.z;
    for (int e = 0; e < n; e++) {
        v.balance += n * k->f[e] * rho[e];
        v.cache += rho[e] * k->h[t][e];
        v.nash += rho[e] * log(rho[e] / k->target[t][e]);
        v.entropy -= rho[e] * log(rho[e]);
        dot += rho[e] * k->v[t][e];
        own += rho[e] * rho[e];
        ahead += k->v[t][e] * k->v[t][e];
    }
    v.swarm = ahead > 0.0 ? dot / sqrt(own * ahead) : 0.0;
    return v;
}

static double weighted(const loss_values *v, const loss_config *c)
{
    return (double)c->balance * v->balance - (double)c->cache * v->cache - (double)c->swarm * v->swarm + (double)c->nash * v->nash +
           (double)c->z * v->z;
}

static const loss_config plain = {.recency = 0.8f, .beta = 0.5f};

static loss_config random_weights(void)
{
    loss_config c = plain;
    c.balance = 0.3f;
    c.cache = 0.2f;
    c.swarm = 0.7f;
    c.nash = 0.9f;
    c.z = 0.01f;
    return c;
}

static batch the_batch;
static constants the_constants;
static float gradient[MOST_TOKENS * MOST_EXPERTS];

/* ---- shapes ---- */

static const int shapes[][4] = {/* sequences, tokens, experts, used */
                                {1, 1, 4, 1},  {3, 2, 4, 1},   {1, 9, 4, 1},   {2, 64, 4, 1}, {5, 1, 32, 2},  {2, 2, 32, 2},
                                {3, 9, 32, 2}, {2, 64, 32, 2}, {1, 64, 32, 4}, {2, 9, 1, 1},  {2, 12, 17, 3}, {2, 20, 48, 4}};
#define SHAPES (int)(sizeof shapes / sizeof *shapes)

static batch *shaped(int i)
{
    random_batch(&the_batch, shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3]);
    return &the_batch;
}

static void check_values(const batch *b, const loss_config *c)
{
    double mean[MOST_EXPERTS] = {0}, balance = 0.0, most = 0.0;
    int n = b->in.n_experts;
    loss_values v = compute(b, c, 1.0f, NULL, NULL), r = {0};
    constants_of(b, c, &the_constants);
    for (int t = 0; t < b->n; t++) {
        double x[MOST_EXPERTS];
        for (int e = 0; e < n; e++) {
            x[e] = (double)b->z[t * n + e];
            mean[e] += the_constants.rho[t][e] / b->n;
        }
        loss_values one = token_terms(b, &the_constants, t, x);
        r.cache += one.cache / b->n;
        r.swarm += one.swarm / b->n;
        r.nash += one.nash / b->n;
        r.z += one.z / b->n;
        r.entropy += one.entropy / b->n;
    }
    for (int e = 0; e < n; e++) {
        balance += n * the_constants.f[e] * mean[e];
        most = fmax(most, the_constants.f[e] * n);
    }
    near("balance", v.balance, balance, 1e-5);
    near("cache", v.cache, r.cache, 1e-5);
    near("swarm", v.swarm, r.swarm, 1e-5);
    near("nash", v.nash, r.nash, 1e-5);
    near("z", v.z, r.z, 1e-5 * r.z);
    near("entropy", v.entropy, r.entropy, 1e-5);
    near("violation", v.violation, most - 1.0, 1e-9);
}

static void values(void **state)
{
    (void)state;
    for (int i = 0; i < SHAPES; i++) {
        batch *b = shaped(i);
        check_values(b, &plain);
        b->in.price = NULL;
        check_values(b, &plain);
        b->in.flock = NULL;
        check_values(b, &plain);
    }
}

/* The gradient, times scale, on top of what was there. */
static void check_gradient(const batch *b, const loss_config *c, float scale)
{
    static double wanted[MOST_TOKENS * MOST_EXPERTS];
    int n = b->in.n_experts;
    double most = 0.0, step = 1e-5;
    constants_of(b, c, &the_constants);
    for (int i = 0; i < b->n * n; i++) {
        double x[MOST_EXPERTS], ends[2];
        for (int end = 0; end < 2; end++) {
            for (int e = 0; e < n; e++)
                x[e] = (double)b->z[i / n * n + e];
            x[i % n] += end ? step : -step;
            loss_values v = token_terms(b, &the_constants, i / n, x);
            ends[end] = weighted(&v, c);
        }
        wanted[i] = (double)scale * (ends[1] - ends[0]) / (2.0 * step) / b->n;
        most = fmax(most, fabs(wanted[i]));
        gradient[i] = 0.0f;
    }
    compute(b, c, scale, gradient, NULL);
    for (int i = 0; i < b->n * n; i++)
        near("gradient", (double)gradient[i], wanted[i], 1e-3 * fabs(wanted[i]) + 2e-5 * most + 1e-9);
    for (int i = 0; i < b->n * n; i++)
        gradient[i] = 5.0f;
    compute(b, c, scale, gradient, NULL);
    for (int i = 0; i < b->n * n; i++)
        near("added gradient", (double)gradient[i], 5.0 + wanted[i], 1e-3 * fabs(wanted[i]) + 2e-5 * most + 2e-6);
}

/* Every term alone: the others are off then, and report their values all the same. */
static void gradients(void **state)
{
    (void)state;
    for (int i = 0; i < SHAPES; i++) {
        batch *b = shaped(i);
        for (int term = 0; term < 6; term++) {
            loss_config c = plain;
            float *weight[] = {&c.balance, &c.cache, &c.swarm, &c.nash, &c.z};
            if (term < 5)
                *weight[term] = 0.5f;
            else
                c = random_weights();
            check_gradient(b, &c, term < 5 ? 1.0f : 3.0f);
            check_values(b, &c);
        }
        b->in.flock = NULL;
        b->in.price = NULL;
        loss_config c = random_weights();
        check_gradient(b, &c, 1.0f);
    }
}

static void all_off(void **state)
{
    (void)state;
    batch *b = shaped(7);
    memset(gradient, 0, sizeof gradient);
    compute(b, &plain, 1.0f, gradient, NULL);
    for (int i = 0; i < b->n * b->in.n_experts; i++)
        assert_true(gradient[i] == 0.0f);
}

/* ---- what the terms mean ---- */

static void even_router(void **state)
{
    (void)state;
    batch *b = &the_batch;
    random_batch(b, 2, 16, 32, 2);
    for (int i = 0; i < b->n * 32; i++)
        b->z[i] = 1.0f;
    for (int i = 0; i < b->n * 2; i++)
        b->chosen[i] = (int16_t)(i % 32);
    loss_values v = compute(b, &plain, 1.0f, NULL, NULL);
    near("balance", v.balance, 1.0, 1e-6);
    near("violation", v.violation, 0.0, 1e-12);
    near("entropy", v.entropy, log(32.0), 1e-6);
}

static void equilibrium(void **state)
{
    (void)state;
    batch *b = shaped(7);
    loss_config c = plain;
    c.beta = 0.0f;
    assert_true(compute(b, &c, 1.0f, NULL, NULL).nash > 1e-3);
    memset(b->price, 0, sizeof b->price);
    assert_true(compute(b, &c, 1.0f, NULL, NULL).nash == 0.0);
    b->in.price = NULL;
    assert_true(compute(b, &c, 1.0f, NULL, NULL).nash == 0.0);
}

/* Scores that follow L_nash take the price in, as long as what is left of it is charged: at the end nothing is left, L_nash is 0,
 * and without a price the choices are those the price made. */
static void price_is_absorbed(void **state)
{
    (void)state;
    static float before[MOST_EXPERTS];
    batch *b = &the_batch;
    float price[MOST_EXPERTS];
    loss_config c = plain;
    c.beta = 0.0f;
    c.nash = 1.0f;
    random_batch(b, 1, 1, 32, 2);
    memcpy(before, b->z, sizeof before);
    memcpy(price, b->price, sizeof price);
    double first = compute(b, &c, 1.0f, NULL, NULL).nash;
    for (int step = 0; step < 4000; step++) {
        memset(gradient, 0, sizeof gradient);
        for (int e = 0; e < 32; e++)
            b->price[e] = price[e] - (before[e] - b->z[e]);
        compute(b, &c, 1.0f, gradient, NULL);
        for (int e = 0; e < 32; e++)
            b->z[e] -= 4.0f * gradient[e];
    }
    assert_true(compute(b, &c, 1.0f, NULL, NULL).nash < 1e-4 * first);
    int16_t with[MOST_USED], without[MOST_USED];
    choose(before, price, 32, 2, with);
    choose(b->z, NULL, 32, 2, without);
    assert_memory_equal(with, without, 2 * sizeof *with);
}

/* ---- recency ---- */

/* An LRU cache under even random choices: what is hit, and how many tokens an expert has waited when it must go. */
static void simulate_lru(int n, int used, int cached, double *hits, double *waited)
{
    int64_t last[MOST_EXPERTS], accesses = 0, hit = 0, evicted = 0, age = 0;
    bool in[MOST_EXPERTS] = {false};
    int held = 0;
    for (int e = 0; e < n; e++)
        last[e] = -1;
    for (int64_t t = 0; t < 40000; t++)
        for (int i = 0; i < used; i++) {
            int e = (int)(random_next(&seed) % (uint64_t)n);
            while (last[e] == t)
                e = (e + 1) % n == 0 ? 0 : (int)(random_next(&seed) % (uint64_t)n);
            accesses++;
            hit += in[e];
            if (!in[e] && held == cached) {
                int oldest = -1;
                for (int o = 0; o < n; o++)
                    oldest = in[o] && (oldest < 0 || last[o] < last[oldest]) ? o : oldest;
                in[oldest] = false;
                held--;
                evicted++;
                age += t - last[oldest];
            }
            held += !in[e];
            in[e] = true;
            last[e] = t;
        }
    *hits = (double)hit / (double)accesses;
    *waited = (double)age / (double)evicted;
}

static void recency(void **state)
{
    (void)state;
    static const int cases[][3] = {{32, 2, 8}, {32, 2, 24}, {48, 2, 12}, {48, 1, 30}, {32, 1, 4}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double hits, waited;
        simulate_lru(cases[i][0], cases[i][1], cases[i][2], &hits, &waited);
        double stays = -1.0 / log((double)loss_recency(cases[i][0], cases[i][1], cases[i][2]));
        near("hit rate", 1.0 - exp(-stays * cases[i][1] / cases[i][0]), hits, 0.02);
        near("time an expert stays / simulated", stays / waited, 1.0, 0.08);
    }
    assert_true(loss_recency(32, 2, 32.0) == 1.0f && loss_recency(32, 2, 40.0) == 1.0f);
    assert_true(loss_recency(32, 2, 0.0) == 0.0f && loss_recency(32, 2, -1.0) == 0.0f);
    assert_true(loss_recency(32, 2, 8.0) < loss_recency(32, 2, 16.0) && loss_recency(32, 2, 31.9) < 1.0f);
}

/* With g = 1 nothing fades: h says what was ever used. */
static void nothing_fades(void **state)
{
    (void)state;
    loss_config c = plain;
    c.recency = 1.0f;
    check_values(shaped(7), &c);
    c.recency = 0.0f;
    check_values(shaped(7), &c);
    assert_true(compute(&the_batch, &c, 1.0f, NULL, NULL).cache == 0.0);
}

/* ---- flock ---- */

static void flock(void **state)
{
    (void)state;
    float rows[20 * 3], a[20 * 20];
    dil_error err = {0};
    for (int i = 0; i < 20 * 3; i++)
        rows[i] = (float)normal();
    for (int n = 1; n <= 20; n++) {
        assert_int_equal(loss_flock(rows, n, 3, a, &err), DIL_OK);
        int k = n - 1 < 7 ? n - 1 : 7;
        for (int i = 0; i < n; i++) {
            double sum = 0.0;
            int neighbours = 0;
            for (int j = 0; j < n; j++) {
                sum += (double)a[i * n + j];
                neighbours += i != j && a[i * n + j] > 0.0f;
                assert_true((a[i * n + j] > 0.0f) == (a[j * n + i] > 0.0f));
            }
            near("row", sum, 1.0, 1e-6);
            near("diagonal", (double)a[i * n + i], n == 1 ? 1.0 : 0.5, 0.0);
            assert_true(neighbours >= k);
            for (int j = 0; j < n; j++)
                if (i != j && a[i * n + j] > 0.0f)
                    near("neighbour", (double)a[i * n + j], 0.5 / neighbours, 1e-7);
        }
    }
    rows[4] = NAN;
    a[0] = 77.0f;
    assert_int_equal(loss_flock(rows, 20, 3, a, &err), DIL_BAD_ARGUMENT);
    assert_true(a[0] == 77.0f);
    rows[4] = 0.0f;
    for (int64_t after = 0; after < 3; after++) {
        mem_inject_failure(after);
        assert_int_equal(loss_flock(rows, 20, 3, a, &err), DIL_NO_MEMORY);
    }
    mem_inject_failure(-1);
    /* two bundles of eight directions: nobody has neighbours in the other */
    float bundles[16 * 2], both[16 * 16];
    for (int i = 0; i < 16; i++) {
        bundles[2 * i] = (float)(cos(i < 8 ? 0.1 : 2.0) + 0.01 * normal());
        bundles[2 * i + 1] = (float)(sin(i < 8 ? 0.1 : 2.0) + 0.01 * normal());
    }
    assert_int_equal(loss_flock(bundles, 16, 2, both, &err), DIL_OK);
    for (int i = 0; i < 16 * 16; i++)
        assert_true(i / 16 == i % 16 || (both[i] > 0.0f) == (i / 16 / 8 == i % 16 / 8));
}

/* ---- price ---- */

static double spread(const float *load, int n)
{
    double most = 0.0;
    for (int e = 0; e < n; e++)
        most = fmax(most, (double)load[e]);
    return most - 1.0;
}

/* A router that likes expert e by 0.15 (n - e): the market clears. */
static void price_balances(void **state)
{
    (void)state;
    enum { N = 16, TOKENS = 200, USED = 2 };
    for (int rule = 0; rule < 2; rule++) {
        float price[N] = {0}, load[N], z[N];
        double first = 0.0, last = 0.0;
        for (int step = 0; step < 600; step++) {
            memset(load, 0, sizeof load);
            for (int t = 0; t < TOKENS; t++) {
                int16_t chosen[USED];
                for (int e = 0; e < N; e++)
                    z[e] = (float)(0.15 * (N - e) + normal());
                choose(z, price, N, USED, chosen);
                for (int i = 0; i < USED; i++)
                    load[chosen[i]] += (float)N / (TOKENS * USED);
            }
            if (step == 0)
                first = spread(load, N);
            if (step >= 500)
                last += spread(load, N) / 100;
            price_follow(price, load, N, rule ? PRICE_PROPORTIONAL : PRICE_SIGN, 0.02f);
        }
        double sum = 0.0;
        for (int e = 0; e < N; e++)
            sum += (double)price[e];
        near("mean price", sum / N, 0.0, 1e-5);
        assert_true(first > 1.5 && last < 0.5); /* 25 choices a step: chance alone gives about 0.4 */
        for (int e = 0; e < N - 2; e++)
            assert_true(price[e] > price[e + 2]);
    }
}

static void price_rules(void **state)
{
    (void)state;
    float price[3] = {1.0f, 2.0f, 3.0f}, load[3] = {1.0f, 1.5f, 0.5f};
    price_follow(price, load, 3, PRICE_SIGN, 0.1f);
    near("as it should", (double)price[0], -1.0, 1e-6);
    near("too busy", (double)price[1], 0.1, 1e-6);
    near("too idle", (double)price[2], 0.9, 1e-6);
    price_follow(price, load, 3, PRICE_PROPORTIONAL, 0.2f);
    near("too busy", (double)price[1], 0.2, 1e-6);
    near("too idle", (double)price[2], 0.8, 1e-6);
}

/* ---- workers ---- */

static void equal_bits(void **state)
{
    (void)state;
    static float first[MOST_TOKENS * MOST_EXPERTS];
    loss_config c = random_weights();
    random_batch(&the_batch, 7, 24, 32, 2);
    memset(first, 0, sizeof first);
    loss_values alone = compute(&the_batch, &c, 1.0f, first, NULL);
    for (int n = 1; n <= 3; n++) {
        team *t;
        dil_error err;
        assert_int_equal(team_new(&t, n, &err), DIL_OK);
        for (int again = 0; again < 20; again++) {
            memset(gradient, 0, sizeof gradient);
            loss_values v = compute(&the_batch, &c, 1.0f, gradient, t);
            assert_memory_equal(&v, &alone, sizeof v);
            assert_memory_equal(gradient, first, sizeof first);
        }
        team_free(t);
    }
}

/* A net counts its buffers before there is a flock: the sizes alone must say how much. */
static void scratch_knows_sizes_only(void **state)
{
    (void)state;
    random_batch(&the_batch, 3, 5, 40, 2);
    const loss_input in = the_batch.in, sizes = {.n_sequences = in.n_sequences,
                                                 .n_tokens = in.n_tokens,
                                                 .n_experts = in.n_experts,
                                                 .n_used = in.n_used};
    size_t n = loss_scratch_bytes(&sizes);
    loss_config c = random_weights();
    loss_values v;
    unsigned char *scratch = mem_alloc(n + 16384, MEM_MISC);
    memset(scratch + n, 0x5A, 16384);
    loss_router(&in, &c, 1.0f, NULL, &v, scratch, NULL);
    for (size_t i = 0; i < 16384; i++)
        assert_int_equal(scratch[n + i], 0x5A);
    mem_free(scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values),
        cmocka_unit_test(gradients),
        cmocka_unit_test(all_off),
        cmocka_unit_test(even_router),
        cmocka_unit_test(equilibrium),
        cmocka_unit_test(price_is_absorbed),
        cmocka_unit_test(recency),
        cmocka_unit_test(nothing_fades),
        cmocka_unit_test(flock),
        cmocka_unit_test(price_balances),
        cmocka_unit_test(price_rules),
        cmocka_unit_test(equal_bits),
        cmocka_unit_test(scratch_knows_sizes_only),
    };
    return leaks_run_group_tests(tests, NULL, NULL);
}
