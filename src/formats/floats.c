/*
 * F32, F16, BF16 rows, and the scalar conversions between small floating-point formats. Everything
 * is done on bits, so that results do not depend on the machine: ties go to even, NaN stays NaN
 * (made quiet, its upper payload bits kept, as the F16C instructions do).
 *
 *     F32  s eeeeeeee mmmmmmmmmmmmmmmmmmmmmmm    value = (-1)^s 2^(e-127) 1.m
 *     BF16 s eeeeeeee mmmmmmm                    the upper half of an F32
 *     F16  s eeeee mmmmmmmmmm                    value = (-1)^s 2^(e-15) 1.m
 */
#include "formats/codecs.h"

static inline float float_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t bits_of_float(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, magnitude = h & 0x7fffu;
    if (magnitude > 0x7c00u) /* NaN */
        return float_of_bits(sign | 0x7fc00000u | magnitude << 13);
    if (magnitude == 0x7c00u)
        return float_of_bits(sign | 0x7f800000u);
    if (magnitude >= 0x0400u) /* normal: the exponent bias grows by 127 - 15 */
        return float_of_bits(sign | ((magnitude << 13) + (112u << 23)));
    /* Zero and subnormals are m 2^-24, a normal F32. */
    return float_of_bits(sign | bits_of_float((float)magnitude * 0x1p-24f));
}

uint16_t f32_to_f16(float f)
{
    uint32_t bits = bits_of_float(f);
    uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) /* NaN */
        return (uint16_t)(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu));
    if (magnitude >= 0x477ff000u) /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) {
        /* Below 2^-14. In [0.5, 1) the last bit of an F32 is worth 2^-24, which is the unit of F16
         * subnormals: adding 0.5 rounds to that unit. */
        float shifted = float_of_bits(magnitude) + 0.5f;
        return (uint16_t)(sign | (bits_of_float(shifted) - 0x3f000000u));
    }
    uint32_t rounded = magnitude - (112u << 23) + 0x0fffu + (magnitude >> 13 & 1u);
    return (uint16_t)(sign | rounded >> 13);
}

float bf16_to_f32(uint16_t h) { return float_of_bits((uint32_t)h << 16); }

uint16_t f32_to_bf16(float f)
{
    uint32_t bits = bits_of_float(f);
    if ((bits & 0x7fffffffu) > 0x7f800000u) /* NaN: rounding could carry it to infinity */
        return (uint16_t)(bits >> 16 | 0x0040u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

float e8m0_to_f32_half(uint8_t e)
{
    /* 2^(e-128) is subnormal for e < 2. 255, NaN in the OCP text, is read as 2^127 in GGUF. */
    return float_of_bits(e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23);
}

float ue4m3_to_f32(uint8_t e)
{
    /* Bits -eeeemmm: the top bit is not looked at. Halved, because the FP4 code book is doubled. */
    int exponent = e >> 3 & 15, mantissa = e & 7;
    if (e == 0x7f) /* the NaN of E4M3 */
        return 0.0f;
    if (exponent == 0)
        return (float)mantissa * 0x1p-10f;
    /* (1 + m/8) 2^(e-7) / 2 = (8 + m) 2^(e-11) */
    return (float)(8 + mantissa) * float_of_bits((uint32_t)(exponent - 11 + 127) << 23);
}

FORMATS_DECODE(f32) { memcpy(dst, src, n * sizeof *dst); }

FORMATS_ENCODE(f32)
{
    (void)importance;
    memcpy(dst, src, n * sizeof *src);
}

FORMATS_DECODE(f16)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i++)
        dst[i] = load_f16(p + 2 * i);
}

FORMATS_ENCODE(f16)
{
    (void)importance;
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i++)
        store_u16(p + 2 * i, f32_to_f16(src[i]));
}

FORMATS_DECODE(bf16)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i++)
        dst[i] = bf16_to_f32(load_u16(p + 2 * i));
}

FORMATS_ENCODE(bf16)
{
    (void)importance;
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i++)
        store_u16(p + 2 * i, f32_to_bf16(src[i]));
}
