/* Files that dil quantize made, beside one another: what their size costs, and how far their rounding settled. */
#include <math.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/status.h"
#include "view/chart.h"
#include "view/metrics.h"
#include "view/report.h"

enum {
    WIDTH = 1280,
    SIDE = 24,
    GAP = 14,
    CHART_HIGH = 420,
    PANEL_HIGH = 260,
    ROW = 24,
    COLUMNS = 9,
    NAME_WIDE = 200,
    CELL_BYTES = 48
};
enum { MOST_POINTS = REPORT_MOST_LAYERS * REPORT_KINDS + REPORT_HEADS, STAGES = 3 };

static const canvas_font title_font = {20, true}, text_font = {12.5, false}, head_font = {11.5, true}, small_font = {11.5, false};

/* What a report comes to. NAN: not known. */
typedef struct summary {
    double error[STAGES]; /* of all outputs beside plain rounding: plain, with error feedback, at equilibrium */
    double sweeps;        /* mean over the matrices */
    double moved;         /* codes that moved in the last sweep, per cent: mean over the matrices */
    double restless;      /* codes that could do better alone, per cent */
    size_t n;             /* matrices whose rounding is told: */
    double *x, *y;        /* [n]: sweeps, per cent that moved */
} summary;

typedef struct picture {
    const view_request *r;
    report *reports; /* [n_inputs] */
    summary of[VIEW_MOST_INPUTS];
    char names[VIEW_MOST_INPUTS][PAGE_NAME_BYTES];
    bool by_bits; /* files of different models: sizes are bits per weight */
    arena *memory;
    strbuf subtitle, about;
    page_figures figures;
} picture;

static const char *say(const picture *p, const char *english, const char *turkish) { return p->r->turkish ? turkish : english; }

/* ---- what reports come to ---- */

static void add_matrix(summary *s, const report_matrix *m, double sum[STAGES])
{
    if (!m->there || isnan(m->sweeps))
        return;
    sum[0] += m->plain;
    sum[1] += m->fed;
    sum[2] += m->settled;
    if (isnan(m->moved))
        return;
    s->x[s->n] = m->sweeps;
    s->y[s->n++] = 100 * m->moved;
}

static void sum_up(const report *r, summary *s)
{
    double sum[STAGES] = {0};
    for (int i = 0; i < REPORT_HEADS; i++)
        add_matrix(s, &r->head[i], sum);
    for (int l = 0; l < r->n_layers; l++)
        for (int k = 0; k < REPORT_KINDS; k++)
            add_matrix(s, &r->of[l][k], sum);
    for (int i = 0; i < STAGES; i++)
        s->error[i] = sum[0] > 0 ? sum[i] / sum[0] : NAN;
    s->sweeps = s->moved = s->n ? 0 : NAN;
    for (size_t i = 0; i < s->n; i++) {
        s->sweeps += s->x[i] / (double)s->n;
        s->moved += s->y[i] / (double)s->n;
    }
    s->restless = r->codes > 0 ? 100 * r->restless / r->codes : NAN;
}

static dil_status read_reports(picture *p, dil_error *err)
{
    for (int i = 0; i < p->r->n_inputs; i++) {
        DIL_TRY(report_read(&p->reports[i], p->r->inputs[i], err));
        p->by_bits =
            p->by_bits || p->reports[i].in_bytes != p->reports[0].in_bytes || strcmp(p->reports[i].input, p->reports[0].input) != 0;
        p->of[i].x = arena_calloc(p->memory, MOST_POINTS, sizeof(double));
        p->of[i].y = arena_calloc(p->memory, MOST_POINTS, sizeof(double));
        if (!p->of[i].x || !p->of[i].y)
            return DIL_FAIL(err, DIL_NO_MEMORY, "metrics: no memory");
        sum_up(&p->reports[i], &p->of[i]);
    }
    return DIL_OK;
}

/* ---- divergence by size ---- */

static double size_of(const picture *p, const report *r) { return p->by_bits ? r->bits : r->out_bytes * 1e-6; }

/* The files that one way of choosing formats makes, of all reports of one model, by size. x, y: room for all. */
static size_t join_way(const picture *p, int way, double *x, double *y)
{
    size_t n = 0;
    for (int i = 0; i < p->r->n_inputs; i++)
        for (size_t k = 0; k < p->reports[i].ways[way].n; k++) {
            const double bytes = p->reports[i].ways[way].bytes[k] * 1e-6, divergence = p->reports[i].ways[way].divergence[k];
            size_t at = n++;
            for (; at > 0 && x[at - 1] > bytes; at--) {
                x[at] = x[at - 1];
                y[at] = y[at - 1];
            }
            x[at] = bytes;
            y[at] = divergence;
        }
    return n;
}

static dil_status draw_sizes(const picture *p, canvas *c, box at, dil_error *err)
{
    chart_series series[REPORT_WAYS + 2 * VIEW_MOST_INPUTS];
    double size[VIEW_MOST_INPUTS];
    const char *names[VIEW_MOST_INPUTS], *ways[REPORT_WAYS];
    int n = 0, n_ways = 0;
    arena_mark mark = arena_mark_get(p->memory);
    for (int k = REPORT_WAYS; k-- > 0 && !p->by_bits;) {
        const size_t most = VIEW_MOST_INPUTS * (REPORT_MOST_CURVE + 1);
        double *x = arena_calloc(p->memory, most, sizeof *x), *y = arena_calloc(p->memory, most, sizeof *y);
        if (!x || !y)
            return DIL_FAIL(err, DIL_NO_MEMORY, "metrics: no memory");
        size_t points = join_way(p, k, x, y);
        if (points)
            series[n++] = (chart_series){.x = x, .y = y, .n = points, .colour = CANVAS_SERIES + k, .width = report_way_widths[k]};
        ways[k] = report_way_titles[k][p->r->turkish];
        n_ways = n ? REPORT_WAYS : 0;
    }
    for (int i = 0; i < p->r->n_inputs; i++) {
        const report *r = &p->reports[i];
        size[i] = size_of(p, r);
        names[i] = p->names[i];
        if (r->divergence > 0)
            series[n++] = (chart_series){.x = &size[i],
                                         .y = &r->divergence,
                                         .n = 1,
                                         .colour = CANVAS_INK,
                                         .apart = true,
                                         .ring = true,
                                         .labels = r->measured && r->kld > 0 ? NULL : &names[i]};
        if (r->measured && r->kld > 0)
            series[n++] =
                (chart_series){.x = &size[i], .y = &r->kld, .n = 1, .colour = CANVAS_INK, .apart = true, .labels = &names[i]};
    }
    chart_draw(c, at,
               &(chart_panel){.title = say(p, "Divergence by size: discs measured, rings expected",
                                           "Boya göre ıraksama: dolu olan ölçüldü, halka bekleniyordu"),
                              .x_name = p->by_bits ? say(p, "bits per weight", "ağırlık başına bit") : "MB",
                              .series = series,
                              .n_series = n,
                              .log_y = true,
                              .room_x = true,
                              .no_ends = true,
                              .turkish = p->r->turkish});
    if (n_ways)
        chart_legend(c, at.x + at.w - 640, at.y + 5, 640, ways, n_ways, true);
    arena_reset(p->memory, mark);
    return DIL_OK;
}

/* ---- convergence ---- */

static void draw_stages(const picture *p, canvas *c, box at)
{
    static const double x[STAGES] = {1, 2, 3};
    chart_series series[VIEW_MOST_INPUTS];
    int n = 0;
    for (int i = 0; i < p->r->n_inputs; i++)
        if (!isnan(p->of[i].error[0]))
            series[n++] = (chart_series){.x = x, .y = p->of[i].error, .n = STAGES, .colour = CANVAS_SERIES + i, .dots = true};
    chart_draw(c, at,
               &(chart_panel){.title = say(p, "Output error: 1 plain, 2 fed back, 3 settled",
                                           "Çıktı hatası: 1 düz, 2 geri beslemeli, 3 dengede"),
                              .x_name = say(p, "stage", "aşama"),
                              .series = series,
                              .n_series = n,
                              .from_zero = true,
                              .whole_x = true,
                              .turkish = p->r->turkish});
}

static void draw_moved(const picture *p, canvas *c, box at)
{
    chart_series series[VIEW_MOST_INPUTS];
    int n = 0;
    for (int i = 0; i < p->r->n_inputs; i++)
        for (size_t k = 0; k < p->of[i].n; k++) /* beside one another */
            p->of[i].x[k] += 0.6 * ((i + 0.5) / p->r->n_inputs - 0.5);
    for (int i = 0; i < p->r->n_inputs; i++)
        if (p->of[i].n)
            series[n++] = (chart_series){
                .x = p->of[i].x, .y = p->of[i].y, .n = p->of[i].n, .colour = CANVAS_SERIES + i, .apart = true, .width = 2.6};
    chart_draw(c, at,
               &(chart_panel){.title = say(p, "Codes that moved in the last sweep (%), by matrix",
                                           "Son turda oynayan kodlar (%), matris matris"),
                              .x_name = say(p, "sweeps", "tur"),
                              .series = series,
                              .n_series = n,
                              .from_zero = true,
                              .whole_x = true,
                              .room_x = true,
                              .no_ends = true,
                              .turkish = p->r->turkish});
}

/* Measured divergence of the files that were tried, attempt by attempt. */
static dil_status draw_attempts(const picture *p, canvas *c, box at, dil_error *err)
{
    chart_series series[VIEW_MOST_INPUTS];
    int n = 0;
    arena_mark mark = arena_mark_get(p->memory);
    for (int i = 0; i < p->r->n_inputs; i++) {
        double *x = arena_calloc(p->memory, REPORT_MOST_ATTEMPTS, sizeof *x),
               *y = arena_calloc(p->memory, REPORT_MOST_ATTEMPTS, sizeof *y);
        size_t points = 0;
        if (!x || !y)
            return DIL_FAIL(err, DIL_NO_MEMORY, "metrics: no memory");
        for (int k = 0; k < p->reports[i].n_attempts; k++)
            if (!isnan(p->reports[i].found[k])) {
                x[points] = k + 1;
                y[points++] = p->reports[i].found[k];
            }
        if (points)
            series[n++] = (chart_series){.x = x, .y = y, .n = points, .colour = CANVAS_SERIES + i, .dots = true};
    }
    chart_draw(c, at,
               &(chart_panel){.title = say(p, "Divergence of each attempt", "Her denemenin ıraksaması"),
                              .x_name = say(p, "attempt", "deneme"),
                              .series = series,
                              .n_series = n,
                              .whole_x = true,
                              .turkish = p->r->turkish});
    arena_reset(p->memory, mark);
    return DIL_OK;
}

static bool has_rounding(const picture *p)
{
    for (int i = 0; i < p->r->n_inputs; i++)
        if (p->of[i].n)
            return true;
    return false;
}

static bool has_attempts(const picture *p)
{
    for (int i = 0; i < p->r->n_inputs; i++)
        for (int k = 0; k < p->reports[i].n_attempts; k++)
            if (!isnan(p->reports[i].found[k]))
                return true;
    return false;
}

static int panels_of(const picture *p) { return 2 * has_rounding(p) + has_attempts(p); }

static dil_status draw_convergence(const picture *p, canvas *c, double y, dil_error *err)
{
    const int n = panels_of(p);
    const double w = (WIDTH - 2 * SIDE - (n - 1) * GAP) / (double)n;
    int at = 0;
    if (has_rounding(p)) {
        draw_stages(p, c, (box){SIDE, y, w, PANEL_HIGH});
        draw_moved(p, c, (box){SIDE + w + GAP, y, w, PANEL_HIGH});
        at = 2;
    }
    return has_attempts(p) ? draw_attempts(p, c, (box){SIDE + at * (w + GAP), y, w, PANEL_HIGH}, err) : DIL_OK;
}

/* ---- the table ---- */

static void column_names(const picture *p, const char *out[COLUMNS])
{
    const char *const names[COLUMNS] = {"MB",
                                        say(p, "bits/weight", "bit/ağırlık"),
                                        say(p, "expected", "beklenen"),
                                        say(p, "measured", "ölçülen"),
                                        say(p, "same word (%)", "aynı sözcük (%)"),
                                        say(p, "gap", "açık"),
                                        say(p, "sweeps", "tur"),
                                        say(p, "moved (%)", "oynayan (%)"),
                                        say(p, "can improve (%)", "iyileşebilen (%)")};
    for (int i = 0; i < COLUMNS; i++)
        out[i] = names[i];
}

static void cells_of(const picture *p, int i, char out[COLUMNS][CELL_BYTES])
{
    const report *r = &p->reports[i];
    const double values[COLUMNS] = {r->out_bytes * 1e-6,
                                    r->bits,
                                    r->divergence,
                                    r->measured ? r->kld : NAN,
                                    r->measured ? 100 * r->same_top : NAN,
                                    r->allocated ? r->gap : NAN,
                                    p->of[i].sweeps,
                                    p->of[i].moved,
                                    p->of[i].restless};
    static const double steps[COLUMNS] = {0.01, 0.01, 0, 0, 0.1, 0, 0.1, 0.01, 0.01};
    for (int k = 0; k < COLUMNS; k++) {
        const double digits = values[k] > 0 ? pow(10, floor(log10(values[k])) - 2) : 1; /* three */
        if (isnan(values[k]))
            out[k][0] = '\0';
        else
            chart_number(values[k], steps[k] > 0 ? steps[k] : digits, p->r->turkish, out[k], CELL_BYTES);
    }
}

static double column_right(int k) { return SIDE + NAME_WIDE + (k + 1) * (WIDTH - 2 * SIDE - NAME_WIDE) / (double)COLUMNS; }

/* Its rows name the colours of the panels too. */
static void draw_table(const picture *p, canvas *c, double y)
{
    const char *heads[COLUMNS];
    char cells[COLUMNS][CELL_BYTES], name[PAGE_NAME_BYTES + 8];
    column_names(p, heads);
    for (int k = 0; k < COLUMNS; k++)
        canvas_text(c, column_right(k), y + 16, heads[k], head_font, CANVAS_RIGHT, canvas_theme(c, CANVAS_FAINT_INK));
    for (int i = 0; i < p->r->n_inputs; i++) {
        y += ROW;
        cells_of(p, i, cells);
        canvas_fill(c, (box){SIDE, y + 10, 18, 4}, canvas_theme(c, CANVAS_SERIES + i));
        canvas_fit(c, p->names[i], small_font, NAME_WIDE - 30, name, sizeof name);
        canvas_text(c, SIDE + 26, y + 16, name, small_font, CANVAS_LEFT, canvas_theme(c, CANVAS_INK));
        for (int k = 0; k < COLUMNS; k++)
            canvas_text(c, column_right(k), y + 16, cells[k], small_font, CANVAS_RIGHT, canvas_theme(c, CANVAS_INK));
        canvas_line(c, SIDE, y, WIDTH - SIDE, y, canvas_theme(c, CANVAS_GRID), 1);
    }
}

static void write_figures(picture *p)
{
    const char *heads[COLUMNS];
    char cells[COLUMNS][CELL_BYTES];
    column_names(p, heads);
    page_cell(&p->figures, say(p, "report", "rapor"));
    for (int k = 0; k < COLUMNS; k++)
        page_cell(&p->figures, heads[k]);
    page_row_end(&p->figures);
    for (int i = 0; i < p->r->n_inputs; i++) {
        cells_of(p, i, cells);
        page_cell(&p->figures, p->names[i]);
        strbuf_printf(&p->about, " %s:", p->names[i]);
        for (int k = 0; k < COLUMNS; k++) {
            page_cell(&p->figures, cells[k]);
            if (cells[k][0])
                strbuf_printf(&p->about, " %s %s%s", heads[k], cells[k], k + 1 < COLUMNS ? "," : "");
        }
        strbuf_add_char(&p->about, '.');
        page_row_end(&p->figures);
    }
}

/* ---- the picture ---- */

static void write_subtitle(picture *p)
{
    strbuf_printf(&p->subtitle, "%s", say(p, "Made from ", "Kaynak: "));
    for (int i = 0; i < p->r->n_inputs; i++) {
        bool before = false;
        for (int j = 0; j < i; j++)
            before = before || strcmp(p->reports[j].input, p->reports[i].input) == 0;
        if (!before)
            strbuf_printf(&p->subtitle, "%s%s", i ? ", " : "", p->reports[i].input);
    }
    strbuf_add_str(
        &p->subtitle,
        str_of(say(
            p,
            ". Divergences are those of the next word's probabilities from the original model's, in nats per token. Gap: what any single "
            "change of a format that fits could still gain.",
            ". Iraksamalar, sonraki sözcüğün olasılıklarının özgün modelinkilerden ıraksamasıdır; belirteç başına nat. Açık: sığan tek bir "
            "biçim değişikliğinin hâlâ kazandırabileceği.")));
    if (!p->by_bits)
        strbuf_add_str(&p->subtitle, str_of(say(p, " Lines are what each way to choose formats was expected to give.",
                                                " Çizgiler, biçim seçme yollarından beklenenlerdir.")));
}

/* Draws, or with draw false only measures; *height is what it takes. */
static dil_status lay_out(const picture *p, canvas *c, const char *title, bool draw, double *height, dil_error *err)
{
    if (draw)
        canvas_text(c, SIDE, 40, title, title_font, CANVAS_LEFT, canvas_theme(c, CANVAS_INK));
    double y =
        canvas_wrap(c, (box){SIDE, 64, WIDTH - 2 * SIDE, 0}, p->subtitle.p, text_font, canvas_theme(c, CANVAS_FAINT_INK), draw);
    if (draw)
        draw_table(p, c, y);
    y += (p->r->n_inputs + 1) * ROW + GAP;
    if (draw)
        DIL_TRY(draw_sizes(p, c, (box){SIDE, y, WIDTH - 2 * SIDE, CHART_HIGH}, err));
    y += CHART_HIGH + GAP;
    if (panels_of(p) > 0 && draw)
        DIL_TRY(draw_convergence(p, c, y, err));
    *height = y + (panels_of(p) > 0 ? PANEL_HIGH + GAP : 0) + 8;
    return DIL_OK;
}

static dil_status make(picture *p, strbuf *out, dil_error *err)
{
    const char *title = say(p, "Smaller files: size, divergence, equilibrium", "Küçültülen dosyalar: boy, ıraksama, denge");
    canvas *c = NULL;
    double height = 100;
    page_names(p->r, p->names);
    DIL_TRY(read_reports(p, err));
    write_subtitle(p);
    strbuf_add_str(&p->about, strbuf_str(&p->subtitle));
    write_figures(p);
    if (p->subtitle.failed || p->about.failed)
        return DIL_FAIL(err, DIL_NO_MEMORY, "metrics: no memory");
    dil_status status = DIL_OK;
    for (int draw = 0; draw < 2 && status == DIL_OK; draw++) {
        canvas_free(c);
        c = NULL;
        status = canvas_new(&c, p->r, WIDTH, height, err);
        if (status == DIL_OK)
            status = lay_out(p, c, title, draw, &height, err);
    }
    if (status == DIL_OK)
        status = page_finish(c, p->r, title, p->about.p, &p->figures, out, err);
    canvas_free(c);
    return status;
}

dil_status metrics_reports(strbuf *out, const view_request *r, dil_error *err)
{
    picture p = {.r = r, .memory = arena_new(MEM_MISC, (size_t)1 << 28)};
    p.subtitle = STRBUF(1 << 14);
    p.about = STRBUF(1 << 20);
    p.figures = PAGE_FIGURES;
    p.reports = mem_calloc((size_t)r->n_inputs, sizeof *p.reports, MEM_MISC);
    dil_status status = p.memory && p.reports ? make(&p, out, err) : DIL_FAIL(err, DIL_NO_MEMORY, "metrics: no memory");
    strbuf_free(&p.subtitle);
    strbuf_free(&p.about);
    strbuf_free(&p.figures.html);
    mem_free(p.reports);
    arena_free(p.memory);
    return status;
}
