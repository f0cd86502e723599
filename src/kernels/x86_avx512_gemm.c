/*
 * The micro-kernels of quantized gemm: register tiles of 1 or 2 panels by up to GEMM_TOKENS tokens over expanded blocks
 * (x86_avx512_block.h). They depend on the kind of arithmetic only, not on the weight type.
 */
#include "kernels/x86_avx512_block.h"

/* What a tile needs of its tokens, one row per token, so that one base register reaches everything. */
typedef struct tile_tokens {
    int32_t start[GEMM_TOKENS][2 * GEMM_BLOCKS]; /* -off * isum or isum16 */
    float d[GEMM_TOKENS][GEMM_BLOCKS];
    float s[GEMM_TOKENS][2 * GEMM_BLOCKS]; /* s or s16 */
} tile_tokens;

/* dst[i] = -(src[i] << shift), i < n; shift < 0: 0. */
AVX512_INLINE void copy_starts(const int32_t *src, int64_t n, int shift, int32_t *dst)
{
    for (int64_t i = 0; i < n; i += 16) {
        __m512i v = shift < 0 ? _mm512_setzero_si512()
                              : _mm512_maskz_loadu_epi32(avx512_lanes(n - i), src + i);
        v = _mm512_sub_epi32(_mm512_setzero_si512(),
                             _mm512_sll_epi32(v, _mm_cvtsi32_si128(shift < 0 ? 0 : shift)));
        _mm512_store_si512(dst + i, v);
    }
}

AVX512_INLINE void copy_floats(const float *src, int64_t n, float *dst)
{
    for (int64_t i = 0; i < n; i += 16)
        _mm512_store_ps(dst + i, _mm512_maskz_loadu_ps(avx512_lanes(n - i), src + i));
}

AVX512_INLINE void tile_fill(tile_tokens *tile, const gemm_part *g, int token, int nt,
                             const block_kind kind)
{
    const act *x = g->a->x;
    for (int t = 0; t < nt; t++) {
        const size_t at = (size_t)(g->a->token + token + t) * x->b_stride + (size_t)g->b0;
        copy_floats(x->d + at, g->n, tile->d[t]);
        if (KIND_HALVES(kind) == 2) {
            copy_starts(x->isum16 + 2 * at, 2 * g->n, g->shift, tile->start[t]);
            if (KIND_HAS_MIN(kind))
                copy_floats(x->s16 + 2 * at, 2 * g->n, tile->s[t]);
        } else {
            copy_starts(x->isum + at, g->n, g->shift, tile->start[t]);
            if (KIND_HAS_MIN(kind))
                copy_floats(x->s + at, g->n, tile->s[t]);
        }
    }
}

/* np panels x nt tokens over all blocks of the part; token counts from the call's first. */
AVX512_INLINE void tile_multiply(const gemm_part *g, const tile_tokens *tile, int token,
                                 const block_kind kind, const int np, const int nt)
{
    const act *x = g->a->x;
    const int halves = KIND_HALVES(kind), steps = BLOCK_STEPS / halves;
    const size_t q_stride = x->q_stride, y_stride = g->a->y_stride;
    const int8_t *q = x->q + (size_t)(g->a->token + token) * q_stride + (size_t)g->b0 * ACT_BLOCK;
    const uint8_t *record = g->a->scratch;
    float *y = g->a->y + (size_t)token * y_stride + (size_t)g->first * PANEL_ROWS;
    __m512 acc[GEMM_PANELS][GEMM_TOKENS];

#pragma GCC unroll 12
    for (int i = 0; i < np * nt; i++)
        acc[i / nt][i % nt] =
            g->b0 == 0
                ? _mm512_setzero_ps()
                : _mm512_loadu_ps(y + (size_t)(i % nt) * y_stride + (size_t)(i / nt) * PANEL_ROWS);
    for (int64_t b = 0; b < g->n; b++, q += ACT_BLOCK, record += (size_t)np * RECORD_BYTES(kind)) {
        __m512i sum[GEMM_PANELS][GEMM_TOKENS];
        __m512 term[GEMM_PANELS][GEMM_TOKENS];
#pragma GCC unroll 2
        for (int h = 0; h < halves; h++) {
#pragma GCC unroll 12
            for (int i = 0; i < np * nt; i++)
                sum[i / nt][i % nt] = _mm512_set1_epi32(tile->start[i % nt][halves * b + h]);
#pragma GCC unroll 8
            for (int s = h * steps; s < (h + 1) * steps; s++) {
                __m512i u[GEMM_PANELS];
#pragma GCC unroll 2
                for (int p = 0; p < np; p++)
                    u[p] = _mm512_load_si512(record + (size_t)p * RECORD_BYTES(kind) + 64 * s);
#pragma GCC unroll 12
                for (int t = 0; t < nt; t++) {
                    __m512i four = block_broadcast(q + (size_t)t * q_stride + 4 * s);
#pragma GCC unroll 2
                    for (int p = 0; p < np; p++)
                        sum[p][t] = _mm512_dpbusd_epi32(sum[p][t], u[p], four);
                }
            }
#pragma GCC unroll 12
            for (int i = 0; i < np * nt; i++) {
                const int p = i / nt, t = i % nt;
                const float *f =
                    (const float *)(const void *)(record + (size_t)p * RECORD_BYTES(kind) + 512);
                __m512 value = _mm512_cvtepi32_ps(sum[p][t]), ws = _mm512_load_ps(f + 16 * h);
                term[p][t] =
                    h == 0 ? _mm512_mul_ps(value, ws) : _mm512_fmadd_ps(value, ws, term[p][t]);
            }
        }
#pragma GCC unroll 12
        for (int i = 0; i < np * nt; i++) {
            const int p = i / nt, t = i % nt;
            const float *f =
                (const float *)(const void *)(record + (size_t)p * RECORD_BYTES(kind) + 512) +
                16 * halves;
            acc[p][t] = _mm512_fmadd_ps(term[p][t], _mm512_set1_ps(tile->d[t][b]), acc[p][t]);
            if (KIND_HAS_MIN(kind)) {
#pragma GCC unroll 2
                for (int h = 0; h < halves; h++)
                    acc[p][t] =
                        _mm512_fmadd_ps(_mm512_load_ps(f + 16 * h),
                                        _mm512_set1_ps(tile->s[t][halves * b + h]), acc[p][t]);
            }
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < np * nt; i++)
        _mm512_storeu_ps(y + (size_t)(i % nt) * y_stride + (size_t)(i / nt) * PANEL_ROWS,
                         acc[i / nt][i % nt]);
}

AVX512_INLINE void tile_rest(const gemm_part *g, const tile_tokens *tile, int token, int nt,
                             const block_kind kind, const int np)
{
    switch (nt) {
    case 6: tile_multiply(g, tile, token, kind, np, 6); break;
    case 5: tile_multiply(g, tile, token, kind, np, 5); break;
    case 4: tile_multiply(g, tile, token, kind, np, 4); break;
    case 3: tile_multiply(g, tile, token, kind, np, 3); break;
    case 2: tile_multiply(g, tile, token, kind, np, 2); break;
    default: tile_multiply(g, tile, token, kind, np, 1); break;
    }
}

AVX512_INLINE void part_multiply(const gemm_part *g, const block_kind kind)
{
    _Alignas(64) tile_tokens tile;
    for (int token = 0; token < g->a->n_tokens; token += GEMM_TOKENS) {
        const int left = g->a->n_tokens - token, nt = left < GEMM_TOKENS ? left : GEMM_TOKENS;
        tile_fill(&tile, g, token, nt, kind);
        if (g->np == GEMM_PANELS)
            tile_rest(g, &tile, token, nt, kind, GEMM_PANELS);
        else
            tile_rest(g, &tile, token, nt, kind, 1);
    }
}

void avx512_gemm_part(const gemm_part *part, block_kind kind)
{
    switch (kind) {
    case KIND_32: part_multiply(part, KIND_32); break;
    case KIND_16: part_multiply(part, KIND_16); break;
    case KIND_32_MIN: part_multiply(part, KIND_32_MIN); break;
    case KIND_16_MIN: part_multiply(part, KIND_16_MIN); break;
    }
}
