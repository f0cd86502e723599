/* Pictures: ticks and numbers, the reader of CSV logs, figures of router logs, reports, and what the files of pictures hold. */
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
#include "view_files.h"

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

/* Figures that are no training run: the header names what a step is; a log with a known column keeps its words. */
static void other_figures(void **state)
{
    (void)state;
    char path[600];
    const char *inputs[] = {tiny_path(path, "passes.csv")};
    static const struct {
        const char *header;
        bool training, named;
    } cases[] = {{"step:tokens per pass,rows per second", false, true},
                 {"step,rows per second", false, false},
                 {"step:words,loss", true, true},
                 {"step:,loss", true, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        strbuf text = STRBUF(1000);
        strbuf_printf(&text, "%s\n16,100\n32,250\n", cases[i].header);
        write_text(path, text.p);
        strbuf_free(&text);
        strbuf out = drawn(view_metrics, inputs, 1, VIEW_HTML, false);
        assert_int_equal(holds(&out, "Course of training"), cases[i].training);
        assert_int_equal(holds(&out, "<title>Figures"), !cases[i].training);
        assert_int_equal(holds(&out, "passes: 32 steps"), !cases[i].named);
        strbuf_free(&out);
    }
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

/* ---- reports of dil quantize ---- */

/* Reports are written here with ' for ". */
#define MATRIX(name, layer, type, bits, nats)                                                        \
    "{'name':'" name "','layer':" layer ",'type':'" type "','experts':4,'bits_per_weight':" bits "," \
    "'expected_divergence':" nats "}"
#define WAY(name, bytes, nats) "{'name':'" name "','bytes':" bytes ",'divergence':" nats "}"

/* Parts of a report, which tests change one at a time. */
enum { SIZES, CALIBRATION, DIVERGENCE, MEASURED, COSTS, PLAYED, CURVE, MATRICES, PARTS };
static const char *const report_parts[PARTS] = {
    [SIZES] = "'input':'a/big <1>.gguf','output':'small.gguf','in_bytes':2000000,'out_bytes':500000,'bits_per_weight':3.75",
    [CALIBRATION] = "'calibration':{'text':'birds.txt','sequences':8,'tokens_each':64}",
    [DIVERGENCE] = "'expected_divergence':0.0125",
    [MEASURED] = "'measured':{'divergence':0.015,'error':0.001,'same_first_word':0.875}",
    [COSTS] = "'seconds':{'all':12.5},'peak_memory_bytes':3000000",
    [PLAYED] = "'game':{'price_per_byte':2e-8,'gap':0.0,'ways':[{'name':'uniform','bytes':400000,'divergence':0.5},"
               "{'name':'game','bytes':500000,'divergence':0.0125}]}",
    [CURVE] = "'curve':[[{'name':'uniform','bytes':600000,'divergence':0.01},{'name':'greedy','bytes':600000,'divergence':0.004},"
              "{'name':'random','bytes':610000,'divergence':0.02},{'name':'dynamic programming','bytes':600000,'divergence':0.003},"
              "{'name':'game','bytes':600000,'divergence':0.003}],[{'name':'game','bytes':450000,'divergence':0.2}],"
              "[{'name':'game','bytes':700000,'divergence':0.0}]]",
    [MATRICES] = "'matrices':[{'name':'token_embd.weight','layer':-1,'type':'Q6_K','experts':1,'bits_per_weight':6.5625,"
                 "'expected_divergence':0.002},{'name':'output.weight','layer':-1,'type':'Q8_0','experts':1,'bits_per_weight':8.5,"
                 "'expected_divergence':null},{'name':'blk.0.attn_q.weight','layer':0,'type':'Q4_K','experts':1,"
                 "'bits_per_weight':4.5,'expected_divergence':0.003},{'name':'blk.2.ffn_up_exps.weight','layer':2,"
                 "'type':'IQ3_XXS','experts':4,'bits_per_weight':3.0625,'expected_divergence':0.0075}]"};

static const char *report_path(void)
{
    static char path[600];
    return tiny_path(path, "report.json");
}

/* The report with another text in place of one part. */
static void write_report(int part, const char *other)
{
    strbuf b = STRBUF(1 << 20);
    for (int i = 0; i < PARTS; i++)
        strbuf_printf(&b, "%s%s", i ? "," : "{", i == part ? other : report_parts[i]);
    strbuf_add_char(&b, '}');
    for (size_t i = 0; i < b.n; i++)
        b.p[i] = b.p[i] == '\'' ? '"' : b.p[i];
    write_text(report_path(), b.p);
    strbuf_free(&b);
}

static void bits_picture(void **state)
{
    (void)state;
    const char *inputs[] = {report_path()};
    static const char *const starts[] = {
        [VIEW_SVG] = "<?xml", [VIEW_PNG] = "\x89PNG", [VIEW_PDF] = "%PDF-", [VIEW_HTML] = "<!DOCTYPE"};
    write_report(PARTS, "");
    for (int format = VIEW_SVG; format <= VIEW_HTML; format++)
        for (int how = 0; how < 4; how++) {
            view_request r = {.inputs = inputs, .n_inputs = 1, .format = (view_format)format, .dark = how & 1, .turkish = how & 2};
            strbuf pictures[2] = {STRBUF(VIEW_MOST_BYTES), STRBUF(VIEW_MOST_BYTES)};
            dil_error err;
            for (int i = 0; i < 2; i++)
                ok(view_bits(&pictures[i], &r, &err), &err);
            assert_true(str_equal(strbuf_str(&pictures[0]), strbuf_str(&pictures[1])));
            assert_true(str_starts(strbuf_str(&pictures[0]), str_of(starts[format])));
            if (format == VIEW_SVG)
                check_xml(strbuf_str(&pictures[0]));
            strbuf_free(&pictures[0]);
            strbuf_free(&pictures[1]);
        }
}

/* What the picture says to those who cannot see it, and the figures under it. */
static void bits_texts(void **state)
{
    (void)state;
    const char *inputs[] = {report_path()};
    static const char *const english[] = {"small.gguf, made from big &#60;1&#62;.gguf",
                                          "2.00 MB → 500.0 kB",
                                          "0.0150 ± 0.0010",
                                          "87.5 %",
                                          "outside the layers: token_embd Q6_K, output Q8_0; expected divergence 0.00200.",
                                          "layer 2: ffn_up IQ3_XXS; expected divergence 0.00750.",
                                          "one format for all 0.500"};
    static const char *const turkish[] = {"kaynağı big &#60;1&#62;.gguf",
                                          "2,00 MB → 500,0 kB",
                                          "0,0150 ± 0,0010",
                                          "%87,5",
                                          "<td>IQ3_XXS 3,06</td>",
                                          "katman 0: attn_q Q4_K; beklenen ıraksama 0,00300."};
    write_report(PARTS, "");
    strbuf svg = drawn(view_bits, inputs, 1, VIEW_SVG, false), page = drawn(view_bits, inputs, 1, VIEW_HTML, true);
    for (size_t i = 0; i < sizeof english / sizeof *english; i++)
        assert_true(holds(&svg, english[i]));
    for (size_t i = 0; i < sizeof turkish / sizeof *turkish; i++)
        assert_true(holds(&page, turkish[i]));
    strbuf_free(&svg);
    strbuf_free(&page);
}

/* Parts that nobody asked for are not there: the picture is one without them. */
static void bits_of_less(void **state)
{
    (void)state;
    const char *inputs[] = {report_path()};
    static const struct {
        int part;
        const char *other;
        bool shorter;
    } cases[] = {{MEASURED, "'measured':null", false},
                 {DIVERGENCE, "'expected_divergence':null", false},
                 {PLAYED, "'stock':true", false},
                 {CURVE, "'curve':[]", true},
                 {CURVE, "'curve':[[" WAY("game", "500000", "1e-300") "]]", false},
                 {MATRICES, "'matrices':[" MATRIX("output.weight", "-1", "F16", "16", "-1e-9") "]", true},
                 {MATRICES, "'matrices':[" MATRIX("blk.511.attn_k.weight", "511", "Q2_K", "2.625", "null") "]", false}};
    write_report(PARTS, "");
    strbuf whole = drawn(view_bits, inputs, 1, VIEW_PNG, false);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_report(cases[i].part, cases[i].other);
        strbuf svg = drawn(view_bits, inputs, 1, VIEW_SVG, true), png = drawn(view_bits, inputs, 1, VIEW_PNG, false);
        check_xml(strbuf_str(&svg));
        assert_true(!str_equal(strbuf_str(&whole), strbuf_str(&png)));
        assert_true(!cases[i].shorter || big_endian(png.p + 20) < big_endian(whole.p + 20));
        strbuf_free(&svg);
        strbuf_free(&png);
    }
    strbuf_free(&whole);
}

#define ONE(matrix) "'matrices':[" matrix "]"
#define QUERY(layer, type, bits, nats) ONE(MATRIX("blk.0.attn_q.weight", layer, type, bits, nats))

static void odd_reports(void **state)
{
    (void)state;
    static const struct {
        int part;
        const char *other, *told;
    } cases[] = {
        {SIZES, "'input':'a'", "output: wanted a text, found nothing"},
        {SIZES, "'input':7", "input: wanted a text, found 7"},
        {SIZES, "'input':'a','output':'b','in_bytes':1e30", "in_bytes: wanted a number from 1 to 1e+15, found 1e+30"},
        {SIZES, "'input':'a','output':'b','in_bytes':-1", "found -1"},
        {SIZES, "'input':'a','output':'b','in_bytes':9,'out_bytes':0", "out_bytes: wanted a number from 1"},
        {SIZES, "'input':'a','input':'b'", "duplicate"},
        {CALIBRATION, "'calibration':[]", "calibration: wanted an object, found an array"},
        {CALIBRATION, "'calibration':{'text':'a'}", "calibration.sequences: wanted a number"},
        {DIVERGENCE, "'expected_divergence':NaN", "line 1, column"},
        {DIVERGENCE, "'expected_divergence':1e999", "line 1, column"},
        {DIVERGENCE, "'expected_divergence':1e300", "expected_divergence: wanted a number from -1e+09"},
        {DIVERGENCE, "'x':0", "expected_divergence: wanted a number from -1e+09 to 1e+09, found nothing"},
        {MEASURED, "'measured':0.5", "measured: wanted an object or null, found 0.5"},
        {MEASURED, "'measured':{'divergence':null}", "measured.divergence: wanted a number"},
        {MEASURED, "'measured':{'divergence':1,'error':0,'same_first_word':2}", "from 0 to 1, found 2"},
        {COSTS, "'seconds':{'all':true},'peak_memory_bytes':1", "seconds.all: wanted a number from 0 to 1e+09, found true"},
        {COSTS, "'seconds':{'all':1}", "peak_memory_bytes: wanted"},
        {PLAYED, "'game':null", "game: wanted an object, found null"},
        {PLAYED, "'game':{'price_per_byte':0,'gap':0,'ways':{}}", "game.ways: wanted an array, found an object"},
        {PLAYED, "'game':{'price_per_byte':0,'gap':0,'ways':[3]}", "game.ways[0]: wanted an object, found 3"},
        {CURVE, "'x':0", "curve: wanted an array, found nothing"},
        {CURVE, "'curve':[{}]", "curve[0]: wanted an array, found an object"},
        {CURVE, "'curve':[[],[" WAY("luck", "1", "1") "]]", "curve[1][0].name: wanted game, dynamic programming"},
        {CURVE, "'curve':[[" WAY("game", "1", "1") "," WAY("game", "2", "1") "]]", "curve[0][1].name"},
        {CURVE, "'curve':[[" WAY("game", "'1'", "1") "]]", "curve[0][0].bytes: wanted a number from 1 to 1e+15, found \"1\""},
        {MATRICES, "'matrices':[]", "matrices: wanted at least one"},
        {MATRICES, ONE("null"), "matrices[0]: wanted an object, found null"},
        {MATRICES, ONE(MATRIX("blk.0.ssm_in.weight", "0", "Q4_K", "4.5", "0")), "wanted a matrix's name like"},
        {MATRICES, ONE(MATRIX("blk.99999999999999999999.attn_q.weight", "0", "Q4_K", "4.5", "0")), "wanted a matrix's name like"},
        {MATRICES, ONE(MATRIX("blk.512.attn_q.weight", "512", "Q4_K", "4.5", "0")),
         "layer: wanted a number from -1 to 511, found 512"},
        {MATRICES, QUERY("1", "Q4_K", "4.5", "0"), "matrices[0].layer: wanted 0, as in the name, found 1"},
        {MATRICES, QUERY("0", "Q9_K", "4.5", "0"), "type: wanted a format's name like Q4_K, found \"Q9_K\""},
        {MATRICES, QUERY("0", "Q4_K", "65", "0"), "bits_per_weight: wanted a number from 0 to 64, found 65"},
        {MATRICES, QUERY("0", "Q4_K", "null", "0"), "bits_per_weight: wanted a number from 0 to 64, found null"},
        {MATRICES, QUERY("0", "Q4_K", "4.5", "{}"), "matrices[0].expected_divergence: wanted a number"},
        {MATRICES, ONE(MATRIX("output.weight", "-1", "F16", "16", "0") "," MATRIX("output.weight", "-1", "F16", "16", "0")),
         "wanted every matrix once, found \"output.weight\" twice"},
    };
    const char *inputs[] = {report_path(), report_path()};
    view_request r = {.inputs = inputs, .n_inputs = 1, .format = VIEW_SVG};
    dil_error err;
    strbuf out = STRBUF(VIEW_MOST_BYTES);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_report(cases[i].part, cases[i].other);
        assert_int_equal(view_bits(&out, &r, &err), DIL_FORMAT);
        if (!strstr(err.text, cases[i].told) || !strstr(err.text, "report.json: "))
            fail_msg("wanted '%s', found '%s'", cases[i].told, err.text);
        assert_int_equal(out.n, 0);
    }
    static const char *const no_reports[] = {"", "[1]", "step,ce\n1,2\n", "{", "{} x", "\xff\xfe", "7"};
    for (size_t i = 0; i < sizeof no_reports / sizeof *no_reports; i++) {
        write_text(report_path(), no_reports[i]);
        assert_int_equal(view_bits(&out, &r, &err), DIL_FORMAT);
        assert_non_null(strstr(err.text, "report.json: "));
    }
    r.n_inputs = 2;
    assert_int_equal(view_bits(&out, &r, &err), DIL_BAD_ARGUMENT);
    inputs[0] = "/nowhere/at/all.json";
    r.n_inputs = 1;
    assert_int_equal(view_bits(&out, &r, &err), DIL_IO);
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
    assert_true(view_find("metrics") == view_metrics && view_find("bits") == view_bits && view_find("flock") == view_flock &&
                view_find("birds") == NULL);
}

/* Every allocation of ours that fails is told, and nothing stays behind. */
static void no_memory(void **state)
{
    (void)state;
    const char *logs[] = {first_log}, *routes[] = {left_log, right_log}, *reports[] = {report_path()};
    const char *const *const inputs[] = {logs, routes, reports};
    const view_picture pictures[] = {view_metrics, view_experts, view_bits};
    write_report(PARTS, "");
    for (int kind = 0; kind < 3; kind++) {
        view_request r = {.inputs = inputs[kind], .n_inputs = kind == 1 ? 2 : 1, .format = VIEW_HTML};
        dil_status status = DIL_NO_MEMORY;
        for (int64_t after = 0; status != DIL_OK; after++) {
            strbuf out = STRBUF(VIEW_MOST_BYTES);
            dil_error err;
            assert_true(after < 2000);
            mem_inject_failure(after);
            status = pictures[kind](&out, &r, &err);
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
        cmocka_unit_test(other_figures),
        cmocka_unit_test(other_formats),
        cmocka_unit_test(odd_logs),
        cmocka_unit_test(spike_among_many),
        cmocka_unit_test(divergences),
        cmocka_unit_test(two_logs),
        cmocka_unit_test(names_that_are_no_text),
        cmocka_unit_test(experts_picture),
        cmocka_unit_test(odd_routes),
        cmocka_unit_test(names),
        cmocka_unit_test(bits_picture),
        cmocka_unit_test(bits_texts),
        cmocka_unit_test(bits_of_less),
        cmocka_unit_test(odd_reports),
        cmocka_unit_test(no_memory),
    };
    return leaks_run_group_tests(tests, prepare, NULL);
}
