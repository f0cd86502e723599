#include "evaluate/bench.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"

/* Random but repeatable tokens: what is measured must not depend on the text. */
static token_id random_token(const engine *e, uint64_t i)
{
    uint64_t mixed = (i + 1) * 0x9E3779B97F4A7C15u; /* Fibonacci hashing */
    return (token_id)((mixed >> 32) % (uint64_t)engine_n_vocab(e));
}

static dil_status prompt_pass(session *s, const token_id *tokens, int32_t n, dil_error *err)
{
    const float *logits;
    return session_sync(s, tokens, n, &logits, NULL, NULL, NULL, err);
}

static dil_status generate_pass(engine *e, session *s, int32_t n, dil_error *err)
{
    for (int32_t i = 0; i < n; i++) {
        const float *logits;
        token_id id = random_token(e, (uint64_t)i + 7777);
        DIL_TRY(engine_step(e, &s, &id, 1, &logits, err));
    }
    return DIL_OK;
}

/* One run, timed, from a session that already holds depth tokens. */
static dil_status one_run(engine *e, session *s, const bench_test *t, const token_id *tokens, double *seconds, dil_error *err)
{
    session_truncate(s, t->depth);
    uint64_t started = os_time_ns();
    if (t->n_prompt)
        DIL_TRY(prompt_pass(s, tokens, t->depth + t->n_prompt, err));
    DIL_TRY(generate_pass(e, s, t->n_gen, err));
    *seconds = (double)(os_time_ns() - started) * 1e-9;
    return DIL_OK;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void summarise(engine *e, bench_result *r)
{
    double n_tokens = r->test.n_prompt + r->test.n_gen, sum = 0, sum2 = 0, sorted[BENCH_MAX_RUNS];
    for (int32_t i = 0; i < r->n_runs; i++) {
        double v = n_tokens / r->seconds[i];
        sorted[i] = v;
        sum += v;
        sum2 += v * v;
    }
    double n = r->n_runs, var = r->n_runs > 1 ? (sum2 - sum * sum / n) / (n - 1) : 0.0;
    qsort(sorted, (size_t)r->n_runs, sizeof *sorted, ascending);
    r->mean = sum / n;
    r->deviation = var > 0 ? sqrt(var) : 0.0;
    r->median = r->n_runs % 2 ? sorted[r->n_runs / 2] : (sorted[r->n_runs / 2] + sorted[r->n_runs / 2 - 1]) / 2;
    double weights = (double)compute_weight_bytes(engine_model(e));
    double kv = (double)engine_kv_bytes(e) / engine_context(e) * (r->test.depth + r->test.n_gen / 2.0);
    int32_t batch = r->test.n_prompt < engine_micro_batch(e) ? r->test.n_prompt : engine_micro_batch(e);
    r->bytes_per_token = r->test.n_gen ? weights + kv : weights / (batch > 0 ? batch : 1);
}

static dil_status measure(engine *e, session *s, const token_id *tokens, dil_progress_fn progress, bench_result *r, dil_error *err)
{
    const bench_test *t = &r->test;
    double ignored;
    if (t->depth)
        DIL_TRY(prompt_pass(s, tokens, t->depth, err));
    bench_test warm = {t->n_prompt, t->n_gen < 8 ? t->n_gen : 8, t->depth};
    DIL_TRY(one_run(e, s, &warm, tokens, &ignored, err));
    for (int32_t i = 0; i < r->n_runs; i++) {
        DIL_TRY(one_run(e, s, t, tokens, &r->seconds[i], err));
        if (progress && !progress(NULL, "measuring", (uint64_t)i + 1, (uint64_t)r->n_runs))
            return DIL_FAIL(err, DIL_CANCELLED, "bench: cancelled after %d of %d runs", i + 1, r->n_runs);
    }
    summarise(e, r);
    return DIL_OK;
}

dil_status bench_run(engine *e, const bench_test *test, int32_t n_runs, dil_progress_fn progress, bench_result *out, dil_error *err)
{
    int32_t n = test->depth + test->n_prompt;
    if (n_runs < 1 || n_runs > BENCH_MAX_RUNS || n + test->n_gen > engine_context(e) || test->n_prompt + test->n_gen < 1)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "bench: wanted 1..%d runs of at most %d tokens, found %d runs of %d", BENCH_MAX_RUNS,
                        engine_context(e), n_runs, n + test->n_gen);
    session *s = NULL;
    token_id *tokens = mem_calloc((size_t)n + 1, sizeof *tokens, MEM_MISC);
    if (!tokens)
        return DIL_FAIL(err, DIL_NO_MEMORY, "bench: no memory");
    for (int32_t i = 0; i < n; i++)
        tokens[i] = random_token(e, (uint64_t)i);
    out->test = *test;
    out->n_runs = n_runs;
    dil_status status = session_new(&s, e, err);
    if (status == DIL_OK)
        status = measure(e, s, tokens, progress, out, err);
    session_free(s);
    mem_free(tokens);
    return status;
}
