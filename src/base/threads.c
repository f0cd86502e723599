/*
 * Barrier: one counter of arrivals and one generation number. The last to arrive resets the counter and the claim counters,
 * then advances the generation; the others spin on it for a bounded time and then sleep on it (futex), so that a busy
 * machine is not burnt by waiting. Each worker has a word of its own that starts it, so that a run may take some of them only.
 */
#include "base/threads.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"

#define LINE 64
/* About 20 us of pause instructions: longer than any step of a small model leaves a worker waiting on a quiet machine. */
#define SPIN_LIMIT 2000

typedef struct waitable { /* a word others wait on, alone on its cache line */
    _Alignas(LINE) _Atomic uint32_t value;
    _Atomic uint32_t sleepers;
} waitable;

typedef struct claim_queue { /* a claim counter, alone on its cache line */
    _Alignas(LINE) _Atomic uint32_t next;
} claim_queue;

struct team {
    int n_threads, n_queues;
    int n_active; /* workers of the present run */
    team_fn fn;
    void *ctx;
    bool quit;
    claim_queue queues[TEAM_QUEUES];
    _Alignas(LINE) _Atomic uint32_t arrived;
    waitable generation; /* barriers */
    pthread_t threads[TEAM_MAX];
    struct worker {
        waitable start; /* one tick per run it takes part in */
        team *t;
        int index;
        int cpu;
        _Atomic long thread;
    } workers[TEAM_MAX];
    bool may_pin, pinned;
    int (*runnable)(void);
    uint64_t load_checked_ns;
    int others; /* tasks of others that wanted to run at both of the last two looks */
    int last_others;
    os_affinity free_to; /* where workers may run when they are not pinned */
};

static inline void cpu_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Waits until w differs from old; the acquire load pairs with the release store in announce(). */
static void wait_change(waitable *w, uint32_t old)
{
    for (int i = 0; i < SPIN_LIMIT; i++) {
        if (atomic_load_explicit(&w->value, memory_order_acquire) != old)
            return;
        cpu_pause();
    }
    atomic_fetch_add(&w->sleepers, 1); /* seq_cst: ordered against the check of sleepers in announce() */
    while (atomic_load(&w->value) == old)
        os_futex_wait(&w->value, old);
    atomic_fetch_sub(&w->sleepers, 1);
}

static void announce(waitable *w)
{
    atomic_fetch_add(&w->value, 1); /* release of everything before; seq_cst against sleepers */
    if (atomic_load(&w->sleepers))
        os_futex_wake_all(&w->value);
}

static void reset_claims(team *t)
{
    for (int i = 0; i < t->n_queues; i++)
        atomic_store_explicit(&t->queues[i].next, 0, memory_order_relaxed);
}

void team_barrier(team *t)
{
    if (t->n_active == 1) {
        reset_claims(t);
        return;
    }
    uint32_t generation = atomic_load_explicit(&t->generation.value, memory_order_relaxed);
    uint32_t n = (uint32_t)t->n_active; /* read before arriving: afterwards the next run may have begun */
    /* acq_rel: the last arriver sees all others' writes, and they are published by announce() */
    if (atomic_fetch_add_explicit(&t->arrived, 1, memory_order_acq_rel) + 1 == n) {
        atomic_store_explicit(&t->arrived, 0, memory_order_relaxed);
        reset_claims(t);
        announce(&t->generation);
    } else {
        wait_change(&t->generation, generation);
    }
}

uint32_t team_claim(team *t) { return team_claim_from(t, 0); }

uint32_t team_claim_from(team *t, int queue) { return atomic_fetch_add_explicit(&t->queues[queue].next, 1, memory_order_relaxed); }

void team_set_queues(team *t, int n)
{
    t->n_queues = n < 1 ? 1 : n < TEAM_QUEUES ? n : TEAM_QUEUES;
    for (int i = 0; i < TEAM_QUEUES; i++)
        atomic_store_explicit(&t->queues[i].next, 0, memory_order_relaxed);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    team *t = w->t;
    uint32_t seen = 0;
    atomic_store(&w->thread, os_thread_id());
    for (;;) {
        wait_change(&w->start, seen);
        seen++;
        if (t->quit)
            return NULL;
        t->fn(t->ctx, w->index);
        team_barrier(t);
    }
}

dil_status team_new(team **out, int n_threads, dil_error *err)
{
    if (n_threads < 1 || n_threads > TEAM_MAX)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "threads: wanted 1..%d, found %d", TEAM_MAX, n_threads);
    team *t = mem_calloc(1, sizeof *t, MEM_MISC);
    if (!t)
        return DIL_FAIL(err, DIL_NO_MEMORY, "thread team: no memory");
    t->n_threads = t->n_active = t->n_queues = 1;
    for (int i = 1; i < n_threads; i++) {
        t->workers[i].t = t;
        t->workers[i].index = i;
        if (os_should_fail() || pthread_create(&t->threads[i], NULL, worker_main, &t->workers[i]) != 0) {
            team_free(t);
            return DIL_FAIL(err, DIL_IO, "threads: started %d of %d, the system refused more", i, n_threads);
        }
        t->n_threads = i + 1;
    }
    *out = t;
    return DIL_OK;
}

void team_free(team *t)
{
    if (!t)
        return;
    t->quit = true;
    for (int i = 1; i < t->n_threads; i++)
        announce(&t->workers[i].start);
    for (int i = 1; i < t->n_threads; i++)
        pthread_join(t->threads[i], NULL);
    mem_free(t);
}

int team_size(const team *t) { return t->n_threads; }

void team_pin(team *t, const int *cpus, int (*runnable)(void))
{
    t->runnable = runnable ? runnable : os_runnable_tasks;
    for (int i = 1; i < t->n_threads; i++)
        t->workers[i].cpu = cpus[i];
    t->free_to = os_thread_affinity();
    t->may_pin = t->n_threads > 1 && t->free_to.n_bytes > 0;
}

#define LOAD_CHECK_NS 250000000u

/* Pins the workers or lets them go, as the load tells. Runs before the workers are woken: sleeping ones are not counted. */
static void settle(team *t)
{
    uint64_t now = os_time_ns();
    if (t->load_checked_ns && now - t->load_checked_ns < LOAD_CHECK_NS)
        return;
    t->load_checked_ns = now;
    int running = t->runnable(), others = running - 1;
    bool alone = running > 0 && running <= t->n_threads; /* the caller, and at most the workers still spinning */
    for (int i = 1; i < t->n_threads; i++)
        others -= atomic_load(&t->workers[i].start.sleepers) == 0;
    t->others = others < t->last_others ? others : t->last_others;
    t->last_others = others;
    bool started = true;
    for (int i = 1; i < t->n_threads && alone != t->pinned; i++) {
        long thread = atomic_load(&t->workers[i].thread);
        started = started && thread != 0;
        if (thread && alone)
            os_thread_pin(thread, t->workers[i].cpu);
        else if (thread)
            os_thread_allow(thread, &t->free_to);
    }
    if (started)
        t->pinned = alone;
}

int team_unhindered(team *t)
{
    if (!t->may_pin)
        return t->n_threads;
    settle(t);
    int n = t->n_threads - (t->others > 0 ? t->others : 0);
    return n < 1 ? 1 : n;
}

void team_run(team *t, team_fn fn, void *ctx) { team_run_some(t, t->n_threads, fn, ctx); }

void team_run_some(team *t, int n_workers, team_fn fn, void *ctx)
{
    if (t->may_pin)
        settle(t);
    t->fn = fn;
    t->ctx = ctx;
    t->n_active = n_workers < 1 ? 1 : n_workers < t->n_threads ? n_workers : t->n_threads;
    reset_claims(t);
    for (int i = 1; i < t->n_active; i++)
        announce(&t->workers[i].start);
    fn(ctx, 0);
    team_barrier(t);
}
