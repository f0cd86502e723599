#include "evaluate/statistics.h"

#include <math.h>
#include <stdlib.h>

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void statistics_sort(double *values, int32_t n) { qsort(values, (size_t)n, sizeof *values, ascending); }

/*
 * The number of values below the median is binomial(n, 1/2): [x(k), x(n-1-k)], counted from 0, misses it with probability
 * 2 P(B <= k). The largest such k that misses at most 5 % is taken.
 */
median_interval statistics_median(double *values, int32_t n)
{
    statistics_sort(values, n);
    double term = exp2(-(double)n), below = term, missed = 2 * below; /* P(B = 0) */
    int32_t k = 0;
    while (k + 1 < (n + 1) / 2) {
        term *= (double)(n - k) / (double)(k + 1); /* P(B = k + 1) */
        if (2 * (below + term) > 0.05)
            break;
        below += term;
        missed = 2 * below;
        k++;
    }
    double middle = n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
    return (median_interval){middle, values[k], values[n - 1 - k], 1.0 - missed};
}
