/* dil refine: scales and norms of a small model learn the answers of the large one. */
#include <stdio.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "base/threads.h"
#include "cli/cli.h"
#include "cli/quantize_report.h"
#include "cli/work_progress.h"
#include "quantize/refine.h"

static int refine(const cli_options *o, char **positional, int n_positional)
{
    (void)n_positional;
    dil_error err = {0};
    char float_path[4096], small_path[4096], *text = NULL;
    size_t n = 0;
    refine_result result;
    work_progress progress = {.quiet = o->quiet};
    uint64_t started_ns = os_time_ns();
    refine_options ro = {.text_name = o->calibration,
                         .n_sequences = o->chunks ? (int)o->chunks : 100,
                         .n_context = o->context ? (int)o->context : 512,
                         .n_steps = o->steps ? (int)o->steps : REFINE_STEPS,
                         .n_threads = o->threads ? (int)o->threads : os_cpu_count(),
                         .resume = o->resume,
                         .progress = work_progress_tell,
                         .user = &progress};
    if (ro.n_threads > TEAM_MAX)
        ro.n_threads = TEAM_MAX;
    if (!o->calibration)
        return cli_usage("refine: wanted a text (--calib), found none; see --help");
    dil_status status = cli_model_path(positional[0], float_path, sizeof float_path, &err);
    if (status == DIL_OK)
        status = cli_model_path(positional[1], small_path, sizeof small_path, &err);
    const char *const used[] = {float_path, small_path, o->calibration};
    if (status == DIL_OK)
        status = cli_check_output("the model", positional[2], used, 3, &err);
    if (status == DIL_OK)
        status = cli_read_text(o->calibration, &text, &n, &err);
    ro.text = (str){text, n};
    if (status == DIL_OK)
        status = refine_file(&result, float_path, small_path, positional[2], &ro, &err);
    work_progress_end(&progress);
    mem_free(text);
    if (status != DIL_OK)
        return cli_fail(&err);
    if (o->quiet)
        return CLI_OK;
    printf("%s: %.0f s\n", positional[2], (double)(os_time_ns() - started_ns) * 1e-9);
    quantize_report_refined(stdout, &result);
    return CLI_OK;
}

static const char *const refine_cli_options[] = {"calib", "steps", "chunks", "ctx-size", "resume", "threads", "quiet", NULL};

const cli_command command_refine = {
    .name = "refine",
    .usage = N_("refine FLOAT SMALL OUT --calib TEXT [--steps N] [--chunks N] [-c CTX] [--resume]"),
    .summary = N_(
        "Writes a quantized model with other scales and norms, which have learnt to give the float model's answers.\n\n"
        "Codes and types stay as they are: OUT is as large as SMALL. An eighth of the sequences is not learnt from but judges; when\n"
        "it finds nothing better, OUT has the numbers of SMALL. dil quantize --refine does the same at the end of its work."),
    .example = N_("dil refine model-f16.gguf model-q4.gguf better.gguf --calib wiki.txt"),
    .options = refine_cli_options,
    .least_positional = 3,
    .most_positional = 3,
    .run = refine};
