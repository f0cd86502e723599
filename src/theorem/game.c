#include "theorem/game.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "theorem/random.h"

#define MOST_SWEEPS 1000
#define PLAYERS_PER_CLAIM 1024

/* ---- costs ---- */

static double use_of(const game *g, int32_t at) { return g->use ? g->use[at] : 0.0; }

/* C_ij along edge e of player i's list. */
static double edge_cost(const game *g, int64_t e, int32_t i, int32_t s, int32_t j, int32_t t)
{
    if (g->amount) {
        double weight = g->graph->weight ? (double)g->graph->weight[e] : 1.0;
        return weight * ((double)g->amount[g->first[i] + s] * (double)g->amount[g->first[j] + t]);
    }
    return g->pair(g->ctx, i, s, j, t);
}

static double coupling(const game *g, const int32_t *state, int32_t i, int32_t s)
{
    double sum = 0.0;
    for (int64_t e = g->graph ? g->graph->first[i] : 0, end = g->graph ? g->graph->first[i + 1] : 0; e < end; e++)
        sum += edge_cost(g, e, i, s, g->graph->other[e], state[g->graph->other[e]]);
    return sum;
}

double game_player_cost(const game *g, const int32_t *state, int32_t i, int32_t s, double price)
{
    return g->cost[g->first[i] + s] + price * use_of(g, g->first[i] + s) + coupling(g, state, i, s);
}

double game_potential(const game *g, const int32_t *state, double price)
{
    double sum = 0.0;
    for (int32_t i = 0; i < g->n_players; i++) /* every edge stands in two lists */
        sum += g->cost[g->first[i] + state[i]] + price * use_of(g, g->first[i] + state[i]) + coupling(g, state, i, state[i]) / 2.0;
    return sum;
}

double game_use(const game *g, const int32_t *state)
{
    double sum = 0.0;
    for (int32_t i = 0; i < g->n_players; i++)
        sum += use_of(g, g->first[i] + state[i]);
    return sum;
}

/* With product coupling the neighbours act through one number, sum of weight * amount: a strategy costs one multiplication. */
static int32_t best_by_field(const game *g, const int32_t *state, int32_t i, double price, double *gain)
{
    double field = 0.0;
    for (int64_t e = g->graph->first[i]; e < g->graph->first[i + 1]; e++) {
        int32_t j = g->graph->other[e];
        field += (g->graph->weight ? (double)g->graph->weight[e] : 1.0) * (double)g->amount[g->first[j] + state[j]];
    }
    int32_t first = g->first[i], n = g->first[i + 1] - first, best = state[i];
    double now = 0.0, least = INFINITY;
    for (int32_t s = 0; s < n; s++) {
        double cost = g->cost[first + s] + price * use_of(g, first + s) + (double)g->amount[first + s] * field;
        now = s == state[i] ? cost : now;
        if (cost < least) {
            least = cost;
            best = s;
        }
    }
    *gain = now - least;
    return *gain > 0.0 ? best : state[i];
}

int32_t game_best(const game *g, const int32_t *state, int32_t i, double price, double *gain)
{
    if (g->graph && g->amount)
        return best_by_field(g, state, i, price, gain);
    double now = game_player_cost(g, state, i, state[i], price), least = now;
    int32_t best = state[i];
    for (int32_t s = 0; s < g->first[i + 1] - g->first[i]; s++) {
        double cost = s == state[i] ? now : game_player_cost(g, state, i, s, price);
        if (cost < least) {
            least = cost;
            best = s;
        }
    }
    *gain = now - least;
    return best;
}

double game_gap(const game *g, const int32_t *state, double price)
{
    double gap = 0.0, gain;
    for (int32_t i = 0; i < g->n_players; i++) {
        (void)game_best(g, state, i, price, &gain);
        gap = gain > gap ? gain : gap;
    }
    return gap;
}

/* ---- checking ---- */

static dil_status check_graph(const game *g, dil_error *err)
{
    const swarm_graph *graph = g->graph;
    if (graph->n != g->n_players || (!g->amount && !g->pair))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "game: wanted a graph of its %d players and a coupling, found %d%s", g->n_players,
                        graph->n, g->amount || g->pair ? "" : _(" and none"));
    for (int32_t i = 0; i < graph->n; i++)
        for (int64_t e = graph->first[i]; e < graph->first[i + 1]; e++) {
            int32_t j = graph->other[e];
            int64_t back = j >= 0 && j < graph->n && j != i ? swarm_edge(graph, j, i) : -1;
            if (back < 0 || (graph->weight && (graph->weight[e] != graph->weight[back] || !isfinite(graph->weight[e]))))
                return DIL_FAIL(err, DIL_BAD_ARGUMENT,
                                "game: edge %d - %d: wanted the same finite weight in both directions (a one-way neighbour "
                                "breaks the potential)",
                                i, j);
        }
    return DIL_OK;
}

dil_status game_check(const game *g, dil_error *err)
{
    if (g->n_players < 1 || g->first[0] != 0)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "game: wanted at least one player, found %d", g->n_players);
    for (int32_t i = 0; i < g->n_players; i++) {
        if (g->first[i + 1] <= g->first[i])
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "game: player %d: wanted at least one strategy, found %d", i,
                            g->first[i + 1] - g->first[i]);
        for (int32_t at = g->first[i]; at < g->first[i + 1]; at++)
            if (!isfinite(g->cost[at]) || !isfinite(use_of(g, at)) || use_of(g, at) < 0.0 ||
                (g->amount && !isfinite(g->amount[at])))
                return DIL_FAIL(err, DIL_BAD_ARGUMENT,
                                "game: player %d, strategy %d: wanted a finite cost and a use of at least 0, found %g and %g", i,
                                at - g->first[i], g->cost[at], use_of(g, at));
    }
    return g->graph ? check_graph(g, err) : DIL_OK;
}

/* ---- colours ---- */

dil_status game_colour(const game *g, game_colours *out, dil_error *err)
{
    int32_t n = g->n_players, n_colours = 1, most = 0;
    for (int32_t i = 0; g->graph && i < n; i++) {
        int32_t degree = (int32_t)(g->graph->first[i + 1] - g->graph->first[i]);
        most = degree > most ? degree : most;
    }
    game_colours c = {0};
    int32_t *colour = mem_calloc((size_t)n, sizeof *colour, MEM_MISC),
            *taken = mem_calloc((size_t)most + 2, sizeof *taken, MEM_MISC);
    c.players = mem_calloc((size_t)n, sizeof *c.players, MEM_MISC);
    c.first = mem_calloc((size_t)most + 3, sizeof *c.first, MEM_MISC);
    if (!colour || !taken || !c.players || !c.first) {
        mem_free(colour);
        mem_free(taken);
        game_colours_free(&c);
        return DIL_FAIL(err, DIL_NO_MEMORY, "game: no memory for the colours of %d players", n);
    }
    for (int32_t i = 0; i < n; i++) { /* the lowest colour no earlier neighbour has; taken[x] = i + 1: colour x is */
        for (int64_t e = g->graph ? g->graph->first[i] : 0, end = g->graph ? g->graph->first[i + 1] : 0; e < end; e++)
            if (g->graph->other[e] < i)
                taken[colour[g->graph->other[e]]] = i + 1;
        while (taken[colour[i]] == i + 1)
            colour[i]++;
        n_colours = colour[i] + 1 > n_colours ? colour[i] + 1 : n_colours;
        c.first[colour[i] + 1]++;
    }
    for (int32_t x = 0; x < n_colours; x++)
        c.first[x + 1] += c.first[x];
    memcpy(taken, c.first, (size_t)n_colours * sizeof *taken);
    for (int32_t i = 0; i < n; i++)
        c.players[taken[colour[i]]++] = i;
    c.n = n_colours;
    mem_free(colour);
    mem_free(taken);
    *out = c;
    return DIL_OK;
}

void game_colours_free(game_colours *c)
{
    mem_free(c->first);
    mem_free(c->players);
    *c = (game_colours){0};
}

/* ---- settling ---- */

typedef struct sweep {
    const game *g;
    double price, epsilon;
    int32_t *state;
    const game_colours *colours;
    team *workers;
    int64_t moves[TEAM_MAX];
} sweep;

static void move_player(sweep *s, int32_t i, int64_t *moves)
{
    double gain;
    int32_t best = game_best(s->g, s->state, i, s->price, &gain);
    if (best != s->state[i] && gain > s->epsilon) {
        s->state[i] = best;
        (*moves)++;
    }
}

/* Players of a class see nothing of each other, so all may write their own strategy. */
static void sweep_classes(void *ctx, int worker)
{
    sweep *s = ctx;
    int64_t moves = 0;
    for (int32_t x = 0; x < s->colours->n; x++) {
        int32_t begin = s->colours->first[x], n = s->colours->first[x + 1] - begin,
                n_claims = (n + PLAYERS_PER_CLAIM - 1) / PLAYERS_PER_CLAIM;
        for (int32_t claim = 0; (claim = s->workers ? (int32_t)team_claim(s->workers) : claim) < n_claims; claim++)
            for (int32_t p = claim * PLAYERS_PER_CLAIM; p < n && p < (claim + 1) * PLAYERS_PER_CLAIM; p++)
                move_player(s, s->colours->players[begin + p], &moves);
        if (s->workers)
            team_barrier(s->workers);
    }
    s->moves[worker] = moves;
}

static int64_t sweep_once(sweep *s, const int32_t *order)
{
    int64_t moves = 0;
    if (!s->colours) {
        for (int32_t p = 0; p < s->g->n_players; p++)
            move_player(s, order ? order[p] : p, &moves);
        return moves;
    }
    memset(s->moves, 0, sizeof s->moves);
    if (s->workers)
        team_run(s->workers, sweep_classes, s);
    else
        sweep_classes(s, 0);
    for (int w = 0; w < TEAM_MAX; w++)
        moves += s->moves[w];
    return moves;
}

dil_status game_settle(const game *g, double price, const game_options *o, int32_t *state, game_report *r, dil_error *err)
{
    static const game_options plain = {0};
    o = o ? o : &plain;
    sweep *s = mem_calloc(1, sizeof *s, MEM_MISC);
    int32_t *order = o->seed && !o->colours ? mem_calloc((size_t)g->n_players, sizeof *order, MEM_MISC) : NULL;
    if (!s || (o->seed && !o->colours && !order)) {
        mem_free(s);
        mem_free(order);
        return DIL_FAIL(err, DIL_NO_MEMORY, "game: no memory for %d players", g->n_players);
    }
    *s = (sweep){.g = g, .price = price, .epsilon = o->epsilon, .state = state, .colours = o->colours, .workers = o->workers};
    for (int32_t i = 0; order && i < g->n_players; i++)
        order[i] = i;
    uint64_t random = o->seed;
    int32_t most = o->most_sweeps > 0 ? o->most_sweeps : MOST_SWEEPS;
    *r = (game_report){0};
    while (!r->settled && r->sweeps < most) {
        for (int32_t i = g->n_players - 1; order && i > 0; i--) {
            int32_t with = (int32_t)(random_next(&random) % (uint64_t)(i + 1)), swapped = order[with];
            order[with] = order[i];
            order[i] = swapped;
        }
        int64_t moves = sweep_once(s, order);
        r->moves += moves;
        r->sweeps++;
        r->settled = moves == 0;
    }
    r->gap = game_gap(g, state, price);
    r->potential = game_potential(g, state, price);
    mem_free(s);
    mem_free(order);
    return DIL_OK;
}

dil_status game_restarts(const game *g, double price, int32_t n, uint64_t seed, double *best, dil_error *err)
{
    int32_t *state = mem_calloc((size_t)g->n_players, sizeof *state, MEM_MISC);
    if (!state)
        return DIL_FAIL(err, DIL_NO_MEMORY, "game: no memory for %d players", g->n_players);
    double least = INFINITY;
    dil_status status = DIL_OK;
    for (int32_t start = 0; start < n && status == DIL_OK; start++) {
        for (int32_t i = 0; i < g->n_players; i++)
            state[i] = (int32_t)(random_next(&seed) % (uint64_t)(g->first[i + 1] - g->first[i]));
        game_options o = {.seed = random_next(&seed) | 1};
        game_report r;
        status = game_settle(g, price, &o, state, &r, err);
        least = status == DIL_OK && r.potential < least ? r.potential : least;
    }
    mem_free(state);
    if (status == DIL_OK)
        *best = least;
    return status;
}

/* ---- do neighbours matter? ---- */

/* max over t and pairs s, s' of |C_ij(s, t) - C_ij(s', t)| */
static double swing(const game *g, int64_t e, int32_t i)
{
    int32_t j = g->graph->other[e];
    double most = 0.0;
    for (int32_t t = 0; t < g->first[j + 1] - g->first[j]; t++) {
        double low = INFINITY, high = -INFINITY;
        for (int32_t s = 0; s < g->first[i + 1] - g->first[i]; s++) {
            double c = edge_cost(g, e, i, s, j, t);
            low = c < low ? c : low;
            high = c > high ? c : high;
        }
        most = high - low > most ? high - low : most;
    }
    return most;
}

double game_active_share(const game *g, double price)
{
    int32_t active = 0;
    for (int32_t i = 0; g->graph && i < g->n_players; i++) {
        double best = INFINITY, second = INFINITY, influence = 0.0;
        for (int32_t at = g->first[i]; at < g->first[i + 1]; at++) {
            double cost = g->cost[at] + price * use_of(g, at);
            second = cost < best ? best : cost < second ? cost : second;
            best = cost < best ? cost : best;
        }
        for (int64_t e = g->graph->first[i]; e < g->graph->first[i + 1]; e++)
            influence += swing(g, e, i);
        active += influence > 0.0 && influence >= second - best;
    }
    return (double)active / g->n_players;
}
