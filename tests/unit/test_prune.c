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

#include "quantize/surgeon.h"
#include "theorem/random.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(columns_leave_as_least_squares_says),
                                       cmocka_unit_test(bad_curvature_is_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
