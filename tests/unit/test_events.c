/* The recorder of events: what its file holds, which events stay when the ring is full, failures that leave nothing behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <jansson.h>

#include "base/events.h"
#include "leaks.h"
#include "tiny_model.h"

static void ok(dil_status status, const dil_error *err)
{
    if (status != DIL_OK)
        fail_msg("%s", err->text);
}

static events *open_events(uint64_t capacity)
{
    dil_error err;
    events *e;
    ok(events_new(&e, capacity, &err), &err);
    return e;
}

/* The file as JSON, and its list of complete events (borrowed). */
static json_t *written(const events *e, json_t **spans)
{
    char path[600];
    dil_error err;
    json_error_t where;
    ok(events_write(e, tiny_path(path, "events.json"), &err), &err);
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &where), *all = json_object_get(root, "traceEvents");
    if (!root)
        fail_msg("line %d: %s", where.line, where.text);
    *spans = json_array();
    for (size_t i = 0; i < json_array_size(all); i++)
        if (strcmp(json_string_value(json_object_get(json_array_get(all, i), "ph")), "X") == 0)
            json_array_append(*spans, json_array_get(all, i));
    return root;
}

static int64_t whole(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    assert_true(json_is_integer(value));
    return json_integer_value(value);
}

static const char *text(const json_t *object, const char *key) { return json_string_value(json_object_get(object, key)); }

static void names_times_and_arguments(void **state)
{
    (void)state;
    events *e = open_events(100);
    uint64_t now = os_time_ns() + 1000000;
    events_add(e, &(event_span){now, now + 1234567, "prefill", -1, 512, EVENTS_PASSES});
    events_add(e, &(event_span){now + 5, now + 1005, "gate + up", 7, 512, 3});
    events_add(e, &(event_span){now + 306, now + 306, "decode", -1, 1, EVENTS_PASSES});
    events_add(e, &(event_span){now + 907, now + 909, "sample", -1, -1, EVENTS_COMMAND});
    json_t *spans, *root = written(e, &spans);
    static const char *const names[] = {"prefill 512", "gate + up", "decode", "sample"}, *const categories[] = {"pass", "step",
                                                                                                                "pass", "command"};
    static const int tracks[] = {EVENTS_PASSES, 3, EVENTS_PASSES, EVENTS_COMMAND};
    static const double lengths[] = {1234.567, 1, 0, 0.002}, after[] = {0, 0.005, 0.306, 0.907};
    double first = json_number_value(json_object_get(json_array_get(spans, 0), "ts"));
    assert_true(first >= 1000 && first < 1e6); /* microseconds since the recorder began */
    assert_int_equal(json_array_size(spans), 4);
    for (size_t i = 0; i < 4; i++) {
        const json_t *span = json_array_get(spans, i), *args = json_object_get(span, "args");
        assert_string_equal(text(span, "name"), names[i]);
        assert_string_equal(text(span, "cat"), categories[i]);
        assert_int_equal(whole(span, "tid"), tracks[i]);
        assert_true(fabs(json_number_value(json_object_get(span, "dur")) - lengths[i]) < 1e-6);
        assert_true(fabs(json_number_value(json_object_get(span, "ts")) - first - after[i]) < 1e-6);
        assert_int_equal(json_object_size(args), i == 1 ? 2 : i == 3 ? 0 : 1);
        assert_int_equal(i == 1 ? whole(args, "layer") : 7, 7);
        assert_int_equal(i < 2 ? whole(args, "rows") : 512, 512);
    }
    json_decref(spans);
    json_decref(root);
    events_free(e);
}

/* Every track that occurs has a name, in the order of the picture: passes, command, workers. */
static void tracks_have_names(void **state)
{
    (void)state;
    events *e = open_events(10);
    static const uint16_t used[] = {12, EVENTS_PASSES, 0, EVENTS_COMMAND};
    for (int i = 0; i < 4; i++)
        events_add(e, &(event_span){os_time_ns(), os_time_ns(), "x", -1, -1, used[i]});
    json_t *spans, *root = written(e, &spans), *all = json_object_get(root, "traceEvents");
    static const char *const names[] = {"dil", "worker 0", "", "worker 12", "", "passes", "", "command", ""};
    static const int64_t places[] = {0, 0, 0, 0, 12, 0, -2, 0, -1};
    assert_int_equal(json_array_size(all), 9 + 4);
    for (size_t i = 0; i < 9; i++) {
        const json_t *one = json_array_get(all, i), *args = json_object_get(one, "args");
        assert_string_equal(text(one, "ph"), "M");
        assert_int_equal(whole(one, "pid"), os_process_id());
        if (*names[i])
            assert_string_equal(text(args, "name"), names[i]);
        else
            assert_int_equal(whole(args, "sort_index"), places[i]);
    }
    json_decref(spans);
    json_decref(root);
    events_free(e);
}

static void the_newest_stay(void **state)
{
    (void)state;
    enum { CAPACITY = 8, MOST = 21 };
    for (int n = 0; n <= MOST; n++) {
        events *e = open_events(CAPACITY);
        for (int i = 0; i < n; i++)
            events_add(e, &(event_span){os_time_ns(), os_time_ns(), "x", i, -1, 0});
        int dropped = n > CAPACITY ? n - CAPACITY : 0;
        assert_int_equal(events_recorded(e), n);
        assert_int_equal(events_dropped(e), dropped);
        json_t *spans, *root = written(e, &spans), *other = json_object_get(root, "otherData");
        assert_int_equal(whole(other, "recorded"), n);
        assert_int_equal(whole(other, "dropped"), dropped);
        assert_int_equal(json_array_size(spans), n - dropped);
        for (int i = dropped; i < n; i++)
            assert_int_equal(whole(json_object_get(json_array_get(spans, (size_t)(i - dropped)), "args"), "layer"), i);
        json_decref(spans);
        json_decref(root);
        events_free(e);
    }
}

/* ---- many threads ---- */

enum { WORKERS = 4, ROUNDS = 3000 };

typedef struct crowd {
    team *workers;
    events *e;
} crowd;

static void add_many(void *ctx, int worker)
{
    crowd *c = ctx;
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t now = os_time_ns();
        events_add(c->e, &(event_span){now, now + (uint64_t)i, "x", worker, i, (uint16_t)worker});
        if (i % 100 == 0)
            team_barrier(c->workers);
    }
}

static void no_event_of_a_worker_is_lost(void **state)
{
    (void)state;
    dil_error err;
    crowd c = {.e = open_events((uint64_t)WORKERS * ROUNDS)};
    int next[WORKERS] = {0};
    ok(team_new(&c.workers, WORKERS, &err), &err);
    uint64_t calls = mem_calls();
    team_run(c.workers, add_many, &c);
    assert_int_equal(mem_calls(), calls); /* nothing is allocated */
    team_free(c.workers);
    assert_int_equal(events_recorded(c.e), WORKERS * ROUNDS);
    json_t *spans, *root = written(c.e, &spans);
    assert_int_equal(json_array_size(spans), WORKERS * ROUNDS);
    for (size_t i = 0; i < json_array_size(spans); i++) {
        const json_t *span = json_array_get(spans, i), *args = json_object_get(span, "args");
        int64_t worker = whole(span, "tid");
        assert_int_equal(whole(args, "layer"), worker);
        assert_int_equal(whole(args, "rows"), next[worker]++); /* each worker's in its order */
        assert_true(fabs(json_number_value(json_object_get(span, "dur")) * 1000 - (double)whole(args, "rows")) < 1e-6);
    }
    json_decref(spans);
    json_decref(root);
    events_free(c.e);
}

/* ---- failures ---- */

static void refused(void **state)
{
    (void)state;
    dil_error err;
    events *e = NULL;
    assert_int_equal(events_new(&e, 0, &err), DIL_BAD_ARGUMENT);
    assert_int_equal(events_new(&e, ((uint64_t)1 << 24) + 1, &err), DIL_BAD_ARGUMENT);
    assert_non_null(strstr(err.text, "wanted room for 1..16777216, found 16777217"));
    for (int after = 0; after < 2; after++) {
        mem_inject_failure(after);
        assert_int_equal(events_new(&e, 10, &err), DIL_NO_MEMORY);
        mem_inject_failure(-1);
    }
    assert_null(e);
    events_free(NULL);
}

static void count_file(void *ctx, const char *name, bool is_dir, uint64_t size)
{
    (void)name, (void)size;
    *(int *)ctx += !is_dir;
}

/* Opening, writing or renaming fails: a status, and no file, not even a temporary one. */
static void no_half_file(void **state)
{
    (void)state;
    char path[600], folder[600];
    dil_error err;
    events *e = open_events(4000);
    for (int i = 0; i < 4000; i++) /* several pieces */
        events_add(e, &(event_span){os_time_ns(), os_time_ns(), "some name", i, i, 1});
    ok(os_make_dirs(tiny_path(folder, "failures"), &err), &err);
    (void)snprintf(path, sizeof path, "%.500s/events.json", folder);
    int failures = 0;
    dil_status status = DIL_IO;
    for (int64_t after = 0; status != DIL_OK && after < 100; after++) {
        int n_files = 0;
        os_inject_failure(after);
        status = events_write(e, path, &err);
        os_inject_failure(-1);
        failures += status != DIL_OK;
        dil_error ignored;
        ok(os_list_dir(folder, count_file, &n_files, &ignored), &ignored);
        assert_int_equal(n_files, status == DIL_OK);
    }
    ok(status, &err);
    assert_true(failures > 5);
    mem_inject_failure(0);
    ok(os_remove(path, &err), &err);
    status = events_write(e, path, &err);
    mem_inject_failure(-1);
    assert_int_equal(status, DIL_NO_MEMORY);
    assert_false(os_exists(path));
    events_free(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_times_and_arguments),    cmocka_unit_test(tracks_have_names), cmocka_unit_test(the_newest_stay),
        cmocka_unit_test(no_event_of_a_worker_is_lost), cmocka_unit_test(refused),           cmocka_unit_test(no_half_file)};
    return leaks_run_group_tests(tests, NULL, NULL);
}
