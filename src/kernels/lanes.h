/*
 * Sums in 16 lanes and an exponential in plain C, for the compiler to make vectors of: equal bits whatever their width. For the
 * trainer's kernels and for loops of train that no kernel is worth writing for.
 */
#ifndef KERNELS_LANES_H
#define KERNELS_LANES_H

#include <stdint.h>
#include <string.h>

#define LANES 16

/* Lanes in pairs, then pairs of pairs: the same for all. */
static inline float lanes_sum(float *lane)
{
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            lane[i] += lane[i + width];
    return lane[0];
}

/* exp(x) for x in [-87, 88], clamped outside, NaN for NaN: x = n ln 2 + r, a polynomial in r, n into the exponent. Error below
 * 3e-7. n + 1.5 * 2^23 is a float whose last bits are n. */
static inline float lanes_exp(float x)
{
    const float shift = 12582912.0f;
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float shifted = x * 1.44269504f + shift, n = shifted - shift;
    float r = x - n * 0x1.62e400p-1f - n * 0x1.7f7d1cp-20f;
    float p = 1.0f / 5040.0f;
    p = p * r + 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits - 0x4b400000u + 127u) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

static inline float lanes_dot(const float *x, const float *y, int64_t n)
{
    float lane[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            lane[j] += x[i + j] * y[i + j];
    for (int j = 0; i + j < n; j++)
        lane[j] += x[i + j] * y[i + j];
    return lanes_sum(lane);
}

#endif
