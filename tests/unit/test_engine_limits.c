/* The engine at its edges: mixed batches, no heap call while generating, full contexts and pools, wrong ids, cancelling. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdatomic.h>

#include "engine/engine.h"
#include "leaks.h"
#include "tiny_model.h"

/* ---- every call of the C library's allocator in this process is counted ---- */

static atomic_ulong heap_calls;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define HEAP_COUNTED 0 /* sanitizers bring their own allocator */
#else
#define HEAP_COUNTED 1
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);

void *malloc(size_t n)
{
    atomic_fetch_add(&heap_calls, 1);
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    atomic_fetch_add(&heap_calls, 1);
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    atomic_fetch_add(&heap_calls, 1);
    return __libc_realloc(p, n);
}

void *aligned_alloc(size_t align, size_t n)
{
    atomic_fetch_add(&heap_calls, 1);
    return __libc_memalign(align, n);
}
#endif

static const char *const names[] = {"llama", "gemma"};

static int prepare(void **state)
{
    (void)state;
    char path[600];
    tiny_model llama = tiny_llama(DIL_TYPE_Q8_0), gemma = tiny_gemma(DIL_TYPE_Q4_0);
    tiny_write(tiny_path(path, names[0]), &llama);
    tiny_write(tiny_path(path, names[1]), &gemma);
    return 0;
}

static int clear(void **state)
{
    (void)state;
    char path[600];
    int failed = 0;
    for (int i = 0; i < 2; i++)
        failed |= unlink(tiny_path(path, names[i]));
    return failed;
}

static void ok(dil_status status, const dil_error *err)
{
    if (status != DIL_OK)
        fail_msg("%s", err->text);
}

static void fails(dil_status status, const dil_error *err, dil_status wanted, const char *text)
{
    if (status != wanted || (int)err->code != (int)wanted || !strstr(err->text, text))
        fail_msg("wanted %s with '%s', found %s: %s", status_name(wanted), text, status_name(status), err->text);
}

static engine *open_engine(const char *name, int32_t context, int32_t n_sessions)
{
    char path[600];
    dil_error err;
    engine *e;
    engine_options o = engine_options_default();
    o.n_threads = 2;
    o.context = context;
    o.n_sessions = n_sessions;
    o.micro_batch = 64;
    ok(engine_open(&e, tiny_path(path, name), &o, &err), &err);
    return e;
}

static session *open_session(engine *e)
{
    session *s;
    dil_error err;
    ok(session_new(&s, e, &err), &err);
    return s;
}

static void make_tokens(uint32_t which, token_id *tokens, int n)
{
    uint32_t random = 5 + which * 7919;
    for (int i = 0; i < n; i++)
        tokens[i] = (token_id)(tiny_random(&random) % TINY_LEAST_VOCAB);
}

static float *copy_row(const float *logits, int32_t n)
{
    float *copy = malloc((size_t)n * sizeof *copy);
    assert_non_null(copy);
    return memcpy(copy, logits, (size_t)n * sizeof *copy);
}

/* Logits after n tokens, from a session of its own. */
static float *logits_of(engine *e, const token_id *tokens, int32_t n)
{
    dil_error err;
    const float *logits;
    session *s = open_session(e);
    ok(session_sync(s, tokens, n, &logits, NULL, NULL, NULL, &err), &err);
    float *copy = copy_row(logits, engine_n_vocab(e));
    session_free(s);
    return copy;
}

static void equal_row(engine *e, const float *found, float *wanted)
{
    assert_memory_equal(found, wanted, (size_t)engine_n_vocab(e) * sizeof *wanted);
    free(wanted);
}

/* ---- no heap call per token ---- */

static void count_heap(const char *name)
{
    token_id tokens[400];
    const float *logits;
    dil_error err;
    engine *e = open_engine(name, 512, 2);
    session *s = open_session(e), *other = open_session(e), *both[2] = {s, other};
    const float *rows[2];
    make_tokens(0, tokens, 400);
    ok(session_sync(s, tokens, 120, &logits, NULL, NULL, NULL, &err), &err);
    ok(session_sync(other, tokens, 100, &logits, NULL, NULL, NULL, &err), &err);
    uint64_t calls = 0;
    unsigned long heap = 0;
    for (int i = 0; i < 100; i++) {
        if (i == 1) {
            calls = mem_calls();
            heap = atomic_load(&heap_calls);
        }
        token_id next[2] = {tokens[120 + i], tokens[101 + i]};
        ok(engine_step(e, both, next, 2, rows, &err), &err);
    }
    assert_int_equal(mem_calls(), calls);
    assert_int_equal(atomic_load(&heap_calls), heap);
    assert_true(!HEAP_COUNTED || heap > 100); /* the counter counts */
    session_free(s);
    session_free(other);
    engine_close(e);
}

static void no_heap_call_per_token(void **state)
{
    (void)state;
    count_heap(names[0]);
    count_heap(names[1]);
}

/* ---- limits ---- */

static void context_full(void **state)
{
    (void)state;
    token_id tokens[200];
    const float *logits;
    dil_error err;
    make_tokens(1, tokens, 200);
    engine *e = open_engine(names[0], 100, 1); /* no multiple of a page */
    session *s = open_session(e);
    fails(session_sync(s, tokens, 101, &logits, NULL, NULL, NULL, &err), &err, DIL_LIMIT, "wanted 1..100 tokens, found 101");
    fails(session_sync(s, tokens, 0, &logits, NULL, NULL, NULL, &err), &err, DIL_BAD_ARGUMENT, "found 0");
    ok(session_sync(s, tokens, 99, &logits, NULL, NULL, NULL, &err), &err);
    ok(engine_step(e, &s, &tokens[99], 1, &logits, &err), &err);
    float *last = copy_row(logits, engine_n_vocab(e));
    fails(engine_step(e, &s, &tokens[100], 1, &logits, &err), &err, DIL_LIMIT, "is full (100 tokens)");
    fails(session_eval(s, tokens, 3, NULL, NULL, NULL, &err), &err, DIL_LIMIT, "it holds 100");
    assert_int_equal(session_n_tokens(s), 100);
    session_truncate(s, 99);
    ok(engine_step(e, &s, &tokens[99], 1, &logits, &err), &err);
    equal_row(e, logits, last);
    session_free(s);
    engine_close(e);
}

static void foreign_session(void **state)
{
    (void)state;
    token_id tokens[10];
    const float *logits;
    dil_error err;
    make_tokens(1, tokens, 10);
    engine *e = open_engine(names[0], 64, 1), *other = open_engine(names[1], 64, 1);
    session *s = open_session(other);
    fails(engine_step(e, &s, tokens, 1, &logits, &err), &err, DIL_BAD_ARGUMENT, "belongs to another engine");
    assert_int_equal(session_n_tokens(s), 0);
    session_free(s);
    engine_close(other);
    engine_close(e);
}

static void pool_exhausted(void **state)
{
    (void)state;
    token_id tokens[2][200];
    const float *logits[2];
    dil_error err;
    engine *e = open_engine(names[0], 128, 1); /* two pages for everybody */
    session *a = open_session(e), *b = open_session(e), *both[2] = {a, b};
    make_tokens(0, tokens[0], 200);
    make_tokens(1, tokens[1], 200);
    ok(session_sync(a, tokens[0], 60, logits, NULL, NULL, NULL, &err), &err);
    fails(session_sync(b, tokens[1], 100, logits, NULL, NULL, NULL, &err), &err, DIL_NO_MEMORY, "are free");
    assert_int_equal(session_n_tokens(b), 64); /* a shorter prefix, which goes on */
    session_truncate(b, 63);
    ok(engine_step(e, &b, &tokens[1][63], 1, logits, &err), &err);
    float *wanted = copy_row(logits[0], engine_n_vocab(e));
    session_truncate(b, 63);
    for (int i = 60; i < 64; i++)
        ok(engine_step(e, &a, &tokens[0][i], 1, logits, &err), &err);
    /* a needs a page that is not there; b must not suffer from sharing the pass */
    token_id next[2] = {tokens[0][64], tokens[1][63]};
    for (int i = 0; i < 3; i++)
        fails(engine_step(e, both, next, 2, logits, &err), &err, DIL_NO_MEMORY, "close sessions");
    assert_int_equal(session_n_tokens(a), 64);
    assert_int_equal(session_n_tokens(b), 63);
    ok(engine_step(e, &b, &tokens[1][63], 1, logits, &err), &err);
    equal_row(e, logits[0], wanted);
    session_free(b);
    ok(session_sync(a, tokens[0], 128, logits, NULL, NULL, NULL, &err), &err);
    session_free(a);
    engine_close(e);
}

/* A pass that fails for its last sequence takes no page for its first. */
static void failed_pass_takes_nothing(void **state)
{
    (void)state;
    token_id tokens[200];
    const float *logits[2];
    dil_error err;
    engine *e = open_engine(names[0], 192, 1); /* three pages */
    session *a = open_session(e), *b = open_session(e), *both[2] = {a, b};
    make_tokens(3, tokens, 200);
    ok(session_sync(a, tokens, 64, logits, NULL, NULL, NULL, &err), &err);
    ok(session_sync(b, tokens + 64, 64, logits, NULL, NULL, NULL, &err), &err);
    fails(engine_step(e, both, tokens, 2, logits, &err), &err, DIL_NO_MEMORY, "wanted 1 pages");
    ok(session_sync(b, tokens + 64, 65, logits, NULL, NULL, NULL, &err), &err); /* the third page is still free */
    session_free(a);
    session_free(b);
    engine_close(e);
}

static void wrong_arguments(void **state)
{
    (void)state;
    token_id tokens[20], bad[20];
    const float *logits[2];
    dil_error err;
    engine *e = open_engine(names[0], 128, 2);
    session *s = open_session(e), *other = open_session(e), *twice[3] = {s, other, s};
    make_tokens(4, tokens, 20);
    static const token_id ids[] = {-1, 301, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < 4; i++) {
        memcpy(bad, tokens, sizeof bad);
        bad[11] = ids[i];
        fails(session_sync(s, bad, 20, logits, NULL, NULL, NULL, &err), &err, DIL_BAD_ARGUMENT, "wanted an id in 0..300");
        assert_true(session_n_tokens(s) < 20);
        fails(engine_step(e, &s, &ids[i], 1, logits, &err), &err, DIL_BAD_ARGUMENT, "wanted an id in 0..300");
    }
    fails(engine_step(e, &s, tokens, 0, logits, &err), &err, DIL_BAD_ARGUMENT, "found 0");
    session *many[9] = {s, s, s, s, s, s, s, s, s};
    fails(engine_step(e, many, tokens, 9, logits, &err), &err, DIL_BAD_ARGUMENT, "wanted 1..8");
    fails(engine_step(e, twice, tokens, 3, logits, &err), &err, DIL_BAD_ARGUMENT, "twice");
    twice[1] = s;
    fails(engine_step(e, twice, tokens, 2, logits, &err), &err, DIL_BAD_ARGUMENT, "twice");
    session_truncate(s, -1);
    session_truncate(s, 1000);
    float *wanted = logits_of(e, tokens, 20);
    ok(session_sync(s, tokens, 20, logits, NULL, NULL, NULL, &err), &err);
    equal_row(e, logits[0], wanted);
    session_free(s);
    session_free(other);
    engine_close(e);
}

static void wrong_options(void **state)
{
    (void)state;
    char path[600];
    dil_error err;
    engine *e = NULL;
    engine_plan plan;
    static const struct {
        engine_options o;
        dil_status status;
        const char *text;
    } cases[] = {
        {{.n_threads = -1}, DIL_BAD_ARGUMENT, "threads"},
        {{.n_threads = 257}, DIL_BAD_ARGUMENT, "256"},
        {{.n_threads = 1, .context = -1}, DIL_BAD_ARGUMENT, "negative"},
        {{.n_threads = 1, .context = INT32_MAX}, DIL_LIMIT, "context"},
        {{.n_threads = 1, .micro_batch = 1 << 17, .context = 1 << 20}, DIL_BAD_ARGUMENT, "65536"},
        {{.n_threads = 1, .type_k = DIL_TYPE_Q4_K}, DIL_BAD_ARGUMENT, "kv cache"},
        {{.n_threads = 1, .type_k = (dil_type)63}, DIL_BAD_ARGUMENT, "kv cache"},
        {{.n_threads = 1, .cpu = "pentium"}, DIL_BAD_ARGUMENT, "pentium"},
        {{.n_threads = 1, .memory_bytes = 1000}, DIL_NO_MEMORY, "--memory allows"},
    };
    tiny_path(path, names[0]);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        engine_options o = cases[i].o;
        fails(engine_open(&e, path, &o, &err), &err, cases[i].status, cases[i].text);
        assert_null(e);
    }
    fails(engine_open(&e, "/nowhere/model.gguf", NULL, &err), &err, DIL_IO, "/nowhere/model.gguf");
    fails(engine_plan_file(&plan, "/nowhere/model.gguf", NULL, &err), &err, DIL_IO, "/nowhere/model.gguf");
    engine_options o = {.n_threads = 1, .context = 256};
    ok(engine_plan_file(&plan, path, &o, &err), &err);
    o.memory_bytes = plan.total_bytes + (64u << 20); /* the process itself has grown a little since */
    ok(engine_open(&e, path, &o, &err), &err);
    assert_int_equal(plan.kv_bytes, engine_kv_bytes(e));
    assert_int_equal(plan.packed_bytes, mem_bytes(MEM_PACKED));
    engine_close(e);
}

/* ---- cancelling ---- */

static bool until(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)what;
    assert_true(done <= total);
    return --*(int *)user > 0;
}

static void cancelled_prompt(void **state)
{
    (void)state;
    token_id tokens[300];
    const float *logits;
    dil_error err;
    int32_t reused;
    make_tokens(5, tokens, 300);
    engine *e = open_engine(names[1], 512, 2);
    float *wanted = logits_of(e, tokens, 300);
    session *s = open_session(e);
    int passes = 2; /* of 64 tokens */
    fails(session_sync(s, tokens, 300, &logits, NULL, until, &passes, &err), &err, DIL_CANCELLED, "after 128 of 300");
    assert_int_equal(session_n_tokens(s), 128);
    assert_memory_equal(session_tokens(s), tokens, 128 * sizeof *tokens);
    ok(session_sync(s, tokens, 300, &logits, &reused, NULL, NULL, &err), &err);
    assert_int_equal(reused, 128);
    equal_row(e, logits, wanted);
    session_free(s);
    engine_close(e);
    engine_options o = engine_options_default();
    char path[600];
    passes = 2; /* before the weights are read, and behind: no more is certain on a busy machine */
    o.progress = until;
    o.user = &passes;
    e = NULL;
    fails(engine_open(&e, tiny_path(path, names[0]), &o, &err), &err, DIL_CANCELLED, "cancelled");
    assert_null(e);
}

/* ---- passes that mix prompts and generation ---- */

#define N_MIXED 4

typedef struct mixed_run {
    model *m;
    team *workers;
    kernels k;
    compute *c;
    kv_pool *pool;
    kv_seq seq[N_MIXED];
    token_id tokens[N_MIXED][600];
} mixed_run;

static void mixed_open(mixed_run *r, const char *name, int threads, dil_type kv)
{
    char path[600];
    dil_error err;
    ok(team_new(&r->workers, threads, &err), &err);
    ok(kernels_select(&r->k, "auto", &err), &err);
    ok(model_open(&r->m, tiny_path(path, name), &(model_options){.workers = r->workers}, &err), &err);
    ok(kv_pool_new(&r->pool, &r->m->h, kv, kv, N_MIXED * 10, &err), &err);
    ok(compute_new(&r->c, r->m, &r->k, r->workers, &(compute_options){.max_tokens = 256, .max_outputs = 64, .context = 600}, &err),
       &err);
    for (uint32_t i = 0; i < N_MIXED; i++) {
        ok(kv_seq_init(&r->seq[i], r->pool, 600, &err), &err);
        make_tokens(i, r->tokens[i], 600);
    }
}

static void mixed_close(mixed_run *r)
{
    for (int i = 0; i < N_MIXED; i++)
        kv_seq_free(&r->seq[i]);
    assert_int_equal(kv_pool_free_pages(r->pool), N_MIXED * 10);
    compute_free(r->c);
    kv_pool_free(r->pool);
    model_close(r->m);
    team_free(r->workers);
}

/* Token `at` of sequence i, in a session of its own, one token a pass. */
static float *alone(mixed_run *r, int i, int until_token)
{
    kv_seq seq;
    dil_error err;
    ok(kv_seq_init(&seq, r->pool, 600, &err), &err);
    for (int t = 0; t <= until_token; t++)
        ok(compute_run(r->c, &(batch_token){&seq, r->tokens[i][t], t == until_token}, 1, &err), &err);
    float *row = copy_row(compute_logits(r->c, 0), (int32_t)r->m->h.n_vocab);
    kv_seq_free(&seq);
    return row;
}

/* Random parts of a pass: some sequences read a piece of prompt, others one token, some tokens want logits. */
static void mixed_pass(mixed_run *r, uint32_t *random)
{
    batch_token batch[256];
    int32_t n = 0, n_outputs = 0;
    struct {
        int seq, position;
    } outputs[64];
    dil_error err;
    int first = (int)(tiny_random(random) % N_MIXED);
    for (int i = 0; i < N_MIXED; i++) {
        int which = (first + i) % N_MIXED, at = r->seq[which].n_tokens;
        int count = tiny_random(random) % 3 == 0 ? (int)(tiny_random(random) % 60) : (int)(tiny_random(random) % 2);
        for (int t = at; t < at + count && t < 600; t++) {
            bool wants = n_outputs < 64 && (tiny_random(random) % 20 == 0 || t == at + count - 1);
            if (wants) {
                outputs[n_outputs].seq = which;
                outputs[n_outputs++].position = t;
            }
            batch[n++] = (batch_token){&r->seq[which], r->tokens[which][t], wants};
        }
    }
    if (n == 0)
        return;
    ok(compute_run(r->c, batch, n, &err), &err);
    size_t bytes = (size_t)r->m->h.n_vocab * sizeof(float);
    float *found[64];
    for (int i = 0; i < n_outputs; i++)
        found[i] = copy_row(compute_logits(r->c, i), (int32_t)r->m->h.n_vocab);
    for (int i = 0; i < n_outputs; i++) {
        if (i % 4 == 0) { /* one in four is enough */
            float *wanted = alone(r, outputs[i].seq, outputs[i].position);
            assert_memory_equal(found[i], wanted, bytes);
            free(wanted);
        }
        free(found[i]);
    }
}

static void mixed_batches(void **state)
{
    (void)state;
    static const dil_type kv[] = {DIL_TYPE_F32, DIL_TYPE_F16, DIL_TYPE_BF16, DIL_TYPE_Q8_0};
    for (int i = 0; i < 4; i++) {
        mixed_run r = {0};
        uint32_t random = 99 + (uint32_t)i;
        mixed_open(&r, names[i % 2], 1 + i % 3, kv[i]);
        for (int pass = 0; pass < 16; pass++)
            mixed_pass(&r, &random);
        dil_error err;
        fails(compute_run(r.c, NULL, 0, &err), &err, DIL_BAD_ARGUMENT, "wanted 1..256 tokens");
        mixed_close(&r);
    }
}

/* A pass without outputs stores keys and values as any other. */
static void pass_without_outputs(void **state)
{
    (void)state;
    mixed_run r = {0};
    dil_error err;
    batch_token batch[100];
    mixed_open(&r, names[1], 2, DIL_TYPE_F16);
    float *wanted = alone(&r, 0, 100);
    for (int t = 0; t < 100; t++)
        batch[t] = (batch_token){&r.seq[0], r.tokens[0][t], false};
    ok(compute_run(r.c, batch, 100, &err), &err);
    ok(compute_run(r.c, &(batch_token){&r.seq[0], r.tokens[0][100], true}, 1, &err), &err);
    assert_memory_equal(compute_logits(r.c, 0), wanted, (size_t)r.m->h.n_vocab * sizeof(float));
    free(wanted);
    for (int t = 0; t < 65; t++)
        batch[t] = (batch_token){&r.seq[1], r.tokens[1][t], true};
    fails(compute_run(r.c, batch, 65, &err), &err, DIL_LIMIT, "at most 64 tokens with logits");
    mixed_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_heap_call_per_token),
        cmocka_unit_test(context_full),
        cmocka_unit_test(foreign_session),
        cmocka_unit_test(pool_exhausted),
        cmocka_unit_test(failed_pass_takes_nothing),
        cmocka_unit_test(wrong_arguments),
        cmocka_unit_test(wrong_options),
        cmocka_unit_test(cancelled_prompt),
        cmocka_unit_test(mixed_batches),
        cmocka_unit_test(pass_without_outputs),
    };
    return leaks_run_group_tests(tests, prepare, clear);
}
