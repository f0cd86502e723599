/* Vector exp and tanh for the AVX-512 files. */
#ifndef KERNELS_X86_AVX512_MATH_H
#define KERNELS_X86_AVX512_MATH_H

#include "kernels/x86_avx512.h"

/*
 * x = n ln 2 + r, |r| <= ln 2 / 2: *n and p = exp(r) - 1 by its Taylor series to r^7 (error below 2^-27 of exp). ln 2 is split
 * so that n * hi is exact.
 */
AVX512_INLINE __m512 math_exp_parts(__m512 x, __m512 *n)
{
    *n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(*n, _mm512_set1_ps(0x1.62e400p-1f), x);
    r = _mm512_fnmadd_ps(*n, _mm512_set1_ps(0x1.7f7d1cp-20f), r);
    __m512 p = _mm512_set1_ps(1.0f / 5040.0f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 720.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    return _mm512_fmadd_ps(_mm512_mul_ps(p, r), r, r);
}

/* exp(x): inf above 88.73, 0 below -104 (subnormals in between), NaN stays. */
AVX512_INLINE __m512 math_exp(__m512 x)
{
    /* min and max return their second operand when one is NaN. */
    x = _mm512_max_ps(_mm512_set1_ps(-110.0f), _mm512_min_ps(_mm512_set1_ps(90.0f), x));
    __m512 n, p = math_exp_parts(x, &n);
    return _mm512_scalef_ps(_mm512_add_ps(p, _mm512_set1_ps(1.0f)), n);
}

/* tanh(x) = e / (e + 2), e = exp(2x) - 1 = 2^n p + (2^n - 1), which keeps its relative precision near 0. */
AVX512_INLINE __m512 math_tanh(__m512 x)
{
    const __m512 one = _mm512_set1_ps(1.0f);
    x = _mm512_max_ps(_mm512_set1_ps(-10.0f), _mm512_min_ps(_mm512_set1_ps(10.0f), x));
    __m512 n, p = math_exp_parts(_mm512_add_ps(x, x), &n);
    __m512 e = _mm512_add_ps(_mm512_scalef_ps(p, n), _mm512_sub_ps(_mm512_scalef_ps(one, n), one));
    return _mm512_div_ps(e, _mm512_add_ps(e, _mm512_set1_ps(2.0f)));
}

/* cap * tanh(x / cap) */
AVX512_INLINE __m512 math_softcap(__m512 x, __m512 cap) { return _mm512_mul_ps(cap, math_tanh(_mm512_div_ps(x, cap))); }

/* Which of the 16 slots from j on are in [lo, hi). */
AVX512_INLINE __mmask16 math_valid(int j, int lo, int hi) { return (__mmask16)(avx512_lanes(hi - j) & ~avx512_lanes(lo - j)); }

/* The largest of s[lo .. hi), -inf if there is none; NaN is passed over. cap > 0: s[lo .. hi) is soft-capped first. */
AVX512_INLINE float math_row_max(float *s, int lo, int hi, float cap)
{
    const __m512 lowest = _mm512_set1_ps(-__builtin_inff());
    __m512 max[4] = {lowest, lowest, lowest, lowest};
    int j = lo / 16 * 16;
    for (; cap > 0.0f && j < hi; j += 16)
        _mm512_mask_storeu_ps(s + j, math_valid(j, lo, hi), math_softcap(_mm512_loadu_ps(s + j), _mm512_set1_ps(cap)));
    for (j = lo / 16 * 16; j < hi && (j < lo || j + 64 > hi); j += 16)
        max[0] = _mm512_max_ps(_mm512_mask_loadu_ps(lowest, math_valid(j, lo, hi), s + j), max[0]);
    for (; j + 64 <= hi; j += 64)
        for (int v = 0; v < 4; v++)
            max[v] = _mm512_max_ps(_mm512_loadu_ps(s + j + 16 * v), max[v]);
    for (; j < hi; j += 16)
        max[0] = _mm512_max_ps(_mm512_mask_loadu_ps(lowest, math_valid(j, lo, hi), s + j), max[0]);
    return _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(max[0], max[1]), _mm512_max_ps(max[2], max[3])));
}

#endif
