#include "evaluate/bench.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "evaluate/statistics.h"

#define WARM_TOKENS 8
#define READING_SECONDS 0.06 /* before and after each run */

struct bench {
    engine *e;
    bench_test test;
    int32_t n_sessions;
    session **sessions;   /* [n_sessions] */
    token_id *tokens;     /* [depth + n_prompt + 1] */
    token_id *next;       /* [n_sessions] */
    const float **logits; /* [n_sessions] */
    /* Of a lone layer, instead of all these: */
    float *rows, *said; /* [n_rows][n_embd] */
    int32_t n_rows;
};

/* Random but repeatable tokens: what is measured must not depend on the text. */
static token_id random_token(const engine *e, uint64_t i)
{
    uint64_t mixed = (i + 1) * 0x9E3779B97F4A7C15u; /* Fibonacci hashing */
    return (token_id)((mixed >> 32) % (uint64_t)engine_n_vocab(e));
}

static dil_status hold(bench *b, int32_t i, int32_t n, dil_error *err)
{
    const float *logits;
    return n > 0 ? session_sync(b->sessions[i], b->tokens, n, &logits, NULL, NULL, NULL, err) : DIL_OK;
}

static dil_status generate(bench *b, int32_t n, dil_error *err)
{
    for (int32_t i = 0; i < n; i++) {
        for (int32_t s = 0; s < b->n_sessions; s++)
            b->next[s] = random_token(b->e, (uint64_t)i * 256 + (uint64_t)s + 7777);
        DIL_TRY(engine_step(b->e, b->sessions, b->next, b->n_sessions, b->logits, err));
    }
    return DIL_OK;
}

/* Rows instead of tokens. */
static dil_status run_rows(bench *b, int32_t n_gen, dil_error *err)
{
    const size_t n_embd = engine_model(b->e)->h.n_embd;
    if (b->test.n_prompt)
        DIL_TRY(engine_rows(b->e, b->rows, b->test.n_prompt, b->said, NULL, NULL, err));
    for (int32_t i = 0; i < n_gen; i++) {
        const size_t first = (size_t)(i % (b->n_rows - b->n_sessions + 1)) * n_embd;
        DIL_TRY(engine_rows(b->e, b->rows + first, b->n_sessions, b->said, NULL, NULL, err));
    }
    return DIL_OK;
}

static dil_status run(bench *b, int32_t n_gen, dil_error *err)
{
    if (b->rows)
        return run_rows(b, n_gen, err);
    for (int32_t s = 0; s < b->n_sessions; s++)
        session_truncate(b->sessions[s], b->test.depth);
    if (b->test.n_prompt)
        DIL_TRY(hold(b, 0, b->test.depth + b->test.n_prompt, err));
    return generate(b, n_gen, err);
}

dil_status bench_once(bench *b, double *seconds, dil_error *err)
{
    uint64_t started = os_time_ns();
    DIL_TRY(run(b, b->test.n_gen, err));
    *seconds = (double)(os_time_ns() - started) * 1e-9;
    return DIL_OK;
}

double bench_tokens(const bench_test *t)
{
    return (double)t->n_prompt + (double)t->n_gen * (t->n_parallel > 1 ? t->n_parallel : 1);
}

static dil_status check(engine *e, const bench_test *t, dil_error *err)
{
    int32_t total = t->depth + t->n_prompt + t->n_gen,
            most = engine_micro_batch(e) < engine_max_outputs(e) ? engine_micro_batch(e) : engine_max_outputs(e);
    if (t->n_prompt + t->n_gen < 1 || total > engine_context(e))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "bench: wanted 1..%d tokens in all, found %d", engine_context(e), total);
    if (t->n_parallel < 0 || t->n_parallel > most || (t->n_parallel > 1 && t->n_prompt))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "bench: wanted 1..%d sequences that only generate, found %d", most, t->n_parallel);
    return DIL_OK;
}

/* Random rows: each goes to experts of its own. */
static dil_status prepare_rows(bench *b, dil_error *err)
{
    const size_t n_embd = engine_model(b->e)->h.n_embd;
    b->n_rows = b->test.n_prompt > 256 ? b->test.n_prompt : 256;
    if (b->n_rows < b->n_sessions)
        b->n_rows = b->n_sessions;
    const size_t n = (size_t)b->n_rows * n_embd;
    b->rows = mem_alloc(n * sizeof *b->rows, MEM_MISC);
    b->said = mem_alloc(n * sizeof *b->said, MEM_MISC);
    if (!b->rows || !b->said)
        return DIL_FAIL(err, DIL_NO_MEMORY, "bench: no memory for %d rows", b->n_rows);
    for (size_t i = 0; i < n; i++)
        b->rows[i] = (float)(int32_t)(((uint64_t)i + 1) * 0x9E3779B97F4A7C15u >> 32) * 0x1p-31f;
    return run(b, b->test.n_gen < WARM_TOKENS ? b->test.n_gen : WARM_TOKENS, err);
}

static dil_status prepare(bench *b, dil_error *err)
{
    if (engine_model(b->e)->h.lone)
        return prepare_rows(b, err);
    int32_t n = b->test.depth + b->test.n_prompt;
    b->sessions = mem_calloc((size_t)b->n_sessions, sizeof *b->sessions, MEM_MISC);
    b->tokens = mem_calloc((size_t)n + 1, sizeof *b->tokens, MEM_MISC);
    b->next = mem_calloc((size_t)b->n_sessions, sizeof *b->next, MEM_MISC);
    b->logits = mem_calloc((size_t)b->n_sessions, sizeof *b->logits, MEM_MISC);
    if (!b->sessions || !b->tokens || !b->next || !b->logits)
        return DIL_FAIL(err, DIL_NO_MEMORY, "bench: no memory");
    for (int32_t i = 0; i < n; i++)
        b->tokens[i] = random_token(b->e, (uint64_t)i);
    for (int32_t s = 0; s < b->n_sessions; s++) {
        DIL_TRY(session_new(&b->sessions[s], b->e, err));
        DIL_TRY(hold(b, s, b->test.depth, err));
    }
    return run(b, b->test.n_gen < WARM_TOKENS ? b->test.n_gen : WARM_TOKENS, err);
}

dil_status bench_open(bench **out, engine *e, const bench_test *test, dil_error *err)
{
    DIL_TRY(check(e, test, err));
    bench *b = mem_calloc(1, sizeof *b, MEM_MISC);
    if (!b)
        return DIL_FAIL(err, DIL_NO_MEMORY, "bench: no memory");
    b->e = e;
    b->test = *test;
    b->n_sessions = test->n_parallel > 1 ? test->n_parallel : 1;
    dil_status status = prepare(b, err);
    if (status == DIL_OK)
        *out = b;
    else
        bench_close(b);
    return status;
}

void bench_close(bench *b)
{
    if (!b)
        return;
    for (int32_t s = 0; b->sessions && s < b->n_sessions; s++)
        session_free(b->sessions[s]);
    mem_free(b->sessions);
    mem_free(b->tokens);
    mem_free(b->next);
    mem_free(b->logits);
    mem_free(b->rows);
    mem_free(b->said);
    mem_free(b);
}

/* KV bytes that attention reads for one token at position n: windowed layers see no more than their window. */
static double kv_read(engine *e, double n)
{
    const hparams *h = &engine_model(e)->h;
    double per_layer = (double)engine_kv_bytes_per_token(e) / h->n_layer, sum = 0;
    for (uint32_t i = 0; i < h->n_layer && !h->lone; i++)
        sum += per_layer * (h->windowed[i] && n > (double)h->window ? (double)h->window : n);
    return sum;
}

static void account(engine *e, bench_result *r)
{
    const bench_test *t = &r->test;
    double weights = (double)compute_weight_bytes(engine_model(e)), n = bench_tokens(t),
           parallel = t->n_parallel > 1 ? t->n_parallel : 1;
    double passes = ceil((double)t->n_prompt / engine_micro_batch(e));
    double generated = t->n_gen * (weights + parallel * kv_read(e, t->depth + t->n_prompt + t->n_gen / 2.0));
    r->bytes_per_token = (passes * weights + generated) / n;
    uint64_t macs[DIL_TYPE_COUNT];
    compute_macs(engine_model(e), macs);
    r->macs_per_token = 0;
    for (int i = 0; i < DIL_TYPE_COUNT; i++)
        r->macs_per_token += (double)macs[i];
}

static void summarise(bench_result *r)
{
    double n_tokens = bench_tokens(&r->test), sum = 0, sum2 = 0, values[BENCH_MAX_RUNS], n = r->n_runs;
    for (int32_t i = 0; i < r->n_runs; i++) {
        values[i] = n_tokens / r->seconds[i];
        sum += values[i];
        sum2 += values[i] * values[i];
    }
    double var = r->n_runs > 1 ? (sum2 - sum * sum / n) / (n - 1) : 0.0;
    r->mean = sum / n;
    r->deviation = var > 0 ? sqrt(var) : 0.0;
    r->median = statistics_median(values, r->n_runs).median;
}

/* Once bytes_per_token is known. */
static void summarise_reading(bench_result *r)
{
    double shares[BENCH_MAX_RUNS];
    for (int32_t i = 0; i < r->n_runs; i++)
        shares[i] = r->reading[i] > 0 ? r->bytes_per_token * bench_tokens(&r->test) / r->seconds[i] / r->reading[i] : 0;
    r->read_rate = statistics_median(r->reading, r->n_runs).median;
    r->read_share = statistics_median(shares, r->n_runs).median;
}

static dil_status measure(bench *b, memory_reader *reader, dil_progress_fn progress, void *user, bench_result *r, dil_error *err)
{
    double before = reader ? machine_reader_rate(reader, READING_SECONDS) : 0;
    for (int32_t i = 0; i < r->n_runs; i++) {
        DIL_TRY(bench_once(b, &r->seconds[i], err));
        const double after = reader ? machine_reader_rate(reader, READING_SECONDS) : 0;
        r->reading[i] = (before + after) / 2;
        before = after;
        if (progress && !progress(user, "measuring", (uint64_t)i + 1, (uint64_t)r->n_runs))
            return DIL_FAIL(err, DIL_CANCELLED, "bench: cancelled after %d of %d runs", i + 1, r->n_runs);
    }
    return DIL_OK;
}

dil_status bench_run(engine *e, const bench_test *test, int32_t n_runs, memory_reader *reader, dil_progress_fn progress, void *user,
                     bench_result *out, dil_error *err)
{
    bench *b;
    if (n_runs < 1 || n_runs > BENCH_MAX_RUNS)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "bench: wanted 1..%d runs, found %d", BENCH_MAX_RUNS, n_runs);
    DIL_TRY(bench_open(&b, e, test, err));
    out->test = *test;
    out->n_runs = n_runs;
    compute_times_reset(engine_compute(e)); /* the runs alone, without depth and warm-up */
    dil_status status = measure(b, reader, progress, user, out, err);
    bench_close(b);
    if (status != DIL_OK)
        return status;
    summarise(out);
    account(e, out);
    summarise_reading(out);
    return DIL_OK;
}

double bench_compute_seconds(engine *e, const bench_result *r, const machine_limits *l)
{
    uint64_t macs[DIL_TYPE_COUNT];
    double seconds = 0, half = l->bf16.best > l->f32.best ? l->bf16.best : l->f32.best;
    compute_macs(engine_model(e), macs);
    for (int i = 0; i < DIL_TYPE_COUNT; i++) {
        double peak = i == DIL_TYPE_F32 ? l->f32.best : i == DIL_TYPE_F16 || i == DIL_TYPE_BF16 ? half : l->int8.best;
        if (macs[i] && peak <= 0)
            return 0;
        seconds += macs[i] ? (double)macs[i] / peak : 0;
    }
    return r->macs_per_token > 0 ? seconds : 0;
}

void bench_test_name(const bench_test *t, char *out, size_t n)
{
    char pp[24] = "", tg[24] = "", many[24] = "", depth[24] = "";
    if (t->n_prompt)
        (void)snprintf(pp, sizeof pp, "pp%d", t->n_prompt);
    if (t->n_gen)
        (void)snprintf(tg, sizeof tg, "%stg%d", t->n_prompt ? "+" : "", t->n_gen);
    if (t->n_parallel > 1)
        (void)snprintf(many, sizeof many, " x%d", t->n_parallel);
    if (t->depth)
        (void)snprintf(depth, sizeof depth, " @ d%d", t->depth);
    (void)snprintf(out, n, "%s%s%s%s", pp, tg, many, depth);
}
