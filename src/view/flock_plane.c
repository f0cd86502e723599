/*
 * A plane for birds that live in many dimensions, in which neighbours stay near. Distances are those of paths along the graph of
 * nearest neighbours (Tenenbaum, de Silva and Langford 2000), their best plane in the sense of classical scaling is where the layout
 * begins, and it ends where the stress, the sum of (distance in the plane - path)^2, falls no more (majorisation: de Leeuw 1977).
 */
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "theorem/random.h"
#include "view/flock.h"

enum { POWER_STEPS = 100, STRESS_STEPS = 200 };

typedef struct plane {
    int32_t n;
    int64_t dim;
    int32_t n_near;
    bool likeness;
    float *rows;            /* [n][dim], whitened */
    int32_t *near;          /* [n][k] */
    float *distance;        /* [n][k] */
    int32_t *label;         /* [n]: the part of the graph a bird belongs to */
    double *path, *centred; /* [n][n] */
    double (*at)[2], (*next)[2];
} plane;

/* ---- distances ---- */

static double apart(const plane *p, int32_t i, int32_t j)
{
    const float *a = p->rows + i * p->dim, *b = p->rows + j * p->dim;
    double dot = 0, one = 0, other = 0, square = 0;
    for (int64_t d = 0; d < p->dim; d++) {
        double x = (double)a[d], y = (double)b[d];
        dot += x * y;
        one += x * x;
        other += y * y;
        square += (x - y) * (x - y);
    }
    if (!p->likeness)
        return sqrt(square);
    return one > 0 && other > 0 ? 1 - dot / sqrt(one * other) : 1;
}

static double *path_row(plane *p, size_t i) { return p->path + i * (size_t)p->n; }

static void set_path(plane *p, int32_t i, int32_t j, double v) { path_row(p, (size_t)i)[j] = path_row(p, (size_t)j)[i] = v; }

/* Birds that a path joins get the same label; returns how many labels there are. */
static int32_t label_parts(plane *p)
{
    int32_t n_labels = 0;
    for (int32_t i = 0; i < p->n; i++)
        p->label[i] = -1;
    for (int32_t i = 0; i < p->n; i++) {
        if (p->label[i] >= 0)
            continue;
        for (int32_t j = 0; j < p->n; j++)
            if (isfinite(path_row(p, (size_t)i)[j]))
                p->label[j] = n_labels;
        n_labels++;
    }
    return n_labels;
}

static void shorten(plane *p)
{
    const size_t n = (size_t)p->n;
    for (size_t k = 0; k < n; k++)
        for (size_t i = 0; i < n; i++) {
            const double first = path_row(p, i)[k], *rest = path_row(p, k);
            for (size_t j = 0; j < n; j++) {
                double v = first + rest[j];
                path_row(p, i)[j] = v < path_row(p, i)[j] ? v : path_row(p, i)[j];
            }
        }
}

/* Paths now lead from the first part along a new edge into that of `to`. */
static void connect(plane *p, size_t from, size_t to, double length)
{
    const size_t n = (size_t)p->n;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            if (p->label[i] == 0 && p->label[j] == p->label[to])
                set_path(p, (int32_t)i, (int32_t)j, path_row(p, i)[from] + length + path_row(p, to)[j]);
}

/* The nearest birds of the first part and of the others become neighbours on the way. */
static void join_parts(plane *p)
{
    while (label_parts(p) > 1) {
        double least = INFINITY;
        int32_t from = 0, to = 0;
        for (int32_t i = 0; i < p->n; i++)
            for (int32_t j = 0; p->label[i] == 0 && j < p->n; j++) {
                double v = p->label[j] != 0 ? apart(p, i, j) : INFINITY;
                if (v < least) {
                    least = v;
                    from = i;
                    to = j;
                }
            }
        connect(p, (size_t)from, (size_t)to, isfinite(least) ? least : 1);
    }
}

static void find_paths(plane *p, int32_t k)
{
    for (size_t i = 0; i < (size_t)p->n * (size_t)p->n; i++)
        p->path[i] = INFINITY;
    for (int32_t i = 0; i < p->n; i++) {
        set_path(p, i, i, 0);
        for (int32_t r = 0; r < k; r++)
            set_path(p, i, p->near[i * k + r], (double)p->distance[i * k + r]);
    }
    shorten(p);
    join_parts(p);
}

/* ---- the layout ---- */

/* -1/2 of the squared paths, rows and columns around their means: its leading eigenvectors are the plane. */
static void centre(plane *p)
{
    const size_t n = (size_t)p->n;
    double all = 0, *mean = &p->next[0][0];
    for (size_t i = 0; i < n; i++) {
        mean[i] = 0;
        for (size_t j = 0; j < n; j++)
            mean[i] += p->path[i * n + j] * p->path[i * n + j] / (double)n;
        all += mean[i] / (double)n;
    }
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            p->centred[i * n + j] = -0.5 * (p->path[i * n + j] * p->path[i * n + j] - mean[i] - mean[j] + all);
}

/* Makes axis a of `next` a unit vector that is perpendicular to the ones before; returns its length before. */
static double straighten(plane *p, int a)
{
    double dot = 0, square = 0;
    for (int32_t i = 0; i < p->n; i++)
        dot += a > 0 ? p->next[i][0] * p->next[i][a] : 0;
    for (int32_t i = 0; i < p->n; i++) {
        p->next[i][a] -= a > 0 ? dot * p->next[i][0] : 0;
        square += p->next[i][a] * p->next[i][a];
    }
    for (int32_t i = 0; i < p->n; i++)
        p->next[i][a] /= square > 0 ? sqrt(square) : 1;
    return sqrt(square);
}

static void begin_layout(plane *p)
{
    const size_t n = (size_t)p->n;
    uint64_t seed = 1;
    double length[2] = {0};
    centre(p);
    for (size_t i = 0; i < n; i++)
        for (int a = 0; a < 2; a++)
            p->at[i][a] = random_normal(&seed);
    for (int step = 0; step < POWER_STEPS; step++) {
        for (size_t i = 0; i < n; i++)
            for (int a = 0; a < 2; a++) {
                double sum = 0;
                for (size_t j = 0; j < n; j++)
                    sum += p->centred[i * n + j] * p->at[j][a];
                p->next[i][a] = sum;
            }
        for (int a = 0; a < 2; a++)
            length[a] = straighten(p, a);
        memcpy(p->at, p->next, n * sizeof *p->at);
    }
    for (size_t i = 0; i < n; i++)
        for (int a = 0; a < 2; a++)
            p->at[i][a] *= sqrt(length[a]);
}

/* One step of majorisation: every bird goes to the mean of the places where the others would have it. */
static void relax(plane *p)
{
    const size_t n = (size_t)p->n;
    for (size_t i = 0; i < n; i++) {
        double sum[2] = {0};
        for (size_t j = 0; j < n; j++) {
            double dx = p->at[i][0] - p->at[j][0], dy = p->at[i][1] - p->at[j][1], far = sqrt(dx * dx + dy * dy);
            double pull = far > 0 ? p->path[i * n + j] / far : 0;
            sum[0] += p->at[j][0] + pull * dx;
            sum[1] += p->at[j][1] + pull * dy;
        }
        for (int a = 0; a < 2; a++)
            p->next[i][a] = sum[a] / (double)n;
    }
    memcpy(p->at, p->next, n * sizeof *p->at);
}

/* Around its mean, the longer axis of its spread along x. */
static void turn(plane *p)
{
    double mean[2] = {0}, xx = 0, xy = 0, yy = 0;
    for (int32_t i = 0; i < p->n; i++)
        for (int a = 0; a < 2; a++)
            mean[a] += p->at[i][a] / p->n;
    for (int32_t i = 0; i < p->n; i++) {
        double x = p->at[i][0] - mean[0], y = p->at[i][1] - mean[1];
        xx += x * x;
        xy += x * y;
        yy += y * y;
    }
    double angle = 0.5 * atan2(2 * xy, xx - yy), c = cos(angle), s = sin(angle);
    for (int32_t i = 0; i < p->n; i++) {
        double x = p->at[i][0] - mean[0], y = p->at[i][1] - mean[1];
        p->at[i][0] = c * x + s * y;
        p->at[i][1] = c * y - s * x;
    }
}

/* at -> home: the longer side of the box around all is 1. */
static void fit(const plane *p, flock_layer *l)
{
    double low[2] = {INFINITY, INFINITY}, high[2] = {-INFINITY, -INFINITY};
    for (int32_t i = 0; i < p->n; i++)
        for (int a = 0; a < 2; a++) {
            low[a] = fmin(low[a], p->at[i][a]);
            high[a] = fmax(high[a], p->at[i][a]);
        }
    l->side = fmax(high[0] - low[0], high[1] - low[1]);
    l->side = l->side > 0 ? l->side : 1;
    memcpy(l->corner, low, sizeof low);
    for (int32_t i = 0; i < p->n; i++)
        l->home[i] = (flock_point){(float)((p->at[i][0] - low[0]) / l->side), (float)((p->at[i][1] - low[1]) / l->side)};
}

static bool is_flat(bool likeness, int64_t dim) { return !likeness && dim <= 2; }

/* Rows of two numbers are the plane; y upwards, as people draw it. */
static void read_flat(const float *row, int64_t dim, double out[2])
{
    out[0] = (double)row[0];
    out[1] = dim > 1 ? -(double)row[1] : 0;
}

static void lay_out(plane *p, flock_layer *l)
{
    if (is_flat(p->likeness, p->dim)) {
        for (int32_t i = 0; i < p->n; i++)
            read_flat(p->rows + i * p->dim, p->dim, p->at[i]);
    } else {
        find_paths(p, p->n_near);
        begin_layout(p);
        for (int step = 0; step < STRESS_STEPS; step++)
            relax(p);
        turn(p);
    }
    fit(p, l);
}

/* ---- neighbours ---- */

static double count_kept(const plane *p, const int32_t *plane_near, int32_t k)
{
    int32_t n = 0;
    for (int32_t i = 0; i < p->n; i++)
        for (int32_t r = 0; r < k; r++)
            for (int32_t q = 0; q < k; q++)
                n += p->near[i * k + r] == plane_near[i * k + q];
    return (double)n / p->n;
}

/* Likeness along each edge: the cosine, or what a distance is worth beside the mean one. */
static dil_status weigh(const plane *p, flock_layer *l, dil_error *err)
{
    double mean = 0;
    int64_t n_edges = l->graph.first[l->n];
    l->graph.weight = mem_calloc((size_t)n_edges + 1, sizeof *l->graph.weight, MEM_MISC);
    if (!l->graph.weight)
        return DIL_FAIL(err, DIL_NO_MEMORY, "flock: no memory for %lld edges", (long long)n_edges);
    for (int32_t i = 0; i < l->n; i++)
        for (int64_t e = l->graph.first[i]; e < l->graph.first[i + 1]; e++) {
            double far = apart(p, i < l->graph.other[e] ? i : l->graph.other[e], i < l->graph.other[e] ? l->graph.other[e] : i);
            l->graph.weight[e] = (float)far;
            mean += far / (double)n_edges;
        }
    for (int64_t e = 0; e < n_edges; e++) {
        double far = (double)l->graph.weight[e];
        double likeness = p->likeness ? 1 - far : mean > 0 ? exp(-0.5 * far * far / (mean * mean)) : 1;
        l->graph.weight[e] = (float)fmax(0, fmin(1, likeness));
    }
    return DIL_OK;
}

/* The graph of lists of different lengths. */
static dil_status befriend(const flock_rows *rows, flock_layer *l, arena *memory, dil_error *err)
{
    const size_t n = (size_t)l->n;
    uint8_t *edge = arena_calloc(memory, n * n, sizeof *edge);
    int64_t n_edges = 0;
    for (size_t i = 0; edge && i < n; i++)
        for (size_t r = 0; r < rows->n_others && rows->others[i * rows->n_others + r] != FLOCK_NOBODY; r++) {
            size_t j = rows->others[i * rows->n_others + r];
            n_edges += edge[i * n + j] ? 0 : 2;
            edge[i * n + j] = edge[j * n + i] = 1;
        }
    l->graph = (swarm_graph){.n = l->n};
    l->graph.first = mem_calloc(n + 1, sizeof *l->graph.first, MEM_MISC);
    l->graph.other = mem_calloc((size_t)n_edges + 1, sizeof *l->graph.other, MEM_MISC);
    if (!edge || !l->graph.first || !l->graph.other)
        return DIL_FAIL(err, DIL_NO_MEMORY, "flock: no memory for %lld edges", (long long)n_edges);
    n_edges = 0;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++)
            if (edge[i * n + j])
                l->graph.other[n_edges++] = (int32_t)j;
        l->graph.first[i + 1] = n_edges;
    }
    return DIL_OK;
}

static dil_status place(plane *p, const flock_rows *rows, flock_layer *l, arena *memory, dil_error *err)
{
    const int32_t k = l->n - 1 < SWARM_NEIGHBOURS ? l->n - 1 : SWARM_NEIGHBOURS;
    int32_t *plane_near = arena_calloc(memory, (size_t)p->n * SWARM_NEIGHBOURS, sizeof *plane_near);
    if (!plane_near)
        return DIL_FAIL(err, DIL_NO_MEMORY, "flock: no memory for %d birds", p->n);
    if (is_flat(p->likeness, p->dim))
        memcpy(p->rows, rows->v, (size_t)p->n * (size_t)p->dim * sizeof *p->rows);
    else
        swarm_whiten(rows->v, p->n, p->dim, p->rows);
    if (k > 0)
        DIL_TRY(swarm_nearest(p->rows, p->n, (int32_t)p->dim, p->likeness ? SWARM_COSINE : SWARM_EUCLIDEAN, k, NULL, p->near,
                              p->distance, err));
    p->n_near = k;
    DIL_TRY(rows->others ? befriend(rows, l, memory, err) : swarm_graph_of(p->near, p->n, k, &l->graph, err));
    DIL_TRY(weigh(p, l, err));
    lay_out(p, l);
    if (rows->others || k == 0)
        return DIL_OK;
    l->n_near = k;
    DIL_TRY(swarm_nearest(&l->home[0].x, p->n, 2, SWARM_EUCLIDEAN, k, NULL, plane_near, NULL, err));
    l->kept = count_kept(p, plane_near, k);
    return DIL_OK;
}

dil_status flock_place(flock_scene *s, flock_layer *l, const flock_rows *rows, dil_error *err)
{
    const size_t n = (size_t)l->n, k = SWARM_NEIGHBOURS;
    plane p = {.n = l->n, .dim = rows->dim, .likeness = rows->likeness};
    l->home = arena_calloc(s->memory, n, sizeof *l->home);
    arena_mark mark = arena_mark_get(s->memory);
    p.rows = arena_calloc(s->memory, n * (size_t)p.dim, sizeof *p.rows);
    p.near = arena_calloc(s->memory, n * k, sizeof *p.near);
    p.distance = arena_calloc(s->memory, n * k, sizeof *p.distance);
    p.label = arena_calloc(s->memory, n, sizeof *p.label);
    p.path = arena_calloc(s->memory, n * n, sizeof *p.path);
    p.centred = arena_calloc(s->memory, n * n, sizeof *p.centred);
    p.at = arena_calloc(s->memory, n, sizeof *p.at);
    p.next = arena_calloc(s->memory, n, sizeof *p.next);
    dil_status status = DIL_OK;
    if (!l->home || !p.rows || !p.near || !p.distance || !p.label || !p.path || !p.centred || !p.at || !p.next)
        status = DIL_FAIL(err, DIL_NO_MEMORY, "flock: no memory for %d birds", l->n);
    if (status == DIL_OK)
        status = place(&p, rows, l, s->memory, err);
    arena_reset(s->memory, mark);
    return status;
}

/* ---- further points ---- */

static double task_distance(const double *weight, const float *row, const float *point, int64_t dim)
{
    double sum = 0;
    for (int64_t d = 0; d < dim; d++) {
        double x = (double)row[d] - (double)point[d];
        sum += weight[d] * x * x;
    }
    return sum;
}

flock_point flock_find(const flock_layer *l, const flock_rows *rows, const double *weight, const float *point)
{
    const int64_t dim = rows->dim;
    double near[SWARM_NEIGHBOURS], at[2], sum[3] = {0};
    int32_t bird[SWARM_NEIGHBOURS], n = 0;
    if (is_flat(rows->likeness, dim)) {
        read_flat(point, dim, at);
        return (flock_point){(float)((at[0] - l->corner[0]) / l->side), (float)((at[1] - l->corner[1]) / l->side)};
    }
    for (int32_t i = 0; i < l->n; i++) {
        double far = task_distance(weight, rows->v + i * dim, point, dim);
        if (n == SWARM_NEIGHBOURS && far >= near[n - 1])
            continue;
        int32_t to = n < SWARM_NEIGHBOURS ? n++ : n - 1;
        for (; to > 0 && near[to - 1] > far; to--) {
            near[to] = near[to - 1];
            bird[to] = bird[to - 1];
        }
        near[to] = far;
        bird[to] = i;
    }
    for (int32_t r = 0; r < n; r++) {
        double w = 1 / (near[r] + 1e-6 * near[n - 1] + 1e-300);
        sum[0] += w * (double)l->home[bird[r]].x;
        sum[1] += w * (double)l->home[bird[r]].y;
        sum[2] += w;
    }
    return (flock_point){(float)(sum[0] / sum[2]), (float)(sum[1] / sum[2])};
}
