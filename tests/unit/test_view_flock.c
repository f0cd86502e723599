/* The flock: planes that keep neighbours, flights and prices by hand, the game of the batches, JSON files, and the pictures of all of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "base/mem.h"
#include "engine/choices.h"
#include "leaks.h"
#include "theorem/random.h"
#include "tiny_model.h"
#include "view/flock.h"
#include "view_files.h"

/* ---- planes ---- */

static flock_scene new_scene(void)
{
    flock_scene s = {.memory = arena_new(MEM_MISC, (size_t)1 << 30)};
    assert_non_null(s.memory);
    s.n_layers = 1;
    s.layers = arena_calloc(s.memory, 1, sizeof *s.layers);
    return s;
}

/* A sheet of side x side points, rolled up in `dim` dimensions; with `apart` its halves are far from each other. */
static float *sheet(int side, int dim, double apart)
{
    float *rows = mem_calloc((size_t)(side * side * dim), sizeof *rows, MEM_MISC);
    uint64_t seed = 3;
    double axis[2][64];
    for (int a = 0; a < 2; a++)
        for (int d = 0; d < dim; d++)
            axis[a][d] = random_normal(&seed);
    for (int i = 0; i < side * side; i++)
        for (int d = 0; d < dim; d++) {
            double x = i % side + 0.13 * (i / side), y = i / side, bend = 0.02 * x * x;
            double shift = i % side >= side / 2 ? apart : 0;
            rows[i * dim + d] = (float)(axis[0][d] * (x + shift) + axis[1][d] * y + (d % 3 == 0 ? bend : 0));
        }
    return rows;
}

static double kept_of(int side, double apart, swarm_order *order)
{
    flock_scene s = new_scene();
    dil_error err;
    float *rows = sheet(side, 20, apart);
    s.layers->n = side * side;
    ok(flock_place(&s, s.layers, &(flock_rows){.v = rows, .dim = 20}, &err), &err);
    double kept = s.layers->kept;
    float least_x = 1, most_x = 0, least_y = 1, most_y = 0;
    for (int32_t i = 0; i < s.layers->n; i++) {
        least_x = fminf(least_x, s.layers->home[i].x);
        most_x = fmaxf(most_x, s.layers->home[i].x);
        least_y = fminf(least_y, s.layers->home[i].y);
        most_y = fmaxf(most_y, s.layers->home[i].y);
    }
    assert_true(least_x == 0 && least_y == 0 && fmaxf(most_x, most_y) == 1); /* the longer side is 1 */
    assert_true(most_x >= most_y);                                           /* and lies */
    swarm_measure(&s.layers->graph, &s.layers->home[0].x, NULL, 2, order);
    mem_free(rows);
    flock_close(&s);
    return kept;
}

/* Neighbours in 20 dimensions are neighbours in the plane, also where the graph of neighbours falls apart. */
static void planes_keep_neighbours(void **state)
{
    (void)state;
    swarm_order whole, halves;
    assert_true(kept_of(9, 0, &whole) > 6);
    assert_true(kept_of(9, 40, &halves) > 6);
    assert_true(halves.cohesion < 0.6 * whole.cohesion); /* the halves are far from one another */
}

static void place_rows(flock_scene *s, const float *rows, int32_t n, int64_t dim, bool likeness)
{
    dil_error err;
    s->layers->n = n;
    ok(flock_place(s, s->layers, &(flock_rows){.v = rows, .dim = dim, .likeness = likeness}, &err), &err);
}

static void small_planes(void **state)
{
    (void)state;
    static const float flat[8] = {0, 0, 4, 0, 4, 2, 0, 2}, line[3] = {1, 5, 2}, same[6] = {1, 1, 1, 1, 1, 1};
    flock_scene s = new_scene();
    place_rows(&s, flat, 4, 2, false); /* rows are the plane, y upwards */
    const flock_layer *l = s.layers;
    assert_true(l->home[0].x == 0 && l->home[0].y == 0.5f && l->home[2].x == 1 && l->home[2].y == 0);
    const double weight[2] = {1, 1};
    flock_point found = flock_find(l, &(flock_rows){.v = flat, .dim = 2}, weight, (const float[]){2, 4});
    assert_float_equal(found.x, 0.5, 1e-6);
    assert_float_equal(found.y, -0.5, 1e-6); /* outside is outside */
    flock_close(&s);
    s = new_scene();
    place_rows(&s, line, 3, 1, false);
    assert_true(s.layers->home[1].x == 1 && s.layers->home[2].x == 0.25f && s.layers->home[2].y == 0);
    flock_close(&s);
    for (int32_t n = 1; n <= 2; n++) { /* one bird, and birds in the same place */
        s = new_scene();
        place_rows(&s, same, n, 3, n == 2);
        assert_true(isfinite(s.layers->home[0].x) && isfinite(s.layers->home[n - 1].y) && s.layers->n_near == n - 1);
        flock_close(&s);
    }
}

/* A point between two birds in many dimensions is between them in the plane. */
static void further_points(void **state)
{
    (void)state;
    flock_scene s = new_scene();
    float *rows = sheet(6, 20, 0), point[20];
    double weight[20];
    place_rows(&s, rows, 36, 20, false);
    swarm_weights(rows, 36, 20, weight);
    for (int b = 0; b < 36; b += 5) {
        memcpy(point, rows + b * 20, sizeof point);
        flock_point at = flock_find(s.layers, &(flock_rows){.v = rows, .dim = 20}, weight, point);
        assert_float_equal(at.x, s.layers->home[b].x, 0.02);
        assert_float_equal(at.y, s.layers->home[b].y, 0.02);
    }
    mem_free(rows);
    flock_close(&s);
}

/* ---- flights ---- */

static const float corners[8] = {0, 0, 1, 0, 1, 1, 0, 1}; /* homes (0,1), (1,1), (1,0), (0,0) */
static const uint16_t tokens[6] = {0, 1, 1, 2, 1, FLOCK_NOBODY};
static const uint8_t token_weights[6] = {192, 64, 128, 128, 255, 0};

static void fly(flock_scene *s, uint64_t first, uint32_t n_steps)
{
    dil_error err;
    const flock_choices c = {.chosen = tokens, .weights = token_weights, .n_all = 3, .stride = 2, .n_used = 2};
    *s = new_scene();
    place_rows(s, corners, 4, 2, false);
    s->first = first;
    s->n_steps = n_steps;
    s->n_used = 2;
    ok(flock_fly(s, s->layers, &c, &err), &err);
}

static void flights_by_hand(void **state)
{
    (void)state;
    flock_scene s, last;
    fly(&s, 0, 3);
    const flock_layer *l = s.layers;
    assert_float_equal(l->target[0].x, 0.25, 1e-6); /* three quarters of bird 0, one of bird 1 */
    assert_float_equal(l->target[0].y, 1, 1e-6);
    assert_float_equal(l->at[0].x, 0.25 / 3, 1e-6); /* a third of the way there */
    assert_float_equal(l->at[1].x, 0.75, 1e-6);
    assert_true(l->at[2].x == 1 && l->at[2].y == 0);
    assert_float_equal(l->at[4].x, 0.25 / 3 * 7 / 8, 1e-6);         /* an eighth of the way home */
    assert_float_equal(l->target[2].x, 1, 1e-6);                    /* one expert alone */
    double load[4] = {1, 1, 1, 1}, price[4] = {0}, part = 2.0 / 16; /* fades over 4 n / n_used tokens */
    for (int t = 0; t < 3; t++) {
        int n = t < 2 ? 2 : 1;
        double sum = 0, most = 0;
        for (int i = 0; i < 4; i++) {
            bool chosen = tokens[2 * t] == i || tokens[2 * t + 1] == i;
            load[i] = (1 - part) * load[i] + part * (chosen ? 4.0 / n : 0);
            price[i] += 1e-3 * (load[i] - 1);
            most = fmax(most, load[i]);
        }
        for (int i = 0; i < 4; i++) {
            assert_float_equal(l->load[4 * t + i], load[i], 1e-5);
            assert_float_equal(l->price[4 * t + i], price[i], 1e-6);
            sum += (double)l->load[4 * t + i];
        }
        assert_float_equal(sum, 4, 1e-5);
        assert_float_equal(l->curve[FLOCK_VIOLATION][t], most - 1, 1e-5);
    }
    fly(&last, 2, 1); /* the same when only the last step is kept */
    for (int i = 0; i < 4; i++)
        assert_true(last.layers->at[i].x == l->at[8 + i].x && last.layers->load[i] == l->load[8 + i]);
    for (int c = 0; c < FLOCK_CURVES; c++)
        if (c != FLOCK_CHANCE) /* lots are drawn anew */
            assert_true(last.layers->curve[c][0] == l->curve[c][2]);
    flock_close(&last);
    flock_close(&s);
}

/* Curves are what the theorem's module measures on what is drawn. */
static void curves_of_the_flight(void **state)
{
    (void)state;
    flock_scene s;
    fly(&s, 0, 3);
    const flock_layer *l = s.layers;
    for (size_t t = 0; t < 3; t++) {
        flock_point velocity[4];
        swarm_order order;
        for (size_t i = 0; i < 4; i++) {
            const flock_point before = t ? l->at[4 * (t - 1) + i] : l->home[i], now = l->at[4 * t + i];
            velocity[i] = (flock_point){now.x - before.x, now.y - before.y};
        }
        swarm_measure(&l->graph, &l->at[4 * t].x, &velocity[0].x, 2, &order);
        assert_true(l->curve[FLOCK_ALIGNMENT][t] == order.alignment && l->curve[FLOCK_COHESION][t] == order.cohesion &&
                    l->curve[FLOCK_SEPARATION][t] == order.separation);
    }
    flock_keep(&s, 1, 3);
    assert_true(s.n_steps == 2 && s.first == 1 && l->target[1].x == 1 && l->chosen[2] == 1);
    flock_close(&s);
}

/* Birds that fly alone are aligned as by lot; birds that all fly with their neighbours are not. */
static void alignment_and_chance(void **state)
{
    (void)state;
    enum { SIDE = 8, N = SIDE * SIDE };
    flock_scene s = new_scene();
    dil_error err;
    float rows[2 * N];
    flock_point at[N];
    for (int i = 0; i < N; i++) {
        rows[2 * i] = (float)(i % SIDE) + 0.01f * (float)(i / SIDE);
        rows[2 * i + 1] = (float)(i / SIDE);
    }
    place_rows(&s, rows, N, 2, false);
    for (int i = 0; i < N; i++) { /* the left half flies up, the right half down */
        at[i] = s.layers->home[i];
        at[i].y += i % SIDE < SIDE / 2 ? -0.1f : 0.1f;
    }
    s.n_steps = 1;
    s.layers->at = at;
    ok(flock_measure(&s, s.layers, s.layers->home, &err), &err);
    assert_true(s.layers->curve[FLOCK_ALIGNMENT][0] > 0.6);
    assert_true(fabs(s.layers->curve[FLOCK_CHANCE][0]) < 0.25);
    assert_null(s.layers->curve[FLOCK_VIOLATION]); /* no loads, no load curve */
    s.layers->at = NULL;
    flock_close(&s);
}

/* ---- the game ---- */

/* Two tokens of a batch of four; the second loads expert 3 alone, a neighbour of which the first one loads too. Then the same again in
 * a batch of its own. */
static void game_by_hand(void **state)
{
    (void)state;
    static const uint16_t chosen[] = {0, 1, 0, 3, 0, 0, 0, 0, 0, 1, 0, 3};
    static const uint8_t weights[] = {153, 102, 204, 51, 255, 0, 255, 0, 153, 102, 204, 51}; /* 0.6 0.4 | 0.8 0.2 */
    for (uint32_t n = 2; n <= 6; n += 4) {
        const int batches = n == 2 ? 1 : 2;
        const flock_choices c = {.chosen = chosen, .weights = weights, .n_all = n, .stride = 2, .n_used = 2};
        flock_scene s = new_scene();
        dil_error err;
        place_rows(&s, corners, 4, 2, false); /* all are neighbours */
        s.n_steps = n;
        s.n_used = 2;
        ok(flock_play(&s, s.layers, &c, &err), &err);
        const flock_game *g = &s.layers->game;
        assert_true(g->n_players == (int32_t)n && g->batch == 4);
        assert_float_equal(g->price, 0.5, 1e-12);
        assert_int_equal(g->n, batches + 1); /* the first token of each saves 0.5 for 0.4 */
        assert_float_equal(g->potential[0], 1.5 * batches, 1e-9);
        assert_float_equal(g->gap[0], 0.3, 1e-9); /* the second would save 0.5 for 0.2 */
        assert_float_equal(g->potential[batches], 1.4 * batches, 1e-9);
        assert_float_equal(g->gap[batches], 0, 1e-9); /* both take 0 and 3 now */
        assert_true(g->n_before == 3 * batches && g->n_after == 2 * batches && g->n_sweeps == 2);
        flock_close(&s);
    }
}

/* ---- models ---- */

static char mixture[600], route_log[600], other_log[600], lone[600], json[600];

static void write_choices(const char *path, uint32_t n_layers, uint32_t n_experts, uint32_t n_used, uint32_t n_tokens)
{
    trace_layer layers[4];
    for (uint32_t i = 0; i < n_layers; i++)
        layers[i] = (trace_layer){.bytes = 10, .n_experts = n_experts};
    trace_options o = {
        .name = "tiny", .layers = layers, .n_layers = n_layers, .n_used = n_used, .most_tokens = n_tokens, .weights = true};
    trace_writer *w;
    dil_error err;
    ok(trace_writer_open(&w, path, &o, &err), &err);
    ok(trace_writer_begin(w, n_tokens, &err), &err);
    for (uint32_t t = 0; t < n_tokens; t++)
        for (uint32_t l = 0; l < n_layers; l++) {
            uint16_t chosen[4];
            float weights[4];
            for (uint32_t r = 0; r < n_used; r++) {
                chosen[r] = (uint16_t)((t * (l + 1) + 3 * r) % n_experts);
                weights[r] = r ? 0.3f : 0.7f;
            }
            trace_writer_put(w, t, l, chosen, weights);
        }
    ok(trace_writer_end(w, &err), &err);
    ok(trace_writer_commit(w, &err), &err);
}

static flock_scene opened(const char *const *inputs, int n, const char *text, view_format format)
{
    view_request r = {
        .inputs = inputs, .n_inputs = n, .format = format, .text = text, .text_bytes = text ? strlen(text) : 0, .n_threads = 1};
    flock_scene s = {0};
    dil_error err;
    ok(flock_open(&s, &r, &err), &err);
    return s;
}

static void logs_beside_models(void **state)
{
    (void)state;
    const char *inputs[] = {mixture, route_log};
    flock_scene s = opened(inputs, 2, NULL, VIEW_HTML);
    assert_true(s.experts && s.n_layers == 2 && s.n_steps == 40 && s.n_used == 2 && s.first == 0 && !s.texts);
    assert_string_equal(s.model, "flock");
    for (int32_t l = 0; l < 2; l++) {
        const flock_layer *at = &s.layers[l];
        assert_true(at->n == 12 && at->index == l && at->n_near == 7 && at->kept > 0 && at->game.n > 0);
        for (uint32_t t = 0; t < 40; t++)
            assert_int_equal(at->chosen[2 * t + 1], (t * (uint32_t)(l + 1) + 3) % 12);
    }
    assert_true(s.layers[s.shown].kept >= s.layers[1 - s.shown].kept);
    flock_close(&s);
    view_request r = {.inputs = inputs, .n_inputs = 2, .one_layer = true, .layer = 1, .frame = 30, .n_frames = 8};
    dil_error err;
    ok(flock_open(&s, &r, &err), &err);
    assert_true(s.shown == 1 && s.n_steps == 8 && s.first == 22 && s.n_all == 40);
    assert_true(s.layers[1].at && !s.layers[0].at); /* a still needs one layer only */
    flock_close(&s);
}

/* What a text chooses is what dil trace would have logged; its tokens say the text. */
static void texts_beside_models(void **state)
{
    (void)state;
    static const char text[] = "kuş sürüsü";
    const char *inputs[] = {mixture};
    flock_scene s = opened(inputs, 1, text, VIEW_HTML);
    char said[256] = "";
    for (uint32_t t = 0; t < s.n_steps; t++) {
        assert_true(utf8_valid(str_of(s.texts[t]))); /* a character of several tokens belongs to one */
        strncat(said, s.texts[t], sizeof said - strlen(said) - 1);
    }
    assert_non_null(strstr(said, text));
    for (uint32_t t = 0; t < s.n_steps; t++)
        for (uint32_t r = 0; r < 2; r++)
            assert_true(s.layers[0].chosen[2 * t + r] < 12);
    flock_scene again = opened(inputs, 1, text, VIEW_HTML);
    assert_memory_equal(s.layers[1].chosen, again.layers[1].chosen, s.n_steps * 2 * sizeof(uint16_t));
    flock_close(&again);
    flock_close(&s);
}

static void lone_layers(void **state)
{
    (void)state;
    const char *inputs[] = {lone};
    view_request r = {.inputs = inputs, .n_inputs = 1, .n_frames = 20, .n_threads = 1};
    flock_scene s;
    dil_error err;
    ok(flock_open(&s, &r, &err), &err);
    assert_true(s.n_layers == 1 && s.n_steps == 20 && s.random && s.layers->n == 10 && s.n_used == 3 &&
                s.layers->curve[FLOCK_CHANCE]);
    flock_close(&s);
}

static void refused(const view_request *r, dil_status wanted, const char *told)
{
    strbuf out = STRBUF(VIEW_MOST_BYTES);
    dil_error err;
    assert_int_equal(view_flock(&out, r, &err), wanted);
    if (!strstr(err.text, told))
        fail_msg("wanted '%s', found '%s'", told, err.text);
    assert_int_equal(out.n, 0);
    strbuf_free(&out);
}

static void odd_requests(void **state)
{
    (void)state;
    const char *alone[] = {mixture}, *both[] = {mixture, route_log}, *wrong[] = {mixture, other_log}, *files[] = {json, route_log},
               *three[] = {mixture, route_log, json}, *nothing[] = {"/nowhere/at/all.gguf"};
    write_text(json, "{}");
    refused(&(view_request){.inputs = alone, .n_inputs = 1}, DIL_BAD_ARGUMENT, "wanted a router log beside the model");
    refused(&(view_request){.inputs = wrong, .n_inputs = 2}, DIL_FORMAT, "blk.0.ffn_gate_inp.weight: wanted 9 rows");
    refused(&(view_request){.inputs = three, .n_inputs = 3}, DIL_BAD_ARGUMENT, "found 3 files");
    refused(&(view_request){.inputs = files, .n_inputs = 2}, DIL_BAD_ARGUMENT, "nothing beside the JSON file");
    refused(&(view_request){.inputs = nothing, .n_inputs = 1}, DIL_IO, "nowhere");
    refused(&(view_request){.inputs = both, .n_inputs = 2, .frame = 41}, DIL_BAD_ARGUMENT, "frame: wanted at most 40");
    refused(&(view_request){.inputs = both, .n_inputs = 2, .one_layer = true, .layer = 2}, DIL_BAD_ARGUMENT,
            "layer: wanted one of the 2 layers with experts, 0 to 1, found 2");
    refused(&(view_request){.inputs = both, .n_inputs = 2, .n_frames = 100000}, DIL_BAD_ARGUMENT, "at most 10000 steps");
    refused(&(view_request){.inputs = both, .n_inputs = 2, .text = "a", .text_bytes = 1}, DIL_BAD_ARGUMENT,
            "wanted the text of its 40 tokens");
}

/* ---- JSON ---- */

static void write_json(const char *text)
{
    char b[4096];
    size_t n = strlen(text);
    assert_true(n < sizeof b);
    for (size_t i = 0; i <= n; i++)
        b[i] = text[i] == '\'' ? '"' : text[i];
    write_text(json, b);
}

#define SQUARE "'positions':[[0,0],[1,0],[1,1],[0,1]]"

static void good_json(void **state)
{
    (void)state;
    const char *inputs[] = {json};
    write_json("{" SQUARE ",'names':['a','b','c & <d>','e'],'neighbours':[[1],[],[3],[]],'title':'Ördek','more':7,"
               "'steps':[{'load':[1,2,3,4],'chosen':[2],'target':[0.5,2]},{'price':[0,1,-1,5],'chosen':[]},{'text':'x'}],"
               "'curves':{'cohesion':[7,8,9],'other':1},'game':{'phi':[3,2.5]}}");
    flock_scene s = opened(inputs, 1, NULL, VIEW_SVG);
    const flock_layer *l = s.layers;
    assert_true(!s.experts && s.n_steps == 3 && s.n_used == 1 && l->n_near == 0);
    assert_string_equal(s.title, "Ördek");
    assert_string_equal(s.names[2], "c & <d>");
    assert_string_equal(s.texts[0], "");
    assert_true(l->graph.first[4] == 4 && l->graph.other[0] == 1 && l->graph.other[1] == 0); /* mutual */
    assert_true(l->target[0].x == 0.5f && l->target[0].y == -1);
    assert_float_equal(l->at[2].x, 1 - 0.5 / 3, 1e-6);
    assert_true(l->load[4] == 1 && l->load[11] == 4);  /* what a step lacks stays */
    assert_true(l->price[3] == 0 && l->price[7] == 5); /* nothing before it is said */
    assert_true(l->chosen[0] == 2 && l->chosen[1] == FLOCK_NOBODY && l->chosen[2] == FLOCK_NOBODY);
    assert_true(l->curve[FLOCK_COHESION][1] == 8 && l->curve[FLOCK_SEPARATION][0] > 0);
    assert_true(l->game.n == 2 && l->game.potential[1] == 2.5 && !l->game.gap);
    flock_close(&s);
    write_json("{" SQUARE "}"); /* the least there can be */
    s = opened(inputs, 1, NULL, VIEW_SVG);
    assert_true(s.n_steps == 0 && !s.layers->at && !s.layers->load && s.layers->n_near == 3);
    flock_close(&s);
}

static void odd_json(void **state)
{
    (void)state;
    const char *inputs[] = {json};
    static const char *const cases[][2] = {
        {"[1]", "the file: wanted an object"},
        {"{", "line 1, column"},
        {"{}", "positions: wanted an array, found nothing"},
        {"{'positions':[]}", "positions: wanted at least one row"},
        {"{'positions':[[]]}", "found 1 of 0"},
        {"{'positions':[[0,1],[1]]}", "positions[1]: wanted 2 values, found 1"},
        {"{'positions':[[0],['a']]}", "positions[1][0]: wanted a number from -1e+12 to 1e+12, found \"a\""},
        {"{'positions':[[0],[1e300]]}", "positions[1][0]: wanted a number"},
        {"{" SQUARE ",'names':['a']}", "names: wanted 4 values, found 1"},
        {"{" SQUARE ",'names':['a','b','c',4]}", "names[3]: wanted a text, found 4"},
        {"{" SQUARE ",'neighbours':[[0],[],[],[]]}", "neighbours[0][0]: wanted another bird"},
        {"{" SQUARE ",'neighbours':[[9],[],[],[]]}", "neighbours[0][0]: wanted a bird from 0 to 3, each once, found 9"},
        {"{" SQUARE ",'neighbours':{}}", "neighbours: wanted an array"},
        {"{" SQUARE ",'steps':7}", "steps: wanted an array, found 7"},
        {"{" SQUARE ",'steps':[7]}", "steps[0]: wanted an object, found 7"},
        {"{" SQUARE ",'steps':[{'load':[1]}]}", "steps[0].load: wanted 4 values, found 1"},
        {"{" SQUARE ",'steps':[{'load':[1,2,3,-1]}]}", "steps[0].load[3]: wanted a number from 0"},
        {"{" SQUARE ",'steps':[{'price':3}]}", "steps[0].price: wanted an array"},
        {"{" SQUARE ",'steps':[{},{'chosen':[1,1]}]}", "steps[1].chosen[1]: wanted a bird"},
        {"{" SQUARE ",'steps':[{'chosen':[1.5]}]}", "steps[0].chosen[0]: wanted a bird"},
        {"{" SQUARE ",'steps':[{'chosen':[-1]}]}", "steps[0].chosen[0]: wanted a bird"},
        {"{" SQUARE ",'steps':[{'target':[1,2,3]}]}", "steps[0].target: wanted 2 values, found 3"},
        {"{" SQUARE ",'steps':[{'text':1}]}", "steps[0].text: wanted a text, found 1"},
        {"{" SQUARE ",'steps':[{}],'curves':{'alignment':[1,2]}}", "curves.alignment: wanted 1 values, found 2"},
        {"{" SQUARE ",'curves':[]}", "curves: wanted an object"},
        {"{" SQUARE ",'game':{}}", "game.phi: wanted an array, found nothing"},
        {"{" SQUARE ",'game':{'phi':[1,2],'gap':[1]}}", "game.gap: wanted 2 values, found 1"},
        {"{" SQUARE ",'title':{}}", "title: wanted a text"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_json(cases[i][0]);
        refused(&(view_request){.inputs = inputs, .n_inputs = 1, .format = VIEW_HTML}, DIL_FORMAT, cases[i][1]);
    }
    write_json("{" SQUARE ",'steps':[{},{}]}");
    refused(&(view_request){.inputs = inputs, .n_inputs = 1, .frame = 3}, DIL_BAD_ARGUMENT, "frame: wanted at most 2");
    refused(&(view_request){.inputs = inputs, .n_inputs = 1, .one_layer = true, .layer = 1}, DIL_BAD_ARGUMENT, "layer: wanted 0");
}

/* ---- pictures ---- */

static void pictures(void **state)
{
    (void)state;
    const char *inputs[] = {mixture, route_log};
    static const char *const starts[] = {
        [VIEW_SVG] = "<?xml", [VIEW_PNG] = "\x89PNG", [VIEW_PDF] = "%PDF-", [VIEW_HTML] = "<!DOCTYPE"};
    for (int format = VIEW_SVG; format <= VIEW_HTML; format++)
        for (int other = 0; other < 2; other++) {
            strbuf a = drawn(view_flock, inputs, 2, (view_format)format, other),
                   b = drawn(view_flock, inputs, 2, (view_format)format, other);
            assert_true(str_equal(strbuf_str(&a), strbuf_str(&b)));
            assert_true(str_starts(strbuf_str(&a), str_of(starts[format])));
            if (format == VIEW_SVG)
                check_xml(strbuf_str(&a));
            if (format == VIEW_SVG || format == VIEW_HTML)
                assert_true(holds(&a, other ? "Uzmanların sürüsü" : "The flock of experts") &&
                            holds(&a, other ? "komşu" : "neighbour"));
            strbuf_free(&a);
            strbuf_free(&b);
        }
    strbuf last = drawn(view_flock, inputs, 2, VIEW_PNG, false);
    view_request earlier = {.inputs = inputs, .n_inputs = 2, .format = VIEW_PNG, .frame = 12};
    strbuf out = STRBUF(VIEW_MOST_BYTES);
    dil_error err;
    ok(view_flock(&out, &earlier, &err), &err);
    assert_false(str_equal(strbuf_str(&last), strbuf_str(&out)));
    strbuf_free(&last);
    strbuf_free(&out);
}

/* Numbers of the page are those of the scene; nothing outside of the page is named. */
static unsigned base64_value(char c)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = strchr(letters, c);
    assert_true(c && at);
    return (unsigned)(at - letters);
}

static unsigned packed_number(const char *v, size_t i)
{
    unsigned bytes[2];
    for (size_t k = 0; k < 2; k++) {
        size_t at = 2 * i + k;
        unsigned four = 0;
        for (size_t j = 0; j < 4; j++)
            four = four << 6 | base64_value(v[at / 3 * 4 + j]);
        bytes[k] = four >> (16 - 8 * (at % 3)) & 255;
    }
    return bytes[0] | bytes[1] << 8;
}

static void check_packed(const strbuf *page, const char *key, const float *v, size_t n, size_t apart)
{
    char name[32];
    double low, step;
    (void)snprintf(name, sizeof name, "\"%s\":{\"low\":", key);
    ptrdiff_t at = str_find(strbuf_str(page), str_of(name));
    assert_true(at >= 0);
    const char *p = page->p + at + strlen(name);
    assert_int_equal(sscanf(p, "%lf,\"step\":%lf", &low, &step), 2);
    p = strstr(p, "\"v\":\"") + 5;
    for (size_t i = 0; i < n; i++)
        assert_float_equal(low + step * packed_number(p, i), v[i * apart], 0.6 * step + 1e-6);
}

static void pages(void **state)
{
    (void)state;
    const char *inputs[] = {mixture, route_log};
    view_request r = {.inputs = inputs, .n_inputs = 2, .format = VIEW_HTML, .any_theme = true};
    flock_scene s = opened(inputs, 2, NULL, VIEW_HTML);
    strbuf page = STRBUF(VIEW_MOST_BYTES);
    dil_error err;
    ok(view_flock(&page, &r, &err), &err);
    const size_t n = 12, all = n * s.n_steps;
    check_packed(&page, "home_x", &s.layers[0].home[0].x, n, 2); /* the first in the file is that of the first layer */
    check_packed(&page, "x", &s.layers[0].at[0].x, all, 2);
    check_packed(&page, "y", &s.layers[0].at[0].y, all, 2);
    check_packed(&page, "load", s.layers[0].load, all, 1);
    check_packed(&page, "price", s.layers[0].price, all, 1);
    assert_true(holds(&page, "data-theme=\"auto\"") && holds(&page, "lang=\"en\"") && !holds(&page, "{{"));
    static const char *const outside[] = {"http:", "https:", "src=", "@import", "url(", "//cdn"};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++)
        assert_false(holds(&page, outside[i]));
    strbuf_free(&page);
    r.any_theme = false;
    r.dark = true;
    ok(view_flock(&page, &r, &err), &err);
    assert_true(holds(&page, "data-theme=\"dark\""));
    strbuf_free(&page);
    flock_close(&s);
    const char *files[] = {json};
    write_json("{" SQUARE ",'title':'a</script>&b','names':['\\u2028','\\u0001x','c','d'],'steps':[{'text':'</script><!--'}]}");
    page = drawn(view_flock, files, 1, VIEW_HTML, false);
    assert_true(!holds(&page, "a</script>") && !holds(&page, "'</script>") && holds(&page, "a&#60;/script&#62;&#38;b"));
    assert_true(holds(&page, "\"a\\u003c/script\\u003e\\u0026b\"") && holds(&page, "\\u2028") && holds(&page, "\\u0001x"));
    strbuf_free(&page);
}

typedef struct kept_frames {
    uint32_t n;
    strbuf last;
} kept_frames;

static dil_status keep_frame(void *ctx, uint32_t number, uint32_t n, str bytes, dil_error *err)
{
    kept_frames *k = ctx;
    (void)err;
    assert_true(number == ++k->n && n == 5 && bytes.n > 1000);
    assert_false(str_equal(bytes, strbuf_str(&k->last)));
    strbuf_clear(&k->last);
    strbuf_add_str(&k->last, bytes);
    return DIL_OK;
}

static void frames(void **state)
{
    (void)state;
    const char *inputs[] = {mixture, route_log};
    view_request r = {.inputs = inputs, .n_inputs = 2, .format = VIEW_SVG, .n_frames = 5};
    kept_frames k = {.last = STRBUF(VIEW_MOST_BYTES)};
    strbuf alone = STRBUF(VIEW_MOST_BYTES);
    dil_error err;
    ok(view_flock_frames(&r, keep_frame, &k, &err), &err);
    assert_int_equal(k.n, 5);
    ok(view_flock(&alone, &r, &err), &err); /* the last of them is the still picture */
    assert_true(str_equal(strbuf_str(&alone), strbuf_str(&k.last)));
    strbuf_free(&alone);
    strbuf_free(&k.last);
    r.format = VIEW_HTML;
    assert_int_equal(view_flock_frames(&r, keep_frame, &k, &err), DIL_BAD_ARGUMENT);
}

/* Every allocation of ours that fails is told, and nothing stays behind. */
static void no_memory(void **state)
{
    (void)state;
    const char *files[] = {json}, *logs[] = {mixture, route_log};
    write_json(
        "{" SQUARE ",'names':['a','b','c','d'],'neighbours':[[1],[2],[3],[0]],"
        "'steps':[{'load':[1,2,3,4],'price':[1,2,3,4],'chosen':[2],'target':[0.5,2],'text':'x'},{}],'game':{'phi':[3,2],'gap':[1,0]}}");
    for (int kind = 0; kind < 4; kind++) {
        view_request r = {.inputs = kind < 2 ? files : logs,
                          .n_inputs = kind < 2 ? 1 : 2,
                          .n_frames = 2,
                          .format = kind % 2 ? VIEW_HTML : VIEW_SVG};
        dil_status status = DIL_NO_MEMORY;
        for (int64_t after = 0; status != DIL_OK; after++) {
            strbuf out = STRBUF(VIEW_MOST_BYTES);
            dil_error err;
            assert_true(after < 5000);
            mem_inject_failure(after);
            status = view_flock(&out, &r, &err);
            mem_inject_failure(-1);
            strbuf_free(&out);
            if (status != DIL_OK && status != DIL_NO_MEMORY && status != DIL_LIMIT)
                fail_msg("%d: %s", (int)status, err.text);
        }
    }
}

static int prepare(void **state)
{
    (void)state;
    dil_error err;
    const tiny_model m = {.arch = "qwen3moe",
                          .type = DIL_TYPE_F32,
                          .n_embd = 32,
                          .n_layer = 2,
                          .n_head = 2,
                          .n_head_kv = 1,
                          .head_dim = 16,
                          .n_ff = 32,
                          .n_vocab = TINY_LEAST_VOCAB,
                          .n_context = 64,
                          .n_experts = 12,
                          .n_used = 2,
                          .seed = 5};
    tiny_write(tiny_path(mixture, "flock.gguf"), &m);
    write_choices(tiny_path(route_log, "flock.route"), 2, 12, 2, 40);
    write_choices(tiny_path(other_log, "other.route"), 2, 9, 2, 10);
    tiny_path(json, "flock.json");
    dil_experts layer = dil_experts_default();
    layer.n_embd = 16;
    layer.n_ff = 8;
    layer.n_experts = 10;
    layer.n_used = 3;
    ok(dil_experts_write(tiny_path(lone, "lone.gguf"), &layer, &err), &err);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(planes_keep_neighbours),
        cmocka_unit_test(small_planes),
        cmocka_unit_test(further_points),
        cmocka_unit_test(flights_by_hand),
        cmocka_unit_test(curves_of_the_flight),
        cmocka_unit_test(alignment_and_chance),
        cmocka_unit_test(game_by_hand),
        cmocka_unit_test(logs_beside_models),
        cmocka_unit_test(texts_beside_models),
        cmocka_unit_test(lone_layers),
        cmocka_unit_test(odd_requests),
        cmocka_unit_test(good_json),
        cmocka_unit_test(odd_json),
        cmocka_unit_test(pictures),
        cmocka_unit_test(pages),
        cmocka_unit_test(frames),
        cmocka_unit_test(no_memory),
    };
    return leaks_run_group_tests(tests, prepare, NULL);
}
