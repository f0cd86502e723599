/* Games with a budget: the price that keeps it, what is left filled, pairs exchanged; and dynamic programming as the baseline. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "theorem/game.h"

#define BISECTIONS 60
#define MOST_DOUBLINGS 400
#define MOST_EXCHANGES 10000
#define LEAST_GAIN 1e-12 /* of the costs' range */

/* A change of one player, by itself. */
typedef struct move {
    double use, cost;
    int32_t player, strategy;
} move;

typedef struct fit {
    const game *g;
    const game_options *o;
    double budget, left, tiny;
    int32_t *state, *best; /* [n_players]: at hand; of the lowest cost within the budget so far */
    double best_cost;
    move *moves;                       /* [strategies - players] */
    int32_t *first_best, *second_best; /* [moves]: of the moves up to here the best, and the best of another player; -1: none */
    int32_t n_moves;
    game_fit_report *r;
} fit;

static double use_of(const game *g, int32_t i, int32_t s) { return g->use ? g->use[g->first[i] + s] : 0.0; }

/* ---- price ---- */

static int32_t frugal(const game *g, int32_t i)
{
    int32_t best = 0;
    for (int32_t s = 1; s < g->first[i + 1] - g->first[i]; s++) {
        double less = use_of(g, i, s) - use_of(g, i, best);
        if (less < 0.0 || (less <= 0.0 && g->cost[g->first[i] + s] < g->cost[g->first[i] + best]))
            best = s;
    }
    return best;
}

/* Settles at a price, keeps what is within the budget and cheaper; *over: it is not. */
static dil_status try_price(fit *f, double price, bool *over, dil_error *err)
{
    game_report r;
    DIL_TRY(game_settle(f->g, price, f->o, f->state, &r, err));
    double used = game_use(f->g, f->state), cost = game_potential(f->g, f->state, 0.0);
    *over = used > f->budget;
    if (!f->g->graph) { /* without coupling every settled state is optimal for its price */
        double bound = cost + price * (used - f->budget);
        f->r->bound = bound > f->r->bound ? bound : f->r->bound;
    }
    if (!*over && cost < f->best_cost) {
        f->best_cost = cost;
        memcpy(f->best, f->state, (size_t)f->g->n_players * sizeof *f->best);
        f->r->price = price;
        f->r->settled = r;
    }
    return DIL_OK;
}

static dil_status find_price(fit *f, dil_error *err)
{
    double low = 0.0, high = 1.0;
    bool over;
    for (int32_t i = 0; i < f->g->n_players; i++)
        f->best[i] = frugal(f->g, i);
    double least = game_use(f->g, f->best);
    if (least > f->budget)
        return DIL_FAIL(err, DIL_LIMIT,
                        "game: wanted a budget of at least %.17g, what all players together cannot do without, found %.17g", least,
                        f->budget);
    f->best_cost = game_potential(f->g, f->best, 0.0);
    DIL_TRY(try_price(f, 0.0, &over, err));
    if (!over)
        return DIL_OK;
    for (int i = 0; over && i < MOST_DOUBLINGS; i++) {
        low = high == 1.0 ? 0.0 : high / 2.0;
        DIL_TRY(try_price(f, high, &over, err));
        high = over ? high * 2.0 : high;
    }
    for (; f->r->bisections < BISECTIONS && high - low > 1e-13 * high; f->r->bisections++) {
        double middle = low > 0.0 ? sqrt(low * high) : high / 2.0;
        DIL_TRY(try_price(f, middle, &over, err));
        *(over ? &low : &high) = middle;
    }
    return DIL_OK;
}

/* ---- single moves ---- */

static double change(const fit *f, int32_t i, int32_t s)
{
    return game_player_cost(f->g, f->state, i, s, 0.0) - game_player_cost(f->g, f->state, i, f->state[i], 0.0);
}

static void collect_moves(fit *f)
{
    f->n_moves = 0;
    for (int32_t i = 0; i < f->g->n_players; i++)
        for (int32_t s = 0; s < f->g->first[i + 1] - f->g->first[i]; s++)
            if (s != f->state[i])
                f->moves[f->n_moves++] = (move){use_of(f->g, i, s) - use_of(f->g, i, f->state[i]), change(f, i, s), i, s};
}

static void apply(fit *f, int32_t i, int32_t s)
{
    f->left -= use_of(f->g, i, s) - use_of(f->g, i, f->state[i]);
    f->state[i] = s;
}

/* Gain per use, those that free something first; then by player and strategy, so that equal ones have an order. */
static int by_yield(const void *a, const void *b)
{
    const move *x = a, *y = b;
    double first = x->use > 0.0 ? x->cost / x->use : -INFINITY, second = y->use > 0.0 ? y->cost / y->use : -INFINITY;
    if (first != second)
        return first < second ? -1 : 1;
    if (x->player != y->player)
        return x->player < y->player ? -1 : 1;
    return (x->strategy > y->strategy) - (x->strategy < y->strategy);
}

static void fill(fit *f)
{
    for (int32_t done = 1; done > 0;) {
        done = 0;
        collect_moves(f);
        int32_t n = 0;
        for (int32_t m = 0; m < f->n_moves; m++)
            if (f->moves[m].use <= f->left && f->moves[m].cost < -f->tiny)
                f->moves[n++] = f->moves[m];
        qsort(f->moves, (size_t)n, sizeof *f->moves, by_yield);
        for (int32_t m = 0; m < n; m++) {
            int32_t i = f->moves[m].player, s = f->moves[m].strategy;
            if (use_of(f->g, i, s) - use_of(f->g, i, f->state[i]) > f->left || change(f, i, s) >= -f->tiny)
                continue; /* an earlier move changed it */
            apply(f, i, s);
            done++;
        }
        f->r->filled += done;
    }
}

/* ---- pairs ---- */

static int by_use(const void *a, const void *b)
{
    const move *x = a, *y = b;
    if (x->use != y->use)
        return x->use < y->use ? -1 : 1;
    if (x->player != y->player)
        return x->player < y->player ? -1 : 1;
    return (x->strategy > y->strategy) - (x->strategy < y->strategy);
}

static void rank_moves(fit *f)
{
    collect_moves(f);
    qsort(f->moves, (size_t)f->n_moves, sizeof *f->moves, by_use);
    int32_t first = -1, second = -1;
    for (int32_t m = 0; m < f->n_moves; m++) {
        const move *x = &f->moves[m];
        if (first < 0 || x->cost < f->moves[first].cost) {
            second = first >= 0 && f->moves[first].player != x->player ? first : second;
            first = m;
        } else if (x->player != f->moves[first].player && (second < 0 || x->cost < f->moves[second].cost)) {
            second = m;
        }
        f->first_best[m] = first;
        f->second_best[m] = second;
    }
}

/* What the two moves change together; the coupling between the two counts once. */
static double pair_change(fit *f, const move *a, const move *b)
{
    if (!f->g->graph || swarm_edge(f->g->graph, a->player, b->player) < 0)
        return a->cost + b->cost;
    int32_t kept = f->state[a->player];
    f->state[a->player] = a->strategy;
    double cost = change(f, b->player, b->strategy);
    f->state[a->player] = kept;
    return a->cost + cost;
}

typedef struct best_pair {
    double cost;
    const move *a, *b;
} best_pair;

static void offer_pair(fit *f, const move *a, const move *b, best_pair *best)
{
    double cost = pair_change(f, a, b);
    if (cost < best->cost)
        *best = (best_pair){cost, a, b};
}

/* The best partner of move a among the first n moves. */
static void offer_partner(fit *f, const move *a, int32_t n, best_pair *best)
{
    if (n == 0)
        return;
    int32_t first = f->first_best[n - 1], second = f->second_best[n - 1], b = f->moves[first].player != a->player ? first : second;
    if (b < 0 || a->cost + f->moves[b].cost >= best->cost)
        b = -1;
    const swarm_graph *graph = f->g->graph;
    if (b >= 0 && (!graph || swarm_edge(graph, a->player, f->moves[b].player) < 0)) {
        offer_pair(f, a, &f->moves[b], best);
        b = -1;
    }
    for (int32_t m = 0; b >= 0 && m < n; m++) /* the best one is a neighbour: then by the others one by one */
        if (f->moves[m].player != a->player && a->cost + f->moves[m].cost < best->cost &&
            swarm_edge(graph, a->player, f->moves[m].player) < 0)
            offer_pair(f, a, &f->moves[m], best);
    for (int64_t e = graph ? graph->first[a->player] : 0; graph && e < graph->first[a->player + 1]; e++) {
        int32_t j = graph->other[e];
        for (int32_t t = 0; t < f->g->first[j + 1] - f->g->first[j]; t++) {
            move other = {use_of(f->g, j, t) - use_of(f->g, j, f->state[j]), 0.0, j, t};
            if (t == f->state[j] || a->use + other.use > f->left)
                continue;
            double cost = pair_change(f, a, &other);
            if (cost < best->cost)
                for (int32_t m = 0; m < f->n_moves; m++)
                    if (f->moves[m].player == j && f->moves[m].strategy == t)
                        *best = (best_pair){cost, a, &f->moves[m]};
        }
    }
}

/* Two moves at once as long as they help: one player up, one down. */
static void exchange(fit *f)
{
    for (;;) {
        rank_moves(f);
        best_pair best = {-f->tiny, NULL, NULL};
        int32_t n = f->n_moves;
        for (int32_t m = 0; m < f->n_moves; m++) {
            while (n > 0 && f->moves[n - 1].use + f->moves[m].use > f->left)
                n--;
            offer_partner(f, &f->moves[m], n, &best);
        }
        f->r->swap_gap = best.a ? -best.cost : 0.0;
        if (!best.a || f->r->exchanged == MOST_EXCHANGES)
            return;
        apply(f, best.a->player, best.a->strategy);
        apply(f, best.b->player, best.b->strategy);
        f->r->exchanged++;
        fill(f);
    }
}

/* ---- all of it ---- */

static double cost_range(const game *g)
{
    double low = INFINITY, high = -INFINITY;
    for (int32_t at = 0; at < g->first[g->n_players]; at++) {
        low = g->cost[at] < low ? g->cost[at] : low;
        high = g->cost[at] > high ? g->cost[at] : high;
    }
    return high - low;
}

static dil_status fit_all(fit *f, dil_error *err)
{
    const game *g = f->g;
    DIL_TRY(find_price(f, err));
    memcpy(f->state, f->best, (size_t)g->n_players * sizeof *f->state);
    if (f->o && f->o->start && game_use(g, f->o->start) <= f->budget &&
        game_potential(g, f->o->start, 0.0) < game_potential(g, f->state, 0.0))
        memcpy(f->state, f->o->start, (size_t)g->n_players * sizeof *f->state);
    f->left = f->budget - game_use(g, f->state);
    fill(f);
    exchange(f);
    f->r->used = game_use(g, f->state);
    f->r->cost = game_potential(g, f->state, 0.0);
    f->r->active_share = game_active_share(g, f->r->price);
    collect_moves(f);
    for (int32_t m = 0; m < f->n_moves; m++)
        if (f->moves[m].use <= f->left && -f->moves[m].cost > f->r->gap)
            f->r->gap = -f->moves[m].cost;
    return DIL_OK;
}

dil_status game_fit(const game *g, double budget, const game_options *o, int32_t *state, game_fit_report *r, dil_error *err)
{
    size_t n = (size_t)g->n_players, n_moves = (size_t)(g->first[g->n_players] - g->n_players) + 1;
    game_fit_report report = {.bound = -INFINITY};
    fit f = {.g = g, .o = o, .budget = budget, .r = &report, .tiny = LEAST_GAIN * cost_range(g)};
    f.state = mem_calloc(n, sizeof *f.state, MEM_MISC);
    f.best = mem_calloc(n, sizeof *f.best, MEM_MISC);
    f.moves = mem_calloc(n_moves, sizeof *f.moves, MEM_MISC);
    f.first_best = mem_calloc(n_moves, sizeof *f.first_best, MEM_MISC);
    f.second_best = mem_calloc(n_moves, sizeof *f.second_best, MEM_MISC);
    dil_status status = DIL_OK;
    if (!f.state || !f.best || !f.moves || !f.first_best || !f.second_best)
        status = DIL_FAIL(err, DIL_NO_MEMORY, "game: no memory for %d players", g->n_players);
    else
        status = fit_all(&f, err);
    if (status == DIL_OK) {
        memcpy(state, f.state, n * sizeof *state);
        *r = report;
    }
    mem_free(f.state);
    mem_free(f.best);
    mem_free(f.moves);
    mem_free(f.first_best);
    mem_free(f.second_best);
    return status;
}

/* ---- dynamic programming ---- */

/* What a strategy takes beyond the most frugal one, in cells; without any room only those that take nothing fit. */
static double cells_of(const game *g, int32_t i, int32_t s, double unit)
{
    double more = use_of(g, i, s) - use_of(g, i, frugal(g, i));
    return more > 0.0 ? more / unit : 0.0;
}

/* Least cost with at most c cells, in place, player by player; choice [n_players][cells + 1] or NULL. */
static double by_cells(const game *g, double unit, int32_t cells, bool round_up, double *least, double *next, uint8_t *choice)
{
    for (int32_t c = 0; c <= cells; c++)
        least[c] = 0.0;
    for (int32_t i = 0; i < g->n_players; i++) {
        for (int32_t c = 0; c <= cells; c++)
            next[c] = INFINITY;
        for (int32_t s = 0; s < g->first[i + 1] - g->first[i]; s++) {
            double exact = cells_of(g, i, s, unit), cost = g->cost[g->first[i] + s];
            double needed = round_up ? ceil(exact * (1.0 - 1e-15)) : floor(exact * (1.0 + 1e-15));
            if (needed > cells)
                continue;
            for (int32_t c = (int32_t)needed; c <= cells; c++)
                if (least[c - (int32_t)needed] + cost < next[c]) {
                    next[c] = least[c - (int32_t)needed] + cost;
                    if (choice)
                        choice[(size_t)i * (size_t)(cells + 1) + (size_t)c] = (uint8_t)s;
                }
        }
        memcpy(least, next, ((size_t)cells + 1) * sizeof *least);
    }
    return least[cells];
}

static void trace_back(const game *g, double unit, int32_t cells, const uint8_t *choice, int32_t *state)
{
    int32_t c = cells;
    for (int32_t i = g->n_players - 1; i >= 0; i--) {
        int32_t s = choice[(size_t)i * (size_t)(cells + 1) + (size_t)c];
        state[i] = s;
        c -= (int32_t)ceil(cells_of(g, i, s, unit) * (1.0 - 1e-15));
    }
}

dil_status game_by_cells(const game *g, double budget, int32_t cells, int32_t *state, double *cost, double *lower, dil_error *err)
{
    double least_use = 0.0;
    for (int32_t i = 0; i < g->n_players; i++) {
        least_use += use_of(g, i, frugal(g, i));
        if (g->first[i + 1] - g->first[i] > 256)
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "game: player %d: wanted at most 256 strategies, found %d", i,
                            g->first[i + 1] - g->first[i]);
    }
    if (g->graph || cells < 1 || cells > 1 << 24)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "game: dynamic programming wants no coupling and 1..%d cells, found %s and %d",
                        1 << 24, g->graph ? _("a graph") : _("none"), cells);
    if (least_use > budget)
        return DIL_FAIL(err, DIL_LIMIT, "game: wanted a budget of at least %.17g, found %.17g", least_use, budget);
    double unit = (budget - least_use) / cells, *least = mem_calloc((size_t)cells + 1, sizeof *least, MEM_MISC),
           *next = mem_calloc((size_t)cells + 1, sizeof *next, MEM_MISC);
    uint8_t *choice = state ? mem_calloc((size_t)g->n_players, (size_t)cells + 1, MEM_MISC) : NULL;
    dil_status status = DIL_OK;
    if (!least || !next || (state && !choice)) {
        status = DIL_FAIL(err, DIL_NO_MEMORY, "game: no memory for %d players by %d cells", g->n_players, cells);
    } else {
        double up = by_cells(g, unit, cells, true, least, next, choice);
        if (state)
            trace_back(g, unit, cells, choice, state);
        *cost = up;
        if (lower)
            *lower = by_cells(g, unit, cells, false, least, next, NULL);
    }
    mem_free(least);
    mem_free(next);
    mem_free(choice);
    return status;
}
