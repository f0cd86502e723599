/* Everything a run needs to go on to the bit, in one file with magic, version and checksum that appears when it is complete. */
#ifndef TRAIN_CHECKPOINT_H
#define TRAIN_CHECKPOINT_H

#include "train/config.h"
#include "train/net.h"
#include "train/optimiser.h"

/* What stands beside the arrays. */
typedef struct checkpoint_state {
    uint64_t step;      /* steps done */
    uint64_t tokens;    /* tokens seen */
    double seconds;     /* of training so far */
    uint64_t log_bytes; /* length of the metrics log at that moment: a resumed run cuts it there */
    uint32_t texts;     /* corpus_fingerprint; 0: not known */
    char level[24];     /* kernel level and kind of products the run was computed with: others round differently */
} checkpoint_state;

/* The config is written too (its JSON text), so that export needs no other file. */
DIL_MUST_CHECK dil_status checkpoint_save(const char *path, const train_config *config, const checkpoint_state *state, net *n,
                                          optimiser *o, dil_error *err);
/* Header only: config and state. */
DIL_MUST_CHECK dil_status checkpoint_open(const char *path, train_config *config, checkpoint_state *state, dil_error *err);
/* Values, prices and moments into a net (and, unless NULL, an optimiser) of the same shape, checked. The net is refreshed. */
DIL_MUST_CHECK dil_status checkpoint_load(const char *path, net *n, optimiser *o, dil_error *err);

#endif
