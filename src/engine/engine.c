#include "engine/engine.h"

#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "base/str.h"
#include "engine/engine_internal.h"
#include "engine/experts.h"
#include "machine/machine.h"

engine_options engine_options_default(void) { return (engine_options){.type_k = DIL_TYPE_F16, .type_v = DIL_TYPE_F16}; }

#define MAX_CONTEXT (1 << 26) /* also what a model may declare */

/* n_threads 0 becomes the machine's default. Workers (may be NULL) are told their processors, when there is one for each. */
static dil_status choose_threads(engine_options *o, team **workers, dil_error *err)
{
    machine *m;
    int cpus[TEAM_MAX];
    DIL_TRY(machine_topology(&m, NULL, err));
    if (o->n_threads == 0)
        o->n_threads = machine_default_threads(m) < TEAM_MAX ? machine_default_threads(m) : TEAM_MAX;
    dil_status status = workers ? team_new(workers, o->n_threads, err) : DIL_OK;
    if (workers && status == DIL_OK && machine_thread_cpus(m, cpus, o->n_threads) == o->n_threads)
        team_pin(*workers, cpus, NULL);
    machine_free(m);
    return status;
}

/* What the model's profile says, if there is one for these threads; the size of a pass only where nobody asked for one. */
static profile_state add_profile(engine_options *o, profile *p, const model *m, const kernels *k, char why[128])
{
    const profile_key key = {m, k, o->n_threads};
    *p = (profile){0};
    const profile_state state = o->no_profile || o->exact ? PROFILE_NONE : profile_load(p, &key, why);
    if (o->micro_batch == 0)
        o->micro_batch = p->micro_batch;
    else
        p->micro_batch = 0;
    return state;
}

/* Who feeds tokens must not be given a layer that reads rows. */
static dil_status check_kind(const model *m, const engine_options *o, dil_error *err)
{
    if (m->h.lone && !o->lone)
        return DIL_FAIL(err, DIL_UNSUPPORTED, "%s: wanted a language model, found a layer of experts alone, which knows no text",
                        gguf_path(m->file));
    return DIL_OK;
}

/* Zeros become what suits this machine and model. */
static dil_status resolve(engine_options *o, const hparams *h, dil_error *err)
{
    if (o->n_threads < 0 || o->context < 0 || o->n_sessions < 0 || o->micro_batch < 0 || o->max_outputs < 0)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "engine options: threads, context, sessions and batch sizes must not be negative");
    if (o->n_threads == 0)
        DIL_TRY(choose_threads(o, NULL, err));
    if (o->n_threads > TEAM_MAX)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "threads: wanted at most %d, found %d", TEAM_MAX, o->n_threads);
    if (o->context == 0)
        o->context = h->n_context < 4096 ? (int32_t)h->n_context : 4096;
    if (o->n_sessions == 0)
        o->n_sessions = 1;
    if (o->micro_batch == 0)
        o->micro_batch = ENGINE_MICRO_BATCH;
    if (o->context > MAX_CONTEXT)
        return DIL_FAIL(err, DIL_LIMIT, "context: wanted at most %d tokens, found %d", MAX_CONTEXT, o->context);
    if (o->micro_batch > (int64_t)o->context * o->n_sessions)
        o->micro_batch = o->context * o->n_sessions; /* below micro_batch: fits */
    if (o->micro_batch > 1 << 16)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "batch: wanted at most %d tokens per pass (-ub), found %d", 1 << 16, o->micro_batch);
    if (o->max_outputs == 0)
        o->max_outputs = 8;
    if (o->max_outputs > o->micro_batch)
        o->max_outputs = o->micro_batch;
    return DIL_OK;
}

static int32_t pool_pages(const engine_options *o)
{
    int64_t pages = ((int64_t)o->context + KV_PAGE - 1) / KV_PAGE * o->n_sessions;
    return pages < INT32_MAX ? (int32_t)pages : INT32_MAX;
}

static compute_options compute_options_of(const engine_options *o)
{
    return (compute_options){
        .max_tokens = o->micro_batch, .max_outputs = o->max_outputs, .context = o->context, .timing = o->timing, .exact = o->exact};
}

/* Of the process without this model: what is in memory now but for the vocabulary, which is counted apart. */
static uint64_t program_bytes(const model *m)
{
    uint64_t now = os_rss_bytes(), words = m->words ? vocab_bytes(m->words) : 0;
    return now > words ? now - words : 0;
}

static void plan_from(engine_plan *p, const model *m, const engine_options *o)
{
    compute_options c = compute_options_of(o);
    size_t page = kv_bytes_per_page(&m->h, o->type_k, o->type_v);
    *p = (engine_plan){.file_bytes = gguf_size_bytes(m->file),
                       .packed_bytes = m->packed_bytes,
                       .expert_bytes = m->n_expert_sums ? m->packed_bytes - m->dense_bytes : 0,
                       .kv_bytes = (uint64_t)page * (uint64_t)pool_pages(o),
                       .activation_bytes = compute_bytes(m, &c, o->n_threads),
                       .vocab_bytes = m->words ? vocab_bytes(m->words) : 0,
                       .program_bytes = program_bytes(m),
                       .kv_bytes_per_token = page / KV_PAGE,
                       .weight_bytes_per_token = compute_weight_bytes(m),
                       .n_threads = o->n_threads,
                       .context = o->context,
                       .micro_batch = o->micro_batch};
    p->total_bytes = p->packed_bytes + p->kv_bytes + p->activation_bytes + p->vocab_bytes + p->program_bytes;
}

/* With experts apart only their budget counts. */
static dil_status plan_experts(engine_plan *p, engine_options *o, const char *path, dil_error *err)
{
    DIL_TRY(experts_budget(o, p, path, err));
    p->experts_memory = o->experts_memory;
    if (o->experts_memory > 0)
        p->total_bytes += o->experts_memory - p->expert_bytes;
    return DIL_OK;
}

dil_status engine_plan_model(engine_plan *out, const model *m, const engine_options *options, dil_error *err)
{
    engine_options o = options ? *options : engine_options_default();
    kernels k;
    profile p;
    char why[128];
    DIL_TRY(check_kind(m, &o, err));
    if (o.n_threads == 0)
        DIL_TRY(choose_threads(&o, NULL, err));
    DIL_TRY(kernels_select(&k, o.cpu ? o.cpu : "auto", err));
    (void)add_profile(&o, &p, m, &k, why);
    DIL_TRY(resolve(&o, &m->h, err));
    plan_from(out, m, &o);
    return plan_experts(out, &o, gguf_path(m->file), err);
}

dil_status engine_plan_file(engine_plan *out, const char *path, const engine_options *options, dil_error *err)
{
    model_options mo = {.header_only = true, .no_vocab = options && options->no_vocab};
    model *m;
    DIL_TRY(model_open(&m, path, &mo, err));
    dil_status status = engine_plan_model(out, m, options, err);
    model_close(m);
    return status;
}

/* Before anything is loaded: o->experts_memory becomes bytes, and all must fit in o->memory_bytes. */
static dil_status check_memory(const char *path, engine_options *o, dil_error *err)
{
    engine_plan p;
    if (o->memory_bytes == 0 && o->experts_memory == 0)
        return DIL_OK;
    DIL_TRY(engine_plan_file(&p, path, o, err));
    o->experts_memory = p.experts_memory;
    if (o->memory_bytes == 0 || p.total_bytes <= o->memory_bytes)
        return DIL_OK;
    char need[32], have[32];
    return DIL_FAIL(err, DIL_NO_MEMORY, "%s: needs %s, --memory allows %s; a smaller context (-c) or batch (-ub) needs less", path,
                    str_bytes(p.total_bytes, need, sizeof need), str_bytes(o->memory_bytes, have, sizeof have));
}

static dil_status open_chat(engine *e, dil_error *err)
{
    const vocab *v = e->m->words;
    if (!v)
        return DIL_OK;
    return chat_template_new(&e->chat, e->m->chat_template, vocab_text(v, vocab_bos(v)), vocab_text(v, vocab_eos(v)), true, err);
}

static dil_status build(engine *e, const char *path, dil_error *err)
{
    engine_options *o = &e->options;
    bool automatic = o->experts_memory == ENGINE_EXPERTS_AUTO;
    DIL_TRY(kernels_select(&e->k, o->cpu ? o->cpu : "auto", err));
    DIL_TRY(check_memory(path, o, err));
    DIL_TRY(choose_threads(o, &e->workers, err));
    model_options mo = {.workers = e->workers,
                        .no_vocab = o->no_vocab,
                        .experts_apart = o->experts_memory > 0,
                        .no_pack_cache = o->no_pack_cache,
                        .pack_cache_least = o->pack_cache_least,
                        .pack_cache_most = o->pack_cache_most,
                        .progress = o->progress,
                        .user = o->user};
    DIL_TRY(model_open(&e->m, path, &mo, err));
    DIL_TRY(check_kind(e->m, o, err));
    profile tuned;
    e->profiled = add_profile(o, &tuned, e->m, &e->k, e->why_stale);
    DIL_TRY(resolve(o, &e->m->h, err));
    DIL_TRY(kv_pool_new(&e->pool, &e->m->h, o->type_k, o->type_v, pool_pages(o), err));
    compute_options co = compute_options_of(o);
    if (o->experts_memory > 0) {
        DIL_TRY(experts_pool(&e->experts, e->m, o, err));
        e->adjusts = automatic;
    }
    co.experts = e->experts;
    co.events = o->events;
    co.route = o->route;
    co.on_choice = o->on_choice;
    co.choice_ctx = o->choice_ctx;
    co.on_input = o->on_input;
    co.input_ctx = o->input_ctx;
    DIL_TRY(compute_new(&e->c, e->m, &e->k, e->workers, &co, err));
    engine_tune(e, &tuned);
    e->batch = mem_calloc((size_t)o->micro_batch, sizeof *e->batch, MEM_ACTIVATIONS);
    if (!e->batch)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for a batch", path);
    return open_chat(e, err);
}

dil_status engine_open(engine **out, const char *path, const engine_options *options, dil_error *err)
{
    engine *e = mem_calloc(1, sizeof *e, MEM_MISC);
    if (!e)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory to load", path);
    e->options = options ? *options : engine_options_default();
    dil_status status = build(e, path, err);
    if (status != DIL_OK) {
        engine_close(e);
        return status;
    }
    *out = e;
    return DIL_OK;
}

#define PASSES_BETWEEN_LOOKS 16

dil_status engine_pass(engine *e, int32_t n, dil_error *err)
{
    DIL_TRY(compute_run(e->c, e->batch, n, err));
    if (e->adjusts && ++e->n_passes % PASSES_BETWEEN_LOOKS == 0) {
        os_limits limits;
        os_limits_read(NULL, &limits);
        if (limits.memory_bytes > 0)
            pool_adjust(e->experts, limits.memory_left_bytes);
    }
    return DIL_OK;
}

dil_status engine_rows(engine *e, const float *x, int32_t n, float *y, uint16_t *chosen, float *weights, dil_error *err)
{
    const size_t n_embd = e->m->h.n_embd, n_used = e->m->h.experts.n_used;
    for (int32_t first = 0, part; first < n; first += part) {
        const uint16_t *pass_chosen;
        const float *pass_weights;
        part = n - first < e->micro_batch ? n - first : e->micro_batch;
        DIL_TRY(compute_run_rows(e->c, x + (size_t)first * n_embd, part, y + (size_t)first * n_embd, err));
        compute_choice(e->c, &pass_chosen, &pass_weights);
        if (chosen)
            memcpy(chosen + (size_t)first * n_used, pass_chosen, (size_t)part * n_used * sizeof *chosen);
        if (weights)
            memcpy(weights + (size_t)first * n_used, pass_weights, (size_t)part * n_used * sizeof *weights);
    }
    return DIL_OK;
}

void engine_close(engine *e)
{
    if (!e)
        return;
    chat_template_free(e->chat);
    mem_free(e->batch);
    compute_free(e->c);
    pool_free(e->experts);
    kv_pool_free(e->pool);
    model_close(e->m);
    team_free(e->workers);
    mem_free(e);
}

void engine_tune(engine *e, const profile *p)
{
    const int32_t most = e->options.micro_batch;
    compute_tune(e->c, &p->tuning);
    e->micro_batch = p->micro_batch > 0 && p->micro_batch < most ? p->micro_batch : most;
}

profile_state engine_profile(const engine *e, const char **why)
{
    if (why)
        *why = e->why_stale;
    return e->profiled;
}

const model *engine_model(const engine *e) { return e->m; }
const vocab *engine_vocab(const engine *e) { return e->m->words; }
const chat_template *engine_chat(const engine *e) { return e->chat; }
const kernels *engine_kernels(const engine *e) { return &e->k; }
compute *engine_compute(engine *e) { return e->c; }
events *engine_events(const engine *e) { return e->options.events; }
pool *engine_experts(const engine *e) { return e->experts; }
int32_t engine_context(const engine *e) { return e->options.context; }
int32_t engine_n_threads(const engine *e) { return e->options.n_threads; }
int32_t engine_micro_batch(const engine *e) { return e->micro_batch; }
int32_t engine_max_outputs(const engine *e) { return e->options.max_outputs; }
int32_t engine_n_vocab(const engine *e) { return (int32_t)e->m->h.n_vocab; }
size_t engine_kv_bytes(const engine *e) { return kv_pool_bytes(e->pool); }
size_t engine_kv_bytes_per_token(const engine *e)
{
    return kv_bytes_per_page(&e->m->h, e->options.type_k, e->options.type_v) / KV_PAGE;
}
dil_type engine_type_k(const engine *e) { return e->options.type_k; }
dil_type engine_type_v(const engine *e) { return e->options.type_v; }
