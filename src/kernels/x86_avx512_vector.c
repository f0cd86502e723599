/* AVX-512 vector kernels: quantization of activations, norms, activation functions, rope, sampling helpers. */
#include "kernels/x86_avx512_math.h"

AVX512_INLINE __m512 load_lanes(const float *x, int64_t i, int64_t n) { return _mm512_maskz_loadu_ps(avx512_lanes(n - i), x + i); }

/*
 * Quantization of activations: up to 16 blocks at a time, so that all per-block arithmetic has one lane per block. A block on the
 * fine grid (Y of quantize_args) is one vector of int16; transposed, lane i of vector j is the pair Y[2j], Y[2j+1] of block i.
 */
enum { GROUP = 16 };

typedef struct block_group {
    int n;
    const float *f[GROUP]; /* 32 values each */
    int8_t *q[GROUP];
    size_t at[GROUP]; /* where the block's scale and sums go */
    __m512i fine[GROUP], pairs[GROUP];
    float padded[GROUP][ACT_BLOCK]; /* blocks at the end of a row */
} block_group;

/* The largest magnitude of every block; NaN does not count. */
AVX512_INLINE __m512 group_largest(const block_group *g)
{
    _Alignas(64) __m128 four[GROUP];
    __m512 all = _mm512_setzero_ps();
    for (int i = 0; i < g->n; i++) {
        /* max returns its second operand when one is NaN. */
        const __m512 v = _mm512_max_ps(_mm512_abs_ps(_mm512_loadu_ps(g->f[i])),
                                       _mm512_max_ps(_mm512_abs_ps(_mm512_loadu_ps(g->f[i] + 16)), _mm512_setzero_ps()));
        const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
        four[i] = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    }
    for (int i = g->n; i < GROUP; i++)
        four[i] = _mm_setzero_ps();
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) { /* blocks 4j .. 4j + 3, one per 128 bits */
        __m512 v = _mm512_load_ps((const float *)(const void *)(four + 4 * j));
        v = _mm512_max_ps(v, _mm512_permute_ps(v, 0x4e));
        v = _mm512_max_ps(v, _mm512_permute_ps(v, 0xb1));
        all = _mm512_mask_mov_ps(all, (__mmask16)(0x1111 << j), v);
    }
    return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), all);
}

/* Y of every block, from the factor of each. NaN converts to the least integer, which packs to -32768: no Y is that small. */
AVX512_INLINE void group_fine(block_group *g, __m512 factors)
{
    const __m512i in_order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    _Alignas(64) float factor[GROUP];
    _mm512_store_ps(factor, factors);
    for (int i = 0; i < g->n; i++) {
        const __m512 by = _mm512_set1_ps(factor[i]);
        const __m512i y = _mm512_packs_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(g->f[i]), by)),
                                             _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(g->f[i] + 16), by)));
        const __mmask32 number = _mm512_cmpneq_epi16_mask(y, _mm512_set1_epi16(INT16_MIN));
        g->fine[i] = _mm512_permutexvar_epi64(in_order, _mm512_maskz_mov_epi16(number, y));
    }
    for (int i = g->n; i < GROUP; i++)
        g->fine[i] = _mm512_setzero_si512();
}

/* 16 x 16 of 32 bits. */
AVX512_INLINE void transpose(const __m512i from[16], __m512i to[16])
{
    __m512i a[16], b[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_epi32(from[i], from[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(from[i], from[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) { /* b[i + c]: column 4 * lane + c of rows i .. i + 3 */
        b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        const __m512i low0 = _mm512_shuffle_i32x4(b[c], b[c + 4], 0x44), high0 = _mm512_shuffle_i32x4(b[c], b[c + 4], 0xee),
                      low1 = _mm512_shuffle_i32x4(b[c + 8], b[c + 12], 0x44),
                      high1 = _mm512_shuffle_i32x4(b[c + 8], b[c + 12], 0xee);
        to[c] = _mm512_shuffle_i32x4(low0, low1, 0x88);
        to[c + 4] = _mm512_shuffle_i32x4(low0, low1, 0xdd);
        to[c + 8] = _mm512_shuffle_i32x4(high0, high1, 0x88);
        to[c + 12] = _mm512_shuffle_i32x4(high0, high1, 0xdd);
    }
}

/* A and B of a candidate in 8 lanes, as a a and b in double. */
typedef struct energy {
    __m512d aa, b;
} energy;

AVX512_INLINE energy energy_of(__m256i a, __m256i b)
{
    const __m512d x = _mm512_cvtepi32_pd(a);
    return (energy){_mm512_mul_pd(x, x), _mm512_cvtepi32_pd(b)};
}

/* Takes the candidate where (a a) best_b > (best_a best_a) b. */
AVX512_INLINE __mmask8 take_better(energy *best, energy e)
{
    const __mmask8 better = _mm512_cmp_pd_mask(_mm512_mul_pd(e.aa, best->b), _mm512_mul_pd(best->aa, e.b), _CMP_GT_OQ);
    best->aa = _mm512_mask_mov_pd(best->aa, better, e.aa);
    best->b = _mm512_mask_mov_pd(best->b, better, e.b);
    return better;
}

AVX512_INLINE __m256i upper_half(__m512i v) { return _mm512_extracti64x4_epi64(v, 1); }

/* The best candidate of every block: A, B, and 128 - c in both halves of a lane. */
AVX512_INLINE __m512i group_choose(const block_group *g, __m512i *best_a, __m512i *best_b)
{
    __m512i best = _mm512_set1_epi16(128);
    energy low, high;
#pragma GCC unroll 8
    for (int c = 0; c < ACT_CANDIDATES; c++) {
        const __m512i factor = _mm512_set1_epi16((short)(128 - c));
        __m512i a[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()}, b[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
#pragma GCC unroll 16
        for (int j = 0; j < GROUP; j++) {
            const __m512i q = _mm512_mulhrs_epi16(g->pairs[j], factor);
            a[j % 2] = _mm512_dpwssd_epi32(a[j % 2], g->pairs[j], q);
            b[j % 2] = _mm512_dpwssd_epi32(b[j % 2], q, q);
        }
        const __m512i a0 = _mm512_add_epi32(a[0], a[1]), b0 = _mm512_add_epi32(b[0], b[1]);
        const energy l = energy_of(_mm512_castsi512_si256(a0), _mm512_castsi512_si256(b0)),
                     h = energy_of(upper_half(a0), upper_half(b0));
        if (c == 0) {
            *best_a = a0;
            *best_b = b0;
            low = l;
            high = h;
            continue;
        }
        const __mmask8 low_better = take_better(&low, l), high_better = take_better(&high, h);
        const __mmask16 better = _mm512_kunpackb(high_better, low_better);
        *best_a = _mm512_mask_mov_epi32(*best_a, better, a0);
        *best_b = _mm512_mask_mov_epi32(*best_b, better, b0);
        best = _mm512_mask_mov_epi32(best, better, factor);
    }
    return best;
}

/* The lower and the upper half of every lane added. */
AVX512_INLINE __m512i added_pairs(__m512i v) { return _mm512_madd_epi16(v, _mm512_set1_epi16(1)); }

/* act_sums of q over the halves of every block. */
AVX512_INLINE void group_sums(const block_group *g, __m512i factor, __m512i sum[2])
{
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        __m512i columns[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()}; /* 0, 1 and 2, 3 of every four */
#pragma GCC unroll 8
        for (int j = 8 * h; j < 8 * h + 8; j++)
            columns[j % 2] = _mm512_add_epi16(columns[j % 2], _mm512_mulhrs_epi16(g->pairs[j], factor));
        sum[h] = _mm512_mask_mov_epi16(added_pairs(columns[0]), 0xaaaaaaaa, _mm512_slli_epi32(added_pairs(columns[1]), 16));
    }
}

/* What a group's blocks get, one lane per block; of the halves two neighbours. */
typedef struct group_results {
    _Alignas(64) float d[GROUP], s[GROUP], s16[2 * GROUP];
    _Alignas(64) int32_t isum[GROUP], isum16[2 * GROUP];
} group_results;

AVX512_INLINE void group_finish(group_results *r, __m512 d, const __m512i sum[2])
{
    const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23),
                  second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    const __m512i low = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7),
                  high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    const __m512i total = _mm512_add_epi16(sum[0], sum[1]);
    const __m512i pair0 = _mm512_permutex2var_epi32(sum[0], first, sum[1]),
                  pair1 = _mm512_permutex2var_epi32(sum[0], second, sum[1]);
    _mm512_store_ps(r->d, d);
    _mm512_store_ps(r->s, _mm512_mul_ps(d, _mm512_cvtepi32_ps(added_pairs(total))));
    _mm512_store_si512(r->isum, total);
    _mm512_store_si512(r->isum16, pair0);
    _mm512_store_si512(r->isum16 + 16, pair1);
    _mm512_store_ps(r->s16, _mm512_mul_ps(_mm512_permutexvar_ps(low, d), _mm512_cvtepi32_ps(added_pairs(pair0))));
    _mm512_store_ps(r->s16 + 16, _mm512_mul_ps(_mm512_permutexvar_ps(high, d), _mm512_cvtepi32_ps(added_pairs(pair1))));
}

/* Writes scale and sums of every block; those of a whole group that are neighbours in one go. */
AVX512_INLINE void group_store(const quantize_args *a, const block_group *g, const group_results *r)
{
    const size_t at = g->at[0];
    if (g->n == GROUP && g->at[GROUP - 1] == at + GROUP - 1) {
        memcpy(a->d + at, r->d, sizeof r->d);
        memcpy(a->s + at, r->s, sizeof r->s);
        memcpy(a->isum + at, r->isum, sizeof r->isum);
        if (a->isum16) {
            memcpy(a->isum16 + 2 * at, r->isum16, sizeof r->isum16);
            memcpy(a->s16 + 2 * at, r->s16, sizeof r->s16);
        }
        return;
    }
    for (int i = 0; i < g->n; i++) {
        a->d[g->at[i]] = r->d[i];
        a->s[g->at[i]] = r->s[i];
        a->isum[g->at[i]] = r->isum[i];
    }
    for (int i = 0; a->isum16 && i < g->n; i++) {
        memcpy(a->isum16 + 2 * g->at[i], r->isum16 + 2 * i, 8);
        memcpy(a->s16 + 2 * g->at[i], r->s16 + 2 * i, 8);
    }
}

static void quantize_group(const quantize_args *a, block_group *g)
{
    const __m512 zero = _mm512_setzero_ps();
    const __m512 amax = group_largest(g), factor = _mm512_div_ps(_mm512_set1_ps(32512.0f), amax);
    const __mmask16 usable = _mm512_cmp_ps_mask(factor, _mm512_set1_ps(3.0e38f), _CMP_LE_OQ);
    const __m512 d0 = _mm512_maskz_div_ps(usable, amax, _mm512_set1_ps(127.0f));
    group_fine(g, _mm512_mask_mov_ps(zero, usable, factor));
    transpose(g->fine, g->pairs);
    __m512i best_a = _mm512_setzero_si512(), best_b = best_a, sum[2];
    const __m512i best = group_choose(g, &best_a, &best_b);
    group_sums(g, best, sum);
    const __m512 ratio = _mm512_div_ps(_mm512_cvtepi32_ps(best_a), _mm512_cvtepi32_ps(best_b));
    const __mmask16 some = _mm512_test_epi32_mask(best_b, best_b);
    const __m512 d = _mm512_mask_mul_ps(d0, some, d0, _mm512_mul_ps(ratio, _mm512_set1_ps(1.0f / 256.0f)));
    _Alignas(64) int32_t factors[GROUP];
    _mm512_store_si512(factors, best);
    for (int i = 0; i < g->n; i++)
        _mm256_storeu_si256((__m256i *)(void *)g->q[i],
                            _mm512_cvtepi16_epi8(_mm512_mulhrs_epi16(g->fine[i], _mm512_set1_epi32(factors[i]))));
    group_results r;
    group_finish(&r, d, sum);
    group_store(a, g, &r);
}

static void quantize(const quantize_args *a)
{
    block_group g;
    g.n = 0;
    for (int r = 0; r < a->n_rows; r++) {
        const float *f = a->f + (size_t)r * a->f_stride;
        for (int64_t b = 0; 32 * b < a->k; b++) {
            g.f[g.n] = f + 32 * b;
            g.q[g.n] = a->q + (size_t)r * a->q_stride + 32 * b;
            g.at[g.n] = (size_t)r * a->b_stride + (size_t)b;
            if (32 * b + 32 > a->k) {
                _mm512_storeu_ps(g.padded[g.n], load_lanes(f, 32 * b, a->k));
                _mm512_storeu_ps(g.padded[g.n] + 16, load_lanes(f, 32 * b + 16, a->k));
                g.f[g.n] = g.padded[g.n];
            }
            if (++g.n == GROUP) {
                quantize_group(a, &g);
                g.n = 0;
            }
        }
    }
    if (g.n > 0)
        quantize_group(a, &g);
}

static void rmsnorm(const float *x, const float *w, float eps, int64_t n, float *y)
{
    __m512 sum[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    for (int64_t i = 0; i < n; i += 64) {
        for (int j = 0; j < 4; j++) {
            __m512 v = i + 16 * j < n ? load_lanes(x, i + 16 * j, n) : _mm512_setzero_ps();
            sum[j] = _mm512_fmadd_ps(v, v, sum[j]);
        }
    }
    const float total = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3])));
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
        _mm512_mask_storeu_ps(y + i, avx512_lanes(n - i), _mm512_add_ps(load_lanes(y, i, n), load_lanes(x, i, n)));
}

static void scale(float *y, float s, int64_t n)
{
    const __m512 factor = _mm512_set1_ps(s);
    for (int64_t i = 0; i < n; i += 16)
        _mm512_mask_storeu_ps(y + i, avx512_lanes(n - i), _mm512_mul_ps(load_lanes(y, i, n), factor));
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
        _mm512_mask_storeu_ps(y + i, avx512_lanes(n - i), _mm512_mul_ps(times_sigmoid(g, g), load_lanes(up, i, n)));
    }
}

/* gelu_tanh(g) = g (1 + tanh(z)) / 2 = g sigmoid(2z), z = sqrt(2/pi) (g + 0.044715 g^3). */
static void gelu_mul(const float *gate, const float *up, float *y, int64_t n)
{
    const __m512 one = _mm512_set1_ps(1.0f), cubic = _mm512_set1_ps(0.044715f), twice_root = _mm512_set1_ps(1.59576912f);
    for (int64_t i = 0; i < n; i += 16) {
        __m512 g = load_lanes(gate, i, n);
        __m512 inner = _mm512_fmadd_ps(_mm512_mul_ps(cubic, g), g, one);
        __m512 z = _mm512_mul_ps(_mm512_mul_ps(twice_root, g), inner);
        _mm512_mask_storeu_ps(y + i, avx512_lanes(n - i), _mm512_mul_ps(times_sigmoid(g, z), load_lanes(up, i, n)));
    }
}

/* min and max keep a NaN of their second operand. */
static void swiglu_oai_mul(const float *gate, const float *up, float *y, int64_t n)
{
    const __m512 one = _mm512_set1_ps(1.0f), most = _mm512_set1_ps(SWIGLU_OAI_LIMIT), least = _mm512_set1_ps(-SWIGLU_OAI_LIMIT);
    for (int64_t i = 0; i < n; i += 16) {
        __m512 g = _mm512_min_ps(most, load_lanes(gate, i, n));
        __m512 u = _mm512_max_ps(least, _mm512_min_ps(most, load_lanes(up, i, n)));
        __m512 v = times_sigmoid(g, _mm512_mul_ps(_mm512_set1_ps(SWIGLU_OAI_SLOPE), g));
        _mm512_mask_storeu_ps(y + i, avx512_lanes(n - i), _mm512_mul_ps(v, _mm512_add_ps(u, one)));
    }
}

static void softcap(float *x, float cap, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16)
        _mm512_mask_storeu_ps(x + i, avx512_lanes(n - i), math_softcap(load_lanes(x, i, n), _mm512_set1_ps(cap)));
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
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    for (int i = 0; i < half; i += 16) {
        const __m512 low = load_lanes(cs, 2 * i, 2 * half);
        const __m512 high = 2 * i + 16 < 2 * half ? load_lanes(cs, 2 * i + 16, 2 * half) : _mm512_setzero_ps();
        const __m512 cosine = _mm512_permutex2var_ps(low, even, high), sine = _mm512_permutex2var_ps(low, odd, high);
        const __m512 x0 = load_lanes(x, i, half), x1 = load_lanes(x + half, i, half);
        _mm512_mask_storeu_ps(x + i, avx512_lanes(half - i), _mm512_fmsub_ps(x0, cosine, _mm512_mul_ps(x1, sine)));
        _mm512_mask_storeu_ps(x + half + i, avx512_lanes(half - i), _mm512_fmadd_ps(x1, cosine, _mm512_mul_ps(x0, sine)));
    }
}

static void rope(float *x, const float *cs, int n_rot, rope_pairs pairs)
{
    if (pairs == ROPE_ADJACENT)
        rope_adjacent(x, cs, n_rot);
    else
        rope_halves(x, cs, n_rot / 2);
}

/* a + b and a - b where the partner of each lane is the one `swapped` holds; lanes in `second` are b. */
AVX512_INLINE __m512 butterfly(__m512 v, __m512 swapped, __mmask16 second)
{
    return _mm512_mask_sub_ps(_mm512_add_ps(v, swapped), second, swapped, v);
}

/* h = 1, 2, 4, 8 of 16 values. */
AVX512_INLINE __m512 hadamard_within(__m512 v)
{
    v = butterfly(v, _mm512_permute_ps(v, 0xb1), 0xaaaa);
    v = butterfly(v, _mm512_permute_ps(v, 0x4e), 0xcccc);
    v = butterfly(v, _mm512_shuffle_f32x4(v, v, 0xb1), 0xf0f0);
    return butterfly(v, _mm512_shuffle_f32x4(v, v, 0x4e), 0xff00);
}

static void hadamard(float *x, int n)
{
    const __m512 scale = _mm512_set1_ps(1.0f / __builtin_sqrtf((float)HADAMARD_MOST));
    for (; n >= HADAMARD_MOST; n -= HADAMARD_MOST, x += HADAMARD_MOST) {
        const __m512 a = hadamard_within(_mm512_loadu_ps(x)), b = hadamard_within(_mm512_loadu_ps(x + 16));
        _mm512_storeu_ps(x, _mm512_mul_ps(_mm512_add_ps(a, b), scale));
        _mm512_storeu_ps(x + 16, _mm512_mul_ps(_mm512_sub_ps(a, b), scale));
    }
    if (n >= HADAMARD_LEAST)
        _mm512_storeu_ps(x, _mm512_mul_ps(hadamard_within(_mm512_loadu_ps(x)), _mm512_set1_ps(0.25f)));
}

static float argmax(const float *x, int64_t n, int64_t *index)
{
    const __m512 lowest = _mm512_set1_ps(-__builtin_inff());
    __m512 best = lowest;
    __m512i at = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), best_at = at;
    for (int64_t i = 0; i < n; i += 16, at = _mm512_add_epi32(at, _mm512_set1_epi32(16))) {
        /* A NaN never compares greater. */
        __mmask16 better = _mm512_cmp_ps_mask(_mm512_mask_loadu_ps(lowest, avx512_lanes(n - i), x + i), best, _CMP_GT_OQ);
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
        __m512 e = math_exp(_mm512_sub_ps(_mm512_maskz_loadu_ps(lanes, x + i), _mm512_set1_ps(max)));
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
    k->swiglu_oai_mul = swiglu_oai_mul;
    k->softcap = softcap;
    k->rope = rope;
    k->hadamard = hadamard;
    k->argmax = argmax;
    k->sum_exp = sum_exp;
}
