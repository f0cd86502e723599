/*
 * Linear layers of the quantized types in AVX2. gemv unpacks each block in registers for 1 to 4 tokens; gemm expands a panel,
 * GEMM_K columns at a time so that they stay in L1, into scratch (bytes [block][step][64], floats [block][ws, nm of each
 * sub-block][16]) and runs tiles of 4 tokens over it.
 */
#include "kernels/x86_avx2_block.h"

#define GEMM_BLOCKS (GEMM_K / ACT_BLOCK)
#define FETCH_TILES 2 /* tiles of a part during which the next part is fetched */

/* y[t][0..15] of a panel */
AVX2_INLINE void store_outputs(__m256 acc[][2], int tokens, float *y, size_t y_stride)
{
#pragma GCC unroll 8
    for (int t = 0; t < tokens; t++) {
        _mm256_storeu_ps(y + (size_t)t * y_stride, acc[t][0]);
        _mm256_storeu_ps(y + (size_t)t * y_stride + 8, acc[t][1]);
    }
}

/* Floats per block in scratch. */
AVX2_INLINE int scale_floats(form f) { return 32 / f.sub * 16 * (f.has_min ? 2 : 1); }

/* One panel, `tokens` (constant) tokens. */
AVX2_INLINE void gemv_panel(form f, const uint8_t *panel, const linear_args *a, int tokens, float *y)
{
    __m256 acc[FORM_TOKENS][2];
#pragma GCC unroll 8
    for (int t = 0; t < tokens; t++)
        acc[t][0] = acc[t][1] = _mm256_setzero_ps();
    act_block x = act_start(f, a->x, a->token, 0);
    unpacked grid;
    scale_set sc;
    const int ahead = tokens > 1 ? AVX2_AHEAD : a->ahead;
    const bool fetch = ahead >= LINEAR_AHEAD_LEAST;
    for (int64_t c = 0; c < a->k; c += f.columns, panel += f.group_bytes) {
        const uint8_t *q = panel + f.header_bytes;
        for (int b = 0; b < f.columns / ACT_BLOCK; b++, q += f.block_bytes) {
            for (int i = 0; fetch && i < f.block_bytes; i += 64)
                avx2_prefetch(q + ahead + i);
            if (f.quants == QUANTS_GRID) {
                avx2_unpack_grid(f.type, panel, b, f.off, &grid);
                sc.stored = grid.ws[0];
                add_block(f, QUANTS_BYTES, grid.u[0], &sc, &x, tokens, acc);
            } else {
                scales_of_block(f, panel, b, &sc);
                add_block(f, f.quants, q, &sc, &x, tokens, acc);
            }
            act_next(f, &x);
        }
    }
    store_outputs(acc, tokens, y, a->y_stride);
}

AVX2_INLINE void gemv(form f, const linear_args *a)
{
    for (int p = 0; p < a->n_panels; p++) {
        const uint8_t *panel = a->panels + (size_t)p * a->panel_bytes;
        float *y = a->y + (size_t)p * PANEL_ROWS;
        switch (a->n_tokens) {
        case 1: gemv_panel(f, panel, a, 1, y); break;
        case 2: gemv_panel(f, panel, a, 2, y); break;
        case 3: gemv_panel(f, panel, a, 3, y); break;
        default: gemv_panel(f, panel, a, 4, y); break;
        }
    }
}

/* A panel as bytes and floats. */
AVX2_INLINE void expand_panel(form f, const uint8_t *panel, int64_t k, uint8_t *bytes, float *floats)
{
    int subs = 32 / f.sub;
    for (int64_t c = 0; c < k; c += f.columns, panel += f.group_bytes) {
        const uint8_t *q = panel + f.header_bytes;
        for (int b = 0; b < f.columns / ACT_BLOCK; b++, q += f.block_bytes) {
            if (f.quants == QUANTS_GRID) {
                unpacked grid;
                avx2_unpack_grid(f.type, panel, b, f.off, &grid);
                memcpy(bytes, grid.u, sizeof grid.u);
                memcpy(floats, grid.ws, (size_t)subs * sizeof grid.ws[0]);
            } else {
                scale_set sc;
                scales_of_block(f, panel, b, &sc);
#pragma GCC unroll 8
                for (int s = 0; s < BLOCK_STEPS; s++)
#pragma GCC unroll 8
                    for (int h = 0; h < 2; h++)
                        _mm256_storeu_si256((__m256i_u *)(bytes + 64 * s + 32 * h), quants_of_step(f.quants, q, s, h));
#pragma GCC unroll 8
                for (int i = 0; i < subs; i++) {
#pragma GCC unroll 8
                    for (int h = 0; h < 2; h++) {
                        _mm256_storeu_ps(floats + 16 * i + 8 * h, sc.ws[i][h]);
                        if (f.has_min)
                            _mm256_storeu_ps(floats + 16 * (subs + i) + 8 * h, sc.nm[i][h]);
                    }
                }
            }
            bytes += BLOCK_STEPS * STEP_BYTES;
            floats += scale_floats(f);
        }
    }
}

/* The blocks b0 .. b0 + n - 1 of a panel, expanded into the scratch of a. */
typedef struct gemm_part {
    const linear_args *a;
    int64_t b0, n;
    const uint8_t *bytes;
    const float *floats;
    const uint8_t *next; /* the part after it as it is stored, asked for on the way through the first FETCH_TILES tiles */
    int fetch;           /* bytes of it per block and tile */
} gemm_part;

/* Where the sums of the part's sub-blocks start, -off * isum, made once for a tile. */
AVX2_INLINE void tile_starts(form f, const gemm_part *g, const act_block *x, int tokens, int32_t starts[][2 * GEMM_BLOCKS])
{
    const int64_t n = 32 / f.sub * g->n;
    for (int t = 0; t < tokens; t++) {
        const int32_t *sums = x->start + (size_t)t * x->start_stride;
        int64_t i = 0;
        for (; i + 8 <= n; i += 8)
            _mm256_store_si256((__m256i *)(void *)(starts[t] + i),
                               _mm256_mullo_epi32(_mm256_set1_epi32(x->unit), load_256(sums + i)));
        for (; i < n; i++)
            starts[t][i] = x->unit * sums[i];
    }
}

/* A tile of `tokens` (constant) tokens over the part's blocks; sums rest in y between parts. */
AVX2_INLINE void gemm_tile(form f, const gemm_part *g, int token, const int tokens, float *y, const uint8_t *next)
{
    const size_t y_stride = g->a->y_stride;
    act_block x = act_start(f, g->a->x, token, g->b0);
    _Alignas(32) int32_t starts[FORM_TOKENS][2 * GEMM_BLOCKS];
    if (f.off) {
        tile_starts(f, g, &x, tokens, starts);
        x.start = starts[0];
        x.start_stride = 2 * GEMM_BLOCKS;
        x.unit = 1;
    }
    __m256 acc[FORM_TOKENS][2];
#pragma GCC unroll 8
    for (int i = 0; i < 2 * tokens; i++)
        acc[i / 2][i % 2] = g->b0 ? _mm256_loadu_ps(y + (size_t)(i / 2) * y_stride + 8 * (i % 2)) : _mm256_setzero_ps();
    const uint8_t *bytes = g->bytes;
    scale_set sc = {.stored = g->floats};
    for (int64_t b = 0; b < g->n; b++, bytes += BLOCK_STEPS * STEP_BYTES, sc.stored += scale_floats(f)) {
        for (int i = 0; next && i < g->fetch; i += 64)
            _mm_prefetch((const char *)next + i, _MM_HINT_T1);
        next = next ? next + g->fetch : NULL;
        add_block(f, QUANTS_BYTES, bytes, &sc, &x, tokens, acc);
        act_next(f, &x);
    }
    store_outputs(acc, tokens, y, y_stride);
}

/* One part of a panel with all tokens: the part stays in L1. */
AVX2_INLINE void part_multiply(form f, const gemm_part *g, float *y)
{
    const linear_args *a = g->a;
    for (int t = 0, n; t < a->n_tokens; t += n, y += (size_t)n * a->y_stride) {
        const int left = a->n_tokens - t;
        n = left >= 4 ? 4 : left >= 2 ? 2 : 1;
        const int tile = t / FORM_TOKENS;
        const uint8_t *next = tile < FETCH_TILES ? g->next + tile * g->n * g->fetch : NULL;
        if (n == 4)
            gemm_tile(f, g, a->token + t, 4, y, next);
        else if (n == 2)
            gemm_tile(f, g, a->token + t, 2, y, next);
        else
            gemm_tile(f, g, a->token + t, 1, y, next);
    }
}

AVX2_INLINE void gemm(form f, const linear_args *a)
{
    const int64_t n_blocks = a->k / ACT_BLOCK, n_parts = (n_blocks + GEMM_BLOCKS - 1) / GEMM_BLOCKS;
    const int64_t in_group = f.columns / ACT_BLOCK, most = (n_blocks / in_group + n_parts - 1) / n_parts * in_group;
    const int fetch = (int)(f.group_bytes / in_group / FETCH_TILES + 63) / 64 * 64;
    uint8_t *bytes = a->scratch;
    float *floats = (float *)(void *)(a->scratch + (size_t)most * ACT_BLOCK * PANEL_ROWS);
    for (int p = 0; p < a->n_panels; p++) {
        const uint8_t *panel = a->panels + (size_t)p * a->panel_bytes;
        for (int64_t b0 = 0; b0 < n_blocks; b0 += most) {
            const int64_t n = n_blocks - b0 < most ? n_blocks - b0 : most;
            const uint8_t *stored = panel + (size_t)(b0 / in_group) * (size_t)f.group_bytes;
            const gemm_part part = {a, b0, n, bytes, floats, stored + n / in_group * f.group_bytes, fetch};
            expand_panel(f, stored, n * ACT_BLOCK, bytes, floats);
            part_multiply(f, &part, a->y + (size_t)p * PANEL_ROWS);
        }
    }
}

/* type, quants, scales, columns, header, bytes of a block's quants, sub, off, depth, signed, minimum */
#define FORM(type, quants, scales, columns, header, block, sub, off, depth, is_signed, has_min)                                  \
    ((form){DIL_TYPE_##type, QUANTS_##quants, SCALES_##scales, columns, header, (header) + (columns) / 32 * (block), block, sub, \
            off, depth, is_signed, has_min})
#define GRID(type, sub, off, depth) \
    ((form){DIL_TYPE_##type, QUANTS_GRID, SCALES_STORED, GRID_COLUMNS, 0, GRID_GROUP_##type, 0, sub, off, depth, false, false})

/* Bytes of a group of each code-book type. */
#define GROUP_BYTES(type, words, high, sub, marks) GRID_GROUP_##type = GRID_HEADER(sub) + 8 * GRID_BLOCK(words, high, marks),
enum { GRID_TYPES(GROUP_BYTES) };

#define FOR_FORMS(X)                                                           \
    X(Q4_0, FORM(Q4_0, 4, D, 32, 32, 256, 32, 8, 8, false, false))             \
    X(Q4_1, FORM(Q4_1, 4, D_M, 32, 64, 256, 32, 0, 8, false, true))            \
    X(Q5_0, FORM(Q5_0, 5, D, 32, 32, 320, 32, 16, 4, false, false))            \
    X(Q5_1, FORM(Q5_1, 5, D_M, 32, 64, 320, 32, 0, 4, false, true))            \
    X(Q8_0, FORM(Q8_0, 8, D, 32, 32, 512, 32, 0, 1, true, false))              \
    X(Q2_K, FORM(Q2_K, 2, Q2_K, 256, 320, 128, 16, 0, 4, false, true))         \
    X(Q3_K, FORM(Q3_K, 3, Q3_K, 256, 224, 192, 16, 4, 4, false, false))        \
    X(Q4_K, FORM(Q4_K, 4, K32, 256, 256, 256, 32, 0, 8, false, true))          \
    X(Q5_K, FORM(Q5_K, 5, K32, 256, 256, 320, 32, 0, 4, false, true))          \
    X(Q6_K, FORM(Q6_K, 6, K16, 256, 288, 384, 16, 32, 2, false, false))        \
    X(IQ4_NL, FORM(IQ4_NL, IQ4, D, 32, 32, 256, 32, 0, 1, true, false))        \
    X(IQ4_XS, FORM(IQ4_XS, IQ4, IQ4_XS, 256, 128, 256, 32, 0, 1, true, false)) \
    X(TQ1_0, FORM(TQ1_0, 2, D, 256, 32, 128, 32, 1, 8, false, false))          \
    X(TQ2_0, FORM(TQ2_0, 2, D, 256, 32, 128, 32, 1, 8, false, false))          \
    X(MXFP4, FORM(MXFP4, FP4, MXFP4, 32, 16, 256, 32, 12, 4, false, false))    \
    X(NVFP4, FORM(NVFP4, FP4, NVFP4, 64, 64, 256, 16, 12, 4, false, false))    \
    X(Q1_0, FORM(Q1_0, 1, D, 128, 32, 64, 32, 1, 8, false, false))             \
    X(Q2_0, FORM(Q2_0, 2, D, 64, 32, 128, 32, 1, 8, false, false))             \
    X(D3_0, FORM(D3_0, 3, D, 32, 32, 192, 32, 4, 4, false, false))             \
    X(D6_0, FORM(D6_0, 6, D, 32, 32, 384, 32, 32, 2, false, false))            \
    X(IQ1_S, GRID(IQ1_S, 32, 9, 4))                                            \
    X(IQ1_M, GRID(IQ1_M, 16, 9, 4))                                            \
    X(IQ2_XXS, GRID(IQ2_XXS, 32, 43, 1))                                       \
    X(IQ2_XS, GRID(IQ2_XS, 16, 43, 1))                                         \
    X(IQ2_S, GRID(IQ2_S, 16, 43, 1))                                           \
    X(IQ3_XXS, GRID(IQ3_XXS, 32, 31, 2))                                       \
    X(IQ3_S, GRID(IQ3_S, 32, 15, 4))

#define DEFINE(type, form)                                             \
    static void gemv_##type(const linear_args *a) { gemv((form), a); } \
    static void gemm_##type(const linear_args *a) { gemm((form), a); }
FOR_FORMS(DEFINE)

#define SET(type, form) k->linear[DIL_TYPE_##type] = (linear_kernels){gemv_##type, gemm_##type};

void avx2_add_linear(kernels *k)
{
    FOR_FORMS(SET)
    k->panel_chunk = 2;
    k->token_chunk = 256;
    k->token_tile = 4;
}
