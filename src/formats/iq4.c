/*
 * IQ4_NL and IQ4_XS: 4-bit indices into the 16 values of iq4_values, finer near 0.
 *
 *     IQ4_NL   32 values  d:2 nibbles:16                            x = d value[q]
 *     IQ4_XS  256 values  d:2 scales_high:2 scales_low:4 nibbles:128
 *             x = d (s - 32) value[q], one s of 6 bits per 32 values: its low 4 bits in nibble j of
 *             scales_low, its high 2 bits in pair j of scales_high
 *
 * In each 32 values byte j of 16 holds value j in its low and value j + 16 in its high nibble.
 */
#include "formats/codecs.h"
#include "formats/fit.h"
#include "formats/iq_tables.h"

enum { N = 32, SUPER = FORMATS_SUPER, NL_BYTES = 18, XS_BYTES = 136 };

static const fit_levels book_levels = {-127, 113, 23, iq4_nearest};

static void decode_32(const uint8_t *nibbles, float d, float *dst)
{
    for (int j = 0; j < N / 2; j++) {
        dst[j] = d * (float)iq4_values[nibbles[j] & 15];
        dst[j + N / 2] = d * (float)iq4_values[nibbles[j] >> 4];
    }
}

/* The index of a level that is in the code book. */
static unsigned index_of(int8_t level)
{
    unsigned below = 0;
    for (int k = 0; k < 16; k++)
        below += iq4_values[k] < level;
    return below;
}

static void pack_32(const int8_t *level, uint8_t *nibbles)
{
    for (int j = 0; j < N / 2; j++)
        nibbles[j] = (uint8_t)(index_of(level[j]) | index_of(level[j + N / 2]) << 4);
}

FORMATS_DECODE(iq4_nl)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += N, p += NL_BYTES, dst += N)
        decode_32(p + 2, load_f16(p), dst);
}

FORMATS_DECODE(iq4_xs)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += SUPER, p += XS_BYTES, dst += SUPER) {
        float d = load_f16(p);
        unsigned high = load_u16(p + 2);
        for (int j = 0; j < SUPER / N; j++) {
            unsigned low = (unsigned)p[4 + j / 2] >> (j % 2 * 4) & 15;
            int s = (int)(low | (high >> (2 * j) & 3) << 4) - 32;
            decode_32(p + 8 + 16 * j, d * (float)s, dst + N * j);
        }
    }
}

FORMATS_ENCODE(iq4_nl)
{
    float w[N];
    int8_t level[N];
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i += N, p += NL_BYTES) {
        fit_weights(importance_at(importance, i), N, w);
        float d = store_f16(p, fit_scale(book_levels, src + i, w, N, level));
        fit_round_all(book_levels, src + i, N, fit_inverse(d), level);
        pack_32(level, p + 2);
    }
}

FORMATS_ENCODE(iq4_xs)
{
    int8_t scale[SUPER / N], level[SUPER];
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i += SUPER, p += XS_BYTES) {
        unsigned high = 0;
        fit_super_scale(book_levels, N, 32, src + i, importance_at(importance, i), p, scale, level);
        memset(p + 4, 0, 4);
        for (int j = 0; j < SUPER / N; j++) {
            unsigned s = (unsigned)(scale[j] + 32);
            high |= (s >> 4) << (2 * j);
            p[4 + j / 2] |= (uint8_t)((s & 15) << (j % 2 * 4));
            pack_32(level + N * j, p + 8 + 16 * j);
        }
        store_u16(p + 2, (uint16_t)high);
    }
}
