/* Reading other programs' benchmark tables, and the interval of a median. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "evaluate/peer.h"
#include "evaluate/statistics.h"

static void parsed(const char *text, int n_wanted, const peer_row *wanted)
{
    peer_row rows[8];
    int32_t n = 0;
    dil_error err = {0};
    if (peer_parse(text, rows, 8, &n, &err) != DIL_OK)
        fail_msg("%s", err.text);
    assert_int_equal(n, n_wanted);
    for (int i = 0; i < n; i++) {
        assert_int_equal(rows[i].n_prompt, wanted[i].n_prompt);
        assert_int_equal(rows[i].n_gen, wanted[i].n_gen);
        assert_int_equal(rows[i].depth, wanted[i].depth);
        assert_float_equal(rows[i].tokens_per_second, wanted[i].tokens_per_second, 1e-6);
    }
}

static void peer_json(void **state)
{
    (void)state;
    const peer_row two[] = {{512, 0, 0, 123.5}, {0, 128, 4096, 7}};
    parsed("warming up [1/2]\n[\n {\"n_prompt\": 512, \"n_gen\": 0, \"avg_ts\": 123.5, \"samples_ts\": [1, 2]},\n"
           " {\"n_prompt\": 0, \"n_gen\": 128, \"n_depth\": 4096, \"avg_ts\": 7}\n]\ndone {}\n",
           2, two);
    parsed(
        "{\"n_prompt\": 512, \"n_gen\": 0, \"avg_ts\": 123.5}\n{\"n_prompt\": 0, \"n_gen\": 128, \"n_depth\": 4096, \"avg_ts\": 7}\n",
        2, two);
}

static void peer_csv(void **state)
{
    (void)state;
    parsed(
        "build,model,n_prompt,n_gen,n_depth,avg_ts,stddev_ts\r\n\"a,b\",\"x\",\"512\",\"0\",\"0\",\"99.25\",\"0.1\"\r\n\"a\",\"x\",0,128,16,5,0\n",
        2, (const peer_row[]){{512, 0, 0, 99.25}, {0, 128, 16, 5}});
    parsed("n_prompt,n_gen,avg_ts\n8,4,2.5\n", 1, (const peer_row[]){{8, 4, 0, 2.5}});
}

static void peer_md(void **state)
{
    (void)state;
    parsed(
        "| model | size | test |              t/s |\n| --- | ---: | ---: | ---: |\n| llama Q4_1 | 92 MiB | pp512 | 296.11 \xc2\xb1 1.20 |\n"
        "| llama | 92 MiB | tg128 @ d4096 | 20.5 \xc2\xb1 0.0 |\n| llama | 92 MiB | pp8+tg4 | 3 |\n\nbuild: 1\n",
        3, (const peer_row[]){{512, 0, 0, 296.11}, {0, 128, 4096, 20.5}, {8, 4, 0, 3}});
}

static void peer_broken(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "nothing",
        "[",
        "[[[[",
        "[{\"n_prompt\": 5}]",
        "[{\"n_prompt\": -5, \"n_gen\": 0, \"avg_ts\": 1}]",
        "[{\"n_prompt\": 5, \"n_gen\": 0, \"avg_ts\": 0}]",
        "[{\"n_prompt\": 99999999999, \"n_gen\": 0, \"avg_ts\": 1}]",
        "| test | t/s |\n| xx5 | 1 |\n| pp | 1 |\n| pp5 |\n||\n|",
        "n_prompt,avg_ts\n5\n5,\n,5\nx,y\n\"",
        "avg_ts\n1\n",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        peer_row rows[2];
        int32_t n = -7;
        dil_error err = {0};
        assert_int_equal(peer_parse(texts[i], rows, 2, &n, &err), DIL_FORMAT);
        assert_int_equal(n, -7);
        assert_non_null(strstr(err.text, "llama-bench"));
    }
    peer_row one;
    int32_t n;
    dil_error err;
    assert_int_equal(peer_parse("n_prompt,n_gen,avg_ts\n8,0,1\n9,0,2\n", &one, 1, &n, &err), DIL_OK);
    assert_int_equal(n, 1);
}

static void interval(void **state)
{
    (void)state;
    double one[] = {3}, five[] = {5, 1, 4, 2, 3}, nine[] = {9, 8, 7, 6, 5, 4, 3, 2, 1}, many[100];
    median_interval m = statistics_median(one, 1);
    assert_true(m.median == 3 && m.low == 3 && m.high == 3 && m.coverage == 0);
    m = statistics_median(five, 5);
    assert_true(m.median == 3 && m.low == 1 && m.high == 5);
    assert_float_equal(m.coverage, 0.9375, 1e-12);
    m = statistics_median(nine, 9); /* the textbook's: second smallest to second largest, 96.1 % */
    assert_true(m.median == 5 && m.low == 2 && m.high == 8);
    assert_float_equal(m.coverage, 0.9609375, 1e-12);
    for (int i = 0; i < 100; i++)
        many[i] = 100 - i;
    m = statistics_median(many, 100); /* ranks 40 and 61: 96.5 % */
    assert_true(m.median == 50.5 && m.low == 40 && m.high == 61);
    assert_float_equal(m.coverage, 0.9648, 1e-4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peer_json),   cmocka_unit_test(peer_csv), cmocka_unit_test(peer_md),
        cmocka_unit_test(peer_broken), cmocka_unit_test(interval),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
