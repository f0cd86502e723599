#include "machine/job.h"

#include <stdlib.h>

#include "base/os.h"

static void repeat(void *ctx, int worker)
{
    job *j = ctx;
    for (;;) {
        for (uint64_t until = j->pause_ns ? os_time_ns() + j->pause_ns : 0; until && os_time_ns() < until;)
            ;
        team_barrier(j->workers);
        if (atomic_load_explicit(&j->stop, memory_order_relaxed))
            return;
        uint64_t started = os_time_ns();
        j->work(j, worker);
        team_barrier(j->workers);
        if (worker == 0) {
            uint64_t now = os_time_ns();
            j->seconds[j->n_done++] = (double)(now - started) * 1e-9;
            bool enough = j->n_done == JOB_REPETITIONS_MOST || (j->n_done >= j->least && now >= j->until_ns);
            atomic_store_explicit(&j->stop, enough, memory_order_relaxed);
        }
    }
}

static void once(void *ctx, int worker)
{
    job *j = ctx;
    j->work(j, worker);
}

void job_once(job *j) { team_run(j->workers, once, j); }

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

machine_rate job_run(job *j, double seconds, int least)
{
    j->least = least;
    j->n_done = 0;
    atomic_store(&j->stop, false);
    j->until_ns = os_time_ns() + (uint64_t)(seconds * 1e9);
    team_run(j->workers, repeat, j);
    qsort(j->seconds, (size_t)j->n_done, sizeof *j->seconds, ascending);
    return (machine_rate){j->seconds[0], j->seconds[j->n_done / 2]};
}

void job_calibrate(job *j, uint64_t least_ns)
{
    for (j->amount = 1; j->amount < INT64_C(1) << 40; j->amount *= 2) {
        uint64_t started = os_time_ns();
        job_once(j);
        if (os_time_ns() - started >= least_ns)
            return;
    }
}
