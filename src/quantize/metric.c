#include "quantize/metric.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"

#define MOST_DAMPING 10.0f
#define BAND 64 /* columns that are factored between two meetings of the workers, and inverted by one of them */

/*
 * H = R R^T with R upper triangular and U = R^-1, so that H^-1 = U^T U: the error that column j leaves is best made up for by the later
 * columns k in the shares U_jk / U_jj, and what then remains costs 1 / U_jj^2 per square. With the order of columns reversed, R is
 * an ordinary Cholesky factor L, which is what is computed here, in double.
 */
typedef struct factor {
    double *l, *inverse; /* [n][n], of the reversed H */
    int n, band;
    team *workers;
} factor;

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

static bool allocate(metric *m, factor *f)
{
    size_t n = (size_t)m->n, words = prepared_words(m->kind, m->n, m->n);
    m->h = mem_alloc(n * n * sizeof(float), MEM_MISC);
    m->inverse_own = mem_alloc(n * sizeof(float), MEM_MISC);
    m->product = mem_alloc(words * sizeof(uint32_t), MEM_MISC);
    m->importance = mem_alloc(n * sizeof(float), MEM_MISC);
    m->feedback = mem_alloc(n * n * sizeof(float), MEM_MISC);
    m->feed = mem_alloc(words * sizeof(uint32_t), MEM_MISC);
    f->l = mem_alloc(n * n * sizeof(double), MEM_MISC);
    f->inverse = mem_calloc(n * n, sizeof(double), MEM_MISC);
    return m->h && m->inverse_own && m->product && m->importance && m->feedback && m->feed && f->l && f->inverse;
}

/* The reversed H, with more on its diagonal. */
static void load(factor *f, const float *h, double add)
{
    size_t n = (size_t)f->n;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            f->l[i * n + j] = (double)h[(n - 1 - i) * n + n - 1 - j] + (i == j ? add : 0);
}

static void keep(metric *m, const factor *f, const float *h, double add)
{
    size_t n = (size_t)m->n;
    for (size_t j = 0; j < n; j++) {
        const double *u = f->inverse + (n - 1 - j) * n; /* row j of U, columns reversed */
        double own = u[n - 1 - j];
        m->importance[j] = (float)(1.0 / (own * own));
        for (size_t k = 0; k < n; k++)
            m->feedback[j * n + k] = k < j ? 0.0f : (float)-(u[n - 1 - k] / own);
    }
    prepare_rows(m->kind, (rows){m->feedback, n, NULL}, m->n, m->n, m->n, m->feed);
    for (size_t i = 0; i < n * n; i++)
        m->feedback[i] = -m->feedback[i];
    memcpy(m->h, h, n * n * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        m->h[i * n + i] = (float)((double)h[i * n + i] + add);
        m->inverse_own[i] = m->h[i * n + i] > 0.0f ? 1.0f / m->h[i * n + i] : 0.0f;
    }
    prepare_rows(m->kind, (rows){m->h, n, NULL}, m->n, m->n, m->n, m->product);
}

static dil_status solve(metric *m, factor *f, const float *h, float damping, dil_error *err)
{
    double mean;
    DIL_TRY(check(h, m->n, &mean, err));
    for (; damping <= MOST_DAMPING; damping *= 10) {
        load(f, h, (double)damping * mean);
        if (!factorise(f))
            continue;
        team_run(f->workers, invert_bands, f);
        m->damping = (float)((double)damping * mean);
        keep(m, f, h, (double)damping * mean);
        return DIL_OK;
    }
    return DIL_FAIL(err, DIL_FORMAT,
                    "curvature: wanted a positive semidefinite matrix, found none even with %g of its diagonal added",
                    (double)MOST_DAMPING);
}

dil_status metric_new(metric **out, const float *h, int n, float damping, const kernels *k, team *workers, dil_error *err)
{
    metric *m = mem_calloc(1, sizeof *m, MEM_MISC);
    factor f = {.n = n, .workers = workers};
    dil_status status = DIL_OK;
    if (m)
        *m = (metric){.n = n, .kind = {k, false}};
    if (!m || !allocate(m, &f))
        status = DIL_FAIL(err, DIL_NO_MEMORY, "curvature: no memory for %d x %d numbers", n, n);
    else
        status = solve(m, &f, h, damping, err);
    mem_free(f.l);
    mem_free(f.inverse);
    if (status == DIL_OK)
        *out = m;
    else
        metric_free(m);
    return status;
}

void metric_free(metric *m)
{
    if (!m)
        return;
    mem_free(m->h);
    mem_free(m->inverse_own);
    mem_free(m->product);
    mem_free(m->importance);
    mem_free(m->feedback);
    mem_free(m->feed);
    mem_free(m);
}
