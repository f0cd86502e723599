/*
 * Packing: rows in GGUF layout -> panels (packed.h), and back to f32. Owns the sizes of packed weights, of gemm's scratch and
 * of KV pages. The codes (indices or unsigned quants) of 32 columns are spread into bit fields, four columns of a row at once.
 */
#include "formats/kquants.h"
#include "kernels/kv_page.h"
#include "kernels/unpack.h"

typedef struct packer {
    uint32_t block_bytes;                                                /* of the GGUF block that fills one row of a group */
    void (*codes)(const uint8_t *block, int b, uint8_t code[ACT_BLOCK]); /* of columns 32 b .. 32 b + 31 */
    void (*scales)(const uint8_t *block, int row, uint8_t *group);
} packer;

/* ---- codes of 32 columns ---- */

static void codes_nibbles(const uint8_t *p, uint8_t code[ACT_BLOCK])
{
    for (int j = 0; j < 16; j++) {
        code[j] = p[j] & 15;
        code[j + 16] = p[j] >> 4;
    }
}

static void codes_fifth(const uint8_t *p, uint8_t code[ACT_BLOCK])
{
    uint32_t bits = packed_u32(p);
    for (int j = 0; j < ACT_BLOCK; j++)
        code[j] = (uint8_t)(code[j] | (bits >> j & 1) << 4);
}

/* pairs of bits: byte 32 (b / 4) + j, shift 2 (b % 4) */
static void codes_pairs(const uint8_t *p, int b, uint8_t code[ACT_BLOCK])
{
    for (int j = 0; j < ACT_BLOCK; j++)
        code[j] = p[b / 4 * 32 + j] >> (b % 4 * 2) & 3;
}

#define CODES(name) static void codes_##name(const uint8_t *p, int b, uint8_t code[ACT_BLOCK])

CODES(q4_0)
{
    (void)b;
    codes_nibbles(p + 2, code);
} /* IQ4_NL too */
CODES(q4_1)
{
    (void)b;
    codes_nibbles(p + 4, code);
}
CODES(q5_0)
{
    (void)b;
    codes_nibbles(p + 6, code);
    codes_fifth(p + 2, code);
}
CODES(q5_1)
{
    (void)b;
    codes_nibbles(p + 8, code);
    codes_fifth(p + 4, code);
}
CODES(mxfp4)
{
    (void)b;
    codes_nibbles(p + 1, code);
}
CODES(iq4_xs) { codes_nibbles(p + 8 + 16 * b, code); }
CODES(q2_k) { codes_pairs(p + 16, b, code); }
CODES(tq2_0) { codes_pairs(p, b, code); }

CODES(q8_0)
{
    (void)b;
    for (int j = 0; j < ACT_BLOCK; j++)
        code[j] = p[2 + j] ^ 0x80;
}

CODES(q3_k)
{
    codes_pairs(p + 32, b, code);
    for (int j = 0; j < ACT_BLOCK; j++)
        code[j] = (uint8_t)(code[j] | (p[j] >> b & 1) << 2);
}

CODES(q4_k)
{
    for (int j = 0; j < ACT_BLOCK; j++)
        code[j] = p[16 + b / 2 * 32 + j] >> (b % 2 * 4) & 15;
}

CODES(q5_k)
{
    for (int j = 0; j < ACT_BLOCK; j++)
        code[j] = (uint8_t)((p[48 + b / 2 * 32 + j] >> (b % 2 * 4) & 15) | (p[16 + j] >> b & 1) << 4);
}

CODES(q6_k)
{
    codes_pairs(p + 128, b, code);
    for (int j = 0; j < ACT_BLOCK; j++) {
        int low = p[b / 4 * 64 + b % 2 * 32 + j] >> (b % 4 / 2 * 4) & 15;
        code[j] = (uint8_t)(low | code[j] << 4);
    }
}

CODES(nvfp4)
{
    for (int half = 0; half < 2; half++) {
        const uint8_t *nibbles = p + 4 + 8 * (2 * b + half);
        for (int j = 0; j < 8; j++) {
            code[16 * half + j] = nibbles[j] & 15;
            code[16 * half + 8 + j] = nibbles[j] >> 4;
        }
    }
}

CODES(tq1_0) /* digit k of byte j: see formats/ternary.c */
{
    static const uint8_t power[5] = {1, 3, 9, 27, 81};
    for (int j = 0; j < ACT_BLOCK; j++) {
        int i = 32 * b + j, byte, k;
        if (i < 160) {
            byte = j;
            k = b;
        } else if (i < 240) {
            byte = 32 + (i - 160) % 16;
            k = (i - 160) / 16;
        } else {
            byte = 48 + (i - 240) % 4;
            k = (i - 240) / 4;
        }
        unsigned fraction = p[byte] * (unsigned)power[k] & 255;
        code[j] = (uint8_t)(fraction * 3 >> 8);
    }
}

CODES(q1_0)
{
    for (int j = 0; j < ACT_BLOCK; j++)
        code[j] = p[2 + 4 * b + j / 8] >> (j % 8) & 1;
}

CODES(d3_0)
{
    uint32_t high = packed_u32(p + 10);
    (void)b;
    for (int j = 0; j < ACT_BLOCK; j++)
        code[j] = (uint8_t)((p[2 + j / 4] >> (j % 4 * 2) & 3) | (high >> j & 1) << 2);
}

CODES(d6_0)
{
    (void)b;
    codes_nibbles(p + 2, code);
    for (int j = 0; j < ACT_BLOCK; j++)
        code[j] = (uint8_t)(code[j] | (p[18 + j / 4] >> (j % 4 * 2) & 3) << 4);
}

CODES(q2_0)
{
    for (int j = 0; j < ACT_BLOCK; j++)
        code[j] = p[2 + 8 * b + j / 4] >> (j % 4 * 2) & 3;
}

/* ---- scales of one row ---- */

#define SCALES(name) static void scales_##name(const uint8_t *p, int row, uint8_t *group)

SCALES(d) { memcpy(group + 2 * row, p, 2); } /* Q4_0 Q5_0 Q8_0 IQ4_NL Q1_0 Q2_0 */
SCALES(mxfp4) { group[row] = p[0]; }
SCALES(tq1_0) { memcpy(group + 2 * row, p + 52, 2); }
SCALES(tq2_0) { memcpy(group + 2 * row, p + 64, 2); }

SCALES(d_m) /* Q4_1 Q5_1 */
{
    memcpy(group + 2 * row, p, 2);
    memcpy(group + 32 + 2 * row, p + 2, 2);
}

SCALES(nvfp4)
{
    for (int j = 0; j < 4; j++)
        group[16 * j + row] = p[j];
}

/* p was zero there; see packed_six. */
static void put_six(uint8_t *p, int n, int list, int row, unsigned value)
{
    int k = list - 3 * n / 4;
    if (k < 0) {
        p[16 * list + row] |= (uint8_t)value;
        return;
    }
    for (int part = 0; part < 3; part++)
        p[16 * (k + part * (n / 4)) + row] |= (uint8_t)((value >> 2 * part & 3) << 6);
}

SCALES(k32) /* Q4_K Q5_K */
{
    scales_d_m(p, row, group);
    for (int j = 0; j < 8; j++) {
        int scale, min;
        kquants_scale_min(p + 4, j, &scale, &min);
        put_six(group + 64, 16, j, row, (unsigned)scale);
        put_six(group + 64, 16, 8 + j, row, (unsigned)min);
    }
}

SCALES(q6_k)
{
    memcpy(group + 2 * row, p + 208, 2);
    for (int j = 0; j < 16; j++)
        group[32 + 16 * j + row] = p[192 + j];
}

SCALES(q3_k)
{
    const uint8_t *s = p + 96;
    memcpy(group + 2 * row, p + 108, 2);
    for (int j = 0; j < 16; j++) {
        int low = s[j % 8] >> (j / 8 * 4) & 15, high = s[8 + j % 4] >> (j / 4 * 2) & 3;
        put_six(group + 32, 16, j, row, (unsigned)(low | high << 4));
    }
}

SCALES(q2_k)
{
    memcpy(group + 2 * row, p + 80, 2);
    memcpy(group + 32 + 2 * row, p + 82, 2);
    for (int j = 0; j < 16; j++)
        group[64 + 16 * j + row] = p[j];
}

SCALES(iq4_xs)
{
    unsigned high = packed_u16(p + 2);
    memcpy(group + 2 * row, p, 2);
    for (int j = 0; j < 8; j++) {
        unsigned low = (unsigned)p[4 + j / 2] >> (j % 2 * 4) & 15u;
        put_six(group + 32, 8, j, row, low | (high >> (2 * j) & 3) << 4);
    }
}

static const packer packers[DIL_TYPE_COUNT] = {
    [DIL_TYPE_Q4_0] = {18, codes_q4_0, scales_d},       [DIL_TYPE_Q4_1] = {20, codes_q4_1, scales_d_m},
    [DIL_TYPE_Q5_0] = {22, codes_q5_0, scales_d},       [DIL_TYPE_Q5_1] = {24, codes_q5_1, scales_d_m},
    [DIL_TYPE_Q8_0] = {34, codes_q8_0, scales_d},       [DIL_TYPE_Q2_K] = {84, codes_q2_k, scales_q2_k},
    [DIL_TYPE_Q3_K] = {110, codes_q3_k, scales_q3_k},   [DIL_TYPE_Q4_K] = {144, codes_q4_k, scales_k32},
    [DIL_TYPE_Q5_K] = {176, codes_q5_k, scales_k32},    [DIL_TYPE_Q6_K] = {210, codes_q6_k, scales_q6_k},
    [DIL_TYPE_IQ4_NL] = {18, codes_q4_0, scales_d},     [DIL_TYPE_IQ4_XS] = {136, codes_iq4_xs, scales_iq4_xs},
    [DIL_TYPE_TQ1_0] = {54, codes_tq1_0, scales_tq1_0}, [DIL_TYPE_TQ2_0] = {66, codes_tq2_0, scales_tq2_0},
    [DIL_TYPE_MXFP4] = {17, codes_mxfp4, scales_mxfp4}, [DIL_TYPE_NVFP4] = {36, codes_nvfp4, scales_nvfp4},
    [DIL_TYPE_Q1_0] = {18, codes_q1_0, scales_d},       [DIL_TYPE_Q2_0] = {18, codes_q2_0, scales_d},
    [DIL_TYPE_D3_0] = {14, codes_d3_0, scales_d},       [DIL_TYPE_D6_0] = {26, codes_d6_0, scales_d},
};

/* ---- bit fields ---- */

static inline void or_word(uint8_t *q, int row, uint32_t word)
{
    uint32_t old = packed_u32(q + 4 * row) | word;
    memcpy(q + 4 * row, &old, sizeof old);
}

/* The codes of 32 columns of a row into the quants q of the block, four columns at once. */
static void put_codes(int bits, const uint8_t code[ACT_BLOCK], int row, uint8_t *q)
{
    uint32_t word[BLOCK_STEPS];
    memcpy(word, code, sizeof word);
    for (int step = 0; step < BLOCK_STEPS; step++)
        for (int i = 0; i < STEP_FIELDS; i++) {
            const packed_field f = packed_fields[bits][step][i];
            const uint32_t mask = packed_mask(f) * 0x01010101u;
            or_word(q + f.vector * STEP_BYTES, row, (word[step] & mask) >> f.to << f.at);
        }
}

static void pack_group(const packed_type *t, const packer *p, const uint8_t *block, int row, uint8_t *group)
{
    p->scales(block, row, group);
    for (int b = 0; b < t->columns / ACT_BLOCK; b++) {
        uint8_t code[ACT_BLOCK];
        p->codes(block, b, code);
        put_codes(t->bits, code, row, group + t->header_bytes + b * t->block_bytes);
    }
}

/* F32, F16, BF16: n bytes per row in words of 4, a value or a pair of columns, the same word of all rows side by side. */
static void pack_words(const uint8_t *rows, size_t row_bytes, int n_rows, size_t n, uint8_t *panel)
{
    for (int row = 0; row < n_rows; row++) {
        const uint8_t *src = rows + (size_t)row * row_bytes;
        uint8_t *dst = panel + 4 * row;
        size_t at = 0;
        for (; at + 4 <= n; at += 4)
            memcpy(dst + PANEL_ROWS * at, src + at, 4);
        memcpy(dst + PANEL_ROWS * at, src + at, n - at);
    }
}

size_t panel_bytes(dil_type type, int64_t k)
{
    if (k <= 0 || k > INT32_MAX)
        return 0;
    size_t n = (size_t)k;
    switch (type) {
    case DIL_TYPE_F32: return n * PANEL_ROWS * 4;
    case DIL_TYPE_F16:
    case DIL_TYPE_BF16: return (n + 1) / 2 * PANEL_ROWS * 4;
    default: break;
    }
    const packed_type *t = packed_type_get(type);
    if (!t || n % t->columns != 0)
        return 0;
    return n / t->columns * t->group_bytes;
}

void panel_pack(dil_type type, const void *rows, size_t row_bytes, int n_rows, int64_t k, uint8_t *panel)
{
    const uint8_t *src = rows;
    memset(panel, 0, panel_bytes(type, k));
    switch (type) {
    case DIL_TYPE_F32: pack_words(src, row_bytes, n_rows, 4 * (size_t)k, panel); return;
    case DIL_TYPE_F16:
    case DIL_TYPE_BF16: pack_words(src, row_bytes, n_rows, 2 * (size_t)k, panel); return;
    default: break;
    }
    const packed_type *t = packed_type_get(type);
    if (!t)
        return;
    grid_pack_fn grid = grid_pack_get(type);
    size_t block_bytes = format_get(type)->block_bytes;
    for (int64_t g = 0; g < k / t->columns; g++, panel += t->group_bytes) {
        for (int row = 0; row < n_rows; row++) {
            const uint8_t *from = src + (size_t)row * row_bytes;
            if (grid)
                grid(from + (size_t)g * block_bytes, row, panel);
            else
                pack_group(t, &packers[type], from + (size_t)g * packers[type].block_bytes, row, panel);
        }
    }
}

/* One float of a panel of floats. */
static float float_at(dil_type type, const uint8_t *panel, int row, int64_t c)
{
    if (type == DIL_TYPE_F32) {
        float f;
        memcpy(&f, panel + ((size_t)c * PANEL_ROWS + (size_t)row) * 4, sizeof f);
        return f;
    }
    uint16_t bits = packed_u16(panel + ((size_t)c / 2 * PANEL_ROWS + (size_t)row) * 4 + (size_t)c % 2 * 2);
    return type == DIL_TYPE_F16 ? f16_to_f32(bits) : bf16_to_f32(bits);
}

void panel_decode_row(dil_type type, const uint8_t *panel, int row, int64_t k, float *dst)
{
    const packed_type *t = packed_type_get(type);
    if (!t) {
        for (int64_t c = 0; c < k; c++)
            dst[c] = float_at(type, panel, row, c);
        return;
    }
    unpacked block;
    int blocks = t->columns / ACT_BLOCK;
    for (int64_t b = 0; b < k / ACT_BLOCK; b++) {
        t->unpack(packed_group(t, panel, b), (int)(b % blocks), &block);
        for (int c = 0; c < ACT_BLOCK; c++) {
            float w = block.ws[t->sub == 16 ? c / 16 : 0][row] * (float)(block.u[c / 4][4 * row + c % 4] - t->off);
            dst[b * ACT_BLOCK + c] = t->n_minima ? w + block.nm[t->n_minima == 2 ? c / 16 : 0][row] : w;
        }
    }
}

bool panel_reads_halves(dil_type type)
{
    const packed_type *t = packed_type_get(type);
    const bool wide = type == DIL_TYPE_D6_0 || type == DIL_TYPE_IQ3_XXS; /* AVX2: no sums of 32 columns in 16 bits */
    return t && (t->sub == 16 || t->n_minima == 2 || wide);
}

size_t linear_scratch_bytes(int64_t k)
{
    /* A panel as bytes, and its ws and nm per 16 columns; or GEMM_CHUNK panels of GEMM_K columns. With room for alignment. */
    size_t padded = ((size_t)(k > 0 ? k : 0) + 63) / 64 * 64, some = padded < GEMM_K ? padded : GEMM_K;
    size_t panel = padded * PANEL_ROWS + 2 * (padded / 16) * PANEL_ROWS * sizeof(float) * 2;
    size_t chunk = GEMM_CHUNK * (some * PANEL_ROWS + 2 * (some / 16) * PANEL_ROWS * sizeof(float));
    return (panel > chunk ? panel : chunk) + 4096;
}

size_t kv_page_bytes(dil_type type, int head_dim)
{
    if (head_dim <= 0)
        return 0;
    size_t n = (size_t)head_dim * KV_PAGE;
    switch (type) {
    case DIL_TYPE_F32: return n * 4;
    case DIL_TYPE_F16:
    case DIL_TYPE_BF16: return n * 2;
    case DIL_TYPE_Q8_0:
    case DIL_TYPE_Q4_0: return (kv_value_bytes(type, head_dim) + kv_n_scales(head_dim) * 2) * KV_PAGE;
    default: return 0;
    }
}
