/*
 * Tuned settings of a model on this machine: how its steps are cut, as dil tune measured it. Engines load them by themselves. Owns
 * the files $XDG_CACHE_HOME/dilmodeli/profiles/, one for each model, level of kernels and number of threads, in JSON with the evidence;
 * safe to delete at any time. A profile of another processor, build or state of the model's file is stale: it is not used, and that is told.
 */
#ifndef ENGINE_PROFILE_H
#define ENGINE_PROFILE_H

#include "compute/compute.h"

typedef struct profile {
    compute_tuning tuning;
    int32_t micro_batch; /* 0: as usual */
} profile;

/* What is tried of a setting, for people who ask why. */
typedef struct profile_trial {
    char what[64], test[32];
    double ratio, low, high; /* speed over that of the settings it was tried against: median and interval */
    double seconds;          /* predicted for a pass; 0: not predicted */
    int32_t rounds;
    bool kept;
} profile_trial;

typedef enum profile_state { PROFILE_NONE, PROFILE_USED, PROFILE_STALE } profile_state;

/* What a profile is for. */
typedef struct profile_key {
    const model *m;
    const kernels *k;
    int32_t n_threads;
} profile_key;

/* PROFILE_USED: out is filled. PROFILE_STALE: why says what changed. Damaged files count as none. */
profile_state profile_load(profile *out, const profile_key *key, char why[128]);
DIL_MUST_CHECK dil_status profile_save(const profile *p, const profile_key *key, const profile_trial *trials, int32_t n_trials,
                                       dil_error *err);
DIL_MUST_CHECK dil_status profile_path(char *out, size_t n, const profile_key *key, dil_error *err);

#endif
