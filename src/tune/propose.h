/*
 * What might suit a model better than the usual tiles: the game of theorem.md, section 5. Players are the matrix steps of a layer,
 * strategies the tiles (panels x tokens of an item). A player pays the time its items take, from what kernels cost and where their
 * operands lie; neighbours in the layer's order pay for what one leaves to the next and the second level does not hold; and all pay
 * a price for the bytes of that level. Equilibria at some prices are the proposals: what they are worth is measured (search.h).
 */
#ifndef TUNE_PROPOSE_H
#define TUNE_PROPOSE_H

#include "tune/predict.h"

#define PROPOSE_STEPS 5 /* qkv, attn out, gate + up, down, experts */

typedef struct proposal {
    compute_tuning tuning; /* its tiles */
    double seconds;        /* of a layer's matrix steps, as the game sees them */
    double price;          /* seconds per byte of L2 */
} proposal;

/* Proposals for passes of n_tokens that differ from each other and from the usual tiles, the best first; returns how many, at most
 * `most`. *usual: the seconds of the usual tiles. */
int propose_tiles(const predictor *p, int32_t n_tokens, proposal *out, int most, double *usual);

#endif
