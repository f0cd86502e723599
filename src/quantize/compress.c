#include "quantize/compress.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "quantize/compress_internal.h"
#include "quantize/convert.h"
#include "quantize/importance.h"
#include "quantize/measure.h"

#define HELD_SEQUENCES 8 /* at the end of the text, for measuring */

dil_status compress_tell(const compression *c, const char *what, uint64_t done, uint64_t total, dil_error *err)
{
    if (c->o->progress && !c->o->progress(c->o->user, what, done, total))
        return DIL_FAIL(err, DIL_CANCELLED, "quantize: cancelled; what was found so far is kept for --resume");
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
                 6 /* changes with the method */};
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

dil_status compress_measure(compression *c, compress_report *r, const char *in_path, const char *out_path, dil_error *err)
{
    if (c->held.n_sequences == 0)
        return DIL_OK;
    char base[4096];
    divergence_result d;
    work_path(c->work, "probabilities", base, sizeof base);
    measure_options o = {.base_file = base,
                         .text = {c->held.bytes, c->held.n},
                         .n_chunks = c->held.n_sequences,
                         .n_context = r->n_context,
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

/* What of the text is left for measuring. */
static dil_status hold(compression *c, dil_error *err)
{
    const held_seen seen = {c->c.tokens, c->c.n_sequences, c->c.n_context};
    return c->o->measure && c->o->text.n > 0 ? held_take(&c->held, c->in, c->o->text, &seen, HELD_SEQUENCES, err) : DIL_OK;
}

static dil_status begin_walk(compression *c, const int32_t *tokens, int n_sequences, int n_context, dil_error *err)
{
    DIL_TRY(walk_new(&c->w, c->in, tokens, n_sequences, n_context, c->workers, &c->k, err));
    if (c->o->most_curvature)
        walk_limit(c->w, c->o->most_curvature);
    return DIL_OK;
}

/* From a file; a text beside it is for measuring. */
static dil_status read_calibration(compression *c, dil_error *err)
{
    DIL_TRY(calibration_read(&c->c, &c->p, c->o->stats, err));
    if (!c->c.full)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: wanted statistics of dil calibrate --full, found importance only", c->o->stats);
    DIL_TRY(begin_walk(c, c->c.tokens, c->c.n_sequences, c->c.n_context, err));
    return calibration_attach(&c->c, c->w, err);
}

/* one_type: what other formats cost is not asked for. */
static dil_status begin_calibration(compression *c, bool one_type, dil_error *err)
{
    int32_t *tokens = NULL;
    int n_sequences = 0;
    DIL_TRY(players_check(&c->p, err));
    calibration_options o = {.text_name = c->o->text_name,
                             .text = c->o->text,
                             .n_sequences = c->o->n_sequences,
                             .n_context = c->o->n_context,
                             .held = HELD_SEQUENCES,
                             .workers = c->workers,
                             .k = &c->k,
                             .work = c->work,
                             .progress = c->o->progress,
                             .user = c->o->user};
    for (int i = 0; i < c->p.n; i++)
        if (one_type)
            player_fix(&c->p.p[i], c->o->type);
        else
            player_offer(&c->p.p[i]);
    if (c->o->stats)
        return read_calibration(c, err);
    DIL_TRY(calibration_tokens(&tokens, &n_sequences, c->in, &o, err));
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
    return c->o->dry_run ? work_open_passing(&c->work, out_path, "dry-run", err)
                         : work_open(&c->work, out_path, key_of(c->in, in_path, c->o), c->o->resume, err);
}

static void end(compression *c, bool done)
{
    work_close(c->work, done || c->o->dry_run);
    walk_free(c->w);
    calibration_free(&c->c);
    held_free(&c->held);
    team_free(c->workers);
    mem_free(c->h);
    mem_free(c->out);
}

dil_status compress_take_room(compression *c, dil_error *err)
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
                      (uint64_t)c->held.n_sequences * (uint64_t)c->c.n_context * (uint64_t)(words ? words->rows : 0);
    char folder[4096];
    work_path(c->work, ".", folder, sizeof folder);
    uint64_t found = os_disk_free_bytes(folder);
    if (found == 0 || found >= wanted)
        return DIL_OK;
    return DIL_FAIL(err, DIL_IO, "%s: wanted %s of free disk for the file and the work beside it, found %s", out_path,
                    str_bytes(wanted, wanted_text, sizeof wanted_text), str_bytes(found, found_text, sizeof found_text));
}

/* ---- from begin to end ---- */

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
    DIL_TRY(begin_calibration(c, c->o->type < DIL_TYPE_COUNT && !c->o->stats, err));
    DIL_TRY(hold(c, err));
    r->n_sequences = c->c.n_sequences;
    r->n_context = c->c.n_context;
    memcpy(r->text, c->c.text, sizeof r->text);
    r->seconds[0] = since(&ns);
    for (int i = 0; i < c->p.n && !c->o->own_formats; i++)
        player_keep_stock(&c->p.p[i]);
    if (c->o->weights_per_second)
        DIL_TRY(players_time(&c->p, c->o->weights_per_second, (int)walk_hparams(c->w)->experts.n_used, err));
    if (c->o->budget > 0) {
        DIL_TRY(compress_spend_budget(c, r, in_path, err));
    } else {
        DIL_TRY(compress_choose(c, 0, r, err));
        DIL_TRY(compress_take_room(c, err));
    }
    r->seconds[1] = since(&ns);
    if (c->o->dry_run)
        return DIL_OK;
    DIL_TRY(check_disk(c, out_path, err));
    DIL_TRY(r->measured ? compress_load_reports(c, err) : compress_settle(c, err));
    r->seconds[2] = since(&ns);
    walk_free(c->w);
    c->w = NULL;
    char unrefined[4096];
    work_path(c->work, "unrefined.gguf", unrefined, sizeof unrefined);
    DIL_TRY(compress_write(c, c->o->refine_steps ? unrefined : out_path, err));
    r->seconds[3] = since(&ns);
    if (c->o->refine_steps)
        DIL_TRY(refine(c, r, in_path, unrefined, out_path, err));
    r->written = true;
    r->seconds[4] = since(&ns);
    if ((!r->measured || c->o->refine_steps) && compress_measure(c, r, in_path, out_path, err) != DIL_OK) {
        snprintf(r->not_measured, sizeof r->not_measured, "%.*s", (int)sizeof r->not_measured - 1, err->text);
        status_clear(err); /* the file is there all the same */
        r->measured = false;
    } else if (c->o->measure && c->o->text.n > 0 && c->held.n_sequences == 0) {
        snprintf(r->not_measured, sizeof r->not_measured, _("the text has no %d tokens that calibration left out"), c->c.n_context);
    }
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
        status = full ? begin_calibration(&c, false, err) : begin_importance(&c, err);
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
