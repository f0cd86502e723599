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

#define READ_POINTS 8
#define READ_LEAST ((uint64_t)4 << 20)

typedef struct machine_limits {
    int n_threads;
    machine_rate memory, l3, l2, l1; /* bytes per second, all threads together */
    machine_rate curve[READ_POINTS]; /* the same of working sets of machine_read_point(i) bytes, shared out over the threads */
    machine_rate int8, bf16, f32;    /* multiply-adds per second, all threads together */
    machine_rate barrier;            /* seconds per barrier; 0 with one thread */
    machine_rate claim;              /* seconds per chunk of work claimed by one thread while all do */
    machine_rate handoff;            /* seconds per byte that another thread has just written; 0 with one thread */
} machine_limits;

enum {
    LIMIT_MEMORY = 1,
    LIMIT_L3 = 2,
    LIMIT_L2 = 4,
    LIMIT_INT8 = 8,
    LIMIT_BF16 = 16,
    LIMIT_F32 = 32,
    LIMIT_BARRIER = 64,
    LIMIT_L1 = 128,
    LIMIT_CURVE = 256,
    LIMIT_ALL = 511
};

/*
 * Measures what `what` names, each for about `seconds` (at least five repetitions, whatever they take), on all threads of the
 * team. The buffer for memory is many times L3, but at most an eighth of the memory there is. A level that the machine lacks,
 * or that cannot be told from the next one, stays 0. The rest of out is zeroed.
 */
DIL_MUST_CHECK dil_status machine_measure(machine_limits *out, const machine *m, const kernels *k, team *workers, unsigned what,
                                          double seconds, dil_error *err);

/* One working set of so many bytes (at most an eighth of the memory there is) for about `seconds`, with a pause of so many before each
 * time: a cache that others share forgets in it. */
DIL_MUST_CHECK dil_status machine_measure_reading(machine_rate *out, const machine *m, const kernels *k, team *workers,
                                                  double bytes, double pause, double seconds, dil_error *err);

/* Reading from memory, measured again and again beside other work: where others share the machine, what it gives changes by the second,
 * and only what was measured just before and after a run says what the run could have had. */
typedef struct memory_reader memory_reader;

/* The buffer of LIMIT_MEMORY, on all threads of the team, which outlives the reader. [owned: free with machine_reader_close] */
DIL_MUST_CHECK dil_status machine_reader_open(memory_reader **out, const machine *m, const kernels *k, team *workers,
                                              dil_error *err);
/* Bytes per second, the median of at least five passes through the buffer in about `seconds`. */
double machine_reader_rate(memory_reader *r, double seconds);
void machine_reader_close(memory_reader *r);

uint64_t machine_read_point(int point); /* READ_LEAST, doubled point times */
/* Bytes per second of reading a working set of so many bytes again and again, from a measured curve. */
double machine_read_rate(const machine_limits *l, double bytes);

#endif
