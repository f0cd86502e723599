/* exp and tanh of 8 floats. exp is within 2 ulp, 0 below -104, infinite above 88.73, NaN for NaN. */
#ifndef KERNELS_X86_AVX2_MATH_H
#define KERNELS_X86_AVX2_MATH_H

#include "kernels/x86_avx2.h"

/* 2^n p for integers n of -152..129 in two exact steps, so that subnormal results are rounded once. */
AVX2_INLINE __m256 scaled_by_power(__m256 p, __m256i n)
{
    __m256i first = _mm256_srai_epi32(n, 1), second = _mm256_sub_epi32(n, first), bias = _mm256_set1_epi32(127);
    __m256 a = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(first, bias), 23));
    __m256 b = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(second, bias), 23));
    return _mm256_mul_ps(_mm256_mul_ps(p, a), b);
}

/*
 * exp(x) = 2^n exp(r), n = round(x / ln 2), r = x - n ln 2 in two parts, |r| <= 0.347; exp(r) by its Taylor polynomial of
 * degree 7 (remainder below 6e-9).
 */
AVX2_INLINE __m256 exp_256(__m256 x)
{
    /* minps and maxps give the second operand where one is NaN: x stays NaN. */
    __m256 in = _mm256_max_ps(_mm256_set1_ps(-105.0f), _mm256_min_ps(_mm256_set1_ps(89.0f), x));
    __m256 n = _mm256_round_ps(_mm256_mul_ps(in, _mm256_set1_ps(1.44269504088896341f)), 0);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), in);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 p = _mm256_set1_ps(1.0f / 5040.0f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 720.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    return _mm256_blendv_ps(scaled_by_power(p, _mm256_cvtps_epi32(n)), x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
}

/*
 * exp(x) for x <= 0 as softmax needs it, with half the instructions of exp_256: 0 below -87, NaN for NaN. The integer nearest to
 * x / ln 2 appears in the low bits of a float of 1.5 * 2^23 and goes to the exponent of the product. The polynomial is fitted to
 * exp on |r| <= 0.347, relative error below 2e-9.
 */
AVX2_INLINE __m256 exp_256_below_0(__m256 x)
{
    const __m256 to_integer = _mm256_set1_ps(12582912.0f);
    const __m256 biased = _mm256_fmadd_ps(x, _mm256_set1_ps(1.44269504088896341f), to_integer);
    const __m256 n = _mm256_sub_ps(biased, to_integer);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 p = _mm256_set1_ps(1.3843524502590299e-3f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3742663264274597e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1668009012937546e-2f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.16666430234909058f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.49999994039535522f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    const __m256i power = _mm256_slli_epi32(_mm256_castps_si256(biased), 23);
    const __m256 e = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), power));
    return _mm256_and_ps(e, _mm256_cmp_ps(x, _mm256_set1_ps(-87.0f), _CMP_NLT_UQ));
}

/*
 * tanh: x + x^3 P(x^2) near 0 (|x| < 0.625), 1 - 2 / (exp(2 |x|) + 1) with x's sign elsewhere. P is fitted to
 * (tanh(x) - x) / x^3, relative error of the sum below 1e-7.
 */
AVX2_INLINE __m256 tanh_256(__m256 x)
{
    __m256 sign = _mm256_and_ps(x, _mm256_set1_ps(-0.0f)), a = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
    __m256 one = _mm256_set1_ps(1.0f), e = exp_256(_mm256_add_ps(a, a));
    __m256 far = _mm256_sub_ps(one, _mm256_div_ps(_mm256_set1_ps(2.0f), _mm256_add_ps(e, one)));
    __m256 z = _mm256_mul_ps(a, a), p = _mm256_set1_ps(-5.70498872745e-3f);
    p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(2.06390887954e-2f));
    p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(-5.37397155531e-2f));
    p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(1.33314422036e-1f));
    p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(-3.33332819422e-1f));
    __m256 near = _mm256_fmadd_ps(_mm256_mul_ps(p, z), a, a);
    __m256 is_near = _mm256_cmp_ps(a, _mm256_set1_ps(0.625f), _CMP_LT_OQ);
    return _mm256_or_ps(_mm256_blendv_ps(far, near, is_near), sign);
}

/* Lanes added in one fixed order. */
AVX2_INLINE float sum_256(__m256 v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

AVX2_INLINE float max_256(__m256 v)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

#endif
