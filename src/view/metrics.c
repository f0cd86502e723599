/* Training curves (speeds and reports are drawn by metrics_bench.c and metrics_reports.c): every column of the logs that somebody wants to see has a panel, every run a colour. */
#include "view/metrics.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "view/chart.h"
#include "view/page.h"
#include "view/table.h"
#include "view/view.h"

enum { WIDTH = 1280, SIDE = 24, GAP = 14, HEADING = 30, TITLE_BYTES = 160 };

typedef enum section { LEARNING, HELD_OUT, TERMS, EXPERTS, ROUTING, COURSE, OTHER, SECTIONS } section;

static const char *const headings[SECTIONS][2] = {
    [LEARNING] = {"Learning", "Öğrenme"},
    [HELD_OUT] = {"Held-out text: bits per byte (less is better)", "Ayrılmış metin: bayt başına bit (az olan iyidir)"},
    [TERMS] = {"Terms of the loss, unweighted", "Kaybın terimleri, ağırlıksız"},
    [EXPERTS] = {"Use of the experts", "Uzmanların kullanımı"},
    [ROUTING] = {"Routing of held-out text, means over the layers", "Ayrılmış metnin yönlendirmesi, katmanların ortalaması"},
    [COURSE] = {"Optimiser and speed", "Eniyileyici ve hız"},
    [OTHER] = {"Other columns", "Öteki sütunlar"},
};

/* What is known about a column. also: a second one that shares its panel. */
typedef struct known {
    const char *column, *also;
    section in;
    bool smooth;
    const char *title[2];
} known;

static const known knowns[] = {
    {"loss", NULL, LEARNING, true, {"Whole loss (nats per token)", "Bütün kayıp (belirteç başına nat)"}},
    {"ce", NULL, LEARNING, true, {"Cross-entropy (nats per token)", "Çapraz entropi (belirteç başına nat)"}},
    {"balance", NULL, TERMS, true, {"Balance: even load", "Denge: eşit yük"}},
    {"cache", NULL, TERMS, true, {"Cache: experts used again", "Önbellek: yeniden kullanım"}},
    {"swarm", NULL, TERMS, true, {"Swarm: neighbours agree", "Sürü: komşularla uyum"}},
    {"nash", NULL, TERMS, true, {"Nash: nobody would change", "Nash: kimse seçimini değiştirmez"}},
    {"router_z", NULL, TERMS, true, {"Router z: size of the scores", "Yönlendirici z: puanların boyu"}},
    {"z_loss", NULL, TERMS, true, {"Output z: size of the logits", "Çıktı z: logitlerin boyu"}},
    {"violation", NULL, EXPERTS, true, {"Violation: busiest over mean, - 1", "Aşım: en yoğun / ortalama, - 1"}},
    {"load_min", "load_max", EXPERTS, true, {"Least and greatest load (even: 1)", "En az ve en çok yük (eşit: 1)"}},
    {"entropy", NULL, EXPERTS, true, {"Entropy of the router (nats)", "Yönlendiricinin entropisi (nat)"}},
    {"gradient_norm", NULL, COURSE, true, {"Gradient norm", "Gradyan normu"}},
    {"lr", NULL, COURSE, false, {"Learning rate", "Öğrenme hızı"}},
    {"tokens_per_second", NULL, COURSE, true, {"Tokens per second", "Saniyede belirteç"}},
    {"gflops", NULL, COURSE, true, {"GFLOP per second", "Saniyede GFLOP"}},
    {"step", NULL, SECTIONS, false, {"", ""}},
    {"tokens", NULL, SECTIONS, false, {"", ""}},
    {"seconds", NULL, SECTIONS, false, {"", ""}},
    {"load_max", NULL, SECTIONS, false, {"", ""}},
};
enum { N_KNOWN = sizeof knowns / sizeof *knowns, MOST_PANELS = TABLE_MOST_COLUMNS };

/* Columns of every text: a prefix, and the text's name behind it. */
typedef struct family {
    const char *prefix;
    section in;
    const char *title[2];
} family;

static const family families[] = {
    {"bpb_", HELD_OUT, {"", ""}},
    {"hits_quarter_", ROUTING, {"Hits of an LRU cache of N/4: ", "N/4'lük LRU önbelleğinin isabeti: "}},
    {"hits_twice_", ROUTING, {"Hits of an LRU cache of 2k: ", "2k'lık LRU önbelleğinin isabeti: "}},
    {"belady_quarter_", ROUTING, {"Hits of the best cache of N/4: ", "N/4'lük en iyi önbelleğin isabeti: "}},
    {"distinct_", ROUTING, {"Experts of 16 tokens in a row: ", "Art arda 16 belirtecin uzmanları: "}},
    {"inside_", ROUTING, {"P(next set among neighbours): ", "P(sonraki küme komşularda): "}},
    {"exploitability_", ROUTING, {"Gap to equilibrium (nats): ", "Dengeye uzaklık (nat): "}},
    {"agreement_", ROUTING, {"Same choice without prices: ", "Fiyatsız aynı seçim: "}},
    {"entropy_", ROUTING, {"Entropy (nats): ", "Entropi (nat): "}},
    {"violation_", ROUTING, {"Violation, worst layer: ", "Aşım, en kötü katman: "}},
};
enum { N_FAMILIES = sizeof families / sizeof *families };

typedef struct panel {
    const char *column, *also;
    section in;
    bool smooth;
    char title[TITLE_BYTES];
} panel;

typedef struct picture {
    const view_request *r;
    table logs[VIEW_MOST_INPUTS];
    char names[VIEW_MOST_INPUTS][PAGE_NAME_BYTES], labels[VIEW_MOST_INPUTS][PAGE_NAME_BYTES + 96];
    panel panels[MOST_PANELS];
    int n_panels;
    bool training; /* something is known about a column: a log of a training run, not figures of another kind */
    strbuf flat;   /* titles of the columns that are always zero */
    strbuf about;
    page_figures figures;
    arena *points;
} picture;

static const char *say(const picture *p, const char *english, const char *turkish) { return p->r->turkish ? turkish : english; }

/* ---- which panels ---- */

static bool is_step(const char *column) { return strcmp(column, "step") == 0 || strncmp(column, "step:", 5) == 0; }

/* The column of the steps, or -1: "step", or "step:" and what a step is. */
static int step_of(const table *t)
{
    for (int i = 0; i < t->n_columns; i++)
        if (is_step(t->columns[i].name))
            return i;
    return -1;
}

/* What a step of the first log is, for the axis; NULL: a step. */
static const char *step_name(const picture *p)
{
    const char *name = p->logs[0].columns[step_of(&p->logs[0])].name + strlen("step");
    return name[0] && name[1] ? name + 1 : NULL;
}

static const known *known_of(const char *column)
{
    for (int i = 0; i < N_KNOWN; i++)
        if (strcmp(knowns[i].column, is_step(column) ? "step" : column) == 0)
            return &knowns[i];
    return NULL;
}

static const family *family_of(const char *column)
{
    for (int i = 0; i < N_FAMILIES; i++)
        if (strncmp(column, families[i].prefix, strlen(families[i].prefix)) == 0 && column[strlen(families[i].prefix)])
            return &families[i];
    return NULL;
}

static bool has_panel(const picture *p, const char *column)
{
    for (int i = 0; i < p->n_panels; i++)
        if (strcmp(p->panels[i].column, column) == 0)
            return true;
    return false;
}

static void see_values(const picture *p, const char *column, bool *any, bool *nonzero)
{
    for (int run = 0; run < p->r->n_inputs; run++) {
        const table *t = &p->logs[run];
        int at = table_find(t, column);
        for (size_t i = 0; at >= 0 && i < t->n_rows; i++) {
            double v = t->columns[at].v[i];
            *any = *any || !isnan(v);
            *nonzero = *nonzero || (!isnan(v) && v != 0);
        }
    }
}

/* A panel for a column that has values; the titles of those that are always zero are collected instead. */
static void add_panel(picture *p, const char *column, const known *k)
{
    bool any = false, nonzero = false;
    const family *f = k ? NULL : family_of(column);
    panel made = {.column = column, .in = k ? k->in : f ? f->in : OTHER, .smooth = k && k->smooth, .also = k ? k->also : NULL};
    see_values(p, column, &any, &nonzero);
    if (made.also)
        see_values(p, made.also, &any, &nonzero);
    if (!any || p->n_panels == MOST_PANELS || has_panel(p, column))
        return;
    p->training = p->training || made.in != OTHER;
    if (f)
        snprintf(made.title, sizeof made.title, "%s%s", f->title[p->r->turkish], column + strlen(f->prefix));
    else
        snprintf(made.title, sizeof made.title, "%s", k ? k->title[p->r->turkish] : column);
    if (nonzero)
        p->panels[p->n_panels++] = made;
    else
        strbuf_printf(&p->flat, "%s%s", p->flat.n ? ", " : "", column);
}

/* Drawn columns must be numbers; those nobody knows are left out when they are not. */
static dil_status choose_panels(picture *p, dil_error *err)
{
    for (int i = 0; i < N_KNOWN; i++)
        if (knowns[i].in != SECTIONS)
            add_panel(p, knowns[i].column, &knowns[i]);
    for (int run = 0; run < p->r->n_inputs; run++)
        for (int i = 0; i < p->logs[run].n_columns; i++) {
            const table_column *c = &p->logs[run].columns[i];
            bool expected = known_of(c->name) || family_of(c->name);
            if (expected)
                DIL_TRY(table_check(&p->logs[run], i, err));
            if (!known_of(c->name) && (expected || c->bad_line == 0))
                add_panel(p, c->name, NULL);
        }
    if (p->n_panels == 0)
        return DIL_FAIL(err, DIL_FORMAT, "%s: wanted a log with numbers in at least one column beside 'step', found none",
                        p->r->inputs[0]);
    return DIL_OK;
}

/* ---- reading ---- */

static double last_of(const table *t, int at)
{
    for (size_t i = t->n_rows; at >= 0 && i-- > 0;)
        if (!isnan(t->columns[at].v[i]))
            return t->columns[at].v[i];
    return NAN;
}

static void label_run(picture *p, int run)
{
    char steps[32], tokens[32];
    const table *t = &p->logs[run];
    double n = last_of(t, table_find(t, "tokens"));
    chart_number(isnan(n) ? 0 : n, 0, p->r->turkish, tokens, sizeof tokens);
    snprintf(steps, sizeof steps, "%.0f", last_of(t, step_of(t)));
    if (step_name(p))
        snprintf(p->labels[run], sizeof p->labels[run], "%s", p->names[run]);
    else if (isnan(n))
        snprintf(p->labels[run], sizeof p->labels[run], "%s: %s %s", p->names[run], steps, p->r->turkish ? "adım" : "steps");
    else
        snprintf(p->labels[run], sizeof p->labels[run], "%s: %s %s, %s %s", p->names[run], steps, p->r->turkish ? "adım" : "steps",
                 tokens, p->r->turkish ? "belirteç" : "tokens");
}

static dil_status read_logs(picture *p, dil_error *err)
{
    page_names(p->r, p->names);
    for (int run = 0; run < p->r->n_inputs; run++) {
        table *t = &p->logs[run];
        DIL_TRY(table_open(t, p->r->inputs[run], err));
        int step = step_of(t);
        if (step < 0)
            return DIL_FAIL(err, DIL_FORMAT, "%s: line 1: wanted a column 'step', found none; is this a metrics log?", t->path);
        DIL_TRY(table_check(t, step, err));
        table_keep_last(t, step);
        if (t->n_rows == 0)
            return DIL_FAIL(err, DIL_FORMAT, "%s: wanted at least one step, found only the header", t->path);
        label_run(p, run);
    }
    return DIL_OK;
}

/* ---- drawing ---- */

/* Adds the lines of one column of one run: the values, and their smoothed line where wanted. */
static dil_status add_series(picture *p, const panel *of, int run, const char *column, chart_series *out, int *n, dil_error *err)
{
    const table *t = &p->logs[run];
    int at = column ? table_find(t, column) : -1, step = step_of(t);
    if (at < 0 || t->n_rows == 0)
        return DIL_OK;
    double *x = arena_alloc(p->points, t->n_rows * sizeof *x), *y = arena_alloc(p->points, t->n_rows * sizeof *y);
    double *once = arena_alloc(p->points, t->n_rows * sizeof *once), *mean = arena_alloc(p->points, t->n_rows * sizeof *mean);
    if (!x || !y || !once || !mean)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for the curve of '%s'", t->path, column);
    size_t points = 0;
    for (size_t i = 0; i < t->n_rows; i++)
        if (!isnan(t->columns[at].v[i])) {
            x[points] = t->columns[step].v[i];
            y[points++] = t->columns[at].v[i];
        }
    bool smoothed = of->smooth && points >= 20;
    chart_series line = {.x = x, .y = y, .n = points, .colour = CANVAS_SERIES + run, .dots = !of->smooth && points <= 40};
    if (smoothed) {
        line.faint = true;
        out[(*n)++] = line;
        chart_smooth(y, points, once, mean);
        line = (chart_series){.x = x, .y = mean, .n = points, .colour = CANVAS_SERIES + run};
    }
    out[(*n)++] = line;
    return DIL_OK;
}

static void add_figures(picture *p, const panel *of, const chart_series *series, int n)
{
    char text[64];
    if (p->r->format != VIEW_HTML)
        return;
    page_cell(&p->figures, of->title);
    for (int run = 0; run < p->r->n_inputs; run++) {
        strbuf cell = STRBUF(4096);
        for (int s = 0; s < n; s++)
            if (!series[s].faint && series[s].n > 0 && series[s].colour == CANVAS_SERIES + run)
                strbuf_printf(&cell, "%s%s", cell.n ? " / " : "",
                              chart_number(series[s].y[series[s].n - 1], 0, p->r->turkish, text, sizeof text));
        page_cell(&p->figures, cell.p ? cell.p : "");
        strbuf_free(&cell);
    }
    page_row_end(&p->figures);
}

static dil_status draw_panel(picture *p, canvas *c, box at, const panel *of, dil_error *err)
{
    chart_series series[4 * VIEW_MOST_INPUTS];
    int n = 0;
    for (int run = 0; run < p->r->n_inputs; run++) {
        DIL_TRY(add_series(p, of, run, of->column, series, &n, err));
        DIL_TRY(add_series(p, of, run, of->also, series, &n, err));
    }
    chart_panel drawn = {.title = of->title,
                         .x_name = step_name(p) ? step_name(p) : say(p, "step", "adım"),
                         .series = series,
                         .n_series = n,
                         .from_zero = of->in == EXPERTS || (of->in == COURSE && of->column[0] != 'g'),
                         .turkish = p->r->turkish};
    chart_draw(c, at, &drawn);
    add_figures(p, of, series, n);
    return DIL_OK;
}

static int panels_of(const picture *p, section s)
{
    int n = 0;
    for (int i = 0; i < p->n_panels; i++)
        n += p->panels[i].in == s;
    return n;
}

static int columns_for(const picture *p, int n) { return n == 1 && !p->training ? 1 : n <= 2 ? 2 : n == 4 || n > 6 ? 4 : 3; }
static double height_for(section s, int columns)
{
    return s == LEARNING || columns == 1 ? 280 : columns == 2 ? 220 : columns == 3 ? 200 : 190;
}

/* Figures of another kind than training have one section, which needs no name. */
static double heading_of(const picture *p) { return p->training ? HEADING : GAP; }

static double height_of(const picture *p, section s)
{
    int n = panels_of(p, s), columns = columns_for(p, n);
    return n == 0 ? 0 : heading_of(p) + (n + columns - 1) / columns * (height_for(s, columns) + GAP);
}

/* Draws from y on; *y is then the end of the section. */
static dil_status draw_section(picture *p, canvas *c, section s, double *y, dil_error *err)
{
    int columns = columns_for(p, panels_of(p, s)), done = 0;
    double w = (WIDTH - 2 * SIDE - (columns - 1) * GAP) / (double)columns, h = height_for(s, columns);
    if (panels_of(p, s) == 0)
        return DIL_OK;
    if (p->training) {
        canvas_text(c, SIDE, *y + 18, headings[s][p->r->turkish], (canvas_font){13, true}, CANVAS_LEFT,
                    canvas_theme(c, CANVAS_FAINT_INK));
        strbuf_printf(&p->about, " %s:", headings[s][p->r->turkish]);
    }
    for (int i = 0; i < p->n_panels; i++) {
        if (p->panels[i].in != s)
            continue;
        box at = {SIDE + done % columns * (w + GAP), *y + heading_of(p) + done / columns * (h + GAP), w, h};
        arena_mark mark = arena_mark_get(p->points);
        DIL_TRY(draw_panel(p, c, at, &p->panels[i], err));
        arena_reset(p->points, mark);
        strbuf_printf(&p->about, "%s %s", done ? "," : "", p->panels[i].title);
        done++;
    }
    strbuf_add_char(&p->about, '.');
    *y += height_of(p, s);
    return DIL_OK;
}

static void draw_notes(picture *p, canvas *c, double y)
{
    strbuf note = STRBUF(1 << 16);
    if (p->training)
        strbuf_add_str(
            &note,
            str_of(say(
                p,
                "Thick lines are means over neighbouring steps, thin ones every step; the number at the right is the last value "
                "of the thick line.",
                "Kalın çizgi komşu adımların ortalaması, ince çizgi her adım, sağdaki sayı kalın çizginin son değeridir.")));
    if (p->flat.n)
        strbuf_printf(&note, " %s: %s.", say(p, "Always zero, so not drawn", "Hep sıfır olduğundan çizilmeyenler"), p->flat.p);
    if (note.n && !note.failed)
        canvas_wrap(c, (box){SIDE, y, WIDTH - 2 * SIDE, 0}, note.p, (canvas_font){11.5, false}, canvas_theme(c, CANVAS_FAINT_INK),
                    true);
    strbuf_free(&note);
}

static void begin_figures(picture *p)
{
    page_cell(&p->figures, p->r->turkish ? "son değer" : "last value");
    for (int run = 0; run < p->r->n_inputs; run++) {
        page_cell(&p->figures, p->names[run]);
        strbuf_printf(&p->about, "%s%s", run ? "; " : "", p->labels[run]);
    }
    page_row_end(&p->figures);
    strbuf_add_char(&p->about, '.');
}

static double legend(const picture *p, canvas *c, bool visible)
{
    const char *labels[VIEW_MOST_INPUTS];
    for (int run = 0; run < p->r->n_inputs; run++)
        labels[run] = p->labels[run];
    return chart_legend(c, SIDE, 56, WIDTH - 2 * SIDE, labels, p->r->n_inputs, visible);
}

/* Where the sections begin: below the legend. */
static dil_status measure(const picture *p, double *top, dil_error *err)
{
    canvas *c = NULL;
    DIL_TRY(canvas_new(&c, p->r, WIDTH, 100, err));
    *top = legend(p, c, false) + 10;
    canvas_free(c);
    return DIL_OK;
}

static dil_status draw(picture *p, canvas *c, const char *title, double y, dil_error *err)
{
    canvas_text(c, SIDE, 40, title, (canvas_font){20, true}, CANVAS_LEFT, canvas_theme(c, CANVAS_INK));
    legend(p, c, true);
    begin_figures(p);
    for (int s = 0; s < SECTIONS; s++)
        DIL_TRY(draw_section(p, c, (section)s, &y, err));
    draw_notes(p, c, y + 12);
    return DIL_OK;
}

static dil_status make(picture *p, strbuf *out, dil_error *err)
{
    canvas *c = NULL;
    double top, height;
    DIL_TRY(read_logs(p, err));
    DIL_TRY(choose_panels(p, err));
    const char *title = p->training ? say(p, "Course of training", "Eğitimin gidişi") : say(p, "Figures", "Ölçümler");
    DIL_TRY(measure(p, &top, err));
    height = top + 60;
    for (int s = 0; s < SECTIONS; s++)
        height += height_of(p, (section)s);
    DIL_TRY(canvas_new(&c, p->r, WIDTH, height, err));
    dil_status status = draw(p, c, title, top, err);
    if (status == DIL_OK)
        status = page_finish(c, p->r, title, p->about.p ? p->about.p : "", &p->figures, out, err);
    canvas_free(c);
    return status;
}

static dil_status draw_logs(strbuf *out, const view_request *r, dil_error *err)
{
    picture *p = mem_calloc(1, sizeof *p, MEM_MISC);
    if (!p)
        return DIL_FAIL(err, DIL_NO_MEMORY, "metrics: no memory");
    p->r = r;
    p->flat = STRBUF(1 << 15);
    p->about = STRBUF(1 << 20);
    p->figures = PAGE_FIGURES;
    p->points = arena_new(MEM_MISC, (size_t)4 << 30);
    dil_status status = p->points ? make(p, out, err) : DIL_FAIL(err, DIL_NO_MEMORY, "metrics: no memory");
    arena_free(p->points);
    for (int run = 0; run < r->n_inputs; run++)
        table_free(&p->logs[run]);
    strbuf_free(&p->flat);
    strbuf_free(&p->about);
    strbuf_free(&p->figures.html);
    mem_free(p);
    return status;
}

/* ---- what the inputs are ---- */

typedef enum input_kind { LOGS, BENCHES, REPORTS, INPUT_KINDS } input_kind;

/* By their first character: JSON is an array of tests or one report, all else a table. */
static dil_status kind_of(const char *path, input_kind *out, dil_error *err)
{
    char head[256];
    size_t i = 0;
    DIL_TRY(view_head(path, head, sizeof head, err));
    while (i < sizeof head && strchr(" \t\r\n", head[i]) && head[i])
        i++;
    *out = i < sizeof head && head[i] == '[' ? BENCHES : i < sizeof head && head[i] == '{' ? REPORTS : LOGS;
    return DIL_OK;
}

dil_status view_metrics(strbuf *out, const view_request *r, dil_error *err)
{
    static const char *const names[INPUT_KINDS] = {
        [LOGS] = N_("a metrics log (CSV)"), [BENCHES] = N_("JSON of dil bench"), [REPORTS] = N_("a report of dil quantize")};
    static dil_status (*const draw_kind[INPUT_KINDS])(strbuf *, const view_request *, dil_error *) = {
        [LOGS] = draw_logs, [BENCHES] = metrics_bench, [REPORTS] = metrics_reports};
    input_kind first = LOGS, other;
    if (r->n_inputs < 1 || r->n_inputs > VIEW_MOST_INPUTS)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "metrics: wanted 1 to %d logs, found %d", VIEW_MOST_INPUTS, r->n_inputs);
    DIL_TRY(kind_of(r->inputs[0], &first, err));
    for (int i = 1; i < r->n_inputs; i++) {
        DIL_TRY(kind_of(r->inputs[i], &other, err));
        if (other != first)
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: wanted %s, like %s, found %s; view each kind by itself", r->inputs[i],
                            _(names[first]), r->inputs[0], _(names[other]));
    }
    return draw_kind[first](out, r, err);
}
