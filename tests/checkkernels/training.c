/* The trainer's kernels: products against sums in double, everything else bit for bit like scalar. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

static const int64_t lengths[] = {1, 2, 15, 16, 17, 31, 32, 33, 64, 100, 257};
enum { N_LENGTHS = sizeof lengths / sizeof *lengths, MOST = 257 };

static guarded floats(size_t n)
{
    guarded g = guarded_new(n * 4, 4);
    random_floats(g.p, n, DATA_NORMAL);
    return g;
}

static void drop(check *c, guarded *g)
{
    if (!guarded_free(g))
        check_fail(c, "wrote before an array");
}

/* ---- products ---- */

static float half_of(uint32_t word, int half)
{
    uint32_t bits = half ? word & 0xffff0000u : word << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static float value_of(uint32_t word)
{
    float f;
    memcpy(&f, &word, sizeof f);
    return f;
}

/* n words: floats, or pairs of bf16. */
static guarded words(bool bf16, size_t n)
{
    guarded g = floats(n);
    for (size_t i = 0; bf16 && i < n; i++)
        ((uint32_t *)g.p)[i] = (uint32_t)f32_to_bf16(((float *)g.p)[i]) | (uint32_t)f32_to_bf16(random_float()) << 16;
    return g;
}

static void product_once(check *c, bool bf16, int n_rows, int64_t steps, bool by_rows, bool add)
{
    guarded a = words(bf16, (size_t)(n_rows * steps)), b = words(bf16, (size_t)steps * PRODUCT_COLS);
    guarded y = floats((size_t)n_rows * PRODUCT_COLS);
    float *before = malloc(y.bytes);
    memcpy(before, y.p, y.bytes);
    product_args p = {a.p, by_rows ? (size_t)steps : 1, by_rows ? 1 : (size_t)n_rows, b.p, steps, n_rows, y.p, PRODUCT_COLS, add};
    (bf16 ? c->level->training.product_bf16 : c->level->training.product_f32)(&p);
    for (int r = 0; r < n_rows; r++)
        for (int j = 0; j < PRODUCT_COLS; j++) {
            double want = add ? (double)before[r * PRODUCT_COLS + j] : 0.0, size = fabs(want);
            for (int64_t s = 0; s < steps; s++) {
                uint32_t x = p.a[(size_t)r * p.a_row + (size_t)s * p.a_step], w = p.b[s * PRODUCT_COLS + j];
                for (int half = 0; half < (bf16 ? 2 : 1); half++) {
                    double term =
                        bf16 ? (double)half_of(x, half) * (double)half_of(w, half) : (double)value_of(x) * (double)value_of(w);
                    want += term;
                    size += fabs(term);
                }
            }
            float got = ((float *)y.p)[r * PRODUCT_COLS + j];
            if (!(fabs((double)got - want) <= size * 0x1p-23 * (double)(steps + 2)))
                check_fail(c, "%d rows, %d steps: [%d][%d] is %g, wanted %g", n_rows, (int)steps, r, j, (double)got, want);
        }
    free(before);
    drop(c, &a);
    drop(c, &b);
    drop(c, &y);
}

static void check_product(check *c, int bf16)
{
    static const int64_t all_steps[] = {1, 2, 7, 64};
    for (int n_rows = 1; n_rows <= 19; n_rows++)
        for (int s = 0; s < 4; s++)
            for (int form = 0; form < 4; form++)
                product_once(c, bf16, n_rows, all_steps[s], form & 1, form & 2);
}

static void check_interleave(check *c, int arg)
{
    (void)arg;
    for (int i = 0; i < N_LENGTHS; i++)
        for (int second = 0; second < 2; second++) {
            int64_t n = lengths[i], panels = (n + PRODUCT_COLS - 1) / PRODUCT_COLS;
            size_t stride = 2 * PRODUCT_COLS;
            guarded r0 = floats((size_t)n), r1 = floats((size_t)n);
            guarded out = guarded_new(((size_t)(panels - 1) * stride + PRODUCT_COLS) * 4, 4);
            c->level->training.interleave(r0.p, second ? r1.p : NULL, n, out.p, stride);
            for (int64_t j = 0; j < panels * PRODUCT_COLS; j++) {
                uint32_t got = ((uint32_t *)out.p)[(size_t)(j / PRODUCT_COLS) * stride + (size_t)(j % PRODUCT_COLS)];
                uint32_t want = j < n ? f32_to_bf16(((float *)r0.p)[j]) : 0;
                if (j < n && second)
                    want |= (uint32_t)f32_to_bf16(((float *)r1.p)[j]) << 16;
                if (got != want)
                    check_fail(c, "n %d: word %d is %08x, wanted %08x", (int)n, (int)j, got, want);
            }
            drop(c, &r0);
            drop(c, &r1);
            drop(c, &out);
        }
}

/* ---- vector kernels ---- */

enum { DOT, SOFTMAX, SILU_BACK, GELU_BACK, NORM_BACK, NORM_BACK_PLAIN, ADAMW, VECTOR_OPS };
static const char *const vector_names[] = {"dot",           "softmax",      "silu_mul_back",
                                           "gelu_mul_back", "rmsnorm_back", "rmsnorm_back_plain",
                                           "adamw"};

/* One kernel on four arrays of n; what it returns, if anything, into *result. */
static void run_vector(const training_kernels *t, int op, float *x[4], int64_t n, float *result)
{
    static const adamw_args step = {0.01f, 0.9f, 0.95f, 1e-8f, 1e-3f, 0.271f, 0.142f, 0.7f};
    *result = 0.0f;
    switch (op) {
    case DOT: *result = t->dot(x[0], x[1], n); break;
    case SOFTMAX: *result = t->softmax(x[0], n); break;
    case SILU_BACK: t->silu_mul_back(x[0], x[1], x[2], 0.3f, x[3], x[0], x[1], n); break;
    case GELU_BACK: t->gelu_mul_back(x[0], x[1], x[2], 0.3f, x[3], x[0], x[1], n); break;
    case NORM_BACK: t->rmsnorm_back(x[0], x[1], x[2], 1e-6f, x[3], x[2], n); break;
    case NORM_BACK_PLAIN: t->rmsnorm_back(x[0], NULL, x[2], 1e-6f, x[3], NULL, n); break;
    default:
        for (int64_t i = 0; i < n; i++)
            x[3][i] = fabsf(x[3][i]);
        t->adamw(x[0], x[1], x[2], x[3], n, &step);
    }
}

/* The scalar kernel against its definition in double, near enough that a wrong formula shows. */
static void vector_meaning(check *c, int op, float *const x[4], float *const was[4], int64_t n, float result)
{
    double want = 0.0, got = (double)result, sum = 0.0, most = (double)was[0][0];
    for (int64_t i = 0; i < n; i++)
        most = fmax(most, (double)was[0][i]);
    for (int64_t i = 0; i < n; i++)
        sum += op == SOFTMAX ? exp((double)was[0][i] - most) : (double)was[0][i] * (double)was[1][i];
    if (op == DOT || op == SOFTMAX)
        want = op == DOT ? sum : most + log(sum);
    for (int64_t i = 0; op == SOFTMAX && i < n; i++) {
        double below = most - (double)was[0][i], share = exp(-below) / sum; /* the difference itself is rounded */
        if (!(fabs((double)x[0][i] - share) <= (6e-7 + below * 0x1p-23) * share + 2e-38))
            check_fail(c, "n %d: share %d is %.9g, wanted %.9g", (int)n, (int)i, (double)x[0][i], share);
    }
    if (op == SILU_BACK) { /* by central differences of x sigmoid(x) */
        double g = (double)was[0][n - 1], e = 1e-5, up = (double)was[1][n - 1], d = 0.3 * (double)was[2][n - 1];
        want = d * up * ((g + e) / (1 + exp(-g - e)) - (g - e) / (1 + exp(e - g))) / (2 * e);
        got = (double)x[0][n - 1];
    }
    if (op == GELU_BACK) {
        double g = (double)was[0][n - 1], e = 1e-5, up = (double)was[1][n - 1], d = 0.3 * (double)was[2][n - 1], f[2];
        for (int s = 0; s < 2; s++) {
            double z = s ? g - e : g + e;
            f[s] = 0.5 * z * (1 + tanh(sqrt(2 / 3.141592653589793) * (z + 0.044715 * z * z * z)));
        }
        want = d * up * (f[0] - f[1]) / (2 * e);
        got = (double)x[0][n - 1];
    }
    if (op == ADAMW) {
        double g = (double)was[1][0] * 0.7, m = 0.9 * (double)was[2][0] + 0.1 * g,
               v = 0.95 * fabs((double)was[3][0]) + 0.05 * g * g;
        want = (double)was[0][0] * (1 - 1e-3) - 0.01 * (m / 0.271) / (sqrt(v / 0.142) + 1e-8);
        got = (double)x[0][0];
    }
    if (!(fabs(got - want) <= 2e-5 * (1.0 + fabs(want))))
        check_fail(c, "n %d: %.9g, wanted %.9g", (int)n, got, want);
}

static void check_vector(check *c, int op)
{
    for (int i = 0; i < N_LENGTHS; i++) {
        int64_t n = lengths[i];
        guarded mine[4], theirs[4];
        float was[4][MOST], results[2], *a[4], *b[4], *w[4];
        for (int j = 0; j < 4; j++) {
            mine[j] = floats((size_t)n);
            theirs[j] = floats((size_t)n);
            memcpy(theirs[j].p, mine[j].p, (size_t)n * 4);
            memcpy(was[j], mine[j].p, (size_t)n * 4);
            a[j] = mine[j].p;
            b[j] = theirs[j].p;
            w[j] = was[j];
        }
        run_vector(&c->level->training, op, a, n, &results[0]);
        run_vector(&c->scalar->training, op, b, n, &results[1]);
        vector_meaning(c, op, a, w, n, results[0]);
        if (!same_bits(results[0], results[1]))
            check_fail(c, "n %d: %a, scalar says %a", (int)n, (double)results[0], (double)results[1]);
        for (int j = 0; j < 4; j++) {
            for (int64_t e = 0; e < n; e++)
                if (!same_bits(a[j][e], b[j][e]))
                    check_fail(c, "n %d: array %d, element %d: %a, scalar says %a", (int)n, j, (int)e, (double)a[j][e],
                               (double)b[j][e]);
            drop(c, &mine[j]);
            drop(c, &theirs[j]);
        }
    }
}

void check_training_all(check *c)
{
    check_run(c, "product_f32", check_product, 0);
    if (c->level->training.product_bf16) {
        check_run(c, "product_bf16", check_product, 1);
        check_run(c, "interleave", check_interleave, 0);
    }
    for (int op = 0; op < VECTOR_OPS; op++)
        check_run(c, vector_names[op], check_vector, op);
}
