/*
 * Blocks of IQ2 and IQ3 (layouts: iquants.c) taken apart and put together. A scale of s is stored here as 2 s + 1, the odd integer that d
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
