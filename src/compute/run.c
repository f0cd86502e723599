/* The step loop: a batch goes in, the plan is walked by all workers, logits come out. */
#include <string.h>

#include "base/os.h"
#include "base/status.h"
#include "compute/exec.h"

static const struct {
    void (*fn)(compute *, const step *, int);
    const char *name;
} step_kinds[STEP_KINDS] = {
    [STEP_INPUT] = {step_input, "input"},
    [STEP_EMBED] = {step_embed, "embed"},
    [STEP_NORM] = {step_norm, "norm"},
    [STEP_QKV] = {step_qkv, "qkv"},
    [STEP_ROPE] = {step_rope, "rope + kv"},
    [STEP_LATENT_DOWN] = {step_latent_down, "latent down"},
    [STEP_LATENT_NORM] = {step_latent_norm, "latent norm"},
    [STEP_LATENT_UP] = {step_latent_up, "latent up"},
    [STEP_LATENT_STORE] = {step_latent_store, "latent kv"},
    [STEP_ABSORB] = {step_absorb, "absorb + kv"},
    [STEP_EXPAND] = {step_expand, "expand"},
    [STEP_ATTENTION] = {step_attention, "attention"},
    [STEP_ATTN_QUANTIZE] = {step_attn_quantize, "attn quantize"},
    [STEP_ATTN_OUT] = {step_attn_out, "attn out"},
    [STEP_ROUTE] = {step_route, "route"},
    [STEP_CHOOSE] = {step_choose, "choose"},
    [STEP_EXPERTS] = {step_experts, "experts"},
    [STEP_GATE_UP] = {step_gate_up, "gate + up"},
    [STEP_DOWN] = {step_down, "down"},
    [STEP_HEAD] = {step_head, "head"},
};

const char *step_name(step_kind kind) { return (unsigned)kind < STEP_KINDS ? step_kinds[kind].name : "?"; }

static void begin_step(compute *c, const step *s, int worker)
{
    if (!c->options.on_input)
        return;
    if (worker == 0)
        observe_before(c, s);
    team_barrier(c->workers);
}

static void end_step(compute *c, const step *s, int worker)
{
    team_barrier(c->workers);
    if (c->options.on_input && worker == 0)
        observe_after(c, s);
}

static void walk(void *ctx, int worker)
{
    compute *c = ctx;
    for (size_t i = 0; i < c->n_steps; i++) {
        const step *s = &c->steps[i];
        begin_step(c, s, worker);
        step_kinds[s->kind].fn(c, s, worker);
        end_step(c, s, worker);
    }
}

/* The same with a look at the clock before and behind every barrier. */
static void walk_measured(void *ctx, int worker)
{
    compute *c = ctx;
    uint64_t start = os_time_ns();
    for (size_t i = 0; i < c->n_steps; i++) {
        const step *s = &c->steps[i];
        begin_step(c, s, worker);
        step_kinds[s->kind].fn(c, s, worker);
        uint64_t done = os_time_ns();
        end_step(c, s, worker);
        uint64_t end = os_time_ns();
        timing_add_step(c, s, worker, start, done, end);
        start = end;
    }
}

static void walk_all(compute *c)
{
    bool measured = is_measured(c);
    uint64_t start = measured ? os_time_ns() : 0;
    team_run_some(c->workers, c->n_workers, measured ? walk_measured : walk, c);
    if (measured)
        timing_add_pass(c, start, os_time_ns());
}

/* Splits the batch into runs of one sequence, numbers positions and outputs. */
static dil_status describe(compute *c, const batch_token *tokens, int32_t n, dil_error *err)
{
    c->n_runs = 0;
    c->n_outputs = 0;
    for (int32_t t = 0; t < n; t++) {
        bool starts = t == 0 || tokens[t].seq != tokens[t - 1].seq;
        if (tokens[t].id < 0 || (uint32_t)tokens[t].id >= c->h->n_vocab)
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "token %d of the batch: wanted an id in 0..%u, found %d", t, c->h->n_vocab - 1,
                            tokens[t].id);
        for (int32_t r = 0; starts && r < c->n_runs; r++)
            if (c->runs[r].seq == tokens[t].seq)
                return DIL_FAIL(err, DIL_BAD_ARGUMENT,
                                "token %d of the batch: its sequence appears twice; its tokens must stand together", t);
        if (starts)
            c->runs[c->n_runs++] = (batch_run){.seq = tokens[t].seq, .first = t, .position = tokens[t].seq->n_tokens};
        batch_run *run = &c->runs[c->n_runs - 1];
        c->position[t] = run->position + run->n++;
        c->run_of[t] = c->n_runs - 1;
        c->output_of[t] = -1;
        if (!tokens[t].wants_logits)
            continue;
        if (c->n_outputs == c->options.max_outputs)
            return DIL_FAIL(err, DIL_LIMIT, "batch: wanted at most %d tokens with logits, found more", c->options.max_outputs);
        c->token_of[c->n_outputs] = t;
        c->output_of[t] = c->n_outputs++;
    }
    return DIL_OK;
}

/* A part of the work for every worker to keep to. Parts of rows must be worth their own passes over the weights. */
static void divide_work(compute *c)
{
    int32_t unit_rows = c->k->token_tile;
    const int free = c->n <= COMPUTE_FEW_ROWS ? team_unhindered(c->workers) : team_size(c->workers);
    const int most = c->n <= COMPUTE_FEW_ROWS ? c->tuning.threads_few : c->tuning.threads_many;
    c->n_workers = free < most ? free : most;
    c->n_parts = c->n_workers < TEAM_QUEUES ? c->n_workers : TEAM_QUEUES;
    c->by_rows = c->n >= c->tuning.part_rows * c->n_parts;
    c->part_rows = (c->n + c->n_parts - 1) / c->n_parts;
    if (c->by_rows)
        c->part_rows = (c->part_rows + unit_rows - 1) / unit_rows * unit_rows;
    team_set_queues(c->workers, c->n_parts);
}

static void number_attention_items(compute *c)
{
    uint32_t items = 0, outputs = 0;
    for (int32_t r = 0; r <= c->n_runs; r++) {
        batch_run *run = &c->runs[r];
        run->items_before = items;
        run->items_before_outputs = outputs;
        if (r == c->n_runs)
            break;
        int32_t n_outputs = 0;
        for (int32_t t = run->first; t < run->first + run->n; t++)
            n_outputs += c->output_of[t] >= 0;
        run->n_splits = attention_splits(c, run);
        items += attention_items(c, run, run->n);
        outputs += attention_items(c, run, n_outputs);
    }
}

/* Pages beyond what the first n runs' sequences hold. */
static void give_back(compute *c, int32_t n)
{
    for (int32_t r = 0; r < n; r++)
        kv_seq_truncate(c->runs[r].seq, c->runs[r].seq->n_tokens);
}

static dil_status reserve(compute *c, dil_error *err)
{
    for (int32_t r = 0; r < c->n_runs; r++) {
        dil_status status = kv_seq_reserve(c->runs[r].seq, c->runs[r].n, err);
        if (status != DIL_OK) {
            give_back(c, r);
            return status;
        }
    }
    return DIL_OK;
}

/* The plan is walked for the batch that was described. */
static dil_status pass(compute *c, dil_error *err)
{
    route_begin(c);
    divide_work(c);
    atomic_store(&c->unreadable, false);
    walk_all(c);
    moe_release(c);
    if (atomic_exchange(&c->moe.lost, false))
        return pool_error(c->options.experts, err);
    if (atomic_load(&c->unreadable))
        return DIL_FAIL(err, DIL_IO, "%s: the token embedding could not be read: the file was truncated or its disk failed",
                        gguf_path(c->m->file));
    if (model_lost(c->m))
        return DIL_FAIL(err, DIL_IO,
                        "%s: its packed weights could not be read: the cache file was truncated or its disk failed; "
                        "load the model again",
                        gguf_path(c->m->file));
    return DIL_OK;
}

dil_status compute_run(compute *c, const batch_token *tokens, int32_t n, dil_error *err)
{
    if (n < 1 || n > c->options.max_tokens)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "batch: wanted 1..%d tokens, found %d", c->options.max_tokens, n);
    DIL_TRY(describe(c, tokens, n, err));
    DIL_TRY(reserve(c, err));
    c->tokens = tokens;
    c->n = n;
    c->pass = c->n_runs == n ? PASS_DECODE : PASS_PREFILL;
    number_attention_items(c);
    dil_status status = pass(c, err);
    if (status != DIL_OK) {
        give_back(c, c->n_runs);
        return status;
    }
    for (int32_t r = 0; r < c->n_runs; r++)
        c->runs[r].seq->n_tokens += c->runs[r].n;
    return DIL_OK;
}

dil_status compute_run_rows(compute *c, const float *x, int32_t n, float *y, dil_error *err)
{
    const size_t row_bytes = c->h->n_embd * sizeof *x;
    if (!c->h->lone)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: wanted a layer of experts alone (%s), found a model of the architecture '%.*s'",
                        gguf_path(c->m->file), MODEL_LONE_LAYER, STR_ARG(c->h->architecture));
    if (n < 1 || n > c->options.max_tokens)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "rows: wanted 1..%d, found %d", c->options.max_tokens, n);
    c->input = x;
    c->n = n;
    c->n_outputs = 0;
    c->pass = n == 1 ? PASS_DECODE : PASS_PREFILL;
    c->n_runs = 1;
    c->runs[0] = (batch_run){.n = n, .position = c->routed_end};
    memset(c->run_of, 0, (size_t)n * sizeof *c->run_of);
    DIL_TRY(pass(c, err));
    for (int32_t row = 0; row < n; row++)
        memcpy(y + (size_t)row * c->h->n_embd, c->x + (size_t)row * c->x_stride, row_bytes);
    return DIL_OK;
}

void compute_choice(const compute *c, const uint16_t **chosen, const float **weights)
{
    *chosen = c->moe.chosen;
    *weights = c->moe.weights;
}

const float *compute_logits(const compute *c, int32_t i) { return c->logits + (size_t)i * c->logit_stride; }
