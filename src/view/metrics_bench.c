/*
 * Measured speeds beside the roofline (Williams, Waterman and Patterson 2009): no token is made faster than its bytes are read, nor than
 * its multiply-adds are done. The bound of a test is the slower of both, from the limits that were measured with it.
 */
#include <math.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/status.h"
#include "evaluate/bench.h"
#include "view/chart.h"
#include "view/fields.h"
#include "view/metrics.h"
#include "view/page.h"

#define MOST_SPEED 1e12

enum {
    MOST_TESTS = 64,
    TEXT_BYTES = 160,
    WIDTH = 1280,
    SIDE = 24,
    GAP = 14,
    CHART_HIGH = 400,
    ROW = 26,
    NAME_WIDE = 470,
    TELLS_WIDE = 330
};

static const canvas_font title_font = {20, true}, text_font = {12.5, false}, head_font = {11.5, true}, small_font = {11.5, false};

typedef struct test {
    int file;
    char name[TEXT_BYTES + 96], number[16];
    double speed, deviation;      /* tokens per second: median, standard deviation */
    double read, macs;            /* measured: GB/s, Gmac/s */
    double of_read, of_peak;      /* shares of the limits; 0: they were not measured */
    double read_limit, mac_limit; /* GB/s, Gmac/s: of what this test computes; 0: not known */
} test;

typedef struct picture {
    const view_request *r;
    test *tests; /* [MOST_TESTS] */
    int n;
    char names[VIEW_MOST_INPUTS][PAGE_NAME_BYTES];
    strbuf about;
    page_figures figures;
} picture;

static const char *say(const picture *p, const char *english, const char *turkish) { return p->r->turkish ? turkish : english; }

/* ---- reading ---- */

static dil_status read_count(const fields *f, const json_t *o, const char *where, const char *key, int32_t *out)
{
    double v;
    DIL_TRY(fields_number(f, o, where, key, 0, BENCH_MAX_TOKENS, &v));
    *out = (int32_t)v;
    return DIL_OK;
}

static dil_status read_test(const fields *f, const json_t *o, const char *where, test *t)
{
    const char *label, *cpu;
    char name[96];
    int32_t threads;
    bench_test what;
    if (!json_is_object(o))
        return fields_wrong(f, where, "", _("an object"), o);
    DIL_TRY(fields_text(f, o, where, "model", &label));
    DIL_TRY(fields_text(f, o, where, "cpu", &cpu));
    DIL_TRY(read_count(f, o, where, "n_threads", &threads));
    DIL_TRY(read_count(f, o, where, "n_prompt", &what.n_prompt));
    DIL_TRY(read_count(f, o, where, "n_gen", &what.n_gen));
    DIL_TRY(read_count(f, o, where, "n_depth", &what.depth));
    DIL_TRY(read_count(f, o, where, "n_parallel", &what.n_parallel));
    DIL_TRY(fields_number(f, o, where, "median_ts", 0, MOST_SPEED, &t->speed));
    DIL_TRY(fields_number(f, o, where, "stddev_ts", 0, MOST_SPEED, &t->deviation));
    DIL_TRY(fields_number(f, o, where, "gb_per_s", 0, MOST_SPEED, &t->read));
    DIL_TRY(fields_number(f, o, where, "gmac_per_s", 0, MOST_SPEED, &t->macs));
    DIL_TRY(fields_number(f, o, where, "share_of_read", 0, 1e6, &t->of_read));
    DIL_TRY(fields_number(f, o, where, "share_of_peak", 0, 1e6, &t->of_peak));
    DIL_TRY(fields_number(f, o, where, "limit_read_gb_per_s", 0, MOST_SPEED, &t->read_limit));
    t->mac_limit = t->of_peak > 0 ? t->macs / t->of_peak : 0;
    bench_test_name(&what, name, sizeof name);
    snprintf(t->name, sizeof t->name, "%.40s, %s, %d × %.16s", label, name, threads, cpu);
    return DIL_OK;
}

static dil_status read_file(picture *p, int file, dil_error *err)
{
    json_t *list = NULL;
    const fields f = {p->r->inputs[file], err};
    DIL_TRY(fields_open(p->r->inputs[file], &list, err));
    dil_status status = DIL_OK;
    if (!json_is_array(list) || json_array_size(list) == 0)
        status = fields_wrong(&f, _("the file"), "", _("an array of tests, as dil bench -o json writes it"), list);
    for (size_t i = 0; status == DIL_OK && i < json_array_size(list); i++) {
        char where[32];
        snprintf(where, sizeof where, "[%zu]", i);
        if (p->n == MOST_TESTS)
            status =
                DIL_FAIL(err, DIL_LIMIT, "%s: wanted at most %d tests in all files, found more", p->r->inputs[file], MOST_TESTS);
        else
            status = read_test(&f, json_array_get(list, i), where, &p->tests[p->n]);
        p->tests[p->n].file = file;
        snprintf(p->tests[p->n].number, sizeof p->tests[p->n].number, "%d", p->n + 1);
        p->n += status == DIL_OK;
    }
    json_decref(list);
    return status;
}

/* ---- bounds ---- */

static double share_of(const test *t) { return fmax(t->of_read, t->of_peak); } /* 0: there is no bound */
static bool has_roof(const test *t) { return t->read_limit > 0 && t->mac_limit > 0 && t->read > 0 && t->macs > 0; }

static void tell_bound(const picture *p, const test *t, char *out, size_t n)
{
    char speed[32], bound[32], share[32];
    chart_number(t->speed, 0, p->r->turkish, speed, sizeof speed);
    if (!(share_of(t) > 0)) {
        snprintf(out, n, say(p, "%s tokens/s, no bound measured", "%s belirteç/s, sınır ölçülmedi"), speed);
        return;
    }
    chart_number(t->speed / share_of(t), 0, p->r->turkish, bound, sizeof bound);
    chart_number(100 * share_of(t), 1, p->r->turkish, share, sizeof share);
    snprintf(out, n, say(p, "%s of %s tokens/s: %s %%, bound by %s", "%s / %s belirteç/s: %%%s, sınır: %s"), speed, bound, share,
             t->of_read >= t->of_peak ? say(p, "reading", "okuma") : say(p, "arithmetic", "aritmetik"));
}

/* ---- the roofline ---- */

/* Roof of one file: up with the reading, then level with the greatest peak of its tests. */
static void add_roof(const picture *p, int file, double least, double most, double x[3], double y[3], chart_series *out, int *n)
{
    double read = 0, peak = 0;
    for (int i = 0; i < p->n; i++)
        if (p->tests[i].file == file && has_roof(&p->tests[i])) {
            read = fmax(read, p->tests[i].read_limit);
            peak = fmax(peak, p->tests[i].mac_limit);
        }
    if (!(read > 0))
        return;
    x[0] = fmin(least, peak / read) / 1.6;
    x[1] = peak / read;
    x[2] = fmax(most, peak / read) * 1.6;
    for (int i = 0; i < 3; i++)
        y[i] = fmin(read * x[i], peak);
    out[(*n)++] = (chart_series){.x = x, .y = y, .n = 3, .colour = CANVAS_SERIES + file};
}

static bool any_roof(const picture *p)
{
    for (int i = 0; i < p->n; i++)
        if (has_roof(&p->tests[i]))
            return true;
    return false;
}

static void draw_roofline(const picture *p, canvas *c, box at)
{
    double roof_x[VIEW_MOST_INPUTS][3], roof_y[VIEW_MOST_INPUTS][3], x[MOST_TESTS], y[MOST_TESTS], least = INFINITY, most = 0;
    const char *names[MOST_TESTS];
    chart_series series[VIEW_MOST_INPUTS + MOST_TESTS];
    int n = 0;
    for (int i = 0; i < p->n; i++)
        if (has_roof(&p->tests[i])) {
            x[i] = p->tests[i].macs / p->tests[i].read;
            y[i] = p->tests[i].macs;
            least = fmin(least, x[i]);
            most = fmax(most, x[i]);
        }
    for (int file = 0; file < p->r->n_inputs; file++)
        add_roof(p, file, least, most, roof_x[file], roof_y[file], series, &n);
    for (int i = 0; i < p->n; i++) {
        names[i] = p->tests[i].number;
        if (has_roof(&p->tests[i]))
            series[n++] = (chart_series){
                .x = &x[i], .y = &y[i], .n = 1, .colour = CANVAS_SERIES + p->tests[i].file, .apart = true, .labels = &names[i]};
    }
    chart_draw(c, at,
               &(chart_panel){.title = say(p, "Roofline: Gmac/s by multiply-adds per byte read",
                                           "Çatı: okunan bayt başına çarpma-toplamaya göre Gmac/s"),
                              .x_name = say(p, "multiply-adds per byte", "bayt başına çarpma-toplama"),
                              .series = series,
                              .n_series = n,
                              .log_x = true,
                              .log_y = true,
                              .no_ends = true,
                              .turkish = p->r->turkish});
}

/* ---- the bars ---- */

static double most_share(const picture *p)
{
    double most = 1;
    for (int i = 0; i < p->n; i++)
        most = fmax(most, share_of(&p->tests[i]));
    return most;
}

static void draw_row(const picture *p, canvas *c, const test *t, double y)
{
    char text[TEXT_BYTES + 16], tells[TEXT_BYTES];
    const box bar = {SIDE + NAME_WIDE, y + 6, WIDTH - 2 * SIDE - NAME_WIDE - TELLS_WIDE, ROW - 12};
    canvas_text(c, SIDE + 22, y + 17, t->number, head_font, CANVAS_RIGHT, canvas_theme(c, CANVAS_INK));
    canvas_dot(c, SIDE + 33, y + 13, 4.5, canvas_theme(c, CANVAS_SERIES + t->file));
    canvas_fit(c, t->name, small_font, NAME_WIDE - 56, text, sizeof text);
    canvas_text(c, SIDE + 44, y + 17, text, small_font, CANVAS_LEFT, canvas_theme(c, CANVAS_INK));
    if (share_of(t) > 0) { /* what lies in caches may be read faster than memory gives it */
        const double bound = bar.w / most_share(p);
        canvas_fill(c, (box){bar.x, bar.y, bound, bar.h}, canvas_theme(c, CANVAS_GRID));
        canvas_fill(c, (box){bar.x, bar.y, bound * share_of(t), bar.h}, canvas_theme(c, CANVAS_SERIES + t->file));
        canvas_line(c, bar.x + bound, y + 3, bar.x + bound, y + ROW - 3, canvas_theme(c, CANVAS_INK), 1.6);
    }
    tell_bound(p, t, tells, sizeof tells);
    canvas_fit(c, tells, small_font, TELLS_WIDE - 12, text, sizeof text);
    canvas_text(c, WIDTH - SIDE, y + 17, text, small_font, CANVAS_RIGHT, canvas_theme(c, CANVAS_INK));
}

/* ---- figures ---- */

static void write_figures(picture *p)
{
    const char *const heads[] = {say(p, "test", "sınama"),
                                 say(p, "tokens/s", "belirteç/s"),
                                 "±",
                                 "GB/s",
                                 "Gmac/s",
                                 say(p, "of read", "okumanın"),
                                 say(p, "of peak", "tavanın"),
                                 say(p, "bound (tokens/s)", "sınır (belirteç/s)")};
    char text[TEXT_BYTES + PAGE_NAME_BYTES];
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        page_cell(&p->figures, heads[i]);
    page_row_end(&p->figures);
    for (int i = 0; i < p->n; i++) {
        const test *t = &p->tests[i];
        const double values[] = {
            t->speed, t->deviation, t->read, t->macs, t->of_read, t->of_peak, share_of(t) > 0 ? t->speed / share_of(t) : 0};
        snprintf(text, sizeof text, "%s: %s", p->names[t->file], t->name);
        page_cell(&p->figures, text);
        for (size_t k = 0; k < sizeof values / sizeof *values; k++)
            page_cell(&p->figures, chart_number(values[k], 0, p->r->turkish, text, sizeof text));
        page_row_end(&p->figures);
        tell_bound(p, t, text, sizeof text);
        strbuf_printf(&p->about, " %s, %s: %s.", p->names[t->file], t->name, text);
    }
}

static const char *subtitle_of(const picture *p)
{
    return say(
        p,
        "Speeds of dil bench (medians) beside the limits measured in the same run: a token's bytes cannot be read faster than memory gives them, its "
        "multiply-adds not be done faster than the units of its formats can. The upright line is the slower of both; numbers in the roofline are "
        "those of the rows.",
        "dil bench hızları (ortancalar) ve aynı koşuda ölçülen sınırlar: belirtecin baytları bellekten hızlı okunamaz, çarpma-toplamaları biçimlerinin "
        "birimlerinden hızlı yapılamaz. Dik çizgi ikisinden yavaş olanıdır; çatıdaki sayılar satırların numaralarıdır.");
}

/* Draws, or with draw false only measures; returns the height. */
static double lay_out(const picture *p, canvas *c, const char *title, bool draw)
{
    const char *names[VIEW_MOST_INPUTS];
    for (int i = 0; i < p->r->n_inputs; i++)
        names[i] = p->names[i];
    if (draw)
        canvas_text(c, SIDE, 40, title, title_font, CANVAS_LEFT, canvas_theme(c, CANVAS_INK));
    double y =
        canvas_wrap(c, (box){SIDE, 64, WIDTH - 2 * SIDE, 0}, subtitle_of(p), text_font, canvas_theme(c, CANVAS_FAINT_INK), draw);
    y = chart_legend(c, SIDE, y, WIDTH - 2 * SIDE, names, p->r->n_inputs, draw) + 8;
    for (int i = 0; i < p->n; i++, y += ROW)
        if (draw)
            draw_row(p, c, &p->tests[i], y);
    y += GAP;
    if (!any_roof(p))
        return y + 6;
    if (draw)
        draw_roofline(p, c, (box){SIDE, y, WIDTH - 2 * SIDE, CHART_HIGH});
    return y + CHART_HIGH + SIDE;
}

static dil_status make(picture *p, strbuf *out, dil_error *err)
{
    const char *title = say(p, "Speed beside what the machine allows", "Hız ve makinenin izin verdiği");
    canvas *c = NULL;
    page_names(p->r, p->names);
    for (int file = 0; file < p->r->n_inputs; file++)
        DIL_TRY(read_file(p, file, err));
    strbuf_add_str(&p->about, str_of(subtitle_of(p)));
    write_figures(p);
    if (p->about.failed)
        return DIL_FAIL(err, DIL_NO_MEMORY, "metrics: no memory");
    DIL_TRY(canvas_new(&c, p->r, WIDTH, 100, err));
    double height = lay_out(p, c, title, false);
    canvas_free(c);
    DIL_TRY(canvas_new(&c, p->r, WIDTH, height, err));
    lay_out(p, c, title, true);
    dil_status status = page_finish(c, p->r, title, p->about.p, &p->figures, out, err);
    canvas_free(c);
    return status;
}

dil_status metrics_bench(strbuf *out, const view_request *r, dil_error *err)
{
    picture *p = mem_calloc(1, sizeof *p, MEM_MISC);
    test *tests = mem_calloc(MOST_TESTS + 1, sizeof *tests, MEM_MISC);
    dil_status status = p && tests ? DIL_OK : DIL_FAIL(err, DIL_NO_MEMORY, "metrics: no memory");
    if (status == DIL_OK) {
        p->r = r;
        p->tests = tests;
        p->about = STRBUF(1 << 20);
        p->figures = PAGE_FIGURES;
        status = make(p, out, err);
        strbuf_free(&p->about);
        strbuf_free(&p->figures.html);
    }
    mem_free(tests);
    mem_free(p);
    return status;
}
