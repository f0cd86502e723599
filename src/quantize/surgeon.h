/*
 * Which columns of a matrix can go at least cost, and what the others become to make up for them: the optimal brain surgeon, structured.
 * Owns this choice; that a column is a neuron is known to prune_neurons.c.
 */
#ifndef QUANTIZE_SURGEON_H
#define QUANTIZE_SURGEON_H

#include "base/threads.h"
#include "dilmodeli.h"

typedef struct surgeon_task {
    float *w;                /* [rows][columns]: on success the removed columns are 0 and the others have taken over */
    const float *row_weight; /* [rows], >= 0; NULL: 1 */
    int rows, columns;
    const float *h; /* [columns][columns]: mean of x x^T over the inputs; an error e of a row costs weight e H e^T / 2 */
    float damping;  /* of h, as in factor.h: the more, the less the others change */
    int n_remove;   /* < columns */
    team *workers;
    int32_t *removed; /* [out] [n_remove]: columns in the order they went; of two alike the lower first */
    double *cost;     /* [out] [n_remove]: what all removed so far cost together */
} surgeon_task;

/* Column after column: the cheapest of those left, whose costs are what they are without the ones before. FORMAT: h, see factor.h.
 * Equal bits for any number of workers. */
DIL_MUST_CHECK dil_status surgeon_remove(const surgeon_task *t, dil_error *err);

#endif
