/* The few statistics that comparisons need. */
#ifndef EVALUATE_STATISTICS_H
#define EVALUATE_STATISTICS_H

#include <stdint.h>

/* A median with an interval from order statistics: no assumption on the distribution. coverage is the probability that the
 * interval holds the true median: at least 0.95 where n >= 6 values allow it, 1 - 2^(1-n) (all of them) below that. */
typedef struct median_interval {
    double median, low, high, coverage;
} median_interval;

void statistics_sort(double *values, int32_t n); /* ascending */
/* Sorts values. n >= 1. */
median_interval statistics_median(double *values, int32_t n);

#endif
