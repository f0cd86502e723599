/* The theorem, the machine and router logs through the public header: small cases by hand, and what bad arguments are told. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "dilmodeli.h"

static dil_error err;

static void refused(dil_status status, dil_status wanted, const char *naming)
{
    assert_int_equal(status, wanted);
    if (!strstr(err.text, naming))
        fail_msg("'%s' does not name '%s'", err.text, naming);
}

/* ---- flocks ---- */

static void neighbours_of_a_line(void **state)
{
    (void)state;
    const float points[] = {0, 1, 3, 7};
    int32_t nearest[8];
    float distance[8];
    const int32_t wanted[] = {1, 2, 0, 2, 1, 0, 2, 1};
    assert_int_equal(dil_flock_nearest(points, 4, 1, 2, false, nearest, distance, &err), DIL_OK);
    assert_memory_equal(nearest, wanted, sizeof wanted);
    assert_float_equal(distance[6], 4, 1e-6);
    refused(dil_flock_nearest(points, 4, 1, 4, false, nearest, NULL, &err), DIL_BAD_ARGUMENT, "4");
    refused(dil_flock_nearest(NULL, 4, 1, 2, false, nearest, NULL, &err), DIL_BAD_ARGUMENT, "points");
}

static void order_of_a_pair(void **state)
{
    (void)state;
    const float points[] = {0, 0, 3, 4}, together[] = {1, 0, 2, 0}, against[] = {1, 0, -2, 0};
    dil_flock_order o;
    assert_int_equal(dil_flock_measure(points, together, 2, 2, DIL_NEIGHBOURS, &o, &err), DIL_OK);
    assert_float_equal(o.alignment, 1, 1e-9);
    assert_float_equal(o.cohesion, 5, 1e-9);
    assert_float_equal(o.separation, 5, 1e-9);
    assert_int_equal(dil_flock_measure(points, against, 2, 2, DIL_NEIGHBOURS, &o, &err), DIL_OK);
    assert_float_equal(o.alignment, -1, 1e-9);
    assert_int_equal(dil_flock_measure(points, NULL, 1, 2, DIL_NEIGHBOURS, &o, &err), DIL_OK); /* alone */
    assert_float_equal(o.cohesion, 0, 0);
}

static void a_step_of_a_pair(void **state)
{
    (void)state;
    float x[] = {0, 0, 2, 0}, v[] = {1, 0, 0, 1};
    const float target[] = {0, 10};
    dil_flock_rules r = dil_flock_rules_default();
    r.alignment = 0.5f, r.cohesion = 0.25f, r.separation = 0.5f, r.pull = 0.1f, r.most_speed = 100, r.target = target;
    assert_int_equal(dil_flock_step(x, v, 2, 2, &r, &err), DIL_OK);
    /* bird 0: v (1,0) + 0.5 ((0,1) - (1,0)) + 0.25 (2,0) + 0.5 (-2,0)/4 + 0.1 (0,10) = (0.75, 1.5) */
    assert_float_equal(v[0], 0.75, 1e-6);
    assert_float_equal(v[1], 1.5, 1e-6);
    assert_float_equal(x[1], 1.5, 1e-6);
    /* bird 1: (0,1) + 0.5 (1,-1) + 0.25 (-2,0) + 0.5 (2,0)/4 + 0.1 (-2,10) = (0.05, 1.5) */
    assert_float_equal(v[2], 0.05, 1e-6);
    assert_float_equal(x[2], 2.05, 1e-6);
    r.most_speed = 0.5f;
    assert_int_equal(dil_flock_step(x, v, 2, 2, &r, &err), DIL_OK);
    assert_float_equal(hypotf(v[0], v[1]), 0.5, 1e-6);
    r.pull = NAN;
    refused(dil_flock_step(x, v, 2, 2, &r, &err), DIL_BAD_ARGUMENT, "pull");
    v[3] = INFINITY, r.pull = 0;
    refused(dil_flock_step(x, v, 2, 2, &r, &err), DIL_BAD_ARGUMENT, "velocities");
}

/* ---- games ---- */

/* Two players of two strategies; alone both prefer the first, together one of them must give way. */
static const int32_t firsts[] = {0, 2, 4}, edge[] = {0, 1};
static const double cost[] = {0, 1, 0, 1.5}, uses[] = {1, 0, 1, 0};
static const float amount[] = {1, 0, 1, 0}, weight[] = {2};

static dil_game pair_game(void)
{
    dil_game g = dil_game_default();
    g.n_players = 2, g.first = firsts, g.cost = cost, g.use = uses, g.amount = amount, g.n_edges = 1, g.edges = edge,
    g.weights = weight;
    return g;
}

static void a_pair_settles(void **state)
{
    (void)state;
    dil_game g = pair_game();
    int32_t s[] = {0, 0};
    dil_game_report r = {.struct_size = sizeof r};
    assert_int_equal(dil_game_settle(&g, 0, s, &r, &err), DIL_OK);
    assert_int_equal(s[0], 1); /* moves first: 1 instead of 2 */
    assert_int_equal(s[1], 0);
    assert_true(r.settled && r.moves == 1);
    assert_float_equal(r.potential, 1, 1e-12);
    assert_float_equal(r.gap, 0, 1e-12);
    assert_float_equal(r.used, 1, 1e-12);
    assert_int_equal(dil_game_settle(&g, 2, s, &r, &err), DIL_OK); /* dearer than giving way: both rest */
    assert_true(s[0] == 1 && s[1] == 1);
    assert_int_equal(dil_game_fit(&g, 1, s, &r, &err), DIL_OK);
    assert_true(r.used <= 1);
    assert_float_equal(r.cost, 1, 1e-12);
    assert_float_equal(r.potential, r.cost + r.price * r.used, 1e-12);
}

static void bad_games_are_told(void **state)
{
    (void)state;
    dil_game g = pair_game();
    int32_t s[] = {0, 2};
    const int32_t self[] = {1, 1}, twice[] = {0, 1, 1, 0};
    const float weights[] = {1, 1};
    refused(dil_game_settle(&g, 0, s, NULL, &err), DIL_BAD_ARGUMENT, "player 1");
    s[1] = 0;
    refused(dil_game_settle(&g, -1, s, NULL, &err), DIL_BAD_ARGUMENT, "price");
    g.edges = self;
    refused(dil_game_settle(&g, 0, s, NULL, &err), DIL_BAD_ARGUMENT, "edge 0");
    g.edges = twice, g.n_edges = 2, g.weights = weights;
    refused(dil_game_settle(&g, 0, s, NULL, &err), DIL_BAD_ARGUMENT, "twice");
    g = pair_game(), g.amount = NULL;
    refused(dil_game_settle(&g, 0, s, NULL, &err), DIL_BAD_ARGUMENT, "amount");
    refused(dil_game_fit(NULL, 0, s, NULL, &err), DIL_BAD_ARGUMENT, "dil_game");
}

/* ---- decisions ---- */

static void the_nearest_is_chosen(void **state)
{
    (void)state;
    float candidates[20];
    const float task[] = {4.2f};
    for (int i = 0; i < 20; i++)
        candidates[i] = (float)i;
    dil_decide_options o = dil_decide_options_default();
    dil_decision d = {.struct_size = sizeof d}, by_steps = {.struct_size = sizeof d};
    o.n = 20, o.dim = 1, o.candidates = candidates, o.task = task;
    assert_int_equal(dil_decide_adaptive(&o, &d, &err), DIL_OK);
    assert_int_equal(d.best, 4);
    assert_true(d.certain);
    assert_int_equal(d.n, DIL_NEIGHBOURS);
    const int32_t group[] = {4, 5, 3, 6, 2, 7, 1};
    assert_memory_equal(d.member, group, sizeof group);
    assert_int_equal(dil_decide_group(&o, &by_steps, &err), DIL_OK);
    assert_int_equal(by_steps.best, -1);
    assert_int_equal(dil_decide_equilibrium(&o, &by_steps, &err), DIL_OK);
    assert_int_equal(by_steps.best, 4);
    assert_memory_equal(by_steps.regret, d.regret, sizeof d.regret);
    by_steps.member[2] = 20;
    refused(dil_decide_equilibrium(&o, &by_steps, &err), DIL_BAD_ARGUMENT, "member 2");
    o.n_group = 65;
    refused(dil_decide_group(&o, &d, &err), DIL_BAD_ARGUMENT, "n_group");
    d.struct_size = 0;
    refused(dil_decide_group(&o, &d, &err), DIL_BAD_ARGUMENT, "struct_size");
}

/* ---- the machine ---- */

static void the_machine_is_known(void **state)
{
    (void)state;
    dil_machine m = {.struct_size = sizeof m};
    assert_int_equal(dil_machine_info(&m, &err), DIL_OK);
    assert_true(m.n_cores >= 1 && m.n_cpus >= m.n_cores && m.n_threads >= 1 && m.memory_bytes > 1 << 20);
    assert_true(strlen(m.kernels) > 0);
}

static void bad_plans_are_told(void **state)
{
    (void)state;
    dil_plan p = {.struct_size = sizeof p};
    dil_tuned t = {.struct_size = sizeof t};
    dil_workload w = dil_workload_default();
    refused(dil_plan_make("/nonexistent.gguf", NULL, &w, &p, &err), DIL_IO, "/nonexistent.gguf");
    w.n_prompt = 0;
    refused(dil_plan_make("/nonexistent.gguf", NULL, &w, &p, &err), DIL_BAD_ARGUMENT, "n_prompt");
    refused(dil_tune("/nonexistent.gguf", NULL, NULL, 0, &t, &err), DIL_BAD_ARGUMENT, "seconds");
}

/* ---- a layer's log ---- */

static void a_log_is_replayed(void **state)
{
    (void)state;
    char layer[] = "/tmp/dil_layer_XXXXXX", log[] = "/tmp/dil_log_XXXXXX";
    close(mkstemp(layer)), close(mkstemp(log));
    dil_experts l = dil_experts_default();
    l.n_embd = 32, l.n_ff = 64, l.n_experts = 4, l.n_used = 1;
    dil_engine *e;
    const int32_t chosen[] = {0, 0, 1, 0, 2, 3, 0, 0}, bad[] = {4};
    const float weights[] = {1, 1, 1, 1, 1, 1, 1, 1};
    dil_replay r = {.struct_size = sizeof r}, b = {.struct_size = sizeof b};
    assert_int_equal(dil_experts_write(layer, &l, &err), DIL_OK);
    assert_int_equal(dil_engine_open(&e, layer, NULL, &err), DIL_OK);
    assert_int_equal(dil_experts_log(e, log, chosen, weights, 8, &err), DIL_OK);
    refused(dil_experts_log(e, log, bad, NULL, 1, &err), DIL_BAD_ARGUMENT, "chosen");
    assert_int_equal(dil_experts_replay(log, "lru", 0.6, &r, &err), DIL_OK);
    assert_int_equal(r.n_tokens, 8);
    assert_int_equal(r.n_uses, 8);
    assert_int_equal(r.n_first, 4);
    assert_int_equal(r.n_slots, 2);
    assert_int_equal(r.n_found, 3); /* room for two: 0 | hit | 1 | hit | 2 | 3 | 0 again | hit */
    assert_int_equal(dil_experts_replay(log, "belady", 0.6, &b, &err), DIL_OK);
    assert_int_equal(b.n_found, 4);
    refused(dil_experts_replay(log, "fifo", 0.5, &r, &err), DIL_BAD_ARGUMENT, "fifo");
    refused(dil_experts_replay(log, "lru", 1.5, &r, &err), DIL_BAD_ARGUMENT, "share");
    dil_engine_close(e);
    unlink(layer), unlink(log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(neighbours_of_a_line), cmocka_unit_test(order_of_a_pair),
                                       cmocka_unit_test(a_step_of_a_pair),     cmocka_unit_test(a_pair_settles),
                                       cmocka_unit_test(bad_games_are_told),   cmocka_unit_test(the_nearest_is_chosen),
                                       cmocka_unit_test(the_machine_is_known), cmocka_unit_test(bad_plans_are_told),
                                       cmocka_unit_test(a_log_is_replayed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
