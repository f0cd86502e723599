/* Scalar: what a core can do at most. The empty asm makes the operands new in every round, so that nothing is computed once. */
#include <string.h>

#include "kernels/scalar.h"

#define FORGET(p) __asm__("" : "+r"(p))

static uint32_t scalar_peak_int8(const uint8_t *a, const int8_t *b, int64_t rounds)
{
    uint32_t sum = 0;
    for (int64_t r = 0; r < rounds; r++) {
        FORGET(a);
        for (int i = 0; i < PEAK_ROWS; i++)
            for (int j = 0; j < PEAK_COLS; j++) {
                int32_t dot = 0;
                for (int k = 0; k < 64; k++)
                    dot += a[64 * i + k] * b[64 * j + k];
                sum += (uint32_t)dot;
            }
    }
    return sum;
}

static float scalar_peak_f32(const float *a, const float *b, int64_t rounds)
{
    float acc[PEAK_ROWS][PEAK_COLS][16] = {0}, sum = 0.0f;
    for (int64_t r = 0; r < rounds; r++) {
        FORGET(a);
        for (int i = 0; i < PEAK_ROWS; i++)
            for (int j = 0; j < PEAK_COLS; j++)
                for (int k = 0; k < 16; k++)
                    acc[i][j][k] += a[16 * i + k] * b[16 * j + k];
    }
    for (int i = 0; i < PEAK_ROWS; i++)
        for (int j = 0; j < PEAK_COLS; j++)
            for (int k = 0; k < 16; k++)
                sum += acc[i][j][k];
    return sum;
}

static float from_bf16(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static float scalar_peak_bf16(const uint16_t *a, const uint16_t *b, int64_t rounds)
{
    float sum = 0.0f;
    for (int64_t r = 0; r < rounds; r++) {
        FORGET(a);
        for (int i = 0; i < PEAK_ROWS; i++)
            for (int j = 0; j < PEAK_COLS; j++)
                for (int k = 0; k < 32; k++)
                    sum += from_bf16(a[32 * i + k]) * from_bf16(b[32 * j + k]);
    }
    return sum;
}

static uint64_t scalar_read_stream(const void *p, size_t n_bytes)
{
    const uint64_t *word = p;
    uint64_t all = 0;
    for (size_t i = 0; i < n_bytes / 8; i++)
        all ^= word[i];
    return all;
}

void scalar_add_peak(kernels *k)
{
    k->peak_int8 = scalar_peak_int8;
    k->peak_bf16 = scalar_peak_bf16;
    k->peak_f32 = scalar_peak_f32;
    k->read_stream = scalar_read_stream;
}
