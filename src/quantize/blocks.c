#include "quantize/blocks.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"

/* A block, and what it costs. */
typedef struct candidate {
    double cost;
    int64_t at; /* row * blocks of a row + block */
} candidate;

typedef struct removal {
    const blocks_task *t;
    int n_blocks; /* of a row */
    candidate *all;
    bool *gone; /* [rows][n_blocks] */
} removal;

/* Sets values of a block, of columns from .., to 0, one after the other; those behind, n with the block, answer. Returns the cost. */
static double clear_block(const metric *m, int from, float *values, int n)
{
    double cost = 0;
    for (int j = 0; j < BLOCK_COLUMNS; j++) {
        const float error = values[j], *share = m->feedback + (size_t)(from + j) * (size_t)m->n + from;
        values[j] = 0;
        cost += (double)m->importance[from + j] * (double)error * (double)error;
        for (int k = j + 1; k < n; k++)
            values[k] -= error * share[k];
    }
    return cost;
}

static void judge_rows(void *ctx, int worker)
{
    const removal *r = ctx;
    const blocks_task *t = r->t;
    (void)worker;
    for (int row = (int)team_claim(t->workers); row < t->rows; row = (int)team_claim(t->workers))
        for (int b = 0; b < r->n_blocks; b++) {
            float part[BLOCK_COLUMNS];
            const int from = b * BLOCK_COLUMNS;
            const int64_t at = (int64_t)row * r->n_blocks + b;
            const double weight = t->row_weight ? (double)t->row_weight[row] : 1.0;
            memcpy(part, t->w + (size_t)row * (size_t)t->columns + from, sizeof part);
            r->all[at] = (candidate){weight * clear_block(t->m, from, part, BLOCK_COLUMNS), at};
        }
}

static void clear_rows(void *ctx, int worker)
{
    const removal *r = ctx;
    const blocks_task *t = r->t;
    (void)worker;
    for (int row = (int)team_claim(t->workers); row < t->rows; row = (int)team_claim(t->workers))
        for (int b = 0; b < r->n_blocks; b++) {
            const int from = b * BLOCK_COLUMNS;
            if (r->gone[(size_t)row * (size_t)r->n_blocks + (size_t)b])
                (void)clear_block(t->m, from, t->w + (size_t)row * (size_t)t->columns + from, t->columns - from);
        }
}

static int by_cost(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    return x->cost != y->cost ? (x->cost < y->cost ? -1 : 1) : x->at < y->at ? -1 : x->at > y->at;
}

dil_status blocks_remove(const blocks_task *t, dil_error *err)
{
    removal r = {.t = t, .n_blocks = t->columns / BLOCK_COLUMNS};
    const size_t n = (size_t)t->rows * (size_t)r.n_blocks;
    r.all = mem_alloc(n * sizeof *r.all, MEM_MISC);
    r.gone = mem_calloc(n, sizeof *r.gone, MEM_MISC);
    dil_status status = r.all && r.gone ? DIL_OK : DIL_FAIL(err, DIL_NO_MEMORY, "pruning: no memory for %zu blocks", n);
    if (status == DIL_OK) {
        team_run(t->workers, judge_rows, &r);
        qsort(r.all, n, sizeof *r.all, by_cost);
        for (int64_t i = 0; i < t->n_remove && i < (int64_t)n; i++)
            r.gone[r.all[i].at] = true;
        team_run(t->workers, clear_rows, &r);
    }
    mem_free(r.all);
    mem_free(r.gone);
    return status;
}
