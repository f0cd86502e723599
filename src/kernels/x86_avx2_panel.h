/*
 * The two loops of quantized linear layers in AVX2, over forms: gemv unpacks each block in registers for 1 to 4 tokens; gemm expands a
 * panel, GEMM_K columns at a time so that they stay in L1, into scratch (bytes [block][step][64]; ws, nm and whole scales as in
 * scale_set, [block][...][16]) and runs tiles of 4 tokens over it.
 */
#ifndef KERNELS_X86_AVX2_PANEL_H
#define KERNELS_X86_AVX2_PANEL_H

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
AVX2_INLINE int scale_floats(form f)
{
    return 16 * (scales_of_form(f) + minima_of_form(f) + (has_whole_scales(f) ? 32 / f.sub : 0));
}

/* One panel, `tokens` (constant) tokens. */
AVX2_INLINE void gemv_panel(form f, const uint8_t *panel, const linear_args *a, int tokens, float *y)
{
    __m256 acc[FORM_TOKENS][2];
#pragma GCC unroll 8
    for (int t = 0; t < tokens; t++)
        acc[t][0] = acc[t][1] = _mm256_setzero_ps();
    act_block x = act_start(f, a->x, a->token, 0);
    grid_block grid;
    scale_set sc;
    form few = f;
    if (f.depth_signs) {
        few.off = 0;
        few.depth = f.depth_signs;
    }
    const int ahead = tokens > 1 ? AVX2_AHEAD : a->ahead;
    const bool fetch = ahead >= LINEAR_AHEAD_LEAST;
    for (int64_t c = 0; c < a->k; c += f.columns, panel += f.group_bytes) {
        const uint8_t *q = panel + f.header_bytes;
        for (int b = 0; b < f.columns / ACT_BLOCK; b++, q += f.block_bytes) {
            for (int i = 0; fetch && i < f.block_bytes; i += 64)
                avx2_prefetch(q + ahead + i);
            const weights w = block_weights(f, panel, b, q, &grid);
            scales_of_block(f, panel, b, &sc);
            add_block(few, f.quants, &w, &sc, &x, tokens, acc);
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

/* gemm halves the magnitudes of IQ3_XXS, which are even: twice as many products fit into 16 bits. Its scales are twice as large. */
AVX2_INLINE bool is_halved(form f) { return f.type == DIL_TYPE_IQ3_XXS; }

/* Bytes for gemm from magnitudes and signs. */
AVX2_INLINE __m256i with_signs(form f, __m256i magnitude, __m256i sign)
{
    if (is_halved(f))
        magnitude = _mm256_srli_epi16(magnitude, 1);
    return _mm256_add_epi8(_mm256_sign_epi8(magnitude, sign), _mm256_set1_epi8((char)f.off));
}

/* A panel as bytes and floats. */
AVX2_INLINE void expand_panel(form f, const uint8_t *panel, int64_t k, uint8_t *bytes, float *floats)
{
    const int n_scales = scales_of_form(f), n_minima = minima_of_form(f);
    for (int64_t c = 0; c < k; c += f.columns, panel += f.group_bytes) {
        const uint8_t *q = panel + f.header_bytes;
        for (int b = 0; b < f.columns / ACT_BLOCK; b++, q += f.block_bytes) {
            grid_block grid;
            const weights w = block_weights(f, panel, b, q, &grid);
            scale_set sc;
            scales_of_block(f, panel, b, &sc);
#pragma GCC unroll 8
            for (int s = 0; s < BLOCK_STEPS; s++)
#pragma GCC unroll 8
                for (int h = 0; h < 2; h++) {
                    __m256i v = quants_of_step(f, f.quants, &w, s, h);
                    if (f.depth_signs)
                        v = with_signs(f, v, signs_of_step(w.signs, s, h));
                    _mm256_storeu_si256((__m256i_u *)(bytes + 64 * s + 32 * h), v);
                }
#pragma GCC unroll 8
            for (int i = 0; i < 32 / f.sub; i++) {
#pragma GCC unroll 8
                for (int h = 0; h < 2; h++) {
                    float *to = floats + 16 * i + 8 * h;
                    if (i < n_scales)
                        _mm256_storeu_ps(to, is_halved(f) ? _mm256_add_ps(sc.ws[i][h], sc.ws[i][h]) : sc.ws[i][h]);
                    if (i < n_minima)
                        _mm256_storeu_ps(to + 16 * n_scales, sc.nm[i][h]);
                    if (has_whole_scales(f))
                        _mm256_storeu_ps(to + 16 * (n_scales + n_minima), _mm256_castsi256_ps(sc.whole[i][h]));
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

/* Where the part's sums start, -off times the activations, made once for a tile. */
AVX2_INLINE void tile_starts(form f, const gemm_part *g, const act_block *x, int tokens, int32_t starts[][2 * GEMM_BLOCKS])
{
    const int64_t n = (starts_of_halves(f) ? 2 : 1) * g->n;
    for (int t = 0; t < tokens; t++) {
        const int32_t *sums = x->start + (size_t)t * x->start_stride;
        int64_t i = 0;
        for (; i + 8 <= n; i += 8)
            _mm256_store_si256((__m256i *)(void *)(starts[t] + i), offset_sums(f, load_256(sums + i)));
        if (i < n) {
            const __m256i last = first_lanes((int)(n - i));
            _mm256_maskstore_epi32(starts[t] + i, last, offset_sums(f, _mm256_maskload_epi32(sums + i, last)));
        }
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
        x.multiplied = true;
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
        const weights w = {.q = bytes};
        add_block(f, QUANTS_BYTES, &w, &sc, &x, tokens, acc);
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

/* The kernels of a type and their places. */
#define AVX2_LINEAR(type, form)                                        \
    static void gemv_##type(const linear_args *a) { gemv((form), a); } \
    static void gemm_##type(const linear_args *a) { gemm((form), a); }
#define AVX2_SET(type, form) k->linear[DIL_TYPE_##type] = (linear_kernels){gemv_##type, gemm_##type};

#endif
