/*
 * What the routing of one layer over a batch is worth to a machine that keeps only some experts at hand, and what it costs the
 * router: caches replayed over the choices, candidates for reading ahead, the gap to equilibrium, the part the prices play.
 * Knows nothing of experts' bytes or of the network: scores and choices only.
 */
#ifndef TRAIN_LOCALITY_H
#define TRAIN_LOCALITY_H

#include "train/loss.h"

#define LOCALITY_MOST_CAPACITIES 8
#define LOCALITY_WINDOW 16

typedef struct locality_options {
    int capacities[LOCALITY_MOST_CAPACITIES]; /* experts a cache holds, at least 1 */
    int n_capacities;
    bool keep;         /* caches live on from sequence to sequence; false: each begins with an empty one */
    const float *rows; /* router rows [n_experts][n_embd], for flocks; NULL: an expert is its own flock */
    int n_embd;
    float recency, beta; /* as in loss_config, for the gap to equilibrium */
} locality_options;

typedef struct locality {
    /* Hit rates [n_capacities] of the choices one after the other as they are listed; a first use is a miss. Belady's cache, too,
     * must take in what is used. */
    double lru[LOCALITY_MOST_CAPACITIES], belady[LOCALITY_MOST_CAPACITIES];
    double distinct; /* mean number of experts used by 16 tokens in a row (whole windows side by side; shorter sequences whole) */
    double inside;   /* share of tokens, but first ones, whose whole set is among the last token's experts and their flocks of 7 */
    double recalled; /* share of these tokens' choices that are */
    double candidates;         /* mean number of experts in that union */
    double exploitability;     /* L_nash: mean KL(rho || softmax(z - price + beta h)) */
    double agreement;          /* mean share of the top-k by z - price that is in the top-k by z: 1 when the prices can go */
    double entropy, violation; /* as in loss_values */
} locality;

/* in->flock is not used. BAD_ARGUMENT: capacities, rows that are not finite. */
DIL_MUST_CHECK dil_status locality_measure(const loss_input *in, const locality_options *o, locality *out, dil_error *err);

#endif
