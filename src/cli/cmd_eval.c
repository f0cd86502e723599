/* dil eval perplexity | kld | hellaswag | logits */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "cli/cli.h"
#include "evaluate/evaluate.h"

typedef struct eval_report {
    const char *what;
    uint64_t started_ns;
    bool quiet;
} eval_report;

static bool report(void *user, int32_t done, int32_t total, double value, double error)
{
    const eval_report *r = user;
    double seconds = (double)(os_time_ns() - r->started_ns) * 1e-9;
    if (!r->quiet && os_is_terminal(OS_STDERR))
        fprintf(stderr, _("\r%d of %d: %s %.5f +- %.5f  (%.0f s left)\033[K"), done, total, _(r->what), value, error,
                total > 0 ? seconds * (total - done) / done : 0.0);
    return !os_interrupted();
}

static void end_report(void)
{
    if (os_is_terminal(OS_STDERR))
        fputs("\r\033[K", stderr);
}

/* Evaluation wants logits of half of all positions: passes give more rows at a time than chat needs. */
static engine_options eval_engine_options(const cli_options *o, int32_t context)
{
    engine_options e = cli_engine_options(o);
    e.context = context;
    e.max_outputs = 64;
    return e;
}

/* What the engine did, when the evaluation came to its end. */
static void end_engine(engine *e, const cli_options *o, dil_status status)
{
    if (status == DIL_OK && o->timing)
        cli_print_timing(e);
    if (status == DIL_OK && !o->quiet)
        cli_print_experts(e);
    engine_close(e);
}

static int eval_perplexity(const cli_options *o, char **positional, int n_positional)
{
    (void)positional, (void)n_positional;
    dil_error err = {0};
    engine *e = NULL;
    char *text = NULL;
    size_t n;
    perplexity_result r;
    int32_t context = o->context ? (int32_t)o->context : 512;
    eval_report rep = {N_("perplexity"), os_time_ns(), o->quiet};
    perplexity_options po = {
        .context = context, .n_chunks = (int32_t)o->chunks, .save_base = o->save_base, .report = report, .user = &rep};
    engine_options eo = eval_engine_options(o, context);
    dil_status status = cli_text(o, !os_is_terminal(OS_STDIN), &text, &n, &err);
    if (status == DIL_OK)
        status = cli_open(&e, o, &eo, &err);
    rep.started_ns = os_time_ns();
    if (status == DIL_OK)
        status = evaluate_perplexity(e, (str){text, n}, &po, &r, &err);
    end_report();
    if (status == DIL_OK && o->json)
        printf("{\"perplexity\": %.6f, \"error\": %.6f, \"mean_nll\": %.8f, \"chunks\": %d, \"scored\": %lld, \"seconds\": %.2f}\n",
               r.perplexity, r.error, r.mean_nll, r.n_chunks, (long long)r.n_scored,
               (double)(os_time_ns() - rep.started_ns) * 1e-9);
    else if (status == DIL_OK)
        printf(_("perplexity %.4f +- %.4f over %d chunks of %d tokens (%lld scored)\n"), r.perplexity, r.error, r.n_chunks, context,
               (long long)r.n_scored);
    end_engine(e, o, status);
    mem_free(text);
    return status == DIL_OK ? CLI_OK : cli_fail(&err);
}

static void print_divergence(const divergence_result *r, bool json)
{
    if (json) {
        printf(
            "{\"mean_kld\": %.8f, \"mean_kld_error\": %.8f, \"max_kld\": %.6f, \"kld_99.9\": %.6f, \"kld_99\": %.6f, \"kld_95\": %.6f, "
            "\"kld_90\": %.6f, \"median_kld\": %.8f, \"same_top\": %.6f, \"same_top_error\": %.6f, \"rms_dp\": %.6f, \"perplexity\": %.6f, "
            "\"perplexity_error\": %.6f, \"base_perplexity\": %.6f, \"log_ratio\": %.8f, \"log_ratio_error\": %.8f, \"chunks\": %d, \"scored\": %lld}\n",
            r->mean_kld, r->kld_error, r->max_kld, r->kld_999, r->kld_99, r->kld_95, r->kld_90, r->median_kld, r->same_top,
            r->same_top_error, r->rms_dp, r->perplexity, r->perplexity_error, r->base_perplexity, r->log_ratio, r->log_ratio_error,
            r->n_chunks, (long long)r->n_scored);
        return;
    }
    printf(_("mean KLD        %.6f +- %.6f over %d chunks of %d tokens (%lld scored)\n"), r->mean_kld, r->kld_error, r->n_chunks,
           r->context, (long long)r->n_scored);
    printf(_("KLD quantiles   median %.6f, 90 %% %.6f, 95 %% %.6f, 99 %% %.6f, 99.9 %% %.6f, most %.6f\n"), r->median_kld,
           r->kld_90, r->kld_95, r->kld_99, r->kld_999, r->max_kld);
    printf(_("same top token  %.3f +- %.3f %%\n"), 100 * r->same_top, 100 * r->same_top_error);
    printf(_("rms dp          %.3f %%\n"), 100 * r->rms_dp);
    printf(_("perplexity      %.4f +- %.4f, base %.4f +- %.4f, ln ratio %.6f +- %.6f\n"), r->perplexity, r->perplexity_error,
           r->base_perplexity, r->base_perplexity_error, r->log_ratio, r->log_ratio_error);
}

static int eval_kld(const cli_options *o, char **positional, int n_positional)
{
    (void)positional, (void)n_positional;
    dil_error err = {0};
    engine *e = NULL;
    divergence_result r;
    int32_t context = 0;
    eval_report rep = {N_("mean KLD"), 0, o->quiet};
    if (!o->base)
        return cli_usage("eval kld: --base FILE is missing; make one with dil eval perplexity --save-base FILE");
    dil_status status = evaluate_base_context(o->base, &context, &err);
    if (status == DIL_OK && o->context && o->context != context)
        return cli_usage("eval kld: --ctx-size: wanted none, or %d as in '%s', found %lld", context, o->base,
                         (long long)o->context);
    engine_options eo = eval_engine_options(o, context);
    if (status == DIL_OK)
        status = cli_open(&e, o, &eo, &err);
    rep.started_ns = os_time_ns();
    if (status == DIL_OK)
        status = evaluate_divergence(e, o->base, (int32_t)o->chunks, report, &rep, &r, &err);
    end_report();
    if (status == DIL_OK)
        print_divergence(&r, o->json);
    end_engine(e, o, status);
    return status == DIL_OK ? CLI_OK : cli_fail(&err);
}

static int eval_hellaswag(const cli_options *o, char **positional, int n_positional)
{
    (void)positional, (void)n_positional;
    dil_error err = {0};
    engine *e = NULL;
    char *text = NULL;
    size_t n;
    choice_result r;
    eval_report rep = {"acc_norm", 0, o->quiet};
    engine_options eo = eval_engine_options(o, o->context ? (int32_t)o->context : 512);
    dil_status status = cli_text(o, !os_is_terminal(OS_STDIN), &text, &n, &err);
    if (status == DIL_OK)
        status = cli_open(&e, o, &eo, &err);
    rep.started_ns = os_time_ns();
    if (status == DIL_OK)
        status = evaluate_hellaswag(e, (str){text, n}, (int32_t)o->tasks, report, &rep, &r, &err);
    end_report();
    if (status == DIL_OK && o->json)
        printf("{\"acc_norm\": %.4f, \"low\": %.4f, \"high\": %.4f, \"right\": %d, \"tasks\": %d}\n", r.score, r.low, r.high,
               r.n_right, r.n_tasks);
    else if (status == DIL_OK)
        printf(_("HellaSwag acc_norm %.2f %% [%.2f, %.2f], %d of %d tasks\n"), r.score, r.low, r.high, r.n_right, r.n_tasks);
    end_engine(e, o, status);
    mem_free(text);
    return status == DIL_OK ? CLI_OK : cli_fail(&err);
}

/* "1,2,3" */
static dil_status parse_list(const char *text, token_list *out, dil_error *err)
{
    while (text && *text) {
        char word[32];
        size_t n = strcspn(text, ",");
        int64_t id;
        if (n == 0 || n >= sizeof word)
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "--tokens: wanted ids separated by commas, found '%s'", text);
        memcpy(word, text, n);
        word[n] = '\0';
        if (!str_to_i64(word, &id) || id < 0 || id > INT32_MAX)
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "--tokens: wanted an id, found '%s'", word);
        DIL_TRY(token_list_add(out, (token_id)id, err));
        text += n + (text[n] == ',');
    }
    return out->n ? DIL_OK : DIL_FAIL(err, DIL_BAD_ARGUMENT, "--tokens: wanted at least one id");
}

static int eval_logits(const cli_options *o, char **positional, int n_positional)
{
    (void)positional, (void)n_positional;
    dil_error err = {0};
    engine *e = NULL;
    token_list list = {0};
    if (!o->tokens || !o->output)
        return cli_usage("eval logits: wanted --tokens 1,2,3 and -o OUT.npy");
    dil_status status = parse_list(o->tokens, &list, &err);
    engine_options eo = eval_engine_options(o, o->context ? (int32_t)o->context : (int32_t)(list.n > 512 ? list.n : 512));
    eo.no_vocab = true;
    if (status == DIL_OK)
        status = cli_open(&e, o, &eo, &err);
    if (status == DIL_OK)
        status = evaluate_logits(e, list.ids, (int32_t)list.n, o->output, &err);
    end_engine(e, o, status);
    token_list_free(&list);
    return status == DIL_OK ? CLI_OK : cli_fail(&err);
}

static const char *const perplexity_list[] = {"model",          "file", "prompt", "chunks", "save-base",
                                              EVALUATE_OPTIONS, "json", "quiet",  NULL};
static const char *const kld_list[] = {"model", "base", "chunks", EVALUATE_OPTIONS, "json", "quiet", NULL};
static const char *const hellaswag_list[] = {"model", "file", "tasks", EVALUATE_OPTIONS, "json", "quiet", NULL};
static const char *const logits_list[] = {"model", "tokens", "output", EVALUATE_OPTIONS, "quiet", NULL};

const cli_command command_eval_perplexity = {.name = "eval perplexity",
                                             .usage =
                                                 N_("eval perplexity -m MODEL -f TEXT [-c 512] [--chunks N] [--save-base FILE]"),
                                             .summary = N_("Perplexity on a text, by llama-perplexity's protocol."),
                                             .example = N_("dil eval perplexity -m smollm2 -f wiki.test.raw --chunks 40"),
                                             .options = perplexity_list,
                                             .run = eval_perplexity};
const cli_command command_eval_kld = {
    .name = "eval kld",
    .usage = N_("eval kld -m MODEL --base FILE [--chunks N]"),
    .summary = N_("Divergence from a base model's saved log-probabilities."),
    .example =
        N_("dil eval perplexity -m f16.gguf -f wiki.test.raw --save-base base.bin && dil eval kld -m q4.gguf --base base.bin"),
    .options = kld_list,
    .run = eval_kld};
const cli_command command_eval_hellaswag = {.name = "eval hellaswag",
                                            .usage = N_("eval hellaswag -m MODEL -f FILE [--tasks N]"),
                                            .summary = N_("HellaSwag score (acc_norm)."),
                                            .example = N_("dil eval hellaswag -m smollm2 -f hellaswag_2000.txt --tasks 400"),
                                            .options = hellaswag_list,
                                            .run = eval_hellaswag};
const cli_command command_eval_logits = {.name = "eval logits",
                                         .usage = N_("eval logits -m MODEL --tokens 1,2,3 -o OUT.npy"),
                                         .summary = N_("Logits of every position as a NumPy file."),
                                         .example = N_("dil eval logits -m smollm2 --tokens 1,2,3 -o logits.npy"),
                                         .options = logits_list,
                                         .run = eval_logits};
