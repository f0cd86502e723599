/* Plans for less memory, predictions, proposals, tuned settings and where they are kept: on small models of every kind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/engine.h"
#include "leaks.h"
#include "tiny_model.h"
#include "tune/batch.h"
#include "tune/levels.h"
#include "tune/memory.h"
#include "tune/propose.h"
#include "tune/search.h"

static dil_error err;
static char dense_path[600], moe_path[600], cache[600];

static void ok(dil_status status)
{
    if (status != DIL_OK)
        fail_msg("%s", err.text);
}

static int prepare(void **state)
{
    (void)state;
    tiny_model dense = tiny_llama(DIL_TYPE_Q8_0), moe = tiny_moe(DIL_TYPE_Q4_K, false);
    dense.n_context = moe.n_context = 1 << 20; /* planned, never taken: much beside what the process grows by */
    tiny_write(tiny_path(dense_path, "dense.gguf"), &dense);
    tiny_write(tiny_path(moe_path, "moe.gguf"), &moe);
    return setenv("XDG_CACHE_HOME", tiny_path(cache, "cache"), 1);
}

static int clear(void **state)
{
    (void)state;
    return unlink(dense_path) | unlink(moe_path) | (os_remove_tree(cache, &err) == DIL_OK ? 0 : -1);
}

/* ---- memory ---- */

static const memory_freedom everything = {true, true, true, true, true};

static engine_plan plan_of(const char *path, const engine_options *o)
{
    engine_plan p;
    ok(engine_plan_file(&p, path, o, &err));
    return p;
}

/* The process's own share moves a little between two looks. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define PROGRAM_SLACK ((uint64_t)1 << 30)
#else
#define PROGRAM_SLACK ((uint64_t)16 << 20)
#endif

static void memory_enough(void **state)
{
    (void)state;
    memory_report r;
    engine_options o = engine_options_default();
    o.memory_bytes = (uint64_t)1 << 34;
    ok(memory_fit(&o, dense_path, &everything, &r, &err));
    assert_false(r.changed);
    assert_int_equal(r.after.total_bytes, r.before.total_bytes);
    assert_int_equal(o.memory_bytes, 0);
    o = engine_options_default();
    ok(memory_fit(&o, dense_path, &everything, &r, &err)); /* no limit, nothing to do */
    assert_int_equal(o.context, 0);
}

/* From all down to nothing: each plan fits, and less than the least is refused. */
static void memory_shrinks(void **state)
{
    (void)state;
    const char *const paths[] = {dense_path, moe_path};
    for (int m = 0; m < 2; m++) {
        engine_options o = engine_options_default();
        o.context = 1 << 18;
        const engine_plan all = plan_of(paths[m], &o);
        const uint64_t spare = all.kv_bytes + all.activation_bytes + all.expert_bytes;
        int n_fit = 0, n_refused = 0;
        for (int i = 15; i >= 0; i--) {
            memory_report r;
            engine_options tried = o;
            tried.memory_bytes = all.total_bytes - spare + spare * (uint64_t)i / 16;
            dil_status status = memory_fit(&tried, paths[m], &everything, &r, &err);
            if (status != DIL_OK) {
                assert_int_equal(status, DIL_NO_MEMORY);
                assert_non_null(strstr(err.text, "needs at least "));
                assert_true(r.least_bytes > o.memory_bytes);
                n_refused++;
                continue;
            }
            assert_int_equal(n_refused, 0); /* what fits in less fits in more */
            n_fit++;
            assert_true(r.changed);
            assert_true(r.after.total_bytes <= all.total_bytes - spare + spare * (uint64_t)i / 16);
            assert_true(plan_of(paths[m], &tried).total_bytes <= r.after.total_bytes + PROGRAM_SLACK);
        }
        assert_true(n_fit >= 4 && n_refused >= 1);
    }
}

/* What was asked for stays. */
static void memory_respects(void **state)
{
    (void)state;
    memory_report r;
    engine_options o = engine_options_default();
    o.context = 1 << 18;
    const engine_plan all = plan_of(dense_path, &o);
    o.memory_bytes = all.total_bytes - all.kv_bytes / 8;
    ok(memory_fit(&o, dense_path, &(memory_freedom){.type_k = true, .type_v = true}, &r, &err));
    assert_int_equal(o.context, 1 << 18);
    assert_int_equal(o.type_k, DIL_TYPE_Q8_0);
    o = engine_options_default();
    o.context = 1 << 18;
    o.memory_bytes = all.total_bytes - all.kv_bytes / 8;
    ok(memory_fit(&o, dense_path, &(memory_freedom){.context = true}, &r, &err));
    assert_in_range(o.context, 1 << 17, (1 << 18) - 1);
    assert_int_equal(o.type_k, DIL_TYPE_F16);
    o = engine_options_default();
    o.context = 1 << 18;
    o.memory_bytes = all.total_bytes - all.kv_bytes / 8;
    assert_int_equal(memory_fit(&o, dense_path, &(memory_freedom){0}, &r, &err), DIL_NO_MEMORY);
    assert_int_equal(o.context, 1 << 18);
    assert_true(o.memory_bytes > 0);
}

/* Experts go before the context does: they are the larger part, and can be read again. */
static void memory_experts(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* the process grows by more than these experts */
#endif
    memory_report r;
    engine_options o = engine_options_default();
    const engine_plan all = plan_of(moe_path, &o);
    assert_true(all.expert_bytes > 0);
    o.memory_bytes = all.total_bytes - all.expert_bytes / 2;
    ok(memory_fit(&o, moe_path, &(memory_freedom){.experts = true}, &r, &err));
    assert_in_range(o.experts_memory, 1, all.expert_bytes / 2);
}

/* ---- predictions ---- */

/* A machine made up: one core does 1e9 of everything a second. */
typedef struct made_up {
    kernels k;
    machine m;
    machine_facts f;
    predictor by;
    model *read;
} made_up;

static void make_up(made_up *x, const char *path, int n_threads)
{
    memset(x, 0, sizeof *x);
    ok(kernels_select(&x->k, "auto", &err));
    ok(model_open(&x->read, path, &(model_options){.header_only = true}, &err));
    x->m = (machine){.n_cores = n_threads, .memory_bytes = 1 << 30, .caches = {{32 << 10, 64, 2, 1}, {1 << 20, 64, 2, 1}}};
    x->f.n_counts = 1;
    x->f.limits[0] = (machine_limits){.n_threads = n_threads, .barrier = {1e-6, 1e-6}, .claim = {1e-7, 1e-7}};
    for (int i = 0; i < READ_POINTS; i++)
        x->f.limits[0].curve[i] = (machine_rate){1e9 * n_threads, 1e9 * n_threads};
    for (int i = 0; i < DIL_TYPE_COUNT; i++) {
        x->f.costs.linear[i] = (linear_cost){1e-9, 1e-9, 1e-10, 1e-9, {9e-9, 17e-9, 33e-9, 65e-9, 257e-9}, 0.5, 0.2};
        x->f.costs.attention[i] = (attention_cost){1e-8, 1e-9, 1e-8, 1e-9};
        x->f.costs.store[i] = 1e-9;
    }
    x->f.costs.vector = (vector_cost){1e-9, 1e-9, 1e-9, 1e-9, 1e-9, 1e-9, {1e-9, 1e-9, 1e-9}, 1e-9};
    x->by = (predictor){.m = x->read,
                        .k = &x->k,
                        .machine = &x->m,
                        .facts = &x->f,
                        .n_threads = n_threads,
                        .type_k = DIL_TYPE_F16,
                        .type_v = DIL_TYPE_F16};
}

/* Bytes and multiply-adds are those of the model, whatever it is made of. */
static void predicted_work(void **state)
{
    (void)state;
    made_up *x = malloc(sizeof *x);
    assert_non_null(x);
    make_up(x, dense_path, 1);
    prediction p;
    predict_run(&p, &x->by, &(predict_pass){1, 1, 0, 1});
    double bytes = 0, macs = 0;
    uint64_t wanted[DIL_TYPE_COUNT], sum = 0;
    compute_macs(x->read, wanted);
    for (int i = 0; i < DIL_TYPE_COUNT; i++)
        sum += wanted[i];
    for (int kind = 0; kind < STEP_KINDS; kind++) {
        bytes += kind == STEP_ATTENTION || kind == STEP_ROPE ? 0 : p.steps[kind].bytes;
        macs += kind == STEP_ATTENTION || kind == STEP_HEAD ? 0 : p.steps[kind].macs;
    }
    assert_float_equal(bytes, (double)compute_weight_bytes(x->read), 1);
    assert_float_equal(macs, (double)sum, 1);
    assert_int_equal(p.steps[STEP_NORM].n, 2 * (int)x->read->h.n_layer + 1);
    assert_int_equal(p.steps[STEP_QKV].n, (int)x->read->h.n_layer);
    model_close(x->read);
    free(x);
}

/* What must hold of any prediction: more work takes longer, more threads do not, what binds is named. */
static void predicted_order(void **state)
{
    (void)state;
    const char *const paths[] = {dense_path, moe_path};
    made_up *x = malloc(sizeof *x);
    assert_non_null(x);
    for (int m = 0; m < 2; m++) {
        make_up(x, paths[m], 2);
        prediction one, deep, eight, many;
        predict_run(&one, &x->by, &(predict_pass){1, 1, 0, 1});
        predict_run(&deep, &x->by, &(predict_pass){1, 1, 900, 1});
        predict_run(&eight, &x->by, &(predict_pass){1, 8, 0, 8});
        predict_run(&many, &x->by, &(predict_pass){512, 1, 0, 1});
        assert_true(one.seconds > 0 && one.seconds < deep.seconds && one.seconds < eight.seconds && eight.seconds < many.seconds);
        assert_true(eight.seconds < 8 * one.seconds);
        assert_true(deep.working_set > one.working_set);
        assert_int_equal(many.bound, BOUND_ARITHMETIC);
        const double before = predict_prompt(&x->by, 512, 512, 0), generation = predict_generation(&x->by, 16, 1, 0);
        assert_float_equal(before, 512 / many.seconds, 1e-6 * before);
        x->by.reading_now = 0.01; /* memory has become a hundred times slower */
        assert_true(predict_generation(&x->by, 16, 1, 0) < 0.1 * generation);
        predict_run(&one, &x->by, &(predict_pass){1, 1, 0, 1});
        assert_true(one.bound == BOUND_MEMORY || one.bound == BOUND_CACHE);
        x->by.reading_now = 0;
        x->by.type_now = DIL_TYPE_Q8_0; /* every product takes twice as long */
        linear_cost *now = &x->by.now.linear[DIL_TYPE_Q8_0];
        *now = x->f.costs.linear[DIL_TYPE_Q8_0];
        now->row *= 2, now->value *= 2, now->output *= 2;
        for (int i = 0; i < COST_GEMM_POINTS; i++)
            now->gemm[i] *= 2;
        assert_float_equal(predict_speed_now(&x->by, 1), 0.5, 1e-9);
        assert_true(predict_prompt(&x->by, 512, 512, 0) < 0.6 * before);
        memset(&x->by.now, 0, sizeof x->by.now);
        x->f.limits[0].barrier = (machine_rate){1, 1};
        predict_run(&one, &x->by, &(predict_pass){1, 1, 0, 1});
        assert_int_equal(one.bound, BOUND_BARRIERS);
        model_close(x->read);
    }
    free(x);
}

/* More at once never costs all of them together anything here; who wants much for each gets few, who wants too much none. */
static void batches(void **state)
{
    (void)state;
    batch_point points[BATCH_POINTS];
    made_up *x = malloc(sizeof *x);
    assert_non_null(x);
    make_up(x, dense_path, 1);
    const int32_t block = batch_block(&x->by, 1024, 0, points);
    double best = 0, chosen = 0;
    for (int i = 0; i < BATCH_POINTS; i++) {
        assert_int_equal(points[i].n, 16 << i);
        best = fmax(best, points[i].total);
        chosen = points[i].n == block ? points[i].total : chosen;
    }
    assert_true(chosen >= 0.99 * best);
    const int32_t all = batch_sequences(&x->by, 0, 0, points), half = batch_sequences(&x->by, 0, points[2].each, points);
    for (int i = 0; i < BATCH_POINTS; i++)
        assert_float_equal(points[i].each * points[i].n, points[i].total, 1e-9 * points[i].total);
    assert_true(half >= 4 && half <= all);
    assert_int_equal(batch_sequences(&x->by, 0, 1.01 * points[0].each, points), 0);
    model_close(x->read);
    free(x);
}

/* All of what is touched comes from somewhere: from memory where caches are small, from the last level where that holds everything. */
static void levels(void **state)
{
    (void)state;
    const char *const paths[] = {dense_path, moe_path};
    made_up *x = malloc(sizeof *x);
    assert_non_null(x);
    for (int m = 0; m < 2; m++) {
        level_bytes small[STEP_KINDS], large[STEP_KINDS];
        make_up(x, paths[m], 1);
        const predict_pass one = {1, 1, 0, 1};
        x->m.caches[2] = (machine_level){.n_caches = 1, .n_cores = 1};
        x->m.caches[0].size_bytes = x->m.caches[1].size_bytes = 1 << 16;
        x->m.caches[2].size_bytes = 1 << 17;
        ok(levels_of_pass(small, &x->by, &one, &err));
        x->m.caches[2].size_bytes = 1 << 30;
        ok(levels_of_pass(large, &x->by, &one, &err));
        double touched = 0, near = 0, far = 0;
        for (int kind = 0; kind < STEP_KINDS; kind++) {
            assert_float_equal(small[kind].touched, large[kind].touched, 1e-6);
            assert_true(small[kind].l2 + small[kind].l3 + small[kind].memory <= small[kind].touched + 1e-6);
            assert_float_equal(large[kind].memory, 0, 1e-6);
            touched += small[kind].touched;
            far += small[kind].memory;
            near += large[kind].l3;
        }
        const double weights = (double)compute_weight_bytes(x->read);
        assert_true(touched > weights && far > 0.9 * weights && far <= touched && near > 0.9 * weights);
        model_close(x->read);
    }
    free(x);
}

/* ---- proposals ---- */

static void proposals(void **state)
{
    (void)state;
    const char *const paths[] = {dense_path, moe_path};
    made_up *x = malloc(sizeof *x);
    assert_non_null(x);
    for (int m = 0; m < 2; m++) {
        make_up(x, paths[m], 2);
        proposal all[6];
        double usual = 0;
        const int n = propose_tiles(&x->by, 512, all, 6, &usual);
        assert_true(n >= 1 && n <= 6 && usual > 0);
        for (int i = 0; i < n; i++) {
            assert_true(i == 0 || all[i].seconds >= all[i - 1].seconds);
            for (int j = 0; j < i; j++)
                assert_memory_not_equal(&all[i].tuning, &all[j].tuning, sizeof all[i].tuning);
            assert_in_range(all[i].tuning.tile[STEP_ATTN_OUT].tokens, 1, GEMM_TOKENS_MOST);
        }
        assert_true(all[0].seconds <= usual * 1.001); /* the usual tiles are among the strategies, or near one */
        model_close(x->read);
    }
    free(x);
}

/* ---- profiles ---- */

static engine *open_with(const char *path, bool no_profile, const char **why, profile_state *state)
{
    engine *e;
    engine_options o = engine_options_default();
    o.n_threads = 1;
    o.context = 1024;
    o.no_profile = no_profile;
    ok(engine_open(&e, path, &o, &err));
    *state = engine_profile(e, why);
    return e;
}

static void replace_text(const char *path, const char *from, const char *to)
{
    char *text;
    size_t n;
    ok(os_read_all(path, 1 << 20, &text, &n, &err));
    char *at = strstr(text, from);
    assert_non_null(at);
    assert_int_equal(strlen(from), strlen(to));
    memcpy(at, to, strlen(to));
    os_writer w;
    ok(os_writer_open(&w, path, &err));
    ok(os_writer_write(&w, text, n, &err));
    ok(os_writer_commit(&w, &err));
    mem_free(text);
}

static void profiles(void **state)
{
    (void)state;
    char path[2200], why[128];
    const char *reason;
    profile_state found;
    engine *e = open_with(dense_path, false, &reason, &found);
    assert_int_equal(found, PROFILE_NONE);
    const profile_key key = {engine_model(e), engine_kernels(e), 1};
    profile p = {.micro_batch = 96}, back;
    p.tuning.tile[STEP_DOWN] = (compute_tile){4, 64};
    p.tuning.items_few = 3;
    const profile_trial trial = {
        .what = "items \"few\"", .test = "generation", .ratio = 1.1, .low = 1.05, .high = 1.2, .rounds = 7, .kept = true};
    ok(profile_save(&p, &key, &trial, 1, &err));
    ok(profile_path(path, sizeof path, &key, &err));
    assert_int_equal(profile_load(&back, &key, why), PROFILE_USED);
    assert_memory_equal(&back, &p, sizeof p);
    assert_int_equal(profile_load(&back, &(profile_key){key.m, key.k, 2}, why), PROFILE_NONE); /* other threads, other settings */
    engine *tuned = open_with(dense_path, false, &reason, &found);
    assert_int_equal(found, PROFILE_USED);
    assert_int_equal(engine_micro_batch(tuned), 96);
    assert_int_equal(compute_tuned(engine_compute(tuned))->items_few, 3);
    engine_close(tuned);
    tuned = open_with(dense_path, true, &reason, &found);
    assert_int_equal(found, PROFILE_NONE);
    assert_int_equal(engine_micro_batch(tuned), ENGINE_MICRO_BATCH);
    engine_close(tuned);
    replace_text(path, "\"build\": \"", "\"built\": \""); /* the build is not told */
    assert_int_equal(profile_load(&back, &key, why), PROFILE_STALE);
    assert_string_equal(why, "by another build");
    tuned = open_with(dense_path, false, &reason, &found);
    assert_int_equal(found, PROFILE_STALE);
    assert_string_equal(reason, "by another build");
    assert_int_equal(engine_micro_batch(tuned), ENGINE_MICRO_BATCH);
    engine_close(tuned);
    ok(profile_save(&p, &key, &trial, 1, &err));
    replace_text(path, "\"items_few\": 3", "\"items_few\": 9"); /* not what was measured */
    assert_int_equal(profile_load(&back, &key, why), PROFILE_NONE);
    engine_close(e);
}

/* A search ends in time, and keeps only what it has measured. */
static void search_small(void **state)
{
    (void)state;
    engine *e;
    machine *m;
    made_up *x = malloc(sizeof *x);
    search_result *r = malloc(sizeof *r);
    assert_true(x && r);
    make_up(x, dense_path, 1);
    engine_options o = engine_options_default();
    o.n_threads = 1;
    o.context = 1024;
    o.n_sessions = 2;
    o.micro_batch = SEARCH_MICRO_BATCH;
    o.no_profile = true;
    ok(engine_open(&e, dense_path, &o, &err));
    ok(machine_topology(&m, NULL, &err));
    const search_options so = {.n_prompt = 64, .n_gen = 4, .seconds = 1};
    ok(search_run(r, e, m, &x->f, &so, &err));
    assert_true(r->n_trials >= 1 && r->seconds < 20);
    for (int i = 0; i < r->n_trials; i++)
        assert_true(r->trials[i].ratio > 0 && r->trials[i].low <= r->trials[i].ratio && r->trials[i].ratio <= r->trials[i].high);
    const profile usual = {0};
    assert_true(r->changed || memcmp(&r->best, &usual, sizeof usual) == 0);
    engine_close(e);
    machine_free(m);
    model_close(x->read);
    free(x);
    free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_enough),  cmocka_unit_test(memory_shrinks), cmocka_unit_test(memory_respects),
        cmocka_unit_test(memory_experts), cmocka_unit_test(predicted_work), cmocka_unit_test(predicted_order),
        cmocka_unit_test(batches),        cmocka_unit_test(levels),         cmocka_unit_test(proposals),
        cmocka_unit_test(profiles),       cmocka_unit_test(search_small),
    };
    return leaks_run_group_tests(tests, prepare, clear);
}
