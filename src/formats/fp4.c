/*
 * MXFP4 and NVFP4: 4-bit floating-point values (E2M1: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their
 * negatives), read through a code book of doubled integers and scales that are halved.
 *
 *     MXFP4  32 values  e:1 nibbles:16   x = 2^(e-128) fp4_values[q]; byte j holds values j, j + 16
 *     NVFP4  64 values  s:4 nibbles:32   x = s[i/16]/2 fp4_values[q], s unsigned E4M3; byte j
 *                                        of 8 of a sub-block holds its values j, j + 8
 */
#include <float.h>
#include <math.h>

#include "formats/codecs.h"
#include "formats/fit.h"
#include "formats/iq_tables.h"

enum { MX_N = 32, MX_BYTES = 17, NV_N = 64, NV_SUB = 16, NV_BYTES = 36 };

FORMATS_DECODE(mxfp4)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += MX_N, p += MX_BYTES, dst += MX_N) {
        float d = e8m0_to_f32_half(p[0]);
        for (int j = 0; j < MX_N / 2; j++) {
            dst[j] = d * (float)fp4_values[p[1 + j] & 15];
            dst[j + MX_N / 2] = d * (float)fp4_values[p[1 + j] >> 4];
        }
    }
}

/* A grid's codes ascend with their levels; E2M1's 8 .. 15 are -0 and down. */
static uint8_t code_of(int q) { return (uint8_t)(q < 8 ? q + 8 : 15 - q); }
static int e2m1_of(uint8_t code) { return code < 8 ? 15 - code : code - 8; }

FORMATS_READ(mxfp4)
{
    out->d = e8m0_to_f32_half(block[0]);
    out->scale[0] = 1;
    for (int j = 0; j < MX_N; j++)
        out->code[j] = code_of(block[1 + j % (MX_N / 2)] >> (j / (MX_N / 2) * 4) & 15);
}

FORMATS_WRITE(mxfp4)
{
    int exponent;
    (void)frexpf(b->d, &exponent);
    block[0] = (uint8_t)(exponent + 127);
    memset(block + 1, 0, MX_N / 2);
    for (int j = 0; j < MX_N; j++)
        block[1 + j % (MX_N / 2)] |= (uint8_t)(e2m1_of(b->code[j]) << (j / (MX_N / 2) * 4));
}

FORMATS_DECODE(nvfp4)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += NV_N, p += NV_BYTES, dst += NV_N) {
        for (int s = 0; s < NV_N / NV_SUB; s++) {
            float d = ue4m3_to_f32(p[s]);
            for (int j = 0; j < NV_SUB / 2; j++) {
                uint8_t pair = p[4 + s * (NV_SUB / 2) + j];
                dst[s * NV_SUB + j] = d * (float)fp4_values[pair & 15];
                dst[s * NV_SUB + NV_SUB / 2 + j] = d * (float)fp4_values[pair >> 4];
            }
        }
    }
}

/* Where value j of a block has its four bits: the byte, and the bit of its lowest. */
static int nv_byte(int j) { return NV_N / NV_SUB + j / NV_SUB * (NV_SUB / 2) + j % (NV_SUB / 2); }
static int nv_bit(int j) { return j % NV_SUB / (NV_SUB / 2) * 4; }

FORMATS_READ(nvfp4)
{
    out->d = 1.0f;
    for (int s = 0; s < NV_N / NV_SUB; s++)
        out->scale[s] = (int8_t)(block[s] & 0x7f);
    for (int j = 0; j < NV_N; j++)
        out->code[j] = code_of(block[nv_byte(j)] >> nv_bit(j) & 15);
}

FORMATS_WRITE(nvfp4)
{
    memset(block, 0, NV_BYTES);
    for (int s = 0; s < NV_N / NV_SUB; s++)
        block[s] = (uint8_t)b->scale[s];
    for (int j = 0; j < NV_N; j++)
        block[nv_byte(j)] |= (uint8_t)(e2m1_of(b->code[j]) << nv_bit(j));
}

/* The code whose value times d is nearest to x, the first one on ties, and its distance. */
static uint8_t nearest_code(float x, float d, float *distance)
{
    uint8_t best = 0;
    *distance = fabsf(d * (float)fp4_values[0] - x);
    for (uint8_t k = 1; k < 16; k++) {
        float this_distance = fabsf(d * (float)fp4_values[k] - x);
        if (this_distance < *distance) {
            *distance = this_distance;
            best = k;
        }
    }
    return best;
}

/* Codes of n values for scale d; returns sum w (x - d code)^2, w NULL: ones. */
static float codes_for_scale(const float *x, const float *w, int n, float d, uint8_t *code)
{
    float error = 0.0f;
    for (int j = 0; j < n; j++) {
        float distance;
        code[j] = nearest_code(x[j], d, &distance);
        error += (w ? w[j] : 1.0f) * distance * distance;
    }
    return error;
}

/* Of the values with weight, or of all when there is none or w is NULL. */
static float largest_magnitude(const float *x, const float *w, int n)
{
    float largest = 0.0f;
    for (int j = 0; j < n; j++) {
        if ((!w || w[j] > 0.0f) && fabsf(x[j]) > largest)
            largest = fabsf(x[j]);
    }
    return w && largest == 0.0f ? largest_magnitude(x, NULL, n) : largest;
}

/* The exponent that the OCP text prescribes: the largest value lands in 4..8 of the code's 6. */
static uint8_t usual_exponent(const float *x, const float *w)
{
    float largest = largest_magnitude(x, w, MX_N);
    if (!(largest > 0.0f))
        return 0;
    float e = floorf(log2f(largest)) - 2.0f + 127.0f;
    return (uint8_t)(e > 0.0f ? e < 254.0f ? e : 254.0f : 0.0f);
}

FORMATS_ENCODE(mxfp4)
{
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i += MX_N, p += MX_BYTES) {
        const float *w = importance_at(importance, i);
        uint8_t code[MX_N], other[MX_N], e = usual_exponent(src + i, w);
        float error = codes_for_scale(src + i, w, MX_N, e8m0_to_f32_half(e), code);
        p[0] = e;
        for (int step = -1; w && step <= 1; step += 2) {
            int tried = e + step;
            if (tried < 0 || tried > 254)
                continue;
            float d = e8m0_to_f32_half((uint8_t)tried);
            float other_error = codes_for_scale(src + i, w, MX_N, d, other);
            if (other_error < error) {
                error = other_error;
                p[0] = (uint8_t)tried;
                memcpy(code, other, sizeof code);
            }
        }
        for (int j = 0; j < MX_N / 2; j++)
            p[1 + j] = (uint8_t)(code[j] | code[j + MX_N / 2] << 4);
    }
}

/* The largest E4M3 number (0..0x7e, ascending) whose decoded scale is at most d. */
static int ue4m3_below(float d)
{
    int lowest = 0, highest = 0x7e;
    while (lowest < highest) {
        int middle = (lowest + highest + 1) / 2;
        if (ue4m3_to_f32((uint8_t)middle) <= d)
            lowest = middle;
        else
            highest = middle - 1;
    }
    return lowest;
}

/* Scale and codes of one sub-block: the scales around the one that maps the largest value to 6. */
static uint8_t encode_sub_nvfp4(const float *x, const float *w, uint8_t code[NV_SUB])
{
    uint8_t tried[NV_SUB];
    float best_error = FLT_MAX;
    int best = 0, middle = ue4m3_below(largest_magnitude(x, w, NV_SUB) / 12.0f);
    memset(code, 0, NV_SUB);
    for (int s = middle - 2; s <= middle + 4; s++) {
        if (s < 0 || s > 0x7e)
            continue;
        float error = codes_for_scale(x, w, NV_SUB, ue4m3_to_f32((uint8_t)s), tried);
        if (error < best_error) {
            best_error = error;
            best = s;
            memcpy(code, tried, NV_SUB);
        }
    }
    return (uint8_t)best;
}

FORMATS_ENCODE(nvfp4)
{
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i += NV_SUB) {
        size_t s = i % NV_N / NV_SUB;
        uint8_t code[NV_SUB];
        p[s] = encode_sub_nvfp4(src + i, importance_at(importance, i), code);
        for (size_t j = 0; j < NV_SUB / 2; j++)
            p[4 + s * (NV_SUB / 2) + j] = (uint8_t)(code[j] | code[j + NV_SUB / 2] << 4);
        if (s == NV_N / NV_SUB - 1)
            p += NV_BYTES;
    }
}
