/*
 * A symmetric matrix as L L^T, and the inverse of L, in double. Owns this factorisation and the damping that makes it possible; what the
 * factors mean is known to those who ask: metric.h, surgeon.h.
 */
#ifndef QUANTIZE_FACTOR_H
#define QUANTIZE_FACTOR_H

#include "base/threads.h"
#include "dilmodeli.h"

typedef struct factor {
    int n;
    double *l, *inverse; /* [n][n], lower triangles: H = L L^T, and L^-1; above the diagonal, inverse is 0 and l is not defined */
    double added;        /* to H's diagonal */
    team *workers;
    int band; /* at work */
} factor;

/* Room for n x n; workers are borrowed. false: no memory. [owned: free with factor_free] */
DIL_MUST_CHECK bool factor_new(factor *out, int n, team *workers);
void factor_free(factor *f);

/*
 * h [n][n], symmetric. reversed: with the order of rows and columns turned round. damping: share of the mean of its diagonal that is added
 * to it, raised tenfold until H can be factored. FORMAT: H is not finite, its diagonal is negative, or no damping is enough.
 */
DIL_MUST_CHECK dil_status factor_damped(factor *f, const float *h, bool reversed, float damping, dil_error *err);

#endif
