/* The engine's promise: the same tokens give bit-identical logits for any number of threads, any batch they share, any size
 * of pass, computed afresh or from a reused prefix. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cpu.h"
#include "engine/engine.h"
#include "leaks.h"
#include "tiny_model.h"

/*
 * More than ATTN_CHUNK pages of 64 tokens. Sanitizers run everything many times slower: there references are made in passes of several
 * tokens. ThreadSanitizer looks for races, which do not depend on the format of the weights: there the models with different steps
 * stay, in every format of the cache.
 */
#if defined(__SANITIZE_THREAD__)
#define N_LONG 580
#define FEW_SUBJECTS 1
#define N_LEVEL 70
#else
#define N_LONG 700
#define FEW_SUBJECTS 0
#define N_LEVEL 200
#endif
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define REFERENCE_PASS 32 /* of one thread */
#else
#define REFERENCE_PASS 1
#endif

typedef struct subject {
    const char *name;
    tiny_model model;
    dil_type kv;
} subject;

#define MOST_SUBJECTS 20

static subject subjects[MOST_SUBJECTS];
static int n_subjects;

typedef struct rows {
    float *p;
    size_t width;
    int first, n;
} rows; /* logits of positions first.. */

static rows references[MOST_SUBJECTS]; /* of N_LONG tokens: made once, freed at the end */

static void add_subject(const char *name, tiny_model m, dil_type kv, bool always)
{
    if (FEW_SUBJECTS && !always)
        return;
    subjects[n_subjects++] = (subject){name, m, kv};
}

static int prepare(void **state)
{
    (void)state;
    tiny_model tied = tiny_llama(DIL_TYPE_Q4_1), bias = tiny_llama(DIL_TYPE_Q8_0), narrow = tiny_llama(DIL_TYPE_F32);
    tied.tied = true;
    bias.arch = "qwen2";
    narrow.n_embd = 40, narrow.n_head = narrow.n_head_kv = 5, narrow.head_dim = 8, narrow.n_ff = 72;
    add_subject("f32", tiny_llama(DIL_TYPE_F32), DIL_TYPE_F16, true);
    add_subject("f32-narrow", narrow, DIL_TYPE_F32, false);
    add_subject("f16", tiny_llama(DIL_TYPE_F16), DIL_TYPE_F16, false);
    add_subject("bf16", tiny_llama(DIL_TYPE_BF16), DIL_TYPE_BF16, false);
    add_subject("q4_0", tiny_llama(DIL_TYPE_Q4_0), DIL_TYPE_Q8_0, false);
    add_subject("q4_1-tied", tied, DIL_TYPE_F16, true);
    add_subject("q8_0-bias", bias, DIL_TYPE_F32, true);
    add_subject("q4_k", tiny_llama(DIL_TYPE_Q4_K), DIL_TYPE_F16, false);
    add_subject("experts-q4_k", tiny_moe(DIL_TYPE_Q4_K, false), DIL_TYPE_F16, true);
    add_subject("experts-shared", tiny_moe(DIL_TYPE_F16, true), DIL_TYPE_F32, false);
    add_subject("q6_k", tiny_llama(DIL_TYPE_Q6_K), DIL_TYPE_BF16, false);
    add_subject("gemma-f32", tiny_gemma(DIL_TYPE_F32), DIL_TYPE_F32, false);
    add_subject("gemma-f16", tiny_gemma(DIL_TYPE_F16), DIL_TYPE_BF16, true);
    add_subject("gemma-q4_0", tiny_gemma(DIL_TYPE_Q4_0), DIL_TYPE_F16, false);
    add_subject("gemma-q8_0", tiny_gemma(DIL_TYPE_Q8_0), DIL_TYPE_Q8_0, true);
    add_subject("four-bits", tiny_llama(DIL_TYPE_F32), DIL_TYPE_Q4_0, true);
    add_subject("four-bits-gemma", tiny_gemma(DIL_TYPE_F32), DIL_TYPE_Q4_0, false);
    char path[600];
    for (int i = 0; i < n_subjects; i++)
        tiny_write(tiny_path(path, subjects[i].name), &subjects[i].model);
    return 0;
}

static int clear(void **state)
{
    (void)state;
    char path[600];
    int failed = 0;
    for (int i = 0; i < n_subjects; i++) {
        failed |= unlink(tiny_path(path, subjects[i].name));
        free(references[i].p);
    }
    return failed;
}

static void ok(dil_status status, const dil_error *err)
{
    if (status != DIL_OK)
        fail_msg("%s", err->text);
}

static engine *open_subject(const subject *s, int threads, int micro_batch, int n_sessions, const char *cpu)
{
    char path[600];
    dil_error err;
    engine *e;
    engine_options o = engine_options_default();
    o.n_threads = threads;
    o.context = 1024;
    o.n_sessions = n_sessions;
    o.micro_batch = micro_batch;
    o.type_k = o.type_v = s->kv;
    o.cpu = cpu;
    ok(engine_open(&e, tiny_path(path, s->name), &o, &err), &err);
    return e;
}

/* Text number `which`, the same for every test. */
static void make_tokens(const subject *s, uint32_t which, token_id *tokens, int n)
{
    uint32_t random = 77 + which * 1009;
    for (int i = 0; i < n; i++)
        tokens[i] = (token_id)(tiny_random(&random) % s->model.n_vocab);
}

static bool keep_row(void *ctx, int32_t i, const float *logits)
{
    rows *r = ctx;
    if (i >= r->first)
        memcpy(r->p + (size_t)(i - r->first) * r->width, logits, r->width * sizeof *logits);
    r->n++;
    return true;
}

/* Logits of every position of n tokens, from an empty session. */
static rows all_logits(engine *e, const token_id *tokens, int n)
{
    session *s;
    dil_error err;
    rows r = {.width = (size_t)engine_n_vocab(e)};
    r.p = malloc((size_t)n * r.width * sizeof *r.p);
    assert_non_null(r.p);
    ok(session_new(&s, e, &err), &err);
    ok(session_eval(s, tokens, n, NULL, keep_row, &r, &err), &err);
    assert_int_equal(r.n, n);
    session_free(s);
    return r;
}

static void same_row(const float *found, const rows *reference, int position, const char *what)
{
    const float *wanted = reference->p + (size_t)position * reference->width;
    for (size_t i = 0; i < reference->width; i++)
        if (memcmp(&found[i], &wanted[i], sizeof *wanted) != 0 || !isfinite(wanted[i]))
            fail_msg("%s: position %d, logit %zu: wanted %.9g, found %.9g", what, position, i, (double)wanted[i], (double)found[i]);
}

static void same_rows(const rows *found, const rows *reference, const char *what)
{
    for (int i = 0; i < found->n; i++)
        same_row(found->p + (size_t)i * found->width, reference, i, what);
}

/* One thread, one token a pass (REFERENCE_PASS). */
static rows reference_of(const subject *s, uint32_t which, int n)
{
    token_id tokens[N_LONG];
    engine *e = open_subject(s, 1, REFERENCE_PASS, 1, NULL);
    make_tokens(s, which, tokens, n);
    rows r = all_logits(e, tokens, n);
    engine_close(e);
    return r;
}

/* [borrowed] */
static const rows *long_reference(const subject *s)
{
    rows *r = &references[s - subjects];
    if (!r->p)
        *r = reference_of(s, 0, N_LONG);
    return r;
}

/* ---- threads and sizes of passes ---- */

static void check_threads(const subject *s)
{
    static const struct {
        int threads, micro_batch;
    } ways[] = {{1, 7}, {2, 1}, {2, 512}, {3, 5}, {3, 100}};
    token_id tokens[N_LONG];
    char what[96];
    make_tokens(s, 0, tokens, N_LONG);
    const rows *reference = long_reference(s);
    for (size_t i = FEW_SUBJECTS; i < sizeof ways / sizeof *ways; i++) { /* one thread has no races */
        engine *e = open_subject(s, ways[i].threads, ways[i].micro_batch, 1, NULL);
        rows found = all_logits(e, tokens, N_LONG);
        (void)snprintf(what, sizeof what, "%s, %d threads, passes of %d", s->name, ways[i].threads, ways[i].micro_batch);
        same_rows(&found, reference, what);
        free(found.p);
        engine_close(e);
    }
}

/* The prompt in large passes with one output each: what session_sync does. */
static void check_prompts(const subject *s)
{
    static const int lengths[] = {1, 2, 5, 63, 64, 65, 128, 511, 512, 513, 570, N_LONG};
    token_id tokens[N_LONG];
    dil_error err;
    make_tokens(s, 0, tokens, N_LONG);
    const rows *reference = long_reference(s);
    engine *e = open_subject(s, 2, 512, 1, NULL);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        session *one;
        const float *logits;
        int32_t reused;
        ok(session_new(&one, e, &err), &err);
        ok(session_sync(one, tokens, lengths[i], &logits, &reused, NULL, NULL, &err), &err);
        assert_int_equal(reused, 0);
        same_row(logits, reference, lengths[i] - 1, s->name);
        session_free(one);
    }
    engine_close(e);
}

/* Settings at random, sensible or not: they cut the work another way, nothing else. */
static void check_settings(const subject *s)
{
    token_id tokens[N_LONG];
    char what[96];
    uint32_t random = 5;
    make_tokens(s, 0, tokens, N_LONG);
    const rows *reference = long_reference(s);
    engine *e = open_subject(s, 3, 600, 1, NULL);
    for (int i = 0; i < (FEW_SUBJECTS ? 2 : 6); i++) {
        profile p = {.micro_batch = i % 2 ? 600 : (int32_t)(tiny_random(&random) % 300 + 20)};
        compute_tuning *t = &p.tuning;
        for (int kind = 0; kind < STEP_KINDS; kind++)
            t->tile[kind] = (compute_tile){(int32_t)(tiny_random(&random) % 70), (int32_t)(tiny_random(&random) % 400)};
        t->items_few = (int32_t)(tiny_random(&random) % 20);
        t->items_many = (int32_t)(tiny_random(&random) % 20);
        t->threads_few = i % 4;
        t->threads_many = (i + 1) % 4;
        t->part_rows = i == 3 ? INT32_MAX : (int32_t)(tiny_random(&random) % 200);
        t->ahead = (int32_t)(tiny_random(&random) % 9000);
        t->attention_rows = (int32_t)(tiny_random(&random) % 120);
        engine_tune(e, &p);
        rows found = all_logits(e, tokens, N_LONG);
        (void)snprintf(what, sizeof what, "%s, settings %d", s->name, i);
        same_rows(&found, reference, what);
        free(found.p);
    }
    engine_close(e);
}

/* ---- batches ---- */

#define N_BATCH 8
#define N_STEPS 70 /* over a page's end */

static void check_batch(const subject *s)
{
    static const int lengths[N_BATCH] = {1, 3, 63, 64, 130, 200, 470, 505};
    token_id tokens[N_BATCH][N_LONG];
    session *sessions[N_BATCH];
    rows reference[N_BATCH];
    const float *logits[N_BATCH];
    dil_error err;
    engine *e = open_subject(s, 2, 512, N_BATCH, NULL);
    for (int i = 0; i < N_BATCH; i++) {
        reference[i] = reference_of(s, (uint32_t)i, lengths[i] + N_STEPS);
        make_tokens(s, (uint32_t)i, tokens[i], N_LONG);
        ok(session_new(&sessions[i], e, &err), &err);
        ok(session_sync(sessions[i], tokens[i], lengths[i], logits, NULL, NULL, NULL, &err), &err);
        same_row(logits[0], &reference[i], lengths[i] - 1, s->name);
    }
    for (int step = 0; step < N_STEPS; step++) {
        token_id next[N_BATCH];
        int n = step % 5 == 4 ? 3 : N_BATCH; /* now and then only some go on */
        for (int i = 0; i < N_BATCH; i++)
            next[i] = tokens[i][session_n_tokens(sessions[i])];
        ok(engine_step(e, sessions, next, n, logits, &err), &err);
        for (int i = 0; i < n; i++)
            same_row(logits[i], &reference[i], session_n_tokens(sessions[i]) - 1, s->name);
    }
    for (int i = 0; i < N_BATCH; i++) {
        session_free(sessions[i]);
        free(reference[i].p);
    }
    engine_close(e);
}

/* ---- reused prefixes ---- */

static void sync_equals(session *s, const token_id *tokens, int n, int reused_wanted, const rows *reference, const char *what)
{
    dil_error err;
    const float *logits;
    int32_t reused;
    ok(session_sync(s, tokens, n, &logits, &reused, NULL, NULL, &err), &err);
    if (reused != reused_wanted)
        fail_msg("%s: wanted %d tokens reused, found %d", what, reused_wanted, reused);
    assert_int_equal(session_n_tokens(s), n);
    assert_memory_equal(session_tokens(s), tokens, (size_t)n * sizeof *tokens);
    same_row(logits, reference, n - 1, what);
}

/* b takes a's prefix in the middle of a page; then both go on, differently, in turns. */
static void check_reuse(const subject *s)
{
    token_id one[N_LONG], two[N_LONG];
    session *a, *b;
    dil_error err;
    make_tokens(s, 0, one, N_LONG);
    make_tokens(s, 1, two, N_LONG);
    memcpy(two, one, 100 * sizeof *two);
    two[100] = (one[100] + 1) % (token_id)s->model.n_vocab;
    engine *e = open_subject(s, 2, 512, 2, NULL), *alone = open_subject(s, 1, REFERENCE_PASS, 1, NULL);
    const rows first = *long_reference(s);
    rows second = all_logits(alone, two, N_LONG);
    ok(session_new(&a, e, &err), &err);
    ok(session_new(&b, e, &err), &err);
    sync_equals(a, one, 300, 0, &first, "cold");
    sync_equals(a, one, 300, 299, &first, "the same again");
    sync_equals(a, one, 310, 300, &first, "longer");
    sync_equals(a, one, 40, 39, &first, "shorter");
    sync_equals(a, one, 300, 40, &first, "longer again");
    session_truncate(a, 128);
    sync_equals(a, one, 290, 128, &first, "after truncation at a page's end");
    sync_equals(b, two, 250, 100, &second, "adopted");
    sync_equals(a, one, 320, 290, &first, "the giver goes on");
    sync_equals(b, one, 200, 200 - 1, &first, "the taker changes sides");
    sync_equals(b, two, 250, 100, &second, "and back");
    sync_equals(a, two, 260, 250, &second, "the giver takes");
    session_truncate(b, 70); /* both hold the second page now: whoever writes first copies */
    for (int i = 70; i < 140; i++) {
        const float *logits;
        ok(engine_step(e, &b, &two[i], 1, &logits, &err), &err);
        same_row(logits, &second, i, "token by token");
    }
    sync_equals(a, two, 270, 260, &second, "untouched by the other");
    session_free(a);
    sync_equals(b, two, N_LONG, 140, &second, "after the giver is gone");
    session_free(b);
    free(second.p);
    engine_close(e);
    engine_close(alone);
}

static void for_all(void (*check)(const subject *))
{
    for (int i = 0; i < n_subjects; i++)
        check(&subjects[i]);
}

static void threads_and_passes(void **state)
{
    (void)state;
    for_all(check_threads);
}

static void settings(void **state)
{
    (void)state;
    for_all(check_settings);
}

static void prompts(void **state)
{
    (void)state;
    for_all(check_prompts);
}

static void batches(void **state)
{
    (void)state;
    for_all(check_batch);
}

static void reuse(void **state)
{
    (void)state;
    for_all(check_reuse);
}

/* ---- formats of the cache ---- */

static double relative_difference(const rows *found, const rows *wanted, int n)
{
    double difference = 0, size = 0;
    for (size_t j = 0; j < (size_t)n * found->width; j++) {
        difference += pow((double)found->p[j] - (double)wanted->p[j], 2);
        size += pow((double)wanted->p[j], 2);
    }
    return sqrt(difference / size);
}

/* Fewer bits of keys and values, the same logits nearly. */
static void formats_of_the_cache(void **state)
{
    (void)state;
    static const struct {
        dil_type type;
        double limit;
    } formats[] = {{DIL_TYPE_F16, 5e-3}, {DIL_TYPE_BF16, 2e-2}, {DIL_TYPE_Q8_0, 2e-2}, {DIL_TYPE_Q4_0, 2e-1}};
    token_id tokens[N_LONG];
    for (int i = 0; i < n_subjects; i++) {
        subject s = subjects[i];
        if (s.model.type != DIL_TYPE_F32 || s.model.n_experts > 0)
            continue; /* rounded activations and choices tip */
        make_tokens(&s, 4, tokens, N_LEVEL);
        s.kv = DIL_TYPE_F32;
        engine *e = open_subject(&s, 2, 64, 1, NULL);
        rows wanted = all_logits(e, tokens, N_LEVEL);
        engine_close(e);
        for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
            s.kv = formats[f].type;
            e = open_subject(&s, 2, 64, 1, NULL);
            rows found = all_logits(e, tokens, N_LEVEL);
            engine_close(e);
            double difference = relative_difference(&found, &wanted, N_LEVEL);
            if (!(difference <= formats[f].limit))
                fail_msg("%s, cache of %s: relative difference from f32 %g", s.name, format_get(s.kv)->name, difference);
            free(found.p);
        }
        free(wanted.p);
    }
}

/* ---- kernel levels ---- */

/* The same numbers up to rounding, and the same ones again on any number of threads. */
static void check_levels(const subject *s)
{
    static const char *const levels[] = {"avx2", "avx512", "avx512_bf16"};
    uint32_t needs[] = {CPU_AVX2, CPU_AVX512 | CPU_AVX512_VNNI, CPU_AVX512 | CPU_AVX512_VNNI | CPU_AVX512_BF16};
    token_id tokens[N_LEVEL];
    make_tokens(s, 3, tokens, N_LEVEL);
    engine *e = open_subject(s, 1, 64, 1, "scalar");
    rows scalar = all_logits(e, tokens, N_LEVEL);
    engine_close(e);
    for (int i = 0; i < 3; i++) {
        if ((cpu_features() & needs[i]) != needs[i])
            continue;
        e = open_subject(s, 1, 64, 1, levels[i]);
        rows found = all_logits(e, tokens, N_LEVEL);
        engine_close(e);
        e = open_subject(s, 3, 11, 1, levels[i]);
        rows again = all_logits(e, tokens, N_LEVEL);
        engine_close(e);
        same_rows(&again, &found, levels[i]);
        double difference = relative_difference(&found, &scalar, N_LEVEL);
        double limit = s->model.type == DIL_TYPE_F32 ? 1e-5 : 2e-2; /* a rounding may tip an 8-bit activation */
        if (s->kv == DIL_TYPE_Q4_0)
            limit += 5e-2; /* and a 4-bit key or value */
        if (needs[i] & CPU_AVX512_BF16)
            limit += 2e-2; /* attention rounds its weights and V, which tips more */
        if (s->model.n_experts > 0)
            limit += 1e-1; /* a token between two experts may take the other one */
        if (!(difference <= limit))
            fail_msg("%s, %s: relative difference from scalar %g", s->name, levels[i], difference);
        free(found.p);
        free(again.p);
    }
    free(scalar.p);
}

static void levels(void **state)
{
    (void)state;
    for_all(check_levels);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_and_passes),
        cmocka_unit_test(settings),
        cmocka_unit_test(prompts),
        cmocka_unit_test(batches),
        cmocka_unit_test(reuse),
        cmocka_unit_test(formats_of_the_cache),
        cmocka_unit_test(levels),
    };
    return leaks_run_group_tests(tests, prepare, clear);
}
