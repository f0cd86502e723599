/* How many bits each matrix of a smaller file has, what that is expected to cost, and what other sizes would: the report of
 * dil quantize. */
#include <math.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/status.h"
#include "view/chart.h"
#include "view/page.h"
#include "view/report.h"
#include "view/view.h"

enum { MOST_FACTS = 9, FACT_BYTES = 80 };
enum { WIDTH = 1280, SIDE = 24, LAYER_WIDE = 64, BARS_WIDE = 316, BARS_GAP = 24, NUMBER_WIDE = 62, CHART_HIGH = 420 };

static const canvas_font title_font = {20, true}, text_font = {12.5, false}, head_font = {11.5, true}, small_font = {11, false},
                         fact_font = {16, true};

typedef struct fact {
    char value[FACT_BYTES];
    const char *name;
} fact;

typedef struct picture {
    const view_request *r;
    report rep;
    double most; /* divergence of a row; NAN: none is known */
    fact facts[MOST_FACTS];
    int n_facts;
    strbuf subtitle, about;
    page_figures figures;
} picture;

static const char *say(const picture *p, const char *english, const char *turkish) { return p->r->turkish ? turkish : english; }

/* ---- numbers for people ---- */

static char *with_comma(const picture *p, char *text)
{
    for (char *c = text; p->r->turkish && *c; c++)
        *c = *c == '.' ? ',' : *c;
    return text;
}

static char *size_text(const picture *p, double bytes, char *out, size_t n)
{
    return with_comma(p, str_bytes((uint64_t)bytes, out, n));
}

/* With three digits of `scale`, so that numbers beside one another have as many decimals. */
static char *nats_text(const picture *p, double v, double scale, char *out, size_t n)
{
    if (isnan(v)) {
        snprintf(out, n, "?");
        return out;
    }
    double digits = scale > 0 ? 2 - floor(log10(scale)) : 0;
    if (v == 0 || !(scale >= 1e-6 && scale < 1e6))
        return chart_number(v, 0, p->r->turkish, out, n);
    snprintf(out, n, "%.*f", digits > 0 ? (int)digits : 0, v);
    return with_comma(p, out);
}

static char *bits_text(const picture *p, double bits, char *out, size_t n)
{
    snprintf(out, n, "%.2f", bits);
    return with_comma(p, out);
}

/* Of a row's matrices; NAN where nothing is known. */
static double sum_of(const report_matrix *m, int n)
{
    double sum = NAN;
    for (int i = 0; i < n; i++)
        if (m[i].there && !isnan(m[i].divergence))
            sum = isnan(sum) ? m[i].divergence : sum + m[i].divergence;
    return sum;
}

static bool has_heads(const picture *p) { return p->rep.head[0].there || p->rep.head[1].there; }
static bool has_curve(const picture *p)
{
    size_t n = 0;
    for (int k = 0; k < REPORT_WAYS; k++)
        n += p->rep.ways[k].n;
    return n > 0;
}

static int experts_of(const picture *p, int kind)
{
    int most = 1;
    for (int l = 0; l < p->rep.n_layers; l++)
        most = p->rep.of[l][kind].there && p->rep.of[l][kind].n_experts > most ? p->rep.of[l][kind].n_experts : most;
    return most;
}

/* ---- texts ---- */

static char *add_fact(picture *p, const char *name)
{
    fact *f = &p->facts[p->n_facts++];
    f->name = name;
    return f->value;
}

static void write_measured_facts(picture *p)
{
    char kld[32], error[32];
    nats_text(p, p->rep.kld, p->rep.kld, kld, sizeof kld);
    nats_text(p, p->rep.kld_error, p->rep.kld, error, sizeof error);
    if (isnan(p->rep.kld_error))
        snprintf(add_fact(p, say(p, "measured divergence", "ölçülen ıraksama")), FACT_BYTES, "%s", kld);
    else
        snprintf(add_fact(p, say(p, "measured divergence", "ölçülen ıraksama")), FACT_BYTES, "%s ± %s", kld, error);
    snprintf(kld, sizeof kld, "%.1f", 100 * p->rep.same_top);
    snprintf(add_fact(p, say(p, "same first word", "aynı ilk sözcük")), FACT_BYTES, say(p, "%s %%", "%%%s"), with_comma(p, kld));
}

static void write_facts(picture *p)
{
    char before[32], after[32];
    snprintf(add_fact(p, say(p, "size of the file", "dosyanın boyu")), FACT_BYTES, "%s → %s",
             size_text(p, p->rep.in_bytes, before, sizeof before), size_text(p, p->rep.out_bytes, after, sizeof after));
    bits_text(p, p->rep.bits, add_fact(p, say(p, "bits per weight", "ağırlık başına bit")), FACT_BYTES);
    if (!isnan(p->rep.divergence))
        nats_text(p, p->rep.divergence, p->rep.divergence, add_fact(p, say(p, "expected divergence", "beklenen ıraksama")),
                  FACT_BYTES);
    if (p->rep.measured)
        write_measured_facts(p);
    if (p->rep.allocated) {
        double price = p->rep.price * 1e6;
        nats_text(p, price, price, add_fact(p, say(p, "price of 1 MB (nats)", "1 MB'ın fiyatı (nat)")), FACT_BYTES);
        nats_text(p, p->rep.gap, p->rep.gap, add_fact(p, say(p, "gap to equilibrium", "dengeye uzaklık")), FACT_BYTES);
    }
    snprintf(before, sizeof before, p->rep.seconds < 9.95 ? "%.1f s" : "%.0f s", p->rep.seconds);
    snprintf(add_fact(p, say(p, "time", "süre")), FACT_BYTES, "%s", with_comma(p, before));
    size_text(p, p->rep.memory, add_fact(p, say(p, "most memory", "en çok bellek")), FACT_BYTES);
}

static void write_subtitle(picture *p)
{
    strbuf_printf(&p->subtitle,
                  say(p, "%s, made from %s. Calibrated with %s: %.0f × %.0f tokens. ",
                      "%s; kaynağı %s. Ayar metni %s: %.0f × %.0f belirteç. "),
                  p->rep.output, p->rep.input, p->rep.text, p->rep.n_sequences, p->rep.n_tokens);
    strbuf_add_str(
        &p->subtitle,
        str_of(say(p,
                   "A cell is a matrix: the stronger its colour, the more bits a weight has. Divergences are those "
                   "of the next word's probabilities from the original model's, in nats per token. ",
                   "Her hücre bir matristir: rengi ne kadar güçlüyse ağırlıkları o kadar çok bitlidir. Iraksamalar, sonraki "
                   "sözcüğün olasılıklarının özgün modelinkilerden ıraksamasıdır; belirteç başına nat. ")));
}

static void describe_row(picture *p, const char *name, const report_matrix *m, const char *const *names, int n)
{
    char number[32];
    double sum = sum_of(m, n);
    bool any = false;
    for (int i = 0; i < n; i++) {
        if (!m[i].there)
            continue;
        if (any)
            strbuf_printf(&p->about, ", %s %s", names[i], format_get(m[i].type)->name);
        else
            strbuf_printf(&p->about, " %s: %s %s", name, names[i], format_get(m[i].type)->name);
        any = true;
    }
    if (!any)
        return;
    if (!isnan(sum))
        strbuf_printf(&p->about, "; %s %s", say(p, "expected divergence", "beklenen ıraksama"),
                      nats_text(p, sum, p->most, number, sizeof number));
    strbuf_add_char(&p->about, '.');
}

static void write_about(picture *p)
{
    char text[64];
    strbuf_add_str(&p->about, strbuf_str(&p->subtitle));
    for (int i = 0; i < p->n_facts; i++)
        strbuf_printf(&p->about, "%s%s: %s", i ? "; " : "", p->facts[i].name, p->facts[i].value);
    strbuf_add_char(&p->about, '.');
    describe_row(p, say(p, "outside the layers", "katmanların dışında"), p->rep.head, report_heads, REPORT_HEADS);
    for (int l = 0; l < p->rep.n_layers; l++) {
        snprintf(text, sizeof text, "%s %d", say(p, "layer", "katman"), l);
        describe_row(p, text, p->rep.of[l], report_kinds, REPORT_KINDS);
    }
    for (int k = 0, any = 0; k < REPORT_WAYS; k++)
        if (!isnan(p->rep.chosen[k]))
            strbuf_printf(&p->about, "%s %s %s",
                          any++ ? ","
                                : say(p, " Expected at this size by way of choosing:", " Bu boyda, seçme yoluna göre beklenen:"),
                          report_way_titles[k][p->r->turkish], nats_text(p, p->rep.chosen[k], p->rep.chosen[k], text, sizeof text));
}

static void write_row(picture *p, const char *name, const report_matrix *m, int n)
{
    char number[32], text[64];
    page_cell(&p->figures, name);
    for (int i = 0; i < REPORT_KINDS; i++) {
        bool there = i < n && m[i].there;
        if (there)
            snprintf(text, sizeof text, "%s %s", format_get(m[i].type)->name, bits_text(p, m[i].bits, number, sizeof number));
        page_cell(&p->figures, there ? text : "");
    }
    page_cell(&p->figures, nats_text(p, sum_of(m, n), p->most, number, sizeof number));
    page_row_end(&p->figures);
}

static void write_figures(picture *p)
{
    char text[32];
    page_cell(&p->figures, say(p, "layer", "katman"));
    for (int k = 0; k < REPORT_KINDS; k++)
        page_cell(&p->figures, report_kinds[k]);
    page_cell(&p->figures, say(p, "expected divergence", "beklenen ıraksama"));
    page_row_end(&p->figures);
    for (int i = 0; i < REPORT_HEADS; i++)
        if (p->rep.head[i].there)
            write_row(p, report_heads[i], &p->rep.head[i], 1);
    for (int l = 0; l < p->rep.n_layers; l++) {
        snprintf(text, sizeof text, "%d", l);
        write_row(p, text, p->rep.of[l], REPORT_KINDS);
    }
}

/* ---- colours ---- */

/* By the logarithm: the step from 2 to 3 bits is greater than that from 5 to 6. */
enum { SCALE_MARKS = 7 };
static const double scale_marks[SCALE_MARKS] = {1.5, 2, 3, 4, 5, 6, 8};

static double strength_of(double bits)
{
    double low = scale_marks[0], high = scale_marks[SCALE_MARKS - 1];
    return bits <= low ? 0 : fmin(1, log2(bits / low) / log2(high / low));
}

static canvas_colour colour_of(const canvas *c, double strength)
{
    return canvas_mix(canvas_theme(c, CANVAS_PANEL), canvas_theme(c, CANVAS_SERIES), 0.08 + 0.92 * strength);
}

/* Of the light that reaches the eye; squares come near the screen's own curve. */
static double light_of(canvas_colour a) { return 0.21 * a.r * a.r + 0.72 * a.g * a.g + 0.07 * a.b * a.b; }

static double contrast(canvas_colour a, canvas_colour b)
{
    double x = light_of(a) + 0.05, y = light_of(b) + 0.05;
    return x > y ? x / y : y / x;
}

/* The theme's ink or paper, whichever can be read better there. */
static canvas_colour ink_on(const canvas *c, canvas_colour below)
{
    canvas_colour ink = canvas_theme(c, CANVAS_INK), paper = canvas_theme(c, CANVAS_PAPER);
    return contrast(ink, below) > contrast(paper, below) ? ink : paper;
}

static void draw_scale(const picture *p, canvas *c, double y)
{
    const int steps = 96;
    const double wide = 420;
    const char *name = say(p, "Bits per weight:", "Ağırlık başına bit:");
    char text[64], number[32];
    canvas_text(c, SIDE, y + 12, name, text_font, CANVAS_LEFT, canvas_theme(c, CANVAS_INK));
    double x = SIDE + canvas_text_width(c, name, text_font) + 46;
    for (int i = 0; i < steps; i++)
        canvas_fill(c, (box){x + i * wide / steps, y, wide / steps + 0.5, 14}, colour_of(c, (i + 0.5) / steps));
    for (int i = 0; i < SCALE_MARKS; i++) {
        double at = x + strength_of(scale_marks[i]) * wide;
        chart_number(scale_marks[i], 0.5, p->r->turkish, number, sizeof number);
        if (scale_marks[i] == floor(scale_marks[i]))
            snprintf(number, sizeof number, "%.0f", scale_marks[i]);
        snprintf(text, sizeof text,
                 i == 0                 ? say(p, "%s or less", "%s ya da az")
                 : i == SCALE_MARKS - 1 ? say(p, "%s or more", "%s ya da çok")
                                        : "%s",
                 number);
        canvas_line(c, at, y + 14, at, y + 18, canvas_theme(c, CANVAS_AXIS), 1);
        canvas_text(c, at, y + 29, text, small_font, CANVAS_CENTRE, canvas_theme(c, CANVAS_FAINT_INK));
    }
}

/* ---- the facts ---- */

/* Each with its name below, as many beside one another as there is room for; returns the y below. */
static double draw_facts(const picture *p, canvas *c, double y, bool draw)
{
    double x = SIDE;
    for (int i = 0; i < p->n_facts; i++) {
        const fact *f = &p->facts[i];
        double w = fmax(canvas_text_width(c, f->value, fact_font), canvas_text_width(c, f->name, small_font));
        if (x > SIDE && x + w > WIDTH - SIDE) {
            x = SIDE;
            y += 50;
        }
        if (draw) {
            canvas_text(c, x, y + 18, f->value, fact_font, CANVAS_LEFT, canvas_theme(c, CANVAS_INK));
            canvas_text(c, x, y + 35, f->name, small_font, CANVAS_LEFT, canvas_theme(c, CANVAS_FAINT_INK));
        }
        x += w + 28;
    }
    return y + 50;
}

/* ---- the map ---- */

static double row_of(const picture *p) { return p->rep.n_layers <= 12 ? 30 : p->rep.n_layers <= 48 ? 23 : 18; }

/* Where the cells of a row are; the bars beside it take room only when there are any. */
static box cells_at(const picture *p, double y)
{
    double bars = isnan(p->most) ? 0 : BARS_WIDE;
    return (box){SIDE + LAYER_WIDE, y, WIDTH - 2 * SIDE - LAYER_WIDE - bars, row_of(p)};
}

/* name: what stands before the format's, or NULL. */
static void draw_cell(const picture *p, canvas *c, box at, const report_matrix *m, const char *name)
{
    char text[96], number[32];
    box inside = {at.x, at.y, at.w - 2, at.h - 2};
    if (!m->there) {
        canvas_fill(c, inside, canvas_theme(c, CANVAS_PANEL));
        return;
    }
    canvas_colour colour = colour_of(c, strength_of(m->bits));
    canvas_fill(c, inside, colour);
    bits_text(p, m->bits, number, sizeof number);
    snprintf(text, sizeof text, "%s%s%s", name ? name : "", name ? "  " : "", format_get(m->type)->name);
    double bold = canvas_text_width(c, text, head_font), light = canvas_text_width(c, number, small_font);
    double x = at.x + (at.w - 2 - bold - 7 - light) / 2, y = at.y + (at.h - 2) / 2 + 4;
    canvas_text(c, x, y, text, head_font, CANVAS_LEFT, ink_on(c, colour));
    canvas_text(c, x + bold + 7, y, number, small_font, CANVAS_LEFT, ink_on(c, colour));
}

static void draw_bar(const picture *p, canvas *c, const report_matrix *m, int n, double y)
{
    char text[32];
    double sum = sum_of(m, n), h = row_of(p), x = WIDTH - SIDE - BARS_WIDE + BARS_GAP;
    double wide = BARS_WIDE - BARS_GAP - NUMBER_WIDE;
    if (isnan(p->most))
        return;
    canvas_fill(c, (box){x, y + h / 2 - 6, wide, 10}, canvas_theme(c, CANVAS_GRID));
    if (p->most > 0 && sum > 0)
        canvas_fill(c, (box){x, y + h / 2 - 6, wide * sum / p->most, 10}, canvas_theme(c, CANVAS_SERIES + 1));
    canvas_text(c, WIDTH - SIDE, y + h / 2 + 3, nats_text(p, sum, p->most, text, sizeof text), small_font, CANVAS_RIGHT,
                canvas_theme(c, CANVAS_INK));
}

/* Embedding and output share a row as wide as the layers'. */
static void draw_heads(const picture *p, canvas *c, double y)
{
    box at = cells_at(p, y);
    int n = p->rep.head[0].there + p->rep.head[1].there, done = 0;
    for (int i = 0; i < REPORT_HEADS; i++)
        if (p->rep.head[i].there)
            draw_cell(p, c, (box){at.x + at.w * done++ / n, y, at.w / n, at.h}, &p->rep.head[i], report_heads[i]);
    draw_bar(p, c, p->rep.head, REPORT_HEADS, y);
}

static void draw_columns(const picture *p, canvas *c, double y)
{
    box at = cells_at(p, y);
    char text[64];
    canvas_text(c, at.x - 12, y + 14, say(p, "layer", "katman"), head_font, CANVAS_RIGHT, canvas_theme(c, CANVAS_INK));
    for (int k = 0; k < REPORT_KINDS; k++) {
        double middle = at.x + (k + 0.5) * at.w / REPORT_KINDS - 1;
        int n_experts = experts_of(p, k);
        canvas_text(c, middle, y + 14, report_kinds[k], head_font, CANVAS_CENTRE, canvas_theme(c, CANVAS_INK));
        snprintf(text, sizeof text, say(p, "of %d experts", "%d uzmanın"), n_experts);
        if (n_experts > 1)
            canvas_text(c, middle, y + 28, text, small_font, CANVAS_CENTRE, canvas_theme(c, CANVAS_FAINT_INK));
    }
}

static void draw_layer(const picture *p, canvas *c, int l, double y)
{
    char text[32];
    box at = cells_at(p, y);
    snprintf(text, sizeof text, "%d", l);
    canvas_text(c, at.x - 12, y + at.h / 2 + 3, text, head_font, CANVAS_RIGHT, canvas_theme(c, CANVAS_INK));
    for (int k = 0; k < REPORT_KINDS; k++)
        draw_cell(p, c, (box){at.x + k * at.w / REPORT_KINDS, y, at.w / REPORT_KINDS, at.h}, &p->rep.of[l][k], NULL);
    draw_bar(p, c, p->rep.of[l], REPORT_KINDS, y);
}

static double columns_high(const picture *p)
{
    for (int k = 0; k < REPORT_KINDS; k++)
        if (experts_of(p, k) > 1)
            return 38;
    return 24;
}

static double map_high(const picture *p)
{
    return 22 + has_heads(p) * (row_of(p) + 8) + (p->rep.n_layers > 0) * columns_high(p) + p->rep.n_layers * row_of(p);
}

static void draw_map(const picture *p, canvas *c, double y)
{
    if (!isnan(p->most))
        canvas_text(c, WIDTH - SIDE - BARS_WIDE + BARS_GAP, y + 12,
                    say(p, "expected divergence of the row", "satırın beklenen ıraksaması"), head_font, CANVAS_LEFT,
                    canvas_theme(c, CANVAS_INK));
    y += 22;
    if (has_heads(p)) {
        draw_heads(p, c, y);
        y += row_of(p) + 8;
    }
    if (p->rep.n_layers == 0)
        return;
    draw_columns(p, c, y);
    for (int l = 0; l < p->rep.n_layers; l++)
        draw_layer(p, c, l, y + columns_high(p) + l * row_of(p));
}

/* ---- the curve ---- */

/* The file itself: what was expected of it and what was measured. */
static int add_marks(const picture *p, const double *size, chart_series *out, char texts[2][96])
{
    char number[32];
    const double *const values[2] = {&p->rep.divergence, &p->rep.kld};
    const char *const names[2] = {say(p, "this file, expected", "bu dosya, beklenen"),
                                  say(p, "this file, measured", "bu dosya, ölçülen")};
    int n = 0;
    for (int i = 0; i < 2; i++) {
        if (!(*values[i] > 0) || (i == 1 && !p->rep.measured))
            continue;
        snprintf(texts[i], sizeof texts[i], "%s: %s", names[i], nats_text(p, *values[i], *values[i], number, sizeof number));
        out[n++] = (chart_series){.x = size, .y = values[i], .n = 1, .colour = CANVAS_INK, .mark = texts[i], .ring = i == 1};
    }
    return n;
}

static void draw_curve(picture *p, canvas *c, double y)
{
    const char *names[REPORT_WAYS];
    chart_series series[REPORT_WAYS + 2];
    char texts[2][96];
    int n = 0;
    bool big = p->rep.in_bytes >= 1e10;
    double unit = big ? 1e9 : 1e6, size = p->rep.out_bytes / unit;
    for (int k = REPORT_WAYS; k-- > 0;) { /* the game on top: where it agrees with others they show at its sides */
        report_way *w = &p->rep.ways[k];
        names[k] = report_way_titles[k][p->r->turkish];
        for (size_t i = 0; i < w->n; i++)
            w->bytes[i] /= unit;
        series[n++] = (chart_series){.x = w->bytes,
                                     .y = w->divergence,
                                     .n = w->n,
                                     .colour = CANVAS_SERIES + k,
                                     .width = report_way_widths[k],
                                     .dots = k == REPORT_GAME};
    }
    n += add_marks(p, &size, series + n, texts);
    chart_panel panel = {.title = say(p, "Expected divergence by the size of the file", "Dosyanın boyuna göre beklenen ıraksama"),
                         .x_name = big ? "GB" : "MB",
                         .series = series,
                         .n_series = n,
                         .log_y = true,
                         .no_ends = true,
                         .turkish = p->r->turkish};
    box at = {SIDE, y, WIDTH - 2 * SIDE, CHART_HIGH};
    chart_draw(c, at, &panel);
    chart_legend(c, at.x + at.w - 640, y + 5, 640, names, REPORT_WAYS, true);
}

/* ---- the picture ---- */

/* Draws, or with draw false only measures; returns the height. */
static double lay_out(picture *p, canvas *c, const char *title, bool draw)
{
    box text = {SIDE, 64, WIDTH - 2 * SIDE, 0};
    if (draw)
        canvas_text(c, SIDE, 40, title, title_font, CANVAS_LEFT, canvas_theme(c, CANVAS_INK));
    double y = canvas_wrap(c, text, p->subtitle.p, text_font, canvas_theme(c, CANVAS_FAINT_INK), draw);
    y = draw_facts(p, c, y, draw) + 8;
    if (draw) {
        draw_scale(p, c, y);
        draw_map(p, c, y + 32);
    }
    y += 32 + map_high(p) + 24;
    if (draw && has_curve(p))
        draw_curve(p, c, y);
    return y + (has_curve(p) ? CHART_HIGH + SIDE : 0);
}

static void find_most(picture *p)
{
    p->most = sum_of(p->rep.head, REPORT_HEADS);
    for (int l = 0; l < p->rep.n_layers; l++)
        p->most = fmax(p->most, sum_of(p->rep.of[l], REPORT_KINDS)); /* of a number and NAN the number */
}

static dil_status make(picture *p, strbuf *out, dil_error *err)
{
    const char *title = say(p, "How many bits each matrix got", "Her matrise düşen bit");
    canvas *c = NULL;
    DIL_TRY(report_read(&p->rep, p->r->inputs[0], err));
    find_most(p);
    write_facts(p);
    write_subtitle(p);
    write_about(p);
    write_figures(p);
    if (p->subtitle.failed || p->about.failed)
        return DIL_FAIL(err, DIL_NO_MEMORY, "bits: no memory");
    DIL_TRY(canvas_new(&c, p->r, WIDTH, 100, err));
    double height = lay_out(p, c, title, false);
    canvas_free(c);
    DIL_TRY(canvas_new(&c, p->r, WIDTH, height, err));
    lay_out(p, c, title, true);
    dil_status status = page_finish(c, p->r, title, p->about.p, &p->figures, out, err);
    canvas_free(c);
    return status;
}

dil_status view_bits(strbuf *out, const view_request *r, dil_error *err)
{
    if (r->n_inputs != 1)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "bits: wanted 1 report of dil quantize, found %d", r->n_inputs);
    picture *p = mem_calloc(1, sizeof *p, MEM_MISC);
    if (!p)
        return DIL_FAIL(err, DIL_NO_MEMORY, "bits: no memory");
    p->r = r;
    p->subtitle = STRBUF(1 << 14);
    p->about = STRBUF(1 << 20);
    p->figures = PAGE_FIGURES;
    dil_status status = make(p, out, err);
    strbuf_free(&p->subtitle);
    strbuf_free(&p->about);
    strbuf_free(&p->figures.html);
    mem_free(p);
    return status;
}
