/*
 * The router: the exact choice against its definition, the certified one against the exact one bit for bit, the approximate ones
 * against what they promise, the batch game against theorem/game.h and against trying everything.
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
#include "experts/router.h"
#include "experts/router_internal.h"
#include "leaks.h"
#include "theorem/game.h"
#include "theorem/random.h"

enum { MOST_N = 256, MOST_K = 512 };

static uint64_t seed = 20261125;
static double uniform(void) { return (double)(random_next(&seed) >> 11) * 0x1p-53; }
static uint32_t below(uint32_t n) { return (uint32_t)(random_next(&seed) % n); }

static float normal(void)
{
    double sum = 0.0;
    for (int i = 0; i < 6; i++)
        sum += uniform();
    return (float)((sum - 3.0) * 1.41421356);
}

static void ok(dil_status status, const dil_error *err)
{
    if (status != DIL_OK)
        fail_msg("%s", err->text);
}

static void near(double a, double b, double most)
{
    if (!(fabs(a - b) <= most))
        fail_msg("%.17g and %.17g differ by more than %g", a, b, most);
}

static void all_different(const uint16_t *chosen, const router_rule *r)
{
    for (uint32_t i = 0; i < r->n_used; i++) {
        assert_true(chosen[i] < r->n_experts);
        for (uint32_t j = 0; j < i; j++)
            assert_true(chosen[i] != chosen[j]);
    }
}

/* ---- the exact choice ---- */

static double probability(const router_rule *r, const float *z, uint32_t i)
{
    double max = -INFINITY, sum = 0.0;
    if (r->gating == GATING_SOFTMAX_CHOSEN)
        return (double)z[i];
    if (r->gating == GATING_SIGMOID)
        return 1.0 / (1.0 + exp(-(double)z[i]));
    for (uint32_t j = 0; j < r->n_experts; j++)
        max = (double)z[j] > max ? (double)z[j] : max;
    for (uint32_t j = 0; j < r->n_experts; j++)
        sum += exp((double)z[j] - max);
    return exp((double)z[i] - max) / sum;
}

static double bias_of(const router_rule *r, uint32_t i) { return r->bias ? (double)r->bias[i] : 0.0; }

/* The sum of a group's two best values. */
static double group_worth(const router_rule *r, const float *z, uint32_t g)
{
    uint32_t size = r->n_experts / r->n_groups;
    double best[2] = {-INFINITY, -INFINITY};
    for (uint32_t j = g * size; j < (g + 1) * size; j++) {
        double v = probability(r, z, j) + bias_of(r, j);
        best[1] = v > best[0] ? best[0] : v > best[1] ? v : best[1];
        best[0] = v > best[0] ? v : best[0];
    }
    return best[0] + best[1];
}

/* Groups that are better than g by more than `by`. */
static uint32_t better_groups(const router_rule *r, const float *z, uint32_t g, double by)
{
    uint32_t n = 0;
    for (uint32_t h = 0; h < r->n_groups; h++)
        n += group_worth(r, z, h) > group_worth(r, z, g) + by;
    return n;
}

/* Whether rounding decides which groups are used. */
static bool groups_are_close(const router_rule *r, const float *z)
{
    for (uint32_t g = 0; r->n_groups > 1 && g < r->n_groups; g++)
        if ((better_groups(r, z, g, -1e-5) - 1 < r->n_groups_used) != (better_groups(r, z, g, 1e-5) < r->n_groups_used))
            return true;
    return false;
}

/* The selection value by its definition, minus infinity in groups that are not used. */
static double value(const router_rule *r, const float *z, uint32_t i)
{
    if (r->n_groups <= 1)
        return r->bias ? probability(r, z, i) + bias_of(r, i) : (double)z[i];
    bool used = better_groups(r, z, i / (r->n_experts / r->n_groups), 0.0) < r->n_groups_used;
    return used ? probability(r, z, i) + bias_of(r, i) : -INFINITY;
}

static void choice_is_the_best(const router_rule *r, const float *z, const uint16_t *chosen, const float *weights)
{
    double last = INFINITY, w[MOST_N], total = 0.0;
    all_different(chosen, r);
    if (groups_are_close(r, z))
        return;
    for (uint32_t i = 0; i < r->n_used; i++) {
        double v = value(r, z, chosen[i]);
        assert_true(v <= last + 2e-6);
        last = v;
        w[i] = r->gating == GATING_SOFTMAX_CHOSEN ? exp((double)z[chosen[i]] - (double)z[chosen[0]]) : probability(r, z, chosen[i]);
        total += w[i];
    }
    for (uint32_t e = 0; e < r->n_experts; e++) {
        bool taken = false;
        for (uint32_t i = 0; i < r->n_used; i++)
            taken |= chosen[i] == e;
        assert_true(taken || value(r, z, e) <= last + 2e-6);
    }
    bool divides = r->normalise || r->gating == GATING_SOFTMAX_CHOSEN;
    double by = divides ? (total > 6.103515625e-5 ? total : 6.103515625e-5) : 1.0;
    for (uint32_t i = 0; i < r->n_used; i++)
        near((double)weights[i], w[i] / by * (double)r->scale, 3e-6 * (double)r->scale * fmax(1.0, w[i] / by));
}

static void exact_by_definition(void **state)
{
    (void)state;
    static float z[MOST_N], bias[MOST_N], weights[MOST_N], scratch[2 * MOST_N];
    static uint16_t chosen[MOST_N];
    static const uint32_t sizes[] = {1, 2, 8, 16, 48, 64, 128, 256};
    for (int round = 0; round < 1000; round++) {
        router_rule r = {.gating = (expert_gating)below(3), .n_experts = sizes[below(8)], .normalise = below(2), .scale = 1.0f};
        r.scale = below(2) ? 1.0f : 2.5f;
        float spread = below(2) ? 1.0f : 8.0f;
        for (uint32_t i = 0; i < r.n_experts; i++) {
            z[i] = spread * normal();
            bias[i] = 0.3f * normal();
        }
        r.bias = below(2) ? bias : NULL;
        if (r.n_experts >= 16 && below(2)) {
            r.n_groups = 8;
            r.n_groups_used = 1 + below(8);
        }
        uint32_t most = r.n_groups > 1 ? r.n_experts / r.n_groups * r.n_groups_used : r.n_experts;
        r.n_used = below(4) == 0 ? most : 1 + below(most < 8 ? most : 8);
        router_exact(&r, z, chosen, weights, scratch);
        choice_is_the_best(&r, z, chosen, weights);
    }
}

/* Of equal ones the lowest index. */
static void ties(void **state)
{
    (void)state;
    static const float z[8] = {1, 3, 3, 1, 3, -0.0f, 0.0f, 3};
    float weights[6], scratch[16];
    uint16_t chosen[6];
    static const uint16_t wanted[6] = {1, 2, 4, 7, 0, 3};
    router_rule r = {.n_experts = 8, .n_used = 6, .normalise = true, .scale = 1.0f};
    router_exact(&r, z, chosen, weights, scratch);
    assert_memory_equal(chosen, wanted, sizeof wanted);
    assert_true(weights[0] == weights[3] && weights[4] == weights[5]);
    r.n_groups = 4; /* pairs: 4, 4, 3, 3: the third and fourth are even */
    r.n_groups_used = 3;
    r.n_used = 5;
    router_exact(&r, (const float[]){1, 3, 3, 1, 1, 2, 2, 1}, chosen, weights, scratch);
    assert_memory_equal(chosen, ((const uint16_t[]){1, 2, 5, 0, 3}), 5 * sizeof *chosen);
}

static void not_numbers(void **state)
{
    (void)state;
    static const float odd[] = {NAN, INFINITY, -INFINITY, 0.0f, 1e30f, -1e30f, 1.0f};
    float z[32], bias[32], weights[32], scratch[64];
    uint16_t chosen[32], again[32];
    for (int round = 0; round < 4000; round++) {
        router_rule r = {
            .gating = (expert_gating)below(3), .n_experts = 32, .n_used = 1 + below(32), .normalise = below(2), .scale = 1.0f};
        uint32_t kinds = 1 + below(7);
        for (int i = 0; i < 32; i++) {
            z[i] = odd[below(kinds)];
            bias[i] = below(8) ? 0.1f : odd[below(7)];
        }
        r.bias = below(2) ? bias : NULL;
        r.n_groups = below(2) ? 8 : 0;
        r.n_groups_used = 3;
        router_exact(&r, z, chosen, weights, scratch);
        all_different(chosen, &r);
        for (uint32_t i = 0; i < r.n_used; i++)
            assert_true(weights[i] >= 0.0f);
        router_exact(&r, z, again, weights, scratch);
        assert_memory_equal(chosen, again, r.n_used * sizeof *chosen);
    }
    for (int i = 0; i < 32; i++)
        z[i] = i == 20 ? -5.0f : NAN;
    router_rule r = {.n_experts = 32, .n_used = 2, .normalise = true, .scale = 1.0f};
    router_exact(&r, z, chosen, weights, scratch);
    assert_int_equal(chosen[0], 20);
    assert_true(chosen[1] == 0 && weights[0] == 1.0f && weights[1] == 0.0f);
}

/* ---- certified ---- */

typedef struct field {
    kernels k;
    uint32_t n;
    int64_t columns;
    float rows[MOST_N * MOST_K], x[MOST_K], bias[MOST_N];
    router_screen *screen;
    void *work;
    uint64_t read_bytes, full_bytes, states;
} field;

typedef enum kind { RANDOM, CLUSTERS, TWINS, NEAR_TIES, NORMS, LARGE, TINY, ODD, EXACT, ROUNDING, SWAMPED, KINDS } kind;

/* A block's largest value is 127, their signs alternate. */
static float exact_value(size_t c)
{
    float v = c % 32 == 0 ? 127.0f : (float)below(127);
    return c / 32 % 2 ? -v : v;
}

static void fill_rows(field *f, kind kind)
{
    size_t k = (size_t)f->columns;
    for (uint32_t i = 0; i < f->n; i++) {
        float *row = f->rows + i * k, size = 0.05f;
        if ((kind == TINY || kind == LARGE) && i % 2)
            size = kind == TINY ? 1e-36f : 1e30f;
        if (kind == NORMS)
            size = expf(12.0f * normal());
        for (size_t c = 0; c < k; c++) {
            row[c] = size * normal();
            if (kind == CLUSTERS && i % 8)
                row[c] = row[c - i % 8 * k] + 0.01f * row[c];
            if (kind == TWINS && i % 4)
                row[c] = row[c - i % 4 * k];
            if (kind == NEAR_TIES && i > 0)
                row[c] = below(8) ? row[c - k] : nextafterf(row[c - k], 1.0f);
            if (kind == ODD && below(400) == 0)
                row[c] = below(2) ? INFINITY : NAN;
            if (kind == EXACT || kind == ROUNDING) /* eight bits hold these */
                row[c] = exact_value(c);
            if (kind == SWAMPED)
                row[c] = i % 2 ? 127.0f : -127.0f;
            if (kind == ROUNDING && i > 0 && k >= 32) /* blocks in another order: equal real scores, other rounded ones */
                row[c] = f->rows[(c + 32 * i) % (k / 32 * 32)];
        }
    }
    for (uint32_t i = 0; i < f->n; i++)
        f->bias[i] = kind == ROUNDING || kind == TINY ? 0.0f
                     : kind == ODD && below(9) == 0   ? NAN
                                                      : (kind == NORMS ? 1e5f : 0.1f) * normal();
}

static void fill_x(field *f, kind kind)
{
    float size = kind == LARGE ? exp2f(10.0f + (float)below(100)) : kind == TINY ? exp2f(-60.0f - (float)below(70)) : 1.0f;
    for (int64_t c = 0; c < f->columns; c++) {
        f->x[c] = size * normal() * (below(64) ? 1.0f : 30.0f);
        if (kind == ROUNDING) /* the same in every block, and exact in eight bits */
            f->x[c] = c >= 32 ? f->x[c - 32] : c == 0 ? 127.0f : (float)below(127);
        if (kind == SWAMPED) /* the chain of the exact score loses all but the first terms, the screen does not */
            f->x[c] = c < 32 ? 127.0f : 127.0f * 0x1p-20f;
        if (kind == ODD && below(1000) == 0)
            f->x[c] = below(2) ? NAN : -INFINITY;
    }
    if (below(200) == 0)
        memset(f->x, 0, sizeof f->x);
}

static const float *full_scores(const field *f, bool biased)
{
    static uint8_t panel[MOST_K * PANEL_ROWS * 4];
    static float z[MOST_N + PANEL_ROWS];
    size_t row_bytes = (size_t)f->columns * 4;
    act a = {.f = f->x, .f_stride = (size_t)f->columns};
    for (uint32_t i = 0; i < f->n; i += PANEL_ROWS) {
        int rows = f->n - i < PANEL_ROWS ? (int)(f->n - i) : PANEL_ROWS;
        panel_pack(DIL_TYPE_F32, f->rows + i * (size_t)f->columns, row_bytes, rows, f->columns, panel);
        f->k.linear[DIL_TYPE_F32].gemv(&(linear_args){
            .panels = panel, .n_panels = 1, .k = f->columns, .x = &a, .n_tokens = 1, .y = z + i, .y_stride = PANEL_ROWS});
    }
    for (uint32_t i = 0; biased && i < f->n; i++)
        z[i] += f->bias[i];
    return z;
}

static void full_scan(const field *f, const router_rule *r, bool biased, uint16_t *chosen, float *weights)
{
    static float scratch[2 * MOST_N];
    router_exact(r, full_scores(f, biased), chosen, weights, scratch);
}

/* No exact value is above what the screen says it can be. */
static void bounds_hold(const field *f, const router_rule *r, bool biased)
{
    const float *z = full_scores(f, biased);
    router_work w = router_work_of(f->screen, f->work);
    router_bound(f->screen, r, f->x, &w);
    for (uint32_t i = 0; i < f->n; i++)
        if ((double)router_value(r, i, z[i]) > w.high[i])
            fail_msg("%s, n %u, columns %d, row %u: %.17g is above %.17g", f->k.name, f->n, (int)f->columns, i,
                     (double)router_value(r, i, z[i]), w.high[i]);
}

static void field_open(field *f, uint32_t n, int64_t columns, kind kind, bool biased)
{
    dil_error err;
    f->n = n;
    f->columns = columns;
    fill_rows(f, kind);
    ok(router_screen_new(&f->screen, &f->k, f->rows, biased ? f->bias : NULL, n, columns, &err), &err);
    f->work = mem_alloc(router_work_bytes(f->screen), MEM_MISC);
}

static void field_close(field *f)
{
    router_screen_free(f->screen);
    mem_free(f->work);
}

static void certified_equals_full(field *f, const router_rule *r, bool biased)
{
    static uint16_t a[MOST_N], b[MOST_N];
    static float v[MOST_N], w[MOST_N];
    router_evidence e;
    full_scan(f, r, biased, a, v);
    router_certified(f->screen, r, f->x, f->work, b, w, &e);
    for (uint32_t i = 0; i < r->n_used; i++)
        if (a[i] != b[i] || !(v[i] == w[i] || (v[i] != v[i] && w[i] != w[i])))
            fail_msg("%s, n %u, k %u, columns %d, rank %u: %u at %.9g, the full scan has %u at %.9g", f->k.name, f->n, r->n_used,
                     (int)f->columns, i, b[i], (double)w[i], a[i], (double)v[i]);
    assert_true(e.n_scored >= r->n_used && e.n_scored <= f->n && e.full_bytes == f->n * (uint64_t)f->columns * 4);
    assert_true(e.read_bytes >= e.n_scored * (uint64_t)f->columns * 4);
    f->read_bytes += e.read_bytes;
    f->full_bytes += e.full_bytes;
    f->states++;
}

static router_rule random_rule(uint32_t n, const float *choice_bias)
{
    router_rule r = {.gating = (expert_gating)below(3), .n_experts = n, .normalise = true, .scale = below(2) ? 1.0f : 2.5f};
    r.normalise = r.gating == GATING_SOFTMAX || below(2);
    r.bias = r.gating == GATING_SIGMOID && below(2) ? choice_bias : NULL;
    r.n_used = below(12) == 0 ? n : 1 + below(n < 8 ? n : 8);
    assert_true(router_screen_suits(&r));
    return r;
}

static void certified(void **state)
{
    (void)state;
    static field f;
    static float choice_bias[MOST_N];
    static const char *const levels[] = {"scalar", "avx2", "avx512", "avx512_bf16"};
    static const uint32_t sizes[] = {1, 2, 7, 16, 33, 64, 128, 256};
    static const int64_t columns[] = {1, 5, 32, 33, 96, 250, 512};
    dil_error err;
    for (uint32_t i = 0; i < MOST_N; i++)
        choice_bias[i] = 0.05f * normal();
    for (size_t l = 0; l < sizeof levels / sizeof *levels; l++) {
        if (kernels_select(&f.k, levels[l], &err) != DIL_OK)
            continue;
        for (int round = 0; round < (l == 0 ? 90 : 900); round++) {
            kind kind = (enum kind)(round % KINDS);
            bool biased = below(2);
            field_open(&f, sizes[below(8)], columns[below(7)], kind, biased);
            for (int t = 0; t < 12; t++) {
                router_rule r = random_rule(f.n, choice_bias);
                fill_x(&f, kind);
                certified_equals_full(&f, &r, biased);
                bounds_hold(&f, &r, biased);
            }
            field_close(&f);
        }
    }
    assert_true(f.states >= 10000);
}

/* The share of bytes that is read, on rows without structure: 8 of N, 512 columns. */
static void certified_reads_less(void **state)
{
    (void)state;
    static field f;
    static const uint32_t sizes[] = {64, 128, 256};
    static const double most[] = {0.60, 0.50, 0.40};
    dil_error err;
    ok(kernels_select(&f.k, "auto", &err), &err);
    for (size_t i = 0; i < 3; i++) {
        f.read_bytes = f.full_bytes = 0;
        field_open(&f, sizes[i], MOST_K, RANDOM, false);
        router_rule r = {.n_experts = sizes[i], .n_used = 8, .normalise = true, .scale = 1.0f};
        for (int t = 0; t < 500; t++) {
            fill_x(&f, RANDOM);
            certified_equals_full(&f, &r, false);
        }
        if ((double)f.read_bytes > most[i] * (double)f.full_bytes)
            fail_msg("N %u: %.1f %% of the bytes", sizes[i], 100.0 * (double)f.read_bytes / (double)f.full_bytes);
        field_close(&f);
    }
}

/* What 8 bits make of a row or a state, as the screen does for rows with magnitudes in 1..2. */
static void eight_bits(const field *f, const float *from, bool half, float *to)
{
    static int8_t q[MOST_K];
    static float d[MOST_K / 32], s[MOST_K / 32];
    static int32_t isum[MOST_K / 32];
    f->k.quantize(&(quantize_args){.f = from, .k = f->columns, .n_rows = 1, .q = q, .d = d, .s = s, .isum = isum});
    for (int64_t c = 0; c < f->columns; c++)
        to[c] = (half ? f16_to_f32(f32_to_f16(d[c / 32])) : d[c / 32]) * (float)q[c];
}

/* The worst a state can be: along what a row lost to 8 bits. Another row lost less of the same and looks as good. */
static void certified_at_its_worst(void **state)
{
    (void)state;
    static field f;
    static float coarse[MOST_K];
    dil_error err;
    ok(kernels_select(&f.k, "auto", &err), &err);
    for (int round = 0; round < 300; round++) {
        uint32_t best = 1 + below(31);
        f.columns = 256;
        for (int64_t c = 0; c < f.columns; c++)
            f.x[c] = c % 32 == 0 ? 1.5f : (float)(uniform() - 0.5) * 2.0f; /* the largest of every block is the same */
        eight_bits(&f, f.x, true, coarse);
        uint64_t before = seed; /* the same rows again when they are filled below */
        field_open(&f, 32, 256, RANDOM, false);
        router_screen_free(f.screen);
        seed = before;
        for (uint32_t i = 0; i < 32; i++)
            for (int64_t c = 0; c < 256; c++) {
                float lost = f.x[c] - coarse[c];
                f.rows[i * 256 + c] = i == best ? f.x[c] : i == 0 ? coarse[c] + 0.7f * lost : coarse[c] - 0.01f * lost;
            }
        ok(router_screen_new(&f.screen, &f.k, f.rows, NULL, 32, 256, &err), &err);
        for (int64_t c = 0; c < 256; c++)
            f.x[c] = f.x[c] - coarse[c];
        router_rule r = {.n_experts = 32, .n_used = 1, .normalise = true, .scale = 1.0f};
        certified_equals_full(&f, &r, false);
        field_close(&f);
    }
}

static void screen_suits(void **state)
{
    (void)state;
    static const float bias[8] = {0};
    router_rule r = {.gating = GATING_SOFTMAX, .n_experts = 8, .n_used = 2, .scale = 1.0f};
    assert_false(router_screen_suits(&r));
    r.normalise = true;
    assert_true(router_screen_suits(&r));
    r.bias = bias;
    assert_false(router_screen_suits(&r));
    r.gating = GATING_SIGMOID;
    assert_true(router_screen_suits(&r));
    r.n_groups = 2;
    assert_false(router_screen_suits(&r));
    router_screen *s;
    kernels k;
    dil_error err;
    ok(kernels_select(&k, "auto", &err), &err);
    assert_int_equal(router_screen_new(&s, &k, bias, NULL, 0, 8, &err), DIL_BAD_ARGUMENT);
    assert_int_equal(router_screen_new(&s, &k, bias, NULL, 1, 0, &err), DIL_BAD_ARGUMENT);
    for (int64_t after = 0; after < 3; after++) {
        mem_inject_failure(after);
        assert_int_equal(router_screen_new(&s, &k, bias, NULL, 1, 8, &err), DIL_NO_MEMORY);
        mem_inject_failure(-1);
    }
}

/* ---- local ---- */

static void next_state(field *f, float keep)
{
    for (int64_t c = 0; c < f->columns; c++)
        f->x[c] = keep * f->x[c] + sqrtf(1.0f - keep * keep) * normal();
}

static void local(void **state)
{
    (void)state;
    static field f;
    dil_error err;
    ok(kernels_select(&f.k, "auto", &err), &err);
    field_open(&f, 128, 256, RANDOM, false);
    ok(router_screen_flock(f.screen, NULL, &err), &err);
    router_rule r = {.n_experts = 128, .n_used = 8, .normalise = true, .scale = 1.0f};
    static const float margins[] = {-INFINITY, 0.0f, INFINITY, INFINITY};
    double recall[4] = {0}, fell[4] = {0};
    uint64_t n_scored = 0;
    for (size_t m = 0; m < 4; m++) {
        router_memory *memory;
        uint16_t a[8], b[8], first[2][40][8];
        float v[8], w[8];
        router_evidence e;
        ok(router_memory_new(&memory, &r, &(router_memory_options){4, margins[m], m == 3 ? 4 : 0}, &err), &err);
        for (int again = 0; again < 2; again++) {
            uint64_t before = seed;
            router_memory_clear(memory);
            memset(f.x, 0, sizeof f.x);
            for (int t = 0; t < 40; t++) {
                next_state(&f, 0.9f);
                full_scan(&f, &r, false, a, v);
                router_local(f.screen, &r, f.x, memory, f.work, b, w, &e);
                all_different(b, &r);
                memcpy(first[again][t], b, sizeof b);
                recall[m] += router_common(a, b, 8) / 640.0;
                fell[m] += e.fell_back / 80.0;
                n_scored += e.fell_back ? 0 : e.n_scored;
                assert_true(!e.fell_back || e.n_scored == f.n);
                if (e.fell_back) {
                    assert_memory_equal(a, b, sizeof a);
                    assert_memory_equal(v, w, sizeof v);
                }
            }
            seed = before;
        }
        assert_memory_equal(first[0], first[1], sizeof first[0]); /* depends on nothing else */
        router_memory_free(memory);
    }
    near(recall[0] + fell[0], 2.0, 1e-9); /* always the full scan */
    assert_true(recall[1] > recall[2] && fell[1] > fell[2] && recall[2] > 0.5);
    near(fell[2], 8 / 40.0, 1e-9);  /* the first tokens only */
    near(fell[3], 16 / 40.0, 1e-9); /* and every fourth */
    assert_true(recall[3] > recall[2]);
    assert_true((double)n_scored > 30.0 * 80.0 * (3.0 - fell[1] - fell[2] - fell[3])); /* neighbours are among the candidates */
    field_close(&f);
    field_open(&f, 1, 5, RANDOM, false); /* a flock of one */
    ok(router_screen_flock(f.screen, NULL, &err), &err);
    field_close(&f);
}

/* ---- cached ---- */

typedef struct outputs {
    double f[64][6]; /* of each expert */
    double most;     /* the largest norm */
} outputs;

static void random_outputs(outputs *o, uint32_t n)
{
    o->most = 0.0;
    for (uint32_t e = 0; e < n; e++) {
        double square = 0.0;
        for (int d = 0; d < 6; d++) {
            o->f[e][d] = (double)normal();
            square += o->f[e][d] * o->f[e][d];
        }
        o->most = fmax(o->most, sqrt(square));
    }
}

/* ||y' - y|| */
static double distance(const outputs *o, uint32_t k, const uint16_t *a, const float *v, const uint16_t *b, const float *w)
{
    double square = 0.0;
    for (int d = 0; d < 6; d++) {
        double sum = 0.0;
        for (uint32_t i = 0; i < k; i++)
            sum += (double)w[i] * o->f[b[i]][d] - (double)v[i] * o->f[a[i]][d];
        square += sum * sum;
    }
    return sqrt(square);
}

static void cached_keeps_its_bound(void **state)
{
    (void)state;
    float z[64], bias[64], v[64], w[64], scratch[256];
    uint8_t resident[64];
    uint16_t a[64], b[64], again[64];
    outputs o;
    int changed = 0;
    for (int round = 0; round < 5000; round++) {
        router_rule r = {.gating = (expert_gating)below(3), .n_experts = 64, .n_used = 1 + below(12), .normalise = below(2)};
        r.scale = below(2) ? 1.0f : 2.5f;
        for (int i = 0; i < 64; i++) {
            z[i] = below(50) ? 2.0f * normal() : NAN;
            bias[i] = 0.1f * normal();
            resident[i] = below(2);
        }
        r.bias = below(3) == 0 ? bias : NULL;
        r.n_groups = below(3) == 0 ? 8 : 0;
        r.n_groups_used = 4;
        router_offer offer = {resident, (float)uniform() * 3.0f, (float)uniform() * 0.5f, below(r.n_used + 1), false};
        router_moved moved, same;
        router_exact(&r, z, a, v, scratch);
        router_cached(&r, z, &offer, b, w, scratch, &moved);
        router_cached(&r, z, &offer, again, w, scratch, &same);
        assert_memory_equal(b, again, r.n_used * sizeof *b);
        all_different(b, &r);
        random_outputs(&o, 64);
        assert_true(distance(&o, r.n_used, a, v, b, w) <= moved.change * o.most * (1 + 1e-5) + 1e-6);
        assert_true(moved.mass <= (double)offer.budget && moved.n_changed == r.n_used - router_common(a, b, r.n_used));
        double sum = 0.0, gone = 0.0;
        for (uint32_t i = 0; i < r.n_used; i++) {
            bool stays = false;
            for (uint32_t j = 0; j < r.n_used; j++)
                stays |= a[i] == b[j];
            assert_true(stays || (i >= offer.keep && !resident[a[i]]));
            gone += stays ? 0.0 : (double)v[i];
            sum += (double)v[i];
        }
        near(moved.mass, sum > 0.0 ? gone / sum : 0.0, 1e-5);
        if (r.gating == GATING_SOFTMAX && r.normalise && !r.bias)
            near(moved.change, 2.0 * moved.mass * (double)r.scale, 1e-5);
        changed += moved.n_changed > 0;
    }
    assert_true(changed > 1000);
}

/* With all the budget it is the choice by score + price. */
static void cached_without_limit(void **state)
{
    (void)state;
    float z[64], priced[64], v[8], w[8], scratch[256];
    uint8_t resident[64];
    uint16_t a[8], b[8];
    for (int round = 0; round < 2000; round++) {
        router_rule r = {.gating = GATING_SOFTMAX, .n_experts = 64, .n_used = 8, .normalise = true, .scale = 1.0f};
        router_offer offer = {resident, (float)uniform() * 3.0f, 2.0f, 0, false};
        for (int i = 0; i < 64; i++) {
            z[i] = normal();
            resident[i] = below(2);
            priced[i] = resident[i] ? z[i] + offer.price : z[i];
        }
        router_moved moved;
        router_exact(&r, priced, a, v, scratch);
        router_cached(&r, z, &offer, b, w, scratch, &moved);
        assert_int_equal(router_common(a, b, 8), 8);
        for (int i = 1; i < 8; i++)
            assert_true(z[b[i]] <= z[b[i - 1]] && w[i] <= w[i - 1]);
    }
}

/* ---- batches ---- */

enum { PLAYERS = 6, RESOURCES = 8, PLACES = 3 };

/* All sets within the budget, as a congestion game of the theorem: PLACES of RESOURCES, their mass as own cost. */
typedef struct explicit_game {
    congestion g;
    double resource[RESOURCES], cost[PLAYERS * 64];
    int32_t first[PLAYERS + 1], set_first[PLAYERS * 64 + 1], set[PLAYERS * 64 * PLACES], state[PLAYERS];
    uint8_t mask[PLAYERS * 64];
} explicit_game;

static void make_game(explicit_game *x, uint32_t players, const router_rule *r, const router_offer *o, const float *z,
                      const uint16_t *now)
{
    float v[PLACES], scratch[2 * RESOURCES];
    uint16_t exact[PLACES];
    int32_t n = 0;
    memset(x, 0, sizeof *x);
    for (uint32_t t = 0; t < players; t++) {
        router_exact(r, z + t * RESOURCES, exact, v, scratch);
        double sum = 0.0;
        uint32_t present = 0;
        for (uint32_t i = 0; i < PLACES; i++) {
            sum += (double)v[i];
            present |= 1u << now[t * PLACES + i];
        }
        for (uint32_t mask = 0; mask < 1u << RESOURCES; mask++) {
            double mass = 0.0;
            bool allowed = __builtin_popcount(mask) == PLACES;
            for (uint32_t i = 0; i < PLACES; i++) {
                bool gone = !(mask >> exact[i] & 1);
                mass += gone ? (double)v[i] / sum : 0.0;
                allowed &= !gone || i >= o->keep;
            }
            if (!allowed || mass > (double)o->budget + (mass > 0 ? 1e-7 : 0))
                continue;
            if (mask == present)
                x->state[t] = n - x->first[t];
            x->cost[n] = mass;
            x->mask[n] = (uint8_t)mask;
            for (int32_t e = 0, at = 0; e < RESOURCES; e++)
                if (mask >> e & 1)
                    x->set[PLACES * n + at++] = e;
            n++;
            x->set_first[n] = PLACES * n;
        }
        x->first[t + 1] = n;
    }
    for (int e = 0; e < RESOURCES; e++)
        x->resource[e] = o->resident && o->resident[e] ? 0.0 : (double)o->price;
    x->g = (congestion){(int32_t)players, RESOURCES, CONGESTION_MARGINAL, x->resource, x->first, x->cost, x->set_first, x->set};
}

/* The least anybody could pay: for every set of loaded experts, each token's cheapest set inside of it. */
static double optimum(const explicit_game *x)
{
    double best = INFINITY;
    for (uint32_t loaded = 0; loaded < 1u << RESOURCES; loaded++) {
        double sum = 0.0;
        for (int e = 0; e < RESOURCES; e++)
            sum += loaded >> e & 1 ? x->resource[e] : 0.0;
        for (int32_t t = 0; t < x->g.n_players; t++) {
            double least = INFINITY;
            for (int32_t s = x->first[t]; s < x->first[t + 1]; s++)
                if ((x->mask[s] & ~loaded) == 0 && x->cost[s] < least)
                    least = x->cost[s];
            sum += least;
        }
        best = sum < best ? sum : best;
    }
    return best;
}

typedef struct game_case {
    float z[PLAYERS * RESOURCES];
    uint8_t resident[RESOURCES];
    uint32_t players;
    router_rule r;
    router_offer o;
} game_case;

static void random_case(game_case *c)
{
    float spread = 0.2f + (float)uniform();
    c->players = 1 + below(PLAYERS);
    c->r = (router_rule){.gating = GATING_SOFTMAX, .n_experts = RESOURCES, .n_used = PLACES, .normalise = true, .scale = 1.0f};
    for (int i = 0; i < PLAYERS * RESOURCES; i++)
        c->z[i] = spread * normal();
    for (int e = 0; e < RESOURCES; e++)
        c->resident[e] = below(4) == 0;
    c->o = (router_offer){below(2) ? c->resident : NULL, 2.0f * (float)uniform(), (float)uniform(), below(4) == 0, false};
}

/* Plays a case; what all pay at the end is that of the theorem, and nobody gains. */
static void play(const game_case *c, explicit_game *x, router_batch_report *report)
{
    uint16_t chosen[PLAYERS * PLACES];
    float w[PLAYERS * PLACES];
    router_moved moved[PLAYERS];
    game_report settled;
    dil_error err;
    ok(router_batch(&c->r, c->z, RESOURCES, c->players, &c->o, chosen, w, moved, report, &err), &err);
    make_game(x, c->players, &c->r, &c->o, c->z, chosen);
    near(congestion_potential(&x->g, x->state), report->potential, 1e-6);
    ok(congestion_settle(&x->g, NULL, x->state, &settled, &err), &err);
    assert_true(report->settled && settled.potential > report->potential - 1e-6 &&
                report->potential <= report->potential_before + 1e-9);
    for (uint32_t t = 0; t < c->players; t++)
        assert_true(moved[t].mass <= (double)c->o.budget && moved[t].mass <= report->most_mass);
}

static void batch_is_the_game(void **state)
{
    (void)state;
    enum { ROUNDS = 1000 };
    static explicit_game x;
    double start = 0.0, best = 0.0, reached[2] = {0}, worst[2] = {0};
    int optimal[2] = {0};
    for (int round = 0; round < ROUNDS; round++) {
        game_case c;
        router_batch_report report;
        random_case(&c);
        for (int alone = 0; alone < 2; alone++) {
            c.o.alone = alone;
            play(&c, &x, &report);
            double least = optimum(&x);
            assert_true(report.potential >= least - 1e-6);
            start += 0.5 * report.potential_before;
            best += 0.5 * least;
            reached[alone] += report.potential;
            worst[alone] = fmax(worst[alone], report.potential / least);
            optimal[alone] += report.potential <= least + 1e-6;
        }
    }
    print_message("%d batches of up to %d tokens: exact sets pay %.3f of the optimum\n", ROUNDS, PLAYERS, start / best);
    for (int alone = 0; alone < 2; alone++)
        print_message("  %s: %.4f of it, at worst %.3f, %.1f %% optimal\n", alone ? "best responses alone" : "the game",
                      reached[alone] / best, worst[alone], 100.0 * optimal[alone] / ROUNDS);
    assert_true(reached[0] <= 1.005 * best && optimal[0] > 0.98 * ROUNDS && reached[0] < reached[1] && reached[1] < start);
}

/* A batch as large as they get: budgets hold, the bound holds, fewer experts are loaded. */
static void batch_of_many(void **state)
{
    (void)state;
    enum { TOKENS = 64, N = 64, K = 8 };
    static float z[TOKENS * N], w[TOKENS * K], v[K], scratch[2 * N];
    static uint16_t chosen[TOKENS * K], again[TOKENS * K], exact[K];
    static router_moved moved[TOKENS];
    router_rule r = {.gating = GATING_SIGMOID, .n_experts = N, .n_used = K, .normalise = true, .scale = 2.5f};
    router_offer o = {NULL, 3.0f, 0.3f, 2, false};
    router_batch_report report, same;
    dil_error err;
    for (int t = 0; t < TOKENS; t++)
        for (int e = 0; e < N; e++)
            z[t * N + e] = 1.5f * normal() - 0.06f * (float)e;
    ok(router_batch(&r, z, N, TOKENS, &o, chosen, w, moved, &report, &err), &err);
    ok(router_batch(&r, z, N, TOKENS, &o, again, w, NULL, &same, &err), &err);
    assert_memory_equal(chosen, again, sizeof chosen);
    assert_true(report.settled && report.n_after < report.n_before && report.potential < report.potential_before);
    bool used[N] = {false};
    uint32_t n_used = 0;
    outputs f;
    random_outputs(&f, N);
    for (int t = 0; t < TOKENS; t++) {
        router_exact(&r, z + t * N, exact, v, scratch);
        all_different(chosen + t * K, &r);
        assert_true(moved[t].mass <= 0.3 && moved[t].n_changed == K - router_common(exact, chosen + t * K, K));
        assert_true(distance(&f, K, exact, v, chosen + t * K, w + t * K) <= moved[t].change * f.most * (1 + 1e-5) + 1e-6);
        assert_int_equal(router_common(exact, chosen + t * K, 2), 2);
        for (int i = 0; i < K; i++) {
            n_used += !used[chosen[t * K + i]];
            used[chosen[t * K + i]] = true;
        }
    }
    assert_int_equal(n_used, report.n_after);
    for (int64_t after = 0; after < 5; after++) {
        mem_inject_failure(after);
        assert_int_equal(router_batch(&r, z, N, TOKENS, &o, again, w, NULL, &same, &err), DIL_NO_MEMORY);
        mem_inject_failure(-1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_by_definition),
        cmocka_unit_test(ties),
        cmocka_unit_test(not_numbers),
        cmocka_unit_test(certified),
        cmocka_unit_test(certified_reads_less),
        cmocka_unit_test(certified_at_its_worst),
        cmocka_unit_test(screen_suits),
        cmocka_unit_test(local),
        cmocka_unit_test(cached_keeps_its_bound),
        cmocka_unit_test(cached_without_limit),
        cmocka_unit_test(batch_is_the_game),
        cmocka_unit_test(batch_of_many),
    };
    return leaks_run_group_tests(tests, NULL, NULL);
}
