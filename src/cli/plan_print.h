/* What dil plan found out, for people and for programs. */
#ifndef CLI_PLAN_PRINT_H
#define CLI_PLAN_PRINT_H

#include "tune/batch.h"
#include "tune/levels.h"
#include "tune/memory.h"

typedef struct forecast {
    engine_plan p;
    predictor by;
    const char *path;
    uint64_t limit; /* of memory */
    bool limit_given, fits;
    char advice[640];  /* where it does not fit: what would */
    double least_each; /* tokens per second every one of some sequences must keep; 0: not asked */
    int32_t n_prompt, n_gen, depth, n_parallel, micro_batch;
    double prompt_rate, first_rate, last_rate;
    prediction prompt, first, last; /* passes of these */
    int32_t block, n_sequences;     /* see tune/batch.h */
    batch_point blocks[BATCH_POINTS], sequences[BATCH_POINTS];
} forecast;

void plan_print(const forecast *f);
void plan_print_json(const forecast *f);
/* Step by step: where time and bytes go, and how much to do at once. */
DIL_MUST_CHECK dil_status plan_explain(const forecast *f, dil_error *err);

#endif
