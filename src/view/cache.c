/* How often an expert is found in memory, by how many fit there: each policy of the pool and Belady's bound, from router logs. */
#include <math.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/status.h"
#include "experts/simulate.h"
#include "view/chart.h"
#include "view/page.h"
#include "view/view.h"

enum { WIDTH = 1280, SIDE = 24, GAP = 14, PANEL_HIGH = 330, POINTS = 9, LABEL_BYTES = PAGE_NAME_BYTES + 160 };

static const canvas_font title_font = {20, true}, text_font = {12.5, false};

/* In the order of their colours; the bound, which covers the others where they reach it, is drawn first. */
static const policy_kind kinds[POLICY_KINDS] = {POLICY_LRU, POLICY_LFU, POLICY_SWARM, POLICY_STALE, POLICY_BELADY};
static const char *const kind_titles[POLICY_KINDS][2] = {
    {"LRU: least recently used goes", "LRU: en uzun süredir kullanılmayan çıkar"},
    {"LFU: least often used goes", "LFU: en seyrek kullanılan çıkar"},
    {"swarm: least expected use goes", "swarm: beklenen kullanımı en az olan çıkar"},
    {"stale: what this pass has not used goes", "stale: bu geçişte kullanılmayan çıkar"},
    {"Belady: nobody can do better", "Belady: kimse daha iyisini yapamaz"}};

/* Hit rates of one policy, in per cent, at the budgets that are large enough for it. */
typedef struct rates {
    double share[POINTS], rate[POINTS];
    size_t n;
} rates;

typedef struct log_rates {
    rates of[POLICY_KINDS]; /* as kinds */
    double first;           /* share of the requests that are first uses, per cent */
    uint64_t n_tokens, all_bytes;
    uint32_t n_layers, n_experts, n_used;
} log_rates;

typedef struct picture {
    const view_request *r;
    log_rates logs[VIEW_MOST_INPUTS];
    char names[VIEW_MOST_INPUTS][PAGE_NAME_BYTES];
    strbuf about;
    page_figures figures;
} picture;

static const char *say(const picture *p, const char *english, const char *turkish) { return p->r->turkish ? turkish : english; }

/* ---- replaying ---- */

static dil_status replay(const picture *p, log_rates *l, const trace *t, int log, dil_error *err)
{
    const uint64_t runs = (uint64_t)p->r->n_inputs * POLICY_KINDS * POINTS;
    for (int k = 0; k < POLICY_KINDS; k++) {
        rates *out = &l->of[k];
        for (int i = 1; i <= POINTS; i++) {
            simulation s;
            const double share = i / (POINTS + 1.0);
            const uint64_t budget = (uint64_t)(share * (double)l->all_bytes),
                           done = ((uint64_t)log * POLICY_KINDS + (uint64_t)k) * POINTS;
            if (p->r->progress && !p->r->progress(p->r->user, "replaying", done + (uint64_t)i, runs))
                return DIL_FAIL(err, DIL_CANCELLED, "stopped by Ctrl-C");
            if (budget < simulate_least(t, kinds[k]))
                continue;
            DIL_TRY(simulate(t, kinds[k], budget, &s, NULL, err));
            out->share[out->n] = 100 * share;
            out->rate[out->n++] = s.total.requests ? 100 * (double)s.total.hits / (double)s.total.requests : 0;
            l->first = s.total.requests ? 100 * (double)s.first.requests / (double)s.total.requests : 0;
        }
    }
    return DIL_OK;
}

static dil_status read_log(picture *p, int log, dil_error *err)
{
    trace *t = NULL;
    log_rates *l = &p->logs[log];
    DIL_TRY(trace_open(&t, p->r->inputs[log], err));
    dil_status status = DIL_OK;
    if (t->n_tokens == 0 || t->n_places == 0)
        status =
            DIL_FAIL(err, DIL_FORMAT, "%s: wanted at least one token and one layer with experts, found none", p->r->inputs[log]);
    l->n_tokens = t->n_tokens;
    l->n_layers = t->n_places;
    l->n_used = t->n_used;
    l->all_bytes = simulate_all_bytes(t);
    for (uint32_t i = 0; i < t->n_layers; i++)
        l->n_experts += t->layers[i].n_experts;
    if (status == DIL_OK)
        status = replay(p, l, t, log, err);
    size_t n = 0;
    for (int k = 0; k < POLICY_KINDS; k++)
        n += l->of[k].n;
    if (status == DIL_OK && n == 0)
        status = DIL_FAIL(
            err, DIL_LIMIT,
            "%s: wanted experts of which a token's fit into 90 %% of all (with %llu bytes at least), found %llu bytes of experts",
            p->r->inputs[log], (unsigned long long)simulate_least(t, POLICY_LRU), (unsigned long long)l->all_bytes);
    trace_free(t);
    return status;
}

/* ---- the picture ---- */

static int columns_of(const picture *p) { return p->r->n_inputs == 1 ? 1 : 2; }
static int rows_of(const picture *p) { return (p->r->n_inputs + columns_of(p) - 1) / columns_of(p); }

static void label_log(const picture *p, int log, char out[LABEL_BYTES])
{
    const log_rates *l = &p->logs[log];
    char tokens[32], bytes[32], first[32];
    chart_number((double)l->n_tokens, 0, p->r->turkish, tokens, sizeof tokens);
    chart_number(l->first, 0.1, p->r->turkish, first, sizeof first);
    str_bytes(l->all_bytes, bytes, sizeof bytes);
    for (char *c = bytes; p->r->turkish && *c; c++)
        *c = *c == '.' ? ',' : *c;
    snprintf(
        out, LABEL_BYTES,
        say(p, "%s: %s tokens; %u experts in %u layers, %s; %u of each layer serve a token; first uses are %s %% of the requests.",
            "%s: %s belirteç; %u katmanda %u uzman, %s; bir belirtece her katmandan %u tanesi hizmet eder; isteklerin %%%s kadarı ilk kullanımdır."),
        p->names[log], tokens, p->r->turkish ? l->n_layers : l->n_experts, p->r->turkish ? l->n_experts : l->n_layers, bytes,
        l->n_used, first);
}

static void draw_log(picture *p, canvas *c, int log, box at)
{
    static const double widths[POLICY_KINDS] = {1.8, 2, 2.6, 4.6, 6};
    const log_rates *l = &p->logs[log];
    chart_series series[POLICY_KINDS];
    char title[LABEL_BYTES];
    int n = 0;
    for (int k = POLICY_KINDS; k-- > 0;)
        if (l->of[k].n)
            series[n++] = (chart_series){.x = l->of[k].share,
                                         .y = l->of[k].rate,
                                         .n = l->of[k].n,
                                         .colour = CANVAS_SERIES + k,
                                         .width = widths[k],
                                         .dots = k == 2};
    snprintf(title, sizeof title, say(p, "%s: hit rate (%%)", "%s: isabet oranı (%%)"), p->names[log]);
    chart_draw(c, at,
               &(chart_panel){.title = title,
                              .x_name = say(p, "% of the experts that fit into memory", "belleğe sığan uzmanlar, %"),
                              .series = series,
                              .n_series = n,
                              .high_y = 100,
                              .no_ends = true,
                              .turkish = p->r->turkish});
}

static void write_figures(picture *p)
{
    char text[64], label[LABEL_BYTES];
    page_cell(&p->figures, say(p, "hit rate (%)", "isabet oranı (%)"));
    for (int i = 1; i <= POINTS; i++) {
        snprintf(text, sizeof text, say(p, "%d %%", "%%%d"), 100 * i / (POINTS + 1));
        page_cell(&p->figures, text);
    }
    page_row_end(&p->figures);
    for (int log = 0; log < p->r->n_inputs; log++) {
        label_log(p, log, label);
        strbuf_printf(&p->about, " %s", label);
        for (int k = 0; k < POLICY_KINDS; k++) {
            const rates *of = &p->logs[log].of[k];
            snprintf(label, sizeof label, "%s, %s", p->names[log], policy_name(kinds[k]));
            page_cell(&p->figures, label);
            for (size_t i = 0; i + of->n < POINTS; i++)
                page_cell(&p->figures, "");
            strbuf_printf(&p->about, " %s:", policy_name(kinds[k]));
            for (size_t i = 0; i < of->n; i++) {
                page_cell(&p->figures, chart_number(of->rate[i], 0.01, p->r->turkish, text, sizeof text));
                strbuf_printf(&p->about, " %s", text);
            }
            strbuf_add_str(&p->about, STR(" %."));
            page_row_end(&p->figures);
        }
    }
}

static const char *subtitle_of(const picture *p)
{
    return say(
        p,
        "Router logs replayed with the pool's own policies: the share of the requested experts that were in memory, by the share of all "
        "experts' bytes that memory holds. Belady's rule knows the future; first uses cannot be hits of any policy.",
        "Yönlendirici günlükleri, havuzun kendi kurallarıyla yeniden oynatıldı: istenen uzmanların bellekte bulunma oranı; yatayda, uzmanların "
        "baytlarından belleğe sığanların payı. Belady kuralı geleceği bilir; ilk kullanımlar hiçbir kuralda isabet olamaz.");
}

/* Draws, or with draw false only measures; returns the height. */
static double lay_out(picture *p, canvas *c, const char *title, bool draw)
{
    box text = {SIDE, 64, WIDTH - 2 * SIDE, 0};
    const char *names[POLICY_KINDS];
    char label[LABEL_BYTES];
    for (int k = 0; k < POLICY_KINDS; k++)
        names[k] = kind_titles[k][p->r->turkish];
    if (draw)
        canvas_text(c, SIDE, 40, title, title_font, CANVAS_LEFT, canvas_theme(c, CANVAS_INK));
    double y = canvas_wrap(c, text, subtitle_of(p), text_font, canvas_theme(c, CANVAS_FAINT_INK), draw);
    for (int log = 0; log < p->r->n_inputs; log++) {
        label_log(p, log, label);
        y = canvas_wrap(c, (box){SIDE, y, text.w, 0}, label, text_font, canvas_theme(c, CANVAS_FAINT_INK), draw);
    }
    y = chart_legend(c, SIDE, y, WIDTH - 2 * SIDE, names, POLICY_KINDS, draw) + 8;
    double w = (WIDTH - 2 * SIDE - (columns_of(p) - 1) * GAP) / (double)columns_of(p);
    for (int log = 0; draw && log < p->r->n_inputs; log++)
        draw_log(p, c, log,
                 (box){SIDE + log % columns_of(p) * (w + GAP), y + log / columns_of(p) * (PANEL_HIGH + GAP), w, PANEL_HIGH});
    return y + rows_of(p) * (PANEL_HIGH + GAP) + 6;
}

static dil_status make(picture *p, strbuf *out, dil_error *err)
{
    const char *title = say(p, "How often experts are found in memory", "Uzmanların bellekte bulunma sıklığı");
    canvas *c = NULL;
    page_names(p->r, p->names);
    for (int log = 0; log < p->r->n_inputs; log++)
        DIL_TRY(read_log(p, log, err));
    strbuf_add_str(&p->about, str_of(subtitle_of(p)));
    write_figures(p);
    if (p->about.failed)
        return DIL_FAIL(err, DIL_NO_MEMORY, "cache: no memory");
    DIL_TRY(canvas_new(&c, p->r, WIDTH, 100, err));
    double height = lay_out(p, c, title, false);
    canvas_free(c);
    DIL_TRY(canvas_new(&c, p->r, WIDTH, height, err));
    lay_out(p, c, title, true);
    dil_status status = page_finish(c, p->r, title, p->about.p, &p->figures, out, err);
    canvas_free(c);
    return status;
}

dil_status view_cache(strbuf *out, const view_request *r, dil_error *err)
{
    if (r->n_inputs < 1 || r->n_inputs > VIEW_MOST_INPUTS)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "cache: wanted 1 to %d router logs, found %d", VIEW_MOST_INPUTS, r->n_inputs);
    picture *p = mem_calloc(1, sizeof *p, MEM_MISC);
    if (!p)
        return DIL_FAIL(err, DIL_NO_MEMORY, "cache: no memory");
    p->r = r;
    p->about = STRBUF(1 << 20);
    p->figures = PAGE_FIGURES;
    dil_status status = make(p, out, err);
    strbuf_free(&p->about);
    strbuf_free(&p->figures.html);
    mem_free(p);
    return status;
}
