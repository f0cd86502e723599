/* Hit rates of caches, drawn: the figures are the simulator's; logs that cannot be drawn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "experts/simulate.h"
#include "leaks.h"
#include "tiny_model.h"
#include "view/chart.h"
#include "view_files.h"

static char logs[2][600];

/* Up to two layers of experts; which ones tokens choose drifts through them. */
static void write_log(const char *path, uint32_t n_layers, uint32_t n_tokens, uint32_t n_experts, uint32_t speed)
{
    trace_layer layers[2] = {{.bytes = 300000, .n_experts = n_experts}, {.bytes = 300000, .n_experts = n_experts}};
    trace_options o = {.name = "by/hand", .layers = layers, .n_layers = n_layers, .n_used = 2, .most_tokens = 1};
    trace_writer *w;
    dil_error err;
    uint32_t seed = 9;
    ok(trace_writer_open(&w, path, &o, &err), &err);
    for (uint32_t t = 0; t < n_tokens; t++) {
        ok(trace_writer_begin(w, 1, &err), &err);
        for (uint32_t l = 0; l < n_layers; l++) {
            uint16_t one = (uint16_t)((t / speed + tiny_random(&seed) % 6) % n_experts),
                     both[2] = {one, (uint16_t)((one + 1) % n_experts)};
            trace_writer_put(w, 0, l, both, NULL);
        }
        ok(trace_writer_end(w, &err), &err);
    }
    ok(trace_writer_commit(w, &err), &err);
}

static void figures(void **state)
{
    (void)state;
    static const policy_kind kinds[] = {POLICY_LRU, POLICY_LFU, POLICY_SWARM, POLICY_STALE, POLICY_BELADY};
    const char *inputs[] = {logs[0], logs[1]};
    strbuf page = drawn(view_cache, inputs, 2, VIEW_HTML, false);
    dil_error err;
    for (int log = 0; log < 2; log++) {
        trace *t;
        ok(trace_open(&t, logs[log], &err), &err);
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            strbuf row = STRBUF(4096);
            strbuf_printf(&row, "<th>%s, %s</th>", log ? "slow" : "fast", policy_name(kinds[k]));
            double last = 0;
            for (int i = 1; i <= 9; i++) {
                simulation s;
                char text[32];
                ok(simulate(t, kinds[k], (uint64_t)(i / 10.0 * (double)simulate_all_bytes(t)), &s, NULL, &err), &err);
                double rate = 100 * (double)s.total.hits / (double)s.total.requests;
                strbuf_printf(&row, "<td>%s</td>", chart_number(rate, 0.01, false, text, sizeof text));
                assert_true(kinds[k] != POLICY_BELADY || rate >= last);
                last = rate;
            }
            if (!holds(&page, row.p))
                fail_msg("no row %s", row.p);
            strbuf_free(&row);
        }
        trace_free(t);
    }
    assert_true(holds(&page, "48 experts in 2 layers"));
    strbuf_free(&page);
}

static void pictures(void **state)
{
    (void)state;
    const char *inputs[] = {logs[0], logs[1], logs[0]};
    for (int format = VIEW_SVG; format <= VIEW_HTML; format++)
        for (int n = 1; n <= 3; n += 2) {
            strbuf a = drawn(view_cache, inputs, n, (view_format)format, n > 1),
                   b = drawn(view_cache, inputs, n, (view_format)format, n > 1);
            assert_true(a.n > 1000 && str_equal(strbuf_str(&a), strbuf_str(&b)));
            if (format == VIEW_SVG) {
                check_xml(strbuf_str(&a));
                assert_true(holds(&a, n > 1 ? "2 katmanda 48 uzman" : "48 experts in 2 layers") && holds(&a, "swarm:"));
            }
            strbuf_free(&a);
            strbuf_free(&b);
        }
}

static void odd_logs(void **state)
{
    (void)state;
    char path[600];
    const char *inputs[] = {tiny_path(path, "odd.route")};
    view_request r = {.inputs = inputs, .n_inputs = 1, .format = VIEW_SVG};
    strbuf out = STRBUF(VIEW_MOST_BYTES);
    dil_error err;
    write_log(path, 2, 0, 24, 1);
    assert_int_equal(view_cache(&out, &r, &err), DIL_FORMAT);
    assert_non_null(strstr(err.text, "at least one token"));
    write_log(path, 1, 5, 2, 1); /* every token needs all there are */
    assert_int_equal(view_cache(&out, &r, &err), DIL_LIMIT);
    assert_non_null(strstr(err.text, "odd.route"));
    write_text(path, "step,ce\n1,2\n");
    assert_int_equal(view_cache(&out, &r, &err), DIL_FORMAT);
    r.n_inputs = 0;
    assert_int_equal(view_cache(&out, &r, &err), DIL_BAD_ARGUMENT);
    assert_int_equal(out.n, 0);
    assert_true(view_find("cache") == view_cache);
}

static bool stop(void *user, const char *what, uint64_t done, uint64_t total)
{
    int *calls = user;
    assert_string_equal(what, "replaying");
    assert_true(done == (uint64_t)++ * calls && total == 45);
    return *calls < 7;
}

static void cancelled(void **state)
{
    (void)state;
    const char *inputs[] = {logs[0]};
    int calls = 0;
    view_request r = {.inputs = inputs, .n_inputs = 1, .format = VIEW_SVG, .progress = stop, .user = &calls};
    strbuf out = STRBUF(VIEW_MOST_BYTES);
    dil_error err;
    assert_int_equal(view_cache(&out, &r, &err), DIL_CANCELLED);
    assert_int_equal(calls, 7);
}

static void no_memory(void **state)
{
    (void)state;
    const char *inputs[] = {logs[0]};
    view_request r = {.inputs = inputs, .n_inputs = 1, .format = VIEW_HTML};
    dil_status status = DIL_NO_MEMORY;
    for (int64_t after = 0; status != DIL_OK; after += 1 + after / 8) {
        strbuf out = STRBUF(VIEW_MOST_BYTES);
        dil_error err;
        mem_inject_failure(after);
        status = view_cache(&out, &r, &err);
        mem_inject_failure(-1);
        strbuf_free(&out);
        assert_true(status == DIL_OK || status == DIL_NO_MEMORY);
    }
}

static int prepare(void **state)
{
    (void)state;
    write_log(tiny_path(logs[0], "fast.route"), 2, 300, 24, 3);
    write_log(tiny_path(logs[1], "slow.route"), 2, 300, 24, 20);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures),   cmocka_unit_test(pictures),  cmocka_unit_test(odd_logs),
        cmocka_unit_test(cancelled), cmocka_unit_test(no_memory),
    };
    return leaks_run_group_tests(tests, prepare, NULL);
}
