/* dil eval outputs: the answers of a model to many prompts, one a line, for dil eval bleu and for reading. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "cli/cli.h"
#include "cli/print.h"
#include "evaluate/lines.h"
#include "evaluate/outputs.h"
#include "evaluate/report_json.h"
#include "quantize/work.h"

enum { ANSWER_TOKENS = 128, SEQUENCES = 8 }; /* where nobody says otherwise */
#define MOST_PART_BYTES ((size_t)1 << 32)

typedef struct outputs_command {
    const cli_options *o;
    int32_t n_predict, n_parallel;
    char *prompts;
    size_t prompts_bytes;
    char part_path[4096 + 8], head[64];
    os_writer part; /* answers so far, behind a head line that tells what they answer */
    bool part_open;
    int32_t n_before, n_written; /* answers: of an interrupted run, of this one */
    uint64_t started_ns, drawn_ns;
    bool drawn;
} outputs_command;

/* ---- what an interrupted run leaves: OUT.part ---- */

/* Of everything that answers depend on. */
static uint64_t key_of(const outputs_command *c, const char *model_path)
{
    const cli_options *o = c->o;
    const int64_t numbers[] = {c->n_predict, o->context, o->no_template, o->exact, o->type_k, o->type_v, o->route};
    const char *system = o->system ? o->system : "", *cpu = o->cpu ? o->cpu : "";
    uint64_t key = work_hash_path(model_path, work_hash(c->prompts, c->prompts_bytes, 1));
    key = work_hash(cpu, strlen(cpu), work_hash(system, strlen(system), key));
    key = work_hash(&o->route_mass, sizeof o->route_mass, key);
    return work_hash(numbers, sizeof numbers, key);
}

/* Whole lines of the file behind its head, which must be the wanted one. */
static dil_status read_part(const outputs_command *c, char **memory, str *answers, dil_error *err)
{
    size_t n;
    const str head = str_of(c->head);
    DIL_TRY(os_read_all(c->part_path, MOST_PART_BYTES, memory, &n, err));
    while (n > 0 && (*memory)[n - 1] != '\n')
        n--;
    if (!str_starts((str){*memory, n}, head))
        return DIL_FAIL(
            err, DIL_BAD_ARGUMENT,
            "%s: wanted what an interrupted run of the same model, prompts and options has left, found something else; remove "
            "it or do without --resume",
            c->part_path);
    *answers = (str){*memory + head.n, n - head.n};
    return DIL_OK;
}

/* The answers that are there already stay, anew without what a broken off write may have left behind them. */
static dil_status begin_part(outputs_command *c, uint64_t key, dil_error *err)
{
    char *memory = NULL;
    str answers = {"", 0};
    dil_status status = DIL_OK;
    (void)snprintf(c->head, sizeof c->head, "dil eval outputs %016" PRIx64 "\n", key);
    if (c->o->resume && os_exists(c->part_path))
        status = read_part(c, &memory, &answers, err);
    os_writer w;
    if (status == DIL_OK)
        status = os_write_file(c->part_path, memory ? memory : c->head, strlen(c->head) + answers.n, err);
    c->n_before = status == DIL_OK ? (int32_t)lines_count(answers) : 0;
    mem_free(memory);
    DIL_TRY(status);
    DIL_TRY(os_writer_append(&w, c->part_path, err));
    c->part = w;
    c->part_open = true;
    return DIL_OK;
}

/* The answers get their name. */
static dil_status finish_part(outputs_command *c, dil_error *err)
{
    char *memory = NULL;
    str answers = {"", 0};
    c->part_open = false;
    dil_status status = os_writer_close(&c->part, err);
    if (status == DIL_OK)
        status = read_part(c, &memory, &answers, err);
    if (status == DIL_OK)
        status = os_write_file(c->o->output, answers.p, answers.n, err);
    mem_free(memory);
    return status == DIL_OK ? os_remove(c->part_path, err) : status;
}

/* After a failure: answers stay, an empty file does not. */
static void leave_part(outputs_command *c)
{
    dil_error ignored;
    dil_status status = os_writer_close(&c->part, &ignored);
    if (status == DIL_OK && c->n_before + c->n_written == 0)
        status = os_remove(c->part_path, &ignored);
    (void)status;
}

/* ---- while it goes ---- */

static dil_status emit(void *ctx, str answer, dil_error *err)
{
    outputs_command *c = ctx;
    DIL_TRY(os_writer_write(&c->part, answer.p, answer.n, err));
    DIL_TRY(os_writer_write(&c->part, "\n", 1, err));
    c->n_written++;
    return DIL_OK;
}

static double seconds_since(uint64_t start_ns) { return (double)(os_time_ns() - start_ns) * 1e-9; }

static bool report(void *ctx, const outputs_stats *s)
{
    outputs_command *c = ctx;
    const double seconds = seconds_since(c->started_ns);
    const int32_t now = s->n_answers - c->n_before;
    if (!c->o->quiet && os_is_terminal(OS_STDERR) && os_time_ns() - c->drawn_ns > 100000000u) {
        fprintf(stderr, _("\r%d of %d answers, %.1f tokens/s"), s->n_answers, s->n_prompts, (double)s->n_generated / seconds);
        if (now > 0)
            fprintf(stderr, _("  (%.0f s left)"), seconds * (s->n_prompts - s->n_answers) / now);
        fputs("\033[K", stderr);
        c->drawn_ns = os_time_ns();
        c->drawn = true;
    }
    return !os_interrupted();
}

static dil_status print_stats(const outputs_command *c, const outputs_stats *s, dil_error *err)
{
    const double seconds = seconds_since(c->started_ns), speed = (double)s->n_generated / seconds;
    if (c->o->json) {
        json_t *all = json_pack("{s:i, s:i, s:i, s:o, s:o, s:o, s:o, s:o}", "answers", s->n_answers, "answers_before", c->n_before,
                                "ended", s->n_ended, "prompt_tokens", report_count((uint64_t)s->n_prompt_tokens), "reused_tokens",
                                report_count((uint64_t)s->n_reused), "generated_tokens", report_count((uint64_t)s->n_generated),
                                "seconds", report_number(seconds), "tokens_per_second", report_number(speed));
        const dil_status status = print_report(all, err);
        json_decref(all);
        return status;
    }
    if (c->o->quiet)
        return DIL_OK;
    fprintf(stderr, s->n_answers == 1 ? _("[%d answer") : _("[%d answers"), s->n_answers);
    if (c->n_before > 0)
        fprintf(stderr, _(", %d of them from before"), c->n_before);
    fprintf(stderr,
            _(", %d ended by the model | prompts %lld tokens, %lld of them reused | %lld tokens in %.1f s, %.1f tokens/s]\n"),
            s->n_ended, (long long)s->n_prompt_tokens, (long long)s->n_reused, (long long)s->n_generated, seconds, speed);
    return DIL_OK;
}

/* ---- the command ---- */

static dil_status answer_all(outputs_command *c, engine *e, outputs_stats *stats, dil_error *err)
{
    const outputs_options oo = {.n_predict = c->n_predict,
                                .n_parallel = c->n_parallel,
                                .n_skip = c->n_before,
                                .plain = c->o->no_template || engine_model(e)->chat_template.n == 0,
                                .system = c->o->system,
                                .emit = emit,
                                .report = report,
                                .ctx = c};
    c->started_ns = os_time_ns();
    const dil_status status = evaluate_outputs(e, (str){c->prompts, c->prompts_bytes}, &oo, stats, err);
    if (c->drawn)
        fputs("\r\033[K", stderr);
    if (status == DIL_CANCELLED && c->n_before + c->n_written > 0)
        return DIL_FAIL(err, status, "stopped after %d of %d answers; with --resume the same command goes on",
                        c->n_before + c->n_written, (int)lines_count((str){c->prompts, c->prompts_bytes}));
    return status;
}

static dil_status run(outputs_command *c, dil_error *err)
{
    char path[4096];
    engine *e = NULL;
    outputs_stats stats;
    engine_options eo = cli_engine_options(c->o);
    eo.n_sessions = c->n_parallel;
    eo.max_outputs = c->n_parallel;
    DIL_TRY(cli_model_path(c->o->model, path, sizeof path, err));
    DIL_TRY(cli_read_text(c->o->file, &c->prompts, &c->prompts_bytes, err));
    const char *const others[] = {path, c->o->file};
    DIL_TRY(cli_check_output("the answers", c->o->output, others, 2, err));
    DIL_TRY(cli_open(&e, c->o, &eo, err));
    dil_status status = begin_part(c, key_of(c, path), err);
    if (status == DIL_OK)
        status = answer_all(c, e, &stats, err);
    if (status == DIL_OK)
        status = finish_part(c, err);
    if (status == DIL_OK)
        status = print_stats(c, &stats, err);
    if (status == DIL_OK && c->o->timing)
        cli_print_timing(e);
    if (status == DIL_OK && !c->o->quiet)
        cli_print_experts(e);
    engine_close(e);
    return status;
}

static int eval_outputs(const cli_options *o, char **positional, int n_positional)
{
    (void)positional, (void)n_positional;
    dil_error err = {0};
    outputs_command c = {.o = o,
                         .n_predict = options_given(o, "n-predict") ? (int32_t)o->n_predict : ANSWER_TOKENS,
                         .n_parallel = options_given(o, "parallel") ? (int32_t)o->parallel : SEQUENCES};
    if (!o->file || !o->output)
        return cli_usage("eval outputs: wanted -f PROMPTS and -o OUT.txt");
    if (c.n_predict == 0)
        return cli_usage("eval outputs: wanted at least one token an answer (-n), found 0");
    (void)snprintf(c.part_path, sizeof c.part_path, "%s.part", o->output);
    const dil_status status = run(&c, &err);
    if (c.part_open)
        leave_part(&c);
    mem_free(c.prompts);
    return status == DIL_OK ? CLI_OK : cli_fail(&err);
}

static const char *const outputs_list[] = {"model",       "file",   "output",         "n-predict", "parallel", "system",
                                           "no-template", "resume", EVALUATE_OPTIONS, "json",      "quiet",    NULL};

const cli_command command_eval_outputs = {
    .name = "eval outputs",
    .usage = N_("eval outputs -m MODEL -f PROMPTS -o OUT.txt [-n 128] [-npl 8] [--no-template] [--resume]"),
    .summary = N_("A model's answers to prompts, one of each a line: the most probable tokens, several answers in every pass."),
    .example = N_("dil eval outputs -m smollm2 -f prompts.txt -n 64 -o f16.txt"),
    .options = outputs_list,
    .run = eval_outputs};
