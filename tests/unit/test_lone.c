/* A layer of experts alone: its file, rows through it, and the same in fewer bits. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "dilmodeli.h"

enum { N_EMBD = 64, N_FF = 96, N_EXPERTS = 8, N_USED = 2, N_ROWS = 300 };

static char folder[] = "/tmp/dil_lone_XXXXXX", layer_path[64], small_path[64];
static float router[N_EXPERTS * N_EMBD], gate[N_EXPERTS * N_FF * N_EMBD], up[N_EXPERTS * N_FF * N_EMBD],
    down[N_EXPERTS * N_EMBD * N_FF], x[N_ROWS * N_EMBD], wanted[N_ROWS * N_EMBD];
static int32_t wanted_experts[N_ROWS * N_USED];

static float draw(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(*state >> 32) * 0x1p-31f;
}

static double dot(const float *a, const float *b, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

/* One row as the header says it. */
static void reference(const float *row, float *y, int32_t *experts)
{
    double score[N_EXPERTS], sum = 0, out[N_EMBD] = {0};
    for (int e = 0; e < N_EXPERTS; e++)
        score[e] = dot(router + e * N_EMBD, row, N_EMBD);
    for (int rank = 0; rank < N_USED; rank++) {
        experts[rank] = -1;
        for (int e = 0; e < N_EXPERTS; e++)
            if ((rank == 0 || e != experts[0]) && (experts[rank] < 0 || score[e] > score[experts[rank]]))
                experts[rank] = e;
        sum += exp(score[experts[rank]]);
    }
    for (int rank = 0; rank < N_USED; rank++) {
        const int e = experts[rank];
        float hidden[N_FF];
        for (int i = 0; i < N_FF; i++) {
            const double g = dot(gate + (e * N_FF + i) * N_EMBD, row, N_EMBD);
            hidden[i] = (float)(g / (1 + exp(-g)) * dot(up + (e * N_FF + i) * N_EMBD, row, N_EMBD));
        }
        for (int i = 0; i < N_EMBD; i++)
            out[i] += exp(score[e]) / sum * dot(down + (e * N_EMBD + i) * N_FF, hidden, N_FF);
    }
    for (int i = 0; i < N_EMBD; i++)
        y[i] = (float)out[i];
}

static int set_up(void **state)
{
    uint64_t seed = 7;
    dil_experts l = dil_experts_default();
    dil_error err;
    (void)state;
    for (size_t i = 0; i < sizeof router / sizeof *router; i++)
        router[i] = draw(&seed);
    for (size_t i = 0; i < sizeof gate / sizeof *gate; i++) {
        gate[i] = 0.2f * draw(&seed);
        up[i] = 0.2f * draw(&seed);
        down[i] = 0.2f * draw(&seed);
    }
    for (size_t i = 0; i < sizeof x / sizeof *x; i++)
        x[i] = 2 * draw(&seed);
    for (int i = 0; i < N_ROWS; i++)
        reference(x + i * N_EMBD, wanted + i * N_EMBD, wanted_experts + i * N_USED);
    if (!mkdtemp(folder))
        return 1;
    snprintf(layer_path, sizeof layer_path, "%s/layer.gguf", folder);
    snprintf(small_path, sizeof small_path, "%s/small.gguf", folder);
    l.n_embd = N_EMBD;
    l.n_ff = N_FF;
    l.n_experts = N_EXPERTS;
    l.n_used = N_USED;
    l.router = router;
    l.gate = gate;
    l.up = up;
    l.down = down;
    return dil_experts_write(layer_path, &l, &err) == DIL_OK ? 0 : 1;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(layer_path);
    unlink(small_path);
    return rmdir(folder);
}

static dil_engine *open_layer(const char *path, int threads, float mass)
{
    dil_engine *e = NULL;
    dil_error err;
    dil_engine_options o = dil_engine_options_default();
    o.n_threads = threads;
    o.no_pack_cache = true;
    o.route_mass = mass;
    if (dil_engine_open(&e, path, &o, &err) != DIL_OK)
        fail_msg("%s", err.text);
    return e;
}

/* Of rows first .. N_ROWS - 1. */
static double relative_error(const float *y, const float *of, int first)
{
    double off = 0, all = 0;
    for (int i = first * N_EMBD; i < N_ROWS * N_EMBD; i++) {
        off += pow((double)y[i] - (double)of[i], 2);
        all += pow((double)of[i], 2);
    }
    return off / all;
}

static void rows_are_what_the_header_says(void **state)
{
    (void)state;
    static float y[N_ROWS * N_EMBD], again[N_ROWS * N_EMBD], weights[N_ROWS * N_USED];
    static int32_t chosen[N_ROWS * N_USED];
    dil_error err;
    for (int threads = 1; threads <= 3; threads += 2) {
        dil_engine *e = open_layer(layer_path, threads, 0);
        assert_int_equal(dil_experts_run(e, x, N_ROWS, y, chosen, weights, &err), DIL_OK);
        assert_memory_equal(chosen, wanted_experts, sizeof chosen);
        assert_true(relative_error(y, wanted, 0) < 1e-10);
        for (int i = 0; i < N_ROWS; i++)
            assert_true(fabs((double)weights[i * N_USED] + (double)weights[i * N_USED + 1] - 1) < 1e-6);
        for (int i = 0; i < N_ROWS; i++) /* a row does not know its batch */
            assert_int_equal(dil_experts_run(e, x + i * N_EMBD, 1, again + i * N_EMBD, NULL, NULL, &err), DIL_OK);
        assert_memory_equal(y, again, sizeof y);
        dil_engine_close(e);
    }
}

static void text_is_refused(void **state)
{
    (void)state;
    dil_error err;
    dil_session *s;
    int32_t token;
    size_t n;
    dil_engine *e = open_layer(layer_path, 1, 0);
    assert_int_equal(dil_tokenize(e, "a", 1, true, true, &token, 1, &n, &err), DIL_UNSUPPORTED);
    assert_non_null(strstr(err.text, "layer of experts alone"));
    assert_int_equal(dil_session_new(&s, e, &err), DIL_UNSUPPORTED);
    assert_false(dil_token_is_end(e, 0));
    dil_engine_close(e);
}

/* The commands that look at files know such layers, those for text say what is wrong. */
static void commands_know_it(void **state)
{
    (void)state;
    static const struct {
        const char *command;
        int code;
    } tries[] = {{"show", 0},
                 {"show --json", 0},
                 {"check", 0},
                 {"check --json", 0},
                 {"bench -p 8 -n 4 -r 1 --no-limits -q -m", 0},
                 {"run -p hi -m", 1},
                 {"plan -q", 1},
                 {"tokenize -p hi -m", 1},
                 {"eval perplexity -f /dev/null -m", 1}};
    const char *binary = getenv("DIL_BINARY");
    if (!binary || access(binary, X_OK))
        skip();
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        char line[300];
        snprintf(line, sizeof line, "'%s' %s %s >/dev/null 2>&1", binary, tries[i].command, layer_path);
        const int status = system(line);
        if (status == -1 || WEXITSTATUS(status) != tries[i].code)
            fail_msg("dil %s: wanted exit %d, found %d", tries[i].command, tries[i].code, WEXITSTATUS(status));
    }
}

static void fewer_bits(void **state)
{
    (void)state;
    static float y[N_ROWS * N_EMBD];
    dil_error err;
    double last = 1;
    static const double all_bits[] = {3, 8, 16};
    for (int b = 0; b < 3; b++) {
        dil_quantize_options o = dil_quantize_options_default();
        dil_quantize_report r = {.struct_size = sizeof r};
        dil_quantized matrices[8];
        o.bits = all_bits[b];
        o.inputs = x;
        o.n_inputs = N_ROWS;
        o.n_threads = 2;
        o.fast = true;
        if (dil_quantize(layer_path, small_path, &o, &r, matrices, 8, &err) != DIL_OK)
            fail_msg("%s", err.text);
        assert_int_equal(r.n_matrices, 3);
        dil_engine *e = open_layer(small_path, 2, 0);
        assert_int_equal(dil_experts_run(e, x, N_ROWS, y, NULL, NULL, &err), DIL_OK);
        /* what is said of the error is measured on the last eighth, which nothing was learnt from */
        assert_true(fabs(relative_error(y, wanted, N_ROWS - N_ROWS / 8) - r.cost) < 1e-3 * r.cost + 1e-9);
        assert_true(r.cost < 0.3 * last && r.out_bytes < r.in_bytes);
        for (int i = 0; i < 3; i++)
            assert_true(matrices[i].error <= matrices[i].plain_error);
        last = r.cost;
        dil_engine_close(e);
    }
}

static void neurons_go(void **state)
{
    (void)state;
    dil_error err;
    dil_quantize_options o = dil_quantize_options_default();
    dil_quantize_report r = {.struct_size = sizeof r};
    dil_model_info info = {.struct_size = sizeof info};
    o.bits = 8;
    o.prune = 0.34;
    o.inputs = x;
    o.n_inputs = N_ROWS;
    o.n_threads = 2;
    o.fast = true;
    if (dil_quantize(layer_path, small_path, &o, &r, NULL, 0, &err) != DIL_OK)
        fail_msg("%s", err.text);
    assert_int_equal(r.n_structure, N_FF);
    assert_int_equal(r.n_removed, 32);
    assert_true(r.pruned_cost > 0 && r.pruned_cost < 0.5 && fabs(r.cost - r.pruned_cost) < 0.1 * r.pruned_cost);
    dil_engine *e = open_layer(small_path, 1, 0);
    assert_int_equal(dil_engine_info(e, &info, &err), DIL_OK);
    assert_int_equal(info.n_experts, N_EXPERTS);
    dil_engine_close(e);
    o.inputs = NULL; /* what is said of drawn rows holds for others that are drawn */
    o.n_inputs = 0;
    if (dil_quantize(layer_path, small_path, &o, &r, NULL, 0, &err) != DIL_OK)
        fail_msg("%s", err.text);
    e = open_layer(small_path, 2, 0);
    static float y[N_ROWS * N_EMBD];
    assert_int_equal(dil_experts_run(e, x, N_ROWS, y, NULL, NULL, &err), DIL_OK);
    assert_true(fabs(relative_error(y, wanted, 0) - r.cost) < 0.15 * r.cost);
    dil_engine_close(e);
    o.budget = r.pruned_cost / 100; /* nothing may go */
    assert_int_equal(dil_quantize(layer_path, small_path, &o, &r, NULL, 0, &err), DIL_OK);
    assert_int_equal(r.n_removed, 0);
}

static void files_of_tensors(void **state)
{
    (void)state;
    static const float values[6] = {1, 2, 3, 4, 5, 6};
    const dil_tensor t = {.name = "m.weight", .n_dims = 2, .shape = {3, 2}};
    const float *const all[] = {values};
    float back[6];
    dil_tensor found;
    dil_file *f;
    dil_error err;
    assert_int_equal(dil_file_write(small_path, "matrices", &t, all, 1, &err), DIL_OK);
    assert_int_equal(dil_file_open(&f, small_path, &err), DIL_OK);
    assert_int_equal(dil_file_n_tensors(f), 1);
    assert_int_equal(dil_file_tensor(f, 0, &found, &err), DIL_OK);
    assert_string_equal(found.name, "m.weight");
    assert_string_equal(found.type, "F32");
    assert_int_equal(found.n_values, 6);
    assert_int_equal(dil_file_read(f, 0, back, 6, &err), DIL_OK);
    assert_memory_equal(back, values, sizeof back);
    assert_int_equal(dil_file_read(f, 0, back, 5, &err), DIL_BAD_ARGUMENT);
    assert_int_equal(dil_file_tensor(f, 1, &found, &err), DIL_BAD_ARGUMENT);
    dil_file_close(f);
}

/* Rows of blocks that are small and large in turn, quantized and read back: what it costs, and that only small ones became 0. */
static void check_matrix(int n_rows, int n_columns, double prune)
{
    enum { MOST = 24 * 2080 };
    static float values[MOST], back[MOST];
    const dil_tensor t = {.name = "wide.weight", .n_dims = 2, .shape = {(uint64_t)n_columns, (uint64_t)n_rows}};
    const float *const all[] = {values};
    const int n = n_rows * n_columns;
    char path[80];
    uint64_t seed = 3;
    double off = 0, whole = 0;
    dil_error err;
    dil_file *f;
    dil_quantize_options o = dil_quantize_options_default();
    dil_quantize_report r = {.struct_size = sizeof r};
    for (int i = 0; i < n; i++)
        values[i] = draw(&seed) * (i / 32 % 2 ? 1.0f : 0.01f);
    snprintf(path, sizeof path, "%s/wide.gguf", folder);
    assert_int_equal(dil_file_write(path, "matrices", &t, all, 1, &err), DIL_OK);
    o.bits = 8.5;
    o.prune = prune;
    o.fast = true;
    if (dil_quantize(path, small_path, &o, &r, NULL, 0, &err) != DIL_OK)
        fail_msg("%s", err.text);
    unlink(path);
    assert_int_equal(dil_file_open(&f, small_path, &err), DIL_OK);
    assert_int_equal(dil_file_read(f, 0, back, (size_t)n, &err), DIL_OK);
    dil_file_close(f);
    for (int i = 0; i < n; i++) {
        off += pow((double)back[i] - (double)values[i], 2);
        whole += pow((double)values[i], 2);
        assert_true(prune == 0 || i / 32 % 2 || back[i] == 0);
    }
    assert_true(off / whole < (prune > 0 ? 3e-4 : 1e-4));
    assert_int_equal(r.n_removed, (int)(prune * n / 32));
}

/* Wide rows are rounded in parts: one of 2048 columns in two, one of 1184 in one of 37 blocks, one of 65 * 32 in 5, one without blocks. */
static void any_matrices(void **state)
{
    (void)state;
    check_matrix(24, 2048, 0);
    check_matrix(24, 2048, 0.5);
    check_matrix(6, 1184, 0);
    check_matrix(6, 2080, 0);
    check_matrix(6, 75, 0);
}

/* More experts than memory, and the ways of choosing: the same rows, or as much changed as was allowed. */
static void experts_on_disk(void **state)
{
    (void)state;
    enum { N = 64, WIDTH = 256 };
    static float rows[N * WIDTH], y[N * WIDTH], other[N * WIDTH];
    char path[80], cache[80], line[100];
    uint64_t seed = 11;
    dil_error err;
    dil_engine *e;
    dil_experts l = dil_experts_default();
    dil_engine_options o = dil_engine_options_default();
    dil_experts_counts found = {.struct_size = sizeof found};
    l.n_embd = WIDTH;
    l.n_ff = 512;
    l.n_experts = 32;
    for (int i = 0; i < N * WIDTH; i++)
        rows[i] = draw(&seed);
    snprintf(path, sizeof path, "%s/many.gguf", folder);
    snprintf(cache, sizeof cache, "%s/cache", folder);
    setenv("XDG_CACHE_HOME", cache, 1);
    assert_int_equal(dil_experts_write(path, &l, &err), DIL_OK);
    e = open_layer(path, 2, 0);
    assert_int_equal(dil_experts_run(e, rows, N, y, NULL, NULL, &err), DIL_OK);
    dil_engine_close(e);

    o.n_threads = 2;
    o.experts_memory = 20 << 20; /* of 50 MB */
    for (int local = 0; local < 2; local++) {
        o.route_local = local;
        if (dil_engine_open(&e, path, &o, &err) != DIL_OK)
            fail_msg("%s", err.text);
        for (int i = 0; i < N; i++)
            assert_int_equal(dil_experts_run(e, rows + i * WIDTH, 1, other + i * WIDTH, NULL, NULL, &err), DIL_OK);
        assert_memory_equal(y, other, sizeof y);
        assert_int_equal(dil_experts_count(e, &found, &err), DIL_OK);
        assert_int_equal(found.n_choices, N);
        assert_true(found.n_loaded > 0 && found.n_found > 0 && found.loaded_bytes > found.n_loaded * 3 * WIDTH * 512 * 4 - 1);
        assert_true(local == (found.router_full_bytes > 0) && found.router_read_bytes <= found.router_full_bytes &&
                    found.n_changed == 0);
        dil_engine_close(e);
    }
    const uint64_t loaded = found.n_loaded;
    o.route_local = false;
    o.route_mass = 0.4f;
    assert_int_equal(dil_engine_open(&e, path, &o, &err), DIL_OK);
    for (int i = 0; i < N; i++)
        assert_int_equal(dil_experts_run(e, rows + i * WIDTH, 1, other + i * WIDTH, NULL, NULL, &err), DIL_OK);
    assert_int_equal(dil_experts_count(e, &found, &err), DIL_OK);
    assert_true(found.n_changed > 0 && found.n_loaded < loaded && found.most_mass > 0 && found.most_mass <= 0.4001);
    dil_engine_close(e);
    o.route_mass = 2;
    assert_int_equal(dil_engine_open(&e, path, &o, &err), DIL_BAD_ARGUMENT);
    unlink(path);
    snprintf(line, sizeof line, "rm -rf '%s'", cache);
    assert_int_equal(system(line), 0);
}

static void wrong_arguments_are_named(void **state)
{
    (void)state;
    dil_error err;
    dil_experts l = dil_experts_default();
    dil_quantize_options o = dil_quantize_options_default();
    dil_quantize_report r = {.struct_size = 2};
    float bad[N_EMBD] = {NAN};
    l.n_used = 9;
    assert_int_equal(dil_experts_write(small_path, &l, &err), DIL_BAD_ARGUMENT);
    assert_non_null(strstr(err.text, "n_used: wanted 1..8, found 9"));
    assert_int_equal(dil_quantize(layer_path, small_path, &o, &r, NULL, 0, &err), DIL_BAD_ARGUMENT);
    assert_non_null(strstr(err.text, "struct_size"));
    o.preset = "low";
    assert_int_equal(dil_quantize(layer_path, small_path, &o, NULL, NULL, 0, &err), DIL_BAD_ARGUMENT);
    assert_non_null(strstr(err.text, "dusuk, dengeli or yuksek, found 'low'"));
    o.preset = NULL;
    o.inputs = bad;
    o.n_inputs = 1;
    assert_int_equal(dil_quantize(layer_path, small_path, &o, NULL, NULL, 0, &err), DIL_BAD_ARGUMENT);
    assert_non_null(strstr(err.text, "inputs: row 0, value 0: wanted a finite number"));
    assert_int_equal(dil_quantize(layer_path, layer_path, &o, NULL, NULL, 0, &err), DIL_BAD_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_what_the_header_says),
        cmocka_unit_test(text_is_refused),
        cmocka_unit_test(commands_know_it),
        cmocka_unit_test(fewer_bits),
        cmocka_unit_test(neurons_go),
        cmocka_unit_test(files_of_tensors),
        cmocka_unit_test(any_matrices),
        cmocka_unit_test(experts_on_disk),
        cmocka_unit_test(wrong_arguments_are_named),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
