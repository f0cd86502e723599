#include "machine/limits.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "machine/job.h"

#define READ_STEP ((size_t)64 << 10) /* bytes per call of read_stream */
#define REPETITION_NS 1000000        /* long beside a barrier, short beside a time slice */

/* What the workers of a measurement of limits share. */
typedef struct limit_work {
    _Alignas(64) uint8_t operands[64 * PEAK_COLS]; /* 63 in int8, 0.75 in bf16 and f32: no special values */
    const kernels *k;
    uint8_t *buffer; /* [n_threads][slice] */
    size_t slice;    /* bytes of each worker */
    size_t used;     /* of the slice */
} limit_work;

static void fill_slice(job *j, int worker)
{
    const limit_work *w = j->ctx;
    uint64_t *words = (uint64_t *)(void *)(w->buffer + (size_t)worker * w->slice);
    for (size_t i = 0; i < w->slice / sizeof *words; i++)
        words[i] = i * 0x9E3779B97F4A7C15u;
}

static void read_slice(job *j, int worker)
{
    const limit_work *w = j->ctx;
    const uint8_t *p = w->buffer + (size_t)worker * w->slice;
    uint64_t sum = 0;
    for (int64_t pass = 0; pass < j->amount; pass++)
        for (size_t at = 0; at < w->used; at += READ_STEP)
            sum ^= w->k->read_stream(p + at, w->used - at < READ_STEP ? w->used - at : READ_STEP);
    atomic_fetch_xor_explicit(&j->sink, sum, memory_order_relaxed);
}

static void multiply_int8(job *j, int worker)
{
    (void)worker;
    const limit_work *w = j->ctx;
    const uint8_t *a = w->operands;
    atomic_fetch_xor_explicit(&j->sink, w->k->peak_int8(a, (const int8_t *)a, j->amount), memory_order_relaxed);
}

static void multiply_bf16(job *j, int worker)
{
    (void)worker;
    const limit_work *w = j->ctx;
    const uint16_t *a = (const uint16_t *)(const void *)w->operands;
    atomic_fetch_xor_explicit(&j->sink, w->k->peak_bf16(a, a, j->amount) > 0, memory_order_relaxed);
}

static void multiply_f32(job *j, int worker)
{
    (void)worker;
    const limit_work *w = j->ctx;
    const float *a = (const float *)(const void *)w->operands;
    atomic_fetch_xor_explicit(&j->sink, w->k->peak_f32(a, a, j->amount) > 0, memory_order_relaxed);
}

static void meet(job *j, int worker)
{
    (void)worker;
    for (int64_t i = 0; i < j->amount; i++)
        team_barrier(j->workers);
}

#define HANDED_BYTES 4096

/* Every worker writes its part of the buffer and reads its neighbour's, with a barrier before each. */
static void hand_over(job *j, int worker)
{
    const limit_work *w = j->ctx;
    const int n = team_size(j->workers);
    uint64_t sum = 0;
    for (int64_t i = 0; i < j->amount; i++) {
        memset(w->buffer + (size_t)worker * w->slice, (int)i, HANDED_BYTES);
        team_barrier(j->workers);
        sum ^= w->k->read_stream(w->buffer + (size_t)((worker + 1) % n) * w->slice, HANDED_BYTES);
        team_barrier(j->workers);
    }
    atomic_fetch_xor_explicit(&j->sink, sum, memory_order_relaxed);
}

/* All workers claim from one counter until it has given as many as were wanted; worker 0 sets it back by the barrier that follows. */
static void claim(job *j, int worker)
{
    (void)worker;
    const uint32_t most = j->amount < INT32_MAX ? (uint32_t)j->amount : INT32_MAX;
    while (team_claim(j->workers) < most)
        ;
}

static machine_rate per_second(double amount, machine_rate seconds)
{
    return (machine_rate){amount / seconds.best, amount / seconds.median};
}

static machine_rate multiply(job *j, void (*work)(job *, int), double macs_per_round, double seconds)
{
    j->work = work;
    job_calibrate(j, REPETITION_NS);
    double rounds = (double)j->amount * team_size(j->workers);
    return per_second(macs_per_round * PEAK_ROWS * PEAK_COLS * rounds, job_run(j, seconds, JOB_REPETITIONS));
}

static dil_status take_buffer(job *j, size_t slice, dil_error *err)
{
    limit_work *w = j->ctx;
    w->slice = slice;
    size_t total = w->slice * (size_t)team_size(j->workers);
    w->buffer = mem_map(total, MEM_MISC);
    if (!w->buffer)
        return DIL_FAIL(err, DIL_NO_MEMORY, "machine: no memory to measure reading (%zu bytes)", total);
    os_advise_huge(w->buffer, total);
    j->work = fill_slice;
    job_once(j); /* every worker touches its own: it lies on its node */
    return DIL_OK;
}

static void give_buffer(job *j)
{
    limit_work *w = j->ctx;
    mem_unmap(w->buffer, w->slice * (size_t)team_size(j->workers), MEM_MISC);
}

/* Reads the first `used` bytes of every worker's slice again and again. */
static machine_rate read_slices(job *j, size_t used, double seconds)
{
    limit_work *w = j->ctx;
    w->used = used;
    j->work = read_slice;
    job_calibrate(j, REPETITION_NS);
    return per_second((double)used * team_size(j->workers) * (double)j->amount, job_run(j, seconds, JOB_REPETITIONS));
}

/* Reads `slice` bytes per worker; stays 0 when there are none. */
static dil_status read_level(job *j, size_t slice, double seconds, machine_rate *out, dil_error *err)
{
    slice = slice < READ_STEP ? slice / 64 * 64 : slice / READ_STEP * READ_STEP;
    if (slice == 0)
        return DIL_OK;
    DIL_TRY(take_buffer(j, slice, err));
    *out = read_slices(j, slice, seconds);
    give_buffer(j);
    return DIL_OK;
}

uint64_t machine_read_point(int point) { return READ_LEAST << point; }

/* Working sets shared by all workers, from small to large, until the memory ends: what is not measured is as the point before. */
static dil_status read_curve(job *j, const machine *m, double seconds, machine_rate *curve, dil_error *err)
{
    const size_t n = (size_t)team_size(j->workers);
    int points = 1;
    while (points < READ_POINTS && machine_read_point(points) <= m->memory_bytes / 8)
        points++;
    DIL_TRY(take_buffer(j, machine_read_point(points - 1) / n / READ_STEP * READ_STEP, err));
    for (int i = 0; i < READ_POINTS; i++)
        curve[i] = i < points ? read_slices(j, machine_read_point(i) / n / READ_STEP * READ_STEP, seconds) : curve[i - 1];
    give_buffer(j);
    return DIL_OK;
}

double machine_read_rate(const machine_limits *l, double bytes)
{
    const double at = log2(bytes / (double)READ_LEAST);
    const int low = at < 0 ? 0 : at < READ_POINTS - 1 ? (int)at : READ_POINTS - 1, high = low < READ_POINTS - 1 ? low + 1 : low;
    const double share = at <= 0 || low == high ? 0 : at - low;
    return 1 / ((1 - share) / l->curve[low].best + share / l->curve[high].best);
}

static uint64_t memory_slice(const machine *m, int n_threads)
{
    const machine_level *l3 = &m->caches[2];
    uint64_t least = (uint64_t)256 << 20, caches = 4 * l3->size_bytes * (uint64_t)l3->n_caches, most = m->memory_bytes / 8;
    uint64_t total = caches > least ? caches : least;
    return (total < most ? total : most) / (uint64_t)n_threads;
}

/* Half of what a worker may call its own of a level; 0 when that is not well above the level before. */
static uint64_t cache_slice(const machine *m, int level, int n_threads)
{
    const machine_level *l = &m->caches[level];
    const uint64_t inner = level > 0 ? m->caches[level - 1].size_bytes : 0;
    int sharing = n_threads < l->n_cores ? n_threads : l->n_cores;
    uint64_t own = sharing > 0 ? l->size_bytes / (uint64_t)sharing / 2 : 0;
    return own > 2 * inner ? own : 0;
}

static dil_status read_all_levels(job *j, const machine *m, unsigned what, double seconds, machine_limits *l, dil_error *err)
{
    const int n = l->n_threads;
    if (what & LIMIT_MEMORY)
        DIL_TRY(read_level(j, memory_slice(m, n), seconds, &l->memory, err));
    if (what & LIMIT_L3)
        DIL_TRY(read_level(j, cache_slice(m, 2, n), seconds, &l->l3, err));
    if (what & LIMIT_L2)
        DIL_TRY(read_level(j, cache_slice(m, 1, n), seconds, &l->l2, err));
    if (what & LIMIT_L1)
        DIL_TRY(read_level(j, cache_slice(m, 0, n), seconds, &l->l1, err));
    if (what & LIMIT_CURVE)
        DIL_TRY(read_curve(j, m, seconds, l->curve, err));
    return DIL_OK;
}

static machine_rate less(machine_rate a, double of_both)
{
    return (machine_rate){fmax(a.best - of_both, 0), fmax(a.median - of_both, 0)};
}

/* What a handover takes beyond its two barriers. */
static dil_status measure_handoff(job *j, double barrier, double seconds, machine_rate *out, dil_error *err)
{
    DIL_TRY(take_buffer(j, READ_STEP, err));
    j->work = hand_over;
    job_calibrate(j, REPETITION_NS);
    const machine_rate spent = job_run(j, seconds, JOB_REPETITIONS);
    const double each = 1.0 / (double)j->amount;
    give_buffer(j);
    *out = less((machine_rate){spent.best * each, spent.median * each}, 2 * barrier);
    out->best /= HANDED_BYTES;
    out->median /= HANDED_BYTES;
    return DIL_OK;
}

static void multiply_all(job *j, unsigned what, double seconds, machine_limits *l)
{
    if (what & LIMIT_INT8)
        l->int8 = multiply(j, multiply_int8, 64, seconds);
    if (what & LIMIT_BF16)
        l->bf16 = multiply(j, multiply_bf16, 32, seconds);
    if (what & LIMIT_F32)
        l->f32 = multiply(j, multiply_f32, 16, seconds);
    if ((what & LIMIT_BARRIER) && l->n_threads > 1) {
        j->work = meet;
        job_calibrate(j, REPETITION_NS);
        machine_rate spent = job_run(j, seconds, JOB_REPETITIONS);
        l->barrier = (machine_rate){spent.best / (double)j->amount, spent.median / (double)j->amount};
    }
    if (what & LIMIT_BARRIER) {
        j->work = claim;
        job_calibrate(j, REPETITION_NS);
        machine_rate spent = job_run(j, seconds, JOB_REPETITIONS);
        const double each = l->n_threads / (double)j->amount; /* of one thread: they take turns */
        l->claim = (machine_rate){spent.best * each, spent.median * each};
    }
}

static dil_status new_job(job **out, limit_work *w, const kernels *k, team *workers, dil_error *err)
{
    job *j = mem_calloc(1, sizeof *j, MEM_MISC);
    if (!j)
        return DIL_FAIL(err, DIL_NO_MEMORY, "machine: no memory");
    w->k = k;
    memset(w->operands, 63, sizeof w->operands);
    j->workers = workers;
    j->ctx = w;
    *out = j;
    return DIL_OK;
}

dil_status machine_measure(machine_limits *out, const machine *m, const kernels *k, team *workers, unsigned what, double seconds,
                           dil_error *err)
{
    job *j = NULL;
    limit_work w = {0};
    DIL_TRY(new_job(&j, &w, k, workers, err));
    machine_limits l = {.n_threads = team_size(workers)};
    dil_status status = read_all_levels(j, m, what, seconds, &l, err);
    if (status == DIL_OK)
        multiply_all(j, what, seconds, &l);
    if (status == DIL_OK && (what & LIMIT_BARRIER) && l.n_threads > 1)
        status = measure_handoff(j, l.barrier.best, seconds, &l.handoff, err);
    mem_free(j);
    if (status == DIL_OK)
        *out = l;
    return status;
}

dil_status machine_measure_reading(machine_rate *out, const machine *m, const kernels *k, team *workers, double bytes, double pause,
                                   double seconds, dil_error *err)
{
    job *j = NULL;
    limit_work w = {0};
    const uint64_t most = m->memory_bytes / 8, total = bytes < (double)most ? (uint64_t)bytes : most;
    DIL_TRY(new_job(&j, &w, k, workers, err));
    j->pause_ns = (uint64_t)(fmax(pause, 0) * 1e9);
    dil_status status = read_level(j, total / (uint64_t)team_size(workers), seconds, out, err);
    mem_free(j);
    return status;
}

struct memory_reader {
    job *j;
    limit_work w;
};

dil_status machine_reader_open(memory_reader **out, const machine *m, const kernels *k, team *workers, dil_error *err)
{
    memory_reader *r = mem_calloc(1, sizeof *r, MEM_MISC);
    if (!r)
        return DIL_FAIL(err, DIL_NO_MEMORY, "machine: no memory");
    dil_status status = new_job(&r->j, &r->w, k, workers, err);
    if (status == DIL_OK)
        status = take_buffer(r->j, memory_slice(m, team_size(workers)) / READ_STEP * READ_STEP, err);
    if (status == DIL_OK)
        *out = r;
    else
        machine_reader_close(r);
    return status;
}

double machine_reader_rate(memory_reader *r, double seconds) { return read_slices(r->j, r->w.slice, seconds).median; }

void machine_reader_close(memory_reader *r)
{
    if (!r)
        return;
    if (r->w.buffer)
        give_buffer(r->j);
    mem_free(r->j);
    mem_free(r);
}
