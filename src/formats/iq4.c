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

/* Indices of levels that are in the code book. */
static void find_codes(const int8_t *level, int n, uint8_t *code)
{
    for (int i = 0; i < n; i++) {
        code[i] = 0;
        for (int k = 0; k < 16; k++)
            code[i] = (uint8_t)(code[i] + (iq4_values[k] < level[i]));
    }
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

static void read_32(const uint8_t *nibbles, uint8_t *code)
{
    for (int j = 0; j < N / 2; j++) {
        code[j] = nibbles[j] & 15;
        code[j + N / 2] = nibbles[j] >> 4;
    }
}

static void write_32(const uint8_t *code, uint8_t *nibbles)
{
    for (int j = 0; j < N / 2; j++)
        nibbles[j] = (uint8_t)(code[j] | code[j + N / 2] << 4);
}

FORMATS_READ(iq4_nl)
{
    out->d = load_f16(block);
    out->scale[0] = 1;
    read_32(block + 2, out->code);
}

FORMATS_WRITE(iq4_nl)
{
    (void)store_f16(block, b->d);
    write_32(b->code, block + 2);
}

FORMATS_READ(iq4_xs)
{
    unsigned high = load_u16(block + 2);
    out->d = load_f16(block);
    for (int j = 0; j < SUPER / N; j++) {
        unsigned low = (unsigned)block[4 + j / 2] >> (j % 2 * 4) & 15;
        out->scale[j] = (int8_t)((int)(low | (high >> (2 * j) & 3) << 4) - 32);
        read_32(block + 8 + 16 * j, out->code + N * j);
    }
}

FORMATS_WRITE(iq4_xs)
{
    unsigned high = 0;
    (void)store_f16(block, b->d);
    memset(block + 4, 0, 4);
    for (int j = 0; j < SUPER / N; j++) {
        unsigned s = (unsigned)(b->scale[j] + 32);
        high |= (s >> 4) << (2 * j);
        block[4 + j / 2] |= (uint8_t)((s & 15) << (j % 2 * 4));
        write_32(b->code + N * j, block + 8 + 16 * j);
    }
    store_u16(block + 2, (uint16_t)high);
}

FORMATS_ENCODE(iq4_nl)
{
    float w[N];
    int8_t level[N];
    grid_block b;
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i += N, p += NL_BYTES) {
        uint8_t stored[2];
        fit_weights(importance_at(importance, i), N, w);
        b.d = store_f16(stored, fit_scale(book_levels, src + i, w, N, level));
        fit_round_all(book_levels, src + i, N, fit_inverse(b.d), level);
        find_codes(level, N, b.code);
        format_write_iq4_nl(&b, p);
    }
}

FORMATS_ENCODE(iq4_xs)
{
    int8_t level[SUPER];
    grid_block b;
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i += SUPER, p += XS_BYTES) {
        uint8_t stored[2];
        fit_super_scale(book_levels, N, 32, src + i, importance_at(importance, i), stored, b.scale, level);
        b.d = load_f16(stored);
        find_codes(level, SUPER, b.code);
        format_write_iq4_xs(&b, p);
    }
}
