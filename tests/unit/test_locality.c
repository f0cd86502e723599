/* Measures of routing on sequences short enough to be followed by hand, and against plain simulations. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "leaks.h"
#include "theorem/random.h"
#include "train/locality.h"

static uint64_t seed = 5;
static double uniform(void) { return (double)(random_next(&seed) >> 11) * 0x1p-53; }

static void near(const char *what, double a, double b, double most)
{
    if (!(fabs(a - b) <= most))
        fail_msg("%s: %.9g and %.9g differ by more than %g", what, a, b, most);
}

static locality measure(const loss_input *in, const locality_options *o)
{
    locality out;
    dil_error err;
    if (locality_measure(in, o, &out, &err) != DIL_OK)
        fail_msg("%s", err.text);
    return out;
}

static const float zeros[64 * 16];

/* 0 1 2 0 1 3 0 1 in caches of 1, 2, 3 and 4. LRU 2: always the one that comes next has just gone. LRU 3: 0 and 1 twice each.
 * Belady 2: 2 takes the place of 1 (needed later than 0), 0 is hit; 1 takes the place of 2, 3 that of 1 or 0: one more hit. */
static void caches(void **state)
{
    (void)state;
    static const int16_t chosen[] = {0, 1, 2, 0, 1, 3, 0, 1};
    loss_input in = {1, 8, 4, 1, zeros, chosen, NULL, NULL};
    locality_options o = {.capacities = {1, 2, 3, 4}, .n_capacities = 4};
    locality l = measure(&in, &o);
    static const double lru[] = {0, 0, 4, 4}, belady[] = {0, 2, 4, 4};
    for (int c = 0; c < 4; c++) {
        near("LRU", l.lru[c], lru[c] / 8, 1e-12);
        near("Belady", l.belady[c], belady[c] / 8, 1e-12);
    }
}

/* 0 1 | 1 0 with room for both: two hits when the cache lives on, none when it does not. */
static void kept_or_not(void **state)
{
    (void)state;
    static const int16_t chosen[] = {0, 1, 1, 0};
    loss_input in = {2, 2, 4, 1, zeros, chosen, NULL, NULL};
    locality_options o = {.capacities = {2}, .n_capacities = 1};
    locality l = measure(&in, &o);
    near("LRU", l.lru[0], 0.0, 0.0);
    near("Belady", l.belady[0], 0.0, 0.0);
    o.keep = true;
    l = measure(&in, &o);
    near("LRU", l.lru[0], 0.5, 1e-12);
    near("Belady", l.belady[0], 0.5, 1e-12);
    o.capacities[0] = 1;
    l = measure(&in, &o);
    near("LRU", l.lru[0], 0.25, 1e-12);
    near("Belady", l.belady[0], 0.25, 1e-12);
}

/* The best number of hits from access i on with this set held: everything tried. */
static int most_hits(const int16_t *chosen, int n, int i, unsigned held, int capacity)
{
    if (i == n)
        return 0;
    unsigned me = 1u << chosen[i];
    if (held & me)
        return 1 + most_hits(chosen, n, i + 1, held, capacity);
    if (__builtin_popcount(held) < capacity)
        return most_hits(chosen, n, i + 1, held | me, capacity);
    int best = 0;
    for (unsigned e = 1; e <= held; e <<= 1)
        if (held & e) {
            int hits = most_hits(chosen, n, i + 1, (held & ~e) | me, capacity);
            best = hits > best ? hits : best;
        }
    return best;
}

static int lru_hits(const int16_t *chosen, int n, int capacity)
{
    int hits = 0;
    for (int i = 0; i < n; i++) {
        bool seen[16] = {false};
        int others = 0;
        for (int j = i - 1; j >= 0; j--) {
            if (chosen[j] == chosen[i]) {
                hits += others < capacity;
                break;
            }
            others += !seen[chosen[j]];
            seen[chosen[j]] = true;
        }
    }
    return hits;
}

static void random_caches(void **state)
{
    (void)state;
    for (int again = 0; again < 30; again++) {
        int16_t chosen[2 * 7 * 2];
        int hits[2][3] = {{0}};
        for (int i = 0; i < 28; i += 2) {
            chosen[i] = (int16_t)(uniform() * 6);
            chosen[i + 1] = (int16_t)((chosen[i] + 1 + (int)(uniform() * 5)) % 6);
        }
        loss_input in = {2, 7, 6, 2, zeros, chosen, NULL, NULL};
        locality_options o = {.capacities = {2, 3, 5}, .n_capacities = 3};
        locality l = measure(&in, &o);
        for (int c = 0; c < 3; c++)
            for (int s = 0; s < 2; s++) {
                hits[0][c] += lru_hits(chosen + 14 * s, 14, o.capacities[c]);
                hits[1][c] += most_hits(chosen + 14 * s, 14, 0, 0, o.capacities[c]);
            }
        for (int c = 0; c < 3; c++) {
            near("LRU", l.lru[c], hits[0][c] / 28.0, 1e-12);
            near("Belady", l.belady[c], hits[1][c] / 28.0, 1e-12);
        }
    }
}

static void windows(void **state)
{
    (void)state;
    int16_t chosen[40];
    for (int i = 0; i < 40; i++)
        chosen[i] = (int16_t)(i < 16 ? i % 3 : i < 32 ? i % 8 : 9); /* 3, 8, and a window that is not whole */
    loss_input in = {1, 40, 16, 1, zeros, chosen, NULL, NULL};
    locality_options o = {0};
    near("windows", measure(&in, &o).distinct, 5.5, 1e-12);
    in.n_sequences = 4;
    in.n_tokens = 10; /* 0..9: 3; 10..19: 0 1 2 and 3; 20..29: 8; 30, 31: 6 and 7, then 9 */
    near("short sequences", measure(&in, &o).distinct, (3 + 4 + 8 + 3) / 4.0, 1e-12);
}

/* Experts on two axes, 8 on each: 7 neighbours are the rest of the axis. */
static void candidates(void **state)
{
    (void)state;
    float rows[16 * 2];
    for (int e = 0; e < 16; e++) {
        rows[2 * e] = (float)(e % 2 ? 0.01 * e : 1.0);
        rows[2 * e + 1] = (float)(e % 2 ? 1.0 : 0.01 * e);
    }
    static const int16_t chosen[] = {0,  2, /* both even */ 4, 6,          /* in */ 8, 1,           /* half */ 3,
                                     14, /* all are in */
                                     1,  3, /* first */ 5,     7 /* in */, 0,          2 /* not */, 0,
                                     2 /* in */};
    loss_input in = {2, 4, 16, 2, zeros, chosen, NULL, NULL};
    locality_options o = {.rows = rows, .n_embd = 2};
    locality l = measure(&in, &o);
    near("inside", l.inside, 4.0 / 6, 1e-12);
    near("recalled", l.recalled, 9.0 / 12, 1e-12);
    near("candidates", l.candidates, (8 + 8 + 16 + 8 + 8 + 8) / 6.0, 1e-12);
    o.rows = NULL;
    l = measure(&in, &o);
    near("inside", l.inside, 1.0 / 6, 1e-12);
    near("recalled", l.recalled, 2.0 / 12, 1e-12);
    near("candidates", l.candidates, 2.0, 1e-12);
    in.n_sequences = 8;
    in.n_tokens = 1;
    near("nothing before", measure(&in, &o).inside, 0.0, 0.0);
}

static void prices(void **state)
{
    (void)state;
    static const float z[] = {4, 3, 2, 1, /**/ 1, 2, 3, 4, /**/ 1, 1, 1, 1}, price[] = {0, 1.5f, 0, 0};
    static const int16_t chosen[] = {0, 2, 3, 2, 0, 2};
    loss_input in = {1, 3, 4, 2, z, chosen, price, NULL};
    locality_options o = {.recency = 0.5f};
    locality l = measure(&in, &o); /* token 0: 0 2 and 0 1; token 1: 3 2 both; token 2: 0 2 and 0 1 */
    near("agreement", l.agreement, 4.0 / 6, 1e-12);
    double gap = 0.0;
    for (int t = 0; t < 3; t++) {
        double sum = 0.0, priced = 0.0, mean = 0.0;
        for (int e = 0; e < 4; e++) {
            sum += exp((double)z[4 * t + e]);
            priced += exp((double)z[4 * t + e] - (double)price[e]);
        }
        for (int e = 0; e < 4; e++)
            mean += exp((double)z[4 * t + e]) / sum * (double)price[e];
        gap += (mean + log(priced / sum)) / 3;
    }
    near("exploitability", l.exploitability, gap, 1e-6);
    near("violation", l.violation, 1.0, 1e-12); /* three of six choices fell on 2 */
    in.price = NULL;
    l = measure(&in, &o);
    near("agreement", l.agreement, 1.0, 0.0);
    near("exploitability", l.exploitability, 0.0, 0.0);
}

static void bad_calls(void **state)
{
    (void)state;
    static const int16_t chosen[8] = {0};
    float rows[4] = {1, 2, 3, NAN};
    loss_input in = {1, 8, 4, 1, zeros, chosen, NULL, NULL};
    locality_options o = {.capacities = {2, 0}, .n_capacities = 2};
    locality out;
    dil_error err;
    assert_int_equal(locality_measure(&in, &o, &out, &err), DIL_BAD_ARGUMENT);
    assert_non_null(strstr(err.text, "at least 1"));
    o.n_capacities = 9;
    assert_int_equal(locality_measure(&in, &o, &out, &err), DIL_BAD_ARGUMENT);
    o = (locality_options){.rows = rows, .n_embd = 1};
    assert_int_equal(locality_measure(&in, &o, &out, &err), DIL_BAD_ARGUMENT);
    for (int64_t after = 0; after < 6; after++) {
        mem_inject_failure(after);
        assert_int_equal(locality_measure(&in, &o, &out, &err), DIL_NO_MEMORY);
    }
    mem_inject_failure(-1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(caches),     cmocka_unit_test(kept_or_not), cmocka_unit_test(random_caches), cmocka_unit_test(windows),
        cmocka_unit_test(candidates), cmocka_unit_test(prices),      cmocka_unit_test(bad_calls),
    };
    return leaks_run_group_tests(tests, NULL, NULL);
}
