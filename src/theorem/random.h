/* A small generator for random orders and starts (SplitMix64, Steele, Lea and Flood 2014). */
#ifndef THEOREM_RANDOM_H
#define THEOREM_RANDOM_H

#include <math.h>
#include <stdint.h>

static inline uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* Above 0, below 1. */
static inline double random_share(uint64_t *state) { return ((double)(random_next(state) >> 11) + 0.5) * 0x1p-53; }

/* Normal with mean 0 and deviation 1 (Box and Muller 1958). */
static inline double random_normal(uint64_t *state)
{
    const double radius = sqrt(-2.0 * log(random_share(state)));
    return radius * cos(6.283185307179586 * random_share(state));
}

#endif
