/*
 * AVX-512 attention kernels: KV pages in and out, scores (lanes are tokens), weighted sums (lanes are head dims), and the
 * softmax of a chunk. Rows of one call never mix: a row's result does not depend on how many rows share the call.
 */
#include "kernels/x86_avx512_kv.h"
#include "kernels/x86_avx512_math.h"

#define ROW_TILE 6 /* query rows of a register tile */

/* ---- conversions of up to 16 values ---- */

AVX512_INLINE __m256i to_bf16(__m512 v)
{
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    rounded = _mm512_srli_epi32(rounded, 16);
    /* NaN: rounding could carry it to infinity. */
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    rounded = _mm512_mask_or_epi32(rounded, nan, _mm512_srli_epi32(bits, 16), _mm512_set1_epi32(0x40));
    return _mm512_cvtepi32_epi16(rounded);
}

AVX512_INLINE __m256i to_16_bits(dil_type type, __m512 v)
{
    return type == DIL_TYPE_BF16 ? to_bf16(v) : _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* round_to_even(v) as int8 within +-127; NaN: -127 */
AVX512_INLINE __m128i to_int8(__m512 v)
{
    v = _mm512_min_ps(_mm512_max_ps(v, _mm512_set1_ps(-127.0f)), _mm512_set1_ps(127.0f));
    return _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v));
}

static uint16_t encode_q8(const float *f, int n, uint8_t *q)
{
    const __m512 f0 = _mm512_maskz_loadu_ps(avx512_lanes(n), f), f1 = _mm512_maskz_loadu_ps(avx512_lanes(n - 16), f + 16);
    const __m512 largest = _mm512_max_ps(_mm512_abs_ps(f1), _mm512_max_ps(_mm512_abs_ps(f0), _mm512_setzero_ps()));
    const uint16_t d = (uint16_t)_cvtss_sh(_mm512_reduce_max_ps(largest) / 127.0f, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const float scale = _cvtsh_ss(d);
    const __m512 inverse = _mm512_set1_ps(scale > 0.0f ? 1.0f / scale : 0.0f);
    _mm_storeu_si128((__m128i *)(void *)q, to_int8(_mm512_mul_ps(f0, inverse)));
    _mm_storeu_si128((__m128i *)(void *)(q + 16), to_int8(_mm512_mul_ps(f1, inverse)));
    return d;
}

/* 16 values of Y of a block of Q4_0 as int16. */
AVX512_INLINE __m256i fine_half(__m512 f, __m512 factor)
{
    const __m512 y = _mm512_mul_ps(f, factor);
    return _mm512_cvtepi32_epi16(_mm512_maskz_cvtps_epi32(_mm512_cmp_ps_mask(y, y, _CMP_ORD_Q), y));
}

/* Y of a block, zeros behind its n values; m is set. */
AVX512_INLINE __m512i fine_grid(const float *f, int n, float *m)
{
    const __m512 zero = _mm512_setzero_ps();
    const __m512 f0 = _mm512_maskz_loadu_ps(avx512_lanes(n), f), f1 = _mm512_maskz_loadu_ps(avx512_lanes(n - 16), f + 16);
    /* min and max give the second operand where one is NaN. */
    const float least = _mm512_reduce_min_ps(_mm512_min_ps(f1, _mm512_min_ps(f0, zero)));
    const float most = _mm512_reduce_max_ps(_mm512_max_ps(f1, _mm512_max_ps(f0, zero)));
    *m = most > -least ? most : least;
    const float factor = -16384.0f / *m;
    if (!(factor <= 3.0e38f && factor >= -3.0e38f))
        return _mm512_setzero_si512();
    const __m512 by = _mm512_set1_ps(factor);
    return _mm512_inserti64x4(_mm512_castsi256_si512(fine_half(f0, by)), fine_half(f1, by), 1);
}

static uint16_t encode_q4(const float *f, int n, uint8_t *q)
{
    float m;
    const __m512i fine = fine_grid(f, n, &m);
    __m512i u = _mm512_setzero_si512();
    int64_t best_a = 0, best_b = 0;
    for (int c = 0; c < KV_GRIDS; c++) {
        const __m512i rounded = _mm512_mulhrs_epi16(fine, _mm512_set1_epi16((short)(17 - c)));
        const __m512i tried = _mm512_min_epi16(_mm512_max_epi16(rounded, _mm512_set1_epi16(-8)), _mm512_set1_epi16(7));
        const int64_t a = _mm512_reduce_add_epi32(_mm512_madd_epi16(fine, tried));
        const int64_t b = _mm512_reduce_add_epi32(_mm512_madd_epi16(tried, tried));
        if (c > 0 && a * a * best_b <= best_a * best_a * b)
            continue;
        u = tried;
        best_a = a;
        best_b = b;
    }
    u = _mm512_madd_epi16(_mm512_add_epi16(u, _mm512_set1_epi16(8)), _mm512_set1_epi32(16 << 16 | 1)); /* pairs of nibbles */
    _mm_storeu_si128((__m128i *)(void *)q, _mm512_cvtepi32_epi8(u));
    const float d = best_b > 0 ? (float)best_a / (float)best_b * (m / -16384.0f) : 0.0f;
    return (uint16_t)_cvtss_sh(d, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static uint16_t encode(dil_type type, const float *f, int n, uint8_t *q)
{
    return type == DIL_TYPE_Q4_0 ? encode_q4(f, n, q) : encode_q8(f, n, q);
}

/* ---- pages ---- */

static void kv_store_k(dil_type type, void *page, int slot, const float *k, int head_dim)
{
    if (kv_quantized(type)) {
        kv_put_k(encode, type, page, slot, k, head_dim);
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
        _mm256_storeu_si256((__m256i *)(void *)h, to_16_bits(type, _mm512_maskz_loadu_ps(avx512_lanes(n), k + d)));
        for (int i = 0; i < n; i++)
            dst[(size_t)(d + i) * KV_PAGE] = h[i];
    }
}

static void kv_store_v(dil_type type, void *page, int slot, const float *v, int head_dim)
{
    if (kv_quantized(type)) {
        kv_put_v(encode, type, page, slot, v, head_dim);
        return;
    }
    if (type == DIL_TYPE_F32) {
        memcpy((float *)page + (size_t)slot * (size_t)head_dim, v, (size_t)head_dim * sizeof *v);
        return;
    }
    uint16_t *dst = (uint16_t *)page + (size_t)slot * (size_t)head_dim;
    for (int d = 0; d < head_dim; d += 16) {
        const __mmask16 lanes = avx512_lanes(head_dim - d);
        _mm256_mask_storeu_epi16(dst + d, lanes, to_16_bits(type, _mm512_maskz_loadu_ps(lanes, v + d)));
    }
}

static void kv_load_k(dil_type type, const void *page, int head_dim, int n_slots, float *dst)
{
    for (int d = 0; d < head_dim; d++)
        for (int j = 0; j < n_slots; j += 16)
            _mm512_storeu_ps(dst + (size_t)d * KV_PAGE + (size_t)j, kv_k16(type, page, head_dim, d, j));
}

static void kv_load_v(dil_type type, const void *page, int head_dim, int n_slots, float *dst, size_t v_stride)
{
    const int n = (n_slots + 15) / 16 * 16;
    for (int j = 0; j < n; j++) {
        for (int d = 0; d < head_dim; d += 16) {
            const __mmask16 lanes = avx512_lanes(head_dim - d);
            _mm512_mask_storeu_ps(dst + (size_t)j * v_stride + (size_t)d, lanes, kv_v16(type, page, head_dim, j, d, lanes));
        }
    }
}

/* ---- scores ---- */

/* nq rows by nv vectors of slots of a page of K. */
AVX512_INLINE void qk_tile(const dil_type type, const float *q, size_t q_stride, const void *k, int head_dim, float *s,
                           size_t s_stride, const int nq, const int nv)
{
    __m512 acc[ROW_TILE][4];
#pragma GCC unroll 24
    for (int i = 0; i < nq * nv; i++)
        acc[i / nv][i % nv] = _mm512_setzero_ps();
    for (int d = 0; d < head_dim; d++) {
        __m512 column[4];
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++)
            column[v] = kv_k16(type, k, head_dim, d, 16 * v);
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
        _mm512_storeu_ps(s + (size_t)(i / nv) * s_stride + 16 * (i % nv), acc[i / nv][i % nv]);
}

AVX512_INLINE void qk_rows(const dil_type type, const float *q, size_t q_stride, const void *k, int head_dim, int n_slots, float *s,
                           size_t s_stride, const int nq)
{
    switch ((n_slots + 15) / 16) {
    case 0: break;
    case 1: qk_tile(type, q, q_stride, k, head_dim, s, s_stride, nq, 1); break;
    case 2: qk_tile(type, q, q_stride, k, head_dim, s, s_stride, nq, 2); break;
    case 3: qk_tile(type, q, q_stride, k, head_dim, s, s_stride, nq, 3); break;
    default: qk_tile(type, q, q_stride, k, head_dim, s, s_stride, nq, 4); break;
    }
}

AVX512_INLINE void qk_some(const dil_type type, const float *q, size_t q_stride, const void *k, int dim, int n_slots, float *s,
                           size_t s_stride, int nq)
{
    switch (nq) {
    case 1: qk_rows(type, q, q_stride, k, dim, n_slots, s, s_stride, 1); break;
    case 2: qk_rows(type, q, q_stride, k, dim, n_slots, s, s_stride, 2); break;
    case 3: qk_rows(type, q, q_stride, k, dim, n_slots, s, s_stride, 3); break;
    case 4: qk_rows(type, q, q_stride, k, dim, n_slots, s, s_stride, 4); break;
    case 5: qk_rows(type, q, q_stride, k, dim, n_slots, s, s_stride, 5); break;
    default: qk_rows(type, q, q_stride, k, dim, n_slots, s, s_stride, ROW_TILE); break;
    }
}

/* Many rows share a page that is converted once; a few (a token's heads) convert what they read. */
static void attn_qk(const attn_page *a, const void *rows, size_t q_bytes, float *s, size_t s_stride)
{
    const int dim = a->head_dim, most = a->n_slots[a->n_rows - 1];
    const float *q = rows;
    const void *k = a->page;
    const size_t q_stride = q_bytes / sizeof *q;
    s += a->first_slot;
    if (a->type != DIL_TYPE_F32 && a->n_rows <= ROW_TILE) {
        switch (a->type) {
        case DIL_TYPE_F16: qk_some(DIL_TYPE_F16, q, q_stride, k, dim, most, s, s_stride, a->n_rows); break;
        case DIL_TYPE_BF16: qk_some(DIL_TYPE_BF16, q, q_stride, k, dim, most, s, s_stride, a->n_rows); break;
        case DIL_TYPE_Q8_0: qk_some(DIL_TYPE_Q8_0, q, q_stride, k, dim, most, s, s_stride, a->n_rows); break;
        default: qk_some(DIL_TYPE_Q4_0, q, q_stride, k, dim, most, s, s_stride, a->n_rows); break;
        }
        return;
    }
    if (a->type != DIL_TYPE_F32) {
        kv_load_k(a->type, k, dim, most, a->scratch);
        k = a->scratch;
    }
    for (int i = 0; i < a->n_rows; i += ROW_TILE) {
        const int nq = a->n_rows - i < ROW_TILE ? a->n_rows - i : ROW_TILE;
        qk_some(DIL_TYPE_F32, q + (size_t)i * q_stride, q_stride, k, dim, a->n_slots[i + nq - 1], s + (size_t)i * s_stride,
                s_stride, nq);
    }
}

/* ---- weighted sums ---- */

/* nq rows by nv vectors of head dims, the last of them masked. */
AVX512_INLINE void pv_tile(const float *p, size_t p_stride, const float *v, size_t v_stride, int n_slots, float *out, size_t stride,
                           __mmask16 last, const int nq, const int nv)
{
    __m512 acc[ROW_TILE][4];
#pragma GCC unroll 24
    for (int i = 0; i < nq * nv; i++)
        acc[i / nv][i % nv] =
            _mm512_maskz_loadu_ps(i % nv == nv - 1 ? last : (__mmask16)0xffff, out + (size_t)(i / nv) * stride + 16 * (i % nv));
    for (int j = 0; j < n_slots; j++) {
        __m512 row[4];
#pragma GCC unroll 4
        for (int c = 0; c < nv; c++)
            row[c] = c == nv - 1 ? _mm512_maskz_loadu_ps(last, v + (size_t)j * v_stride + 16 * c)
                                 : _mm512_loadu_ps(v + (size_t)j * v_stride + 16 * c);
#pragma GCC unroll 6
        for (int i = 0; i < nq; i++) {
            const __m512 weight = _mm512_set1_ps(p[(size_t)i * p_stride + (size_t)j]);
#pragma GCC unroll 4
            for (int c = 0; c < nv; c++)
                acc[i][c] = _mm512_fmadd_ps(weight, row[c], acc[i][c]);
        }
    }
#pragma GCC unroll 24
    for (int i = 0; i < nq * nv; i++)
        _mm512_mask_storeu_ps(out + (size_t)(i / nv) * stride + 16 * (i % nv), i % nv == nv - 1 ? last : (__mmask16)0xffff,
                              acc[i / nv][i % nv]);
}

AVX512_INLINE void pv_rows(const float *p, size_t p_stride, const float *v, int head_dim, int n_slots, float *acc, size_t stride,
                           const int nq)
{
    const __mmask16 all = 0xffff;
    const size_t dim = (size_t)head_dim;
    int d = 0;
    for (; d + 64 <= head_dim; d += 64)
        pv_tile(p, p_stride, v + d, dim, n_slots, acc + d, stride, all, nq, 4);
    for (; d + 32 <= head_dim; d += 32)
        pv_tile(p, p_stride, v + d, dim, n_slots, acc + d, stride, all, nq, 2);
    for (; d < head_dim; d += 16)
        pv_tile(p, p_stride, v + d, dim, n_slots, acc + d, stride, avx512_lanes(head_dim - d), nq, 1);
}

void avx512_attn_pv(const attn_page *a, const float *p, size_t p_stride, float *acc, size_t acc_stride)
{
    const float *v = a->page;
    if (a->type != DIL_TYPE_F32) {
        kv_load_v(a->type, a->page, a->head_dim, a->n_slots[a->n_rows - 1], a->scratch, (size_t)a->head_dim);
        v = a->scratch;
    }
    p += a->first_slot;
    for (int i = 0; i < a->n_rows; i += ROW_TILE) {
        const int nq = a->n_rows - i < ROW_TILE ? a->n_rows - i : ROW_TILE, dim = a->head_dim;
        const int n_slots = a->n_slots[i + nq - 1];
        const float *from = p + (size_t)i * p_stride;
        float *to = acc + (size_t)i * acc_stride;
        switch (nq) {
        case 1: pv_rows(from, p_stride, v, dim, n_slots, to, acc_stride, 1); break;
        case 2: pv_rows(from, p_stride, v, dim, n_slots, to, acc_stride, 2); break;
        case 3: pv_rows(from, p_stride, v, dim, n_slots, to, acc_stride, 3); break;
        case 4: pv_rows(from, p_stride, v, dim, n_slots, to, acc_stride, 4); break;
        case 5: pv_rows(from, p_stride, v, dim, n_slots, to, acc_stride, 5); break;
        default: pv_rows(from, p_stride, v, dim, n_slots, to, acc_stride, ROW_TILE); break;
        }
    }
}

/* ---- softmax over a chunk ---- */

void avx512_attn_softmax(dil_type type, float *s, int lo, int hi, int n, float cap, float *m, float *l)
{
    (void)type;
    *m = math_row_max(s, lo, hi, cap);
    const bool none = *m == -__builtin_inff();
    const int begin = none ? n : lo / 16 * 16;
    const __m512 max = _mm512_set1_ps(*m);
    __m512 sum = _mm512_setzero_ps();
    int j = 0;
    for (; j < begin; j += 16)
        _mm512_storeu_ps(s + j, _mm512_setzero_ps());
    for (; !none && j < hi; j += 16) {
        const __mmask16 valid = math_valid(j, lo, hi);
        const __m512 x = _mm512_sub_ps(_mm512_loadu_ps(s + j), max);
        const __m512 e = _mm512_maskz_mov_ps(valid, math_exp(x));
        _mm512_storeu_ps(s + j, e);
        sum = _mm512_add_ps(sum, e);
    }
    for (; j < n; j += 16)
        _mm512_storeu_ps(s + j, _mm512_setzero_ps());
    *l = none ? 0.0f : _mm512_reduce_add_ps(sum);
}

void avx512_add_attention(kernels *k)
{
    k->kv_store_k = kv_store_k;
    k->kv_store_v = kv_store_v;
    k->kv_load_k = kv_load_k;
    k->kv_load_v = kv_load_v;
    k->attn_qk = attn_qk;
    k->attn_pv = avx512_attn_pv;
    k->attn_softmax = avx512_attn_softmax;
}
