/* What a model will take and how fast it will be, before anything of it but the header is read: memory, speed, how much to do at once. */
#ifndef TUNE_FORECAST_H
#define TUNE_FORECAST_H

#include "engine/engine.h"
#include "tune/batch.h"
#include "tune/levels.h"

/* What predictions stand on; kept for those who want to predict more. */
typedef struct forecast_ground {
    kernels k;
    machine *m;
    machine_facts facts;
    model *read; /* its header */
} forecast_ground;

typedef struct forecast {
    /* asked for */
    const char *path; /* [borrowed] */
    int32_t n_prompt, n_gen, depth,
        n_parallel;    /* tokens of a prompt, then generated; before them; sequences at once: 1 or more but depth */
    double least_each; /* tokens per second every one of some sequences must keep; 0: not asked */
    /* found */
    engine_plan p;
    int32_t micro_batch;
    double prompt_rate, first_rate, last_rate; /* tokens per second; the last one with a full context */
    prediction prompt, first, last;            /* passes of these */
    int32_t block, n_sequences;                /* see tune/batch.h */
    batch_point blocks[BATCH_POINTS], sequences[BATCH_POINTS];
    predictor by;
    forecast_ground ground;
} forecast;

/* Fills what is found for the engine that eo describes. The machine's facts are measured when nobody has yet (eo->progress). What has
 * just been found out is freed with forecast_free, after a failure too. */
DIL_MUST_CHECK dil_status forecast_make(forecast *f, const engine_options *eo, dil_error *err);
void forecast_free(forecast *f);

/* The passes of prompt and first. */
predict_pass forecast_prompt_pass(const forecast *f);
predict_pass forecast_first_pass(const forecast *f);

#endif
