/*
 * AVX-512 attention kernels: KV pages in and out, scores (lanes are tokens), weighted sums (lanes are head dims), and the
 * running softmax. Rows of one call never mix: a row's result does not depend on how many rows share the call.
 */
#include "kernels/x86_avx512_math.h"

#define ROW_TILE 6    /* query rows of a register tile */
#define SCALE_DIMS 32 /* head dims that share a Q8_0 scale */

/* ---- conversions of up to 16 values ---- */

AVX512_INLINE __m256i to_bf16(__m512 v)
{
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    rounded = _mm512_srli_epi32(rounded, 16);
    /* NaN: rounding could carry it to infinity. */
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    rounded =
        _mm512_mask_or_epi32(rounded, nan, _mm512_srli_epi32(bits, 16), _mm512_set1_epi32(0x40));
    return _mm512_cvtepi32_epi16(rounded);
}

AVX512_INLINE __m256i to_16_bits(dil_type type, __m512 v)
{
    return type == DIL_TYPE_BF16
               ? to_bf16(v)
               : _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

AVX512_INLINE __m512 from_16_bits(dil_type type, __m256i v)
{
    return type == DIL_TYPE_BF16
               ? _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16))
               : _mm512_cvtph_ps(v);
}

/* round_to_even(v) as int8 within +-127; NaN: -127 */
AVX512_INLINE __m128i to_int8(__m512 v)
{
    v = _mm512_min_ps(_mm512_max_ps(v, _mm512_set1_ps(-127.0f)), _mm512_set1_ps(127.0f));
    return _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v));
}

/* Up to 32 values of a head as int8 and a scale rounded to f16, which is returned and with which they are rounded. */
AVX512_INLINE uint16_t quantize_head(const float *f, int n, int8_t q[SCALE_DIMS])
{
    const __m512 f0 = _mm512_maskz_loadu_ps(avx512_lanes(n), f);
    const __m512 f1 =
        n > 16 ? _mm512_maskz_loadu_ps(avx512_lanes(n - 16), f + 16) : _mm512_setzero_ps();
    const __m512 largest =
        _mm512_max_ps(_mm512_abs_ps(f1), _mm512_max_ps(_mm512_abs_ps(f0), _mm512_setzero_ps()));
    const uint16_t d = (uint16_t)_cvtss_sh(_mm512_reduce_max_ps(largest) / 127.0f,
                                           _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const float scale = _cvtsh_ss(d);
    const __m512 inverse = _mm512_set1_ps(scale > 0.0f ? 1.0f / scale : 0.0f);
    _mm_storeu_si128((__m128i *)(void *)q, to_int8(_mm512_mul_ps(f0, inverse)));
    _mm_storeu_si128((__m128i *)(void *)(q + 16), to_int8(_mm512_mul_ps(f1, inverse)));
    return d;
}

/* ---- pages ---- */

static void store_k_q8(void *page, int slot, const float *k, int head_dim)
{
    int8_t *values = page;
    uint16_t *scales = (uint16_t *)(void *)(values + (size_t)head_dim * KV_PAGE);
    for (int d = 0; d < head_dim; d += SCALE_DIMS) {
        int8_t q[SCALE_DIMS];
        const int n = head_dim - d < SCALE_DIMS ? head_dim - d : SCALE_DIMS;
        scales[d / SCALE_DIMS * KV_PAGE + slot] = quantize_head(k + d, n, q);
        for (int i = 0; i < n; i++)
            values[(size_t)(d + i) * KV_PAGE + (size_t)slot] = q[i];
    }
}

static void kv_store_k(dil_type type, void *page, int slot, const float *k, int head_dim)
{
    if (type == DIL_TYPE_Q8_0) {
        store_k_q8(page, slot, k, head_dim);
        return;
    }
    if (type == DIL_TYPE_F32) {
        float *dst = (float *)page + slot;
        for (int d = 0; d < head_dim; d++)
            dst[(size_t)d * KV_PAGE] = k[d];
        return;
    }
    uint16_t *dst = (uint16_t *)page + slot;
    for (int d = 0; d < head_dim; d += 16) {
        uint16_t h[16];
        const int n = head_dim - d < 16 ? head_dim - d : 16;
        _mm256_storeu_si256((__m256i *)(void *)h,
                            to_16_bits(type, _mm512_maskz_loadu_ps(avx512_lanes(n), k + d)));
        for (int i = 0; i < n; i++)
            dst[(size_t)(d + i) * KV_PAGE] = h[i];
    }
}

static void kv_store_v(dil_type type, void *page, int slot, const float *v, int head_dim)
{
    if (type == DIL_TYPE_F32) {
        memcpy((float *)page + (size_t)slot * (size_t)head_dim, v, (size_t)head_dim * sizeof *v);
        return;
    }
    if (type != DIL_TYPE_Q8_0) {
        uint16_t *dst = (uint16_t *)page + (size_t)slot * (size_t)head_dim;
        for (int d = 0; d < head_dim; d += 16) {
            const __mmask16 lanes = avx512_lanes(head_dim - d);
            _mm256_mask_storeu_epi16(dst + d, lanes,
                                     to_16_bits(type, _mm512_maskz_loadu_ps(lanes, v + d)));
        }
        return;
    }
    const int n_scales = (head_dim + SCALE_DIMS - 1) / SCALE_DIMS;
    int8_t *values = (int8_t *)page + (size_t)slot * (size_t)head_dim;
    uint16_t *scales =
        (uint16_t *)(void *)((int8_t *)page + (size_t)head_dim * KV_PAGE) + slot * n_scales;
    for (int d = 0; d < head_dim; d += SCALE_DIMS) {
        int8_t q[SCALE_DIMS];
        const int n = head_dim - d < SCALE_DIMS ? head_dim - d : SCALE_DIMS;
        scales[d / SCALE_DIMS] = quantize_head(v + d, n, q);
        memcpy(values + d, q, (size_t)n);
    }
}

static void kv_load_k(dil_type type, const void *page, int head_dim, int n_slots, float *dst)
{
    const size_t n = (size_t)(n_slots + 15) / 16 * 16;
    const uint16_t *scales =
        (const uint16_t *)(const void *)((const int8_t *)page + (size_t)head_dim * KV_PAGE);
    for (int d = 0; d < head_dim; d++) {
        for (size_t j = 0; j < n; j += 16) {
            const size_t at = (size_t)d * KV_PAGE + j;
            __m512 v;
            if (type == DIL_TYPE_F32) {
                v = _mm512_loadu_ps((const float *)page + at);
            } else if (type == DIL_TYPE_Q8_0) {
                v = _mm512_cvtepi32_ps(avx512_load_i8((const uint8_t *)page + at));
                v = _mm512_mul_ps(v, avx512_load_f16((
                                         const uint8_t *)(scales +
                                                          (size_t)(d / SCALE_DIMS) * KV_PAGE + j)));
            } else {
                v = from_16_bits(type,
                                 _mm256_loadu_si256(
                                     (const __m256i *)(const void *)((const uint16_t *)page + at)));
            }
            _mm512_storeu_ps(dst + at, v);
        }
    }
}

/* Lanes d .. of the value row that starts at `row` (element index in the page). */
AVX512_INLINE __m512 load_v(dil_type type, const void *page, size_t at, __mmask16 lanes,
                            float scale)
{
    if (type == DIL_TYPE_F32)
        return _mm512_maskz_loadu_ps(lanes, (const float *)page + at);
    if (type == DIL_TYPE_Q8_0) {
        const __m128i q = _mm_maskz_loadu_epi8(lanes, (const int8_t *)page + at);
        return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)), _mm512_set1_ps(scale));
    }
    return from_16_bits(type, _mm256_maskz_loadu_epi16(lanes, (const uint16_t *)page + at));
}

static void kv_load_v(dil_type type, const void *page, int head_dim, int n_slots, float *dst,
                      size_t v_stride)
{
    const int n = (n_slots + 15) / 16 * 16, n_scales = (head_dim + SCALE_DIMS - 1) / SCALE_DIMS;
    const uint16_t *scales =
        (const uint16_t *)(const void *)((const int8_t *)page + (size_t)head_dim * KV_PAGE);
    for (int j = 0; j < n; j++) {
        for (int d = 0; d < head_dim; d += 16) {
            const __mmask16 lanes = avx512_lanes(head_dim - d);
            const float scale =
                type == DIL_TYPE_Q8_0 ? _cvtsh_ss(scales[j * n_scales + d / SCALE_DIMS]) : 1.0f;
            const __m512 v =
                load_v(type, page, (size_t)j * (size_t)head_dim + (size_t)d, lanes, scale);
            _mm512_mask_storeu_ps(dst + (size_t)j * v_stride + (size_t)d, lanes, v);
        }
    }
}

/* ---- scores ---- */

/* nq rows by nv vectors of slots. */
AVX512_INLINE void qk_tile(const float *q, size_t q_stride, const float *k, int head_dim,
                           float scale, float *s, const int nq, const int nv)
{
    __m512 acc[ROW_TILE][4];
#pragma GCC unroll 24
    for (int i = 0; i < nq * nv; i++)
        acc[i / nv][i % nv] = _mm512_setzero_ps();
    for (int d = 0; d < head_dim; d++) {
        __m512 column[4];
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++)
            column[v] = _mm512_loadu_ps(k + (size_t)d * KV_PAGE + 16 * v);
#pragma GCC unroll 6
        for (int i = 0; i < nq; i++) {
            const __m512 value = _mm512_set1_ps(q[(size_t)i * q_stride + (size_t)d]);
#pragma GCC unroll 4
            for (int v = 0; v < nv; v++)
                acc[i][v] = _mm512_fmadd_ps(value, column[v], acc[i][v]);
        }
    }
#pragma GCC unroll 24
    for (int i = 0; i < nq * nv; i++)
        _mm512_storeu_ps(s + (size_t)(i / nv) * KV_PAGE + 16 * (i % nv),
                         _mm512_mul_ps(_mm512_set1_ps(scale), acc[i / nv][i % nv]));
}

AVX512_INLINE void qk_rows(const float *q, size_t q_stride, const float *k, int head_dim,
                           int n_slots, float scale, float *s, const int nq)
{
    switch ((n_slots + 15) / 16) {
    case 0: break;
    case 1: qk_tile(q, q_stride, k, head_dim, scale, s, nq, 1); break;
    case 2: qk_tile(q, q_stride, k, head_dim, scale, s, nq, 2); break;
    case 3: qk_tile(q, q_stride, k, head_dim, scale, s, nq, 3); break;
    default: qk_tile(q, q_stride, k, head_dim, scale, s, nq, 4); break;
    }
}

static void attn_qk(const float *q, size_t q_stride, int n_q, const float *k, int head_dim,
                    int n_slots, float scale, float *s)
{
    for (; n_q >= ROW_TILE; n_q -= ROW_TILE, q += ROW_TILE * q_stride, s += ROW_TILE * KV_PAGE)
        qk_rows(q, q_stride, k, head_dim, n_slots, scale, s, ROW_TILE);
    switch (n_q) {
    case 5: qk_rows(q, q_stride, k, head_dim, n_slots, scale, s, 5); break;
    case 4: qk_rows(q, q_stride, k, head_dim, n_slots, scale, s, 4); break;
    case 3: qk_rows(q, q_stride, k, head_dim, n_slots, scale, s, 3); break;
    case 2: qk_rows(q, q_stride, k, head_dim, n_slots, scale, s, 2); break;
    case 1: qk_rows(q, q_stride, k, head_dim, n_slots, scale, s, 1); break;
    default: break;
    }
}

/* ---- weighted sums ---- */

/* nq rows by nv vectors of head dims, the last of them masked. */
AVX512_INLINE void pv_tile(const float *s, const float *v, size_t v_stride, int n_slots, float *out,
                           size_t stride, __mmask16 last, const int nq, const int nv)
{
    __m512 acc[ROW_TILE][4];
#pragma GCC unroll 24
    for (int i = 0; i < nq * nv; i++)
        acc[i / nv][i % nv] =
            _mm512_maskz_loadu_ps(i % nv == nv - 1 ? last : (__mmask16)0xffff,
                                  out + (size_t)(i / nv) * stride + 16 * (i % nv));
    for (int j = 0; j < n_slots; j++) {
        __m512 row[4];
#pragma GCC unroll 4
        for (int c = 0; c < nv; c++)
            row[c] = c == nv - 1 ? _mm512_maskz_loadu_ps(last, v + (size_t)j * v_stride + 16 * c)
                                 : _mm512_loadu_ps(v + (size_t)j * v_stride + 16 * c);
#pragma GCC unroll 6
        for (int i = 0; i < nq; i++) {
            const __m512 weight = _mm512_set1_ps(s[i * KV_PAGE + j]);
#pragma GCC unroll 4
            for (int c = 0; c < nv; c++)
                acc[i][c] = _mm512_fmadd_ps(weight, row[c], acc[i][c]);
        }
    }
#pragma GCC unroll 24
    for (int i = 0; i < nq * nv; i++)
        _mm512_mask_storeu_ps(out + (size_t)(i / nv) * stride + 16 * (i % nv),
                              i % nv == nv - 1 ? last : (__mmask16)0xffff, acc[i / nv][i % nv]);
}

AVX512_INLINE void pv_rows(const float *s, const float *v, size_t v_stride, int head_dim,
                           int n_slots, float *acc, size_t stride, const int nq)
{
    const __mmask16 all = 0xffff;
    int d = 0;
    for (; d + 64 <= head_dim; d += 64)
        pv_tile(s, v + d, v_stride, n_slots, acc + d, stride, all, nq, 4);
    for (; d + 32 <= head_dim; d += 32)
        pv_tile(s, v + d, v_stride, n_slots, acc + d, stride, all, nq, 2);
    for (; d < head_dim; d += 16)
        pv_tile(s, v + d, v_stride, n_slots, acc + d, stride, avx512_lanes(head_dim - d), nq, 1);
}

static void attn_pv(const float *s, int n_q, const float *v, size_t v_stride, int head_dim,
                    int n_slots, float *acc, size_t acc_stride)
{
    for (; n_q >= ROW_TILE; n_q -= ROW_TILE, s += ROW_TILE * KV_PAGE, acc += ROW_TILE * acc_stride)
        pv_rows(s, v, v_stride, head_dim, n_slots, acc, acc_stride, ROW_TILE);
    switch (n_q) {
    case 5: pv_rows(s, v, v_stride, head_dim, n_slots, acc, acc_stride, 5); break;
    case 4: pv_rows(s, v, v_stride, head_dim, n_slots, acc, acc_stride, 4); break;
    case 3: pv_rows(s, v, v_stride, head_dim, n_slots, acc, acc_stride, 3); break;
    case 2: pv_rows(s, v, v_stride, head_dim, n_slots, acc, acc_stride, 2); break;
    case 1: pv_rows(s, v, v_stride, head_dim, n_slots, acc, acc_stride, 1); break;
    default: break;
    }
}

/* ---- running softmax ---- */

static float attn_softmax(float *s, int lo, int hi, int n_slots, float cap, float *m, float *l)
{
    const int n_vectors = (n_slots + 15) / 16;
    const __m512 lowest = _mm512_set1_ps(-__builtin_inff());
    __m512 value[4], max = lowest;
    __mmask16 valid[4];
    for (int v = 0; v < n_vectors && v < 4; v++) {
        valid[v] = (__mmask16)(avx512_lanes(hi - 16 * v) & ~avx512_lanes(lo - 16 * v));
        value[v] = _mm512_mask_loadu_ps(lowest, valid[v], s + 16 * v);
        if (cap > 0.0f)
            value[v] =
                _mm512_mask_mov_ps(lowest, valid[v], math_softcap(value[v], _mm512_set1_ps(cap)));
        max = _mm512_max_ps(value[v], max); /* max where value is NaN */
    }
    const float found = _mm512_reduce_max_ps(max), m_new = found > *m ? found : *m;
    if (hi <= lo || m_new == -__builtin_inff()) { /* nothing valid */
        for (int v = 0; v < n_vectors; v++)
            _mm512_storeu_ps(s + 16 * v, _mm512_setzero_ps());
        return 1.0f;
    }
    __m512 sum = _mm512_setzero_ps();
    for (int v = 0; v < n_vectors && v < 4; v++) {
        value[v] =
            _mm512_maskz_mov_ps(valid[v], math_exp(_mm512_sub_ps(value[v], _mm512_set1_ps(m_new))));
        _mm512_storeu_ps(s + 16 * v, value[v]);
        sum = _mm512_add_ps(sum, value[v]);
    }
    const bool first = *m == -__builtin_inff();
    const float f = first ? 0.0f : _mm512_cvtss_f32(math_exp(_mm512_set1_ps(*m - m_new)));
    *l = *l * f + _mm512_reduce_add_ps(sum);
    *m = m_new;
    return f;
}

void avx512_add_attention(kernels *k)
{
    k->kv_store_k = kv_store_k;
    k->kv_store_v = kv_store_v;
    k->kv_load_k = kv_load_k;
    k->kv_load_v = kv_load_v;
    k->attn_qk = attn_qk;
    k->attn_pv = attn_pv;
    k->attn_softmax = attn_softmax;
}
