/* How often each expert of each layer was chosen in several router logs, and how far apart the logs are in that. */
#ifndef VIEW_SHARES_H
#define VIEW_SHARES_H

#include <stdint.h>

#include "experts/trace.h"
#include "view/view.h"

typedef struct shares_layer {
    uint32_t layer, n_experts;
    double *share;     /* [n_logs][n_experts]: of the log's choices in this layer; they add up to 1 */
    uint32_t *order;   /* [n_experts]: experts that the first log takes more often first; with three or more logs those that a
                        log takes most often stand together, with one log the most used come first */
    double divergence; /* Jensen-Shannon divergence of two logs, the mean over all pairs: 0 (alike) .. 1 bit */
    double by_chance;  /* what two samples of the same distribution would show: nothing below means anything */
} shares_layer;

typedef struct shares {
    char *model;
    uint32_t n_layers, n_used;
    int n_logs;
    uint64_t n_tokens[VIEW_MOST_INPUTS];
    shares_layer *layers; /* [n_layers]: those with experts */
} shares;

/* Logs of models of the same shape; others are FORMAT. {0} is empty. [out: owned: free with shares_free] */
DIL_MUST_CHECK dil_status shares_read(shares *out, const char *const *paths, int n, dil_error *err);
void shares_free(shares *s);

/* Of two distributions over n, in bits. */
double shares_divergence(const double *p, const double *q, uint32_t n);

#endif
