/*
 * TQ1_0, TQ2_0, Q1_0, Q2_0: one or two bits per value and one f16 scale d, for models trained that
 * way.
 *
 *     TQ1_0  256 values  five:48 four:4 d:2   x = d (t - 1), t in 0..2
 *     TQ2_0  256 values  pairs:64 d:2         x = d (q - 1), q in 0..3 (3 is not ternary: written by rounding only)
 *     Q1_0   128 values  d:2 bits:16          x = d or -d, value i is bit i, lowest first
 *     Q2_0    64 values  d:2 pairs:16         x = d (q - 1), value i is the i-th pair of bits
 *
 * TQ1_0: a byte holds five digits of base 3 (3^5 = 243 <= 256) as the fraction b/256 ~
 * 0.t0t1t2t3t4: times 3^k modulo 1 moves digit k to the front, times 3 reads it. The first 32 bytes hold digit k
 * of value 32 k + byte, the next 16 bytes that of 160 + 16 k + byte, the last 4 bytes have four
 * digits: 240 + 4 k + byte.
 * TQ2_0: bits 2k of byte j of each half of 32 bytes belong to value 128 half + 32 k + j.
 */
#include <math.h>

#include "formats/codecs.h"
#include "formats/fit.h"

enum { N = FORMATS_SUPER, TQ1_BYTES = 54, TQ2_BYTES = 66 };

/* Digit k of `count` bytes: dst[k * count + j] belongs to byte j. */
static void decode_digits(const uint8_t *p, int count, int n_digits, float d, float *dst)
{
    unsigned power = 1;
    for (int k = 0; k < n_digits; k++, power *= 3) {
        for (int j = 0; j < count; j++) {
            unsigned fraction = p[j] * power & 255;
            dst[k * count + j] = d * (float)((int)(fraction * 3 >> 8) - 1);
        }
    }
}

/* The inverse. Four digits fill the first four places of five. */
static void encode_digits(const uint8_t *t, int count, int n_digits, uint8_t *p)
{
    for (int j = 0; j < count; j++) {
        unsigned number = 0;
        for (int k = 0; k < 5; k++)
            number = number * 3 + (k < n_digits ? t[k * count + j] : 0);
        /* Rounded up, so that every digit reads back. */
        p[j] = (uint8_t)((number * 256 + 242) / 243);
    }
}

FORMATS_DECODE(tq1_0)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += N, p += TQ1_BYTES, dst += N) {
        float d = load_f16(p + 52);
        decode_digits(p, 32, 5, d, dst);
        decode_digits(p + 32, 16, 5, d, dst + 160);
        decode_digits(p + 48, 4, 4, d, dst + 240);
    }
}

FORMATS_DECODE(tq2_0)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += N, p += TQ2_BYTES, dst += N) {
        float d = load_f16(p + 64);
        for (int k = 0; k < N; k++) {
            int q = p[k / 128 * 32 + k % 32] >> (k % 128 / 32 * 2) & 3;
            dst[k] = d * (float)(q - 1);
        }
    }
}

/*
 * Levels 0..2 and the f16 scale at p. Without importance the scale is the largest magnitude, which
 * is exact for weights that are ternary already; with importance it is searched.
 */
static void encode_ternary(const float *x, const float *importance, uint8_t *p, uint8_t t[N])
{
    if (importance) {
        float w[N];
        int8_t level[N];
        fit_levels levels = {-1, 1, 1, NULL};
        fit_weights(importance, N, w);
        float d = store_f16(p, fit_scale(levels, x, w, N, level));
        fit_round_all(levels, x, N, fit_inverse(d), level);
        for (int k = 0; k < N; k++)
            t[k] = (uint8_t)(level[k] + 1);
        return;
    }
    float largest = 0.0f;
    for (int k = 0; k < N; k++)
        largest = fabsf(x[k]) > largest ? fabsf(x[k]) : largest;
    float inverse = fit_inverse(largest);
    store_f16(p, largest);
    for (int k = 0; k < N; k++)
        t[k] = (uint8_t)(fit_round_away(x[k] * inverse, 1) + 1);
}

static void write_fives(const uint8_t t[N], uint8_t *p)
{
    encode_digits(t, 32, 5, p);
    encode_digits(t + 160, 16, 5, p + 32);
    encode_digits(t + 240, 4, 4, p + 48);
}

static void write_pairs(const uint8_t q[N], uint8_t *p)
{
    memset(p, 0, 64);
    for (int k = 0; k < N; k++)
        p[k / 128 * 32 + k % 32] |= (uint8_t)(q[k] << (k % 128 / 32 * 2));
}

FORMATS_ENCODE(tq1_0)
{
    uint8_t t[N], *p = dst;
    for (size_t i = 0; i < n; i += N, p += TQ1_BYTES) {
        encode_ternary(src + i, importance_at(importance, i), p + 52, t);
        write_fives(t, p);
    }
}

FORMATS_ENCODE(tq2_0)
{
    uint8_t t[N], *p = dst;
    for (size_t i = 0; i < n; i += N, p += TQ2_BYTES) {
        encode_ternary(src + i, importance_at(importance, i), p + 64, t);
        write_pairs(t, p);
    }
}

FORMATS_READ(tq1_0)
{
    float level[N];
    uint8_t unit[TQ1_BYTES];
    memcpy(unit, block, sizeof unit);
    (void)store_f16(unit + 52, 1.0f);
    format_decode_tq1_0(unit, level, N);
    out->d = load_f16(block + 52);
    out->scale[0] = 1;
    for (int k = 0; k < N; k++)
        out->code[k] = (uint8_t)((int)level[k] + 1);
}

FORMATS_WRITE(tq1_0)
{
    (void)store_f16(block + 52, b->d);
    write_fives(b->code, block);
}

FORMATS_READ(tq2_0)
{
    out->d = load_f16(block + 64);
    out->scale[0] = 1;
    for (int k = 0; k < N; k++)
        out->code[k] = block[k / 128 * 32 + k % 32] >> (k % 128 / 32 * 2) & 3;
}

FORMATS_WRITE(tq2_0)
{
    (void)store_f16(block + 64, b->d);
    write_pairs(b->code, block);
}

enum { Q1_N = 128, Q2_N = 64, Q1_2_BYTES = 18 };

FORMATS_DECODE(q1_0)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += Q1_N, p += Q1_2_BYTES, dst += Q1_N) {
        float d = load_f16(p);
        for (int k = 0; k < Q1_N; k++)
            dst[k] = p[2 + k / 8] >> (k % 8) & 1 ? d : -d;
    }
}

FORMATS_DECODE(q2_0)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += Q2_N, p += Q1_2_BYTES, dst += Q2_N) {
        float d = load_f16(p);
        for (int k = 0; k < Q2_N; k++)
            dst[k] = (float)((p[2 + k / 4] >> (k % 4 * 2) & 3) - 1) * d;
    }
}

FORMATS_ENCODE(q1_0)
{
    /* For signs the best scale is the (weighted) mean magnitude. */
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i += Q1_N, p += Q1_2_BYTES) {
        float w[Q1_N], sum = 0.0f, sum_w = 0.0f;
        fit_weights(importance_at(importance, i), Q1_N, w);
        memset(p, 0, Q1_2_BYTES);
        for (int k = 0; k < Q1_N; k++) {
            sum += w[k] * fabsf(src[i + (size_t)k]);
            sum_w += w[k];
            p[2 + k / 8] |= (uint8_t)((src[i + (size_t)k] >= 0.0f) << (k % 8));
        }
        store_f16(p, sum / sum_w);
    }
}

FORMATS_ENCODE(q2_0)
{
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i += Q2_N, p += Q1_2_BYTES) {
        float w[Q2_N];
        int8_t level[Q2_N];
        fit_levels levels = {-1, 2, 1, NULL};
        fit_weights(importance_at(importance, i), Q2_N, w);
        memset(p, 0, Q1_2_BYTES);
        float d = store_f16(p, fit_scale(levels, src + i, w, Q2_N, level));
        fit_round_all(levels, src + i, Q2_N, fit_inverse(d), level);
        for (int k = 0; k < Q2_N; k++)
            p[2 + k / 4] |= (uint8_t)((level[k] + 1) << (k % 4 * 2));
    }
}

FORMATS_READ(q1_0)
{
    out->d = load_f16(block);
    out->scale[0] = 1;
    for (int k = 0; k < Q1_N; k++)
        out->code[k] = block[2 + k / 8] >> (k % 8) & 1;
}

FORMATS_WRITE(q1_0)
{
    memset(block, 0, Q1_2_BYTES);
    (void)store_f16(block, b->d);
    for (int k = 0; k < Q1_N; k++)
        block[2 + k / 8] |= (uint8_t)(b->code[k] << (k % 8));
}

FORMATS_READ(q2_0)
{
    out->d = load_f16(block);
    out->scale[0] = 1;
    for (int k = 0; k < Q2_N; k++)
        out->code[k] = block[2 + k / 4] >> (k % 4 * 2) & 3;
}

FORMATS_WRITE(q2_0)
{
    memset(block, 0, Q1_2_BYTES);
    (void)store_f16(block, b->d);
    for (int k = 0; k < Q2_N; k++)
        block[2 + k / 4] |= (uint8_t)(b->code[k] << (k % 4 * 2));
}
