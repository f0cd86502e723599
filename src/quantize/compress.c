#include "quantize/compress.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "quantize/convert.h"
#include "quantize/importance.h"
#include "quantize/measure.h"

#define HELD_SEQUENCES 8 /* at the end of the text, for measuring */
#define BUDGET_SPENT 0.9 /* share of a budget that is enough: nothing smaller is tried */
#define BUDGET_AIM 0.96  /* what attempts aim at */

typedef struct compression {
    const compress_options *o;
    gguf *in;
    players p;
    team *workers;
    kernels k;
    walk *w;
    work *work;
    calibration c;
    compress_matrix *matrix;
    int attempt;    /* of a budget */
    int64_t n_text; /* tokens of the whole text */
    int n_held;     /* sequences left for measuring */
    float *h;       /* for looks */
    uint8_t *out;   /* room for the report and the bytes of the largest matrix */
    size_t out_bytes;
} compression;

static dil_status tell(const compression *c, const char *what, uint64_t done, uint64_t total, dil_error *err)
{
    if (c->o->progress && !c->o->progress(c->o->user, what, done, total))
        return DIL_FAIL(err, DIL_CANCELLED, "quantize: cancelled; what was found so far is kept for --resume");
    return DIL_OK;
}

/* ---- rounding ---- */

static void add_report(round_report *sum, const round_report *r)
{
    sum->plain += r->plain;
    sum->fed += r->fed;
    sum->cost += r->cost;
    sum->power += r->power;
    sum->n_codes += r->n_codes;
    sum->moved += r->moved;
    sum->n_sweeps = r->n_sweeps > sum->n_sweeps ? r->n_sweeps : sum->n_sweeps;
}

/* What a matrix is rounded for; w becomes what is left of it. */
typedef struct rounding_input {
    float *w;                    /* [groups][rows of a group][columns] */
    const float *h, *row_weight; /* [groups][parts][part][part], of the columns' parts; [all rows] */
    int groups, parts;
} rounding_input;

/* Of this attempt. */
static void piece_name(const compression *c, const player *q, char out[128])
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
    add_report(in->sum, &r);
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
    piece_name(c, q, name);
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
    piece_name(c, q, name);
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

static dil_status settle(compression *c, dil_error *err)
{
    const int n_layer = (int)walk_hparams(c->w)->n_layer;
    DIL_TRY(tell(c, "rounding", 0, (uint64_t)n_layer + 1, err));
    DIL_TRY(settle_ends(c, err));
    DIL_TRY(walk_begin(c->w, err));
    for (int i = 0; i < n_layer; i++) {
        DIL_TRY(tell(c, "rounding", (uint64_t)i + 1, (uint64_t)n_layer + 1, err));
        DIL_TRY(walk_load(c->w, i, err));
        for (int stage = 0; stage < WALK_STAGES; stage++)
            DIL_TRY(settle_stage(c, i, (walk_stage)stage, err));
        walk_advance(c->w);
    }
    return DIL_OK;
}

/* ---- the file ---- */

static dil_type type_of(const compression *c, const gguf_tensor *t)
{
    for (int i = 0; i < c->p.n; i++)
        if (c->p.p[i].tensor == t)
            return c->p.p[i].choice[c->p.p[i].chosen].type;
    return convert_tensor_type(t, DIL_TYPE_F16);
}

/* general.file_type: of the format with the most weights. */
static uint32_t file_type(const compression *c)
{
    uint64_t values[DIL_TYPE_COUNT] = {0}, most = 0;
    uint32_t out = 0, found;
    for (int i = 0; i < c->p.n; i++) {
        const player *q = &c->p.p[i];
        dil_type type = q->choice[q->chosen].type;
        values[type] += (uint64_t)q->n * (uint64_t)q->rows * (uint64_t)q->columns;
        if (values[type] > most && convert_file_type(type, &found)) {
            most = values[type];
            out = found;
        }
    }
    return out;
}

static dil_status write_tensor(compression *c, gguf_writer *w, const gguf_tensor *t, dil_error *err)
{
    char name[128];
    for (int i = 0; i < c->p.n; i++) {
        const player *q = &c->p.p[i];
        if (q->tensor != t)
            continue;
        size_t n = (size_t)q->choice[q->chosen].bytes;
        piece_name(c, q, name);
        if (!work_load(c->work, name, c->out, sizeof(round_report) + n))
            return DIL_FAIL(err, DIL_IO, "%s: it was written, but cannot be read back; is the disk full?", name);
        return gguf_writer_data(w, c->out + sizeof(round_report), n, err);
    }
    if (type_of(c, t) == t->type)
        return gguf_writer_data(w, t->data, (size_t)t->size_bytes, err);
    size_t n = (size_t)(t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]);
    float *values = mem_alloc(n * sizeof *values, MEM_MISC);
    if (!values)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%.*s: no memory for %zu values", STR_ARG(t->name), n);
    format_get(t->type)->decode(t->data, values, n);
    dil_status status = gguf_writer_data(w, values, n * sizeof *values, err);
    mem_free(values);
    return status;
}

static dil_status write_all(compression *c, gguf_writer *w, dil_error *err)
{
    static const char *const ours[] = {"general.file_type", "general.quantization_version"};
    DIL_TRY(gguf_writer_copy_values(w, c->in, ours, 2, err));
    DIL_TRY(gguf_writer_set_u32(w, ours[0], file_type(c), err));
    DIL_TRY(gguf_writer_set_u32(w, ours[1], 2, err));
    for (uint64_t i = 0; i < gguf_n_tensors(c->in); i++) {
        const gguf_tensor *t = gguf_tensor_at(c->in, i);
        DIL_TRY(gguf_writer_add_tensor(w, t->name, type_of(c, t), t->n_dims, t->ne, err));
    }
    for (uint64_t i = 0; i < gguf_n_tensors(c->in); i++)
        DIL_TRY(write_tensor(c, w, gguf_tensor_at(c->in, i), err));
    return DIL_OK;
}

static dil_status write_file(compression *c, const char *path, dil_error *err)
{
    gguf_writer *w = NULL;
    DIL_TRY(gguf_writer_new(&w, path, err));
    dil_status status = write_all(c, w, err);
    if (status == DIL_OK)
        return gguf_writer_finish(w, err);
    gguf_writer_abort(w);
    return status;
}

/* ---- choosing formats ---- */

static dil_status choose_like(compression *c, dil_error *err)
{
    gguf *other = NULL;
    gguf_options header = {.header_only = true};
    DIL_TRY(gguf_open(&other, c->o->like, &header, err));
    dil_status status = DIL_OK;
    for (int i = 0; status == DIL_OK && i < c->p.n; i++) {
        char name[128];
        snprintf(name, sizeof name, "%.*s", STR_ARG(c->p.p[i].tensor->name));
        const gguf_tensor *t = gguf_tensor_find(other, name);
        if (!t || t->ne[0] != (uint64_t)c->p.p[i].columns || t->ne[1] != (uint64_t)c->p.p[i].rows)
            status = DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: tensor '%s': wanted one of %d x %d, found %s", c->o->like, name,
                              c->p.p[i].rows, c->p.p[i].columns, t ? "another shape" : "none");
        else
            player_fix(&c->p.p[i], t->type);
    }
    gguf_close(other);
    return status;
}

static uint64_t wanted_size(const compression *c)
{
    if (c->o->size_bytes)
        return c->o->size_bytes;
    return c->p.fixed_bytes + (uint64_t)((double)players_values(&c->p) * c->o->bits / 8.0) + (uint64_t)c->p.n * 16;
}

/* The cost of the format each player was given, where it was measured. */
static double cost_of(const players *measured, int i, dil_type type)
{
    for (int j = 0; j < measured->p[i].n_choices; j++)
        if (measured->p[i].choice[j].type == type)
            return measured->p[i].choice[j].cost;
    return (double)NAN;
}

/* What could be had at other sizes, from the smallest to the largest. */
static dil_status draw_curve(compression *c, allocate_goal goal, compress_report *r, dil_error *err)
{
    double least = 0, most = 0;
    for (int i = 0; i < c->p.n; i++) {
        least += (double)c->p.p[i].choice[0].bytes;
        most += (double)c->p.p[i].choice[c->p.p[i].n_choices - 1].bytes;
    }
    for (int i = 0; i < COMPRESS_CURVE; i++) {
        double part = (double)(i + 1) / (COMPRESS_CURVE + 1), size = least * pow(most / least, part);
        goal.file_bytes = c->p.fixed_bytes + (uint64_t)size + (uint64_t)c->p.n * 32;
        DIL_TRY(allocate_size(&c->p, &goal, &r->curve[r->n_curve++], err));
    }
    return DIL_OK;
}

/* allowed: expected divergence, of a budget. */
static dil_status choose(compression *c, double allowed, compress_report *r, dil_error *err)
{
    if (c->o->bits > 0 || c->o->size_bytes || c->o->budget > 0) {
        const allocate_goal goal = {.file_bytes = wanted_size(c),
                                    .second_price = c->o->second_price,
                                    .model = recipe_model_of(walk_hparams(c->w), &c->p)};
        if (r->n_curve == 0)
            DIL_TRY(draw_curve(c, goal, r, err));
        DIL_TRY(c->o->budget > 0 ? allocate_cost(&c->p, allowed, &goal, &r->allocation, err)
                                 : allocate_size(&c->p, &goal, &r->allocation, err));
        r->allocated = true;
        r->second_price = c->o->second_price;
    } else {
        players measured = c->p;
        measured.p = mem_alloc((size_t)c->p.n * sizeof *measured.p, MEM_MISC);
        if (!measured.p)
            return DIL_FAIL(err, DIL_NO_MEMORY, "quantize: no memory for %d matrices", c->p.n);
        memcpy(measured.p, c->p.p, (size_t)c->p.n * sizeof *measured.p);
        dil_status status = c->o->like ? choose_like(c, err) : DIL_OK;
        for (int i = 0; status == DIL_OK && i < c->p.n; i++) {
            if (!c->o->like)
                player_fix(&c->p.p[i], c->o->type);
            c->p.p[i].choice[0].cost = cost_of(&measured, i, c->p.p[i].choice[0].type);
        }
        mem_free(measured.p);
        DIL_TRY(status);
    }
    r->predicted = players_cost(&c->p);
    return DIL_OK;
}

/* ---- the whole ---- */

/* Of everything the result depends on; not of the number of threads. */
static uint64_t key_of(const gguf *in, const char *in_path, const compress_options *o)
{
    const struct {
        double bits, budget, distance, second_price;
        uint64_t size_bytes, type, n_sequences, n_context, most_sweeps, own_formats, refine_steps, measure, most_curvature, method;
    } choices = {o->bits,
                 o->budget,
                 o->distance,
                 o->second_price,
                 o->size_bytes,
                 (uint64_t)o->type,
                 (uint64_t)o->n_sequences,
                 (uint64_t)o->n_context,
                 (uint64_t)o->most_sweeps,
                 o->own_formats,
                 (uint64_t)o->refine_steps,
                 o->measure,
                 o->most_curvature,
                 5 /* changes with the method */};
    uint64_t key = work_hash(in_path, strlen(in_path), 1);
    for (int i = 0; i < gguf_shards(in); i++)
        key = work_hash_file(gguf_shard_file(in, i), key);
    key = work_hash(&choices, sizeof choices, key);
    if (o->second_price > 0)
        key = work_hash(o->weights_per_second, DIL_TYPE_COUNT * sizeof *o->weights_per_second, key);
    key = work_hash_path(o->like, key);
    key = work_hash_path(o->stats, key);
    key = work_hash_path(o->reference, key);
    return work_hash(o->text.p, o->text.n, key);
}

dil_status compress_key(uint64_t *out, const char *in_path, const compress_options *o, dil_error *err)
{
    gguf *in = NULL;
    gguf_options header = {.header_only = true};
    DIL_TRY(gguf_open(&in, in_path, &header, err));
    *out = key_of(in, in_path, o);
    gguf_close(in);
    return DIL_OK;
}

static double since(uint64_t *ns)
{
    uint64_t now = os_time_ns();
    double seconds = (double)(now - *ns) * 1e-9;
    *ns = now;
    return seconds;
}

/* The end of the text, which calibration leaves out. */
static str held_text(const compress_options *o, int64_t n_tokens, int held)
{
    double share = n_tokens > 0 ? 1.05 * held * o->n_context / (double)n_tokens : 1;
    size_t n = share < 1 ? (size_t)(share * (double)o->text.n) : o->text.n;
    return (str){o->text.p + (o->text.n - n), n};
}

static dil_status measure(compression *c, compress_report *r, const char *in_path, const char *out_path, dil_error *err)
{
    if (c->n_held == 0)
        return DIL_OK;
    char base[4096];
    divergence_result d;
    work_path(c->work, "probabilities", base, sizeof base);
    measure_options o = {.base_file = base,
                         .text = held_text(c->o, c->n_text, c->n_held),
                         .n_chunks = c->n_held,
                         .n_context = c->o->n_context,
                         .n_threads = c->o->n_threads,
                         .progress = c->o->progress,
                         .user = c->o->user};
    DIL_TRY(measure_divergence(&d, c->o->reference ? c->o->reference : in_path, out_path, &o, err));
    r->measured = true;
    r->kld = d.mean_kld;
    r->kld_error = d.kld_error;
    r->same_top = d.same_top;
    return DIL_OK;
}

/* How much of the text measuring gets: at most a quarter. */
static int held(const calibration_options *o, int64_t n_text)
{
    int64_t quarter = n_text / o->n_context / 4;
    return o->held < quarter ? o->held : (int)quarter;
}

static dil_status begin_walk(compression *c, const int32_t *tokens, int n_sequences, int n_context, dil_error *err)
{
    DIL_TRY(walk_new(&c->w, c->in, tokens, n_sequences, n_context, c->workers, &c->k, err));
    if (c->o->most_curvature)
        walk_limit(c->w, c->o->most_curvature);
    return DIL_OK;
}

/* From a file; a text beside it is for measuring. */
static dil_status read_calibration(compression *c, calibration_options *o, dil_error *err)
{
    DIL_TRY(calibration_read(&c->c, &c->p, c->o->stats, err));
    if (!c->c.full)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: wanted statistics of dil calibrate --full, found importance only", c->o->stats);
    if (o->held > 0 && o->text.n > 0) {
        int32_t *tokens = NULL;
        int n_sequences = 0;
        o->n_sequences = 1;
        DIL_TRY(calibration_tokens(&tokens, &n_sequences, &c->n_text, c->in, o, err));
        mem_free(tokens);
        c->n_held = held(o, c->n_text);
    }
    DIL_TRY(begin_walk(c, c->c.tokens, c->c.n_sequences, c->c.n_context, err));
    return calibration_attach(&c->c, c->w, err);
}

static dil_status begin_calibration(compression *c, dil_error *err)
{
    int32_t *tokens = NULL;
    int n_sequences = 0;
    DIL_TRY(players_check(&c->p, err));
    calibration_options o = {.text_name = c->o->text_name,
                             .text = c->o->text,
                             .n_sequences = c->o->n_sequences,
                             .n_context = c->o->n_context,
                             .held = c->o->measure ? HELD_SEQUENCES : 0,
                             .workers = c->workers,
                             .k = &c->k,
                             .work = c->work,
                             .progress = c->o->progress,
                             .user = c->o->user};
    for (int i = 0; i < c->p.n; i++)
        player_offer(&c->p.p[i]);
    if (c->o->stats)
        return read_calibration(c, &o, err);
    DIL_TRY(calibration_tokens(&tokens, &n_sequences, &c->n_text, c->in, &o, err));
    c->n_held = held(&o, c->n_text);
    dil_status status = begin_walk(c, tokens, n_sequences, o.n_context, err);
    if (status != DIL_OK) {
        mem_free(tokens);
        return status;
    }
    return calibration_make(&c->c, &c->p, c->w, tokens, &o, err);
}

static dil_status begin(compression *c, const char *in_path, const char *out_path, dil_error *err)
{
    DIL_TRY(gguf_open(&c->in, in_path, NULL, err));
    DIL_TRY(convert_check_paths(c->in, out_path, err));
    DIL_TRY(players_new(&c->p, c->in, err));
    DIL_TRY(kernels_select(&c->k, NULL, err));
    DIL_TRY(team_new(&c->workers, c->o->n_threads, err));
    return work_open(&c->work, out_path, key_of(c->in, in_path, c->o), c->o->resume, err);
}

static void end(compression *c, bool done)
{
    work_close(c->work, done);
    walk_free(c->w);
    calibration_free(&c->c);
    team_free(c->workers);
    mem_free(c->h);
    mem_free(c->out);
}

static dil_status take_room(compression *c, dil_error *err)
{
    mem_free(c->out);
    mem_free(c->h);
    mem_free(c->matrix);
    c->out_bytes = 0;
    for (int i = 0; i < c->p.n; i++) {
        size_t n = sizeof(round_report) + (size_t)c->p.p[i].choice[c->p.p[i].chosen].bytes;
        c->out_bytes = n > c->out_bytes ? n : c->out_bytes;
    }
    c->out = mem_alloc(c->out_bytes, MEM_MISC);
    c->h = sense_room(c->w);
    c->matrix = mem_calloc((size_t)c->p.n + 1, sizeof *c->matrix, MEM_MISC);
    if (!c->out || !c->h || !c->matrix)
        return DIL_FAIL(err, DIL_NO_MEMORY, "quantize: no memory for the largest matrix");
    for (int i = 0; i < c->p.n; i++)
        c->matrix[i].predicted = c->p.p[i].choice[c->p.p[i].chosen].cost;
    return DIL_OK;
}

/* The pieces, the file (twice when it is refined), and the probabilities it is measured by. */
static dil_status check_disk(const compression *c, const char *out_path, dil_error *err)
{
    char wanted_text[32], found_text[32];
    const player *words = players_find(&c->p, -1, PLACE_EMBEDDING);
    uint64_t wanted = (c->o->refine_steps ? 3 : 2) * players_bytes(&c->p) +
                      (uint64_t)c->n_held * (uint64_t)c->o->n_context * (uint64_t)(words ? words->rows : 0);
    char folder[4096];
    work_path(c->work, ".", folder, sizeof folder);
    uint64_t found = os_disk_free_bytes(folder);
    if (found == 0 || found >= wanted)
        return DIL_OK;
    return DIL_FAIL(err, DIL_IO, "%s: wanted %s of free disk for the file and the work beside it, found %s", out_path,
                    str_bytes(wanted, wanted_text, sizeof wanted_text), str_bytes(found, found_text, sizeof found_text));
}

/* ---- within a budget ---- */

static void attempt_name(const compression *c, char out[32]) { snprintf(out, 32, "attempt %d", c->attempt + 1); }

/* A file whose expected divergence is at most allowed, and what it really costs. */
static dil_status attempt(compression *c, compress_report *r, double allowed, const char *in_path, dil_error *err)
{
    char name[32], path[4096];
    compress_attempt *a = &r->attempt[r->n_attempts++];
    attempt_name(c, name);
    DIL_TRY(choose(c, allowed, r, err));
    DIL_TRY(take_room(c, err));
    *a = (compress_attempt){players_bytes(&c->p), r->predicted, c->o->distance + r->predicted};
    const size_t n = sizeof r->kld + sizeof r->kld_error + sizeof r->same_top;
    double measured[3];
    if (c->o->dry_run || c->n_held == 0)
        return DIL_OK;
    if (!work_load(c->work, name, measured, n)) {
        work_path(c->work, "attempt.gguf", path, sizeof path);
        DIL_TRY(walk_restart(c->w, err));
        DIL_TRY(settle(c, err));
        DIL_TRY(write_file(c, path, err));
        DIL_TRY(measure(c, r, in_path, path, err));
        memcpy(measured, (double[]){r->kld, r->kld_error, r->same_top}, n);
        DIL_TRY(work_save(c->work, name, measured, n, err));
    }
    r->measured = true;
    r->kld = measured[0];
    r->kld_error = measured[1];
    r->same_top = measured[2];
    a->found = r->kld;
    return DIL_OK;
}

/* The smallest of the attempts within the budget; -1: there is none. */
static int best_attempt(const compress_report *r, double budget)
{
    int best = -1;
    for (int i = 0; i < r->n_attempts; i++)
        if (r->attempt[i].found <= budget && (best < 0 || r->attempt[i].bytes < r->attempt[best].bytes))
            best = i;
    return best;
}

/* What may be expected next, for all of the budget to be spent: what the input has lost already is not quantization's. */
static double corrected(const compression *c, const compress_attempt *a)
{
    const double distance = c->o->distance, lost = a->found - distance;
    return BUDGET_AIM * (c->o->budget - distance) * a->expected / (lost > 0.25 * a->expected ? lost : 0.25 * a->expected);
}

/* Estimates are corrected by what was measured, until the budget is spent or the attempts are; leaves the choice of the best one. */
static dil_status spend_budget(compression *c, compress_report *r, const char *in_path, dil_error *err)
{
    const double budget = c->o->budget;
    double allowed = budget - c->o->distance, allowed_at[COMPRESS_MOST_ATTEMPTS];
    for (int most = COMPRESS_MOST_ATTEMPTS - 2; c->attempt < most; c->attempt++) {
        allowed_at[c->attempt] = allowed;
        DIL_TRY(attempt(c, r, allowed, in_path, err));
        const compress_attempt *a = &r->attempt[c->attempt];
        int best = best_attempt(r, budget);
        if (best < 0 && c->attempt + 1 == most && most < COMPRESS_MOST_ATTEMPTS)
            most++;
        bool floor = a->found <= budget && a->expected < BUDGET_SPENT * allowed; /* as small as formats or bits allow */
        bool again = c->attempt > 0 && a->bytes == r->attempt[c->attempt - 1].bytes;
        if (floor || again || (a->found <= budget && a->found >= BUDGET_SPENT * budget))
            break;
        allowed = corrected(c, a);
    }
    r->taken = best_attempt(r, budget);
    if (r->taken < 0)
        return DIL_FAIL(err, DIL_LIMIT, "quality budget: wanted at most %.3g nats per token, found %.3g after %d attempts", budget,
                        r->attempt[r->n_attempts - 1].found, r->n_attempts);
    const int last = r->n_attempts - 1;
    c->attempt = r->taken;
    if (r->taken == last)
        return DIL_OK;
    r->n_attempts = r->taken;
    DIL_TRY(attempt(c, r, allowed_at[r->taken], in_path, err)); /* everything is there: its choice, and what was measured */
    r->n_attempts = last + 1;
    return DIL_OK;
}

/* ---- from begin to end ---- */

/* What rounding reported of pieces that were made before. */
static dil_status load_reports(compression *c, dil_error *err)
{
    char name[128];
    for (int i = 0; i < c->p.n; i++) {
        const player *q = &c->p.p[i];
        piece_name(c, q, name);
        if (!work_load(c->work, name, c->out, sizeof(round_report) + (size_t)q->choice[q->chosen].bytes))
            return DIL_FAIL(err, DIL_IO, "%s: it was written, but cannot be read back; is the disk full?", name);
        memcpy(&c->matrix[i].round, c->out, sizeof(round_report));
    }
    return DIL_OK;
}

/* Of what was calibrated only the tokens are needed any more. */
static dil_status refine(compression *c, compress_report *r, const char *in_path, const char *small_path, const char *out_path,
                         dil_error *err)
{
    int32_t *tokens = c->c.tokens;
    c->c.tokens = NULL;
    calibration_free(&c->c);
    refine_task t = {.tokens = tokens,
                     .n_sequences = r->n_sequences,
                     .n_context = r->n_context,
                     .n_steps = c->o->refine_steps,
                     .workers = c->workers,
                     .k = &c->k,
                     .work = c->work,
                     .progress = c->o->progress,
                     .user = c->o->user};
    dil_status status = refine_model(&r->refined, in_path, small_path, out_path, &t, err);
    mem_free(tokens);
    return status;
}

static dil_status run(compression *c, compress_report *r, const char *in_path, const char *out_path, dil_error *err)
{
    uint64_t ns = os_time_ns();
    DIL_TRY(begin_calibration(c, err));
    r->n_sequences = c->c.n_sequences;
    r->n_context = c->c.n_context;
    memcpy(r->text, c->c.text, sizeof r->text);
    r->seconds[0] = since(&ns);
    for (int i = 0; i < c->p.n && !c->o->own_formats; i++)
        player_keep_stock(&c->p.p[i]);
    if (c->o->weights_per_second)
        DIL_TRY(players_time(&c->p, c->o->weights_per_second, (int)walk_hparams(c->w)->experts.n_used, err));
    if (c->o->budget > 0) {
        DIL_TRY(spend_budget(c, r, in_path, err));
    } else {
        DIL_TRY(choose(c, 0, r, err));
        DIL_TRY(take_room(c, err));
    }
    r->seconds[1] = since(&ns);
    if (c->o->dry_run)
        return DIL_OK;
    DIL_TRY(check_disk(c, out_path, err));
    DIL_TRY(r->measured ? load_reports(c, err) : settle(c, err));
    r->seconds[2] = since(&ns);
    walk_free(c->w);
    c->w = NULL;
    char unrefined[4096];
    work_path(c->work, "unrefined.gguf", unrefined, sizeof unrefined);
    DIL_TRY(write_file(c, c->o->refine_steps ? unrefined : out_path, err));
    r->seconds[3] = since(&ns);
    if (c->o->refine_steps)
        DIL_TRY(refine(c, r, in_path, unrefined, out_path, err));
    r->written = true;
    r->seconds[4] = since(&ns);
    if (!r->measured || c->o->refine_steps)
        DIL_TRY(measure(c, r, in_path, out_path, err));
    r->seconds[5] = since(&ns);
    return DIL_OK;
}

static uint64_t size_of(const char *path)
{
    os_file f;
    dil_error ignored;
    if (os_file_open(&f, path, &ignored) != DIL_OK)
        return 0;
    uint64_t size = f.size_bytes;
    os_file_close(&f);
    return size;
}

dil_status compress_file(compress_report *out, const char *in_path, const char *out_path, const compress_options *o, dil_error *err)
{
    compression c = {.o = o};
    compress_report r = {0};
    dil_status status = begin(&c, in_path, out_path, err);
    if (status == DIL_OK)
        status = run(&c, &r, in_path, out_path, err);
    end(&c, status == DIL_OK);
    r.players = c.p;
    r.in = c.in;
    r.matrix = c.matrix;
    if (status == DIL_OK) {
        r.in_bytes = gguf_size_bytes(c.in);
        r.out_bytes = r.written ? size_of(out_path) : players_bytes(&c.p);
        *out = r;
    } else {
        compress_report_free(&r);
    }
    return status;
}

static dil_status begin_importance(compression *c, dil_error *err)
{
    calibration_options o = {.text_name = c->o->text_name,
                             .text = c->o->text,
                             .n_sequences = c->o->n_sequences,
                             .n_context = c->o->n_context,
                             .progress = c->o->progress,
                             .user = c->o->user};
    return importance_make(&c->c, &c->p, c->o->n_threads, &o, err);
}

dil_status compress_calibrate(const char *in_path, const char *stats_path, bool full, const compress_options *o, int *n_sequences,
                              dil_error *err)
{
    compression c = {.o = o};
    dil_status status = begin(&c, in_path, stats_path, err);
    if (status == DIL_OK)
        status = full ? begin_calibration(&c, err) : begin_importance(&c, err);
    if (status == DIL_OK)
        status = calibration_write(&c.c, &c.p, stats_path, err);
    if (status == DIL_OK)
        *n_sequences = c.c.n_sequences;
    end(&c, status == DIL_OK);
    players_free(&c.p);
    gguf_close(c.in);
    return status;
}

void compress_report_free(compress_report *r)
{
    players_free(&r->players);
    mem_free(r->matrix);
    gguf_close(r->in);
    *r = (compress_report){0};
}
