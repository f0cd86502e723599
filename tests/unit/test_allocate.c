/* Who gets how many bits, on matrices and costs made up for it: the mixtures of llama.cpp among the baselines, and time as a second price. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "leaks.h"
#include "quantize/allocate.h"

enum { N_LAYER = 16, COLUMNS = 512, ROWS = 256, FIXED = 1000, MOST = N_LAYER * NET_PLACES + 2 };

static player all[MOST];
static players p;
static recipe_model model;

static void ok(dil_status st, const dil_error *err)
{
    if (st != DIL_OK)
        fail_msg("%s", err->text);
}

/* A model of 16 layers; the fewer bits, the dearer, and values most of all. */
static int begin(void **state)
{
    (void)state;
    p = (players){.p = all, .fixed_bytes = FIXED, .tied = true};
    model = (recipe_model){.n_layer = N_LAYER, .n_head = 8, .n_head_kv = 4, .tied = true};
    for (int layer = 0; layer < N_LAYER; layer++)
        for (int place = 0; place < NET_PLACES; place++)
            all[p.n++] = (player){.layer = layer, .place = place, .n = 1, .rows = ROWS, .columns = COLUMNS};
    all[p.n++] = (player){.layer = -1, .place = PLACE_EMBEDDING, .n = 1, .rows = 4 * ROWS, .columns = COLUMNS};
    for (int i = 0; i < p.n; i++) {
        player_offer(&all[i]);
        for (int c = 0; c < all[i].n_choices; c++)
            all[i].choice[c].cost = (all[i].place == NET_V ? 4.0 : 1.0) / (double)all[i].choice[c].bytes;
    }
    return 0;
}

static player *at(int layer, int place) { return players_find(&p, layer, place); }

static void gets(const char *name, int layer, int place, dil_type wanted)
{
    for (int r = 0; r < recipe_count(); r++)
        if (strcmp(recipe_name(r), name) == 0) {
            dil_type found = recipe_type(r, &model, at(layer, place));
            if (found != wanted)
                fail_msg("%s, layer %d, place %d: wanted %s, found %s", name, layer, place, format_get(wanted)->name,
                         format_get(found)->name);
            return;
        }
    fail_msg("there is no mixture %s", name);
}

static void mixtures_give_what_they_give(void **state)
{
    (void)state;
    gets("Q4_K_M", 0, NET_Q, DIL_TYPE_Q4_K);
    gets("Q4_K_M", 1, NET_V, DIL_TYPE_Q6_K);
    gets("Q4_K_M", 2, NET_V, DIL_TYPE_Q4_K);
    gets("Q4_K_M", 4, NET_DOWN, DIL_TYPE_Q6_K);
    gets("Q4_K_M", 13, NET_DOWN, DIL_TYPE_Q6_K); /* a third */
    gets("Q4_K_M", 12, NET_DOWN, DIL_TYPE_Q4_K);
    gets("Q4_K_M", 14, NET_DOWN, DIL_TYPE_Q6_K); /* the end */
    gets("Q4_K_M", -1, PLACE_EMBEDDING, DIL_TYPE_Q6_K);
    gets("Q3_K_M", 1, NET_V, DIL_TYPE_Q5_K);
    gets("Q3_K_M", 2, NET_V, DIL_TYPE_Q4_K);
    gets("Q3_K_M", 0, NET_DOWN, DIL_TYPE_Q5_K);
    gets("Q3_K_M", 1, NET_DOWN, DIL_TYPE_Q4_K);
    gets("Q2_K", 5, NET_V, DIL_TYPE_Q3_K);
    gets("IQ4_XS", 5, NET_V, DIL_TYPE_IQ4_XS);
    gets("Q4_0", 1, NET_DOWN, DIL_TYPE_Q4_1);
    gets("Q4_0", 2, NET_DOWN, DIL_TYPE_Q4_0);
    gets("Q8_0", -1, PLACE_EMBEDDING, DIL_TYPE_Q8_0);
    model.n_head_kv = 2;
    gets("Q2_K", 5, NET_V, DIL_TYPE_Q4_K);
    gets("IQ4_XS", 5, NET_V, DIL_TYPE_Q5_K);
    model.tied = false;
    gets("Q4_K_M", -1, PLACE_EMBEDDING, DIL_TYPE_Q4_K);
    gets("Q2_0", -1, PLACE_EMBEDDING, DIL_TYPE_Q4_K);
    model.n_experts = 8;
    gets("Q2_K", 5, NET_V, DIL_TYPE_Q8_0);
    gets("Q2_K", 5, NET_OUTPUT, DIL_TYPE_Q5_K);
    gets("Q3_K_L", 5, NET_OUTPUT, DIL_TYPE_Q3_K);
    gets("Q5_0", 5, NET_K, DIL_TYPE_Q8_0);
    model.n_experts = 0;
    at(5, NET_Q)->columns = at(5, NET_V)->columns = 96; /* no blocks of 64 or 256 */
    gets("Q2_0", 5, NET_Q, DIL_TYPE_Q4_0);
    gets("Q3_K_S", 5, NET_Q, DIL_TYPE_Q4_0);
    gets("IQ4_XS", 5, NET_Q, DIL_TYPE_IQ4_NL);
    gets("Q4_K_M", 5, NET_Q, DIL_TYPE_Q5_0);
    gets("Q4_K_M", 7, NET_V, DIL_TYPE_Q6_K);
    gets("Q3_K_L", 5, NET_V, DIL_TYPE_Q5_1);
    gets("Q6_K", 5, NET_V, DIL_TYPE_Q8_0);
    at(5, NET_Q)->columns = 33;
    gets("Q4_K_M", 5, NET_Q, DIL_TYPE_F16);
}

/* Bytes and cost of a mixture, counted here. */
static uint64_t count(const char *name, double *cost)
{
    uint64_t bytes = FIXED;
    *cost = 0;
    for (int r = 0; r < recipe_count(); r++)
        for (int i = 0; strcmp(recipe_name(r), name) == 0 && i < p.n; i++)
            for (int c = 0; c < all[i].n_choices; c++)
                if (all[i].choice[c].type == recipe_type(r, &model, &all[i])) {
                    bytes += all[i].choice[c].bytes;
                    *cost += all[i].choice[c].cost;
                }
    return bytes;
}

static const allocate_baseline *find(const allocate_report *r, const char *name)
{
    for (int i = 0; i < r->n_baselines; i++)
        if (strcmp(r->baseline[i].name, name) == 0)
            return &r->baseline[i];
    return NULL;
}

static void the_largest_mixture_that_fits_is_the_baseline(void **state)
{
    (void)state;
    allocate_report r;
    dil_error err;
    double cost;
    uint64_t bytes = count("Q4_K_M", &cost);
    allocate_goal goal = {.file_bytes = bytes, .model = model};
    ok(allocate_size(&p, &goal, &r, &err), &err);
    const allocate_baseline *b = find(&r, "llama.cpp");
    assert_non_null(b);
    assert_string_equal(b->recipe, "Q4_K_M");
    assert_int_equal(b->bytes, bytes);
    assert_float_equal(b->cost, cost, 1e-12);
    assert_true(find(&r, "game")->cost <= cost && find(&r, "game")->recipe == NULL);
    goal.file_bytes--;
    ok(allocate_size(&p, &goal, &r, &err), &err);
    assert_string_equal(find(&r, "llama.cpp")->recipe, "Q4_K_S");
    assert_true(find(&r, "llama.cpp")->bytes < bytes);
    goal.file_bytes = 1u << 30;
    ok(allocate_size(&p, &goal, &r, &err), &err);
    assert_string_equal(find(&r, "llama.cpp")->recipe, "Q8_0");
    goal.model.n_layer = 0;
    ok(allocate_size(&p, &goal, &r, &err), &err);
    assert_null(find(&r, "llama.cpp"));
}

static void mixtures_of_what_is_not_offered_are_left_out(void **state)
{
    (void)state;
    allocate_report r;
    dil_error err;
    player *q = at(0, NET_V); /* Q6_K in Q4_K_M */
    int n = 0;
    double cost;
    allocate_goal goal = {.file_bytes = count("Q4_K_M", &cost), .model = model};
    for (int c = 0; c < q->n_choices; c++)
        if (q->choice[c].type != DIL_TYPE_Q6_K)
            q->choice[n++] = q->choice[c];
    q->n_choices = n;
    ok(allocate_size(&p, &goal, &r, &err), &err);
    assert_string_equal(find(&r, "llama.cpp")->recipe, "Q4_K_S");
}

/* Q4_0 is fast, everything else slow. */
static void time_has_a_price(void **state)
{
    (void)state;
    allocate_report r;
    dil_error err;
    double rate[DIL_TYPE_COUNT], seconds = 1e9;
    for (int type = 0; type < DIL_TYPE_COUNT; type++)
        rate[type] = type == DIL_TYPE_Q4_0 ? 4e6 : 1e6;
    ok(players_time(&p, rate, 0, &err), &err);
    assert_float_equal(at(0, NET_Q)->choice[0].seconds, ROWS * COLUMNS / 1e6, 1e-9);
    for (double price = 0; price<1e4; price = price> 0 ? 100 * price : 1e-7) {
        allocate_goal goal = {.file_bytes = 9u << 20, .second_price = price, .model = model};
        ok(allocate_size(&p, &goal, &r, &err), &err);
        double time = 0, cost = 0, divergence = find(&r, "game")->cost;
        for (int i = 0; i < p.n; i++) {
            time += all[i].choice[all[i].chosen].seconds;
            cost += all[i].choice[all[i].chosen].cost;
        }
        assert_float_equal(find(&r, "game")->seconds, time, 1e-9 * time);
        assert_float_equal(divergence, cost, 1e-6 * cost + 1e-6 * price); /* without the price */
        assert_true(time <= seconds * (1 + 1e-9));
        for (int i = 0; i < r.n_baselines; i++) {
            const allocate_baseline *b = &r.baseline[i];
            assert_true(b->seconds > 0);
            if (strcmp(b->name, "dynamic programming") != 0)
                assert_true(divergence + price * time <= (b->cost + price * b->seconds) * (1 + 1e-9));
        }
        seconds = time;
    }
    for (int i = 0; i < p.n; i++)
        assert_int_equal(all[i].choice[all[i].chosen].type, DIL_TYPE_Q4_0);
}

static void only_what_is_read_takes_time(void **state)
{
    (void)state;
    dil_error err;
    double rate[DIL_TYPE_COUNT];
    for (int type = 0; type < DIL_TYPE_COUNT; type++)
        rate[type] = 1e6;
    at(0, NET_GATE)->n = 8;
    ok(players_time(&p, rate, 2, &err), &err);
    assert_float_equal(at(0, NET_GATE)->choice[0].seconds, 2 * ROWS * COLUMNS / 1e6, 1e-9);
    assert_float_equal(at(0, NET_UP)->choice[0].seconds, ROWS * COLUMNS / 1e6, 1e-9);
    assert_float_equal(at(-1, PLACE_EMBEDDING)->choice[0].seconds, 4 * ROWS * COLUMNS / 1e6, 1e-9);
    p.tied = false;
    ok(players_time(&p, rate, 2, &err), &err);
    assert_float_equal(at(-1, PLACE_EMBEDDING)->choice[0].seconds, COLUMNS / 1e6, 1e-9);
    rate[DIL_TYPE_Q5_1] = 0;
    assert_int_equal(players_time(&p, rate, 2, &err), DIL_UNSUPPORTED);
    assert_non_null(strstr(err.text, "Q5_1"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup(mixtures_give_what_they_give, begin),
                                       cmocka_unit_test_setup(the_largest_mixture_that_fits_is_the_baseline, begin),
                                       cmocka_unit_test_setup(mixtures_of_what_is_not_offered_are_left_out, begin),
                                       cmocka_unit_test_setup(time_has_a_price, begin),
                                       cmocka_unit_test_setup(only_what_is_read_takes_time, begin)};
    return leaks_run_group_tests(tests, NULL, NULL);
}
