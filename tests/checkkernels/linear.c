/*
 * Linear layers: gemv and gemm of every type, to the last bit like scalar's gemv; scalar against the format's decode in
 * double. Activations and packed weights end at guard pages, unused places hold NaN and garbage. Scalar computes a shape once;
 * fewer tokens are the last ones of it.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

typedef struct shape {
    int64_t k;
    int n_panels, n_tokens, token; /* token: rows of x before the first used */
    size_t extra_stride;           /* floats and bytes added to every stride */
    data_kind weights, activations;
} shape;

typedef struct setup {
    shape s;
    dil_type type;
    act x;
    guarded f, q, d, sum, isum, s16, isum16, bf16, panels, scratch;
    float *want; /* [n_tokens][n_panels * 16] by scalar */
    uint8_t *rows;
    size_t row_bytes;
    linear_args args;
} setup;

/* Activations of `rows` tokens; the first `token` ones stay garbage. */
static void make_act(setup *t)
{
    const shape *s = &t->s;
    size_t rows = (size_t)(s->token + s->n_tokens), k = (size_t)s->k, blocks = (k + 31) / 32;
    size_t f_stride = k + s->extra_stride, q_stride = (k + 63) / 64 * 64 + 64 * s->extra_stride;
    size_t b_stride = blocks + s->extra_stride;
    t->f = guarded_new(((rows - 1) * f_stride + k) * 4, 4);
    t->q = guarded_new((rows - 1) * q_stride + (k + 63) / 64 * 64, 1);
    t->d = guarded_new(((rows - 1) * b_stride + blocks) * 4, 4);
    t->sum = guarded_new(((rows - 1) * b_stride + blocks) * 4, 4);
    t->isum = guarded_new(((rows - 1) * b_stride + blocks) * 4, 4);
    t->s16 = guarded_new(2 * ((rows - 1) * b_stride + blocks) * 4, 4);
    t->isum16 = guarded_new(2 * ((rows - 1) * b_stride + blocks) * 4, 4);
    size_t bf16_stride = (k + 1) / 2 * 2 + 2 * s->extra_stride;
    t->bf16 = guarded_new(((rows - 1) * bf16_stride + (k + 1) / 2 * 2) * 2, 2);
    memset(t->q.p, 0x81, t->q.bytes);
    for (size_t r = (size_t)s->token; r < rows; r++) {
        float *f = (float *)t->f.p + r * f_stride;
        float *padded = calloc(blocks * 32, sizeof *padded);
        int8_t *q = malloc(blocks * 32);
        random_floats(f, k, s->activations);
        memcpy(padded, f, k * 4);
        kernels scalar;
        dil_error err;
        if (kernels_select(&scalar, "scalar", &err) == DIL_OK) {
            kernels_add_scalar_bf16(&scalar);
            scalar.round_bf16(f, (int64_t)k, (uint16_t *)t->bf16.p + r * bf16_stride);
            scalar.quantize(&(quantize_args){padded, 0, (int64_t)k, 1, q, (float *)t->d.p + r * b_stride,
                                             (float *)t->sum.p + r * b_stride, (int32_t *)t->isum.p + r * b_stride,
                                             (float *)t->s16.p + 2 * r * b_stride, (int32_t *)t->isum16.p + 2 * r * b_stride, 0,
                                             0});
        }
        memcpy((int8_t *)t->q.p + r * q_stride, q, blocks * 32);
        free(padded);
        free(q);
    }
    t->x = (act){t->f.p,      t->q.p,   t->d.p,   t->sum.p, t->isum.p, t->s16.p,
                 t->isum16.p, f_stride, q_stride, b_stride, t->bf16.p, bf16_stride};
    if (!panel_reads_halves(t->type))
        t->x.s16 = NULL, t->x.isum16 = NULL;
}

static void make_panels(setup *t)
{
    const shape *s = &t->s;
    uint64_t row_bytes;
    if (!format_row_bytes(t->type, (uint64_t)s->k, &row_bytes))
        exit(1);
    size_t panel = panel_bytes(t->type, s->k), n_rows = (size_t)s->n_panels * PANEL_ROWS;
    t->row_bytes = row_bytes;
    t->rows = malloc(row_bytes * n_rows);
    for (size_t r = 0; r < n_rows; r++)
        random_row(t->type, t->rows + r * row_bytes, (size_t)s->k, s->weights);
    t->panels = guarded_new(panel * (size_t)s->n_panels, 1);
    for (int p = 0; p < s->n_panels; p++)
        panel_pack(t->type, t->rows + (size_t)p * PANEL_ROWS * row_bytes, row_bytes, PANEL_ROWS, s->k,
                   (uint8_t *)t->panels.p + (size_t)p * panel);
    t->scratch = guarded_new(linear_scratch_bytes(s->k), 64);
    t->want = malloc((size_t)s->n_tokens * n_rows * 4);
    t->args = (linear_args){t->panels.p,
                            panel,
                            s->n_panels,
                            s->k,
                            &t->x,
                            s->token,
                            s->n_tokens,
                            t->want,
                            n_rows,
                            t->scratch.p,
                            s->n_panels % 2 ? 4096 : 0};
}

static void make(setup *t, dil_type type, shape s)
{
    *t = (setup){.s = s, .type = type};
    make_act(t);
    make_panels(t);
}

static void release(check *c, setup *t)
{
    guarded *all[] = {&t->f, &t->q, &t->d, &t->sum, &t->isum, &t->s16, &t->isum16, &t->bf16, &t->panels, &t->scratch};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!guarded_free(all[i]))
            check_fail(c, "wrote before an array (%zu)", i);
    free(t->want);
    free(t->rows);
}

static const char *describe(const shape *s)
{
    static char text[120];
    snprintf(text, sizeof text, "k %d, panels %d, tokens %d from %d, kinds %d %d", (int)s->k, s->n_panels, s->n_tokens, s->token,
             (int)s->weights, (int)s->activations);
    return text;
}

/* y: of the last n tokens. */
static void compare(check *c, const setup *t, int n, const float *y, size_t y_stride)
{
    size_t n_rows = (size_t)t->s.n_panels * PANEL_ROWS;
    const float *wanted = t->want + (size_t)(t->s.n_tokens - n) * n_rows;
    for (size_t i = 0; i < (size_t)n; i++) {
        for (size_t r = 0; r < n_rows; r++) {
            float got = y[i * y_stride + r], want = wanted[i * n_rows + r];
            if (!same_bits(got, want)) {
                check_fail(c, "%s: %d tokens: token %zu row %zu is %.9g, scalar has %.9g", describe(&t->s), n, i, r, (double)got,
                           (double)want);
                return;
            }
        }
        for (size_t r = n_rows; r < y_stride && i + 1 < (size_t)n; r++)
            if (!isnan(y[i * y_stride + r]))
                check_fail(c, "%s: %d tokens: wrote behind row %zu of y", describe(&t->s), n, i);
    }
}

/* Scalar against sums in double of decoded weights times q * d (floats: times f). */
static void compare_with_decode(check *c, const setup *t)
{
    size_t k = (size_t)t->s.k, n_rows = (size_t)t->s.n_panels * PANEL_ROWS;
    float *w = malloc(k * sizeof *w);
    const format *f = format_get(t->type);
    for (size_t r = 0; r < n_rows; r++) {
        f->decode(t->rows + r * t->row_bytes, w, k);
        for (size_t i = 0; i < (size_t)t->s.n_tokens; i++) {
            size_t at = i + (size_t)t->s.token;
            double sum = 0.0, magnitude = 1e-37;
            for (size_t j = 0; j < k; j++) {
                double a = f->is_quantized ? (double)t->x.q[at * t->x.q_stride + j] * (double)t->x.d[at * t->x.b_stride + j / 32]
                                           : (double)t->x.f[at * t->x.f_stride + j];
                sum += (double)w[j] * a;
                magnitude += fabs((double)w[j] * a);
            }
            /* Formats with a minimum cancel: u * ws and nm are larger than their sum. */
            double slack = (f->is_quantized ? 4e-5 : 4e-6) * magnitude;
            double got = (double)t->want[i * n_rows + r];
            if (!(fabs(got - sum) <= slack)) {
                check_fail(c, "%s: token %zu row %zu is %.9g, decoded weights give %.9g", describe(&t->s), i, r, got, sum);
                free(w);
                return;
            }
        }
    }
    free(w);
}

static void check_count(check *c, const setup *t, linear_fn fn, int n)
{
    size_t n_rows = (size_t)t->s.n_panels * PANEL_ROWS, y_stride = n_rows + t->s.extra_stride;
    guarded y = guarded_new(((size_t)(n - 1) * y_stride + n_rows) * 4, 4);
    linear_args a = t->args;
    a.token = t->s.token + t->s.n_tokens - n;
    a.n_tokens = n;
    a.y = y.p;
    a.y_stride = y_stride;
    fn(&a);
    compare(c, t, n, y.p, y_stride);
    if (!guarded_free(&y))
        check_fail(c, "wrote before y");
}

/* Up to `most` tokens. */
static void check_shape(check *c, dil_type type, linear_fn fn, int most, shape s)
{
    static const int counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 17, 33, 64};
    setup t;
    s.n_tokens = most;
    s.token = (int)(random_u32() % 3);
    make(&t, type, s);
    c->scalar->linear[type].gemm(&t.args);
    for (size_t i = 0; i < sizeof counts / sizeof *counts && counts[i] <= most; i++)
        check_count(c, &t, fn, counts[i]);
    if (c->is_scalar && s.weights == DATA_NORMAL && s.activations == DATA_NORMAL)
        compare_with_decode(c, &t);
    release(c, &t);
}

/* arg: type * 2 + (1: gemm) */
static void check_type(check *c, int arg)
{
    dil_type type = (dil_type)(arg / 2);
    bool gemm = arg % 2;
    const format *f = format_get(type);
    linear_fn fn = gemm ? c->level->linear[type].gemm : c->level->linear[type].gemv;
    if (!fn) {
        check_fail(c, "is missing");
        return;
    }
    static const int64_t float_ks[] = {1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 576, 577};
    static const int panels[] = {1, 2, 3, 5};
    int64_t block = f->block_values;
    int64_t quant_ks[] = {block, 2 * block, 3 * block, 5 * block, block == 32 ? 576 : 4 * block};
    size_t n_ks = f->is_quantized ? 5 : sizeof float_ks / sizeof *float_ks;
    for (size_t i = 0; i < n_ks; i++) {
        shape s = {.k = f->is_quantized ? quant_ks[i] : float_ks[i], .n_panels = panels[i % 4], .extra_stride = i % 2};
        check_shape(c, type, fn, gemm ? 33 : GEMV_TOKENS, s);
    }
    for (int p = 0; p < 4; p++)
        for (size_t extra = 0; extra < 2; extra++)
            check_shape(c, type, fn, gemm ? 9 : GEMV_TOKENS, (shape){.k = 2 * block, .n_panels = panels[p], .extra_stride = extra});
    for (int w = 0; w < DATA_KINDS; w++)
        for (int x = 0; x < DATA_KINDS; x++)
            check_shape(c, type, fn, gemm ? 9 : GEMV_TOKENS,
                        (shape){.k = f->is_quantized ? 2 * block : 67,
                                .n_panels = 2,
                                .extra_stride = (size_t)(w + x) % 2,
                                .weights = (data_kind)w,
                                .activations = (data_kind)x});
    check_shape(c, type, fn, gemm ? 64 : GEMV_TOKENS, (shape){.k = f->is_quantized ? 2048 : 300, .n_panels = 1});
}

/* ---- scattered rows: each ends at a guard page, the same bits as a panel of them by scalar's gemv ---- */

/* Up to 7 guarded rows stand for n ones, in changing order and more than once. */
static void dot_rows_once(check *c, int n, int64_t k, data_kind weights, data_kind activations)
{
    enum { DIFFERENT = 7, MOST = 70 };
    guarded row[DIFFERENT], x = guarded_new((size_t)k * 4, 4), y = guarded_new((size_t)n * 4, 4);
    const float *rows[MOST];
    float want[PANEL_ROWS], *copy = malloc(DIFFERENT * (size_t)k * 4);
    uint8_t *panel = malloc(panel_bytes(DIL_TYPE_F32, k));
    random_floats(x.p, (size_t)k, activations);
    for (size_t r = 0; r < DIFFERENT; r++) {
        row[r] = guarded_new((size_t)k * 4, 4);
        random_row(DIL_TYPE_F32, copy + r * (size_t)k, (size_t)k, weights);
        memcpy(row[r].p, copy + r * (size_t)k, (size_t)k * 4);
    }
    panel_pack(DIL_TYPE_F32, copy, (size_t)k * 4, DIFFERENT, k, panel);
    act in = {.f = x.p, .f_stride = (size_t)k};
    c->scalar->linear[DIL_TYPE_F32].gemv(
        &(linear_args){.panels = panel, .n_panels = 1, .k = k, .x = &in, .n_tokens = 1, .y = want, .y_stride = PANEL_ROWS});
    for (int r = 0; r < n; r++)
        rows[r] = row[r * r % DIFFERENT].p;
    c->level->dot_rows(rows, n, x.p, k, y.p);
    for (int r = 0; r < n; r++)
        if (!same_bits(((float *)y.p)[r], want[r * r % DIFFERENT]))
            check_fail(c, "n %d k %d kinds %d %d: row %d is %.9g, a panel gives %.9g", n, (int)k, (int)weights, (int)activations, r,
                       (double)((float *)y.p)[r], (double)want[r * r % DIFFERENT]);
    for (size_t r = 0; r < DIFFERENT; r++)
        if (!guarded_free(&row[r]))
            check_fail(c, "wrote before a row");
    if (!guarded_free(&x) || !guarded_free(&y))
        check_fail(c, "wrote before an array");
    free(copy);
    free(panel);
}

static void check_dot_rows(check *c, int arg)
{
    (void)arg;
    static const int counts[] = {0, 1, 2, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 48, 64, 70};
    static const int64_t columns[] = {1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 33, 64, 67, 576};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        for (size_t j = 0; j < sizeof columns / sizeof *columns; j++)
            dot_rows_once(c, counts[i], columns[j], DATA_NORMAL, DATA_NORMAL);
    for (int w = 0; w < DATA_KINDS; w++)
        for (int x = 0; x < DATA_KINDS; x++)
            dot_rows_once(c, 21, 67, (data_kind)w, (data_kind)x);
}

void check_linear_all(check *c)
{
    check_run(c, "dot_rows", check_dot_rows, 0);
    for (int type = 0; type < DIL_TYPE_COUNT; type++) {
        const format *f = format_get((dil_type)type);
        if (!f || !f->decode)
            continue;
        for (int gemm = 0; gemm < 2; gemm++) {
            char name[64];
            snprintf(name, sizeof name, "linear.%s.%s", f->name, gemm ? "gemm" : "gemv");
            check_run(c, name, check_type, 2 * type + gemm);
        }
    }
}
