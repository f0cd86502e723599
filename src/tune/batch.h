/* How much to do at once: tokens of a prompt per pass, sequences that generate together. From predictions alone. */
#ifndef TUNE_BATCH_H
#define TUNE_BATCH_H

#include "tune/predict.h"

#define BATCH_POINTS 7

typedef struct batch_point {
    int32_t n;          /* tokens per pass, or sequences */
    double total, each; /* tokens per second of all, of one */
} batch_point;

/* Passes of 16, 32, ..., 1024 tokens of a prompt of n_tokens; returns the smallest within a hundredth of the fastest. */
int32_t batch_block(const predictor *p, int32_t n_tokens, int32_t depth, batch_point points[BATCH_POINTS]);

/* 1, 2, ..., 64 sequences; returns how many give most tokens of all that leave at least least_each tokens per second to each, 0: none. */
int32_t batch_sequences(const predictor *p, int32_t depth, double least_each, batch_point points[BATCH_POINTS]);

#endif
