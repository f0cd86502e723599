#include "machine/costs.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "machine/kernel_work.h"

#define FEW_COLUMNS 512
#define FEW_DIM 64
#define FEW_QUERIES 3
#define FEW_PANELS 2
#define REPETITION_NS 300000
#define FAR_REPETITIONS 3 /* each of them takes milliseconds */
#define STALL_MOST 1.5
#define ROUNDS 3
#define ONE_SECONDS 0.006
#define CALLS_MOST 512

typedef struct measuring {
    job *j;
    kernel_work w;
    double seconds;
    bool typical;       /* what calls mostly take, instead of the least */
    int round, n_calls; /* rounds measure the same in the same order */
    double known[CALLS_MOST];
    int64_t amounts[CALLS_MOST];
} measuring;

static void prepare(measuring *m, void (*work)(job *, int))
{
    m->j->work = work;
    job_once(m->j);
}

static double of_run(const measuring *m, double seconds, int least)
{
    const machine_rate run = job_run(m->j, seconds, least);
    return (m->typical ? run.median : run.best) / (double)m->j->amount;
}

/* Seconds of one call. Over the rounds: the best, so that a slow moment of a shared machine does not meet one kernel alone; or what it
 * mostly takes, the mean of the medians. */
static double call(measuring *m, void (*work)(job *, int))
{
    const int n = m->n_calls++ % CALLS_MOST;
    double *known = &m->known[n];
    m->j->work = work;
    m->j->amount = m->amounts[n];
    if (m->round == 0)
        job_calibrate(m->j, REPETITION_NS);
    m->amounts[n] = m->j->amount;
    const double took = of_run(m, m->seconds, JOB_REPETITIONS);
    if (m->round == 0)
        *known = took;
    else if (m->typical)
        *known += (took - *known) / (m->round + 1);
    else
        *known = fmin(*known, took);
    return *known;
}

/* Of one that goes over all that is far away: long enough as it is. */
static double far(measuring *m, void (*work)(job *, int))
{
    m->j->work = work;
    m->j->amount = 1;
    return of_run(m, 0, FAR_REPETITIONS);
}

/* Never below 0: the difference of two measurements may be. */
static double per(double more, double less, double n) { return more > less ? (more - less) / n : 0; }

static double product(measuring *m, void (*work)(job *, int), int64_t columns, int n)
{
    m->w.columns = columns;
    m->w.n = n;
    return call(m, work) / WORK_PANELS;
}

static size_t common_factor(size_t a, size_t b) { return b ? common_factor(b, a % b) : a; }

/* Seconds of a call with far panels, one after the other or all over the place. */
static double far_call(measuring *m, void (*work)(job *, int), int n_panels, bool jump)
{
    const size_t n = m->w.far_bytes / (panel_bytes(m->w.type, m->w.columns) * (size_t)n_panels);
    m->w.n_panels = n_panels;
    m->w.jump = 1;
    if (jump) /* two thirds of the way, to an odd number that shares no factor with n */
        for (m->w.jump = n * 2 / 3 | 1; common_factor(m->w.jump, n) > 1; m->w.jump += 2)
            ;
    return far(m, work) / (double)n;
}

/* Seconds of a panel: near, of the product with panels at hand; read, of its bytes alone. */
static double measure_stall(measuring *m, void (*work)(job *, int), int n, double near, double read)
{
    m->w.n = n;
    return fmin(fmax(far_call(m, work, WORK_PANELS, false) / WORK_PANELS - near, 0) / read, STALL_MOST);
}

static double measure_start(measuring *m)
{
    m->w.type = DIL_TYPE_Q8_0; /* the format with the least arithmetic per byte */
    m->w.columns = WORK_COLUMNS;
    m->w.n = 1;
    if (m->w.far_bytes < 16 * FEW_PANELS * panel_bytes(m->w.type, WORK_COLUMNS))
        return 0;
    const double on = far_call(m, work_gemv_far, FEW_PANELS, false);
    return per(far_call(m, work_gemv_far, FEW_PANELS, true), on, 1);
}

static const int32_t gemm_tokens[COST_GEMM_POINTS] = {8, 16, 32, 64, WORK_TOKENS};
int32_t cost_gemm_tokens(int point) { return gemm_tokens[point]; }

static linear_cost measure_linear(measuring *m, dil_type type)
{
    m->w.type = type;
    if (!m->w.k->linear[type].gemv || !format_get(type) || panel_bytes(type, WORK_COLUMNS) == 0)
        return (linear_cost){0};
    prepare(m, work_fill_panels);
    linear_cost c = {0};
    double times[COST_GEMM_POINTS];
    const double one = product(m, work_gemv, WORK_COLUMNS, 1), one_few = product(m, work_gemv, FEW_COLUMNS, 1);
    const double some = product(m, work_gemv, WORK_COLUMNS, GEMV_TOKENS);
    c.value = per(one, one_few, WORK_COLUMNS - FEW_COLUMNS);
    c.row = per(one, c.value * WORK_COLUMNS, 1);
    c.more = per(some, one, (double)(GEMV_TOKENS - 1) * WORK_COLUMNS);
    for (int i = 0; i < COST_GEMM_POINTS; i++)
        times[i] = product(m, work_gemm, WORK_COLUMNS, gemm_tokens[i]);
    const double many = times[COST_GEMM_POINTS - 1], many_few = product(m, work_gemm, FEW_COLUMNS, WORK_TOKENS);
    c.output = per(many_few, (many - many_few) / (WORK_COLUMNS - FEW_COLUMNS) * FEW_COLUMNS, WORK_TOKENS);
    for (int i = 0; i < COST_GEMM_POINTS; i++)
        c.gemm[i] = per(times[i], gemm_tokens[i] * c.output, WORK_COLUMNS);
    return c;
}

/* The rest of c: far panels take long, so that they come once, after the rounds. */
static void measure_far(measuring *m, dil_type type, linear_cost *c)
{
    if (c->value <= 0)
        return;
    const double bytes = (double)panel_bytes(type, WORK_COLUMNS);
    c->stall = c->stall_few = 1;
    if ((double)m->w.far_bytes < bytes * WORK_PANELS)
        return;
    m->w.type = type;
    m->w.columns = WORK_COLUMNS;
    const double read = far(m, work_read_far) * bytes / (double)m->w.far_bytes;
    c->stall = measure_stall(m, work_gemv_far, 1, c->row + WORK_COLUMNS * c->value, read);
    c->stall_few = measure_stall(m, work_gemm_far, gemm_tokens[0], cost_gemm(c, WORK_COLUMNS, gemm_tokens[0]), read);
}

/* Seconds of a page. */
static double page(measuring *m, int dim, int n_rows)
{
    m->w.columns = dim;
    m->w.n = n_rows;
    return call(m, work_attend) / ATTN_CHUNK;
}

static void measure_attention(measuring *m, dil_type type, kernel_costs *out)
{
    if (!format_get(type) || kv_page_bytes(type, WORK_HEAD_DIM) == 0)
        return;
    m->w.type = type;
    out->store[type] = call(m, work_store) / (2.0 * KV_PAGE * WORK_HEAD_DIM);
    prepare(m, work_fill_pages);
    const double many = page(m, WORK_HEAD_DIM, WORK_QUERIES), few = page(m, WORK_HEAD_DIM, FEW_QUERIES);
    const double many_short = page(m, FEW_DIM, WORK_QUERIES), few_short = page(m, FEW_DIM, FEW_QUERIES);
    const double row = per(many, few, WORK_QUERIES - FEW_QUERIES),
                 row_short = per(many_short, few_short, WORK_QUERIES - FEW_QUERIES);
    attention_cost *c = &out->attention[type];
    c->row_value = per(row, row_short, WORK_HEAD_DIM - FEW_DIM);
    c->row = per(row, c->row_value * WORK_HEAD_DIM, 1);
    const double whole = per(few, FEW_QUERIES * row, 1), whole_short = per(few_short, FEW_QUERIES * row_short, 1);
    c->page_value = per(whole, whole_short, WORK_HEAD_DIM - FEW_DIM);
    c->page = per(whole, c->page_value * WORK_HEAD_DIM, 1);
}

static vector_cost measure_vectors(measuring *m)
{
    const double n = (double)WORK_ROWS * WORK_COLUMNS;
    vector_cost v = {.norm = call(m, work_norm) / n,
                     .quantize = call(m, work_quantize) / n,
                     .add = call(m, work_add_rows) / n,
                     .rope = call(m, work_rotate) / n,
                     .hadamard = call(m, work_hadamard) / n,
                     .act = {call(m, work_silu) / n, call(m, work_gelu) / n, call(m, work_swiglu_oai) / n},
                     .angle = call(m, work_angles) / n};
    if (m->w.k->round_bf16)
        v.round_bf16 = call(m, work_round_rows) / n;
    return v;
}

/* The last round of what is near knows the best of all. */
static dil_status measure_all(measuring *m, kernel_costs *out, dil_progress_fn progress, void *user, dil_error *err)
{
    for (m->round = 0; m->round < ROUNDS; m->round++) {
        m->n_calls = 0;
        out->vector = measure_vectors(m);
        for (int type = 0; type < DIL_TYPE_COUNT; type++) {
            measure_attention(m, (dil_type)type, out);
            out->linear[type] = measure_linear(m, (dil_type)type);
            if (progress && !progress(user, "kernels", (uint64_t)(m->round * DIL_TYPE_COUNT + type) + 1, ROUNDS * DIL_TYPE_COUNT))
                return DIL_FAIL(err, DIL_CANCELLED, "machine: measuring was cancelled");
        }
    }
    for (int type = 0; type < DIL_TYPE_COUNT; type++)
        measure_far(m, (dil_type)type, &out->linear[type]);
    out->start = measure_start(m);
    return DIL_OK;
}

static void end(measuring *m)
{
    if (!m)
        return;
    work_give_room(&m->w);
    mem_free(m->j);
    mem_free(m);
}

/* [owned: free with end] */
static dil_status begin(measuring **out, const machine *on, const kernels *k, team *workers, double seconds, uint64_t far_bytes,
                        dil_error *err)
{
    measuring *m = mem_calloc(1, sizeof *m, MEM_MISC);
    if (m) {
        m->w = (kernel_work){.k = k, .far_bytes = (size_t)far_bytes};
        m->seconds = seconds;
        m->j = mem_calloc(1, sizeof *m->j, MEM_MISC);
    }
    if (!m || !m->j || !work_take_room(&m->w, on, (size_t)team_size(workers))) {
        end(m);
        return DIL_FAIL(err, DIL_NO_MEMORY, "machine: no memory to measure kernels");
    }
    m->j->workers = workers;
    m->j->ctx = &m->w;
    prepare(m, work_fill);
    prepare(m, work_fill_far);
    *out = m;
    return DIL_OK;
}

dil_status costs_measure(kernel_costs *out, const machine *m, const kernels *k, team *workers, double seconds,
                         dil_progress_fn progress, void *user, dil_error *err)
{
    kernel_costs c = {0};
    measuring *all;
    DIL_TRY(begin(&all, m, k, workers, seconds, COSTS_FAR_BYTES, err));
    dil_status status = measure_all(all, &c, progress, user, err);
    end(all);
    if (status == DIL_OK)
        *out = c;
    return status;
}

dil_status costs_measure_now(kernel_costs *out, const machine *m, const kernels *k, team *workers, const costs_wanted *wanted,
                             dil_error *err)
{
    measuring *some;
    memset(out, 0, sizeof *out);
    DIL_TRY(begin(&some, m, k, workers, ONE_SECONDS, wanted->far_bytes, err));
    some->typical = true;
    const dil_type *w = wanted->weights;
    const int n_types = w[0] == w[1] ? 1 : 2;
    for (; some->round < ROUNDS; some->round++) {
        some->n_calls = 0;
        for (int i = 0; i < n_types; i++)
            out->linear[w[i]] = measure_linear(some, w[i]);
        measure_attention(some, wanted->k, out);
        if (wanted->v != wanted->k)
            measure_attention(some, wanted->v, out);
    }
    some->j->pause_ns = (uint64_t)(fmax(wanted->pause, 0) * 1e9);
    for (int i = 0; i < n_types; i++)
        measure_far(some, w[i], &out->linear[w[i]]);
    end(some);
    return DIL_OK;
}

double cost_together(double units, double bytes, double stall)
{
    const double both = units + stall * bytes;
    return both > bytes ? both : bytes;
}

double cost_gemm(const linear_cost *l, int64_t columns, int32_t n_tokens)
{
    const int last = COST_GEMM_POINTS - 1;
    double g;
    if (n_tokens >= gemm_tokens[last]) {
        g = l->gemm[last] * n_tokens / gemm_tokens[last];
    } else {
        int i = 0;
        while (i + 2 <= last && n_tokens >= gemm_tokens[i + 1])
            i++;
        const double share = (double)(n_tokens - gemm_tokens[i]) / (gemm_tokens[i + 1] - gemm_tokens[i]);
        g = fmax(l->gemm[i] + share * (l->gemm[i + 1] - l->gemm[i]), 0.5 * l->gemm[0]);
    }
    return n_tokens * l->output + (double)columns * g;
}

double cost_panel(const linear_cost *l, const kernels *k, dil_type type, int64_t columns, int32_t n_tokens)
{
    const double n = (double)columns;
    if (n_tokens >= k->gemm_from[type])
        return cost_gemm(l, columns, n_tokens);
    const int32_t calls = (n_tokens + GEMV_TOKENS - 1) / GEMV_TOKENS;
    return calls * (l->row + n * l->value) + (n_tokens - calls) * n * l->more;
}

double cost_stall(const linear_cost *l, int32_t n_tokens)
{
    const double share = n_tokens >= gemm_tokens[0] ? 1 : (n_tokens - 1.0) / (gemm_tokens[0] - 1);
    return l->stall + share * (l->stall_few - l->stall);
}
