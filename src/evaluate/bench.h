/* Speed, measured as llama-bench does: prompt processing and generation of random tokens, warmed up, several runs. Of a lone layer of
 * experts: of random rows, all at once and one by one. */
#ifndef EVALUATE_BENCH_H
#define EVALUATE_BENCH_H

#include "engine/engine.h"
#include "machine/limits.h"

#define BENCH_MAX_RUNS 1000
#define BENCH_MAX_TOKENS 10000000

/* n_prompt tokens in passes of a micro-batch, then n_gen tokens one by one, both after depth tokens. n_parallel sequences
 * generate at once (0: 1); only one may have a prompt. */
typedef struct bench_test {
    int32_t n_prompt, n_gen, depth, n_parallel;
} bench_test;

typedef struct bench_result {
    bench_test test;
    int32_t n_runs;
    double seconds[BENCH_MAX_RUNS];
    double mean, deviation, median; /* tokens per second, of all sequences together */
    double reading[BENCH_MAX_RUNS]; /* bytes per second that memory gave around each run; 0 without a reader */
    double bytes_per_token;         /* weights and KV read per token */
    double macs_per_token;          /* multiply-adds of the linear layers */
    double read_rate;               /* median of reading; 0 without a reader */
    double read_share;              /* median of what each run read as a share of its reading; 0 without a reader */
} bench_result;

/* A test under way: sessions that hold its depth. */
typedef struct bench bench;

/* Reads the depth in and warms up. Needs an engine whose context holds depth + n_prompt + n_gen, and n_parallel sessions.
 * [owned: free with bench_close, before the engine] */
DIL_MUST_CHECK dil_status bench_open(bench **out, engine *e, const bench_test *test, dil_error *err);
DIL_MUST_CHECK dil_status bench_once(bench *b, double *seconds, dil_error *err); /* one run */
void bench_close(bench *b);

/* "pp512+tg128 x4 @ d1024". */
void bench_test_name(const bench_test *t, char *out, size_t n);
/* Tokens a run makes, for t/s. */
double bench_tokens(const bench_test *t);

/* All of it: n_runs runs, with reading measured before and after each (reader NULL: not). progress (may be NULL) is asked between
 * them. */
DIL_MUST_CHECK dil_status bench_run(engine *e, const bench_test *test, int32_t n_runs, memory_reader *reader,
                                    dil_progress_fn progress, void *user, bench_result *out, dil_error *err);

/* Seconds per token if nothing but the multiply-adds of the linear layers took time: the integer units for quantized weights, the
 * better of bf16 and f32 for F16 and BF16, f32 for F32. 0: not measured. */
double bench_compute_seconds(engine *e, const bench_result *r, const machine_limits *l);

#endif
