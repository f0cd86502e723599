/* dil tune: what the machine can do, and the settings that suit a model on it. */
#include <stdio.h>
#include <string.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "cli/cli.h"
#include "cli/machine_draw.h"
#include "cli/print.h"
#include "tune/search.h"

#define GEN_TOKENS 32 /* timed at a time: many short turns say more than few long ones */

static dil_status show_machine(const cli_options *o, dil_error *err)
{
    kernels k;
    machine *m;
    machine_facts f;
    DIL_TRY(kernels_select(&k, o->cpu ? o->cpu : "auto", err));
    DIL_TRY(machine_topology(&m, NULL, err));
    dil_status status = machine_facts_get(&f, m, &k, (int32_t)o->threads, FACTS_AGAIN, o->quiet ? NULL : cli_progress, NULL, err);
    cli_progress_end();
    if (status == DIL_OK && o->json)
        machine_draw_json(stdout, m, &f);
    else if (status == DIL_OK)
        machine_draw(stdout, m, cpu_name(), &f);
    machine_free(m);
    return status;
}

/* ---- a model ---- */

/* "items per worker: 4": what stands before the colon is translated. */
static void print_tried(FILE *out, const char *what)
{
    char label[64], text[256];
    const size_t n = strcspn(what, ":");
    (void)snprintf(label, sizeof label, "%.*s", (int)n, what);
    (void)snprintf(text, sizeof text, "%s%s", _(label), what + n);
    print_cell(out, text, 52);
}

static void print_trials(FILE *out, const search_result *r)
{
    fputs(_("tried                                                timed with    speed  interval         rounds\n"), out);
    for (int32_t i = 0; i < r->n_trials; i++) {
        const profile_trial *t = &r->trials[i];
        print_tried(out, t->what);
        fputc(' ', out);
        print_cell(out, _(t->test), 11);
        fprintf(out, " %6.3fx  %5.3f .. %5.3f   %d%s\n", t->ratio, t->low, t->high, t->rounds, t->kept ? _("  kept") : "");
    }
}

static void print_result(const search_result *r, const char *path)
{
    if (!r->changed)
        printf(_("The usual settings are the fastest: nothing of %d trials in %.0f s was better beyond doubt.\n"), r->n_trials,
               r->seconds);
    else if (r->prompt_gain > 0 && r->gen_gain > 0)
        printf(_("Prompts %.3fx and generation %.3fx the speed of the usual settings (%d trials in %.0f s).\n"), r->prompt_gain,
               r->gen_gain, r->n_trials, r->seconds);
    else
        printf(r->prompt_gain > 0 ? _("Prompts %.3fx the speed of the usual settings (%d trials in %.0f s).\n")
                                  : _("Generation %.3fx the speed of the usual settings (%d trials in %.0f s).\n"),
               r->prompt_gain > 0 ? r->prompt_gain : r->gen_gain, r->n_trials, r->seconds);
    printf(_("Kept in %s: run, chat and bench load it by themselves.\n"), path);
}

static void print_json(const search_result *r, const char *path)
{
    printf("{\"changed\": %s, \"prompt_gain\": %.4f, \"generation_gain\": %.4f, \"seconds\": %.2f, \"profile\": ",
           r->changed ? "true" : "false", r->changed ? r->prompt_gain : 1, r->changed ? r->gen_gain : 1, r->seconds);
    cli_print_json_string(str_of(path));
    fputs(", \"tried\": [", stdout);
    for (int32_t i = 0; i < r->n_trials; i++) {
        const profile_trial *t = &r->trials[i];
        fputs(i ? ", {\"what\": " : "{\"what\": ", stdout);
        cli_print_json_string(str_of(t->what));
        printf(", \"test\": \"%s\", \"ratio\": %.4f, \"low\": %.4f, \"high\": %.4f, \"rounds\": %d, \"kept\": %s}", t->test,
               t->ratio, t->low, t->high, t->rounds, t->kept ? "true" : "false");
    }
    puts("]}");
}

static dil_status tune_model(const cli_options *o, dil_error *err)
{
    char path[4096], kept[2200];
    const engine_options eo = cli_engine_options(o);
    const search_options so = {.n_prompt = (int32_t)o->prompt_tokens,
                               .n_gen = (int32_t)o->gen_tokens,
                               .depth = (int32_t)o->depth,
                               .n_parallel = (int32_t)o->parallel,
                               .seconds = o->seconds,
                               .progress = o->quiet ? NULL : cli_progress};
    search_result *r = mem_calloc(1, sizeof *r, MEM_MISC);
    dil_status status = r ? cli_model_path(o->model, path, sizeof path, err) : DIL_FAIL(err, DIL_NO_MEMORY, "tune: no memory");
    if (status == DIL_OK)
        status = search_file(r, path, &eo, &so, kept, sizeof kept, err);
    cli_progress_end();
    if (status == DIL_OK && o->json)
        print_json(r, kept);
    else if (status == DIL_OK) {
        if (o->explain)
            print_trials(stdout, r);
        print_result(r, kept);
    }
    mem_free(r);
    return status;
}

static int run(const cli_options *o, char **positional, int n_positional)
{
    dil_error err = {0};
    cli_options own = *o;
    if (o->machine && (o->model || n_positional))
        return cli_usage("tune: wanted a model or --machine, found both");
    if (o->machine)
        return show_machine(o, &err) == DIL_OK ? CLI_OK : cli_fail(&err);
    own.model = cli_model_named(o, positional, n_positional);
    own.gen_tokens = options_given(o, "n-gen") ? o->gen_tokens : GEN_TOKENS;
    if (!own.model)
        return CLI_USAGE;
    return tune_model(&own, &err) == DIL_OK ? CLI_OK : cli_fail(&err);
}

static const char *const options[] = {"model",    "machine", "seconds",      "explain",      "n-prompt", "n-gen",         "depth",
                                      "parallel", "threads", "cache-type-k", "cache-type-v", "cpu",      "no-pack-cache", "json",
                                      "quiet",    NULL};

const cli_command command_tune = {
    .name = "tune",
    .usage = N_("tune (MODEL [-p N] [-n N] [-d N] [-npl N] [--seconds S] [--explain] | --machine) [-t T] [--json]"),
    .summary = N_(
        "Finds the settings that suit a model on this machine, or shows what the machine can do.\n\nSettings are tried in turns with the "
        "usual ones and kept in a profile where they are faster beyond doubt;\nrun, chat and bench load it by themselves. They never change "
        "what a model answers."),
    .example = N_("dil tune --machine\n  dil tune smollm2 --explain"),
    .options = options,
    .most_positional = 1,
    .model_argument = true,
    .run = run};
