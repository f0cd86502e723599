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

FORMATS_ENCODE(q2_k)
{
    uint8_t scale[16], min[16], level[N], *p = dst;
    for (size_t i = 0; i < n; i += N, p += 84) {
        fit_super_affine(3, 16, 15, src + i, importance_at(importance, i), p + 80, p + 82, scale, min, level);
        for (int j = 0; j < 16; j++)
            p[j] = (uint8_t)(scale[j] | min[j] << 4);
        pack_pairs(level, 0, p + 16);
    }
}

FORMATS_ENCODE(q4_k)
{
    uint8_t scale[8], min[8], level[N], *p = dst;
    for (size_t i = 0; i < n; i += N, p += 144) {
        fit_super_affine(15, 32, 63, src + i, importance_at(importance, i), p, p + 2, scale, min, level);
        pack_scale_min(scale, min, p + 4);
        pack_nibbles(level, p + 16);
    }
}

FORMATS_ENCODE(q5_k)
{
    uint8_t scale[8], min[8], level[N], *p = dst;
    for (size_t i = 0; i < n; i += N, p += 176) {
        fit_super_affine(31, 32, 63, src + i, importance_at(importance, i), p, p + 2, scale, min, level);
        pack_scale_min(scale, min, p + 4);
        pack_high(level, 4, p + 16);
        pack_nibbles(level, p + 48);
    }
}

/* Levels counted from lo. */
static void shift_levels(const int8_t level[N], int lo, uint8_t q[N])
{
    for (int i = 0; i < N; i++)
        q[i] = (uint8_t)(level[i] - lo);
}

FORMATS_ENCODE(q3_k)
{
    int8_t scale[16], level[N];
    uint8_t q[N], *p = dst;
    for (size_t i = 0; i < n; i += N, p += 110) {
        fit_super_scale((fit_levels){-4, 3, 1, NULL}, 16, 32, src + i, importance_at(importance, i), p + 108, scale, level);
        shift_levels(level, -4, q);
        pack_high(q, 2, p);
        pack_pairs(q, 0, p + 32);
        memset(p + 96, 0, 12);
        for (int j = 0; j < 16; j++) {
            int s = scale[j] + 32;
            p[96 + j % 8] |= (uint8_t)((s & 15) << (j / 8 * 4));
            p[104 + j % 4] |= (uint8_t)(s >> 4 << (j / 4 * 2));
        }
    }
}

FORMATS_ENCODE(q6_k)
{
    int8_t scale[16], level[N];
    uint8_t q[N], *p = dst;
    for (size_t i = 0; i < n; i += N, p += 210) {
        fit_super_scale((fit_levels){-32, 31, 1, NULL}, 16, 128, src + i, importance_at(importance, i), p + 208, scale, level);
        shift_levels(level, -32, q);
        memset(p, 0, 128);
        for (int k = 0; k < N; k++)
            p[k / 128 * 64 + k % 64] |= (uint8_t)((q[k] & 15) << (k % 128 / 64 * 4));
        pack_pairs(q, 4, p + 128);
        memcpy(p + 192, scale, sizeof scale);
    }
}
