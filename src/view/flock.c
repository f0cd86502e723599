/* The flock as a still picture: birds, what they mean, the curves of its flight, and the game of one batch. */
#include "view/flock.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "view/chart.h"
#include "view/flock_birds.h"
#include "view/flock_text.h"
#include "view/page.h"

#define MOST_MEMORY ((size_t)4 << 30)

enum {
    WIDTH = 1280,
    SIDE = 24,
    GAP = 14,
    FLOCK_WIDE = 884,
    LEAST_HIGH = 480,
    MOST_HIGH = 680,
    STRIP = 34,
    CURVE_HIGH = 206,
    HEADING = 30,
    PANELS = 4
};

static const canvas_font title_font = {20, true}, text_font = {12.5, false}, head_font = {12.5, true}, small_font = {11, false};

/* ---- opening ---- */

dil_status flock_open(flock_scene *out, const view_request *r, dil_error *err)
{
    flock_scene s = {.memory = arena_new(MEM_MISC, MOST_MEMORY)};
    char head[4];
    if (!s.memory)
        return DIL_FAIL(err, DIL_NO_MEMORY, "flock: no memory");
    dil_status status = view_head(r->inputs[0], head, sizeof head, err);
    if (status == DIL_OK)
        status = memcmp(head, "GGUF", sizeof head) == 0 ? flock_read_model(&s, r, err) : flock_read_json(&s, r, err);
    if (status == DIL_OK)
        *out = s;
    else
        flock_close(&s);
    return status;
}

void flock_close(flock_scene *s)
{
    for (int32_t i = 0; s->layers && i < s->n_layers; i++)
        swarm_graph_free(&s->layers[i].graph);
    arena_free(s->memory);
    *s = (flock_scene){0};
}

/* ---- texts ---- */

typedef struct picture {
    const view_request *r;
    const flock_scene *s;
    const flock_layer *l;
    uint32_t step;
    flock_scale scale;
    canvas *c;
    strbuf subtitle, notes, game;
    page_figures figures; /* none: a page is made by flock_page */
} picture;

static const char *say(const picture *p, flock_label which) { return flock_say(p->s, p->r->turkish, which); }

/* As high as the flock is where it is as wide as its panel, within reason. */
static double flock_high(const picture *p)
{
    double wide = p->scale.x1 - p->scale.x0, high = p->scale.y1 - p->scale.y0;
    double wanted = wide > 0 ? FLOCK_WIDE * high / wide + 60 : MOST_HIGH;
    return floor(fmax(LEAST_HIGH, fmin(MOST_HIGH, wanted)));
}

/* ---- the legend ---- */

static double legend_head(const picture *p, double x, double y, const char *text)
{
    canvas_text(p->c, x, y, text, head_font, CANVAS_LEFT, canvas_theme(p->c, CANVAS_INK));
    return y + 18;
}

static double legend_text(const picture *p, double x, double y, double w, const char *text)
{
    if (!*text)
        return y + 8;
    return canvas_wrap(p->c, (box){x, y, w, 0}, text, small_font, canvas_theme(p->c, CANVAS_FAINT_INK), true) + 14;
}

static double draw_now(const picture *p, double x, double y, double w)
{
    char line[128], name[FLOCK_NAME_BYTES], shown[512];
    strbuf names = STRBUF(1 << 14);
    for (uint32_t r = 0; r < p->s->n_used; r++) {
        uint16_t bird = p->l->chosen[(size_t)p->step * p->s->n_used + r];
        if (bird == FLOCK_NOBODY)
            break;
        strbuf_printf(&names, "%s%s", r ? ", " : "", flock_name(p->s, bird, name));
    }
    y = legend_head(p, x, y, flock_say_number(p->s, p->r->turkish, FLOCK_SAY_NOW, p->s->first + p->step + 1, line, sizeof line));
    canvas_colour green = canvas_theme(p->c, CANVAS_SERIES + 2);
    canvas_dot(p->c, x + 7, y, 4, green);
    canvas_line(p->c, x + 14, y, x + 40, y, green, 2.4);
    canvas_fit(p->c, names.p ? names.p : say(p, FLOCK_SAY_NOBODY), head_font, w - 52, shown, sizeof shown);
    canvas_text(p->c, x + 50, y + 4.5, shown, head_font, CANVAS_LEFT, canvas_theme(p->c, CANVAS_INK));
    strbuf_free(&names);
    return y + 32;
}

static double draw_sizes(const picture *p, double x, double y, double w)
{
    const double shown[3] = {p->scale.load, fmin(1, p->scale.load / 2), 0};
    double radius = fmax(14, flock_radius(FLOCK_WIDE, flock_high(p), p->l->n)), at = x + radius + 2, below = 2 * radius + 4;
    char text[64];
    y = legend_head(p, x, y, say(p, FLOCK_SAY_SIZE));
    for (int i = 0; i < 3; i++) {
        double r = radius * flock_size(&p->scale, shown[i]);
        flock_draw_bird(p->c, at, y + radius, r, -acos(-1) / 2, flock_colour(p->c, &p->scale, 0));
        chart_number(shown[i], 0.1, p->r->turkish, text, sizeof text);
        canvas_text(p->c, at + r + 8, y + radius + 4, text, small_font, CANVAS_LEFT, canvas_theme(p->c, CANVAS_INK));
        at += w / 3;
    }
    return legend_text(p, x, y + below + 12, w, say(p, FLOCK_SAY_SIZE_NOTE));
}

static double draw_prices(const picture *p, double x, double y, double w)
{
    const int steps = 96;
    const double wide = fmin(w - 40, 250), low = p->scale.least_price;
    char text[64];
    y = legend_head(p, x, y, say(p, FLOCK_SAY_COLOUR));
    x += 18;
    for (int i = 0; i < steps; i++)
        canvas_fill(p->c, (box){x + i * wide / steps, y, wide / steps + 0.5, 12},
                    flock_colour(p->c, &p->scale, low + (p->scale.price - low) * (i + 0.5) / steps));
    for (int i = 0; i < 5; i++) {
        double v = low + (p->scale.price - low) * i / 4, at = x + i * wide / 4;
        canvas_line(p->c, at, y + 12, at, y + 16, canvas_theme(p->c, CANVAS_AXIS), 1);
        chart_number(v, p->scale.price > 0 ? pow(10, floor(log10(p->scale.price)) - 1) : 1, p->r->turkish, text, sizeof text);
        canvas_text(p->c, at, y + 27, text, small_font, CANVAS_CENTRE, canvas_theme(p->c, CANVAS_FAINT_INK));
    }
    return legend_text(p, x - 18, y + 46, w, say(p, FLOCK_SAY_COLOUR_NOTE));
}

static void draw_neighbours(const picture *p, double x, double y, double w)
{
    strbuf kept = STRBUF(1024);
    y = legend_head(p, x, y, say(p, FLOCK_SAY_LINES));
    double left = x + canvas_text_width(p->c, say(p, FLOCK_SAY_LESS_ALIKE), small_font) + 10;
    canvas_text(p->c, x, y + 4, say(p, FLOCK_SAY_LESS_ALIKE), small_font, CANVAS_LEFT, canvas_theme(p->c, CANVAS_FAINT_INK));
    for (int i = 0; i < 3; i++, left += 40) {
        const double lx[2] = {left, left + 32}, ly[2] = {y, y};
        flock_stroke(p->c, lx, ly, i / 2.0, 1);
    }
    canvas_text(p->c, left + 2, y + 4, say(p, FLOCK_SAY_ALIKE), small_font, CANVAS_LEFT, canvas_theme(p->c, CANVAS_FAINT_INK));
    flock_say_kept(&kept, p->s, p->l, p->r->turkish);
    if (kept.p)
        legend_text(p, x, y + 24, w, kept.p);
    strbuf_free(&kept);
}

static void draw_legend(const picture *p, box at)
{
    double x = at.x + 14, y = at.y + 26, w = at.w - 28;
    canvas_fill(p->c, at, canvas_theme(p->c, CANVAS_PANEL));
    if (p->l->chosen && p->s->n_used)
        y = draw_now(p, x, y, w);
    if (p->l->load)
        y = draw_sizes(p, x, y, w);
    if (p->l->price)
        y = draw_prices(p, x, y, w);
    draw_neighbours(p, x, y, w);
}

/* ---- what the tokens say ---- */

static char *clean(const char *text, char *out, size_t n)
{
    size_t i = 0;
    for (; text[i] && i + 1 < n; i++)
        out[i] = (unsigned char)text[i] < ' ' ? ' ' : text[i];
    out[i - utf8_incomplete_tail((str){out, i})] = '\0';
    return out;
}

/* The text up to the token, which stands at the right end of what fits. */
static void draw_text(const picture *p, box at)
{
    char text[256];
    double x = at.x + at.w - 14;
    if (!p->s->texts)
        return;
    for (uint32_t t = p->step + 1; t-- > 0;) {
        canvas_font font = {13, t == p->step};
        clean(p->s->texts[t], text, sizeof text);
        double w = canvas_text_width(p->c, text, font);
        if (x - w < at.x + 14)
            return;
        if (t == p->step)
            canvas_fill(p->c, (box){x - w - 2, at.y + 27, w + 4, 2.5}, canvas_theme(p->c, CANVAS_SERIES + 2));
        x -= w;
        canvas_text(p->c, x, at.y + 22, text, font, CANVAS_LEFT, canvas_theme(p->c, t == p->step ? CANVAS_INK : CANVAS_FAINT_INK));
    }
}

/* ---- curves ---- */

typedef struct curve_panel {
    flock_curve first, second; /* second: FLOCK_CURVES: none */
    bool from_zero;
    flock_label title;
} curve_panel;

static const curve_panel curve_panels[PANELS] = {
    {FLOCK_ALIGNMENT, FLOCK_CHANCE, false, FLOCK_SAY_ALIGNMENT},
    {FLOCK_COHESION, FLOCK_CURVES, false, FLOCK_SAY_COHESION},
    {FLOCK_SEPARATION, FLOCK_CURVES, false, FLOCK_SAY_SEPARATION},
    {FLOCK_VIOLATION, FLOCK_CURVES, true, FLOCK_SAY_VIOLATION},
};

/* Each step faint, the means over neighbouring ones on top. values [3][n_steps] of room. */
static int add_curve(const picture *p, flock_curve which, int colour, const double *x, double *room, chart_series *out)
{
    const size_t n = p->s->n_steps;
    const double *y = which < FLOCK_CURVES ? p->l->curve[which] : NULL;
    if (!y)
        return 0;
    if (n < 20) {
        out[0] = (chart_series){.x = x, .y = y, .n = n, .colour = colour, .dots = true};
        return 1;
    }
    chart_smooth(y, n, room, room + n);
    out[0] = (chart_series){.x = x, .y = room + n, .n = n, .colour = colour};
    out[1] = (chart_series){.x = x, .y = y, .n = n, .colour = colour, .faint = true};
    return which == FLOCK_CHANCE ? 1 : 2;
}

static dil_status draw_curve(const picture *p, box at, const curve_panel *panel, dil_error *err)
{
    const size_t n = p->s->n_steps;
    const double now = (double)(p->s->first + p->step + 1);
    arena_mark mark = arena_mark_get(p->s->memory);
    double *x = arena_alloc(p->s->memory, 5 * n * sizeof *x);
    chart_series series[4];
    if (!x)
        return DIL_FAIL(err, DIL_NO_MEMORY, "flock: no memory for a curve of %zu steps", n);
    for (size_t t = 0; t < n; t++)
        x[t] = (double)(p->s->first + t + 1);
    int drawn = add_curve(p, panel->second, CANVAS_FAINT_INK, x, x + n, series);
    drawn += add_curve(p, panel->first, CANVAS_SERIES, x, x + 3 * n, series + drawn);
    chart_draw(p->c, at,
               &(chart_panel){.title = say(p, panel->title),
                              .x_name = say(p, FLOCK_SAY_STEP),
                              .whole_x = true,
                              .series = series,
                              .n_series = drawn,
                              .from_zero = panel->from_zero,
                              .cursor = &now,
                              .turkish = p->r->turkish});
    arena_reset(p->s->memory, mark);
    return DIL_OK;
}

static dil_status draw_curves(const picture *p, double y, dil_error *err)
{
    double w = (WIDTH - 2 * SIDE - (PANELS - 1) * GAP) / (double)PANELS;
    for (int i = 0; i < PANELS; i++)
        if (p->l->curve[curve_panels[i].first])
            DIL_TRY(draw_curve(p, (box){SIDE + i * (w + GAP), y, w, CURVE_HIGH}, &curve_panels[i], err));
    return DIL_OK;
}

/* ---- the game ---- */

static void draw_game_text(const picture *p, box at)
{
    canvas_fill(p->c, at, canvas_theme(p->c, CANVAS_PANEL));
    canvas_text(p->c, at.x + 12, at.y + 18, say(p, FLOCK_SAY_GAME), head_font, CANVAS_LEFT, canvas_theme(p->c, CANVAS_INK));
    canvas_wrap(p->c, (box){at.x + 12, at.y + 42, at.w - 24, 0}, p->game.p, small_font, canvas_theme(p->c, CANVAS_FAINT_INK), true);
}

static dil_status draw_game(const picture *p, double y, dil_error *err)
{
    const flock_game *g = &p->l->game;
    const double w = (WIDTH - 2 * SIDE - 2 * GAP) / 3.0;
    const double *const values[2] = {g->potential, g->gap};
    const flock_label titles[2] = {FLOCK_SAY_POTENTIAL, FLOCK_SAY_GAP};
    arena_mark mark = arena_mark_get(p->s->memory);
    double *x = arena_alloc(p->s->memory, g->n * sizeof *x);
    if (!x)
        return DIL_FAIL(err, DIL_NO_MEMORY, "flock: no memory for a game of %zu moves", g->n);
    for (size_t i = 0; i < g->n; i++)
        x[i] = (double)i;
    for (int i = 0; i < 2; i++) {
        if (!values[i])
            continue;
        chart_series line = {.x = x, .y = values[i], .n = g->n, .colour = CANVAS_SERIES + 1 + 2 * i, .dots = g->n <= 60};
        chart_draw(p->c, (box){SIDE + i * (w + GAP), y, w, CURVE_HIGH},
                   &(chart_panel){.title = say(p, titles[i]),
                                  .x_name = say(p, FLOCK_SAY_MOVE),
                                  .whole_x = true,
                                  .series = &line,
                                  .n_series = 1,
                                  .from_zero = i == 1,
                                  .turkish = p->r->turkish});
    }
    arena_reset(p->s->memory, mark);
    draw_game_text(p, (box){SIDE + 2 * (w + GAP), y, w, CURVE_HIGH});
    return DIL_OK;
}

/* ---- the picture ---- */

static bool has_curves(const flock_layer *l)
{
    for (int c = 0; c < FLOCK_CURVES; c++)
        if (l->curve[c])
            return true;
    return false;
}

/* Draws on p->c, or with draw false only measures; *height is what it takes. */
static dil_status lay_out(const picture *p, bool draw, double *height, dil_error *err)
{
    box text = {SIDE, 64, WIDTH - 2 * SIDE, 0};
    const double birds_high = flock_high(p);
    if (draw)
        canvas_text(p->c, SIDE, 40, say(p, FLOCK_SAY_TITLE), title_font, CANVAS_LEFT, canvas_theme(p->c, CANVAS_INK));
    double y = canvas_wrap(p->c, text, p->subtitle.p, text_font, canvas_theme(p->c, CANVAS_FAINT_INK), draw);
    if (draw) {
        double strip = p->s->texts ? STRIP : 0;
        canvas_fill(p->c, (box){SIDE, y, FLOCK_WIDE, birds_high}, canvas_theme(p->c, CANVAS_PANEL));
        draw_text(p, (box){SIDE, y, FLOCK_WIDE, birds_high});
        DIL_TRY(flock_draw(p->c, (box){SIDE, y + strip, FLOCK_WIDE, birds_high - strip}, p->s, p->l, p->step, err));
        draw_legend(p, (box){SIDE + FLOCK_WIDE + GAP, y, WIDTH - 2 * SIDE - FLOCK_WIDE - GAP, birds_high});
    }
    y += birds_high + GAP;
    if (p->s->n_steps && has_curves(p->l)) {
        if (draw)
            DIL_TRY(draw_curves(p, y, err));
        y += CURVE_HIGH + GAP;
    }
    if (p->l->game.n) {
        if (draw)
            DIL_TRY(draw_game(p, y, err));
        y += CURVE_HIGH + GAP;
    }
    text.y = y + 8;
    *height = p->notes.n ? canvas_wrap(p->c, text, p->notes.p, small_font, canvas_theme(p->c, CANVAS_FAINT_INK), draw) + 6 : y + 6;
    return DIL_OK;
}

static dil_status make(picture *p, strbuf *out, dil_error *err)
{
    double height = 0;
    flock_say_subtitle(&p->subtitle, p->s, p->l, p->r->turkish);
    flock_say_after(&p->subtitle, p->s, p->step, p->r->turkish);
    flock_say_notes(&p->notes, p->s, p->r->turkish);
    flock_say_game(&p->game, p->l, p->r->turkish);
    strbuf about = STRBUF(1 << 16);
    strbuf_printf(&about, "%s %s %s", p->subtitle.p ? p->subtitle.p : "", p->notes.p ? p->notes.p : "", p->game.p ? p->game.p : "");
    dil_status status = p->subtitle.failed || p->notes.failed || p->game.failed || about.failed
                            ? DIL_FAIL(err, DIL_NO_MEMORY, "flock: no memory")
                            : DIL_OK;
    for (int draw = 0; draw < 2 && status == DIL_OK; draw++) {
        canvas_free(p->c);
        p->c = NULL;
        status = canvas_new(&p->c, p->r, WIDTH, draw ? height : 100, err);
        if (status == DIL_OK)
            status = lay_out(p, draw, &height, err);
    }
    if (status == DIL_OK)
        status = page_finish(p->c, p->r, say(p, FLOCK_SAY_TITLE), about.p, &p->figures, out, err);
    canvas_free(p->c);
    strbuf_free(&about);
    return status;
}

/* The still picture of one step. */
static dil_status still(strbuf *out, const view_request *r, const flock_scene *s, uint32_t step, dil_error *err)
{
    picture p = {.r = r, .s = s, .l = &s->layers[s->shown], .step = step, .scale = flock_scale_of(s, &s->layers[s->shown])};
    p.subtitle = STRBUF(1 << 14);
    p.notes = STRBUF(1 << 14);
    p.game = STRBUF(1 << 14);
    p.figures = PAGE_FIGURES;
    dil_status status = make(&p, out, err);
    strbuf_free(&p.subtitle);
    strbuf_free(&p.notes);
    strbuf_free(&p.game);
    return status;
}

static dil_status check(const view_request *r, dil_error *err)
{
    if (r->n_inputs < 1 || r->n_inputs > 2)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "flock: wanted a model and its router log, or a JSON file, found %d files",
                        r->n_inputs);
    if (r->n_frames > FLOCK_MOST_STEPS)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "flock: wanted at most %d steps, found %u", FLOCK_MOST_STEPS, r->n_frames);
    return DIL_OK;
}

dil_status view_flock(strbuf *out, const view_request *r, dil_error *err)
{
    flock_scene s = {0};
    DIL_TRY(check(r, err));
    DIL_TRY(flock_open(&s, r, err));
    dil_status status =
        r->format == VIEW_HTML ? flock_page(out, r, &s, err) : still(out, r, &s, s.n_steps ? s.n_steps - 1 : 0, err);
    flock_close(&s);
    return status;
}

dil_status view_flock_frames(const view_request *r, view_keep keep, void *ctx, dil_error *err)
{
    flock_scene s = {0};
    DIL_TRY(check(r, err));
    if (r->format == VIEW_HTML)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT,
                        "flock: wanted .svg, .png or .pdf for a picture of each step, found .html, which has all of them");
    DIL_TRY(flock_open(&s, r, err));
    dil_status status = DIL_OK;
    for (uint32_t t = 0; t < s.n_steps && status == DIL_OK; t++) {
        strbuf bytes = STRBUF(VIEW_MOST_BYTES);
        status = still(&bytes, r, &s, t, err);
        if (status == DIL_OK)
            status = keep(ctx, t + 1, s.n_steps, strbuf_str(&bytes), err);
        strbuf_free(&bytes);
    }
    flock_close(&s);
    return status;
}
