/* The public loss: what the terms come to is the business of test_loss.c, here is what a caller passes and gets. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "dilmodeli.h"
#include "leaks.h"
#include "theorem/random.h"
#include "train/loss.h"

enum { SEQUENCES = 2, TOKENS = 6, N = SEQUENCES * TOKENS, VOCAB = 11, EXPERTS = 12, USED = 2, EMBD = 5 };

static uint64_t seed = 3;
static float logits[N * VOCAB], scores[N * EXPERTS], price[EXPERTS], rows[EXPERTS * EMBD];
static int32_t targets[N], chosen[N * USED];

static float uniform(void) { return (float)((double)(random_next(&seed) >> 11) * 0x1p-53 * 4.0 - 2.0); }

static dil_loss_options options(void)
{
    dil_loss_options o = dil_loss_options_default();
    o.n_sequences = SEQUENCES;
    o.n_tokens = TOKENS;
    o.n_vocab = VOCAB;
    o.n_experts = EXPERTS;
    o.n_experts_used = USED;
    o.n_embd = EMBD;
    o.logits = logits;
    o.targets = targets;
    o.router_scores = scores;
    o.price = price;
    o.router_rows = rows;
    return o;
}

static int fill(void **state)
{
    (void)state;
    for (int i = 0; i < N * VOCAB; i++)
        logits[i] = 3.0f * uniform();
    for (int i = 0; i < N * EXPERTS; i++)
        scores[i] = uniform();
    for (int i = 0; i < EXPERTS; i++)
        price[i] = 0.3f * uniform();
    for (int i = 0; i < EXPERTS * EMBD; i++)
        rows[i] = uniform();
    for (int t = 0; t < N; t++) {
        targets[t] = t % 5 == 3 ? -1 : (t * 7) % VOCAB;
        for (int k = 0; k < USED; k++) { /* the largest by comparison */
            int best = -1;
            for (int e = 0; e < EXPERTS; e++)
                if ((k == 0 || e != chosen[t * USED]) &&
                    (best < 0 || scores[t * EXPERTS + e] - price[e] > scores[t * EXPERTS + best] - price[best]))
                    best = e;
            chosen[t * USED + k] = best;
        }
    }
    return 0;
}

static void near(const char *what, double a, double b, double most)
{
    if (!(fabs(a - b) <= most))
        fail_msg("%s: %.9g and %.9g differ by more than %g", what, a, b, most);
}

static dil_loss_values compute(const dil_loss_options *o, float *d_logits, float *d_router)
{
    dil_loss_values v = {.struct_size = sizeof v};
    dil_error err;
    if (dil_loss_compute(o, &v, d_logits, d_router, &err) != DIL_OK)
        fail_msg("%s", err.text);
    assert_int_equal(v.struct_size, sizeof v);
    return v;
}

static double entropy_by_hand(const float *x, int n)
{
    double sum = 0.0;
    int counted = 0;
    for (int t = 0; t < n; t++) {
        double all = 0.0;
        for (int i = 0; i < VOCAB; i++)
            all += exp((double)x[t * VOCAB + i]);
        if (targets[t] >= 0)
            sum += log(all) - (double)x[t * VOCAB + targets[t]];
        counted += targets[t] >= 0;
    }
    return sum / counted;
}

static void cross_entropy(void **state)
{
    (void)state;
    dil_loss_options o = options();
    static float d[N * VOCAB], moved[N * VOCAB];
    o.router_scores = NULL;
    memset(d, 0x55, sizeof d);
    dil_loss_values v = compute(&o, d, NULL);
    near("cross-entropy", v.cross_entropy, entropy_by_hand(logits, N), 1e-6);
    near("total", v.total, v.cross_entropy, 0.0);
    assert_true(v.balance == 0.0 && v.cache == 0.0 && v.swarm == 0.0 && v.nash == 0.0 && v.z == 0.0);
    for (int i = 0; i < N * VOCAB; i++) {
        memcpy(moved, logits, sizeof moved);
        moved[i] = logits[i] + 0.01f;
        double up = entropy_by_hand(moved, N), high = (double)moved[i];
        moved[i] = logits[i] - 0.01f;
        near("gradient", (double)d[i], (up - entropy_by_hand(moved, N)) / (high - (double)moved[i]), 1e-5);
    }
    static int32_t none[N];
    for (int i = 0; i < N; i++)
        none[i] = -1;
    o.targets = none;
    near("no targets", compute(&o, d, NULL).total, 0.0, 0.0);
    for (int i = 0; i < N * VOCAB; i++)
        assert_true(d[i] == 0.0f);
}

/* The same numbers as loss_router gives, and their weighted sum. */
static void router(void **state)
{
    (void)state;
    dil_loss_options o = options();
    static float d[N * EXPERTS], wanted[N * EXPERTS], flock[EXPERTS * EXPERTS];
    int16_t sets[N * USED];
    dil_error err;
    o.z = 0.001f;
    o.cached_experts = 5.0;
    memset(d, 0x55, sizeof d);
    memset(wanted, 0, sizeof wanted);
    dil_loss_values v = compute(&o, NULL, d);
    for (int i = 0; i < N * USED; i++)
        sets[i] = (int16_t)chosen[i];
    assert_int_equal(loss_flock(rows, EXPERTS, EMBD, flock, &err), DIL_OK);
    loss_input in = {SEQUENCES, TOKENS, EXPERTS, USED, scores, sets, price, flock};
    loss_config c = {o.balance, o.cache, o.swarm, o.nash, o.z, loss_recency(EXPERTS, USED, 5.0), o.beta};
    loss_values r;
    void *scratch = mem_alloc(loss_scratch_bytes(&in), MEM_MISC);
    loss_router(&in, &c, 1.0f, wanted, &r, scratch, NULL);
    mem_free(scratch);
    assert_memory_equal(d, wanted, sizeof d);
    assert_true(v.balance == r.balance && v.cache == r.cache && v.swarm == r.swarm && v.nash == r.nash && v.z == r.z);
    assert_true(v.entropy == r.entropy && v.violation == r.violation);
    near("total", v.total, v.cross_entropy + 0.01 * v.balance - 0.02 * v.cache - 0.01 * v.swarm + 0.01 * v.nash + 0.001 * v.z,
         1e-8);
    static float given[N * EXPERTS];
    o.chosen = chosen;
    compute(&o, NULL, given);
    assert_memory_equal(given, d, sizeof d);
    static int32_t others[N * USED];
    for (int i = 0; i < N * USED; i++)
        others[i] = i % USED;
    o.chosen = others;
    assert_true(compute(&o, NULL, NULL).violation == EXPERTS / (double)USED - 1.0);
    o.chosen = NULL;
    o.price = NULL;
    o.router_rows = NULL;
    o.logits = NULL;
    o.targets = NULL;
    v = compute(&o, NULL, NULL);
    assert_true(v.cross_entropy == 0.0 && v.balance > 0.5);
}

/* Equal worth: the lowest. */
static void ties(void **state)
{
    (void)state;
    static const float flat[4 * 6];
    dil_loss_options o = dil_loss_options_default();
    o.n_sequences = 1;
    o.n_tokens = 4;
    o.n_experts = 6;
    o.n_experts_used = 3;
    o.router_scores = flat;
    dil_loss_values v = compute(&o, NULL, NULL);
    assert_true(v.violation == 1.0);
    near("balance", v.balance, 1.0, 1e-6);
    static const int32_t lowest[] = {0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2};
    float d[4 * 6], wanted[4 * 6];
    compute(&o, NULL, d);
    o.chosen = lowest;
    compute(&o, NULL, wanted);
    assert_memory_equal(d, wanted, sizeof d);
    near("recency", v.cache, 3.0 / 4 * 0.5 * (double)loss_recency(6, 3, 1.5), 1e-6);
}

static void refused(const dil_loss_options *o, float *d_logits, float *d_router, const char *name)
{
    dil_loss_values v = {.struct_size = sizeof v, .total = 77.0};
    dil_error err = {0};
    if (dil_loss_compute(o, &v, d_logits, d_router, &err) != DIL_BAD_ARGUMENT || !strstr(err.text, name))
        fail_msg("wanted a refusal that names '%s', found '%s'", name, err.text);
    assert_true(v.total == 77.0);
}

#define REFUSED(change, name)           \
    do {                                \
        dil_loss_options o = options(); \
        change;                         \
        refused(&o, NULL, NULL, name);  \
    } while (0)

static void bad_calls(void **state)
{
    (void)state;
    static int32_t ids[N * VOCAB];
    float d[N * VOCAB], bad[N * EXPERTS] = {0};
    dil_loss_options good = options();
    dil_loss_values v = {0};
    dil_error err;
    memcpy(ids, targets, sizeof targets);
    bad[7] = NAN;
    refused(NULL, NULL, NULL, "options");
    assert_int_equal(dil_loss_compute(&good, NULL, NULL, NULL, &err), DIL_BAD_ARGUMENT);
    assert_int_equal(dil_loss_compute(&good, &v, NULL, NULL, &err), DIL_BAD_ARGUMENT);
    assert_non_null(strstr(err.text, "dil_loss_values: struct_size"));
    REFUSED(o.struct_size = 0, "dil_loss_options: struct_size");
    REFUSED(o.n_sequences = 0, "n_sequences");
    REFUSED(o.n_tokens = -1, "n_tokens");
    REFUSED(o.n_vocab = 0, "n_vocab");
    REFUSED(o.n_experts = 5000, "n_experts");
    REFUSED(o.n_experts_used = EXPERTS + 1, "n_experts_used");
    REFUSED(o.n_embd = 0, "n_embd");
    REFUSED(o.logits = NULL, "logits and targets");
    REFUSED(o.targets = NULL, "logits and targets");
    REFUSED(o.logits = bad, "logits");
    REFUSED(o.router_scores = bad, "router_scores");
    REFUSED(o.price = bad, "price");
    REFUSED(o.router_rows = bad, "router_rows");
    REFUSED(o.balance = -1.0f, "balance");
    REFUSED(o.nash = NAN, "nash");
    REFUSED(o.beta = INFINITY, "beta");
    REFUSED(o.cached_experts = NAN, "cached_experts");
    ids[3] = VOCAB;
    REFUSED(o.targets = ids, "targets");
    ids[3] = -2;
    REFUSED(o.targets = ids, "targets");
    memcpy(ids, chosen, sizeof chosen);
    ids[5] = EXPERTS;
    REFUSED(o.chosen = ids, "chosen");
    ids[5] = ids[4];
    REFUSED(o.chosen = ids, "token 2");
    good.router_scores = NULL;
    refused(&good, NULL, d, "d_router");
    good = options();
    good.logits = NULL;
    good.targets = NULL;
    refused(&good, d, NULL, "d_logits");
    good.n_sequences = good.n_tokens = INT32_MAX;
    v.struct_size = sizeof v;
    assert_int_equal(dil_loss_compute(&good, &v, NULL, NULL, &err), DIL_LIMIT);
    good = options();
    for (int64_t after = 0; after < 3; after++) {
        mem_inject_failure(after);
        assert_int_equal(dil_loss_compute(&good, &v, NULL, NULL, &err), DIL_NO_MEMORY);
    }
    mem_inject_failure(-1);
}

/* An older header's structs: what they lack keeps its default, and nothing behind them is written. */
static void older_structs(void **state)
{
    (void)state;
    dil_loss_options o = options();
    dil_loss_values v = {.struct_size = offsetof(dil_loss_values, entropy), .entropy = 77.0};
    dil_error err;
    o.struct_size = offsetof(dil_loss_options, balance);
    o.balance = 1e5f;
    assert_int_equal(dil_loss_compute(&o, &v, NULL, NULL, &err), DIL_OK);
    assert_true(v.entropy == 77.0 && v.violation == 0.0 && v.total < 100.0 && v.total > 0.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cross_entropy), cmocka_unit_test(router),        cmocka_unit_test(ties),
        cmocka_unit_test(bad_calls),     cmocka_unit_test(older_structs),
    };
    return leaks_run_group_tests(tests, fill, NULL);
}
