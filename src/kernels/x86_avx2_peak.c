/* AVX2: what a core can do at most. One half of the 64 bytes after the other; FORGET makes the operands new in every round. */
#include "kernels/x86_avx2.h"

#define FORGET(p) __asm__("" : "+r"(p))

static uint32_t sum_lanes(__m256i v)
{
    uint32_t lane[8], sum = 0;
    _mm256_storeu_si256((__m256i_u *)lane, v);
    for (int i = 0; i < 8; i++)
        sum += lane[i];
    return sum;
}

/* One row of the tile, 32 of its 64 bytes: four chains of multiply-add, widen, add. */
static uint32_t int8_row(const uint8_t *a, const int8_t *b, int64_t rounds)
{
    __m256i ones = _mm256_set1_epi16(1), acc[PEAK_COLS] = {0};
    for (int64_t r = 0; r < rounds; r++) {
        FORGET(a);
        __m256i u = load_256(a);
#pragma GCC unroll 4
        for (int j = 0; j < PEAK_COLS; j++)
            acc[j] = _mm256_add_epi32(acc[j], _mm256_madd_epi16(_mm256_maddubs_epi16(u, load_256(b + 64 * j)), ones));
    }
    return sum_lanes(_mm256_add_epi32(_mm256_add_epi32(acc[0], acc[1]), _mm256_add_epi32(acc[2], acc[3])));
}

static uint32_t avx2_peak_int8(const uint8_t *a, const int8_t *b, int64_t rounds)
{
    uint32_t sum = 0;
    for (int i = 0; i < PEAK_ROWS; i++)
        for (int half = 0; half < 64; half += 32)
            sum += int8_row(a + 64 * i + half, b + half, rounds);
    return sum;
}

static __m256 f32_half(const float *a, const float *b, int64_t rounds)
{
    __m256 acc[PEAK_ROWS][PEAK_COLS] = {0}, sum = _mm256_setzero_ps();
    for (int64_t r = 0; r < rounds; r++) {
        FORGET(b);
        __m256 row[PEAK_ROWS] = {_mm256_loadu_ps(a), _mm256_loadu_ps(a + 16), _mm256_loadu_ps(a + 32)};
#pragma GCC unroll 4
        for (int j = 0; j < PEAK_COLS; j++) {
            __m256 col = _mm256_loadu_ps(b + 16 * j);
#pragma GCC unroll 3
            for (int i = 0; i < PEAK_ROWS; i++)
                acc[i][j] = _mm256_fmadd_ps(row[i], col, acc[i][j]);
        }
    }
    for (int i = 0; i < PEAK_ROWS; i++)
        for (int j = 0; j < PEAK_COLS; j++)
            sum = _mm256_add_ps(sum, acc[i][j]);
    return sum;
}

static float avx2_peak_f32(const float *a, const float *b, int64_t rounds)
{
    float lane[8], sum = 0.0f;
    for (int half = 0; half < 16; half += 8) {
        _mm256_storeu_ps(lane, f32_half(a + half, b + half, rounds));
        for (int i = 0; i < 8; i++)
            sum += lane[i];
    }
    return sum;
}

static uint64_t avx2_read_stream(const void *p, size_t n_bytes)
{
    const uint8_t *at = p, *end = at + n_bytes;
    __m256i all[8] = {0};
    uint64_t lane[4];
    for (; end - at >= 256; at += 256)
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++)
            all[i] = _mm256_xor_si256(all[i], load_256(at + 32 * i));
    for (; at < end; at += 32)
        all[0] = _mm256_xor_si256(all[0], load_256(at));
    for (int i = 1; i < 8; i++)
        all[0] = _mm256_xor_si256(all[0], all[i]);
    _mm256_storeu_si256((__m256i_u *)lane, all[0]);
    return lane[0] ^ lane[1] ^ lane[2] ^ lane[3];
}

void avx2_add_peak(kernels *k)
{
    k->peak_int8 = avx2_peak_int8;
    k->peak_f32 = avx2_peak_f32;
    k->read_stream = avx2_read_stream;
}
