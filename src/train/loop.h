/* A training run from its config to its last checkpoint: vocabulary, corpora, steps, evaluation, log, checkpoints. */
#ifndef TRAIN_LOOP_H
#define TRAIN_LOOP_H

#include "train/config.h"

/* Routing of a held-out part: means over the layers. 0 without experts. */
typedef struct train_routing {
    double hits_quarter, hits_twice; /* hit rates of an LRU cache per layer of a quarter of the experts, of twice those used */
    double belady_quarter;           /* of the best cache possible */
    double distinct;                 /* experts used by 16 tokens in a row */
    double inside;                   /* P(a token's set lies within the last token's experts and their flocks of 7) */
    double exploitability;           /* mean KL to the equilibrium the prices and the recent past make */
    double agreement;                /* of the chosen with and without prices */
    double entropy;
    double violation; /* MaxVio over the whole part, the worst layer's */
} train_routing;

/* One line of the log, in the order of its columns. */
typedef struct train_progress {
    uint64_t step, n_steps, tokens;
    double seconds, tokens_per_second, seconds_left, gflops; /* of training steps, evaluation and saving left out */
    double lr, gradient_norm;
    net_result result;
    bool evaluated;
    double held_out[CORPUS_MOST_SOURCES]; /* bits per byte, where evaluated */
    train_routing routing[CORPUS_MOST_SOURCES];
} train_progress;

typedef struct train_options {
    bool resume;         /* from the run's checkpoint; else an existing checkpoint is an error */
    uint64_t stop_after; /* steps of this call; 0: until the end. A checkpoint is written when it stops. */
    const char *cpu;     /* kernel level, NULL: auto */
    int n_threads;
    void (*prepared)(void *user, const train_config *c, const net *n); /* before the first step; may be NULL; both borrowed */
    bool (*step)(void *user, const train_progress *p);                 /* false: save and stop (CANCELLED) */
    dil_progress_fn progress;                                          /* of vocabulary and tokenising */
    void *user;
} train_options;

/* Files in config.output: vocabulary.gguf, tokens-*.bin, metrics.csv, checkpoint.bin. */
DIL_MUST_CHECK dil_status train_run(const train_config *c, const train_options *o, dil_error *err);

#endif
