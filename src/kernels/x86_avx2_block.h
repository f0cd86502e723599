/*
 * One block of 32 columns of a panel in AVX2: quants of every width as bytes, scales as floats, and the dot products with int8
 * activations of several tokens. Everything is inlined into loops where `form` is a constant.
 *
 * vpmaddubsw multiplies unsigned by signed bytes and adds pairs in 16 bits with saturation. Activations are -127..127, so a
 * pair with weights 0..m is at most 2 * 127 * m = 254 m in magnitude, and `depth` such steps may be added in 16 bits while
 * 254 m depth <= 32767:
 *     m = 3, 7 (2, 3 bits), 2 (Q1_0)  depth 8        m = 15 (4 bits)           depth 8: 30480
 *     m = 31 (Q5_1, Q5_K)             depth 4: 31496 m = 86 (IQ2 + 43)         depth 1: 21844
 * Additions wrap around, so what counts is the last sum. Of a type with an offset it is at most 254 off depth when it begins at -off
 * times the activations of its own columns; a run of 4 or 8 steps may do that, for act has their sums:
 *     off = 16 (Q5_0)                 depth 8: 32512 off = 32 (6 bits)         depth 4: 32512
 *     off = 12 (FP4)                  depth 8: 24384 off = 9 (IQ1)             depth 8: 18288
 *     off = 15 (IQ3_S)                depth 8: 30480 off = 31 (IQ3_XXS halved) depth 4: 31496
 * IQ2 and IQ3 for few tokens are magnitudes, and the activation takes their sign: m = 15 (IQ3_S) depth 8, m = 43 (IQ2) depth 2: 21844,
 * m = 62 (IQ3_XXS) depth 2: 31496.
 * Full bytes (Q8_0, IQ4) are signed: |w| <= 128 times the activation with w's sign, 2 * 128 * 127 = 32512, depth 1.
 */
#ifndef KERNELS_X86_AVX2_BLOCK_H
#define KERNELS_X86_AVX2_BLOCK_H

#include "kernels/x86_avx2_lookup.h"

enum { FORM_TOKENS = 4 }; /* most tokens of a dot product */

typedef enum quants {
    QUANTS_BYTES, /* already expanded, u or w as the kernel takes them */
    QUANTS_1,
    QUANTS_2,
    QUANTS_3,
    QUANTS_4,
    QUANTS_5,
    QUANTS_6,
    QUANTS_8,
    QUANTS_IQ4,
    QUANTS_FP4,
    QUANTS_GRID /* IQ1, IQ2, IQ3: code words */
} quants;

typedef enum scales {
    SCALES_D,
    SCALES_D_M,
    SCALES_K32,
    SCALES_K16,
    SCALES_Q3_K,
    SCALES_Q2_K,
    SCALES_IQ4_XS,
    SCALES_MXFP4, /* from here on each reads all it needs itself; the others start from the f16 d [16] of the group */
    SCALES_NVFP4,
    SCALES_GRID
} scales;

/* What a type's kernels need to know, a constant of each. */
typedef struct form {
    dil_type type;
    quants quants;
    scales scales;
    int columns, header_bytes, group_bytes, block_bytes; /* as packed_type */
    int sub;                                             /* 32 or 16 */
    int off;                                             /* of the bytes the kernel takes; 0 where they are signed */
    int depth;                                           /* steps added in 16 bits */
    bool is_signed, has_min;
    int depth_signs; /* the same for magnitudes with signs apart; 0: the type has none */
} form;

/* Whether sub-blocks have whole numbers for scales and one ws together: their sums are added up before they become floats. */
AVX2_INLINE bool has_whole_scales(form f) { return f.scales == SCALES_Q2_K; }

AVX2_INLINE int scales_of_form(form f) { return has_whole_scales(f) ? 1 : 32 / f.sub; }

AVX2_INLINE int minima_of_form(form f) { return f.has_min ? 32 / f.sub : 0; }

/* The scales of one block: [sub-block][half of the rows], or in memory, 16 of each: ws, nm, whole. */
typedef struct scale_set {
    __m256 ws[2][2], nm[2][2];
    __m256i whole[2][2]; /* only of has_whole_scales(): twice in 16 bits of every row, to multiply sums of sub-blocks */
    const float *stored;
} scale_set;

/* One block's weights; only of code-book types: signs of magnitudes (or NULL) and where to look up. */
typedef struct weights {
    const uint8_t *q; /* as they are stored, or expanded */
    const uint8_t *signs;
    const grid_block *grid;
} weights;

/* One block's activations of some tokens, the next one's a stride away. */
typedef struct act_block {
    const int8_t *q;
    const float *d, *s;   /* s: s of the block, or s16 of its halves */
    const int32_t *start; /* sums of the block, or of its halves; for types with an offset only */
    size_t q_stride, d_stride, s_stride, start_stride;
    bool multiplied; /* the sums are offset_sums() already */
} act_block;

/* ---- quants of step s, half h ---- */

AVX2_INLINE __m256i shifted(__m256i v, int right)
{
    return right > 0 ? _mm256_srli_epi16(v, right) : right < 0 ? _mm256_slli_epi16(v, -right) : v;
}

AVX2_INLINE __m256i masked(__m256i v, int mask) { return _mm256_and_si256(v, _mm256_set1_epi8((char)mask)); }

/* Codes of `bits` bits, times 2^more. */
AVX2_INLINE __m256i codes_of_step(int bits, int more, const uint8_t *q, int s, int h)
{
    __m256i codes = _mm256_setzero_si256();
#pragma GCC unroll 3
    for (int i = 0; i < STEP_FIELDS; i++) {
        const packed_field f = packed_fields[bits][s][i];
        if (f.bits) {
            const __m256i moved = shifted(load_256(q + 64 * f.vector + 32 * h), f.at - f.to - more);
            const __m256i part = masked(moved, (int)packed_mask(f) << more);
            codes = i == 0 ? part : _mm256_or_si256(codes, part);
        }
    }
    return codes;
}

AVX2_INLINE __m256i code_book(const int8_t *values) { return _mm256_broadcastsi128_si256(load_128(values)); }

AVX2_INLINE __m256i quants_of_step(form f, quants kind, const weights *w, int s, int h)
{
    const uint8_t *q = w->q;
    switch (kind) {
    case QUANTS_1: return codes_of_step(1, 1, q, s, h);
    case QUANTS_2: return codes_of_step(2, 0, q, s, h);
    case QUANTS_3: return codes_of_step(3, 0, q, s, h);
    case QUANTS_4: return codes_of_step(4, 0, q, s, h);
    case QUANTS_5: return codes_of_step(5, 0, q, s, h);
    case QUANTS_6: return codes_of_step(6, 0, q, s, h);
    case QUANTS_8: return _mm256_xor_si256(load_256(q + 64 * s + 32 * h), _mm256_set1_epi8((char)0x80));
    case QUANTS_IQ4: return _mm256_shuffle_epi8(code_book(iq4_values), codes_of_step(4, 0, q, s, h));
    case QUANTS_FP4:
        return _mm256_shuffle_epi8(_mm256_add_epi8(code_book(fp4_values), _mm256_set1_epi8(12)), codes_of_step(4, 0, q, s, h));
    case QUANTS_GRID: return grid_of_step(f.type, w->grid, s, h);
    default: return load_256(q + 64 * s + 32 * h);
    }
}

/* Block b of a group, its quants at q. grid: room for QUANTS_GRID. */
AVX2_INLINE weights block_weights(form f, const uint8_t *group, int b, const uint8_t *q, grid_block *grid)
{
    if (f.quants == QUANTS_GRID)
        grid_start(f.type, group, b, q, grid);
    return (weights){q, f.depth_signs ? q + grid_marks_at(f.type) : NULL, grid};
}

/* ---- scales ---- */

AVX2_INLINE __m256 halves_of_rows(const uint8_t *p, int h) { return _mm256_cvtph_ps(load_128(p + 16 * h)); }

AVX2_INLINE __m256 floats_of_u8(const uint8_t *p) { return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(load_64(p))); }

AVX2_INLINE __m256 floats_of_i8(const uint8_t *p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_64(p))); }

AVX2_INLINE __m256 negated(__m256 v) { return _mm256_xor_ps(v, _mm256_set1_ps(-0.0f)); }

/* 2^(e - 128), subnormal for e < 2 */
AVX2_INLINE __m256 floats_of_e8m0(const uint8_t *p)
{
    __m256i e = _mm256_cvtepu8_epi32(load_64(p));
    __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    __m256i small = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(small, normal, _mm256_cmpgt_epi32(e, _mm256_set1_epi32(1))));
}

/* Bits eeeemmm moved to an f32's place and times 2^(127-7-1); exact for subnormal ones too. 0x7f is 0. */
AVX2_INLINE __m256 floats_of_ue4m3(const uint8_t *p)
{
    __m256i e = _mm256_cvtepu8_epi32(load_64(p));
    __m256i bits = _mm256_slli_epi32(_mm256_and_si256(e, _mm256_set1_epi32(0x7f)), 20);
    bits = _mm256_andnot_si256(_mm256_cmpeq_epi32(e, _mm256_set1_epi32(0x7f)), bits);
    return _mm256_mul_ps(_mm256_castsi256_ps(bits), _mm256_set1_ps(0x1p119f));
}

/* Number `list` of n lists of six-bit numbers of 8 rows, from half h on (packed_six). */
AVX2_INLINE __m256i six_of_rows(const uint8_t *p, const int n, int list, int h)
{
    const int whole = 3 * n / 4;
    if (list < whole)
        return _mm256_and_si256(_mm256_cvtepu8_epi32(load_64(p + 16 * list + 8 * h)), _mm256_set1_epi32(63));
    const uint8_t *k = p + 16 * (list - whole) + 8 * h;
    const __m256i a = _mm256_cvtepu8_epi32(load_64(k)), b = _mm256_cvtepu8_epi32(load_64(k + 4 * n)),
                  c = _mm256_cvtepu8_epi32(load_64(k + 8 * n));
    return _mm256_or_si256(_mm256_srli_epi32(a, 6),
                           _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi32(b, 4), _mm256_set1_epi32(0x0c)),
                                           _mm256_and_si256(_mm256_srli_epi32(c, 2), _mm256_set1_epi32(0x30))));
}

/* The same less 32, as floats. */
AVX2_INLINE __m256 signed_six_of_rows(const uint8_t *p, const int n, int list, int h)
{
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(six_of_rows(p, n, list, h), _mm256_set1_epi32(32)));
}

/* Block b of a group's header; products as in unpack.c. */
AVX2_INLINE void scales_of_block(form f, const uint8_t *group, int b, scale_set *out)
{
    out->stored = NULL;
#pragma GCC unroll 8
    for (int h = 0; h < 2; h++) {
        __m256 d = f.scales >= SCALES_MXFP4 ? _mm256_setzero_ps() : halves_of_rows(group, h);
        switch (f.scales) {
        case SCALES_D: out->ws[0][h] = d; break;
        case SCALES_D_M:
            out->ws[0][h] = d;
            out->nm[0][h] = halves_of_rows(group + 32, h);
            break;
        case SCALES_K32:
            out->ws[0][h] = _mm256_mul_ps(d, _mm256_cvtepi32_ps(six_of_rows(group + 64, 16, b, h)));
            out->nm[0][h] =
                negated(_mm256_mul_ps(halves_of_rows(group + 32, h), _mm256_cvtepi32_ps(six_of_rows(group + 64, 16, 8 + b, h))));
            break;
        case SCALES_K16:
#pragma GCC unroll 8
            for (int i = 0; i < 2; i++)
                out->ws[i][h] = _mm256_mul_ps(d, floats_of_i8(group + 32 + 32 * b + 16 * i + 8 * h));
            break;
        case SCALES_Q3_K:
#pragma GCC unroll 8
            for (int i = 0; i < 2; i++)
                out->ws[i][h] = _mm256_mul_ps(d, signed_six_of_rows(group + 32, 16, 2 * b + i, h));
            break;
        case SCALES_Q2_K: out->ws[0][h] = d;
#pragma GCC unroll 8
            for (int i = 0; i < 2; i++) {
                __m256i both = _mm256_cvtepu8_epi32(load_64(group + 64 + 32 * b + 16 * i + 8 * h));
                __m256i sc = _mm256_and_si256(both, _mm256_set1_epi32(15));
                __m256 m = _mm256_cvtepi32_ps(_mm256_srli_epi32(both, 4));
                out->whole[i][h] = _mm256_or_si256(sc, _mm256_slli_epi32(sc, 16));
                out->nm[i][h] = negated(_mm256_mul_ps(halves_of_rows(group + 32, h), m));
            }
            break;
        case SCALES_IQ4_XS: out->ws[0][h] = _mm256_mul_ps(d, signed_six_of_rows(group + 32, 8, b, h)); break;
        case SCALES_MXFP4: out->ws[0][h] = floats_of_e8m0(group + 8 * h); break;
        case SCALES_NVFP4:
#pragma GCC unroll 8
            for (int i = 0; i < 2; i++)
                out->ws[i][h] = floats_of_ue4m3(group + 32 * b + 16 * i + 8 * h);
            break;
        case SCALES_GRID:
#pragma GCC unroll 8
            for (int i = 0; i < 32 / f.sub; i++)
                out->ws[i][h] = grid_scale(f.type, group, b, i, h);
            break;
        default: break;
        }
    }
}

/* ---- dot products ---- */

/* Pairs of products in 16 bits, of magnitudes and bytes with their signs. */
AVX2_INLINE __m256i signed_products(__m256i magnitude, __m256i sign, __m256i x)
{
    return _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(x, sign));
}

/* Bytes below 0 where bit s of the signs of half h is set, above where not. */
AVX2_INLINE __m256i signs_of_step(const uint8_t *signs, int s, int h)
{
    return _mm256_or_si256(_mm256_slli_epi16(load_256(signs + 32 * h), 7 - s), _mm256_set1_epi8(1));
}

/*
 * The same value, which the compiler must have at this point. It would turn the additions of a block around: all products first, most
 * of them in memory, then the sums.
 */
AVX2_INLINE __m256i in_order(__m256i v)
{
    __asm__("" : "+x"(v));
    return v;
}

/* v with each pair of its 16-bit numbers times `by` added. */
AVX2_INLINE __m256i widened(__m256i v, __m256i by) { return _mm256_madd_epi16(v, by); }

/* Steps whose products are added in 16 bits. */
AVX2_INLINE int run_steps(form f) { return f.depth < f.sub / 4 ? f.depth : f.sub / 4; }

/* Whether only centred sums fit into 16 bits, so that they must begin at -off times the activations there. */
AVX2_INLINE bool is_centred(form f) { return 508 * f.off * run_steps(f) > 32767; }

/* Whether the sums that start from act start anew with every half of a block. */
AVX2_INLINE bool starts_of_halves(form f) { return f.sub == 16 || (is_centred(f) && run_steps(f) == 4); }

/* -off times sums of act: as they are, in 16 bits, or their totals in 32. */
AVX2_INLINE __m256i offset_sums(form f, __m256i sums)
{
    const __m256i by = _mm256_set1_epi16((short)-f.off);
    return is_centred(f) ? _mm256_mullo_epi16(sums, by) : _mm256_madd_epi16(sums, by);
}

AVX2_INLINE __m256i start_of(form f, const act_block *x, int t, int i)
{
    const int32_t sums = x->start[(size_t)t * x->start_stride + (size_t)i];
    if (x->multiplied || is_centred(f))
        return x->multiplied ? _mm256_set1_epi32(sums) : offset_sums(f, _mm256_set1_epi32(sums));
    return _mm256_set1_epi32(-f.off * act_total(sums));
}

/* total[t][h] += by[h] * products of steps from..from+f.depth-1, added in 16 bits first. */
AVX2_INLINE void dot_run(form f, quants kind, const weights *b, const act_block *x, int tokens, int from, const __m256i by[2],
                         __m256i total[][2])
{
    __m256i sum[FORM_TOKENS][2];
#pragma GCC unroll 8
    for (int s = from; s < from + f.depth; s++) {
        __m256i w[2] = {quants_of_step(f, kind, b, s, 0), quants_of_step(f, kind, b, s, 1)}, sign[2] = {w[0], w[1]};
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            if (f.is_signed)
                w[h] = _mm256_abs_epi8(w[h]);
            if (b->signs)
                sign[h] = signs_of_step(b->signs, s, h);
        }
#pragma GCC unroll 8
        for (int t = 0; t < tokens; t++) {
            int32_t four;
            memcpy(&four, x->q + (size_t)t * x->q_stride + 4 * s, sizeof four);
            __m256i columns = _mm256_set1_epi32(four);
#pragma GCC unroll 8
            for (int h = 0; h < 2; h++) {
                __m256i p = f.is_signed || b->signs ? signed_products(w[h], sign[h], columns) : _mm256_maddubs_epi16(w[h], columns);
                if (f.depth == 1)
                    total[t][h] = in_order(_mm256_add_epi32(total[t][h], widened(p, by[h])));
                else if (s > from)
                    sum[t][h] = in_order(_mm256_add_epi16(sum[t][h], p));
                else
                    sum[t][h] = in_order(is_centred(f) ? _mm256_add_epi16(start_of(f, x, t, from / f.depth), p) : p);
            }
        }
    }
#pragma GCC unroll 8
    for (int t = 0; t < tokens; t++)
#pragma GCC unroll 8
        for (int h = 0; h < 2; h++)
            if (f.depth > 1)
                total[t][h] = in_order(_mm256_add_epi32(total[t][h], widened(sum[t][h], by[h])));
}

AVX2_INLINE __m256 scale_of(const scale_set *sc, int i, int h)
{
    return sc->stored ? _mm256_loadu_ps(sc->stored + 16 * i + 8 * h) : sc->ws[i][h];
}

AVX2_INLINE __m256 minimum_of(form f, const scale_set *sc, int i, int h)
{
    return sc->stored ? _mm256_loadu_ps(sc->stored + 16 * (scales_of_form(f) + i) + 8 * h) : sc->nm[i][h];
}

AVX2_INLINE __m256i whole_scale_of(form f, const scale_set *sc, int i, int h)
{
    const int at = 16 * (scales_of_form(f) + minima_of_form(f) + i) + 8 * h;
    return sc->stored ? _mm256_castps_si256(_mm256_loadu_ps(sc->stored + at)) : sc->whole[i][h];
}

/* Sum of (u - off) q over the steps of sub-block i; with whole scales times its own, added onto the one before. */
AVX2_INLINE void dot_sub(form f, quants kind, const weights *w, const scale_set *sc, const act_block *x, int tokens, int i,
                         __m256i total[][2])
{
    __m256i by[2];
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++)
        by[h] = has_whole_scales(f) ? whole_scale_of(f, sc, i, h) : _mm256_set1_epi16(1);
    int steps = f.sub / 4, from = i * steps;
    form g = f;
    g.depth = run_steps(f);
#pragma GCC unroll 8
    for (int t = 0; t < tokens; t++)
        if (!has_whole_scales(f) || i == 0)
            total[t][0] = total[t][1] = f.off && !is_centred(f) ? start_of(f, x, t, i) : _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int s = from; s < from + steps; s += g.depth)
        dot_run(g, kind, w, x, tokens, s, by, total);
}

/* The canonical order: one block onto acc[t][h]. */
AVX2_INLINE void add_block(form f, quants kind, const weights *w, const scale_set *sc, const act_block *x, int tokens,
                           __m256 acc[][2])
{
    __m256 term[FORM_TOKENS][2];
    __m256i total[FORM_TOKENS][2];
#pragma GCC unroll 2
    for (int i = 0; i < 32 / f.sub; i++) {
        dot_sub(f, kind, w, sc, x, tokens, i, total);
        if (has_whole_scales(f) && i == 0)
            continue;
        const int n = has_whole_scales(f) ? 0 : i;
#pragma GCC unroll 8
        for (int t = 0; t < tokens; t++)
#pragma GCC unroll 8
            for (int h = 0; h < 2; h++) {
                const __m256 v = _mm256_cvtepi32_ps(total[t][h]);
                term[t][h] = n == 0 ? _mm256_mul_ps(v, scale_of(sc, n, h)) : _mm256_fmadd_ps(v, scale_of(sc, n, h), term[t][h]);
            }
    }
#pragma GCC unroll 8
    for (int t = 0; t < tokens; t++) {
        const __m256 d = _mm256_broadcast_ss(x->d + (size_t)t * x->d_stride);
#pragma GCC unroll 8
        for (int h = 0; h < 2; h++) {
            acc[t][h] = _mm256_fmadd_ps(term[t][h], d, acc[t][h]);
            if (f.has_min) {
#pragma GCC unroll 2
                for (int i = 0; i < minima_of_form(f); i++)
                    acc[t][h] = _mm256_fmadd_ps(minimum_of(f, sc, i, h), _mm256_broadcast_ss(x->s + (size_t)t * x->s_stride + i),
                                                acc[t][h]);
            }
        }
    }
}

/* Block b0 of the tokens first.. */
AVX2_INLINE act_block act_start(form f, const act *x, int first, int64_t b0)
{
    const size_t subs = 32 / (size_t)f.sub, starts = starts_of_halves(f) ? 2 : 1, at = (size_t)first * x->b_stride + (size_t)b0;
    return (act_block){.q = x->q + (size_t)first * x->q_stride + (size_t)b0 * ACT_BLOCK,
                       .d = x->d + at,
                       .s = subs == 2 ? x->s16 + 2 * at : x->s + at,
                       .start = starts == 2 ? x->isum16 + 2 * at : x->isum + at,
                       .q_stride = x->q_stride,
                       .d_stride = x->b_stride,
                       .s_stride = subs * x->b_stride,
                       .start_stride = starts * x->b_stride};
}

AVX2_INLINE void act_next(form f, act_block *x)
{
    x->q += ACT_BLOCK;
    x->d++;
    x->s += 32 / f.sub;
    x->start += starts_of_halves(f) ? 2 : 1;
}

#endif
