/*
 * What the machine can do at most, measured with n threads of the kernels that will compute: reading from memory and from the
 * caches, multiply-adds in int8, bf16 and f32, and what one barrier costs. What a run reaches is a share of these.
 */
#ifndef MACHINE_LIMITS_H
#define MACHINE_LIMITS_H

#include "base/threads.h"
#include "kernels/kernels.h"
#include "machine/machine.h"

/* best and median of the repetitions; both 0 when not measured. On a machine shared with others best is the machine's, the
 * median what was left of it. */
typedef struct machine_rate {
    double best, median;
} machine_rate;

typedef struct machine_limits {
    int n_threads;
    machine_rate memory, l3, l2;  /* bytes per second, all threads together */
    machine_rate int8, bf16, f32; /* multiply-adds per second, all threads together */
    machine_rate barrier;         /* seconds per barrier; 0 with one thread */
} machine_limits;

enum {
    LIMIT_MEMORY = 1,
    LIMIT_L3 = 2,
    LIMIT_L2 = 4,
    LIMIT_INT8 = 8,
    LIMIT_BF16 = 16,
    LIMIT_F32 = 32,
    LIMIT_BARRIER = 64,
    LIMIT_ALL = 127
};

/*
 * Measures what `what` names, each for about `seconds` (at least five repetitions, whatever they take), on all threads of the
 * team. The buffer for memory is many times L3, but at most an eighth of the memory there is. A level that the machine lacks,
 * or that cannot be told from the next one, stays 0. The rest of out is zeroed.
 */
DIL_MUST_CHECK dil_status machine_measure(machine_limits *out, const machine *m, const kernels *k, team *workers, unsigned what,
                                          double seconds, dil_error *err);

/*
 * How fast one token goes through weights of each format: weights per second, all threads together, of products with matrices of
 * RATE_COLUMNS columns that lie in memory as a model's do; the best of the repetitions. 0 where this level has no kernel.
 */
#define RATE_COLUMNS 2048
typedef struct machine_rates {
    double weights[DIL_TYPE_COUNT];
} machine_rates;
/* Each format for about `seconds`. Takes 128 MiB, or an eighth of the memory there is if that is less. */
DIL_MUST_CHECK dil_status machine_measure_rates(machine_rates *out, const machine *m, const kernels *k, team *workers,
                                                double seconds, dil_error *err);
#endif
