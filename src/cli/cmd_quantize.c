/* dil quantize: the matrices of a model in another stock type. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "base/threads.h"
#include "cli/cli.h"
#include "cli/print.h"
#include "cli/quantize_matrices.h"
#include "cli/quantize_report.h"
#include "cli/work_progress.h"
#include "evaluate/report_json.h"
#include "machine/facts.h"
#include "quantize/compress.h"
#include "quantize/importance.h"
#include "quantize/matrices.h"
#include "quantize/preset.h"
#include "quantize/report.h"

typedef struct quantize_run {
    bool quiet, shown;
    uint64_t started_ns, drawn_ns;
    int n_fallback;
} quantize_run;

/* Ten times a second: how far, how fast, how long still. */
static bool progress(void *user, const char *what, uint64_t done, uint64_t total)
{
    quantize_run *r = user;
    char so_far[32], all[32], speed[32];
    uint64_t now = os_time_ns();
    if (os_interrupted())
        return false;
    if (r->quiet || !os_is_terminal(OS_STDERR) || now - r->drawn_ns < 100000000u)
        return true;
    double seconds = (double)(now - r->started_ns) * 1e-9, rate = (double)done / (seconds + 1e-9);
    fprintf(stderr, _("\r%s: %3.0f %%  %s of %s, %s/s, %.0f s left\033[K"), _(what),
            total ? 100.0 * (double)done / (double)total : 100.0, str_bytes(done, so_far, sizeof so_far),
            str_bytes(total, all, sizeof all), str_bytes((uint64_t)rate, speed, sizeof speed),
            rate > 0 ? (double)(total - done) / rate : 0.0);
    r->drawn_ns = now;
    r->shown = true;
    return true;
}

/* The first few by name, the rest as a number. */
static void tell_fallback(void *user, str tensor, uint64_t columns, dil_type used)
{
    quantize_run *r = user;
    if (r->quiet || r->n_fallback++ >= 3)
        return;
    fputs(_("note: "), stderr);
    print_text(stderr, tensor, 100);
    fprintf(stderr, _(": rows of %llu values do not fit the type's block; it becomes %s\n"), (unsigned long long)columns,
            format_get(used)->name);
}

static dil_status find_type(const char *name, dil_type *out, dil_error *err)
{
    uint32_t file_type;
    if (name && format_find(name, out) && convert_file_type(*out, &file_type))
        return DIL_OK;
    strbuf names = STRBUF(300);
    convert_type_names(&names);
    DIL_FAIL(err, DIL_BAD_ARGUMENT, "--type: wanted one of %s; found %s%s%s", names.p ? names.p : _("(no memory)"), name ? "'" : "",
             name ? name : _("nothing"), name ? "'" : "");
    strbuf_free(&names);
    return DIL_BAD_ARGUMENT;
}

static double bits(uint64_t bytes, uint64_t values) { return values ? 8.0 * (double)bytes / (double)values : 0.0; }

static void print_json(const convert_result *r, const char *out_path, dil_type type, bool dry_run, double seconds)
{
    fputs("{\"output\": ", stdout);
    cli_print_json_string(str_of(out_path));
    printf(", \"written\": %s, \"type\": \"%s\", \"tensors\": %u, \"matrices\": %u, \"requantized\": %u, \"fallback\": %u, "
           "\"in_bytes\": %llu, \"out_bytes\": %llu, \"bits_per_weight\": %.4f, \"seconds\": %.3f}\n",
           dry_run ? "false" : "true", format_get(type)->name, r->n_tensors, r->n_matrices, r->n_requantized, r->n_fallback,
           (unsigned long long)r->in_bytes, (unsigned long long)r->out_bytes, bits(r->matrix_bytes, r->n_matrix_values), seconds);
}

static void print_result(const convert_result *r, const char *out_path, dil_type type, bool dry_run, double seconds)
{
    char before[32], after[32], speed[32];
    printf(_("%s: %u matrices as %s, "), out_path, r->n_matrices - r->n_fallback, format_get(type)->name);
    if (r->n_fallback)
        printf(_("%u as a wider type, "), r->n_fallback);
    printf(_("%u other tensors, %s -> %s (%.2f bits per weight)"), r->n_tensors - r->n_matrices,
           str_bytes(r->in_bytes, before, sizeof before), str_bytes(r->out_bytes, after, sizeof after),
           bits(r->matrix_bytes, r->n_matrix_values));
    if (dry_run)
        puts(_("; dry run, nothing was written"));
    else
        printf(_(", %.1f s, %s/s\n"), seconds, str_bytes((uint64_t)((double)r->in_bytes / (seconds + 1e-9)), speed, sizeof speed));
}

static void print_requantized(unsigned n, unsigned of)
{
    if (n > 0)
        fprintf(stderr,
                _("note: %u of %u matrices had been quantized before: they were decoded first, which adds errors to errors; "
                  "start from an F16 or F32 file when there is one\n"),
                n, of);
}

static void print_notes(const convert_result *r)
{
    if (r->n_fallback > 3)
        fprintf(stderr, _("note: %u matrices in all became a wider type for that reason\n"), r->n_fallback);
    print_requantized(r->n_requantized, r->n_matrices);
}

/* ---- with calibration ---- */

/* Ways to say which formats: one. A preset's budget may be changed. */
static int check_usage(const cli_options *o)
{
    const int n =
        (o->type != NULL) + (o->like != NULL) + (o->bits > 0) + (o->size_bytes > 0) + (o->preset != NULL || o->quality_budget > 0);
    if (n != 1)
        return cli_usage(
            "quantize: wanted one of --type, --like, --bpw, --size, --quality-budget and --preset, found %s; see --help",
            n ? _("several") : _("none"));
    if (o->preset && !preset_find(o->preset))
        return cli_usage("quantize: --preset: wanted dusuk, dengeli or yuksek, found '%s'", o->preset);
    if (o->speed_price >= 0 && (o->type || o->like))
        return cli_usage(
            "quantize: --speed-price: wanted --bpw, --size, --quality-budget or --preset beside it, found %s; see --help",
            o->type ? "--type" : "--like");
    return CLI_OK;
}

static dil_status compress_report_all(const cli_options *o, const preset_report *r, const char *in_path, const char *out_path,
                                      double seconds, dil_error *err)
{
    json_t *json = o->json || o->report ? report_of_compression(&r->file, in_path, out_path, seconds) : NULL;
    if (json && r->preset)
        report_add_preset(json, r);
    dil_status status = o->report ? report_write(o->report, json, err) : DIL_OK;
    if (status == DIL_OK && o->json)
        status = print_report(json, err);
    unsigned n_before = 0;
    for (int i = 0; i < r->file.players.n; i++)
        n_before += format_get(r->file.players.p[i].tensor->type)->is_quantized;
    if (!o->quiet)
        print_requantized(n_before, (unsigned)r->file.players.n);
    if (!o->json && !o->quiet) {
        quantize_report_print(stdout, &r->file, out_path, seconds);
        if (r->preset)
            quantize_report_preset_print(stdout, r);
    }
    json_decref(json);
    return status;
}

#define FAR_BYTES ((double)(1 << 27)) /* weights that lie in memory as a model's do */

/* price: of a millisecond. rates: [DIL_TYPE_COUNT] */
static dil_status add_speed(compress_options *co, double *rates, double price, dil_error *err)
{
    kernels k;
    machine *m;
    machine_facts f;
    DIL_TRY(kernels_select(&k, NULL, err));
    DIL_TRY(machine_topology(&m, NULL, err));
    dil_status status = machine_facts_get(&f, m, &k, 0, FACTS_KEPT, cli_progress, NULL, err);
    cli_progress_end();
    machine_free(m);
    DIL_TRY(status);
    for (int type = 0; type < DIL_TYPE_COUNT; type++)
        rates[type] = machine_weight_rate(&f, (dil_type)type, f.limits[f.n_counts - 1].n_threads, FAR_BYTES);
    co->weights_per_second = rates;
    co->second_price = 1000 * price;
    return DIL_OK;
}

static dil_status check_outputs(const cli_options *o, const char *in_path, const char *out_path, dil_error *err)
{
    const char *const used[] = {in_path, o->stats, o->calibration, o->like, o->report};
    DIL_TRY(cli_check_output("the model", o->dry_run ? NULL : out_path, used, 5, err));
    const char *const and_written[] = {in_path, o->stats, o->calibration, o->like, out_path};
    return cli_check_output("the report", o->report, and_written, 5, err);
}

static int compress(const cli_options *o, const char *in_path, const char *out_path)
{
    dil_error err = {0};
    char *text = NULL;
    size_t n = 0;
    preset_report report = {0};
    double rates[DIL_TYPE_COUNT];
    work_progress run = {.quiet = o->quiet};
    uint64_t started_ns = os_time_ns();
    compress_options co = {.type = DIL_TYPE_COUNT,
                           .like = o->like,
                           .bits = o->bits,
                           .size_bytes = o->size_bytes,
                           .budget = o->quality_budget,
                           .stats = o->stats,
                           .text_name = o->calibration,
                           .n_sequences = o->chunks ? (int)o->chunks
                                          : o->fast ? 24
                                                    : 100,
                           .n_context = o->context ? (int)o->context : 512,
                           .most_sweeps = o->fast ? ROUND_SWEEPS_FAST : ROUND_SWEEPS,
                           .n_threads = o->threads ? (int)o->threads : os_cpu_count(),
                           .resume = o->resume,
                           .dry_run = o->dry_run,
                           .own_formats = o->no_keep_stock,
                           .refine_steps = (int)o->refine,
                           .measure = true,
                           .progress = work_progress_tell,
                           .user = &run};
    if (co.n_threads > TEAM_MAX)
        co.n_threads = TEAM_MAX;
    if (o->type && find_type(o->type, &co.type, &err) != DIL_OK) {
        cli_fail(&err);
        return CLI_USAGE;
    }
    dil_status status = check_outputs(o, in_path, out_path, &err);
    if (status == DIL_OK && o->speed_price >= 0)
        status = add_speed(&co, rates, o->speed_price, &err);
    if (status == DIL_OK && o->calibration)
        status = cli_read_text(o->calibration, &text, &n, &err);
    co.text = (str){text, n};
    if (status == DIL_OK)
        status = o->preset ? preset_file(&report, preset_find(o->preset), in_path, out_path, &co, &err)
                           : compress_file(&report.file, in_path, out_path, &co, &err);
    work_progress_end(&run);
    mem_free(text);
    if (status == DIL_OK)
        status = compress_report_all(o, &report, in_path, out_path, (double)(os_time_ns() - started_ns) * 1e-9, &err);
    preset_report_free(&report);
    return status == DIL_OK ? CLI_OK : cli_fail(&err);
}

/* --type alone, or with the importance of what matrices read (weighted): each weight is rounded by itself. */
static int convert(const cli_options *o, const char *in_path, const char *out_path, bool weighted)
{
    dil_error err = {0};
    convert_result result;
    quantize_run run = {.quiet = o->quiet, .started_ns = os_time_ns()};
    convert_options co = {.n_threads = o->threads ? (int)o->threads : os_cpu_count(),
                          .dry_run = o->dry_run,
                          .progress = progress,
                          .fallback = tell_fallback,
                          .user = &run};
    if (co.n_threads > TEAM_MAX)
        co.n_threads = TEAM_MAX;
    if (find_type(o->type, &co.type, &err) != DIL_OK) {
        cli_fail(&err);
        return CLI_USAGE;
    }
    dil_status status = check_outputs(o, in_path, out_path, &err);
    if (status == DIL_OK)
        status = weighted ? importance_convert(&result, in_path, out_path, o->stats, &co, &err)
                          : convert_file(&result, in_path, out_path, &co, &err);
    if (run.shown)
        fputs("\r\033[K", stderr);
    if (status != DIL_OK)
        return cli_fail(&err);
    if (!o->quiet)
        print_notes(&result);
    double seconds = (double)(os_time_ns() - run.started_ns) * 1e-9;
    if (!o->quiet || o->json)
        (o->json ? print_json : print_result)(&result, out_path, co.type, o->dry_run, seconds);
    return CLI_OK;
}

/* What asks for a text, or for statistics of all that matrices read. */
static int check_calibration(const cli_options *o, bool weighted)
{
    if (o->preset && (o->stats || !o->calibration))
        return cli_usage("quantize: --preset: wanted --calib TEXT beside it, found %s; see --help",
                         o->stats ? "--stats" : _("none"));
    if (o->calibration || (o->stats && !weighted))
        return CLI_OK;
    const char *alone = o->report          ? "--report"
                        : o->resume        ? "--resume"
                        : o->fast          ? "--fast"
                        : o->no_keep_stock ? "--no-keep-stock"
                        : o->chunks        ? "--chunks"
                        : o->context       ? "--ctx-size"
                                           : NULL;
    if (o->type && alone)
        return cli_usage("quantize: %s: wanted --calib TEXT or full statistics (--stats) beside it, found %s; see --help", alone,
                         weighted ? _("importance only") : _("neither"));
    if (!o->type || o->speed_price >= 0 || o->refine)
        return cli_usage("quantize: %s: wanted --calib TEXT or --stats FILE beside it, found %s; see --help",
                         o->refine               ? "--refine"
                         : o->like               ? "--like"
                         : o->bits > 0           ? "--bpw"
                         : o->quality_budget > 0 ? "--quality-budget"
                         : o->size_bytes         ? "--size"
                                                 : "--speed-price",
                         weighted ? _("importance only") : _("neither"));
    return CLI_OK;
}

static int quantize(const cli_options *o, char **positional, int n_positional)
{
    (void)n_positional;
    dil_error err = {0};
    char in_path[4096];
    bool alone = false;
    int usage = check_usage(o);
    if (usage != CLI_OK)
        return usage;
    dil_status status = cli_model_path(positional[0], in_path, sizeof in_path, &err);
    if (status == DIL_OK)
        status = matrices_suit(&alone, in_path, &err);
    if (status != DIL_OK)
        return cli_fail(&err);
    const bool weighted = o->stats && o->type && !calibration_is_full(o->stats);
    if (alone && (!o->type || o->calibration || (o->stats && !weighted)))
        return quantize_matrices(o, in_path, positional[1]);
    usage = check_calibration(o, weighted);
    if (usage != CLI_OK)
        return usage;
    return o->calibration || (o->stats && !weighted) ? compress(o, in_path, positional[1])
                                                     : convert(o, in_path, positional[1], weighted);
}

static const char *const quantize_options[] = {"type",        "bpw",      "size",   "like",          "quality-budget", "preset",
                                               "speed-price", "calib",    "stats",  "no-keep-stock", "fast",           "refine",
                                               "chunks",      "ctx-size", "resume", "report",        "threads",        "dry-run",
                                               "json",        "quiet",    NULL};

const cli_command command_quantize = {
    .name = "quantize",
    .usage = N_("quantize IN OUT (--type TYPE | --bpw BITS | --size BYTES | --like GGUF | --quality-budget KLD | --preset NAME)\n"
                "                [--calib TEXT] [--stats FILE] [--fast] [--refine N] [--resume]"),
    .summary = N_(
        "Writes a model with its matrices in other types. OUT appears when it is complete.\n\n"
        "With --type alone, every matrix gets that type, each weight rounded by itself: F32, F16, BF16, Q8_0, Q6_K, Q5_1, Q5_0,\n"
        "Q5_K, Q4_1, Q4_0, Q4_K, IQ4_NL, IQ4_XS, Q3_K, Q2_K, IQ3_S, IQ3_XXS, IQ2_S, IQ2_XS, IQ2_XXS, MXFP4,\n"
        "NVFP4, TQ2_0, TQ1_0, IQ1_M, IQ1_S, Q2_0 or Q1_0. Vectors stay F32.\n\n"
        "With a text (--calib) or what dil calibrate made of one (--stats), errors are put where this model does not feel them,\n"
        "and --bpw or --size let the matrices share the bytes as a game: each takes the type that is worth its price. With\n"
        "--quality-budget the file becomes as small as that divergence, measured on the text's end, allows; a preset lets experts or\n"
        "neurons go first, as dil prune does. --speed-price makes time per token on this machine count too. With --refine, scales and\n"
        "norms learn from the float model at the end. Types are those every engine reads unless --no-keep-stock allows ours.\n\n"
        "A layer of experts alone, or a file of matrices of an unknown network, needs no text: --bpw or --preset is enough for it."),
    .example = N_("dil quantize model-f16.gguf model-small.gguf --bpw 4.3 --calib wiki.txt --report small.json"),
    .options = quantize_options,
    .least_positional = 2,
    .most_positional = 2,
    .run = quantize};
