/*
 * KV pages and attention over one page in AVX2. Each row of scores or of the accumulator is computed alike whatever the
 * number of rows: tiles only share the loads of K and V. Stores to pages are scalar's.
 */
#include <math.h>
#include <stdbool.h>

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
                                  _mm256_cvtph_ps(load_128(scales + 2 * ((size_t)(d / 32) * KV_PAGE + (size_t)j))));
            else
                v = page_floats(type, p, at);
            _mm256_storeu_ps(dst + at, v);
        }
    }
}

/* One token of V. */
static void load_v_row(dil_type type, const uint8_t *page, const uint8_t *scales, size_t row, int head_dim, float *dst)
{
    int d = 0;
    for (; d + 8 <= head_dim; d += 8) {
        size_t at = row * (size_t)head_dim + (size_t)d;
        __m256 v;
        if (type == DIL_TYPE_Q8_0)
            v = _mm256_mul_ps(page_bytes(page, at), _mm256_set1_ps(f16_to_f32(packed_u16(scales + 2 * (d / 32)))));
        else
            v = page_floats(type, page, at);
        _mm256_storeu_ps(dst + d, v);
    }
    for (; d < head_dim; d++) {
        size_t at = row * (size_t)head_dim + (size_t)d;
        dst[d] = type == DIL_TYPE_Q8_0 ? (float)(int8_t)page[at] * f16_to_f32(packed_u16(scales + 2 * (d / 32)))
                                       : page_float(type, page, at);
    }
}

static void kv_load_v(dil_type type, const void *page, int head_dim, int n_slots, float *dst, size_t v_stride)
{
    const uint8_t *p = page, *scales = p + (size_t)head_dim * KV_PAGE;
    size_t scale_bytes = (size_t)(head_dim + 31) / 32 * 2;
    for (int j = 0; j < round_up_16(n_slots); j++)
        load_v_row(type, p, scales + (size_t)j * scale_bytes, (size_t)j, head_dim, dst + (size_t)j * v_stride);
}

/* rows (constant) rows of scores, 16 slots from j. */
AVX2_INLINE void qk_tile(int rows, const float *q, size_t q_stride, const float *k, int head_dim, float *s, size_t s_stride)
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
        _mm256_storeu_ps(s + (size_t)i * s_stride, acc[i][0]);
        _mm256_storeu_ps(s + (size_t)i * s_stride + 8, acc[i][1]);
    }
}

static void attn_qk(const attn_page *a, const void *q, size_t q_stride, float *s, size_t s_stride)
{
    const float *k = a->page;
    if (a->type != DIL_TYPE_F32) {
        kv_load_k(a->type, a->page, a->head_dim, a->n_slots[a->n_rows - 1], a->scratch);
        k = a->scratch;
    }
    const float *rows = q;
    const size_t stride = q_stride / sizeof *rows;
    s += a->first_slot;
    for (int i = 0; i < a->n_rows;) {
        const int n = a->n_rows - i >= 4 ? 4 : 1;
        for (int j = 0; j < a->n_slots[i + n - 1]; j += 16) {
            if (n == 4)
                qk_tile(4, rows + (size_t)i * stride, stride, k + j, a->head_dim, s + (size_t)i * s_stride + j, s_stride);
            else
                qk_tile(1, rows + (size_t)i * stride, stride, k + j, a->head_dim, s + (size_t)i * s_stride + j, s_stride);
        }
        i += n;
    }
}

/* rows (constant) rows, vectors (constant) times 8 dims. */
AVX2_INLINE void pv_tile(int rows, int vectors, const float *p, size_t p_stride, const float *v, size_t v_stride, int n_slots,
                         float *acc, size_t acc_stride)
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
            __m256 weight = _mm256_broadcast_ss(p + (size_t)i * p_stride + j);
#pragma GCC unroll 4
            for (int c = 0; c < vectors; c++)
                sum[i][c] = _mm256_fmadd_ps(weight, _mm256_loadu_ps(v + 8 * c), sum[i][c]);
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int c = 0; c < vectors; c++)
            _mm256_storeu_ps(acc + (size_t)i * acc_stride + 8 * c, sum[i][c]);
}

/* rows (constant) rows of weights p against all of a page. */
AVX2_INLINE void pv_rows(int rows, const float *p, size_t p_stride, const float *v, int head_dim, int n_slots, float *acc,
                         size_t acc_stride)
{
    const size_t v_stride = (size_t)head_dim;
    int d = 0;
    for (; d + 32 <= head_dim; d += 32)
        pv_tile(rows, 4, p, p_stride, v + d, v_stride, n_slots, acc + d, acc_stride);
    for (; d + 8 <= head_dim; d += 8)
        pv_tile(rows, 1, p, p_stride, v + d, v_stride, n_slots, acc + d, acc_stride);
    for (int i = 0; i < rows; i++)
        for (int tail = d; tail < head_dim; tail++) {
            float *sum = acc + (size_t)i * acc_stride + tail;
            for (int j = 0; j < n_slots; j++)
                *sum = fmaf(p[(size_t)i * p_stride + (size_t)j], v[(size_t)j * v_stride + (size_t)tail], *sum);
        }
}

static void attn_pv(const attn_page *a, const float *p, size_t p_stride, float *acc, size_t acc_stride)
{
    const float *v = a->page;
    if (a->type != DIL_TYPE_F32) {
        kv_load_v(a->type, a->page, a->head_dim, a->n_slots[a->n_rows - 1], a->scratch, (size_t)a->head_dim);
        v = a->scratch;
    }
    p += a->first_slot;
    for (int i = 0; i < a->n_rows;) {
        const int n = a->n_rows - i >= 2 ? 2 : 1, n_slots = a->n_slots[i + n - 1];
        const float *weights = p + (size_t)i * p_stride;
        float *sums = acc + (size_t)i * acc_stride;
        if (n == 2)
            pv_rows(2, weights, p_stride, v, a->head_dim, n_slots, sums, acc_stride);
        else
            pv_rows(1, weights, p_stride, v, a->head_dim, n_slots, sums, acc_stride);
        i += n;
    }
}

/* Which of the 8 slots from j on are in [lo, hi). */
AVX2_INLINE __m256 valid_lanes(int j, int lo, int hi)
{
    __m256i slot = _mm256_add_epi32(_mm256_set1_epi32(j), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    __m256i below = _mm256_cmpgt_epi32(_mm256_set1_epi32(lo), slot);
    return _mm256_castsi256_ps(_mm256_andnot_si256(below, _mm256_cmpgt_epi32(_mm256_set1_epi32(hi), slot)));
}

static void attn_softmax(dil_type type, float *s, int lo, int hi, int n, float cap, float *m, float *l)
{
    (void)type;
    const __m256 minus = _mm256_set1_ps(-INFINITY);
    const int from = lo / 8 * 8, end = round_up_16(n);
    __m256 top = minus, sum = _mm256_setzero_ps();
    for (int j = from; j < hi; j += 8) {
        __m256 v = _mm256_loadu_ps(s + j);
        if (cap > 0.0f)
            v = _mm256_mul_ps(_mm256_set1_ps(cap), tanh_256(_mm256_div_ps(v, _mm256_set1_ps(cap))));
        v = _mm256_blendv_ps(minus, v, valid_lanes(j, lo, hi));
        _mm256_storeu_ps(s + j, v);
        top = _mm256_max_ps(v, top);
    }
    *m = hi > lo ? max_256(top) : -INFINITY;
    const bool none = *m == -INFINITY;
    int j = 0;
    for (; j < (none ? 0 : from); j += 8)
        _mm256_storeu_ps(s + j, _mm256_setzero_ps());
    for (; j < (none ? 0 : hi); j += 8) {
        __m256 e = exp_256(_mm256_sub_ps(_mm256_loadu_ps(s + j), _mm256_set1_ps(*m)));
        _mm256_storeu_ps(s + j, e);
        sum = _mm256_add_ps(sum, e);
    }
    for (; j < end; j += 8)
        _mm256_storeu_ps(s + j, _mm256_setzero_ps());
    *l = none ? 0.0f : sum_256(sum);
}

void avx2_add_attention(kernels *k)
{
    k->kv_load_k = kv_load_k;
    k->kv_load_v = kv_load_v;
    k->attn_qk = attn_qk;
    k->attn_pv = attn_pv;
    k->attn_softmax = attn_softmax;
}
