/* Catalogs of translations: files made here, byte by byte, whole, cut and damaged; texts of errors go through the translator. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/catalog.h"
#include "base/os.h"
#include "base/status.h"
#include "base/str.h"
#include "leaks.h"

static char directory[256], path[300];

static int make_room(void **state)
{
    (void)state;
    const char *base = os_env("TMPDIR");
    (void)snprintf(directory, sizeof directory, "%s/dil-test-XXXXXX", base && strlen(base) < 200 ? base : "/tmp");
    if (!mkdtemp(directory))
        return -1;
    (void)snprintf(path, sizeof path, "%s/dil.mo", directory);
    return 0;
}

static int clear_room(void **state)
{
    (void)state;
    dil_error err;
    return os_remove_tree(directory, &err) == DIL_OK ? 0 : -1;
}

/* In the order of their bytes, as msgfmt writes them; the first is the header. */
static const char *const originals[] = {"", "%s: cannot open: %s", "no memory", "wanted %d, found %d"};
static const char *const translated[] = {"Language: tr\n", "%s: açılamıyor: %s", "bellek yok", "%d bekleniyordu, %d bulundu"};
enum { N_TEXTS = 4, HEADER = 28 };

static void put(char *bytes, size_t at, uint32_t v) { memcpy(bytes + at, &v, 4); }

/* The file: header, table of originals, table of translations, texts. Returns its size. */
static size_t make_catalog(char bytes[1000])
{
    size_t at = HEADER + 2 * 8 * N_TEXTS;
    memset(bytes, 0, 1000);
    const uint32_t head[] = {0x950412de, 0, N_TEXTS, HEADER, HEADER + 8 * N_TEXTS};
    for (size_t i = 0; i < 5; i++)
        put(bytes, 4 * i, head[i]);
    for (int side = 0; side < 2; side++)
        for (int i = 0; i < N_TEXTS; i++) {
            const char *text = (side ? translated : originals)[i];
            const size_t entry = HEADER + 8 * (size_t)(side * N_TEXTS + i);
            put(bytes, entry, (uint32_t)strlen(text));
            put(bytes, entry + 4, (uint32_t)at);
            memcpy(bytes + at, text, strlen(text) + 1);
            at += strlen(text) + 1;
        }
    return at;
}

static dil_status open_bytes(catalog **c, const char *bytes, size_t n, dil_error *err)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    return catalog_open(c, path, err);
}

static void finds(void **state)
{
    (void)state;
    char bytes[1000];
    dil_error err;
    catalog *c;
    const size_t n = make_catalog(bytes);
    assert_int_equal(open_bytes(&c, bytes, n, &err), DIL_OK);
    for (int i = 1; i < N_TEXTS; i++)
        assert_string_equal(catalog_text(c, originals[i]), translated[i]);
    static const char *const others[] = {"", "a", "no", "no memory ", "~", "wanted %d, found %"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_ptr_equal(catalog_text(c, others[i]), others[i]);
    catalog_close(c);
    catalog_close(NULL);
}

static void refuses(void **state)
{
    (void)state;
    char bytes[1000], whole[1000];
    dil_error err;
    catalog *c = NULL;
    const size_t n = make_catalog(whole);
    assert_int_equal(catalog_open(&c, "/nonexistent/dil.mo", &err), DIL_IO);
    for (size_t cut = 0; cut < n; cut++) {
        assert_int_equal(open_bytes(&c, whole, cut, &err), DIL_FORMAT);
        assert_null(c);
    }
    assert_non_null(strstr(err.text, "wanted a text within the file"));
    put(memcpy(bytes, whole, n), 0, 0xde120495);
    assert_int_equal(open_bytes(&c, bytes, n, &err), DIL_FORMAT);
    put(memcpy(bytes, whole, n), 4, 1u << 16);
    assert_int_equal(open_bytes(&c, bytes, n, &err), DIL_FORMAT);
    put(memcpy(bytes, whole, n), 8, UINT32_MAX);
    assert_int_equal(open_bytes(&c, bytes, n, &err), DIL_FORMAT);
    memcpy(bytes, whole, n); /* two texts in the wrong order */
    memcpy(bytes + HEADER + 8, whole + HEADER + 16, 8);
    memcpy(bytes + HEADER + 16, whole + HEADER + 8, 8);
    assert_int_equal(open_bytes(&c, bytes, n, &err), DIL_FORMAT);
    assert_null(c);
}

/* Whatever one byte becomes: refused, or texts that can be read to their ends. */
static void damaged(void **state)
{
    (void)state;
    char bytes[1000];
    dil_error err;
    const size_t n = make_catalog(bytes);
    for (size_t at = 0; at < n; at++)
        for (int change = 0; change < 3; change++) {
            const char old = bytes[at];
            catalog *c;
            bytes[at] = (char)(change == 0 ? 0xff : change == 1 ? 0 : old ^ 1);
            if (open_bytes(&c, bytes, n, &err) == DIL_OK) {
                for (int i = 0; i < N_TEXTS; i++)
                    assert_true(strlen(catalog_text(c, originals[i])) < n);
                catalog_close(c);
            }
            bytes[at] = old;
        }
}

static const char *upper(const char *text)
{
    return strcmp(text, "%s: wanted %d") == 0 ? "%s: İSTENEN %d" : strcmp(text, "no memory") == 0 ? "BELLEK YOK" : text;
}

static void errors_are_translated(void **state)
{
    (void)state;
    dil_error err;
    DIL_FAIL(&err, DIL_LIMIT, "%s: wanted %d", "x", 5);
    assert_string_equal(err.text, "x: wanted 5");
    assert_string_equal(_("no memory"), "no memory");
    status_translate_with(upper);
    DIL_FAIL(&err, DIL_LIMIT, "%s: wanted %d", "x", 5);
    assert_string_equal(err.text, "x: İSTENEN 5");
    status_prefix(&err, "%s: wanted %d", "y", 6);
    assert_string_equal(err.text, "y: İSTENEN 6x: İSTENEN 5");
    assert_string_equal(_("no memory"), "BELLEK YOK");
    DIL_FAIL(&err, DIL_LIMIT, "%s", _("no memory"));
    assert_string_equal(err.text, "BELLEK YOK");
    status_translate_with(NULL);
    DIL_FAIL(&err, DIL_LIMIT, "no memory");
    assert_string_equal(err.text, "no memory");
}

static void finds_the_program(void **state)
{
    (void)state;
    char dir[4096], file[4200], tiny[3];
    assert_true(os_program_dir(dir, sizeof dir));
    (void)snprintf(file, sizeof file, "%s/test_catalog", dir);
    assert_true(os_exists(file));
    assert_false(os_program_dir(tiny, sizeof tiny));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(finds), cmocka_unit_test(refuses), cmocka_unit_test(damaged),
                                       cmocka_unit_test(errors_are_translated), cmocka_unit_test(finds_the_program)};
    return leaks_run_group_tests(tests, make_room, clear_room);
}
