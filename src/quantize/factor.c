#include "quantize/factor.h"

#include <math.h>

#include "base/mem.h"
#include "base/status.h"

#define LEAST_DAMPING 1e-6f
#define MOST_DAMPING 10.0f
#define BAND 64 /* columns that are factored between two meetings of the workers, and inverted by one of them */

static double dot(const double *a, const double *b, int n)
{
    double lane[8] = {0};
    int i = 0;
    for (; i + 8 <= n; i += 8)
        for (int k = 0; k < 8; k++)
            lane[k] += a[i + k] * b[i + k];
    for (; i < n; i++)
        lane[0] += a[i] * b[i];
    return ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7]));
}

/* Row i of L within columns first .. last; those before are there. */
static void factor_row(double *l, int n, int i, int first, int last)
{
    double *row = l + (size_t)i * (size_t)n;
    for (int j = first; j < last && j < i; j++)
        row[j] = (row[j] - dot(row, l + (size_t)j * (size_t)n, j)) / l[(size_t)j * (size_t)n + (size_t)j];
}

static void factor_rows_below(void *ctx, int worker)
{
    const factor *f = ctx;
    int last = f->band + BAND < f->n ? f->band + BAND : f->n;
    (void)worker;
    for (int i = last + (int)team_claim(f->workers); i < f->n; i = last + (int)team_claim(f->workers))
        factor_row(f->l, f->n, i, f->band, last);
}

/* false: not positive definite. */
static bool factorise(factor *f)
{
    for (f->band = 0; f->band < f->n; f->band += BAND) {
        int last = f->band + BAND < f->n ? f->band + BAND : f->n;
        for (int i = f->band; i < last; i++) {
            double *row = f->l + (size_t)i * (size_t)f->n;
            factor_row(f->l, f->n, i, f->band, last);
            double square = row[i] - dot(row, row, i);
            if (!(square > 1e-12 * row[i])) /* NaN too */
                return false;
            row[i] = sqrt(square);
        }
        team_run(f->workers, factor_rows_below, f);
    }
    return true;
}

/* Bands of columns of L^-1, row by row: row i is (e_i - sum over j < i of L_ij row j) / L_ii. */
static void invert_bands(void *ctx, int worker)
{
    const factor *f = ctx;
    size_t n = (size_t)f->n;
    (void)worker;
    for (size_t first = (size_t)team_claim(f->workers) * BAND; first < n; first = (size_t)team_claim(f->workers) * BAND) {
        size_t width = n - first < BAND ? n - first : BAND;
        for (size_t i = first; i < n; i++) {
            double sum[BAND] = {0};
            const double *l = f->l + i * n;
            for (size_t j = first; j < i; j++)
                for (size_t k = 0; k < width; k++)
                    sum[k] -= l[j] * f->inverse[j * n + first + k];
            if (i - first < width)
                sum[i - first] += 1.0;
            for (size_t k = 0; k < width; k++)
                f->inverse[i * n + first + k] = sum[k] / l[i];
        }
    }
}

static dil_status check(const float *h, int n, double *mean, dil_error *err)
{
    *mean = 0;
    for (size_t i = 0; i < (size_t)n * (size_t)n; i++)
        if (!isfinite(h[i]))
            return DIL_FAIL(err, DIL_FORMAT, "curvature: wanted finite numbers, found %g in row %zu", (double)h[i], i / (size_t)n);
    for (size_t i = 0; i < (size_t)n; i++) {
        double d = (double)h[i * (size_t)n + i];
        if (d < 0)
            return DIL_FAIL(err, DIL_FORMAT, "curvature: wanted no negative diagonal, found %g in row %zu", d, i);
        *mean += d / n;
    }
    if (!(*mean > 0)) /* nothing was ever seen: every direction alike */
        *mean = 1;
    return DIL_OK;
}

bool factor_new(factor *out, int n, team *workers)
{
    *out = (factor){.n = n, .workers = workers};
    out->l = mem_alloc((size_t)n * (size_t)n * sizeof(double), MEM_MISC);
    out->inverse = mem_calloc((size_t)n * (size_t)n, sizeof(double), MEM_MISC);
    return out->l && out->inverse;
}

void factor_free(factor *f)
{
    mem_free(f->l);
    mem_free(f->inverse);
    *f = (factor){0};
}

static void load(factor *f, const float *h, bool reversed, double add)
{
    size_t n = (size_t)f->n;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            f->l[i * n + j] = (double)(reversed ? h[(n - 1 - i) * n + n - 1 - j] : h[i * n + j]) + (i == j ? add : 0);
}

dil_status factor_damped(factor *f, const float *h, bool reversed, float damping, dil_error *err)
{
    double mean;
    DIL_TRY(check(h, f->n, &mean, err));
    for (; damping <= MOST_DAMPING; damping = damping > 0.0f ? damping * 10.0f : LEAST_DAMPING) {
        f->added = (double)damping * mean;
        load(f, h, reversed, f->added);
        if (!factorise(f))
            continue;
        team_run(f->workers, invert_bands, f);
        return DIL_OK;
    }
    return DIL_FAIL(err, DIL_FORMAT,
                    "curvature: wanted a positive semidefinite matrix, found none even with %g of its diagonal added",
                    (double)MOST_DAMPING);
}
