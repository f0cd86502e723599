/*
 * Nearest neighbours by a k-d tree: halves along the widest axis down to small leaves; a search goes down the nearer side first and
 * into the farther one only if its box could hold something as near as the worst so far. In many dimensions nearly all leaves are
 * visited and the tree costs little more than comparing everything with everything. Angles are distances of unit vectors.
 */
#include "theorem/neighbours.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"

#define LEAF 16
#define SLACK (1.0 - 1e-4) /* covers the rounding of distances in float */
#define QUERIES_PER_CLAIM 256
#define MOST_DIMENSIONS 65536

typedef struct node {
    int32_t begin, end; /* of order */
    int32_t axis;       /* -1: a leaf */
    int32_t right;      /* the left child follows its parent */
    float split;
} node;

typedef struct tree {
    const float *points; /* [n][dim] */
    int32_t n, dim, n_nodes;
    int32_t *order; /* [n]: points, each node's together */
    node *nodes;
} tree;

typedef struct search {
    const tree *t;
    const float *q;
    int32_t self, k, found;
    int32_t index[SWARM_MOST_NEIGHBOURS];
    double far[SWARM_MOST_NEIGHBOURS]; /* squared distances, ascending */
    double *offset;                    /* [dim]: squared distance to the box along each axis */
} search;

/* ---- building ---- */

static int32_t widest_axis(const tree *t, int32_t begin, int32_t end)
{
    int32_t widest = 0;
    float most = -1.0f;
    for (int32_t d = 0; d < t->dim; d++) {
        float low = INFINITY, high = -INFINITY;
        for (int32_t i = begin; i < end; i++) {
            float x = t->points[(size_t)t->order[i] * (size_t)t->dim + (size_t)d];
            low = x < low ? x : low;
            high = x > high ? x : high;
        }
        if (high - low > most) {
            most = high - low;
            widest = d;
        }
    }
    return most > 0.0f ? widest : -1;
}

static float along(const tree *t, int32_t i, int32_t axis)
{
    return t->points[(size_t)t->order[i] * (size_t)t->dim + (size_t)axis];
}

/* Quickselect: order[middle] gets the value it would have if [begin, end) were sorted along the axis. */
static void select_middle(tree *t, int32_t begin, int32_t end, int32_t middle, int32_t axis)
{
    while (end - begin > 1) {
        float pivot = along(t, begin + (end - begin) / 2, axis);
        int32_t low = begin, i = begin, high = end;
        while (i < high) { /* smaller, equal, larger */
            float x = along(t, i, axis);
            int32_t with = x < pivot ? low++ : x > pivot ? --high : i;
            int32_t swapped = t->order[with];
            t->order[with] = t->order[i];
            t->order[i] = swapped;
            i += x <= pivot;
        }
        if (middle < low)
            end = low;
        else if (middle >= high)
            begin = high;
        else
            return;
    }
}

static void grow(tree *t, int32_t begin, int32_t end)
{
    node *me = &t->nodes[t->n_nodes++];
    *me = (node){.begin = begin, .end = end, .axis = end - begin <= LEAF ? -1 : widest_axis(t, begin, end)};
    if (me->axis < 0)
        return;
    int32_t middle = begin + (end - begin) / 2;
    select_middle(t, begin, end, middle, me->axis);
    me->split = along(t, middle, me->axis);
    grow(t, begin, middle);
    me->right = t->n_nodes;
    grow(t, middle, end);
}

/* ---- searching ---- */

/* Eight sums side by side, so that the compiler may use vectors; always in the same order. */
static double squared_distance(const float *a, const float *b, int32_t dim)
{
    float sum[8] = {0};
    int32_t d = 0;
    for (; d + 8 <= dim; d += 8)
        for (int lane = 0; lane < 8; lane++) {
            float x = a[d + lane] - b[d + lane];
            sum[lane] += x * x;
        }
    for (int lane = 0; d + lane < dim; lane++) {
        float x = a[d + lane] - b[d + lane];
        sum[lane] += x * x;
    }
    return (double)((sum[0] + sum[4]) + (sum[2] + sum[6])) + (double)((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

static void offer(search *s, int32_t index, double far)
{
    if (s->found == s->k && (far > s->far[s->k - 1] || (far == s->far[s->k - 1] && index > s->index[s->k - 1])))
        return;
    int32_t at = s->found < s->k ? s->found++ : s->k - 1;
    for (; at > 0 && (s->far[at - 1] > far || (s->far[at - 1] == far && s->index[at - 1] > index)); at--) {
        s->far[at] = s->far[at - 1];
        s->index[at] = s->index[at - 1];
    }
    s->far[at] = far;
    s->index[at] = index;
}

/* least: squared distance from the query to the node's box. The slack covers the rounding of its sum. */
static void visit(search *s, int32_t at, double least)
{
    const tree *t = s->t;
    const node *me = &t->nodes[at];
    if (me->axis < 0) {
        for (int32_t i = me->begin; i < me->end; i++)
            if (t->order[i] != s->self)
                offer(s, t->order[i], squared_distance(s->q, t->points + (size_t)t->order[i] * (size_t)t->dim, t->dim));
        return;
    }
    double gap = (double)s->q[me->axis] - (double)me->split, before = s->offset[me->axis], beyond = least - before + gap * gap;
    bool left_first = gap < 0.0;
    visit(s, left_first ? at + 1 : me->right, least);
    if (s->found == s->k && beyond * SLACK > s->far[s->k - 1])
        return;
    s->offset[me->axis] = gap * gap;
    visit(s, left_first ? me->right : at + 1, beyond);
    s->offset[me->axis] = before;
}

/* ---- whitening ---- */

/* Mean and variance of one axis. */
static void spread(const float *points, int32_t n, int64_t dim, int64_t axis, double *mean, double *square)
{
    *mean = *square = 0.0;
    for (int32_t i = 0; i < n; i++)
        *mean += (double)points[i * dim + axis] / n;
    for (int32_t i = 0; i < n; i++) {
        double x = (double)points[i * dim + axis] - *mean;
        *square += x * x / n;
    }
}

void swarm_weights(const float *points, int32_t n, int64_t dim, double *weight)
{
    double mean, square;
    for (int64_t axis = 0; axis < dim; axis++) {
        spread(points, n, dim, axis, &mean, &square);
        weight[axis] = square > 0.0 ? 1.0 / square : 0.0;
    }
}

void swarm_whiten(const float *points, int32_t n, int64_t dim, float *to)
{
    double mean, square;
    for (int64_t axis = 0; axis < dim; axis++) {
        spread(points, n, dim, axis, &mean, &square);
        double factor = square > 0.0 ? 1.0 / sqrt(square) : 0.0;
        for (int32_t i = 0; i < n; i++) {
            float v = (float)(((double)points[i * dim + axis] - mean) * factor);
            to[i * dim + axis] = isfinite(v) ? v : 0.0f;
        }
    }
}

/* ---- all points ---- */

typedef struct job {
    const tree *t;
    team *workers;
    int32_t k;
    swarm_metric metric;
    int32_t *nearest;
    float *distance;
    double *offsets; /* [workers][dim] */
} job;

static void search_one(const job *j, int32_t i, double *offset)
{
    search s = {.t = j->t, .q = j->t->points + (size_t)i * (size_t)j->t->dim, .self = i, .k = j->k, .offset = offset};
    visit(&s, 0, 0.0);
    for (int32_t r = 0; r < j->k; r++) {
        j->nearest[(size_t)i * (size_t)j->k + (size_t)r] = s.index[r];
        if (j->distance)
            j->distance[(size_t)i * (size_t)j->k + (size_t)r] =
                (float)(j->metric == SWARM_COSINE ? s.far[r] / 2.0 : sqrt(s.far[r]));
    }
}

static void search_some(void *ctx, int worker)
{
    const job *j = ctx;
    double *offset = j->offsets + (size_t)worker * (size_t)j->t->dim;
    int32_t n = j->t->n, n_claims = (n + QUERIES_PER_CLAIM - 1) / QUERIES_PER_CLAIM;
    for (int32_t claim = 0; (claim = j->workers ? (int32_t)team_claim(j->workers) : claim) < n_claims; claim++)
        for (int32_t i = claim * QUERIES_PER_CLAIM; i < n && i < (claim + 1) * QUERIES_PER_CLAIM; i++)
            search_one(j, i, offset);
}

/* A copy of the points, of length 1 for angles; false: one is not finite. */
static bool prepare(const float *points, int32_t n, int32_t dim, swarm_metric metric, float *to)
{
    for (int32_t i = 0; i < n; i++) {
        const float *from = points + (size_t)i * (size_t)dim;
        float *p = to + (size_t)i * (size_t)dim;
        double length = 0.0;
        for (int32_t d = 0; d < dim; d++) {
            if (!isfinite(from[d]))
                return false;
            length += (double)from[d] * (double)from[d];
        }
        double factor = metric == SWARM_COSINE ? length > 0.0 ? 1.0 / sqrt(length) : 0.0 : 1.0;
        for (int32_t d = 0; d < dim; d++)
            p[d] = (float)((double)from[d] * factor);
    }
    return true;
}

dil_status swarm_nearest(const float *points, int32_t n, int32_t dim, swarm_metric metric, int32_t k, team *workers,
                         int32_t *nearest, float *distance, dil_error *err)
{
    if (n < 2 || dim < 1 || dim > MOST_DIMENSIONS || k < 1 || k >= n || k > SWARM_MOST_NEIGHBOURS)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT,
                        "neighbours: wanted 1..%d of at least as many others, found %d of %d points with %d numbers",
                        SWARM_MOST_NEIGHBOURS, k, n, dim);
    size_t n_workers = workers ? (size_t)team_size(workers) : 1;
    float *copy = mem_calloc((size_t)n * (size_t)dim, sizeof *copy, MEM_MISC);
    tree t = {.points = copy, .n = n, .dim = dim};
    t.order = mem_calloc((size_t)n, sizeof *t.order, MEM_MISC);
    t.nodes = mem_calloc((size_t)n / (LEAF / 2) * 2 + 2, sizeof *t.nodes, MEM_MISC);
    double *offsets = mem_calloc(n_workers * (size_t)dim, sizeof *offsets, MEM_MISC);
    dil_status status = DIL_OK;
    if (!copy || !t.order || !t.nodes || !offsets)
        status = DIL_FAIL(err, DIL_NO_MEMORY, "neighbours: no memory for %d points", n);
    else if (!prepare(points, n, dim, metric, copy))
        status = DIL_FAIL(err, DIL_BAD_ARGUMENT, "neighbours: wanted finite points, found one that is not");
    if (status == DIL_OK) {
        for (int32_t i = 0; i < n; i++)
            t.order[i] = i;
        grow(&t, 0, n);
        job j = {&t, workers, k, metric, nearest, distance, offsets};
        if (workers)
            team_run(workers, search_some, &j);
        else
            search_some(&j, 0);
    }
    mem_free(copy);
    mem_free(t.order);
    mem_free(t.nodes);
    mem_free(offsets);
    return status;
}

/* ---- the graph ---- */

static int ascending(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* Sorts every row and leaves each neighbour once. */
static void tidy(swarm_graph *g)
{
    int64_t to = 0, begin = 0;
    for (int32_t i = 0; i < g->n; i++) {
        int64_t end = g->first[i + 1];
        qsort(g->other + begin, (size_t)(end - begin), sizeof *g->other, ascending);
        g->first[i] = to;
        for (int64_t e = begin; e < end; e++)
            if (e == begin || g->other[e] != g->other[e - 1])
                g->other[to++] = g->other[e];
        begin = end;
    }
    g->first[g->n] = to;
}

dil_status swarm_graph_of(const int32_t *lists, int32_t n, int32_t k, swarm_graph *out, dil_error *err)
{
    swarm_graph g = {.n = n};
    if (n < 1 || k < 0)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "graph: wanted at least one point, found %d", n);
    for (size_t e = 0; e < (size_t)n * (size_t)k; e++)
        if (lists[e] < 0 || lists[e] >= n || lists[e] == (int32_t)(e / (size_t)k))
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "graph: point %d: wanted another point below %d, found %d", (int)(e / (size_t)k),
                            n, lists[e]);
    g.first = mem_calloc((size_t)n + 1, sizeof *g.first, MEM_MISC);
    g.other = mem_calloc(2 * (size_t)n * (size_t)k + 1, sizeof *g.other, MEM_MISC);
    int64_t *at = mem_calloc((size_t)n + 1, sizeof *at, MEM_MISC);
    if (!g.first || !g.other || !at) {
        swarm_graph_free(&g);
        mem_free(at);
        return DIL_FAIL(err, DIL_NO_MEMORY, "graph: no memory for %d points", n);
    }
    for (int32_t i = 0; i < n; i++)
        for (int32_t r = 0; r < k; r++) {
            g.first[i + 1]++;
            g.first[lists[(size_t)i * (size_t)k + (size_t)r] + 1]++;
        }
    for (int32_t i = 0; i < n; i++)
        g.first[i + 1] += g.first[i];
    memcpy(at, g.first, ((size_t)n + 1) * sizeof *at);
    for (int32_t i = 0; i < n; i++)
        for (int32_t r = 0; r < k; r++) {
            int32_t j = lists[(size_t)i * (size_t)k + (size_t)r];
            g.other[at[i]++] = j;
            g.other[at[j]++] = i;
        }
    mem_free(at);
    tidy(&g);
    *out = g;
    return DIL_OK;
}

void swarm_graph_free(swarm_graph *g)
{
    mem_free(g->first);
    mem_free(g->other);
    mem_free(g->weight);
    *g = (swarm_graph){0};
}

int64_t swarm_edge(const swarm_graph *g, int32_t i, int32_t j)
{
    int64_t low = g->first[i], high = g->first[i + 1];
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (g->other[middle] < j)
            low = middle + 1;
        else
            high = middle;
    }
    return low < g->first[i + 1] && g->other[low] == j ? low : -1;
}

/* ---- how it flies ---- */

/* Mean over i's neighbours of coordinate d. */
static double neighbours_mean(const swarm_graph *g, int32_t i, const float *x, int32_t dim, int32_t d)
{
    double sum = 0.0;
    for (int64_t e = g->first[i]; e < g->first[i + 1]; e++)
        sum += (double)x[(size_t)g->other[e] * (size_t)dim + (size_t)d];
    return sum / (double)(g->first[i + 1] - g->first[i]);
}

void swarm_measure(const swarm_graph *g, const float *points, const float *velocities, int32_t dim, swarm_order *out)
{
    swarm_order sum = {0};
    int32_t n = 0;
    for (int32_t i = 0; i < g->n; i++) {
        if (g->first[i] == g->first[i + 1])
            continue;
        n++;
        double centre = 0.0, dot = 0.0, own = 0.0, others = 0.0, nearest = INFINITY;
        for (int32_t d = 0; d < dim; d++) {
            double x = (double)points[(size_t)i * (size_t)dim + (size_t)d] - neighbours_mean(g, i, points, dim, d);
            centre += x * x;
            if (!velocities)
                continue;
            double v = (double)velocities[(size_t)i * (size_t)dim + (size_t)d], mean = neighbours_mean(g, i, velocities, dim, d);
            dot += v * mean;
            own += v * v;
            others += mean * mean;
        }
        for (int64_t e = g->first[i]; e < g->first[i + 1]; e++) {
            double far = squared_distance(points + (size_t)i * (size_t)dim, points + (size_t)g->other[e] * (size_t)dim, dim);
            nearest = far < nearest ? far : nearest;
        }
        sum.cohesion += sqrt(centre);
        sum.separation += sqrt(nearest);
        sum.alignment += own > 0.0 && others > 0.0 ? dot / sqrt(own * others) : 0.0;
    }
    double part = n > 0 ? 1.0 / n : 0.0;
    *out = (swarm_order){sum.alignment * part, sum.cohesion * part, sum.separation * part};
}

/* The neighbours' push in one direction; those at the same place have none. */
static double push(const swarm_graph *g, int32_t i, const float *points, int32_t dim, int32_t d)
{
    double sum = 0.0;
    const float *x = points + (size_t)i * (size_t)dim;
    for (int64_t e = g->first[i]; e < g->first[i + 1]; e++) {
        const float *y = points + (size_t)g->other[e] * (size_t)dim;
        const double far = squared_distance(x, y, dim);
        sum += far > 0.0 ? ((double)x[d] - (double)y[d]) / far : 0.0;
    }
    return sum;
}

/* v [dim]: the new velocity of bird i. */
static void steer(const swarm_graph *g, const swarm_rules *r, int32_t i, const float *points, const float *velocities, int32_t dim,
                  float *v)
{
    const bool alone = g->first[i] == g->first[i + 1];
    double square = 0.0;
    for (int32_t d = 0; d < dim; d++) {
        const double x = (double)points[(size_t)i * (size_t)dim + (size_t)d];
        double next = (double)velocities[(size_t)i * (size_t)dim + (size_t)d];
        if (!alone)
            next += (double)r->alignment * (neighbours_mean(g, i, velocities, dim, d) - next) +
                    (double)r->cohesion * (neighbours_mean(g, i, points, dim, d) - x) +
                    (double)r->separation * push(g, i, points, dim, d);
        if (r->target)
            next += (double)r->pull * ((double)r->target[d] - x);
        v[d] = (float)next;
        square += next * next;
    }
    const double most = (double)r->most_speed;
    for (int32_t d = 0; square > most * most && d < dim; d++)
        v[d] = (float)((double)v[d] * most / sqrt(square));
}

dil_status swarm_step(const swarm_graph *g, const swarm_rules *r, float *points, float *velocities, int32_t dim, dil_error *err)
{
    const size_t n = (size_t)g->n * (size_t)dim;
    float *next = mem_alloc(n * sizeof *next, MEM_MISC);
    if (!next)
        return DIL_FAIL(err, DIL_NO_MEMORY, "flock: no memory for %d birds", (int)g->n);
    for (int32_t i = 0; i < g->n; i++)
        steer(g, r, i, points, velocities, dim, next + (size_t)i * (size_t)dim);
    for (size_t i = 0; i < n; i++) {
        velocities[i] = next[i];
        points[i] += next[i];
    }
    mem_free(next);
    return DIL_OK;
}
