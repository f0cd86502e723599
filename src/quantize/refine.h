/*
 * The last step of making a model small: its scales and norms learn to give the float model's answers. Codes stay as they are, so does every
 * type. Owns the learning of those numbers, its resumption and the file it ends in.
 */
#ifndef QUANTIZE_REFINE_H
#define QUANTIZE_REFINE_H

#include "base/str.h"
#include "base/threads.h"
#include "kernels/kernels.h"
#include "quantize/work.h"

#define REFINE_STEPS 48 /* unless somebody knows better */

/* By whom and from what. Sequences in their order: the last ones judge (an eighth, 1 to 16), the others are learnt from. */
typedef struct refine_task {
    const int32_t *tokens;      /* [n_sequences][n_context] */
    int n_sequences, n_context; /* at least 2 */
    int n_steps;                /* at most, of about 1024 tokens; the text begins anew when it ends */
    team *workers;
    const kernels *k;
    work *work;               /* keeps what was learnt, so that a run can go on; may be NULL */
    dil_progress_fn progress; /* may be NULL */
    void *user;
} refine_task;

typedef struct refine_result {
    int n_train, n_judges; /* sequences */
    int n_steps, best;     /* steps taken; after which the judges were content most, 0: before all */
    double before, after;  /* divergence on the judges' sequences, nats per token; before: without refinement */
    uint64_t n_scales, n_norms;
} refine_result;

/*
 * in_path, made small of float_path, -> out_path: the same file with other scales and norms, or with the same bytes where the judges found
 * nothing better. UNSUPPORTED: an architecture the trainer does not know; FORMAT, BAD_ARGUMENT: not the
 * same model; LIMIT: fewer than 2 sequences; CANCELLED.
 */
DIL_MUST_CHECK dil_status refine_model(refine_result *out, const char *float_path, const char *in_path, const char *out_path,
                                       const refine_task *task, dil_error *err);

typedef struct refine_options {
    const char *text_name;
    str text;
    int n_sequences, n_context; /* of the text, at most */
    int n_steps, n_threads;
    bool resume; /* go on with what an interrupted run has left */
    dil_progress_fn progress;
    void *user;
} refine_options;

/* The same, alone, from a text. LIMIT: it is shorter than that. */
DIL_MUST_CHECK dil_status refine_file(refine_result *out, const char *float_path, const char *in_path, const char *out_path,
                                      const refine_options *o, dil_error *err);

#endif
