/* Vector kernels in plain C: activations to bytes, norms, activation functions, rope, reductions over logits. */
#include <math.h>
#include <string.h>

#include "kernels/scalar.h"

static float largest_magnitude(const float *f, int64_t n)
{
    float amax = 0.0f;
    for (int64_t i = 0; i < n; i++)
        amax = fabsf(f[i]) > amax ? fabsf(f[i]) : amax;
    return amax;
}

/* A block on the fine grid: Y of quantize_args, and d0. */
static float fine_grid(const float *f, int64_t n, int32_t fine[ACT_BLOCK])
{
    float amax = largest_magnitude(f, n), factor = 32512.0f / amax;
    bool usable = factor <= 3.0e38f; /* false for amax = 0 */
    memset(fine, 0, ACT_BLOCK * sizeof *fine);
    for (int64_t i = 0; usable && i < n; i++) {
        float v = f[i] * factor;
        fine[i] = v == v ? (int32_t)lrintf(v) : 0;
    }
    return usable ? amax / 127.0f : 0.0f;
}

/* The best grid for a block: its bytes and its scale. */
static float choose_grid(const int32_t fine[ACT_BLOCK], float d0, int8_t *q)
{
    int32_t best_a = 0, best_b = 0;
    for (int c = 0; c < ACT_CANDIDATES; c++) {
        int8_t tried[ACT_BLOCK];
        int32_t a = 0, b = 0;
        for (int i = 0; i < ACT_BLOCK; i++) {
            int32_t scaled = fine[i] * (128 - c) + (1 << 14);
            tried[i] = (int8_t)((scaled - (scaled & 0x7fff)) / (1 << 15)); /* towards minus infinity */
            a += fine[i] * tried[i];
            b += tried[i] * tried[i];
        }
        if (c > 0 && !((double)a * a * best_b > (double)best_a * best_a * b))
            continue;
        memcpy(q, tried, sizeof tried);
        best_a = a;
        best_b = b;
    }
    return best_b > 0 ? d0 * ((float)best_a / (float)best_b / 256.0f) : d0;
}

/* Block b of a row: the outputs' pointers stand at the row. */
static void quantize_block(const float *f, int64_t n, size_t b, const quantize_args *row)
{
    int32_t fine[ACT_BLOCK], sum[2][2] = {{0}};
    float d0 = fine_grid(f, n, fine);
    int8_t *q = row->q + b * ACT_BLOCK;
    float scale = choose_grid(fine, d0, q);
    for (int i = 0; i < ACT_BLOCK; i++)
        sum[i / 16][i % 4 / 2] += q[i];
    row->d[b] = scale;
    row->isum[b] = act_sums(sum[0][0] + sum[1][0], sum[0][1] + sum[1][1]);
    row->s[b] = scale * (float)act_total(row->isum[b]);
    for (size_t half = 0; row->isum16 && half < 2; half++) {
        row->isum16[2 * b + half] = act_sums(sum[half][0], sum[half][1]);
        row->s16[2 * b + half] = scale * (float)act_total(row->isum16[2 * b + half]);
    }
}

static void vec_quantize(const quantize_args *a)
{
    quantize_args row = *a;
    for (int r = 0; r < a->n_rows; r++) {
        for (int64_t b = 0; b * ACT_BLOCK < a->k; b++) {
            int64_t left = a->k - b * ACT_BLOCK;
            quantize_block(row.f + b * ACT_BLOCK, left < ACT_BLOCK ? left : ACT_BLOCK, (size_t)b, &row);
        }
        row.f += a->f_stride;
        row.q += a->q_stride;
        row.d += a->b_stride;
        row.s += a->b_stride;
        row.isum += a->b_stride;
        if (!row.isum16)
            continue;
        row.s16 += 2 * a->b_stride;
        row.isum16 += 2 * a->b_stride;
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

static void vec_swiglu_oai_mul(const float *gate, const float *up, float *y, int64_t n)
{
    const float most = SWIGLU_OAI_LIMIT;
    for (int64_t i = 0; i < n; i++) {
        float g = gate[i] > most ? most : gate[i], u = up[i] > most ? most : up[i] < -most ? -most : up[i];
        y[i] = g / (1.0f + expf(-SWIGLU_OAI_SLOPE * g)) * (u + 1.0f);
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

static void hadamard_block(float *x, int n)
{
    for (int h = 1; h < n; h *= 2) {
        for (int i = 0; i < n; i++) {
            if (i & h)
                continue;
            float a = x[i], b = x[i + h];
            x[i] = a + b;
            x[i + h] = a - b;
        }
    }
    vec_scale(x, 1.0f / sqrtf((float)n), n);
}

static void vec_hadamard(float *x, int n)
{
    for (; n >= HADAMARD_MOST; n -= HADAMARD_MOST, x += HADAMARD_MOST)
        hadamard_block(x, HADAMARD_MOST);
    if (n >= HADAMARD_LEAST)
        hadamard_block(x, HADAMARD_LEAST);
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
    k->swiglu_oai_mul = vec_swiglu_oai_mul;
    k->softcap = vec_softcap;
    k->rope = vec_rope;
    k->hadamard = vec_hadamard;
    k->argmax = vec_argmax;
    k->sum_exp = vec_sum_exp;
}
