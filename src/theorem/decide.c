#include "theorem/decide.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"

static int32_t group_size(const decide_problem *p)
{
    int32_t n = p->group > 0 ? p->group : SWARM_NEIGHBOURS;
    n = n < p->n ? n : p->n;
    return n < DECIDE_MOST ? n : DECIDE_MOST;
}

static int32_t places(const decide_problem *p) { return p->n_chosen > 0 ? p->n_chosen : 1; }

static dil_status check(const decide_problem *p, dil_error *err)
{
    if (p->n < 1 || p->dim < 1 || places(p) > p->n || places(p) > DECIDE_MOST)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT,
                        "decision: wanted candidates and at most as many places (%d at most), found %d and %d", DECIDE_MOST, p->n,
                        places(p));
    if (!(p->overlap >= 0.0) || !isfinite(p->overlap))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "decision: overlap: wanted a finite number of at least 0, found %g", p->overlap);
    for (int64_t i = 0; i < (int64_t)p->n * p->dim; i++)
        if (!isfinite(p->candidates[i]))
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "decision: candidate %d: wanted finite numbers, found %g", (int)(i / p->dim),
                            (double)p->candidates[i]);
    for (int32_t d = 0; d < p->dim; d++)
        if (!isfinite(p->task[d]))
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "decision: task: wanted finite numbers, found %g", (double)p->task[d]);
    return DIL_OK;
}

/* ---- the group ---- */

static double task_distance(const decide_problem *p, const double *weight, int32_t i)
{
    double sum = 0.0;
    for (int32_t d = 0; d < p->dim; d++) {
        double x = (double)p->candidates[(size_t)i * (size_t)p->dim + (size_t)d] - (double)p->task[d];
        sum += weight[d] * x * x;
    }
    return sqrt(sum);
}

/* Values fall with the square of the distance, in units of the group's median. */
static double value_at(double distance, double unit) { return unit > 0.0 ? exp(-0.5 * distance * distance / (unit * unit)) : 1.0; }

/* The n nearest by insertion; returns the distance of the nearest that stayed out, infinity when none did. */
static double take_nearest(const decide_problem *p, const double *weight, int32_t n, decide_evidence *out)
{
    double next = INFINITY;
    out->n = 0;
    for (int32_t i = 0; i < p->n; i++) {
        double far = task_distance(p, weight, i);
        if (out->n == n && far >= out->distance[n - 1]) {
            next = far < next ? far : next;
            continue;
        }
        if (out->n == n)
            next = out->distance[n - 1] < next ? out->distance[n - 1] : next;
        int32_t at = out->n < n ? out->n++ : n - 1;
        for (; at > 0 && out->distance[at - 1] > far; at--) {
            out->distance[at] = out->distance[at - 1];
            out->member[at] = out->member[at - 1];
        }
        out->distance[at] = far;
        out->member[at] = i;
    }
    return next;
}

static dil_status find_group(const decide_problem *p, int32_t n, decide_evidence *out, dil_error *err)
{
    double *weight = mem_calloc((size_t)p->dim, sizeof *weight, MEM_MISC);
    if (!weight)
        return DIL_FAIL(err, DIL_NO_MEMORY, "decision: no memory for %d numbers", p->dim);
    swarm_weights(p->candidates, p->n, p->dim, weight);
    double next = take_nearest(p, weight, n, out), unit = out->distance[out->n / 2];
    mem_free(weight);
    for (int32_t r = 0; r < out->n; r++)
        out->value[r] = value_at(out->distance[r], unit);
    out->outside = isfinite(next) ? value_at(next, unit) : 0.0;
    return DIL_OK;
}

dil_status decide_group(const decide_problem *p, decide_evidence *out, dil_error *err)
{
    decide_evidence e = {0};
    DIL_TRY(check(p, err));
    DIL_TRY(find_group(p, group_size(p), &e, err));
    *out = e;
    return DIL_OK;
}

/* ---- the equilibrium ---- */

/* Players: members. Strategy 0 rests, 1 takes a place: own cost -value, use 1. Chosen ones of like direction cost each other
 * overlap * cosine * value * value. */
typedef struct small_game {
    int32_t first[DECIDE_MOST + 1], lists[DECIDE_MOST][DECIDE_MOST];
    double cost[2 * DECIDE_MOST], use[2 * DECIDE_MOST];
    float amount[2 * DECIDE_MOST];
    swarm_graph graph;
    game g;
} small_game;

/* Cosine of two members as seen from the task. */
static double likeness(const decide_problem *p, int32_t a, int32_t b)
{
    double dot = 0.0, aa = 0.0, bb = 0.0;
    for (int32_t d = 0; d < p->dim; d++) {
        double x = (double)p->candidates[(size_t)a * (size_t)p->dim + (size_t)d],
               y = (double)p->candidates[(size_t)b * (size_t)p->dim + (size_t)d];
        dot += x * y;
        aa += x * x;
        bb += y * y;
    }
    return aa > 0.0 && bb > 0.0 ? dot / sqrt(aa * bb) : 0.0;
}

static dil_status couple(const decide_problem *p, const decide_evidence *e, small_game *s, dil_error *err)
{
    int32_t n = e->n, *flat = &s->lists[0][0];
    for (int32_t i = 0; i < n; i++)
        for (int32_t j = 0, at = 0; j < n; j++)
            if (j != i)
                flat[i * (n - 1) + at++] = j;
    DIL_TRY(swarm_graph_of(flat, n, n - 1, &s->graph, err));
    s->graph.weight = mem_calloc((size_t)s->graph.first[n] + 1, sizeof *s->graph.weight, MEM_MISC);
    if (!s->graph.weight)
        return DIL_FAIL(err, DIL_NO_MEMORY, "decision: no memory for %d candidates", n);
    for (int32_t i = 0; i < n; i++)
        for (int64_t edge = s->graph.first[i]; edge < s->graph.first[i + 1]; edge++) {
            int32_t j = s->graph.other[edge], low = i < j ? i : j, high = i < j ? j : i; /* the same sum in both directions */
            double like = likeness(p, e->member[low], e->member[high]);
            s->graph.weight[edge] = (float)(like > 0.0 ? p->overlap * like : 0.0);
        }
    s->g.graph = &s->graph;
    s->g.amount = s->amount;
    return DIL_OK;
}

static dil_status settle_group(const decide_problem *p, decide_evidence *e, small_game *s, dil_error *err)
{
    for (int32_t i = 0; i < e->n; i++) {
        s->first[i + 1] = 2 * (i + 1);
        s->cost[2 * i + 1] = -e->value[i];
        s->use[2 * i + 1] = 1.0;
        s->amount[2 * i + 1] = (float)e->value[i];
    }
    s->g = (game){.n_players = e->n, .first = s->first, .cost = s->cost, .use = s->use};
    if (p->overlap > 0.0 && e->n > 1)
        DIL_TRY(couple(p, e, s, err));
    DIL_TRY(game_fit(&s->g, places(p), NULL, e->chosen, &e->game, err));
    /* When all places are taken, one costs what the keenest of those without would gain by it: then nobody wants to change. As no
     * exchange of two helps, those with a place gain at least as much by theirs. */
    for (int32_t i = 0; i < e->n && e->game.used > places(p) - 0.5; i++) {
        double bid = e->chosen[i] ? 0.0 : -game_player_cost(&s->g, e->chosen, i, 1, 0.0);
        e->game.price = bid > e->game.price ? bid : e->game.price;
    }
    for (int32_t i = 0; i < e->n; i++)
        e->regret[i] = game_player_cost(&s->g, e->chosen, i, 1 - e->chosen[i], e->game.price) -
                       game_player_cost(&s->g, e->chosen, i, e->chosen[i], e->game.price);
    return DIL_OK;
}

dil_status decide_equilibrium(const decide_problem *p, decide_evidence *inout, dil_error *err)
{
    if (inout->n < 1 || inout->n > DECIDE_MOST)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "decision: wanted a group of 1..%d, found %d", DECIDE_MOST, inout->n);
    small_game *s = mem_calloc(1, sizeof *s, MEM_MISC);
    if (!s)
        return DIL_FAIL(err, DIL_NO_MEMORY, "decision: no memory");
    decide_evidence e = *inout;
    dil_status status = settle_group(p, &e, s, err);
    swarm_graph_free(&s->graph);
    mem_free(s);
    if (status == DIL_OK)
        *inout = e;
    return status;
}

/* ---- both ---- */

/* The least value among the chosen: who stays below it outside the group cannot replace anybody, whatever the overlaps. */
static double least_chosen(const decide_evidence *e)
{
    double least = INFINITY;
    for (int32_t i = 0; i < e->n; i++)
        least = e->chosen[i] && e->value[i] < least ? e->value[i] : least;
    return least;
}

static bool is_certain(const decide_problem *p, const decide_evidence *e)
{
    if (e->n == p->n)
        return true;
    double least = least_chosen(e), lost = 0.0; /* what overlaps could have cost a chosen one at most */
    for (int32_t i = 0; i < e->n; i++)
        lost += e->chosen[i] ? p->overlap * e->value[i] : 0.0;
    return isfinite(least) && e->outside <= least * (1.0 - (lost < 1.0 ? lost : 1.0));
}

int32_t decide_best(const decide_evidence *e)
{
    int32_t at = -1;
    for (int32_t i = 0; i < e->n; i++)
        if (e->chosen[i] && (at < 0 || e->value[i] > e->value[at]))
            at = i;
    return at < 0 ? -1 : e->member[at];
}

dil_status decide_adaptive(const decide_problem *p, int32_t *best, decide_evidence *out, dil_error *err)
{
    decide_evidence e = {0};
    DIL_TRY(check(p, err));
    int32_t n = group_size(p) > places(p) ? group_size(p) : places(p);
    for (int32_t round = 0;; round++) {
        e = (decide_evidence){.n_rounds = round};
        DIL_TRY(find_group(p, n, &e, err));
        DIL_TRY(decide_equilibrium(p, &e, err));
        e.certain = is_certain(p, &e);
        if (e.certain || n == p->n || n == DECIDE_MOST)
            break;
        n = 2 * n < p->n ? 2 * n : p->n;
        n = n < DECIDE_MOST ? n : DECIDE_MOST;
    }
    if (decide_best(&e) < 0)
        return DIL_FAIL(err, DIL_INTERNAL, "decision: nobody was chosen");
    *best = decide_best(&e);
    *out = e;
    return DIL_OK;
}
