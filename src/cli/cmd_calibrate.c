/* dil calibrate: what a text tells of a model's matrices. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "base/threads.h"
#include "cli/cli.h"
#include "cli/work_progress.h"
#include "quantize/compress.h"

static int calibrate(const cli_options *o, char **positional, int n_positional)
{
    (void)positional;
    (void)n_positional;
    dil_error err = {0};
    char path[4096], size[32], *text = NULL;
    size_t n = 0;
    work_progress progress = {.quiet = o->quiet};
    uint64_t started_ns = os_time_ns();
    compress_options co = {.text_name = o->file,
                           .n_sequences = o->chunks ? (int)o->chunks
                                          : o->fast ? 24
                                                    : 100,
                           .n_context = o->context ? (int)o->context : 512,
                           .n_threads = o->threads ? (int)o->threads : os_cpu_count(),
                           .resume = o->resume,
                           .progress = work_progress_tell,
                           .user = &progress};
    if (co.n_threads > TEAM_MAX)
        co.n_threads = TEAM_MAX;
    if (!o->file || !o->output)
        return cli_usage(o->file ? N_("calibrate: wanted a name for the statistics (-o), found none; see --help")
                                 : N_("calibrate: wanted a text (-f), found none; see --help"));
    dil_status status = cli_model_path(o->model, path, sizeof path, &err);
    const char *const used[] = {path, o->file};
    if (status == DIL_OK)
        status = cli_check_output("the statistics", o->output, used, 2, &err);
    if (status == DIL_OK)
        status = cli_read_text(o->file, &text, &n, &err);
    co.text = (str){text, n};
    int n_sequences = 0;
    if (status == DIL_OK)
        status = compress_calibrate(path, o->output, o->full, &co, &n_sequences, &err);
    work_progress_end(&progress);
    mem_free(text);
    if (status != DIL_OK)
        return cli_fail(&err);
    os_file f;
    if (os_file_open(&f, o->output, &err) != DIL_OK)
        return cli_fail(&err);
    double seconds = (double)(os_time_ns() - started_ns) * 1e-9;
    if (!o->quiet)
        printf(_("%s: %d sequences of %d tokens of %s, %s, %.1f s\n"), o->output, n_sequences, co.n_context, o->file,
               str_bytes(f.size_bytes, size, sizeof size), seconds);
    os_file_close(&f);
    return CLI_OK;
}

static const char *const calibrate_options[] = {"model",    "file",   "output",  "full",  "fast", "chunks",
                                                "ctx-size", "resume", "threads", "quiet", NULL};

const cli_command command_calibrate = {
    .name = "calibrate",
    .usage = N_("calibrate -m MODEL -f TEXT -o STATS [--full] [--chunks N] [-c CTX] [--fast] [--resume]"),
    .summary =
        N_("Runs a model over a text and writes what its matrices meet: the importance of every input, as llama.cpp reads it too.\n"
           "--full goes backward as well and adds how much the model's answers depend on every output: then one STATS serves\n"
           "many dil quantize --stats. It wants a float model of an architecture that dil train knows."),
    .example = N_("dil calibrate -m model-f16.gguf -f wiki.txt -o model.stats.gguf --full"),
    .options = calibrate_options,
    .run = calibrate};
