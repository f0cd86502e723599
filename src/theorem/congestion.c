/* Congestion games in the two forms of game.h: players share resources; what one pays depends on how many there are. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "theorem/game.h"

#define MOST_SWEEPS 100000

static int32_t at_of(const congestion *g, int32_t i, int32_t s) { return g->first[i] + s; }

/* How many players use each resource. */
static void count(const congestion *g, const int32_t *state, int32_t *n)
{
    memset(n, 0, (size_t)g->n_resources * sizeof *n);
    for (int32_t i = 0; i < g->n_players; i++)
        for (int32_t e = g->set_first[at_of(g, i, state[i])]; e < g->set_first[at_of(g, i, state[i]) + 1]; e++)
            n[g->set[e]]++;
}

/* What player i pays when playing s; n counts the others. */
static double pays(const congestion *g, const int32_t *n, int32_t i, int32_t s)
{
    double sum = g->cost[at_of(g, i, s)];
    for (int32_t e = g->set_first[at_of(g, i, s)]; e < g->set_first[at_of(g, i, s) + 1]; e++) {
        int32_t others = n[g->set[e]];
        sum += g->form == CONGESTION_FAIR ? g->resource[g->set[e]] / (others + 1) : others == 0 ? g->resource[g->set[e]] : 0.0;
    }
    return sum;
}

static void add(const congestion *g, int32_t *n, int32_t i, int32_t s, int32_t by)
{
    for (int32_t e = g->set_first[at_of(g, i, s)]; e < g->set_first[at_of(g, i, s) + 1]; e++)
        n[g->set[e]] += by;
}

static double potential(const congestion *g, const int32_t *state, const int32_t *n)
{
    double sum = 0.0;
    for (int32_t i = 0; i < g->n_players; i++)
        sum += g->cost[at_of(g, i, state[i])];
    for (int32_t e = 0; e < g->n_resources; e++) {
        double shares = n[e] > 0 ? 1.0 : 0.0;
        for (int32_t k = 2; g->form == CONGESTION_FAIR && k <= n[e]; k++)
            shares += 1.0 / k;
        sum += g->resource[e] * shares;
    }
    return sum;
}

double congestion_potential(const congestion *g, const int32_t *state)
{
    int32_t *n = mem_calloc((size_t)g->n_resources, sizeof *n, MEM_MISC);
    if (!n)
        return NAN;
    count(g, state, n);
    double value = potential(g, state, n);
    mem_free(n);
    return value;
}

double congestion_player_cost(const congestion *g, const int32_t *state, int32_t i, int32_t s)
{
    int32_t *n = mem_calloc((size_t)g->n_resources, sizeof *n, MEM_MISC);
    if (!n)
        return NAN;
    count(g, state, n);
    add(g, n, i, state[i], -1);
    double value = pays(g, n, i, s);
    mem_free(n);
    return value;
}

/* The best answer of player i, who is not counted in n; stays on ties. */
static int32_t answer(const congestion *g, const int32_t *n, int32_t i, int32_t now, double *gain)
{
    double least = pays(g, n, i, now), current = least;
    int32_t best = now;
    for (int32_t s = 0; s < g->first[i + 1] - g->first[i]; s++) {
        double cost = pays(g, n, i, s);
        if (cost < least - 1e-12 * fabs(least)) {
            least = cost;
            best = s;
        }
    }
    *gain = current - least;
    return best;
}

double congestion_gap(const congestion *g, const int32_t *state)
{
    int32_t *n = mem_calloc((size_t)g->n_resources, sizeof *n, MEM_MISC);
    double gap = n ? 0.0 : NAN, gain;
    if (n)
        count(g, state, n);
    for (int32_t i = 0; n && i < g->n_players; i++) {
        add(g, n, i, state[i], -1);
        (void)answer(g, n, i, state[i], &gain);
        add(g, n, i, state[i], 1);
        gap = gain > gap ? gain : gap;
    }
    mem_free(n);
    return gap;
}

static void show(const congestion_watch *watch, const int32_t *state, int32_t sweep)
{
    if (watch)
        watch->look(watch->ctx, state, sweep);
}

dil_status congestion_settle(const congestion *g, const congestion_watch *watch, int32_t *state, game_report *r, dil_error *err)
{
    int32_t *n = mem_calloc((size_t)g->n_resources, sizeof *n, MEM_MISC);
    if (!n)
        return DIL_FAIL(err, DIL_NO_MEMORY, "game: no memory for %d resources", g->n_resources);
    *r = (game_report){0};
    count(g, state, n);
    show(watch, state, 0);
    while (!r->settled && r->sweeps < MOST_SWEEPS) {
        int64_t before = r->moves;
        r->gap = 0.0;
        for (int32_t i = 0; i < g->n_players; i++) {
            double gain;
            add(g, n, i, state[i], -1);
            int32_t best = answer(g, n, i, state[i], &gain);
            bool moves = best != state[i];
            r->moves += moves;
            r->gap = gain > r->gap ? gain : r->gap;
            state[i] = best;
            add(g, n, i, best, 1);
            if (moves)
                show(watch, state, r->sweeps);
        }
        r->sweeps++;
        r->settled = r->moves == before;
    }
    r->potential = potential(g, state, n);
    mem_free(n);
    return DIL_OK;
}
