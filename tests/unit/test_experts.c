/* Experts in a running engine: those that stay on disk give the same bits, ways of choosing keep their promises, trouble with the file
 * of packed weights is an error and never another token. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "engine/engine.h"
#include "leaks.h"
#include "tiny_model.h"

#define N_TOKENS 90
#define N_DECODE 12 /* the last ones one by one */
#define N_VOCAB 301

static char model_path[600], cache_home[600];

static void ok(dil_status status, const dil_error *err)
{
    if (status != DIL_OK)
        fail_msg("%s", err->text);
}

static void fails(dil_status status, dil_status wanted, const dil_error *err, const char *part)
{
    if (status != wanted || !strstr(err->text, part))
        fail_msg("wanted status %d and '%s', found %d: %s", (int)wanted, part, (int)status, err->text);
}

static int prepare(void **state)
{
    (void)state;
    tiny_model m = tiny_moe(DIL_TYPE_Q4_K, false);
    tiny_write(tiny_path(model_path, "moe.gguf"), &m);
    return setenv("XDG_CACHE_HOME", tiny_path(cache_home, "cache"), 1);
}

static engine_options small(void)
{
    return (engine_options){.n_threads = 2, .context = 128, .micro_batch = 40, .pack_cache_least = 1};
}

/* Logits of the last prompt token and of each of the tokens that follow. */
typedef struct answer {
    float logits[N_DECODE + 1][N_VOCAB];
    route_counts routed;
    pool_counts pool;
} answer;

static dil_status run_tokens(engine *e, session *s, answer *a, dil_error *err)
{
    token_id tokens[N_TOKENS];
    const float *logits;
    for (int i = 0; i < N_TOKENS; i++)
        tokens[i] = 3 + (i * i * 7 + i) % 298;
    for (int n = N_TOKENS - N_DECODE; n <= N_TOKENS; n++) {
        DIL_TRY(session_sync(s, tokens, n, &logits, NULL, NULL, NULL, err));
        memcpy(a->logits[n - (N_TOKENS - N_DECODE)], logits, sizeof a->logits[0]);
    }
    compute_route_counts(engine_compute(e), &a->routed);
    if (engine_experts(e))
        pool_stats(engine_experts(e), UINT32_MAX, &a->pool);
    return DIL_OK;
}

static dil_status ask(answer *a, const engine_options *o, dil_error *err)
{
    engine *e;
    session *s;
    *a = (answer){0};
    DIL_TRY(engine_open(&e, model_path, o, err));
    dil_status status = session_new(&s, e, err);
    if (status == DIL_OK) {
        status = run_tokens(e, s, a, err);
        session_free(s);
    }
    engine_close(e);
    return status;
}

static answer *expected(void)
{
    static answer a;
    engine_options o = small();
    dil_error err;
    o.no_pack_cache = true;
    o.n_threads = 1;
    ok(ask(&a, &o, &err), &err);
    return &a;
}

static void same_logits(const answer *a, const answer *b, const char *what)
{
    if (memcmp(a->logits, b->logits, sizeof a->logits) != 0)
        fail_msg("%s: other logits", what);
}

/* ---- beyond memory ---- */

static uint64_t all_bytes(void)
{
    engine_plan p;
    dil_error err;
    engine_options o = small();
    ok(engine_plan_file(&p, model_path, &o, &err), &err);
    assert_true(p.expert_bytes > 0 && p.expert_bytes < p.packed_bytes);
    return p.expert_bytes;
}

/* The least budget the pool names when it has too little. */
static uint64_t least_budget(void)
{
    answer a;
    dil_error err;
    engine_options o = small();
    o.experts_memory = 1000;
    fails(ask(&a, &o, &err), DIL_NO_MEMORY, &err, "wanted at least");
    return strtoull(strstr(err.text, "at least ") + 9, NULL, 10);
}

static void same_bits(void **state)
{
    (void)state;
    static const policy_kind policies[] = {POLICY_SWARM, POLICY_LRU, POLICY_LFU, POLICY_STALE};
    const answer *want = expected();
    uint64_t least = least_budget(), all = all_bytes();
    const uint64_t budgets[] = {least, all / 4 > least ? all / 4 : least + 100000, all / 2, 2 * all};
    answer a;
    dil_error err;
    for (int i = 0; i < 4; i++)
        for (int threads = 1; threads <= 3; threads++) {
            engine_options o = small();
            o.experts_memory = budgets[i];
            o.n_threads = threads;
            o.micro_batch = threads == 3 ? 5 : 40;
            o.experts_policy = policies[(i + threads) % 4];
            ok(ask(&a, &o, &err), &err);
            same_logits(want, &a, "experts apart");
            assert_true(a.pool.requests > 0);
            if (i < 2)
                assert_true(a.pool.hits < a.pool.requests);
        }
}

/* The engine's own memory for experts is what was allowed. */
static void within_budget(void **state)
{
    (void)state;
    engine *e;
    dil_error err;
    engine_options o = small();
    o.experts_memory = all_bytes() / 3;
    ok(engine_open(&e, model_path, &o, &err), &err);
    pool_info info;
    pool_info_get(engine_experts(e), &info);
    assert_true(info.held_bytes <= o.experts_memory);
    assert_true(engine_model(e)->resident_bytes < engine_model(e)->packed_bytes);
    engine_close(e);
}

static void what_cannot_be(void **state)
{
    (void)state;
    answer a;
    dil_error err;
    engine_options o = small();
    o.experts_memory = all_bytes();
    o.no_pack_cache = true;
    fails(ask(&a, &o, &err), DIL_BAD_ARGUMENT, &err, "--no-pack-cache");
    o.no_pack_cache = false;
    o.pack_cache_most = 1;
    char old[600];
    (void)snprintf(old, sizeof old, "%s", cache_home);
    assert_int_equal(setenv("XDG_CACHE_HOME", tiny_path(cache_home, "no-room"), 1), 0);
    fails(ask(&a, &o, &err), DIL_IO, &err, "need the file of packed weights");
    (void)snprintf(cache_home, sizeof cache_home, "%s", old);
    assert_int_equal(setenv("XDG_CACHE_HOME", cache_home, 1), 0);
    char moe[600];
    (void)snprintf(moe, sizeof moe, "%s", model_path);
    tiny_model dense = tiny_llama(DIL_TYPE_Q8_0);
    tiny_write(tiny_path(model_path, "dense.gguf"), &dense);
    o = small();
    o.experts_memory = 1 << 20;
    fails(ask(&a, &o, &err), DIL_BAD_ARGUMENT, &err, "found a dense model");
    o.experts_memory = ENGINE_EXPERTS_AUTO; /* nothing to decide */
    ok(ask(&a, &o, &err), &err);
    (void)snprintf(model_path, sizeof model_path, "%s", moe);
}

/* A disk that is full while the file is made. */
static void full_disk(void **state)
{
    (void)state;
    answer a;
    dil_error err;
    char old[600];
    struct rlimit before, little = {.rlim_cur = 3 << 20, .rlim_max = RLIM_INFINITY};
    engine_options o = small();
    o.experts_memory = all_bytes();
    (void)snprintf(old, sizeof old, "%s", cache_home);
    assert_int_equal(setenv("XDG_CACHE_HOME", tiny_path(cache_home, "full"), 1), 0);
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    little.rlim_max = before.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &little), 0);
    dil_status status = ask(&a, &o, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    fails(status, DIL_IO, &err, "need the file of packed weights");
    ok(ask(&a, &o, &err), &err); /* there is room again */
    same_logits(expected(), &a, "after a full disk");
    (void)snprintf(cache_home, sizeof cache_home, "%s", old);
    assert_int_equal(setenv("XDG_CACHE_HOME", cache_home, 1), 0);
}

/* ---- the file changes while experts are read from it ---- */

typedef struct open_engine {
    engine *e;
    session *s;
} open_engine;

static open_engine open_with(uint64_t budget, int threads)
{
    open_engine x;
    dil_error err;
    engine_options o = small();
    o.experts_memory = budget;
    o.n_threads = threads;
    ok(engine_open(&x.e, model_path, &o, &err), &err);
    ok(session_new(&x.s, x.e, &err), &err);
    return x;
}

static void close_engine(open_engine *x)
{
    session_free(x->s);
    engine_close(x->e);
}

static void flip(const char *path, off_t at)
{
    uint8_t byte;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 16;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    assert_int_equal(close(fd), 0);
}

static void flipped_byte(void **state)
{
    (void)state;
    answer a;
    dil_error err;
    const answer *want = expected();
    for (int threads = 1; threads <= 3; threads++) {
        open_engine x = open_with(least_budget(), threads);
        const model *m = engine_model(x.e);
        char path[800];
        (void)snprintf(path, sizeof path, "%s", m->cache_path);
        expert_place at = model_expert_place(m, 1);
        for (uint32_t e = 0; e < m->h.experts.n_experts; e++)
            flip(path, (off_t)(at.offset + e * at.stride + at.bytes / 2));
        fails(run_tokens(x.e, x.s, &a, &err), DIL_FORMAT, &err, "checksum");
        if (!strstr(err.text, "layer 1") || !strstr(err.text, "expert"))
            fail_msg("wanted layer and expert, found: %s", err.text);
        assert_int_equal(session_n_tokens(x.s), 0);
        for (uint32_t e = 0; e < m->h.experts.n_experts; e++)
            flip(path, (off_t)(at.offset + e * at.stride + at.bytes / 2));
        ok(run_tokens(x.e, x.s, &a, &err), &err); /* mended */
        same_logits(want, &a, "mended");
        close_engine(&x);
    }
}

static void truncated(void **state)
{
    (void)state;
    answer a;
    dil_error err;
    open_engine x = open_with(least_budget(), 2);
    expert_place at = model_expert_place(engine_model(x.e), 1);
    assert_int_equal(truncate(engine_model(x.e)->cache_path, (off_t)at.offset), 0);
    fails(run_tokens(x.e, x.s, &a, &err), DIL_IO, &err, "");
    assert_int_equal(session_n_tokens(x.s), 0);
    close_engine(&x);
    engine_options o = small();
    o.experts_memory = all_bytes();
    ok(ask(&a, &o, &err), &err); /* written anew */
    same_logits(expected(), &a, "written anew");
}

/* Checksums that are themselves wrong make the file worthless, and it is written anew. */
static void flipped_checksum(void **state)
{
    (void)state;
    answer a;
    dil_error err;
    struct stat st;
    char path[800];
    open_engine x = open_with(least_budget(), 1);
    (void)snprintf(path, sizeof path, "%s", engine_model(x.e)->cache_path);
    close_engine(&x);
    assert_int_equal(stat(path, &st), 0);
    flip(path, st.st_size - 1);
    engine_options o = small();
    o.experts_memory = least_budget();
    ok(ask(&a, &o, &err), &err);
    same_logits(expected(), &a, "wrong checksum of an expert");
}

/* Another file takes its name: the one that is open stays good. */
static void replaced(void **state)
{
    (void)state;
    answer a;
    dil_error err;
    open_engine x = open_with(least_budget(), 2);
    assert_int_equal(unlink(engine_model(x.e)->cache_path), 0);
    ok(run_tokens(x.e, x.s, &a, &err), &err);
    same_logits(expected(), &a, "unlinked");
    close_engine(&x);
}

/* ---- ways of choosing ---- */

static void certified(void **state)
{
    (void)state;
    answer a;
    dil_error err;
    engine_options o = small();
    o.route.mode = ROUTE_LOCAL;
    ok(ask(&a, &o, &err), &err);
    same_logits(expected(), &a, "--route local");
    assert_true(a.routed.full_bytes > 0 && a.routed.n_scored > 0);
    o.experts_memory = least_budget();
    ok(ask(&a, &o, &err), &err);
    same_logits(expected(), &a, "--route local, experts apart");
}

static void cached(void **state)
{
    (void)state;
    answer a, again;
    dil_error err;
    engine_options o = small();
    o.route.mode = ROUTE_CACHE;
    o.experts_memory = least_budget() * 2;
    ok(ask(&a, &o, &err), &err); /* no mass: nothing may change */
    same_logits(expected(), &a, "--route cache without mass");
    assert_int_equal(a.routed.n_changed, 0);
    uint64_t read = a.pool.bytes_read;
    o.route.mass = 0.4f;
    ok(ask(&a, &o, &err), &err);
    assert_true(a.routed.n_changed > 0);
    assert_true(a.routed.most_mass <= 0.4000001);
    assert_true(a.routed.change <= 2 * a.routed.mass * (1 + 1e-5)); /* normalised weights */
    assert_true(a.pool.bytes_read < read);
    ok(ask(&again, &o, &err), &err); /* replayable */
    same_logits(&a, &again, "--route cache twice");
}

static void by_neighbours(void **state)
{
    (void)state;
    answer a, again;
    dil_error err;
    engine_options o = small();
    o.route.mode = ROUTE_NEIGHBOURS;
    ok(ask(&a, &o, &err), &err);
    assert_true(a.routed.n_scored > 0);
    o.n_threads = 3;
    ok(ask(&again, &o, &err), &err);
    same_logits(&a, &again, "--route neighbours with other threads");
    engine *e; /* what a sequence taught is forgotten when it begins again */
    session *s;
    ok(engine_open(&e, model_path, &o, &err), &err);
    ok(session_new(&s, e, &err), &err);
    for (int i = 0; i < 2; i++) {
        session_truncate(s, 0);
        ok(run_tokens(e, s, &again, &err), &err);
        same_logits(&a, &again, "--route neighbours from the start again");
    }
    session_free(s);
    engine_close(e);
}

/* The n-th allocation, open, read or thread start fails, until none does. */
static void torture(void **state)
{
    (void)state;
    answer a;
    dil_error err;
    engine_options o = small();
    o.experts_memory = least_budget();
    ok(ask(&a, &o, &err), &err);
    for (int64_t n = 0;; n++) {
        assert_true(n < 5000);
        mem_inject_failure(n);
        dil_status status = ask(&a, &o, &err);
        mem_inject_failure(-1);
        if (status == DIL_OK)
            break;
        assert_true(status == DIL_NO_MEMORY || status == DIL_IO);
    }
    same_logits(expected(), &a, "after failures of memory");
    for (int64_t n = 0;; n++) {
        assert_true(n < 5000);
        os_inject_failure(n);
        dil_status status = ask(&a, &o, &err);
        os_inject_failure(-1);
        if (status == DIL_OK)
            break;
    }
    same_logits(expected(), &a, "after failures of the system");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bits), cmocka_unit_test(within_budget),    cmocka_unit_test(what_cannot_be),
        cmocka_unit_test(full_disk), cmocka_unit_test(flipped_byte),     cmocka_unit_test(truncated),
        cmocka_unit_test(replaced),  cmocka_unit_test(flipped_checksum), cmocka_unit_test(certified),
        cmocka_unit_test(cached),    cmocka_unit_test(by_neighbours),    cmocka_unit_test(torture),
    };
    return leaks_run_group_tests(tests, prepare, NULL);
}
