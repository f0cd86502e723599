/* Vector kernels against scalar (scalar against double), lengths around the vector sizes, special values. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

static const int64_t lengths[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 100, 257, 576};
enum { N_LENGTHS = sizeof lengths / sizeof *lengths };

/* A guarded copy of n floats. */
static guarded copy_of(const float *f, size_t n)
{
    guarded g = guarded_new(n * 4, 4);
    if (n)
        memcpy(g.p, f, n * 4);
    return g;
}

static void drop(check *c, guarded *g)
{
    if (!guarded_free(g))
        check_fail(c, "wrote before an array");
}

static void expect_near(check *c, const char *what, int64_t n, int64_t i, float got, double want, double slack)
{
    if (isnan(want) ? isnan(got) : ((double)got == want || fabs((double)got - want) <= slack))
        return;
    check_fail(c, "%s n %d: element %d is %.9g, expected %.9g within %g", what, (int)n, (int)i, (double)got, want, slack);
}

/* ---- round_bf16: to the bit like the format, but that subnormals are zeros ---- */

static void round_once(check *c, int64_t k, data_kind kind)
{
    float *f = malloc((size_t)k * 4);
    random_floats(f, (size_t)k, kind);
    guarded in = copy_of(f, (size_t)k), out = guarded_new(((size_t)k + 1) / 2 * 4, 4);
    c->level->round_bf16(in.p, k, out.p);
    for (int64_t i = 0; i < (k + 1) / 2 * 2; i++) {
        uint16_t got = ((uint16_t *)out.p)[i];
        float from = i < k ? f[i] : 0.0f;
        uint16_t want = f32_to_bf16(fpclassify(from) == FP_SUBNORMAL ? copysignf(0.0f, from) : from);
        if (got != want)
            check_fail(c, "k %d: value %d, %a is %04x, wanted %04x", (int)k, (int)i, (double)from, got, want);
    }
    free(f);
    drop(c, &in);
    drop(c, &out);
}

static void check_round_bf16(check *c, int arg)
{
    (void)arg;
    for (int i = 0; i < N_LENGTHS; i++)
        for (int kind = 0; kind < DATA_KINDS; kind++)
            round_once(c, lengths[i], (data_kind)kind);
}

/* ---- quantize: near the input, better than the plain scale, sums exact, the same bits as scalar ---- */

static void quantize_once(check *c, int64_t k, data_kind kind)
{
    size_t blocks = ((size_t)k + 31) / 32;
    float *f = malloc((size_t)k * 4);
    random_floats(f, (size_t)k, kind);
    if (kind == DATA_NORMAL && k > 40)
        memset(f, 0, 32 * 4); /* one zero block among others */
    guarded in = copy_of(f, (size_t)k), q = guarded_new(blocks * 32, 1), d = guarded_new(blocks * 4, 4);
    guarded s = guarded_new(blocks * 4, 4), isum = guarded_new(blocks * 4, 4), s16 = guarded_new(blocks * 8, 4);
    guarded isum16 = guarded_new(blocks * 8, 4);
    c->level->quantize(&(quantize_args){in.p, 0, k, 1, q.p, d.p, s.p, isum.p, s16.p, isum16.p, 0, 0});
    bool finite = kind != DATA_WILD;
    for (size_t b = 0; b < blocks && finite; b++) {
        int32_t sum[2][2] = {{0}};
        double amax = 0.0;
        for (size_t i = 32 * b; i < 32 * b + 32; i++)
            amax = i < (size_t)k && fabs((double)f[i]) > amax ? fabs((double)f[i]) : amax;
        double step = (double)((float *)d.p)[b], error = 0.0, plain = 0.0;
        bool zero = step == 0.0;
        if (zero ? amax > 1e-36 : step < amax / 127.6 || step > amax / 119.5)
            check_fail(c, "k %d block %zu: scale %g, largest %g", (int)k, b, step, amax);
        for (size_t i = 0; i < 32; i++) {
            int8_t v = ((int8_t *)q.p)[32 * b + i];
            sum[i / 16][i % 4 / 2] += v;
            double value = 32 * b + i < (size_t)k && !zero ? (double)f[32 * b + i] : 0.0;
            double want = zero ? 0.0 : value / step; /* d is fitted after rounding: a little over half a step */
            if (fabs(v - want) > 0.9)
                check_fail(c, "k %d block %zu: byte %zu is %d, expected %g", (int)k, b, i, v, want);
            double unit = amax / 127.0;
            error += zero ? 0.0 : (value - v * step) * (value - v * step);
            plain += zero ? 0.0 : pow(value - rint(value / unit) * unit, 2);
        }
        if (error > plain * (1 + 1e-4) + 1e-10 * amax * amax)
            check_fail(c, "k %d block %zu: squared error %g, %g with the plain scale", (int)k, b, error, plain);
        float scale = ((float *)d.p)[b];
        const int32_t halves[2] = {sum[0][0] + sum[0][1], sum[1][0] + sum[1][1]}, total = halves[0] + halves[1];
        if (((int32_t *)isum.p)[b] != act_sums(sum[0][0] + sum[1][0], sum[0][1] + sum[1][1]) ||
            !same_bits(((float *)s.p)[b], scale * (float)total))
            check_fail(c, "k %d block %zu: sum", (int)k, b);
        for (size_t h = 0; h < 2; h++)
            if (((int32_t *)isum16.p)[2 * b + h] != act_sums(sum[h][0], sum[h][1]) ||
                !same_bits(((float *)s16.p)[2 * b + h], scale * (float)halves[h]))
                check_fail(c, "k %d block %zu: sum of half %zu", (int)k, b, h);
    }
    /* The same bytes and scales on every level: answers do not depend on it. */
    int8_t *other_q = malloc(blocks * 32);
    float *other = malloc(blocks * 16);
    int32_t *other_sum = malloc(blocks * 12);
    c->scalar->quantize(
        &(quantize_args){f, 0, k, 1, other_q, other, other + blocks, other_sum, other + 2 * blocks, other_sum + blocks, 0, 0});
    if ((memcmp(other_q, q.p, blocks * 32) != 0 || memcmp(other, d.p, blocks * 4) != 0))
        check_fail(c, "k %d kind %d: other bytes or scales than scalar", (int)k, (int)kind);
    free(other_q);
    free(other);
    free(other_sum);
    free(f);
    guarded *all[] = {&in, &q, &d, &s, &isum, &s16, &isum16};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        drop(c, all[i]);
}

/* Rows at once, with gaps between them: the same as one by one. */
static void quantize_rows(check *c, int64_t k, int n_rows)
{
    const size_t blocks = ((size_t)k + 31) / 32, gap = 3, f_stride = (size_t)k + gap, b_stride = blocks + gap,
                 q_stride = 32 * b_stride;
    const size_t rows = (size_t)n_rows, floats = rows * b_stride * 6, bytes = rows * q_stride;
    float *f = malloc(rows * f_stride * 4), *all[2];
    int8_t *q[2];
    random_floats(f, rows * f_stride, DATA_NORMAL);
    for (int i = 0; i < 2; i++) {
        all[i] = calloc(floats, 4);
        q[i] = calloc(bytes, 1);
        for (int r = 0; r < (i == 0 ? 1 : n_rows); r++) {
            float *d = all[i] + (size_t)r * b_stride, *s = d + rows * b_stride, *s16 = all[i] + 2 * ((size_t)r + rows) * b_stride;
            int32_t *sums = (int32_t *)malloc(rows * b_stride * 12);
            quantize_args a = {
                f + (size_t)r * f_stride, f_stride, k,       i == 0 ? n_rows : 1, q[i] + (size_t)r * q_stride, d, s, sums, s16,
                sums + rows * b_stride,   q_stride, b_stride};
            c->level->quantize(&a);
            free(sums);
        }
    }
    if (memcmp(all[0], all[1], floats * 4) != 0 || memcmp(q[0], q[1], bytes) != 0)
        check_fail(c, "k %d: %d rows at once differ from rows one by one", (int)k, n_rows);
    for (int i = 0; i < 2; i++) {
        free(all[i]);
        free(q[i]);
    }
    free(f);
}

static void check_quantize(check *c, int arg)
{
    (void)arg;
    for (int rows = 1; rows <= 37; rows += 6)
        for (int i = 0; i < N_LENGTHS; i++)
            quantize_rows(c, lengths[i], rows);
    for (int i = 0; i < N_LENGTHS; i++)
        for (int kind = 0; kind < DATA_KINDS; kind++)
            quantize_once(c, lengths[i], (data_kind)kind);
}

/* ---- elementwise ---- */

typedef enum vector_op {
    OP_RMSNORM,
    OP_ADD,
    OP_SCALE,
    OP_ADD_SCALED,
    OP_SILU,
    OP_GELU,
    OP_SWIGLU_OAI,
    OP_SOFTCAP,
    OP_COUNT
} vector_op;
static const char *const op_names[] = {"rmsnorm",  "add",      "scale",          "add_scaled",
                                       "silu_mul", "gelu_mul", "swiglu_oai_mul", "softcap"};

/* What op makes of a (and b, s) in double; total: the mean square plus eps of a. */
static double op_wanted(vector_op op, double a, double b, double s, double total)
{
    double inner;
    switch (op) {
    case OP_RMSNORM: return a / sqrt(total) * b;
    case OP_ADD: return a + b;
    case OP_SCALE: return a * s;
    case OP_ADD_SCALED: return b * s + a;
    case OP_SILU: return a / (1.0 + exp(-a)) * b;
    case OP_GELU: inner = 0.7978845608028654 * (a + 0.044715 * a * a * a); return 0.5 * a * (1.0 + tanh(inner)) * b;
    case OP_SWIGLU_OAI: inner = fmin(a, 7.0); return inner / (1.0 + exp(-1.702 * inner)) * (fmax(-7.0, fmin(b, 7.0)) + 1.0);
    default: return s * tanh(a / s);
    }
}

static void op_run(const kernels *k, vector_op op, const float *a, const float *b, float s, float *y, int64_t n)
{
    switch (op) {
    case OP_RMSNORM: k->rmsnorm(a, b, 1e-5f, n, y); break;
    case OP_ADD: k->add(y, b, n); break;
    case OP_SCALE: k->scale(y, s, n); break;
    case OP_ADD_SCALED: k->add_scaled(y, b, s, n); break;
    case OP_SILU: k->silu_mul(a, b, y, n); break;
    case OP_GELU: k->gelu_mul(a, b, y, n); break;
    case OP_SWIGLU_OAI: k->swiglu_oai_mul(a, b, y, n); break;
    default: k->softcap(y, s, n); break;
    }
}

static double mean_square(const float *a, int64_t n, double eps)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)a[i];
    return sum / (double)n + eps;
}

/* Allowed distance: a few rounding errors of the result, and of the sums that cancel. */
static double op_slack(vector_op op, double want, double a, double b, double s)
{
    double ulp = 6e-8;
    switch (op) {
    case OP_ADD: return ulp * (fabs(a) + fabs(b));
    case OP_ADD_SCALED: return 2 * ulp * (fabs(a) + fabs(b * s));
    case OP_GELU: return 8 * ulp * fabs(want) + 4 * ulp * fabs(a * b);                      /* 1 + tanh cancels */
    case OP_SILU: return 8 * ulp * fabs(want) + 1e-35;                                      /* exp(-a) overflows */
    case OP_SWIGLU_OAI: return 8 * ulp * fabs(want) + 2 * ulp * fabs(fmin(a, 7.0)) + 1e-35; /* u + 1 cancels */
    case OP_SOFTCAP: return 8 * ulp * fabs(want) + 2 * ulp * fabs(a) + 1e-37;
    default: return 6 * ulp * fabs(want) + 1e-37;
    }
}

static void op_once(check *c, vector_op op, int64_t n, float spread, bool in_place, bool without_weight)
{
    float *a = malloc((size_t)n * 4), *b = malloc((size_t)n * 4), s = op == OP_SOFTCAP ? 30.0f : -1.7f;
    for (int64_t i = 0; i < n; i++) {
        a[i] = random_float() * spread;
        b[i] = random_float();
    }
    bool reads_y = op == OP_ADD || op == OP_SCALE || op == OP_ADD_SCALED || op == OP_SOFTCAP;
    guarded ga = copy_of(a, (size_t)n), gb = copy_of(b, (size_t)n);
    guarded gy = reads_y ? copy_of(a, (size_t)n) : guarded_new((size_t)n * 4, 4);
    float *y = in_place && !reads_y ? ga.p : gy.p;
    op_run(c->level, op, ga.p, without_weight ? NULL : gb.p, s, y, n);
    double total = mean_square(a, n, (double)1e-5f);
    for (int64_t i = 0; i < n; i++) {
        double other = without_weight ? 1.0 : (double)b[i];
        double want = op_wanted(op, (double)a[i], other, (double)s, total);
        expect_near(c, op_names[op], n, i, y[i], want, op_slack(op, want, (double)a[i], other, (double)s));
    }
    drop(c, &ga);
    drop(c, &gb);
    drop(c, &gy);
    free(a);
    free(b);
}

static void check_op(check *c, int arg)
{
    vector_op op = (vector_op)arg;
    static const float spreads[] = {1.0f, 0.001f, 60.0f, 1000.0f};
    for (int i = 0; i < N_LENGTHS; i++) {
        for (size_t j = 0; j < 4; j++) {
            op_once(c, op, lengths[i], spreads[j], false, false);
            op_once(c, op, lengths[i], spreads[j], true, false);
        }
        if (op == OP_RMSNORM)
            op_once(c, op, lengths[i], 1.0f, false, true);
    }
    if (op != OP_RMSNORM) /* nothing to do is allowed */
        op_run(c->level, op, NULL, NULL, 1.0f, NULL, 0);
}

/* Infinities and NaN keep their meaning in the activation functions. */
static void check_special(check *c, int arg)
{
    (void)arg;
    float in[40], up[40], y[40];
    static const float special[] = {INFINITY, -INFINITY, NAN, 0.0f, -0.0f, 1e30f, -1e30f, 1e-40f, 88.8f, -88.8f, -104.0f};
    enum { N = sizeof special / sizeof *special };
    for (int i = 0; i < 40; i++) {
        in[i] = special[i % N];
        up[i] = 1.0f;
    }
    c->level->silu_mul(in, up, y, 40);
    for (int i = 0; i < 40; i++) {
        double x = (double)in[i], want = isinf(x) ? (x > 0 ? x : (double)y[i]) : x / (1.0 + exp(-x));
        expect_near(c, "silu special", 40, i, y[i], want, 1e-6 * fabs(want) + 1e-36);
    }
    c->level->gelu_mul(in, up, y, 40);
    for (int i = 0; i < 40; i++) {
        double x = (double)in[i], want = x > 20 ? x : x < -20 ? (isinf(x) ? (double)y[i] : 0.0) : x * 0.5;
        if (isnan(x) ? !isnan(y[i]) : !isnan(want) && fabs(x) > 20)
            expect_near(c, "gelu special", 40, i, y[i], want, 1e-6 * fabs(want));
    }
    c->level->softcap(in, 30.0f, 40);
    for (int i = 0; i < 40; i++) {
        double x = (double)special[i % N];
        expect_near(c, "softcap special", 40, i, in[i], 30.0 * tanh(x / 30.0), 1e-5);
    }
}

static void check_rope(check *c, int arg)
{
    (void)arg;
    static const int sizes[] = {2, 4, 8, 16, 24, 30, 32, 34, 64, 80, 96, 128, 256};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (int pairs = 0; pairs < 2; pairs++) {
            int n = sizes[i], half = n / 2;
            float *x = malloc((size_t)n * 4), *cs = malloc((size_t)n * 4);
            for (int j = 0; j < n; j++)
                x[j] = random_float();
            for (int j = 0; j < half; j++) {
                cs[2 * j] = cosf((float)j);
                cs[2 * j + 1] = sinf((float)j);
            }
            guarded gx = copy_of(x, (size_t)n), gcs = copy_of(cs, (size_t)n);
            c->level->rope(gx.p, gcs.p, n, pairs ? ROPE_HALVES : ROPE_ADJACENT);
            for (int j = 0; j < half; j++) {
                int u = pairs ? j : 2 * j, v = pairs ? j + half : 2 * j + 1;
                double co = (double)cs[2 * j], si = (double)cs[2 * j + 1], slack = 3e-7 * (fabs((double)x[u]) + fabs((double)x[v]));
                expect_near(c, "rope first", n, u, ((float *)gx.p)[u], (double)x[u] * co - (double)x[v] * si, slack);
                expect_near(c, "rope second", n, v, ((float *)gx.p)[v], (double)x[u] * si + (double)x[v] * co, slack);
            }
            drop(c, &gx);
            drop(c, &gcs);
            free(x);
            free(cs);
        }
    }
}

/* Against the matrix: H[i][j] = (-1)^(bits that i and j share) / sqrt(block); to the bit like scalar; back again. */
static void hadamard_once(check *c, int n)
{
    float *x = malloc((size_t)n * 4);
    for (int i = 0; i < n; i++)
        x[i] = random_float() * (i % 17 == 3 ? 40.0f : 1.0f);
    guarded level = copy_of(x, (size_t)n), scalar = copy_of(x, (size_t)n);
    float *y = level.p;
    c->level->hadamard(y, n);
    c->scalar->hadamard(scalar.p, n);
    for (int i = 0; i < n; i++) {
        int first = i / 32 * 32, left = n - first, block = left >= 32 ? 32 : left >= 16 && i < first + 16 ? 16 : 1;
        double want = 0.0, magnitude = 0.0;
        first = i - (i - first) % block;
        for (int j = 0; j < block; j++) {
            double term = (double)x[first + j] / sqrt(block);
            want += __builtin_parity((unsigned)((i - first) & j)) ? -term : term;
            magnitude += fabs(term);
        }
        expect_near(c, "hadamard", n, i, y[i], want, 6e-7 * magnitude);
        if (!same_bits(y[i], ((float *)scalar.p)[i]))
            check_fail(c, "hadamard n %d: element %d is %.9g, scalar's %.9g", n, i, (double)y[i], (double)((float *)scalar.p)[i]);
    }
    c->level->hadamard(y, n);
    for (int i = 0; i < n; i++)
        expect_near(c, "hadamard twice", n, i, y[i], (double)x[i], 4e-5);
    drop(c, &level);
    drop(c, &scalar);
    free(x);
}

static void check_hadamard(check *c, int arg)
{
    (void)arg;
    static const int sizes[] = {1, 5, 15, 16, 17, 24, 31, 32, 33, 47, 48, 64, 80, 96, 112, 128, 192, 256, 512, 576};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        hadamard_once(c, sizes[i]);
}

static void argmax_once(check *c, int64_t n, int variant)
{
    float *x = malloc((size_t)n * 4);
    for (int64_t i = 0; i < n; i++)
        x[i] = variant == 2 ? NAN : variant == 3 ? -INFINITY : floorf(random_float() * 4.0f);
    if (variant == 1)
        for (int64_t i = 0; i < n; i += 3)
            x[i] = NAN;
    float want = -INFINITY;
    int64_t want_at = 0, at = -1;
    for (int64_t i = 0; i < n; i++) {
        if (x[i] > want) {
            want = x[i];
            want_at = i;
        }
    }
    guarded g = copy_of(x, (size_t)n);
    float got = c->level->argmax(g.p, n, &at);
    if (got != want || at != want_at)
        check_fail(c, "n %d variant %d: %g at %d, expected %g at %d", (int)n, variant, (double)got, (int)at, (double)want,
                   (int)want_at);
    drop(c, &g);
    free(x);
}

static void check_argmax(check *c, int arg)
{
    (void)arg;
    for (int i = 0; i < N_LENGTHS; i++)
        for (int variant = 0; variant < 4; variant++)
            argmax_once(c, lengths[i], variant);
}

static void check_sum_exp(check *c, int arg)
{
    (void)arg;
    for (int i = 0; i < N_LENGTHS; i++) {
        size_t n = (size_t)lengths[i];
        float *x = malloc(n * 4), max = -1e30f;
        for (size_t j = 0; j < n; j++) {
            x[j] = random_float() * 30.0f;
            max = x[j] > max ? x[j] : max;
        }
        if (n > 8)
            x[3] = -INFINITY;
        double want = 0.0;
        for (size_t j = 0; j < n; j++)
            want += exp((double)x[j] - (double)max);
        guarded g = copy_of(x, n);
        double got = c->level->sum_exp(g.p, lengths[i], max);
        if (!(fabs(got - want) <= 1e-6 * want))
            check_fail(c, "n %zu: %.12g, expected %.12g", n, got, want);
        drop(c, &g);
        free(x);
    }
}

void check_vector_all(check *c)
{
    check_run(c, "quantize", check_quantize, 0);
    if (c->level->bf16_dot)
        check_run(c, "round_bf16", check_round_bf16, 0);
    for (int op = 0; op < OP_COUNT; op++)
        check_run(c, op_names[op], check_op, op);
    check_run(c, "special", check_special, 0);
    check_run(c, "rope", check_rope, 0);
    check_run(c, "hadamard", check_hadamard, 0);
    check_run(c, "argmax", check_argmax, 0);
    check_run(c, "sum_exp", check_sum_exp, 0);
}
