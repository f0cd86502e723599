/* Vector kernels in plain C: activations to bytes, norms, activation functions, rope, reductions over logits. */
#include <math.h>
#include <string.h>

#include "kernels/scalar.h"

/* Nearest integer of -127..127, ties to even; NaN becomes 0. */
static int8_t round_to_int8(float v)
{
    if (!(v > -127.0f))
        return v <= -127.0f ? -127 : 0;
    return (int8_t)(v < 127.0f ? lrintf(v) : 127);
}

/*
 * Scale of a block with largest magnitude amax, and its inverse. Blocks so small that the inverse would overflow become zero,
 * like blocks of zeros.
 */
static float block_scale(float amax, float *inverse)
{
    float inv = 127.0f / amax;
    bool usable = inv <= 3.0e38f; /* false for amax = 0 and NaN too */
    *inverse = usable ? inv : 0.0f;
    return usable ? amax / 127.0f : 0.0f;
}

static float largest_magnitude(const float *f, int64_t n)
{
    float amax = 0.0f;
    for (int64_t i = 0; i < n; i++)
        amax = fabsf(f[i]) > amax ? fabsf(f[i]) : amax;
    return amax;
}

/* Sum of x[i] * y[i] over a block, in the order of 16 lanes folded in halves. */
static float block_dot(const float *x, const float *y)
{
    float lane[16];
    for (int j = 0; j < 16; j++)
        lane[j] = fmaf(x[j + 16], y[j + 16], x[j] * y[j]);
    for (int width = 8; width > 0; width /= 2)
        for (int j = 0; j < width; j++)
            lane[j] += lane[j + width];
    return lane[0];
}

/* The best grid for y = f / d0: q and its scale. */
static float choose_grid(const float *y, float d0, int8_t *q)
{
    float best = 0.0f, scale = d0;
    for (int c = 0; c < ACT_CANDIDATES; c++) {
        int8_t tried[ACT_BLOCK];
        float rounded[ACT_BLOCK], u[ACT_BLOCK], grow = 127.0f / (float)(127 - c);
        for (int j = 0; j < ACT_BLOCK; j++) {
            float t = y[j] * ((float)(127 - c) / 127.0f);
            tried[j] = round_to_int8(t);
            rounded[j] = (float)tried[j];
            u[j] = t - rounded[j];
        }
        float a = block_dot(u, rounded), b = block_dot(rounded, rounded); /* b is exact in any order */
        float error = (block_dot(u, u) - a * (a / b)) * (grow * grow);
        if (c > 0 && !(error < best))
            continue;
        memcpy(q, tried, sizeof tried);
        best = error;
        scale = b > 0.0f ? d0 * grow * (1.0f + a / b) : d0;
    }
    return scale;
}

static void vec_quantize(const float *f, int64_t k, int8_t *q, float *d, float *s, int32_t *isum,
                         float *s16, int32_t *isum16)
{
    for (int64_t b = 0; b * ACT_BLOCK < k; b++) {
        const float *from = f + b * ACT_BLOCK;
        int64_t n = k - b * ACT_BLOCK < ACT_BLOCK ? k - b * ACT_BLOCK : ACT_BLOCK;
        float inverse, scale = block_scale(largest_magnitude(from, n), &inverse), y[ACT_BLOCK] = {0};
        int32_t sum[2] = {0, 0};
        for (int64_t i = 0; i < n; i++) {
            float v = from[i] * inverse;
            y[i] = v == v ? v : 0.0f;
        }
        scale = choose_grid(y, scale, q + b * ACT_BLOCK);
        for (int64_t i = 0; i < ACT_BLOCK; i++)
            sum[i / 16] += q[b * ACT_BLOCK + i];
        d[b] = scale;
        isum[b] = sum[0] + sum[1];
        s[b] = scale * (float)isum[b];
        for (int half = 0; half < 2; half++) {
            isum16[2 * b + half] = sum[half];
            s16[2 * b + half] = scale * (float)sum[half];
        }
    }
}

static void vec_rmsnorm(const float *x, const float *w, float eps, int64_t n, float *y)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    float factor = 1.0f / sqrtf((float)(sum / (double)n) + eps);
    for (int64_t i = 0; i < n; i++)
        y[i] = w ? x[i] * factor * w[i] : x[i] * factor;
}

static void vec_add(float *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] += x[i];
}

static void vec_scale(float *y, float s, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] *= s;
}

static void vec_add_scaled(float *y, const float *x, float s, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = fmaf(x[i], s, y[i]);
}

static void vec_silu_mul(const float *gate, const float *up, float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

/* 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) */
static void vec_gelu_mul(const float *gate, const float *up, float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float x = gate[i];
        float inner = 0.79788456080286535588f * (x * (1.0f + 0.044715f * (x * x)));
        y[i] = 0.5f * x * (1.0f + tanhf(inner)) * up[i];
    }
}

static void vec_softcap(float *x, float cap, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = cap * tanhf(x[i] / cap);
}

static void vec_rope(float *x, const float *cs, int n_rot, rope_pairs pairs)
{
    int half = n_rot / 2;
    for (int i = 0; i < half; i++) {
        float *a = pairs == ROPE_ADJACENT ? x + 2 * i : x + i;
        float *b = pairs == ROPE_ADJACENT ? x + 2 * i + 1 : x + i + half;
        float c = cs[2 * i], s = cs[2 * i + 1], u = *a, v = *b;
        *a = u * c - v * s;
        *b = u * s + v * c;
    }
}

static float vec_argmax(const float *x, int64_t n, int64_t *index)
{
    float best = -INFINITY;
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        if (x[i] > best) {
            best = x[i];
            at = i;
        }
    }
    *index = at;
    return best;
}

static double vec_sum_exp(const float *x, int64_t n, float max)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)expf(x[i] - max);
    return sum;
}

void scalar_add_vector(kernels *k)
{
    k->quantize = vec_quantize;
    k->rmsnorm = vec_rmsnorm;
    k->add = vec_add;
    k->scale = vec_scale;
    k->add_scaled = vec_add_scaled;
    k->silu_mul = vec_silu_mul;
    k->gelu_mul = vec_gelu_mul;
    k->softcap = vec_softcap;
    k->rope = vec_rope;
    k->argmax = vec_argmax;
    k->sum_exp = vec_sum_exp;
}
