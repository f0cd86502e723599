/*
 * What this machine can do, measured once and kept, so that what depends on it is the same every time. Owns the file:
 * $XDG_CACHE_HOME/dilmodeli/machine/, one for each processor, level of kernels, build and number of threads, safe to delete at any
 * time.
 */
#ifndef MACHINE_FACTS_H
#define MACHINE_FACTS_H

#include "machine/costs.h"
#include "machine/limits.h"

#define FACT_COUNTS 3

typedef struct machine_facts {
    bool busy; /* other programs ran meanwhile */
    int32_t n_counts;
    machine_limits limits[FACT_COUNTS]; /* of one thread, of half of them, of all: ascending, those that differ */
    kernel_costs costs;                 /* all threads at work */
} machine_facts;

/* When to measure although there is a file: never; when it was made on a busy machine that is quiet now; always. */
typedef enum facts_use { FACTS_KEPT, FACTS_OF_QUIET, FACTS_AGAIN } facts_use;

/*
 * Facts with n_threads (1..TEAM_MAX; 0: those a run takes by default); measured (some seconds) if there is no file of
 * them, it is damaged, or `use` says so. Errors are those of measuring and of keeping: facts that cannot be kept would be others the next time.
 */
DIL_MUST_CHECK dil_status machine_facts_get(machine_facts *out, const machine *m, const kernels *k, int32_t n_threads,
                                            facts_use use, dil_progress_fn progress, void *user, dil_error *err);

/* The limits of the largest count measured that is at most n_threads. */
const machine_limits *machine_facts_limits(const machine_facts *f, int32_t n_threads);

/* Weights per second that n_threads take one token through, out of a working set of so many bytes. 0: no kernel. */
double machine_weight_rate(const machine_facts *f, dil_type type, int32_t n_threads, double working_set);

#endif
