#include "tune/batch.h"

int32_t batch_block(const predictor *p, int32_t n_tokens, int32_t depth, batch_point points[BATCH_POINTS])
{
    double best = 0;
    for (int i = 0; i < BATCH_POINTS; i++) {
        const int32_t n = 16 << i;
        const double rate = predict_prompt(p, n_tokens, n, depth);
        points[i] = (batch_point){n, rate, rate};
        best = rate > best ? rate : best;
    }
    int i = 0;
    while (points[i].total < 0.99 * best)
        i++;
    return points[i].n;
}

int32_t batch_sequences(const predictor *p, int32_t depth, double least_each, batch_point points[BATCH_POINTS])
{
    int32_t chosen = 0;
    double best = 0;
    for (int i = 0; i < BATCH_POINTS; i++) {
        const int32_t n = 1 << i;
        const double rate = predict_generation(p, 1, n, depth);
        points[i] = (batch_point){n, rate, rate / n};
        if (rate / n >= least_each && rate > best) {
            best = rate;
            chosen = n;
        }
    }
    return chosen;
}
