/* Blocks of weights set to zero in every matrix of every layer. The file stays as large: what they would save is an estimate. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "quantize/blocks.h"
#include "quantize/prune_internal.h"

static dil_status save(const pruning *p, const player *q, const float *w, dil_error *err)
{
    const dil_type type = prune_down_type(q->tensor->type);
    const size_t n = (size_t)q->n * (size_t)q->rows;
    char name[128];
    uint64_t row_bytes = 0;
    if (p->o->dry_run)
        return DIL_OK;
    (void)format_row_bytes(type, (uint64_t)q->columns, &row_bytes);
    uint8_t *bytes = mem_alloc((size_t)row_bytes * n, MEM_MISC);
    snprintf(name, sizeof name, "%.*s", STR_ARG(q->tensor->name));
    if (!bytes)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for %zu rows of %d", name, n, q->columns);
    format_get(type)->encode(w, bytes, n * (size_t)q->columns, NULL);
    dil_status status = work_save(p->work, name, bytes, (size_t)row_bytes * n, err);
    mem_free(bytes);
    return status;
}

/* A part of the columns of a group of rows; w is changed in place, through room for them alone. */
static dil_status prune_columns(pruning *p, float *w, int columns, const blocks_task *part, const float *h, int from,
                                dil_error *err)
{
    const size_t n = (size_t)part->columns;
    metric *m = NULL;
    blocks_task t = *part;
    DIL_TRY(metric_new(&m, h, t.columns, PRUNE_DAMPING, &p->k, p->workers, err));
    t.m = m;
    t.w = mem_alloc((size_t)t.rows * n * sizeof *t.w, MEM_MISC);
    dil_status status = t.w ? DIL_OK : DIL_FAIL(err, DIL_NO_MEMORY, "pruning: no memory for %d rows of %zu", t.rows, n);
    for (size_t i = 0; status == DIL_OK && i < (size_t)t.rows; i++)
        memcpy(t.w + i * n, w + i * (size_t)columns + from, n * sizeof *w);
    if (status == DIL_OK)
        status = blocks_remove(&t, err);
    for (size_t i = 0; status == DIL_OK && i < (size_t)t.rows; i++)
        memcpy(w + i * (size_t)columns + from, t.w + i * n, n * sizeof *w);
    mem_free(t.w);
    metric_free(m);
    return status;
}

/* h [groups][parts][part][part]: of what the groups of rows read. */
static dil_status prune_matrix(pruning *p, const player *q, float *w, const float *h, int groups, int parts, dil_error *err)
{
    const int rows_each = q->n * q->rows / groups, columns = q->columns / parts;
    const float *row_weight = p->c.fisher.row[q->place] + (size_t)q->layer * (size_t)q->n * (size_t)q->rows;
    const int64_t n = (int64_t)rows_each * (columns / BLOCK_COLUMNS);
    for (int i = 0; i < groups * parts; i++) {
        const size_t first = (size_t)(i / parts) * (size_t)rows_each;
        const blocks_task t = {.row_weight = row_weight + first,
                               .rows = rows_each,
                               .columns = columns,
                               .n_remove = (int64_t)(p->o->share * (double)n + 1e-9),
                               .workers = p->workers};
        DIL_TRY(prune_columns(p, w + first * (size_t)q->columns, q->columns, &t, h + (size_t)i * (size_t)columns * (size_t)columns,
                              i % parts * columns, err));
        if (n > INT_MAX - p->plan.n_before)
            return DIL_FAIL(err, DIL_LIMIT, "pruning: wanted a model of at most %d blocks of %d weights", INT_MAX, BLOCK_COLUMNS);
        p->plan.n_before += (int)n;
        p->plan.n_removed += (int)t.n_remove;
    }
    return save(p, q, w, err);
}

static dil_status prune_stage(pruning *p, int layer, walk_stage stage, float *h, dil_error *err)
{
    const float *weights[WALK_MOST_LOOKS];
    const int groups = walk_groups(p->w, stage), parts = walk_parts(p->w, stage);
    walk_look(p->w, stage, weights, sense_weights(p->w, &p->c.fisher, layer, stage, weights), h);
    for (int place = 0; place < NET_PLACES; place++) {
        const player *q = walk_stage_of((net_place)place) == stage ? players_find(&p->p, layer, place) : NULL;
        if (!q)
            continue;
        if (q->columns % BLOCK_COLUMNS)
            return DIL_FAIL(err, DIL_UNSUPPORTED, "%.*s: blocks: wanted rows of a multiple of %d, found %d",
                            STR_ARG(q->tensor->name), BLOCK_COLUMNS, q->columns);
        const size_t at = (size_t)sense_look_of(p->w, (net_place)place) * (size_t)groups * walk_group_floats(p->w, stage);
        p->decoded = p->decoded || format_get(q->tensor->type)->is_quantized;
        DIL_TRY(prune_matrix(p, q, walk_matrix_at(p->w, (net_place)place).w, h + at, groups, parts, err));
    }
    walk_changed(p->w);
    return DIL_OK;
}

dil_status prune_find_blocks(pruning *p, dil_error *err)
{
    const int n_layer = (int)walk_hparams(p->w)->n_layer;
    p->plan = (prune_plan){.kind = PRUNE_BLOCKS};
    float *h = sense_room(p->w);
    dil_status status = h ? walk_begin(p->w, err) : DIL_FAIL(err, DIL_NO_MEMORY, "pruning: no memory for what the matrices read");
    for (int i = 0; status == DIL_OK && i < n_layer; i++) {
        status = prune_tell(p, "pruning", (uint64_t)i, (uint64_t)n_layer, err);
        if (status == DIL_OK)
            status = walk_load(p->w, i, err);
        for (int stage = 0; status == DIL_OK && stage < WALK_STAGES; stage++)
            status = prune_stage(p, i, (walk_stage)stage, h, err);
        if (status == DIL_OK)
            walk_advance(p->w);
    }
    mem_free(h);
    if (status == DIL_OK && p->plan.n_removed == 0)
        status = DIL_FAIL(err, DIL_BAD_ARGUMENT, "blocks: wanted a share of one block of a matrix at least, found %g", p->o->share);
    return status == DIL_OK ? prune_look_again(p, err) : status;
}
