/* Neurons of dense feed-forward networks: a row of gate and of up, a column of down. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "quantize/prune_internal.h"
#include "quantize/surgeon.h"

dil_type prune_down_type(dil_type type) { return format_get(type)->is_quantized ? DIL_TYPE_F16 : type; }

/* Widths stay multiples of 256, which every format fits, unless they were none or that were more than the share: then of 32. */
static int step_of(const pruning *p, int n_ff) { return n_ff % 256 == 0 && p->o->share * n_ff >= 256 ? 256 : 32; }

/* How many go at most. */
static dil_status most_removed(const pruning *p, int n_ff, int *out, dil_error *err)
{
    const int step = step_of(p, n_ff);
    int n = (int)(p->o->share * n_ff + 1e-9), most = (n_ff - 1) / step * step;
    if (n_ff % step)
        return DIL_FAIL(err, DIL_UNSUPPORTED, "%s: feed_forward_length: wanted a multiple of %d, found %d", gguf_path(p->in), step,
                        n_ff);
    n = n / step * step;
    if (n == 0)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT,
                        "neurons: wanted a share of at least %.4f (%d of %d: widths stay multiples of %d), found %g",
                        (double)step / n_ff, step, n_ff, step, p->o->share);
    if (most == 0)
        return DIL_FAIL(err, DIL_UNSUPPORTED, "%s: feed_forward_length: wanted more than %d, found %d", gguf_path(p->in), step,
                        n_ff);
    *out = n < most ? n : most;
    return DIL_OK;
}

/* The down matrix as it will be in the file: values w [rows][n_ff] without the removed columns. */
static dil_status save_down(const pruning *p, int layer, const float *w, dil_error *err)
{
    const player *q = players_find(&p->p, layer, NET_DOWN);
    const dil_type type = prune_down_type(q->tensor->type);
    if (p->o->dry_run)
        return DIL_OK;
    const size_t left = (size_t)(p->plan.n_before - p->plan.n_removed), columns = (size_t)p->plan.n_before;
    char name[128];
    uint64_t row_bytes = 0;
    bool fits = format_row_bytes(type, left, &row_bytes);
    bool *kept = mem_alloc(columns, MEM_MISC);
    float *row = mem_alloc(left * sizeof *row, MEM_MISC);
    uint8_t *bytes = mem_alloc((size_t)row_bytes * (size_t)q->rows, MEM_MISC);
    dil_status status = DIL_OK;
    snprintf(name, sizeof name, "%.*s", STR_ARG(q->tensor->name));
    if (!fits || !kept || !row || !bytes)
        status = DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for %d rows of %zu", name, q->rows, left);
    else
        prune_kept(&p->plan, layer, kept);
    for (size_t r = 0; status == DIL_OK && r < (size_t)q->rows; r++) {
        size_t n = 0;
        for (size_t j = 0; j < columns; j++)
            if (kept[j])
                row[n++] = w[r * columns + j];
        format_get(type)->encode(row, bytes + r * (size_t)row_bytes, left, NULL);
    }
    if (status == DIL_OK)
        status = work_save(p->work, name, bytes, (size_t)row_bytes * (size_t)q->rows, err);
    mem_free(kept);
    mem_free(row);
    mem_free(bytes);
    return status;
}

/* Of a layer too wide for one curvature: columns of each part leave for themselves, as many of each, in turns. */
static dil_status remove_in_parts(const surgeon_task *t, int parts, dil_error *err)
{
    const size_t n = (size_t)(t->columns / parts), step = (size_t)parts;
    float *w = mem_alloc((size_t)t->rows * n * sizeof *w, MEM_MISC);
    int32_t *removed = mem_alloc(n * sizeof *removed, MEM_MISC);
    double *cost = mem_alloc(n * sizeof *cost, MEM_MISC), *last = mem_calloc(step, sizeof *last, MEM_MISC), sum = 0;
    dil_status status =
        w && removed && cost && last ? DIL_OK : DIL_FAIL(err, DIL_NO_MEMORY, "pruning: no memory for %d rows of %zu", t->rows, n);
    for (size_t i = 0; status == DIL_OK && i < step; i++) {
        surgeon_task part = *t;
        part.w = w;
        part.columns = (int)n;
        part.h = t->h + i * n * n;
        part.n_remove = t->n_remove / parts + ((int)i < t->n_remove % parts);
        part.removed = removed;
        part.cost = cost;
        for (size_t r = 0; r < (size_t)t->rows; r++)
            memcpy(w + r * n, t->w + r * (size_t)t->columns + i * n, n * sizeof *w);
        status = surgeon_remove(&part, err);
        for (size_t r = 0; status == DIL_OK && r < (size_t)t->rows; r++)
            memcpy(t->w + r * (size_t)t->columns + i * n, w + r * n, n * sizeof *w);
        for (size_t k = 0; status == DIL_OK && k < (size_t)part.n_remove; k++) {
            t->removed[k * step + i] = removed[k] + (int32_t)(i * n);
            t->cost[k * step + i] = cost[k];
        }
    }
    for (size_t k = 0; status == DIL_OK && k < (size_t)t->n_remove; k++) { /* each part's own so far: their sum */
        sum += t->cost[k] - last[k % step];
        last[k % step] = t->cost[k];
        t->cost[k] = sum;
    }
    mem_free(w);
    mem_free(removed);
    mem_free(cost);
    mem_free(last);
    return status;
}

static dil_status prune_layer(pruning *p, int layer, float *h, bool change, dil_error *err)
{
    const float *weights[WALK_MOST_LOOKS];
    DIL_TRY(walk_load(p->w, layer, err));
    for (int stage = 0; stage < WALK_DOWN; stage++)
        walk_look(p->w, (walk_stage)stage, NULL, 0, h);
    walk_look(p->w, WALK_DOWN, weights, sense_weights(p->w, &p->c.fisher, layer, WALK_DOWN, weights), h);
    walk_matrix down = walk_matrix_at(p->w, NET_DOWN);
    const size_t values = (size_t)down.rows * (size_t)down.columns;
    float *w = mem_alloc(values * sizeof *w, MEM_MISC);
    if (!w)
        return DIL_FAIL(err, DIL_NO_MEMORY, "pruning: no memory for a matrix of %d x %d", down.rows, down.columns);
    memcpy(w, down.w, values * sizeof *w);
    surgeon_task t = {.w = w,
                      .row_weight = p->c.fisher.row[NET_DOWN] + (size_t)layer * (size_t)down.rows,
                      .rows = down.rows,
                      .columns = down.columns,
                      .h = h,
                      .damping = PRUNE_DAMPING,
                      .n_remove = p->plan.n_removed,
                      .workers = p->workers,
                      .removed = p->plan.removed + (size_t)layer * (size_t)p->plan.n_removed,
                      .cost = p->plan.cost + (size_t)layer * (size_t)p->plan.n_removed};
    const int parts = walk_parts(p->w, WALK_DOWN);
    dil_status status = parts > 1 ? remove_in_parts(&t, parts, err) : surgeon_remove(&t, err);
    if (status == DIL_OK && change) {
        status = save_down(p, layer, w, err);
        memcpy(down.w, w, values * sizeof *w);
        walk_changed(p->w);
    }
    mem_free(w);
    if (status == DIL_OK)
        walk_advance(p->w);
    return status;
}

/* A prune_run_fn. */
static dil_status prune_layers(pruning *p, const char *what, bool change, dil_error *err)
{
    const int n_layer = (int)walk_hparams(p->w)->n_layer;
    float *h = sense_room(p->w);
    dil_status status = h ? walk_begin(p->w, err) : DIL_FAIL(err, DIL_NO_MEMORY, "pruning: no memory for what the matrices read");
    for (int i = 0; status == DIL_OK && i < n_layer; i++) {
        status = prune_tell(p, what, (uint64_t)i, (uint64_t)n_layer, err);
        if (status == DIL_OK)
            status = prune_layer(p, i, h, change, err);
    }
    mem_free(h);
    return status;
}

dil_status prune_find_neurons(pruning *p, dil_error *err)
{
    const hparams *h = walk_hparams(p->w);
    const int n_ff = (int)h->n_ff;
    int n = 0;
    if (h->experts.n_experts)
        return DIL_FAIL(err, DIL_UNSUPPORTED, "%s: neurons: wanted dense layers, found %u experts; use --experts", gguf_path(p->in),
                        h->experts.n_experts);
    DIL_TRY(most_removed(p, n_ff, &n, err));
    p->decoded = format_get(players_find(&p->p, 0, NET_DOWN)->tensor->type)->is_quantized;
    return prune_settle(p, PRUNE_NEURONS, n_ff, n, step_of(p, n_ff), 32, prune_layers, err);
}
