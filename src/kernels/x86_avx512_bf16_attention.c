/*
 * Weighted sums of V with the bf16 dot product, for pages that are not F32: 32-bit lanes hold a pair of slots. Many rows share
 * a page that is converted once into scratch; a few rows (a token's heads) read the page itself. Both make the same pairs, so
 * the number of rows changes nothing. Scores stay in f32: their errors are raised to the power of e.
 */
#include "kernels/x86_avx512_kv.h"
#include "kernels/x86_avx512_math.h"

#define ROW_TILE 6 /* query rows of a register tile */

/* What a tile reads: pairs in scratch, or the page. */
typedef struct source {
    const attn_page *a;
    const uint32_t *pairs; /* [pairs of slots][v_width(head_dim)] */
    int n_slots;           /* those beyond count as 0 */
} source;

/* Stands for scratch where a tile is specialised by page type. */
#define CONVERTED DIL_TYPE_F32

AVX512_INLINE size_t v_width(int head_dim) { return ((size_t)head_dim + 15) / 16 * 16; }

/* (low[i], high[i]) as bf16 in lane i. */
AVX512_INLINE __m512i pair_up(__m512 low, __m512 high)
{
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4,
                                           19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

/* Slots 2 * pair and the next of those of the dims d .. d + 15 that are in lanes. */
AVX512_INLINE __m512i v_pair(dil_type type, const attn_page *a, int pair, int n_slots, int d, __mmask16 lanes)
{
    const int j = 2 * pair;
    const __m512 high = j + 1 < n_slots ? kv_v16(type, a->page, a->head_dim, j + 1, d, lanes) : _mm512_setzero_ps();
    return pair_up(kv_v16(type, a->page, a->head_dim, j, d, lanes), high);
}

/* ---- a page into scratch ---- */

AVX512_INLINE void convert_v_as(dil_type type, const attn_page *a, int n_slots)
{
    uint32_t *to = a->scratch;
    for (int pair = 0; pair < (n_slots + 1) / 2; pair++, to += v_width(a->head_dim))
        for (int d = 0; d < a->head_dim; d += 16)
            _mm512_storeu_si512((void *)(to + d), v_pair(type, a, pair, n_slots, d, avx512_lanes(a->head_dim - d)));
}

static void convert_v(const attn_page *a, int n_slots)
{
    switch (a->type) {
    case DIL_TYPE_F16: convert_v_as(DIL_TYPE_F16, a, n_slots); break;
    case DIL_TYPE_BF16: convert_v_as(DIL_TYPE_BF16, a, n_slots); break;
    case DIL_TYPE_Q8_0: convert_v_as(DIL_TYPE_Q8_0, a, n_slots); break;
    default: convert_v_as(DIL_TYPE_Q4_0, a, n_slots); break;
    }
}

/* ---- weighted sums ---- */

/* nq rows by nv vectors of head dims from d on, all in lanes (whole ones but for nv = 1). */
AVX512_INLINE void pv_tile(dil_type type, const source *v, const uint32_t *p, size_t p_stride, float *out, size_t stride, int d,
                           __mmask16 lanes, const int nq, const int nv)
{
    __m512 acc[ROW_TILE][4];
#pragma GCC unroll 24
    for (int i = 0; i < nq * nv; i++)
        acc[i / nv][i % nv] = _mm512_maskz_loadu_ps(lanes, out + (size_t)(i / nv) * stride + d + 16 * (i % nv));
    const int n_pairs = (v->n_slots + 1) / 2;
    const size_t width = v_width(v->a->head_dim);
    for (int pair = 0; pair < n_pairs; pair++) {
        __m512bh row[4];
#pragma GCC unroll 4
        for (int c = 0; c < nv; c++)
            row[c] = (__m512bh)(type == CONVERTED ? _mm512_loadu_si512((const void *)(v->pairs + (size_t)pair * width + d + 16 * c))
                                                  : v_pair(type, v->a, pair, v->n_slots, d + 16 * c, lanes));
#pragma GCC unroll 6
        for (int i = 0; i < nq; i++) {
            const __m512bh weight = (__m512bh)_mm512_set1_epi32((int)p[(size_t)i * p_stride + (size_t)pair]);
#pragma GCC unroll 4
            for (int c = 0; c < nv; c++)
                acc[i][c] = _mm512_dpbf16_ps(acc[i][c], weight, row[c]);
        }
    }
#pragma GCC unroll 24
    for (int i = 0; i < nq * nv; i++)
        _mm512_mask_storeu_ps(out + (size_t)(i / nv) * stride + d + 16 * (i % nv), lanes, acc[i / nv][i % nv]);
}

AVX512_INLINE void pv_rows(dil_type type, const source *v, const uint32_t *p, size_t p_stride, float *acc, size_t stride,
                           const int nq)
{
    const int dim = v->a->head_dim;
    int d = 0;
    for (; d + 64 <= dim; d += 64)
        pv_tile(type, v, p, p_stride, acc, stride, d, 0xffff, nq, 4);
    for (; d < dim; d += 16)
        pv_tile(type, v, p, p_stride, acc, stride, d, avx512_lanes(dim - d), nq, 1);
}

AVX512_INLINE void pv_some(dil_type type, const source *v, const uint32_t *p, size_t p_stride, float *acc, size_t stride, int nq)
{
    switch (nq) {
    case 1: pv_rows(type, v, p, p_stride, acc, stride, 1); break;
    case 2: pv_rows(type, v, p, p_stride, acc, stride, 2); break;
    case 3: pv_rows(type, v, p, p_stride, acc, stride, 3); break;
    case 4: pv_rows(type, v, p, p_stride, acc, stride, 4); break;
    case 5: pv_rows(type, v, p, p_stride, acc, stride, 5); break;
    default: pv_rows(type, v, p, p_stride, acc, stride, ROW_TILE); break;
    }
}

static void pv_bf16(const attn_page *a, const uint32_t *p, size_t p_stride, float *acc, size_t stride)
{
    const int most = a->n_slots[a->n_rows - 1];
    if (a->n_rows <= ROW_TILE) {
        const source v = {a, NULL, most};
        switch (a->type) {
        case DIL_TYPE_F16: pv_some(DIL_TYPE_F16, &v, p, p_stride, acc, stride, a->n_rows); break;
        case DIL_TYPE_BF16: pv_some(DIL_TYPE_BF16, &v, p, p_stride, acc, stride, a->n_rows); break;
        case DIL_TYPE_Q8_0: pv_some(DIL_TYPE_Q8_0, &v, p, p_stride, acc, stride, a->n_rows); break;
        default: pv_some(DIL_TYPE_Q4_0, &v, p, p_stride, acc, stride, a->n_rows); break;
        }
        return;
    }
    convert_v(a, most);
    for (int i = 0; i < a->n_rows; i += ROW_TILE, p += ROW_TILE * p_stride, acc += ROW_TILE * stride) {
        const int nq = a->n_rows - i < ROW_TILE ? a->n_rows - i : ROW_TILE;
        const source v = {a, a->scratch, a->n_slots[i + nq - 1]};
        pv_some(CONVERTED, &v, p, p_stride, acc, stride, nq);
    }
}

/* ---- softmax over a chunk ---- */

/*
 * exp(x) for x <= 0 to 2^-17, 0 below -87.7: 2^(n + f) with n added to the exponent of a polynomial in f, |f| <= 1/2, fitted to the
 * least relative error with 1 as its constant. NaN stays.
 */
AVX512_INLINE __m512 exp_near(__m512 x)
{
    const __m512 magic = _mm512_set1_ps(0x1.8p23f); /* leaves round(t) in the low bits */
    const __m512 t = _mm512_max_ps(_mm512_set1_ps(-127.0f), _mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)));
    const __m512 z = _mm512_add_ps(t, magic), f = _mm512_sub_ps(t, _mm512_sub_ps(z, magic));
    __m512 p = _mm512_set1_ps(0.009582853f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.055906426f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.24024099f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.6931242f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(z), 23)));
}

AVX512_INLINE __m512 weights_16(const float *s, int j, int lo, int hi, __m512 max)
{
    const __mmask16 valid = math_valid(j, lo, hi);
    return _mm512_maskz_mov_ps(valid, exp_near(_mm512_sub_ps(_mm512_maskz_loadu_ps(valid, s + j), max)));
}

/* The weights take the first half of the row's bytes; what is written was read before. The sum is that of the rounded ones. */
static void softmax_bf16(float *s, int lo, int hi, int n, float cap, float *m, float *l)
{
    uint16_t *p = (uint16_t *)(void *)s;
    *m = math_row_max(s, lo, hi, cap);
    const bool none = *m == -__builtin_inff();
    const int begin = none ? n : lo / 32 * 32;
    const __m512 max = _mm512_set1_ps(*m);
    const __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3f80);
    __m512 sum = _mm512_setzero_ps();
    int j = 0;
    for (; j < begin; j += 32)
        _mm512_storeu_si512((void *)(p + j), _mm512_setzero_si512());
    for (; !none && j < hi; j += 32) {
        const __m512bh both = _mm512_cvtne2ps_pbh(weights_16(s, j + 16, lo, hi, max), weights_16(s, j, lo, hi, max));
        _mm512_storeu_si512((void *)(p + j), (__m512i)both);
        sum = _mm512_dpbf16_ps(sum, both, ones);
    }
    for (; j < n; j += 32)
        _mm512_storeu_si512((void *)(p + j), _mm512_setzero_si512());
    *l = none ? 0.0f : _mm512_reduce_add_ps(sum);
}

/* ---- the entries: F32 pages go on in f32 ---- */

static void attn_softmax(dil_type type, float *s, int lo, int hi, int n, float cap, float *m, float *l)
{
    if (type == DIL_TYPE_F32)
        avx512_attn_softmax(type, s, lo, hi, n, cap, m, l);
    else
        softmax_bf16(s, lo, hi, n, cap, m, l);
}

static void attn_pv(const attn_page *v, const float *p, size_t p_stride, float *acc, size_t acc_stride)
{
    if (v->type == DIL_TYPE_F32)
        avx512_attn_pv(v, p, p_stride, acc, acc_stride);
    else
        pv_bf16(v, (const uint32_t *)(const void *)p + v->first_slot / 2, p_stride, acc, acc_stride);
}

void avx512_bf16_add_attention(kernels *k)
{
    k->attn_bf16 = true;
    k->attn_softmax = attn_softmax;
    k->attn_pv = attn_pv;
}
