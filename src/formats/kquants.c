/*
 * Q2_K .. Q6_K, decode: super-blocks of 256 values in sub-blocks of 16 or 32, whose scales (and
 * minima) are small integers times one f16. kquants_encode.c writes them.
 *
 *     Q2_K   84 bytes  scales:16 pairs:64 d:2 dmin:2            16 sub-blocks of 16
 *            x = d (scale & 15) q - dmin (scale >> 4)
 *     Q3_K  110 bytes  high:32 pairs:64 scales:12 d:2           16 sub-blocks of 16
 *            x = d (scale - 32) (q - 4), bit 2 of q in high
 *     Q4_K  144 bytes  d:2 dmin:2 scales:12 nibbles:128         8 sub-blocks of 32
 *            x = d scale q - dmin min
 *     Q5_K  176 bytes  d:2 dmin:2 scales:12 high:32 nibbles:128 8 sub-blocks of 32, bit 4 in high
 *     Q6_K  210 bytes  nibbles:128 pairs:64 scales:16 d:2       16 sub-blocks of 16
 *            x = d scale (q - 32), scales are int8, bits 4 and 5 of q in the pairs
 *
 * Where value i lies (h = i / 128 the half, r = i % 128):
 *     pairs of Q2_K, Q3_K, Q6_K:  byte 32 h + r % 32, shift 2 (r / 32)
 *     nibbles of Q4_K, Q5_K:      byte 32 (i / 64) + i % 32, shift 4 (i / 32 % 2)
 *     nibbles of Q6_K:            byte 64 h + r % 64, shift 4 (r / 64)
 *     high bits of Q3_K, Q5_K:    byte i % 32, bit i / 32
 * Scales of Q3_K: low 4 bits of scale j in nibble j / 8 of byte j % 8, high 2 bits in pair j / 4 of
 * byte 8 + j % 4. Scales and minima of Q4_K and Q5_K: kquants_scale_min below.
 */
#include "formats/kquants.h"

#include "formats/codecs.h"

enum { N = FORMATS_SUPER };

void kquants_scale_min(const uint8_t packed[12], int j, int *scale, int *min)
{
    if (j < 4) {
        *scale = packed[j] & 63;
        *min = packed[j + 4] & 63;
    } else {
        *scale = (packed[j + 4] & 15) | packed[j - 4] >> 6 << 4;
        *min = packed[j + 4] >> 4 | packed[j] >> 6 << 4;
    }
}

/* The pairs of bits of all values; see the places above. */
static void unpack_pairs(const uint8_t *pairs, uint8_t q[N])
{
    for (int i = 0; i < N; i += 32) {
        const uint8_t *p = pairs + i / 128 * 32;
        for (int j = 0; j < 32; j++)
            q[i + j] = p[j] >> (i % 128 / 32 * 2) & 3;
    }
}

static void unpack_nibbles(const uint8_t *nibbles, uint8_t q[N])
{
    for (int i = 0; i < N; i += 32) {
        const uint8_t *p = nibbles + i / 64 * 32;
        for (int j = 0; j < 32; j++)
            q[i + j] = p[j] >> (i / 32 % 2 * 4) & 15;
    }
}

/* Adds the high bit of every value at bit position `bit`. */
static void unpack_high(const uint8_t *high, int bit, uint8_t q[N])
{
    for (int i = 0; i < N; i++)
        q[i] = (uint8_t)(q[i] | (high[i % 32] >> (i / 32) & 1) << bit);
}

FORMATS_DECODE(q2_k)
{
    uint8_t q[N];
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += N, p += 84, dst += N) {
        float d = load_f16(p + 80), dmin = load_f16(p + 82);
        unpack_pairs(p + 16, q);
        for (int k = 0; k < N; k++) {
            uint8_t scale = p[k / 16];
            dst[k] = d * (float)(scale & 15) * (float)q[k] - dmin * (float)(scale >> 4);
        }
    }
}

static int q3_k_scale(const uint8_t scales[12], int j)
{
    int low = scales[j % 8] >> (j / 8 * 4) & 15;
    int high = scales[8 + j % 4] >> (j / 4 * 2) & 3;
    return (low | high << 4) - 32;
}

FORMATS_DECODE(q3_k)
{
    uint8_t q[N];
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += N, p += 110, dst += N) {
        const uint8_t *scales = p + 96;
        float d = load_f16(p + 108);
        unpack_pairs(p + 32, q);
        unpack_high(p, 2, q);
        for (int k = 0; k < N; k++) {
            dst[k] = d * (float)q3_k_scale(scales, k / 16) * (float)(q[k] - 4);
        }
    }
}

/* Q4_K and Q5_K from the unpacked values on. */
static void decode_scale_min(const uint8_t *block, const uint8_t q[N], float *dst)
{
    float d = load_f16(block), dmin = load_f16(block + 2);
    for (int j = 0; j < N / 32; j++) {
        int scale, min;
        kquants_scale_min(block + 4, j, &scale, &min);
        float step = d * (float)scale, offset = dmin * (float)min;
        for (int k = 0; k < 32; k++)
            dst[32 * j + k] = step * (float)q[32 * j + k] - offset;
    }
}

FORMATS_DECODE(q4_k)
{
    uint8_t q[N];
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += N, p += 144, dst += N) {
        unpack_nibbles(p + 16, q);
        decode_scale_min(p, q, dst);
    }
}

FORMATS_DECODE(q5_k)
{
    uint8_t q[N];
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += N, p += 176, dst += N) {
        unpack_nibbles(p + 48, q);
        unpack_high(p + 16, 4, q);
        decode_scale_min(p, q, dst);
    }
}

/* The low four bits of value k. */
static int q6_k_low(const uint8_t *block, int k) { return block[k / 128 * 64 + k % 64] >> (k % 128 / 64 * 4) & 15; }

FORMATS_DECODE(q6_k)
{
    uint8_t q[N];
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += N, p += 210, dst += N) {
        float d = load_f16(p + 208);
        unpack_pairs(p + 128, q);
        for (int k = 0; k < N; k++) {
            float step = d * (float)(int8_t)p[192 + k / 16];
            dst[k] = step * (float)((q6_k_low(p, k) | q[k] << 4) - 32);
        }
    }
}

/* ---- the parts of a block ---- */

FORMATS_READ(q2_k)
{
    out->d = load_f16(block + 80);
    out->m = load_f16(block + 82);
    for (int j = 0; j < 16; j++) {
        out->scale[j] = (int8_t)(block[j] & 15);
        out->min[j] = block[j] >> 4;
    }
    unpack_pairs(block + 16, out->code);
}

FORMATS_READ(q3_k)
{
    out->d = load_f16(block + 108);
    for (int j = 0; j < 16; j++)
        out->scale[j] = (int8_t)q3_k_scale(block + 96, j);
    unpack_pairs(block + 32, out->code);
    unpack_high(block, 2, out->code);
}

static void read_scale_min(const uint8_t *block, grid_block *out)
{
    out->d = load_f16(block);
    out->m = load_f16(block + 2);
    for (int j = 0; j < N / 32; j++) {
        int scale, min;
        kquants_scale_min(block + 4, j, &scale, &min);
        out->scale[j] = (int8_t)scale;
        out->min[j] = (uint8_t)min;
    }
}

FORMATS_READ(q4_k)
{
    read_scale_min(block, out);
    unpack_nibbles(block + 16, out->code);
}

FORMATS_READ(q5_k)
{
    read_scale_min(block, out);
    unpack_nibbles(block + 48, out->code);
    unpack_high(block + 16, 4, out->code);
}

FORMATS_READ(q6_k)
{
    out->d = load_f16(block + 208);
    memcpy(out->scale, block + 192, 16);
    unpack_pairs(block + 128, out->code);
    for (int k = 0; k < N; k++)
        out->code[k] = (uint8_t)(q6_k_low(block, k) | out->code[k] << 4);
}
