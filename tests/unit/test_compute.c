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
#include "tiny_model.h"

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

/* ---- experts ---- */

#define MIX_ROWS 512
#define MIX_EXPERTS 16u
#define MIX_USED 2
#define MIX_SLOTS (MIX_ROWS * MIX_USED)

/* One expert that everybody takes leaves no worker idle: it is cut in blocks, and every worker gets its share of all rows. */
static void popular_expert(void **state)
{
    (void)state;
    static uint16_t chosen[MIX_SLOTS];
    static int32_t slot_of[MIX_SLOTS], row_of[MIX_SLOTS], first_slot[MIX_EXPERTS + 1], round_first[MIX_EXPERTS + 2];
    static expert_block blocks[MIX_EXPERTS + MIX_SLOTS / LEAST_TOKEN_CHUNK + 1];
    hparams h = {.experts = {.n_experts = MIX_EXPERTS, .n_used = MIX_USED}};
    for (int parts = 1; parts <= 8; parts++) {
        static compute c;
        c = (compute){.h = &h, .n = MIX_ROWS, .n_parts = parts, .n_workers = parts, .tuning.tile[STEP_EXPERTS] = {8, 64}};
        c.moe = (expert_batch){.chosen = chosen,
                               .slot_of = slot_of,
                               .row_of = row_of,
                               .first_slot = first_slot,
                               .blocks = blocks,
                               .round_first = round_first,
                               .held_layer = -1};
        for (int row = 0; row < MIX_ROWS; row++) {
            chosen[row * MIX_USED] = 3;
            chosen[row * MIX_USED + 1] = (uint16_t)(row % 3 ? 4 : 5 + row % 11);
        }
        moe_prepare(&c, &(step){.layer = 0});
        assert_int_equal(c.moe.n_rounds, 1);
        int32_t next = 0;
        for (int p = 0; p < parts; p++) {
            int32_t rows = 0;
            for (int32_t i = c.moe.part_block[p]; i < c.moe.part_block[p + 1]; i++) {
                const expert_block *b = &c.moe.blocks[i];
                assert_int_equal(b->slot, next); /* each slot once */
                assert_true(b->n > 0 && b->n <= 64);
                for (int32_t slot = b->slot; slot < b->slot + b->n; slot++) {
                    int32_t at = row_of[slot] * MIX_USED;
                    assert_true(slot_of[at] == slot ? chosen[at] == b->expert
                                                    : chosen[at + 1] == b->expert && slot_of[at + 1] == slot);
                }
                next += b->n;
                rows += b->n;
            }
            int32_t fair = MIX_SLOTS / parts;
            assert_in_range(rows, fair * 2 / 3 - 32, fair + 72); /* to a block */
        }
        assert_int_equal(next, MIX_SLOTS);
    }
}

/* ---- few bits of keys ---- */

enum { DIM = 64 };

/* Squared error of q k over a page of keys, stored in the type as they are or turned. */
static double score_error(const kernels *k, dil_type type, bool turned)
{
    static float scratch[KV_PAGE * DIM], scores[KV_PAGE];
    static uint8_t page[KV_PAGE * DIM * 4];
    float q[DIM], keys[KV_PAGE][DIM], out[KV_PAGE];
    double exact[KV_PAGE] = {0}, error = 0.0;
    uint32_t random = 9;
    for (int d = 0; d < DIM; d++)
        q[d] = tiny_uniform(&random);
    for (int j = 0; j < KV_PAGE; j++) {
        for (int d = 0; d < DIM; d++) {
            keys[j][d] = tiny_uniform(&random) * (d == 3 || d == 40 ? 25.0f : 1.0f);
            exact[j] += (double)q[d] * (double)keys[j][d];
        }
        if (turned)
            k->hadamard(keys[j], DIM);
        k->kv_store_k(type, page, j, keys[j], DIM);
    }
    if (turned)
        k->hadamard(q, DIM);
    k->kv_load_k(type, page, DIM, KV_PAGE, scratch);
    for (int j = 0; j < KV_PAGE; j++) {
        double score = 0.0;
        for (int d = 0; d < DIM; d++)
            score += (double)q[d] * (double)scratch[d * KV_PAGE + j];
        error += pow(score - exact[j], 2);
    }
    return error;
}

/* Dims much larger than the others of their block cost the others their bits, unless they are spread over all. */
static void outliers_are_spread(void **state)
{
    (void)state;
    kernels k;
    dil_error err;
    assert_int_equal(kernels_select(&k, "auto", &err), DIL_OK);
    static const dil_type types[] = {DIL_TYPE_F32, DIL_TYPE_F16, DIL_TYPE_BF16, DIL_TYPE_Q8_0, DIL_TYPE_Q4_0};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        bool few_bits = i >= 3;
        assert_int_equal(kv_turned(types[i]), few_bits);
        if (few_bits)
            assert_true(score_error(&k, types[i], true) < score_error(&k, types[i], false) / 8.0);
    }
}

/* What was said of fetching ahead comes to the products of one token, and where nothing was said what the kernels have. */
static int ahead_found;

static void note_ahead(const linear_args *a) { ahead_found = a->ahead; }

static void products_fetch_ahead(void **state)
{
    (void)state;
    static compute c;
    kernels k = {.ahead = 4096, .token_tile = 6, .token_chunk = 258, .panel_chunk = 8};
    hparams h = {.n_head = 4, .n_head_kv = 4, .head_dim = 64, .head_dim_v = 64};
    const weight w = {.type = DIL_TYPE_Q8_0, .rows = PANEL_ROWS, .cols = 32};
    worker_scratch ws = {0};
    float y[PANEL_ROWS];
    dil_error err;
    k.linear[DIL_TYPE_Q8_0] = (linear_kernels){note_ahead, note_ahead};
    k.gemm_from[DIL_TYPE_Q8_0] = 5;
    c = (compute){.k = &k, .h = &h};
    assert_int_equal(team_new(&c.workers, 1, &err), DIL_OK);
    static const struct {
        int32_t said, wanted;
    } cases[] = {{0, 4096}, {1, 1}, {8192, 8192}, {1 << 20, 1 << 16}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        compute_tune(&c, &(compute_tuning){.ahead = cases[i].said});
        linear(&c, &w, NULL, 0, 1, 0, 1, y, PANEL_ROWS, &ws);
        assert_int_equal(ahead_found, cases[i].wanted);
    }
    team_free(c.workers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(late_workers_hold_nobody_back), cmocka_unit_test(popular_expert),
                                       cmocka_unit_test(outliers_are_spread), cmocka_unit_test(products_fetch_ahead)};
    return leaks_run_group_tests(tests, NULL, NULL);
}
