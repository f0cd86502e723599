/*
 * Linear layers of F32, F16 and BF16 in AVX2: one fma chain per output, columns ascending. Small batches take two panels at a
 * time so that the chains hide the latency of fma.
 */
#include "kernels/x86_avx2.h"

enum {
    TILE = 6,         /* tokens of a gemm tile: 12 accumulators */
    F16_COLUMNS = 256 /* that are converted at a time: they stay in L1 */
};

/* Rows 8h..8h+7 of column c of F32 or BF16, whose columns 2i and 2i + 1 lie side by side. */
AVX2_INLINE __m256 float_column(dil_type type, const uint8_t *panel, int64_t c, int h)
{
    if (type == DIL_TYPE_F32)
        return _mm256_loadu_ps((const float *)(const void *)(panel + (size_t)c * 64 + 32 * (size_t)h));
    const __m256i pair = load_256(panel + (size_t)c / 2 * 64 + 32 * (size_t)h);
    return _mm256_castsi256_ps(c % 2 ? _mm256_and_si256(pair, _mm256_set1_epi32((int)0xffff0000u)) : _mm256_slli_epi32(pair, 16));
}

/* The same of columns c and c + 1, c even, of F16: it takes fewer steps for both at once. */
AVX2_INLINE void f16_columns(const uint8_t *panel, int64_t c, int h, __m256 w[2])
{
    const __m256i apart = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
    const __m256i pair = load_256(panel + (size_t)c / 2 * 64 + 32 * (size_t)h);
    const __m256i halves = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(pair, apart), 0xd8);
    w[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(halves));
    w[1] = _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1));
}

/* Columns from .. from + n - 1; panels begin with the first of them. Sums rest in y between parts. */
typedef struct columns_part {
    int64_t from, n;
} columns_part;

/* What is asked for on the way through a panel: `step` bytes (a constant) per column. */
typedef struct fetching {
    const uint8_t *from;
    size_t step;
} fetching;

AVX2_INLINE fetching fetch_ahead(dil_type type, const uint8_t *panel)
{
    return (fetching){panel + AVX2_AHEAD, type == DIL_TYPE_F32 ? 64 : 32};
}

/* `panels` and `tokens` are constants; of the tokens n are wanted, the others repeat the last. */
AVX2_INLINE void float_tile(dil_type type, const uint8_t *panel, const linear_args *a, columns_part part, int panels, int tokens,
                            int first, int n, float *y, fetching next)
{
    __m256 acc[2][TILE][2];
    const float *f[TILE];
#pragma GCC unroll 8
    for (int t = 0; t < tokens; t++) {
        const size_t token = (size_t)(t < n ? t : n - 1);
        f[t] = a->x->f + ((size_t)(a->token + first) + token) * a->x->f_stride + part.from;
#pragma GCC unroll 8
        for (int i = 0; i < 2 * panels; i++)
            acc[i / 2][t][i % 2] = part.from ? _mm256_loadu_ps(y + token * a->y_stride + 8 * i) : _mm256_setzero_ps();
    }
    const int step = type == DIL_TYPE_F16 ? 2 : 1;
    for (int64_t c = 0; c < part.n; c += step) {
#pragma GCC unroll 8
        for (int p = 0; p < panels; p++) {
            const uint8_t *from = panel + (size_t)p * a->panel_bytes;
            __m256 w[2][2]; /* [half][column] */
            if (next.step)
                avx2_prefetch(next.from + (size_t)p * a->panel_bytes + (size_t)c * next.step);
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) {
                if (type == DIL_TYPE_F16)
                    f16_columns(from, c, h, w[h]);
                else
                    w[h][0] = float_column(type, from, c, h);
            }
#pragma GCC unroll 2
            for (int i = 0; i < step; i++) {
                if (i == 1 && c + 1 == part.n) /* an odd last column */
                    break;
#pragma GCC unroll 8
                for (int t = 0; t < tokens; t++) {
                    __m256 v = _mm256_broadcast_ss(f[t] + c + i);
                    acc[p][t][0] = _mm256_fmadd_ps(w[0][i], v, acc[p][t][0]);
                    acc[p][t][1] = _mm256_fmadd_ps(w[1][i], v, acc[p][t][1]);
                }
            }
        }
    }
#pragma GCC unroll 8
    for (int p = 0; p < panels; p++) {
#pragma GCC unroll 8
        for (int t = 0; t < tokens && t < n; t++) {
            float *to = y + (size_t)t * a->y_stride + (size_t)p * PANEL_ROWS;
            _mm256_storeu_ps(to, acc[p][t][0]);
            _mm256_storeu_ps(to + 8, acc[p][t][1]);
        }
    }
}

/* One or two panels, up to 4 tokens. */
AVX2_INLINE void float_few(dil_type type, const uint8_t *panel, const linear_args *a, int panels, float *y)
{
    const columns_part all = {0, a->k};
    const fetching next = fetch_ahead(type, panel);
    if (a->n_tokens == 1)
        float_tile(type, panel, a, all, panels, 1, 0, 1, y, next);
    else if (a->n_tokens == 2)
        float_tile(type, panel, a, all, panels, 2, 0, 2, y, next);
    else
        float_tile(type, panel, a, all, panels, 4, 0, a->n_tokens, y, next);
}

AVX2_INLINE void float_gemv(dil_type type, const linear_args *a)
{
    int p = 0;
    if (a->n_tokens <= 2)
        for (; p + 2 <= a->n_panels; p += 2)
            float_few(type, a->panels + (size_t)p * a->panel_bytes, a, 2, a->y + (size_t)p * PANEL_ROWS);
    for (; p < a->n_panels; p++)
        float_few(type, a->panels + (size_t)p * a->panel_bytes, a, 1, a->y + (size_t)p * PANEL_ROWS);
}

/* A part of a panel's columns with all tokens, more than two. */
AVX2_INLINE void part_multiply(dil_type type, const uint8_t *columns, const linear_args *a, columns_part part, float *y,
                               fetching next)
{
    for (int t = 0; t < a->n_tokens; t += TILE) {
        const int n = a->n_tokens - t < TILE ? a->n_tokens - t : TILE;
        float *to = y + (size_t)t * a->y_stride;
        if (t == 0)
            float_tile(type, columns, a, part, 1, TILE, t, n, to, next);
        else if (n > 2)
            float_tile(type, columns, a, part, 1, TILE, t, n, to, (fetching){0});
        else
            float_tile(type, columns, a, part, 1, 2, t, n, to, (fetching){0});
    }
}

/* Columns of F16 as F32. */
static void widen(const uint8_t *panel, columns_part part, float *wide)
{
    for (int64_t c = 0; c < part.n; c += 2)
        for (int h = 0; h < 2; h++) {
            __m256 w[2];
            f16_columns(panel, part.from + c, h, w);
            _mm256_storeu_ps(wide + 16 * c + 8 * h, w[0]);
            _mm256_storeu_ps(wide + 16 * (c + 1) + 8 * h, w[1]);
        }
}

/* F16 becomes F32 once, in parts: to convert costs as much as to multiply for five tokens. */
AVX2_INLINE void float_gemm(dil_type type, const linear_args *a)
{
    const int64_t most = type == DIL_TYPE_F16 ? F16_COLUMNS : a->k;
    for (int p = 0; p < a->n_panels; p++) {
        const uint8_t *panel = a->panels + (size_t)p * a->panel_bytes;
        float *y = a->y + (size_t)p * PANEL_ROWS;
        for (columns_part part = {0, 0}; part.from < a->k; part.from += most) {
            part.n = a->k - part.from < most ? a->k - part.from : most;
            if (type == DIL_TYPE_F16) {
                widen(panel, part, (float *)(void *)a->scratch);
                part_multiply(DIL_TYPE_F32, a->scratch, a, part, y, (fetching){panel + 32 * (part.from + part.n), 32});
            } else {
                part_multiply(type, panel, a, part, y, fetch_ahead(type, panel));
            }
        }
    }
}

/* ---- scattered rows: vectors of 8 rows, 4 columns turned round at a time ---- */

enum { ROW_GROUPS = 2 }; /* vectors in flight */

/* Columns c..c+3 of rows[0..7] -> w[column]: lane r is row r. */
AVX2_INLINE void turn_rows(const float *const *rows, int64_t c, __m256 w[4])
{
    __m256 v[4];
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++)
        v[r] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(rows[r] + c)), _mm_loadu_ps(rows[r + 4] + c), 1);
    const __m256 a = _mm256_unpacklo_ps(v[0], v[1]), b = _mm256_unpackhi_ps(v[0], v[1]);
    const __m256 d = _mm256_unpacklo_ps(v[2], v[3]), e = _mm256_unpackhi_ps(v[2], v[3]);
    w[0] = _mm256_shuffle_ps(a, d, 0x44);
    w[1] = _mm256_shuffle_ps(a, d, 0xee);
    w[2] = _mm256_shuffle_ps(b, e, 0x44);
    w[3] = _mm256_shuffle_ps(b, e, 0xee);
}

/* Groups of 8 rows; rows[] is filled up by the caller. A group takes 16 columns at once: rows often lie a multiple of 4096 bytes apart,
 * where the first level holds few of them side by side. */
AVX2_INLINE void dot_groups(const float *const *rows, const int groups, const float *x, int64_t k, float *y)
{
    __m256 acc[ROW_GROUPS];
    int64_t c = 0;
#pragma GCC unroll 2
    for (int g = 0; g < groups; g++)
        acc[g] = _mm256_setzero_ps();
    for (; c + 16 <= k; c += 16) {
#pragma GCC unroll 2
        for (int g = 0; g < groups; g++)
#pragma GCC unroll 4
            for (int64_t part = c; part < c + 16; part += 4) {
                __m256 w[4];
                turn_rows(rows + 8 * g, part, w);
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++)
                    acc[g] = _mm256_fmadd_ps(w[i], _mm256_broadcast_ss(x + part + i), acc[g]);
            }
    }
    for (; c < k; c++)
        for (int g = 0; g < groups; g++) {
            const float *const *at = rows + 8 * g;
            const __m256 w = _mm256_setr_ps(at[0][c], at[1][c], at[2][c], at[3][c], at[4][c], at[5][c], at[6][c], at[7][c]);
            acc[g] = _mm256_fmadd_ps(w, _mm256_broadcast_ss(x + c), acc[g]);
        }
#pragma GCC unroll 2
    for (int g = 0; g < groups; g++)
        _mm256_storeu_ps(y + 8 * g, acc[g]);
}

static void dot_rows(const float *const *rows, int n_rows, const float *x, int64_t k, float *y)
{
    for (int done = 0; done < n_rows; done += 8 * ROW_GROUPS) {
        const float *some[8 * ROW_GROUPS];
        float sums[8 * ROW_GROUPS];
        const int n = n_rows - done < 8 * ROW_GROUPS ? n_rows - done : 8 * ROW_GROUPS;
        for (int r = 0; r < 8 * ROW_GROUPS; r++)
            some[r] = rows[done + (r < n ? r : n - 1)]; /* missing ones repeat the last */
        if (n > 8)
            dot_groups(some, 2, x, k, sums);
        else
            dot_groups(some, 1, x, k, sums);
        memcpy(y + done, sums, (size_t)n * sizeof *y);
    }
}

#define DEFINE(type)                                                                  \
    static void gemv_##type(const linear_args *a) { float_gemv(DIL_TYPE_##type, a); } \
    static void gemm_##type(const linear_args *a) { float_gemm(DIL_TYPE_##type, a); }
DEFINE(F32)
DEFINE(F16)
DEFINE(BF16)

void avx2_add_float(kernels *k)
{
    k->linear[DIL_TYPE_F32] = (linear_kernels){gemv_F32, gemm_F32};
    k->linear[DIL_TYPE_F16] = (linear_kernels){gemv_F16, gemm_F16};
    k->linear[DIL_TYPE_BF16] = (linear_kernels){gemv_BF16, gemm_BF16};
    k->dot_rows = dot_rows;
}
