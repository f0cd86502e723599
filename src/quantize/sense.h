/*
 * What each format of each matrix would cost the model, in nats of divergence per token, were it the only one quantized: half the mean over
 * tokens of (gradient . error of the outputs)^2, with the errors of error-feedback rounding. Owns this estimate.
 */
#ifndef QUANTIZE_SENSE_H
#define QUANTIZE_SENSE_H

#include "quantize/metric.h"
#include "quantize/players.h"
#include "quantize/walk.h"

typedef struct sense {
    walk *w;
    const walk_fisher *f;
    const kernels *k;
    team *workers;
    float damping; /* of the metrics: metric_new */
    float **squares,
        **counts;             /* [players]: sums of squared inputs [n][columns] and their numbers [n], added to; NULL: not wanted */
    dil_progress_fn progress; /* in layers; may be NULL */
    void *user;
} sense;

/* Token weights of the looks at a layer's stage: one per place, or one for all experts. Returns how many; weights point into f. */
int sense_weights(const walk *w, const walk_fisher *f, int layer, walk_stage stage, const float *weights[WALK_MOST_LOOKS]);
/* Which of those looks is a place's. */
int sense_look_of(const walk *w, net_place place);

/* Room for the looks at any stage: walk_look's h. NULL: no memory. [owned: mem_free] */
float *sense_room(const walk *w);

/* The float model forward: costs of all choices of p, and head [n_embd][n_embd], what the output matrix reads (weighted by f->head_token). */
DIL_MUST_CHECK dil_status sense_costs(const sense *s, players *p, float *head, dil_error *err);

/* In place: head, of the output matrix, becomes that of the embedding which it also is. */
void sense_tied(const walk_fisher *f, int n_vocab, int n_embd, float *head);

#endif
