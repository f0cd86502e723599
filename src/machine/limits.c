#include "machine/limits.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"

#define MOST_REPETITIONS 1000
#define LEAST_REPETITIONS 5
#define RATE_PANELS 8 /* per call of a product */
#define RATE_ROUNDS 3 /* so that a busy moment does not meet a format alone */
#define RATE_BYTES ((uint64_t)128 << 20)
#define READ_STEP ((size_t)64 << 10) /* bytes per call of read_stream */

/* One measurement: `work` done by every worker again and again, timed from barrier to barrier. */
typedef struct job {
    _Alignas(64) uint8_t operands[64 * PEAK_COLS]; /* 63 in int8, 0.75 in bf16 and f32: no special values */
    const kernels *k;
    dil_type type; /* of weights */
    act x;         /* one token */
    team *workers;
    void (*work)(struct job *j, int worker);
    uint64_t until_ns;
    int64_t amount;  /* of work in one repetition: rounds, passes or barriers */
    uint8_t *buffer; /* [n_threads][slice] */
    size_t slice;    /* bytes of each worker */
    int n_done;
    double seconds[MOST_REPETITIONS];
    atomic_bool stop;      /* set by worker 0 between two barriers */
    _Atomic uint64_t sink; /* takes results, so that they are needed */
} job;

static void fill_slice(job *j, int worker)
{
    uint64_t *words = (uint64_t *)(void *)(j->buffer + (size_t)worker * j->slice);
    for (size_t i = 0; i < j->slice / sizeof *words; i++)
        words[i] = i * 0x9E3779B97F4A7C15u;
}

static void read_slice(job *j, int worker)
{
    const uint8_t *p = j->buffer + (size_t)worker * j->slice;
    uint64_t sum = 0;
    for (int64_t pass = 0; pass < j->amount; pass++)
        for (size_t at = 0; at < j->slice; at += READ_STEP)
            sum ^= j->k->read_stream(p + at, j->slice - at < READ_STEP ? j->slice - at : READ_STEP);
    atomic_fetch_xor_explicit(&j->sink, sum, memory_order_relaxed);
}

static void multiply_int8(job *j, int worker)
{
    (void)worker;
    const uint8_t *a = j->operands;
    atomic_fetch_xor_explicit(&j->sink, j->k->peak_int8(a, (const int8_t *)a, j->amount), memory_order_relaxed);
}

static void multiply_bf16(job *j, int worker)
{
    (void)worker;
    const uint16_t *a = (const uint16_t *)(const void *)j->operands;
    atomic_fetch_xor_explicit(&j->sink, j->k->peak_bf16(a, a, j->amount) > 0, memory_order_relaxed);
}

static void multiply_f32(job *j, int worker)
{
    (void)worker;
    const float *a = (const float *)(const void *)j->operands;
    atomic_fetch_xor_explicit(&j->sink, j->k->peak_f32(a, a, j->amount) > 0, memory_order_relaxed);
}

/* One token through the worker's weights. */
static void multiply_weights(job *j, int worker)
{
    _Alignas(64) float y[RATE_PANELS * PANEL_ROWS];
    const size_t panel = panel_bytes(j->type, RATE_COLUMNS);
    linear_args a = {
        .panel_bytes = panel, .k = RATE_COLUMNS, .x = &j->x, .n_tokens = 1, .y = y, .y_stride = RATE_PANELS * PANEL_ROWS};
    a.panels = j->buffer + (size_t)worker * j->slice;
    for (size_t left = j->slice / panel; left > 0; left -= (size_t)a.n_panels, a.panels += (size_t)a.n_panels * panel) {
        a.n_panels = left < RATE_PANELS ? (int)left : RATE_PANELS;
        j->k->linear[j->type].gemv(&a);
    }
    atomic_fetch_xor_explicit(&j->sink, y[0] > 0, memory_order_relaxed);
}

static void meet(job *j, int worker)
{
    (void)worker;
    for (int64_t i = 0; i < j->amount; i++)
        team_barrier(j->workers);
}

static void repeat(void *ctx, int worker)
{
    job *j = ctx;
    for (;;) {
        team_barrier(j->workers);
        if (atomic_load_explicit(&j->stop, memory_order_relaxed))
            return;
        uint64_t started = os_time_ns();
        j->work(j, worker);
        team_barrier(j->workers);
        if (worker == 0) {
            uint64_t now = os_time_ns();
            j->seconds[j->n_done++] = (double)(now - started) * 1e-9;
            bool enough = j->n_done == MOST_REPETITIONS || (j->n_done >= LEAST_REPETITIONS && now >= j->until_ns);
            atomic_store_explicit(&j->stop, enough, memory_order_relaxed);
        }
    }
}

static void once(void *ctx, int worker)
{
    job *j = ctx;
    j->work(j, worker);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Seconds of the quickest and of the median repetition. */
static machine_rate run(job *j, double seconds)
{
    j->n_done = 0;
    atomic_store(&j->stop, false);
    j->until_ns = os_time_ns() + (uint64_t)(seconds * 1e9);
    team_run(j->workers, repeat, j);
    qsort(j->seconds, (size_t)j->n_done, sizeof *j->seconds, ascending);
    return (machine_rate){j->seconds[0], j->seconds[j->n_done / 2]};
}

/* Doubles the amount until one repetition takes a millisecond or so: long beside a barrier, short beside a time slice. */
static void calibrate(job *j)
{
    for (j->amount = 1; j->amount < INT64_C(1) << 40; j->amount *= 2) {
        uint64_t started = os_time_ns();
        team_run(j->workers, once, j);
        if (os_time_ns() - started >= 1000000)
            return;
    }
}

static machine_rate per_second(double amount, machine_rate seconds)
{
    return (machine_rate){amount / seconds.best, amount / seconds.median};
}

static machine_rate multiply(job *j, void (*work)(job *, int), double macs_per_round, double seconds)
{
    j->work = work;
    calibrate(j);
    return per_second(macs_per_round * PEAK_ROWS * PEAK_COLS * (double)j->amount * team_size(j->workers), run(j, seconds));
}

/* Reads `slice` bytes per worker; 0 when the memory cannot be had. */
static dil_status read_level(job *j, size_t slice, double seconds, machine_rate *out, dil_error *err)
{
    j->slice = slice / READ_STEP * READ_STEP;
    if (j->slice == 0)
        return DIL_OK; /* stays 0 */
    size_t total = j->slice * (size_t)team_size(j->workers);
    j->buffer = mem_map(total, MEM_MISC);
    if (!j->buffer)
        return DIL_FAIL(err, DIL_NO_MEMORY, "machine: no memory to measure reading (%zu bytes)", total);
    os_advise_huge(j->buffer, total);
    j->work = fill_slice;
    team_run(j->workers, once, j); /* every worker touches its own: it lies on its node */
    j->work = read_slice;
    calibrate(j);
    *out = per_second((double)total * (double)j->amount, run(j, seconds));
    mem_unmap(j->buffer, total, MEM_MISC);
    return DIL_OK;
}

static uint64_t memory_slice(const machine *m, int n_threads)
{
    const machine_level *l3 = &m->caches[2];
    uint64_t least = (uint64_t)256 << 20, caches = 8 * l3->size_bytes * (uint64_t)l3->n_caches, most = m->memory_bytes / 8;
    uint64_t total = caches > least ? caches : least;
    return (total < most ? total : most) / (uint64_t)n_threads;
}

/* Half of what a worker may call its own of a level; 0 when that is not well above the level before. */
static uint64_t cache_slice(const machine *m, int level, int n_threads)
{
    const machine_level *l = &m->caches[level], *inner = &m->caches[level - 1];
    int sharing = n_threads < l->n_cores ? n_threads : l->n_cores;
    uint64_t own = sharing > 0 ? l->size_bytes / (uint64_t)sharing / 2 : 0;
    return own > 2 * inner->size_bytes ? own : 0;
}

dil_status machine_measure(machine_limits *out, const machine *m, const kernels *k, team *workers, unsigned what, double seconds,
                           dil_error *err)
{
    job *j = mem_calloc(1, sizeof *j, MEM_MISC);
    if (!j)
        return DIL_FAIL(err, DIL_NO_MEMORY, "machine: no memory");
    memset(j->operands, 63, sizeof j->operands);
    j->k = k;
    j->workers = workers;
    int n = team_size(workers);
    machine_limits l = {.n_threads = n};
    dil_status status = DIL_OK;
    if (what & LIMIT_MEMORY)
        status = read_level(j, memory_slice(m, n), seconds, &l.memory, err);
    if (status == DIL_OK && (what & LIMIT_L3))
        status = read_level(j, cache_slice(m, 2, n), seconds, &l.l3, err);
    if (status == DIL_OK && (what & LIMIT_L2))
        status = read_level(j, cache_slice(m, 1, n), seconds, &l.l2, err);
    if (status == DIL_OK && (what & LIMIT_INT8))
        l.int8 = multiply(j, multiply_int8, 64, seconds);
    if (status == DIL_OK && (what & LIMIT_BF16))
        l.bf16 = multiply(j, multiply_bf16, 32, seconds);
    if (status == DIL_OK && (what & LIMIT_F32))
        l.f32 = multiply(j, multiply_f32, 16, seconds);
    if (status == DIL_OK && (what & LIMIT_BARRIER) && n > 1) {
        j->work = meet;
        calibrate(j);
        machine_rate spent = run(j, seconds);
        l.barrier = (machine_rate){spent.best / (double)j->amount, spent.median / (double)j->amount};
    }
    mem_free(j);
    if (status == DIL_OK)
        *out = l;
    return status;
}

/* ---- weights ---- */

/* Bytes that are ordinary numbers in every format, so that no product is a special one: 0.066 as F16, 2e-12 as F32 and BF16. */
#define ORDINARY 0x2c

static void fill_ordinary(job *j, int worker) { memset(j->buffer + (size_t)worker * j->slice, ORDINARY, j->slice); }

/* A token of ones, in every form a kernel may read. */
typedef struct one_token {
    _Alignas(64) float f[RATE_COLUMNS];
    float d[RATE_COLUMNS / ACT_BLOCK], s[RATE_COLUMNS / ACT_BLOCK], s16[RATE_COLUMNS / ACT_BLOCK * 2];
    int32_t isum[RATE_COLUMNS / ACT_BLOCK], isum16[RATE_COLUMNS / ACT_BLOCK * 2];
    _Alignas(64) int8_t q[RATE_COLUMNS];
    _Alignas(64) uint16_t bf16[RATE_COLUMNS];
} one_token;

static act view_token(one_token *t)
{
    for (int i = 0; i < RATE_COLUMNS; i++) {
        t->f[i] = 1;
        t->q[i] = 1;
        t->bf16[i] = f32_to_bf16(1);
    }
    for (int i = 0; i < RATE_COLUMNS / ACT_BLOCK * 2; i++) {
        t->d[i / 2] = 1;
        t->isum[i / 2] = ACT_BLOCK;
        t->s[i / 2] = ACT_BLOCK;
        t->isum16[i] = ACT_BLOCK / 2;
        t->s16[i] = ACT_BLOCK / 2;
    }
    return (act){.f = t->f,
                 .q = t->q,
                 .d = t->d,
                 .s = t->s,
                 .isum = t->isum,
                 .s16 = t->s16,
                 .isum16 = t->isum16,
                 .bf16 = t->bf16,
                 .f_stride = RATE_COLUMNS,
                 .q_stride = RATE_COLUMNS,
                 .b_stride = RATE_COLUMNS / ACT_BLOCK,
                 .bf16_stride = RATE_COLUMNS};
}

static void run_rates(job *j, double seconds, machine_rates *out)
{
    const int n = team_size(j->workers);
    j->work = fill_ordinary;
    team_run(j->workers, once, j);
    j->work = multiply_weights;
    for (int i = 0; i < RATE_ROUNDS * DIL_TYPE_COUNT; i++) {
        const int type = i % DIL_TYPE_COUNT;
        size_t panel = format_get((dil_type)type) ? panel_bytes((dil_type)type, RATE_COLUMNS) : 0;
        if (panel == 0 || !j->k->linear[type].gemv)
            continue;
        j->type = (dil_type)type;
        double weights = (double)(j->slice / panel) * PANEL_ROWS * RATE_COLUMNS * n;
        out->weights[type] = fmax(out->weights[type], weights / run(j, seconds / RATE_ROUNDS).best);
    }
}

dil_status machine_measure_rates(machine_rates *out, const machine *m, const kernels *k, team *workers, double seconds,
                                 dil_error *err)
{
    const uint64_t most = RATE_BYTES < m->memory_bytes / 8 ? RATE_BYTES : m->memory_bytes / 8;
    const size_t n = (size_t)team_size(workers), slice = (size_t)most / n / READ_STEP * READ_STEP;
    job *j = mem_calloc(1, sizeof *j, MEM_MISC);
    one_token *t = mem_calloc(1, sizeof *t, MEM_MISC);
    uint8_t *buffer = slice ? mem_map(slice * n, MEM_MISC) : NULL;
    dil_status status = DIL_OK;
    if (j && t && buffer) {
        machine_rates r = {0};
        os_advise_huge(buffer, slice * n);
        j->k = k;
        j->workers = workers;
        j->buffer = buffer;
        j->slice = slice;
        j->x = view_token(t);
        run_rates(j, seconds, &r);
        *out = r;
    } else {
        status = DIL_FAIL(err, DIL_NO_MEMORY, "machine: no memory to measure the speed of formats (%zu bytes)", slice * n);
    }
    if (buffer)
        mem_unmap(buffer, slice * n, MEM_MISC);
    mem_free(t);
    mem_free(j);
    return status;
}
