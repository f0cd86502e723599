/*
 * Searches for scales within one block; see fit.h. The method: for levels chosen by rounding x
 * times some inverse scale, the best scale is a weighted least-squares solution, and it suggests a
 * better rounding. Several first guesses around "the largest value becomes the largest level" are
 * tried.
 */
#include "formats/fit.h"

#include <math.h>

#include "formats/codecs.h"

enum {
    GUESSES = 7, /* to either side */
    REFINEMENTS = 4,
    LANES = 8, /* partial sums, so that the compiler may use vectors */
};

static float sum_lanes(const float lane[LANES])
{
    return ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7]));
}

void fit_weights(const float *importance, size_t n, float *w)
{
    float sum = 0.0f;
    for (size_t i = 0; i < n; i++) {
        w[i] = importance && importance[i] > 0.0f ? importance[i] : 0.0f;
        sum += w[i];
    }
    if (sum > 0.0f)
        return;
    for (size_t i = 0; i < n; i++)
        w[i] = 1.0f;
}

float fit_inverse(float d)
{
    float inverse = d != 0.0f ? 1.0f / d : 0.0f;
    return isfinite(inverse) ? inverse : 0.0f;
}

void fit_round_all(fit_levels levels, const float *x, size_t n, float inverse, int8_t *level)
{
    if (!levels.nearest) {
        for (size_t i = 0; i < n; i++)
            level[i] = (int8_t)fit_round(x[i] * inverse, levels.lo, levels.hi);
        return;
    }
    float lo = (float)levels.lo, top = (float)(2 * (levels.hi - levels.lo));
    for (size_t i = 0; i < n; i++) {
        float halves = 2.0f * (x[i] * inverse - lo);
        halves = halves > 0.0f ? halves : 0.0f;
        halves = halves < top ? halves : top;
        level[i] = levels.nearest[(int)halves];
    }
}

/* The value of largest magnitude among those that matter. */
static float extreme_value(const float *x, const float *w, size_t n)
{
    float extreme = 0.0f;
    for (size_t i = 0; i < n; i++) {
        if (w[i] > 0.0f && fabsf(x[i]) > fabsf(extreme))
            extreme = x[i];
    }
    return extreme;
}

/*
 * For given levels the best scale is sxl / sll with sxl = sum w x l, sll = sum w l^2, and the error
 * is sum w x^2 - sxl^2 / sll: the larger the gain sxl^2 / sll the better.
 */
typedef struct scale_search {
    const float *x, *w;
    size_t n;
    fit_levels levels;
    float best_gain, scale;
    int8_t *level;
} scale_search;

static bool try_inverse(scale_search *s, float inverse)
{
    int8_t level[FORMATS_SUPER];
    float sxl_lane[LANES] = {0}, sll_lane[LANES] = {0};
    fit_round_all(s->levels, s->x, s->n, inverse, level);
    for (size_t i = 0; i < s->n; i += LANES) {
        for (size_t k = 0; k < LANES; k++) {
            float l = (float)level[i + k], wl = s->w[i + k] * l;
            sxl_lane[k] += wl * s->x[i + k];
            sll_lane[k] += wl * l;
        }
    }
    float sxl = sum_lanes(sxl_lane), sll = sum_lanes(sll_lane);
    if (!(sll > 0.0f) || !(sxl * sxl > s->best_gain * sll))
        return false;
    s->best_gain = sxl * sxl / sll;
    s->scale = sxl / sll;
    memcpy(s->level, level, s->n);
    return true;
}

float fit_scale(fit_levels levels, const float *x, const float *w, size_t n, int8_t *level)
{
    scale_search s = {x, w, n, levels, 0.0f, 0.0f, level};
    fit_round_all(levels, x, n, 0.0f, level);
    float extreme = extreme_value(x, w, n), unit = fit_inverse(extreme);
    if (unit == 0.0f)
        return 0.0f;
    /* How far past the end level a guess may map the extreme: one level to either side. */
    float gap = (float)levels.gap;
    bool few = levels.hi - levels.lo < 32 * levels.gap;
    for (int guess = -GUESSES; guess <= GUESSES; guess++) {
        float past = gap * (float)guess / (float)GUESSES;
        if (-(float)levels.lo + past > 0.25f * gap)
            try_inverse(&s, ((float)levels.lo - past) * unit);
        if (few && (float)levels.hi + past > 0.25f * gap)
            try_inverse(&s, ((float)levels.hi + past) * unit);
    }
    for (int k = 0; k < REFINEMENTS && try_inverse(&s, fit_inverse(s.scale)); k++)
        continue;
    return s.scale;
}

/* Levels for scale 1/inverse and minimum m. */
static void round_affine(const float *x, size_t n, float inverse, float m, int hi, uint8_t *level)
{
    for (size_t i = 0; i < n; i++)
        level[i] = (uint8_t)fit_round((x[i] - m) * inverse, 0, hi);
}

float fit_scale_error(const float *x, const float *w, size_t n, float d, const int8_t *level)
{
    float lane[LANES] = {0};
    for (size_t i = 0; i < n; i += LANES) {
        for (size_t k = 0; k < LANES; k++) {
            float difference = x[i + k] - d * (float)level[i + k];
            lane[k] += w[i + k] * difference * difference;
        }
    }
    return sum_lanes(lane);
}

float fit_affine_error(const float *x, const float *w, size_t n, float d, float m, const uint8_t *level)
{
    float lane[LANES] = {0};
    for (size_t i = 0; i < n; i += LANES) {
        for (size_t k = 0; k < LANES; k++) {
            float difference = x[i + k] - (d * (float)level[i + k] + m);
            lane[k] += w[i + k] * difference * difference;
        }
    }
    return sum_lanes(lane);
}

typedef struct affine_search {
    const float *x, *w;
    size_t n;
    int hi;
    bool m_at_most_0;
    float sum_w, sum_wx;
    float best_error, scale, m;
    uint8_t *level;
} affine_search;

/*
 * The least-squares line through (level, x); through 0 when m may not be positive or when the
 * levels are (nearly) all the same. False when there is no rising line.
 */
static bool solve_affine(const affine_search *s, const uint8_t *level, float *scale, float *m)
{
    float sl_lane[LANES] = {0}, sll_lane[LANES] = {0}, sxl_lane[LANES] = {0};
    for (size_t i = 0; i < s->n; i += LANES) {
        for (size_t k = 0; k < LANES; k++) {
            float l = (float)level[i + k], wl = s->w[i + k] * l;
            sl_lane[k] += wl;
            sll_lane[k] += wl * l;
            sxl_lane[k] += wl * s->x[i + k];
        }
    }
    float sl = sum_lanes(sl_lane), sll = sum_lanes(sll_lane), sxl = sum_lanes(sxl_lane);
    float determinant = s->sum_w * sll - sl * sl;
    if (!(sll > 0.0f))
        return false;
    *scale = sxl / sll;
    *m = 0.0f;
    if (determinant > 1e-6f * s->sum_w * sll) {
        float free_m = (sll * s->sum_wx - sl * sxl) / determinant;
        if (!s->m_at_most_0 || free_m <= 0.0f) {
            *scale = (s->sum_w * sxl - s->sum_wx * sl) / determinant;
            *m = free_m;
        }
    }
    return *scale > 0.0f;
}

static bool try_affine(affine_search *s, float inverse, float m)
{
    uint8_t level[FORMATS_SUPER];
    float scale;
    round_affine(s->x, s->n, inverse, m, s->hi, level);
    if (!solve_affine(s, level, &scale, &m))
        return false;
    float error = fit_affine_error(s->x, s->w, s->n, scale, m, level);
    if (!(error < s->best_error))
        return false;
    s->best_error = error;
    s->scale = scale;
    s->m = m;
    memcpy(s->level, level, s->n);
    return true;
}

/* Lowest and highest value among those that matter. */
static void extent(const float *x, const float *w, size_t n, float *lowest, float *highest)
{
    *lowest = INFINITY;
    *highest = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        if (!(w[i] > 0.0f))
            continue;
        *lowest = x[i] < *lowest ? x[i] : *lowest;
        *highest = x[i] > *highest ? x[i] : *highest;
    }
}

float fit_affine(int hi, bool m_at_most_0, const float *x, const float *w, size_t n, float *m, uint8_t *level)
{
    affine_search s = {.x = x, .w = w, .n = n, .hi = hi, .m_at_most_0 = m_at_most_0, .level = level};
    float lowest, highest;
    extent(x, w, n, &lowest, &highest);
    if (m_at_most_0 && lowest > 0.0f)
        lowest = 0.0f;
    memset(level, 0, n);
    for (size_t i = 0; i < n; i++) {
        s.sum_w += w[i];
        s.sum_wx += w[i] * x[i];
    }
    float unit = fit_inverse(highest - lowest);
    *m = lowest;
    if (unit == 0.0f)
        return 0.0f;
    s.best_error = INFINITY;
    for (int guess = -GUESSES; guess <= GUESSES; guess++) {
        float past = (float)guess / (float)GUESSES;
        try_affine(&s, ((float)hi + past) * unit, lowest);
    }
    for (int k = 0; k < REFINEMENTS && try_affine(&s, fit_inverse(s.scale), s.m); k++)
        continue;
    if (s.scale > 0.0f)
        *m = s.m;
    return s.scale;
}
