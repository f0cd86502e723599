#include "tune/forecast.h"

#include "base/status.h"

predict_pass forecast_prompt_pass(const forecast *f)
{
    return (predict_pass){f->n_prompt < f->micro_batch ? f->n_prompt : f->micro_batch, 1, f->depth, 1};
}

predict_pass forecast_first_pass(const forecast *f)
{
    return (predict_pass){1, f->n_parallel, f->depth + f->n_gen / 2, f->n_parallel};
}

static void find_speed(forecast *f)
{
    const int32_t end = f->p.context - 1;
    const predict_pass prompt = forecast_prompt_pass(f), first = forecast_first_pass(f);
    f->prompt_rate = predict_prompt(&f->by, f->n_prompt, f->micro_batch, f->depth);
    f->first_rate = predict_generation(&f->by, f->n_gen, f->n_parallel, f->depth);
    f->last_rate = predict_generation(&f->by, 1, 1, end);
    predict_run(&f->prompt, &f->by, &prompt);
    predict_run(&f->first, &f->by, &first);
    predict_run(&f->last, &f->by, &(predict_pass){1, 1, end, 1});
    f->block = batch_block(&f->by, f->n_prompt, f->depth, f->blocks);
    f->n_sequences = batch_sequences(&f->by, f->depth, f->least_each, f->sequences);
}

static dil_status open_ground(forecast_ground *g, const char *path, const engine_options *eo, dil_error *err)
{
    DIL_TRY(kernels_select(&g->k, eo->cpu ? eo->cpu : "auto", err));
    DIL_TRY(machine_topology(&g->m, NULL, err));
    DIL_TRY(machine_facts_get(&g->facts, g->m, &g->k, 0, FACTS_OF_QUIET, eo->progress, eo->user, err));
    return model_open(&g->read, path, &(model_options){.header_only = true, .no_vocab = true}, err);
}

dil_status forecast_make(forecast *f, const engine_options *eo, dil_error *err)
{
    f->ground = (forecast_ground){0};
    DIL_TRY(engine_plan_file(&f->p, f->path, eo, err)); /* before the process takes memory for other things */
    DIL_TRY(open_ground(&f->ground, f->path, eo, err));
    f->micro_batch = f->p.micro_batch;
    f->by = (predictor){.m = f->ground.read,
                        .k = &f->ground.k,
                        .machine = f->ground.m,
                        .facts = &f->ground.facts,
                        .n_threads = f->p.n_threads,
                        .type_k = eo->type_k,
                        .type_v = eo->type_v};
    const predict_pass first = forecast_first_pass(f);
    DIL_TRY(predict_now(&f->by, &first, err));
    find_speed(f);
    return DIL_OK;
}

void forecast_free(forecast *f)
{
    model_close(f->ground.read);
    machine_free(f->ground.m);
    f->ground.read = NULL;
    f->ground.m = NULL;
}
