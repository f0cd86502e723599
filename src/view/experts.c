/* Which experts serve which text: a heat map of the shares of choices, and per layer how far apart the texts are. */
#include <math.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/status.h"
#include "view/chart.h"
#include "view/page.h"
#include "view/shares.h"
#include "view/view.h"

enum { WIDTH = 1280, SIDE = 24, LAYER_WIDE = 44, NAME_WIDE = 110, FAR_WIDE = 190, BAR_WIDE = 110, ROW = 17, BLOCK_GAP = 9 };

static const canvas_font title_font = {20, true}, text_font = {12.5, false}, head_font = {11.5, true}, small_font = {11, false};

typedef struct picture {
    const view_request *r;
    shares s;
    char names[VIEW_MOST_INPUTS][PAGE_NAME_BYTES];
    strbuf subtitle, caption, about;
    page_figures figures;
} picture;

static double block_of(const picture *p) { return p->s.n_logs * ROW + BLOCK_GAP; }
static const char *say(const picture *p, const char *english, const char *turkish) { return p->r->turkish ? turkish : english; }

/* ---- texts ---- */

static void write_subtitle(picture *p)
{
    uint32_t least = UINT32_MAX, most = 0;
    char tokens[32];
    for (uint32_t l = 0; l < p->s.n_layers; l++) {
        least = p->s.layers[l].n_experts < least ? p->s.layers[l].n_experts : least;
        most = p->s.layers[l].n_experts > most ? p->s.layers[l].n_experts : most;
    }
    const char *slash = strrchr(p->s.model, '/');
    strbuf_printf(&p->subtitle, "%s: %u %s, ", slash ? slash + 1 : p->s.model, p->s.n_layers,
                  say(p, "layers with experts", "uzmanlı katman"));
    strbuf_printf(&p->subtitle, least == most ? "%u" : "%u-%u", least, most);
    strbuf_printf(&p->subtitle, say(p, " experts in each, %u serve a token.", " uzman; her belirtece %u tanesi hizmet eder."),
                  p->s.n_used);
    for (int i = 0; i < p->s.n_logs; i++)
        strbuf_printf(&p->subtitle, "%s %s: %s %s", i ? "," : "", p->names[i],
                      chart_number((double)p->s.n_tokens[i], 0, p->r->turkish, tokens, sizeof tokens),
                      say(p, "tokens", "belirteç"));
}

static void write_caption(picture *p)
{
    strbuf_add_str(&p->caption,
                   str_of(say(p,
                              "Every row is a text, every cell an expert of the layer: how often the text's tokens chose it, "
                              "compared with all experts being chosen equally often. ",
                              "Her satır bir metin, her hücre katmanın bir uzmanıdır: metnin belirteçleri onu, bütün uzmanlar eşit "
                              "seçilseydi olacağına göre ne kadar seçmiş. ")));
    if (p->s.n_logs == 1)
        strbuf_add_str(&p->caption,
                       str_of(say(p, "The most used experts stand on the left.", "En çok kullanılan uzmanlar soldadır.")));
    else
        strbuf_add_str(
            &p->caption,
            str_of(say(p,
                       "The experts of a layer are ordered by whom they serve, so the same column is another expert in "
                       "every layer. On the right: how far apart the texts are (Jensen-Shannon divergence; 0: the same "
                       "experts alike, 1 bit: no expert in common). The thin mark is what chance alone would show.",
                       "Uzmanlar kime hizmet ettiklerine göre dizilidir; aynı sütun her katmanda başka bir uzmandır. Sağda: "
                       "metinlerin birbirine uzaklığı (Jensen-Shannon ıraksaması; 0: aynı uzmanlar aynı ölçüde, 1 bit: "
                       "ortak uzman yok). İnce çizgi, yalnız rastlantının göstereceği uzaklıktır.")));
}

/* ---- colours ---- */

/* Blue for less, orange for more than even, by the logarithm; full at a quarter and at four times. */
static canvas_colour colour_of(const canvas *c, double relative)
{
    canvas_colour even = canvas_mix(canvas_theme(c, CANVAS_PANEL), canvas_theme(c, CANVAS_GRID), 0.7);
    double at = relative > 0 ? fmax(-1, fmin(1, log2(relative) / 2)) : -1;
    return canvas_mix(even, canvas_theme(c, CANVAS_SERIES + (at > 0 ? 1 : 0)), fabs(at));
}

static void draw_scale(const picture *p, canvas *c, double x, double y)
{
    static const char *const marks[2][5] = {{"1/4 or less", "1/2", "even", "2 times", "4 times or more"},
                                            {"1/4 ya da az", "1/2", "eşit", "2 kat", "4 kat ya da çok"}};
    const int steps = 96;
    const double wide = 384;
    canvas_text(c, x, y + 12, say(p, "Chosen, beside an even share:", "Eşit paya göre seçilme:"), text_font, CANVAS_LEFT,
                canvas_theme(c, CANVAS_INK));
    x += canvas_text_width(c, say(p, "Chosen, beside an even share:", "Eşit paya göre seçilme:"), text_font) + 56;
    for (int i = 0; i < steps; i++)
        canvas_fill(c, (box){x + i * wide / steps, y, wide / steps + 0.5, 14}, colour_of(c, exp2(4 * (i + 0.5) / steps - 2)));
    for (int i = 0; i < 5; i++) {
        canvas_line(c, x + i * wide / 4, y + 14, x + i * wide / 4, y + 18, canvas_theme(c, CANVAS_AXIS), 1);
        canvas_text(c, x + i * wide / 4, y + 29, marks[p->r->turkish][i], small_font, CANVAS_CENTRE,
                    canvas_theme(c, CANVAS_FAINT_INK));
    }
}

/* ---- the map ---- */

static box map_of(double y)
{
    return (box){SIDE + LAYER_WIDE + NAME_WIDE, y, WIDTH - 2 * SIDE - LAYER_WIDE - NAME_WIDE - FAR_WIDE, ROW};
}

/* Where there are more experts than pixels, a cell is the mean of several neighbours in the order. */
static void draw_row(const picture *p, canvas *c, const shares_layer *l, int log, double y)
{
    box map = map_of(y);
    uint32_t cells = l->n_experts < (uint32_t)map.w ? l->n_experts : (uint32_t)map.w;
    double w = map.w / cells;
    (void)p;
    for (uint32_t i = 0; i < cells; i++) {
        uint32_t from = (uint32_t)((uint64_t)i * l->n_experts / cells), to = (uint32_t)((uint64_t)(i + 1) * l->n_experts / cells);
        double sum = 0;
        for (uint32_t e = from; e < to; e++)
            sum += l->share[(size_t)log * l->n_experts + l->order[e]];
        canvas_fill(c, (box){map.x + i * w, y, w >= 6 ? w - 1 : w + 0.3, ROW - 1}, colour_of(c, sum / (to - from) * l->n_experts));
    }
}

static void draw_far(const picture *p, canvas *c, const shares_layer *l, double y, double h)
{
    char text[64], number[32];
    double x = WIDTH - SIDE - FAR_WIDE + 16, middle = y + h / 2;
    canvas_fill(c, (box){x, middle - 5, BAR_WIDE, 10}, canvas_theme(c, CANVAS_GRID));
    canvas_fill(c, (box){x, middle - 5, BAR_WIDE * l->divergence, 10}, canvas_theme(c, CANVAS_SERIES + 2));
    double mark = x + BAR_WIDE * l->by_chance;
    canvas_line(c, mark, middle - 8, mark, middle + 8, canvas_theme(c, CANVAS_INK), 1.2);
    snprintf(text, sizeof text, "%s bit", chart_number(l->divergence, 0.01, p->r->turkish, number, sizeof number));
    canvas_text(c, WIDTH - SIDE, middle + 4, text, small_font, CANVAS_RIGHT, canvas_theme(c, CANVAS_INK));
}

static void draw_layer(const picture *p, canvas *c, const shares_layer *l, double y)
{
    char text[PAGE_NAME_BYTES];
    double h = p->s.n_logs * ROW;
    snprintf(text, sizeof text, "%u", l->layer);
    canvas_text(c, SIDE + LAYER_WIDE - 16, y + h / 2 + 3.5, text, head_font, CANVAS_RIGHT, canvas_theme(c, CANVAS_INK));
    for (int log = 0; log < p->s.n_logs; log++) {
        draw_row(p, c, l, log, y + log * ROW);
        canvas_fit(c, p->names[log], small_font, NAME_WIDE - 12, text, sizeof text);
        canvas_text(c, SIDE + LAYER_WIDE + NAME_WIDE - 8, y + log * ROW + 12, text, small_font, CANVAS_RIGHT,
                    canvas_theme(c, CANVAS_FAINT_INK));
    }
    if (p->s.n_logs > 1)
        draw_far(p, c, l, y, h);
}

static void draw_heads(const picture *p, canvas *c, double y)
{
    box map = map_of(y);
    char left[256], right[256], name[128];
    canvas_colour ink = canvas_theme(c, CANVAS_INK);
    canvas_text(c, SIDE, y, say(p, "layer", "katman"), head_font, CANVAS_LEFT, ink);
    canvas_text(c, map.x - 8, y, say(p, "text", "metin"), head_font, CANVAS_RIGHT, ink);
    if (p->s.n_logs == 1) {
        canvas_text(c, map.x, y, say(p, "experts, the most used first", "uzmanlar, en çok kullanılan başta"), head_font,
                    CANVAS_LEFT, ink);
        return;
    }
    bool two = p->s.n_logs == 2;
    canvas_fit(c, p->names[0], head_font, map.w / 2 - 190, name, sizeof name);
    snprintf(left, sizeof left, say(p, two ? "← experts of %s" : "← experts that %s takes most", "← %s metninin uzmanları"), name);
    canvas_fit(c, p->names[p->s.n_logs - 1], head_font, map.w / 2 - 190, name, sizeof name);
    snprintf(right, sizeof right, say(p, two ? "experts of %s →" : "experts that %s takes most →", "%s metninin uzmanları →"),
             name);
    canvas_text(c, map.x, y, left, head_font, CANVAS_LEFT, ink);
    canvas_text(c, map.x + map.w, y, right, head_font, CANVAS_RIGHT, ink);
    canvas_text(c, WIDTH - SIDE, y, say(p, "how far apart (0-1 bit)", "uzaklık (0-1 bit)"), head_font, CANVAS_RIGHT, ink);
}

/* ---- figures ---- */

/* The experts at one end of the order: "12, 3, 40". */
static void add_experts(picture *p, const shares_layer *l, bool last)
{
    strbuf cell = STRBUF(256);
    for (uint32_t i = 0; i < 4 && i < l->n_experts; i++)
        strbuf_printf(&cell, "%s%u", i ? ", " : "", l->order[last ? l->n_experts - 1 - i : i]);
    page_cell(&p->figures, cell.p ? cell.p : "");
    strbuf_free(&cell);
}

static void write_figures(picture *p)
{
    char text[PAGE_NAME_BYTES + 64];
    page_cell(&p->figures, say(p, "layer", "katman"));
    page_cell(&p->figures, say(p, "experts", "uzman"));
    page_cell(&p->figures, say(p, "divergence (bit)", "ıraksama (bit)"));
    page_cell(&p->figures, say(p, "by chance (bit)", "rastlantıyla (bit)"));
    for (int end = 0; end < (p->s.n_logs > 1 ? 2 : 1); end++) {
        snprintf(text, sizeof text, say(p, "experts of %s", "%s metninin uzmanları"), p->names[end ? p->s.n_logs - 1 : 0]);
        page_cell(&p->figures, text);
    }
    page_row_end(&p->figures);
    for (uint32_t i = 0; i < p->s.n_layers; i++) {
        const shares_layer *l = &p->s.layers[i];
        snprintf(text, sizeof text, "%u", l->layer);
        page_cell(&p->figures, text);
        snprintf(text, sizeof text, "%u", l->n_experts);
        page_cell(&p->figures, text);
        page_cell(&p->figures, chart_number(l->divergence, 1e-4, p->r->turkish, text, sizeof text));
        page_cell(&p->figures, chart_number(l->by_chance, 1e-4, p->r->turkish, text, sizeof text));
        for (int end = 0; end < (p->s.n_logs > 1 ? 2 : 1); end++)
            add_experts(p, l, end);
        page_row_end(&p->figures);
    }
}

static void write_about(picture *p)
{
    char number[32];
    strbuf_printf(&p->about, "%s %s", p->subtitle.p, p->caption.p);
    for (uint32_t i = 0; i < p->s.n_layers && p->s.n_logs > 1; i++)
        strbuf_printf(&p->about, "%s %s %u: %s bit", i ? "," : "", say(p, "layer", "katman"), p->s.layers[i].layer,
                      chart_number(p->s.layers[i].divergence, 1e-4, p->r->turkish, number, sizeof number));
}

/* ---- the picture ---- */

static void draw(picture *p, canvas *c, const char *title, double head)
{
    canvas_text(c, SIDE, 40, title, title_font, CANVAS_LEFT, canvas_theme(c, CANVAS_INK));
    box text = {SIDE, 64, WIDTH - 2 * SIDE, 0};
    text.y = canvas_wrap(c, text, p->subtitle.p, text_font, canvas_theme(c, CANVAS_INK), true) + 4;
    canvas_wrap(c, text, p->caption.p, text_font, canvas_theme(c, CANVAS_FAINT_INK), true);
    draw_scale(p, c, SIDE, head - 64);
    draw_heads(p, c, head);
    for (uint32_t l = 0; l < p->s.n_layers; l++)
        draw_layer(p, c, &p->s.layers[l], head + 10 + l * block_of(p));
}

/* The base line of the head of the map: below the texts, which must be measured. */
static dil_status measure(const picture *p, double *head, dil_error *err)
{
    canvas *c = NULL;
    DIL_TRY(canvas_new(&c, p->r, WIDTH, 100, err));
    canvas_colour ink = canvas_theme(c, CANVAS_INK);
    double y = canvas_wrap(c, (box){SIDE, 64, WIDTH - 2 * SIDE, 0}, p->subtitle.p, text_font, ink, false) + 4;
    *head = canvas_wrap(c, (box){SIDE, y, WIDTH - 2 * SIDE, 0}, p->caption.p, text_font, ink, false) + 64;
    canvas_free(c);
    return DIL_OK;
}

static dil_status make(picture *p, strbuf *out, dil_error *err)
{
    const char *title = say(p, "Which experts serve which text", "Hangi uzman hangi metne hizmet ediyor");
    canvas *c = NULL;
    double head;
    page_names(p->r, p->names);
    DIL_TRY(shares_read(&p->s, p->r->inputs, p->r->n_inputs, err));
    write_subtitle(p);
    write_caption(p);
    write_about(p);
    write_figures(p);
    if (p->subtitle.failed || p->caption.failed || p->about.failed)
        return DIL_FAIL(err, DIL_NO_MEMORY, "experts: no memory");
    DIL_TRY(measure(p, &head, err));
    DIL_TRY(canvas_new(&c, p->r, WIDTH, head + 10 + p->s.n_layers * block_of(p) + 20, err));
    draw(p, c, title, head);
    dil_status status = page_finish(c, p->r, title, p->about.p, &p->figures, out, err);
    canvas_free(c);
    return status;
}

dil_status view_experts(strbuf *out, const view_request *r, dil_error *err)
{
    if (r->n_inputs < 1 || r->n_inputs > VIEW_MOST_INPUTS)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "experts: wanted 1 to %d router logs, found %d", VIEW_MOST_INPUTS, r->n_inputs);
    picture *p = mem_calloc(1, sizeof *p, MEM_MISC);
    if (!p)
        return DIL_FAIL(err, DIL_NO_MEMORY, "experts: no memory");
    p->r = r;
    p->subtitle = STRBUF(1 << 16);
    p->caption = STRBUF(1 << 14);
    p->about = STRBUF(1 << 22);
    p->figures = PAGE_FIGURES;
    dil_status status = make(p, out, err);
    shares_free(&p->s);
    strbuf_free(&p->subtitle);
    strbuf_free(&p->caption);
    strbuf_free(&p->about);
    strbuf_free(&p->figures.html);
    mem_free(p);
    return status;
}
