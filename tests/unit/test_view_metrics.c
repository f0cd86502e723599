/* Speeds of dil bench and reports of dil quantize, drawn: figures by hand, parts that are not there, files that are neither. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "base/mem.h"
#include "leaks.h"
#include "tiny_model.h"
#include "view/report.h"
#include "view_files.h"

static char first[600], second[600];

/* With quotes for apostrophes. */
static void write_quoted(const char *path, const char *text)
{
    strbuf b = STRBUF(1 << 20);
    for (const char *p = text; *p; p++)
        strbuf_add_char(&b, *p == '\'' ? '"' : *p);
    write_text(path, b.p);
    strbuf_free(&b);
}

static void refused(const char *const *inputs, int n, dil_status wanted, const char *told)
{
    view_request r = {.inputs = inputs, .n_inputs = n, .format = VIEW_SVG};
    strbuf out = STRBUF(VIEW_MOST_BYTES);
    dil_error err;
    assert_int_equal(view_metrics(&out, &r, &err), wanted);
    if (!strstr(err.text, told))
        fail_msg("wanted '%s', found '%s'", told, err.text);
    assert_int_equal(out.n, 0);
}

static void all_formats(const char *const *inputs, int n, const char *english, const char *turkish)
{
    static const char *const starts[] = {
        [VIEW_SVG] = "<?xml", [VIEW_PNG] = "\x89PNG", [VIEW_PDF] = "%PDF-", [VIEW_HTML] = "<!DOCTYPE"};
    for (int format = VIEW_SVG; format <= VIEW_HTML; format++)
        for (int other = 0; other < 2; other++) {
            strbuf a = drawn(view_metrics, inputs, n, (view_format)format, other),
                   b = drawn(view_metrics, inputs, n, (view_format)format, other);
            assert_true(str_equal(strbuf_str(&a), strbuf_str(&b)));
            assert_true(str_starts(strbuf_str(&a), str_of(starts[format])));
            if (format == VIEW_SVG)
                check_xml(strbuf_str(&a));
            if (format == VIEW_SVG || format == VIEW_HTML)
                assert_true(holds(&a, other ? turkish : english));
            strbuf_free(&a);
            strbuf_free(&b);
        }
}

/* ---- speeds ---- */

#define TEST(prompt, gen, speed, read, peak)                                                                              \
    "{'model':'llama <Q4>','cpu':'avx2','n_threads':2,'n_prompt':" prompt ",'n_gen':" gen                                 \
    ",'n_depth':0,'n_parallel':1,'median_ts':" speed ",'stddev_ts':1.5,'gb_per_s':4,'gmac_per_s':8,'share_of_read':" read \
    ",'share_of_peak':" peak ",'limit_read_gb_per_s':10,'more':null}"

static void speeds(void **state)
{
    (void)state;
    const char *inputs[] = {first, second};
    write_quoted(first, " \n[" TEST("512", "0", "200", "0.1", "0.5") "," TEST("0", "128", "50", "0.4", "0.02") "]");
    write_quoted(second, "[" TEST("0", "16", "70", "0", "0") "]");
    all_formats(inputs, 2, "llama &#60;Q4&#62;, pp512, 2 × avx2: 200.0 of 400.0 tokens/s: 50 %, bound by arithmetic.",
                "llama &#60;Q4&#62;, tg128, 2 × avx2: 50,00 / 125,0 belirteç/s: %40, sınır: okuma.");
    strbuf page = drawn(view_metrics, inputs, 2, VIEW_HTML, false);
    assert_true(holds(&page, "tg16, 2 × avx2: 70.00 tokens/s, no bound measured."));
    assert_true(
        holds(&page,
              "<th>first: llama &#60;Q4&#62;, pp512, 2 × avx2</th><td>200.0</td><td>1.500</td><td>4.000</td><td>8.000</td>"));
    strbuf_free(&page);
    const char *alone[] = {second}; /* no limits, no roofline */
    strbuf with = drawn(view_metrics, inputs, 1, VIEW_PNG, false), without = drawn(view_metrics, alone, 1, VIEW_PNG, false);
    assert_true(big_endian(without.p + 20) < big_endian(with.p + 20) - 400);
    strbuf_free(&with);
    strbuf_free(&without);
}

static void odd_speeds(void **state)
{
    (void)state;
    const char *inputs[] = {first};
    static const char *const cases[][2] = {
        {"[]", "the file: wanted an array of tests"},
        {"[", "line 1, column"},
        {"[7]", "[0]: wanted an object, found 7"},
        {"[{}]", "[0].model: wanted a text, found nothing"},
        {"[" TEST("512", "0", "1", "0", "0") "," TEST("-1", "0", "1", "0", "0") "]", "[1].n_prompt: wanted a number from 0"},
        {"[" TEST("512", "0", "'fast'", "0", "0") "]", "[0].median_ts: wanted a number from 0 to 1e+12, found \"fast\""},
        {"[" TEST("512", "0", "1", "-3", "0") "]", "[0].share_of_read: wanted"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_quoted(first, cases[i][0]);
        refused(inputs, 1, DIL_FORMAT, cases[i][1]);
    }
    strbuf many = STRBUF(1 << 20);
    for (int i = 0; i <= 64; i++)
        strbuf_printf(&many, "%s%s", i ? "," : "[", TEST("512", "0", "1", "0.5", "0.5"));
    strbuf_add_char(&many, ']');
    write_quoted(first, many.p);
    strbuf_free(&many);
    refused(inputs, 1, DIL_LIMIT, "at most 64 tests");
}

/* ---- reports ---- */

#define ROUNDING(plain, fed, settled, sweeps, moved)                                               \
    ",'rounding':{'plain':" plain ",'feedback':" fed ",'equilibrium':" settled ",'sweeps':" sweeps \
    ",'codes':1000,'moved_in_last_sweep':" moved ",'checked':{'codes':200,'codes_that_could_do_better':10}}"
#define MATRIX(name, rounding) \
    "{'name':'blk.0." name     \
    ".weight','layer':0,'type':'Q4_K','experts':1,'bits_per_weight':4.5,'expected_divergence':0.01" rounding "}"
#define REPORT(input, bytes, measured, attempts, first, other)                                               \
    "{'input':'" input "','output':'b.gguf','in_bytes':2000000,'out_bytes':" bytes                           \
    ",'bits_per_weight':4.5,'calibration':{'text':'t',"                                                      \
    "'sequences':1,'tokens_each':8},'expected_divergence':0.0125,'measured':" measured                       \
    ",'seconds':{'all':1},'peak_memory_bytes':1," attempts                                                   \
    "'game':{'price_per_byte':1e-8,'gap':0.25,'ways':[{'name':'game','bytes':" bytes                         \
    ",'divergence':0.0125},{'name':'uniform','bytes':500000,"                                                \
    "'divergence':0.5}]},'curve':[[{'name':'game','bytes':700000,'divergence':0.001}]],'matrices':[" MATRIX( \
        "attn_q", first) "," MATRIX("attn_k", other) "]}"
#define MEASURED "{'divergence':0.015,'error':0.001,'same_first_word':0.875}"

static void write_reports(const char *other_input)
{
    write_quoted(first, REPORT("a.gguf", "600000", MEASURED,
                               "'attempts':[{'expected_divergence':0.01,'divergence':0.02},"
                               "{'expected_divergence':null,'divergence':null}],",
                               ROUNDING("3", "2", "1", "4", "20"), ROUNDING("1", "1", "0.5", "2", "60")));
    write_quoted(second, strcmp(other_input, "a.gguf") == 0 ? REPORT("a.gguf", "900000", "null", "", "", "")
                                                            : REPORT("c.gguf", "900000", "null", "", "", ""));
}

static void report_figures(void **state)
{
    (void)state;
    const char *inputs[] = {first, second};
    report *r = mem_calloc(1, sizeof *r, MEM_MISC);
    dil_error err;
    write_reports("a.gguf");
    ok(report_read(r, first, &err), &err);
    assert_true(r->codes == 400 && r->restless == 20 && r->n_attempts == 2 && r->found[0] == 0.02 && isnan(r->found[1]));
    assert_true(r->of[0][0].moved == 0.02 && r->of[0][1].settled == 0.5 && r->of[0][1].sweeps == 2);
    ok(report_read(r, second, &err), &err);
    assert_true(r->codes == 0 && isnan(r->of[0][0].sweeps) && !r->measured);
    mem_free(r);
    all_formats(
        inputs, 2,
        "first: MB 0.60, bits/weight 4.50, expected 0.0125, measured 0.0150, same word (%) 87.5, gap 0.250, sweeps 3.0, moved (%) 4.00, can improve (%) 5.00.",
        "second: MB 0,90, bit/ağırlık 4,50, beklenen 0,0125, açık 0,250,");
    write_reports("c.gguf");
    strbuf svg = drawn(view_metrics, inputs, 2, VIEW_SVG, false);
    assert_true(holds(&svg, "Made from a.gguf, c.gguf.") && !holds(&svg, "Lines are what"));
    strbuf_free(&svg);
    const char *alone[] = {second}; /* nothing about rounding and attempts: no panels for them */
    strbuf with = drawn(view_metrics, inputs, 1, VIEW_PNG, false), without = drawn(view_metrics, alone, 1, VIEW_PNG, false);
    assert_true(big_endian(without.p + 20) < big_endian(with.p + 20) - 400);
    strbuf_free(&with);
    strbuf_free(&without);
}

static void odd_reports(void **state)
{
    (void)state;
    const char *inputs[] = {first};
    write_quoted(first, "{'input':3}");
    refused(inputs, 1, DIL_FORMAT, "input: wanted a text, found 3");
    write_quoted(first, REPORT("a.gguf", "600000", MEASURED, "'attempts':7,", "", ""));
    refused(inputs, 1, DIL_FORMAT, "attempts: wanted an array, found 7");
    write_quoted(first, REPORT("a.gguf", "600000", MEASURED, "'attempts':[{'expected_divergence':1}],", "", ""));
    refused(inputs, 1, DIL_FORMAT, "attempts[0].divergence: wanted a number");
    write_quoted(first, REPORT("a.gguf", "600000", MEASURED, "", ",'rounding':5", ""));
    refused(inputs, 1, DIL_FORMAT, "matrices[0].rounding: wanted an object, found 5");
    write_quoted(first, REPORT("a.gguf", "600000", MEASURED, "", "", ROUNDING("-1", "2", "1", "4", "20")));
    refused(inputs, 1, DIL_FORMAT, "matrices[1].rounding.plain: wanted a number from 0");
}

/* ---- which kind ---- */

static void kinds_of_input(void **state)
{
    (void)state;
    const char *inputs[] = {first, second};
    write_reports("a.gguf");
    write_quoted(second, "[" TEST("0", "16", "70", "0", "0") "]");
    refused(inputs, 2, DIL_BAD_ARGUMENT, "wanted a report of dil quantize, like");
    write_text(second, "step,ce\n1,2\n");
    refused(inputs, 2, DIL_BAD_ARGUMENT, "found a metrics log (CSV); view each kind by itself");
    const char *other[] = {second, first}, *log[] = {second}, *nothing[] = {"/nowhere/at/all.json"};
    refused(other, 2, DIL_BAD_ARGUMENT, "wanted a metrics log (CSV)");
    refused(nothing, 1, DIL_IO, "nowhere");
    strbuf svg = drawn(view_metrics, log, 1, VIEW_SVG, false);
    assert_true(holds(&svg, "Cross-entropy"));
    strbuf_free(&svg);
    write_text(second, "");
    refused(log, 1, DIL_FORMAT, "empty file");
}

static void no_memory(void **state)
{
    (void)state;
    const char *reports[] = {first}, *benches[] = {second};
    write_reports("a.gguf");
    write_quoted(second, "[" TEST("0", "16", "70", "0.3", "0.1") "]");
    for (int kind = 0; kind < 2; kind++) {
        view_request r = {.inputs = kind ? benches : reports, .n_inputs = 1, .format = VIEW_HTML};
        dil_status status = DIL_NO_MEMORY;
        for (int64_t after = 0; status != DIL_OK; after++) {
            strbuf out = STRBUF(VIEW_MOST_BYTES);
            dil_error err;
            assert_true(after < 2000);
            mem_inject_failure(after);
            status = view_metrics(&out, &r, &err);
            mem_inject_failure(-1);
            strbuf_free(&out);
            assert_true(status == DIL_OK || status == DIL_NO_MEMORY);
        }
    }
}

static int prepare(void **state)
{
    (void)state;
    tiny_path(first, "first.json");
    tiny_path(second, "second.json");
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(speeds),      cmocka_unit_test(odd_speeds),     cmocka_unit_test(report_figures),
        cmocka_unit_test(odd_reports), cmocka_unit_test(kinds_of_input), cmocka_unit_test(no_memory),
    };
    return leaks_run_group_tests(tests, prepare, NULL);
}
