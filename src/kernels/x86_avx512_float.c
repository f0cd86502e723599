/*
 * AVX-512 linear kernels of F32, F16 and BF16 weights. Every output is one chain of fused multiply-adds over k, by contract;
 * speed comes from many outputs at once: several panels in gemv, tiles of panels by tokens in gemm.
 */
#include "kernels/x86_avx512.h"

#define FLOAT_K 256    /* columns expanded at a time in gemm */
#define FLOAT_PANELS 4 /* panels and tokens of a gemm tile */
#define FLOAT_TOKENS 6

/* w[0], w[1]: columns k and k + 1 (k even) of 16 rows. `both`: column k + 1 exists. */
typedef void (*load_pair_fn)(const uint8_t *panel, int64_t k, bool both, __m512 w[2]);

AVX512_INLINE void load_f32(const uint8_t *panel, int64_t k, bool both, __m512 w[2])
{
    w[0] = _mm512_loadu_ps(panel + 64 * k);
    w[1] = both ? _mm512_loadu_ps(panel + 64 * k + 64) : _mm512_setzero_ps();
}

AVX512_INLINE void load_f16(const uint8_t *panel, int64_t k, bool both, __m512 w[2])
{
    (void)both; /* an odd last column is padded */
    __m512i pair = _mm512_loadu_si512((const void *)(panel + 32 * k));
    w[0] = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(pair));
    w[1] = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(pair, 16)));
}

AVX512_INLINE void load_bf16(const uint8_t *panel, int64_t k, bool both, __m512 w[2])
{
    (void)both; /* an odd last column is padded */
    __m512i pair = _mm512_loadu_si512((const void *)(panel + 32 * k));
    w[0] = _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16));
    w[1] = _mm512_castsi512_ps(_mm512_and_si512(pair, _mm512_set1_epi32((int)0xffff0000u)));
}

/* np panels from `first` on, nt tokens, all columns. */
AVX512_INLINE void gemv_tile(const linear_args *a, int first, const load_pair_fn load, const int np, const int nt)
{
    __m512 acc[8][GEMV_TOKENS];
    const float *f = a->x->f + (size_t)a->token * a->x->f_stride;
    const uint8_t *panels = a->panels + (size_t)first * a->panel_bytes;

#pragma GCC unroll 16
    for (int i = 0; i < np * nt; i++)
        acc[i / nt][i % nt] = _mm512_setzero_ps();
    for (int64_t k = 0; k < a->k; k += 2) {
        const bool both = k + 1 < a->k;
#pragma GCC unroll 8
        for (int p = 0; p < np; p++) {
            __m512 w[2];
            load(panels + (size_t)p * a->panel_bytes, k, both, w);
#pragma GCC unroll 4
            for (int t = 0; t < nt; t++)
                acc[p][t] = _mm512_fmadd_ps(w[0], _mm512_set1_ps(f[(size_t)t * a->x->f_stride + (size_t)k]), acc[p][t]);
            if (both) {
#pragma GCC unroll 4
                for (int t = 0; t < nt; t++)
                    acc[p][t] = _mm512_fmadd_ps(w[1], _mm512_set1_ps(f[(size_t)t * a->x->f_stride + (size_t)k + 1]), acc[p][t]);
            }
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < np * nt; i++)
        _mm512_storeu_ps(a->y + (size_t)(i % nt) * a->y_stride + (size_t)(first + i / nt) * PANEL_ROWS, acc[i / nt][i % nt]);
}

AVX512_INLINE void gemv_panels(const linear_args *a, const load_pair_fn load, const int np, const int nt)
{
    int p = 0;
    for (; p + np <= a->n_panels; p += np)
        gemv_tile(a, p, load, np, nt);
    for (; p < a->n_panels; p++)
        gemv_tile(a, p, load, 1, nt);
}

AVX512_INLINE void gemv_any(const linear_args *a, const load_pair_fn load)
{
    switch (a->n_tokens) {
    case 1: gemv_panels(a, load, 4, 1); break;
    case 2: gemv_panels(a, load, 4, 2); break;
    case 3: gemv_panels(a, load, 4, 3); break;
    default: gemv_panels(a, load, 4, 4); break;
    }
}

/* One column block of a tile: the weights are f32 [n][16] per panel, w_stride floats apart. */
typedef struct float_part {
    const linear_args *a;
    const float *w;
    size_t w_stride;
    int first;
    int64_t k0, n;
} float_part;

AVX512_INLINE void tile_multiply(const float_part *g, int token, const int np, const int nt)
{
    const size_t f_stride = g->a->x->f_stride, y_stride = g->a->y_stride, w_stride = g->w_stride;
    const float *f = g->a->x->f + (size_t)(g->a->token + token) * f_stride + (size_t)g->k0, *w = g->w;
    float *y = g->a->y + (size_t)token * y_stride + (size_t)g->first * PANEL_ROWS;
    __m512 acc[FLOAT_PANELS][FLOAT_TOKENS];

#pragma GCC unroll 24
    for (int i = 0; i < np * nt; i++)
        acc[i / nt][i % nt] =
            g->k0 == 0 ? _mm512_setzero_ps() : _mm512_loadu_ps(y + (size_t)(i % nt) * y_stride + (size_t)(i / nt) * PANEL_ROWS);
    for (int64_t k = 0; k < g->n; k++, w += PANEL_ROWS, f++) {
        __m512 column[FLOAT_PANELS];
#pragma GCC unroll 4
        for (int p = 0; p < np; p++)
            column[p] = _mm512_loadu_ps(w + (size_t)p * w_stride);
#pragma GCC unroll 6
        for (int t = 0; t < nt; t++) {
            __m512 value = _mm512_set1_ps(f[(size_t)t * f_stride]);
#pragma GCC unroll 4
            for (int p = 0; p < np; p++)
                acc[p][t] = _mm512_fmadd_ps(column[p], value, acc[p][t]);
        }
    }
#pragma GCC unroll 24
    for (int i = 0; i < np * nt; i++)
        _mm512_storeu_ps(y + (size_t)(i % nt) * y_stride + (size_t)(i / nt) * PANEL_ROWS, acc[i / nt][i % nt]);
}

AVX512_INLINE void part_multiply(const float_part *g, const int np)
{
    int token = 0;
    const int n = g->a->n_tokens;
    for (; token + FLOAT_TOKENS <= n; token += FLOAT_TOKENS)
        tile_multiply(g, token, np, FLOAT_TOKENS);
    switch (n - token) {
    case 5: tile_multiply(g, token, np, 5); break;
    case 4: tile_multiply(g, token, np, 4); break;
    case 3: tile_multiply(g, token, np, 3); break;
    case 2: tile_multiply(g, token, np, 2); break;
    case 1: tile_multiply(g, token, np, 1); break;
    default: break;
    }
}

static void part_run(const float_part *g, int np)
{
    switch (np) {
    case 4: part_multiply(g, 4); break;
    case 3: part_multiply(g, 3); break;
    case 2: part_multiply(g, 2); break;
    default: part_multiply(g, 1); break;
    }
}

/* Columns k0 .. k0 + n - 1 of a panel as f32 [n][16]; k0 is even. */
AVX512_INLINE void expand(const uint8_t *panel, int64_t k0, int64_t n, const load_pair_fn load, float *dst)
{
    for (int64_t k = 0; k < n; k += 2) {
        __m512 w[2];
        load(panel, k0 + k, k + 1 < n, w);
        _mm512_store_ps(dst + PANEL_ROWS * k, w[0]);
        if (k + 1 < n)
            _mm512_store_ps(dst + PANEL_ROWS * (k + 1), w[1]);
    }
}

/* load NULL: the panel is f32 already. */
AVX512_INLINE void gemm_any(const linear_args *a, const load_pair_fn load)
{
    float *scratch = (float *)(void *)a->scratch;
    const int64_t fit = (int64_t)(linear_scratch_bytes(a->k) / (FLOAT_PANELS * PANEL_ROWS * sizeof(float))) & -2;
    const int64_t most = fit < FLOAT_K ? fit : FLOAT_K;
    for (int first = 0; first < a->n_panels; first += FLOAT_PANELS) {
        const int np = a->n_panels - first < FLOAT_PANELS ? a->n_panels - first : FLOAT_PANELS;
        const uint8_t *panels = a->panels + (size_t)first * a->panel_bytes;
        for (int64_t k0 = 0; k0 < a->k; k0 += most) {
            const int64_t n = a->k - k0 < most ? a->k - k0 : most;
            float_part g = {a, scratch, (size_t)n * PANEL_ROWS, first, k0, n};
            for (int p = 0; load && p < np; p++)
                expand(panels + (size_t)p * a->panel_bytes, k0, n, load, scratch + (size_t)p * g.w_stride);
            if (!load) {
                g.w = (const float *)(const void *)panels + PANEL_ROWS * k0;
                g.w_stride = a->panel_bytes / sizeof(float);
            }
            part_run(&g, np);
        }
    }
}

/* ---- scattered rows: 16 at a time ---- */

/* 16 columns of rows[0..15] -> w[column]: lane r is row r. A cache line of a row is read once: rows often lie a multiple of 4096
 * bytes apart, where the first level holds few of them side by side. */
AVX512_INLINE void turn_rows(const float *const *rows, int64_t c, __m512 w[16])
{
    __m512 a[16], b[16];
#pragma GCC unroll 16
    for (int r = 0; r < 16; r++)
        a[r] = _mm512_loadu_ps(rows[r] + c);
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) { /* b[i + j]: columns j, 4 + j, 8 + j, 12 + j of rows i..i+3 */
        const __m512 low = _mm512_unpacklo_ps(a[i], a[i + 1]), high = _mm512_unpackhi_ps(a[i], a[i + 1]);
        const __m512 low2 = _mm512_unpacklo_ps(a[i + 2], a[i + 3]), high2 = _mm512_unpackhi_ps(a[i + 2], a[i + 3]);
        b[i] = _mm512_shuffle_ps(low, low2, 0x44);
        b[i + 1] = _mm512_shuffle_ps(low, low2, 0xee);
        b[i + 2] = _mm512_shuffle_ps(high, high2, 0x44);
        b[i + 3] = _mm512_shuffle_ps(high, high2, 0xee);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) { /* quarters into place */
        const __m512 even = _mm512_shuffle_f32x4(b[j], b[4 + j], 0x88), odd = _mm512_shuffle_f32x4(b[j], b[4 + j], 0xdd);
        const __m512 even2 = _mm512_shuffle_f32x4(b[8 + j], b[12 + j], 0x88),
                     odd2 = _mm512_shuffle_f32x4(b[8 + j], b[12 + j], 0xdd);
        w[j] = _mm512_shuffle_f32x4(even, even2, 0x88);
        w[4 + j] = _mm512_shuffle_f32x4(odd, odd2, 0x88);
        w[8 + j] = _mm512_shuffle_f32x4(even, even2, 0xdd);
        w[12 + j] = _mm512_shuffle_f32x4(odd, odd2, 0xdd);
    }
}

/* Column c of rows[0..15]. */
AVX512_INLINE __m512 column_of(const float *const *rows, int64_t c)
{
    float w[16];
    for (int r = 0; r < 16; r++)
        w[r] = rows[r][c];
    return _mm512_loadu_ps(w);
}

static void dot_sixteen(const float *const *rows, const float *x, int64_t k, float *y)
{
    __m512 acc = _mm512_setzero_ps(), w[16];
    int64_t c = 0;
    for (; c + 16 <= k; c += 16) {
        turn_rows(rows, c, w);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++)
            acc = _mm512_fmadd_ps(w[i], _mm512_set1_ps(x[c + i]), acc);
    }
    for (; c < k; c++)
        acc = _mm512_fmadd_ps(column_of(rows, c), _mm512_set1_ps(x[c]), acc);
    _mm512_storeu_ps(y, acc);
}

static void dot_rows(const float *const *rows, int n_rows, const float *x, int64_t k, float *y)
{
    for (int done = 0; done < n_rows; done += 16) {
        const float *some[16];
        float sums[16];
        const int n = n_rows - done < 16 ? n_rows - done : 16;
        for (int r = 0; r < 16; r++)
            some[r] = rows[done + (r < n ? r : n - 1)]; /* missing ones repeat the last */
        dot_sixteen(some, x, k, sums);
        memcpy(y + done, sums, (size_t)n * sizeof *y);
    }
}

static void gemv_f32(const linear_args *a) { gemv_any(a, load_f32); }
static void gemm_f32(const linear_args *a) { gemm_any(a, NULL); }
static void gemv_f16(const linear_args *a) { gemv_any(a, load_f16); }
static void gemm_f16(const linear_args *a) { gemm_any(a, load_f16); }
static void gemv_bf16(const linear_args *a) { gemv_any(a, load_bf16); }
static void gemm_bf16(const linear_args *a) { gemm_any(a, load_bf16); }

void avx512_add_float(kernels *k)
{
    k->linear[DIL_TYPE_F32] = (linear_kernels){gemv_f32, gemm_f32};
    k->linear[DIL_TYPE_F16] = (linear_kernels){gemv_f16, gemm_f16};
    k->linear[DIL_TYPE_BF16] = (linear_kernels){gemv_bf16, gemm_bf16};
    k->dot_rows = dot_rows;
    k->gemm_from[DIL_TYPE_F32] = k->gemm_from[DIL_TYPE_F16] = k->gemm_from[DIL_TYPE_BF16] = GEMV_TOKENS + 1;
}
