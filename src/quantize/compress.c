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
    float *w;                    /* [parts][rows of a part][columns] */
    const float *h, *row_weight; /* [parts][columns][columns]; [all rows] */
    int parts;
} rounding_input;

static void piece_name(const player *q, char out[128]) { snprintf(out, 128, "%.*s", STR_ARG(q->tensor->name)); }

/* The matrix in its format, in parts of rows with a curvature each: w [parts][rows][columns] -> bytes at c->out + sizeof(round_report), which
 * precede them. */
static dil_status round_player(compression *c, const player *q, const rounding_input *in, dil_error *err)
{
    const dil_type type = q->choice[q->chosen].type;
    const int part = q->n * q->rows / in->parts;
    const size_t values = (size_t)part * (size_t)q->columns, size = (size_t)q->columns * (size_t)q->columns;
    uint64_t row_bytes;
    round_report sum = {0};
    uint8_t *to = c->out + sizeof sum;
    (void)format_row_bytes(type, (uint64_t)q->columns, &row_bytes);
    for (int e = 0; e < in->parts; e++, to += (size_t)row_bytes * (size_t)part) {
        metric *m = NULL;
        round_report r = {0};
        if (!grid_get(type)) {
            format_get(type)->encode(in->w + (size_t)e * values, to, values, NULL);
            continue;
        }
        DIL_TRY(metric_new(&m, in->h + (size_t)e * size, q->columns, METRIC_DAMPING, &c->k, c->workers, err));
        round_task t = {.type = type,
                        .rows = part,
                        .columns = q->columns,
                        .w = in->w + (size_t)e * values,
                        .row_weight = in->row_weight ? in->row_weight + (size_t)e * (size_t)part : NULL,
                        .m = m,
                        .most_sweeps = c->o->most_sweeps};
        dil_status status = round_matrix(&t, c->workers, to, &r, err);
        metric_free(m);
        DIL_TRY(status);
        add_report(&sum, &r);
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
    piece_name(q, name);
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
    piece_name(q, name);
    return work_load(c->work, name, c->out, sizeof(round_report) + (size_t)q->choice[q->chosen].bytes);
}

static dil_status settle_stage(compression *c, int layer, walk_stage stage, dil_error *err)
{
    const float *weights[WALK_MOST_LOOKS];
    const size_t width = (size_t)walk_width(c->w, stage), groups = (size_t)walk_groups(c->w, stage);
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
        size_t at = (size_t)sense_look_of(c->w, (net_place)place) * groups * width * width;
        const float *row_weight = c->c.fisher.row[place] + (size_t)layer * (size_t)q->n * (size_t)q->rows;
        rounding_input in = {walk_matrix_at(c->w, (net_place)place).w, c->h + at, row_weight, (int)groups};
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
                              &(rounding_input){words, c->p.tied ? c->c.head : c->c.fisher.input, c->c.fisher.used, 1}, err));
    if (output)
        DIL_TRY(settle_player(c, output, &(rounding_input){walk_head(c->w), c->c.head, c->c.fisher.vocabulary, 1}, err));
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
        piece_name(q, name);
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
        piece_name(&c->p.p[i], name);
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
static dil_status draw_curve(compression *c, compress_report *r, dil_error *err)
{
    double least = 0, most = 0;
    for (int i = 0; i < c->p.n; i++) {
        least += (double)c->p.p[i].choice[0].bytes;
        most += (double)c->p.p[i].choice[c->p.p[i].n_choices - 1].bytes;
    }
    for (int i = 0; i < COMPRESS_CURVE; i++) {
        double part = (double)(i + 1) / (COMPRESS_CURVE + 1), size = least * pow(most / least, part);
        DIL_TRY(allocate_size(&c->p, c->p.fixed_bytes + (uint64_t)size + (uint64_t)c->p.n * 32, &r->curve[r->n_curve++], err));
    }
    return DIL_OK;
}

static dil_status choose(compression *c, compress_report *r, dil_error *err)
{
    if (c->o->bits > 0 || c->o->size_bytes) {
        DIL_TRY(draw_curve(c, r, err));
        DIL_TRY(allocate_size(&c->p, wanted_size(c), &r->allocation, err));
        r->allocated = true;
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
static uint64_t key_of(const compression *c, const char *in_path)
{
    const compress_options *o = c->o;
    const struct {
        double bits;
        uint64_t size_bytes, type, n_sequences, n_context, most_sweeps, own_formats, refine_steps, measure, method;
    } choices = {o->bits,
                 o->size_bytes,
                 (uint64_t)o->type,
                 (uint64_t)o->n_sequences,
                 (uint64_t)o->n_context,
                 (uint64_t)o->most_sweeps,
                 o->own_formats,
                 (uint64_t)o->refine_steps,
                 o->measure,
                 3 /* changes with the method */};
    uint64_t key = work_hash(in_path, strlen(in_path), 1);
    for (int i = 0; i < gguf_shards(c->in); i++)
        key = work_hash_file(gguf_shard_file(c->in, i), key);
    key = work_hash(&choices, sizeof choices, key);
    key = work_hash_path(o->like, key);
    key = work_hash_path(o->stats, key);
    return work_hash(o->text.p, o->text.n, key);
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
    DIL_TRY(measure_divergence(&d, in_path, out_path, &o, err));
    r->measured = true;
    r->kld = d.mean_kld;
    r->kld_error = d.kld_error;
    r->same_top = d.same_top;
    return DIL_OK;
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
                             .workers = c->workers,
                             .k = &c->k,
                             .work = c->work,
                             .progress = c->o->progress,
                             .user = c->o->user};
    for (int i = 0; i < c->p.n; i++)
        player_offer(&c->p.p[i]);
    if (c->o->stats) {
        DIL_TRY(calibration_read(&c->c, &c->p, c->o->stats, err));
        if (!c->c.full)
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: wanted statistics of dil calibrate --full, found importance only",
                            c->o->stats);
        DIL_TRY(walk_new(&c->w, c->in, c->c.tokens, c->c.n_sequences, c->c.n_context, c->workers, &c->k, err));
        return calibration_attach(&c->c, c->w, err);
    }
    o.held = c->o->measure ? HELD_SEQUENCES : 0;
    DIL_TRY(calibration_tokens(&tokens, &n_sequences, &c->n_text, c->in, &o, err));
    c->n_held = o.held < c->n_text / o.n_context / 4 ? o.held : (int)(c->n_text / o.n_context / 4);
    dil_status status = walk_new(&c->w, c->in, tokens, n_sequences, o.n_context, c->workers, &c->k, err);
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
    return work_open(&c->work, out_path, key_of(c, in_path), c->o->resume, err);
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
    DIL_TRY(choose(c, r, err));
    DIL_TRY(take_room(c, err));
    r->seconds[1] = since(&ns);
    if (c->o->dry_run)
        return DIL_OK;
    DIL_TRY(check_disk(c, out_path, err));
    DIL_TRY(settle(c, err));
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
    if (c->n_held > 0)
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
