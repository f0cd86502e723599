/* dil train and dil export: a model from texts, and a file other programs read from a checkpoint. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "base/threads.h"
#include "cli/cli.h"
#include "cli/print.h"
#include "machine/machine.h"
#include "train/checkpoint.h"
#include "train/export.h"
#include "train/loop.h"

typedef struct train_command {
    const cli_options *o;
    const char *config_path;
    const train_config *c; /* as the file says it */
    bool terminal, shown;
    uint64_t drawn_ns;
    train_progress last;
} train_command;

static dil_status thread_count(const cli_options *o, int *out, dil_error *err)
{
    machine *m;
    *out = (int)o->threads;
    if (*out > 0)
        return DIL_OK;
    DIL_TRY(machine_topology(&m, NULL, err));
    *out = machine_default_threads(m) < TEAM_MAX ? machine_default_threads(m) : TEAM_MAX;
    machine_free(m);
    return DIL_OK;
}

/* ---- what is trained ---- */

static void print_plan_json(const train_config *c, const net *n, double tokens, double flops)
{
    printf("{\"event\": \"begin\", \"name\": ");
    cli_print_json_string(str_of(c->name));
    printf(", \"parameters\": %zu, \"active\": %zu, \"layers\": %d, \"experts\": %d, \"experts_used\": %d, \"vocabulary\": %d, "
           "\"steps\": %llu, \"tokens\": %.0f, \"flops\": %.6g}\n",
           net_size(n), net_active(n), c->net.n_layer, c->net.n_experts, c->net.n_used, c->net.n_vocab,
           (unsigned long long)c->n_steps, tokens, flops);
}

static void print_plan(const train_config *c, const net *n, double tokens, double flops)
{
    print_text(stdout, str_of(c->name), sizeof c->name);
    printf(_(": %.2f M parameters, %.2f M of them per token; %d layers"), (double)net_size(n) * 1e-6, (double)net_active(n) * 1e-6,
           c->net.n_layer);
    if (c->net.n_experts > 0)
        printf(_(" of %d experts, %d per token"), c->net.n_experts, c->net.n_used);
    printf(_(", vocabulary of %d\n%llu steps of %d tokens: %.4g million tokens, %.3g FLOPs (%s)\n"), c->net.n_vocab,
           (unsigned long long)c->n_steps, c->n_sequences * c->net.n_context, tokens * 1e-6, flops,
           net_compute_of(n) == NET_COMPUTE_BF16 ? _("products in bf16") : _("products in f32"));
}

static void prepared(void *user, const train_config *c, const net *n)
{
    train_command *t = user;
    double tokens = (double)c->n_steps * c->n_sequences * c->net.n_context;
    cli_progress_end();
    if (!t->o->quiet)
        (t->o->json ? print_plan_json : print_plan)(c, n, tokens, tokens * net_flops(n));
    fflush(stdout);
}

/* ---- how it goes ---- */

static void busiest(const train_command *t, const net_result *r, double *least, double *most)
{
    *least = INFINITY;
    *most = 0;
    for (int l = 0; l < t->c->net.n_layer; l++)
        for (int e = 0; e < t->c->net.n_experts; e++) {
            *least = fmin(*least, (double)r->load[l][e]);
            *most = fmax(*most, (double)r->load[l][e]);
        }
}

static void print_left(FILE *out, double seconds)
{
    if (seconds >= 5400)
        fprintf(out, _("%.1f h left"), seconds / 3600);
    else if (seconds >= 100)
        fprintf(out, _("%.0f min left"), seconds / 60);
    else
        fprintf(out, _("%.0f s left"), seconds);
}

/* At most five times a second. */
static void draw(train_command *t, const train_progress *p)
{
    uint64_t now = os_time_ns();
    double least, most;
    if (!t->terminal || now - t->drawn_ns < 200000000u)
        return;
    fprintf(stderr, _("\rstep %llu/%llu  loss %.4f  %.3f bits/token  %.0f tokens/s  %.1f GFLOP/s"), (unsigned long long)p->step,
            (unsigned long long)p->n_steps, p->result.total, p->result.ce / log(2.0), p->tokens_per_second, p->gflops);
    if (t->c->net.n_experts > 0) {
        busiest(t, &p->result, &least, &most);
        fprintf(stderr, _("  load %.2f..%.2f"), least, most);
    }
    fputs("  ", stderr);
    print_left(stderr, p->seconds_left);
    fputs("\033[K", stderr);
    t->drawn_ns = now;
    t->shown = true;
}

static void clear_line(train_command *t)
{
    if (t->shown)
        fputs("\r\033[K", stderr);
    t->shown = false;
}

static void print_json(const train_command *t, const char *event, const train_progress *p)
{
    printf(
        "{\"event\": \"%s\", \"step\": %llu, \"tokens\": %llu, \"seconds\": %.3f, \"tokens_per_second\": %.1f, \"gflops\": %.2f, "
        "\"loss\": %.6f, \"ce\": %.6f, \"bits_per_byte\": {",
        event, (unsigned long long)p->step, (unsigned long long)p->tokens, p->seconds, p->tokens_per_second, p->gflops,
        p->result.total, p->result.ce);
    bool first = true;
    for (int i = 0; p->evaluated && i < t->c->n_sources; i++) {
        if (!isfinite(p->held_out[i]))
            continue;
        fputs(first ? "" : ", ", stdout);
        cli_print_json_string(str_of(t->c->sources[i].name));
        printf(": %.6f", p->held_out[i]);
        first = false;
    }
    puts("}}");
}

static void print_evaluation(const train_command *t, const train_progress *p)
{
    printf(_("step %llu of %llu: loss %.4f, %.3f bits/token"), (unsigned long long)p->step, (unsigned long long)p->n_steps,
           p->result.total, p->result.ce / log(2.0));
    for (int i = 0; i < t->c->n_sources; i++) {
        if (!isfinite(p->held_out[i]))
            continue;
        fputs(", ", stdout);
        print_text(stdout, str_of(t->c->sources[i].name), sizeof t->c->sources[i].name);
        printf(_(" %.4f bits/byte"), p->held_out[i]);
    }
    printf(_(", %.0f tokens/s, %.1f GFLOP/s, "), p->tokens_per_second, p->gflops);
    print_left(stdout, p->seconds_left);
    putchar('\n');
}

static bool step(void *user, const train_progress *p)
{
    train_command *t = user;
    t->last = *p;
    if (p->evaluated && !t->o->quiet) {
        clear_line(t);
        if (t->o->json)
            print_json(t, "evaluation", p);
        else
            print_evaluation(t, p);
        fflush(stdout);
    }
    draw(t, p);
    return !os_interrupted();
}

/* ---- the command ---- */

static void print_end(const train_command *t)
{
    const train_config *c = t->c;
    const train_progress *p = &t->last;
    if (t->o->quiet)
        return;
    if (t->o->json && p->step > 0)
        print_json(t, p->step == c->n_steps ? "end" : "stopped", p);
    if (t->o->json)
        return;
    if (p->step == 0 || p->step == c->n_steps) {
        printf(_("finished: dil export %s/checkpoint.bin "), c->output);
        print_text(stdout, str_of(c->name), sizeof c->name);
        puts(".gguf");
    } else
        printf(_("stopped after step %llu of %llu; to go on: dil train %s --resume\n"), (unsigned long long)p->step,
               (unsigned long long)c->n_steps, t->config_path);
}

static int run(train_command *t)
{
    dil_error err = {0};
    train_options options = {.resume = t->o->resume,
                             .stop_after = (uint64_t)t->o->steps,
                             .cpu = t->o->cpu,
                             .prepared = prepared,
                             .step = step,
                             .progress = t->o->quiet ? NULL : cli_progress,
                             .user = t};
    dil_status status = thread_count(t->o, &options.n_threads, &err);
    if (status == DIL_OK)
        status = train_run(t->c, &options, &err);
    cli_progress_end();
    clear_line(t);
    if (status != DIL_OK && !(status == DIL_CANCELLED && t->last.step > 0))
        return cli_fail(&err);
    print_end(t);
    return status == DIL_OK ? CLI_OK : CLI_FAILED;
}

static int train(const cli_options *o, char **positional, int n_positional)
{
    (void)n_positional;
    dil_error err = {0};
    train_config *c = mem_alloc(sizeof *c, MEM_MISC);
    train_command *t = mem_calloc(1, sizeof *t, MEM_MISC);
    int code;
    if (!c || !t) {
        DIL_FAIL(&err, DIL_NO_MEMORY, "training: no memory");
        code = cli_fail(&err);
    } else if (train_config_read(c, positional[0], &err) != DIL_OK) {
        code = cli_fail(&err);
    } else {
        t->o = o;
        t->config_path = positional[0];
        t->c = c;
        t->terminal = !o->quiet && os_is_terminal(OS_STDERR);
        code = run(t);
    }
    mem_free(t);
    mem_free(c);
    return code;
}

static const char *const train_options_list[] = {"resume", "steps", "threads", "cpu", "json", "quiet", NULL};

const cli_command command_train = {
    .name = "train",
    .usage = N_("train CONFIG [--resume] [--steps N] [-t T] [--cpu LEVEL] [--json]"),
    .summary = N_(
        "Trains a language model from texts, as a JSON file says.\n\nVocabulary, tokens, metrics.csv and checkpoint.bin go to the "
        "config's output directory. Ctrl-C saves and stops;\n--resume goes on to the bit."),
    .example = N_("dil train tiny.json && dil export runs/tiny/checkpoint.bin tiny.gguf"),
    .options = train_options_list,
    .least_positional = 1,
    .most_positional = 1,
    .run = train};

/* ---- export ---- */

/* The vocabulary lies beside the checkpoint, wherever the run's directory went. */
static void vocabulary_beside(const char *checkpoint, char *out, size_t n)
{
    const char *slash = strrchr(checkpoint, '/');
    snprintf(out, n, "%.*svocabulary.gguf", slash ? (int)(slash - checkpoint + 1) : 0, checkpoint);
}

static bool has_prices(net *n)
{
    const net_config *c = net_config_of(n);
    const float *price = net_prices(n);
    for (size_t i = 0; price && i < (size_t)c->n_layer * (size_t)c->n_experts; i++)
        if (fabsf(price[i]) > 0.0f)
            return true;
    return false;
}

static dil_status export_with(const cli_options *o, char **positional, const train_config *c, dil_type type, team *workers,
                              const kernels *k, dil_error *err)
{
    net *n;
    char vocabulary[4096];
    vocabulary_beside(positional[0], vocabulary, sizeof vocabulary);
    DIL_TRY(net_new(&n, &c->net, NET_COMPUTE_F32, c->net.n_context, workers, k, err));
    dil_status status = checkpoint_load(positional[0], n, NULL, err);
    if (status == DIL_OK && has_prices(n) && !o->quiet)
        fputs(
            _("note: experts were still chosen with prices at this step; files hold none, so some tokens will take other experts\n"),
            stderr);
    if (status == DIL_OK)
        status = export_gguf(n, c->name, vocabulary, type, positional[1], err);
    net_free(n);
    return status;
}

static int export_checkpoint(const cli_options *o, char **positional, int n_positional)
{
    (void)n_positional;
    dil_error err = {0};
    checkpoint_state state;
    kernels k;
    team *workers = NULL;
    dil_type type = DIL_TYPE_F16;
    if (o->type && !(format_find(o->type, &type) && (type == DIL_TYPE_F32 || type == DIL_TYPE_F16 || type == DIL_TYPE_BF16)))
        return cli_usage("--type: wanted F32, F16 or BF16, found '%s'; dil quantize makes the others", o->type);
    train_config *c = mem_alloc(sizeof *c, MEM_MISC);
    dil_status status = c ? checkpoint_open(positional[0], c, &state, &err) : DIL_FAIL(&err, DIL_NO_MEMORY, "export: no memory");
    if (status == DIL_OK)
        status = kernels_select(&k, NULL, &err);
    if (status == DIL_OK)
        status = team_new(&workers, 1, &err);
    if (status == DIL_OK)
        status = export_with(o, positional, c, type, workers, &k, &err);
    if (status == DIL_OK && !o->quiet) {
        printf(_("%s: '%s' after %llu of %llu steps\n"), positional[1], c->name, (unsigned long long)state.step,
               (unsigned long long)c->n_steps);
    }
    team_free(workers);
    mem_free(c);
    return status == DIL_OK ? CLI_OK : cli_fail(&err);
}

static const char *const export_options[] = {"type", "quiet", NULL};

const cli_command command_export = {
    .name = "export",
    .usage = N_("export CHECKPOINT OUT.gguf [--type F32|F16|BF16]"),
    .summary = N_(
        "Writes the model of a training run's checkpoint as a GGUF file.\n\nMatrices are F16 unless --type says otherwise; vectors and "
        "routers stay F32. dil quantize makes smaller types of it."),
    .example = N_("dil export runs/tiny/checkpoint.bin tiny.gguf --type F16"),
    .options = export_options,
    .least_positional = 2,
    .most_positional = 2,
    .run = export_checkpoint};
