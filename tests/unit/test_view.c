/* Pictures: ticks and numbers, the reader of CSV logs, figures of router logs, and what the files of pictures hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "experts/trace.h"
#include "leaks.h"
#include "tiny_model.h"
#include "view/chart.h"
#include "view/page.h"
#include "view/shares.h"
#include "view/table.h"
#include "view/view.h"

/* fontconfig keeps what it read about fonts as long as the process lives; the leak sanitizer asks for this when it is there. */
const char *__lsan_default_suppressions(void);
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void) { return "leak:libfontconfig"; }

static void ok(dil_status status, const dil_error *err)
{
    if (status != DIL_OK)
        fail_msg("%s", err->text);
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
}

/* ---- ticks and numbers ---- */

static void ticks(void **state)
{
    (void)state;
    double t[CHART_MOST_TICKS];
    assert_int_equal(chart_ticks(0, 10, 6, t), 6);
    assert_float_equal(t[1], 2, 1e-12);
    assert_int_equal(chart_ticks(0.47, 0.55, 5, t), 4);
    assert_float_equal(t[0], 0.48, 1e-12);
    assert_int_equal(chart_ticks(-3, 3, 4, t), 3);
    assert_true(t[0] == -2 && t[1] == 0 && t[2] == 2);
    assert_int_equal(chart_ticks(1, 1, 5, t), 0);
    assert_int_equal(chart_ticks(NAN, 1, 5, t), 0);
    assert_int_equal(chart_ticks(0, INFINITY, 5, t), 0);
    const double ranges[][2] = {{1e-9, 3e-9}, {-1e90, 1e90}, {99999, 100001}, {0, 1e-5}, {-7.3, 1234.5}};
    for (size_t r = 0; r < sizeof ranges / sizeof *ranges; r++)
        for (int most = 3; most <= CHART_MOST_TICKS; most++) {
            int n = chart_ticks(ranges[r][0], ranges[r][1], most, t);
            assert_in_range(n, 1, most);
            double slack = (ranges[r][1] - ranges[r][0]) * 1e-6;
            for (int i = 0; i < n; i++) {
                assert_true(t[i] >= ranges[r][0] - slack && t[i] <= ranges[r][1] + slack);
                assert_true(i == 0 || t[i] > t[i - 1]);
            }
            double step = n > 1 ? t[1] - t[0] : INFINITY; /* nothing is left out at either end */
            assert_true(t[0] - step < ranges[r][0] && t[n - 1] + step > ranges[r][1]);
        }
}

static void log_ticks(void **state)
{
    (void)state;
    double t[CHART_MOST_TICKS];
    assert_int_equal(chart_log_ticks(-2.1, -0.9, 7, t), 4); /* 0.01 0.02 0.05 0.1 */
    assert_true(t[0] == 0.01 && fabs(t[1] - 0.02) < 1e-12 && fabs(t[2] - 0.05) < 1e-12 && fabs(t[3] - 0.1) < 1e-12);
    assert_int_equal(chart_log_ticks(-5.2, 0.3, 7, t), 6);
    assert_true(fabs(t[0] - 1e-5) < 1e-15 && t[5] == 1);
    assert_int_equal(chart_log_ticks(-20, 20, 5, t), 5); /* every tenth power */
    assert_true(t[2] == 1);
    assert_int_equal(chart_log_ticks(0.35, 0.6, 7, t), 0); /* nothing round inside */
    assert_int_equal(chart_log_ticks(1, 1, 7, t), 1);
    assert_int_equal(chart_log_ticks(-INFINITY, 1, 7, t), 0);
    assert_int_equal(chart_log_ticks(NAN, 1, 7, t), 0);
}

static void numbers(void **state)
{
    (void)state;
    static const struct {
        double v, step;
        bool turkish;
        const char *text;
    } cases[] = {{0, 0.1, false, "0"},        {2.5, 0.5, false, "2.5"},      {2.5, 0.5, true, "2,5"},
                 {500, 100, false, "500"},    {20000, 5000, false, "20k"},   {1.5e6, 5e5, false, "1.5M"},
                 {4e-4, 2e-4, false, "4e-4"}, {-0.25, 0.05, false, "-0.25"}, {3.3333, 0, false, "3.333"},
                 {1e-5, 0, false, "1.0e-5"},  {1e-3, 5e-4, false, "1.0e-3"}, {2e12, 1e12, false, "2T"}};
    char text[64];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(chart_number(cases[i].v, cases[i].step, cases[i].turkish, text, sizeof text), cases[i].text);
}

/* ---- logs ---- */

static dil_status parsed(table *t, const char *text, dil_error *err)
{
    *t = (table){0};
    return table_parse(t, "run.csv", str_of(text), err);
}

static void good_tables(void **state)
{
    (void)state;
    table t;
    dil_error err;
    ok(parsed(&t, "step, loss ,note\r\n1,2.5,first\r\n\r\n2,,x\n3,nan,\n4,-inf,\n5,1", &err), &err);
    assert_int_equal(t.n_columns, 3);
    assert_int_equal(t.n_rows, 4); /* the fifth has no end yet */
    assert_int_equal(table_find(&t, "loss"), 1);
    assert_int_equal(table_find(&t, "los"), -1);
    assert_float_equal(t.columns[1].v[0], 2.5, 0);
    assert_true(isnan(t.columns[1].v[1]) && isnan(t.columns[1].v[2]) && isnan(t.columns[1].v[3]));
    ok(table_check(&t, 1, &err), &err);
    assert_int_equal(table_check(&t, 2, &err), DIL_FORMAT);
    assert_string_equal(err.text, "run.csv: line 2, column 'note': wanted a number, found 'first'");
    table_free(&t);
}

static void broken_tables(void **state)
{
    (void)state;
    static const struct {
        const char *text, *told;
    } cases[] = {{"", "empty file"},
                 {" \n\n", "empty file"},
                 {"step,,x\n", "line 1, column 2: wanted a name"},
                 {"step,loss,step\n", "found 'step' twice"},
                 {"step,\xff\n", "line 1, column 2"},
                 {"step,loss\n1,2\n3\n", "line 3: wanted 2 columns, as in the header, found 1"},
                 {"step,loss\n1,2,3\n", "line 2: wanted 2 columns, as in the header, found 3"}};
    table t;
    dil_error err;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(parsed(&t, cases[i].text, &err), DIL_FORMAT);
        assert_non_null(strstr(err.text, cases[i].told));
        assert_null(t.columns);
    }
    assert_int_equal(table_open(&t, "/nowhere/at/all.csv", &err), DIL_IO);
    strbuf wide = STRBUF(1 << 20);
    for (int i = 0; i <= TABLE_MOST_COLUMNS; i++)
        strbuf_printf(&wide, "%sc%d", i ? "," : "", i);
    assert_int_equal(parsed(&t, wide.p, &err), DIL_LIMIT);
    strbuf_free(&wide);
}

static void resumed_tables(void **state)
{
    (void)state;
    table t;
    dil_error err;
    ok(parsed(&t, "step,loss\n1,10\n2,20\n3,30\n2,21\n3,31\n,9\n4,41\n", &err), &err);
    table_keep_last(&t, 0);
    assert_int_equal(t.n_rows, 4);
    const double loss[] = {10, 21, 31, 41};
    for (int i = 0; i < 4; i++)
        assert_float_equal(t.columns[1].v[i], loss[i], 0);
    table_free(&t);
}

/* ---- pictures of logs ---- */

static char first_log[600], second_log[600];

static void write_log(const char *path, size_t n, double more)
{
    strbuf b = STRBUF(1 << 28);
    strbuf_add_str(&b, STR("step,tokens,ce,cache,nash,lr,bpb_wiki,extra\n"));
    for (size_t i = 1; i <= n; i++)
        strbuf_printf(&b, "%zu,%zu,%.4f,0,%s,%g,%s,word\n", i, i * 100, more + 5 / sqrt((double)i), i % 7 ? "0.3" : "nan", 1e-4,
                      i % 50 ? "" : "1.25");
    write_text(path, b.p);
    strbuf_free(&b);
}

static strbuf drawn(view_picture picture, const char *const *inputs, int n, view_format format, bool other)
{
    view_request r = {.inputs = inputs, .n_inputs = n, .format = format, .dark = other, .turkish = other};
    strbuf out = STRBUF(VIEW_MOST_BYTES);
    dil_error err;
    ok(picture(&out, &r, &err), &err);
    return out;
}

/* Every element is closed in order; no bare '<' or '&'; enough of XML for what we write. */
static void check_xml(str s)
{
    char open[64][32];
    int depth = 0, elements = 0;
    assert_true(utf8_valid(s));
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '&')
            assert_true(i + 1 < s.n && (s.p[i + 1] == '#' || strchr("alqg", s.p[i + 1])));
        if (s.p[i] != '<')
            continue;
        size_t end = i + 1;
        for (; end < s.n && s.p[end] != '>'; end++)
            assert_true(s.p[end] != '<');
        assert_true(end < s.n);
        size_t from = i + 1 + (s.p[i + 1] == '/'), to = from;
        while (to < end && !strchr(" \n/", s.p[to]))
            to++;
        assert_true(to - from < sizeof open[0]);
        if (s.p[i + 1] == '/') {
            assert_true(depth > 0 && strlen(open[depth - 1]) == to - from && memcmp(open[depth - 1], s.p + from, to - from) == 0);
            depth--;
        } else if (s.p[i + 1] != '?' && s.p[end - 1] != '/') {
            assert_true(depth < 64);
            (void)snprintf(open[depth++], sizeof open[0], "%.*s", (int)(to - from), s.p + from);
        }
        elements++;
        i = end;
    }
    assert_int_equal(depth, 0);
    assert_true(elements > 20);
}

static bool holds(const strbuf *b, const char *text) { return str_find(strbuf_str(b), str_of(text)) >= 0; }

static void metrics_svg(void **state)
{
    (void)state;
    const char *inputs[] = {first_log, second_log};
    for (int other = 0; other < 2; other++) {
        strbuf a = drawn(view_metrics, inputs, 2, VIEW_SVG, other), b = drawn(view_metrics, inputs, 2, VIEW_SVG, other);
        check_xml(strbuf_str(&a));
        assert_true(str_equal(strbuf_str(&a), strbuf_str(&b)));
        assert_true(holds(&a, "swarm &#60;1&#62;") && holds(&a, "plain") && holds(&a, "wiki"));
        assert_true(holds(&a, other ? "Çapraz entropi" : "Cross-entropy"));
        assert_false(holds(&a, "extra"));
        strbuf_free(&a);
        strbuf_free(&b);
    }
    strbuf alone = drawn(view_metrics, inputs, 1, VIEW_SVG, false), both = drawn(view_metrics, inputs, 2, VIEW_SVG, false);
    assert_false(str_equal(strbuf_str(&alone), strbuf_str(&both)));
    strbuf_free(&alone);
    strbuf_free(&both);
}

static uint32_t big_endian(const char *p)
{
    const unsigned char *b = (const unsigned char *)p;
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static void other_formats(void **state)
{
    (void)state;
    const char *inputs[] = {first_log};
    strbuf png = drawn(view_metrics, inputs, 1, VIEW_PNG, false), page = drawn(view_metrics, inputs, 1, VIEW_HTML, true);
    assert_memory_equal(png.p, "\x89PNG\r\n\x1a\n", 8);
    assert_int_equal(big_endian(png.p + 16), 1280 * CANVAS_SCALE);
    assert_in_range(big_endian(png.p + 20), 600, 4000);
    assert_true(holds(&page, "<!DOCTYPE html>") && holds(&page, "<svg ") && holds(&page, "<td>1,250</td>"));
    assert_true(holds(&page, "lang=\"tr\"") && !holds(&page, "<?xml") && !holds(&page, "src=") && !holds(&page, "<link"));
    strbuf_free(&png);
    strbuf_free(&page);
    for (int i = 0; i < 2; i++) {
        view_format format = i ? VIEW_PDF : VIEW_PNG;
        strbuf a = drawn(view_metrics, inputs, 1, format, false), b = drawn(view_metrics, inputs, 1, format, false);
        assert_true(a.n > 1000 && str_equal(strbuf_str(&a), strbuf_str(&b)));
        assert_true(i == 0 || (memcmp(a.p, "%PDF-", 5) == 0 && holds(&a, "19700101")));
        strbuf_free(&a);
        strbuf_free(&b);
    }
}

static void odd_logs(void **state)
{
    (void)state;
    char path[600];
    const char *inputs[] = {tiny_path(path, "odd.csv")};
    static const struct {
        const char *text, *told;
    } cases[] = {{"step,ce\n1,x\n", "line 2, column 'ce': wanted a number, found 'x'"},
                 {"step,bpb_a\n1,2\n2,y\n", "line 3, column 'bpb_a'"},
                 {"ce\n1\n", "wanted a column 'step'"},
                 {"step,ce\n", "only the header"},
                 {"step,ce\n1,\n", "at least one column"}};
    view_request r = {.inputs = inputs, .n_inputs = 1, .format = VIEW_SVG};
    dil_error err;
    strbuf out = STRBUF(VIEW_MOST_BYTES);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_text(path, cases[i].text);
        assert_int_equal(view_metrics(&out, &r, &err), DIL_FORMAT);
        assert_non_null(strstr(err.text, cases[i].told));
        assert_int_equal(out.n, 0);
    }
    r.n_inputs = 0;
    assert_int_equal(view_metrics(&out, &r, &err), DIL_BAD_ARGUMENT);
    write_text(path, "step,ce,lr\n7,1e99,-1e99\n"); /* one point, far away */
    out = drawn(view_metrics, inputs, 1, VIEW_SVG, false);
    check_xml(strbuf_str(&out));
    strbuf_free(&out);
    write_log(path, 200000, 3); /* many more steps than pixels */
    out = drawn(view_metrics, inputs, 1, VIEW_SVG, false);
    assert_in_range(out.n, 1000, 2 << 20);
    strbuf_free(&out);
}

/* One step among many that differs is seen, though there are more steps than pixels. */
static void spike_among_many(void **state)
{
    (void)state;
    char path[600];
    const char *inputs[] = {tiny_path(path, "spike.csv")};
    strbuf pictures[2];
    for (int spike = 0; spike < 2; spike++) {
        strbuf b = STRBUF(1 << 26);
        strbuf_add_str(&b, STR("step,lr\n1,1\n"));
        for (int i = 2; i <= 100000; i++)
            strbuf_printf(&b, "%d,%s\n", i, i == 90000 && spike ? "0.9" : "0.1");
        write_text(path, b.p);
        strbuf_free(&b);
        pictures[spike] = drawn(view_metrics, inputs, 1, VIEW_SVG, false);
    }
    assert_false(str_equal(strbuf_str(&pictures[0]), strbuf_str(&pictures[1])));
    strbuf_free(&pictures[0]);
    strbuf_free(&pictures[1]);
}

/* ---- router logs ---- */

static char left_log[600], right_log[600];

/* Tokens that choose expert token % n_choice + from in both layers with experts. */
static void write_route(const char *path, uint32_t n_experts, uint32_t n_tokens, uint32_t from, uint32_t n_choice)
{
    trace_layer layers[3] = {{.n_experts = 0}, {.bytes = 10, .n_experts = n_experts}, {.bytes = 10, .n_experts = n_experts}};
    trace_options o = {.name = "by/hand", .layers = layers, .n_layers = 3, .n_used = 1, .most_tokens = n_tokens + 1};
    trace_writer *w;
    dil_error err;
    ok(trace_writer_open(&w, path, &o, &err), &err);
    if (n_tokens > 0)
        ok(trace_writer_begin(w, n_tokens, &err), &err);
    for (uint32_t t = 0; t < n_tokens; t++) {
        uint16_t one = (uint16_t)(t % n_choice + from), other = (uint16_t)(t % n_experts);
        trace_writer_put(w, t, 1, &one, NULL);
        trace_writer_put(w, t, 2, &other, NULL);
    }
    if (n_tokens > 0)
        ok(trace_writer_end(w, &err), &err);
    ok(trace_writer_commit(w, &err), &err);
}

static void divergences(void **state)
{
    (void)state;
    const double a[3] = {1, 0, 0}, b[3] = {0, 0.5, 0.5}, c[3] = {0.5, 0.5, 0};
    assert_float_equal(shares_divergence(a, a, 3), 0, 1e-12);
    assert_float_equal(shares_divergence(a, b, 3), 1, 1e-12);
    /* m = (3/4, 1/4, 0): (log2(4/3) + (log2(2/3) + log2(2)) / 2) / 2 */
    assert_float_equal(shares_divergence(a, c, 3), (log2(4.0 / 3) + (log2(2.0 / 3) + 1) / 2) / 2, 1e-12);
    assert_float_equal(shares_divergence(c, a, 3), shares_divergence(a, c, 3), 1e-12);
}

static void two_logs(void **state)
{
    (void)state;
    const char *paths[] = {left_log, right_log};
    shares s = {0};
    dil_error err;
    ok(shares_read(&s, paths, 2, &err), &err);
    assert_int_equal(s.n_layers, 2);
    assert_int_equal(s.layers[0].layer, 1);
    /* halves over {0, 1} and {1, 2}: only expert 1 is shared */
    assert_float_equal(s.layers[0].divergence, 0.5, 1e-9);
    assert_float_equal(s.layers[1].divergence, 0, 1e-9);
    assert_float_equal(s.layers[0].by_chance, 2 * (2.0 / 40) / (8 * log(2)), 1e-9);
    assert_int_equal(s.layers[0].order[0], 0);
    assert_int_equal(s.layers[0].order[3], 2);
    assert_float_equal(s.layers[0].share[1], 0.5, 1e-12);
    shares_free(&s);
    const char *thrice[] = {left_log, right_log, left_log};
    ok(shares_read(&s, thrice, 3, &err), &err);
    assert_float_equal(s.layers[0].divergence, 1.0 / 3, 1e-9); /* two pairs of 0.5, one of 0 */
    shares_free(&s);
}

/* Names are bytes to the file system, text to a picture; a word may be longer than a line of the buffer, cut anywhere. */
static void names_that_are_no_text(void **state)
{
    (void)state;
    char path[600], name[240] = "a\xff<\xc3";
    while (strlen(name) < 200)
        (void)snprintf(name + strlen(name), sizeof name - strlen(name), "%s", "ş");
    write_log(tiny_path(path, name), 3, 0);
    const char *inputs[] = {path};
    strbuf a = drawn(view_metrics, inputs, 1, VIEW_SVG, false);
    check_xml(strbuf_str(&a));
    assert_true(holds(&a, "a?&#60;?ş"));
    strbuf_free(&a);
}

static void experts_picture(void **state)
{
    (void)state;
    const char *inputs[] = {left_log, right_log};
    strbuf a = drawn(view_experts, inputs, 2, VIEW_SVG, false), b = drawn(view_experts, inputs, 2, VIEW_SVG, false);
    check_xml(strbuf_str(&a));
    assert_true(str_equal(strbuf_str(&a), strbuf_str(&b)));
    assert_true(holds(&a, "left") && holds(&a, "right") && holds(&a, "layer 1: 0.5000 bit") && holds(&a, "layer 2: 0 bit"));
    assert_false(holds(&a, "by/hand"));
    strbuf_free(&a);
    strbuf_free(&b);
    for (int n = 1; n <= 2; n++) {
        strbuf page = drawn(view_experts, inputs, n, VIEW_HTML, true);
        assert_true(holds(&page, "<table>") && holds(&page, "hizmet"));
        strbuf_free(&page);
    }
    char wide[600];
    write_route(tiny_path(wide, "wide.route"), 3000, 30, 5, 7); /* more experts than pixels */
    const char *alone[] = {wide};
    a = drawn(view_experts, alone, 1, VIEW_PNG, false);
    strbuf_free(&a);
}

static void odd_routes(void **state)
{
    (void)state;
    char path[600], empty[600];
    const char *inputs[] = {left_log, tiny_path(path, "other.route")};
    view_request r = {.inputs = inputs, .n_inputs = 2, .format = VIEW_SVG};
    dil_error err;
    strbuf out = STRBUF(VIEW_MOST_BYTES);
    write_route(path, 5, 20, 1, 2);
    assert_int_equal(view_experts(&out, &r, &err), DIL_FORMAT);
    assert_non_null(strstr(err.text, "wanted 4 experts"));
    inputs[1] = first_log;
    assert_int_equal(view_experts(&out, &r, &err), DIL_FORMAT);
    write_route(tiny_path(empty, "empty.route"), 4, 0, 1, 2);
    inputs[1] = empty;
    assert_int_equal(view_experts(&out, &r, &err), DIL_FORMAT);
    assert_non_null(strstr(err.text, "at least one token"));
    assert_int_equal(out.n, 0);
}

/* ---- names ---- */

static void names(void **state)
{
    (void)state;
    const char *inputs[] = {"runs/a/metrics.csv", "runs/b.csv", "b.csv", "metrics.csv", "./metrics.csv", "x/english.route"};
    const char *wanted[] = {"a", "b", "b (2)", "metrics", "metrics (2)", "english"};
    char out[VIEW_MOST_INPUTS][PAGE_NAME_BYTES];
    view_request r = {.inputs = inputs, .n_inputs = 6};
    view_format format;
    dil_error err;
    page_names(&r, out);
    for (int i = 0; i < 6; i++)
        assert_string_equal(out[i], wanted[i]);
    ok(view_format_of("a.SVG", &format, &err), &err);
    assert_int_equal(format, VIEW_SVG);
    assert_int_equal(view_format_of(".png", &format, &err), DIL_BAD_ARGUMENT);
    assert_int_equal(view_format_of("a.gif", &format, &err), DIL_BAD_ARGUMENT);
    assert_true(view_find("metrics") == view_metrics && view_find("flock") == NULL);
}

/* Every allocation of ours that fails is told, and nothing stays behind. */
static void no_memory(void **state)
{
    (void)state;
    const char *logs[] = {first_log}, *routes[] = {left_log, right_log};
    for (int kind = 0; kind < 2; kind++) {
        view_request r = {.inputs = kind ? routes : logs, .n_inputs = kind ? 2 : 1, .format = VIEW_HTML};
        dil_status status = DIL_NO_MEMORY;
        for (int64_t after = 0; status != DIL_OK; after++) {
            strbuf out = STRBUF(VIEW_MOST_BYTES);
            dil_error err;
            assert_true(after < 2000);
            mem_inject_failure(after);
            status = (kind ? view_experts : view_metrics)(&out, &r, &err);
            mem_inject_failure(-1);
            strbuf_free(&out);
            assert_true(status == DIL_OK || status == DIL_NO_MEMORY);
        }
    }
}

static int prepare(void **state)
{
    (void)state;
    write_log(tiny_path(first_log, "swarm <1>.csv"), 500, 3);
    write_log(tiny_path(second_log, "plain.csv"), 400, 4);
    write_route(tiny_path(left_log, "left.route"), 4, 40, 0, 2);
    write_route(tiny_path(right_log, "right.route"), 4, 40, 1, 2);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ticks),
        cmocka_unit_test(log_ticks),
        cmocka_unit_test(numbers),
        cmocka_unit_test(good_tables),
        cmocka_unit_test(broken_tables),
        cmocka_unit_test(resumed_tables),
        cmocka_unit_test(metrics_svg),
        cmocka_unit_test(other_formats),
        cmocka_unit_test(odd_logs),
        cmocka_unit_test(spike_among_many),
        cmocka_unit_test(divergences),
        cmocka_unit_test(two_logs),
        cmocka_unit_test(names_that_are_no_text),
        cmocka_unit_test(experts_picture),
        cmocka_unit_test(odd_routes),
        cmocka_unit_test(names),
        cmocka_unit_test(no_memory),
    };
    return leaks_run_group_tests(tests, prepare, NULL);
}
