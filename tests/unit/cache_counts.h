/* Test helper: a cache model that fails the test when it fails, and its counts in lines. */
#ifndef TESTS_CACHE_COUNTS_H
#define TESTS_CACHE_COUNTS_H

#include <cmocka.h>

#include "tune/cache_model.h"

#define LINE 64
#define MOST ((size_t)1 << 22)

static inline cache_model *new_model(size_t granule)
{
    cache_model *c = NULL;
    dil_error err;
    if (cache_model_new(&c, LINE, granule, MOST, &err) != DIL_OK)
        fail_msg("%s", err.text);
    return c;
}

static inline void must_hold(const cache_model *c)
{
    dil_error err;
    if (cache_model_check(c, &err) != DIL_OK)
        fail_msg("%s", err.text);
}

static inline double whole(const cache_model *c, uint64_t lines)
{
    return cache_model_misses(c, (cache_level){.size_bytes = lines * LINE});
}

#endif
