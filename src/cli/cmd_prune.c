/* dil prune: a model with fewer neurons, experts or layers. */
#include <stdio.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "cli/cli.h"
#include "cli/print.h"
#include "cli/prune_report.h"
#include "cli/work_progress.h"
#include "evaluate/report_json.h"
#include "quantize/prune.h"

static int ways(const cli_options *o)
{
    return (o->remove_layers > 0) + (o->remove_experts > 0) + (o->remove_neurons > 0) + (o->remove_blocks > 0);
}

static dil_status choose_kind(prune_options *po, const cli_options *o, const char *path, dil_error *err)
{
    po->budget = o->quality_budget;
    po->n_layers = (int)o->remove_layers;
    po->share = o->remove_experts > 0   ? o->remove_experts
                : o->remove_neurons > 0 ? o->remove_neurons
                : o->remove_blocks > 0  ? o->remove_blocks
                                        : 1;
    po->kind = o->remove_layers        ? PRUNE_LAYERS
               : o->remove_experts > 0 ? PRUNE_EXPERTS
               : o->remove_blocks > 0  ? PRUNE_BLOCKS
                                       : PRUNE_NEURONS;
    if (ways(o) > 0)
        return DIL_OK;
    return prune_default_kind(&po->kind, path, err);
}

static int check_usage(const cli_options *o)
{
    if (ways(o) > 1 || (ways(o) == 0 && !(o->quality_budget > 0)))
        return cli_usage(
            "prune: wanted one of --neurons, --experts, --layers, --blocks, or --quality-budget alone; found %s; see --help",
            ways(o) > 1 ? _("several") : _("none"));
    if (o->remove_blocks > 0 && o->quality_budget > 0)
        return cli_usage("prune: --blocks: wanted no --quality-budget beside it, found one; see --help");
    if (!o->stats)
        return cli_usage("prune: wanted --stats FILE, which dil calibrate makes, found none; see --help");
    return CLI_OK;
}

static dil_status report(const cli_options *o, const prune_report *r, const char *in_path, const char *out_path, double seconds,
                         dil_error *err)
{
    json_t *json = o->json || o->report ? prune_report_json(r, in_path, out_path, !o->dry_run, seconds) : NULL;
    dil_status status = o->report ? report_write(o->report, json, err) : DIL_OK;
    if (status == DIL_OK && o->json)
        status = print_report(json, err);
    if (!o->json && !o->quiet)
        prune_report_print(stdout, r, out_path, !o->dry_run, seconds);
    if (!o->quiet && o->remove_neurons > 0 && !(o->quality_budget > 0) &&
        r->plan.n_removed < (int)(o->remove_neurons * r->plan.n_before))
        fprintf(stderr, _("note: %g of the neurons were to go: widths stay multiples that formats fit, and some neurons stay\n"),
                o->remove_neurons);
    json_decref(json);
    return status;
}

static int prune(const cli_options *o, char **positional, int n_positional)
{
    (void)n_positional;
    dil_error err = {0};
    char in_path[4096], *text = NULL;
    size_t n = 0;
    prune_report r = {0};
    work_progress progress = {.quiet = o->quiet};
    uint64_t started_ns = os_time_ns();
    prune_options po = {.stats = o->stats,
                        .text_name = o->calibration,
                        .n_threads = o->threads ? (int)o->threads : os_cpu_count(),
                        .dry_run = o->dry_run,
                        .progress = work_progress_tell,
                        .user = &progress};
    int usage = check_usage(o);
    if (usage != CLI_OK)
        return usage;
    dil_status status = cli_model_path(positional[0], in_path, sizeof in_path, &err);
    const char *const used[] = {in_path, o->stats, o->calibration, o->report};
    const char *const and_written[] = {in_path, o->stats, o->calibration, positional[1]};
    if (status == DIL_OK)
        status = cli_check_output("the model", o->dry_run ? NULL : positional[1], used, 4, &err);
    if (status == DIL_OK)
        status = cli_check_output("the report", o->report, and_written, 4, &err);
    if (status == DIL_OK)
        status = choose_kind(&po, o, in_path, &err);
    if (status == DIL_OK && o->calibration)
        status = cli_read_text(o->calibration, &text, &n, &err);
    po.text = (str){text, n};
    if (status == DIL_OK)
        status = prune_file(&r, in_path, positional[1], &po, &err);
    work_progress_end(&progress);
    mem_free(text);
    if (status == DIL_OK)
        status = report(o, &r, in_path, positional[1], (double)(os_time_ns() - started_ns) * 1e-9, &err);
    prune_report_free(&r);
    return status == DIL_OK ? CLI_OK : cli_fail(&err);
}

static const char *const prune_options_listed[] = {"neurons", "experts", "layers=N", "blocks", "quality-budget", "stats", "calib",
                                                   "report",  "threads", "dry-run",  "json",   "quiet",          NULL};

const cli_command command_prune = {
    .name = "prune",
    .usage = N_(
        "prune IN OUT (--neurons F | --experts F | --layers N | --blocks F | --quality-budget KLD) --stats FILE [--calib TEXT] [--dry-run]"),
    .summary = N_(
        "Writes a model without the neurons, experts or layers that it misses least, as dil calibrate's statistics tell.\n\n"
        "Neurons leave the feed-forward networks of dense models, and those that stay take over; experts leave mixtures, and their\n"
        "tokens go to others; a layer's cost is measured by skipping it. Every layer loses the same number of neurons or experts.\n"
        "With --quality-budget, alone or beside a share, as much goes as that divergence allows. The price is compared with that of\n"
        "quantizing the whole model to the same size. Blocks are only set to zero: the file stays as large. With a text (--calib), the result is measured on its end."),
    .example = N_("dil prune model-f16.gguf model-small.gguf --experts 0.25 --stats model.stats.gguf --calib wiki.txt"),
    .options = prune_options_listed,
    .least_positional = 2,
    .most_positional = 2,
    .run = prune};
