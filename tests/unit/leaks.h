/* Test helper: a group of tests, and behind it the question whether all memory was given back. */
#ifndef TESTS_LEAKS_H
#define TESTS_LEAKS_H

#include "base/mem.h"

static inline void leaks_nothing_left(void **state)
{
    (void)state;
    for (int tag = 0; tag < MEM_TAGS; tag++)
        if (mem_bytes((mem_tag)tag) != 0)
            fail_msg("%zu bytes of '%s' leaked", mem_bytes((mem_tag)tag), mem_tag_name((mem_tag)tag));
}

/* A test, not a teardown: cmocka's exit code does not count those. After a failure it is not asked: an assertion that does not
 * hold leaves its test at once, with what the test had made. */
#define leaks_run_group_tests(tests, setup, teardown) (cmocka_run_group_tests(tests, setup, teardown) ? 1 : leaks_run_last())

static inline int leaks_run_last(void)
{
    const struct CMUnitTest nothing_leaked[] = {cmocka_unit_test(leaks_nothing_left)};
    return cmocka_run_group_tests(nothing_leaked, NULL, NULL);
}

#endif
