/* dil: the table of subcommands. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/os.h"
#include "base/status.h"
#include "cli/cli.h"
#include "cli/print.h"

static const cli_command *const commands[] = {
    &command_run,          &command_chat,           &command_show,        &command_check,
    &command_plan,         &command_tokenize,       &command_detokenize,  &command_eval_perplexity,
    &command_eval_kld,     &command_eval_hellaswag, &command_eval_logits, &command_eval_bleu,
    &command_eval_outputs, &command_bench,          &command_quantize,    &command_refine,
    &command_calibrate,    &command_prune,          &command_train,       &command_export,
    &command_import,       &command_pull,           &command_list,        &command_theorem,
    &command_route,        &command_trace,          &command_view,        &command_tune,
    &command_rm,
};
#define N_COMMANDS (sizeof commands / sizeof commands[0])

/* The commands whose names begin with `prefix`, one per line. */
static void print_commands(FILE *out, const char *prefix)
{
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strncmp(commands[i]->name, prefix, strlen(prefix)) != 0)
            continue;
        const char *summary = commands[i]->summary;
        const char *end = strchr(summary, '\n');
        fprintf(out, "  %-16s %.*s\n", commands[i]->name, end ? (int)(end - summary) : (int)strlen(summary), summary);
    }
}

static void print_overview(FILE *out)
{
    fprintf(out, "dil %s: language models on ordinary CPUs\n\nusage: dil COMMAND [OPTIONS]\n\n", DIL_VERSION);
    print_commands(out, "");
    fputs("\nEvery command has --help. A first step: dil pull smollm2 && dil chat -m smollm2\n", out);
}

/* "eval" and its second word name one command: "eval perplexity". */
static const cli_command *find(int argc, char **argv, int *n_words)
{
    char name[64];
    *n_words = 1;
    if (strcmp(argv[1], "eval") == 0 && argc > 2) {
        snprintf(name, sizeof name, "eval %s", argv[2]);
        *n_words = 2;
    } else {
        snprintf(name, sizeof name, "%s", argv[1]);
    }
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(name, commands[i]->name) == 0)
            return commands[i];
    return NULL;
}

static bool takes_model(const cli_command *c)
{
    for (const char *const *name = c->options; name && *name; name++)
        if (strcmp(*name, "model") == 0)
            return true;
    return false;
}

static bool asks_help(const char *word) { return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0; }

static void print_eval_help(FILE *out)
{
    fputs("usage: dil eval MEASURE [OPTIONS]\n\n", out);
    print_commands(out, "eval ");
    fputs("\nEach has --help.\n", out);
}

/* `dil help COMMAND` is `dil COMMAND --help`. */
static int help_on(int argc, char **argv)
{
    int n_words;
    const cli_command *c = find(argc, argv, &n_words);
    if (c)
        options_print_help(c);
    else if (strcmp(argv[1], "eval") == 0)
        print_eval_help(stdout);
    else
        return cli_usage("'%s' is not a command; see dil --help", argv[1]);
    return CLI_OK;
}

#define MOST_EVENTS ((uint64_t)1 << 20)

/* No model is overwritten, by whatever name it goes; bench takes several. */
static dil_status begin_events(cli_options *o, dil_error *err)
{
    char names[4096], path[4096];
    dil_error ignored;
    const char *const others[] = {o->model, o->file, o->base, o->save_base, o->output}, *const model[] = {path};
    DIL_TRY(cli_check_output("the events", o->trace_events, others, 5, err));
    snprintf(names, sizeof names, "%s", o->model);
    for (char *rest = names, *name; (name = strsep(&rest, ","));)
        if (cli_model_path(name, path, sizeof path, &ignored) == DIL_OK)
            DIL_TRY(cli_check_output("the events", o->trace_events, model, 1, err));
    return events_new(&o->events, MOST_EVENTS, err);
}

static dil_status end_events(const cli_options *o, dil_error *err)
{
    uint64_t n = events_recorded(o->events), dropped = events_dropped(o->events);
    DIL_TRY(events_write(o->events, o->trace_events, err));
    if (o->quiet)
        return DIL_OK;
    fprintf(stderr, "[%" PRIu64 " events written to ", n - dropped);
    print_text(stderr, str_of(o->trace_events), 4096);
    if (dropped)
        fprintf(stderr, "; the %" PRIu64 " oldest were dropped", dropped);
    fputs("]\n", stderr);
    return DIL_OK;
}

/* Runs the command; with --trace-events a recorder is there for its engines, and the file is written however it ends. */
static int run(const cli_command *c, cli_options *o, char **positional, int n_positional)
{
    dil_error err = {0};
    if (!o->trace_events)
        return c->run(o, positional, n_positional);
    if (begin_events(o, &err) != DIL_OK)
        return cli_fail(&err);
    int code = c->run(o, positional, n_positional);
    if (code != CLI_USAGE && end_events(o, &err) != DIL_OK)
        code = cli_fail(&err);
    events_free(o->events);
    return code;
}

/* What was printed must have arrived; a reader that left (head, less) is no news. */
static int finish(int code)
{
    errno = 0;
    bool lost = fflush(stdout) != 0 || ferror(stdout);
    if (!lost || code != CLI_OK)
        return code;
    if (errno != EPIPE)
        fprintf(stderr, "dil: standard output: not everything could be written%s%s\n", errno ? ": " : "",
                errno ? strerror(errno) : "");
    return CLI_FAILED;
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "help") == 0)
        return help_on(argc - 1, argv + 1);
    if (argc < 2 || asks_help(argv[1]) || strcmp(argv[1], "help") == 0) {
        print_overview(argc < 2 ? stderr : stdout);
        return argc < 2 ? CLI_USAGE : CLI_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("dil %s\n", DIL_VERSION);
        return CLI_OK;
    }
    if (strcmp(argv[1], "eval") == 0 && (argc == 2 || asks_help(argv[2]))) {
        print_eval_help(argc == 2 ? stderr : stdout);
        return argc == 2 ? CLI_USAGE : CLI_OK;
    }
    int n_words;
    const cli_command *c = find(argc, argv, &n_words);
    if (!c) {
        fprintf(stderr, "dil: '%s%s%s' is not a command; see dil --help\n", argv[1], n_words == 2 ? " " : "",
                n_words == 2 ? argv[2] : "");
        return CLI_USAGE;
    }
    cli_options o;
    int n_positional = 0;
    if (!options_parse(&o, c, argc - n_words, argv + n_words, &n_positional))
        return CLI_USAGE;
    if (o.help) {
        options_print_help(c);
        return CLI_OK;
    }
    if (!o.model && takes_model(c) && !(c->model_argument && n_positional > 0) && !o.machine)
        return cli_usage("%s: no model given; use -m MODEL (a GGUF file or a fetched name, see dil list)", c->name);
    os_interrupt_install();
    return finish(run(c, &o, argv + n_words, n_positional));
}
