/* Q2_K .. Q6_K, encode: the searches are in fit_super.c, the layouts are described in kquants.c. */
#include "formats/codecs.h"
#include "formats/fit.h"

enum { N = FORMATS_SUPER };

/* The lower two bits of q >> shift of all values. */
static void pack_pairs(const uint8_t q[N], int shift, uint8_t *pairs)
{
    memset(pairs, 0, N / 4);
    for (int i = 0; i < N; i++) {
        int pair = q[i] >> shift & 3;
        pairs[i / 128 * 32 + i % 32] |= (uint8_t)(pair << (i % 128 / 32 * 2));
    }
}

static void pack_nibbles(const uint8_t q[N], uint8_t *nibbles)
{
    memset(nibbles, 0, N / 2);
    for (int i = 0; i < N; i++)
        nibbles[i / 64 * 32 + i % 32] |= (uint8_t)((q[i] & 15) << (i / 32 % 2 * 4));
}

/* Bit `bit` of all values. */
static void pack_high(const uint8_t q[N], int bit, uint8_t *high)
{
    memset(high, 0, N / 8);
    for (int i = 0; i < N; i++)
        high[i % 32] |= (uint8_t)((q[i] >> bit & 1) << (i / 32));
}

/* The inverse of kquants_scale_min for all eight. */
static void pack_scale_min(const uint8_t scale[8], const uint8_t min[8], uint8_t packed[12])
{
    for (int j = 0; j < 4; j++) {
        packed[j] = (uint8_t)(scale[j] | scale[j + 4] >> 4 << 6);
        packed[j + 4] = (uint8_t)(min[j] | min[j + 4] >> 4 << 6);
        packed[j + 8] = (uint8_t)((scale[j + 4] & 15) | (min[j + 4] & 15) << 4);
    }
}

FORMATS_WRITE(q2_k)
{
    for (int j = 0; j < 16; j++)
        block[j] = (uint8_t)(b->scale[j] | b->min[j] << 4);
    pack_pairs(b->code, 0, block + 16);
    (void)store_f16(block + 80, b->d);
    (void)store_f16(block + 82, b->m);
}

FORMATS_WRITE(q3_k)
{
    pack_high(b->code, 2, block);
    pack_pairs(b->code, 0, block + 32);
    memset(block + 96, 0, 12);
    for (int j = 0; j < 16; j++) {
        int s = b->scale[j] + 32;
        block[96 + j % 8] |= (uint8_t)((s & 15) << (j / 8 * 4));
        block[104 + j % 4] |= (uint8_t)(s >> 4 << (j / 4 * 2));
    }
    (void)store_f16(block + 108, b->d);
}

static void write_scale_min(const grid_block *b, uint8_t *block)
{
    (void)store_f16(block, b->d);
    (void)store_f16(block + 2, b->m);
    pack_scale_min((const uint8_t *)b->scale, b->min, block + 4);
}

FORMATS_WRITE(q4_k)
{
    write_scale_min(b, block);
    pack_nibbles(b->code, block + 16);
}

FORMATS_WRITE(q5_k)
{
    write_scale_min(b, block);
    pack_high(b->code, 4, block + 16);
    pack_nibbles(b->code, block + 48);
}

FORMATS_WRITE(q6_k)
{
    memset(block, 0, 128);
    for (int k = 0; k < N; k++)
        block[k / 128 * 64 + k % 64] |= (uint8_t)((b->code[k] & 15) << (k % 128 / 64 * 4));
    pack_pairs(b->code, 4, block + 128);
    memcpy(block + 192, b->scale, 16);
    (void)store_f16(block + 208, b->d);
}

/* ---- encoders ---- */

/* The affine types: scale and minimum per `sub` values, integers up to `top`. */
static void encode_affine(int hi, int sub, int top, const float *x, const float *importance, grid_block *b)
{
    uint8_t d[2], m[2];
    fit_super_affine(hi, sub, top, x, importance, d, m, (uint8_t *)b->scale, b->min, b->code);
    b->d = load_f16(d);
    b->m = load_f16(m);
}

/* The symmetric types: levels lo .. -lo - 1, scales of -half .. half - 1. */
static void encode_symmetric(int lo, int half, const float *x, const float *importance, grid_block *b)
{
    uint8_t d[2];
    int8_t level[N];
    fit_super_scale((fit_levels){lo, -lo - 1, 1, NULL}, 16, half, x, importance, d, b->scale, level);
    b->d = load_f16(d);
    for (int i = 0; i < N; i++)
        b->code[i] = (uint8_t)(level[i] - lo);
}

FORMATS_ENCODE(q2_k)
{
    grid_block b;
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i += N, p += 84) {
        encode_affine(3, 16, 15, src + i, importance_at(importance, i), &b);
        format_write_q2_k(&b, p);
    }
}

FORMATS_ENCODE(q4_k)
{
    grid_block b;
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i += N, p += 144) {
        encode_affine(15, 32, 63, src + i, importance_at(importance, i), &b);
        format_write_q4_k(&b, p);
    }
}

FORMATS_ENCODE(q5_k)
{
    grid_block b;
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i += N, p += 176) {
        encode_affine(31, 32, 63, src + i, importance_at(importance, i), &b);
        format_write_q5_k(&b, p);
    }
}

FORMATS_ENCODE(q3_k)
{
    grid_block b;
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i += N, p += 110) {
        encode_symmetric(-4, 32, src + i, importance_at(importance, i), &b);
        format_write_q3_k(&b, p);
    }
}

FORMATS_ENCODE(q6_k)
{
    grid_block b;
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i += N, p += 210) {
        encode_symmetric(-32, 128, src + i, importance_at(importance, i), &b);
        format_write_q6_k(&b, p);
    }
}
