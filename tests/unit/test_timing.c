/* What passes say about their time: bytes as the model's own count has them, steps and passes counted, and events that tell the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>

#include "engine/engine.h"
#include "leaks.h"
#include "tiny_model.h"

enum { PROMPT = 80, MICRO_BATCH = 32, ANSWER = 5, SESSIONS = 3, KINDS = 4 };

static tiny_model kinds[KINDS];
static const char *const names[KINDS] = {"llama", "gemma", "moe", "moe-shared"};

static int prepare(void **state)
{
    (void)state;
    char path[600];
    kinds[0] = tiny_llama(DIL_TYPE_Q4_0);
    kinds[1] = tiny_gemma(DIL_TYPE_Q8_0);
    kinds[2] = tiny_moe(DIL_TYPE_Q4_0, false);
    kinds[3] = tiny_moe(DIL_TYPE_F32, true);
    for (int i = 0; i < KINDS; i++)
        tiny_write(tiny_path(path, names[i]), &kinds[i]);
    return 0;
}

static void ok(dil_status status, const dil_error *err)
{
    if (status != DIL_OK)
        fail_msg("%s", err->text);
}

static engine *open_engine(int kind, int threads, bool timing, events *record)
{
    char path[600];
    dil_error err;
    engine *e;
    engine_options o = engine_options_default();
    o.n_threads = threads;
    o.context = 256;
    o.n_sessions = SESSIONS;
    o.micro_batch = MICRO_BATCH;
    o.timing = timing;
    o.events = record;
    ok(engine_open(&e, tiny_path(path, names[kind]), &o, &err), &err);
    return e;
}

/* A prompt in three passes, each of enough rows for all workers; some single tokens; a few tokens of several sessions together. */
static void work(engine *e, int kind, int32_t n_together)
{
    token_id tokens[PROMPT + ANSWER];
    const float *logits[SESSIONS];
    session *s[SESSIONS];
    dil_error err;
    uint32_t random = 5;
    for (int i = 0; i < PROMPT + ANSWER; i++)
        tokens[i] = (token_id)(tiny_random(&random) % kinds[kind].n_vocab);
    for (int i = 0; i < SESSIONS; i++)
        ok(session_new(&s[i], e, &err), &err);
    ok(session_sync(s[0], tokens, PROMPT, logits, NULL, NULL, NULL, &err), &err);
    for (int i = 0; i < ANSWER; i++)
        ok(engine_step(e, s, tokens + PROMPT + i, 1, logits, &err), &err);
    if (n_together > 0)
        ok(engine_step(e, s, tokens, n_together, logits, &err), &err);
    for (int i = 0; i < SESSIONS; i++)
        session_free(s[i]);
}

static uint64_t sum_steps(const pass_times *p, size_t field)
{
    uint64_t sum = 0;
    for (int i = 0; i < STEP_KINDS; i++)
        sum += *(const uint64_t *)(const void *)((const char *)&p->steps[i] + field);
    return sum;
}

/* In passes of one token each expert is somebody's only: what steps read is what the model says a token reads. */
static void bytes_are_the_models(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++)
        for (int threads = 1; threads <= 3; threads += 2) {
            engine *e = open_engine(kind, threads, true, NULL);
            work(e, kind, 0);
            const pass_times *t = &compute_times(engine_compute(e))[PASS_DECODE];
            assert_int_equal(t->n, ANSWER);
            assert_int_equal(sum_steps(t, offsetof(step_times, weight_bytes)), ANSWER * compute_weight_bytes(engine_model(e)));
            assert_int_equal(t->steps[STEP_ATTENTION].weight_bytes, 0);
            engine_close(e);
        }
}

/* Several tokens read a matrix once, and an expert once, however many take it. */
static void shared_reading(void **state)
{
    (void)state;
    engine *e = open_engine(2, 2, true, NULL);
    const expert_weights *one = &engine_model(e)->layers[0].moe->experts[0];
    uint64_t expert = (one->gate.panel_bytes * (uint64_t)one->gate.n_panels) + (one->up.panel_bytes * (uint64_t)one->up.n_panels) +
                      (one->down.panel_bytes * (uint64_t)one->down.n_panels);
    work(e, 2, 0);
    const pass_times *t = compute_times(engine_compute(e));
    step_times head = t[PASS_DECODE].steps[STEP_HEAD], experts = t[PASS_DECODE].steps[STEP_EXPERTS];
    assert_int_equal(experts.weight_bytes, expert * ANSWER * kinds[2].n_layer * kinds[2].n_used);
    assert_int_equal(t[PASS_PREFILL].steps[STEP_HEAD].weight_bytes, head.weight_bytes / ANSWER); /* of the last pass only */
    assert_true(t[PASS_PREFILL].steps[STEP_EXPERTS].weight_bytes > expert * kinds[2].n_layer * kinds[2].n_used);
    assert_true(t[PASS_PREFILL].steps[STEP_EXPERTS].weight_bytes <= expert * kinds[2].n_layer * kinds[2].n_experts * 3);
    compute_times_reset(engine_compute(e));
    assert_int_equal(compute_times(engine_compute(e))[PASS_DECODE].n, 0);
    assert_int_equal(sum_steps(compute_times(engine_compute(e)), offsetof(step_times, n)), 0);
    work(e, 2, SESSIONS);
    t = compute_times(engine_compute(e));
    assert_int_equal(t[PASS_DECODE].steps[STEP_HEAD].weight_bytes, head.weight_bytes / ANSWER * (ANSWER + 1));
    assert_true(t[PASS_DECODE].steps[STEP_EXPERTS].weight_bytes <= experts.weight_bytes + 3 * experts.weight_bytes / ANSWER);
    engine_close(e);
}

static void passes_and_times(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 3; threads++) {
        engine *e = open_engine(0, threads, true, NULL);
        work(e, 0, SESSIONS);
        const pass_times *t = compute_times(engine_compute(e));
        assert_int_equal(t[PASS_PREFILL].n, 3);
        assert_int_equal(t[PASS_PREFILL].n_tokens, PROMPT);
        assert_int_equal(t[PASS_DECODE].n, ANSWER + 1);
        assert_int_equal(t[PASS_DECODE].n_tokens, ANSWER + SESSIONS);
        for (int pass = 0; pass < PASS_KINDS; pass++) {
            assert_int_equal(t[pass].steps[STEP_EMBED].n, t[pass].n);
            assert_int_equal(t[pass].steps[STEP_QKV].n, t[pass].n * kinds[0].n_layer);
            assert_int_equal(t[pass].steps[STEP_NORM].n, t[pass].n * (2 * kinds[0].n_layer + 1));
            assert_int_equal(t[pass].steps[STEP_EXPERTS].n, 0);
            uint64_t steps = sum_steps(&t[pass], offsetof(step_times, time_ns)),
                     work_ns = sum_steps(&t[pass], offsetof(step_times, work_ns)),
                     wait_ns = sum_steps(&t[pass], offsetof(step_times, wait_ns));
            assert_true(steps > 0 && steps <= t[pass].time_ns);
            assert_true(work_ns > 0 && work_ns + wait_ns >= steps && work_ns + wait_ns <= (uint64_t)threads * t[pass].time_ns);
        }
        engine_close(e);
    }
}

static void nothing_when_off(void **state)
{
    (void)state;
    engine *e = open_engine(0, 2, false, NULL);
    work(e, 0, 0);
    const pass_times *t = compute_times(engine_compute(e));
    for (int pass = 0; pass < PASS_KINDS; pass++)
        assert_true(t[pass].n == 0 && t[pass].time_ns == 0 && sum_steps(&t[pass], offsetof(step_times, n)) == 0);
    engine_close(e);
}

/* ---- events ---- */

typedef struct seen {
    uint64_t n_passes[PASS_KINDS], n_spans[PASS_KINDS];
    double pass_us[PASS_KINDS], step_us[PASS_KINDS]; /* of all workers */
} seen;

static double number(const json_t *object, const char *key) { return json_number_value(json_object_get(object, key)); }

/* Passes come behind their steps: counts those between two passes, each of which must lie in it and begin where its worker is. */
static void look_at(const json_t *all, seen *out)
{
    double at[TEAM_MAX] = {0}, first = 1e300, last = 0, steps = 0;
    uint64_t n = 0;
    for (size_t i = 0; i < json_array_size(all); i++) {
        const json_t *v = json_array_get(all, i);
        if (strcmp(json_string_value(json_object_get(v, "ph")), "X") != 0)
            continue;
        double start = number(v, "ts"), length = number(v, "dur");
        json_int_t track = json_integer_value(json_object_get(v, "tid"));
        assert_true(length >= 0);
        if (track < TEAM_MAX) {
            assert_true(start >= at[track] - 1e-3);
            at[track] = start + length;
            first = start < first ? start : first;
            last = at[track] > last ? at[track] : last;
            steps += length;
            n++;
            continue;
        }
        assert_int_equal(track, EVENTS_PASSES);
        pass_kind pass = strncmp(json_string_value(json_object_get(v, "name")), "decode", 6) == 0 ? PASS_DECODE : PASS_PREFILL;
        assert_true(start <= first && start + length >= last);
        out->n_passes[pass]++;
        out->n_spans[pass] += n;
        out->pass_us[pass] += length;
        out->step_us[pass] += steps;
        first = 1e300, last = steps = 0, n = 0;
    }
    assert_int_equal(n, 0);
}

static void events_tell_the_same(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++)
        for (int threads = 1; threads <= 3; threads++) {
            char path[600];
            dil_error err;
            json_error_t where;
            events *record;
            seen found = {0};
            ok(events_new(&record, 1 << 14, &err), &err);
            engine *e = open_engine(kind, threads, false, record);
            assert_ptr_equal(engine_events(e), record);
            work(e, kind, SESSIONS);
            ok(events_write(record, tiny_path(path, "events.json"), &err), &err);
            json_t *root = json_load_file(path, 0, &where);
            assert_non_null(root);
            look_at(json_object_get(root, "traceEvents"), &found);
            const pass_times *t = compute_times(engine_compute(e));
            for (int pass = 0; pass < PASS_KINDS; pass++) {
                uint64_t n = sum_steps(&t[pass], offsetof(step_times, n));
                assert_int_equal(found.n_passes[pass], t[pass].n);
                if (pass == PASS_PREFILL || threads == 1)
                    assert_int_equal(found.n_spans[pass], n * (uint64_t)threads);
                else /* a busy machine leaves some workers out of small passes */
                    assert_in_range(found.n_spans[pass], n, n * (uint64_t)threads);
                assert_true(fabs(found.pass_us[pass] - 1e-3 * (double)t[pass].time_ns) < 1);
                assert_true(fabs(found.step_us[pass] - 1e-3 * (double)sum_steps(&t[pass], offsetof(step_times, work_ns))) < 1);
            }
            json_decref(root);
            engine_close(e);
            events_free(record);
        }
}

/* Measuring changes no answer, and takes no memory per token. */
static void answers_stay(void **state)
{
    (void)state;
    dil_error err;
    events *record;
    float *rows[2];
    size_t width = kinds[3].n_vocab;
    ok(events_new(&record, 100, &err), &err); /* full soon */
    for (int i = 0; i < 2; i++) {
        engine *e = open_engine(3, 2, i == 1, i == 1 ? record : NULL);
        session *s;
        const float *logits;
        ok(session_new(&s, e, &err), &err);
        ok(session_sync(s, (token_id[]){5, 6, 7, 8, 9}, 5, &logits, NULL, NULL, NULL, &err), &err);
        uint64_t calls = mem_calls();
        for (int t = 0; t < 10; t++)
            ok(engine_step(e, &s, &(token_id){t + 10}, 1, &logits, &err), &err);
        assert_int_equal(mem_calls(), calls);
        rows[i] = mem_alloc(width * sizeof **rows, MEM_MISC);
        assert_non_null(rows[i]);
        memcpy(rows[i], logits, width * sizeof **rows);
        session_free(s);
        engine_close(e);
    }
    assert_true(events_dropped(record) > 0);
    assert_memory_equal(rows[0], rows[1], width * sizeof **rows);
    mem_free(rows[0]);
    mem_free(rows[1]);
    events_free(record);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bytes_are_the_models), cmocka_unit_test(shared_reading),
                                       cmocka_unit_test(passes_and_times),     cmocka_unit_test(nothing_when_off),
                                       cmocka_unit_test(events_tell_the_same), cmocka_unit_test(answers_stay)};
    return leaks_run_group_tests(tests, prepare, NULL);
}
