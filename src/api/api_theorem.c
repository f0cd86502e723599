/* The theorem's public face: flocks, games and decisions over src/theorem/. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/arguments.h"
#include "base/mem.h"
#include "theorem/decide.h"

_Static_assert(DIL_NEIGHBOURS == SWARM_NEIGHBOURS && DIL_GROUP_MOST == DECIDE_MOST, "the header says what the theorem does");

/* ---- flocks ---- */

dil_status dil_flock_nearest(const float *points, int32_t n, int32_t dim, int32_t k, bool cosine, int32_t *nearest, float *distance,
                             dil_error *err)
{
    DIL_TRY(need(points, "dil_flock_nearest: points", err));
    DIL_TRY(need(nearest, "dil_flock_nearest: nearest", err));
    return swarm_nearest(points, n, dim, cosine ? SWARM_COSINE : SWARM_EUCLIDEAN, k, NULL, nearest, distance, err);
}

/* The mutual graph of the k nearest, or of all in a smaller flock; who is alone has no edge. */
static dil_status flock_graph(swarm_graph *out, const float *points, int32_t n, int32_t dim, int32_t k, dil_error *err)
{
    if (n < 1 || dim < 1 || k < 1 || k > SWARM_MOST_NEIGHBOURS)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT,
                        "flock: wanted birds with a place and 1..%d neighbours, found %d of %d numbers and %d",
                        SWARM_MOST_NEIGHBOURS, n, dim, k);
    if (n == 1)
        return swarm_graph_of(NULL, 1, 0, out, err);
    k = k < n ? k : n - 1;
    int32_t *lists = mem_alloc((size_t)n * (size_t)k * sizeof *lists, MEM_MISC);
    if (!lists)
        return DIL_FAIL(err, DIL_NO_MEMORY, "flock: no memory for %d birds", n);
    dil_status status = swarm_nearest(points, n, dim, SWARM_EUCLIDEAN, k, NULL, lists, NULL, err);
    if (status == DIL_OK)
        status = swarm_graph_of(lists, n, k, out, err);
    mem_free(lists);
    return status;
}

dil_status dil_flock_measure(const float *points, const float *velocities, int32_t n, int32_t dim, int32_t k, dil_flock_order *out,
                             dil_error *err)
{
    swarm_graph g;
    swarm_order order;
    DIL_TRY(need(points, "dil_flock_measure: points", err));
    DIL_TRY(need(out, "dil_flock_measure: out", err));
    DIL_TRY(flock_graph(&g, points, n, dim, k, err));
    swarm_measure(&g, points, velocities, dim, &order);
    swarm_graph_free(&g);
    *out = (dil_flock_order){order.alignment, order.cohesion, order.separation};
    return DIL_OK;
}

dil_flock_rules dil_flock_rules_default(void)
{
    return (dil_flock_rules){.struct_size = sizeof(dil_flock_rules),
                             .k = DIL_NEIGHBOURS,
                             .alignment = 0.125f,
                             .cohesion = 0.01f,
                             .separation = 0.05f,
                             .pull = 0.005f,
                             .most_speed = 1};
}

static dil_status check_rules(const dil_flock_rules *r, dil_error *err)
{
    const struct {
        const char *name;
        float value;
    } rules[] = {{"alignment", r->alignment}, {"cohesion", r->cohesion}, {"separation", r->separation}, {"pull", r->pull}};
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (!isfinite(rules[i].value))
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_flock_rules: %s: wanted a finite number, found %g", rules[i].name,
                            (double)rules[i].value);
    if (!(r->most_speed > 0) || !isfinite(r->most_speed))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_flock_rules: most_speed: wanted a finite number above 0, found %g",
                        (double)r->most_speed);
    return DIL_OK;
}

static dil_status check_finite(const float *x, size_t n, const char *name, dil_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: wanted finite numbers, found %g at index %zu", name, (double)x[i], i);
    return DIL_OK;
}

dil_status dil_flock_step(float *points, float *velocities, int32_t n, int32_t dim, const dil_flock_rules *rules, dil_error *err)
{
    dil_flock_rules r = dil_flock_rules_default();
    swarm_graph g;
    DIL_TRY(need(points, "dil_flock_step: points", err));
    DIL_TRY(need(velocities, "dil_flock_step: velocities", err));
    DIL_TRY(take_options(&r, sizeof r, rules, rules ? rules->struct_size : 0, "dil_flock_rules", err));
    DIL_TRY(check_rules(&r, err));
    DIL_TRY(flock_graph(&g, points, n, dim, r.k, err));
    const swarm_rules own = {r.alignment, r.cohesion, r.separation, r.pull, r.most_speed, r.target};
    dil_status status = check_finite(velocities, (size_t)n * (size_t)dim, "dil_flock_step: velocities", err);
    if (status == DIL_OK && r.target)
        status = check_finite(r.target, (size_t)dim, "dil_flock_rules: target", err);
    if (status == DIL_OK)
        status = swarm_step(&g, &own, points, velocities, dim, err);
    swarm_graph_free(&g);
    return status;
}

/* ---- games ---- */

dil_game dil_game_default(void) { return (dil_game){.struct_size = sizeof(dil_game)}; }

/* Both directions of every edge, ascending for each player. [out: owned: swarm_graph_free] */
typedef struct arc {
    int32_t from, to;
    float weight;
} arc;

static int by_ends(const void *a, const void *b)
{
    const arc *x = a, *y = b;
    return x->from != y->from ? (x->from < y->from ? -1 : 1) : (x->to > y->to) - (x->to < y->to);
}

static dil_status check_edges(const dil_game *g, dil_error *err)
{
    if (g->n_edges > INT32_MAX)
        return DIL_FAIL(err, DIL_LIMIT, "dil_game: n_edges: wanted at most %d, found %lld", INT32_MAX, (long long)g->n_edges);
    DIL_TRY(need(g->edges, "dil_game: edges", err));
    DIL_TRY(need(g->weights, "dil_game: weights", err));
    DIL_TRY(need(g->amount, "dil_game: amount", err));
    for (int64_t e = 0; e < g->n_edges; e++) {
        const int32_t a = g->edges[2 * e], b = g->edges[2 * e + 1];
        if (a < 0 || a >= g->n_players || b < 0 || b >= g->n_players || a == b)
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_game: edge %lld: wanted two players in 0..%d, found %d and %d",
                            (long long)e, g->n_players - 1, a, b);
    }
    return DIL_OK;
}

static dil_status fill_graph(const dil_game *g, const arc *arcs, swarm_graph *out, dil_error *err)
{
    for (int64_t i = 0; i < 2 * g->n_edges; i++) {
        if (i > 0 && by_ends(&arcs[i - 1], &arcs[i]) == 0)
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_game: edges: wanted every pair once, found %d and %d twice", arcs[i].from,
                            arcs[i].to);
        out->first[arcs[i].from + 1] = i + 1;
        out->other[i] = arcs[i].to;
        out->weight[i] = arcs[i].weight;
    }
    for (int32_t i = 0; i < g->n_players; i++)
        if (out->first[i + 1] < out->first[i])
            out->first[i + 1] = out->first[i];
    return DIL_OK;
}

static dil_status game_graph(const dil_game *g, swarm_graph *out, dil_error *err)
{
    *out = (swarm_graph){.n = g->n_players};
    DIL_TRY(check_edges(g, err));
    const size_t n = (size_t)(2 * g->n_edges);
    arc *arcs = mem_alloc(n * sizeof *arcs, MEM_MISC);
    out->first = mem_calloc((size_t)g->n_players + 1, sizeof *out->first, MEM_MISC);
    out->other = mem_alloc(n * sizeof *out->other, MEM_MISC);
    out->weight = mem_alloc(n * sizeof *out->weight, MEM_MISC);
    dil_status status = arcs && out->first && out->other && out->weight
                            ? DIL_OK
                            : DIL_FAIL(err, DIL_NO_MEMORY, "dil_game: no memory for %lld edges", (long long)g->n_edges);
    if (status == DIL_OK) {
        for (int64_t e = 0; e < g->n_edges; e++) {
            arcs[2 * e] = (arc){g->edges[2 * e], g->edges[2 * e + 1], g->weights[e]};
            arcs[2 * e + 1] = (arc){g->edges[2 * e + 1], g->edges[2 * e], g->weights[e]};
        }
        qsort(arcs, n, sizeof *arcs, by_ends);
        status = fill_graph(g, arcs, out, err);
    }
    mem_free(arcs);
    return status;
}

/* A game of the theorem's, checked; own holds the caller's. */
static dil_status open_game(const dil_game *given, dil_game *own, game *out, swarm_graph *graph, dil_error *err)
{
    *own = dil_game_default();
    *graph = (swarm_graph){0};
    DIL_TRY(need(given, "dil_game", err));
    DIL_TRY(take_options(own, sizeof *own, given, given->struct_size, "dil_game", err));
    DIL_TRY(need(own->first, "dil_game: first", err));
    DIL_TRY(need(own->cost, "dil_game: cost", err));
    if (own->n_players < 1 || own->n_edges < 0 || own->most_sweeps < 0 || !(own->epsilon >= 0))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT,
                        "dil_game: wanted players, and edges, sweeps and epsilon of at least 0; found %d, %lld, %d and %g",
                        own->n_players, (long long)own->n_edges, own->most_sweeps, own->epsilon);
    if (own->n_edges > 0)
        DIL_TRY(game_graph(own, graph, err));
    *out = (game){.n_players = own->n_players,
                  .first = own->first,
                  .cost = own->cost,
                  .use = own->use,
                  .graph = own->n_edges > 0 ? graph : NULL,
                  .amount = own->n_edges > 0 ? own->amount : NULL};
    return game_check(out, err);
}

static dil_status check_state(const game *g, const int32_t *state, dil_error *err)
{
    for (int32_t i = 0; i < g->n_players; i++)
        if (state[i] < 0 || state[i] >= g->first[i + 1] - g->first[i])
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_game: state: player %d: wanted a strategy in 0..%d, found %d", i,
                            g->first[i + 1] - g->first[i] - 1, state[i]);
    return DIL_OK;
}

static game_options options_of(const dil_game *own)
{
    return (game_options){.seed = own->seed, .most_sweeps = own->most_sweeps, .epsilon = own->epsilon};
}

static dil_status settle(const game *g, const dil_game *own, double price, int32_t *state, dil_game_report *out, dil_error *err)
{
    game_report r;
    const game_options o = options_of(own);
    DIL_TRY(check_state(g, state, err));
    DIL_TRY(game_settle(g, price, &o, state, &r, err));
    *out = (dil_game_report){.price = price,
                             .used = game_use(g, state),
                             .potential = game_potential(g, state, price),
                             .cost = game_potential(g, state, 0),
                             .gap = r.gap,
                             .bound = -INFINITY,
                             .swap_gap = NAN,
                             .active_share = game_active_share(g, price),
                             .sweeps = r.sweeps,
                             .moves = r.moves,
                             .settled = r.settled};
    return DIL_OK;
}

dil_status dil_game_settle(const dil_game *given, double price, int32_t *state, dil_game_report *report, dil_error *err)
{
    game g;
    dil_game own;
    swarm_graph graph = {0};
    dil_game_report out;
    DIL_TRY(need(state, "dil_game_settle: state", err));
    if (report)
        DIL_TRY(need_struct(report, sizeof *report, "dil_game_report", err));
    if (!(price >= 0) || !isfinite(price))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_game_settle: price: wanted a finite number of at least 0, found %g", price);
    dil_status status = open_game(given, &own, &g, &graph, err);
    if (status == DIL_OK)
        status = settle(&g, &own, price, state, &out, err);
    if (status == DIL_OK && report)
        give_struct(report, &out, sizeof out);
    swarm_graph_free(&graph);
    return status;
}

dil_status dil_game_fit(const dil_game *given, double budget, int32_t *state, dil_game_report *report, dil_error *err)
{
    game g;
    dil_game own;
    swarm_graph graph = {0};
    game_fit_report r;
    DIL_TRY(need(state, "dil_game_fit: state", err));
    if (report)
        DIL_TRY(need_struct(report, sizeof *report, "dil_game_report", err));
    if (!(budget >= 0))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_game_fit: budget: wanted 0 or more, found %g", budget);
    dil_status status = open_game(given, &own, &g, &graph, err);
    const game_options o = options_of(&own);
    if (status == DIL_OK)
        status = game_fit(&g, budget, &o, state, &r, err);
    if (status == DIL_OK && report) {
        const dil_game_report out = {.price = r.price,
                                     .used = r.used,
                                     .cost = r.cost,
                                     .potential = r.cost + r.price * r.used,
                                     .gap = r.gap,
                                     .swap_gap = r.swap_gap,
                                     .bound = r.bound,
                                     .active_share = r.active_share,
                                     .sweeps = r.settled.sweeps,
                                     .filled = r.filled,
                                     .exchanged = r.exchanged,
                                     .moves = r.settled.moves,
                                     .settled = r.settled.settled};
        give_struct(report, &out, sizeof out);
    }
    swarm_graph_free(&graph);
    return status;
}

/* ---- decisions ---- */

dil_decide_options dil_decide_options_default(void)
{
    return (dil_decide_options){.struct_size = sizeof(dil_decide_options), .n_group = DIL_NEIGHBOURS, .n_chosen = 1};
}

static dil_status open_decision(const dil_decide_options *given, const dil_decision *out, decide_problem *p, dil_error *err)
{
    dil_decide_options o = dil_decide_options_default();
    DIL_TRY(need(given, "dil_decide_options", err));
    DIL_TRY(need_struct(out, sizeof *out, "dil_decision", err));
    DIL_TRY(take_options(&o, sizeof o, given, given->struct_size, "dil_decide_options", err));
    DIL_TRY(need(o.candidates, "dil_decide_options: candidates", err));
    DIL_TRY(need(o.task, "dil_decide_options: task", err));
    *p = (decide_problem){.candidates = o.candidates,
                          .task = o.task,
                          .n = o.n,
                          .dim = o.dim,
                          .group = o.n_group,
                          .n_chosen = o.n_chosen,
                          .overlap = o.overlap};
    if (o.n_group < 0 || o.n_group > DIL_GROUP_MOST)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_decide_options: n_group: wanted 0..%d, found %d", DIL_GROUP_MOST, o.n_group);
    return DIL_OK;
}

static void give_decision(dil_decision *out, const decide_evidence *e)
{
    dil_decision d = {.n = e->n,
                      .price = e->game.price,
                      .gap = e->game.gap,
                      .swap_gap = e->game.swap_gap,
                      .active_share = e->game.active_share,
                      .outside = e->outside,
                      .best = decide_best(e),
                      .n_rounds = e->n_rounds,
                      .certain = e->certain};
    memcpy(d.member, e->member, sizeof d.member);
    memcpy(d.chosen, e->chosen, sizeof d.chosen);
    memcpy(d.distance, e->distance, sizeof d.distance);
    memcpy(d.value, e->value, sizeof d.value);
    memcpy(d.regret, e->regret, sizeof d.regret);
    give_struct(out, &d, sizeof d);
}

dil_status dil_decide_group(const dil_decide_options *options, dil_decision *out, dil_error *err)
{
    decide_problem p;
    decide_evidence e = {0};
    DIL_TRY(open_decision(options, out, &p, err));
    DIL_TRY(decide_group(&p, &e, err));
    give_decision(out, &e);
    return DIL_OK;
}

dil_status dil_decide_equilibrium(const dil_decide_options *options, dil_decision *out, dil_error *err)
{
    decide_problem p;
    decide_evidence e = {0};
    DIL_TRY(open_decision(options, out, &p, err));
    if (out->struct_size < sizeof *out)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_decision: struct_size: wanted %zu, found %u", sizeof *out, out->struct_size);
    if (out->n < 1 || out->n > DIL_GROUP_MOST)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_decision: n: wanted a group of 1..%d (dil_decide_group), found %d",
                        DIL_GROUP_MOST, out->n);
    for (int32_t i = 0; i < out->n; i++)
        if (out->member[i] < 0 || out->member[i] >= p.n)
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_decision: member %d: wanted 0..%d, found %d", i, p.n - 1, out->member[i]);
    e.n = out->n;
    e.outside = out->outside;
    e.n_rounds = out->n_rounds;
    memcpy(e.member, out->member, sizeof e.member);
    memcpy(e.distance, out->distance, sizeof e.distance);
    memcpy(e.value, out->value, sizeof e.value);
    DIL_TRY(decide_equilibrium(&p, &e, err));
    give_decision(out, &e);
    return DIL_OK;
}

dil_status dil_decide_adaptive(const dil_decide_options *options, dil_decision *out, dil_error *err)
{
    decide_problem p;
    decide_evidence e = {0};
    int32_t best;
    DIL_TRY(open_decision(options, out, &p, err));
    DIL_TRY(decide_adaptive(&p, &best, &e, err));
    give_decision(out, &e);
    return DIL_OK;
}
