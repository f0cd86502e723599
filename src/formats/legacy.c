/*
 * Q4_0, Q4_1, Q5_0, Q5_1, Q8_0: blocks of 32 values with one f16 scale d, the *_1 types with an f16
 * minimum m. Numbers are little-endian; value i < 16 sits in the low nibble of byte i, value i + 16
 * in the high nibble of the same byte; the fifth bits of the Q5 types form one 32-bit word, bit i
 * for value i.
 *
 *     Q4_0  d:2 nibbles:16              x = d (q - 8)
 *     Q4_1  d:2 m:2 nibbles:16          x = d q + m
 *     Q5_0  d:2 high:4 nibbles:16       x = d (q - 16)
 *     Q5_1  d:2 m:2 high:4 nibbles:16   x = d q + m
 *     Q8_0  d:2 int8:32                 x = d q
 *
 * Without importance the encoders do what everybody does with these types: the scale is that of the
 * largest value, and rounding uses the scale before it became f16. With importance they search.
 */
#include <math.h>

#include "formats/codecs.h"
#include "formats/fit.h"

enum { N = 32 };

static void unpack_nibbles(const uint8_t *p, uint8_t q[N])
{
    for (int i = 0; i < N / 2; i++) {
        q[i] = p[i] & 15;
        q[i + N / 2] = p[i] >> 4;
    }
}

static void pack_nibbles(const uint8_t q[N], uint8_t *p)
{
    for (int i = 0; i < N / 2; i++)
        p[i] = (uint8_t)((q[i] & 15) | (q[i + N / 2] & 15) << 4);
}

static void unpack_five_bits(const uint8_t *high, const uint8_t *nibbles, uint8_t q[N])
{
    uint32_t bits = load_u32(high);
    unpack_nibbles(nibbles, q);
    for (int i = 0; i < N; i++)
        q[i] = (uint8_t)(q[i] | (bits >> i & 1) << 4);
}

static void pack_five_bits(const uint8_t q[N], uint8_t *high, uint8_t *nibbles)
{
    uint32_t bits = 0;
    for (int i = 0; i < N; i++)
        bits |= (uint32_t)(q[i] >> 4 & 1) << i;
    memcpy(high, &bits, sizeof bits);
    pack_nibbles(q, nibbles);
}

FORMATS_DECODE(q4_0)
{
    uint8_t q[N];
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += N, p += 18, dst += N) {
        float d = load_f16(p);
        unpack_nibbles(p + 2, q);
        for (int j = 0; j < N; j++)
            dst[j] = d * (float)(q[j] - 8);
    }
}

FORMATS_DECODE(q4_1)
{
    uint8_t q[N];
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += N, p += 20, dst += N) {
        float d = load_f16(p), m = load_f16(p + 2);
        unpack_nibbles(p + 4, q);
        for (int j = 0; j < N; j++)
            dst[j] = d * (float)q[j] + m;
    }
}

FORMATS_DECODE(q5_0)
{
    uint8_t q[N];
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += N, p += 22, dst += N) {
        float d = load_f16(p);
        unpack_five_bits(p + 2, p + 6, q);
        for (int j = 0; j < N; j++)
            dst[j] = d * (float)(q[j] - 16);
    }
}

FORMATS_DECODE(q5_1)
{
    uint8_t q[N];
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += N, p += 24, dst += N) {
        float d = load_f16(p), m = load_f16(p + 2);
        unpack_five_bits(p + 4, p + 8, q);
        for (int j = 0; j < N; j++)
            dst[j] = d * (float)q[j] + m;
    }
}

FORMATS_DECODE(q8_0)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += N, p += 34, dst += N) {
        float d = load_f16(p);
        for (int j = 0; j < N; j++)
            dst[j] = (float)(int8_t)p[2 + j] * d;
    }
}

/* Levels 0..2*half-1 (value = level - half) and the f16 scale at p of one symmetric block. */
static void encode_symmetric(const float *x, const float *importance, int half, uint8_t *p, uint8_t q[N])
{
    if (importance) {
        float w[N];
        int8_t level[N];
        fit_levels levels = {-half, half - 1, 1, NULL};
        fit_weights(importance, N, w);
        float d = store_f16(p, fit_scale(levels, x, w, N, level));
        fit_round_all(levels, x, N, fit_inverse(d), level);
        for (int j = 0; j < N; j++)
            q[j] = (uint8_t)(level[j] + half);
        return;
    }
    float extreme = x[0];
    for (int j = 1; j < N; j++)
        extreme = fabsf(x[j]) > fabsf(extreme) ? x[j] : extreme;
    float d = extreme / (float)-half, inverse = fit_inverse(d);
    store_f16(p, d);
    for (int j = 0; j < N; j++) {
        /* x / d is in -half..half; adding half + 0.5 and cutting rounds it. */
        float t = x[j] * inverse + ((float)half + 0.5f);
        q[j] = (uint8_t)(t >= (float)(2 * half) ? 2 * half - 1 : t > 0.0f ? (int)t : 0);
    }
}

/* Levels 0..hi and the f16 scale and minimum at p of one block of the *_1 types. */
static void encode_affine(const float *x, const float *importance, int hi, uint8_t *p, uint8_t q[N])
{
    if (importance) {
        float w[N], m;
        fit_weights(importance, N, w);
        float d = store_f16(p, fit_affine(hi, false, x, w, N, &m, q));
        m = store_f16(p + 2, m);
        float inverse = fit_inverse(d);
        for (int j = 0; j < N; j++)
            q[j] = (uint8_t)fit_round((x[j] - m) * inverse, 0, hi);
        return;
    }
    float lowest = x[0], highest = x[0];
    for (int j = 1; j < N; j++) {
        lowest = x[j] < lowest ? x[j] : lowest;
        highest = x[j] > highest ? x[j] : highest;
    }
    float d = (highest - lowest) / (float)hi, inverse = fit_inverse(d);
    store_f16(p, d);
    store_f16(p + 2, lowest);
    for (int j = 0; j < N; j++)
        q[j] = (uint8_t)fit_round((x[j] - lowest) * inverse, 0, hi);
}

FORMATS_ENCODE(q4_0)
{
    uint8_t q[N], *p = dst;
    for (size_t i = 0; i < n; i += N, p += 18) {
        encode_symmetric(src + i, importance_at(importance, i), 8, p, q);
        pack_nibbles(q, p + 2);
    }
}

FORMATS_ENCODE(q4_1)
{
    uint8_t q[N], *p = dst;
    for (size_t i = 0; i < n; i += N, p += 20) {
        encode_affine(src + i, importance_at(importance, i), 15, p, q);
        pack_nibbles(q, p + 4);
    }
}

FORMATS_ENCODE(q5_0)
{
    uint8_t q[N], *p = dst;
    for (size_t i = 0; i < n; i += N, p += 22) {
        encode_symmetric(src + i, importance_at(importance, i), 16, p, q);
        pack_five_bits(q, p + 2, p + 6);
    }
}

FORMATS_ENCODE(q5_1)
{
    uint8_t q[N], *p = dst;
    for (size_t i = 0; i < n; i += N, p += 24) {
        encode_affine(src + i, importance_at(importance, i), 31, p, q);
        pack_five_bits(q, p + 4, p + 8);
    }
}

static void encode_block_q8_0(const float *x, const float *importance, uint8_t *p)
{
    if (importance) {
        float w[N];
        int8_t level[N];
        fit_levels levels = {-127, 127, 1, NULL};
        fit_weights(importance, N, w);
        float d = store_f16(p, fit_scale(levels, x, w, N, level));
        fit_round_all(levels, x, N, fit_inverse(d), level);
        memcpy(p + 2, level, N);
        return;
    }
    float largest = 0.0f;
    for (int j = 0; j < N; j++)
        largest = fabsf(x[j]) > largest ? fabsf(x[j]) : largest;
    float d = largest / 127.0f, inverse = fit_inverse(d);
    store_f16(p, d);
    for (int j = 0; j < N; j++) {
        p[2 + j] = (uint8_t)fit_round_away(x[j] * inverse, 127);
    }
}

FORMATS_ENCODE(q8_0)
{
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i += N, p += 34)
        encode_block_q8_0(src + i, importance_at(importance, i), p);
}

/* ---- the parts of a block ---- */

FORMATS_READ(q4_0)
{
    out->d = load_f16(block);
    out->scale[0] = 1;
    unpack_nibbles(block + 2, out->code);
}

FORMATS_WRITE(q4_0)
{
    (void)store_f16(block, b->d);
    pack_nibbles(b->code, block + 2);
}

FORMATS_READ(q4_1)
{
    out->d = load_f16(block);
    out->m = load_f16(block + 2);
    out->scale[0] = 1;
    unpack_nibbles(block + 4, out->code);
}

FORMATS_WRITE(q4_1)
{
    (void)store_f16(block, b->d);
    (void)store_f16(block + 2, b->m);
    pack_nibbles(b->code, block + 4);
}

FORMATS_READ(q5_0)
{
    out->d = load_f16(block);
    out->scale[0] = 1;
    unpack_five_bits(block + 2, block + 6, out->code);
}

FORMATS_WRITE(q5_0)
{
    (void)store_f16(block, b->d);
    pack_five_bits(b->code, block + 2, block + 6);
}

FORMATS_READ(q5_1)
{
    out->d = load_f16(block);
    out->m = load_f16(block + 2);
    out->scale[0] = 1;
    unpack_five_bits(block + 4, block + 8, out->code);
}

FORMATS_WRITE(q5_1)
{
    (void)store_f16(block, b->d);
    (void)store_f16(block + 2, b->m);
    pack_five_bits(b->code, block + 4, block + 8);
}

FORMATS_READ(q8_0)
{
    out->d = load_f16(block);
    out->scale[0] = 1;
    for (int j = 0; j < N; j++)
        out->code[j] = (uint8_t)(block[2 + j] ^ 0x80u);
}

FORMATS_WRITE(q8_0)
{
    (void)store_f16(block, b->d);
    for (int j = 0; j < N; j++)
        block[2 + j] = (uint8_t)(b->code[j] ^ 0x80u);
}
