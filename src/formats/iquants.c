/*
 * IQ1, IQ2 and IQ3 types, the decoders: super-blocks of 256 values whose magnitudes come in groups from a code book (iq_tables.h), with
 * signs and scales beside them. They are taken apart in iquants_parts.c and encoded in codebook_encode.c. All numbers little-endian; the
 * notation name:k[bits] means k numbers of that many bits.
 *
 *     IQ2_XXS d:f16, 8 times {index:4[8], word:32}: word = 4 sign indices of 7 bits, scale s of 4
 *             x = d (0.5 + s) / 4 * sign * grid; one s per 32 values
 *     IQ2_XS  d:f16, 32 times {index 9 bits, sign index 7 bits}, scales:16[4]; one s per 16 values
 *     IQ2_S   d:f16, index_low:32[8], signs:32[8] plain bits, index_high:32[2], scales:16[4]
 *     IQ3_XXS d:f16, index:64[8] (4 values each), 8 words as in IQ2_XXS; x = d (0.5 + s) / 2 * ...
 *     IQ3_S   d:f16, index_low:64[8], index_high:64[1], signs:32[8], scales:8[4]; x = d (1+2s) ...
 *     IQ1_S   d:f16, index_low:32[8], 8 words of 16 bits: 4 high index parts of 3 bits, s of 3
 *             bits, sign of the shift; x = d (2 s + 1) (grid + shift), shift = +-1/8; one s per 32 values
 *     IQ1_M   index_low:32[8], 32 times {index_high 3 bits, sign of the shift}, 4 words of 16 bits:
 *             4 scales of 3 bits (one per 16 values) and in the top 4 bits a quarter of the f16 d
 */
#include "formats/codecs.h"
#include "formats/iq_tables.h"

enum { N = FORMATS_SUPER };

#define IQ1_SHIFT 0.125f

static float sign_of(unsigned bits, int k) { return bits >> k & 1 ? -1.0f : 1.0f; }

static float grid_value(uint64_t entry, int k) { return (float)(int8_t)(entry >> (8 * k) & 255); }

/* dst[k] = d grid[k] sign[k] for a group of 8 or 4. */
static void decode_group(uint64_t entry, int count, unsigned signs, float d, float *dst)
{
    for (int k = 0; k < count; k++)
        dst[k] = d * grid_value(entry, k) * sign_of(signs, k);
}

/* dst[k] = d (grid[k] + shift) */
static void decode_shifted(uint64_t entry, float shift, float d, float *dst)
{
    for (int k = 0; k < 8; k++)
        dst[k] = d * (grid_value(entry, k) + shift);
}

/* The j-th number of 4 bits, low nibble first. */
static unsigned nibble_at(const uint8_t *p, int j) { return (unsigned)p[j / 2] >> (j % 2 * 4) & 15; }

FORMATS_DECODE(iq2_xxs)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += N, p += 66, dst += N) {
        float d = load_f16(p);
        for (int group = 0; group < 32; group++) {
            const uint8_t *part = p + 2 + group / 4 * 8;
            uint32_t word = load_u32(part + 4);
            float scale = d * (0.5f + (float)(word >> 28)) * 0.25f;
            unsigned signs = iq_signs[word >> (group % 4 * 7) & 127];
            decode_group(iq2_xxs_grid[part[group % 4]], 8, signs, scale, dst + group * 8);
        }
    }
}

FORMATS_DECODE(iq2_xs)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += N, p += 74, dst += N) {
        float d = load_f16(p);
        for (int group = 0; group < 32; group++) {
            unsigned both = load_u16(p + 2 + 2 * group);
            float scale = d * (0.5f + (float)nibble_at(p + 66, group / 2)) * 0.25f;
            decode_group(iq2_xs_grid[both & 511], 8, iq_signs[both >> 9], scale, dst + group * 8);
        }
    }
}

FORMATS_DECODE(iq2_s)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += N, p += 82, dst += N) {
        float d = load_f16(p);
        for (int group = 0; group < 32; group++) {
            unsigned high = (unsigned)p[66 + group / 4] >> (group % 4 * 2) & 3;
            unsigned index = p[2 + group] | high << 8;
            float scale = d * (0.5f + (float)nibble_at(p + 74, group / 2)) * 0.25f;
            decode_group(iq2_s_grid[index], 8, p[34 + group], scale, dst + group * 8);
        }
    }
}

FORMATS_DECODE(iq3_xxs)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += N, p += 98, dst += N) {
        float d = load_f16(p);
        for (int group = 0; group < 64; group++) { /* of 4 values */
            uint32_t word = load_u32(p + 66 + group / 8 * 4);
            float scale = d * (0.5f + (float)(word >> 28)) * 0.5f;
            unsigned signs = iq_signs[word >> (group / 2 % 4 * 7) & 127];
            signs >>= group % 2 * 4;
            decode_group(iq3_xxs_grid[p[2 + group]], 4, signs, scale, dst + group * 4);
        }
    }
}

FORMATS_DECODE(iq3_s)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += N, p += 110, dst += N) {
        float d = load_f16(p);
        for (int group = 0; group < 64; group++) { /* of 4 values */
            unsigned index = p[2 + group] | ((unsigned)p[66 + group / 8] >> (group % 8) & 1) << 8;
            float scale = d * (float)(1 + 2 * nibble_at(p + 106, group / 8));
            unsigned signs = (unsigned)p[74 + group / 2] >> (group % 2 * 4);
            decode_group(iq3_s_grid[index], 4, signs, scale, dst + group * 4);
        }
    }
}

FORMATS_DECODE(iq1_s)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += N, p += 50, dst += N) {
        float d = load_f16(p);
        for (int group = 0; group < 32; group++) {
            unsigned word = load_u16(p + 34 + group / 4 * 2);
            unsigned index = p[2 + group] | (word >> (group % 4 * 3) & 7) << 8;
            float scale = d * (float)(2 * (word >> 12 & 7) + 1);
            float shift = word & 0x8000u ? -IQ1_SHIFT : IQ1_SHIFT;
            decode_shifted(iq1_grid[index], shift, scale, dst + group * 8);
        }
    }
}

/* The f16 scale of IQ1_M: the top nibbles of the four scale words, lowest first. */
static float iq1_m_scale(const uint8_t *scales)
{
    unsigned h = 0;
    for (int k = 0; k < 4; k++)
        h |= (unsigned)(load_u16(scales + 2 * k) >> 12) << (4 * k);
    return f16_to_f32((uint16_t)h);
}

FORMATS_DECODE(iq1_m)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += N, p += 56, dst += N) {
        const uint8_t *scales = p + 48;
        float d = iq1_m_scale(scales);
        for (int group = 0; group < 32; group++) {
            unsigned high = nibble_at(p + 32, group);
            unsigned index = p[group] | (high & 7) << 8;
            unsigned s = (unsigned)load_u16(scales + group / 8 * 2) >> (group / 2 % 4 * 3) & 7;
            float shift = high & 8 ? -IQ1_SHIFT : IQ1_SHIFT;
            decode_shifted(iq1_grid[index], shift, d * (float)(2 * s + 1), dst + group * 8);
        }
    }
}
