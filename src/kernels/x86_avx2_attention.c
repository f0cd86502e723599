/*
 * KV pages and attention over one page in AVX2. Each row of scores or of the accumulator is computed alike whatever the
 * number of rows: tiles only share the loads of K and V. Stores to pages are scalar's.
 */
#include <math.h>

#include "kernels/x86_avx2_math.h"

AVX2_INLINE int round_up_16(int n) { return (n + 15) / 16 * 16; }

AVX2_INLINE __m256 floats_of_bf16(const uint8_t *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_128(p)), 16));
}

/* Value `at` and the 7 after it of a page of floats. */
AVX2_INLINE __m256 page_floats(dil_type type, const uint8_t *page, size_t at)
{
    switch (type) {
    case DIL_TYPE_F32: return _mm256_loadu_ps((const float *)(const void *)(page + 4 * at));
    case DIL_TYPE_F16: return _mm256_cvtph_ps(load_128(page + 2 * at));
    default: return floats_of_bf16(page + 2 * at);
    }
}

AVX2_INLINE __m256 page_bytes(const uint8_t *page, size_t at)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_64(page + at)));
}

static float page_float(dil_type type, const uint8_t *page, size_t at)
{
    if (type == DIL_TYPE_F32) {
        float f;
        memcpy(&f, page + 4 * at, sizeof f);
        return f;
    }
    uint16_t h = packed_u16(page + 2 * at);
    return type == DIL_TYPE_F16 ? f16_to_f32(h) : bf16_to_f32(h);
}

static void kv_load_k(dil_type type, const void *page, int head_dim, int n_slots, float *dst)
{
    const uint8_t *p = page, *scales = p + (size_t)head_dim * KV_PAGE;
    int n = round_up_16(n_slots);
    for (int d = 0; d < head_dim; d++) {
        for (int j = 0; j < n; j += 8) {
            size_t at = (size_t)d * KV_PAGE + (size_t)j;
            __m256 v;
            if (type == DIL_TYPE_Q8_0)
                v = _mm256_mul_ps(page_bytes(p, at),
                                  _mm256_cvtph_ps(load_128(
                                      scales + 2 * ((size_t)(d / 32) * KV_PAGE + (size_t)j))));
            else
                v = page_floats(type, p, at);
            _mm256_storeu_ps(dst + at, v);
        }
    }
}

/* One token of V. */
static void load_v_row(dil_type type, const uint8_t *page, const uint8_t *scales, size_t row,
                       int head_dim, float *dst)
{
    int d = 0;
    for (; d + 8 <= head_dim; d += 8) {
        size_t at = row * (size_t)head_dim + (size_t)d;
        __m256 v;
        if (type == DIL_TYPE_Q8_0)
            v = _mm256_mul_ps(page_bytes(page, at),
                              _mm256_set1_ps(f16_to_f32(packed_u16(scales + 2 * (d / 32)))));
        else
            v = page_floats(type, page, at);
        _mm256_storeu_ps(dst + d, v);
    }
    for (; d < head_dim; d++) {
        size_t at = row * (size_t)head_dim + (size_t)d;
        dst[d] = type == DIL_TYPE_Q8_0
                     ? (float)(int8_t)page[at] * f16_to_f32(packed_u16(scales + 2 * (d / 32)))
                     : page_float(type, page, at);
    }
}

static void kv_load_v(dil_type type, const void *page, int head_dim, int n_slots, float *dst,
                      size_t v_stride)
{
    const uint8_t *p = page, *scales = p + (size_t)head_dim * KV_PAGE;
    size_t scale_bytes = (size_t)(head_dim + 31) / 32 * 2;
    for (int j = 0; j < round_up_16(n_slots); j++)
        load_v_row(type, p, scales + (size_t)j * scale_bytes, (size_t)j, head_dim,
                   dst + (size_t)j * v_stride);
}

/* rows (constant) rows of scores, 16 slots from j. */
AVX2_INLINE void qk_tile(int rows, const float *q, size_t q_stride, const float *k, int head_dim,
                         float scale, float *s)
{
    __m256 acc[4][2];
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++)
        acc[i][0] = acc[i][1] = _mm256_setzero_ps();
    for (int d = 0; d < head_dim; d++, k += KV_PAGE) {
        __m256 a = _mm256_loadu_ps(k), b = _mm256_loadu_ps(k + 8);
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++) {
            __m256 v = _mm256_broadcast_ss(q + (size_t)i * q_stride + d);
            acc[i][0] = _mm256_fmadd_ps(v, a, acc[i][0]);
            acc[i][1] = _mm256_fmadd_ps(v, b, acc[i][1]);
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++) {
        _mm256_storeu_ps(s + i * KV_PAGE, _mm256_mul_ps(_mm256_set1_ps(scale), acc[i][0]));
        _mm256_storeu_ps(s + i * KV_PAGE + 8, _mm256_mul_ps(_mm256_set1_ps(scale), acc[i][1]));
    }
}

static void attn_qk(const float *q, size_t q_stride, int n_q, const float *k, int head_dim,
                    int n_slots, float scale, float *s)
{
    for (int j = 0; j < n_slots; j += 16) {
        int i = 0;
        for (; i + 4 <= n_q; i += 4)
            qk_tile(4, q + (size_t)i * q_stride, q_stride, k + j, head_dim, scale,
                    s + i * KV_PAGE + j);
        for (; i < n_q; i++)
            qk_tile(1, q + (size_t)i * q_stride, q_stride, k + j, head_dim, scale,
                    s + i * KV_PAGE + j);
    }
}

/* rows (constant) rows, vectors (constant) times 8 dims. */
AVX2_INLINE void pv_tile(int rows, int vectors, const float *s, const float *v, size_t v_stride,
                         int n_slots, float *acc, size_t acc_stride)
{
    __m256 sum[4][4];
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int c = 0; c < vectors; c++)
            sum[i][c] = _mm256_loadu_ps(acc + (size_t)i * acc_stride + 8 * c);
    for (int j = 0; j < n_slots; j++, v += v_stride) {
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++) {
            __m256 p = _mm256_broadcast_ss(s + i * KV_PAGE + j);
#pragma GCC unroll 4
            for (int c = 0; c < vectors; c++)
                sum[i][c] = _mm256_fmadd_ps(p, _mm256_loadu_ps(v + 8 * c), sum[i][c]);
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int c = 0; c < vectors; c++)
            _mm256_storeu_ps(acc + (size_t)i * acc_stride + 8 * c, sum[i][c]);
}

/* The last head_dim % 8 dims. */
static void pv_tail(int n_q, const float *s, const float *v, size_t v_stride, int dims, int n_slots,
                    float *acc, size_t acc_stride)
{
    for (int i = 0; i < n_q; i++)
        for (int d = 0; d < dims; d++)
            for (int j = 0; j < n_slots; j++)
                acc[(size_t)i * acc_stride + (size_t)d] =
                    fmaf(s[i * KV_PAGE + j], v[(size_t)j * v_stride + (size_t)d],
                         acc[(size_t)i * acc_stride + (size_t)d]);
}

static void attn_pv(const float *s, int n_q, const float *v, size_t v_stride, int head_dim,
                    int n_slots, float *acc, size_t acc_stride)
{
    int d = 0;
    for (; d + 32 <= head_dim; d += 32) {
        int i = 0;
        for (; i + 2 <= n_q; i += 2)
            pv_tile(2, 4, s + i * KV_PAGE, v + d, v_stride, n_slots,
                    acc + (size_t)i * acc_stride + d, acc_stride);
        for (; i < n_q; i++)
            pv_tile(1, 4, s + i * KV_PAGE, v + d, v_stride, n_slots,
                    acc + (size_t)i * acc_stride + d, acc_stride);
    }
    for (; d + 8 <= head_dim; d += 8)
        for (int i = 0; i < n_q; i++)
            pv_tile(1, 1, s + i * KV_PAGE, v + d, v_stride, n_slots,
                    acc + (size_t)i * acc_stride + d, acc_stride);
    pv_tail(n_q, s, v + d, v_stride, head_dim - d, n_slots, acc + d, acc_stride);
}

/* Which of the 8 slots from j on are in [lo, hi). */
AVX2_INLINE __m256 valid_lanes(int j, int lo, int hi)
{
    __m256i slot =
        _mm256_add_epi32(_mm256_set1_epi32(j), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    __m256i below = _mm256_cmpgt_epi32(_mm256_set1_epi32(lo), slot);
    return _mm256_castsi256_ps(
        _mm256_andnot_si256(below, _mm256_cmpgt_epi32(_mm256_set1_epi32(hi), slot)));
}

static float attn_softmax(float *s, int lo, int hi, int n_slots, float cap, float *m, float *l)
{
    int n = round_up_16(n_slots);
    __m256 minus = _mm256_set1_ps(-INFINITY), top = minus;
    for (int j = 0; j < n; j += 8) {
        __m256 v = _mm256_loadu_ps(s + j);
        if (cap > 0.0f)
            v = _mm256_mul_ps(_mm256_set1_ps(cap), tanh_256(_mm256_div_ps(v, _mm256_set1_ps(cap))));
        v = _mm256_blendv_ps(minus, v, valid_lanes(j, lo, hi));
        _mm256_storeu_ps(s + j, v);
        top = _mm256_max_ps(v, top);
    }
    float max = max_256(top);
    max = max > *m ? max : *m;
    if (hi <= lo || max == -INFINITY) {
        for (int j = 0; j < n; j += 8)
            _mm256_storeu_ps(s + j, _mm256_setzero_ps());
        return 1.0f;
    }
    __m256 sum = _mm256_setzero_ps();
    for (int j = 0; j < n; j += 8) {
        __m256 e = exp_256(_mm256_sub_ps(_mm256_loadu_ps(s + j), _mm256_set1_ps(max)));
        _mm256_storeu_ps(s + j, e);
        sum = _mm256_add_ps(sum, e);
    }
    float factor = _mm256_cvtss_f32(exp_256(_mm256_set1_ps(*m - max)));
    *l = fmaf(*l, factor, sum_256(sum));
    *m = max;
    return factor;
}

void avx2_add_attention(kernels *k)
{
    k->kv_load_k = kv_load_k;
    k->kv_load_v = kv_load_v;
    k->attn_qk = attn_qk;
    k->attn_pv = attn_pv;
    k->attn_softmax = attn_softmax;
}
