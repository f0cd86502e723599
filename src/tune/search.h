/*
 * The settings that suit a model on this machine: what the game proposes and what is usual elsewhere is measured against what is best
 * so far, in turns, and kept where it is faster beyond doubt. Ends with the winner against the usual settings: what is not faster
 * there is dropped, so that tuning never makes a model slower.
 */
#ifndef TUNE_SEARCH_H
#define TUNE_SEARCH_H

#include "engine/engine.h"
#include "machine/facts.h"

#define SEARCH_TRIALS 64
#define SEARCH_MICRO_BATCH 1024 /* an engine that is searched on should be opened with as many */

typedef struct search_options {
    int32_t n_prompt, n_gen, depth, n_parallel; /* what is timed; n_prompt or n_gen 0: not */
    double seconds;                             /* at most, or about so */
    dil_progress_fn progress;                   /* may be NULL; cancels when it says false: what was found so far holds */
    void *user;
} search_options;

typedef struct search_result {
    profile best;
    bool changed;                 /* from the usual settings */
    double prompt_gain, gen_gain; /* speeds of the winner over those of the usual settings, in turns; 0: not timed */
    profile_trial trials[SEARCH_TRIALS];
    int32_t n_trials;
    double seconds;
} search_result;

DIL_MUST_CHECK dil_status search_run(search_result *out, engine *e, const machine *m, const machine_facts *facts,
                                     const search_options *o, dil_error *err);

/* Opens the model as eo says, but for what a search needs otherwise (context, sessions, no profile); searches and keeps what it found in
 * its profile, which *kept [n] names. */
DIL_MUST_CHECK dil_status search_file(search_result *out, const char *path, const engine_options *eo, const search_options *o,
                                      char *kept, size_t n, dil_error *err);

#endif
