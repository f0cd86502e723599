#include "quantize/metric.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "quantize/factor.h"

/*
 * H = R R^T with R upper triangular and U = R^-1, so that H^-1 = U^T U: the error that column j leaves is best made up for by the later
 * columns k in the shares U_jk / U_jj, and what then remains costs 1 / U_jj^2 per square. With the order of columns reversed, R is
 * an ordinary Cholesky factor L.
 */
static bool allocate(metric *m, factor *f)
{
    size_t n = (size_t)m->n, words = prepared_words(m->kind, m->n, m->n);
    m->h = mem_alloc(n * n * sizeof(float), MEM_MISC);
    m->inverse_own = mem_alloc(n * sizeof(float), MEM_MISC);
    m->product = mem_alloc(words * sizeof(uint32_t), MEM_MISC);
    m->importance = mem_alloc(n * sizeof(float), MEM_MISC);
    m->feedback = mem_alloc(n * n * sizeof(float), MEM_MISC);
    m->feed = mem_alloc(words * sizeof(uint32_t), MEM_MISC);
    return m->h && m->inverse_own && m->product && m->importance && m->feedback && m->feed && factor_new(f, m->n, f->workers);
}

static void keep(metric *m, const factor *f, const float *h)
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
        m->h[i * n + i] = (float)((double)h[i * n + i] + f->added);
        m->inverse_own[i] = m->h[i * n + i] > 0.0f ? 1.0f / m->h[i * n + i] : 0.0f;
    }
    prepare_rows(m->kind, (rows){m->h, n, NULL}, m->n, m->n, m->n, m->product);
}

static dil_status solve(metric *m, factor *f, const float *h, float damping, dil_error *err)
{
    DIL_TRY(factor_damped(f, h, true, damping, err));
    m->damping = (float)f->added;
    keep(m, f, h);
    return DIL_OK;
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
    factor_free(&f);
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
