#include "train/muon.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "train/product.h"

#define MOMENTUM 0.95f
#define STEPS 5

struct muon {
    net *n;
    team *workers;
    product_kind kind;
    bool all;
    int n_matrices;
    size_t values, words; /* per worker: of one matrix; of one operand */
    float *x;             /* [workers][4][values] */
    uint32_t *operands;   /* [workers][2][words] */
    /* of the step at hand */
    float *momentum, lr, decay, g_scale;
};

bool muon_takes(const muon *m, const parameter *p)
{
    bool attention = strstr(p->name, ".attn_") != NULL, ffn = strstr(p->name, ".ffn_") != NULL;
    return (p->kind == PARAMETER_MATRIX && (attention || (m->all && ffn))) || (m->all && p->kind == PARAMETER_EXPERTS);
}

dil_status muon_new(muon **out, net *n, bool all, team *workers, const kernels *k, dil_error *err)
{
    muon *m = mem_calloc(1, sizeof *m, MEM_MISC);
    if (!m)
        return DIL_FAIL(err, DIL_NO_MEMORY, "muon: no memory");
    *m = (muon){.n = n, .workers = workers, .kind = {k, net_compute_of(n) == NET_COMPUTE_BF16}, .all = all};
    size_t longest = 1;
    for (int i = 0; i < net_n_parameters(n); i++) {
        const parameter *p = net_parameter_at(n, i);
        size_t side = (size_t)(p->rows > p->columns ? p->rows : p->columns);
        m->n_matrices += muon_takes(m, p) ? p->n : 0;
        longest = muon_takes(m, p) && side > longest ? side : longest;
    }
    m->values = longest * longest;
    m->words = (longest + PRODUCT_COLS) * (longest + PRODUCT_COLS);
    m->x = mem_calloc((size_t)team_size(workers) * 4 * m->values, sizeof *m->x, MEM_MISC);
    m->operands = mem_calloc((size_t)team_size(workers) * 2 * m->words, sizeof *m->operands, MEM_MISC);
    if (!m->x || !m->operands) {
        muon_free(m);
        return DIL_FAIL(err, DIL_NO_MEMORY, "muon: no memory for matrices of %zu values", m->values);
    }
    *out = m;
    return DIL_OK;
}

void muon_free(muon *m)
{
    if (!m)
        return;
    mem_free(m->x);
    mem_free(m->operands);
    mem_free(m);
}

/* c = a b, or a b^T, of contiguous matrices: a [n_rows][n_sum]. */
static void multiply(const muon *m, int worker, const float *a, const float *b, bool transposed, int n_rows, int n_sum,
                     int n_columns, float *c)
{
    uint32_t *left = m->operands + (size_t)worker * 2 * m->words, *right = left + m->words;
    if (transposed)
        prepare_transposed(m->kind, (rows){b, (size_t)n_sum, NULL}, n_columns, n_sum, right, left);
    else
        prepare_rows(m->kind, (rows){b, (size_t)n_columns, NULL}, n_sum, n_columns, n_sum, right);
    pack_rows(m->kind, (rows){a, (size_t)n_sum, NULL}, n_rows, n_sum, left);
    product_run(m->kind, &(product_block){left, (size_t)product_steps(m->kind, n_sum), n_rows, right, n_sum, n_sum, n_columns, c,
                                          (size_t)n_columns, false});
}

/* x [n_rows][n_columns], n_rows <= n_columns, towards the nearest orthogonal matrix: X <- a X + (b A + c A A) X, A = X X^T, five
 * times; the coefficients are Jordan's, which bring singular values to about 1 (0.7 .. 1.2) from anywhere in (0, 1]. */
static void orthogonalise(const muon *m, int worker, float *x, int n_rows, int n_columns)
{
    const kernels *k = m->kind.k;
    float *square = m->x + (size_t)worker * 4 * m->values + m->values, *twice = square + m->values, *next = twice + m->values;
    int64_t count = (int64_t)n_rows * n_columns, square_count = (int64_t)n_rows * n_rows;
    k->scale(x, 1.0f / (sqrtf(k->training.dot(x, x, count)) + 1e-7f), count);
    for (int i = 0; i < STEPS; i++) {
        multiply(m, worker, x, x, true, n_rows, n_columns, n_rows, square);
        multiply(m, worker, square, square, false, n_rows, n_rows, n_rows, twice);
        k->scale(twice, 2.0315f, square_count);
        k->add_scaled(twice, square, -4.7750f, square_count);
        multiply(m, worker, twice, x, false, n_rows, n_rows, n_columns, next);
        k->scale(x, 3.4445f, count);
        k->add(x, next, count);
    }
}

/* Nesterov's momentum of a matrix whose values begin at w, its orthogonal form, the step. */
static void step_matrix(muon *m, float *w, const float *g, int64_t n_out, int64_t n_in, int worker)
{
    const kernels *k = m->kind.k;
    float *momentum = m->momentum + (w - net_values(m->n)), *x = m->x + (size_t)worker * 4 * m->values;
    bool wide = n_out <= n_in;
    int64_t n_rows = wide ? n_out : n_in, n_columns = wide ? n_in : n_out;
    for (int64_t i = 0; i < n_out; i++)
        for (int64_t j = 0; j < n_in; j++) {
            int64_t at = i * n_in + j;
            float d = g[at] * m->g_scale;
            momentum[at] = MOMENTUM * momentum[at] + d;
            x[wide ? at : j * n_out + i] = MOMENTUM * momentum[at] + d;
        }
    orthogonalise(m, worker, x, (int)n_rows, (int)n_columns);
    k->scale(w, 1.0f - m->lr * m->decay, n_out * n_in);
    float step = m->lr * 0.2f * sqrtf((float)n_columns);
    for (int64_t i = 0; i < n_out; i++)
        for (int64_t j = 0; j < n_in; j++)
            w[i * n_in + j] -= step * x[wide ? i * n_in + j : j * n_out + i];
}

/* Items are matrices, one parameter after the other. */
static void step_matrices(void *ctx, int worker)
{
    muon *m = ctx;
    for (int64_t item; (item = team_claim(m->workers)) < m->n_matrices;)
        for (int i = 0; i < net_n_parameters(m->n); i++) {
            const parameter *p = net_parameter_at(m->n, i);
            if (!muon_takes(m, p))
                continue;
            if (item < p->n) {
                size_t at = (size_t)item * (size_t)p->rows * (size_t)p->columns;
                step_matrix(m, p->w + at, p->g + at, p->rows, p->columns, worker);
                break;
            }
            item -= p->n;
        }
}

void muon_step(muon *m, float *momentum, float lr, float weight_decay, float g_scale)
{
    m->momentum = momentum;
    m->lr = lr;
    m->decay = weight_decay;
    m->g_scale = g_scale;
    team_run(m->workers, step_matrices, m);
}
