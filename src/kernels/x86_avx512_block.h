/*
 * The two loops of quantized linear layers, gemv and gemm, over any type that can unpack a 32-column block of a panel. A type
 * gives an unpack function and its constants; AVX512_LINEAR makes the two kernels. The arithmetic is the canonical order of
 * kernels.h; integer sums are exact, so only the order of the float operations matters here.
 */
#ifndef KERNELS_X86_AVX512_BLOCK_H
#define KERNELS_X86_AVX512_BLOCK_H

#include "kernels/x86_avx512.h"

/* A 32-column block of 16 rows: steps of u (16 rows x 4 columns), and per sub-block the scales and minima of the rows. */
typedef struct weight_block {
    __m512i u[BLOCK_STEPS];
    __m512 ws[2], nm[2]; /* [1] only of halves that have their own, nm only with minima */
} weight_block;

/* Unpacks a block of a panel. */
typedef void (*unpack_fn)(const uint8_t *panel, int64_t block, weight_block *w);
#define AVX512_UNPACK(NAME) AVX512_INLINE void unpack_##NAME(const uint8_t *panel, int64_t block, weight_block *w)

/* What the arithmetic of a type needs; all are compile-time constants where they are used. */
typedef enum block_kind { KIND_32, KIND_16, KIND_32_MIN, KIND_32_MIN_16 } block_kind;

#define KIND_HALVES(kind) ((kind) == KIND_16 ? 2 : 1) /* sub-blocks per block */
#define KIND_MINIMA(kind) ((kind) == KIND_32_MIN_16 ? 2 : (kind) == KIND_32_MIN ? 1 : 0)

AVX512_INLINE __m512i block_broadcast(const int8_t *q)
{
    int32_t four;
    memcpy(&four, q, sizeof four);
    return _mm512_set1_epi32(four);
}

/* Adds one block to the outputs of one token: i[h] the integer sums of the sub-blocks. */
AVX512_INLINE __m512 block_add(__m512 acc, const __m512i i[2], const __m512 ws[2], const __m512 nm[2], float d, const float s[2],
                               const block_kind kind)
{
    __m512 term = _mm512_mul_ps(_mm512_cvtepi32_ps(i[0]), ws[0]);
    if (KIND_HALVES(kind) == 2)
        term = _mm512_fmadd_ps(_mm512_cvtepi32_ps(i[1]), ws[1], term);
    acc = _mm512_fmadd_ps(term, _mm512_set1_ps(d), acc);
    for (int h = 0; h < KIND_MINIMA(kind); h++)
        acc = _mm512_fmadd_ps(nm[h], _mm512_set1_ps(s[h]), acc);
    return acc;
}

/* off * isum of the h-th sub-block, in every lane; off = 1 << shift, shift < 0: no offset. */
AVX512_INLINE __m512i block_offset(const act *x, size_t row, int64_t b, int h, const int shift, const block_kind kind)
{
    int32_t sum = KIND_HALVES(kind) == 2 ? x->isum16[row * 2 + 2 * (size_t)b + (size_t)h] : x->isum[row + (size_t)b];
    return avx512_shift_left32(_mm512_set1_epi32(act_total(sum)), shift);
}

/* Weights are fetched linear_args.ahead bytes ahead of their use with one token, AVX512_AHEAD with several. */

#define FEW_TOKENS 8 /* tokens that meet a block while it is unpacked in registers */

/* One panel, nt <= FEW_TOKENS tokens. Panels are read one after the other, as one stream: the hardware prefetches that best. */
AVX512_INLINE void gemv_panel(const linear_args *a, int panel, const unpack_fn unpack, const int shift, const block_kind kind,
                              const int nt)
{
    const act *x = a->x;
    const uint8_t *weights = a->panels + (size_t)panel * a->panel_bytes;
    const int64_t n_blocks = a->k / ACT_BLOCK;
    const int halves = KIND_HALVES(kind), steps = BLOCK_STEPS / halves;
    __m512 acc[FEW_TOKENS];

#pragma GCC unroll 8
    for (int t = 0; t < nt; t++)
        acc[t] = _mm512_setzero_ps();
    const size_t step = a->panel_bytes / (size_t)n_blocks;
    const int far = nt > 1 ? AVX512_AHEAD : a->ahead;
    const uint8_t *ahead = weights + far;
    for (int64_t b = 0; b < n_blocks; b++, ahead += step) {
        weight_block w;
        if (far >= LINEAR_AHEAD_LEAST)
            for (size_t i = 0; i < step; i += 64)
                __builtin_prefetch(ahead + i, 0, 3);
        unpack(weights, b, &w);
#pragma GCC unroll 8
        for (int t = 0; t < nt; t++) {
            const size_t token = (size_t)(a->token + t), row = token * x->b_stride;
            const int8_t *q = x->q + token * x->q_stride + 32 * b;
            __m512i i[2];
#pragma GCC unroll 2
            for (int h = 0; h < halves; h++) {
                i[h] = _mm512_setzero_si512();
#pragma GCC unroll 8
                for (int s = h * steps; s < (h + 1) * steps; s++)
                    i[h] = _mm512_dpbusd_epi32(i[h], w.u[s], block_broadcast(q + 4 * s));
                if (shift >= 0)
                    i[h] = _mm512_sub_epi32(i[h], block_offset(x, row, b, h, shift, kind));
            }
            acc[t] = block_add(acc[t], i, w.ws, w.nm, x->d[row + (size_t)b],
                               KIND_MINIMA(kind) == 2 ? x->s16 + 2 * (row + (size_t)b) : x->s + row + (size_t)b, kind);
        }
    }
#pragma GCC unroll 8
    for (int t = 0; t < nt; t++)
        _mm512_storeu_ps(a->y + (size_t)t * a->y_stride + (size_t)panel * PANEL_ROWS, acc[t]);
}

/* n_tokens 1..GEMV_TOKENS of one panel. */
AVX512_INLINE void gemv_one(const linear_args *a, int panel, const unpack_fn unpack, const int shift, const block_kind kind)
{
    switch (a->n_tokens) {
    case 1: gemv_panel(a, panel, unpack, shift, kind, 1); break;
    case 2: gemv_panel(a, panel, unpack, shift, kind, 2); break;
    case 3: gemv_panel(a, panel, unpack, shift, kind, 3); break;
    default: gemv_panel(a, panel, unpack, shift, kind, 4); break;
    }
}

/*
 * gemm: GEMM_K columns of GEMM_CHUNK panels are expanded into scratch, GEMM_PANELS side by side, as runs of records (one per panel
 * and block)
 *     u8 [8 steps][64]; f32 ws [halves][16]; f32 nm [minima][16]
 * A tile of GEMM_TOKENS tokens stays in L1 while the records stream past it from L2. Sums rest in y between column blocks.
 */
#define GEMM_BLOCKS (GEMM_K / ACT_BLOCK)
#define GEMM_PANELS 2
#define GEMM_TOKENS 6
#define RECORD_BYTES(kind) ((size_t)(512 + 64 * (KIND_HALVES(kind) + KIND_MINIMA(kind))))

AVX512_INLINE void block_expand(const uint8_t *panel, int64_t block, uint8_t *record, const unpack_fn unpack, const block_kind kind)
{
    weight_block w;
    unpack(panel, block, &w);
#pragma GCC unroll 8
    for (int s = 0; s < BLOCK_STEPS; s++)
        _mm512_store_si512(record + 64 * s, w.u[s]);
    float *f = (float *)(void *)(record + 512);
    for (int h = 0; h < KIND_HALVES(kind); h++)
        _mm512_store_ps(f + 16 * h, w.ws[h]);
    for (int h = 0; h < KIND_MINIMA(kind); h++)
        _mm512_store_ps(f + 16 * (KIND_HALVES(kind) + h), w.nm[h]);
}

/* The blocks b0 .. b0 + n - 1 of panels first .. first + np - 1; records of panel pair i start at i * pair_bytes of scratch. */
typedef struct gemm_part {
    const linear_args *a;
    int first, np;
    int64_t b0, n;
    size_t pair_bytes;
    int shift;
} gemm_part;

AVX512_INLINE void gemm_expand(const gemm_part *g, const unpack_fn unpack, const block_kind kind)
{
    const linear_args *a = g->a;
    for (int p = 0; p < g->np; p++) {
        const int in_pair = p % GEMM_PANELS, width = g->np - p + in_pair < GEMM_PANELS ? g->np - p + in_pair : GEMM_PANELS;
        uint8_t *record = a->scratch + (size_t)(p / GEMM_PANELS) * g->pair_bytes + (size_t)in_pair * RECORD_BYTES(kind);
        const uint8_t *panel = a->panels + (size_t)(g->first + p) * a->panel_bytes;
        for (int64_t b = 0; b < g->n; b++, record += (size_t)width * RECORD_BYTES(kind))
            block_expand(panel, g->b0 + b, record, unpack, kind);
    }
}

/* Multiplies the expanded part with all tokens; see x86_avx512_gemm.c. */
void avx512_gemm_part(const gemm_part *part, block_kind kind);

AVX512_INLINE void gemm_any(const linear_args *a, const unpack_fn unpack, const int shift, const block_kind kind)
{
    const int64_t n_blocks = a->k / ACT_BLOCK, n_parts = (n_blocks + GEMM_BLOCKS - 1) / GEMM_BLOCKS;
    const int64_t most = (n_blocks + n_parts - 1) / n_parts; /* parts of even size */
    for (int first = 0; first < a->n_panels; first += GEMM_CHUNK) {
        for (int64_t b0 = 0; b0 < n_blocks; b0 += most) {
            gemm_part part = {.a = a, .first = first, .b0 = b0, .shift = shift};
            part.np = a->n_panels - first < GEMM_CHUNK ? a->n_panels - first : GEMM_CHUNK;
            part.n = n_blocks - b0 < most ? n_blocks - b0 : most;
            part.pair_bytes = (size_t)part.n * GEMM_PANELS * RECORD_BYTES(kind);
            gemm_expand(&part, unpack, kind);
            avx512_gemm_part(&part, kind);
        }
    }
}

/* 1..FEW_TOKENS tokens of one panel. */
AVX512_INLINE void gemv_more(const linear_args *a, int panel, const unpack_fn unpack, const int shift, const block_kind kind)
{
    switch (a->n_tokens) {
    case 5: gemv_panel(a, panel, unpack, shift, kind, 5); break;
    case 6: gemv_panel(a, panel, unpack, shift, kind, 6); break;
    case 7: gemv_panel(a, panel, unpack, shift, kind, 7); break;
    case 8: gemv_panel(a, panel, unpack, shift, kind, 8); break;
    default: gemv_one(a, panel, unpack, shift, kind); break;
    }
}

/* A few tokens: every panel meets them in even parts of at most FEW_TOKENS while it lies in the cache. */
AVX512_INLINE void gemm_few(const linear_args *a, const unpack_fn unpack, const int shift, const block_kind kind)
{
    const int parts = (a->n_tokens + FEW_TOKENS - 1) / FEW_TOKENS;
    for (int p = 0; p < a->n_panels; p++) {
        linear_args part = *a;
        int done = 0;
        for (int i = 0; i < parts; i++, done += part.n_tokens) {
            part.token = a->token + done;
            part.y = a->y + (size_t)done * a->y_stride;
            part.n_tokens = (a->n_tokens - done + parts - i - 1) / (parts - i);
            gemv_more(&part, p, unpack, shift, kind);
        }
    }
}

/*
 * gemv_NAME and gemm_NAME; SHIFT: off = 1 << SHIFT, -1: no offset; FEW: up to so many tokens gemm works without expanding,
 * as far as that was measured to be faster.
 */
#define AVX512_LINEAR(NAME, SHIFT, KIND, FEW)           \
    static void gemv_##NAME(const linear_args *a)       \
    {                                                   \
        for (int p = 0; p < a->n_panels; p++)           \
            gemv_one(a, p, unpack_##NAME, SHIFT, KIND); \
    }                                                   \
    static void gemm_##NAME(const linear_args *a)       \
    {                                                   \
        if (a->n_tokens <= (FEW))                       \
            gemm_few(a, unpack_##NAME, SHIFT, KIND);    \
        else                                            \
            gemm_any(a, unpack_##NAME, SHIFT, KIND);    \
    }

#define AVX512_SET(TYPE, NAME)                                                   \
    do {                                                                         \
        k->linear[DIL_TYPE_##TYPE] = (linear_kernels){gemv_##NAME, gemm_##NAME}; \
        k->gemm_from[DIL_TYPE_##TYPE] = GEMV_TOKENS + 1;                         \
    } while (0)

/* ---- bit fields of a block (packed.h) ---- */

AVX512_INLINE __m512i block_load(const uint8_t *p) { return _mm512_loadu_si512((const void *)p); }

/* u = the codes of `bits` bits. */
AVX512_INLINE void block_codes(const int bits, const uint8_t *p, __m512i u[BLOCK_STEPS])
{
#pragma GCC unroll 8
    for (int s = 0; s < BLOCK_STEPS; s++) {
#pragma GCC unroll 3
        for (int i = 0; i < STEP_FIELDS; i++) {
            const packed_field f = packed_fields[bits][s][i];
            if (!f.bits)
                continue;
            const __m512i mask = _mm512_set1_epi8((char)packed_mask(f)), bytes = block_load(p + 64 * f.vector);
            const __m512i moved = f.at < f.to ? avx512_shift_left16(bytes, f.to - f.at) : avx512_shift_right16(bytes, f.at - f.to);
            u[s] = i == 0 ? _mm512_and_si512(moved, mask)
                          : _mm512_ternarylogic_epi32(u[s], moved, mask, 0xf8); /* u | (moved & mask) */
        }
    }
}

/* u = table[u] for indices below 16; the table repeats in all four lanes of 16 bytes. */
AVX512_INLINE void block_look_up(__m512i table, __m512i u[BLOCK_STEPS])
{
#pragma GCC unroll 8
    for (int s = 0; s < BLOCK_STEPS; s++)
        u[s] = _mm512_shuffle_epi8(table, u[s]);
}

/* Number `list` of n lists of six-bit numbers of the 16 rows (packed_six). */
AVX512_INLINE __m512i block_six(const uint8_t *p, const int n, int64_t list)
{
    const int whole = 3 * n / 4;
    const uint8_t *at = p + 16 * (list < whole ? list : list - whole);
    const __m128i first = _mm_loadu_si128((const __m128i *)(const void *)at);
    if (list < whole)
        return _mm512_cvtepu8_epi32(_mm_and_si128(first, _mm_set1_epi8(63)));
    const __m128i second = _mm_loadu_si128((const __m128i *)(const void *)(at + 4 * n)),
                  third = _mm_loadu_si128((const __m128i *)(const void *)(at + 8 * n));
    __m128i six = _mm_and_si128(_mm_srli_epi16(first, 6), _mm_set1_epi8(3));
    six = _mm_ternarylogic_epi32(six, _mm_srli_epi16(second, 4), _mm_set1_epi8(0x0c), 0xf8); /* six | (second & mask) */
    return _mm512_cvtepu8_epi32(_mm_ternarylogic_epi32(six, _mm_srli_epi16(third, 2), _mm_set1_epi8(0x30), 0xf8));
}

#endif
