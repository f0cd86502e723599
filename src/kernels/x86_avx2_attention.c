/*
 * KV pages and attention over one page in AVX2. Each row of scores or of the accumulator is computed alike whatever the
 * number of rows: tiles only share the loads of K and V. Stores to pages are scalar's, but for Q4_0.
 */
#include <math.h>
#include <stdbool.h>

#include "kernels/kv_page.h"
#include "kernels/scalar.h"
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

/* The scales of 8 slots of K. */
AVX2_INLINE __m256 page_scales(const uint8_t *scales, size_t at) { return _mm256_cvtph_ps(load_128(scales + 2 * at)); }

/* u - 8 of the lowest nibbles of 8 lanes. */
AVX2_INLINE __m256 nibble_values(__m256i u)
{
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_and_si256(u, _mm256_set1_epi32(15)), _mm256_set1_epi32(8)));
}

/* Dim d of the slots j .. j + 7 of a quantized page of K, without scales. */
AVX2_INLINE __m256 k_values(dil_type type, const uint8_t *page, int d, int j)
{
    if (type == DIL_TYPE_Q8_0)
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_64(page + (size_t)d * KV_PAGE + (size_t)j)));
    const __m256i both = _mm256_cvtepu8_epi32(load_64(page + (size_t)(d / 2) * KV_PAGE + (size_t)j));
    return nibble_values(_mm256_srl_epi32(both, _mm_cvtsi32_si128(d % 2 * 4)));
}

/* Dims d .. d + 7 of a token of V that begins at p, without scales. */
AVX2_INLINE __m256 v_values(dil_type type, const uint8_t *p, int d)
{
    if (type == DIL_TYPE_Q8_0)
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_64(p + d)));
    const __m256i all = _mm256_set1_epi32((int)packed_u32(p + d / 2)); /* dim d + i in bits 4i .. 4i + 3 */
    return nibble_values(_mm256_srlv_epi32(all, _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28)));
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

/* ---- pages ---- */

/* Y of a block of Q4_0 as int16, zeros behind its n values; returns m. */
AVX2_INLINE float fine_grid(const float *f, int n, __m256i fine[2])
{
    __m256 v[4], low = _mm256_setzero_ps(), top = low;
    for (int i = 0; i < 4; i++) {
        const int lanes = n - 8 * i;
        v[i] = _mm256_maskload_ps(f + 8 * i, first_lanes(lanes < 0 ? 0 : lanes < 8 ? lanes : 8));
        low = _mm256_min_ps(v[i], low); /* the second operand where one is NaN */
        top = _mm256_max_ps(v[i], top);
    }
    const float least = -max_256(_mm256_sub_ps(_mm256_setzero_ps(), low)), most = max_256(top);
    const float m = most > -least ? most : least, factor = -16384.0f / m;
    const __m256 by = _mm256_set1_ps(factor);
    for (int i = 0; i < 4; i++) {
        const __m256 y = _mm256_mul_ps(v[i], by);
        v[i] = _mm256_and_ps(y, _mm256_cmp_ps(y, y, _CMP_ORD_Q));
    }
    for (int i = 0; i < 2; i++) {
        const __m256i y = _mm256_packs_epi32(_mm256_cvtps_epi32(v[2 * i]), _mm256_cvtps_epi32(v[2 * i + 1]));
        fine[i] = fabsf(factor) <= 3.0e38f ? _mm256_permute4x64_epi64(y, 0xd8) : _mm256_setzero_si256();
    }
    return m;
}

AVX2_INLINE __m256i on_grid(__m256i fine, int c)
{
    const __m256i q = _mm256_mulhrs_epi16(fine, _mm256_set1_epi16((short)(17 - c)));
    return _mm256_min_epi16(_mm256_max_epi16(q, _mm256_set1_epi16(-8)), _mm256_set1_epi16(7));
}

/* A block of Q4_0: the rule of kernels.h. */
static uint16_t encode_q4(dil_type type, const float *f, int n, uint8_t *q)
{
    (void)type;
    __m256i fine[2], u[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    int64_t best_a = 0, best_b = 0;
    const float m = fine_grid(f, n, fine);
    for (int c = 0; c < KV_GRIDS; c++) {
        const __m256i tried[2] = {on_grid(fine[0], c), on_grid(fine[1], c)};
        const int64_t a = block_dot(fine, tried), b = block_dot(tried, tried);
        if (c > 0 && a * a * best_b <= best_a * best_a * b)
            continue;
        memcpy(u, tried, sizeof u);
        best_a = a;
        best_b = b;
    }
    for (int i = 0; i < 2; i++) /* pairs of nibbles, in 32 bits each */
        u[i] = _mm256_madd_epi16(_mm256_add_epi16(u[i], _mm256_set1_epi16(8)), _mm256_set1_epi32(16 << 16 | 1));
    const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi32(u[0], u[1]), 0xd8);
    _mm_storeu_si128((__m128i_u *)q, _mm_packus_epi16(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1)));
    return best_b > 0 ? f32_to_f16((float)best_a / (float)best_b * (m / -16384.0f)) : 0;
}

static void kv_store_k(dil_type type, void *page, int slot, const float *k, int head_dim)
{
    if (type == DIL_TYPE_Q4_0)
        kv_put_k(encode_q4, type, page, slot, k, head_dim);
    else
        scalar_kv_store_k(type, page, slot, k, head_dim);
}

static void kv_store_v(dil_type type, void *page, int slot, const float *v, int head_dim)
{
    if (type == DIL_TYPE_Q4_0)
        kv_put_v(encode_q4, type, page, slot, v, head_dim);
    else
        scalar_kv_store_v(type, page, slot, v, head_dim);
}

static void kv_load_k(dil_type type, const void *page, int head_dim, int n_slots, float *dst)
{
    const uint8_t *p = page, *scales = kv_scales(type, page, head_dim);
    int n = round_up_16(n_slots);
    for (int d = 0; d < head_dim; d++) {
        for (int j = 0; j < n; j += 8) {
            size_t at = (size_t)d * KV_PAGE + (size_t)j;
            __m256 v;
            if (kv_quantized(type))
                v = _mm256_mul_ps(k_values(type, p, d, j), page_scales(scales, (size_t)(d / KV_BLOCK) * KV_PAGE + (size_t)j));
            else
                v = page_floats(type, p, at);
            _mm256_storeu_ps(dst + at, v);
        }
    }
}

/* One token of V. */
static void load_v_quantized(dil_type type, const uint8_t *p, const uint8_t *scales, int head_dim, float *dst)
{
    int d = 0;
    for (; d + 8 <= head_dim; d += 8) {
        const __m256 scale = _mm256_set1_ps(f16_to_f32(packed_u16(scales + 2 * (d / KV_BLOCK))));
        _mm256_storeu_ps(dst + d, _mm256_mul_ps(v_values(type, p, d), scale));
    }
    if (d == head_dim)
        return;
    uint8_t last[8] = {0};
    memcpy(last, p + kv_value_bytes(type, d), kv_value_bytes(type, head_dim - d));
    const __m256 scale = _mm256_set1_ps(f16_to_f32(packed_u16(scales + 2 * (d / KV_BLOCK))));
    _mm256_maskstore_ps(dst + d, first_lanes(head_dim - d), _mm256_mul_ps(v_values(type, last, 0), scale));
}

static void load_v_floats(dil_type type, const uint8_t *page, size_t row, int head_dim, float *dst)
{
    int d = 0;
    for (; d + 8 <= head_dim; d += 8)
        _mm256_storeu_ps(dst + d, page_floats(type, page, row * (size_t)head_dim + (size_t)d));
    for (; d < head_dim; d++)
        dst[d] = page_float(type, page, row * (size_t)head_dim + (size_t)d);
}

static void kv_load_v(dil_type type, const void *page, int head_dim, int n_slots, float *dst, size_t v_stride)
{
    const uint8_t *p = page, *scales = kv_scales(type, page, head_dim);
    const size_t row = kv_value_bytes(type, head_dim), n_scales = kv_n_scales(head_dim);
    for (size_t j = 0; j < (size_t)round_up_16(n_slots); j++) {
        if (kv_quantized(type))
            load_v_quantized(type, p + j * row, scales + 2 * j * n_scales, head_dim, dst + j * v_stride);
        else
            load_v_floats(type, p, j, head_dim, dst + j * v_stride);
    }
}

#define QK_ROWS 6 /* of a tile: with two vectors of slots each, the sums fill the registers */
#define PV_ROWS 3 /* with four vectors of dims each */

/* rows (constant) rows of scores, 16 slots from j. */
AVX2_INLINE void qk_tile(int rows, const float *q, size_t q_stride, const float *k, int head_dim, float *s, size_t s_stride)
{
    __m256 acc[QK_ROWS][2];
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
        acc[i][0] = acc[i][1] = _mm256_setzero_ps();
    for (int d = 0; d < head_dim; d++, k += KV_PAGE) {
        __m256 a = _mm256_loadu_ps(k), b = _mm256_loadu_ps(k + 8);
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++) {
            __m256 v = _mm256_broadcast_ss(q + (size_t)i * q_stride + d);
            acc[i][0] = _mm256_fmadd_ps(v, a, acc[i][0]);
            acc[i][1] = _mm256_fmadd_ps(v, b, acc[i][1]);
        }
    }
#pragma GCC unroll 6
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
        const int n = a->n_rows - i >= QK_ROWS ? QK_ROWS : 1;
        for (int j = 0; j < a->n_slots[i + n - 1]; j += 16) {
            if (n == QK_ROWS)
                qk_tile(QK_ROWS, rows + (size_t)i * stride, stride, k + j, a->head_dim, s + (size_t)i * s_stride + j, s_stride);
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
    __m256 sum[PV_ROWS][4];
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
        const int n = a->n_rows - i >= PV_ROWS ? PV_ROWS : 1, n_slots = a->n_slots[i + n - 1];
        const float *weights = p + (size_t)i * p_stride;
        float *sums = acc + (size_t)i * acc_stride;
        if (n == PV_ROWS)
            pv_rows(PV_ROWS, weights, p_stride, v, a->head_dim, n_slots, sums, acc_stride);
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

/* s[j .. j + 8), soft-capped where cap > 0, minus infinity where it is not in [lo, hi); stored back. */
AVX2_INLINE __m256 score_vector(float *s, int j, int lo, int hi, float cap)
{
    __m256 v = _mm256_loadu_ps(s + j);
    if (cap > 0.0f)
        v = _mm256_mul_ps(_mm256_set1_ps(cap), tanh_256(_mm256_div_ps(v, _mm256_set1_ps(cap))));
    v = _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), v, valid_lanes(j, lo, hi));
    _mm256_storeu_ps(s + j, v);
    return v;
}

/* The largest of s[lo .. hi), which are soft-capped first where cap > 0; what shares a vector with them becomes minus infinity. */
static float row_max(float *s, int lo, int hi, float cap)
{
    __m256 top[2] = {_mm256_set1_ps(-INFINITY), _mm256_set1_ps(-INFINITY)};
    if (hi <= lo)
        return -INFINITY;
    int j = lo / 8 * 8;
    for (; j < hi && (cap > 0.0f || j < lo); j += 8)
        top[0] = _mm256_max_ps(score_vector(s, j, lo, hi, cap), top[0]); /* the second operand where one is NaN */
    for (; j + 16 <= hi; j += 16)
        for (int i = 0; i < 2; i++)
            top[i] = _mm256_max_ps(_mm256_loadu_ps(s + j + 8 * i), top[i]);
    for (; j < hi; j += 8)
        top[0] = _mm256_max_ps(score_vector(s, j, lo, hi, cap), top[0]);
    return max_256(_mm256_max_ps(top[0], top[1]));
}

static void attn_softmax(dil_type type, float *s, int lo, int hi, int n, float cap, float *m, float *l)
{
    (void)type;
    *m = row_max(s, lo, hi, cap);
    const bool none = *m == -INFINITY;
    const int from = none ? 0 : lo / 8 * 8, to = none ? 0 : hi, end = round_up_16(n);
    const __m256 max = _mm256_set1_ps(*m);
    __m256 sum = _mm256_setzero_ps();
    int j = 0;
    for (; j < from; j += 8)
        _mm256_storeu_ps(s + j, _mm256_setzero_ps());
    for (; j < to; j += 8) {
        const __m256 e = exp_256_below_0(_mm256_sub_ps(_mm256_loadu_ps(s + j), max));
        _mm256_storeu_ps(s + j, e);
        sum = _mm256_add_ps(sum, e);
    }
    for (; j < end; j += 8)
        _mm256_storeu_ps(s + j, _mm256_setzero_ps());
    *l = none ? 0.0f : sum_256(sum);
}

void avx2_add_attention(kernels *k)
{
    k->kv_store_k = kv_store_k;
    k->kv_store_v = kv_store_v;
    k->kv_load_k = kv_load_k;
    k->kv_load_v = kv_load_v;
    k->attn_qk = attn_qk;
    k->attn_pv = attn_pv;
    k->attn_softmax = attn_softmax;
}
