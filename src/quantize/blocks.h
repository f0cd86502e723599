/*
 * Blocks of 32 weights of a row set to zero where that costs least, the columns after them making up for it. Owns this choice; unlike a column
 * (surgeon.h), a block that is gone leaves a matrix as large as it was.
 */
#ifndef QUANTIZE_BLOCKS_H
#define QUANTIZE_BLOCKS_H

#include "quantize/metric.h"

#define BLOCK_COLUMNS 32

typedef struct blocks_task {
    float *w;                /* [rows][columns]: on success the chosen blocks are 0, later columns have taken over */
    const float *row_weight; /* [rows], >= 0; NULL: 1 */
    int rows, columns;       /* columns = m->n, a multiple of BLOCK_COLUMNS */
    const metric *m;
    int64_t n_remove; /* of rows * columns / BLOCK_COLUMNS */
    team *workers;
} blocks_task;

/* The cheapest ones, each judged as if it went alone; of two alike the one before. NO_MEMORY. Equal bits for any number of workers. */
DIL_MUST_CHECK dil_status blocks_remove(const blocks_task *t, dil_error *err);

#endif
