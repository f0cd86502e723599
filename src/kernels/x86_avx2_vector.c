/*
 * Vector kernels in AVX2. Loops run over 8 lanes, the last ones masked; an element's result does not depend on where in the
 * vector it stands.
 */
#include <math.h>

#include "kernels/x86_avx2_math.h"

/* i = 0, 8, 16, ... with the number of lanes that are left, at most 8. */
#define FOR_LANES(i, n, lanes) for (int64_t i = 0, lanes = (n) < 8 ? (n) : 8; i < (n); i += 8, lanes = (n)-i < 8 ? (n)-i : 8)

/* Masked stores are slow on many machines, so only the last vector uses them. */
AVX2_INLINE __m256 load_lanes(const float *p, int64_t lanes)
{
    return lanes == 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, first_lanes(lanes));
}

AVX2_INLINE void store_lanes(float *p, int64_t lanes, __m256 v)
{
    if (lanes == 8)
        _mm256_storeu_ps(p, v);
    else
        _mm256_maskstore_ps(p, first_lanes(lanes), v);
}

AVX2_INLINE __m256 magnitude_256(__m256 v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }

/* The sums of the lanes of four vectors. */
AVX2_INLINE __m128i sums_of_lanes(__m256i a, __m256i b, __m256i c, __m256i d)
{
    const __m256i pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    return _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
}

/* q_c of quantize_args. */
AVX2_INLINE void on_grid(const __m256i fine[2], int c, __m256i q[2])
{
    const __m256i factor = _mm256_set1_epi16((short)(128 - c));
    q[0] = _mm256_mulhrs_epi16(fine[0], factor);
    q[1] = _mm256_mulhrs_epi16(fine[1], factor);
}

/* The best grid for the block Y (quantize_args): its values q and its scale. Without branches: which is best is chance. */
AVX2_INLINE float choose_grid(const __m256i fine[2], float d0, __m256i q[2])
{
    _Static_assert(ACT_CANDIDATES == 4, "four candidates are tried side by side");
    __m256i a[4], b[4];
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        on_grid(fine, c, q);
        a[c] = block_products(fine, q);
        b[c] = block_products(q, q);
    }
    const __m128i sums_a = sums_of_lanes(a[0], a[1], a[2], a[3]), sums_b = sums_of_lanes(b[0], b[1], b[2], b[3]);
    const __m256d wide_a = _mm256_cvtepi32_pd(sums_a);
    _Alignas(32) int32_t of_a[4], of_b[4];
    _Alignas(32) double squared_a[4], wide_b[4];
    _mm_store_si128((__m128i *)(void *)of_a, sums_a);
    _mm_store_si128((__m128i *)(void *)of_b, sums_b);
    _mm256_store_pd(squared_a, _mm256_mul_pd(wide_a, wide_a));
    _mm256_store_pd(wide_b, _mm256_cvtepi32_pd(sums_b));
    size_t best = 0;
#pragma GCC unroll 4
    for (size_t c = 1; c < 4; c++)
        best += (c - best) & -(size_t)(squared_a[c] * wide_b[best] > squared_a[best] * wide_b[c]);
    on_grid(fine, (int)best, q);
    return of_b[best] > 0 ? d0 * ((float)of_a[best] / (float)of_b[best] / 256.0f) : d0;
}

/* act_sums of 16 values in the low half of every 64 bits, still to be added up. */
AVX2_INLINE __m256i column_sums(__m256i q)
{
    const __m256i sums = _mm256_madd_epi16(q, _mm256_set1_epi16(1)); /* of two columns */
    return _mm256_blend_epi16(sums, _mm256_srli_epi64(sums, 16), 0x22);
}

/* 32 values of a block: q, the scale, act_sums of the halves and of all. */
AVX2_INLINE float quantize_block(const __m256 v[4], int8_t *q, int32_t sums[3])
{
    __m256 top = _mm256_setzero_ps(); /* maxps keeps the second operand beside NaN */
    for (int i = 0; i < 4; i++)
        top = _mm256_max_ps(magnitude_256(v[i]), top);
    const float amax = max_256(top), factor = 32512.0f / amax;
    const bool usable = factor <= 3.0e38f;
    const __m256 factors = _mm256_set1_ps(usable ? factor : 0.0f);
    __m256i y[4];
    for (int i = 0; i < 4; i++) {
        __m256 t = _mm256_mul_ps(v[i], factors);
        y[i] = _mm256_cvtps_epi32(_mm256_and_ps(t, _mm256_cmp_ps(t, t, _CMP_ORD_Q)));
    }
    /* Packing works within 128 bits: put the groups back in order. */
    const __m256i fine[2] = {_mm256_permute4x64_epi64(_mm256_packs_epi32(y[0], y[1]), 0xd8),
                             _mm256_permute4x64_epi64(_mm256_packs_epi32(y[2], y[3]), 0xd8)};
    __m256i r[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    const float scale = choose_grid(fine, usable ? amax / 127.0f : 0.0f, r);
    const __m256i pairs = _mm256_blend_epi32(column_sums(r[0]), _mm256_slli_epi64(column_sums(r[1]), 32), 0xaa);
    const __m128i half = _mm_add_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    const __m128i halves = _mm_add_epi16(half, _mm_unpackhi_epi64(half, half));
    _mm_storel_epi64((__m128i *)(void *)sums, halves);
    sums[2] = _mm_cvtsi128_si32(_mm_add_epi16(halves, _mm_srli_epi64(halves, 32)));
    _mm256_storeu_si256((__m256i_u *)q, _mm256_permute4x64_epi64(_mm256_packs_epi16(r[0], r[1]), 0xd8));
    return scale;
}

static void quantize_row(const quantize_args *a, size_t row)
{
    const float *f = a->f + row * a->f_stride;
    for (int64_t b = 0; b * ACT_BLOCK < a->k; b++) {
        const bool whole = (b + 1) * ACT_BLOCK <= a->k;
        __m256 v[4];
        for (int i = 0; i < 4; i++) {
            const int64_t left = a->k - b * ACT_BLOCK - 8 * i, lanes = left > 8 ? 8 : left;
            v[i] = whole      ? _mm256_loadu_ps(f + b * ACT_BLOCK + 8 * i)
                   : left > 0 ? load_lanes(f + b * ACT_BLOCK + 8 * i, lanes)
                              : _mm256_setzero_ps();
        }
        int32_t sums[3];
        const size_t at = row * a->b_stride + (size_t)b;
        const float scale = quantize_block(v, a->q + row * a->q_stride + b * ACT_BLOCK, sums);
        a->d[at] = scale;
        a->isum[at] = sums[2];
        a->s[at] = scale * (float)act_total(sums[2]);
        for (size_t half = 0; a->isum16 && half < 2; half++) {
            a->isum16[2 * at + half] = sums[half];
            a->s16[2 * at + half] = scale * (float)act_total(sums[half]);
        }
    }
}

static void vec_quantize(const quantize_args *a)
{
    for (int r = 0; r < a->n_rows; r++)
        quantize_row(a, (size_t)r);
}

static void vec_rmsnorm(const float *x, const float *w, float eps, int64_t n, float *y)
{
    __m256d low = _mm256_setzero_pd(), high = _mm256_setzero_pd();
    FOR_LANES(i, n, lanes)
    {
        __m256 v = load_lanes(x + i, lanes);
        __m256d a = _mm256_cvtps_pd(_mm256_castps256_ps128(v)), b = _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
        low = _mm256_fmadd_pd(a, a, low);
        high = _mm256_fmadd_pd(b, b, high);
    }
    double lane[4];
    _mm256_storeu_pd(lane, _mm256_add_pd(low, high));
    double sum = (lane[0] + lane[1]) + (lane[2] + lane[3]);
    __m256 factor = _mm256_set1_ps(1.0f / sqrtf((float)(sum / (double)n) + eps));
    FOR_LANES(i, n, lanes)
    {
        __m256 v = _mm256_mul_ps(load_lanes(x + i, lanes), factor);
        store_lanes(y + i, lanes, w ? _mm256_mul_ps(v, load_lanes(w + i, lanes)) : v);
    }
}

static void vec_add(float *y, const float *x, int64_t n)
{
    FOR_LANES(i, n, lanes)
    store_lanes(y + i, lanes, _mm256_add_ps(load_lanes(y + i, lanes), load_lanes(x + i, lanes)));
}

static void vec_scale(float *y, float s, int64_t n)
{
    FOR_LANES(i, n, lanes)
    store_lanes(y + i, lanes, _mm256_mul_ps(load_lanes(y + i, lanes), _mm256_set1_ps(s)));
}

static void vec_add_scaled(float *y, const float *x, float s, int64_t n)
{
    FOR_LANES(i, n, lanes)
    store_lanes(y + i, lanes, _mm256_fmadd_ps(load_lanes(x + i, lanes), _mm256_set1_ps(s), load_lanes(y + i, lanes)));
}

static void vec_silu_mul(const float *gate, const float *up, float *y, int64_t n)
{
    __m256 one = _mm256_set1_ps(1.0f), minus = _mm256_set1_ps(-0.0f);
    FOR_LANES(i, n, lanes)
    {
        __m256 x = load_lanes(gate + i, lanes);
        __m256 v = _mm256_div_ps(x, _mm256_add_ps(one, exp_256(_mm256_xor_ps(x, minus))));
        store_lanes(y + i, lanes, _mm256_mul_ps(v, load_lanes(up + i, lanes)));
    }
}

/* 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) */
static void vec_gelu_mul(const float *gate, const float *up, float *y, int64_t n)
{
    __m256 one = _mm256_set1_ps(1.0f), cubic = _mm256_set1_ps(0.044715f), c = _mm256_set1_ps(0.79788456080286535588f);
    FOR_LANES(i, n, lanes)
    {
        __m256 x = load_lanes(gate + i, lanes);
        __m256 inner = _mm256_mul_ps(c, _mm256_mul_ps(x, _mm256_fmadd_ps(cubic, _mm256_mul_ps(x, x), one)));
        __m256 half = _mm256_mul_ps(_mm256_set1_ps(0.5f), x);
        __m256 v = _mm256_mul_ps(half, _mm256_add_ps(one, tanh_256(inner)));
        store_lanes(y + i, lanes, _mm256_mul_ps(v, load_lanes(up + i, lanes)));
    }
}

/* min and max keep a NaN of their second operand. */
static void vec_swiglu_oai_mul(const float *gate, const float *up, float *y, int64_t n)
{
    const __m256 one = _mm256_set1_ps(1.0f), most = _mm256_set1_ps(SWIGLU_OAI_LIMIT), least = _mm256_set1_ps(-SWIGLU_OAI_LIMIT);
    FOR_LANES(i, n, lanes)
    {
        __m256 g = _mm256_min_ps(most, load_lanes(gate + i, lanes));
        __m256 u = _mm256_max_ps(least, _mm256_min_ps(most, load_lanes(up + i, lanes)));
        __m256 v = _mm256_div_ps(g, _mm256_add_ps(one, exp_256(_mm256_mul_ps(_mm256_set1_ps(-SWIGLU_OAI_SLOPE), g))));
        store_lanes(y + i, lanes, _mm256_mul_ps(v, _mm256_add_ps(u, one)));
    }
}

static void vec_softcap(float *x, float cap, int64_t n)
{
    __m256 c = _mm256_set1_ps(cap);
    FOR_LANES(i, n, lanes)
    store_lanes(x + i, lanes, _mm256_mul_ps(c, tanh_256(_mm256_div_ps(load_lanes(x + i, lanes), c))));
}

/* 4 pairs (a, b) side by side: (a c - b s, b c + a s); cs holds c, s of each. */
AVX2_INLINE __m256 rotated(__m256 x, __m256 cs)
{
    __m256 swapped = _mm256_permute_ps(x, 0xb1);
    return _mm256_addsub_ps(_mm256_mul_ps(x, _mm256_moveldup_ps(cs)), _mm256_mul_ps(swapped, _mm256_movehdup_ps(cs)));
}

static void vec_rope(float *x, const float *cs, int n_rot, rope_pairs pairs)
{
    int half = n_rot / 2;
    if (pairs == ROPE_ADJACENT) {
        FOR_LANES(i, 2 * half, lanes)
        store_lanes(x + i, lanes, rotated(load_lanes(x + i, lanes), load_lanes(cs + i, lanes)));
        return;
    }
    for (int i = 0; i < half; i += 4) {
        int lanes = half - i < 4 ? half - i : 4;
        __m128i mask = _mm256_castsi256_si128(first_lanes(lanes));
        __m128 a = _mm_maskload_ps(x + i, mask), b = _mm_maskload_ps(x + half + i, mask);
        /* a and b side by side, rotated, and apart again */
        __m256 both = _mm256_set_m128(_mm_unpackhi_ps(a, b), _mm_unpacklo_ps(a, b));
        __m256 r = rotated(both, load_lanes(cs + 2 * i, 2 * lanes));
        __m128 low = _mm256_castps256_ps128(r), high = _mm256_extractf128_ps(r, 1);
        _mm_maskstore_ps(x + i, mask, _mm_shuffle_ps(low, high, 0x88));
        _mm_maskstore_ps(x + half + i, mask, _mm_shuffle_ps(low, high, 0xdd));
    }
}

/* a + b and a - b where the partner of each lane is the one `swapped` holds; lanes in `second` (constant) are b. */
#define BUTTERFLY(v, swapped, second) _mm256_blend_ps(_mm256_add_ps(v, swapped), _mm256_sub_ps(swapped, v), second)

/* A block of n (constant) values: h = 1, 2, 4 within vectors, the rest between them. */
AVX2_INLINE void hadamard_block(float *x, int n)
{
    __m256 v[HADAMARD_MOST / 8];
    const __m256 scale = _mm256_set1_ps(1.0f / sqrtf((float)n));
#pragma GCC unroll 4
    for (int i = 0; i < n / 8; i++) {
        v[i] = _mm256_loadu_ps(x + 8 * i);
        v[i] = BUTTERFLY(v[i], _mm256_permute_ps(v[i], 0xb1), 0xaa);
        v[i] = BUTTERFLY(v[i], _mm256_permute_ps(v[i], 0x4e), 0xcc);
        v[i] = BUTTERFLY(v[i], _mm256_permute2f128_ps(v[i], v[i], 1), 0xf0);
    }
#pragma GCC unroll 2
    for (int h = 1; h < n / 8; h *= 2) {
#pragma GCC unroll 4
        for (int i = 0; i < n / 8; i++) {
            if (i & h)
                continue;
            const __m256 a = v[i], b = v[i + h];
            v[i] = _mm256_add_ps(a, b);
            v[i + h] = _mm256_sub_ps(a, b);
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < n / 8; i++)
        _mm256_storeu_ps(x + 8 * i, _mm256_mul_ps(v[i], scale));
}

static void vec_hadamard(float *x, int n)
{
    for (; n >= HADAMARD_MOST; n -= HADAMARD_MOST, x += HADAMARD_MOST)
        hadamard_block(x, HADAMARD_MOST);
    if (n >= HADAMARD_LEAST)
        hadamard_block(x, HADAMARD_LEAST);
}

static float vec_argmax(const float *x, int64_t n, int64_t *index)
{
    __m256 best = _mm256_set1_ps(-INFINITY);
    FOR_LANES(i, n, lanes)
    {
        __m256 v = _mm256_blendv_ps(best, load_lanes(x + i, lanes), _mm256_castsi256_ps(first_lanes(lanes)));
        best = _mm256_max_ps(v, best); /* the second operand where v is NaN */
    }
    float max = max_256(best);
    *index = 0;
    if (max == -INFINITY)
        return max;
    __m256 wanted = _mm256_set1_ps(max);
    FOR_LANES(i, n, lanes)
    {
        __m256 equal = _mm256_cmp_ps(load_lanes(x + i, lanes), wanted, _CMP_EQ_OQ);
        int bits = _mm256_movemask_ps(_mm256_and_ps(equal, _mm256_castsi256_ps(first_lanes(lanes))));
        if (bits) {
            *index = i + __builtin_ctz((unsigned)bits);
            return max;
        }
    }
    return max;
}

static double vec_sum_exp(const float *x, int64_t n, float max)
{
    __m256d low = _mm256_setzero_pd(), high = _mm256_setzero_pd();
    FOR_LANES(i, n, lanes)
    {
        __m256 e = exp_256(_mm256_sub_ps(load_lanes(x + i, lanes), _mm256_set1_ps(max)));
        e = _mm256_and_ps(e, _mm256_castsi256_ps(first_lanes(lanes)));
        low = _mm256_add_pd(low, _mm256_cvtps_pd(_mm256_castps256_ps128(e)));
        high = _mm256_add_pd(high, _mm256_cvtps_pd(_mm256_extractf128_ps(e, 1)));
    }
    double lane[4];
    _mm256_storeu_pd(lane, _mm256_add_pd(low, high));
    return (lane[0] + lane[1]) + (lane[2] + lane[3]);
}

void avx2_add_vector(kernels *k)
{
    k->quantize = vec_quantize;
    k->rmsnorm = vec_rmsnorm;
    k->add = vec_add;
    k->scale = vec_scale;
    k->add_scaled = vec_add_scaled;
    k->silu_mul = vec_silu_mul;
    k->gelu_mul = vec_gelu_mul;
    k->swiglu_oai_mul = vec_swiglu_oai_mul;
    k->softcap = vec_softcap;
    k->rope = vec_rope;
    k->hadamard = vec_hadamard;
    k->argmax = vec_argmax;
    k->sum_exp = vec_sum_exp;
}
