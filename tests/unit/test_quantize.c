/* Converting files: which tensor becomes what, the bytes against the codecs of formats, cancelling and every failure. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/status.h"
#include "gguf_bytes.h"
#include "quantize/convert.h"

static char directory[256];

static const char *path_of(const char *name)
{
    static char paths[4][600];
    static int next;
    char *p = paths[next++ % 4];
    snprintf(p, 600, "%s/%s", directory, name);
    return p;
}

static void ok(dil_status st, const dil_error *err)
{
    if (st != DIL_OK)
        fail_msg("%s", err->text);
}

/* ---- the input: one tensor of every kind ---- */

typedef struct spec {
    const char *name;
    dil_type type;
    int n_dims;
    uint64_t ne[4];
} spec;

static const spec specs[] = {
    {"token_embd.weight", DIL_TYPE_F32, 2, {512, 7, 1, 1}},        {"blk.0.attn_q.weight", DIL_TYPE_F16, 2, {96, 5, 1, 1}},
    {"blk.0.attn_k.weight", DIL_TYPE_F32, 2, {33, 4, 1, 1}},       {"blk.0.attn_v.weight", DIL_TYPE_Q8_0, 2, {256, 3, 1, 1}},
    {"blk.0.ffn_up_exps.weight", DIL_TYPE_F32, 3, {256, 2, 3, 1}}, {"blk.0.ffn_gate_inp.weight", DIL_TYPE_F32, 2, {256, 3, 1, 1}},
    {"blk.0.attn_norm.weight", DIL_TYPE_F16, 1, {64, 1, 1, 1}},    {"blk.0.attn_q_norm.weight", DIL_TYPE_F32, 2, {32, 4, 1, 1}},
    {"blk.0.attn_q.bias", DIL_TYPE_F32, 1, {96, 1, 1, 1}},         {"table", DIL_TYPE_I32, 2, {32, 2, 1, 1}},
};
#define N_SPECS (sizeof specs / sizeof specs[0])
#define MOST_VALUES 4096

static uint64_t n_values(const spec *s) { return s->ne[0] * s->ne[1] * s->ne[2] * s->ne[3]; }

static void fill(float *x, uint64_t n, uint32_t seed)
{
    for (uint64_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(int32_t)seed / 2147483648.0f;
    }
}

static size_t tensor_bytes(const spec *s, dil_type type)
{
    uint64_t row = 0;
    assert_true(format_row_bytes(type, s->ne[0], &row));
    return (size_t)(row * (n_values(s) / s->ne[0]));
}

/* The bytes of tensor i in the input. */
static void source_bytes(size_t i, uint8_t *out)
{
    static float x[MOST_VALUES];
    fill(x, n_values(&specs[i]), (uint32_t)i + 1);
    if (format_get(specs[i].type)->encode)
        format_get(specs[i].type)->encode(x, out, n_values(&specs[i]), NULL);
    else
        memcpy(out, x, tensor_bytes(&specs[i], specs[i].type));
}

static void write_input(const char *path)
{
    static uint8_t data[MOST_VALUES * 4];
    gguf_writer *w;
    dil_error err;
    ok(gguf_writer_new(&w, path, &err), &err);
    ok(gguf_writer_set_str(w, "general.architecture", STR("llama"), &err), &err);
    ok(gguf_writer_set_u32(w, "general.file_type", 1, &err), &err);
    ok(gguf_writer_set_i32(w, "test.kept", -5, &err), &err);
    for (size_t i = 0; i < N_SPECS; i++)
        ok(gguf_writer_add_tensor(w, str_of(specs[i].name), specs[i].type, specs[i].n_dims, specs[i].ne, &err), &err);
    for (size_t i = 0; i < N_SPECS; i++) {
        source_bytes(i, data);
        ok(gguf_writer_data(w, data, tensor_bytes(&specs[i], specs[i].type), &err), &err);
    }
    ok(gguf_writer_finish(w, &err), &err);
}

static int make_room(void **state)
{
    (void)state;
    make_directory(directory);
    write_input(path_of("in.gguf"));
    return 0;
}

static int clear_room(void **state)
{
    (void)state;
    unlink(path_of("in.gguf"));
    unlink(path_of("out.gguf"));
    return rmdir(directory) == 0 && mem_bytes(MEM_FILE) == 0 ? 0 : -1;
}

static dil_status convert(dil_type type, int n_threads, convert_result *r, dil_error *err)
{
    convert_options o = {.type = type, .n_threads = n_threads};
    return convert_file(r, path_of("in.gguf"), path_of("out.gguf"), &o, err);
}

/* ---- tests ---- */

/* Types per tensor, when the matrices become `type`; by hand, in the order of specs. */
static void check_file(dil_type type, const dil_type wanted[N_SPECS], uint32_t file_type)
{
    static uint8_t source[MOST_VALUES * 4], encoded[MOST_VALUES * 4];
    static float x[MOST_VALUES];
    gguf *g;
    dil_error err;
    uint32_t number = 999, version = 0;
    int32_t kept = 0;
    ok(gguf_open(&g, path_of("out.gguf"), NULL, &err), &err);
    ok(gguf_get_u32(g, "general.file_type", &number, &err), &err);
    ok(gguf_get_u32(g, "general.quantization_version", &version, &err), &err);
    ok(gguf_get_i32(g, "test.kept", &kept, &err), &err);
    assert_int_equal(number, file_type);
    assert_int_equal(version, 2);
    assert_int_equal(kept, -5);
    assert_int_equal(gguf_n_tensors(g), N_SPECS);
    for (size_t i = 0; i < N_SPECS; i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        const spec *s = &specs[i];
        assert_true(str_equal(t->name, str_of(s->name)));
        if (t->type != wanted[i])
            fail_msg("%s as %s: wanted %s, found %s", s->name, format_get(type)->name, format_get(wanted[i])->name,
                     format_get(t->type)->name);
        assert_int_equal(t->n_dims, s->n_dims);
        assert_memory_equal(t->ne, s->ne, sizeof t->ne);
        source_bytes(i, source);
        memcpy(encoded, source, tensor_bytes(s, s->type));
        if (t->type != s->type) {
            format_get(s->type)->decode(source, x, n_values(s));
            format_get(t->type)->encode(x, encoded, n_values(s), NULL);
        }
        assert_memory_equal(t->data, encoded, tensor_bytes(s, t->type));
    }
    gguf_close(g);
}

#define F32 DIL_TYPE_F32
#define REST(gate) gate, F32, F32, F32, DIL_TYPE_I32

static void test_types(void **state)
{
    (void)state;
    static const struct {
        dil_type type;
        dil_type wanted[N_SPECS];
        uint32_t file_type, n_fallback, n_requantized;
    } cases[] = {
        {F32, {F32, F32, F32, F32, F32, REST(F32)}, 0, 0, 1},
        {DIL_TYPE_F16, {DIL_TYPE_F16, DIL_TYPE_F16, DIL_TYPE_F16, DIL_TYPE_F16, DIL_TYPE_F16, REST(F32)}, 1, 0, 1},
        {DIL_TYPE_Q8_0, {DIL_TYPE_Q8_0, DIL_TYPE_Q8_0, DIL_TYPE_F16, DIL_TYPE_Q8_0, DIL_TYPE_Q8_0, REST(F32)}, 7, 1, 0},
        {DIL_TYPE_Q4_0, {DIL_TYPE_Q4_0, DIL_TYPE_Q4_0, DIL_TYPE_F16, DIL_TYPE_Q4_0, DIL_TYPE_Q4_0, REST(F32)}, 2, 1, 1},
        {DIL_TYPE_Q4_K, {DIL_TYPE_Q4_K, DIL_TYPE_Q5_0, DIL_TYPE_F16, DIL_TYPE_Q4_K, DIL_TYPE_Q4_K, REST(F32)}, 14, 2, 1},
        {DIL_TYPE_Q6_K, {DIL_TYPE_Q6_K, DIL_TYPE_Q8_0, DIL_TYPE_F16, DIL_TYPE_Q6_K, DIL_TYPE_Q6_K, REST(F32)}, 18, 2, 1},
        {DIL_TYPE_Q2_K, {DIL_TYPE_Q2_K, DIL_TYPE_IQ4_NL, DIL_TYPE_F16, DIL_TYPE_Q2_K, DIL_TYPE_Q2_K, REST(F32)}, 10, 2, 1},
        {DIL_TYPE_IQ3_S, {DIL_TYPE_IQ3_S, DIL_TYPE_IQ4_NL, DIL_TYPE_F16, DIL_TYPE_IQ3_S, DIL_TYPE_IQ3_S, REST(F32)}, 26, 2, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int n_threads = 1; n_threads <= 3; n_threads += 2) {
            convert_result r;
            dil_error err;
            ok(convert(cases[i].type, n_threads, &r, &err), &err);
            check_file(cases[i].type, cases[i].wanted, cases[i].file_type);
            assert_int_equal(r.n_tensors, N_SPECS);
            assert_int_equal(r.n_matrices, 5);
            assert_int_equal(r.n_fallback, cases[i].n_fallback);
            assert_int_equal(r.n_requantized, cases[i].n_requantized);
        }
}

static void test_every_type(void **state)
{
    (void)state;
    static const dil_type types[] = {DIL_TYPE_BF16, DIL_TYPE_Q4_1, DIL_TYPE_Q5_0,   DIL_TYPE_Q5_1,
                                     DIL_TYPE_Q5_K, DIL_TYPE_Q3_K, DIL_TYPE_IQ4_NL, DIL_TYPE_IQ4_XS};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        convert_result r;
        dil_error err;
        dil_type wanted[N_SPECS];
        uint32_t file_type = 0;
        ok(convert(types[i], 2, &r, &err), &err);
        assert_true(convert_file_type(types[i], &file_type));
        for (size_t k = 0; k < N_SPECS; k++) {
            gguf_tensor t = {.name = str_of(specs[k].name), .type = specs[k].type, .n_dims = specs[k].n_dims};
            memcpy(t.ne, specs[k].ne, sizeof t.ne);
            wanted[k] = convert_tensor_type(&t, types[i]);
        }
        assert_int_equal(wanted[0], types[i]);
        check_file(types[i], wanted, file_type);
    }
}

/* A matrix of several pieces, its last one short: converted and copied. */
static void test_pieces(void **state)
{
    (void)state;
    enum { COLUMNS = 1024, ROWS = 2500 };
    static float x[COLUMNS * ROWS];
    static uint8_t wanted[COLUMNS * ROWS * 4];
    static const dil_type types[] = {DIL_TYPE_Q8_0, DIL_TYPE_F32};
    const spec big = {"output.weight", DIL_TYPE_F32, 2, {COLUMNS, ROWS, 1, 1}};
    gguf_writer *w;
    dil_error err;
    fill(x, COLUMNS * ROWS, 9);
    ok(gguf_writer_new(&w, path_of("big.gguf"), &err), &err);
    ok(gguf_writer_add_tensor(w, str_of(big.name), big.type, big.n_dims, big.ne, &err), &err);
    ok(gguf_writer_data(w, x, sizeof x, &err), &err);
    ok(gguf_writer_finish(w, &err), &err);
    for (int i = 0; i < 2; i++) {
        convert_options o = {.type = types[i], .n_threads = 3};
        convert_result r;
        gguf *g;
        ok(convert_file(&r, path_of("big.gguf"), path_of("out.gguf"), &o, &err), &err);
        ok(gguf_open(&g, path_of("out.gguf"), NULL, &err), &err);
        format_get(types[i])->encode(x, wanted, COLUMNS * ROWS, NULL);
        assert_memory_equal(gguf_tensor_at(g, 0)->data, wanted, tensor_bytes(&big, types[i]));
        gguf_close(g);
    }
    unlink(path_of("big.gguf"));
}

static void count_fallback(void *user, str tensor, uint64_t columns, dil_type used)
{
    assert_true(tensor.n > 0 && columns > 0 && (used == DIL_TYPE_F16 || used == DIL_TYPE_Q5_0));
    ++*(int *)user;
}

static void test_dry_run(void **state)
{
    (void)state;
    int n = 0;
    convert_options o = {.type = DIL_TYPE_Q4_K, .n_threads = 1, .dry_run = true, .fallback = count_fallback, .user = &n};
    convert_result dry, wet;
    dil_error err;
    unlink(path_of("out.gguf"));
    ok(convert_file(&dry, path_of("in.gguf"), path_of("out.gguf"), &o, &err), &err);
    assert_false(os_exists(path_of("out.gguf")));
    assert_int_equal(n, 2);
    ok(convert(DIL_TYPE_Q4_K, 1, &wet, &err), &err);
    assert_memory_equal(&dry, &wet, sizeof dry);
}

static void test_refuses(void **state)
{
    (void)state;
    convert_result r;
    dil_error err;
    convert_options o = {.type = DIL_TYPE_Q8_0, .n_threads = 1};
    assert_int_equal(convert(DIL_TYPE_I32, 1, &r, &err), DIL_BAD_ARGUMENT);
    assert_non_null(strstr(err.text, "I32"));
    assert_int_equal(convert((dil_type)63, 1, &r, &err), DIL_BAD_ARGUMENT);
    assert_int_equal(convert_file(&r, path_of("in.gguf"), path_of("in.gguf"), &o, &err), DIL_BAD_ARGUMENT);
    assert_non_null(strstr(err.text, "other than the input"));
    assert_int_equal(convert_file(&r, path_of("in.gguf"), path_of("no/out.gguf"), &o, &err), DIL_IO);
    assert_int_equal(convert_file(&r, path_of("none.gguf"), path_of("out.gguf"), &o, &err), DIL_IO);
}

typedef struct stop {
    int after, seen;
} stop;

static bool stop_after(void *user, const char *what, uint64_t done, uint64_t total)
{
    stop *s = user;
    assert_string_equal(what, "quantize");
    assert_true(done <= total);
    return s->seen++ < s->after;
}

static void test_cancel(void **state)
{
    (void)state;
    unlink(path_of("out.gguf"));
    for (int after = 0; after < (int)N_SPECS; after++) {
        stop s = {.after = after};
        convert_options o = {.type = DIL_TYPE_Q8_0, .n_threads = 2, .progress = stop_after, .user = &s};
        convert_result r;
        dil_error err;
        assert_int_equal(convert_file(&r, path_of("in.gguf"), path_of("out.gguf"), &o, &err), DIL_CANCELLED);
        assert_false(os_exists(path_of("out.gguf")));
    }
}

/* The n-th allocation fails, then the n-th call of the system, until all goes well: nothing is left behind. */
static void test_failures(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        dil_status status = DIL_INTERNAL;
        unlink(path_of("out.gguf"));
        for (int64_t after = 0; status != DIL_OK && after < 5000; after++) {
            convert_result r = {.in_bytes = 77};
            dil_error err;
            (kind ? os_inject_failure : mem_inject_failure)(after);
            status = convert(DIL_TYPE_Q4_K, 2, &r, &err);
            (kind ? os_inject_failure : mem_inject_failure)(-1);
            assert_int_equal(mem_bytes(MEM_FILE), 0);
            if (status != DIL_OK) {
                assert_int_equal(r.in_bytes, 77);
                assert_true(status == DIL_NO_MEMORY || status == DIL_IO);
                assert_true(err.text[0] != '\0');
                assert_false(os_exists(path_of("out.gguf")));
            }
        }
        assert_int_equal(status, DIL_OK);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),   cmocka_unit_test(test_every_type), cmocka_unit_test(test_dry_run),
        cmocka_unit_test(test_refuses), cmocka_unit_test(test_cancel),     cmocka_unit_test(test_failures),
        cmocka_unit_test(test_pieces),
    };
    return cmocka_run_group_tests(tests, make_room, clear_room);
}
