/* dil trace: runs a text through a model and keeps which experts every token chose in every layer, for dil route. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "cli/cli.h"
#include "experts/trace.h"

#define TRACE_ROWS 64 /* tokens per pass over the weights: logits of all are kept meanwhile */

/* Tokens are run many at a time but logged one per pass, as generation would ask for them: batches change no choice. */
typedef struct recorder {
    trace_writer *log;
    const model *m;
    uint32_t first_moe, last_moe; /* layers */
    uint16_t *chosen;             /* [n_layer][TRACE_ROWS][n_used] */
    float *weights;
    dil_status status;
    dil_error err;
} recorder;

static void log_rows(recorder *r, int32_t n_rows)
{
    size_t k = r->m->h.experts.n_used;
    for (int32_t row = 0; row < n_rows && r->status == DIL_OK; row++) {
        r->status = trace_writer_begin(r->log, 1, &r->err);
        for (uint32_t l = r->first_moe; r->status == DIL_OK && l <= r->last_moe; l++) {
            size_t at = ((size_t)l * TRACE_ROWS + (size_t)row) * k;
            if (r->m->layers[l].moe)
                trace_writer_put(r->log, 0, l, r->chosen + at, r->weights + at);
        }
        if (r->status == DIL_OK)
            r->status = trace_writer_end(r->log, &r->err);
    }
}

static void keep_choice(void *ctx, uint32_t layer_index, int32_t n_rows, const uint16_t *chosen, const float *weights)
{
    recorder *r = ctx;
    size_t k = r->m->h.experts.n_used, at = (size_t)layer_index * TRACE_ROWS * k, n = (size_t)n_rows * k;
    memcpy(r->chosen + at, chosen, n * sizeof *chosen);
    memcpy(r->weights + at, weights, n * sizeof *weights);
    if (layer_index == r->last_moe)
        log_rows(r, n_rows);
}

static bool go_on(void *ctx, int32_t i, const float *logits)
{
    (void)i, (void)logits;
    return ((recorder *)ctx)->status == DIL_OK;
}

static dil_status open_log(recorder *r, const char *path, const char *name, dil_error *err)
{
    const hparams *h = &r->m->h;
    size_t n = (size_t)h->n_layer * TRACE_ROWS * h->experts.n_used;
    if (h->experts.n_experts == 0)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "trace: %s: wanted a mixture of experts, found a dense model", name);
    trace_layer *layers = mem_calloc(h->n_layer, sizeof *layers, MEM_MISC);
    r->chosen = mem_calloc(n, sizeof *r->chosen, MEM_MISC);
    r->weights = mem_calloc(n, sizeof *r->weights, MEM_MISC);
    if (!layers || !r->chosen || !r->weights) {
        mem_free(layers);
        return DIL_FAIL(err, DIL_NO_MEMORY, "trace: no memory");
    }
    r->first_moe = h->n_layer;
    for (uint32_t i = 0; i < h->n_layer; i++) {
        if (!r->m->layers[i].moe)
            continue;
        layers[i] = (trace_layer){model_expert_place(r->m, i).bytes, h->experts.n_experts};
        r->first_moe = i < r->first_moe ? i : r->first_moe;
        r->last_moe = i;
    }
    trace_options to = {
        .name = name, .layers = layers, .n_layers = h->n_layer, .n_used = h->experts.n_used, .most_tokens = 1, .weights = true};
    dil_status status = trace_writer_open(&r->log, path, &to, err);
    mem_free(layers);
    return status;
}

/* The text in pieces of a context each. */
static dil_status run_text(engine *e, recorder *r, const token_list *tokens, bool quiet, dil_error *err)
{
    session *s = NULL;
    size_t piece = (size_t)engine_context(e);
    dil_status status = session_new(&s, e, err);
    for (size_t from = 0; status == DIL_OK && from < tokens->n; from += piece) {
        size_t n = tokens->n - from < piece ? tokens->n - from : piece;
        session_truncate(s, 0);
        status = session_eval(s, tokens->ids + from, (int32_t)n, NULL, go_on, r, err);
        if (status == DIL_OK && r->status != DIL_OK) {
            *err = r->err;
            status = r->status;
        }
        if (status == DIL_OK && (quiet ? os_interrupted() : !cli_progress(NULL, "tracing", from + n, tokens->n)))
            status = DIL_FAIL(err, DIL_CANCELLED, "trace: stopped by Ctrl-C");
    }
    cli_progress_end();
    session_free(s);
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
        status = run_text(e, r, &tokens, o->quiet, err);
    if (status == DIL_OK) {
        status = trace_writer_commit(r->log, err);
        r->log = NULL;
    }
    if (status == DIL_OK && !o->quiet)
        fprintf(stderr, _("%s: %zu tokens; dil route %s shows what they reuse\n"), o->output, tokens.n, o->output);
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
    eo.micro_batch = eo.max_outputs = TRACE_ROWS;
    eo.on_choice = keep_choice;
    eo.choice_ctx = &r;
    dil_status status = cli_text(o, !os_is_terminal(OS_STDIN), &text, &n, &err);
    if (status == DIL_OK)
        status = cli_open(&e, o, &eo, &err);
    if (status == DIL_OK)
        status = trace_text(e, &r, o, (str){text, n}, &err);
    trace_writer_abort(r.log);
    mem_free(r.chosen);
    mem_free(r.weights);
    engine_close(e);
    mem_free(text);
    return status == DIL_OK ? CLI_OK : cli_fail(&err);
}

static const char *const trace_command_options[] = {"model",         "prompt",         "file",  "output",     "ctx-size",
                                                    "threads",       "experts-memory", "route", "route-mass", "cpu",
                                                    "no-pack-cache", "no-special",     "quiet", NULL};

const cli_command command_trace = {.name = "trace",
                                   .usage = N_("trace -m MODEL (-p TEXT | -f FILE) -o LOG [-c CTX]"),
                                   .summary = N_("Writes down which experts every token of a text chooses, for dil route."),
                                   .example = N_("dil trace -m mixtral.gguf -f book.txt -o book.route && dil route book.route"),
                                   .options = trace_command_options,
                                   .run = trace_command};
