/*
 * Best responses within a group of one row: codes that share a scale, then the scale itself, everything else at rest. Where codes come in
 * words, the words of a unit answer together, with the best of all there are. Functions of small
 * arrays; what lies around them is round.h's.
 */
#ifndef QUANTIZE_RESPOND_H
#define QUANTIZE_RESPOND_H

#include "formats/codebook.h"

#define RESPOND_MOST_GROUP 256

/* How the cost curves along a group's scale and offset for its present codes, or along a super-block's d and m. */
typedef struct group_curve {
    float zhz, zhu, uhu; /* z: levels, u: ones; of a super-block with the groups' integers */
    bool known;
} group_curve;

/* The curvature of a unit of a code book, taken apart: e H e^T = sum weight[j] * r[j]^2, where r[j] is what remains of e[j] when
 * r[i] * share[i][j] is taken from it for each i < j. */
typedef struct unit_curve {
    float weight[CODEBOOK_MAX_UNIT], share[CODEBOOK_MAX_UNIT][CODEBOOK_MAX_UNIT];
} unit_curve;

/* h: n x n at the unit's columns, rows `stride` apart, positive definite. */
void unit_curve_of(const float *h, size_t stride, int n, unit_curve *out);

/* The unit's best codes for its values x and half gradients [unit], the scale at rest; codes [unit]: the present ones, of a group whose
 * shift is the group's they keep it. Whether they became others. */
bool unit_respond(const grid *g, const unit_curve *c, float scale, const float *x, const float *grad, uint8_t *code);

/* A group and its part of the row. */
typedef struct group_player {
    const grid *g;
    const grid_borders *borders;
    grid_block *b;
    int group;      /* of the block */
    const float *h; /* the curvature of its columns, rows `stride` apart */
    size_t stride;
    const float *inverse_own; /* 1 / h_jj */
    const unit_curve *units;  /* of the group's units; NULL: no code book */
    float *x, *grad;          /* [group]: values, half the gradients of the cost */
    group_curve *curve;
} group_player;

/* Codes answer in order, then scale and offset move to what is best for them. curious: other scales are tried too, each with the answers of
 * the codes. Returns how many moved. */
int64_t group_respond(const group_player *p, bool curious);

/* The f16 numbers of a super-block: least squares for its integers and codes, taken when the cost falls. h, stride as above; x, grad
 * [block]. curve: may be known from an earlier call with the same codes and integers. true: x became other values. */
bool super_respond(const grid *g, grid_block *b, const float *h_block, size_t stride, float *x, const float *grad,
                   group_curve *curve);

#endif
