/* Rounding as a game: the curvature against its definition, costs against the bytes, the end as an equilibrium, equal bytes for any team. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "formats/codebook.h"
#include "quantize/respond.h"
#include "quantize/round.h"
#include "theorem/random.h"

enum { ROWS = 70, SMALL = 24 };

static uint64_t seed = 11;

static float uniform(void) { return (float)(random_next(&seed) >> 40) * 0x1p-24f - 0.5f; }

static void ok(dil_status st, const dil_error *err)
{
    if (st != DIL_OK)
        fail_msg("%s", err->text);
}

/* Inputs with a few strong common directions, as models have. */
static float *curvature(int n)
{
    float *h = calloc((size_t)n * (size_t)n, sizeof *h), *x = malloc((size_t)n * sizeof *x);
    for (int t = 0; t < 3 * n; t++) {
        float common = 4.0f * uniform();
        for (int i = 0; i < n; i++)
            x[i] = uniform() + (i % 5 == 0 ? common : 0.0f);
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++)
                h[i * n + j] += x[i] * x[j];
    }
    free(x);
    return h;
}

static metric *metric_for(const float *h, int n, float damping, team *workers)
{
    static kernels k;
    dil_error err;
    metric *m = NULL;
    ok(kernels_select(&k, NULL, &err), &err);
    ok(metric_new(&m, h, n, damping, &k, workers, &err), &err);
    return m;
}

/* min over the later columns of e H e^T with e_j = 1 and nothing before: elimination in double. */
static double schur(const float *h, int n, int j, float add)
{
    double a[SMALL][SMALL];
    int size = n - j;
    for (int i = 0; i < size; i++)
        for (int k = 0; k < size; k++)
            a[i][k] = (double)h[(n - 1 - i) * n + n - 1 - k] + (i == k ? (double)add : 0); /* the later columns first */
    for (int p = 0; p < size - 1; p++)
        for (int i = p + 1; i < size; i++) {
            double f = a[i][p] / a[p][p];
            for (int k = p; k < size; k++)
                a[i][k] -= f * a[p][k];
        }
    return a[size - 1][size - 1];
}

static void importance_is_what_remains_after_the_others_answered(void **state)
{
    dil_error err;
    team *workers = NULL;
    (void)state;
    ok(team_new(&workers, 2, &err), &err);
    float *h = curvature(SMALL);
    metric *m = metric_for(h, SMALL, 0.01f, workers);
    for (int j = 0; j < SMALL; j++) {
        double wanted = schur(h, SMALL, j, m->damping);
        if (fabs((double)m->importance[j] - wanted) > 1e-4 * wanted)
            fail_msg("column %d: wanted %g, found %g", j, wanted, (double)m->importance[j]);
        assert_float_equal(m->feedback[j * SMALL + j], 1.0, 1e-6);
    }
    metric_free(m);
    free(h);
    team_free(workers);
}

static void bad_curvature_is_refused(void **state)
{
    dil_error err;
    team *workers = NULL;
    metric *m = NULL;
    kernels k;
    (void)state;
    ok(team_new(&workers, 1, &err), &err);
    ok(kernels_select(&k, NULL, &err), &err);
    float *h = curvature(SMALL);
    h[3] = NAN;
    assert_int_equal(metric_new(&m, h, SMALL, 0.01f, &k, workers, &err), DIL_FORMAT);
    assert_non_null(strstr(err.text, "finite"));
    h[3] = h[3 * SMALL];
    h[5 * SMALL + 5] = -2.0f;
    assert_int_equal(metric_new(&m, h, SMALL, 0.01f, &k, workers, &err), DIL_FORMAT);
    assert_null(m);
    memset(h, 0, SMALL * SMALL * sizeof *h); /* nothing was seen: all directions alike */
    ok(metric_new(&m, h, SMALL, 0.01f, &k, workers, &err), &err);
    metric_free(m);
    free(h);
    team_free(workers);
}

/* ---- rounding ---- */

static double cost_of(const float *e, const metric *m)
{
    double sum = 0;
    for (int i = 0; i < m->n; i++)
        for (int j = 0; j < m->n; j++)
            sum += (double)e[i] * (double)m->h[(size_t)i * (size_t)m->n + (size_t)j] * (double)e[j];
    return sum;
}

/* Sum over the rows of the matrix that the bytes hold. */
static double cost_of_bytes(const round_task *t, const uint8_t *bytes, size_t row_bytes)
{
    float *e = malloc((size_t)t->columns * sizeof *e);
    double sum = 0;
    for (int r = 0; r < t->rows; r++) {
        format_get(t->type)->decode(bytes + (size_t)r * row_bytes, e, (size_t)t->columns);
        for (int i = 0; i < t->columns; i++)
            e[i] -= t->w[(size_t)r * (size_t)t->columns + (size_t)i];
        sum += cost_of(e, t->m);
    }
    free(e);
    return sum;
}

/* A deviation of one player of a row that lowers the cost noticeably. */
static bool improves(const round_task *t, const grid *g, const float *w, grid_block *blocks, double now)
{
    float e[512];
    for (int b = 0; b < t->columns / g->block; b++)
        grid_values(g, &blocks[b], e + b * g->block);
    for (int i = 0; i < t->columns; i++)
        e[i] -= w[i];
    return cost_of(e, t->m) < now * (1 - 1e-5);
}

/* A row and what its players do. */
typedef struct table {
    const round_task *t;
    const grid *g;
    const float *w;
    grid_block blocks[16];
    double now;
    int n, found; /* deviations tried; those that were better */
} table;

static void try_one(table *a)
{
    a->found += improves(a->t, a->g, a->w, a->blocks, a->now);
    a->n++;
}

static void try_steps(table *a, float *d, uint8_t *code, int8_t *scale)
{
    const grid *g = a->g;
    for (int step = -1; step <= 1; step += 2) {
        int to = *scale + step * g->scale_step;
        if (!g->book && *code + step >= 0 && *code + step < g->n_levels) {
            *code = (uint8_t)(*code + step);
            try_one(a);
            *code = (uint8_t)(*code - step);
        }
        const float kept = *d; /* a scale of its own, or a super-block's: a little more or less */
        *d = grid_storable(g, kept * (g->number == GRID_POWER ? ldexpf(1.0f, step) : 1.0f + 0.01f * (float)step));
        try_one(a);
        *d = kept;
        if (g->scale_lo != g->scale_hi && to >= g->scale_lo && to <= g->scale_hi) {
            *scale = (int8_t)to;
            try_one(a);
            *scale = (int8_t)(to - step * g->scale_step);
        }
    }
}

/* Other words with the signs of the present one; other signs, two at a time, for the present word. */
static void try_words(table *a, uint8_t *code)
{
    const codebook *book = a->g->book;
    uint8_t before[CODEBOOK_MAX_UNIT];
    unsigned signs;
    memcpy(before, code, (size_t)book->width);
    unsigned word = codebook_write(book, code, &signs);
    for (int i = 0; i < 30; i++) {
        codebook_read(book, (unsigned)(random_next(&seed) % (uint64_t)book->n_words), signs, code);
        try_one(a);
    }
    for (int i = 0; i + 1 < book->width; i++) {
        codebook_read(book, word, signs ^ 3u << i, code);
        try_one(a);
    }
    memcpy(code, before, (size_t)book->width);
}

/* Of `tries` random codes or words and group scales of a row: how many could still do better alone by a step, or any word. */
static int restless(const round_task *t, const uint8_t *bytes, const float *w, int tries, int *n)
{
    const grid *g = grid_get(t->type);
    const format *f = format_get(t->type);
    table a = {.t = t, .g = g, .w = w};
    float e[512];
    for (int b = 0; b < t->columns / g->block; b++) {
        g->read(bytes + (size_t)b * f->block_bytes, &a.blocks[b]);
        grid_values(g, &a.blocks[b], e + b * g->block);
    }
    for (int i = 0; i < t->columns; i++)
        e[i] -= w[i];
    a.now = cost_of(e, t->m);
    for (int i = 0; i < tries; i++) {
        int column = (int)(random_next(&seed) % (uint64_t)t->columns);
        grid_block *b = &a.blocks[column / g->block];
        try_steps(&a, &b->d, &b->code[column % g->block], &b->scale[column % g->block / g->group]);
        if (g->book && i % 4 == 0)
            try_words(&a, &b->code[column % g->block / g->book->width * g->book->width]);
    }
    *n += a.n;
    return a.found;
}

/* Costs without bytes are those with them. */
static void check_estimate(round_task t, team *workers, const round_report *full, uint8_t *out, size_t row_bytes)
{
    dil_error err;
    round_report r;
    ok(round_matrix(&t, workers, NULL, &r, &err), &err);
    assert_true(r.fed == full->fed && r.cost == full->cost && r.plain == 0 && r.power == 0);
    t.most_sweeps = 0;
    ok(round_matrix(&t, workers, out, &r, &err), &err);
    double real = cost_of_bytes(&t, out, row_bytes);
    assert_true(r.cost == full->fed && fabs(real - r.cost) < 1e-3 * real);
}

/* Codes that have not answered enough, of the rows that are looked at. The bytes are lost. */
static int64_t count_restless(round_task t, team *workers, uint8_t *out)
{
    dil_error err;
    round_report r;
    t.most_sweeps = 1;
    ok(round_matrix(&t, workers, out, &r, &err), &err);
    assert_true(r.checked.restless_codes < r.checked.codes);
    return r.checked.restless_codes;
}

static int64_t n_restless; /* over all types, after one sweep */

static void check_type(dil_type type, int columns)
{
    dil_error err;
    uint64_t row_bytes;
    round_report reports[3];
    uint8_t *out[3];
    assert_true(format_row_bytes(type, (uint64_t)columns, &row_bytes));
    float *h = curvature(columns), *w = malloc((size_t)ROWS * (size_t)columns * sizeof *w);
    for (int i = 0; i < ROWS * columns; i++)
        w[i] = (uniform() + uniform() + uniform()) * (i % 97 == 0 ? 0.3f : 0.08f);
    for (int i = 0; i < 3; i++) {
        team *workers = NULL;
        ok(team_new(&workers, i + 1, &err), &err);
        metric *m = metric_for(h, columns, 0.01f, workers);
        round_task t = {.type = type, .rows = ROWS, .columns = columns, .w = w, .m = m, .most_sweeps = 60};
        out[i] = malloc((size_t)row_bytes * ROWS);
        ok(round_matrix(&t, workers, out[i], &reports[i], &err), &err);
        if (i == 0) {
            double real = cost_of_bytes(&t, out[0], (size_t)row_bytes);
            assert_true(fabs(real - reports[0].cost) < 1e-3 * real);
            assert_true(reports[0].fed < reports[0].plain);
            assert_true(reports[0].cost < reports[0].fed);
            assert_int_equal(reports[0].n_codes, ROWS * columns);
            int n = 0, found = 0;
            for (int r = 0; r < ROWS; r += 6)
                found += restless(&t, out[0] + (size_t)r * (size_t)row_bytes, w + (size_t)r * (size_t)columns, 12, &n);
            if (found > n / 200)
                fail_msg("%s: %d of %d players could still do better", format_get(type)->name, found, n);
            const stability *s = &reports[0].checked;
            if (s->codes == 0 || s->scales == 0 || s->restless_codes || s->restless_scales)
                fail_msg("%s: of %d codes and %d scales %d and %d could still do better", format_get(type)->name, (int)s->codes,
                         (int)s->scales, (int)s->restless_codes, (int)s->restless_scales);
            out[1] = malloc((size_t)row_bytes * ROWS);
            check_estimate(t, workers, &reports[0], out[1], (size_t)row_bytes);
            n_restless += count_restless(t, workers, out[1]);
            free(out[1]);
        } else {
            assert_memory_equal(out[i], out[0], (size_t)row_bytes * ROWS);
        }
        metric_free(m);
        team_free(workers);
    }
    for (int i = 0; i < 3; i++)
        free(out[i]);
    free(h);
    free(w);
}

static void every_format_ends_at_an_equilibrium(void **state)
{
    (void)state;
    for (int type = 0; type < DIL_TYPE_COUNT; type++) {
        const grid *g = grid_get((dil_type)type);
        if (g)
            check_type((dil_type)type, g->block == 256 ? 256 : 128);
    }
    assert_true(n_restless > 100); /* who counts nobody would not have found the others at rest either */
}

/* Players that could still do better, of a matrix with several super-blocks in a row, whose numbers disturb each other. */
static void super_blocks_come_to_rest(void **state)
{
    static const dil_type types[] = {DIL_TYPE_Q2_K, DIL_TYPE_Q3_K, DIL_TYPE_IQ1_S};
    enum { COLUMNS = 512, MANY = 224 };
    dil_error err;
    team *workers = NULL;
    (void)state;
    ok(team_new(&workers, 2, &err), &err);
    float *h = curvature(COLUMNS), *w = malloc((size_t)MANY * COLUMNS * sizeof *w);
    uint8_t *out = malloc((size_t)MANY * COLUMNS);
    metric *m = metric_for(h, COLUMNS, 0.01f, workers);
    for (int i = 0; i < MANY * COLUMNS; i++)
        w[i] = (uniform() + uniform() + uniform()) * 0.08f;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        round_report r;
        round_task t = {.type = types[i], .rows = MANY, .columns = COLUMNS, .w = w, .m = m, .most_sweeps = 60};
        ok(round_matrix(&t, workers, out, &r, &err), &err);
        if (r.checked.scales < 250 || r.checked.restless_codes || r.checked.restless_scales)
            fail_msg("%s: of %d scales %d could still do better, and %d codes", format_get(types[i])->name, (int)r.checked.scales,
                     (int)r.checked.restless_scales, (int)r.checked.restless_codes);
    }
    metric_free(m);
    team_free(workers);
    free(h);
    free(w);
    free(out);
}

/* A group whose values are those of the other shift finds it, scale and words at rest. */
static void a_group_finds_its_shift(void **state)
{
    enum { N = 32 };
    const grid *g = grid_get(DIL_TYPE_IQ1_S);
    float h[N * N] = {0}, own[N], x[N], wanted[N], grad[N];
    unit_curve units[N / 8];
    grid_borders borders;
    (void)state;
    grid_borders_of(g, &borders);
    for (int i = 0; i < N; i++)
        h[i * N + i] = own[i] = 1.0f;
    for (int i = 0; i < N / 8; i++)
        unit_curve_of(h, N, 8, &units[i]);
    for (int down = 0; down < 2; down++) {
        grid_block b = {.d = 0.25f, .scale = {3}, .min = {(uint8_t)(down ? CODEBOOK_SHIFT_UP : CODEBOOK_SHIFT_DOWN)}};
        group_curve curve = {0};
        for (int i = 0; i < N; i += 8) {
            codebook_read(g->book, (unsigned)(40 * i + 7), (unsigned)down, b.code + i);
            for (int j = i; j < i + 8; j++) {
                wanted[j] = grid_scale(g, &b, 0) * (float)g->level[b.code[j]];
                b.code[j] ^= 1;
                x[j] = grid_scale(g, &b, 0) * (float)g->level[b.code[j]];
                grad[j] = x[j] - wanted[j];
            }
        }
        group_player p = {g, &borders, &b, 0, h, N, own, units, x, grad, &curve};
        for (int i = 0; i < 4 && group_respond(&p, false); i++) {}
        assert_int_equal(b.min[0], down ? CODEBOOK_SHIFT_DOWN : CODEBOOK_SHIFT_UP);
        for (int j = 0; j < N; j++) {
            assert_int_equal(codebook_shift(b.code[j]), b.min[0]);
            assert_true(x[j] == wanted[j] && fabsf(grad[j]) < 1e-6f);
        }
    }
}

static void wrong_shapes_are_refused(void **state)
{
    dil_error err;
    team *workers = NULL;
    float w[96] = {0};
    uint8_t out[512];
    round_report r;
    (void)state;
    ok(team_new(&workers, 1, &err), &err);
    float *h = curvature(96);
    metric *m = metric_for(h, 96, 0.01f, workers);
    round_task t = {.type = DIL_TYPE_Q4_K, .rows = 1, .columns = 96, .w = w, .m = m};
    assert_int_equal(round_matrix(&t, workers, out, &r, &err), DIL_BAD_ARGUMENT);
    t.type = DIL_TYPE_F16;
    assert_int_equal(round_matrix(&t, workers, out, &r, &err), DIL_BAD_ARGUMENT);
    metric_free(m);
    free(h);
    team_free(workers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(importance_is_what_remains_after_the_others_answered),
                                       cmocka_unit_test(bad_curvature_is_refused),
                                       cmocka_unit_test(every_format_ends_at_an_equilibrium),
                                       cmocka_unit_test(super_blocks_come_to_rest),
                                       cmocka_unit_test(a_group_finds_its_shift),
                                       cmocka_unit_test(wrong_shapes_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
