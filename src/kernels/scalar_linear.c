/*
 * Linear layers in plain C: the canonical order of kernels.h written down once for quantized types and once for floats. Small
 * and large batches run the same loop.
 */
#include <math.h>

#include "kernels/scalar.h"
#include "kernels/unpack.h"

enum { TOKENS = 8 }; /* tokens that share an unpacked block */

/* w[s][4 * row + c] = u - off */
static void centre(const unpacked *block, int off, int16_t w[BLOCK_STEPS][STEP_BYTES])
{
    for (int s = 0; s < BLOCK_STEPS; s++)
        for (int i = 0; i < STEP_BYTES; i++)
            w[s][i] = (int16_t)(block->u[s][i] - off);
}

/* sum[row] over steps from..to-1 of w * q */
static void dot_steps(int16_t w[BLOCK_STEPS][STEP_BYTES], const int8_t *q, int from, int to, int32_t sum[PANEL_ROWS])
{
    for (int row = 0; row < PANEL_ROWS; row++) {
        int32_t total = 0;
        for (int s = from; s < to; s++)
            for (int c = 0; c < 4; c++)
                total += w[s][4 * row + c] * q[4 * s + c];
        sum[row] = total;
    }
}

/* One block of one token onto acc[16]; b is the block's index in the row, t the token's in x. */
static void add_block(const packed_type *type, const unpacked *block, int16_t w[BLOCK_STEPS][STEP_BYTES], const act *x, size_t t,
                      size_t b, float *acc)
{
    int32_t sum[2][PANEL_ROWS];
    const float *minimum = type->n_minima == 2 ? x->s16 + 2 * (t * x->b_stride + b) : x->s + t * x->b_stride + b;
    const int8_t *q = x->q + t * x->q_stride + b * ACT_BLOCK;
    float d = x->d[t * x->b_stride + b];
    const int subs = 32 / type->sub;
    for (int i = 0; i < subs; i++)
        dot_steps(w, q, 8 / subs * i, 8 / subs * (i + 1), sum[i]);
    for (int row = 0; row < PANEL_ROWS; row++) {
        float term = (float)sum[0][row] * block->ws[0][row];
        if (subs == 2)
            term = fmaf((float)sum[1][row], block->ws[1][row], term);
        acc[row] = fmaf(term, d, acc[row]);
        for (int i = 0; i < type->n_minima; i++)
            acc[row] = fmaf(block->nm[i][row], minimum[i], acc[row]);
    }
}

/* y[t][0..15] of one panel for n <= TOKENS tokens from token t0 of x on. */
static void quant_panel(const packed_type *type, const uint8_t *panel, int64_t k, const act *x, size_t t0, size_t n, float *y,
                        size_t y_stride)
{
    float acc[TOKENS][PANEL_ROWS] = {{0}};
    int16_t w[BLOCK_STEPS][STEP_BYTES];
    unpacked block;
    int blocks = type->columns / ACT_BLOCK;
    for (int64_t b = 0; b < k / ACT_BLOCK; b++) {
        type->unpack(packed_group(type, panel, b), (int)(b % blocks), &block);
        centre(&block, type->off, w);
        for (size_t t = 0; t < n; t++)
            add_block(type, &block, w, x, t0 + t, (size_t)b, acc[t]);
    }
    for (size_t t = 0; t < n; t++)
        memcpy(y + t * y_stride, acc[t], sizeof acc[t]);
}

static void linear_quant(dil_type dtype, const linear_args *a)
{
    const packed_type *type = packed_type_get(dtype);
    for (int p = 0; p < a->n_panels; p++) {
        const uint8_t *panel = a->panels + (size_t)p * a->panel_bytes;
        for (int t = 0; t < a->n_tokens; t += TOKENS) {
            int n = a->n_tokens - t < TOKENS ? a->n_tokens - t : TOKENS;
            quant_panel(type, panel, a->k, a->x, (size_t)(a->token + t), (size_t)n,
                        a->y + (size_t)t * a->y_stride + (size_t)p * PANEL_ROWS, a->y_stride);
        }
    }
}

/* w[row] of column c */
static void float_column(dil_type type, const uint8_t *panel, int64_t c, float w[PANEL_ROWS])
{
    size_t at = (size_t)c;
    for (size_t row = 0; row < PANEL_ROWS; row++) {
        if (type == DIL_TYPE_F32)
            memcpy(&w[row], panel + (at * PANEL_ROWS + row) * 4, 4);
        else {
            uint16_t bits = packed_u16(panel + (at / 2 * PANEL_ROWS + row) * 4 + at % 2 * 2);
            w[row] = type == DIL_TYPE_F16 ? f16_to_f32(bits) : bf16_to_f32(bits);
        }
    }
}

static void float_panel(dil_type type, const uint8_t *panel, int64_t k, const act *x, size_t t0, size_t n, float *y,
                        size_t y_stride)
{
    float acc[TOKENS][PANEL_ROWS] = {{0}}, w[PANEL_ROWS];
    for (int64_t c = 0; c < k; c++) {
        float_column(type, panel, c, w);
        for (size_t t = 0; t < n; t++) {
            float f = x->f[(t0 + t) * x->f_stride + (size_t)c];
            for (int row = 0; row < PANEL_ROWS; row++)
                acc[t][row] = fmaf(w[row], f, acc[t][row]);
        }
    }
    for (size_t t = 0; t < n; t++)
        memcpy(y + t * y_stride, acc[t], sizeof acc[t]);
}

static void linear_float(dil_type type, const linear_args *a)
{
    for (int p = 0; p < a->n_panels; p++) {
        const uint8_t *panel = a->panels + (size_t)p * a->panel_bytes;
        for (int t = 0; t < a->n_tokens; t += TOKENS) {
            int n = a->n_tokens - t < TOKENS ? a->n_tokens - t : TOKENS;
            float_panel(type, panel, a->k, a->x, (size_t)(a->token + t), (size_t)n,
                        a->y + (size_t)t * a->y_stride + (size_t)p * PANEL_ROWS, a->y_stride);
        }
    }
}

static void dot_rows(const float *const *rows, int n_rows, const float *x, int64_t k, float *y)
{
    for (int r = 0; r < n_rows; r++) {
        float acc = 0.0f;
        for (int64_t c = 0; c < k; c++)
            acc = fmaf(rows[r][c], x[c], acc);
        y[r] = acc;
    }
}

/* X(type, body) for every type that holds weights */
/* clang-format off */
#define FOR_LINEAR_TYPES(X)                                                                                             \
    X(F32, float) X(F16, float) X(BF16, float)                                                                          \
    X(Q4_0, quant) X(Q4_1, quant) X(Q5_0, quant) X(Q5_1, quant) X(Q8_0, quant)                                          \
    X(Q2_K, quant) X(Q3_K, quant) X(Q4_K, quant) X(Q5_K, quant) X(Q6_K, quant)                                          \
    X(IQ1_S, quant) X(IQ1_M, quant) X(IQ2_XXS, quant) X(IQ2_XS, quant) X(IQ2_S, quant) X(IQ3_XXS, quant) X(IQ3_S, quant) \
    X(IQ4_NL, quant) X(IQ4_XS, quant)                                                                                   \
    X(TQ1_0, quant) X(TQ2_0, quant) X(MXFP4, quant) X(NVFP4, quant) X(Q1_0, quant) X(Q2_0, quant) \
    X(D3_0, quant) X(D6_0, quant)
/* clang-format on */

#define DEFINE(type, body) \
    static void linear_##type(const linear_args *a) { linear_##body(DIL_TYPE_##type, a); }
FOR_LINEAR_TYPES(DEFINE)

#define SET(type, body) k->linear[DIL_TYPE_##type] = (linear_kernels){linear_##type, linear_##type};

void scalar_add_linear(kernels *k)
{
    FOR_LINEAR_TYPES(SET)
    k->dot_rows = dot_rows;
    for (int type = 0; type < DIL_TYPE_COUNT; type++)
        k->gemm_from[type] = GEMV_TOKENS + 1;
    k->panel_chunk = 4;
    k->token_chunk = 256;
    k->token_tile = 4;
}
