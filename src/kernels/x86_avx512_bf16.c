/*
 * F16 and BF16 weights on CPUs with AVX512_BF16: the dot-product instruction takes two columns of 16 rows at a time. Both
 * types lie in memory as pairs of columns. F16 is rounded to bf16 on its way: in registers by gemv, into scratch once per
 * panel by gemm, which then multiplies tiles of panels by tokens. The only file compiled for this instruction set.
 */
#include "kernels/x86_avx512.h"

#define PAIR_BYTES 64  /* two columns of a panel */
#define GEMM_PAIRS 128 /* pairs of columns expanded at a time */
#define GEMM_PANELS 4  /* panels and tokens of a gemm tile: 24 sums, 4 weights, an activation */
#define GEMM_TOKENS 6

/* One pair of columns as operand of the dot product: [16 rows][2]. */
typedef __m512i (*load_fn)(const uint8_t *p);

AVX512_INLINE __m512i load_bf16(const uint8_t *p) { return _mm512_loadu_si512((const void *)p); }

AVX512_INLINE __m512i load_f16(const uint8_t *p)
{
    return (__m512i)_mm512_cvtne2ps_pbh(avx512_load_f16(p + 32), avx512_load_f16(p));
}

/* A pair of activations for every row. */
AVX512_INLINE __m512i broadcast_pair(const uint16_t *x)
{
    int32_t pair;
    memcpy(&pair, x, sizeof pair);
    return _mm512_set1_epi32(pair);
}

AVX512_INLINE __m512 dot(__m512 acc, __m512i w, __m512i x) { return _mm512_dpbf16_ps(acc, (__m512bh)w, (__m512bh)x); }

/* np panels from `first` on, nt tokens, all columns. */
AVX512_INLINE void gemv_tile(const linear_args *a, int first, const load_fn load, const int np, const int nt)
{
    __m512 acc[4][GEMV_TOKENS];
    const size_t x_stride = a->x->bf16_stride, panel_bytes = a->panel_bytes;
    const uint16_t *x = a->x->bf16 + (size_t)a->token * x_stride;
    const uint8_t *w = a->panels + (size_t)first * panel_bytes;

#pragma GCC unroll 16
    for (int i = 0; i < np * nt; i++)
        acc[i / nt][i % nt] = _mm512_setzero_ps();
    for (int64_t k = 0; k < a->k; k += 2, x += 2, w += PAIR_BYTES) {
#pragma GCC unroll 4
        for (int p = 0; p < np; p++) {
            __m512i pair = load(w + (size_t)p * panel_bytes);
#pragma GCC unroll 4
            for (int t = 0; t < nt; t++)
                acc[p][t] = dot(acc[p][t], pair, broadcast_pair(x + (size_t)t * x_stride));
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < np * nt; i++)
        _mm512_storeu_ps(a->y + (size_t)(i % nt) * a->y_stride + (size_t)(first + i / nt) * PANEL_ROWS, acc[i / nt][i % nt]);
}

AVX512_INLINE void gemv_panels(const linear_args *a, const load_fn load, const int np, const int nt)
{
    int p = 0;
    for (; p + np <= a->n_panels; p += np)
        gemv_tile(a, p, load, np, nt);
    for (; p < a->n_panels; p++)
        gemv_tile(a, p, load, 1, nt);
}

AVX512_INLINE void gemv_any(const linear_args *a, const load_fn load)
{
    switch (a->n_tokens) {
    case 1: gemv_panels(a, load, 4, 1); break;
    case 2: gemv_panels(a, load, 4, 2); break;
    case 3: gemv_panels(a, load, 4, 3); break;
    default: gemv_panels(a, load, 4, 4); break;
    }
}

/* The columns of a tile at hand: w is bf16 [n_pairs][np panels][16 rows][2], the first pair is pair0. */
typedef struct bf16_part {
    const linear_args *a;
    const uint8_t *w;
    int first;
    int64_t pair0, n_pairs;
} bf16_part;

AVX512_INLINE void tile_multiply(const bf16_part *g, int token, const int np, const int nt)
{
    const size_t x_stride = g->a->x->bf16_stride, y_stride = g->a->y_stride;
    const uint16_t *x = g->a->x->bf16 + (size_t)(g->a->token + token) * x_stride + 2 * (size_t)g->pair0;
    const uint8_t *w = g->w;
    float *y = g->a->y + (size_t)token * y_stride + (size_t)g->first * PANEL_ROWS;
    __m512 acc[GEMM_PANELS][GEMM_TOKENS];

#pragma GCC unroll 24
    for (int i = 0; i < np * nt; i++)
        acc[i / nt][i % nt] =
            g->pair0 == 0 ? _mm512_setzero_ps() : _mm512_loadu_ps(y + (size_t)(i % nt) * y_stride + (size_t)(i / nt) * PANEL_ROWS);
    for (int64_t j = 0; j < g->n_pairs; j++, w += np * PAIR_BYTES, x += 2) {
        __m512i pair[GEMM_PANELS];
#pragma GCC unroll 4
        for (int p = 0; p < np; p++)
            pair[p] = load_bf16(w + p * PAIR_BYTES);
#pragma GCC unroll 6
        for (int t = 0; t < nt; t++) {
            __m512i value = broadcast_pair(x + (size_t)t * x_stride);
#pragma GCC unroll 4
            for (int p = 0; p < np; p++)
                acc[p][t] = dot(acc[p][t], pair[p], value);
        }
    }
#pragma GCC unroll 24
    for (int i = 0; i < np * nt; i++)
        _mm512_storeu_ps(y + (size_t)(i % nt) * y_stride + (size_t)(i / nt) * PANEL_ROWS, acc[i / nt][i % nt]);
}

AVX512_INLINE void part_multiply(const bf16_part *g, const int np)
{
    int token = 0;
    const int n = g->a->n_tokens;
    for (; token + GEMM_TOKENS <= n; token += GEMM_TOKENS)
        tile_multiply(g, token, np, GEMM_TOKENS);
    switch (n - token) {
    case 5: tile_multiply(g, token, np, 5); break;
    case 4: tile_multiply(g, token, np, 4); break;
    case 3: tile_multiply(g, token, np, 3); break;
    case 2: tile_multiply(g, token, np, 2); break;
    case 1: tile_multiply(g, token, np, 1); break;
    default: break;
    }
}

static void part_run(const bf16_part *g, int np)
{
    switch (np) {
    case 4: part_multiply(g, 4); break;
    case 3: part_multiply(g, 3); break;
    case 2: part_multiply(g, 2); break;
    default: part_multiply(g, 1); break;
    }
}

/* Columns in order, as many as fit the scratch; the panels of a tile are interleaved there, so that a tile reads one stream. */
AVX512_INLINE void gemm_any(const linear_args *a, const load_fn load)
{
    const int64_t all = (a->k + 1) / 2;
    const int64_t fit = (int64_t)(linear_scratch_bytes(a->k) / (GEMM_PANELS * (size_t)PAIR_BYTES));
    const int64_t most = fit < GEMM_PAIRS ? fit : GEMM_PAIRS;
    for (int first = 0; first < a->n_panels; first += GEMM_PANELS) {
        const int np = a->n_panels - first < GEMM_PANELS ? a->n_panels - first : GEMM_PANELS;
        const uint8_t *panels = a->panels + (size_t)first * a->panel_bytes;
        for (int64_t pair0 = 0; pair0 < all; pair0 += most) {
            bf16_part g = {a, a->scratch, first, pair0, all - pair0 < most ? all - pair0 : most};
            for (int p = 0; p < np; p++) {
                const uint8_t *from = panels + (size_t)p * a->panel_bytes + PAIR_BYTES * pair0;
                for (int64_t j = 0; j < g.n_pairs; j++)
                    _mm512_store_si512((void *)(a->scratch + PAIR_BYTES * (j * np + p)), load(from + PAIR_BYTES * j));
            }
            part_run(&g, np);
        }
    }
}

static void gemv_f16(const linear_args *a) { gemv_any(a, load_f16); }
static void gemm_f16(const linear_args *a) { gemm_any(a, load_f16); }
static void gemv_bf16(const linear_args *a) { gemv_any(a, load_bf16); }
static void gemm_bf16(const linear_args *a) { gemm_any(a, load_bf16); }

static void round_bf16(const float *f, int64_t k, uint16_t *dst)
{
    for (int64_t i = 0; i < k; i += 32) {
        __m512 low = _mm512_maskz_loadu_ps(avx512_lanes(k - i), f + i);
        __m512 high = _mm512_maskz_loadu_ps(avx512_lanes(k - i - 16), f + i + 16);
        __mmask32 wanted = k - i >= 32 ? 0xffffffffu : (__mmask32)((1ull << ((k - i + 1) / 2 * 2)) - 1);
        _mm512_mask_storeu_epi16(dst + i, wanted, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
}

/* Twelve independent chains cover the latency; the asm makes the compiler load again in every round. */
static float peak_bf16(const uint16_t *a, const uint16_t *b, int64_t rounds)
{
    __m512 acc[PEAK_ROWS][PEAK_COLS] = {0}, sum = _mm512_setzero_ps();
#pragma GCC unroll 4
    for (int64_t r = 0; r < rounds; r++) {
        __m512i row[PEAK_ROWS];
#pragma GCC unroll 3
        for (int i = 0; i < PEAK_ROWS; i++)
            row[i] = _mm512_loadu_si512(a + 32 * i);
#pragma GCC unroll 4
        for (int j = 0; j < PEAK_COLS; j++) {
            __m512i col = _mm512_loadu_si512(b + 32 * j);
#pragma GCC unroll 3
            for (int i = 0; i < PEAK_ROWS; i++)
                acc[i][j] = dot(acc[i][j], row[i], col);
        }
        __asm__("" : "+r"(b));
    }
    for (int i = 0; i < PEAK_ROWS; i++)
        for (int j = 0; j < PEAK_COLS; j++)
            sum = _mm512_add_ps(sum, acc[i][j]);
    return _mm512_reduce_add_ps(sum);
}

void kernels_add_avx512_bf16(kernels *k)
{
    k->name = "avx512_bf16";
    k->linear[DIL_TYPE_F16] = (linear_kernels){gemv_f16, gemm_f16};
    k->linear[DIL_TYPE_BF16] = (linear_kernels){gemv_bf16, gemm_bf16};
    k->bf16_dot = true;
    k->round_bf16 = round_bf16;
    k->peak_bf16 = peak_bf16;
    avx512_bf16_add_attention(k);
    avx512_bf16_add_training(k);
}
