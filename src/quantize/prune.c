#include "quantize/prune.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "quantize/convert.h"
#include "quantize/held.h"
#include "quantize/measure.h"
#include "quantize/prune_internal.h"

#define MEASURED_SEQUENCES 8
#define FOUND_TOKENS 4096 /* of the calibration text */

dil_status prune_tell(const pruning *p, const char *what, uint64_t done, uint64_t total, dil_error *err)
{
    if (p->o->progress && !p->o->progress(p->o->user, what, done, total))
        return DIL_FAIL(err, DIL_CANCELLED, "prune: cancelled; nothing was written");
    return DIL_OK;
}

/* ---- plans ---- */

dil_status prune_plan_new(prune_plan *out, prune_kind kind, int n_lists, int n_before, int n_removed, dil_error *err)
{
    const size_t n = (size_t)n_lists * (size_t)n_removed;
    prune_plan plan = {.kind = kind, .n_lists = n_lists, .n_before = n_before, .n_removed = n_removed};
    plan.removed = mem_calloc(n, sizeof *plan.removed, MEM_MISC);
    plan.cost = mem_calloc(n, sizeof *plan.cost, MEM_MISC);
    *out = plan;
    return plan.removed && plan.cost ? DIL_OK : DIL_FAIL(err, DIL_NO_MEMORY, "pruning: no memory for %zu removals", n);
}

void prune_plan_free(prune_plan *p)
{
    mem_free(p->removed);
    mem_free(p->cost);
    *p = (prune_plan){0};
}

/* Of all lists, after n removals from each. */
static double cost_after(const prune_plan *p, int n)
{
    double sum = 0;
    for (int i = 0; i < p->n_lists && n > 0; i++)
        sum += p->cost[(size_t)i * (size_t)p->n_removed + (size_t)n - 1];
    return sum;
}

/* The most, in steps, that are expected to be within the budget. */
static int affordable(const prune_plan *p, double budget, int step)
{
    int n = 0;
    while (n + step <= p->n_removed && cost_after(p, n + step) <= budget)
        n += step;
    return n;
}

void prune_kept(const prune_plan *p, int list, bool *kept)
{
    for (int i = 0; i < p->n_before; i++)
        kept[i] = true;
    for (int i = 0; i < p->n_removed; i++)
        kept[p->removed[(size_t)list * (size_t)p->n_removed + (size_t)i]] = false;
}

/* ---- how much goes ---- */

dil_status prune_look_again(pruning *p, dil_error *err)
{
    const size_t bytes = (size_t)walk_n_tokens(p->w) * walk_hparams(p->w)->n_embd * sizeof(float);
    const int64_t n = walk_n_tokens(p->w) < FOUND_TOKENS ? walk_n_tokens(p->w) : FOUND_TOKENS;
    const int n_layer = (int)walk_hparams(p->w)->n_layer;
    float *pruned = mem_map(bytes, MEM_ACTIVATIONS), *whole = mem_map(bytes, MEM_ACTIVATIONS);
    dil_status status =
        pruned && whole ? DIL_OK : DIL_FAIL(err, DIL_NO_MEMORY, "pruning: no memory for the states of %lld tokens", (long long)n);
    if (status == DIL_OK) {
        memcpy(pruned, walk_states(p->w), bytes);
        status = walk_begin(p->w, err);
        memcpy(whole, walk_states(p->w), bytes);
    }
    for (int i = 0; status == DIL_OK && i < n_layer; i++) {
        status = prune_tell(p, "looking again", (uint64_t)i, (uint64_t)n_layer, err);
        if (status == DIL_OK)
            status = walk_load(p->w, i, err);
        if (status == DIL_OK)
            walk_forward(p->w, whole);
    }
    if (status == DIL_OK)
        p->found = walk_divergence(p->w, whole, pruned, n);
    if (pruned)
        mem_unmap(pruned, bytes, MEM_ACTIVATIONS);
    if (whole)
        mem_unmap(whole, bytes, MEM_ACTIVATIONS);
    return status;
}

dil_status prune_settle(pruning *p, prune_kind kind, int n_before, int n_most, int step, int finer, prune_run_fn run,
                        dil_error *err)
{
    const int n_layer = (int)walk_hparams(p->w)->n_layer;
    const double budget = p->o->budget;
    double allowed = budget; /* of expected divergence: less when more than that was found */
    prune_plan curve;
    DIL_TRY(prune_plan_new(&p->plan, kind, n_layer, n_before, n_most, err));
    if (!(budget > 0)) {
        DIL_TRY(run(p, "pruning", true, err));
        return prune_look_again(p, err);
    }
    DIL_TRY(run(p, "costs", false, err));
    curve = p->plan;
    p->plan = (prune_plan){0};
    dil_status status = DIL_OK;
    int n = affordable(&curve, allowed, step);
    if (n == 0) {
        step = finer;
        n = affordable(&curve, allowed, step);
    }
    for (; status == DIL_OK && n > 0;) {
        prune_plan_free(&p->plan);
        status = prune_plan_new(&p->plan, kind, n_layer, n_before, n, err);
        if (status == DIL_OK)
            status = run(p, "pruning", true, err);
        if (status == DIL_OK)
            status = prune_look_again(p, err);
        if (status != DIL_OK || p->found <= budget)
            break;
        allowed *= budget / p->found;
        int fewer = affordable(&curve, allowed, step);
        n = fewer < n ? fewer : n - step;
    }
    if (status == DIL_OK && n == 0)
        status = DIL_FAIL(err, DIL_LIMIT,
                          "quality budget: wanted what %d of %d of every layer cost at least (%.4f nats per token), found %g", step,
                          n_before, p->found > cost_after(&curve, step) ? p->found : cost_after(&curve, step), budget);
    prune_plan_free(&curve);
    return status;
}

/* ---- the whole ---- */

dil_status prune_default_kind(prune_kind *out, const char *path, dil_error *err)
{
    gguf *g = NULL;
    hparams h;
    gguf_options header = {.header_only = true};
    DIL_TRY(gguf_open(&g, path, &header, err));
    dil_status status = hparams_read(&h, g, err);
    gguf_close(g);
    if (status == DIL_OK)
        *out = h.experts.n_experts ? PRUNE_EXPERTS : PRUNE_NEURONS;
    return status;
}

static dil_status begin(pruning *p, const char *in_path, const char *out_path, dil_error *err)
{
    const prune_options *o = p->o;
    DIL_TRY(gguf_open(&p->in, in_path, NULL, err));
    DIL_TRY(convert_check_paths(p->in, out_path, err));
    DIL_TRY(players_new(&p->p, p->in, err));
    for (int i = 0; i < p->p.n; i++)
        player_offer(&p->p.p[i]);
    DIL_TRY(kernels_select(&p->k, NULL, err));
    DIL_TRY(team_new(&p->workers, o->n_threads, err));
    DIL_TRY(calibration_read(&p->c, &p->p, o->stats, err));
    if (!p->c.full)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: wanted statistics of dil calibrate --full, found importance only", o->stats);
    DIL_TRY(walk_new(&p->w, p->in, p->c.tokens, p->c.n_sequences, p->c.n_context, p->workers, &p->k, err));
    if (o->most_curvature)
        walk_limit(p->w, o->most_curvature);
    DIL_TRY(calibration_attach(&p->c, p->w, err));
    return o->dry_run ? DIL_OK : work_open_passing(&p->work, out_path, "prune", err);
}

static void end(pruning *p)
{
    work_close(p->work, true);
    walk_free(p->w);
    calibration_free(&p->c);
    players_free(&p->p);
    team_free(p->workers);
    gguf_close(p->in);
}

static dil_status find(pruning *p, dil_error *err)
{
    switch (p->o->kind) {
    case PRUNE_NEURONS: return prune_find_neurons(p, err);
    case PRUNE_EXPERTS: return prune_find_experts(p, err);
    case PRUNE_BLOCKS: return prune_find_blocks(p, err);
    default: return prune_find_layers(p, err);
    }
}

/* What the input would lose when it gets as small by quantizing alone. */
static dil_status compare(pruning *p, prune_report *r, dil_error *err)
{
    const allocate_goal goal = {.file_bytes = r->stored_bytes ? r->stored_bytes : r->out_bytes,
                                .model = recipe_model_of(walk_hparams(p->w), &p->p)};
    dil_status status = allocate_size(&p->p, &goal, &r->quantized, err);
    r->compared = status == DIL_OK;
    if (status == DIL_LIMIT) { /* no formats are that narrow */
        status_clear(err);
        return DIL_OK;
    }
    return status;
}

/* On the end of the text. */
static dil_status measure(pruning *p, prune_report *r, const char *in_path, const char *out_path, dil_error *err)
{
    char base[4096];
    held_text held;
    divergence_result d;
    const prune_options *o = p->o;
    const held_seen seen = {p->c.tokens, p->c.n_sequences, p->c.n_context};
    DIL_TRY(held_take(&held, p->in, o->text, &seen, MEASURED_SEQUENCES, err));
    work_path(p->work, "probabilities", base, sizeof base);
    measure_options mo = {.base_file = base,
                          .text = {held.bytes, held.n},
                          .n_chunks = held.n_sequences,
                          .n_context = p->c.n_context,
                          .n_threads = o->n_threads,
                          .progress = o->progress,
                          .user = o->user};
    dil_status status = held.n_sequences > 0
                            ? measure_divergence(&d, in_path, out_path, &mo, err)
                            : DIL_FAIL(err, DIL_LIMIT, "the text has no %d tokens that calibration left out", p->c.n_context);
    held_free(&held);
    DIL_TRY(status);
    r->measured = true;
    r->kld = d.mean_kld;
    r->kld_error = d.kld_error;
    r->same_top = d.same_top;
    return DIL_OK;
}

static double since(uint64_t *ns)
{
    uint64_t now = os_time_ns();
    double seconds = (double)(now - *ns) * 1e-9;
    *ns = now;
    return seconds;
}

static dil_status file_size(const char *path, uint64_t *out, dil_error *err)
{
    os_file f;
    DIL_TRY(os_file_open(&f, path, err));
    *out = f.size_bytes;
    os_file_close(&f);
    return DIL_OK;
}

static dil_status run(pruning *p, prune_report *r, const char *in_path, const char *out_path, dil_error *err)
{
    const prune_options *o = p->o;
    uint64_t ns = os_time_ns();
    DIL_TRY(find(p, err));
    DIL_TRY(prune_check(p, err));
    r->seconds[0] = since(&ns);
    r->n_layer = (int)walk_hparams(p->w)->n_layer;
    r->expected = o->kind == PRUNE_BLOCKS ? (double)NAN : cost_after(&p->plan, p->plan.n_removed); /* blocks: nobody estimates */
    r->found = o->kind == PRUNE_LAYERS ? r->expected : p->found;
    r->decoded = p->decoded;
    r->in_bytes = gguf_size_bytes(p->in);
    r->out_bytes = prune_size(p);
    r->stored_bytes = o->kind == PRUNE_BLOCKS ? prune_stored(p) : 0;
    r->n_sequences = p->c.n_sequences;
    r->n_context = p->c.n_context;
    memcpy(r->text, p->c.text, sizeof r->text);
    if (!o->dry_run) {
        DIL_TRY(prune_write(p, out_path, err));
        DIL_TRY(file_size(out_path, &r->out_bytes, err));
    }
    DIL_TRY(compare(p, r, err));
    r->seconds[1] = since(&ns);
    if (!o->dry_run && o->text.n > 0 && measure(p, r, in_path, out_path, err) != DIL_OK) {
        snprintf(r->not_measured, sizeof r->not_measured, "%.*s", (int)sizeof r->not_measured - 1, err->text);
        status_clear(err); /* the file is there all the same */
    }
    r->seconds[2] = since(&ns);
    return DIL_OK;
}

dil_status prune_file(prune_report *out, const char *in_path, const char *out_path, const prune_options *o, dil_error *err)
{
    pruning p = {.o = o};
    prune_report r = {0};
    dil_status status = begin(&p, in_path, out_path, err);
    if (status == DIL_OK)
        status = run(&p, &r, in_path, out_path, err);
    r.plan = p.plan;
    end(&p);
    if (status == DIL_OK)
        *out = r;
    else
        prune_report_free(&r);
    return status;
}

void prune_report_free(prune_report *r)
{
    prune_plan_free(&r->plan);
    *r = (prune_report){0};
}
