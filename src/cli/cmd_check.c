/* dil check: every defect of a file, with its byte offset. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "cli/cli.h"
#include "cli/language.h"
#include "cli/print.h"

typedef struct check_run {
    const char *path;
    bool json;
    uint64_t n;
} check_run;

static void begin_defect(check_run *r)
{
    if (r->json)
        fputs(r->n ? ",\n  " : "\n  ", stdout);
    r->n++;
}

static void print_defect(void *ctx, uint64_t offset, const char *text)
{
    check_run *r = ctx;
    cli_progress_end();
    begin_defect(r);
    if (!r->json) {
        printf(_("%s: byte %llu: "), r->path, (unsigned long long)offset);
        print_text(stdout, str_of(text), SIZE_MAX);
        putchar('\n');
        return;
    }
    printf("{\"offset\": %" PRIu64 ", \"text\": ", offset);
    cli_print_json_string(str_of(text));
    putchar('}');
}

/* What only a loader sees: keys against shapes, tensors that are missing, the vocabulary. Its text may begin with the path. */
static void print_loader_defect(check_run *r, const char *text)
{
    size_t n = strlen(r->path);
    if (strncmp(text, r->path, n) == 0 && strncmp(text + n, ": ", 2) == 0)
        text += n + 2;
    begin_defect(r);
    if (!r->json) {
        printf(_("%s: loading: "), r->path);
        print_text(stdout, str_of(text), SIZE_MAX);
        putchar('\n');
        return;
    }
    fputs("{\"offset\": null, \"text\": ", stdout);
    cli_print_json_string(str_of(text));
    putchar('}');
}

static void print_end(const check_run *r, const model *m, const gguf *g)
{
    char size[32];
    if (r->json) {
        printf("%s], \"ok\": %s, \"count\": %" PRIu64, r->n ? "\n" : "", r->n ? "false" : "true", r->n);
        if (g)
            printf(", \"bytes\": %" PRIu64 ", \"keys\": %" PRIu64 ", \"tensors\": %" PRIu64, gguf_size_bytes(g), gguf_n_values(g),
                   gguf_n_tensors(g));
        puts("}");
    } else if (r->n) {
        printf(r->n == 1 ? _("%llu defect\n") : _("%llu defects\n"), (unsigned long long)r->n);
    } else {
        printf(_("ok: %s: %llu keys, %llu tensors, %s read; architecture %.*s, %d tokens\n"), r->path,
               (unsigned long long)gguf_n_values(g), (unsigned long long)gguf_n_tensors(g),
               str_bytes(gguf_size_bytes(g), size, sizeof size), STR_ARG(m->h.architecture), m->words ? vocab_size(m->words) : 0);
    }
}

static int check(const cli_options *o, char **positional, int n_positional)
{
    dil_error err = {0};
    char path[4096];
    model *m = NULL;
    model_options mo = {.header_only = true};
    check_run r = {.path = path, .json = o->json};
    const char *name = cli_model_named(o, positional, n_positional);
    if (!name)
        return CLI_USAGE;
    dil_status status = cli_model_path(name, path, sizeof path, &err);
    if (status != DIL_OK)
        return cli_fail(&err);
    language_plain(o->json);
    if (o->json) {
        fputs("{\"path\": ", stdout);
        cli_print_json_string(str_of(path));
        fputs(", \"defects\": [", stdout);
    }
    status = gguf_check(path, print_defect, &r, o->quiet ? NULL : cli_progress, NULL, &err);
    cli_progress_end();
    if (status == DIL_CANCELLED || (status != DIL_OK && r.n == 0)) { /* not read: nothing is known of the rest */
        if (o->json) {
            print_loader_defect(&r, err.text);
            print_end(&r, NULL, NULL);
        }
        return cli_fail(&err);
    }
    if (status == DIL_OK && model_open(&m, path, &mo, &err) != DIL_OK)
        print_loader_defect(&r, err.text);
    print_end(&r, m, m ? m->file : NULL);
    model_close(m);
    return r.n ? CLI_FAILED : CLI_OK;
}

static const char *const check_options[] = {"model", "json", "quiet", NULL};

const cli_command command_check = {
    .name = "check",
    .usage = N_("check MODEL [--json]"),
    .summary = N_(
        "Validates a model file; exit code 0 or 1.\n\nEvery byte is read; one line per defect: path: byte OFFSET: what was wanted and found."),
    .example = N_("dil check model.gguf"),
    .options = check_options,
    .most_positional = 1,
    .model_argument = true,
    .run = check};
