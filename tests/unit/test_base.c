/* Memory, checked integers, statuses and strings. UTF-8 is compared with a table-driven reference over every sequence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "base/checked.h"
#include "base/cpu.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "leaks.h"

/* ---- memory ---- */

static bool aligned(const void *p) { return (uintptr_t)p % 64 == 0; }

static void blocks(void **state)
{
    (void)state;
    uint64_t calls = mem_calls();
    static const size_t sizes[] = {0, 1, 63, 64, 65, 1000, 1 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char *p = mem_alloc(sizes[i], MEM_VOCAB);
        assert_non_null(p);
        assert_true(aligned(p));
        memset(p, 0xA5, sizes[i]);
        assert_int_equal(mem_bytes(MEM_VOCAB), sizes[i]);
        p = mem_grow(p, sizes[i] + 100, MEM_VOCAB);
        assert_non_null(p);
        for (size_t j = 0; j < sizes[i]; j++)
            assert_int_equal(p[j], 0xA5);
        assert_int_equal(mem_bytes(MEM_VOCAB), sizes[i] + 100);
        if (sizes[i] > 10) {
            p = mem_grow(p, 10, MEM_VOCAB); /* smaller */
            assert_non_null(p);
            assert_int_equal(p[9], 0xA5);
        }
        mem_free(p);
        assert_int_equal(mem_bytes(MEM_VOCAB), 0);
    }
    assert_true(mem_calls() - calls >= 3 * sizeof sizes / sizeof *sizes - 3);
    unsigned char *zero = mem_calloc(7, 9, MEM_TEXT);
    assert_non_null(zero);
    for (int i = 0; i < 63; i++)
        assert_int_equal(zero[i], 0);
    mem_free(zero);
    mem_free(NULL);
    volatile size_t huge = SIZE_MAX;
    assert_null(mem_alloc(huge, MEM_MISC));
    assert_null(mem_alloc(huge - 64, MEM_MISC));
    assert_null(mem_calloc(huge / 2, 3, MEM_MISC));
    assert_null(mem_map(0, MEM_KV));
    char *region = mem_map(100000, MEM_KV);
    assert_non_null(region);
    assert_int_equal(region[99999], 0);
    region[99999] = 1;
    assert_int_equal(mem_bytes(MEM_KV), 100000);
    mem_unmap(region, 100000, MEM_KV);
    mem_unmap(NULL, 5, MEM_KV);
    for (int tag = 0; tag < MEM_TAGS; tag++)
        assert_true(strlen(mem_tag_name((mem_tag)tag)) > 1);
    assert_string_equal(mem_tag_name((mem_tag)99), "?");
}

static void failures(void **state)
{
    (void)state;
    char *kept = mem_alloc(3, MEM_MISC);
    assert_non_null(kept);
    memcpy(kept, "ab", 3);
    mem_inject_failure(2);
    void *one = mem_alloc(1, MEM_MISC), *two = mem_map(1, MEM_MISC), *three = mem_alloc(1, MEM_MISC);
    assert_true(one && two && !three);
    assert_null(mem_grow(kept, 100, MEM_MISC));
    assert_string_equal(kept, "ab"); /* still valid */
    assert_null(mem_calloc(1, 1, MEM_MISC));
    assert_null(arena_new(MEM_MISC, 100));
    mem_inject_failure(-1);
    mem_free(one);
    mem_unmap(two, 1, MEM_MISC);
    mem_free(kept);
    assert_int_equal(mem_bytes(MEM_MISC), 0);
}

static void arenas(void **state)
{
    (void)state;
    arena *a = arena_new(MEM_FILE, 1 << 20);
    assert_non_null(a);
    unsigned char *first = arena_alloc(a, 1), *second = arena_alloc(a, 0), *third = arena_calloc(a, 5, 13);
    assert_true(first && second && third && first != second && second != third);
    assert_true(aligned(first) && aligned(second) && aligned(third));
    assert_true(second >= first + 64 || second + 64 <= first);
    memset(first, 1, 64); /* the block around an allocation is its own */
    memset(second, 2, 64);
    for (int i = 0; i < 65; i++)
        assert_int_equal(third[i], 0);
    char *copy = arena_strdup(a, "abcdef", 3);
    assert_string_equal(copy, "abc");
    assert_string_equal(arena_strdup(a, NULL, 0), "");
    arena_mark mark = arena_mark_get(a);
    unsigned char *after = arena_alloc(a, 100);
    assert_non_null(after);
    size_t held = arena_bytes(a);
    assert_true(held == mem_bytes(MEM_FILE) || held < mem_bytes(MEM_FILE));
    for (int i = 0; i < 40; i++) {
        unsigned char *p = arena_alloc(a, 10000);
        assert_non_null(p);
        memset(p, 7, 10000);
    }
    assert_true(arena_bytes(a) > held);
    arena_reset(a, mark);
    assert_int_equal(arena_bytes(a), held);
    assert_ptr_equal(arena_alloc(a, 100), after); /* the same place again */
    assert_string_equal(copy, "abc");
    assert_int_equal(first[63], 1);
    arena_reset(a, (arena_mark){0, 0});
    assert_int_equal(arena_bytes(a), 0);
    assert_non_null(arena_alloc(a, 10));
    arena_free(a);
    arena_free(NULL);
}

static void arena_limits(void **state)
{
    (void)state;
    static const size_t limits[] = {0, 1, 63, 64, 100, 65536, 200000, 1 << 20};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        arena *a = arena_new(MEM_FILE, limits[i]);
        assert_non_null(a);
        size_t taken = 0;
        for (void *p; (p = arena_alloc(a, 64)); taken += 64)
            memset(p, 9, 64);
        assert_true(arena_bytes(a) <= limits[i]);
        assert_true(taken <= limits[i] && taken + 64 > limits[i] / 2); /* most of it can be used */
        assert_null(arena_alloc(a, limits[i] + 1));
        assert_null(arena_alloc(a, SIZE_MAX));
        assert_null(arena_alloc(a, SIZE_MAX - 70));
        assert_null(arena_calloc(a, SIZE_MAX / 2, 3));
        assert_null(arena_strdup(a, "x", SIZE_MAX));
        arena_free(a);
    }
    arena *a = arena_new(MEM_FILE, SIZE_MAX / 2);
    assert_non_null(a);
    for (int i = 0; i < 3000; i++) /* far more blocks than fit without growing them */
        assert_non_null(arena_alloc(a, 4096));
    mem_inject_failure(0);
    assert_null(arena_alloc(a, 64 << 20));
    mem_inject_failure(-1);
    assert_non_null(arena_alloc(a, 64));
    arena_free(a);
}

/* ---- integers, statuses, processor ---- */

static void integers(void **state)
{
    (void)state;
    uint64_t r = 5;
    size_t s = 5;
    assert_true(checked_mul_u64(UINT32_MAX, UINT32_MAX, &r) && r == 18446744065119617025u);
    assert_false(checked_mul_u64(1ull << 32, 1ull << 32, &r));
    assert_true(checked_mul_u64(0, UINT64_MAX, &r) && r == 0);
    assert_true(checked_add_u64(UINT64_MAX - 1, 1, &r) && r == UINT64_MAX);
    assert_false(checked_add_u64(UINT64_MAX, 1, &r));
    assert_true(checked_mul_size(3, 4, &s) && s == 12);
    assert_false(checked_mul_size(SIZE_MAX / 2, 3, &s));
    assert_false(checked_add_size(SIZE_MAX, 1, &s));
    assert_true(checked_round_up_u64(65, 64, &r) && r == 128);
    assert_true(checked_round_up_u64(0, 64, &r) && r == 0);
    assert_true(checked_round_up_u64(UINT64_MAX - 63, 64, &r) && r == UINT64_MAX - 63);
    assert_false(checked_round_up_u64(UINT64_MAX - 62, 64, &r));
    assert_int_equal(round_up_size(33, 32), 64);
    assert_int_equal(round_up_size(30, 12), 36);
}

static void statuses(void **state)
{
    (void)state;
    dil_error err;
    char longest[800];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(DIL_FAIL(&err, DIL_LIMIT, "a %d %s", 5, "b"), DIL_LIMIT);
    assert_string_equal(err.text, "a 5 b");
    assert_int_equal(status_prefix(&err, "%s: ", "file"), DIL_LIMIT);
    assert_string_equal(err.text, "file: a 5 b");
    assert_int_equal(DIL_FAIL(&err, DIL_IO, "%s", longest), DIL_IO);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    assert_int_equal(status_prefix(&err, "%s", longest), DIL_IO);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    status_clear(&err);
    assert_int_equal(err.code, DIL_OK);
    assert_string_equal(err.text, "");
    status_clear(NULL);
    assert_int_equal(DIL_FAIL(NULL, DIL_BUSY, "nobody reads this"), DIL_BUSY);
    assert_string_equal(status_name(DIL_NO_MEMORY), "out of memory");
    assert_string_equal(status_name(DIL_INTERNAL), "internal error");
    assert_string_equal(status_name((dil_status)77), "unknown status");
    assert_true(strlen(cpu_name()) > 0);
    uint32_t cpu = cpu_features();
    assert_true(!(cpu & CPU_AVX512) || (cpu & CPU_AVX2));
}

/* ---- strings ---- */

static void slices(void **state)
{
    (void)state;
    assert_true(str_equal(STR(""), str_of(NULL)));
    assert_true(str_equal(STR("ab"), str_of("ab")));
    assert_false(str_equal(STR("ab"), STR("abc")));
    assert_true(str_starts(STR("abc"), STR("")));
    assert_true(str_starts(STR("abc"), STR("ab")));
    assert_false(str_starts(STR("a"), STR("ab")));
    assert_true(str_ends(STR("abc"), STR("bc")));
    assert_false(str_ends(STR("c"), STR("bc")));
    assert_int_equal(str_find(STR("hello"), STR("l")), 2);
    assert_int_equal(str_find(STR("hello"), STR("")), 0);
    assert_int_equal(str_find(STR("hello"), STR("hello!")), -1);
    assert_int_equal(str_find(STR("a\0b"), STR("b")), 2);
    assert_int_equal(str_find(STR("abc"), STR("x")), -1);
    assert_true(str_equal_nocase("Q4_K", "q4_k"));
    assert_false(str_equal_nocase("Q4", "q4_k"));
    assert_false(str_equal_nocase("\xc3\x87", "\xc3\xa7")); /* ASCII only */
    assert_true(str_equal_nocase("", ""));
}

static void buffers(void **state)
{
    (void)state;
    strbuf b = STRBUF(1000);
    assert_true(str_equal(strbuf_str(&b), STR("")));
    strbuf_add(&b, "abc", 3);
    strbuf_add_char(&b, 'd');
    strbuf_add_str(&b, STR("ef"));
    strbuf_printf(&b, "-%d-%s", 42, "x");
    assert_string_equal(b.p, "abcdef-42-x");
    strbuf_add(&b, NULL, 0);
    char *before = b.p;
    strbuf_clear(&b);
    assert_ptr_equal(b.p, before);
    assert_string_equal(b.p, "");
    for (int i = 0; i < 1000; i++)
        strbuf_add_char(&b, 'x');
    assert_false(b.failed);
    assert_int_equal(b.n, 1000);
    assert_int_equal(b.p[1000], 0);
    strbuf_add_char(&b, 'y');
    assert_true(b.failed);
    assert_int_equal(b.n, 1000);
    strbuf_add(&b, "", 0); /* stays failed */
    assert_true(b.failed);
    strbuf_free(&b);
    assert_false(b.failed);
    strbuf_printf(&b, "%01005d", 1);
    assert_true(b.failed);
    strbuf_free(&b);
    strbuf_add(&b, "x", SIZE_MAX); /* the sum would overflow: nothing is read */
    assert_true(b.failed);
    strbuf_free(&b);
    mem_inject_failure(0);
    strbuf_add_char(&b, 'x');
    mem_inject_failure(-1);
    assert_true(b.failed);
    strbuf_add_char(&b, 'x');
    assert_int_equal(b.n, 0);
    strbuf_free(&b);
    strbuf unlimited = STRBUF(SIZE_MAX);
    for (int i = 0; i < 300; i++)
        strbuf_add(&unlimited, "0123456789", 10);
    assert_false(unlimited.failed);
    assert_int_equal(unlimited.n, 3000);
    strbuf_free(&unlimited);
}

static void numbers(void **state)
{
    (void)state;
    static const char *const bad_ints[] = {
        "",    " 1",  "\t1", "\n1", "1 ", "1x", "x", "0x10", "1.0", "9223372036854775808", "-9223372036854775809",
        "--1", "+-1", "+",   "-"};
    static const char *const bad_floats[] = {"",    " 1", "\t1", "\v1", "1 ",    "1,5",    "1.5x",
                                             "nan", "x",  ".",   "e5",  "1e999", "-1e999", "0x1p3"};
    static const char *const bad_bytes[] = {"",    "-1",  " 1",   "\t1",       "1 k", "k",   "1kk", "1kx",
                                            "nan", "inf", "1e30", "16777216T", "1bk", "+-1", "0x10"};
    int64_t i = 77;
    double f = 77;
    uint64_t bytes = 77;
    for (size_t n = 0; n < sizeof bad_ints / sizeof *bad_ints; n++)
        if (str_to_i64(bad_ints[n], &i))
            fail_msg("'%s' is no integer", bad_ints[n]);
    for (size_t n = 0; n < sizeof bad_floats / sizeof *bad_floats; n++)
        if (str_to_f64(bad_floats[n], &f))
            fail_msg("'%s' is no number", bad_floats[n]);
    for (size_t n = 0; n < sizeof bad_bytes / sizeof *bad_bytes; n++)
        if (str_to_bytes(bad_bytes[n], &bytes))
            fail_msg("'%s' is no size", bad_bytes[n]);
    assert_false(str_to_i64(NULL, &i) || str_to_f64(NULL, &f) || str_to_bytes(NULL, &bytes));
    assert_true(i == 77 && f == 77.0 && bytes == 77);
    assert_true(str_to_i64("-9223372036854775808", &i) && i == INT64_MIN);
    assert_true(str_to_i64("9223372036854775807", &i) && i == INT64_MAX);
    assert_true(str_to_i64("007", &i) && i == 7);
    assert_true(str_to_f64("-1.5e3", &f) && f == -1500.0);
    assert_true(str_to_f64(".25", &f) && f == 0.25);
    assert_true(str_to_f64("1e-400", &f) && f == 0.0);
    assert_true(str_to_f64("-inf", &f) && f < 0 && isinf(f)); /* a bias that forbids */
    static const struct {
        const char *text;
        uint64_t bytes;
    } sizes[] = {{"512", 512},
                 {"64k", 65536},
                 {"64K", 65536},
                 {"2M", 2097152},
                 {"1.5G", 1610612736},
                 {"3GiB", 3221225472},
                 {"3gib", 3221225472},
                 {"10MB", 10485760},
                 {"1t", 1099511627776},
                 {"5B", 5},
                 {"0", 0},
                 {"0.5k", 512}};
    for (size_t n = 0; n < sizeof sizes / sizeof *sizes; n++)
        if (!str_to_bytes(sizes[n].text, &bytes) || bytes != sizes[n].bytes)
            fail_msg("'%s': wanted %llu, found %llu", sizes[n].text, (unsigned long long)sizes[n].bytes, (unsigned long long)bytes);
}

static void byte_texts(void **state)
{
    (void)state;
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {{0, "0 B"},
                 {999, "999 B"},
                 {1000, "1.00 kB"},
                 {1500, "1.50 kB"},
                 {9999, "10.0 kB"},
                 {12345, "12.3 kB"},
                 {999949, "999.9 kB"},
                 {999999, "1.00 MB"},
                 {1234567890, "1.23 GB"},
                 {5000000000000, "5.00 TB"},
                 {5000000000000000, "5000.0 TB"}};
    char out[32], small[4];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(str_bytes(cases[i].bytes, out, sizeof out), cases[i].text);
    assert_int_equal(strlen(str_bytes(UINT64_MAX, small, sizeof small)), 3);
}

/* ---- UTF-8 ---- */

/* Table 3-7 of the Unicode standard: the well-formed byte sequences. */
static const struct {
    unsigned char lo[4], hi[4];
    int length;
} well_formed[] = {
    {{0x00}, {0x7F}, 1},
    {{0xC2, 0x80}, {0xDF, 0xBF}, 2},
    {{0xE0, 0xA0, 0x80}, {0xE0, 0xBF, 0xBF}, 3},
    {{0xE1, 0x80, 0x80}, {0xEC, 0xBF, 0xBF}, 3},
    {{0xED, 0x80, 0x80}, {0xED, 0x9F, 0xBF}, 3},
    {{0xEE, 0x80, 0x80}, {0xEF, 0xBF, 0xBF}, 3},
    {{0xF0, 0x90, 0x80, 0x80}, {0xF0, 0xBF, 0xBF, 0xBF}, 4},
    {{0xF1, 0x80, 0x80, 0x80}, {0xF3, 0xBF, 0xBF, 0xBF}, 4},
    {{0xF4, 0x80, 0x80, 0x80}, {0xF4, 0x8F, 0xBF, 0xBF}, 4},
};

/* Length of the sequence that begins p; 0: none; -1: cut by the end, more bytes could complete it. */
static int reference_length(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < sizeof well_formed / sizeof *well_formed; i++) {
        size_t same = 0;
        while (same < n && (int)same < well_formed[i].length && p[same] >= well_formed[i].lo[same] &&
               p[same] <= well_formed[i].hi[same])
            same++;
        if ((int)same == well_formed[i].length)
            return well_formed[i].length;
        if (same == n && n > 0)
            return -1;
    }
    return 0;
}

static void check_sequence(const unsigned char *p, size_t n)
{
    uint32_t code = 0;
    int wanted = reference_length(p, n), found = utf8_decode((const char *)p, n, &code);
    if (found != (wanted > 0 ? wanted : 0))
        fail_msg("%02x %02x %02x %02x (%zu bytes): wanted length %d, found %d", p[0], p[1], p[2], p[3], n, wanted, found);
    if (found > 0) {
        char back[4];
        if (utf8_encode(code, back) != found || memcmp(back, p, (size_t)found) != 0)
            fail_msg("%02x %02x %02x %02x: decoded to U+%04X, which encodes differently", p[0], p[1], p[2], p[3], code);
    }
    size_t tail = 0; /* the longest end that is the begin of something */
    for (size_t back = 1; back <= 3 && back <= n; back++)
        if (reference_length(p + n - back, back) == -1)
            tail = back;
    str s = {(const char *)p, n};
    if (utf8_incomplete_tail(s) != tail)
        fail_msg("%02x %02x %02x %02x (%zu bytes): wanted an incomplete tail of %zu, found %zu", p[0], p[1], p[2], p[3], n, tail,
                 utf8_incomplete_tail(s));
}

/* Every sequence of up to three bytes; of four, every lead with bytes at the edges of all ranges. */
static void utf8_sequences(void **state)
{
    (void)state;
    static const unsigned char edges[] = {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF,
                                          0xC0, 0xC2, 0xDF, 0xE0, 0xED, 0xF0, 0xF4, 0xFF};
    unsigned char p[4] = {0};
    uint32_t code;
    assert_int_equal(utf8_decode("", 0, &code), 0);
    assert_int_equal(utf8_incomplete_tail(STR("")), 0);
    for (int a = 0; a < 256; a++)
        for (int b = 0; b < 256; b++) {
            p[0] = (unsigned char)a, p[1] = (unsigned char)b, p[2] = p[3] = 0;
            check_sequence(p, 1);
            check_sequence(p, 2);
            for (size_t c = 0; c < (a >= 0xE0 ? 256 : sizeof edges); c++) {
                p[2] = a >= 0xE0 ? (unsigned char)c : edges[c];
                check_sequence(p, 3);
                for (size_t d = 0; a >= 0xEF && d < sizeof edges; d++) {
                    p[3] = edges[d];
                    check_sequence(p, 4);
                }
            }
        }
}

static void utf8_widths(void **state)
{
    (void)state;
    assert_int_equal(utf8_columns(STR("")), 0);
    assert_int_equal(utf8_columns(STR("belirteç")), 8);
    assert_int_equal(utf8_columns(STR("İğüşöçıI")), 8);
    assert_int_equal(utf8_columns(STR("a\xff\xc3")), 3);
    assert_int_equal(utf8_cut(STR("çığ"), 0), 0);
    assert_int_equal(utf8_cut(STR("çığ"), 2), 4);
    assert_int_equal(utf8_cut(STR("çığ"), 9), 6);
}

static void utf8_codes(void **state)
{
    (void)state;
    char out[4];
    uint32_t back;
    for (uint32_t code = 0; code < 0x120000; code++) {
        int n = utf8_encode(code, out);
        bool good = code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
        if ((n > 0) != good || (good && (utf8_decode(out, (size_t)n, &back) != n || back != code)))
            fail_msg("U+%04X", code);
    }
    assert_int_equal(utf8_encode(UINT32_MAX, out), 0);
    assert_true(utf8_valid(STR("")) && utf8_valid(STR("a\xc3\xa7\xe2\x82\xac\xf0\x9f\x98\x80")));
    assert_false(utf8_valid(STR("a\xc3")) || utf8_valid(STR("\x80")) || utf8_valid(STR("\xed\xa0\x80")) ||
                 utf8_valid(STR("ok\xff")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks),       cmocka_unit_test(failures),       cmocka_unit_test(arenas),
        cmocka_unit_test(arena_limits), cmocka_unit_test(integers),       cmocka_unit_test(statuses),
        cmocka_unit_test(slices),       cmocka_unit_test(buffers),        cmocka_unit_test(numbers),
        cmocka_unit_test(byte_texts),   cmocka_unit_test(utf8_sequences), cmocka_unit_test(utf8_codes),
        cmocka_unit_test(utf8_widths),
    };
    return leaks_run_group_tests(tests, NULL, NULL);
}
