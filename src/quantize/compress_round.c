/* The matrices rounded, layer by layer on what the layers before have become; what was done before is read back. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "quantize/compress_internal.h"
#include "quantize/round.h"

/* What a matrix is rounded for; w becomes what is left of it. */
typedef struct rounding_input {
    float *w;                    /* [groups][rows of a group][columns] */
    const float *h, *row_weight; /* [groups][parts][part][part], of the columns' parts; [all rows] */
    int groups, parts;
} rounding_input;

void compress_piece_name(const compression *c, const player *q, char out[128])
{
    if (c->attempt == 0)
        snprintf(out, 128, "%.*s", STR_ARG(q->tensor->name));
    else
        snprintf(out, 128, "%.*s, attempt %d", STR_ARG(q->tensor->name), c->attempt + 1);
}

/* Rows that are rounded for the same inputs: as in rounding_input. */
typedef struct rounding_rows {
    dil_type type;
    int rows, columns, parts;
    const float *w, *row_weight, *h;
    uint8_t *to;
    round_report *sum;
} rounding_rows;

/* All columns at once. */
static dil_status round_whole(compression *c, const rounding_rows *in, dil_error *err)
{
    metric *m = NULL;
    round_report r = {0};
    DIL_TRY(metric_new(&m, in->h, in->columns, METRIC_DAMPING, &c->k, c->workers, err));
    round_task t = {.type = in->type,
                    .rows = in->rows,
                    .columns = in->columns,
                    .w = in->w,
                    .row_weight = in->row_weight,
                    .m = m,
                    .most_sweeps = c->o->most_sweeps};
    dil_status status = round_matrix(&t, c->workers, in->to, &r, err);
    metric_free(m);
    DIL_TRY(status);
    round_report_add(in->sum, &r);
    return DIL_OK;
}

static dil_status round_in_parts(compression *c, const rounding_rows *in, dil_error *err)
{
    const size_t part = (size_t)(in->columns / in->parts), n = (size_t)in->rows;
    uint64_t row_bytes, part_bytes;
    (void)format_row_bytes(in->type, (uint64_t)in->columns, &row_bytes);
    (void)format_row_bytes(in->type, part, &part_bytes);
    float *values = mem_alloc(n * part * sizeof *values, MEM_MISC);
    uint8_t *bytes = mem_alloc(n * (size_t)part_bytes, MEM_MISC);
    dil_status status = values && bytes ? DIL_OK : DIL_FAIL(err, DIL_NO_MEMORY, "rounding: no memory for %zu rows of %zu", n, part);
    for (size_t p = 0; status == DIL_OK && p < (size_t)in->parts; p++) {
        rounding_rows here = *in;
        here.columns = (int)part;
        here.w = values;
        here.h = in->h + p * part * part;
        here.to = bytes;
        for (size_t i = 0; i < n; i++)
            memcpy(values + i * part, in->w + i * (size_t)in->columns + p * part, part * sizeof *values);
        status = round_whole(c, &here, err);
        for (size_t i = 0; status == DIL_OK && i < n; i++)
            memcpy(in->to + i * (size_t)row_bytes + p * (size_t)part_bytes, bytes + i * (size_t)part_bytes, (size_t)part_bytes);
    }
    mem_free(values);
    mem_free(bytes);
    return status;
}

/* The matrix in its format: w [groups][rows][columns] -> bytes at c->out + sizeof(round_report), which precede them. */
static dil_status round_player(compression *c, const player *q, const rounding_input *in, dil_error *err)
{
    const dil_type type = q->choice[q->chosen].type;
    const int n = q->n * q->rows / in->groups;
    const size_t values = (size_t)n * (size_t)q->columns, size = (size_t)q->columns * (size_t)(q->columns / in->parts);
    uint64_t row_bytes;
    round_report sum = {0};
    (void)format_row_bytes(type, (uint64_t)q->columns, &row_bytes);
    for (size_t g = 0; g < (size_t)in->groups; g++) {
        const rounding_rows here = {.type = type,
                                    .rows = n,
                                    .columns = q->columns,
                                    .parts = in->parts,
                                    .w = in->w + g * values,
                                    .row_weight = in->row_weight ? in->row_weight + g * (size_t)n : NULL,
                                    .h = in->h + g * size,
                                    .to = c->out + sizeof sum + g * (size_t)row_bytes * (size_t)n,
                                    .sum = &sum};
        if (!grid_get(type))
            format_get(type)->encode(here.w, here.to, values, NULL);
        else
            DIL_TRY(in->parts > 1 ? round_in_parts(c, &here, err) : round_whole(c, &here, err));
    }
    memcpy(c->out, &sum, sizeof sum);
    return DIL_OK;
}

/* The matrix is read back if it was done before, else rounded and kept; w becomes what it decodes to. */
static dil_status settle_player(compression *c, const player *q, const rounding_input *in, dil_error *err)
{
    char name[128];
    const player_choice *choice = &q->choice[q->chosen];
    const size_t n = sizeof(round_report) + (size_t)choice->bytes;
    compress_piece_name(c, q, name);
    if (!work_load(c->work, name, c->out, n)) {
        DIL_TRY(round_player(c, q, in, err));
        DIL_TRY(work_save(c->work, name, c->out, n, err));
    }
    memcpy(&c->matrix[q - c->p.p].round, c->out, sizeof(round_report));
    format_get(choice->type)->decode(c->out + sizeof(round_report), in->w, (size_t)q->n * (size_t)q->rows * (size_t)q->columns);
    return DIL_OK;
}

static bool is_done(compression *c, const player *q)
{
    char name[128];
    compress_piece_name(c, q, name);
    return work_load(c->work, name, c->out, sizeof(round_report) + (size_t)q->choice[q->chosen].bytes);
}

static dil_status settle_stage(compression *c, int layer, walk_stage stage, dil_error *err)
{
    const float *weights[WALK_MOST_LOOKS];
    const size_t groups = (size_t)walk_groups(c->w, stage);
    const int parts = walk_parts(c->w, stage);
    bool all_done = true;
    for (int place = 0; place < NET_PLACES; place++) {
        const player *q = walk_stage_of((net_place)place) == stage ? players_find(&c->p, layer, place) : NULL;
        all_done = all_done && (!q || is_done(c, q));
    }
    int n = all_done ? 0 : sense_weights(c->w, &c->c.fisher, layer, stage, weights);
    walk_look(c->w, stage, weights, n, c->h);
    for (int place = 0; place < NET_PLACES; place++) {
        const player *q = walk_stage_of((net_place)place) == stage ? players_find(&c->p, layer, place) : NULL;
        if (!q)
            continue;
        size_t at = (size_t)sense_look_of(c->w, (net_place)place) * groups * walk_group_floats(c->w, stage);
        const float *row_weight = c->c.fisher.row[place] + (size_t)layer * (size_t)q->n * (size_t)q->rows;
        rounding_input in = {walk_matrix_at(c->w, (net_place)place).w, c->h + at, row_weight, (int)groups, parts};
        c->matrix[q - c->p.p].curvature_columns = q->columns / parts;
        DIL_TRY(settle_player(c, q, &in, err));
    }
    walk_changed(c->w);
    return DIL_OK;
}

/* The embedding comes before all layers, an output matrix of its own is met by float states: its inputs were looked at once. */
static dil_status settle_ends(compression *c, dil_error *err)
{
    const player *embedding = players_find(&c->p, -1, PLACE_EMBEDDING), *output = players_find(&c->p, -1, PLACE_HEAD);
    int n_vocab, n_embd;
    float *words = walk_embedding(c->w, &n_vocab, &n_embd);
    if (embedding)
        DIL_TRY(settle_player(c, embedding,
                              &(rounding_input){words, c->p.tied ? c->c.head : c->c.fisher.input, c->c.fisher.used, 1, 1}, err));
    if (output)
        DIL_TRY(settle_player(c, output, &(rounding_input){walk_head(c->w), c->c.head, c->c.fisher.vocabulary, 1, 1}, err));
    return DIL_OK;
}

dil_status compress_settle(compression *c, dil_error *err)
{
    const int n_layer = (int)walk_hparams(c->w)->n_layer;
    DIL_TRY(compress_tell(c, "rounding", 0, (uint64_t)n_layer + 1, err));
    DIL_TRY(settle_ends(c, err));
    DIL_TRY(walk_begin(c->w, err));
    walk_leave_words(c->w);
    for (int i = 0; i < n_layer; i++) {
        DIL_TRY(compress_tell(c, "rounding", (uint64_t)i + 1, (uint64_t)n_layer + 1, err));
        DIL_TRY(walk_load(c->w, i, err));
        for (int stage = 0; stage < WALK_STAGES; stage++)
            DIL_TRY(settle_stage(c, i, (walk_stage)stage, err));
        walk_advance(c->w);
    }
    return DIL_OK;
}

dil_status compress_load_reports(compression *c, dil_error *err)
{
    char name[128];
    for (int i = 0; i < c->p.n; i++) {
        const player *q = &c->p.p[i];
        compress_piece_name(c, q, name);
        if (!work_load(c->work, name, c->out, sizeof(round_report) + (size_t)q->choice[q->chosen].bytes))
            return DIL_FAIL(err, DIL_IO, "%s: it was written, but cannot be read back; is the disk full?", name);
        memcpy(&c->matrix[i].round, c->out, sizeof(round_report));
    }
    return DIL_OK;
}
