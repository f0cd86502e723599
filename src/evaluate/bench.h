/* Speed, measured as llama-bench does: prompt processing and generation of random tokens, warmed up, several runs. */
#ifndef EVALUATE_BENCH_H
#define EVALUATE_BENCH_H

#include "engine/engine.h"

#define BENCH_MAX_RUNS 1000

typedef struct bench_test { int32_t n_prompt, n_gen, depth; } bench_test; /* one of n_prompt, n_gen is 0 */

typedef struct bench_result {
    bench_test test;
    int32_t n_runs;
    double seconds[BENCH_MAX_RUNS];
    double mean, deviation, median; /* tokens per second */
    double bytes_per_token;         /* weights and KV read per generated token; per prompt token: weights / micro-batch */
} bench_result;

/* Needs an engine whose context holds depth + n_prompt + n_gen. progress (may be NULL) is asked between passes. */
DIL_MUST_CHECK dil_status bench_run(engine *e, const bench_test *test, int32_t n_runs, dil_progress_fn progress, bench_result *out, dil_error *err);

#endif
