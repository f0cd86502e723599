#include "view/chart.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "view/labels.h"

enum { MARGIN_LEFT = 50, MARGIN_RIGHT = 50, MARGIN_TOP = 28, MARGIN_BOTTOM = 38, MOST_DRAWN = 8192, MOST_LABELS = 512 };

static const canvas_font title_font = {12.5, true}, tick_font = {10.5, false}, value_font = {10.5, true},
                         legend_font = {12.5, false};

/* ---- numbers ---- */

/* The smallest round step of which at most `most` multiples lie inside. */
static double tick_step(double low, double high, int most)
{
    double power = pow(10, floor(log10((high - low) / most)));
    const double steps[] = {1, 2, 5, 10, 20};
    for (int i = 0; i < 4; i++) {
        double step = steps[i] * power;
        if (floor(high / step + 1e-9) - ceil(low / step - 1e-9) + 1 <= most)
            return step;
    }
    return steps[4] * power;
}

int chart_ticks(double low, double high, int most, double out[CHART_MOST_TICKS])
{
    int n = 0;
    if (!(high > low) || !isfinite(low) || !isfinite(high) || !isfinite(high - low))
        return 0;
    if (most > CHART_MOST_TICKS)
        most = CHART_MOST_TICKS;
    double step = tick_step(low, high, most), first = ceil(low / step - 1e-9);
    for (double k = first; n < most && k * step <= high + step * 1e-9; k++)
        out[n++] = k == 0 ? 0 : k * step;
    return n;
}

int chart_log_ticks(double low, double high, int most, double out[CHART_MOST_TICKS])
{
    static const double inside[] = {1, 2, 5};
    if (most > CHART_MOST_TICKS)
        most = CHART_MOST_TICKS;
    if (!(high - low < most)) { /* more powers than ticks: every second, fifth, ... */
        int n = chart_ticks(low, high, most, out);
        for (int i = 0; i < n; i++)
            out[i] = pow(10, out[i]);
        return n;
    }
    for (int each = 3;; each = 1) {
        int n = 0;
        for (double power = floor(low); power <= high; power++)
            for (int i = 0; i < each; i++) {
                double v = inside[i] * pow(10, power);
                if (log10(v) < low - 1e-9 || log10(v) > high + 1e-9)
                    continue;
                if (n < most)
                    out[n] = v;
                n++;
            }
        if (n <= most || each == 1)
            return n < most ? n : most;
    }
}

static int decimals_for(double step)
{
    int digits = (int)-floor(log10(step) + 1e-9);
    return digits < 0 ? 0 : digits > 6 ? 6 : digits;
}

static double power_of_ten(double v) { return pow(10, floor(log10(fabs(v)))); }

char *chart_number(double v, double step, bool turkish, char *out, size_t out_size)
{
    static const struct {
        double from;
        const char *sign;
    } units[] = {{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e4, "k"}, {0, ""}};
    int u = 0;
    while (fabs(v) < units[u].from)
        u++;
    double unit = u == 4 ? 1 : u == 3 ? 1e3 : units[u].from;
    if (v == 0) {
        snprintf(out, out_size, "0");
    } else if (fabs(v) < 1e-3 || (step > 0 && step < 1e-3 && fabs(v) < 1e-2)) { /* one way of writing along an axis */
        int digits = step > 0 && step < power_of_ten(v) * 0.99 ? decimals_for(step / power_of_ten(v)) : step > 0 ? 0 : 1;
        snprintf(out, out_size, "%.*fe%d", digits, v / power_of_ten(v), (int)floor(log10(fabs(v))));
    } else if (step > 0) {
        snprintf(out, out_size, "%.*f%s", decimals_for(step / unit), v / unit, units[u].sign);
    } else {
        double size = fabs(v / unit) > 0 ? floor(log10(fabs(v / unit))) : 0;
        snprintf(out, out_size, "%.*f%s", size >= 3 ? 0 : size >= 0 ? 2 - (int)size + (u == 4) : 3, v / unit, units[u].sign);
    }
    for (char *p = out; turkish && *p; p++)
        *p = *p == '.' ? ',' : *p;
    return out;
}

/* ---- smoothing ---- */

/* Means over neighbours, at most `reach` on each side: as many before as after, but at the end those that are there. */
static void smooth(const double *y, size_t n, double *out)
{
    size_t reach = n / 100 + 1, from = 0, to = 0;
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        size_t side = i < reach ? i : reach, end = i + side + 1 < n ? i + side + 1 : n;
        for (; to < end; to++)
            sum += y[to];
        for (; from < i - side; from++)
            sum -= y[from];
        out[i] = sum / (double)(to - from);
    }
}

void chart_smooth(const double *y, size_t n, double *once, double *out)
{
    smooth(y, n, once);
    smooth(once, n, out);
}

/* ---- the range ---- */

typedef struct frame {
    box at;                /* of the plot, without its labels */
    double x0, x1, y0, y1; /* logarithms where log_x, log_y */
    bool log_x, log_y;
} frame;

static double x_of(const frame *f, double x) { return f->at.x + ((f->log_x ? log10(x) : x) - f->x0) / (f->x1 - f->x0) * f->at.w; }
static double y_of(const frame *f, double y)
{
    return f->at.y + f->at.h - ((f->log_y ? log10(y) : y) - f->y0) / (f->y1 - f->y0) * f->at.h;
}

/* How far faint lines may widen the range of y: single spikes shall not flatten the rest. */
static double room_for_faint(const chart_panel *p, double range)
{
    double most = range / 4;
    for (int s = 0; s < p->n_series; s++) {
        const chart_series *line = &p->series[s];
        double sum = 0;
        for (size_t i = 1; line->faint && i < line->n; i++)
            sum += fabs(line->y[i] - line->y[i - 1]);
        most = line->n > 1 ? fmax(most, 2 * sum / (double)(line->n - 1)) : most;
    }
    return most;
}

static void range_of(const chart_panel *p, frame *f)
{
    double low = INFINITY, high = -INFINITY, faint_low = INFINITY, faint_high = -INFINITY;
    f->x0 = INFINITY;
    f->x1 = -INFINITY;
    for (int s = 0; s < p->n_series; s++)
        for (size_t i = 0; i < p->series[s].n; i++) {
            double x = p->log_x ? log10(p->series[s].x[i]) : p->series[s].x[i],
                   y = p->log_y ? log10(p->series[s].y[i]) : p->series[s].y[i];
            double *l = p->series[s].faint ? &faint_low : &low, *h = p->series[s].faint ? &faint_high : &high;
            f->x0 = fmin(f->x0, x);
            f->x1 = fmax(f->x1, x);
            *l = fmin(*l, y);
            *h = fmax(*h, y);
        }
    if (!(high >= low)) {
        low = faint_low;
        high = faint_high;
    }
    double more = p->log_y ? INFINITY : room_for_faint(p, high - low);
    low = fmax(fmin(low, faint_low), low - more);
    high = fmin(fmax(high, faint_high), high + more);
    if (!p->log_y && (p->from_zero || (low > 0 && low < (high - low) / 10)))
        low = fmin(low, 0);
    if (!(high > low)) {
        low -= low != 0 ? fabs(low) * 0.5 : 0.5;
        high += high != 0 ? fabs(high) * 0.5 : 0.5;
    }
    if (p->low_y < p->high_y) {
        low = p->low_y;
        high = p->high_y;
    }
    f->y0 = low == 0 && !p->log_y ? 0 : low - (high - low) * 0.06;
    f->y1 = high + (high - low) * 0.06;
    if (!(f->x1 > f->x0)) {
        f->x0 -= 0.5;
        f->x1 += 0.5;
    }
    double side = p->room_x ? 0.08 * (f->x1 - f->x0) : 0;
    f->x0 -= side;
    f->x1 += side;
}

/* ---- drawing ---- */

static void draw_axes(canvas *c, const chart_panel *p, const frame *f)
{
    double ticks[CHART_MOST_TICKS];
    char text[64];
    canvas_colour grid = canvas_theme(c, CANVAS_GRID), ink = canvas_theme(c, CANVAS_FAINT_INK);
    int most = f->at.h > 160 ? 7 : 5,
        n = p->log_y ? chart_log_ticks(f->y0, f->y1, most, ticks) : chart_ticks(f->y0, f->y1, most, ticks);
    for (int i = 0; i < n; i++) {
        double y = y_of(f, ticks[i]);
        canvas_line(c, f->at.x, y, f->at.x + f->at.w, y, grid, 1);
        chart_number(ticks[i], p->log_y ? ticks[i] : n > 1 ? ticks[1] - ticks[0] : 0, p->turkish, text, sizeof text);
        canvas_text(c, f->at.x - 6, y + 3.7, text, tick_font, CANVAS_RIGHT, ink);
    }
    most = f->at.w > 300 ? 7 : 5;
    n = p->log_x ? chart_log_ticks(f->x0, f->x1, most, ticks) : chart_ticks(f->x0, f->x1, most, ticks);
    for (int i = 0; i < n; i++) {
        double x = x_of(f, ticks[i]), step = p->log_x ? ticks[i] : n > 1 ? ticks[1] - ticks[0] : 0;
        if (p->whole_x && ticks[i] != floor(ticks[i]))
            continue;
        canvas_line(c, x, f->at.y + f->at.h, x, f->at.y + f->at.h + 4, canvas_theme(c, CANVAS_AXIS), 1);
        chart_number(ticks[i], p->whole_x ? fmax(1, step) : step, p->turkish, text, sizeof text);
        canvas_text(c, x, f->at.y + f->at.h + 15, text, tick_font, CANVAS_CENTRE, ink);
    }
    canvas_line(c, f->at.x, f->at.y + f->at.h, f->at.x + f->at.w, f->at.y + f->at.h, canvas_theme(c, CANVAS_AXIS), 1);
    canvas_text(c, f->at.x + f->at.w, f->at.y + f->at.h + 29, p->x_name, tick_font, CANVAS_RIGHT, ink);
}

/* Collects points for canvas_path. Of many in one column of half a pixel the first, least, greatest and last are enough. */
typedef struct pen {
    double x[MOST_DRAWN], y[MOST_DRAWN];
    size_t n;
} pen;

static void draw_line(canvas *c, const frame *f, const chart_series *s)
{
    pen p = {.n = 0};
    bool dense = (double)s->n > 2 * f->at.w;
    for (size_t i = 0; i < s->n;) {
        double x = x_of(f, s->x[i]), column = floor(x * 2);
        size_t low = i, high = i, end = i + 1;
        for (; dense && end < s->n && floor(x_of(f, s->x[end]) * 2) == column; end++) {
            low = s->y[end] < s->y[low] ? end : low;
            high = s->y[end] > s->y[high] ? end : high;
        }
        const size_t of[4] = {i, low < high ? low : high, low < high ? high : low, end - 1};
        for (int k = 0; k < 4 && p.n < MOST_DRAWN; k++)
            if (k == 0 || of[k] != of[k - 1]) {
                p.x[p.n] = x_of(f, s->x[of[k]]);
                p.y[p.n++] = y_of(f, s->y[of[k]]);
            }
        i = end;
    }
    canvas_path(c, p.x, p.y, p.n, canvas_theme(c, s->colour), s->width > 0 ? s->width : s->faint ? 0.9 : 2, s->faint ? 0.28 : 1);
    for (size_t i = 0; (s->dots || s->n == 1) && i < p.n; i++)
        canvas_dot(c, p.x[i], p.y[i], 2.6, canvas_theme(c, s->colour));
}

static void draw_points(canvas *c, const frame *f, const chart_series *s)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->ring)
            canvas_ring(c, x_of(f, s->x[i]), y_of(f, s->y[i]), 5, canvas_theme(c, s->colour), 1.8);
        else
            canvas_dot(c, x_of(f, s->x[i]), y_of(f, s->y[i]), s->width > 0 ? s->width : 4.5, canvas_theme(c, s->colour));
}

/* Names of points, which stand on none of them. */
static void draw_labels(canvas *c, const chart_panel *p, const frame *f)
{
    box taken[MOST_LABELS];
    labels l = {.c = c,
                .inside = {f->at.x - 4, f->at.y - 8, f->at.w + MARGIN_RIGHT, f->at.h + 6},
                .taken = taken,
                .most = MOST_LABELS};
    for (int pass = 0; pass < 2; pass++)
        for (int s = 0; s < p->n_series; s++)
            for (size_t i = 0; p->series[s].apart && i < p->series[s].n; i++) {
                const chart_series *of = &p->series[s];
                double x = x_of(f, of->x[i]), y = y_of(f, of->y[i]);
                if (pass == 0)
                    labels_take(&l, (box){x - 5, y - 5, 10, 10});
                else if (of->labels)
                    labels_put(&l, x, y, 7, false, of->labels[i], tick_font, canvas_theme(c, CANVAS_INK));
            }
}

typedef struct end_label {
    double y;
    const chart_series *of;
} end_label;

/* Last values at the right, pushed apart from the top downwards, and back up where they would leave the panel. */
static void draw_ends(canvas *c, const chart_panel *p, const frame *f)
{
    end_label ends[2 * VIEW_MOST_INPUTS];
    const double apart = value_font.size + 2;
    int n = 0;
    char text[64];
    for (int s = 0; s < p->n_series && n < 2 * VIEW_MOST_INPUTS; s++) {
        if (p->series[s].faint || p->series[s].mark || p->series[s].apart || p->series[s].n == 0)
            continue;
        end_label e = {y_of(f, p->series[s].y[p->series[s].n - 1]), &p->series[s]};
        int at = n++;
        for (; at > 0 && ends[at - 1].y > e.y; at--)
            ends[at] = ends[at - 1];
        ends[at] = e;
    }
    for (int i = 1; i < n; i++)
        ends[i].y = fmax(ends[i].y, ends[i - 1].y + apart);
    double most = f->at.y + f->at.h;
    for (int i = n; i-- > 0; most -= apart)
        ends[i].y = fmin(ends[i].y, most);
    for (int i = 0; i < n; i++) {
        const chart_series *s = ends[i].of;
        chart_number(s->y[s->n - 1], 0, p->turkish, text, sizeof text);
        canvas_text(c, f->at.x + f->at.w + 5, ends[i].y + 3.7, text, value_font, CANVAS_LEFT, canvas_theme(c, s->colour));
    }
}

static void draw_mark(canvas *c, double x, double y, const chart_series *s)
{
    if (s->ring)
        canvas_ring(c, x, y, 7, canvas_theme(c, s->colour), 2);
    else
        canvas_dot(c, x, y, 5, canvas_theme(c, s->colour));
}

/* Their texts stand in the corner one below the other, where falling curves leave room. */
static void draw_marks(canvas *c, const chart_panel *p, const frame *f)
{
    double wide = 0, y = f->at.y + 20;
    for (int i = 0; i < p->n_series; i++)
        wide = p->series[i].mark ? fmax(wide, canvas_text_width(c, p->series[i].mark, legend_font)) : wide;
    double x = f->at.x + f->at.w - wide;
    for (int i = 0; i < p->n_series; i++) {
        const chart_series *s = &p->series[i];
        if (!s->mark || s->n == 0)
            continue;
        draw_mark(c, x_of(f, s->x[0]), y_of(f, s->y[0]), s);
        canvas_fill(c, (box){x - 24, y - 9, wide + 24, 18}, canvas_theme(c, CANVAS_PANEL));
        draw_mark(c, x - 14, y, s);
        canvas_text(c, x, y + 4.5, s->mark, legend_font, CANVAS_LEFT, canvas_theme(c, CANVAS_INK));
        y += 21;
    }
}

void chart_draw(canvas *c, box area, const chart_panel *p)
{
    frame f = {.at = {area.x + MARGIN_LEFT, area.y + MARGIN_TOP, area.w - MARGIN_LEFT - MARGIN_RIGHT,
                      area.h - MARGIN_TOP - MARGIN_BOTTOM},
               .log_x = p->log_x,
               .log_y = p->log_y};
    char title[256];
    canvas_fill(c, area, canvas_theme(c, CANVAS_PANEL));
    canvas_fit(c, p->title, title_font, area.w - 24, title, sizeof title);
    canvas_text(c, area.x + 12, area.y + 18, title, title_font, CANVAS_LEFT, canvas_theme(c, CANVAS_INK));
    range_of(p, &f);
    if (!isfinite(f.y0) || !isfinite(f.y1) || !isfinite(f.x0) || !isfinite(f.x1))
        return;
    draw_axes(c, p, &f);
    if (p->cursor)
        canvas_line(c, x_of(&f, *p->cursor), f.at.y, x_of(&f, *p->cursor), f.at.y + f.at.h, canvas_theme(c, CANVAS_AXIS), 1.2);
    canvas_clip(c, (box){f.at.x - 3, f.at.y, f.at.w + 6, f.at.h + 3});
    for (int pass = 0; pass < 2; pass++)
        for (int s = 0; s < p->n_series; s++)
            if (!p->series[s].mark && !p->series[s].apart && p->series[s].faint == (pass == 0))
                draw_line(c, &f, &p->series[s]);
    canvas_unclip(c);
    if (!p->no_ends)
        draw_ends(c, p, &f);
    draw_marks(c, p, &f);
    for (int s = 0; s < p->n_series; s++)
        if (p->series[s].apart)
            draw_points(c, &f, &p->series[s]);
    draw_labels(c, p, &f);
}

double chart_legend(canvas *c, double x, double y, double width, const char *const *names, int n, bool draw)
{
    char text[256];
    double at = x, top = y;
    for (int i = 0; i < n; i++) {
        canvas_fit(c, names[i], legend_font, width - 40, text, sizeof text);
        double w = 26 + canvas_text_width(c, text, legend_font);
        if (at > x && at + w > x + width) {
            at = x;
            top += 21;
        }
        if (draw) {
            canvas_fill(c, (box){at, top + 6, 18, 4}, canvas_theme(c, CANVAS_SERIES + i));
            canvas_text(c, at + 25, top + 12.5, text, legend_font, CANVAS_LEFT, canvas_theme(c, CANVAS_INK));
        }
        at += w + 24;
    }
    return top + 21;
}
