#include "quantize/preset.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/os.h"
#include "base/status.h"
#include "quantize/work.h"

#define MOST_PRUNINGS 4
#define PRUNED_SHARE 0.9     /* of a budget, at most */
#define QUANTIZED_MARGIN 1.5 /* what bits are expected to cost is an estimate */

static const preset presets[] = {{"dusuk", 2, 0.5, 1.0}, {"dengeli", 4, 0.3, 0.1}, {"yuksek", 8, 0.1, 0.02}};

const preset *preset_find(const char *name)
{
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++)
        if (strcmp(presets[i].name, name) == 0)
            return &presets[i];
    return NULL;
}

/* What pruning left, and cost. */
typedef struct pruned {
    int32_t n_before, n_removed;
    double cost;
} pruned;

typedef struct setting {
    const char *in_path;
    const compress_options *o;
    preset_report *r;
    work *work;
    char stats[4096], model[4096], model_stats[4096]; /* of the input; what pruning leaves, and its own */
} setting;

static dil_status calibrate(const setting *s, const char *model, const char *stats, dil_error *err)
{
    int n_sequences;
    return os_exists(stats) ? DIL_OK : compress_calibrate(model, stats, true, s->o, &n_sequences, err);
}

/* Formats of the whole model, and what that is expected to cost. */
static dil_status expect(const setting *s, double bits, uint64_t size_bytes, uint64_t *bytes, double *cost, dil_error *err)
{
    compress_report r = {0};
    compress_options o = *s->o;
    char nowhere[4096];
    work_path(s->work, "expected", nowhere, sizeof nowhere);
    o.stats = s->stats;
    o.bits = bits;
    o.size_bytes = size_bytes;
    o.budget = bits > 0 ? INFINITY : 0; /* bits below the narrowest formats are no mistake */
    o.dry_run = true;
    o.resume = false;
    DIL_TRY(compress_file(&r, s->in_path, nowhere, &o, err));
    *bytes = r.out_bytes;
    *cost = r.predicted;
    compress_report_free(&r);
    return DIL_OK;
}

/* As much as the share and the budget allow, by what is found on the text's end: what pruning finds by itself is what the neurons and experts
 * that stay were fitted to. */
static dil_status prune_now(setting *s, pruned *out, dil_error *err)
{
    preset_report *p = s->r;
    const double allowed = PRUNED_SHARE * p->budget - QUANTIZED_MARGIN * p->quantized_cost;
    prune_options o = {.kind = p->kind,
                       .share = p->preset->share,
                       .budget = allowed,
                       .stats = s->stats,
                       .text_name = s->o->text_name,
                       .text = s->o->text,
                       .n_threads = s->o->n_threads,
                       .progress = s->o->progress,
                       .user = s->o->user};
    for (int i = 0; i < MOST_PRUNINGS && o.budget > 0; i++) {
        prune_report r = {0};
        dil_status status = prune_file(&r, s->in_path, s->model, &o, err);
        if (status == DIL_LIMIT || status == DIL_UNSUPPORTED ||
            status == DIL_BAD_ARGUMENT) { /* nothing can go: quantize all of it */
            status_clear(err);
            return DIL_OK;
        }
        DIL_TRY(status);
        const pruned found = {r.plan.n_before, r.plan.n_removed, r.measured ? r.kld : r.found};
        prune_report_free(&r);
        if (found.cost <= allowed) {
            *out = found;
            return DIL_OK;
        }
        o.budget *= PRUNED_SHARE * allowed / found.cost;
    }
    return DIL_OK;
}

static dil_status prune_once(setting *s, dil_error *err)
{
    pruned found = {0};
    if (!work_load(s->work, "pruned", &found, sizeof found)) {
        DIL_TRY(prune_now(s, &found, err));
        DIL_TRY(work_save(s->work, "pruned", &found, sizeof found, err));
    }
    s->r->n_before = found.n_before;
    s->r->n_removed = found.n_removed;
    s->r->pruned_cost = found.cost;
    return DIL_OK;
}

static dil_status run(setting *s, const char *out_path, dil_error *err)
{
    uint64_t ns = os_time_ns(), ignored;
    preset_report *r = s->r;
    compress_options o = *s->o;
    DIL_TRY(prune_default_kind(&r->kind, s->in_path, err));
    DIL_TRY(calibrate(s, s->in_path, s->stats, err));
    DIL_TRY(expect(s, r->preset->bits, 0, &ignored, &r->quantized_cost, err));
    DIL_TRY(prune_once(s, err));
    o.stats = s->stats;
    if (r->n_removed > 0) {
        DIL_TRY(calibrate(s, s->model, s->model_stats, err));
        o.stats = s->model_stats;
        o.reference = s->in_path;
        o.distance = r->pruned_cost;
    }
    o.bits = r->preset->bits;
    o.budget = r->budget;
    o.measure = true;
    r->seconds = (double)(os_time_ns() - ns) * 1e-9;
    DIL_TRY(compress_file(&r->file, r->n_removed > 0 ? s->model : s->in_path, out_path, &o, err));
    dil_status status = expect(s, 0, r->file.out_bytes, &r->whole_bytes, &r->whole_cost, err);
    if (status == DIL_LIMIT) {
        status_clear(err);
        r->whole_bytes = 0;
        r->whole_cost = (double)NAN;
        return DIL_OK;
    }
    return status;
}

dil_status preset_file(preset_report *out, const preset *p, const char *in_path, const char *out_path, const compress_options *o,
                       dil_error *err)
{
    preset_report r = {.preset = p, .budget = o->budget > 0 ? o->budget : p->budget};
    setting s = {.in_path = in_path, .o = o, .r = &r};
    char beside[4000];
    uint64_t key;
    if (o->text.n == 0)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "preset %s: wanted a calibration text, found none", p->name);
    if (snprintf(beside, sizeof beside, "%s.preset", out_path) >= (int)sizeof beside)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: the name is too long", out_path);
    DIL_TRY(compress_key(&key, in_path, o, err));
    key = work_hash(p->name, strlen(p->name), key);
    DIL_TRY(o->dry_run ? work_open_passing(&s.work, beside, "dry-run", err) : work_open(&s.work, beside, key, o->resume, err));
    work_path(s.work, "calibration.gguf", s.stats, sizeof s.stats);
    work_path(s.work, "pruned.gguf", s.model, sizeof s.model);
    work_path(s.work, "pruned.calibration.gguf", s.model_stats, sizeof s.model_stats);
    dil_status status = run(&s, out_path, err);
    work_close(s.work, status == DIL_OK || o->dry_run);
    if (status == DIL_OK)
        *out = r;
    else
        compress_report_free(&r.file);
    return status;
}

void preset_report_free(preset_report *r)
{
    compress_report_free(&r->file);
    *r = (preset_report){0};
}
