/*
 * Tokens of a batch share the loading of experts: the congestion game with marginal costs of theorem/game.h, as far as a log knows it.
 * A token may keep its experts, or exchange one that is not its best for one of that expert's neighbours. Whoever loads an expert alone
 * pays for it; exchanging costs the weight that is taken away. The potential is what all pay together. In a batch of n / n_used tokens
 * every expert has one user on average: with many more nobody would ever be alone, with fewer there is nobody to share with. Several
 * batches, one after the other in the log, are settled at once: an expert of another batch is another resource.
 */
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "theorem/game.h"
#include "view/flock.h"

enum { LEAST_BATCH = 4, MOST_TOKENS = 256, MOST_MOVES = 4096 };

typedef struct table {
    flock_scene *s;
    flock_layer *l;
    const flock_choices *c;
    congestion g;
    int32_t *first, *set_first, *set, *state;
    double *cost, *resource;
    int32_t n_strategies, batch; /* batch: tokens of one */
} table;

static const uint16_t *chosen_by(const table *t, int32_t player)
{
    return t->c->chosen + (t->s->first + (uint64_t)player) * t->c->stride;
}

static double share_of(const table *t, int32_t player, uint32_t rank)
{
    const uint8_t *weights = t->c->weights ? t->c->weights + (t->s->first + (uint64_t)player) * t->c->stride : NULL;
    double sum = 0;
    for (uint32_t r = 0; weights && r < t->c->n_used; r++)
        sum += (double)weights[r];
    return sum > 0 ? (double)weights[rank] / sum : 1.0 / t->c->n_used;
}

static bool holds(const table *t, const uint16_t *set, int32_t expert)
{
    for (uint32_t r = 0; r < t->c->n_used; r++)
        if (set[r] == expert)
            return true;
    return false;
}

/* The token's set with `rank` exchanged for another expert; rank n_used: as it is. */
static void add_strategy(table *t, int32_t player, uint32_t rank, int32_t other)
{
    const uint16_t *chosen = chosen_by(t, player);
    int32_t x = t->n_strategies++, at = t->set_first[x];
    for (uint32_t r = 0; r < t->c->n_used; r++)
        t->set[at++] = player / t->batch * t->l->n + (r == rank ? other : chosen[r]);
    t->set_first[x + 1] = at;
    t->cost[x] = rank < t->c->n_used ? share_of(t, player, rank) : 0;
}

static void add_player(table *t, int32_t player)
{
    const uint16_t *chosen = chosen_by(t, player);
    const swarm_graph *graph = &t->l->graph;
    add_strategy(t, player, t->c->n_used, 0);
    for (uint32_t rank = 1; rank < t->c->n_used; rank++)
        for (int64_t e = graph->first[chosen[rank]]; e < graph->first[chosen[rank] + 1]; e++)
            if (!holds(t, chosen, graph->other[e]))
                add_strategy(t, player, rank, graph->other[e]);
    t->first[player + 1] = t->n_strategies;
}

/* Experts that somebody has in its set, of all batches. */
static int32_t count_loaded(const table *t, uint8_t *used)
{
    int32_t n = 0;
    memset(used, 0, (size_t)t->g.n_resources);
    for (int32_t i = 0; i < t->g.n_players; i++)
        for (int32_t x = t->first[i] + t->state[i], e = t->set_first[x]; e < t->set_first[x + 1]; e++)
            used[t->set[e]] = 1;
    for (int32_t e = 0; e < t->g.n_resources; e++)
        n += used[e];
    return n;
}

static void look(void *ctx, const int32_t *state, int32_t sweep)
{
    table *t = ctx;
    flock_game *out = &t->l->game;
    (void)sweep;
    if (out->n == MOST_MOVES)
        return;
    out->potential[out->n] = congestion_potential(&t->g, state);
    out->gap[out->n++] = congestion_gap(&t->g, state);
}

static int64_t most_strategies(const table *t)
{
    int64_t most = 0;
    for (int32_t i = 0; i < t->l->n; i++) {
        int64_t degree = t->l->graph.first[i + 1] - t->l->graph.first[i];
        most = degree > most ? degree : most;
    }
    return t->g.n_players * (1 + most * (t->c->n_used - 1));
}

static dil_status make_table(table *t, dil_error *err)
{
    arena *a = t->s->memory;
    const size_t players = (size_t)t->g.n_players, n = (size_t)most_strategies(t),
                 resources = (players + (size_t)t->batch - 1) / (size_t)t->batch * (size_t)t->l->n;
    t->first = arena_calloc(a, players + 1, sizeof *t->first);
    t->state = arena_calloc(a, players, sizeof *t->state);
    t->set_first = arena_calloc(a, n + 1, sizeof *t->set_first);
    t->set = arena_calloc(a, n * t->c->n_used, sizeof *t->set);
    t->cost = arena_calloc(a, n, sizeof *t->cost);
    t->resource = arena_calloc(a, resources, sizeof *t->resource);
    if (!t->first || !t->state || !t->set_first || !t->set || !t->cost || !t->resource)
        return DIL_FAIL(err, DIL_NO_MEMORY, "flock: no memory for a game of %zu tokens", players);
    for (size_t e = 0; e < resources; e++)
        t->resource[e] = 1.0 / t->c->n_used;
    for (int32_t i = 0; i < t->g.n_players; i++)
        add_player(t, i);
    t->g =
        (congestion){t->g.n_players, (int32_t)resources, CONGESTION_MARGINAL, t->resource, t->first, t->cost, t->set_first, t->set};
    return DIL_OK;
}

static dil_status settle(table *t, dil_error *err)
{
    flock_game *out = &t->l->game;
    game_report r;
    DIL_TRY(make_table(t, err));
    uint8_t *used = arena_calloc(t->s->memory, (size_t)t->g.n_resources, sizeof *used);
    if (!used)
        return DIL_FAIL(err, DIL_NO_MEMORY, "flock: no memory for a game");
    out->n_players = t->g.n_players;
    out->batch = t->batch;
    out->price = t->resource[0];
    out->n_before = count_loaded(t, used);
    DIL_TRY(congestion_settle(&t->g, &(congestion_watch){look, t}, t->state, &r, err));
    out->n_after = count_loaded(t, used);
    out->n_sweeps = r.sweeps;
    for (size_t i = 0; i < out->n; i++)
        if (isnan(out->potential[i]) || isnan(out->gap[i]))
            return DIL_FAIL(err, DIL_NO_MEMORY, "flock: no memory for the potential of %d tokens", t->g.n_players);
    return DIL_OK;
}

dil_status flock_play(flock_scene *s, flock_layer *l, const flock_choices *c, dil_error *err)
{
    table t = {.s = s, .l = l, .c = c, .batch = l->n / (int32_t)c->n_used};
    t.batch = t.batch < LEAST_BATCH ? LEAST_BATCH : t.batch > MOST_TOKENS ? MOST_TOKENS : t.batch;
    t.g.n_players = s->n_steps < MOST_TOKENS ? (int32_t)s->n_steps : MOST_TOKENS;
    l->game.potential = arena_calloc(s->memory, MOST_MOVES, sizeof *l->game.potential);
    l->game.gap = arena_calloc(s->memory, MOST_MOVES, sizeof *l->game.gap);
    if (!l->game.potential || !l->game.gap)
        return DIL_FAIL(err, DIL_NO_MEMORY, "flock: no memory for a game");
    arena_mark mark = arena_mark_get(s->memory);
    dil_status status = settle(&t, err);
    arena_reset(s->memory, mark);
    return status;
}
