/* What the files of a run share: everything it holds, and its parts in the order they happen. */
#ifndef TRAIN_LOOP_INTERNAL_H
#define TRAIN_LOOP_INTERNAL_H

#include "train/checkpoint.h"
#include "train/log.h"
#include "train/loop.h"

typedef struct run {
    train_config c; /* with n_vocab and the recency of the loss filled in */
    const train_options *o;
    kernels k;
    team *workers;
    vocab *v;
    corpus *texts;
    net *n;
    optimiser *opt;
    metrics *log;
    checkpoint_state state;
    int n_pass;            /* sequences of a pass */
    int32_t *tokens;       /* [c.n_sequences][n_context + 1] of a step; at least n_pass sequences in an evaluation */
    float *nats;           /* [n_pass * n_context] of an evaluation */
    uint32_t *token_bytes; /* [n_vocab]: bytes of text a token stands for */
    uint64_t counts[NET_MAX_LAYERS * NET_MAX_EXPERTS]; /* of choices in an evaluation */
    net_result pass;                                   /* of one pass, while those of a step are added up in progress.result */
    train_progress progress;                           /* of the last step */
} run;

#define RUN_PATH_BYTES (1024 + 64)
void run_path(const run *r, const char *name, char out[RUN_PATH_BYTES]); /* of a file in the run's directory */

/* Everything up to the first step, from a checkpoint if the options say so. What was made is freed by run_close. */
DIL_MUST_CHECK dil_status run_open(run *r, dil_error *err);
void run_close(run *r);
/* output/vocabulary.gguf, made unless the run goes on, and r->v from it. */
DIL_MUST_CHECK dil_status run_vocabulary(run *r, dil_error *err);

/* One step of the optimiser; fills r->progress but for the evaluation. FORMAT: loss or gradient are not finite (nothing has changed then). */
DIL_MUST_CHECK dil_status run_step(run *r, dil_error *err);
/* Bits per byte of the held-out parts into r->progress, NAN where a part is shorter than a sequence; and measures of their routing. */
DIL_MUST_CHECK dil_status run_evaluate(run *r, dil_error *err);
/* Log and checkpoint, in this order: a checkpoint never counts on lines that are not there. */
DIL_MUST_CHECK dil_status run_save(run *r, dil_error *err);

#endif
