/* AVX-512: what a core can do at most. Twelve independent chains cover the latency of the dot products. */
#include "kernels/x86_avx512.h"

#define FORGET(p) __asm__("" : "+r"(p))

static uint32_t avx512_peak_int8(const uint8_t *a, const int8_t *b, int64_t rounds)
{
    __m512i acc[PEAK_ROWS][PEAK_COLS] = {0}, sum = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (int64_t r = 0; r < rounds; r++) {
        __m512i row[PEAK_ROWS] = {_mm512_loadu_si512(a), _mm512_loadu_si512(a + 64), _mm512_loadu_si512(a + 128)};
#pragma GCC unroll 4
        for (int j = 0; j < PEAK_COLS; j++) {
            __m512i col = _mm512_loadu_si512(b + 64 * j);
#pragma GCC unroll 3
            for (int i = 0; i < PEAK_ROWS; i++)
                acc[i][j] = _mm512_dpbusd_epi32(acc[i][j], row[i], col);
        }
        FORGET(b);
    }
    for (int i = 0; i < PEAK_ROWS; i++)
        for (int j = 0; j < PEAK_COLS; j++)
            sum = _mm512_add_epi32(sum, acc[i][j]);
    uint32_t lanes[16], total = 0; /* unsigned: the sum may wrap */
    _mm512_storeu_si512(lanes, sum);
    for (int i = 0; i < 16; i++)
        total += lanes[i];
    return total;
}

static float avx512_peak_f32(const float *a, const float *b, int64_t rounds)
{
    __m512 acc[PEAK_ROWS][PEAK_COLS] = {0}, sum = _mm512_setzero_ps();
#pragma GCC unroll 4
    for (int64_t r = 0; r < rounds; r++) {
        __m512 row[PEAK_ROWS] = {_mm512_loadu_ps(a), _mm512_loadu_ps(a + 16), _mm512_loadu_ps(a + 32)};
#pragma GCC unroll 4
        for (int j = 0; j < PEAK_COLS; j++) {
            __m512 col = _mm512_loadu_ps(b + 16 * j);
#pragma GCC unroll 3
            for (int i = 0; i < PEAK_ROWS; i++)
                acc[i][j] = _mm512_fmadd_ps(row[i], col, acc[i][j]);
        }
        FORGET(b);
    }
    for (int i = 0; i < PEAK_ROWS; i++)
        for (int j = 0; j < PEAK_COLS; j++)
            sum = _mm512_add_ps(sum, acc[i][j]);
    return _mm512_reduce_add_ps(sum);
}

static uint64_t avx512_read_stream(const void *p, size_t n_bytes)
{
    const uint8_t *at = p, *end = at + n_bytes;
    __m512i all[8] = {0};
    uint64_t lane[8], word = 0;
    for (; end - at >= 512; at += 512)
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++)
            all[i] = _mm512_xor_si512(all[i], _mm512_loadu_si512(at + 64 * i));
    for (; at < end; at += 64)
        all[0] = _mm512_xor_si512(all[0], _mm512_loadu_si512(at));
    for (int i = 1; i < 8; i++)
        all[0] = _mm512_xor_si512(all[0], all[i]);
    _mm512_storeu_si512(lane, all[0]);
    for (int i = 0; i < 8; i++)
        word ^= lane[i];
    return word;
}

void avx512_add_peak(kernels *k)
{
    k->peak_int8 = avx512_peak_int8;
    k->peak_f32 = avx512_peak_f32;
    k->read_stream = avx512_read_stream;
}
