/* Drawings of machines that are not here: boxes close, every node and kind of core is named, and many cores alike become one line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/machine_draw.h"

static machine *synthetic(const char *description)
{
    machine *m = NULL;
    dil_error err = {0};
    dil_status status = machine_topology(&m, &(machine_source){.synthetic = description}, &err);
    if (status == DIL_UNSUPPORTED)
        skip(); /* built without hwloc */
    if (status != DIL_OK)
        fail_msg("%s", err.text);
    return m;
}

/* Every line that begins a frame ends it, all in one column. */
static void assert_closed(const char *text)
{
    int wide = 0;
    for (const char *line = text, *end; *line; line = end + 1) {
        end = strchr(line, '\n');
        assert_non_null(end);
        int columns = 0;
        for (const char *c = line; c < end; c++)
            columns += ((unsigned char)*c & 0xc0) != 0x80;
        if (strncmp(line, "  │", 5) != 0 && strncmp(line, "  ┌", 5) != 0 && strncmp(line, "  └", 5) != 0)
            continue;
        wide = wide ? wide : columns;
        assert_int_equal(columns, wide);
        assert_true(strncmp(end - 3, "│", 3) == 0 || strncmp(end - 3, "┐", 3) == 0 || strncmp(end - 3, "┘", 3) == 0);
    }
    assert_true(wide > 0);
}

/* Of a machine that is not needed any more. [owned: free] */
static char *drawing(machine *m)
{
    char *text = NULL;
    size_t n;
    FILE *out = open_memstream(&text, &n);
    assert_non_null(out);
    machine_draw(out, m, "A processor", NULL);
    assert_int_equal(fclose(out), 0);
    machine_free(m);
    assert_closed(text);
    return text;
}

static int count(const char *text, const char *what)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, what)); at += strlen(what))
        n++;
    return n;
}

static void nodes(void **state)
{
    (void)state;
    machine *m =
        synthetic("package:2 numa:1 l3:1(size=16777216) l2:2(size=1048576) l1:1(size=32768) core:1 pu:2(indexes=0,4,1,5,2,6,3,7)");
    char *text = drawing(m);
    assert_int_equal(count(text, "socket 0, node 0: L3 16 MiB, shared by 2 cores"), 1);
    assert_int_equal(count(text, "socket 1, node 1: L3 16 MiB, shared by 2 cores"), 1);
    assert_int_equal(count(text, "core "), 4);
    assert_int_equal(count(text, " x2"), 4); /* two threads on each */
    assert_int_equal(count(text, "L2 1 MiB"), 4);
    free(text);
}

static void kinds(void **state)
{
    (void)state;
    machine *m = synthetic("l3:1(size=8388608) l2:6(size=524288) l1:1(size=49152) core:1 pu:1");
    m->n_kinds = 2;
    for (int i = 0; i < m->n_cores; i++)
        m->cores[i].kind = i >= 4;
    char *text = drawing(m);
    assert_int_equal(count(text, " slow"), 4);
    assert_int_equal(count(text, " fast"), 2);
    assert_int_equal(count(text, "┌──────────────┐"), 6);
    free(text);
}

static void many(void **state)
{
    (void)state;
    machine *m = synthetic("l3:1(size=134217728) l2:64(size=2097152) l1:1(size=49152) core:1 pu:1");
    char *text = drawing(m);
    assert_int_equal(count(text, "and 60 more like these"), 1);
    assert_int_equal(count(text, "┌──────────────┐"), 4);
    free(text);
    m = synthetic("core:3 pu:1"); /* nothing is known of caches */
    text = drawing(m);
    assert_int_equal(count(text, " 3 cores "), 1);
    assert_int_equal(count(text, "L2 ?"), 3);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nodes), cmocka_unit_test(kinds), cmocka_unit_test(many)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
