/* The cache model: distances against simulated caches, whole and in sets; granules, growth, failures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "cache_counts.h"
#include "leaks.h"
#include "theorem/random.h"

static double in_ways(const cache_model *c, uint64_t sets, int ways)
{
    return cache_model_misses(c, (cache_level){.size_bytes = sets * (uint64_t)ways * LINE, .ways = ways});
}

/* ---- simulated caches: sets of lines in the order of their last use ---- */

typedef struct simulated {
    uint64_t n_sets, misses;
    size_t ways;
    uint64_t *lines; /* [n_sets][ways], 0: empty, else the line + 1 */
} simulated;

static simulated new_simulated(uint64_t n_sets, size_t ways)
{
    simulated s = {.n_sets = n_sets, .ways = ways, .lines = mem_calloc(n_sets * ways, sizeof(uint64_t), MEM_MISC)};
    assert_non_null(s.lines);
    return s;
}

static void sim_touch(simulated *s, uint64_t line)
{
    uint64_t *set = s->lines + line % s->n_sets * s->ways;
    size_t at = 0;
    while (at < s->ways - 1 && set[at] != line + 1)
        at++;
    s->misses += set[at] != line + 1;
    memmove(set + 1, set, at * sizeof *set);
    set[0] = line + 1;
}

/* A line of a trace that keeps to some of n lines for a while and wanders off. */
static uint64_t next_line(uint64_t *seed, uint64_t n)
{
    const uint64_t r = random_next(seed), near = r >> 32 & 63, home = r >> 20 & 7;
    return (r & 3) == 0 ? (r >> 40) % n : (home * 97 + near) % n;
}

static void test_distances_are_those_of_lru(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {1, 2, 3, 16, 100, 513, 2048, 2500};
    for (uint64_t n = 4; n <= 4096; n *= 8) {
        cache_model *c = new_model(LINE);
        simulated s[8];
        uint64_t seed = n;
        for (size_t i = 0; i < 8; i++)
            s[i] = new_simulated(1, sizes[i]);
        for (int t = 0; t < 20000; t++) {
            const uint64_t line = next_line(&seed, n);
            cache_model_touch(c, line * LINE + (line & 63), 1);
            for (size_t i = 0; i < 8; i++)
                sim_touch(&s[i], line);
        }
        must_hold(c);
        assert_int_equal(cache_model_touched(c), 20000);
        for (size_t i = 0; i < 8; i++) { /* 2500 has more than 11 bits: it counts as 2502 at most */
            if (sizes[i] <= 2048)
                assert_int_equal((uint64_t)whole(c, sizes[i]), s[i].misses);
            else
                assert_true(fabs(whole(c, sizes[i]) - (double)s[i].misses) <= 0.002 * (double)s[i].misses);
            mem_free(s[i].lines);
        }
        assert_int_equal((uint64_t)whole(c, 8192), cache_model_cold(c));
        assert_int_equal((uint64_t)whole(c, 0), 20000);
        cache_model_free(c);
    }
}

static void test_cyclic_sweeps(void **state)
{
    (void)state;
    cache_model *c = new_model(LINE);
    for (int pass = 0; pass < 10; pass++)
        cache_model_touch(c, 1 << 20, 101 * LINE);
    assert_int_equal((int)whole(c, 100), 1010); /* all miss */
    assert_int_equal((int)whole(c, 101), 101);  /* only the first time */
    assert_int_equal((int)cache_model_cold(c), 101);
    cache_model_note_runs(c, 101 * LINE - 1, 2);
    assert_true(cache_model_loose(c) == 37.0 / 101.0);
    cache_model_restart(c); /* counts, not contents */
    assert_true(cache_model_loose(c) == 1.0);
    cache_model_touch(c, 1 << 20, 101 * LINE);
    assert_int_equal((int)cache_model_touched(c), 101);
    assert_int_equal((int)cache_model_cold(c), 0);
    assert_int_equal((int)whole(c, 101), 0);
    assert_int_equal((int)whole(c, 100), 101);
    must_hold(c);
    cache_model_free(c);
}

/* Large caches: bins are wide there, and sizes of few bits stay exact. */
static void test_wide_bins(void **state)
{
    (void)state;
    cache_model *c = new_model(LINE);
    for (int pass = 0; pass < 3; pass++)
        cache_model_touch(c, 0, 40960 * LINE);
    assert_int_equal((int)whole(c, 40960), 40960);
    assert_int_equal((int)whole(c, 32768), 3 * 40960);
    assert_int_equal((int)whole(c, 40960 - 64), 3 * 40960);
    cache_model_free(c);
}

/* ---- granules ---- */

static void test_ranges_are_cut(void **state)
{
    (void)state;
    cache_model *c = new_model(LINE);
    cache_model_touch(c, 100, 0);
    assert_int_equal((int)cache_model_touched(c), 0);
    cache_model_touch(c, 63, 2); /* two lines */
    cache_model_touch(c, 64, 64);
    assert_int_equal((int)cache_model_touched(c), 3);
    assert_int_equal((int)cache_model_cold(c), 2);
    cache_model_free(c);
    c = new_model(1024);
    cache_model_touch(c, 512, 1024); /* 8 lines and 8 lines */
    cache_model_touch(c, 1024, 100); /* the second again, of which 2 are wanted now */
    assert_int_equal((int)cache_model_touched(c), 18);
    assert_int_equal((int)cache_model_cold(c), 16);
    assert_int_equal((int)whole(c, 2), 16); /* 0 others since */
    cache_model_touch(c, 512, 512);
    assert_int_equal((int)whole(c, 10), 16); /* 2 lines in between and 8 of its own */
    assert_int_equal((int)whole(c, 9), 24);
    must_hold(c);
    cache_model_free(c);
}

/* Arrays of different lengths in turns: coarse granules tell the same as lines. */
static void test_granules_agree(void **state)
{
    (void)state;
    cache_model *fine = new_model(LINE), *coarse = new_model(2048);
    for (int pass = 0; pass < 20; pass++)
        for (uint64_t array = 0; array < 12; array++)
            if (pass % (int)(array + 1) == 0) {
                const size_t n_bytes = (1 + (size_t)array * 7 % 12) * 1536;
                cache_model_touch(fine, array << 20, n_bytes);
                cache_model_touch(coarse, array << 20, n_bytes);
            }
    assert_int_equal(cache_model_touched(fine), cache_model_touched(coarse));
    assert_int_equal(cache_model_cold(fine), cache_model_cold(coarse));
    for (uint64_t lines = 64; lines <= 4096; lines += 64) {
        /* A piece that fits half does not fit: coarse ones miss a little more, never by more than what lies at the edge. */
        assert_true(fabs(whole(coarse, lines) - whole(fine, lines)) <= 0.12 * whole(fine, lines));
    }
    cache_model_free(fine);
    cache_model_free(coarse);
}

/* ---- sets ---- */

static void test_set_full(void **state)
{
    (void)state;
    assert_true(fabs(cache_set_full(2, 2.0, 1) - 0.75) < 1e-12);
    assert_true(fabs(cache_set_full(2, 2.0, 2) - 0.25) < 1e-12);
    assert_true(fabs(cache_set_full(3, 4.0, 2) - 10.0 / 64.0) < 1e-12); /* 3 (1/16) (3/4) + 1/64 */
    assert_true(cache_set_full(7, 64.0, 8) == 0.0);
    assert_true(cache_set_full(8, 1.0, 8) == 1.0);
    assert_true(cache_set_full(1u << 30, 64.0, 8) == 1.0); /* every term is below the least double */
    for (uint64_t n = 8; n < 3000; n++)
        assert_true(cache_set_full(n + 1, 64.0, 8) >= cache_set_full(n, 64.0, 8) - 1e-12);
}

/* Lines that lie by chance: Smith's formula. */
static void test_sets_by_chance(void **state)
{
    (void)state;
    static const size_t ways[] = {1, 4, 8, 12};
    for (size_t i = 0; i < 4; i++) {
        cache_model *c = new_model(LINE);
        simulated s = new_simulated(64, ways[i]);
        uint64_t seed = 5, place = 9, lines[1500];
        for (size_t j = 0; j < 1500; j++)
            lines[j] = random_next(&place) >> 16;
        for (int t = 0; t < 60000; t++) {
            const uint64_t line = lines[next_line(&seed, 1500)];
            cache_model_touch(c, line * LINE, LINE);
            sim_touch(&s, line);
        }
        assert_true(cache_model_loose(c) == 1.0);
        const double model = in_ways(c, 64, (int)ways[i]);
        if (fabs(model - (double)s.misses) > 0.03 * (double)s.misses)
            fail_msg("%zu ways: %.0f misses, simulated %.0f", ways[i], model, (double)s.misses);
        mem_free(s.lines);
        cache_model_free(c);
    }
}

/* One array again and again beside short rows anywhere: the array fills all sets alike, only the rest is chance. */
static void sweep_both(size_t lines_of_array, double *model, double *smith, double *misses)
{
    cache_model *c = new_model(LINE), *plain = new_model(LINE);
    simulated s = new_simulated(64, 12);
    uint64_t seed = 3;
    for (int pass = 0; pass < 200; pass++) {
        uint64_t row[4];
        for (int i = 0; i < 4; i++)
            row[i] = random_next(&seed) >> 20;
        cache_model_note_runs(c, lines_of_array * LINE, 1);
        cache_model_note_runs(c, 5 * LINE, 4);
        for (uint64_t i = 0; i < lines_of_array; i++) {
            const uint64_t part = i * 20 / lines_of_array, line[2] = {i, row[part % 4] + part / 4};
            for (int j = 0; j < 2; j++) {
                cache_model_touch(c, line[j] * LINE, LINE);
                cache_model_touch(plain, line[j] * LINE, LINE);
                sim_touch(&s, line[j]);
            }
        }
    }
    *model = in_ways(c, 64, 12);
    *smith = in_ways(plain, 64, 12);
    *misses = (double)s.misses;
    mem_free(s.lines);
    cache_model_free(c);
    cache_model_free(plain);
}

static void test_sets_of_arrays(void **state)
{
    (void)state;
    static const size_t lines[] = {256, 448, 512, 576, 640, 645, 768, 900};
    for (size_t i = 0; i < 8; i++) {
        double model, smith, misses;
        sweep_both(lines[i], &model, &smith, &misses);
        if (fabs(model - misses) > 0.15 * misses)
            fail_msg("array of %zu lines: %.0f misses, simulated %.0f", lines[i], model, misses);
        if (lines[i] == 576) /* three quarters of the cache */
            assert_true(smith > 5.0 * misses);
    }
}

/* ---- failures ---- */

static void test_bad_arguments(void **state)
{
    (void)state;
    cache_model *c = NULL;
    dil_error err;
    assert_int_equal(cache_model_new(&c, 48, 64, 100, &err), DIL_BAD_ARGUMENT);
    assert_int_equal(cache_model_new(&c, 64, 32, 100, &err), DIL_BAD_ARGUMENT);
    assert_int_equal(cache_model_new(&c, 64, 96, 100, &err), DIL_BAD_ARGUMENT);
    assert_int_equal(cache_model_new(&c, 64, 64, 0, &err), DIL_BAD_ARGUMENT);
    assert_null(c);
    assert_non_null(strstr(err.text, "powers of 2"));
}

static void test_limit(void **state)
{
    (void)state;
    cache_model *c;
    dil_error err;
    assert_int_equal(cache_model_new(&c, LINE, LINE, 1500, &err), DIL_OK);
    cache_model_touch(c, 0, 1500 * LINE);
    must_hold(c);
    cache_model_touch(c, 0, 1500 * LINE); /* nothing new */
    must_hold(c);
    cache_model_touch(c, 1 << 30, LINE);
    assert_int_equal(cache_model_check(c, &err), DIL_LIMIT);
    assert_non_null(strstr(err.text, "1500 pieces"));
    assert_int_equal(cache_model_touched(c), 3000);
    cache_model_free(c);
    c = new_model((size_t)1 << 31); /* 2^25 lines each */
    for (uint64_t i = 0; i < 128; i++)
        cache_model_touch(c, i << 31, (size_t)1 << 31);
    assert_int_equal(cache_model_check(c, &err), DIL_LIMIT);
    cache_model_free(c);
}

static void test_no_memory(void **state)
{
    (void)state;
    dil_error err;
    dil_status status = DIL_NO_MEMORY;
    for (int64_t i = 0; status != DIL_OK; i++) { /* tables for 1024, 2048 and 4096 pieces */
        cache_model *c = NULL;
        mem_inject_failure(i);
        status = cache_model_new(&c, LINE, LINE, MOST, &err);
        if (status == DIL_OK) {
            for (int pass = 0; pass < 2; pass++)
                cache_model_touch(c, 0, 3000 * LINE);
            status = cache_model_check(c, &err);
            const double half = cache_model_misses(c, (cache_level){.size_bytes = 1000 * LINE});
            assert_int_equal((uint64_t)half, cache_model_touched(c)); /* what was counted is right */
        } else {
            assert_null(c);
        }
        mem_inject_failure(-1);
        assert_true(status == DIL_OK || (status == DIL_NO_MEMORY && strlen(err.text) > 0));
        cache_model_free(c);
        assert_true(i < 100);
    }
    cache_model_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distances_are_those_of_lru),
        cmocka_unit_test(test_cyclic_sweeps),
        cmocka_unit_test(test_wide_bins),
        cmocka_unit_test(test_ranges_are_cut),
        cmocka_unit_test(test_granules_agree),
        cmocka_unit_test(test_set_full),
        cmocka_unit_test(test_sets_by_chance),
        cmocka_unit_test(test_sets_of_arrays),
        cmocka_unit_test(test_bad_arguments),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_no_memory),
    };
    return leaks_run_group_tests(tests, NULL, NULL);
}
