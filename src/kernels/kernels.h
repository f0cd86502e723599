/*
 * The kernel table: every inner loop of the engine as a function pointer, with the tile sizes that go with it. Scalar fills
 * every entry, each instruction-set file overlays what it has, ascending; the table is const once selected and lives in the
 * engine. Kernels never allocate, lock, look at files or fail: sizes are checked by their callers.
 *
 * The arithmetic of linear layers is fixed to the last bit (see "Canonical order"), so that scalar, AVX2 and AVX-512, small
 * and large batches, give identical outputs on the same packed weights and activations. The one exception is the level with the
 * bf16 dot product, which rounds the inputs of F16 and BF16 layers. Other kernels may differ between instruction sets by
 * rounding, never between batch sizes or thread counts.
 */
#ifndef KERNELS_KERNELS_H
#define KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dilmodeli.h"
#include "formats/formats.h"
#include "kernels/training.h"

#define PANEL_ROWS 16    /* rows (output values) per panel of packed weights */
#define ACT_BLOCK 32     /* activations share a scale per 32 values */
#define ACT_CANDIDATES 4 /* grids tried per activation block */
#define KV_PAGE 64       /* tokens per KV page */
#define KV_GRIDS 4       /* grids tried per 32 values of a Q4_0 page */
#define PEAK_ROWS 3      /* vectors of the register tile of peak_* */
#define PEAK_COLS 4
#define HADAMARD_LEAST 16
#define HADAMARD_MOST 32 /* as many as share a scale in KV pages: an outlier stays a matter of its block */
#define ATTN_CHUNK 8     /* KV pages per partial result of attention */
#define ATTN_SLOTS (ATTN_CHUNK * KV_PAGE)
#define SWIGLU_OAI_LIMIT 7.0f
#define SWIGLU_OAI_SLOPE 1.702f
#define GEMV_TOKENS 4        /* most tokens a gemv call takes */
#define GEMM_TOKENS_MOST 264 /* of any level's token_chunk */

/*
 * Activations of n tokens, row after row. F32 weights read f, F16 and BF16 weights f or (with bf16_dot) bf16, quantized types
 * the rest.
 * q is near f / d with d near amax / 127 per 32 values (0 for an all-zero block): see quantize. k is padded with zeros to a
 * multiple of 32.
 */
typedef struct act {
    const float *f;        /* [n_tokens][f_stride] */
    const int8_t *q;       /* [n_tokens][q_stride]           q_stride >= round_up(k, 64) */
    const float *d;        /* [n_tokens][b_stride]           scale of block b */
    const float *s;        /* [n_tokens][b_stride]           d * (float)act_total(isum) */
    const int32_t *isum;   /* [n_tokens][b_stride]           act_sums of q over block b */
    const float *s16;      /* [n_tokens][2 * b_stride]       d * (float)act_total(isum16) */
    const int32_t *isum16; /* [n_tokens][2 * b_stride]       act_sums of q over each half block */
    size_t f_stride, q_stride, b_stride;
    const uint16_t *bf16; /* [n_tokens][bf16_stride]        f as bf16, an odd last value followed by a zero; see round_bf16 */
    size_t bf16_stride;   /* even, at least k */
} act;

/* Sums of q in one word, over the columns 0 and 1 of every four in its low half and over 2 and 3 in its high half: the order in which
 * kernels that multiply pairs of bytes add them up in 16 bits. */
static inline int32_t act_sums(int32_t first, int32_t second) { return (int32_t)((uint32_t)second << 16 | (uint16_t)first); }

/* Over all columns. */
static inline int32_t act_total(int32_t sums) { return (int16_t)sums + (sums >> 16); }

/*
 * Canonical order. A weight is ws * (u - off) + nm with u an unsigned byte, off a constant of the type, ws and nm (f32) per
 * sub-block of 32 or 16 columns (nm only for formats that have a minimum). For one output, in this order, all float
 * operations single and fused as written:
 *     acc = 0
 *     for each block b of 32 columns:
 *         sub-blocks of 32:  I  = sum (u - off) * q              (int32, exact)
 *                            acc = fma((float)I * ws, d, acc);   with minimum: acc = fma(nm, s, acc)
 *         sub-blocks of 16:  I0, I1 likewise over the halves
 *                            acc = fma(fma((float)I1, ws1, (float)I0 * ws0), d, acc)
 *         Q2_K:              u is the code times the whole-number scale of its half, ws = d: as sub-blocks of 32; then the halves'
 *                            minima: acc = fma(nm0, s16[2b], acc); acc = fma(nm1, s16[2b+1], acc)
 * F32, F16 and BF16 weights: acc = fma(w[k], f[k], acc) for k = 0, 1, ..., K-1.
 * F16 and BF16 weights where bf16_dot is set: v = bf16(w), x = bf16(f), both rounded to nearest even, then for k = 0, 2, ...
 *     acc = fma(v[k+1], x[k+1], acc);  acc = fma(v[k], x[k], acc)       an odd last column is followed by a zero
 * where subnormal inputs and results are zeros: what VDPBF16PS does. Levels differ here, batch sizes do not.
 * Scales: legacy formats ws = f16 d, nm = f16 m (Q4_1, Q5_1); k-quants ws = (float)d * (float)sc, nm = -((float)dmin * (float)m);
 * others as their format's decode says, products in the order of formats/.
 */
#define LINEAR_AHEAD_LEAST 64

typedef struct linear_args {
    const uint8_t *panels; /* n_panels packed panels, each panel_bytes */
    size_t panel_bytes;
    int n_panels;
    int64_t k; /* columns */
    const act *x;
    int token; /* first token of x to use */
    int n_tokens;
    float *y;         /* y[t * y_stride + panel * PANEL_ROWS + row]; t counts from 0 at `token` */
    size_t y_stride;  /* floats; at least n_panels * PANEL_ROWS: whole panels are written */
    uint8_t *scratch; /* gemm: linear_scratch_bytes(k) bytes, 64-byte aligned, private to the caller */
    int ahead; /* bytes of weights that one token fetches before it uses them; below LINEAR_AHEAD_LEAST the hardware is left alone */
} linear_args;

typedef void (*linear_fn)(const linear_args *a);

/* Per weight type. NULL entries only where the type cannot hold weights. */
typedef struct linear_kernels {
    linear_fn gemv; /* n_tokens 1..GEMV_TOKENS: weights unpacked in registers, each read once */
    linear_fn gemm; /* any n_tokens >= 1: weights expanded once per panel into scratch, reused over the tokens */
} linear_kernels;

/*
 * f: [n_rows][k] -> the quantized rows of an act, k columns each (not necessarily from a row's start: the pointers say where).
 * k need not be a multiple of 32: the tail counts as zeros. Per block of 32 with amax its largest magnitude, exactly so on
 * every instruction set:
 *     Y = round_to_even(f * (32512 / amax)) as int32 (|Y| <= 127 * 256), NaN as 0; all 0 when 32512 / amax > 3e38
 *     of c = 0 .. ACT_CANDIDATES - 1:  q_c = (Y * (128 - c) + 2^14) >> 15,  A_c = sum Y q_c,  B_c = sum q_c^2 (exact)
 *     the c with the largest A_c^2 / B_c, the lowest on ties: in double, c beats b when (A_c A_c) B_b > (A_b A_b) B_c
 *     q = q_c,  d = d0 * ((A_c / B_c) / 256), all float; d = d0 when B_c = 0;  d0 = amax / 127, or 0 for a block of zeros
 * That is the best of four roundings, each with its scale of least squared error: 15-17 % less squared error than d0 alone.
 */
typedef struct quantize_args {
    const float *f;
    size_t f_stride;
    int64_t k;
    int n_rows;
    int8_t *q; /* whole blocks are written */
    float *d, *s;
    int32_t *isum;
    float *s16; /* NULL together with isum16: not wanted */
    int32_t *isum16;
    size_t q_stride, b_stride;
} quantize_args;

/* Pairing of the rotated dimensions: (2i, 2i+1) or (i, i + n_rot/2). */
typedef enum rope_pairs { ROPE_ADJACENT, ROPE_HALVES } rope_pairs;

/* A page of K or V of one head, and the rows that meet it. */
typedef struct attn_page {
    dil_type type;
    const void *page;
    int head_dim;
    int first_slot; /* of the page in the rows' chunk */
    int n_rows;
    const int32_t *n_slots; /* [n_rows], ascending: row i sees the first n_slots[i] (0..KV_PAGE) tokens */
    void *scratch;          /* attn_scratch_bytes(head_dim), 64-byte aligned, private to the caller */
} attn_page;

typedef struct kernels {
    const char *name; /* "scalar", "avx2", "avx512", "avx512_bf16" */
    linear_kernels linear[DIL_TYPE_COUNT];
    int gemm_from[DIL_TYPE_COUNT]; /* batches of at least this many tokens go to gemm */
    int ahead;                     /* what linear_args.ahead should be on this CPU where nothing else is known */
    int panel_chunk;               /* panels and tokens a worker takes at a time in gemm: as many as its L2 likes */
    int token_chunk;               /* a multiple of token_tile, at most GEMM_TOKENS_MOST */
    int token_tile;                /* tokens of gemm's register tile */
    bool bf16_dot;                 /* F16 and BF16 weights read act.bf16 instead of act.f */

    /* y[r] = the dot product of row r (k floats anywhere in memory) with x, in the canonical order of F32 weights: bit for bit what
     * linear[DIL_TYPE_F32] makes of the same rows. Any n_rows >= 0; the same row may stand there twice. */
    void (*dot_rows)(const float *const *rows, int n_rows, const float *x, int64_t k, float *y);

    /* Activations of some tokens to bytes: see quantize_args. */
    void (*quantize)(const quantize_args *a);
    /* f: [k] -> dst [k], to nearest even, subnormals as zero; odd k: dst[k] = 0 too. NULL without bf16_dot. */
    void (*round_bf16)(const float *f, int64_t k, uint16_t *dst);

    /* y[i] = x[i] / sqrt(mean(x^2) + eps) * w[i] (w NULL: 1). y may be x. The sum runs in one fixed order. */
    void (*rmsnorm)(const float *x, const float *w, float eps, int64_t n, float *y);
    void (*add)(float *y, const float *x, int64_t n);                          /* y += x */
    void (*scale)(float *y, float s, int64_t n);                               /* y *= s */
    void (*add_scaled)(float *y, const float *x, float s, int64_t n);          /* y = fma(x, s, y) */
    void (*silu_mul)(const float *gate, const float *up, float *y, int64_t n); /* silu(gate) * up; y may be gate */
    void (*gelu_mul)(const float *gate, const float *up, float *y, int64_t n); /* gelu_tanh(gate) * up; y may be gate */
    /* g = min(gate, 7), u = up within [-7, 7]: g sigmoid(1.702 g) (u + 1); y may be gate */
    void (*swiglu_oai_mul)(const float *gate, const float *up, float *y, int64_t n);
    void (*softcap)(float *x, float cap, int64_t n); /* cap * tanh(x / cap) */
    /* One vector of n_rot dims (the rest is untouched); cs = [n_rot/2][2] cosine and sine of each pair. */
    void (*rope)(float *x, const float *cs, int n_rot, rope_pairs pairs);
    /* x becomes H x, block by block: blocks of HADAMARD_MOST values as long as there are so many left, then one of HADAMARD_LEAST;
     * the rest stays. H is the orthonormal Walsh-Hadamard matrix in natural order, its own inverse: for h = 1, 2, 4, ... < block
     * the values h apart, a before b, become a + b and a - b; then all are multiplied by 1 / sqrtf(block). The same bits on every
     * level. */
    void (*hadamard)(float *x, int n);

    /*
     * KV pages hold KV_PAGE tokens of one KV head. K is transposed so that score lanes are tokens: [head_dim][KV_PAGE];
     * V is [KV_PAGE][head_dim]. Types F32, F16, BF16; and two whose values are followed by f16 scales d, one per 32 dims of
     * each token: K [ceil(head_dim/32)][KV_PAGE], V [KV_PAGE][ceil(head_dim/32)]. A token's bytes are its own. Sizes from
     * kv_page_bytes().
     *     Q8_0  int8 q     K [head_dim][KV_PAGE], V [KV_PAGE][head_dim]                       x = q d
     *     Q4_0  nibbles u  K [ceil(head_dim/2)][KV_PAGE], V [KV_PAGE][ceil(head_dim/2)]       x = (u - 8) d
     *           of dim 2i in the low half of byte i, of dim 2i + 1 in the high one (8 where head_dim ends before it)
     * The bytes stored are the same on every level. Of a block f of 32 dims (of those there are), exactly:
     *     Q8_0  d = f16(amax / 127), amax the largest magnitude; q = round_to_even(f * (1 / d)) within +-127, all 0 when d = 0;
     *           NaN as -127
     *     Q4_0  m = the value of the largest magnitude (of two the negative one); Y = round_to_even(f * (-16384 / m)) as int32,
     *           NaN as 0; all 0 when |16384 / m| > 3e38
     *           of c = 0 .. KV_GRIDS - 1:  q_c = (Y * (17 - c) + 2^14) >> 15 within [-8, 7],  A_c = sum Y q_c,  B_c = sum q_c^2
     *           the c with the largest A_c^2 / B_c, the lowest on ties;  u = q_c + 8,  d = f16((A_c / B_c) * (m / -16384)), 0 when
     *           B_c = 0
     * That is the best of four grids that give m the level -8.5 (cut to -8), -8, -7.5 or -7, each with its scale of least squared
     * error: 10 % less of it than with d = m / -8.
     */
    void (*kv_store_k)(dil_type type, void *page, int slot, const float *k, int head_dim);
    void (*kv_store_v)(dil_type type, void *page, int slot, const float *v, int head_dim);
    /* First n_slots tokens (rounded up to 16 by the callee) as f32: dst K [head_dim][KV_PAGE]; dst V [KV_PAGE][v_stride]. */
    void (*kv_load_k)(dil_type type, const void *page, int head_dim, int n_slots, float *dst);
    void (*kv_load_v)(dil_type type, const void *page, int head_dim, int n_slots, float *dst, size_t v_stride);

    /*
     * Attention of rows of queries over a chunk of up to ATTN_SLOTS cached tokens, page by page: scores of every page, softmax
     * over the chunk, weighted sums of every page. A row's result does not depend on the rows beside it.
     */
    /* Softmax weights and V are rounded to bf16 and multiplied in pairs where the pages are not F32: subnormals count as 0, the
     * chains of attn_pv become acc = fma(p[j+1], v[j+1], acc), acc = fma(p[j], v[j], acc) for j = 0, 2, ... */
    bool attn_bf16;
    /* dst: q[d] * scale in the form attn_qk reads with K of this type, at most attn_row_bytes(head_dim); q may be dst. */
    void (*attn_query)(dil_type type, const float *q, int head_dim, float scale, void *dst);
    /* s[i][first_slot + j] = sum_d q[i][d] * k[d][j], d ascending by fma, for j < n_slots[i]; up to KV_PAGE are written.
     * Strides of q in bytes (a multiple of 64), of s in floats. */
    void (*attn_qk)(const attn_page *k, const void *q, size_t q_stride, float *s, size_t s_stride);
    /* One row of scores of a chunk; valid slots are [lo, hi), the others may hold anything. cap > 0: softcap first. *m = max
     * valid; s becomes exp(s - *m), 0 where invalid, for all slots below n, in the form attn_pv reads with V of this type;
     * *l = their sum. hi <= lo or all minus infinity: zeros, *m = -inf, *l = 0. */
    void (*attn_softmax)(dil_type type, float *s, int lo, int hi, int n, float cap, float *m, float *l);
    /* acc[i][d] = fma chain over j = 0..n_slots[i]-1 of p[i][first_slot + j] * v[j][d], added onto acc; p from attn_softmax, 0
     * from n_slots[i] to the largest n_slots. Strides in floats. */
    void (*attn_pv)(const attn_page *v, const float *p, size_t p_stride, float *acc, size_t acc_stride);

    /* max and index of the lowest maximum (NaN counts as -inf); n >= 1. */
    float (*argmax)(const float *x, int64_t n, int64_t *index);
    /* sum of exp(x[i] - max) in a fixed order. */
    double (*sum_exp)(const float *x, int64_t n, float max);

    /*
     * The most a core can do at this level, for machine/limits: nothing but the instruction that counts, as often as the units
     * take it, on a register tile of PEAK_ROWS x PEAK_COLS vectors of 64 bytes. Each returns the sum over the tile of
     * rounds * dot(a row, b row), modulo 2^32 or exact as long as floats hold it, so that levels can be compared.
     */
    uint32_t (*peak_int8)(const uint8_t *a, const int8_t *b, int64_t rounds); /* a[PEAK_ROWS][64] <= 127, b[PEAK_COLS][64] */
    float (*peak_bf16)(const uint16_t *a, const uint16_t *b, int64_t rounds); /* a[PEAK_ROWS][32], b[PEAK_COLS][32] */
    float (*peak_f32)(const float *a, const float *b, int64_t rounds);        /* a[PEAK_ROWS][16], b[PEAK_COLS][16] */
    /* Reads n_bytes (a multiple of 64, p likewise) once, in order; returns the exclusive or of all 64-bit words. */
    uint64_t (*read_stream)(const void *p, size_t n_bytes);

    training_kernels training;
} kernels;

/* Which level to use: "auto", "scalar", "avx2", "avx512", "avx512_bf16"; BAD_ARGUMENT lists what this CPU has. */
DIL_MUST_CHECK dil_status kernels_select(kernels *out, const char *level, dil_error *err);

const char *kernels_build(void); /* changes with the code of kernels and steps and with how it was compiled */

/* Overlays; each file defines one and sets only what it has. */
void kernels_add_scalar(kernels *k);
void kernels_add_avx2(kernels *k);
void kernels_add_avx512(kernels *k);
void kernels_add_avx512_bf16(kernels *k);
/* Not part of any level: over scalar, the reference of a level with bf16_dot. */
void kernels_add_scalar_bf16(kernels *k);

/* ---- packed weights (pack.c): layouts in packed.h ---- */
/* Bytes of a panel of PANEL_ROWS rows of k columns; 0 when the type cannot be packed or k does not fit its blocks. */
size_t panel_bytes(dil_type type, int64_t k);
/* rows: n_rows (1..PANEL_ROWS) rows of the type's GGUF layout, row_bytes apart; missing rows become zeros. */
void panel_pack(dil_type type, const void *rows, size_t row_bytes, int n_rows, int64_t k, uint8_t *panel);
/* One row of a panel as f32 [k], bit-equal to the format's own decode of that row. */
void panel_decode_row(dil_type type, const uint8_t *panel, int row, int64_t k, float *dst);
/* Whether the type's kernels read the sums of half blocks, act.s16 and isum16. */
bool panel_reads_halves(dil_type type);
/* Scratch a gemm call may use. */
size_t linear_scratch_bytes(int64_t k);

size_t kv_page_bytes(dil_type type, int head_dim); /* of K or of V, for one KV head; 0 for types KV cannot have */
size_t attn_row_bytes(int head_dim);               /* of a query of attn_qk: a multiple of 64 */
size_t attn_scratch_bytes(int head_dim);           /* for attn_page */

#endif
