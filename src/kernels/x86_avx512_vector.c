/* AVX-512 vector kernels: quantization of activations, norms, activation functions, rope, sampling helpers. */
#include "kernels/x86_avx512_math.h"

AVX512_INLINE __m512 load_lanes(const float *x, int64_t i, int64_t n)
{
    return _mm512_maskz_loadu_ps(avx512_lanes(n - i), x + i);
}

AVX512_INLINE __m512 number_or_zero(__m512 v)
{
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(v, v, _CMP_ORD_Q), v);
}

/* a + b of the halves of a vector: lanes j and j + 8, then j and j + 4. */
AVX512_INLINE __m128 fold_to_4(__m512 v)
{
    __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    return _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
}

AVX512_INLINE __m128i fold_bytes(__m256i q)
{
    const __m256i size = _mm256_abs_epi8(q);
    __m256i eight = _mm256_dpbusd_epi32(_mm256_setzero_si256(), size, size);
    return _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
}

/* Four vectors of four lanes: (lane 0 + lane 2) + (lane 1 + lane 3) of each. */
AVX512_INLINE __m128 fold_four(__m128 v[ACT_CANDIDATES])
{
    _MM_TRANSPOSE4_PS(v[0], v[1], v[2], v[3]);
    return _mm_add_ps(_mm_add_ps(v[0], v[2]), _mm_add_ps(v[1], v[3]));
}

/* The best grid for y = f / d0 (kernels.h): q as bytes, and its scale. The four candidates are the lanes of A, B and C. */
AVX512_INLINE float choose_grid(__m512 y0, __m512 y1, float d0, __m256i *q)
{
    __m256i bytes[ACT_CANDIDATES];
    __m128 uq[ACT_CANDIDATES], uu[ACT_CANDIDATES];
    __m128i qq[ACT_CANDIDATES];
#pragma GCC unroll 4
    for (int c = 0; c < ACT_CANDIDATES; c++) {
        const __m512 shrink = _mm512_set1_ps((float)(127 - c) / 127.0f);
        const __m512 t0 = _mm512_mul_ps(y0, shrink), t1 = _mm512_mul_ps(y1, shrink);
        const __m512i q0 = _mm512_cvtps_epi32(t0), q1 = _mm512_cvtps_epi32(t1);
        const __m512 r0 = _mm512_cvtepi32_ps(q0), r1 = _mm512_cvtepi32_ps(q1);
        const __m512 u0 = _mm512_sub_ps(t0, r0), u1 = _mm512_sub_ps(t1, r1);
        uq[c] = fold_to_4(_mm512_fmadd_ps(u1, r1, _mm512_mul_ps(u0, r0)));
        uu[c] = fold_to_4(_mm512_fmadd_ps(u1, u1, _mm512_mul_ps(u0, u0)));
        bytes[c] = _mm256_set_m128i(_mm512_cvtsepi32_epi8(q1), _mm512_cvtsepi32_epi8(q0));
        qq[c] = fold_bytes(bytes[c]);
    }
    const __m128i pair0 = _mm_hadd_epi32(qq[0], qq[1]), pair1 = _mm_hadd_epi32(qq[2], qq[3]);
    const __m128 b = _mm_cvtepi32_ps(_mm_hadd_epi32(pair0, pair1));
    const __m128 a = fold_four(uq), ratio = _mm_div_ps(a, b);
    const __m128 grow = _mm_setr_ps(1.0f, 127.0f / 126.0f, 127.0f / 125.0f, 127.0f / 124.0f);
    const __m128 error = _mm_mul_ps(_mm_sub_ps(fold_four(uu), _mm_mul_ps(a, ratio)), _mm_mul_ps(grow, grow));
    const __m128 scale = _mm_mul_ps(_mm_mul_ps(_mm_set1_ps(d0), grow), _mm_add_ps(_mm_set1_ps(1.0f), ratio));
    float errors[ACT_CANDIDATES], scales[ACT_CANDIDATES];
    _mm_storeu_ps(errors, error);
    _mm_storeu_ps(scales, scale);
    int best = 0;
#pragma GCC unroll 3
    for (int c = 1; c < ACT_CANDIDATES; c++)
        best = errors[c] < errors[best] ? c : best;
    *q = bytes[best];
    return _mm_cvtss_f32(b) > 0.0f ? scales[best] : d0;
}

/*
 * One block of up to 32 values; the tail is zero. NaN counts as 0; a block so small that 127 / amax would overflow is a block
 * of zeros. Sums over halves first: the block's is their sum, exactly.
 */
AVX512_INLINE void quantize_block(__m512 f0, __m512 f1, int8_t *q, float *d, float *s,
                                  int32_t *isum, float *s16, int32_t *isum16)
{
    /* max returns its second operand when one is NaN. */
    const __m512 largest =
        _mm512_max_ps(_mm512_abs_ps(f1), _mm512_max_ps(_mm512_abs_ps(f0), _mm512_setzero_ps()));
    const float amax = _mm512_reduce_max_ps(largest), over = 127.0f / amax;
    const bool usable = over <= 3.0e38f;
    float scale = usable ? amax / 127.0f : 0.0f;
    const __m512 inverse = _mm512_set1_ps(usable ? over : 0.0f);
    __m256i bytes;
    scale = choose_grid(number_or_zero(_mm512_mul_ps(f0, inverse)), number_or_zero(_mm512_mul_ps(f1, inverse)), scale, &bytes);
    _mm256_storeu_si256((__m256i *)(void *)q, bytes);
    const __m256i sums = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), bytes);
    const __m128i half0 = _mm256_castsi256_si128(sums), half1 = _mm256_extracti128_si256(sums, 1);
    const __m128i both = _mm_hadd_epi32(_mm_hadd_epi32(half0, half1), _mm_setzero_si128());
    isum16[0] = _mm_cvtsi128_si32(both);
    isum16[1] = _mm_extract_epi32(both, 1);
    *isum = isum16[0] + isum16[1];
    *d = scale;
    s16[0] = scale * (float)isum16[0];
    s16[1] = scale * (float)isum16[1];
    *s = scale * (float)*isum;
}

static void quantize(const float *f, int64_t k, int8_t *q, float *d, float *s, int32_t *isum,
                     float *s16, int32_t *isum16)
{
    int64_t b = 0;
    for (; 32 * b + 32 <= k; b++)
        quantize_block(_mm512_loadu_ps(f + 32 * b), _mm512_loadu_ps(f + 32 * b + 16), q + 32 * b,
                       d + b, s + b, isum + b, s16 + 2 * b, isum16 + 2 * b);
    if (32 * b < k)
        quantize_block(load_lanes(f, 32 * b, k), load_lanes(f, 32 * b + 16, k), q + 32 * b, d + b,
                       s + b, isum + b, s16 + 2 * b, isum16 + 2 * b);
}

static void rmsnorm(const float *x, const float *w, float eps, int64_t n, float *y)
{
    __m512 sum[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(),
                     _mm512_setzero_ps()};
    for (int64_t i = 0; i < n; i += 64) {
        for (int j = 0; j < 4; j++) {
            __m512 v = i + 16 * j < n ? load_lanes(x, i + 16 * j, n) : _mm512_setzero_ps();
            sum[j] = _mm512_fmadd_ps(v, v, sum[j]);
        }
    }
    const float total = _mm512_reduce_add_ps(
        _mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3])));
    const float root = _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(total / (float)n + eps)));
    const __m512 factor = _mm512_set1_ps(1.0f / root);
    for (int64_t i = 0; i < n; i += 16) {
        __m512 v = _mm512_mul_ps(load_lanes(x, i, n), factor);
        if (w)
            v = _mm512_mul_ps(v, load_lanes(w, i, n));
        _mm512_mask_storeu_ps(y + i, avx512_lanes(n - i), v);
    }
}

static void add(float *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16)
        _mm512_mask_storeu_ps(y + i, avx512_lanes(n - i),
                              _mm512_add_ps(load_lanes(y, i, n), load_lanes(x, i, n)));
}

static void scale(float *y, float s, int64_t n)
{
    const __m512 factor = _mm512_set1_ps(s);
    for (int64_t i = 0; i < n; i += 16)
        _mm512_mask_storeu_ps(y + i, avx512_lanes(n - i),
                              _mm512_mul_ps(load_lanes(y, i, n), factor));
}

static void add_scaled(float *y, const float *x, float s, int64_t n)
{
    const __m512 factor = _mm512_set1_ps(s);
    for (int64_t i = 0; i < n; i += 16) {
        __m512 v = _mm512_fmadd_ps(load_lanes(x, i, n), factor, load_lanes(y, i, n));
        _mm512_mask_storeu_ps(y + i, avx512_lanes(n - i), v);
    }
}

/* x / (1 + exp(-z)): silu for z = x. */
AVX512_INLINE __m512 times_sigmoid(__m512 x, __m512 z)
{
    const __m512 minus_z = _mm512_sub_ps(_mm512_setzero_ps(), z);
    return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), math_exp(minus_z)));
}

static void silu_mul(const float *gate, const float *up, float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16) {
        __m512 g = load_lanes(gate, i, n);
        _mm512_mask_storeu_ps(y + i, avx512_lanes(n - i),
                              _mm512_mul_ps(times_sigmoid(g, g), load_lanes(up, i, n)));
    }
}

/* gelu_tanh(g) = g (1 + tanh(z)) / 2 = g sigmoid(2z), z = sqrt(2/pi) (g + 0.044715 g^3). */
static void gelu_mul(const float *gate, const float *up, float *y, int64_t n)
{
    const __m512 one = _mm512_set1_ps(1.0f), cubic = _mm512_set1_ps(0.044715f),
                 twice_root = _mm512_set1_ps(1.59576912f);
    for (int64_t i = 0; i < n; i += 16) {
        __m512 g = load_lanes(gate, i, n);
        __m512 inner = _mm512_fmadd_ps(_mm512_mul_ps(cubic, g), g, one);
        __m512 z = _mm512_mul_ps(_mm512_mul_ps(twice_root, g), inner);
        _mm512_mask_storeu_ps(y + i, avx512_lanes(n - i),
                              _mm512_mul_ps(times_sigmoid(g, z), load_lanes(up, i, n)));
    }
}

static void softcap(float *x, float cap, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16)
        _mm512_mask_storeu_ps(x + i, avx512_lanes(n - i),
                              math_softcap(load_lanes(x, i, n), _mm512_set1_ps(cap)));
}

static void rope_adjacent(float *x, const float *cs, int n)
{
    for (int i = 0; i < n; i += 16) {
        const __m512 v = load_lanes(x, i, n), both = load_lanes(cs, i, n);
        const __m512 cosine = _mm512_moveldup_ps(both), sine = _mm512_movehdup_ps(both);
        const __m512 crossed = _mm512_mul_ps(_mm512_permute_ps(v, 0xb1), sine);
        _mm512_mask_storeu_ps(x + i, avx512_lanes(n - i), _mm512_fmaddsub_ps(v, cosine, crossed));
    }
}

static void rope_halves(float *x, const float *cs, int half)
{
    const __m512i even =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    for (int i = 0; i < half; i += 16) {
        const __m512 low = load_lanes(cs, 2 * i, 2 * half);
        const __m512 high =
            2 * i + 16 < 2 * half ? load_lanes(cs, 2 * i + 16, 2 * half) : _mm512_setzero_ps();
        const __m512 cosine = _mm512_permutex2var_ps(low, even, high),
                     sine = _mm512_permutex2var_ps(low, odd, high);
        const __m512 x0 = load_lanes(x, i, half), x1 = load_lanes(x + half, i, half);
        _mm512_mask_storeu_ps(x + i, avx512_lanes(half - i),
                              _mm512_fmsub_ps(x0, cosine, _mm512_mul_ps(x1, sine)));
        _mm512_mask_storeu_ps(x + half + i, avx512_lanes(half - i),
                              _mm512_fmadd_ps(x1, cosine, _mm512_mul_ps(x0, sine)));
    }
}

static void rope(float *x, const float *cs, int n_rot, rope_pairs pairs)
{
    if (pairs == ROPE_ADJACENT)
        rope_adjacent(x, cs, n_rot);
    else
        rope_halves(x, cs, n_rot / 2);
}

static float argmax(const float *x, int64_t n, int64_t *index)
{
    const __m512 lowest = _mm512_set1_ps(-__builtin_inff());
    __m512 best = lowest;
    __m512i at = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
            best_at = at;
    for (int64_t i = 0; i < n; i += 16, at = _mm512_add_epi32(at, _mm512_set1_epi32(16))) {
        /* A NaN never compares greater. */
        __mmask16 better =
            _mm512_cmp_ps_mask(_mm512_mask_loadu_ps(lowest, avx512_lanes(n - i), x + i), best,
                               _CMP_GT_OQ);
        best = _mm512_mask_mov_ps(best, better, _mm512_mask_loadu_ps(lowest, better, x + i));
        best_at = _mm512_mask_mov_epi32(best_at, better, at);
    }
    const float max = _mm512_reduce_max_ps(best);
    __mmask16 where = _mm512_cmp_ps_mask(best, _mm512_set1_ps(max), _CMP_EQ_OQ);
    *index = _mm512_mask_reduce_min_epi32(where, best_at);
    return max;
}

static double sum_exp(const float *x, int64_t n, float max)
{
    __m512d low = _mm512_setzero_pd(), high = _mm512_setzero_pd();
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 lanes = avx512_lanes(n - i);
        __m512 e =
            math_exp(_mm512_sub_ps(_mm512_maskz_loadu_ps(lanes, x + i), _mm512_set1_ps(max)));
        e = _mm512_maskz_mov_ps(lanes, e);
        low = _mm512_add_pd(low, _mm512_cvtps_pd(_mm512_castps512_ps256(e)));
        high = _mm512_add_pd(high, _mm512_cvtps_pd(_mm512_extractf32x8_ps(e, 1)));
    }
    return _mm512_reduce_add_pd(_mm512_add_pd(low, high));
}

void avx512_add_vector(kernels *k)
{
    k->quantize = quantize;
    k->rmsnorm = rmsnorm;
    k->add = add;
    k->scale = scale;
    k->add_scaled = add_scaled;
    k->silu_mul = silu_mul;
    k->gelu_mul = gelu_mul;
    k->softcap = softcap;
    k->rope = rope;
    k->argmax = argmax;
    k->sum_exp = sum_exp;
}
