/*
 * The flock as one web page: flock.html, with the style, the script and the data in their places. Everything is computed here; the
 * script draws. Positions, loads and prices are whole numbers of 16 bits in base 64, little-endian: value = low + number * step.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "view/chart.h"
#include "view/flock_birds.h"
#include "view/flock_text.h"
#include "view/page.h"

extern const unsigned char flock_html[], flock_css[], flock_js[]; /* cmake/embed.cmake */
extern const size_t flock_html_size, flock_css_size, flock_js_size;

#define MOST_PAGE_BYTES ((size_t)128 << 20)

typedef struct page {
    const view_request *r;
    const flock_scene *s;
    strbuf *out;
} page;

/* ---- numbers and texts ---- */

/* A JSON string that may stand inside <script>. */
static void add_string(strbuf *out, const char *text)
{
    strbuf_add_char(out, '"');
    for (size_t i = 0, n = strlen(text); i < n;) {
        uint32_t code = 0;
        int length = utf8_decode(text + i, n - i, &code);
        if (length == 0)
            strbuf_printf(out, "\\ufffd");
        else if (code < ' ' || code == '"' || code == '\\' || code == '<' || code == '>' || code == '&' || code == 0x2028 ||
                 code == 0x2029)
            strbuf_printf(out, "\\u%04x", code);
        else
            strbuf_add(out, text + i, (size_t)length);
        i += length > 0 ? (size_t)length : 1;
    }
    strbuf_add_char(out, '"');
}

static void add_text_field(strbuf *out, const char *key,
                           void (*say)(strbuf *out, const flock_scene *s, const flock_layer *l, bool turkish), const page *p,
                           const flock_layer *l)
{
    strbuf text = STRBUF(1 << 16);
    say(&text, p->s, l, p->r->turkish);
    strbuf_printf(out, ",\"%s\":", key);
    add_string(out, text.p ? text.p : "");
    out->failed = out->failed || text.failed;
    strbuf_free(&text);
}

/* Bytes in groups of three. */
typedef struct base64 {
    strbuf *out;
    uint32_t bits;
    int n;
} base64;

static void add_byte(base64 *b, unsigned byte)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    b->bits = b->bits << 8 | byte;
    if (++b->n < 3)
        return;
    char four[4];
    for (int i = 0; i < 4; i++)
        four[i] = letters[b->bits >> (18 - 6 * i) & 63];
    strbuf_add(b->out, four, 4);
    b->bits = 0;
    b->n = 0;
}

static void add_u16(base64 *b, uint32_t v)
{
    add_byte(b, v & 255);
    add_byte(b, v >> 8);
}

/* The last group is filled with zeros: numbers behind the last one, which the reader does not ask for. */
static void end_base64(base64 *b)
{
    while (b->n)
        add_byte(b, 0);
}

static uint32_t whole(double v, double low, double step)
{
    double n = step > 0 ? (v - low) / step : 0;
    return n >= 0 && n <= 65535 ? (uint32_t)lrint(n) : n > 65535 ? 65535 : 0;
}

/* Values that lie `apart` floats from one another; NAN is the highest number, so step leaves it free. */
static void add_packed(const page *p, const char *key, const float *v, size_t n, size_t apart, double low, double high)
{
    double step = high > low ? (high - low) / 65534 : 1;
    base64 b = {.out = p->out};
    strbuf_printf(p->out, ",\"%s\":{\"low\":%.9g,\"step\":%.9g,\"v\":\"", key, low, step);
    for (size_t i = 0; i < n; i++)
        add_u16(&b, isnan(v[i * apart]) ? 65535 : whole((double)v[i * apart], low, step));
    end_base64(&b);
    strbuf_add_str(p->out, STR("\"}"));
}

static void add_numbers(const page *p, const char *key, const double *v, size_t n, bool first)
{
    strbuf_printf(p->out, "%s\"%s\":[", first ? "" : ",", key);
    for (size_t i = 0; i < n; i++)
        strbuf_printf(p->out, i ? ",%.5g" : "%.5g", v[i]);
    strbuf_add_char(p->out, ']');
}

/* ---- a layer ---- */

static void add_edges(const page *p, const flock_layer *l)
{
    base64 b = {.out = p->out};
    double most = 0;
    for (int64_t e = 0; e < l->graph.first[l->n]; e++)
        most = fmax(most, (double)l->graph.weight[e]);
    strbuf_printf(p->out, ",\"n_edges\":%lld,\"edges\":\"", (long long)l->graph.first[l->n] / 2);
    for (int32_t i = 0; i < l->n; i++)
        for (int64_t e = l->graph.first[i]; e < l->graph.first[i + 1]; e++)
            if (l->graph.other[e] > i) {
                add_u16(&b, (uint32_t)i);
                add_u16(&b, (uint32_t)l->graph.other[e]);
                add_u16(&b, most > 0 ? whole((double)l->graph.weight[e], 0, most / 65535) : 0);
            }
    end_base64(&b);
    strbuf_add_char(p->out, '"');
}

static void add_flight(const page *p, const flock_layer *l, const flock_scale *scale)
{
    const size_t n = (size_t)l->n, all = n * p->s->n_steps;
    add_packed(p, "home_x", &l->home[0].x, n, 2, scale->x0, scale->x1);
    add_packed(p, "home_y", &l->home[0].y, n, 2, scale->y0, scale->y1);
    if (all && l->at) {
        add_packed(p, "x", &l->at[0].x, all, 2, scale->x0, scale->x1);
        add_packed(p, "y", &l->at[0].y, all, 2, scale->y0, scale->y1);
        add_packed(p, "target_x", &l->target[0].x, p->s->n_steps, 2, scale->x0, scale->x1);
        add_packed(p, "target_y", &l->target[0].y, p->s->n_steps, 2, scale->y0, scale->y1);
    }
    if (all && l->load)
        add_packed(p, "load", l->load, all, 1, 0, scale->load);
    if (all && l->price)
        add_packed(p, "price", l->price, all, 1, scale->least_price, scale->price);
    if (all && l->chosen) {
        base64 b = {.out = p->out};
        strbuf_add_str(p->out, STR(",\"chosen\":\""));
        for (size_t i = 0; i < (size_t)p->s->n_steps * p->s->n_used; i++)
            add_u16(&b, l->chosen[i]);
        end_base64(&b);
        strbuf_add_char(p->out, '"');
    }
}

static void add_curves(const page *p, const flock_layer *l)
{
    static const char *const names[FLOCK_CURVES] = {[FLOCK_ALIGNMENT] = "alignment",
                                                    [FLOCK_CHANCE] = "chance",
                                                    [FLOCK_COHESION] = "cohesion",
                                                    [FLOCK_SEPARATION] = "separation",
                                                    [FLOCK_VIOLATION] = "violation"};
    const size_t n = p->s->n_steps;
    double *smooth = mem_alloc((2 * n + 1) * sizeof *smooth, MEM_MISC);
    bool first = true;
    p->out->failed = p->out->failed || !smooth;
    strbuf_add_str(p->out, STR(",\"curves\":{"));
    for (int c = 0; c < FLOCK_CURVES && smooth && n; c++) {
        if (!l->curve[c])
            continue;
        strbuf_printf(p->out, "%s\"%s\":{", first ? "" : ",", names[c]);
        add_numbers(p, "v", l->curve[c], n, true);
        chart_smooth(l->curve[c], n, smooth, smooth + n);
        add_numbers(p, "smooth", smooth + n, n, false);
        strbuf_add_char(p->out, '}');
        first = false;
    }
    strbuf_add_char(p->out, '}');
    mem_free(smooth);
}

static void say_game(strbuf *out, const flock_scene *s, const flock_layer *l, bool turkish)
{
    (void)s;
    flock_say_game(out, l, turkish);
}

static void add_game(const page *p, const flock_layer *l)
{
    if (!l->game.n)
        return;
    strbuf_add_str(p->out, STR(",\"game\":{"));
    add_numbers(p, "potential", l->game.potential, l->game.n, true);
    if (l->game.gap)
        add_numbers(p, "gap", l->game.gap, l->game.n, false);
    add_text_field(p->out, "text", say_game, p, l);
    strbuf_add_char(p->out, '}');
}

static void add_layer(const page *p, const flock_layer *l)
{
    const flock_scale scale = flock_scale_of(p->s, l);
    strbuf_printf(
        p->out, "{\"index\":%d,\"n\":%d,\"load_most\":%.6g,\"price_most\":%.6g,\"price_least\":%.6g,\"box\":[%.6g,%.6g,%.6g,%.6g]",
        l->index, l->n, scale.load, scale.price, scale.least_price, scale.x0, scale.y0, scale.x1, scale.y1);
    add_text_field(p->out, "subtitle", flock_say_subtitle, p, l);
    add_text_field(p->out, "kept", flock_say_kept, p, l);
    add_edges(p, l);
    add_flight(p, l, &scale);
    add_curves(p, l);
    add_game(p, l);
    strbuf_add_char(p->out, '}');
}

/* ---- the data ---- */

static void say_notes(strbuf *out, const flock_scene *s, const flock_layer *l, bool turkish)
{
    (void)l;
    flock_say_notes(out, s, turkish);
}

static void add_labels(const page *p)
{
    strbuf_add_str(p->out, STR(",\"labels\":{"));
    for (int i = 0; i < FLOCK_LABELS; i++) {
        strbuf_printf(p->out, "%s\"%s\":", i ? "," : "", flock_label_key((flock_label)i));
        add_string(p->out, flock_say(p->s, p->r->turkish, (flock_label)i));
    }
    strbuf_add_char(p->out, '}');
}

static void add_data(const page *p)
{
    const flock_scene *s = p->s;
    char name[FLOCK_NAME_BYTES];
    strbuf_printf(p->out, "{\"first\":%llu,\"total\":%llu,\"steps\":%u,\"used\":%u,\"shown\":%d,\"turkish\":%s",
                  (unsigned long long)s->first, (unsigned long long)s->n_all, s->n_steps, s->n_used, s->shown,
                  p->r->turkish ? "true" : "false");
    add_labels(p);
    add_text_field(p->out, "notes", say_notes, p, NULL);
    strbuf_add_str(p->out, STR(",\"bird\":["));
    for (int i = 0; i < FLOCK_OUTLINE; i++)
        strbuf_printf(p->out, "%s[%.3f,%.3f]", i ? "," : "", flock_outline()[i][0], flock_outline()[i][1]);
    strbuf_add_char(p->out, ']');
    for (int32_t i = 0; s->names && i < s->layers[0].n; i++) {
        strbuf_add_str(p->out, i ? STR(",") : STR(",\"names\":["));
        add_string(p->out, flock_name(s, i, name));
    }
    strbuf_add_str(p->out, s->names ? STR("]") : STR(""));
    for (uint32_t t = 0; s->texts && t < s->n_steps; t++) {
        strbuf_add_str(p->out, t ? STR(",") : STR(",\"texts\":["));
        add_string(p->out, s->texts[t]);
    }
    strbuf_add_str(p->out, s->texts ? STR("],\"layers\":[") : STR(",\"layers\":["));
    for (int32_t i = 0; i < s->n_layers; i++) {
        strbuf_add_str(p->out, i ? STR(",\n") : STR("\n"));
        add_layer(p, &s->layers[i]);
    }
    strbuf_add_str(p->out, STR("]}"));
}

/* ---- the figures ---- */

static double mean_of(const double *v, size_t n)
{
    double sum = 0;
    for (size_t i = 0; v && i < n; i++)
        sum += v[i] / (double)n;
    return sum;
}

static void number_cell(page_figures *f, const page *p, bool known, double v, double step)
{
    char text[64];
    page_cell(f, known ? chart_number(v, step, p->r->turkish, text, sizeof text) : "");
}

static void add_figures(const page *p)
{
    static const flock_label heads[] = {FLOCK_SAY_LAYER,  FLOCK_SAY_EXPERTS,  FLOCK_SAY_NEAR,       FLOCK_SAY_ALIGNMENT,
                                        FLOCK_SAY_BY_LOT, FLOCK_SAY_COHESION, FLOCK_SAY_SEPARATION, FLOCK_SAY_VIOLATION,
                                        FLOCK_SAY_MOVES,  FLOCK_SAY_POTENTIAL};
    static const double steps[FLOCK_CURVES] = {[FLOCK_ALIGNMENT] = 1e-3,
                                               [FLOCK_CHANCE] = 1e-3,
                                               [FLOCK_COHESION] = 1e-3,
                                               [FLOCK_SEPARATION] = 1e-3,
                                               [FLOCK_VIOLATION] = 0.01};
    page_figures f = PAGE_FIGURES;
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        page_cell(&f, flock_say(p->s, p->r->turkish, heads[i]));
    page_row_end(&f);
    for (int32_t i = 0; i < p->s->n_layers; i++) {
        const flock_layer *l = &p->s->layers[i];
        const flock_game *g = &l->game;
        char before[32], after[32], both[80];
        number_cell(&f, p, true, l->index, 1);
        number_cell(&f, p, true, l->n, 1);
        number_cell(&f, p, l->n_near > 0, l->kept, 0.01);
        for (int c = 0; c < FLOCK_CURVES; c++)
            number_cell(&f, p, l->curve[c] && p->s->n_steps, mean_of(l->curve[c], p->s->n_steps), steps[c]);
        number_cell(&f, p, g->n > 0, (double)g->n - 1, 1);
        (void)snprintf(both, sizeof both, "%s → %s",
                       chart_number(g->n ? g->potential[0] : 0, 0, p->r->turkish, before, sizeof before),
                       chart_number(g->n ? g->potential[g->n - 1] : 0, 0, p->r->turkish, after, sizeof after));
        page_cell(&f, g->n ? both : "");
        page_row_end(&f);
    }
    p->out->failed = p->out->failed || f.html.failed;
    strbuf_add_str(p->out, strbuf_str(&f.html));
    strbuf_free(&f.html);
}

/* ---- the page ---- */

static void fill(const page *p, str name)
{
    if (str_equal(name, STR("lang")))
        strbuf_add_str(p->out, p->r->turkish ? STR("tr") : STR("en"));
    else if (str_equal(name, STR("theme")))
        strbuf_add_str(p->out, p->r->any_theme ? STR("auto") : p->r->dark ? STR("dark") : STR("light"));
    else if (str_equal(name, STR("title")))
        page_text(p->out, flock_say(p->s, p->r->turkish, FLOCK_SAY_TITLE));
    else if (str_equal(name, STR("style")))
        strbuf_add(p->out, flock_css, flock_css_size);
    else if (str_equal(name, STR("script")))
        strbuf_add(p->out, flock_js, flock_js_size);
    else if (str_equal(name, STR("figures")))
        add_figures(p);
    else if (str_equal(name, STR("data")))
        add_data(p);
    else
        p->out->failed = true;
}

/* What stands between {{ and }} is replaced. */
dil_status flock_page(strbuf *out, const view_request *r, const flock_scene *s, dil_error *err)
{
    strbuf made = STRBUF(MOST_PAGE_BYTES);
    const page p = {r, s, &made};
    str rest = {(const char *)flock_html, flock_html_size};
    for (ptrdiff_t at; (at = str_find(rest, STR("{{"))) >= 0;) {
        str name = {rest.p + at + 2, rest.n - (size_t)at - 2};
        ptrdiff_t end = str_find(name, STR("}}"));
        if (end < 0)
            break;
        strbuf_add(&made, rest.p, (size_t)at);
        fill(&p, (str){name.p, (size_t)end});
        rest = (str){name.p + end + 2, name.n - (size_t)end - 2};
    }
    strbuf_add_str(&made, rest);
    strbuf_add_str(out, strbuf_str(&made));
    bool failed = made.failed || out->failed;
    strbuf_free(&made);
    return failed ? DIL_FAIL(err, DIL_LIMIT, "flock: the page does not fit into memory or %zu MB; wanted fewer steps (--frames)",
                             MOST_PAGE_BYTES >> 20)
                  : DIL_OK;
}
