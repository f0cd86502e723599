/*
 * The micro-kernels of quantized gemm: register tiles of 1 or 2 panels by up to GEMM_TOKENS tokens over expanded blocks
 * (x86_avx512_block.h). They depend on the kind of arithmetic only, not on the weight type.
 */
#include "kernels/x86_avx512_block.h"

/* Where the sums of a tile begin, -off times the totals of isum or isum16: only for types with an offset, and those have no minimum. */
typedef struct tile_starts {
    _Alignas(64) int32_t of[GEMM_TOKENS][2 * GEMM_BLOCKS];
} tile_starts;

AVX512_INLINE void tile_start(tile_starts *starts, const gemm_part *g, int token, int nt, const block_kind kind)
{
    const act *x = g->a->x;
    const int64_t n = KIND_HALVES(kind) * g->n;
    const __m512i off = _mm512_set1_epi16((short)-(1 << g->shift));
    for (int t = 0; t < nt; t++) {
        const size_t at = (size_t)(g->a->token + token + t) * x->b_stride + (size_t)g->b0;
        const int32_t *sums = KIND_HALVES(kind) == 2 ? x->isum16 + 2 * at : x->isum + at;
        for (int64_t i = 0; i < n; i += 16) {
            const __m512i v = n - i >= 16 ? _mm512_loadu_si512((const void *)(sums + i))
                                          : _mm512_maskz_loadu_epi32(avx512_lanes(n - i), sums + i);
            _mm512_store_si512(starts->of[t] + i, _mm512_madd_epi16(v, off));
        }
    }
}

/* np panels x nt tokens over all blocks of the part; token counts from the call's first. */
AVX512_INLINE void tile_multiply(const gemm_part *g, const tile_starts *starts, int pair, int token, const block_kind kind,
                                 const int np, const int nt)
{
    const act *x = g->a->x;
    const int halves = KIND_HALVES(kind), minima = KIND_MINIMA(kind), steps = BLOCK_STEPS / halves;
    const size_t q_stride = x->q_stride, y_stride = g->a->y_stride, b_stride = x->b_stride;
    const size_t row = (size_t)(g->a->token + token), at = row * b_stride + (size_t)g->b0;
    const int8_t *q = x->q + row * q_stride + (size_t)g->b0 * ACT_BLOCK;
    const float *d = x->d + at, *s_min = minima == 2 ? x->s16 + 2 * at : x->s + at;
    const uint8_t *record = g->a->scratch + (size_t)pair * g->pair_bytes;
    float *y = g->a->y + (size_t)token * y_stride + (size_t)(g->first + pair * GEMM_PANELS) * PANEL_ROWS;
    __m512 acc[GEMM_PANELS][GEMM_TOKENS];

#pragma GCC unroll 12
    for (int i = 0; i < np * nt; i++)
        acc[i / nt][i % nt] =
            g->b0 == 0 ? _mm512_setzero_ps() : _mm512_loadu_ps(y + (size_t)(i % nt) * y_stride + (size_t)(i / nt) * PANEL_ROWS);
        /* Another core may own these lines: they come while the tile computes. */
#pragma GCC unroll 12
    for (int i = 0; i < np * nt; i++)
        __builtin_prefetch(y + (size_t)(i % nt) * y_stride + (size_t)(i / nt) * PANEL_ROWS, 1);
    for (int64_t b = 0; b < g->n; b++, q += ACT_BLOCK, record += (size_t)np * RECORD_BYTES(kind)) {
        __m512i sum[GEMM_PANELS][GEMM_TOKENS];
        __m512 term[GEMM_PANELS][GEMM_TOKENS];
#pragma GCC unroll 2
        for (int h = 0; h < halves; h++) {
#pragma GCC unroll 12
            for (int i = 0; i < np * nt; i++)
                sum[i / nt][i % nt] = minima ? _mm512_setzero_si512() : _mm512_set1_epi32(starts->of[i % nt][halves * b + h]);
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
                const float *f = (const float *)(const void *)(record + (size_t)p * RECORD_BYTES(kind) + 512);
                __m512 value = _mm512_cvtepi32_ps(sum[p][t]), ws = _mm512_load_ps(f + 16 * h);
                term[p][t] = h == 0 ? _mm512_mul_ps(value, ws) : _mm512_fmadd_ps(value, ws, term[p][t]);
            }
        }
#pragma GCC unroll 12
        for (int i = 0; i < np * nt; i++) {
            const int p = i / nt, t = i % nt;
            const float *f = (const float *)(const void *)(record + (size_t)p * RECORD_BYTES(kind) + 512) + 16 * halves;
            acc[p][t] = _mm512_fmadd_ps(term[p][t], _mm512_set1_ps(d[(size_t)t * b_stride + (size_t)b]), acc[p][t]);
            for (int h = 0; h < minima; h++) {
                const float s = s_min[(size_t)minima * ((size_t)t * b_stride + (size_t)b) + (size_t)h];
                acc[p][t] = _mm512_fmadd_ps(_mm512_load_ps(f + 16 * h), _mm512_set1_ps(s), acc[p][t]);
            }
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < np * nt; i++)
        _mm512_storeu_ps(y + (size_t)(i % nt) * y_stride + (size_t)(i / nt) * PANEL_ROWS, acc[i / nt][i % nt]);
}

AVX512_INLINE void tile_pair(const gemm_part *g, const tile_starts *starts, int pair, int token, int nt, const block_kind kind,
                             const int np)
{
    switch (nt) {
    case 6: tile_multiply(g, starts, pair, token, kind, np, 6); break;
    case 5: tile_multiply(g, starts, pair, token, kind, np, 5); break;
    case 4: tile_multiply(g, starts, pair, token, kind, np, 4); break;
    case 3: tile_multiply(g, starts, pair, token, kind, np, 3); break;
    case 2: tile_multiply(g, starts, pair, token, kind, np, 2); break;
    default: tile_multiply(g, starts, pair, token, kind, np, 1); break;
    }
}

AVX512_INLINE void part_multiply(const gemm_part *g, const block_kind kind)
{
    tile_starts starts;
    for (int token = 0; token < g->a->n_tokens; token += GEMM_TOKENS) {
        const int left = g->a->n_tokens - token, nt = left < GEMM_TOKENS ? left : GEMM_TOKENS;
        if (!KIND_MINIMA(kind))
            tile_start(&starts, g, token, nt, kind);
        for (int pair = 0; pair < g->np / GEMM_PANELS; pair++)
            tile_pair(g, &starts, pair, token, nt, kind, GEMM_PANELS);
        if (g->np % GEMM_PANELS)
            tile_pair(g, &starts, g->np / GEMM_PANELS, token, nt, kind, 1);
    }
}

void avx512_gemm_part(const gemm_part *part, block_kind kind)
{
    switch (kind) {
    case KIND_32: part_multiply(part, KIND_32); break;
    case KIND_16: part_multiply(part, KIND_16); break;
    case KIND_32_MIN: part_multiply(part, KIND_32_MIN); break;
    case KIND_32_MIN_16: part_multiply(part, KIND_32_MIN_16); break;
    }
}
