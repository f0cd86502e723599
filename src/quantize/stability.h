/*
 * Who could still do better alone: the Nash gap of a rounded row, counted. Every player is tried with the exact change of the cost, from
 * fresh gradients; a gain below GAIN of the row's cost is none, gradients in f32 know no better.
 */
#ifndef QUANTIZE_STABILITY_H
#define QUANTIZE_STABILITY_H

#include "quantize/metric.h"
#include "quantize/respond.h"

#define STABILITY_GAIN 1e-5

/* Codes (units of a code book count once) and stored scales, minimums and shifts; those of them with a better answer: codes with any other
 * code or word, scales with the next number that can be stored, up or down. */
typedef struct stability {
    int64_t codes, restless_codes, scales, restless_scales;
} stability;

/* A row at rest. grad: [m->n] half the gradients of its cost. units: [m->n / unit], NULL without a code book. */
typedef struct stability_row {
    const grid *g;
    const grid_block *blocks;
    const metric *m;
    const unit_curve *units;
    const float *grad;
    double cost;
} stability_row;

void stability_add(const stability_row *r, stability *sum);
void stability_sum(stability *to, const stability *more);

#endif
