/*
 * The flock: who minds whom. Points of a space, the k nearest others of each (starlings: 7), the graph that makes these lists
 * mutual, and three quantities that describe how a flock flies. Knows nothing of what the points stand for.
 */
#ifndef THEOREM_NEIGHBOURS_H
#define THEOREM_NEIGHBOURS_H

#include "base/threads.h"
#include "dilmodeli.h"

#define SWARM_NEIGHBOURS 7
#define SWARM_MOST_NEIGHBOURS 64

typedef enum swarm_metric {
    SWARM_EUCLIDEAN,
    SWARM_COSINE /* 1 - cosine of the angle between the vectors; a zero vector is 1/2 from all others */
} swarm_metric;

/* An undirected graph: every edge stands in both lists. */
typedef struct swarm_graph {
    int32_t n;
    int64_t *first; /* [n + 1]: the edges of i are first[i] .. first[i + 1] - 1 */
    int32_t *other; /* [first[n]], ascending for each i, never i itself */
    float *weight;  /* [first[n]], the same in both directions; or NULL */
} swarm_graph;

/* weight [dim] of points [n][dim]: 1 / variance of each axis over them, 0 for an axis on which all agree. */
void swarm_weights(const float *points, int32_t n, int64_t dim, double *weight);
/* Each axis of points [n][dim] around its mean, in units of its deviation over all points: to [n][dim]; what is not finite becomes 0, and
 * so does an axis on which all agree. */
void swarm_whiten(const float *points, int32_t n, int64_t dim, float *to);

/*
 * The k nearest others of every point, nearest first, of two at the same distance the lower index. Exact, for any thread count.
 * points [n][dim]; 1 <= k <= SWARM_MOST_NEIGHBOURS, k < n; nearest [n][k]; distance [n][k] or NULL: Euclidean, or 1 - cosine.
 * workers NULL: on the calling thread. BAD_ARGUMENT: sizes, or a point that is not finite.
 */
DIL_MUST_CHECK dil_status swarm_nearest(const float *points, int32_t n, int32_t dim, swarm_metric metric, int32_t k, team *workers,
                                        int32_t *nearest, float *distance, dil_error *err);

/* The union of lists [n][k] with themselves turned round, without weights. [owned: free with swarm_graph_free] */
DIL_MUST_CHECK dil_status swarm_graph_of(const int32_t *lists, int32_t n, int32_t k, swarm_graph *out, dil_error *err);
void swarm_graph_free(swarm_graph *g);
int64_t swarm_edge(const swarm_graph *g, int32_t i, int32_t j); /* position in i's list, or -1 */

/* How a flock flies; all are means over the points that have neighbours. */
typedef struct swarm_order {
    double alignment;  /* cosine of a point's velocity with its neighbours' mean velocity: 1 together, 0 unrelated, -1 against */
    double cohesion;   /* distance to the centre of the neighbours */
    double separation; /* distance to the nearest neighbour */
} swarm_order;

/* velocities [n][dim] or NULL (alignment 0). */
void swarm_measure(const swarm_graph *g, const float *points, const float *velocities, int32_t dim, swarm_order *out);

/* How points move: v += alignment (mean v of the neighbours - v) + cohesion (their centre - x) + separation sum (x - x_j) / |x - x_j|^2
 * + pull (target - x), then no faster than most_speed (Reynolds 1987). */
typedef struct swarm_rules {
    float alignment, cohesion, separation, pull, most_speed;
    const float *target; /* [dim] or NULL */
} swarm_rules;

/* All at once: velocities, then points; [g->n][dim] both. NO_MEMORY leaves them untouched. */
DIL_MUST_CHECK dil_status swarm_step(const swarm_graph *g, const swarm_rules *r, float *points, float *velocities, int32_t dim,
                                     dil_error *err);

#endif
