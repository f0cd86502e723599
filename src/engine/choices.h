/* What a text chooses: a mixture of experts is run over it, and each token's experts are handed over, one token after the other. */
#ifndef ENGINE_CHOICES_H
#define ENGINE_CHOICES_H

#include "engine/engine.h"

#define CHOICES_ROWS 64 /* tokens of a pass over the weights: batches change no choice */

/* chosen, weights [n_layer][n_used] of one token; those of dense layers mean nothing. Another status than OK ends the run. */
typedef dil_status (*choices_fn)(void *ctx, const uint16_t *chosen, const float *weights, dil_error *err);

typedef struct choices {
    const model *m;
    uint32_t last_moe;
    uint16_t *chosen; /* [n_layer][CHOICES_ROWS][n_used], then one token's [n_layer][n_used] */
    float *weights;   /* the same */
    choices_fn each;
    void *ctx;
    dil_status status;
    dil_error err;
} choices;

/* Engines opened with these options tell c, which outlives them. */
void choices_listen(choices *c, engine_options *o);
/* The tokens in pieces of a context each. BAD_ARGUMENT: the model is dense, or there are no tokens; CANCELLED: progress (may be NULL) said so. */
DIL_MUST_CHECK dil_status choices_run(choices *c, engine *e, const token_list *tokens, choices_fn each, void *ctx,
                                      dil_progress_fn progress, void *user, dil_error *err);

#endif
