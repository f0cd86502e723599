/*
 * F16 and BF16 weights times bf16 activations in plain C: what a bf16 dot product instruction does, bit for bit ("Canonical
 * order" in kernels.h). The reference of the levels that have the instruction; no level of its own, since f32 is as fast here.
 */
#include <float.h>
#include <math.h>

#include "kernels/scalar.h"
#include "kernels/unpack.h"

/* Subnormals are zero of the same sign, as inputs and as results. */
static float flush(float f) { return fabsf(f) < FLT_MIN ? copysignf(0.0f, f) : f; }

static float flushed_bf16(float f) { return bf16_to_f32(f32_to_bf16(flush(f))); }

/*
 * acc + a * b, rounded once. A result is subnormal when it would still be below FLT_MIN rounded to 24 bits of an unbounded
 * exponent. The product of two bf16 is exact in double, and near that limit the sum is, too.
 */
static float fma_flushed(float a, float b, float acc)
{
    float sum = fmaf(a, b, acc);
    if (fabs((double)a * (double)b + (double)acc) < 0x1p-126 - 0x1p-151)
        return copysignf(0.0f, sum);
    return sum;
}

/* The pair j of a row: columns 2j and 2j + 1. */
static void weight_pair(dil_type type, const uint8_t *panel, size_t j, size_t row, float w[2])
{
    for (size_t i = 0; i < 2; i++) {
        uint16_t bits = packed_u16(panel + 4 * (j * PANEL_ROWS + row) + 2 * i);
        w[i] = flushed_bf16(type == DIL_TYPE_F16 ? f16_to_f32(bits) : bf16_to_f32(bits));
    }
}

static void linear_bf16_dot(dil_type type, const linear_args *a)
{
    const size_t n_pairs = ((size_t)a->k + 1) / 2;
    for (size_t i = 0; i < (size_t)a->n_panels * PANEL_ROWS; i++) {
        const uint8_t *panel = a->panels + i / PANEL_ROWS * a->panel_bytes;
        for (size_t t = 0; t < (size_t)a->n_tokens; t++) {
            const uint16_t *x = a->x->bf16 + ((size_t)a->token + t) * a->x->bf16_stride;
            float acc = 0.0f, w[2];
            for (size_t j = 0; j < n_pairs; j++) {
                weight_pair(type, panel, j, i % PANEL_ROWS, w);
                acc = fma_flushed(w[1], bf16_to_f32(x[2 * j + 1]), acc);
                acc = fma_flushed(w[0], bf16_to_f32(x[2 * j]), acc);
            }
            a->y[t * a->y_stride + i] = acc;
        }
    }
}

static void linear_f16(const linear_args *a) { linear_bf16_dot(DIL_TYPE_F16, a); }
static void linear_bf16(const linear_args *a) { linear_bf16_dot(DIL_TYPE_BF16, a); }

static void round_bf16(const float *f, int64_t k, uint16_t *dst)
{
    for (int64_t i = 0; i < k; i++)
        dst[i] = f32_to_bf16(flush(f[i]));
    if (k % 2)
        dst[k] = 0;
}

void kernels_add_scalar_bf16(kernels *k)
{
    k->linear[DIL_TYPE_F16] = (linear_kernels){linear_f16, linear_f16};
    k->linear[DIL_TYPE_BF16] = (linear_kernels){linear_bf16, linear_bf16};
    k->bf16_dot = true;
    k->round_bf16 = round_bf16;
}
