/* How a step's items reach the workers: each once, own part first, and what a late worker leaves is taken by the others. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "compute/exec.h"
#include "leaks.h"

enum { WORKERS = 3, ITEMS = 200 };

typedef struct work {
    compute c;
    uint32_t n_items[TEAM_QUEUES];
    atomic_int times[TEAM_QUEUES][ITEMS]; /* each item was taken */
    atomic_int taken[WORKERS];
    int first_part[WORKERS];
    int late; /* sleeps over its first item */
} work;

static void take(void *ctx, int worker)
{
    work *w = ctx;
    uint32_t index;
    w->first_part[worker] = -1;
    while (worker != w->late && atomic_load(&w->taken[w->late]) == 0) /* it must have something to be late with */
        sched_yield();
    for (claims cl = claims_begin(&w->c, worker); claims_next(&cl, w->n_items, &index);) {
        if (w->first_part[worker] < 0)
            w->first_part[worker] = cl.part;
        atomic_fetch_add(&w->times[cl.part][index], 1);
        if (atomic_fetch_add(&w->taken[worker], 1) == 0 && worker == w->late)
            nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    }
}

static void late_workers_hold_nobody_back(void **state)
{
    (void)state;
    dil_error err;
    for (int late = 0; late < WORKERS; late++) {
        static work w;
        w = (work){.late = late};
        assert_int_equal(team_new(&w.c.workers, WORKERS, &err), DIL_OK);
        w.c.n_parts = WORKERS;
        team_set_queues(w.c.workers, WORKERS);
        for (int p = 0; p < WORKERS; p++)
            w.n_items[p] = ITEMS - (uint32_t)p;
        team_run(w.c.workers, take, &w);
        for (int p = 0; p < WORKERS; p++)
            for (uint32_t i = 0; i < ITEMS; i++)
                assert_int_equal(atomic_load(&w.times[p][i]), i < w.n_items[p]);
        assert_int_equal(w.first_part[late], late); /* it begins with its own */
        assert_true(atomic_load(&w.taken[late]) < ITEMS / 2);
        team_free(w.c.workers);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(late_workers_hold_nobody_back)};
    return leaks_run_group_tests(tests, NULL, NULL);
}
