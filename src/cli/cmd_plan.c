/* dil plan: memory and predicted speed from the header alone. */
#include <stdio.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "cli/cli.h"
#include "cli/plan_print.h"

/* What predictions stand on. */
typedef struct ground {
    kernels k;
    machine *m;
    machine_facts facts;
    model *read; /* its header */
} ground;

/* What dil run would do about it. */
static void find_advice(forecast *f, const cli_options *o, const char *path)
{
    dil_error err;
    memory_report r;
    char text[192], size[32];
    engine_options eo = cli_engine_options(o);
    const memory_freedom may = cli_memory_freedom(o);
    eo.memory_bytes = f->limit;
    if (memory_fit(&eo, path, &may, &r, &err) != DIL_OK) {
        snprintf(f->advice, sizeof f->advice, "%s", err.text);
        return;
    }
    cli_memory_text(text, sizeof text, &eo, &r);
    snprintf(f->advice, sizeof f->advice, _("%s would: %s in all; dil run --memory does that by itself"), text,
             str_bytes(r.after.total_bytes, size, sizeof size));
}

static void find_speed(forecast *f)
{
    f->micro_batch = f->p.micro_batch;
    const int32_t n = f->n_prompt < f->micro_batch ? f->n_prompt : f->micro_batch, end = f->p.context - 1;
    f->prompt_rate = predict_prompt(&f->by, f->n_prompt, f->micro_batch, f->depth);
    f->first_rate = predict_generation(&f->by, f->n_gen, f->n_parallel, f->depth);
    f->last_rate = predict_generation(&f->by, 1, 1, end);
    predict_run(&f->prompt, &f->by, &(predict_pass){n, 1, f->depth, 1});
    predict_run(&f->first, &f->by, &(predict_pass){1, f->n_parallel, f->depth + f->n_gen / 2, f->n_parallel});
    predict_run(&f->last, &f->by, &(predict_pass){1, 1, end, 1});
    f->block = batch_block(&f->by, f->n_prompt, f->depth, f->blocks);
    f->n_sequences = batch_sequences(&f->by, f->depth, f->least_each, f->sequences);
}

/* The machine's facts are measured when nobody has yet. */
static dil_status open_ground(ground *g, const cli_options *o, const char *path, dil_error *err)
{
    DIL_TRY(kernels_select(&g->k, o->cpu ? o->cpu : "auto", err));
    DIL_TRY(machine_topology(&g->m, NULL, err));
    dil_status status = machine_facts_get(&g->facts, g->m, &g->k, 0, FACTS_OF_QUIET, o->quiet ? NULL : cli_progress, NULL, err);
    cli_progress_end();
    return status == DIL_OK ? model_open(&g->read, path, &(model_options){.header_only = true, .no_vocab = true}, err) : status;
}

static dil_status show(forecast *f, ground *g, const cli_options *o, dil_error *err)
{
    const engine_options eo = cli_engine_options(o);
    DIL_TRY(engine_plan_file(&f->p, f->path, &eo, err)); /* before the process takes memory for other things */
    DIL_TRY(open_ground(g, o, f->path, err));
    f->by = (predictor){.m = g->read,
                        .k = &g->k,
                        .machine = g->m,
                        .facts = &g->facts,
                        .n_threads = f->p.n_threads,
                        .type_k = o->type_k,
                        .type_v = o->type_v};
    DIL_TRY(predict_now(&f->by, &(predict_pass){1, f->n_parallel, f->depth + f->n_gen / 2, f->n_parallel}, err));
    find_speed(f);
    f->fits = f->p.total_bytes <= f->limit;
    if (!f->fits)
        find_advice(f, o, f->path);
    if (o->json)
        plan_print_json(f);
    else
        plan_print(f);
    return o->explain && !o->json ? plan_explain(f, err) : DIL_OK;
}

static int plan(const cli_options *o, char **positional, int n_positional)
{
    dil_error err = {0};
    char path[4096];
    ground g = {0};
    forecast f = {.path = path,
                  .limit = o->memory_bytes ? o->memory_bytes : os_memory_bytes(),
                  .limit_given = o->memory_bytes != 0,
                  .n_prompt = o->prompt_tokens > 0 ? (int32_t)o->prompt_tokens : 1,
                  .n_gen = o->gen_tokens > 0 ? (int32_t)o->gen_tokens : 1,
                  .n_parallel = (int32_t)o->parallel,
                  .depth = (int32_t)o->depth,
                  .least_each = o->least_each};
    const char *name = cli_model_named(o, positional, n_positional);
    if (!name)
        return CLI_USAGE;
    dil_status status = cli_model_path(name, path, sizeof path, &err);
    if (status == DIL_OK)
        status = show(&f, &g, o, &err);
    model_close(g.read);
    machine_free(g.m);
    return status != DIL_OK ? cli_fail(&err) : f.fits ? CLI_OK : CLI_FAILED;
}

static const char *const plan_options[] = {"model",  "ctx-size",       "threads",    "ubatch-size", "cache-type-k", "cache-type-v",
                                           "memory", "experts-memory", "n-prompt",   "n-gen",       "depth",        "parallel",
                                           "cpu",    "explain",        "least-each", "json",        "quiet",        NULL};

const cli_command command_plan = {
    .name = "plan",
    .usage = N_("plan MODEL [-c CTX] [-t T] [-p N] [-n N] [-d N] [--memory BYTES] [--explain] [--json]"),
    .summary = N_(
        "Says what memory a model will take and how fast it will be, from its header.\n\nWhat the machine can do is measured the first "
        "time (dil tune --machine shows it). Exit code 1 when the model does not fit."),
    .example = N_("dil plan smollm2 -c 8192 --memory 1G"),
    .options = plan_options,
    .most_positional = 1,
    .model_argument = true,
    .run = plan};
