/* Models, lone layers and files of matrices in fewer bits: which of the quantizers a file is for, and their reports as one. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/arguments.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/threads.h"
#include "quantize/convert.h"
#include "quantize/matrices.h"
#include "quantize/preset.h"
#include "quantize/report.h"

#define MOST_TEXT ((size_t)1 << 30)

dil_quantize_options dil_quantize_options_default(void)
{
    return (dil_quantize_options){.struct_size = sizeof(dil_quantize_options), .bits = 4};
}

/* What comes out: a report, and matrices as far as there is room. */
typedef struct receipt {
    dil_quantize_report report;
    dil_quantized *matrices;
    size_t room;
} receipt;

static void add_matrix(receipt *to, const player *q, const round_report *r, double cost, bool relative)
{
    dil_quantize_report *report = &to->report;
    const player_choice *c = &q->choice[q->chosen];
    const double n = (double)q->n * q->rows * q->columns;
    if (report->n_matrices < to->room) {
        dil_quantized *m = &to->matrices[report->n_matrices];
        *m = (dil_quantized){.n_values = (int64_t)n, .bits = 8 * (double)c->bytes / n, .error = cost, .plain_error = (double)NAN};
        snprintf(m->name, sizeof m->name, "%.*s", STR_ARG(q->tensor->name));
        snprintf(m->type, sizeof m->type, "%s", format_get(c->type)->name);
        if (r->power > 0) {
            m->plain_error = r->plain / r->power;
            m->error = relative ? r->cost / r->power : cost;
            m->moved = r->n_codes ? (double)r->moved / (double)r->n_codes : 0;
        }
    }
    report->n_matrices++;
    report->bits += 8 * (double)c->bytes;
    report->n_weights += (uint64_t)n;
}

static int threads_of(const dil_quantize_options *o)
{
    const int n = o->n_threads > 0 ? o->n_threads : os_cpu_count();
    return n < TEAM_MAX ? n : TEAM_MAX;
}

static dil_status quantize_matrices(const char *in_path, const char *out_path, const dil_quantize_options *o, receipt *to,
                                    dil_error *err)
{
    matrices_report r;
    const matrices_options mo = {.bits = o->bits,
                                 .prune = o->prune,
                                 .budget = o->budget,
                                 .inputs = o->inputs,
                                 .n_inputs = o->n_inputs,
                                 .seed = 1,
                                 .most_sweeps = o->fast ? ROUND_SWEEPS_FAST : ROUND_SWEEPS,
                                 .n_threads = threads_of(o),
                                 .progress = o->progress,
                                 .user = o->user};
    DIL_TRY(matrices_file(&r, in_path, out_path, &mo, err));
    for (int i = 0; i < r.players.n; i++)
        add_matrix(to, &r.players.p[i], &r.round[i], r.players.p[i].choice[r.players.p[i].chosen].cost, true);
    to->report.in_bytes = r.in_bytes;
    to->report.out_bytes = r.out_bytes;
    to->report.price = r.allocation.price;
    to->report.gap = r.allocation.gap;
    to->report.n_structure = r.n_before;
    to->report.n_removed = r.n_removed;
    to->report.pruned_cost = r.pruned_error;
    to->report.cost = r.lone ? r.error : (double)NAN;
    matrices_report_free(&r);
    return DIL_OK;
}

static dil_status find_type(const char *name, dil_type *out, dil_error *err)
{
    uint32_t file_type;
    if (format_find(name, out) && convert_file_type(*out, &file_type))
        return DIL_OK;
    return DIL_FAIL(err, DIL_BAD_ARGUMENT, "type: wanted a stock type like F16, Q8_0 or Q4_K, found '%s'", name);
}

/* Each weight by itself. */
static dil_status convert_plainly(const char *in_path, const char *out_path, const dil_quantize_options *o, receipt *to,
                                  dil_error *err)
{
    convert_result r;
    convert_options co = {.n_threads = threads_of(o), .progress = o->progress, .user = o->user};
    DIL_TRY(find_type(o->type, &co.type, err));
    DIL_TRY(convert_file(&r, in_path, out_path, &co, err));
    to->report.in_bytes = r.in_bytes;
    to->report.out_bytes = r.out_bytes;
    to->report.n_weights = r.n_matrix_values;
    to->report.bits = 8 * (double)r.matrix_bytes;
    to->report.n_matrices = r.n_matrices;
    to->report.cost = (double)NAN;
    return DIL_OK;
}

/* Structure first, then bits; the preset's way, with figures of the caller's own. */
static dil_status quantize_model(const char *in_path, const char *out_path, const dil_quantize_options *o, receipt *to,
                                 dil_error *err)
{
    preset_report r = {0};
    char *text = NULL;
    size_t n = 0;
    dil_type type = DIL_TYPE_COUNT;
    const uint64_t started_ns = os_time_ns();
    const preset *named = o->preset ? preset_find(o->preset) : NULL;
    const preset own = {"own", o->bits, o->prune, o->budget > 0 ? o->budget : named ? named->budget : INFINITY};
    if (o->type)
        DIL_TRY(find_type(o->type, &type, err));
    const bool fixed = type < DIL_TYPE_COUNT;
    compress_options co = {.type = type,
                           .bits = o->prune > 0 || fixed ? 0 : o->bits,
                           .budget = fixed ? 0 : o->budget,
                           .text_name = o->text_path,
                           .n_sequences = o->n_sequences ? o->n_sequences : 100,
                           .n_context = o->n_context ? o->n_context : 512,
                           .most_sweeps = o->fast ? ROUND_SWEEPS_FAST : ROUND_SWEEPS,
                           .n_threads = threads_of(o),
                           .measure = true,
                           .progress = o->progress,
                           .user = o->user};
    DIL_TRY(os_read_all(o->text_path, MOST_TEXT, &text, &n, err));
    co.text = (str){text, n};
    dil_status status = o->prune > 0 && !fixed ? preset_file(&r, &own, in_path, out_path, &co, err)
                                               : compress_file(&r.file, in_path, out_path, &co, err);
    mem_free(text);
    if (status == DIL_OK && o->report_path)
        status = report_write_compression(o->report_path, &r, in_path, out_path, (double)(os_time_ns() - started_ns) * 1e-9, err);
    if (status != DIL_OK)
        preset_report_free(&r);
    DIL_TRY(status);
    for (int i = 0; i < r.file.players.n; i++) {
        const player *q = &r.file.players.p[i];
        add_matrix(to, q, &r.file.matrix[i].round, q->choice[q->chosen].cost, false);
    }
    to->report.in_bytes = r.file.in_bytes;
    to->report.out_bytes = r.file.out_bytes;
    to->report.price = r.file.allocation.price;
    to->report.gap = r.file.allocation.gap;
    to->report.n_structure = r.n_before;
    to->report.n_removed = r.n_removed;
    to->report.pruned_cost = r.pruned_cost;
    to->report.cost = r.file.measured ? r.file.kld : (double)NAN;
    preset_report_free(&r);
    return DIL_OK;
}

static dil_status check(dil_quantize_options *o, dil_error *err)
{
    if (o->preset) {
        const preset *p = preset_find(o->preset);
        if (!p)
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "preset: wanted dusuk, dengeli or yuksek, found '%s'", o->preset);
        o->bits = p->bits;
        o->prune = p->share;
    }
    if (!(o->bits >= 1 && o->bits <= 16))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "bits: wanted 1..16 per weight, found %g", o->bits);
    if (!(o->prune >= 0 && o->prune <= 0.95))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "prune: wanted a share in 0..0.95, found %g", o->prune);
    if (!(o->budget >= 0))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "budget: wanted 0 or more, found %g", o->budget);
    if (o->n_threads < 0 || o->n_inputs < 0 || o->n_sequences < 0 || o->n_context < 0)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_quantize: threads, inputs, sequences and context must not be negative");
    return DIL_OK;
}

dil_status dil_quantize(const char *in_path, const char *out_path, const dil_quantize_options *options, dil_quantize_report *report,
                        dil_quantized *matrices, size_t max_matrices, dil_error *err)
{
    dil_quantize_options o = dil_quantize_options_default();
    receipt to = {.matrices = matrices, .room = matrices ? max_matrices : 0};
    bool plain = false;
    const uint64_t started_ns = os_time_ns();
    DIL_TRY(need(in_path, "dil_quantize: in_path", err));
    DIL_TRY(need(out_path, "dil_quantize: out_path", err));
    if (report)
        DIL_TRY(need_struct(report, sizeof *report, "dil_quantize_report", err));
    DIL_TRY(take_options(&o, sizeof o, options, options ? options->struct_size : 0, "dil_quantize_options", err));
    DIL_TRY(check(&o, err));
    DIL_TRY(matrices_suit(&plain, in_path, err));
    if (!plain && !o.text_path && !o.type)
        return DIL_FAIL(err, DIL_UNSUPPORTED, "%s: wanted a text to calibrate a language model on (text_path), found none",
                        in_path);
    if (o.type && (plain || !o.text_path))
        DIL_TRY(convert_plainly(in_path, out_path, &o, &to, err));
    else
        DIL_TRY(plain ? quantize_matrices(in_path, out_path, &o, &to, err) : quantize_model(in_path, out_path, &o, &to, err));
    to.report.bits /= to.report.n_weights > 0 ? (double)to.report.n_weights : 1;
    to.report.seconds = (double)(os_time_ns() - started_ns) * 1e-9;
    if (report)
        give_struct(report, &to.report, sizeof to.report);
    return DIL_OK;
}
