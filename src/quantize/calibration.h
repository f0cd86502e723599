/*
 * What is known of a model from a text: which inputs its matrices meet, how much its answers depend on their outputs, what each format of each
 * matrix would cost. Owns these statistics and their file, which is llama.cpp's importance matrix (GGUF) with more tensors; files of
 * that kind, the older one too, are read where importance is enough.
 */
#ifndef QUANTIZE_CALIBRATION_H
#define QUANTIZE_CALIBRATION_H

#include "quantize/players.h"
#include "quantize/sense.h"
#include "quantize/work.h"

typedef struct calibration {
    int n_sequences, n_context;
    int32_t *tokens; /* [n_sequences][n_context] */
    char text[256];  /* name of the text */
    float **squares; /* [players] -> [n][columns]: sums of squared inputs; NULL: not seen */
    float **counts;  /* [players] -> [n]: how many inputs */
    int n_players;
    bool full; /* the following are there */
    walk_fisher fisher;
    float *head;     /* [n_embd][n_embd]: mean of what the output matrix reads */
    void *gradients; /* of a file, until calibration_attach */
    size_t gradients_bytes;
} calibration;

typedef struct calibration_options {
    const char *text_name;
    str text;
    int n_sequences, n_context; /* at most so many sequences: fewer when the text is shorter; LIMIT: not even one */
    int held;                   /* so many at the text's end are left out, but at most a quarter */
    team *workers;
    const kernels *k;
    work *work;               /* keeps what was found, so that a run can go on; may be NULL */
    dil_progress_fn progress; /* may be NULL */
    void *user;
} calibration_options;

/* Sequences of the text as the model wants them: tokens [*n_sequences][n_context]. [owned: mem_free] */
DIL_MUST_CHECK dil_status calibration_tokens(int32_t **tokens, int *n_sequences, const gguf *file, const calibration_options *o,
                                             dil_error *err);

/* Everything, with the walk w over `tokens` (taken over): costs go to the players' choices, which were offered. [owned: calibration_free] */
DIL_MUST_CHECK dil_status calibration_make(calibration *out, players *p, walk *w, int32_t *tokens, const calibration_options *o,
                                           dil_error *err);
void calibration_free(calibration *c);
/* Zero squares and counts for every player. */
DIL_MUST_CHECK dil_status calibration_room(calibration *c, const players *p, dil_error *err);

DIL_MUST_CHECK dil_status calibration_write(const calibration *c, const players *p, const char *path, dil_error *err);
/* FORMAT, BAD_ARGUMENT: not such a file, damaged, or of another model. Costs of a full one go to the players' choices. */
DIL_MUST_CHECK dil_status calibration_read(calibration *out, players *p, const char *path, dil_error *err);
/* Whether it is a full one, without reading it; false for what cannot be read. */
bool calibration_is_full(const char *path);
/* After reading a full one: its gradients, for a walk over its tokens. */
DIL_MUST_CHECK dil_status calibration_attach(calibration *c, walk *w, dil_error *err);

#endif
