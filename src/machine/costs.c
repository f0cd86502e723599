#include "machine/costs.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "machine/job.h"

#define COLUMNS 2048
#define FEW_COLUMNS 512
#define PANELS 8
#define MANY 256 /* tokens */
#define HEAD_DIM 128
#define FEW_DIM 64
#define ROWS 48
#define FEW_ROWS 3
#define REPETITION_NS 300000
#define READ_STEP ((size_t)64 << 10) /* bytes per call of read_stream */
#define STALL_MOST 1.5
#define FAR_REPETITIONS 3 /* each of them takes milliseconds */
#define ROUNDS 3
#define ONE_SECONDS 0.006
#define CALLS_MOST 512
#define ORDINARY 0x2c /* bytes that are ordinary numbers as F16, BF16 and F32: no product is a special one */

/* Operands of one worker: tokens in every form a kernel may read, panels, pages, and room for results. */
typedef struct operands {
    _Alignas(64) float f[MANY * COLUMNS];
    _Alignas(64) float g[ROWS * COLUMNS];
    float d[MANY * COLUMNS / ACT_BLOCK], s[MANY * COLUMNS / ACT_BLOCK], s16[MANY * COLUMNS / ACT_BLOCK * 2];
    int32_t isum[MANY * COLUMNS / ACT_BLOCK], isum16[MANY * COLUMNS / ACT_BLOCK * 2];
    _Alignas(64) int8_t q[MANY * COLUMNS];
    _Alignas(64) uint16_t bf16[MANY * COLUMNS];
    _Alignas(64) float y[MANY * PANELS * PANEL_ROWS];
    _Alignas(64) uint8_t panels[PANELS * PANEL_ROWS * COLUMNS * sizeof(float)];
} operands;

typedef struct cost_work {
    const kernels *k;
    operands *of;     /* [workers] */
    uint8_t *scratch; /* [workers][scratch_bytes] */
    uint8_t *far;     /* [workers][far_bytes] */
    size_t far_bytes;
    size_t scratch_bytes, n_bytes; /* of one; of all that was mapped */
    dil_type type;
    int64_t k_columns;
    int n;
    double seconds;
    int n_panels;       /* of a call with far panels */
    size_t jump;        /* from call to call, in calls; without a factor in common with their number all are visited */
    bool typical;       /* medians of what is far, instead of the best */
    int round, n_calls; /* rounds measure the same in the same order */
    double best[CALLS_MOST];
} cost_work;

static act view(const operands *o)
{
    return (act){.f = o->f,
                 .q = o->q,
                 .d = o->d,
                 .s = o->s,
                 .isum = o->isum,
                 .s16 = o->s16,
                 .isum16 = o->isum16,
                 .bf16 = o->bf16,
                 .f_stride = COLUMNS,
                 .q_stride = COLUMNS,
                 .b_stride = COLUMNS / ACT_BLOCK,
                 .bf16_stride = COLUMNS};
}

/* Ones everywhere; weights of quantized types are any bytes, so that code books are read all over. */
static void fill(job *j, int worker)
{
    const cost_work *w = j->ctx;
    operands *o = &w->of[worker];
    for (size_t i = 0; i < sizeof o->f / sizeof *o->f; i++) {
        o->f[i] = 1;
        o->q[i] = 1;
        o->bf16[i] = 0x3f80;
    }
    for (size_t i = 0; i < sizeof o->g / sizeof *o->g; i++)
        o->g[i] = 1;
    for (size_t i = 0; i < sizeof o->d / sizeof *o->d * 2; i++) {
        o->d[i / 2] = 1;
        o->s[i / 2] = ACT_BLOCK;
        o->isum[i / 2] = ACT_BLOCK;
        o->s16[i] = ACT_BLOCK / 2;
        o->isum16[i] = ACT_BLOCK / 2;
    }
}

static void fill_panels(job *j, int worker)
{
    const cost_work *w = j->ctx;
    operands *o = &w->of[worker];
    memset(o->panels, ORDINARY, sizeof o->panels);
    if (!format_get(w->type)->is_quantized)
        return;
    uint32_t word = 1;
    for (size_t i = 0; i < sizeof o->panels; i++, word = word * 1664525u + 1013904223u)
        o->panels[i] = (uint8_t)(word >> 24);
}

static linear_args products(const cost_work *w, operands *o, const act *x, int worker)
{
    return (linear_args){.panels = o->panels,
                         .panel_bytes = panel_bytes(w->type, w->k_columns),
                         .n_panels = PANELS,
                         .k = w->k_columns,
                         .x = x,
                         .n_tokens = w->n,
                         .y = o->y,
                         .y_stride = PANELS * PANEL_ROWS,
                         .scratch = w->scratch + (size_t)worker * w->scratch_bytes};
}

static void gemv(job *j, int worker)
{
    const cost_work *w = j->ctx;
    operands *o = &w->of[worker];
    const act x = view(o);
    const linear_args a = products(w, o, &x, worker);
    for (int64_t i = 0; i < j->amount; i++)
        w->k->linear[w->type].gemv(&a);
}

static void gemm(job *j, int worker)
{
    const cost_work *w = j->ctx;
    operands *o = &w->of[worker];
    const act x = view(o);
    const linear_args a = products(w, o, &x, worker);
    for (int64_t i = 0; i < j->amount; i++)
        w->k->linear[w->type].gemm(&a);
}

/* Tokens through panels that are far away, one call for some of them as the engine does. */
static void far_products(job *j, int worker, linear_fn fn)
{
    const cost_work *w = j->ctx;
    operands *o = &w->of[worker];
    const act x = view(o);
    linear_args a = products(w, o, &x, worker);
    const size_t step = a.panel_bytes * (size_t)w->n_panels, n = w->far_bytes / step;
    a.n_panels = w->n_panels;
    for (int64_t i = 0; i < j->amount; i++)
        for (size_t at = 0; at < n; at++) {
            a.panels = w->far + (size_t)worker * w->far_bytes + at * w->jump % n * step;
            fn(&a);
        }
}

static void gemv_far(job *j, int worker)
{
    const cost_work *w = j->ctx;
    far_products(j, worker, w->k->linear[w->type].gemv);
}

static void gemm_far(job *j, int worker)
{
    const cost_work *w = j->ctx;
    far_products(j, worker, w->k->linear[w->type].gemm);
}

/* A chunk of pages as the engine walks it: scores, softmax, weighted sums. */
static void attend(job *j, int worker)
{
    const cost_work *w = j->ctx;
    operands *o = &w->of[worker];
    const int dim = (int)w->k_columns;
    const size_t row_bytes = attn_row_bytes(dim), page_bytes = kv_page_bytes(w->type, dim), score_stride = ATTN_SLOTS + 16;
    int32_t n_slots[ROWS];
    float m, l, *scores = o->g;
    for (int i = 0; i < w->n; i++)
        n_slots[i] = KV_PAGE;
    attn_page p = {.type = w->type, .head_dim = dim, .n_rows = w->n, .n_slots = n_slots};
    p.scratch = w->scratch + (size_t)worker * w->scratch_bytes;
    for (int64_t i = 0; i < j->amount; i++) {
        for (int r = 0; r < w->n; r++)
            w->k->attn_query(w->type, o->f, dim, 0.1f, (uint8_t *)o->bf16 + (size_t)r * row_bytes);
        for (int page = 0; page < ATTN_CHUNK; page++) {
            p.first_slot = page * KV_PAGE;
            p.page = o->panels + (size_t)page * page_bytes;
            w->k->attn_qk(&p, o->bf16, row_bytes, scores, score_stride);
        }
        for (int r = 0; r < w->n; r++)
            w->k->attn_softmax(w->type, scores + (size_t)r * score_stride, 0, ATTN_SLOTS, ATTN_SLOTS, 0, &m, &l);
        for (int page = 0; page < ATTN_CHUNK; page++) {
            p.first_slot = page * KV_PAGE;
            p.page = o->panels + (size_t)(ATTN_CHUNK + page) * page_bytes;
            w->k->attn_pv(&p, scores, score_stride, o->y, HEAD_DIM);
        }
    }
    memset(o->y, 0, sizeof o->y); /* sums do not grow without end */
}

static void store(job *j, int worker)
{
    const cost_work *w = j->ctx;
    operands *o = &w->of[worker];
    for (int64_t i = 0; i < j->amount; i++)
        for (int slot = 0; slot < KV_PAGE; slot++) {
            w->k->kv_store_k(w->type, o->panels, slot, o->f, HEAD_DIM);
            w->k->kv_store_v(w->type, o->panels + sizeof o->panels / 2, slot, o->f, HEAD_DIM);
        }
}

/* ---- rows of COLUMNS values ---- */

#define VECTOR_ROWS 8

#define VECTOR_WORK(name, call)                                            \
    static void name(job *j, int worker)                                   \
    {                                                                      \
        const cost_work *w = j->ctx;                                       \
        operands *o = &w->of[worker];                                      \
        for (int64_t i = 0; i < j->amount; i++)                            \
            for (size_t at = 0; at < VECTOR_ROWS * COLUMNS; at += COLUMNS) \
                call;                                                      \
    }

VECTOR_WORK(norm, w->k->rmsnorm(o->f + at, o->f, 1e-5f, COLUMNS, o->g + at))
VECTOR_WORK(round_rows, w->k->round_bf16(o->f + at, COLUMNS, o->bf16 + at))
VECTOR_WORK(add_rows, w->k->add(o->g + at, o->f + at, COLUMNS))
VECTOR_WORK(silu, w->k->silu_mul(o->f + at, o->f + at, o->g + at, COLUMNS))
VECTOR_WORK(gelu, w->k->gelu_mul(o->f + at, o->f + at, o->g + at, COLUMNS))
VECTOR_WORK(swiglu_oai, w->k->swiglu_oai_mul(o->f + at, o->f + at, o->g + at, COLUMNS))

static void rotate(job *j, int worker)
{
    const cost_work *w = j->ctx;
    operands *o = &w->of[worker];
    for (int64_t i = 0; i < j->amount; i++)
        for (size_t at = 0; at < VECTOR_ROWS * COLUMNS; at += FEW_DIM)
            w->k->rope(o->g + at, o->f, FEW_DIM, ROPE_HALVES);
    for (size_t at = 0; at < VECTOR_ROWS * COLUMNS; at++) /* as they were: a rotation by ones grows */
        o->g[at] = 1;
}

static void quantize(job *j, int worker)
{
    const cost_work *w = j->ctx;
    operands *o = &w->of[worker];
    quantize_args a = {.f = o->f,
                       .f_stride = COLUMNS,
                       .k = COLUMNS,
                       .n_rows = VECTOR_ROWS,
                       .q = o->q,
                       .d = o->d,
                       .s = o->s,
                       .isum = o->isum,
                       .q_stride = COLUMNS,
                       .b_stride = COLUMNS / ACT_BLOCK};
    for (int64_t i = 0; i < j->amount; i++)
        w->k->quantize(&a);
}

static void angles(job *j, int worker)
{
    const cost_work *w = j->ctx;
    double sum = 0;
    for (int64_t i = 0; i < j->amount; i++)
        for (int n = 0; n < VECTOR_ROWS * COLUMNS; n++)
            sum += cos(n * 0.37) + sin(n * 0.37);
    w->of[worker].y[0] = (float)sum;
}

/* ---- the measurements ---- */

/* Seconds of one call: the best of this round and of the same measurement in the rounds before, so that a slow moment of a shared
 * machine does not meet a kernel alone. */
static double call_least(job *j, void (*work)(job *, int), int least)
{
    cost_work *w = j->ctx;
    j->work = work;
    job_calibrate(j, REPETITION_NS);
    const machine_rate run = job_run(j, w->seconds, least);
    const double took = (w->typical && least == FAR_REPETITIONS ? run.median : run.best) / (double)j->amount;
    double *best = &w->best[w->n_calls++ % CALLS_MOST];
    *best = w->round == 0 || took < *best ? took : *best;
    return *best;
}

static double call(job *j, void (*work)(job *, int)) { return call_least(j, work, JOB_REPETITIONS); }

/* Never below 0: the difference of two measurements may be. */
static double per(double more, double less, double n) { return more > less ? (more - less) / n : 0; }

static double product(job *j, void (*work)(job *, int), int64_t columns, int n)
{
    cost_work *w = j->ctx;
    w->k_columns = columns;
    w->n = n;
    return call(j, work) / PANELS;
}

/* What the same bytes take when nothing else is done with them. */
static void read_far(job *j, int worker)
{
    const cost_work *w = j->ctx;
    uint64_t sum = 0;
    for (int64_t i = 0; i < j->amount; i++)
        for (size_t at = 0; at < w->far_bytes; at += READ_STEP)
            sum ^= w->k->read_stream(w->far + (size_t)worker * w->far_bytes + at, READ_STEP);
    atomic_fetch_xor_explicit(&j->sink, sum, memory_order_relaxed);
}

static size_t common_factor(size_t a, size_t b) { return b ? common_factor(b, a % b) : a; }

/* Seconds of a call with far panels, one after the other or all over the place. */
static double far_call(job *j, void (*work)(job *, int), int n_panels, bool jump)
{
    cost_work *w = j->ctx;
    const size_t n = w->far_bytes / (panel_bytes(w->type, w->k_columns) * (size_t)n_panels);
    w->n_panels = n_panels;
    w->jump = 1;
    if (jump) /* two thirds of the way, to an odd number that shares no factor with n */
        for (w->jump = n * 2 / 3 | 1; common_factor(w->jump, n) > 1; w->jump += 2)
            ;
    return call_least(j, work, FAR_REPETITIONS) / (double)n;
}

/* near: seconds of a panel that is at hand; work: the product that takes so long. */
static double measure_stall(job *j, void (*work)(job *, int), int n, double near)
{
    cost_work *w = j->ctx;
    const double bytes = (double)panel_bytes(w->type, COLUMNS);
    if ((double)w->far_bytes < bytes * PANELS)
        return 1;
    w->k_columns = COLUMNS;
    w->n = n;
    const double read = call_least(j, read_far, FAR_REPETITIONS) * bytes / (double)w->far_bytes; /* one after the other: */
    const double far = far_call(j, work, PANELS, false) / PANELS;
    return fmin(fmax(far - near, 0) / read, STALL_MOST);
}

#define FEW_PANELS 2

static double measure_start(job *j)
{
    cost_work *w = j->ctx;
    w->type = DIL_TYPE_Q8_0; /* the format with the least arithmetic per byte */
    w->k_columns = COLUMNS;
    w->n = 1;
    if (w->far_bytes < 16 * FEW_PANELS * panel_bytes(w->type, COLUMNS))
        return 0;
    const double on = far_call(j, gemv_far, FEW_PANELS, false);
    return per(far_call(j, gemv_far, FEW_PANELS, true), on, 1);
}

static const int32_t gemm_tokens[COST_GEMM_POINTS] = {8, 16, 32, 64, MANY};
int32_t cost_gemm_tokens(int point) { return gemm_tokens[point]; }

static linear_cost measure_linear(job *j, dil_type type)
{
    cost_work *w = j->ctx;
    w->type = type;
    if (!w->k->linear[type].gemv || !format_get(type) || panel_bytes(type, COLUMNS) == 0)
        return (linear_cost){0};
    j->work = fill_panels;
    job_once(j);
    linear_cost c = {0};
    double times[COST_GEMM_POINTS];
    const double one = product(j, gemv, COLUMNS, 1), one_few = product(j, gemv, FEW_COLUMNS, 1);
    const double some = product(j, gemv, COLUMNS, GEMV_TOKENS);
    c.value = per(one, one_few, COLUMNS - FEW_COLUMNS);
    c.row = per(one, c.value * COLUMNS, 1);
    c.more = per(some, one, (double)(GEMV_TOKENS - 1) * COLUMNS);
    for (int i = 0; i < COST_GEMM_POINTS; i++)
        times[i] = product(j, gemm, COLUMNS, gemm_tokens[i]);
    const double many = times[COST_GEMM_POINTS - 1], many_few = product(j, gemm, FEW_COLUMNS, MANY);
    c.output = per(many_few, (many - many_few) / (COLUMNS - FEW_COLUMNS) * FEW_COLUMNS, MANY);
    for (int i = 0; i < COST_GEMM_POINTS; i++)
        c.gemm[i] = per(times[i], gemm_tokens[i] * c.output, COLUMNS);
    return c;
}

/* The rest of c: far panels take long, so that they come once, after the rounds. */
static void measure_far(job *j, dil_type type, linear_cost *c)
{
    cost_work *w = j->ctx;
    if (c->value <= 0)
        return;
    w->type = type;
    w->round = 0;
    c->stall = measure_stall(j, gemv_far, 1, c->row + COLUMNS * c->value);
    c->stall_few = measure_stall(j, gemm_far, gemm_tokens[0], cost_gemm(c, COLUMNS, gemm_tokens[0]));
}

/* Seconds of a page. */
static double page(job *j, int dim, int n_rows)
{
    cost_work *w = j->ctx;
    w->k_columns = dim;
    w->n = n_rows;
    return call(j, attend) / ATTN_CHUNK;
}

static void measure_attention(job *j, dil_type type, kernel_costs *out)
{
    cost_work *w = j->ctx;
    if (!format_get(type) || kv_page_bytes(type, HEAD_DIM) == 0)
        return;
    w->type = type;
    out->store[type] = call(j, store) / (2.0 * KV_PAGE * HEAD_DIM); /* and pages of numbers lie there now */
    operands *first = w->of;
    for (int i = 0; i < team_size(j->workers); i++)
        memset(first[i].panels, type == DIL_TYPE_F32 || type == DIL_TYPE_F16 || type == DIL_TYPE_BF16 ? ORDINARY : 1,
               sizeof first[i].panels);
    const double many = page(j, HEAD_DIM, ROWS), few = page(j, HEAD_DIM, FEW_ROWS);
    const double many_short = page(j, FEW_DIM, ROWS), few_short = page(j, FEW_DIM, FEW_ROWS);
    const double row = per(many, few, ROWS - FEW_ROWS), row_short = per(many_short, few_short, ROWS - FEW_ROWS);
    attention_cost *c = &out->attention[type];
    c->row_value = per(row, row_short, HEAD_DIM - FEW_DIM);
    c->row = per(row, c->row_value * HEAD_DIM, 1);
    const double whole = per(few, FEW_ROWS * row, 1), whole_short = per(few_short, FEW_ROWS * row_short, 1);
    c->page_value = per(whole, whole_short, HEAD_DIM - FEW_DIM);
    c->page = per(whole, c->page_value * HEAD_DIM, 1);
}

static vector_cost measure_vectors(job *j)
{
    const cost_work *w = j->ctx;
    const double n = (double)VECTOR_ROWS * COLUMNS;
    vector_cost v = {.norm = call(j, norm) / n,
                     .quantize = call(j, quantize) / n,
                     .add = call(j, add_rows) / n,
                     .rope = call(j, rotate) / n,
                     .act = {call(j, silu) / n, call(j, gelu) / n, call(j, swiglu_oai) / n},
                     .angle = call(j, angles) / n};
    if (w->k->round_bf16)
        v.round_bf16 = call(j, round_rows) / n;
    return v;
}

/* The last round of what is near knows the best of all. */
static dil_status measure_all(job *j, kernel_costs *out, dil_progress_fn progress, void *user, dil_error *err)
{
    cost_work *w = j->ctx;
    j->work = fill;
    job_once(j);
    for (w->round = 0; w->round < ROUNDS; w->round++) {
        w->n_calls = 0;
        out->vector = measure_vectors(j);
        for (int type = 0; type < DIL_TYPE_COUNT; type++) {
            measure_attention(j, (dil_type)type, out);
            out->linear[type] = measure_linear(j, (dil_type)type);
            if (progress && !progress(user, "kernels", (uint64_t)(w->round * DIL_TYPE_COUNT + type) + 1, ROUNDS * DIL_TYPE_COUNT))
                return DIL_FAIL(err, DIL_CANCELLED, "machine: measuring was cancelled");
        }
    }
    for (int type = 0; type < DIL_TYPE_COUNT; type++)
        measure_far(j, (dil_type)type, &out->linear[type]);
    out->start = measure_start(j);
    return DIL_OK;
}

static void fill_far(job *j, int worker)
{
    const cost_work *w = j->ctx;
    uint64_t *words = (uint64_t *)(void *)(w->far + (size_t)worker * w->far_bytes);
    for (size_t i = 0; i < w->far_bytes / sizeof *words; i++)
        words[i] = (i + 1) * 0x9E3779B97F4A7C15u;
}

/* Room for operands, scratch and w->far_bytes of panels far away, or what the machine has for that; false: there is none. */
static bool take_room(cost_work *w, const machine *m, size_t n)
{
    const uint64_t most = m->memory_bytes / 8, far = w->far_bytes < most ? w->far_bytes : most;
    w->far_bytes = (size_t)far / n / READ_STEP * READ_STEP;
    w->n_bytes = n * (sizeof(operands) + w->scratch_bytes + w->far_bytes);
    uint8_t *room = mem_map(w->n_bytes, MEM_MISC);
    if (!room)
        return false;
    os_advise_huge(room, w->n_bytes);
    w->of = (operands *)(void *)room;
    w->scratch = room + n * sizeof(operands);
    w->far = w->scratch + n * w->scratch_bytes;
    return true;
}

/* Runs measure with everything set up. */
static dil_status with_job(cost_work *w, const machine *m, team *workers, dil_status (*measure)(job *j, void *ctx, dil_error *err),
                           void *ctx, dil_error *err)
{
    const size_t attention = attn_scratch_bytes(HEAD_DIM), linear = linear_scratch_bytes(COLUMNS);
    w->scratch_bytes = ((linear > attention ? linear : attention) + 63) / 64 * 64;
    job *j = mem_calloc(1, sizeof *j, MEM_MISC);
    dil_status status;
    if (j && take_room(w, m, (size_t)team_size(workers))) {
        j->workers = workers;
        j->ctx = w;
        status = measure(j, ctx, err);
        mem_unmap(w->of, w->n_bytes, MEM_MISC);
    } else {
        status = DIL_FAIL(err, DIL_NO_MEMORY, "machine: no memory to measure kernels (%zu bytes)", w->n_bytes);
    }
    mem_free(j);
    return status;
}

typedef struct everything {
    kernel_costs *out;
    dil_progress_fn progress;
    void *user;
} everything;

static dil_status measure_everything(job *j, void *ctx, dil_error *err)
{
    everything *e = ctx;
    j->work = fill_far;
    job_once(j);
    return measure_all(j, e->out, e->progress, e->user, err);
}

dil_status costs_measure(kernel_costs *out, const machine *m, const kernels *k, team *workers, double seconds,
                         dil_progress_fn progress, void *user, dil_error *err)
{
    kernel_costs c = {0};
    cost_work w = {.k = k, .seconds = seconds, .far_bytes = COSTS_FAR_BYTES};
    DIL_TRY(with_job(&w, m, workers, measure_everything, &(everything){&c, progress, user}, err));
    *out = c;
    return DIL_OK;
}

static dil_status measure_one(job *j, void *ctx, dil_error *err)
{
    cost_work *w = j->ctx;
    (void)err;
    j->work = fill;
    job_once(j);
    j->work = fill_far;
    job_once(j);
    linear_cost *c = ctx;
    for (w->round = 0; w->round < ROUNDS; w->round++) {
        w->n_calls = 0;
        *c = measure_linear(j, w->type);
    }
    measure_far(j, w->type, c);
    return DIL_OK;
}

dil_status costs_measure_linear(linear_cost *out, const machine *m, const kernels *k, team *workers, dil_type type,
                                uint64_t far_bytes, dil_error *err)
{
    cost_work w = {.k = k, .seconds = ONE_SECONDS, .type = type, .far_bytes = far_bytes, .typical = true};
    return with_job(&w, m, workers, measure_one, out, err);
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

double cost_panel(const kernel_costs *c, const kernels *k, dil_type type, int64_t columns, int32_t n_tokens)
{
    const linear_cost *l = &c->linear[type];
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
