/*
 * The trainer's vector loops, written once in plain C and compiled by each instruction set's own file with its flags: the
 * compiler makes them vectors of whatever width there is. Sums run in 16 lanes that are added up in one fixed order, products
 * and sums are not fused: all instruction sets give equal bits. "ivdep": outputs are inputs element by element or lie apart.
 * Private to files that define kernels of the table.
 */
#ifndef KERNELS_TRAINING_VECTOR_H
#define KERNELS_TRAINING_VECTOR_H

#include <math.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/lanes.h"

static float vector_softmax(float *x, int64_t n)
{
    float lane[LANES] = {0}, most[LANES], max;
    int64_t i = 0;
    for (int j = 0; j < LANES; j++)
        most[j] = x[0];
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            most[j] = x[i + j] > most[j] ? x[i + j] : most[j];
    for (; i < n; i++)
        most[0] = x[i] > most[0] ? x[i] : most[0];
    max = most[0];
    for (int j = 1; j < LANES; j++)
        max = most[j] > max ? most[j] : max;
    for (i = 0; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) {
            x[i + j] = lanes_exp(x[i + j] - max);
            lane[j] += x[i + j];
        }
    for (int j = 0; i + j < n; j++) {
        x[i + j] = lanes_exp(x[i + j] - max);
        lane[j] += x[i + j];
    }
    float sum = lanes_sum(lane), inverse = 1.0f / sum;
    for (i = 0; i < n; i++)
        x[i] *= inverse;
    return max + logf(sum);
}

static void vector_silu_mul_back(const float *gate, const float *up, const float *dy, float scale, float *y, float *dgate,
                                 float *dup, int64_t n)
{
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) {
        float g = gate[i], u = up[i], d = dy[i] * scale;
        float s = 1.0f / (1.0f + lanes_exp(-g)), a = g * s;
        y[i] = a * u;
        dgate[i] = d * u * (s + a * (1.0f - s));
        dup[i] = d * a;
    }
}

/* gelu(g) = g s(2c(g + 0.044715 g^3)), c = sqrt(2 / pi), s the logistic function: its tanh form. */
static void vector_gelu_mul_back(const float *gate, const float *up, const float *dy, float scale, float *y, float *dgate,
                                 float *dup, int64_t n)
{
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) {
        float g = gate[i], u = up[i], d = dy[i] * scale;
        float t = 1.59576912f * (g + 0.044715f * g * g * g), slope = 1.59576912f * (1.0f + 0.134145f * g * g);
        float s = 1.0f / (1.0f + lanes_exp(-t)), a = g * s;
        y[i] = a * u;
        dgate[i] = d * u * (s + a * (1.0f - s) * slope);
        dup[i] = d * a;
    }
}

static void vector_rmsnorm_back(const float *x, const float *w, const float *dy, float eps, float *dx, float *dw, int64_t n)
{
    float lane[LANES] = {0}, r = 1.0f / sqrtf(lanes_dot(x, x, n) / (float)n + eps);
    int64_t i = 0;
    if (!w) {
        float both = lanes_dot(x, dy, n) * r * r * r / (float)n;
        for (; i < n; i++)
            dx[i] += dy[i] * r - x[i] * both;
        return;
    }
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            lane[j] += x[i + j] * (w[i + j] * dy[i + j]);
    for (int j = 0; i + j < n; j++)
        lane[j] += x[i + j] * (w[i + j] * dy[i + j]);
    float both = lanes_sum(lane) * r * r * r / (float)n;
    for (i = 0; i < n; i++) {
        dw[i] += dy[i] * (x[i] * r);
        dx[i] += w[i] * dy[i] * r - x[i] * both;
    }
}

static void vector_adamw(float *w, const float *g, float *m, float *v, int64_t n, const adamw_args *a)
{
    const adamw_args c = *a;
    const float i1 = 1.0f / c.correction1, i2 = 1.0f / c.correction2;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) {
        float d = g[i] * c.g_scale;
        m[i] = c.beta1 * m[i] + (1.0f - c.beta1) * d;
        v[i] = c.beta2 * v[i] + (1.0f - c.beta2) * d * d;
        w[i] -= c.decay * w[i] + c.lr * (m[i] * i1) / (sqrtf(v[i] * i2) + c.eps);
    }
}

static inline void training_add_vector(training_kernels *t)
{
    t->dot = lanes_dot;
    t->softmax = vector_softmax;
    t->silu_mul_back = vector_silu_mul_back;
    t->gelu_mul_back = vector_gelu_mul_back;
    t->rmsnorm_back = vector_rmsnorm_back;
    t->adamw = vector_adamw;
}

#endif
