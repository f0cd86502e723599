/*
 * Searches that encoders share: the scale, or scale and offset, that makes the weighted squared
 * error of rounding small. Pure functions over n values, n a multiple of 16 and at most
 * FORMATS_SUPER; weights are never NULL here (fit_weights makes them).
 */
#ifndef FORMATS_FIT_H
#define FORMATS_FIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The integers that a value may become, times a scale: all of lo..hi, or those of a code book whose
 * ends are lo and hi. gap: how far the second integer is from lo.
 */
typedef struct fit_levels {
    int lo, hi, gap;
    const int8_t *nearest; /* NULL: all; else [i] is the one nearest to lo + i / 2, the larger of two */
} fit_levels;

/* w[n] from importance[n], or ones when it is NULL or has no positive value. */
void fit_weights(const float *importance, size_t n, float *w);

/* Nearest integer of lo..hi; anything that compares with nothing (NaN) becomes lo. */
static inline int fit_round(float v, int lo, int hi)
{
    float t = v - (float)lo, top = (float)(hi - lo);
    t = t > 0.0f ? t : 0.0f;
    t = t < top ? t : top;
    return (int)(t + 0.5f) + lo;
}

/* Nearest integer of -limit..limit, halves away from zero, exact where t + 0.5 would not be. */
static inline int fit_round_away(float v, int limit)
{
    float magnitude = v < 0.0f ? -v : v;
    magnitude = magnitude < (float)limit ? magnitude : (float)limit; /* NaN too */
    int whole = (int)magnitude;
    whole += magnitude - (float)whole >= 0.5f;
    return v < 0.0f ? -whole : whole;
}

/* 1/d, or 0 where that is not finite: a scale of 0 rounds everything to 0. */
float fit_inverse(float d);

/* level[i] = the level nearest to x[i] * inverse. */
void fit_round_all(fit_levels levels, const float *x, size_t n, float inverse, int8_t *level);

/* Scale d (of either sign) and levels with small sum w (x - d level)^2; d = 0 when all x are 0. */
float fit_scale(fit_levels levels, const float *x, const float *w, size_t n, int8_t *level);

/*
 * Scale d >= 0 and minimum m with small sum w (x - (d level + m))^2, level in 0..hi.
 * m_at_most_0: the format stores -m as an unsigned number.
 */
float fit_affine(int hi, bool m_at_most_0, const float *x, const float *w, size_t n, float *m, uint8_t *level);

/* sum w (x - d level)^2 and sum w (x - (d level + m))^2 */
float fit_scale_error(const float *x, const float *w, size_t n, float d, const int8_t *level);
float fit_affine_error(const float *x, const float *w, size_t n, float d, float m, const uint8_t *level);

/*
 * Super-blocks of 256 values in sub-blocks of `sub` values with small integer scales. The f16
 * numbers chosen are stored at d_at (and dmin_at); importance may be NULL.
 */

/* w [256] from importance as fit_weights, but a sub-block without any gets a small share of the others', so that its own error still
 * decides its own levels. */
void fit_super_weights(const float *importance, int sub, float *w);

/* x ~ d scale[i / sub] level[i], scale in -half..half-1 */
void fit_super_scale(fit_levels levels, int sub, int half, const float *x, const float *importance, uint8_t *d_at, int8_t *scale,
                     int8_t *level);

/* x ~ d scale[i / sub] level[i] - dmin min[i / sub], scale and min in 0..top, level in 0..hi */
void fit_super_affine(int hi, int sub, int top, const float *x, const float *importance, uint8_t *d_at, uint8_t *dmin_at,
                      uint8_t *scale, uint8_t *min, uint8_t *level);

#endif
