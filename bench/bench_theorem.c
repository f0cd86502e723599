/*
 * Time and memory of the theorem on large problems: neighbours of many points, a million players with product coupling, the
 * quantizer's problem beside dynamic programming.
 *     bench_theorem [THREADS]
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/os.h"
#include "theorem/game.h"
#include "theorem/random.h"

static uint64_t seed = 7;
static double uniform(void) { return (double)(random_next(&seed) >> 11) * 0x1p-53; }
static double seconds(void) { return (double)os_time_ns() * 1e-9; }

static void must(dil_status status, const dil_error *err)
{
    if (status != DIL_OK) {
        fprintf(stderr, "bench_theorem: %s\n", err->text);
        exit(1);
    }
}

static void neighbours(team *workers, int32_t n, int32_t dim)
{
    float *points = malloc((size_t)n * (size_t)dim * sizeof *points);
    int32_t *lists = malloc((size_t)n * SWARM_NEIGHBOURS * sizeof *lists);
    dil_error err;
    for (size_t i = 0; i < (size_t)n * (size_t)dim; i++)
        points[i] = (float)uniform();
    double started = seconds();
    must(swarm_nearest(points, n, dim, SWARM_EUCLIDEAN, SWARM_NEIGHBOURS, workers, lists, NULL, &err), &err);
    printf("7 nearest of %d points in %d dimensions: %.2f s\n", n, dim, seconds() - started);
    free(points);
    free(lists);
}

/* A ring with 7 neighbours cannot be mutual; each minds 3 before, 3 behind and the one opposite. */
static void million(team *workers)
{
    enum { PLAYERS = 1000000, STRATEGIES = 4, K = 7 };
    int32_t *lists = malloc((size_t)PLAYERS * K * sizeof *lists), *first = malloc(((size_t)PLAYERS + 1) * sizeof *first),
            *state = calloc(PLAYERS, sizeof *state);
    double *cost = malloc((size_t)PLAYERS * STRATEGIES * sizeof *cost);
    float *amount = malloc((size_t)PLAYERS * STRATEGIES * sizeof *amount);
    swarm_graph graph;
    game_colours colours;
    game_report r;
    dil_error err;
    for (int32_t i = 0; i < PLAYERS; i++) {
        static const int32_t steps[K] = {1, 2, 3, PLAYERS - 1, PLAYERS - 2, PLAYERS - 3, PLAYERS / 2};
        for (int k = 0; k < K; k++)
            lists[(size_t)i * K + (size_t)k] = (int32_t)(((int64_t)i + steps[k]) % PLAYERS);
        first[i] = STRATEGIES * i;
        for (int s = 0; s < STRATEGIES; s++) {
            cost[(size_t)i * STRATEGIES + (size_t)s] = uniform();
            amount[(size_t)i * STRATEGIES + (size_t)s] = (float)(uniform() - 0.5);
        }
    }
    first[PLAYERS] = STRATEGIES * PLAYERS;
    must(swarm_graph_of(lists, PLAYERS, K, &graph, &err), &err);
    free(lists);
    graph.weight = mem_alloc((size_t)graph.first[PLAYERS] * sizeof *graph.weight, MEM_MISC);
    for (int64_t e = 0; e < graph.first[PLAYERS]; e++)
        graph.weight[e] = 0.5f;
    game g = {.n_players = PLAYERS, .first = first, .cost = cost, .graph = &graph, .amount = amount};
    double started = seconds();
    must(game_colour(&g, &colours, &err), &err);
    must(game_settle(&g, 0.0, &(game_options){.colours = &colours, .workers = workers}, state, &r, &err), &err);
    double took = seconds() - started;
    double bytes = sizeof *first + STRATEGIES * (sizeof *cost + sizeof *amount) + sizeof *state + sizeof *colours.players +
                   sizeof *graph.first + (double)graph.first[PLAYERS] / PLAYERS * (sizeof *graph.other + sizeof *graph.weight);
    printf(
        "%d players, %d strategies, %d neighbours: %.2f s with colouring (%d colours), %d sweeps, %lld moves, gap %.1e, %.0f bytes per player\n",
        PLAYERS, STRATEGIES, K, took, colours.n, r.sweeps, (long long)r.moves, r.gap, bytes);
    game_colours_free(&colours);
    swarm_graph_free(&graph);
    free(first);
    free(state);
    free(cost);
    free(amount);
}

static void formats(void)
{
    enum { PLAYERS = 210, FORMATS = 10, ROUNDS = 20 };
    static int32_t first[PLAYERS + 1], state[PLAYERS];
    static double cost[PLAYERS * FORMATS], use[PLAYERS * FORMATS], took[ROUNDS];
    double above_cells = -1, above_proof = 0, most = 0;
    dil_error err;
    for (int round = 0; round < ROUNDS; round++) {
        double least = 0, all = 0;
        for (int32_t i = 0; i < PLAYERS; i++) {
            double rows = 1 + floor(40 * uniform()), worth = exp(3 * uniform());
            first[i + 1] = FORMATS * (i + 1);
            for (int32_t f = 0; f < FORMATS; f++) {
                use[FORMATS * i + f] = floor(rows * 4096 * (2 + 0.7 * f) / 8 / 32) * 32;
                cost[FORMATS * i + f] = worth * rows * exp2(-2 * (2 + 0.7 * f)) * (1 + 0.2 * uniform());
            }
            least += use[FORMATS * i];
            all += use[FORMATS * i + FORMATS - 1];
        }
        game g = {.n_players = PLAYERS, .first = first, .cost = cost, .use = use};
        game_fit_report r;
        double by_cells, lower, budget = floor(least + (all - least) * (0.1 + 0.8 * uniform())), started = seconds();
        must(game_fit(&g, budget, NULL, state, &r, &err), &err);
        took[round] = seconds() - started;
        must(game_by_cells(&g, budget, 25000, NULL, &by_cells, &lower, &err), &err);
        above_cells = fmax(above_cells, r.cost / by_cells - 1);
        above_proof = fmax(above_proof, r.cost / fmax(lower, r.bound) - 1);
        most = took[round] > most ? took[round] : most;
    }
    printf(
        "%d players, %d formats, an exact budget: at most %.1f ms; %+.3f %% to the answer of dynamic programming, %+.3f %% to the proven "
        "bound (worst of %d)\n",
        PLAYERS, FORMATS, 1e3 * most, 100 * above_cells, 100 * above_proof, ROUNDS);
}

int main(int argc, char **argv)
{
    team *workers;
    dil_error err;
    must(team_new(&workers, argc > 1 ? atoi(argv[1]) : 2, &err), &err);
    neighbours(workers, 100000, 3);
    neighbours(workers, 100000, 8);
    neighbours(workers, 20000, 64);
    million(workers);
    formats();
    team_free(workers);
    return 0;
}
