/* Random numbers, activations and rows of every type. */
#include <math.h>
#include <string.h>

#include "check.h"

static uint64_t state = 1;

void random_seed(uint64_t seed) { state = seed * 2 + 1; }

uint32_t random_u32(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 32);
}

static float uniform(void) { return (float)(random_u32() >> 8) * 0x1p-24f; }

float random_float(void) { return uniform() + uniform() + uniform() + uniform() - 2.0f; }

void random_floats(float *f, size_t n, data_kind kind)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = random_u32();
        switch (kind) {
        case DATA_NORMAL: f[i] = random_float() * (bits % 61 == 0 ? 40.0f : 1.0f); break;
        case DATA_MAX: f[i] = i % 2 ? -3.0e30f : 3.0e30f; break;
        case DATA_ZERO: f[i] = 0.0f; break;
        case DATA_TOP: f[i] = 2.0f; break;
        case DATA_BOTTOM: f[i] = -2.0f; break;
        case DATA_TINY: f[i] = random_float() * 0x1p-130f; break;
        case DATA_EDGE: f[i] = bits % 2 ? 0x1p-63f : bits % 4 ? -0x1p-75f : 0x1p-75f; break;
        default: memcpy(&f[i], &bits, sizeof bits); break;
        }
    }
}

/* Byte offsets of the f16 numbers of a block; -1 ends. */
static const int8_t *halves_of(dil_type type, int *shift)
{
    static const int8_t first[] = {0, -1}, first_two[] = {0, 1, -1}, at_80[] = {40, 41, -1}, at_108[] = {54, -1},
                        at_208[] = {104, -1}, at_52[] = {26, -1}, at_64[] = {32, -1}, none[] = {-1};
    *shift = 1;
    switch (type) {
    case DIL_TYPE_Q4_1:
    case DIL_TYPE_Q5_1:
    case DIL_TYPE_Q4_K:
    case DIL_TYPE_Q5_K: return first_two;
    case DIL_TYPE_Q2_K: return at_80;
    case DIL_TYPE_Q3_K: return at_108;
    case DIL_TYPE_Q6_K: return at_208;
    case DIL_TYPE_TQ1_0: return at_52;
    case DIL_TYPE_TQ2_0: return at_64;
    case DIL_TYPE_MXFP4:
    case DIL_TYPE_NVFP4:
    case DIL_TYPE_IQ1_M: return none;
    default: return first;
    }
}

static uint16_t random_half(data_kind kind, size_t i)
{
    switch (kind) {
    case DATA_NORMAL:
    case DATA_TOP:
    case DATA_BOTTOM: return f32_to_f16(random_float() * 0.05f);
    case DATA_MAX: return i % 2 ? 0xfbff : 0x7bff;
    case DATA_TINY: return (uint16_t)(random_u32() & 0x83ff);
    default: return 0;
    }
}

/* The scales of one block made tame, or extreme, as the kind says. */
static void set_scales(dil_type type, uint8_t *block, data_kind kind, size_t i)
{
    int shift;
    for (const int8_t *at = halves_of(type, &shift); *at >= 0; at++) {
        uint16_t h = random_half(kind, i);
        memcpy(block + (*at << shift), &h, sizeof h);
    }
    if (type == DIL_TYPE_MXFP4)
        block[0] = (uint8_t)(kind == DATA_TINY ? random_u32() % 3 : kind == DATA_MAX ? 240 : 118 + random_u32() % 12);
    if (type == DIL_TYPE_IQ1_M) {
        unsigned h = random_half(kind, i);
        for (int k = 0; k < 4; k++)
            block[49 + 2 * k] = (uint8_t)((block[49 + 2 * k] & 15) | (h >> (4 * k) & 15) << 4);
    }
}

static void random_float_row(dil_type type, uint8_t *row, size_t n, data_kind kind)
{
    for (size_t i = 0; i < n; i++) {
        float f;
        random_floats(&f, 1, kind);
        if (kind == DATA_MAX)
            f = i % 2 ? -6.0e4f : 6.0e4f;
        uint16_t h = type == DIL_TYPE_F16 ? f32_to_f16(kind == DATA_TINY ? random_float() * 1e-6f : f) : f32_to_bf16(f);
        if (type == DIL_TYPE_F32)
            memcpy(row + 4 * i, &f, 4);
        else
            memcpy(row + 2 * i, &h, 2);
    }
}

/* A byte of a quantized block; its scales are set afterwards. */
static uint8_t random_byte(data_kind kind, size_t i)
{
    switch (kind) {
    case DATA_MAX: return i % 3 ? 0xff : 0x00;
    case DATA_ZERO: return 0;
    case DATA_TOP: return 0xff;
    case DATA_BOTTOM: return 0x80;
    default: return (uint8_t)random_u32();
    }
}

void random_row(dil_type type, void *row, size_t n, data_kind kind)
{
    const format *f = format_get(type);
    uint8_t *p = row;
    if (!f->is_quantized) {
        random_float_row(type, p, n, kind);
        return;
    }
    size_t n_blocks = n / f->block_values;
    for (size_t b = 0; b < n_blocks; b++, p += f->block_bytes) {
        for (size_t i = 0; i < f->block_bytes; i++)
            p[i] = random_byte(kind, b + i);
        if (kind != DATA_WILD && kind != DATA_ZERO)
            set_scales(type, p, kind, b);
    }
}

bool same_bits(float a, float b) { return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b)); }

const char *type_name(dil_type type) { return format_get(type)->name; }
