/* Private to machine: one measurement, work done by every worker again and again, timed from barrier to barrier. */
#ifndef MACHINE_JOB_H
#define MACHINE_JOB_H

#include <stdatomic.h>

#include "machine/limits.h"

#define JOB_REPETITIONS_MOST 1000
#define JOB_REPETITIONS 5

typedef struct job {
    team *workers;
    void (*work)(struct job *j, int worker);
    void *ctx;
    int64_t amount; /* of work in one repetition: rounds, passes, calls or barriers */
    uint64_t until_ns;
    uint64_t pause_ns; /* before each repetition, not timed */
    int n_done, least;
    double seconds[JOB_REPETITIONS_MOST];
    atomic_bool stop;      /* set by worker 0 between two barriers */
    _Atomic uint64_t sink; /* takes results, so that they are needed */
} job;

void job_once(job *j);                         /* the work of all workers, not timed */
void job_calibrate(job *j, uint64_t least_ns); /* doubles the amount until one repetition takes so long, beside a barrier much */
machine_rate job_run(job *j, double seconds,
                     int least); /* seconds of the quickest and of the median repetition, at least so many */

#endif
