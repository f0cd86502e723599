/* The thread team: every chunk claimed once, barriers that order memory, many short runs, sleeping and waking, failing starts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/threads.h"

static const int sizes[] = {1, 2, 3, 5, 16};
#define N_SIZES (sizeof sizes / sizeof *sizes)

static team *new_team(int n)
{
    team *t;
    dil_error err;
    if (team_new(&t, n, &err) != DIL_OK)
        fail_msg("%s", err.text);
    assert_int_equal(team_size(t), n);
    return t;
}

static void pause_ms(int ms)
{
    struct timespec wait = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    (void)nanosleep(&wait, NULL);
}

/* ---- claims and barriers ---- */

#define N_CHUNKS 97
#define N_ROUNDS 40

typedef struct round_work {
    team *t;
    uint32_t taken[N_ROUNDS][N_CHUNKS]; /* plain memory: the barrier alone makes it visible */
    uint32_t wrong[TEAM_MAX];
    atomic_uint workers_seen;
} round_work;

/* Each round adds to what the round before left, so that a missing barrier or a claim handed out twice shows. */
static void take_rounds(void *ctx, int worker)
{
    round_work *w = ctx;
    atomic_fetch_or(&w->workers_seen, 1u << worker);
    for (int round = 0; round < N_ROUNDS; round++) {
        uint32_t last = 0;
        bool first = true;
        for (uint32_t chunk; (chunk = team_claim(w->t)) < N_CHUNKS; first = false) {
            w->wrong[worker] += !first && chunk <= last;
            last = chunk;
            w->taken[round][chunk] += round == 0 ? 1 : w->taken[round - 1][N_CHUNKS - 1 - chunk];
        }
        team_barrier(w->t);
    }
}

static void claims_and_barriers(void **state)
{
    (void)state;
    static round_work w;
    for (size_t i = 0; i < N_SIZES; i++) {
        team *t = new_team(sizes[i]);
        for (int again = 0; again < 5; again++) {
            memset(&w, 0, sizeof w);
            w.t = t;
            team_run(t, take_rounds, &w);
            assert_int_equal(w.workers_seen, (1u << sizes[i]) - 1);
            for (int worker = 0; worker < sizes[i]; worker++)
                assert_int_equal(w.wrong[worker], 0);
            for (int round = 0; round < N_ROUNDS; round++)
                for (int chunk = 0; chunk < N_CHUNKS; chunk++)
                    assert_int_equal(w.taken[round][chunk], 1);
        }
        team_free(t);
    }
}

/* Claims that run past the end do not reach into the next step, nor into the next run. */
typedef struct leftover {
    team *t;
    uint32_t first[2];
} leftover;

static void claim_many(void *ctx, int worker)
{
    leftover *l = ctx;
    for (int step = 0; step < 2; step++) {
        for (int i = 0; i < 1000; i++) {
            uint32_t c = team_claim(l->t);
            if (c == 0)
                l->first[step]++; /* exactly one worker draws 0 */
        }
        team_barrier(l->t);
    }
    (void)worker;
}

static void claims_start_over(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SIZES; i++) {
        team *t = new_team(sizes[i]);
        leftover l = {.t = t};
        for (int run = 0; run < 10; run++)
            team_run(t, claim_many, &l);
        assert_int_equal(l.first[0], 10);
        assert_int_equal(l.first[1], 10);
        team_free(t);
    }
}

/* ---- many short runs ---- */

static void count_one(void *ctx, int worker) { ((uint64_t(*)[8])ctx)[worker][0]++; }

static void short_runs(void **state)
{
    (void)state;
    static uint64_t counts[TEAM_MAX][8];
    for (size_t i = 0; i < N_SIZES; i++) {
        uint64_t n = sizes[i] > 4 ? 300 : 20000;
        team *t = new_team(sizes[i]);
        memset(counts, 0, sizeof counts);
        for (uint64_t run = 0; run < n; run++)
            team_run(t, count_one, counts);
        for (int worker = 0; worker < sizes[i]; worker++)
            assert_int_equal(counts[worker][0], n);
        team_free(t);
    }
}

/* ---- sleeping ---- */

typedef struct slow_work {
    team *t;
    int slow;
    uint64_t sum;
    uint64_t parts[TEAM_MAX];
} slow_work;

/* One worker is late at every barrier, so the others fall asleep on it. */
static void late_worker(void *ctx, int worker)
{
    slow_work *w = ctx;
    for (int round = 0; round < 3; round++) {
        if (worker == w->slow)
            pause_ms(8);
        w->parts[worker] += (uint64_t)worker + 1;
        team_barrier(w->t);
        if (worker == 0)
            for (int i = 0; i < team_size(w->t); i++)
                w->sum += w->parts[i];
        team_barrier(w->t);
    }
}

static void sleepers_wake(void **state)
{
    (void)state;
    for (int slow = 0; slow < 5; slow++) {
        team *t = new_team(5);
        slow_work w = {.t = t, .slow = slow};
        for (int run = 0; run < 2; run++) {
            pause_ms(run * 20); /* long enough for all to sleep between runs */
            team_run(t, late_worker, &w);
        }
        assert_int_equal(w.sum, 15 * (1 + 2 + 3 + 4 + 5 + 6));
        team_free(t);
    }
}

/* ---- pinning ---- */

static int load_to_report;
static int reported_load(void) { return load_to_report; }

static void look_at_processors(void *ctx, int worker) { ((os_affinity *)ctx)[worker] = os_thread_affinity(); }

static int n_allowed(const os_affinity *a)
{
    int n = 0;
    for (size_t i = 0; i < a->n_bytes; i++)
        n += __builtin_popcount(a->mask[i]);
    return n;
}

/* Workers sit on their processors while nobody else wants to run, and only then. */
static void pinned_when_alone(void **state)
{
    (void)state;
    static os_affinity seen[3];
    os_affinity before = os_thread_affinity();
    int cpu = 0;
    while (!(before.mask[cpu / 8] >> cpu % 8 & 1))
        cpu++;
    team *t = new_team(3);
    team_run(t, look_at_processors, seen); /* all have started */
    team_pin(t, (const int[]){cpu, cpu, cpu}, reported_load);
    const int loads[] = {3, 4, 2, 0, 1};
    for (size_t i = 0; i < sizeof loads / sizeof *loads; i++) {
        load_to_report = loads[i];
        pause_ms(300); /* the load is looked at four times a second */
        team_run(t, look_at_processors, seen);
        bool alone = loads[i] > 0 && loads[i] <= 3;
        for (int worker = 1; worker < 3; worker++) {
            assert_int_equal(n_allowed(&seen[worker]), alone ? 1 : n_allowed(&before));
            assert_true(seen[worker].mask[cpu / 8] >> cpu % 8 & 1);
        }
        assert_memory_equal(seen[0].mask, before.mask, before.n_bytes); /* the caller is left alone */
    }
    team_free(t);
}

/* A run of some takes these and no others; who is hindered is told by two looks at the load in a row. */
static void some_of_the_team(void **state)
{
    (void)state;
    static uint64_t counts[TEAM_MAX][8];
    static os_affinity seen[4];
    team *t = new_team(4);
    memset(counts, 0, sizeof counts);
    for (int n = 1; n <= 4; n++)
        for (int run = 0; run < 100; run++)
            team_run_some(t, n, count_one, counts);
    for (int worker = 0; worker < 4; worker++)
        assert_int_equal(counts[worker][0], 100 * (4 - worker));
    team_run(t, look_at_processors, seen);
    assert_int_equal(team_unhindered(t), 4); /* never asked for the load: not told to mind it */
    team_pin(t, (const int[]){0, 0, 0, 0}, reported_load);
    const int loads[] = {1, 3, 3, 9, 9, 1}, free_workers[] = {4, 4, 2, 2, 1, 4};
    for (size_t i = 0; i < sizeof loads / sizeof *loads; i++) {
        load_to_report = loads[i];
        pause_ms(300);
        assert_int_equal(team_unhindered(t), free_workers[i]);
    }
    team_free(t);
}

static double cpu_seconds(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void idle_teams_burn_nothing(void **state)
{
    (void)state;
    static uint64_t counts[TEAM_MAX][8];
    team *t = new_team(8);
    team_run(t, count_one, counts);
    double used = 1.0; /* on a busy machine it takes a while until the last of them sleeps; one that spins never does */
    for (int i = 0; i < 100 && used >= 0.05; i++) {
        double before = cpu_seconds();
        pause_ms(200);
        used = cpu_seconds() - before;
    }
    assert_true(used < 0.05);
    team_free(t);
}

static void freeing(void **state)
{
    (void)state;
    static uint64_t counts[TEAM_MAX][8];
    team_free(NULL);
    for (int i = 0; i < 60; i++) { /* never run, just run, asleep */
        team *t = new_team(1 + i % 7);
        if (i % 3 > 0)
            team_run(t, count_one, counts);
        if (i % 3 == 2)
            pause_ms(3);
        team_free(t);
    }
    assert_int_equal(mem_bytes(MEM_MISC), 0);
}

/* ---- refused ---- */

static void refused(void **state)
{
    (void)state;
    dil_error err;
    team *t = NULL;
    assert_int_equal(team_new(&t, 0, &err), DIL_BAD_ARGUMENT);
    assert_non_null(strstr(err.text, "wanted 1..256, found 0"));
    assert_int_equal(team_new(&t, -3, &err), DIL_BAD_ARGUMENT);
    assert_int_equal(team_new(&t, TEAM_MAX + 1, &err), DIL_BAD_ARGUMENT);
    mem_inject_failure(0);
    assert_int_equal(team_new(&t, 2, &err), DIL_NO_MEMORY);
    mem_inject_failure(-1);
    for (int n = 0; n < 5; n++) { /* the n-th thread does not start */
        os_inject_failure(n);
        assert_int_equal(team_new(&t, 6, &err), DIL_IO);
        os_inject_failure(-1);
        assert_non_null(strstr(err.text, "of 6"));
    }
    assert_null(t);
    assert_int_equal(mem_bytes(MEM_MISC), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(claims_and_barriers),     cmocka_unit_test(claims_start_over), cmocka_unit_test(short_runs),
        cmocka_unit_test(sleepers_wake),           cmocka_unit_test(pinned_when_alone), cmocka_unit_test(some_of_the_team),
        cmocka_unit_test(idle_teams_burn_nothing), cmocka_unit_test(freeing),           cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
