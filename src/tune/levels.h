/*
 * Where the operands of each step of a pass come from, by LRU stack distance: all that the steps touch, in the order of the plan, in
 * passes that follow each other. What a step finds in a level is what was touched last within that level's size.
 */
#ifndef TUNE_LEVELS_H
#define TUNE_LEVELS_H

#include "tune/cache_model.h"
#include "tune/predict.h"

/* Bytes of a step of one pass; of all steps of the kind together. */
typedef struct level_bytes {
    double touched;        /* every byte once per step */
    double l2, l3, memory; /* where they come from; shares of a level that is not there belong to the next */
} level_bytes;

/* Shared levels count as one cache; what every core has for itself, as often as threads use it. LIMIT, NO_MEMORY: of the trace. */
DIL_MUST_CHECK dil_status levels_of_pass(level_bytes out[STEP_KINDS], const predictor *p, const predict_pass *pass, dil_error *err);

#endif
