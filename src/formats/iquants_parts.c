/*
 * Blocks of IQ1, IQ2 and IQ3 (layouts: iquants.c) taken apart and put together. A scale of s is stored here as 2 s + 1, the odd integer that d
 * and the format's unit multiply.
 */
#include "formats/codebook.h"
#include "formats/codecs.h"
#include "formats/iq_tables.h"

static int8_t odd_of(unsigned s) { return (int8_t)(2 * s + 1); }
static unsigned half_of(int8_t odd) { return (unsigned)odd >> 1; }
static unsigned nibble_at(const uint8_t *p, int j) { return (unsigned)p[j / 2] >> (j % 2 * 4) & 15; }

static void put_nibble(uint8_t *p, int j, unsigned v)
{
    p[j / 2] = (uint8_t)(j % 2 ? (p[j / 2] & 15) | v << 4 : (p[j / 2] & 0xf0) | v);
}

/* Bit 0: the shift is down. */
static unsigned down_of(const uint8_t *code) { return codebook_shift(code[0]) == CODEBOOK_SHIFT_DOWN; }

FORMATS_READ(iq1_s)
{
    out->d = load_f16(block);
    for (int i = 0; i < 32; i++) {
        unsigned word = load_u16(block + 34 + i / 4 * 2), down = word >> 15;
        out->scale[i / 4] = odd_of(word >> 12 & 7);
        out->min[i / 4] = (uint8_t)(down ? CODEBOOK_SHIFT_DOWN : CODEBOOK_SHIFT_UP);
        codebook_read(&codebook_iq1_s, block[2 + i] | (word >> (i % 4 * 3) & 7) << 8, down, out->code + 8 * i);
    }
}

FORMATS_WRITE(iq1_s)
{
    (void)store_f16(block, b->d);
    for (int part = 0; part < 8; part++) {
        unsigned down, word = half_of(b->scale[part]) << 12 | down_of(b->code + 32 * part) << 15;
        for (int k = 0; k < 4; k++) {
            unsigned index = codebook_write(&codebook_iq1_s, b->code + 32 * part + 8 * k, &down);
            block[2 + 4 * part + k] = (uint8_t)index;
            word |= index >> 8 << (3 * k);
        }
        store_u16(block + 34 + 2 * part, (uint16_t)word);
    }
}

/* Four words behind the indices: 12 bits of scales, and a quarter of the f16 d on top, its lowest first. */
FORMATS_READ(iq1_m)
{
    const uint8_t *words = block + 48;
    unsigned h = 0;
    for (int k = 0; k < 4; k++)
        h |= (unsigned)(load_u16(words + 2 * k) >> 12) << (4 * k);
    out->d = f16_to_f32((uint16_t)h);
    for (int i = 0; i < 32; i++) {
        unsigned high = nibble_at(block + 32, i), s = (unsigned)load_u16(words + i / 8 * 2) >> (i / 2 % 4 * 3);
        out->scale[i / 2] = odd_of(s & 7);
        codebook_read(&codebook_iq1_m, block[i] | (high & 7) << 8, high >> 3, out->code + 8 * i);
    }
}

FORMATS_WRITE(iq1_m)
{
    uint8_t *words = block + 48;
    const unsigned h = f32_to_f16(b->d);
    for (int i = 0; i < 32; i++) {
        unsigned down, index = codebook_write(&codebook_iq1_m, b->code + 8 * i, &down);
        block[i] = (uint8_t)index;
        put_nibble(block + 32, i, index >> 8 | down << 3);
    }
    for (int k = 0; k < 4; k++) {
        unsigned word = (h >> (4 * k) & 15) << 12;
        for (int j = 0; j < 4; j++)
            word |= half_of(b->scale[4 * k + j]) << (3 * j);
        store_u16(words + 2 * k, (uint16_t)word);
    }
}

FORMATS_READ(iq2_xxs)
{
    out->d = load_f16(block);
    for (int i = 0; i < 32; i++) {
        const uint8_t *part = block + 2 + i / 4 * 8;
        uint32_t word = load_u32(part + 4);
        out->scale[i / 4] = odd_of(word >> 28);
        codebook_read(&codebook_iq2_xxs, part[i % 4], iq_signs[word >> (i % 4 * 7) & 127], out->code + 8 * i);
    }
}

FORMATS_WRITE(iq2_xxs)
{
    (void)store_f16(block, b->d);
    for (int part = 0; part < 8; part++) {
        uint8_t *to = block + 2 + part * 8;
        uint32_t word = (uint32_t)half_of(b->scale[part]) << 28;
        for (int k = 0; k < 4; k++) {
            unsigned signs;
            to[k] = (uint8_t)codebook_write(&codebook_iq2_xxs, b->code + 32 * part + 8 * k, &signs);
            word |= (uint32_t)(signs & 127) << (7 * k);
        }
        store_u32(to + 4, word);
    }
}

FORMATS_READ(iq2_xs)
{
    out->d = load_f16(block);
    for (int i = 0; i < 32; i++) {
        unsigned both = load_u16(block + 2 + 2 * i);
        out->scale[i / 2] = odd_of(nibble_at(block + 66, i / 2));
        codebook_read(&codebook_iq2_xs, both & 511, iq_signs[both >> 9], out->code + 8 * i);
    }
}

FORMATS_WRITE(iq2_xs)
{
    (void)store_f16(block, b->d);
    for (int i = 0; i < 32; i++) {
        unsigned signs, word = codebook_write(&codebook_iq2_xs, b->code + 8 * i, &signs);
        store_u16(block + 2 + 2 * i, (uint16_t)(word | (signs & 127) << 9));
        put_nibble(block + 66, i / 2, half_of(b->scale[i / 2]));
    }
}

FORMATS_READ(iq2_s)
{
    out->d = load_f16(block);
    for (int i = 0; i < 32; i++) {
        unsigned high = (unsigned)block[66 + i / 4] >> (i % 4 * 2) & 3;
        out->scale[i / 2] = odd_of(nibble_at(block + 74, i / 2));
        codebook_read(&codebook_iq2_s, block[2 + i] | high << 8, block[34 + i], out->code + 8 * i);
    }
}

FORMATS_WRITE(iq2_s)
{
    (void)store_f16(block, b->d);
    memset(block + 66, 0, 8);
    for (int i = 0; i < 32; i++) {
        unsigned signs, word = codebook_write(&codebook_iq2_s, b->code + 8 * i, &signs);
        block[2 + i] = (uint8_t)word;
        block[34 + i] = (uint8_t)signs;
        block[66 + i / 4] |= (uint8_t)((word >> 8) << (i % 4 * 2));
        put_nibble(block + 74, i / 2, half_of(b->scale[i / 2]));
    }
}

FORMATS_READ(iq3_xxs)
{
    out->d = load_f16(block);
    for (int i = 0; i < 64; i++) { /* words of 4 values */
        uint32_t word = load_u32(block + 66 + i / 8 * 4);
        unsigned signs = (unsigned)iq_signs[word >> (i / 2 % 4 * 7) & 127] >> (i % 2 * 4);
        out->scale[i / 8] = odd_of(word >> 28);
        codebook_read(&codebook_iq3_xxs, block[2 + i], signs, out->code + 4 * i);
    }
}

FORMATS_WRITE(iq3_xxs)
{
    (void)store_f16(block, b->d);
    for (int part = 0; part < 8; part++) {
        uint32_t word = (uint32_t)half_of(b->scale[part]) << 28;
        for (int k = 0; k < 8; k++) {
            unsigned signs;
            block[2 + 8 * part + k] = (uint8_t)codebook_write(&codebook_iq3_xxs, b->code + 32 * part + 4 * k, &signs);
            signs = k % 2 ? signs << 4 & 127 : signs; /* of 8 values; the last follows from the others */
            word |= (uint32_t)signs << (7 * (k / 2));
        }
        store_u32(block + 66 + 4 * part, word);
    }
}

FORMATS_READ(iq3_s)
{
    out->d = load_f16(block);
    for (int i = 0; i < 64; i++) {
        unsigned word = block[2 + i] | ((unsigned)block[66 + i / 8] >> (i % 8) & 1) << 8;
        out->scale[i / 8] = odd_of(nibble_at(block + 106, i / 8));
        codebook_read(&codebook_iq3_s, word, (unsigned)block[74 + i / 2] >> (i % 2 * 4), out->code + 4 * i);
    }
}

FORMATS_WRITE(iq3_s)
{
    (void)store_f16(block, b->d);
    memset(block + 66, 0, 40);
    for (int i = 0; i < 64; i++) {
        unsigned signs, word = codebook_write(&codebook_iq3_s, b->code + 4 * i, &signs);
        block[2 + i] = (uint8_t)word;
        block[66 + i / 8] |= (uint8_t)((word >> 8) << (i % 8));
        block[74 + i / 2] |= (uint8_t)(signs << (i % 2 * 4));
        put_nibble(block + 106, i / 8, half_of(b->scale[i / 8]));
    }
}
