/* dil plan: memory and predicted speed from the header alone. */
#include <stdio.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "cli/cli.h"
#include "cli/plan_print.h"

/* What dil run would do about it. */
static void find_advice(plan_report *p, const cli_options *o)
{
    dil_error err;
    memory_report r;
    char text[192], size[32];
    engine_options eo = cli_engine_options(o);
    const memory_freedom may = cli_memory_freedom(o);
    eo.memory_bytes = p->limit;
    if (memory_fit(&eo, p->f.path, &may, &r, &err) != DIL_OK) {
        snprintf(p->advice, sizeof p->advice, "%s", err.text);
        return;
    }
    cli_memory_text(text, sizeof text, &eo, &r);
    snprintf(p->advice, sizeof p->advice, _("%s would: %s in all; dil run --memory does that by itself"), text,
             str_bytes(r.after.total_bytes, size, sizeof size));
}

static dil_status show(plan_report *p, const cli_options *o, dil_error *err)
{
    const engine_options eo = cli_engine_options(o);
    dil_status status = forecast_make(&p->f, &eo, err);
    cli_progress_end();
    DIL_TRY(status);
    p->fits = p->f.p.total_bytes <= p->limit;
    if (!p->fits)
        find_advice(p, o);
    if (o->json)
        plan_print_json(p);
    else
        plan_print(p);
    return o->explain && !o->json ? plan_explain(&p->f, err) : DIL_OK;
}

static int plan(const cli_options *o, char **positional, int n_positional)
{
    dil_error err = {0};
    char path[4096];
    plan_report r = {.f = {.path = path,
                           .n_prompt = o->prompt_tokens > 0 ? (int32_t)o->prompt_tokens : 1,
                           .n_gen = o->gen_tokens > 0 ? (int32_t)o->gen_tokens : 1,
                           .n_parallel = (int32_t)o->parallel,
                           .depth = (int32_t)o->depth,
                           .least_each = o->least_each},
                     .limit = o->memory_bytes ? o->memory_bytes : os_memory_bytes(),
                     .limit_given = o->memory_bytes != 0};
    const char *name = cli_model_named(o, positional, n_positional);
    if (!name)
        return CLI_USAGE;
    dil_status status = cli_model_path(name, path, sizeof path, &err);
    if (status == DIL_OK)
        status = show(&r, o, &err);
    forecast_free(&r.f);
    return status != DIL_OK ? cli_fail(&err) : r.fits ? CLI_OK : CLI_FAILED;
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
