#include "cli/quantize_matrices.h"

#include "base/os.h"
#include "base/status.h"
#include "base/threads.h"
#include "cli/print.h"
#include "cli/work_progress.h"
#include "evaluate/report_json.h"
#include "quantize/matrices.h"
#include "quantize/report.h"

/* Options that want a text and a model that reads it. */
static const char *option_of_models(const cli_options *o)
{
    return o->calibration          ? "--calib"
           : o->stats              ? "--stats"
           : o->like               ? "--like"
           : o->size_bytes         ? "--size"
           : o->quality_budget > 0 ? "--quality-budget"
           : o->speed_price >= 0   ? "--speed-price"
           : o->refine             ? "--refine"
           : o->chunks             ? "--chunks"
           : o->context            ? "--ctx-size"
           : o->resume             ? "--resume"
           : o->no_keep_stock      ? "--no-keep-stock"
           : o->dry_run            ? "--dry-run"
                                   : NULL;
}

static void print_matrix(const player *q, const round_report *r)
{
    const player_choice *c = &q->choice[q->chosen];
    const double values = (double)q->n * q->rows * q->columns;
    fputs("  ", stdout);
    print_text(stdout, q->tensor->name, 60);
    printf(_(": %s, %.3f bits per weight"), format_get(c->type)->name, 8 * (double)c->bytes / values);
    if (r->power > 0)
        printf(_(", relative error %.5f (plain rounding %.5f)"), r->cost / r->power, r->plain / r->power);
    putchar('\n');
}

static void print_result(const matrices_report *r, const char *out_path)
{
    char before[32], after[32];
    printf(_("%s: %s -> %s, %.3f bits per weight, %.0f s\n"), out_path, str_bytes(r->in_bytes, before, sizeof before),
           str_bytes(r->out_bytes, after, sizeof after),
           8 * (double)players_matrix_bytes(&r->players) / (double)players_values(&r->players), r->seconds);
    if (r->n_removed > 0 && r->lone)
        printf(_("  %d of %d neurons gone from each expert, at a relative error of %.5f\n"), r->n_removed, r->n_before,
               r->pruned_error);
    else if (r->n_removed > 0)
        printf(_("  %d of %d blocks of 32 weights became 0\n"), r->n_removed, r->n_before);
    for (int i = 0; i < r->players.n; i++)
        print_matrix(&r->players.p[i], &r->round[i]);
    if (r->lone)
        printf(_("  relative error of the layer's outputs: %.5f, on rows that were not learnt from\n"), r->error);
}

int quantize_matrices(const cli_options *o, const char *in_path, const char *out_path)
{
    dil_error err = {0};
    matrices_report r;
    work_progress run = {.quiet = o->quiet};
    const char *alien = option_of_models(o);
    const preset *p = o->preset ? preset_find(o->preset) : NULL;
    if (alien)
        return cli_usage("quantize: %s: wanted a language model, found a file of matrices without one ('%s'); "
                         "it takes --type, --bpw or --preset, --fast and --report",
                         alien, in_path);
    matrices_options mo = {.bits = p ? p->bits : o->bits,
                           .prune = p ? p->share : 0,
                           .seed = 1,
                           .most_sweeps = o->fast ? ROUND_SWEEPS_FAST : ROUND_SWEEPS,
                           .n_threads = o->threads ? (int)o->threads : os_cpu_count(),
                           .progress = work_progress_tell,
                           .user = &run};
    if (mo.n_threads > TEAM_MAX)
        mo.n_threads = TEAM_MAX;
    const char *const used[] = {in_path, out_path};
    dil_status status = cli_check_output("the report", o->report, used, 2, &err);
    if (status == DIL_OK)
        status = matrices_file(&r, in_path, out_path, &mo, &err);
    work_progress_end(&run);
    if (status != DIL_OK)
        return cli_fail(&err);
    json_t *json = o->json || o->report ? report_of_matrices(&r, in_path, out_path) : NULL;
    if (o->report)
        status = report_write(o->report, json, &err);
    if (status == DIL_OK && o->json)
        status = print_report(json, &err);
    if (!o->json && !o->quiet)
        print_result(&r, out_path);
    json_decref(json);
    matrices_report_free(&r);
    return status == DIL_OK ? CLI_OK : cli_fail(&err);
}
