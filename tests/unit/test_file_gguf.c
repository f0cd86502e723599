/* Good GGUF files: getters, writing and reading back, split files, faults of memory and disk, a
 * writer that is killed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "file/gguf_internal.h"
#include "gguf_bytes.h"

static char directory[256];
static size_t held_at_start;

static const char *path_of(const char *name)
{
    static char paths[4][600];
    static int next;
    char *p = paths[next++ % 4];
    snprintf(p, 600, "%s/%s", directory, name);
    return p;
}

static int make_room(void **state)
{
    (void)state;
    make_directory(directory);
    held_at_start = mem_bytes(MEM_FILE);
    return 0;
}

static void remove_one(void *ctx, const char *name, bool is_dir, uint64_t size)
{
    (void)is_dir;
    (void)size;
    *(int *)ctx += unlink(path_of(name)) != 0;
}

static int clear_room(void **state)
{
    (void)state;
    int failed = 0;
    dil_error err;
    if (os_list_dir(directory, remove_one, &failed, &err) != DIL_OK || failed || rmdir(directory) != 0)
        return -1;
    return mem_bytes(MEM_FILE) == held_at_start ? 0 : -1;
}

static void ok(dil_status st, const dil_error *err)
{
    if (st != DIL_OK)
        fail_msg("%s", err->text);
}

static void fails(dil_status st, const dil_error *err, dil_status code, const char *wanted)
{
    assert_int_equal(st, code);
    if (!strstr(err->text, wanted))
        fail_msg("wanted '%s', found '%s'", wanted, err->text);
}

/* ---- getters ---- */

static void put_number(bytes *b, const char *key, uint32_t kind, uint64_t v, size_t width)
{
    put_key(b, key, kind);
    put(b, &v, width);
}

static void many_values(bytes *b)
{
    put_header(b, 0, 21);
    put_number(b, "u8", 0, 200, 1);
    put_number(b, "i8", 1, (uint8_t)-100, 1);
    put_number(b, "u16", 2, 60000, 2);
    put_number(b, "i16", 3, (uint16_t)-30000, 2);
    put_number(b, "u32", 4, 4000000000u, 4);
    put_number(b, "i32", 5, (uint32_t)-2000000000, 4);
    put_number(b, "u64", 10, UINT64_MAX, 8);
    put_number(b, "i64", 11, (uint64_t)INT64_MIN, 8);
    put_number(b, "small i64", 11, (uint64_t)-7, 8);
    put_key(b, "f32", 6);
    put_f32(b, 1.5f);
    put_key(b, "f64", 12);
    put(b, &(double){-2.25}, 8);
    put_key(b, "wide f64", 12);
    put(b, &(double){1e300}, 8);
    put_number(b, "bool", 7, 1, 1);
    put_key_text(b, "text", "ab\nc");
    put_array(b, "texts", 8, 3);
    put_text(b, "x");
    put_text(b, "");
    put_text(b, "yz");
    put_array(b, "floats", 6, 2);
    put_f32(b, 0.25f);
    put_f32(b, -8);
    put_array(b, "ints", 5, 2);
    put_u32(b, (uint32_t)-5);
    put_u32(b, 5);
    put_array(b, "large u32s", 4, 1);
    put_u32(b, 3000000000u);
    put_array(b, "i8s", 1, 3);
    put(b, "\xff\x7f\x80", 3);
    put_array(b, "u16s", 2, 1);
    put(b, "\xff\xff", 2);
    put_array(b, "no floats", 6, 0);
}

static gguf *open_many(bytes *b)
{
    gguf *g = NULL;
    dil_error err = {0};
    b->n = 0;
    many_values(b);
    ok(gguf_open_memory(&g, b->p, b->n, NULL, &err), &err);
    return g;
}

static void test_numbers(void **state)
{
    (void)state;
    static bytes b;
    dil_error err;
    gguf *g = open_many(&b);
    static const struct {
        const char *key;
        bool u32, u64, i32;
        int64_t value;
    } list[] = {
        {"u8", 1, 1, 1, 200},     {"i8", 0, 0, 1, -100},        {"u16", 1, 1, 1, 60000},
        {"i16", 0, 0, 1, -30000}, {"u32", 1, 1, 0, 4000000000}, {"i32", 0, 0, 1, -2000000000},
        {"u64", 0, 1, 0, -1},     {"i64", 0, 0, 0, 0},          {"small i64", 0, 0, 1, -7},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        uint32_t u = 77;
        uint64_t w = 77;
        int32_t d = 77;
        assert_int_equal(gguf_get_u32(g, list[i].key, &u, &err), list[i].u32 ? DIL_OK : DIL_FORMAT);
        assert_int_equal(u, list[i].u32 ? (uint32_t)list[i].value : 77);
        assert_int_equal(gguf_get_u64(g, list[i].key, &w, &err), list[i].u64 ? DIL_OK : DIL_FORMAT);
        assert_true(w == (list[i].u64 ? (uint64_t)list[i].value : 77));
        assert_int_equal(gguf_get_i32(g, list[i].key, &d, &err), list[i].i32 ? DIL_OK : DIL_FORMAT);
        assert_int_equal(d, list[i].i32 ? (int32_t)list[i].value : 77);
    }
    uint32_t u = 0;
    fails(gguf_get_u32(g, "i64", &u, &err), &err, DIL_FORMAT, "key 'i64': wanted 0 to 4294967295, found -9223372036854775808");
    fails(gguf_get_u32(g, "bool", &u, &err), &err, DIL_FORMAT, "key 'bool': wanted an integer, found BOOL");
    fails(gguf_get_u32(g, "ints", &u, &err), &err, DIL_FORMAT, "key 'ints': wanted an integer, found an array of I32");
    fails(gguf_get_u32(g, "f32", &u, &err), &err, DIL_FORMAT, "found F32");
    u = 9;
    ok(gguf_get_u32(g, "absent", &u, &err), &err);
    assert_int_equal(u, 9);
    gguf_close(g);
}

static void test_other_scalars(void **state)
{
    (void)state;
    static bytes b;
    dil_error err;
    gguf *g = open_many(&b);
    float f = 3;
    bool flag = false;
    str s = STR("default");
    ok(gguf_get_f32(g, "f32", &f, &err), &err);
    assert_true(f == 1.5f);
    ok(gguf_get_f32(g, "f64", &f, &err), &err);
    assert_true(f == -2.25f);
    fails(gguf_get_f32(g, "wide f64", &f, &err), &err, DIL_FORMAT, "key 'wide f64': wanted the range of F32, found 1e+300");
    fails(gguf_get_f32(g, "u32", &f, &err), &err, DIL_FORMAT, "wanted F32 or F64, found U32");
    ok(gguf_get_f32(g, "absent", &f, &err), &err);
    assert_true(f == -2.25f);
    ok(gguf_get_bool(g, "absent", &flag, &err), &err);
    assert_false(flag);
    ok(gguf_get_bool(g, "bool", &flag, &err), &err);
    assert_true(flag);
    fails(gguf_get_bool(g, "u8", &flag, &err), &err, DIL_FORMAT, "wanted BOOL, found U8");
    ok(gguf_get_str(g, "absent", &s, &err), &err);
    assert_true(str_equal(s, STR("default")));
    ok(gguf_get_str(g, "text", &s, &err), &err);
    assert_true(str_equal(s, STR("ab\nc")));
    fails(gguf_get_str(g, "texts", &s, &err), &err, DIL_FORMAT, "wanted STRING, found an array of STRING");
    assert_null(gguf_find(g, "absent"));
    assert_null(gguf_value_at(g, 21));
    assert_int_equal(gguf_n_values(g), 21);
    assert_int_equal(gguf_value_at(g, 0)->offset, 24);
    gguf_close(g);
}

static void test_arrays(void **state)
{
    (void)state;
    static bytes b;
    dil_error err;
    gguf *g = open_many(&b);
    const str *texts;
    const float *floats;
    const int32_t *ints, *again;
    uint64_t n;
    ok(gguf_get_strings(g, "texts", &texts, &n, &err), &err);
    assert_true(n == 3 && str_equal(texts[0], STR("x")) && texts[1].n == 0 && str_equal(texts[2], STR("yz")));
    ok(gguf_get_strings(g, "absent", &texts, &n, &err), &err);
    assert_true(n == 0);
    fails(gguf_get_strings(g, "ints", &texts, &n, &err), &err, DIL_FORMAT, "wanted an array of STRING, found an array of I32");
    fails(gguf_get_strings(g, "text", &texts, &n, &err), &err, DIL_FORMAT, "wanted an array of STRING, found STRING");
    ok(gguf_get_f32_array(g, "floats", &floats, &n, &err), &err);
    assert_true(n == 2 && floats[0] == 0.25f && floats[1] == -8 && (uintptr_t)floats % 4 == 0);
    ok(gguf_get_f32_array(g, "no floats", &floats, &n, &err), &err);
    assert_true(n == 0);
    fails(gguf_get_f32_array(g, "f32", &floats, &n, &err), &err, DIL_FORMAT, "wanted an array of F32, found F32");
    ok(gguf_get_i32_array(g, "ints", &ints, &n, &err), &err);
    assert_true(n == 2 && ints[0] == -5 && ints[1] == 5 && (uintptr_t)ints % 4 == 0);
    ok(gguf_get_i32_array(g, "i8s", &ints, &n, &err), &err);
    assert_true(n == 3 && ints[0] == -1 && ints[1] == 127 && ints[2] == -128);
    ok(gguf_get_i32_array(g, "i8s", &again, &n, &err), &err);
    assert_ptr_equal(again, ints);
    ok(gguf_get_i32_array(g, "u16s", &ints, &n, &err), &err);
    assert_true(n == 1 && ints[0] == 65535);
    fails(gguf_get_i32_array(g, "large u32s", &ints, &n, &err), &err, DIL_FORMAT, "found 3000000000");
    fails(gguf_get_i32_array(g, "floats", &ints, &n, &err), &err, DIL_FORMAT, "wanted an array of integers");
    gguf_close(g);
}

static void test_tensors(void **state)
{
    (void)state;
    static bytes b;
    gguf *g = NULL;
    dil_error err;
    const char *path = path_of("tiny.gguf");
    put_tiny(&b, NULL);
    assert_true(write_file(path, b.p, b.n));
    ok(gguf_open(&g, path, NULL, &err), &err);
    const gguf_tensor *t = gguf_tensor_find(g, "blk.0.attn_q.weight");
    assert_non_null(t);
    assert_true(t->type == DIL_TYPE_Q8_0 && t->n_dims == 2 && t->ne[0] == 32 && t->ne[1] == 2 && t->ne[2] == 1 &&
                t->size_bytes == 68);
    assert_int_equal(t->offset, b.n - TINY_DATA_BYTES + 128);
    assert_memory_equal(t->data, b.p + t->offset, t->size_bytes);
    assert_ptr_equal(gguf_tensor_at(g, 1), t);
    assert_null(gguf_tensor_at(g, 3));
    assert_null(gguf_tensor_find(g, "blk.0.attn_q.weigh"));
    assert_int_equal(gguf_n_tensors(g), 3);
    assert_int_equal(gguf_size_bytes(g), b.n);
    assert_int_equal(gguf_version(g), 3);
    assert_int_equal(gguf_shards(g), 1);
    assert_int_equal(gguf_shard_file(g, 0)->size_bytes, b.n);
    assert_null(gguf_shard_file(g, 1));
    assert_string_equal(gguf_path(g), path);
    gguf_close(g);
    ok(gguf_open(&g, path, &(gguf_options){.header_only = true}, &err), &err);
    assert_null(gguf_tensor_at(g, 0)->data);
    gguf_close(g);
    ok(gguf_open(&g, path, &(gguf_options){.deep = true}, &err), &err);
    gguf_close(g);
    b.p[b.n - 1] = 0x7e;
    assert_true(write_file(path, b.p, b.n));
    g = NULL;
    fails(gguf_open(&g, path, &(gguf_options){.deep = true}, &err), &err, DIL_FORMAT, "F16 value at element 15");
    assert_null(g);
    b.p[4] = 2; /* version 2 has the same layout */
    assert_true(write_file(path, b.p, b.n));
    ok(gguf_open(&g, path, NULL, &err), &err);
    assert_int_equal(gguf_version(g), 2);
    gguf_close(g);
    gguf_close(NULL);
}

static void test_open_errors(void **state)
{
    (void)state;
    gguf *g = NULL;
    dil_error err;
    fails(gguf_open(&g, path_of("absent.gguf"), NULL, &err), &err, DIL_IO, "absent.gguf: cannot open");
    fails(gguf_open(&g, directory, NULL, &err), &err, DIL_IO, "not a regular file");
    assert_true(write_file(path_of("empty.gguf"), "", 0));
    fails(gguf_open(&g, path_of("empty.gguf"), NULL, &err), &err, DIL_FORMAT,
          "empty.gguf: byte offset 0: header: wanted at least 24 bytes");
    assert_null(g);
}

/* ---- writing ---- */

static void write_all(const char *path, dil_error *err, dil_status *st)
{
    static const float rows[3 * 40];
    static const str texts[] = {{"one", 3}, {"", 0}};
    gguf_writer *w = NULL;
    const uint8_t *p = (const uint8_t *)rows;
    if ((*st = gguf_writer_new(&w, path, err)) != DIL_OK)
        return;
    if ((*st = gguf_writer_set_u32(w, "u32", 7, err)) == DIL_OK && (*st = gguf_writer_set_i32(w, "i32", -7, err)) == DIL_OK &&
        (*st = gguf_writer_set_f32(w, "f32", 0.5f, err)) == DIL_OK &&
        (*st = gguf_writer_set_bool(w, "bool", true, err)) == DIL_OK &&
        (*st = gguf_writer_set_str(w, "text", STR("t"), err)) == DIL_OK &&
        (*st = gguf_writer_set_strings(w, "texts", texts, 2, err)) == DIL_OK &&
        (*st = gguf_writer_set_f32_array(w, "f32s", (const float[]){1, 2}, 2, err)) == DIL_OK &&
        (*st = gguf_writer_set_i32_array(w, "i32s", (const int32_t[]){-1}, 1, err)) == DIL_OK &&
        (*st = gguf_writer_add_tensor(w, STR("a"), DIL_TYPE_F32, 2, (const uint64_t[]){40, 3}, err)) == DIL_OK &&
        (*st = gguf_writer_add_tensor(w, STR("b"), DIL_TYPE_I8, 1, (const uint64_t[]){5}, err)) == DIL_OK &&
        (*st = gguf_writer_add_tensor(w, STR("c"), DIL_TYPE_Q8_0, 1, (const uint64_t[]){32}, err)) == DIL_OK)
        for (size_t n = 0; n < 480 + 5 + 34 && *st == DIL_OK; n += 7) /* pieces that do not fit the tensors */
            *st = gguf_writer_data(w, p, n + 7 > 519 ? 519 - n : 7, err);
    if (*st != DIL_OK) {
        gguf_writer_abort(w);
        return;
    }
    *st = gguf_writer_finish(w, err);
}

static void test_write_and_read(void **state)
{
    (void)state;
    gguf *g = NULL;
    dil_error err;
    dil_status st;
    const char *path = path_of("written.gguf");
    write_all(path, &err, &st);
    ok(st, &err);
    ok(gguf_open(&g, path, &(gguf_options){.header_only = false}, &err), &err);
    uint32_t u = 0;
    int32_t d = 0;
    const str *texts;
    const int32_t *ints;
    uint64_t n;
    ok(gguf_get_u32(g, "u32", &u, &err), &err);
    ok(gguf_get_i32(g, "i32", &d, &err), &err);
    assert_true(u == 7 && d == -7);
    ok(gguf_get_strings(g, "texts", &texts, &n, &err), &err);
    assert_true(n == 2 && str_equal(texts[0], STR("one")) && texts[1].n == 0);
    ok(gguf_get_i32_array(g, "i32s", &ints, &n, &err), &err);
    assert_true(n == 1 && ints[0] == -1);
    assert_int_equal(gguf_n_tensors(g), 3);
    for (uint64_t i = 0; i < 3; i++)
        assert_int_equal(gguf_tensor_at(g, i)->offset % 32, 0);
    assert_true(gguf_tensor_find(g, "b")->size_bytes == 5 && gguf_tensor_find(g, "c")->size_bytes == 34);
    gguf_close(g);
}

/* Copying every value and tensor of the tiny file gives the same file again, byte for byte. */
static void test_copy(void **state)
{
    (void)state;
    static bytes b;
    gguf *g = NULL;
    gguf_writer *w = NULL;
    dil_error err;
    char *text;
    size_t n;
    put_tiny(&b, NULL);
    ok(gguf_open_memory(&g, b.p, b.n, NULL, &err), &err);
    ok(gguf_writer_new(&w, path_of("copy.gguf"), &err), &err);
    ok(gguf_writer_copy_values(w, g, NULL, 0, &err), &err);
    for (uint64_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        ok(gguf_writer_add_tensor(w, t->name, t->type, t->n_dims, t->ne, &err), &err);
    }
    for (uint64_t i = 0; i < gguf_n_tensors(g); i++)
        ok(gguf_writer_data(w, gguf_tensor_at(g, i)->data, gguf_tensor_at(g, i)->size_bytes, &err), &err);
    ok(gguf_writer_finish(w, &err), &err);
    ok(os_read_all(path_of("copy.gguf"), 1 << 20, &text, &n, &err), &err);
    assert_int_equal(n, b.n);
    assert_memory_equal(text, b.p, n);
    mem_free(text);

    static const char *const except[] = {"general.name", "general.alignment"};
    ok(gguf_writer_new(&w, path_of("copy.gguf"), &err), &err);
    ok(gguf_writer_copy_values(w, g, except, 2, &err), &err);
    ok(gguf_writer_set_str(w, "general.name", STR("other"), &err), &err);
    ok(gguf_writer_set_u32(w, "general.alignment", 64, &err), &err);
    ok(gguf_writer_add_tensor(w, STR("x"), DIL_TYPE_I8, 1, (const uint64_t[]){1}, &err), &err);
    ok(gguf_writer_add_tensor(w, STR("y"), DIL_TYPE_I8, 1, (const uint64_t[]){1}, &err), &err);
    ok(gguf_writer_data(w, "xy", 2, &err), &err);
    ok(gguf_writer_finish(w, &err), &err);
    gguf_close(g);
    ok(gguf_open(&g, path_of("copy.gguf"), NULL, &err), &err);
    str name = {0};
    ok(gguf_get_str(g, "general.name", &name, &err), &err);
    assert_true(str_equal(name, STR("other")));
    assert_int_equal(gguf_n_values(g), TINY_VALUES);
    assert_int_equal(gguf_tensor_at(g, 1)->offset - gguf_tensor_at(g, 0)->offset, 64);
    assert_memory_equal(gguf_tensor_find(g, "y")->data, "y", 1);
    gguf_close(g);
}

static void test_writer_refuses(void **state)
{
    (void)state;
    gguf_writer *w = NULL;
    dil_error err;
    char path[600];
    snprintf(path, sizeof path, "%s", path_of("refused.gguf"));
    const uint64_t one[] = {1, 1, 1, 1}, zero[] = {0}, odd[] = {33}, huge[] = {32, UINT64_MAX / 8};
    fails(gguf_writer_new(&w, path_of("no/such/dir.gguf"), &err), &err, DIL_IO, "cannot create");
    ok(gguf_writer_new(&w, path, &err), &err);
    ok(gguf_writer_set_u32(w, "k", 1, &err), &err);
    fails(gguf_writer_set_f32(w, "k", 1, &err), &err, DIL_BAD_ARGUMENT, "key 'k': wanted once");
    fails(gguf_writer_set_u32(w, "", 1, &err), &err, DIL_BAD_ARGUMENT, "wanted 1 to");
    fails(gguf_writer_set_u32(w, "\xff", 1, &err), &err, DIL_BAD_ARGUMENT, "UTF-8");
    fails(gguf_writer_set_u32(w, "general.alignment", 12, &err), &err, DIL_BAD_ARGUMENT, "power of two");
    fails(gguf_writer_set_str(w, "long", (str){"", GGUF_MAX_STRING + 1}, &err), &err, DIL_LIMIT, "string length");
    fails(gguf_writer_add_tensor(w, STR("t"), DIL_TYPE_F32, 0, one, &err), &err, DIL_BAD_ARGUMENT, "number of dimensions");
    fails(gguf_writer_add_tensor(w, STR("t"), DIL_TYPE_F32, 5, one, &err), &err, DIL_BAD_ARGUMENT, "number of dimensions");
    fails(gguf_writer_add_tensor(w, STR("t"), DIL_TYPE_F32, 1, zero, &err), &err, DIL_BAD_ARGUMENT, "row length");
    fails(gguf_writer_add_tensor(w, STR("t"), DIL_TYPE_Q4_0, 1, odd, &err), &err, DIL_BAD_ARGUMENT, "multiple of 32");
    fails(gguf_writer_add_tensor(w, STR("t"), DIL_TYPE_Q4_0, 2, huge, &err), &err, DIL_BAD_ARGUMENT, "product fits");
    fails(gguf_writer_add_tensor(w, STR("t"), (dil_type)4, 1, one, &err), &err, DIL_BAD_ARGUMENT, "found number 4");
    fails(gguf_writer_add_tensor(w, STR(""), DIL_TYPE_F32, 1, one, &err), &err, DIL_BAD_ARGUMENT, "a name of 1 to 64");
    ok(gguf_writer_add_tensor(w, STR("t"), DIL_TYPE_F32, 1, one, &err), &err);
    fails(gguf_writer_add_tensor(w, STR("t"), DIL_TYPE_F32, 1, one, &err), &err, DIL_BAD_ARGUMENT, "tensor 't': wanted once");
    fails(gguf_writer_set_u32(w, "general.alignment", 64, &err), &err, DIL_BAD_ARGUMENT, "before the first tensor");
    ok(gguf_writer_data(w, "abc", 3, &err), &err);
    fails(gguf_writer_set_u32(w, "late", 1, &err), &err, DIL_BAD_ARGUMENT, "before the first data");
    fails(gguf_writer_add_tensor(w, STR("u"), DIL_TYPE_F32, 1, one, &err), &err, DIL_BAD_ARGUMENT, "before the first data");
    fails(gguf_writer_data(w, "de", 2, &err), &err, DIL_BAD_ARGUMENT, "no more data");
    gguf_writer_abort(w);
    assert_false(os_exists(path));
    ok(gguf_writer_new(&w, path, &err), &err);
    ok(gguf_writer_add_tensor(w, STR("t"), DIL_TYPE_F32, 1, one, &err), &err);
    fails(gguf_writer_finish(w, &err), &err, DIL_BAD_ARGUMENT, "tensor 't': data: wanted 4 bytes before the end, found 0");
    assert_false(os_exists(path));
    gguf_writer_abort(NULL);
}

/* More tensors than the index begins with, all of them found again. */
static void test_many_tensors(void **state)
{
    (void)state;
    gguf_writer *w = NULL;
    gguf *g = NULL;
    dil_error err;
    char name[32];
    ok(gguf_writer_new(&w, path_of("many.gguf"), &err), &err);
    for (int i = 0; i < 3000; i++) {
        snprintf(name, sizeof name, "blk.%d.weight", i);
        ok(gguf_writer_add_tensor(w, str_of(name), DIL_TYPE_I32, 1, (const uint64_t[]){1}, &err), &err);
    }
    for (int32_t i = 0; i < 3000; i++)
        ok(gguf_writer_data(w, &i, sizeof i, &err), &err);
    ok(gguf_writer_finish(w, &err), &err);
    ok(gguf_open(&g, path_of("many.gguf"), NULL, &err), &err);
    for (int i = 0; i < 3000; i++) {
        snprintf(name, sizeof name, "blk.%d.weight", i);
        const gguf_tensor *t = gguf_tensor_find(g, name);
        assert_non_null(t);
        assert_int_equal(*(const int32_t *)t->data, i);
    }
    gguf_close(g);
}

/* A writer that is killed leaves nothing under the name, and what lay there before stays whole. */
static void test_kill(void **state)
{
    (void)state;
    char path[600];
    snprintf(path, sizeof path, "%s", path_of("killed.gguf"));
    assert_true(write_file(path, "before", 6));
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        gguf_writer *w;
        static const uint8_t block[1 << 16];
        if (gguf_writer_new(&w, path, NULL) == DIL_OK &&
            gguf_writer_add_tensor(w, STR("t"), DIL_TYPE_I8, 1, (const uint64_t[]){(uint64_t)1 << 40}, NULL) == DIL_OK)
            for (int i = 0; gguf_writer_data(w, block, sizeof block, NULL) == DIL_OK; i++)
                if (i == 4 && write(ready[1], "x", 1) == 1)
                    pause();
        _exit(1);
    }
    char c;
    assert_int_equal(read(ready[0], &c, 1), 1);
    assert_int_equal(kill(child, SIGKILL), 0);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    close(ready[0]);
    close(ready[1]);
    char *text;
    size_t n;
    dil_error err;
    ok(os_read_all(path, 100, &text, &n, &err), &err);
    assert_string_equal(text, "before");
    mem_free(text);
}

/* ---- split files ---- */

#define LAST UINT32_MAX

static void write_shard(int number, int count, uint32_t no, uint32_t key_count, uint32_t total, const char *tensor)
{
    static bytes b;
    char name[64];
    b.n = 0;
    put_header(&b, 1, 4);
    put_key_text(&b, "general.architecture", number == 0 ? "llama" : "other");
    put_number(&b, "split.no", 2, no == LAST ? (uint32_t)number : no, 2);
    put_number(&b, "split.count", 2, key_count, 2);
    put_number(&b, "split.tensors.count", 5, total, 4);
    put_tensor(&b, tensor, 0, 1, 1, 1, 0);
    put_padding(&b);
    put_f32(&b, (float)number);
    snprintf(name, sizeof name, "m-%05d-of-%05d.gguf", number + 1, count);
    assert_true(write_file(path_of(name), b.p, b.n));
}

static void write_three(void)
{
    write_shard(0, 3, LAST, 3, 3, "a");
    write_shard(1, 3, LAST, 3, 3, "b");
    write_shard(2, 3, LAST, 3, 3, "c");
}

static void test_split(void **state)
{
    (void)state;
    static const char *const names[] = {"m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"};
    dil_error err;
    write_three();
    for (int i = 0; i < 3; i++) {
        gguf *g = NULL;
        str architecture = {0};
        ok(gguf_open(&g, path_of(names[i]), NULL, &err), &err);
        assert_int_equal(gguf_shards(g), 3);
        assert_int_equal(gguf_n_tensors(g), 3);
        ok(gguf_get_str(g, "general.architecture", &architecture, &err), &err);
        assert_true(str_equal(architecture, STR("llama"))); /* always that of the first part */
        for (uint64_t k = 0; k < 3; k++) {
            const gguf_tensor *t = gguf_tensor_at(g, k);
            assert_true(t->shard == (int)k && t->name.p[0] == "abc"[k] && *(const float *)t->data == (float)k);
            assert_ptr_equal(gguf_tensor_find(g, (char[]){"abc"[k], 0}), t);
        }
        assert_int_equal(gguf_size_bytes(g), 3 * gguf_shard_file(g, 1)->size_bytes);
        gguf_writer *w = NULL; /* what describes the split is not copied */
        ok(gguf_writer_new(&w, path_of("joined.gguf"), &err), &err);
        ok(gguf_writer_copy_values(w, g, NULL, 0, &err), &err);
        ok(gguf_writer_finish(w, &err), &err);
        gguf_close(g);
        ok(gguf_open(&g, path_of("joined.gguf"), NULL, &err), &err);
        assert_int_equal(gguf_n_values(g), 1);
        gguf_close(g);
    }
}

static void count_report(void *ctx, uint64_t offset, const char *text)
{
    (void)offset;
    strbuf *b = ctx;
    strbuf_printf(b, "%s\n", text);
}

static void split_fails(const char *name, dil_status code, const char *wanted)
{
    gguf *g = NULL;
    dil_error err;
    fails(gguf_open(&g, path_of(name), NULL, &err), &err, code, wanted);
    strbuf b = STRBUF(1 << 16);
    assert_int_equal(gguf_check(path_of(name), count_report, &b, NULL, NULL, &err), DIL_FORMAT);
    assert_non_null(b.p);
    if (!strstr(b.p, wanted))
        fail_msg("the check: wanted '%s', found '%s'", wanted, b.p);
    strbuf_free(&b);
}

static void test_split_defects(void **state)
{
    (void)state;
    const char *first = "m-00001-of-00003.gguf";
    write_three();
    assert_int_equal(unlink(path_of("m-00002-of-00003.gguf")), 0);
    split_fails(first, DIL_IO, "part 2 of 3 is missing");
    split_fails("m-00003-of-00003.gguf", DIL_IO, "part 2 of 3 is missing");
    write_shard(1, 3, 2, 3, 3, "b");
    split_fails(first, DIL_FORMAT, "key 'split.no': wanted 1 as the file's name says, found 2");
    write_shard(1, 3, LAST, 4, 3, "b");
    split_fails(first, DIL_FORMAT, "key 'split.count': wanted 3 as in the other parts, found 4");
    split_fails("m-00002-of-00003.gguf", DIL_FORMAT, "key 'split.count': wanted 3 as the file's name says");
    write_shard(1, 3, LAST, 3, 3, "a");
    split_fails(first, DIL_FORMAT, "tensor 'a': wanted a name of its own");
    write_shard(1, 3, LAST, 3, 3, "b");
    write_shard(0, 3, LAST, 3, 4, "a");
    split_fails(first, DIL_FORMAT, "key 'split.tensors.count': wanted the number of tensors in all parts, 3, found 4");
    write_three();
    assert_true(write_file(path_of("m-00002-of-00003.gguf"), "GGUF", 4));
    split_fails(first, DIL_FORMAT, "version: wanted 4 bytes, found 0");
    write_three();
    assert_int_equal(rename(path_of(first), path_of("other.gguf")), 0);
    split_fails("other.gguf", DIL_FORMAT, "wanted a file name that ends in -00001-of-00003.gguf");
}

/* ---- faults ---- */

static void test_no_memory(void **state)
{
    (void)state;
    static bytes b;
    dil_error err;
    const char *path = path_of("memory.gguf");
    dil_status st = DIL_NO_MEMORY;
    put_tiny(&b, NULL);
    for (int64_t i = 0; st != DIL_OK; i++) {
        gguf *g = NULL;
        mem_inject_failure(i);
        st = gguf_open_memory(&g, b.p, b.n, NULL, &err);
        mem_inject_failure(-1);
        assert_true(st == DIL_OK || (st == DIL_NO_MEMORY && !g && strlen(err.text) > 0));
        gguf_close(g);
        assert_int_equal(mem_bytes(MEM_FILE), held_at_start);
        assert_true(i < 1000);
    }
    st = DIL_NO_MEMORY;
    for (int64_t i = 0; st != DIL_OK; i++) {
        mem_inject_failure(i);
        write_all(path, &err, &st);
        mem_inject_failure(-1);
        assert_true(st == DIL_OK || st == DIL_NO_MEMORY);
        assert_int_equal(os_exists(path), st == DIL_OK);
        assert_int_equal(mem_bytes(MEM_FILE), held_at_start);
        assert_true(i < 1000);
    }
}

/* Big enough that every table needs a block of its own, so that each of them gets to fail. */
static void make_large(bytes *b)
{
    char name[32];
    b->n = 0;
    put_header(b, 1500, 3003);
    put_key_text(b, "general.architecture", "llama");
    put_array(b, "texts", 8, 6000);
    for (int i = 0; i < 6000; i++)
        put_u64(b, 0);
    put_array(b, "narrow", 0, 50000);
    for (int i = 0; i < 50000; i++)
        put_u8(b, (uint8_t)i);
    for (int i = 0; i < 3000; i++) {
        snprintf(name, sizeof name, "%d", i);
        put_key(b, name, 0);
        put_u8(b, 1);
    }
    for (int i = 0; i < 1500; i++) {
        snprintf(name, sizeof name, "t%d", i);
        put_tensor(b, name, 24, 1, 1, 1, 0);
        b->p[b->n - 8] = (uint8_t)(32 * i); /* the low bytes of the offset */
        b->p[b->n - 7] = (uint8_t)(32 * i >> 8);
    }
    put_padding(b);
    for (int i = 0; i < 1500 * 32; i++)
        put_u8(b, 0);
}

static void test_no_memory_large(void **state)
{
    (void)state;
    static bytes b;
    dil_error err;
    dil_status st = DIL_NO_MEMORY;
    gguf *g = NULL;
    const int32_t *ints = NULL;
    uint64_t n = 0;
    make_large(&b);
    for (int64_t i = 0; st != DIL_OK; i++) {
        gguf_close(g);
        g = NULL;
        assert_int_equal(mem_bytes(MEM_FILE), held_at_start);
        mem_inject_failure(i);
        st = gguf_open_memory(&g, b.p, b.n, NULL, &err);
        if (st == DIL_OK)
            st = gguf_get_i32_array(g, "narrow", &ints, &n, &err);
        mem_inject_failure(-1);
        assert_true(st == DIL_OK || (st == DIL_NO_MEMORY && strlen(err.text) > 0));
        assert_true(i < 1000);
    }
    assert_true(n == 50000 && ints[49999] == (uint8_t)49999);
    assert_non_null(gguf_tensor_find(g, "t1499"));
    assert_non_null(gguf_find(g, "2999"));
    gguf_close(g);
}

static void test_disk_faults(void **state)
{
    (void)state;
    dil_error err;
    dil_status st = DIL_IO;
    char path[600];
    snprintf(path, sizeof path, "%s", path_of("disk.gguf"));
    for (int64_t i = 0; st != DIL_OK; i++) {
        os_inject_failure(i);
        write_all(path, &err, &st);
        os_inject_failure(-1);
        assert_true(st == DIL_OK || st == DIL_IO);
        assert_int_equal(os_exists(path), st == DIL_OK);
        assert_true(i < 1000);
    }
    write_three();
    st = DIL_IO;
    for (int64_t i = 0; st != DIL_OK; i++) {
        gguf *g = NULL;
        os_inject_failure(i);
        st = gguf_open(&g, path_of("m-00002-of-00003.gguf"), NULL, &err);
        os_inject_failure(-1);
        assert_true(st == DIL_OK || (st == DIL_IO && !g));
        gguf_close(g);
        assert_true(i < 100);
    }
    assert_int_equal(mem_bytes(MEM_FILE), held_at_start);
}

/* Run in a process of its own, because cmocka takes the signal for itself: 0 when the loss of the
 * file's end became DIL_IO. */
static int shrink(const char *path)
{
    gguf *g = NULL;
    dil_error err = {0};
    gguf_sink sink = {.err = &err};
    if (gguf_open(&g, path, NULL, &err) != DIL_OK || gguf_check_data(g, &sink, NULL, NULL) != DIL_OK || truncate(path, 8192) != 0)
        return 1;
    dil_status st = gguf_check_data(g, &sink, NULL, NULL);
    gguf_close(g);
    return st == DIL_IO && strstr(err.text, "truncated") ? 0 : 2;
}

/* The file loses its end after it was mapped: reading the data gives an error, not a signal. */
static void test_truncated_while_mapped(void **state)
{
    (void)state;
    gguf_writer *w = NULL;
    dil_error err;
    char path[600];
    static const uint8_t zeros[100000];
    snprintf(path, sizeof path, "%s", path_of("shrinks.gguf"));
    ok(gguf_writer_new(&w, path, &err), &err);
    ok(gguf_writer_add_tensor(w, STR("t"), DIL_TYPE_F32, 1, (const uint64_t[]){25000}, &err), &err);
    ok(gguf_writer_data(w, zeros, sizeof zeros, &err), &err);
    ok(gguf_writer_finish(w, &err), &err);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        execl("/proc/self/exe", "shrink", path, (char *)NULL);
        _exit(3);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static bool stop_at_half(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)what;
    ++*(int *)user;
    assert_true(done <= total);
    return done * 2 < total;
}

static void test_progress(void **state)
{
    (void)state;
    static bytes b;
    dil_error err;
    int calls = 0;
    put_tiny(&b, NULL);
    assert_true(write_file(path_of("progress.gguf"), b.p, b.n));
    fails(gguf_check(path_of("progress.gguf"), NULL, NULL, stop_at_half, &calls, &err), &err, DIL_CANCELLED, "stopped");
    assert_int_equal(calls, 1);
    ok(gguf_check(path_of("progress.gguf"), NULL, NULL, NULL, NULL, &err), &err);
    fails(gguf_check(path_of("absent.gguf"), NULL, NULL, NULL, NULL, &err), &err, DIL_IO, "cannot open");
}

/* A vocabulary of 150,000 tokens opens in a few milliseconds; work that grows with its square would take many seconds. */
static void test_large_vocabulary(void **state)
{
    (void)state;
    static str tokens[150000];
    static char text[150000][12];
    gguf_writer *w = NULL;
    gguf *g = NULL;
    dil_error err;
    for (int i = 0; i < 150000; i++) {
        snprintf(text[i], sizeof text[i], "t%d", i);
        tokens[i] = str_of(text[i]);
    }
    ok(gguf_writer_new(&w, path_of("large.gguf"), &err), &err);
    ok(gguf_writer_set_strings(w, "tokens", tokens, 150000, &err), &err);
    ok(gguf_writer_finish(w, &err), &err);
    clock_t best = 1000 * CLOCKS_PER_SEC; /* of this process: a busy machine does not count */
    for (int i = 0; i < 5; i++) {
        clock_t start = clock();
        ok(gguf_open(&g, path_of("large.gguf"), NULL, &err), &err);
        clock_t took = clock() - start;
        best = took < best ? took : best;
        const str *back;
        uint64_t n;
        ok(gguf_get_strings(g, "tokens", &back, &n, &err), &err);
        assert_true(n == 150000 && str_equal(back[149999], STR("t149999")));
        gguf_close(g);
    }
    assert_true(best < CLOCKS_PER_SEC); /* generous: sanitizers, slow machines */
}

int main(int argc, char **argv)
{
    if (argc == 2)
        return shrink(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_other_scalars),
        cmocka_unit_test(test_arrays),
        cmocka_unit_test_setup_teardown(test_tensors, make_room, clear_room),
        cmocka_unit_test_setup_teardown(test_open_errors, make_room, clear_room),
        cmocka_unit_test_setup_teardown(test_write_and_read, make_room, clear_room),
        cmocka_unit_test_setup_teardown(test_copy, make_room, clear_room),
        cmocka_unit_test_setup_teardown(test_writer_refuses, make_room, clear_room),
        cmocka_unit_test_setup_teardown(test_many_tensors, make_room, clear_room),
        cmocka_unit_test_setup_teardown(test_kill, make_room, clear_room),
        cmocka_unit_test_setup_teardown(test_split, make_room, clear_room),
        cmocka_unit_test_setup_teardown(test_split_defects, make_room, clear_room),
        cmocka_unit_test_setup_teardown(test_no_memory, make_room, clear_room),
        cmocka_unit_test_setup_teardown(test_no_memory_large, make_room, clear_room),
        cmocka_unit_test_setup_teardown(test_disk_faults, make_room, clear_room),
        cmocka_unit_test_setup_teardown(test_truncated_while_mapped, make_room, clear_room),
        cmocka_unit_test_setup_teardown(test_progress, make_room, clear_room),
        cmocka_unit_test_setup_teardown(test_large_vocabulary, make_room, clear_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
