/* dil trace: runs a text through a model and keeps which experts every token chose in every layer, for dil route. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "cli/cli.h"
#include "engine/choices.h"
#include "experts/trace.h"

typedef struct recorder {
    choices asked;
    trace_writer *log;
    const model *m;
} recorder;

/* Tokens are run many at a time but logged one per pass, as generation would ask for them. */
static dil_status log_token(void *ctx, const uint16_t *chosen, const float *weights, dil_error *err)
{
    recorder *r = ctx;
    const size_t k = r->m->h.experts.n_used;
    DIL_TRY(trace_writer_begin(r->log, 1, err));
    for (uint32_t l = 0; l < r->m->h.n_layer; l++)
        if (r->m->layers[l].moe)
            trace_writer_put(r->log, 0, l, chosen + l * k, weights + l * k);
    return trace_writer_end(r->log, err);
}

static bool go_on_quietly(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)user, (void)what, (void)done, (void)total;
    return !os_interrupted();
}

static dil_status open_log(recorder *r, const char *path, const char *name, dil_error *err)
{
    const hparams *h = &r->m->h;
    if (h->experts.n_experts == 0)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "trace: %s: wanted a mixture of experts, found a dense model", name);
    trace_layer *layers = mem_calloc(h->n_layer, sizeof *layers, MEM_MISC);
    if (!layers)
        return DIL_FAIL(err, DIL_NO_MEMORY, "trace: no memory");
    for (uint32_t i = 0; i < h->n_layer; i++)
        if (r->m->layers[i].moe)
            layers[i] = (trace_layer){model_expert_place(r->m, i).bytes, h->experts.n_experts};
    trace_options to = {
        .name = name, .layers = layers, .n_layers = h->n_layer, .n_used = h->experts.n_used, .most_tokens = 1, .weights = true};
    dil_status status = trace_writer_open(&r->log, path, &to, err);
    mem_free(layers);
    return status;
}

static dil_status trace_text(engine *e, recorder *r, const cli_options *o, str text, dil_error *err)
{
    token_list tokens = {0};
    r->m = engine_model(e);
    dil_status status = vocab_encode(engine_vocab(e), text, !o->no_special, !o->no_special, &tokens, err);
    if (status == DIL_OK && tokens.n == 0)
        status = DIL_FAIL(err, DIL_BAD_ARGUMENT, "trace: wanted a text, found nothing");
    if (status == DIL_OK)
        status = open_log(r, o->output, o->model, err);
    if (status == DIL_OK)
        status = choices_run(&r->asked, e, &tokens, log_token, r, o->quiet ? go_on_quietly : cli_progress, NULL, err);
    cli_progress_end();
    if (status == DIL_OK) {
        status = trace_writer_commit(r->log, err);
        r->log = NULL;
    }
    if (status == DIL_OK && !o->quiet)
        fprintf(stderr, "%s: %zu tokens; dil route %s shows what they reuse\n", o->output, tokens.n, o->output);
    token_list_free(&tokens);
    return status;
}

static int trace_command(const cli_options *o, char **positional, int n_positional)
{
    (void)positional, (void)n_positional;
    dil_error err = {0};
    engine *e = NULL;
    char *text = NULL;
    size_t n;
    recorder r = {0};
    if (!o->output)
        return cli_usage("trace: wanted -o OUT, the log to write");
    engine_options eo = cli_engine_options(o);
    eo.context = o->context ? (int32_t)o->context : 512;
    choices_listen(&r.asked, &eo);
    dil_status status = cli_text(o, !os_is_terminal(OS_STDIN), &text, &n, &err);
    if (status == DIL_OK)
        status = cli_open(&e, o, &eo, &err);
    if (status == DIL_OK)
        status = trace_text(e, &r, o, (str){text, n}, &err);
    trace_writer_abort(r.log);
    engine_close(e);
    mem_free(text);
    return status == DIL_OK ? CLI_OK : cli_fail(&err);
}

static const char *const trace_command_options[] = {"model",         "prompt",         "file",  "output",     "ctx-size",
                                                    "threads",       "experts-memory", "route", "route-mass", "cpu",
                                                    "no-pack-cache", "no-special",     "quiet", NULL};

const cli_command command_trace = {.name = "trace",
                                   .usage = "trace -m MODEL (-p TEXT | -f FILE) -o LOG [-c CTX]",
                                   .summary = "Writes down which experts every token of a text chooses, for dil route.",
                                   .example = "dil trace -m mixtral.gguf -f book.txt -o book.route && dil route book.route",
                                   .options = trace_command_options,
                                   .run = trace_command};
