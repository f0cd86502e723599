/*
 * Encoders of IQ1, IQ2 and IQ3. The scale of each group is searched with the best words of every scale tried; then d is set by the largest
 * of them, the integers next to the nearest are tried, and d is solved for again.
 */
#include <math.h>

#include "formats/codebook.h"
#include "formats/codecs.h"
#include "formats/fit.h"

enum { N = FORMATS_SUPER, MAX_GROUP = 32, POLISHES = 3 };

/* Scales tried first: those that give the largest value these shares of the largest level. */
static const float shares[] = {0.76f, 0.84f, 0.92f, 1.0f, 1.08f};
static const float shifted_shares[] = {0.8f, 1.0f, 1.2f, 1.4f,
                                       1.6f, 1.8f, 2.1f, 2.5f}; /* the largest is cut: most are one magnitude */
#define UNWEIGHTED 1e-4f                                        /* of the mean weight */
#define FLAT 0.5f                                               /* mean square over largest square of values that are much alike */

/* A block in the making. */
typedef struct making {
    const grid *g;
    const float *x;
    float w[N];
    grid_block b;
} making;

static float choose_shifted(const making *m, int i, float scale, int shift, float bound, uint8_t *code)
{
    float sum = 0.0f;
    for (int end = i + m->g->group; i < end; i += m->g->book->unit, code += m->g->book->unit) {
        codebook_wish wish = {.target = m->x + i, .weight = m->w + i, .scale = scale, .bound = bound - sum, .shift = shift};
        float unit = codebook_nearest(m->g, &wish, code);
        if (!(unit < wish.bound)) /* no codes were chosen */
            return bound;
        sum += unit;
    }
    return sum;
}

/* Best codes of group values from i on; returns sum w (x - scale level)^2. When that is not below the bound: the bound or more, and some
 * codes are not chosen. */
static float choose_words(const making *m, int i, float scale, float bound, uint8_t *code)
{
    uint8_t other[MAX_GROUP];
    if (!codebook_group_shifts(m->g->book))
        return choose_shifted(m, i, scale, CODEBOOK_SHIFT_EITHER, bound, code);
    float down = choose_shifted(m, i, scale, CODEBOOK_SHIFT_DOWN, bound, code);
    float up = choose_shifted(m, i, scale, CODEBOOK_SHIFT_UP, down < bound ? down : bound, other);
    if (!(up < down))
        return down;
    memcpy(code, other, (size_t)m->g->group);
    return up;
}

/* Of unit_value [n], the least squares factor to the values from i on. */
static double best_factor(const making *m, int i, int n, const float *unit_value)
{
    double sxq = 0, sqq = 0;
    for (int j = 0; j < n; j++) {
        sxq += (double)m->w[i + j] * (double)m->x[i + j] * (double)unit_value[j];
        sqq += (double)m->w[i + j] * (double)unit_value[j] * (double)unit_value[j];
    }
    return sqq > 0 ? sxq / sqq : 0;
}

static float level_factor(const making *m, int i, const uint8_t *code)
{
    float level[MAX_GROUP];
    for (int j = 0; j < m->g->group; j++)
        level[j] = (float)m->g->level[code[j]];
    return (float)best_factor(m, i, m->g->group, level);
}

/* The best scale of a group so far. */
typedef struct scale_found {
    float scale, error;
} scale_found;

static void try_scale(const making *m, int i, float scale, scale_found *best)
{
    uint8_t code[MAX_GROUP];
    float error = choose_words(m, i, scale, best->error, code);
    if (error < best->error)
        *best = (scale_found){level_factor(m, i, code), error};
}

/* The group's best scale of those tried; 0: all values are 0, or not all finite. */
static float search_scale(const making *m, int i)
{
    const grid *g = m->g;
    const float top = (float)g->level[g->n_levels - 1];
    scale_found best = {0.0f, INFINITY};
    float largest = 0.0f, squares = 0.0f;
    for (int j = i; j < i + g->group; j++) {
        if (!(m->w[j] > 0.0f))
            continue;
        largest = fabsf(m->x[j]) > largest ? fabsf(m->x[j]) : largest;
        squares += m->x[j] * m->x[j];
    }
    if (!(largest > 0.0f && largest < INFINITY))
        return 0.0f;
    for (size_t k = 0; !g->book->shifted && k < sizeof shares / sizeof *shares; k++)
        try_scale(m, i, largest / (top * shares[k]), &best);
    for (size_t k = 0; g->book->shifted && k < sizeof shifted_shares / sizeof *shifted_shares; k++)
        try_scale(m, i, largest / (top * shifted_shares[k]), &best);
    bool flat =
        !g->book->shifted && squares > FLAT * largest * largest * (float)g->group; /* words with small levels may be like it */
    for (int k = g->book->n_magnitudes; flat && k < g->n_levels; k++)
        try_scale(m, i, largest / (float)g->level[k], &best);
    return best.scale;
}

/* Integer and codes of a group for the block's d; wanted: its scale. Returns the error. */
static float fit_group(making *m, int group, float wanted)
{
    const grid *g = m->g;
    const int i = group * g->group;
    uint8_t code[MAX_GROUP];
    float unit = m->b.d * g->unit, best_error = INFINITY;
    int middle = 2 * fit_round((wanted * fit_inverse(unit) - 1.0f) * 0.5f, 0, g->scale_hi / 2) + 1;
    m->b.scale[group] = (int8_t)middle;
    for (int step = 0; step < 3; step++) {
        int s = middle + (step == 0 ? 0 : step == 1 ? -2 : 2);
        if (s < g->scale_lo || s > g->scale_hi)
            continue;
        float error = choose_words(m, i, unit * (float)s, best_error, code);
        if (!(error < best_error))
            continue;
        best_error = error;
        m->b.scale[group] = (int8_t)s;
        memcpy(m->b.code + i, code, (size_t)g->group);
        m->b.min[group] = (uint8_t)(codebook_group_shifts(g->book) ? codebook_shift(code[0]) : 0);
    }
    return best_error;
}

static float fit_groups(making *m, const float *wanted)
{
    float error = 0.0f;
    for (int group = 0; group < N / m->g->group; group++)
        error += fit_group(m, group, wanted[group]);
    return error;
}

/* The d that is best for the block's integers and codes. */
static float best_d(const making *m)
{
    float value[N];
    for (int j = 0; j < N; j++)
        value[j] = m->g->unit * (float)m->b.scale[j / m->g->group] * (float)m->g->level[m->b.code[j]];
    return grid_storable(m->g, (float)best_factor(m, 0, N, value));
}

static void polish(making *m, float error)
{
    for (int k = 0; k < POLISHES; k++) {
        making other = *m;
        float wanted[N / 16];
        for (int group = 0; group < N / m->g->group; group++)
            wanted[group] = m->b.d * m->g->unit * (float)m->b.scale[group];
        other.b.d = best_d(m);
        float other_error = fit_groups(&other, wanted);
        if (!(other_error < error))
            return;
        *m = other;
        error = other_error;
    }
}

/* Values without weight beside others with weight: near what they were all the same. */
static void weigh_all(making *m)
{
    float mean = 0.0f;
    for (int j = 0; j < N; j++)
        mean += m->w[j] / (float)N;
    for (int j = 0; j < N; j++)
        m->w[j] = m->w[j] > 0.0f ? m->w[j] : UNWEIGHTED * mean;
}

static void encode_block(const grid *g, const float *x, const float *importance, uint8_t *block)
{
    making m = {.g = g, .x = x};
    float wanted[N / 16], largest = 0.0f;
    fit_super_weights(importance, g->group, m.w);
    for (int group = 0; group < N / g->group; group++) {
        wanted[group] = search_scale(&m, group * g->group);
        largest = wanted[group] > largest ? wanted[group] : largest;
        m.b.scale[group] = 1;
    }
    weigh_all(&m);
    for (int i = 0; i < N; i += g->book->width)
        codebook_read(g->book, 0, 0, m.b.code + i);
    memset(m.b.min, codebook_group_shifts(g->book) ? CODEBOOK_SHIFT_UP : 0, sizeof m.b.min); /* as in word 0 above */
    m.b.d = grid_storable(g, largest / ((float)g->scale_hi * g->unit));
    if (m.b.d > 0.0f)
        polish(&m, fit_groups(&m, wanted));
    g->write(&m.b, block);
}

static void encode(dil_type type, const float *x, uint8_t *dst, size_t n, const float *importance)
{
    const grid *g = grid_get(type);
    for (size_t i = 0; i < n; i += N, dst += format_get(type)->block_bytes)
        encode_block(g, x + i, importance_at(importance, i), dst);
}

FORMATS_ENCODE(iq1_s) { encode(DIL_TYPE_IQ1_S, src, dst, n, importance); }
FORMATS_ENCODE(iq1_m) { encode(DIL_TYPE_IQ1_M, src, dst, n, importance); }
FORMATS_ENCODE(iq2_xxs) { encode(DIL_TYPE_IQ2_XXS, src, dst, n, importance); }
FORMATS_ENCODE(iq2_xs) { encode(DIL_TYPE_IQ2_XS, src, dst, n, importance); }
FORMATS_ENCODE(iq2_s) { encode(DIL_TYPE_IQ2_S, src, dst, n, importance); }
FORMATS_ENCODE(iq3_xxs) { encode(DIL_TYPE_IQ3_XXS, src, dst, n, importance); }
FORMATS_ENCODE(iq3_s) { encode(DIL_TYPE_IQ3_S, src, dst, n, importance); }
