/* dil theorem demo: the game on a small problem, step by step. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "cli/cli.h"
#include "theorem/decide.h"

enum { BIRDS = 12, STRATEGIES = 4, WIDE = 56, HIGH = 15 };

/* Birds of the picture: where they are, and how much each gains from a finer format. */
static const float places[BIRDS][2] = {{0.08f, 0.20f}, {0.15f, 0.62f}, {0.22f, 0.35f}, {0.30f, 0.80f},
                                       {0.36f, 0.15f}, {0.45f, 0.50f}, {0.52f, 0.88f}, {0.60f, 0.30f},
                                       {0.68f, 0.65f}, {0.77f, 0.10f}, {0.85f, 0.48f}, {0.93f, 0.82f}};
static const double worth[BIRDS] = {3, 1, 6, 2, 1, 9, 1, 4, 7, 1, 2, 5};
static const double bits[STRATEGIES] = {2, 4, 6, 8};
static const double budget = 54; /* bits in all: 4.5 on average */

typedef struct demo {
    int32_t nearest[BIRDS * SWARM_NEIGHBOURS], first[BIRDS + 1], state[BIRDS];
    double cost[BIRDS * STRATEGIES], use[BIRDS * STRATEGIES];
    float amount[BIRDS * STRATEGIES];
    swarm_graph graph;
    game g;
} demo;

/* The flock's graph, and error costs that fall fourfold per bit pair; errors of neighbours add up where both are coarse. */
static dil_status build(demo *d, dil_error *err)
{
    DIL_TRY(swarm_nearest(&places[0][0], BIRDS, 2, SWARM_EUCLIDEAN, 3, NULL, d->nearest, NULL, err));
    DIL_TRY(swarm_graph_of(d->nearest, BIRDS, 3, &d->graph, err));
    for (int32_t i = 0; i < BIRDS; i++) {
        d->first[i + 1] = STRATEGIES * (i + 1);
        for (int32_t s = 0; s < STRATEGIES; s++) {
            double error = exp2(-bits[s]);
            d->cost[STRATEGIES * i + s] = worth[i] * error * 4;
            d->use[STRATEGIES * i + s] = bits[s];
            d->amount[STRATEGIES * i + s] = (float)sqrt(worth[i] * error);
        }
    }
    d->graph.weight = mem_calloc((size_t)d->graph.first[BIRDS] + 1, sizeof *d->graph.weight, MEM_MISC);
    if (!d->graph.weight)
        return DIL_FAIL(err, DIL_NO_MEMORY, "demo: no memory");
    for (int64_t e = 0; e < d->graph.first[BIRDS]; e++)
        d->graph.weight[e] = 0.3f;
    d->g = (game){.n_players = BIRDS, .first = d->first, .cost = d->cost, .use = d->use, .graph = &d->graph, .amount = d->amount};
    return game_check(&d->g, err);
}

/* ---- the picture ---- */

static void line(char canvas[HIGH][WIDE + 1], int x0, int y0, int x1, int y1)
{
    int steps = abs(x1 - x0) > abs(y1 - y0) ? abs(x1 - x0) : abs(y1 - y0);
    for (int i = 1; i < steps; i++) {
        char *at = &canvas[y0 + (y1 - y0) * i / steps][x0 + (x1 - x0) * i / steps];
        *at = *at == ' ' ? '.' : *at;
    }
}

/* Birds as letters, lines to their neighbours; digits behind the letters are bits, when there are any. */
static void draw(const demo *d, const int32_t *state)
{
    char canvas[HIGH][WIDE + 1];
    int x[BIRDS], y[BIRDS];
    for (int r = 0; r < HIGH; r++) {
        memset(canvas[r], ' ', WIDE);
        canvas[r][WIDE] = '\0';
    }
    for (int i = 0; i < BIRDS; i++) {
        x[i] = (int)((double)places[i][0] * (WIDE - 3));
        y[i] = (int)((double)places[i][1] * (HIGH - 1));
    }
    for (int32_t i = 0; i < BIRDS; i++)
        for (int64_t e = d->graph.first[i]; e < d->graph.first[i + 1]; e++)
            if (d->graph.other[e] > i)
                line(canvas, x[i], y[i], x[d->graph.other[e]], y[d->graph.other[e]]);
    for (int i = 0; i < BIRDS; i++) {
        canvas[y[i]][x[i]] = (char)('A' + i);
        if (state)
            canvas[y[i]][x[i] + 1] = (char)('0' + (int)bits[state[i]]);
    }
    for (int r = 0; r < HIGH; r++)
        printf("    %s\n", canvas[r]);
}

/* ---- the steps ---- */

static void print_neighbours(const demo *d)
{
    puts(_("1. The flock. Every bird minds its 3 nearest; who is minded minds back (a one-way glance would let the game run in\n"
           "   circles). Real flocks, and the library, use 7.\n"));
    draw(d, NULL);
    swarm_order o;
    swarm_measure(&d->graph, &places[0][0], NULL, 2, &o);
    printf(_("\n   %lld edges; cohesion %.3f, separation %.3f\n\n"), (long long)(d->graph.first[BIRDS] / 2), o.cohesion,
           o.separation);
}

static dil_status print_settling(demo *d, double price, dil_error *err)
{
    printf(
        _("2. Best responses. Each bird picks 2, 4, 6 or 8 bits, pays its error, its neighbours' errors beside its own and %.3f per\n"
          "   bit. One after the other answers as is best for it; the potential falls with every move, so it must end.\n\n"
          "   sweep  moves  potential   gap     "),
        price);
    for (int i = 0; i < BIRDS; i++)
        putchar('A' + i);
    putchar('\n');
    game_options once = {.most_sweeps = 1};
    game_report r = {0};
    memset(d->state, 0, sizeof d->state);
    printf(_("   start         %9.5f   %.5f "), game_potential(&d->g, d->state, price), game_gap(&d->g, d->state, price));
    for (int sweep = 1; !r.settled; sweep++) {
        for (int i = 0; i < BIRDS; i++)
            putchar('0' + (int)bits[d->state[i]]);
        DIL_TRY(game_settle(&d->g, price, &once, d->state, &r, err));
        printf("\n   %5d  %5lld  %9.5f   %.5f ", sweep, (long long)r.moves, r.potential, r.gap);
    }
    for (int i = 0; i < BIRDS; i++)
        putchar('0' + (int)bits[d->state[i]]);
    printf(_("\n\n   Nobody gains by changing alone: a Nash equilibrium. It uses %.0f bits.\n\n"), game_use(&d->g, d->state));
    return DIL_OK;
}

static dil_status print_fit(demo *d, dil_error *err)
{
    game_fit_report r;
    double restarts, free_cost, free_lower;
    int32_t alone[BIRDS];
    DIL_TRY(game_fit(&d->g, budget, NULL, d->state, &r, err));
    printf(
        _("3. A budget of %.0f bits. The price is bisected until the flock fits, what is left is filled, pairs are exchanged.\n\n"),
        budget);
    draw(d, d->state);
    DIL_TRY(game_restarts(&d->g, r.price, 32, 1, &restarts, err));
    game separate = d->g;
    separate.graph = NULL;
    separate.amount = NULL;
    DIL_TRY(game_by_cells(&separate, budget, (int32_t)budget, alone, &free_cost, &free_lower, err));
    printf(_("\n   price per bit %.5f, used %.0f of %.0f, cost %.5f; %d single moves filled, %d pairs exchanged\n"
             "   left to gain: by one bird %.1e, by two together %.1e; birds whose neighbours could change their mind: %.0f %%\n"
             "   without minding neighbours (dynamic programming): %.5f in the same game, %+.1f %%\n"),
           r.price, r.used, budget, r.cost, r.filled, r.exchanged, r.gap, r.swap_gap, 100 * r.active_share,
           game_potential(&d->g, alone, 0.0), 100 * (game_potential(&d->g, alone, 0.0) / r.cost - 1));
    printf(_("   potential at this price: %.5f settled, %.5f the best of 32 random starts\n\n"), r.settled.potential, restarts);
    return DIL_OK;
}

static dil_status print_decision(dil_error *err)
{
    const float task[2] = {0.5f, 0.45f};
    decide_problem p = {.candidates = &places[0][0], .task = task, .n = BIRDS, .dim = 2, .n_chosen = 3, .overlap = 0.5};
    decide_evidence e;
    int32_t best;
    DIL_TRY(decide_adaptive(&p, &best, &e, err));
    printf(_("4. The adaptive decision for a task in the middle, three places. Nearest in the whitened metric first:\n\n"
             "   bird  distance  value   place  loses by changing\n"));
    for (int32_t i = 0; i < e.n; i++)
        printf("   %c     %8.3f  %.3f   %-5s  %.4f\n", 'A' + e.member[i], e.distance[i], e.value[i], e.chosen[i] ? _("yes") : "",
               e.regret[i]);
    printf(e.certain ? _("\n   Chosen: %c. Group of %d, nobody outside it could have changed the answer; a place costs %.4f.\n")
                     : _("\n   Chosen: %c. Group of %d, all that are looked at; a place costs %.4f.\n"),
           'A' + best, e.n, e.game.price);
    return DIL_OK;
}

static int theorem(const cli_options *o, char **positional, int n_positional)
{
    (void)o;
    if (n_positional != 1 || strcmp(positional[0], "demo") != 0)
        return cli_usage("theorem: wanted 'demo', found '%s'", n_positional > 0 ? positional[0] : _("nothing"));
    dil_error err = {0};
    demo *d = mem_calloc(1, sizeof *d, MEM_MISC);
    if (!d)
        return CLI_FAILED;
    dil_status status = build(d, &err);
    if (status == DIL_OK) {
        puts(_("The Nash-Swarm game: J(s) = own cost + neighbours' coupling + price * use;  docs/THEOREM.md has the proofs.\n"));
        print_neighbours(d);
        status = print_settling(d, 0.05, &err);
    }
    if (status == DIL_OK)
        status = print_fit(d, &err);
    if (status == DIL_OK)
        status = print_decision(&err);
    swarm_graph_free(&d->graph);
    mem_free(d);
    return status == DIL_OK ? CLI_OK : cli_fail(&err);
}

static const char *const theorem_options[] = {NULL};

const cli_command command_theorem = {.name = "theorem",
                                     .usage = N_("theorem demo"),
                                     .summary = N_("Walks through the Nash-Swarm game on a small problem."),
                                     .example = N_("dil theorem demo"),
                                     .options = theorem_options,
                                     .least_positional = 1,
                                     .most_positional = 1,
                                     .run = theorem};
