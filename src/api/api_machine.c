/* The machine, and what models will take and reach on it: src/machine/ and src/tune/ behind the public header. */
#include <stdio.h>

#include "api/arguments.h"
#include "api/options.h"
#include "base/cpu.h"
#include "base/mem.h"
#include "evaluate/bench.h"
#include "tune/forecast.h"
#include "tune/search.h"

dil_status dil_machine_info(dil_machine *out, dil_error *err)
{
    machine *m;
    kernels k;
    DIL_TRY(need_struct(out, sizeof *out, "dil_machine", err));
    DIL_TRY(kernels_select(&k, NULL, err));
    DIL_TRY(machine_topology(&m, NULL, err));
    dil_machine own = {.n_cores = m->n_cores,
                       .n_cpus = m->n_cpus,
                       .n_numa = m->n_numa,
                       .n_threads = machine_default_threads(m),
                       .l1_bytes = m->caches[0].size_bytes,
                       .l2_bytes = m->caches[1].size_bytes,
                       .l3_bytes = m->caches[2].size_bytes,
                       .l2_cores = m->caches[1].n_cores,
                       .l3_cores = m->caches[2].n_cores,
                       .memory_bytes = m->memory_bytes};
    snprintf(own.cpu, sizeof own.cpu, "%s", cpu_name());
    snprintf(own.kernels, sizeof own.kernels, "%s", k.name);
    machine_free(m);
    give_struct(out, &own, sizeof own);
    return DIL_OK;
}

dil_status dil_machine_measure(bool again, dil_progress_fn progress, void *user, dil_machine_speed *out, dil_error *err)
{
    machine *m;
    kernels k;
    DIL_TRY(need_struct(out, sizeof *out, "dil_machine_speed", err));
    DIL_TRY(kernels_select(&k, NULL, err));
    DIL_TRY(machine_topology(&m, NULL, err));
    machine_facts *f = mem_alloc(sizeof *f, MEM_MISC);
    dil_status status = f ? machine_facts_get(f, m, &k, 0, again ? FACTS_AGAIN : FACTS_KEPT, progress, user, err)
                          : DIL_FAIL(err, DIL_NO_MEMORY, "dil_machine_measure: no memory");
    if (status == DIL_OK) {
        const machine_limits *l = &f->limits[f->n_counts - 1];
        const dil_machine_speed own = {.n_threads = l->n_threads,
                                       .memory = l->memory.best,
                                       .l3 = l->l3.best,
                                       .l2 = l->l2.best,
                                       .l1 = l->l1.best,
                                       .int8 = l->int8.best,
                                       .bf16 = l->bf16.best,
                                       .f32 = l->f32.best,
                                       .barrier_seconds = l->barrier.best,
                                       .busy = f->busy};
        give_struct(out, &own, sizeof own);
    }
    mem_free(f);
    machine_free(m);
    return status;
}

/* ---- models ---- */

dil_workload dil_workload_default(void)
{
    return (dil_workload){.struct_size = sizeof(dil_workload), .n_prompt = 512, .n_gen = 128, .n_parallel = 1};
}

/* least: of n_prompt and n_gen. */
static dil_status take_workload(dil_workload *out, const dil_workload *given, int32_t least, dil_error *err)
{
    *out = dil_workload_default();
    DIL_TRY(take_options(out, sizeof *out, given, given ? given->struct_size : 0, "dil_workload", err));
    const struct {
        const char *name;
        int32_t value, least, most;
    } fields[] = {{"n_prompt", out->n_prompt, least, 1 << 23},
                  {"n_gen", out->n_gen, least, 1 << 23},
                  {"depth", out->depth, 0, 1 << 23},
                  {"n_parallel", out->n_parallel, 1, 1024}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i].value < fields[i].least || fields[i].value > fields[i].most)
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_workload: %s: wanted %d..%d, found %d", fields[i].name, fields[i].least,
                            fields[i].most, fields[i].value);
    return DIL_OK;
}

static dil_status bytes_of_pass(dil_level_bytes *out, const forecast *f, predict_pass pass, dil_error *err)
{
    level_bytes levels[STEP_KINDS];
    *out = (dil_level_bytes){0};
    DIL_TRY(levels_of_pass(levels, &f->by, &pass, err));
    for (int kind = 0; kind < STEP_KINDS; kind++) {
        out->touched += levels[kind].touched;
        out->l2 += levels[kind].l2;
        out->l3 += levels[kind].l3;
        out->memory += levels[kind].memory;
    }
    return DIL_OK;
}

static dil_status describe_plan(dil_plan *out, const forecast *f, dil_error *err)
{
    dil_plan own = {.weight_bytes = f->p.packed_bytes,
                    .expert_bytes = f->p.expert_bytes,
                    .kv_bytes = f->p.kv_bytes,
                    .activation_bytes = f->p.activation_bytes,
                    .total_bytes = f->p.total_bytes,
                    .experts_memory = f->p.experts_memory,
                    .n_threads = f->p.n_threads,
                    .n_context = f->p.context,
                    .n_micro_batch = f->micro_batch,
                    .prompt_rate = f->prompt_rate,
                    .generation_rate = f->first_rate,
                    .best_micro_batch = f->block,
                    .best_sequences = f->n_sequences};
    snprintf(own.prompt_bound, sizeof own.prompt_bound, "%s", predict_bound_name(f->prompt.bound));
    snprintf(own.generation_bound, sizeof own.generation_bound, "%s", predict_bound_name(f->first.bound));
    DIL_TRY(bytes_of_pass(&own.prompt_bytes, f, forecast_prompt_pass(f), err));
    DIL_TRY(bytes_of_pass(&own.generation_bytes, f, forecast_first_pass(f), err));
    give_struct(out, &own, sizeof own);
    return DIL_OK;
}

dil_status dil_plan_make(const char *path, const dil_engine_options *options, const dil_workload *workload, dil_plan *out,
                         dil_error *err)
{
    engine_options eo;
    dil_workload w;
    DIL_TRY(need(path, "dil_plan_make: path", err));
    DIL_TRY(need_struct(out, sizeof *out, "dil_plan", err));
    DIL_TRY(take_engine_options(&eo, options, err));
    DIL_TRY(take_workload(&w, workload, 1, err));
    forecast *f = mem_calloc(1, sizeof *f, MEM_MISC);
    if (!f)
        return DIL_FAIL(err, DIL_NO_MEMORY, "dil_plan_make: no memory");
    *f = (forecast){.path = path, .n_prompt = w.n_prompt, .n_gen = w.n_gen, .depth = w.depth, .n_parallel = w.n_parallel};
    dil_status status = forecast_make(f, &eo, err);
    if (status == DIL_OK)
        status = describe_plan(out, f, err);
    forecast_free(f);
    mem_free(f);
    return status;
}

static void give_tuned(dil_tuned *out, const search_result *r, const char *kept)
{
    dil_tuned own = {.changed = r->changed,
                     .prompt_gain = r->changed && r->prompt_gain > 0 ? r->prompt_gain : 1,
                     .generation_gain = r->changed && r->gen_gain > 0 ? r->gen_gain : 1,
                     .n_trials = r->n_trials,
                     .seconds = r->seconds};
    for (int32_t i = 0; i < r->n_trials; i++)
        own.n_kept += r->trials[i].kept;
    snprintf(own.profile_path, sizeof own.profile_path, "%s", kept);
    give_struct(out, &own, sizeof own);
}

dil_status dil_tune(const char *path, const dil_engine_options *options, const dil_workload *workload, double seconds,
                    dil_tuned *out, dil_error *err)
{
    engine_options eo;
    dil_workload w;
    char kept[sizeof out->profile_path];
    DIL_TRY(need(path, "dil_tune: path", err));
    DIL_TRY(need_struct(out, sizeof *out, "dil_tuned", err));
    DIL_TRY(take_engine_options(&eo, options, err));
    DIL_TRY(take_workload(&w, workload, 1, err));
    if (!(seconds > 0) || !(seconds <= 86400))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_tune: seconds: wanted more than 0, at most 86400, found %g", seconds);
    const search_options so = {.n_prompt = w.n_prompt,
                               .n_gen = w.n_gen,
                               .depth = w.depth,
                               .n_parallel = w.n_parallel,
                               .seconds = seconds,
                               .progress = eo.progress,
                               .user = eo.user};
    search_result *r = mem_calloc(1, sizeof *r, MEM_MISC);
    dil_status status =
        r ? search_file(r, path, &eo, &so, kept, sizeof kept, err) : DIL_FAIL(err, DIL_NO_MEMORY, "dil_tune: no memory");
    if (status == DIL_OK)
        give_tuned(out, r, kept);
    mem_free(r);
    return status;
}

/* ---- measured ---- */

typedef struct measuring {
    engine *e;
    int32_t n_runs;
    dil_progress_fn progress;
    void *user;
    bench_result r; /* of the last test */
} measuring;

static dil_status run_test(measuring *m, bench_test test, double *rate, double *deviation, dil_error *err)
{
    if (test.n_prompt + test.n_gen == 0)
        return DIL_OK;
    DIL_TRY(bench_run(m->e, &test, m->n_runs, NULL, m->progress, m->user, &m->r, err));
    *rate = m->r.median;
    *deviation = m->r.deviation;
    return DIL_OK;
}

dil_status dil_bench(dil_engine *e, const dil_workload *workload, int32_t n_runs, dil_progress_fn progress, void *user,
                     dil_speed *out, dil_error *err)
{
    dil_workload w;
    dil_speed own = {0};
    DIL_TRY(need(e, "dil_bench: engine", err));
    DIL_TRY(need_struct(out, sizeof *out, "dil_speed", err));
    DIL_TRY(take_workload(&w, workload, 0, err));
    if (n_runs < 1 || n_runs > BENCH_MAX_RUNS)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_bench: n_runs: wanted 1..%d, found %d", BENCH_MAX_RUNS, n_runs);
    measuring *m = mem_calloc(1, sizeof *m, MEM_MISC);
    if (!m)
        return DIL_FAIL(err, DIL_NO_MEMORY, "dil_bench: no memory");
    *m = (measuring){.e = (engine *)(uintptr_t)e, .n_runs = n_runs, .progress = progress, .user = user};
    dil_status status = run_test(m, (bench_test){w.n_prompt, 0, w.depth, 1}, &own.prompt_rate, &own.prompt_deviation, err);
    if (status == DIL_OK)
        status = run_test(m, (bench_test){0, w.n_gen, w.depth, w.n_parallel}, &own.generation_rate, &own.generation_deviation, err);
    own.bytes_per_token = w.n_gen > 0 ? m->r.bytes_per_token : 0;
    mem_free(m);
    if (status == DIL_OK)
        give_struct(out, &own, sizeof own);
    return status;
}
