/*
 * Super-blocks: the scales of sub-blocks become small integers times one f16, which costs accuracy.
 * After that rounding the integers next to the nearest are tried as well, and at the end the f16
 * numbers are solved for again with everything else fixed.
 */
#include <math.h>

#include "formats/codecs.h"
#include "formats/fit.h"

enum { N = FORMATS_SUPER, POLISHES = 2 };

void fit_super_weights(const float *importance, int sub, float *w)
{
    float mean = 0.0f;
    fit_weights(importance, N, w);
    for (int i = 0; i < N; i++)
        mean += w[i] / (float)N;
    for (int i = 0; i < N; i += sub) {
        float sum = 0.0f;
        for (int j = 0; j < sub; j++)
            sum += w[i + j];
        for (int j = 0; j < sub && !(sum > 0.0f); j++)
            w[i + j] = 0.001f * mean;
    }
}

/* Levels of one sub-block for the integer scales near `wanted`; returns the best of them. */
static int best_scale_near(fit_levels levels, int half, const float *x, const float *w, size_t n, float d, float wanted,
                           int8_t *level)
{
    int8_t tried[N];
    int middle = fit_round(wanted * fit_inverse(d), -half, half - 1), best = middle;
    float best_error = INFINITY;
    fit_round_all(levels, x, n, fit_inverse(d * (float)middle), level);
    for (int s = middle - 1; s <= middle + 1; s++) {
        if (s < -half || s >= half)
            continue;
        float step = d * (float)s;
        fit_round_all(levels, x, n, fit_inverse(step), tried);
        float error = fit_scale_error(x, w, n, step, tried);
        if (error < best_error) {
            best_error = error;
            best = s;
            memcpy(level, tried, n);
        }
    }
    return best;
}

static float super_scale_error(int sub, const float *x, const float *w, float d, const int8_t *scale, const int8_t *level)
{
    float error = 0.0f;
    for (int i = 0; i < N; i += sub)
        error += fit_scale_error(x + i, w + i, (size_t)sub, d * (float)scale[i / sub], level + i);
    return error;
}

/* d = sum w x c / sum w c^2 over the whole super-block, c = scale level. */
static float solve_super_scale(int sub, const float *x, const float *w, const int8_t *scale, const int8_t *level)
{
    double sxc = 0.0, scc = 0.0;
    for (int i = 0; i < N; i++) {
        double c = (double)scale[i / sub] * (double)level[i];
        sxc += (double)w[i] * (double)x[i] * c;
        scc += (double)w[i] * c * c;
    }
    return scc > 0.0 ? (float)(sxc / scc) : 0.0f;
}

static void polish_scale(fit_levels levels, int sub, const float *x, const float *w, uint8_t *d_at, const int8_t *scale,
                         int8_t *level)
{
    int8_t tried[N];
    float error = super_scale_error(sub, x, w, load_f16(d_at), scale, level);
    for (int k = 0; k < POLISHES; k++) {
        uint8_t stored[2];
        float d = store_f16(stored, solve_super_scale(sub, x, w, scale, level));
        for (int i = 0; i < N; i += sub)
            fit_round_all(levels, x + i, (size_t)sub, fit_inverse(d * (float)scale[i / sub]), tried + i);
        float tried_error = super_scale_error(sub, x, w, d, scale, tried);
        if (!(tried_error < error))
            return;
        error = tried_error;
        memcpy(d_at, stored, sizeof stored);
        memcpy(level, tried, N);
    }
}

void fit_super_scale(fit_levels levels, int sub, int half, const float *x, const float *importance, uint8_t *d_at, int8_t *scale,
                     int8_t *level)
{
    float w[N], wanted[N / 16], extreme = 0.0f;
    fit_super_weights(importance, sub, w);
    for (int i = 0; i < N; i += sub) {
        float s = fit_scale(levels, x + i, w + i, (size_t)sub, level + i);
        wanted[i / sub] = s;
        extreme = fabsf(s) > fabsf(extreme) ? s : extreme;
    }
    /* The extreme scale becomes -half, the integer of largest magnitude. */
    float d = store_f16(d_at, extreme / (float)-half);
    for (int i = 0; i < N; i += sub)
        scale[i / sub] = (int8_t)best_scale_near(levels, half, x + i, w + i, (size_t)sub, d, wanted[i / sub], level + i);
    polish_scale(levels, sub, x, w, d_at, scale, level);
}

/* What one affine super-block is being made of. */
typedef struct super_affine {
    int hi, sub, top;
    const float *x;
    float w[N];
    float d, dmin;
    uint8_t *scale, *min, *level;
} super_affine;

static void round_sub_affine(const super_affine *s, int i, int scale, int min, uint8_t *level)
{
    float inverse = fit_inverse(s->d * (float)scale), offset = s->dmin * (float)min;
    for (int j = 0; j < s->sub; j++)
        level[j] = (uint8_t)fit_round((s->x[i + j] + offset) * inverse, 0, s->hi);
}

/* Sub-block at i: the best of the 3 x 3 integers around the wanted scale and minimum. */
static void choose_sub_affine(super_affine *s, int i, float wanted_scale, float wanted_min)
{
    uint8_t tried[N];
    int scale = fit_round(wanted_scale * fit_inverse(s->d), 0, s->top);
    int min = fit_round(wanted_min * fit_inverse(s->dmin), 0, s->top);
    float best_error = INFINITY;
    s->scale[i / s->sub] = (uint8_t)scale;
    s->min[i / s->sub] = (uint8_t)min;
    round_sub_affine(s, i, scale, min, s->level + i);
    for (int k = 0; k < 9; k++) {
        int this_scale = scale + k / 3 - 1, this_min = min + k % 3 - 1;
        if (this_scale < 0 || this_scale > s->top || this_min < 0 || this_min > s->top)
            continue;
        round_sub_affine(s, i, this_scale, this_min, tried);
        float error =
            fit_affine_error(s->x + i, s->w + i, (size_t)s->sub, s->d * (float)this_scale, -s->dmin * (float)this_min, tried);
        if (error < best_error) {
            best_error = error;
            s->scale[i / s->sub] = (uint8_t)this_scale;
            s->min[i / s->sub] = (uint8_t)this_min;
            memcpy(s->level + i, tried, (size_t)s->sub);
        }
    }
}

static float super_affine_error(const super_affine *s)
{
    float error = 0.0f;
    for (int i = 0; i < N; i += s->sub)
        error += fit_affine_error(s->x + i, s->w + i, (size_t)s->sub, s->d * (float)s->scale[i / s->sub],
                                  -s->dmin * (float)s->min[i / s->sub], s->level + i);
    return error;
}

/*
 * Least squares for x ~ d a - dmin b with a = scale level, b = min:
 *     d Saa - dmin Sab = Sxa,   d Sab - dmin Sbb = Sxb.
 */
static bool solve_super_affine(const super_affine *s, float *d, float *dmin)
{
    double saa = 0.0, sab = 0.0, sbb = 0.0, sxa = 0.0, sxb = 0.0;
    for (int i = 0; i < N; i++) {
        double w = (double)s->w[i], x = (double)s->x[i];
        double a = (double)s->scale[i / s->sub] * (double)s->level[i];
        double b = (double)s->min[i / s->sub];
        saa += w * a * a;
        sab += w * a * b;
        sbb += w * b * b;
        sxa += w * x * a;
        sxb += w * x * b;
    }
    double determinant = saa * sbb - sab * sab;
    if (!(determinant > 0.0))
        return false;
    *d = (float)((sxa * sbb - sxb * sab) / determinant);
    *dmin = (float)((sxa * sab - sxb * saa) / determinant);
    return *d > 0.0f && *dmin >= 0.0f;
}

static void polish_affine(super_affine *s, uint8_t *d_at, uint8_t *dmin_at)
{
    uint8_t tried[N], stored_d[2], stored_dmin[2];
    float error = super_affine_error(s), d, dmin;
    for (int k = 0; k < POLISHES && solve_super_affine(s, &d, &dmin); k++) {
        super_affine other = *s;
        other.d = store_f16(stored_d, d);
        other.dmin = store_f16(stored_dmin, dmin);
        other.level = tried;
        for (int i = 0; i < N; i += s->sub)
            round_sub_affine(&other, i, s->scale[i / s->sub], s->min[i / s->sub], tried + i);
        float tried_error = super_affine_error(&other);
        if (!(tried_error < error))
            return;
        error = tried_error;
        s->d = other.d;
        s->dmin = other.dmin;
        memcpy(d_at, stored_d, sizeof stored_d);
        memcpy(dmin_at, stored_dmin, sizeof stored_dmin);
        memcpy(s->level, tried, N);
    }
}

void fit_super_affine(int hi, int sub, int top, const float *x, const float *importance, uint8_t *d_at, uint8_t *dmin_at,
                      uint8_t *scale, uint8_t *min, uint8_t *level)
{
    super_affine s = {.hi = hi, .sub = sub, .top = top, .x = x, .scale = scale, .min = min, .level = level};
    float wanted_scale[N / 16], wanted_min[N / 16], largest_scale = 0.0f, largest_min = 0.0f;
    fit_super_weights(importance, sub, s.w);
    for (int i = 0; i < N; i += sub) {
        float m;
        float d = fit_affine(hi, true, x + i, s.w + i, (size_t)sub, &m, level + i);
        wanted_scale[i / sub] = d;
        wanted_min[i / sub] = -m;
        largest_scale = d > largest_scale ? d : largest_scale;
        largest_min = -m > largest_min ? -m : largest_min;
    }
    s.d = store_f16(d_at, largest_scale / (float)top);
    s.dmin = store_f16(dmin_at, largest_min / (float)top);
    for (int i = 0; i < N; i += sub)
        choose_sub_affine(&s, i, wanted_scale[i / sub], wanted_min[i / sub]);
    polish_affine(&s, d_at, dmin_at);
}
