/*
 * In what direction errors of a matrix's rows hurt: H = sum of x x^T over the inputs x it met, so that an error e of a row costs e H e^T.
 * Owns H in the forms that rounding needs. One metric serves every matrix that reads the same inputs.
 */
#ifndef QUANTIZE_METRIC_H
#define QUANTIZE_METRIC_H

#include "base/threads.h"
#include "dilmodeli.h"
#include "train/product.h"

#define METRIC_DAMPING 0.01f /* what calibrated rounding uses */

typedef struct metric {
    int n;
    product_kind kind;  /* always f32 */
    float *h;           /* [n][n], damped */
    float *inverse_own; /* [n]: 1 / h_jj, 0 where that is 0 */
    uint32_t *product;  /* h as a right operand */
    float *importance; /* [n]: what an error of a column costs when the columns after it may make up for it: 1 / inverse factor^2 */
    float *feedback;   /* [n][n], unit upper triangular: an error of column j, times row j, is taken from the columns after it */
    uint32_t *feed;    /* -feedback as a right operand */
    float damping;     /* what was added to the diagonal */
} metric;

/*
 * h [n][n], symmetric, is read only. damping: share of the mean of its diagonal that is added to it, raised tenfold until H can be factored.
 * FORMAT: H is not finite or its diagonal is negative. k and workers are borrowed. [owned: free with metric_free]
 */
DIL_MUST_CHECK dil_status metric_new(metric **out, const float *h, int n, float damping, const kernels *k, team *workers,
                                     dil_error *err);
void metric_free(metric *m);

#endif
