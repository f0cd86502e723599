#include "view/flock_birds.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "view/labels.h"

enum { LABEL_WIDE = 120, MOST_LABELS = 64 };
#define LEAST_SIZE 0.34 /* of the greatest bird: those that are never chosen can be seen too */

static const canvas_font label_font = {11, false}, chosen_font = {12, true};

/*
 * A starling from above: one half as quadratic curves (point, control point, point, ...) from the beak to the notch of the tail, each in
 * four parts; the other half mirrors it.
 */
static const double outline[FLOCK_OUTLINE][2] = {
    {1.000, 0.000},   {0.953, 0.059},   {0.880, 0.105},   {0.782, 0.139},   {0.660, 0.160},   {0.569, 0.177},   {0.495, 0.200},
    {0.439, 0.227},   {0.400, 0.260},   {0.285, 0.509},   {0.120, 0.715},   {-0.095, 0.879},  {-0.360, 1.000},  {-0.237, 0.806},
    {-0.170, 0.625},  {-0.158, 0.456},  {-0.200, 0.300},  {-0.243, 0.237},  {-0.310, 0.188},  {-0.402, 0.152},  {-0.520, 0.130},
    {-0.655, 0.134},  {-0.780, 0.155},  {-0.895, 0.194},  {-1.000, 0.250},  {-0.900, 0.000},  {-1.000, -0.250}, {-0.895, -0.194},
    {-0.780, -0.155}, {-0.655, -0.134}, {-0.520, -0.130}, {-0.402, -0.152}, {-0.310, -0.188}, {-0.243, -0.237}, {-0.200, -0.300},
    {-0.158, -0.456}, {-0.170, -0.625}, {-0.237, -0.806}, {-0.360, -1.000}, {-0.095, -0.879}, {0.120, -0.715},  {0.285, -0.509},
    {0.400, -0.260},  {0.439, -0.227},  {0.495, -0.200},  {0.569, -0.177},  {0.660, -0.160},  {0.782, -0.139},  {0.880, -0.105},
    {0.953, -0.059}};

const double (*flock_outline(void))[2] { return outline; }

/* ---- scales ---- */

static void widen(flock_scale *scale, flock_point p)
{
    if (isnan(p.x))
        return;
    scale->x0 = fmin(scale->x0, (double)p.x);
    scale->x1 = fmax(scale->x1, (double)p.x);
    scale->y0 = fmin(scale->y0, (double)p.y);
    scale->y1 = fmax(scale->y1, (double)p.y);
}

flock_scale flock_scale_of(const flock_scene *s, const flock_layer *l)
{
    flock_scale scale = {.x0 = INFINITY, .y0 = INFINITY, .x1 = -INFINITY, .y1 = -INFINITY};
    for (size_t i = 0; i < (size_t)l->n * s->n_steps; i++) {
        scale.load = l->load ? fmax(scale.load, (double)l->load[i]) : 0;
        scale.least_price = l->price && l->price[i] < 0 ? -1 : scale.least_price;
        scale.price = l->price ? fmax(scale.price, fabs((double)l->price[i])) : 0;
    }
    scale.least_price *= scale.price;
    for (int32_t i = 0; i < l->n; i++)
        widen(&scale, l->home[i]);
    for (size_t t = 0; l->target && t < s->n_steps; t++)
        widen(&scale, l->target[t]);
    return scale;
}

double flock_radius(double w, double h, int32_t n) { return fmax(6, fmin(26, 0.2 * sqrt(w * h / n))); }

double flock_size(const flock_scale *scale, double load)
{
    return scale->load > 0 ? fmax(LEAST_SIZE, sqrt(fmax(0, load) / scale->load)) : 0.7;
}

canvas_colour flock_colour(const canvas *c, const flock_scale *scale, double price)
{
    canvas_colour even = canvas_mix(canvas_theme(c, CANVAS_PANEL), canvas_theme(c, CANVAS_INK), 0.42);
    double at = scale->price > 0 ? price / scale->price : 0;
    return canvas_mix(even, canvas_theme(c, CANVAS_SERIES + (at > 0 ? 1 : 0)), sqrt(fabs(at)));
}

char *flock_name(const flock_scene *s, int32_t bird, char out[FLOCK_NAME_BYTES])
{
    if (s->names)
        memcpy(out, s->names[bird], FLOCK_NAME_BYTES);
    else
        snprintf(out, FLOCK_NAME_BYTES, "%d", bird);
    return out;
}

void flock_draw_bird(canvas *c, double x, double y, double radius, double heading, canvas_colour colour)
{
    double px[FLOCK_OUTLINE], py[FLOCK_OUTLINE], cosine = cos(heading), sine = sin(heading);
    for (int i = 0; i < FLOCK_OUTLINE; i++) {
        px[i] = x + radius * (cosine * outline[i][0] - sine * outline[i][1]);
        py[i] = y + radius * (sine * outline[i][0] + cosine * outline[i][1]);
    }
    canvas_shape(c, px, py, FLOCK_OUTLINE, colour, 1);
}

/* ---- the flock ---- */

typedef struct sky {
    canvas *c;
    const flock_scene *s;
    const flock_layer *l;
    flock_scale scale;
    uint32_t step;
    double x, y, unit, radius; /* of the corner; pixels per width of the flock */
    labels names;
} sky;

static flock_point place_of(const sky *k, int32_t bird)
{
    return k->l->at ? k->l->at[(size_t)k->step * (size_t)k->l->n + (size_t)bird] : k->l->home[bird];
}

static double across(const sky *k, flock_point p) { return k->x + ((double)p.x - k->scale.x0) * k->unit; }
static double down(const sky *k, flock_point p) { return k->y + ((double)p.y - k->scale.y0) * k->unit; }
static double of_step(const sky *k, const float *values, int32_t bird)
{
    return values ? (double)values[(size_t)k->step * (size_t)k->l->n + (size_t)bird] : 0;
}

static double radius_of(const sky *k, int32_t bird) { return k->radius * flock_size(&k->scale, of_step(k, k->l->load, bird)); }

/* Where it flew last; upwards, if it never did. */
static double heading_of(const sky *k, int32_t bird)
{
    for (size_t t = k->step; k->l->at && t > 0; t--) {
        const flock_point *now = k->l->at + t * (size_t)k->l->n + bird, *before = now - k->l->n;
        double dx = (double)now->x - (double)before->x, dy = (double)now->y - (double)before->y;
        if (fabs(dx) + fabs(dy) > 1e-6)
            return atan2(dy, dx);
    }
    return -acos(-1) / 2;
}

static bool is_chosen(const sky *k, int32_t bird)
{
    for (uint32_t r = 0; k->l->chosen && r < k->s->n_used; r++)
        if (k->l->chosen[(size_t)k->step * k->s->n_used + r] == bird)
            return true;
    return false;
}

void flock_stroke(canvas *c, const double x[2], const double y[2], double strength, double fade)
{
    canvas_colour ink = canvas_mix(canvas_theme(c, CANVAS_PANEL), canvas_theme(c, CANVAS_INK), 0.62);
    canvas_path(c, x, y, 2, ink, 0.6 + 1.4 * strength * fade, (0.14 + 0.5 * strength) * fade);
}

double flock_fade(int64_t n_edges) { return fmin(1, fmax(0.2, sqrt(350 / ((double)n_edges + 1)))); }

static void draw_edges(const sky *k)
{
    const swarm_graph *g = &k->l->graph;
    double most = 0;
    for (int64_t e = 0; e < g->first[g->n]; e++)
        most = fmax(most, (double)g->weight[e]);
    for (int32_t i = 0; i < k->l->n; i++)
        for (int64_t e = g->first[i]; e < g->first[i + 1]; e++) {
            flock_point a = place_of(k, i), b = place_of(k, g->other[e]);
            const double x[2] = {across(k, a), across(k, b)}, y[2] = {down(k, a), down(k, b)};
            if (g->other[e] > i)
                flock_stroke(k->c, x, y, most > 0 ? (double)g->weight[e] / most : 0, flock_fade(g->first[g->n] / 2));
        }
}

static void draw_token(const sky *k, bool lines)
{
    canvas_colour green = canvas_theme(k->c, CANVAS_SERIES + 2);
    if (!k->l->target || isnan(k->l->target[k->step].x))
        return;
    double x = across(k, k->l->target[k->step]), y = down(k, k->l->target[k->step]);
    for (int32_t i = 0; lines && i < k->l->n; i++)
        if (is_chosen(k, i))
            canvas_line(k->c, x, y, across(k, place_of(k, i)), down(k, place_of(k, i)), green, 2.4);
    if (lines)
        return;
    canvas_dot(k->c, x, y, 5.5, canvas_theme(k->c, CANVAS_PANEL));
    canvas_dot(k->c, x, y, 4, green);
}

static void draw_bird(sky *k, int32_t bird)
{
    flock_point at = place_of(k, bird);
    double x = across(k, at), y = down(k, at), r = radius_of(k, bird);
    canvas_colour paper = canvas_theme(k->c, CANVAS_PANEL);
    flock_draw_bird(k->c, x, y, r * 1.14 + 1.4, heading_of(k, bird), paper); /* stands out from what is below */
    flock_draw_bird(k->c, x, y, r, heading_of(k, bird), flock_colour(k->c, &k->scale, of_step(k, k->l->price, bird)));
    labels_take(&k->names, (box){x - 0.72 * r, y - 0.72 * r, 1.44 * r, 1.44 * r});
}

static void draw_rings(const sky *k)
{
    for (int32_t i = 0; i < k->l->n; i++)
        if (is_chosen(k, i))
            canvas_ring(k->c, across(k, place_of(k, i)), down(k, place_of(k, i)), radius_of(k, i) * 1.12 + 4,
                        canvas_theme(k->c, CANVAS_SERIES + 2), 2);
}

static void draw_label(sky *k, int32_t bird)
{
    char name[FLOCK_NAME_BYTES], text[FLOCK_NAME_BYTES + 8];
    const bool chosen = is_chosen(k, bird);
    const canvas_font font = chosen ? chosen_font : label_font;
    canvas_fit(k->c, flock_name(k->s, bird, name), font, LABEL_WIDE, text, sizeof text);
    const double x = across(k, place_of(k, bird)), apart = radius_of(k, bird) * 0.78 + (chosen ? 7 : 2);
    const bool token_right = chosen && k->l->target && across(k, k->l->target[k->step]) > x; /* its line would lie under the name */
    labels_put(&k->names, x, down(k, place_of(k, bird)), apart, token_right, text, font,
               canvas_theme(k->c, chosen ? CANVAS_INK : CANVAS_FAINT_INK));
}

/* The small ones last, so that they are seen; names of the chosen first, then those of the busy. */
static int32_t *order_of(const sky *k)
{
    int32_t *order = mem_alloc((size_t)k->l->n * sizeof *order, MEM_MISC);
    for (int32_t i = 0; order && i < k->l->n; i++) {
        int32_t at = i;
        double key = of_step(k, k->l->load, i) + (is_chosen(k, i) ? 1e9 : 0);
        for (; at > 0 && key > of_step(k, k->l->load, order[at - 1]) + (is_chosen(k, order[at - 1]) ? 1e9 : 0); at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
    return order;
}

dil_status flock_draw(canvas *c, box at, const flock_scene *s, const flock_layer *l, uint32_t step, dil_error *err)
{
    sky k = {.c = c, .s = s, .l = l, .scale = flock_scale_of(s, l), .step = step};
    double wide = fmax(1e-9, k.scale.x1 - k.scale.x0), high = fmax(1e-9, k.scale.y1 - k.scale.y0);
    k.radius = flock_radius(at.w, at.h, l->n);
    double margin = k.radius * 1.5 + 8;
    k.unit = fmin((at.w - 2 * margin) / wide, (at.h - 2 * margin) / high);
    k.x = at.x + (at.w - wide * k.unit) / 2;
    k.y = at.y + (at.h - high * k.unit) / 2;
    int32_t *order = order_of(&k);
    box *taken = mem_calloc((size_t)l->n * 2, sizeof *taken, MEM_MISC);
    k.names = (labels){.c = c, .inside = {at.x + 4, at.y + 4, at.w - 8, at.h - 8}, .taken = taken, .most = 2 * l->n};
    bool room = taken && order;
    draw_edges(&k);
    draw_token(&k, true);
    for (int32_t i = 0; room && i < l->n; i++)
        draw_bird(&k, order[i]);
    draw_rings(&k);
    draw_token(&k, false);
    for (int32_t i = 0; room && i < l->n && i < MOST_LABELS; i++)
        draw_label(&k, order[i]);
    mem_free(order);
    mem_free(taken);
    return room ? DIL_OK : DIL_FAIL(err, DIL_NO_MEMORY, "flock: no memory for %d birds", l->n);
}
