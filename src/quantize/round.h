/*
 * Rounding one matrix to a stock format as a game: every code and every scale is a player, and all pay the same cost, the error of the
 * matrix's outputs over the inputs it met (docs/THEOREM.md). Owns the error-feedback pass that starts it and the best responses
 * that settle it; the curvature is metric.h's, the format's parts are those of formats/grid.h.
 */
#ifndef QUANTIZE_ROUND_H
#define QUANTIZE_ROUND_H

#include "formats/grid.h"
#include "quantize/metric.h"
#include "quantize/stability.h"

#define ROUND_SWEEPS 60     /* usual limits: the equilibrium comes long before, */
#define ROUND_SWEEPS_FAST 2 /* and most of what it gains */

typedef struct round_task {
    dil_type type; /* with a grid */
    int rows, columns;
    const float *w;          /* [rows][columns]: what is to be approximated; columns = m->n, a multiple of the block */
    const float *row_weight; /* [rows]: how much a row's error counts in the report's sums; NULL: 1 */
    const metric *m;
    int most_sweeps;  /* of best response; 0: feedback only */
    bool no_feedback; /* start from plain rounding */
} round_task;

/* Costs are sums over the rows of weight * e H e^T. */
typedef struct round_report {
    double plain, fed, cost; /* of the format's own encoder, after feedback, at the end */
    double power;            /* of w itself: cost / power is relative */
    int64_t n_codes, moved;  /* codes of the matrix; changed in the last sweep */
    int n_sweeps;
    stability checked; /* of some rows, at the end */
} round_report;

void round_report_add(round_report *sum, const round_report *r);

/* out: [rows] rows of the format; NULL: only the report's costs after feedback and at the end are wanted, and plain and power stay 0.
 * Equal bytes and costs for any number of workers. */
DIL_MUST_CHECK dil_status round_matrix(const round_task *t, team *workers, uint8_t *out, round_report *report, dil_error *err);

#endif
