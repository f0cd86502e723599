/* The theorem: neighbours against plain comparison, games against their definition and against trying everything. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/mem.h"
#include "leaks.h"
#include "theorem/decide.h"
#include "theorem/game.h"
#include "theorem/neighbours.h"
#include "theorem/random.h"

static uint64_t seed = 20261125;
static double uniform(void) { return (double)(random_next(&seed) >> 11) * 0x1p-53; }
static int32_t below(int32_t n) { return (int32_t)(random_next(&seed) % (uint64_t)n); }

static void ok(dil_status status, const dil_error *err)
{
    if (status != DIL_OK)
        fail_msg("%s", err->text);
}

static void fails(dil_status status, dil_status wanted, const dil_error *err, const char *part)
{
    if (status != wanted || !strstr(err->text, part))
        fail_msg("wanted status %d and '%s', found %d and '%s'", (int)wanted, part, (int)status, err->text);
}

static void near(double a, double b, double most)
{
    if (!(fabs(a - b) <= most))
        fail_msg("%.17g and %.17g differ by more than %g", a, b, most);
}

/* ---- neighbours ---- */

static double distance(const float *points, int32_t dim, int32_t i, int32_t j, swarm_metric metric)
{
    double dot = 0, ii = 0, jj = 0, square = 0;
    for (int32_t d = 0; d < dim; d++) {
        double x = (double)points[i * dim + d], y = (double)points[j * dim + d];
        dot += x * y;
        ii += x * x;
        jj += y * y;
        square += (x - y) * (x - y);
    }
    return metric == SWARM_EUCLIDEAN ? sqrt(square) : ii > 0 && jj > 0 ? 1 - dot / sqrt(ii * jj) : 0.5 * (ii > 0 || jj > 0);
}

static void nearest_by_comparison(void **state)
{
    (void)state;
    static const struct shape {
        int32_t n, dim, k;
        bool grid;
    } shapes[] = {{2, 1, 1, false},   {9, 2, 7, false},    {40, 1, 3, true},   {300, 2, 7, true},
                  {500, 3, 7, false}, {200, 20, 7, false}, {70, 5, 64, false}, {100, 1, 7, true}};
    team *workers;
    dil_error err;
    ok(team_new(&workers, 3, &err), &err);
    for (size_t c = 0; c < sizeof shapes / sizeof *shapes; c++)
        for (int metric = 0; metric < 2; metric++) {
            struct shape s = shapes[c];
            float *points = calloc((size_t)(s.n * s.dim), sizeof *points), *far[2];
            int32_t *found[2];
            for (int32_t i = 0; i < s.n * s.dim; i++)
                points[i] = s.grid ? (float)below(5) : (float)(uniform() - 0.5);
            for (int v = 0; v < 2; v++) {
                found[v] = calloc((size_t)(s.n * s.k), sizeof **found);
                far[v] = calloc((size_t)(s.n * s.k), sizeof **far);
                ok(swarm_nearest(points, s.n, s.dim, (swarm_metric)metric, s.k, v ? workers : NULL, found[v], far[v], &err), &err);
            }
            assert_memory_equal(found[0], found[1], (size_t)(s.n * s.k) * sizeof **found);
            for (int32_t i = 0; i < s.n; i++) {
                bool taken[512] = {false};
                double last = 0;
                for (int32_t r = 0; r < s.k; r++) {
                    int32_t j = found[0][i * s.k + r];
                    double d = distance(points, s.dim, i, j, (swarm_metric)metric);
                    assert_true(j != i && j >= 0 && j < s.n && !taken[j]);
                    assert_true(d >= last - 1e-6 && fabs(d - (double)far[0][i * s.k + r]) < 1e-5);
                    if (s.grid && metric == SWARM_EUCLIDEAN && r > 0 && d == last)
                        assert_true(j > found[0][i * s.k + r - 1]); /* equal ones by index */
                    taken[j] = true;
                    last = d;
                }
                for (int32_t j = 0; j < s.n; j++)
                    if (j != i && !taken[j])
                        assert_true(distance(points, s.dim, i, j, (swarm_metric)metric) >= last - 1e-6);
            }
            for (int v = 0; v < 2; v++) {
                free(found[v]);
                free(far[v]);
            }
            free(points);
        }
    team_free(workers);
}

static void graph_is_mutual(void **state)
{
    (void)state;
    static const int32_t lists[] = {1, 2, 2, 0, 0, 1, 0, 1, 0, 3};
    swarm_graph g;
    dil_error err;
    ok(swarm_graph_of(lists, 5, 2, &g, &err), &err);
    static const int32_t degree[] = {4, 3, 2, 3, 2};
    for (int32_t i = 0; i < 5; i++) {
        assert_int_equal(g.first[i + 1] - g.first[i], degree[i]);
        for (int64_t e = g.first[i]; e < g.first[i + 1]; e++)
            assert_true(swarm_edge(&g, g.other[e], i) >= 0 && (e == g.first[i] || g.other[e] > g.other[e - 1]));
    }
    assert_int_equal(swarm_edge(&g, 2, 4), -1);
    swarm_graph_free(&g);
    fails(swarm_graph_of((const int32_t[]){1, 7}, 2, 1, &g, &err), DIL_BAD_ARGUMENT, &err,
          "point 1: wanted another point below 2, found 7");
    fails(swarm_graph_of((const int32_t[]){0, 0}, 2, 1, &g, &err), DIL_BAD_ARGUMENT, &err, "point 0");
}

static void flight(void **state)
{
    (void)state;
    static const float square[] = {0, 0, 2, 0, 2, 2, 0, 2}, together[] = {1, 1, 2, 2, 3, 3, 1, 1},
                       against[] = {1, 0, -1, 0, 1, 0, -1, 0};
    static const int32_t ring[] = {1, 3, 0, 2, 1, 3, 2, 0};
    swarm_graph g;
    swarm_order o;
    dil_error err;
    ok(swarm_graph_of(ring, 4, 2, &g, &err), &err);
    swarm_measure(&g, square, together, 2, &o);
    near(o.alignment, 1, 1e-12);
    near(o.separation, 2, 1e-12);
    near(o.cohesion, sqrt(2), 1e-12);
    swarm_measure(&g, square, against, 2, &o);
    near(o.alignment, -1, 1e-12);
    swarm_measure(&g, square, NULL, 2, &o);
    near(o.alignment, 0, 1e-12);
    swarm_graph_free(&g);
}

/* ---- random games ---- */

typedef struct random_game {
    game g;
    int32_t first[1001];
    double cost[12000], use[12000];
    float amount[12000];
    swarm_graph graph;
    double table[9][9][4][4];
} random_game;

static double from_table(void *ctx, int32_t i, int32_t s, int32_t j, int32_t t)
{
    const random_game *r = ctx;
    return i < j ? r->table[i][j][s][t] : r->table[j][i][t][s];
}

enum { FREE, PRODUCT, TABLE };

/* n players with up to most strategies, each with up to 7 neighbours. */
static random_game *make_game(int32_t n, int32_t most, int coupling, double strength)
{
    random_game *r = calloc(1, sizeof *r);
    dil_error err;
    for (int32_t i = 0; i < n; i++)
        r->first[i + 1] = r->first[i] + 1 + below(most);
    for (int32_t at = 0; at < r->first[n]; at++) {
        r->cost[at] = uniform();
        r->use[at] = 10 * uniform();
        r->amount[at] = (float)(uniform() - 0.3);
    }
    r->g = (game){.n_players = n, .first = r->first, .cost = r->cost, .use = r->use};
    if (coupling == FREE || n < 2)
        return r;
    int32_t k = n - 1 < 7 ? n - 1 : 7, *lists = calloc((size_t)(n * k), sizeof *lists);
    float *points = calloc((size_t)(2 * n), sizeof *points);
    for (int32_t i = 0; i < 2 * n; i++)
        points[i] = (float)uniform();
    ok(swarm_nearest(points, n, 2, SWARM_EUCLIDEAN, k, NULL, lists, NULL, &err), &err);
    ok(swarm_graph_of(lists, n, k, &r->graph, &err), &err);
    free(points);
    free(lists);
    r->g.graph = &r->graph;
    if (coupling == TABLE) {
        for (int32_t i = 0; i < 9; i++)
            for (int32_t x = 0; x < 9 * 16; x++)
                (&r->table[i][0][0][0])[x] = strength * (uniform() - 0.5);
        r->g.pair = from_table;
        r->g.ctx = r;
        return r;
    }
    r->graph.weight = mem_calloc((size_t)r->graph.first[n] + 1, sizeof *r->graph.weight, MEM_MISC);
    for (int32_t i = 0; i < n; i++)
        for (int64_t e = r->graph.first[i]; e < r->graph.first[i + 1]; e++)
            if (r->graph.other[e] > i)
                r->graph.weight[e] = r->graph.weight[swarm_edge(&r->graph, r->graph.other[e], i)] =
                    (float)(strength * (uniform() - 0.5));
    r->g.amount = r->amount;
    return r;
}

static void drop_game(random_game *r)
{
    swarm_graph_free(&r->graph);
    free(r);
}

static void random_state(const game *g, int32_t *state)
{
    for (int32_t i = 0; i < g->n_players; i++)
        state[i] = below(g->first[i + 1] - g->first[i]);
}

/* T1: what a player gains by moving is what the potential loses. */
static void moves_change_the_potential_alike(void **state)
{
    (void)state;
    int cases = 0;
    while (cases < 10000) {
        random_game *r = make_game(1 + below(9), 4, below(3), 2.0);
        dil_error err;
        int32_t s[9];
        ok(game_check(&r->g, &err), &err);
        for (int round = 0; round < 20; round++, cases++) {
            double price = uniform();
            random_state(&r->g, s);
            int32_t i = below(r->g.n_players), to = below(r->first[i + 1] - r->first[i]), from = s[i];
            double own = game_player_cost(&r->g, s, i, to, price) - game_player_cost(&r->g, s, i, from, price),
                   before = game_potential(&r->g, s, price);
            s[i] = to;
            near(game_potential(&r->g, s, price) - before, own, 1e-9);
        }
        drop_game(r);
    }
}

/* T2: the potential never rises, the end is an equilibrium; in any order and by classes, with any number of threads. */
static void settling(void **state)
{
    (void)state;
    dil_error err;
    team *workers[4] = {NULL};
    for (int n = 2; n < 4; n++)
        ok(team_new(&workers[n], n, &err), &err);
    for (int round = 0; round < 150; round++) {
        int32_t n = round < 100 ? 1 + below(9) : 300 + below(700);
        random_game *r = make_game(n, round < 100 ? 4 : 8, n > 9 ? below(2) : below(3), 3.0);
        game_colours c;
        game_report report;
        int32_t s[1000], start[1000], same[1000];
        double price = 0.2 * uniform();
        random_state(&r->g, start);
        ok(game_colour(&r->g, &c, &err), &err);
        for (int32_t x = 0, seen = 0; x < c.n; x++)
            for (int32_t p = c.first[x]; p < c.first[x + 1]; p++, seen++) {
                assert_true(c.players[p] >= 0 && c.players[p] < n && seen < n);
                for (int32_t other = c.first[x]; r->g.graph && other < p; other++)
                    assert_int_equal(swarm_edge(&r->graph, c.players[p], c.players[other]), -1);
            }
        for (int way = 0; way < 5; way++) {
            game_options o = {.seed = way == 1 ? 77 : 0,
                              .colours = way >= 2 ? &c : NULL,
                              .workers = way == 3   ? workers[2]
                                         : way == 4 ? workers[3]
                                                    : NULL,
                              .most_sweeps = 1};
            memcpy(s, start, sizeof s);
            double last = game_potential(&r->g, s, price);
            do {
                ok(game_settle(&r->g, price, &o, s, &report, &err), &err);
                assert_true(report.potential <= last + 1e-9);
                near(report.potential, game_potential(&r->g, s, price), 1e-9);
                last = report.potential;
                o.seed += way == 1;
            } while (!report.settled);
            assert_true(report.gap <= 0 && game_gap(&r->g, s, price) <= 0);
            for (int32_t i = 0; i < n; i++)
                for (int32_t t = 0; t < r->first[i + 1] - r->first[i]; t++)
                    assert_true(game_player_cost(&r->g, s, i, t, price) >= game_player_cost(&r->g, s, i, s[i], price) - 1e-9);
            if (way == 2)
                memcpy(same, s, sizeof same);
            if (way > 2)
                assert_memory_equal(same, s, (size_t)n * sizeof *s);
        }
        game_colours_free(&c);
        drop_game(r);
    }
    team_free(workers[2]);
    team_free(workers[3]);
}

/* The example of docs/THEOREM.md: nine points on a line. 0 lists 1 among its seven nearest and 1 does not list 0; 2 is mutual with both. 0
 * wants what 1 does, 1 what 2 does, 2 the opposite of 0: taken one-way nobody is ever content, made mutual everybody soon is. */
static void one_way_neighbours_go_round(void **state)
{
    (void)state;
    enum { N = 9, K = 7 };
    static const float at[N] = {51, 0, 20, -2, -4, -6, -8, -10, -12}, like[3][3] = {{0, -3, 2}, {-3, 0, -1}, {2, -1, 0}};
    static const float amount[2 * 3 + N - 3] = {1, -1, 1, -1, 1, -1}; /* the six at the left have one strategy and no part in it */
    static const int32_t first[N + 1] = {0, 2, 4, 6, 7, 8, 9, 10, 11, 12};
    static const double cost[12];
    int32_t lists[N][K], other[N * K], s[N];
    int64_t begins[N + 1];
    float weight[N * K], mutual_weight[2 * N * K];
    swarm_graph one_way = {N, begins, other, weight}, mutual;
    dil_error err;
    game_report r;
    ok(swarm_nearest(at, N, 1, SWARM_EUCLIDEAN, K, NULL, &lists[0][0], NULL, &err), &err);
    for (int32_t i = 0; i < N; i++) {
        begins[i] = (int64_t)i * K;
        int64_t e = begins[i];
        for (int32_t j = 0; j < N; j++)
            for (int32_t k = 0; k < K; k++)
                if (lists[i][k] == j) {
                    weight[e] = i < 3 && j < 3 ? like[i][j] : 0.0f;
                    other[e++] = j;
                }
    }
    begins[N] = (int64_t)N * K;
    assert_true(swarm_edge(&one_way, 0, 1) >= 0 && swarm_edge(&one_way, 1, 0) < 0);
    assert_true(swarm_edge(&one_way, 0, 2) >= 0 && swarm_edge(&one_way, 2, 0) >= 0);
    assert_true(swarm_edge(&one_way, 1, 2) >= 0 && swarm_edge(&one_way, 2, 1) >= 0);
    game g = {.n_players = N, .first = first, .cost = cost, .graph = &one_way, .amount = amount};
    for (int32_t start = 0; start < 8; start++) {
        for (int32_t i = 0; i < N; i++)
            s[i] = i < 3 ? start >> i & 1 : 0;
        assert_true(game_gap(&g, s, 0) > 0); /* no state is an equilibrium */
        ok(game_settle(&g, 0, NULL, s, &r, &err), &err);
        assert_true(!r.settled && r.moves >= r.sweeps);
    }
    fails(game_check(&g, &err), DIL_BAD_ARGUMENT, &err, "edge 0 - 1");
    ok(swarm_graph_of(&lists[0][0], N, K, &mutual, &err), &err);
    for (int32_t i = 0; i < N; i++)
        for (int64_t e = mutual.first[i]; e < mutual.first[i + 1]; e++)
            mutual_weight[e] = i < 3 && mutual.other[e] < 3 ? like[i][mutual.other[e]] : 0.0f;
    g.graph = &(swarm_graph){N, mutual.first, mutual.other, mutual_weight};
    ok(game_check(&g, &err), &err);
    for (int32_t start = 0; start < 8; start++) {
        for (int32_t i = 0; i < N; i++)
            s[i] = i < 3 ? start >> i & 1 : 0;
        ok(game_settle(&g, 0, NULL, s, &r, &err), &err);
        assert_true(r.settled && r.gap <= 0 && r.sweeps <= 3);
        assert_true(s[0] == s[1] && s[2] != s[0]);
        near(r.potential, -4, 1e-12);
    }
    swarm_graph_free(&mutual);
}

/* The next state in counting order; false after the last. */
static bool next_state(const game *g, int32_t *s)
{
    for (int32_t i = 0; i < g->n_players; i++) {
        if (++s[i] < g->first[i + 1] - g->first[i])
            return true;
        s[i] = 0;
    }
    return false;
}

/* Every state of small games: nothing costs less than the bound, the fit keeps its budget, and no one or two players can do better. */
static void fitting_by_brute_force(void **state)
{
    (void)state;
    int best = 0, cases = 0;
    for (int round = 0; round < 1500; round++) {
        random_game *r = make_game(1 + below(8), 3, below(3), 0.6);
        int32_t n = r->g.n_players, s[8] = {0}, fitted[8];
        dil_error err;
        game_fit_report report;
        double least_use = 0, most_use = 0;
        for (int32_t i = 0; i < n; i++) {
            double low = INFINITY, high = 0;
            for (int32_t at = r->first[i]; at < r->first[i + 1]; at++) {
                low = r->use[at] < low ? r->use[at] : low;
                high = r->use[at] > high ? r->use[at] : high;
            }
            least_use += low;
            most_use += high;
        }
        double budget = least_use + (most_use - least_use) * uniform() * 1.1 + 1e-9, optimum = INFINITY;
        ok(game_fit(&r->g, budget, NULL, fitted, &report, &err), &err);
        do {
            double cost = game_potential(&r->g, s, 0);
            if (game_use(&r->g, s) > budget)
                continue;
            optimum = cost < optimum ? cost : optimum;
            int32_t differ = 0;
            for (int32_t i = 0; i < n; i++)
                differ += s[i] != fitted[i];
            if (differ <= 2)
                assert_true(cost >= report.cost - 1e-9); /* no single move and no pair */
        } while (next_state(&r->g, s));
        assert_true(report.used <= budget && report.cost >= optimum - 1e-9 && report.gap <= 1e-9 && report.swap_gap <= 1e-9);
        near(report.used, game_use(&r->g, fitted), 1e-9);
        near(report.cost, game_potential(&r->g, fitted, 0), 1e-9);
        if (!r->g.graph) { /* T3 and the certificate; dynamic programming encloses the optimum */
            double cost, lower;
            int32_t by_cells[8];
            assert_true(report.bound <= optimum + 1e-9 && report.active_share == 0);
            ok(game_by_cells(&r->g, budget, 4000, by_cells, &cost, &lower, &err), &err);
            assert_true(lower <= optimum + 1e-9 && cost >= optimum - 1e-9 && cost - lower < 0.05);
            assert_true(game_use(&r->g, by_cells) <= budget + 1e-9);
            near(game_potential(&r->g, by_cells, 0), cost, 1e-9);
            ok(game_by_cells(&r->g, least_use, 4000, by_cells, &cost, NULL, &err), &err);
            near(game_use(&r->g, by_cells), least_use, 1e-9); /* no room at all: everyone is frugal */
        }
        best += report.cost <= optimum + 1e-9;
        cases++;
        fails(game_fit(&r->g, least_use * 0.999 - 1e-6, NULL, fitted, &report, &err), DIL_LIMIT, &err, "cannot do without");
        drop_game(r);
    }
    assert_true(best > cases * 9 / 10); /* pairs leave little; exactly how much is measured, not promised */
}

/* T3: without coupling one sweep reaches the optimum of the price. T5: weak coupling leaves it where it is. */
static void alone_or_with_neighbours(void **state)
{
    (void)state;
    for (int round = 0; round < 300; round++) {
        random_game *r = make_game(8, 4, round % 2 ? PRODUCT : FREE, 1e-6);
        int32_t s[8], alone[8], other[8];
        game_report report;
        dil_error err;
        random_state(&r->g, s);
        random_state(&r->g, other);
        ok(game_settle(&r->g, 0.05, NULL, s, &report, &err), &err);
        assert_true(report.sweeps <= 3);
        for (int32_t i = 0; i < 8; i++) {
            alone[i] = 0;
            for (int32_t t = 1; t < r->first[i + 1] - r->first[i]; t++)
                if (r->cost[r->first[i] + t] + 0.05 * r->use[r->first[i] + t] <
                    r->cost[r->first[i] + alone[i]] + 0.05 * r->use[r->first[i] + alone[i]])
                    alone[i] = t;
        }
        if (game_active_share(&r->g, 0.05) == 0) {
            ok(game_settle(&r->g, 0.05, NULL, other, &report, &err), &err);
            assert_memory_equal(s, alone, sizeof s);
            assert_memory_equal(other, alone, sizeof s);
        }
        drop_game(r);
    }
    random_game *strong = make_game(8, 4, PRODUCT, 100.0);
    assert_true(game_active_share(&strong->g, 0.05) > 0.5);
    double best, one;
    int32_t s[8] = {0};
    game_report report;
    dil_error err;
    ok(game_restarts(&strong->g, 0.05, 32, 1, &best, &err), &err);
    ok(game_settle(&strong->g, 0.05, NULL, s, &report, &err), &err);
    one = report.potential;
    do
        assert_true(game_potential(&strong->g, s, 0.05) >= -1e9);
    while (next_state(&strong->g, s));
    assert_true(best <= one + 1e-9);
    drop_game(strong);
}

/* The size of the quantizer's problem: within 1 % of what dynamic programming proves. */
static void tensors_and_formats(void **state)
{
    (void)state;
    random_game *r = calloc(1, sizeof *r);
    int32_t s[210];
    double least = 0, all = 0;
    dil_error err;
    for (int32_t i = 0; i < 210; i++) {
        double rows = 1 + below(40), worth = exp(3 * uniform());
        r->first[i + 1] = 10 * (i + 1);
        for (int32_t f = 0; f < 10; f++) {
            double bits = 2 + 0.7 * f;
            r->use[10 * i + f] = floor(rows * 4096 * bits / 8 / 32) * 32;
            r->cost[10 * i + f] = worth * rows * exp2(-2 * bits) * (1 + 0.2 * uniform());
        }
        least += r->use[10 * i];
        all += r->use[10 * i + 9];
    }
    r->g = (game){.n_players = 210, .first = r->first, .cost = r->cost, .use = r->use};
    for (int part = 1; part < 8; part++) {
        double budget = floor(least + (all - least) * part / 8), cost, lower;
        game_fit_report report;
        ok(game_fit(&r->g, budget, NULL, s, &report, &err), &err);
        ok(game_by_cells(&r->g, budget, 20000, NULL, &cost, &lower, &err), &err);
        lower = fmax(lower, report.bound); /* both are proofs */
        if (!(report.used <= budget && report.cost <= lower * 1.01 && report.bound <= report.cost * (1 + 1e-12)))
            fail_msg("budget %.0f: used %.0f, cost %g, bound %g, lower %g", budget, report.used, report.cost, report.bound, lower);
        assert_true(budget - report.used < 1e-3 * budget);
    }
    drop_game(r);
}

/* ---- shared resources ---- */

/* What a watch sees: one player moves at a time, the potential falls, and somebody could have gained before. */
typedef struct watched {
    const congestion *g;
    int32_t last[8], sweep;
    double potential, gap;
    int64_t looks;
} watched;

static void look(void *ctx, const int32_t *now, int32_t sweep)
{
    watched *w = ctx;
    double potential = congestion_potential(w->g, now), gap = congestion_gap(w->g, now);
    int moved = 0;
    for (int32_t i = 0; i < w->g->n_players; i++)
        moved += w->looks > 0 && now[i] != w->last[i];
    if (w->looks > 0) {
        assert_true(moved == 1 && potential < w->potential && w->gap > 0 && sweep >= w->sweep);
        assert_true(w->potential - potential <= w->gap + 1e-9); /* nobody gains more than the gap */
    }
    for (int32_t i = 0; i < w->g->n_players; i++)
        w->last[i] = now[i];
    w->potential = potential;
    w->gap = gap;
    w->sweep = sweep;
    w->looks++;
}

static void congestion_both_forms(void **state)
{
    (void)state;
    for (int round = 0; round < 1500; round++) {
        enum { PLAYERS = 5, RESOURCES = 6, STRATEGIES = 3 };
        double resource[RESOURCES], cost[PLAYERS * STRATEGIES];
        int32_t first[PLAYERS + 1] = {0}, set_first[PLAYERS * STRATEGIES + 1] = {0}, set[PLAYERS * STRATEGIES * 2], s[PLAYERS];
        double sign = round % 4 == 3 ? -1 : 1; /* load instead of sharing */
        for (int e = 0; e < RESOURCES; e++)
            resource[e] = sign * uniform();
        for (int32_t x = 0; x < PLAYERS * STRATEGIES; x++) {
            cost[x] = uniform();
            set_first[x + 1] = 2 * (x + 1);
            set[2 * x] = below(RESOURCES / 2);
            set[2 * x + 1] = RESOURCES / 2 + below(RESOURCES / 2);
        }
        for (int32_t i = 0; i < PLAYERS; i++) {
            first[i + 1] = STRATEGIES * (i + 1);
            s[i] = below(STRATEGIES);
        }
        congestion g = {PLAYERS,   RESOURCES, round % 2 ? CONGESTION_FAIR : CONGESTION_MARGINAL, resource, first, cost,
                        set_first, set};
        for (int move = 0; move < 10; move++) {
            int32_t i = below(PLAYERS), to = below(STRATEGIES);
            double own = congestion_player_cost(&g, s, i, to) - congestion_player_cost(&g, s, i, s[i]),
                   before = congestion_potential(&g, s);
            s[i] = to;
            near(congestion_potential(&g, s) - before, own, 1e-9);
        }
        if (!(round % 2)) { /* the marginal form's potential is what all pay together */
            double social = 0;
            bool used[RESOURCES] = {false};
            for (int32_t i = 0; i < PLAYERS; i++) {
                social += cost[STRATEGIES * i + s[i]];
                for (int e = 0; e < 2; e++)
                    used[set[2 * (STRATEGIES * i + s[i]) + e]] = true;
            }
            for (int e = 0; e < RESOURCES; e++)
                social += used[e] ? resource[e] : 0;
            near(social, congestion_potential(&g, s), 1e-9);
        }
        double before = congestion_potential(&g, s);
        game_report r;
        dil_error err;
        watched w = {.g = &g};
        ok(congestion_settle(&g, &(congestion_watch){look, &w}, s, &r, &err), &err);
        assert_true(r.settled && r.potential <= before + 1e-9);
        assert_true(w.looks == r.moves + 1 && w.sweep < r.sweeps);
        near(w.potential, r.potential, 1e-9);
        near(w.gap, 0, 1e-9);
        for (int32_t i = 0; i < PLAYERS; i++)
            for (int32_t t = 0; t < STRATEGIES; t++)
                assert_true(congestion_player_cost(&g, s, i, t) >= congestion_player_cost(&g, s, i, s[i]) - 1e-9);
    }
}

/* ---- the decision ---- */

static void deciding(void **state)
{
    (void)state;
    static float points[200][3];
    for (int i = 0; i < 200; i++)
        for (int d = 0; d < 3; d++)
            points[i][d] = (float)((uniform() - 0.5) * (d == 0 ? 1000 : 1)); /* axes of other scales: whitened */
    const float task[3] = {100, 0.1f, -0.2f};
    decide_problem p = {.candidates = &points[0][0], .task = task, .n = 200, .dim = 3, .n_chosen = 3};
    decide_evidence e;
    dil_error err;
    int32_t best;
    ok(decide_group(&p, &e, &err), &err);
    assert_int_equal(e.n, SWARM_NEIGHBOURS);
    for (int32_t r = 1; r < e.n; r++)
        assert_true(e.distance[r] >= e.distance[r - 1] && e.value[r] <= e.value[r - 1]);
    ok(decide_adaptive(&p, &best, &e, &err), &err);
    assert_int_equal(best, e.member[0]);
    assert_true(e.certain && e.game.used == 3);
    for (int32_t r = 0; r < e.n; r++) {
        assert_int_equal(e.chosen[r], r < 3); /* without overlap the three nearest */
        assert_true(e.regret[r] >= -1e-12);
    }
    p.overlap = 0.7;
    for (p.n_chosen = 1; p.n_chosen < 7; p.n_chosen++) { /* at the price of a place nobody wants to change */
        ok(decide_adaptive(&p, &best, &e, &err), &err);
        for (int32_t r = 0; r < e.n; r++)
            assert_true(e.regret[r] >= -1e-9);
    }
    /* Two of a kind and one of another: overlap prefers the mixed pair. */
    static const float three[] = {1, 0.02f, 1, 0.03f, 0.2f, 1};
    decide_problem pair = {.candidates = three, .task = (const float[]){0.75f, 0.5f}, .n = 3, .dim = 2, .n_chosen = 2};
    ok(decide_adaptive(&pair, &best, &e, &err), &err);
    bool both = false;
    for (int32_t r = 0; r < 3; r++)
        both = both || (e.member[r] == 2 && e.chosen[r]);
    assert_false(both);
    pair.overlap = 1.0;
    ok(decide_adaptive(&pair, &best, &e, &err), &err);
    for (int32_t r = 0; r < 3; r++)
        both = both || (e.member[r] == 2 && e.chosen[r]);
    assert_true(both && e.game.active_share > 0);
    p.n_chosen = 201;
    fails(decide_adaptive(&p, &best, &e, &err), DIL_BAD_ARGUMENT, &err, "found 200 and 201");
    points[3][1] = NAN;
    p.n_chosen = 1;
    fails(decide_adaptive(&p, &best, &e, &err), DIL_BAD_ARGUMENT, &err, "candidate 3");
}

/* ---- refused ---- */

static void refused(void **state)
{
    (void)state;
    dil_error err;
    int32_t first[] = {0, 1, 2}, bad_first[] = {0, 1, 1}, list[2];
    double cost[] = {1, 2}, use[] = {1, -1};
    float amount[] = {1, 1}, weight[] = {1, 2}, points[] = {0, NAN};
    int64_t graph_first[] = {0, 1, 2}, one_way[] = {0, 1, 1};
    int32_t other[] = {1, 0};
    swarm_graph graph = {2, graph_first, other, weight}, directed = {2, one_way, other, NULL};
    game g = {.n_players = 2, .first = first, .cost = cost};
    ok(game_check(&g, &err), &err);
    g.use = use;
    fails(game_check(&g, &err), DIL_BAD_ARGUMENT, &err, "player 1, strategy 0");
    g.use = NULL;
    g.first = bad_first;
    fails(game_check(&g, &err), DIL_BAD_ARGUMENT, &err, "player 1: wanted at least one strategy");
    g.first = first;
    g.graph = &graph;
    fails(game_check(&g, &err), DIL_BAD_ARGUMENT, &err, "a coupling");
    g.amount = amount;
    fails(game_check(&g, &err), DIL_BAD_ARGUMENT, &err, "the same finite weight");
    weight[1] = 1;
    ok(game_check(&g, &err), &err);
    g.graph = &directed;
    fails(game_check(&g, &err), DIL_BAD_ARGUMENT, &err, "in both directions");
    fails(swarm_nearest(points, 2, 1, SWARM_EUCLIDEAN, 1, NULL, list, NULL, &err), DIL_BAD_ARGUMENT, &err, "not");
    fails(swarm_nearest(points, 2, 1, SWARM_EUCLIDEAN, 2, NULL, list, NULL, &err), DIL_BAD_ARGUMENT, &err, "found 2 of 2");
}

/* The n-th allocation fails, until none does. */
static void without_memory(void **state)
{
    (void)state;
    random_game *r = make_game(8, 3, PRODUCT, 0.5), *separate = make_game(8, 3, FREE, 0);
    static const float points[] = {1, 2, 3, 4, 5, 6, 7, 8};
    for (int call = 0; call < 7; call++) {
        dil_status status = DIL_NO_MEMORY;
        int n = 0;
        for (; status != DIL_OK; n++) {
            dil_error err = {0};
            int32_t s[8] = {0}, lists[8], best;
            game_report report;
            game_fit_report fitted;
            swarm_graph graph = {0};
            game_colours c = {0};
            decide_evidence e;
            double value;
            decide_problem p = {.candidates = points, .task = points, .n = 8, .dim = 1, .overlap = 0.5};
            game_options o = {.seed = 3};
            mem_inject_failure(n);
            switch (call) {
            case 0: status = swarm_nearest(points, 8, 1, SWARM_EUCLIDEAN, 1, NULL, lists, NULL, &err); break;
            case 1: status = swarm_graph_of((const int32_t[]){1, 0, 0, 0, 0, 0, 0, 0}, 8, 1, &graph, &err); break;
            case 2: status = game_colour(&r->g, &c, &err); break;
            case 3: status = game_settle(&r->g, 0.1, &o, s, &report, &err); break;
            case 4: status = game_fit(&r->g, 60, NULL, s, &fitted, &err); break;
            case 5: status = game_by_cells(&separate->g, 80, 100, s, &value, &value, &err); break;
            default: status = decide_adaptive(&p, &best, &e, &err); break;
            }
            mem_inject_failure(-1);
            swarm_graph_free(&graph);
            game_colours_free(&c);
            if (status != DIL_OK)
                fails(status, DIL_NO_MEMORY, &err, "no memory");
            assert_true(n < 1000);
        }
        assert_true(n > 1);
    }
    drop_game(r);
    drop_game(separate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nearest_by_comparison),
        cmocka_unit_test(graph_is_mutual),
        cmocka_unit_test(flight),
        cmocka_unit_test(moves_change_the_potential_alike),
        cmocka_unit_test(settling),
        cmocka_unit_test(one_way_neighbours_go_round),
        cmocka_unit_test(fitting_by_brute_force),
        cmocka_unit_test(alone_or_with_neighbours),
        cmocka_unit_test(tensors_and_formats),
        cmocka_unit_test(congestion_both_forms),
        cmocka_unit_test(deciding),
        cmocka_unit_test(refused),
        cmocka_unit_test(without_memory),
    };
    return leaks_run_group_tests(tests, NULL, NULL);
}
