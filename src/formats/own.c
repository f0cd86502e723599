/*
 * D3_0 and D6_0: formats of our own for rows that are no multiple of 256, where GGUF has nothing of 3 and of 6 bits. Blocks of 32 values
 * with one f16 scale d; value i has its low bits at shift 2 (i % 4) of byte i / 4 (D3_0), or in the nibbles of Q4_0 (D6_0).
 *
 *     D3_0  d:2 pairs:8 high:4        x = d (q - 4)     bit i of high: the third bit of value i
 *     D6_0  d:2 nibbles:16 high:8     x = d (q - 32)    pairs of bits, as D3_0's low ones
 *
 * Encoders search for the scale.
 */
#include "formats/codecs.h"
#include "formats/fit.h"

enum { N = 32, D3_BYTES = 14, D6_BYTES = 26 };

static unsigned pair_at(const uint8_t *p, int i) { return p[i / 4] >> i % 4 * 2 & 3u; }

static void put_pairs(const uint8_t q[N], int shift, uint8_t *p)
{
    memset(p, 0, N / 4);
    for (int i = 0; i < N; i++)
        p[i / 4] = (uint8_t)(p[i / 4] | (q[i] >> shift & 3) << i % 4 * 2);
}

static void codes_d3(const uint8_t *p, uint8_t q[N])
{
    uint32_t high = load_u32(p + 10);
    for (int i = 0; i < N; i++)
        q[i] = (uint8_t)(pair_at(p + 2, i) | (high >> i & 1) << 2);
}

static void codes_d6(const uint8_t *p, uint8_t q[N])
{
    for (int i = 0; i < N; i++) {
        unsigned low = i < N / 2 ? p[2 + i] & 15u : (unsigned)p[2 + i - N / 2] >> 4;
        q[i] = (uint8_t)(low | pair_at(p + 18, i) << 4);
    }
}

static void decode(const uint8_t *p, float *dst, size_t n, size_t block_bytes, void (*codes)(const uint8_t *, uint8_t *), int half)
{
    uint8_t q[N];
    for (size_t i = 0; i < n; i += N, p += block_bytes, dst += N) {
        float d = load_f16(p);
        codes(p, q);
        for (int j = 0; j < N; j++)
            dst[j] = d * (float)(q[j] - half);
    }
}

FORMATS_DECODE(d3_0) { decode(src, dst, n, D3_BYTES, codes_d3, 4); }
FORMATS_DECODE(d6_0) { decode(src, dst, n, D6_BYTES, codes_d6, 32); }

/* The block of one scale and codes 0 .. 2 half - 1 that is near to x. */
static grid_block fitted(const float *x, const float *importance, int half)
{
    float w[N];
    int8_t level[N];
    uint8_t stored[2];
    grid_block b = {0};
    fit_levels levels = {-half, half - 1, 1, NULL};
    fit_weights(importance, N, w);
    b.d = store_f16(stored, fit_scale(levels, x, w, N, level));
    fit_round_all(levels, x, N, fit_inverse(b.d), level);
    for (int j = 0; j < N; j++)
        b.code[j] = (uint8_t)(level[j] + half);
    return b;
}

FORMATS_ENCODE(d3_0)
{
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i += N, p += D3_BYTES) {
        grid_block b = fitted(src + i, importance_at(importance, i), 4);
        format_write_d3_0(&b, p);
    }
}

FORMATS_ENCODE(d6_0)
{
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i += N, p += D6_BYTES) {
        grid_block b = fitted(src + i, importance_at(importance, i), 32);
        format_write_d6_0(&b, p);
    }
}

/* ---- the parts of a block ---- */

FORMATS_READ(d3_0)
{
    out->d = load_f16(block);
    out->scale[0] = 1;
    codes_d3(block, out->code);
}

FORMATS_WRITE(d3_0)
{
    uint32_t high = 0;
    (void)store_f16(block, b->d);
    put_pairs(b->code, 0, block + 2);
    for (int i = 0; i < N; i++)
        high |= (uint32_t)(b->code[i] >> 2 & 1) << i;
    memcpy(block + 10, &high, sizeof high);
}

FORMATS_READ(d6_0)
{
    out->d = load_f16(block);
    out->scale[0] = 1;
    codes_d6(block, out->code);
}

FORMATS_WRITE(d6_0)
{
    (void)store_f16(block, b->d);
    for (int i = 0; i < N / 2; i++)
        block[2 + i] = (uint8_t)((b->code[i] & 15) | (b->code[i + N / 2] & 15) << 4);
    put_pairs(b->code, 4, block + 18);
}
