/* A lone layer of experts: its file, and rows through it. */
#include <math.h>
#include <string.h>

#include "api/arguments.h"
#include "base/mem.h"
#include "engine/engine.h"
#include "experts/simulate.h"
#include "file/gguf.h"
#include "theorem/random.h"

static engine *inner(const dil_engine *e) { return (engine *)(uintptr_t)e; }

dil_experts dil_experts_default(void)
{
    return (dil_experts){.struct_size = sizeof(dil_experts), .n_embd = 512, .n_ff = 1024, .n_experts = 8, .n_used = 2, .seed = 1};
}

static dil_status check(const dil_experts *l, dil_error *err)
{
    const struct {
        const char *name;
        int32_t value, most;
    } fields[] = {{"n_embd", l->n_embd, 1 << 18},
                  {"n_ff", l->n_ff, 1 << 18},
                  {"n_experts", l->n_experts, MODEL_MAX_EXPERTS},
                  {"n_used", l->n_used, l->n_experts}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i].value < 1 || fields[i].value > fields[i].most)
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_experts: %s: wanted 1..%d, found %d", fields[i].name, fields[i].most,
                            fields[i].value);
    return DIL_OK;
}

static dil_status describe(gguf_writer *w, const dil_experts *l, dil_error *err)
{
    static const char arch[] = MODEL_LONE_LAYER;
    const uint64_t n_embd = (uint64_t)l->n_embd, n_ff = (uint64_t)l->n_ff, n = (uint64_t)l->n_experts;
    DIL_TRY(gguf_writer_set_str(w, "general.architecture", str_of(arch), err));
    DIL_TRY(gguf_writer_set_u32(w, MODEL_LONE_LAYER ".embedding_length", (uint32_t)l->n_embd, err));
    DIL_TRY(gguf_writer_set_u32(w, MODEL_LONE_LAYER ".expert_feed_forward_length", (uint32_t)l->n_ff, err));
    DIL_TRY(gguf_writer_set_u32(w, MODEL_LONE_LAYER ".expert_count", (uint32_t)l->n_experts, err));
    DIL_TRY(gguf_writer_set_u32(w, MODEL_LONE_LAYER ".expert_used_count", (uint32_t)l->n_used, err));
    DIL_TRY(gguf_writer_add_tensor(w, STR("blk.0.ffn_gate_inp.weight"), DIL_TYPE_F32, 2, (uint64_t[]){n_embd, n}, err));
    DIL_TRY(gguf_writer_add_tensor(w, STR("blk.0.ffn_gate_exps.weight"), DIL_TYPE_F32, 3, (uint64_t[]){n_embd, n_ff, n}, err));
    DIL_TRY(gguf_writer_add_tensor(w, STR("blk.0.ffn_up_exps.weight"), DIL_TYPE_F32, 3, (uint64_t[]){n_embd, n_ff, n}, err));
    return gguf_writer_add_tensor(w, STR("blk.0.ffn_down_exps.weight"), DIL_TYPE_F32, 3, (uint64_t[]){n_ff, n_embd, n}, err);
}

/* n matrices of rows of n_columns values: given ones, or normal ones whose products are as large as what they read. */
static dil_status add_matrices(gguf_writer *w, const float *given, uint64_t *seed, size_t n_rows, size_t n_columns,
                               const char *name, dil_error *err)
{
    const double deviation = 1.0 / sqrt((double)n_columns);
    float *row = mem_alloc(n_columns * sizeof *row, MEM_MISC);
    dil_status status = row ? DIL_OK : DIL_FAIL(err, DIL_NO_MEMORY, "dil_experts: no memory for a row");
    for (size_t i = 0; status == DIL_OK && i < n_rows; i++) {
        for (size_t j = 0; j < n_columns; j++) {
            row[j] = given ? given[i * n_columns + j] : (float)(random_normal(seed) * deviation);
            if (!isfinite(row[j]))
                status = DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_experts: %s: row %zu, value %zu: wanted a finite number, found %g",
                                  name, i, j, (double)row[j]);
        }
        if (status == DIL_OK)
            status = gguf_writer_data(w, row, n_columns * sizeof *row, err);
    }
    mem_free(row);
    return status;
}

static dil_status write_layer(gguf_writer *w, const dil_experts *l, dil_error *err)
{
    const size_t n_embd = (size_t)l->n_embd, n_ff = (size_t)l->n_ff, n = (size_t)l->n_experts;
    uint64_t seed = l->seed;
    DIL_TRY(describe(w, l, err));
    DIL_TRY(add_matrices(w, l->router, &seed, n, n_embd, "router", err));
    DIL_TRY(add_matrices(w, l->gate, &seed, n * n_ff, n_embd, "gate", err));
    DIL_TRY(add_matrices(w, l->up, &seed, n * n_ff, n_embd, "up", err));
    return add_matrices(w, l->down, &seed, n * n_embd, n_ff, "down", err);
}

dil_status dil_experts_write(const char *path, const dil_experts *layer, dil_error *err)
{
    dil_experts l = dil_experts_default();
    gguf_writer *w = NULL;
    DIL_TRY(need(path, "dil_experts_write: path", err));
    DIL_TRY(take_options(&l, sizeof l, layer, layer ? layer->struct_size : 0, "dil_experts", err));
    DIL_TRY(check(&l, err));
    DIL_TRY(gguf_writer_new(&w, path, err));
    dil_status status = write_layer(w, &l, err);
    if (status == DIL_OK)
        return gguf_writer_finish(w, err);
    gguf_writer_abort(w);
    return status;
}

#define RUN_ROWS 4096 /* at a time, so that choices need little room */

static dil_status run_part(engine *e, const float *x, int32_t n, float *y, int32_t *chosen, float *weights, uint16_t *room,
                           dil_error *err)
{
    const size_t n_used = engine_model(e)->h.experts.n_used;
    DIL_TRY(engine_rows(e, x, n, y, room, weights, err));
    for (size_t i = 0; chosen && i < (size_t)n * n_used; i++)
        chosen[i] = room[i];
    return DIL_OK;
}

dil_status dil_experts_run(dil_engine *e, const float *x, size_t n, float *y, int32_t *chosen, float *weights, dil_error *err)
{
    DIL_TRY(need(e, "dil_experts_run: engine", err));
    if (n == 0)
        return DIL_OK;
    DIL_TRY(need(x, "dil_experts_run: x", err));
    DIL_TRY(need(y, "dil_experts_run: y", err));
    const hparams *h = &engine_model(inner(e))->h;
    const size_t n_embd = h->n_embd, n_used = h->experts.n_used;
    uint16_t *room = mem_alloc((n < RUN_ROWS ? n : RUN_ROWS) * (n_used + 1) * sizeof *room, MEM_MISC);
    dil_status status = room ? DIL_OK : DIL_FAIL(err, DIL_NO_MEMORY, "dil_experts_run: no memory");
    for (size_t first = 0; status == DIL_OK && first < n; first += RUN_ROWS) {
        const int32_t part = (int32_t)(n - first < RUN_ROWS ? n - first : RUN_ROWS);
        status = run_part(inner(e), x + first * n_embd, part, y + first * n_embd, chosen ? chosen + first * n_used : NULL,
                          weights ? weights + first * n_used : NULL, room, err);
    }
    mem_free(room);
    return status;
}

dil_status dil_experts_count(const dil_engine *e, dil_experts_counts *out, dil_error *err)
{
    DIL_TRY(need(e, "dil_experts_count: engine", err));
    DIL_TRY(need_struct(out, sizeof *out, "dil_experts_counts", err));
    if (engine_model(inner(e))->h.experts.n_experts == 0)
        return DIL_FAIL(err, DIL_UNSUPPORTED, "dil_experts_count: wanted a mixture of experts, found a dense model");
    route_counts r;
    pool_counts p = {0};
    compute_route_counts(engine_compute(inner(e)), &r);
    if (engine_experts(inner(e)))
        pool_stats(engine_experts(inner(e)), UINT32_MAX, &p);
    const dil_experts_counts all = {.n_choices = r.n_choices,
                                    .router_read_bytes = r.read_bytes,
                                    .router_full_bytes = r.full_bytes,
                                    .n_changed = r.n_changed,
                                    .mean_mass = r.n_choices ? r.mass / (double)r.n_choices : 0,
                                    .most_mass = r.most_mass,
                                    .n_found = p.hits,
                                    .n_loaded = p.requests - p.hits - p.joined,
                                    .loaded_bytes = p.bytes_read};
    give_struct(out, &all, sizeof all);
    return DIL_OK;
}

/* ---- router logs ---- */

static dil_status check_choices(const hparams *h, const int32_t *chosen, const float *weights, size_t n, dil_error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (chosen[i] < 0 || (uint32_t)chosen[i] >= h->experts.n_experts)
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_experts_log: chosen: wanted experts 0..%u, found %d at index %zu",
                            h->experts.n_experts - 1, chosen[i], i);
        if (weights && !(weights[i] >= 0 && weights[i] <= 1))
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_experts_log: weights: wanted 0..1, found %g at index %zu",
                            (double)weights[i], i);
    }
    return DIL_OK;
}

static dil_status write_rows(trace_writer *w, uint32_t n_used, const int32_t *chosen, const float *weights, size_t n,
                             dil_error *err)
{
    uint16_t experts[TRACE_MOST_USED];
    for (size_t row = 0; row < n; row++) {
        for (uint32_t i = 0; i < n_used; i++)
            experts[i] = (uint16_t)chosen[row * n_used + i];
        DIL_TRY(trace_writer_begin(w, 1, err));
        trace_writer_put(w, 0, 0, experts, weights ? weights + row * n_used : NULL);
        DIL_TRY(trace_writer_end(w, err));
    }
    return DIL_OK;
}

dil_status dil_experts_log(const dil_engine *e, const char *path, const int32_t *chosen, const float *weights, size_t n,
                           dil_error *err)
{
    trace_writer *w;
    DIL_TRY(need(e, "dil_experts_log: engine", err));
    DIL_TRY(need(path, "dil_experts_log: path", err));
    DIL_TRY(need(chosen, "dil_experts_log: chosen", err));
    const model *m = engine_model(inner(e));
    if (!m->h.lone)
        return DIL_FAIL(err, DIL_UNSUPPORTED,
                        "dil_experts_log: %s: wanted a layer of experts alone; dil trace logs language models", gguf_path(m->file));
    const uint32_t n_used = m->h.experts.n_used;
    DIL_TRY(check_choices(&m->h, chosen, weights, n * n_used, err));
    const trace_layer layer = {model_expert_place(m, 0).bytes, m->h.experts.n_experts};
    const trace_options o = {.name = gguf_path(m->file),
                             .layers = &layer,
                             .n_layers = 1,
                             .n_used = n_used,
                             .most_tokens = 1,
                             .weights = weights != NULL};
    DIL_TRY(trace_writer_open(&w, path, &o, err));
    dil_status status = write_rows(w, n_used, chosen, weights, n, err);
    if (status == DIL_OK)
        return trace_writer_commit(w, err);
    trace_writer_abort(w);
    return status;
}

dil_status dil_experts_replay(const char *log_path, const char *named, double share, dil_replay *out, dil_error *err)
{
    trace *t;
    policy_kind kind;
    simulation s;
    DIL_TRY(need(log_path, "dil_experts_replay: log_path", err));
    DIL_TRY(need(named, "dil_experts_replay: policy", err));
    DIL_TRY(need_struct(out, sizeof *out, "dil_replay", err));
    if (!policy_find(named, &kind))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_experts_replay: policy: wanted swarm, lru, lfu, stale or belady, found '%s'",
                        named);
    if (!(share >= 0 && share <= 1))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_experts_replay: share: wanted 0..1 of all experts, found %g", share);
    DIL_TRY(trace_open(&t, log_path, err));
    dil_status status = simulate(t, kind, (uint64_t)(share * (double)simulate_all_bytes(t)), &s, NULL, err);
    if (status == DIL_OK) {
        const dil_replay own = {.n_tokens = t->n_tokens,
                                .n_uses = s.total.requests,
                                .n_found = s.total.hits,
                                .n_first = s.first.requests,
                                .read_bytes = s.total.bytes_read,
                                .n_slots = (int32_t)s.n_slots};
        give_struct(out, &own, sizeof own);
    }
    trace_free(t);
    return status;
}
