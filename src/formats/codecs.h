/*
 * What the files of this module share: the codecs of every format, little-endian loads and stores
 * from unaligned bytes, and the small numbers every block layout uses. Not for other modules.
 */
#ifndef FORMATS_CODECS_H
#define FORMATS_CODECS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "formats/formats.h"
#include "formats/grid.h"

#define FORMATS_SUPER 256 /* values of a super-block: k-quants, IQ types, TQ types */

#define FORMATS_DECODE(name) void format_decode_##name(const void *src, float *dst, size_t n)
#define FORMATS_ENCODE(name) void format_encode_##name(const float *src, void *dst, size_t n, const float *importance)

#define FORMATS_READ(name) void format_read_##name(const uint8_t *block, grid_block *out)
#define FORMATS_WRITE(name) void format_write_##name(const grid_block *b, uint8_t *block)

FORMATS_DECODE(f32);
FORMATS_DECODE(f16);
FORMATS_DECODE(bf16);
FORMATS_DECODE(q4_0);
FORMATS_DECODE(q4_1);
FORMATS_DECODE(q5_0);
FORMATS_DECODE(d3_0);
FORMATS_DECODE(d6_0);
FORMATS_DECODE(q5_1);
FORMATS_DECODE(q8_0);
FORMATS_DECODE(q2_k);
FORMATS_DECODE(q3_k);
FORMATS_DECODE(q4_k);
FORMATS_DECODE(q5_k);
FORMATS_DECODE(q6_k);
FORMATS_DECODE(iq1_s);
FORMATS_DECODE(iq1_m);
FORMATS_DECODE(iq2_xxs);
FORMATS_DECODE(iq2_xs);
FORMATS_DECODE(iq2_s);
FORMATS_DECODE(iq3_xxs);
FORMATS_DECODE(iq3_s);
FORMATS_DECODE(iq4_nl);
FORMATS_DECODE(iq4_xs);
FORMATS_DECODE(tq1_0);
FORMATS_DECODE(tq2_0);
FORMATS_DECODE(mxfp4);
FORMATS_DECODE(nvfp4);
FORMATS_DECODE(q1_0);
FORMATS_DECODE(q2_0);

FORMATS_ENCODE(f32);
FORMATS_ENCODE(f16);
FORMATS_ENCODE(bf16);
FORMATS_ENCODE(q4_0);
FORMATS_ENCODE(q4_1);
FORMATS_ENCODE(q5_0);
FORMATS_ENCODE(d3_0);
FORMATS_ENCODE(d6_0);
FORMATS_ENCODE(q5_1);
FORMATS_ENCODE(q8_0);
FORMATS_ENCODE(q2_k);
FORMATS_ENCODE(q3_k);
FORMATS_ENCODE(q4_k);
FORMATS_ENCODE(q5_k);
FORMATS_ENCODE(q6_k);
FORMATS_ENCODE(iq1_s);
FORMATS_ENCODE(iq1_m);
FORMATS_ENCODE(iq2_xxs);
FORMATS_ENCODE(iq2_xs);
FORMATS_ENCODE(iq2_s);
FORMATS_ENCODE(iq3_xxs);
FORMATS_ENCODE(iq3_s);
FORMATS_ENCODE(iq4_nl);
FORMATS_ENCODE(iq4_xs);
FORMATS_ENCODE(tq1_0);
FORMATS_ENCODE(tq2_0);
FORMATS_ENCODE(mxfp4);
FORMATS_ENCODE(nvfp4);
FORMATS_ENCODE(q1_0);
FORMATS_ENCODE(q2_0);

FORMATS_READ(q4_0);
FORMATS_WRITE(q4_0);
FORMATS_READ(q4_1);
FORMATS_WRITE(q4_1);
FORMATS_READ(q5_0);
FORMATS_WRITE(q5_0);
FORMATS_READ(d3_0);
FORMATS_WRITE(d3_0);
FORMATS_READ(d6_0);
FORMATS_WRITE(d6_0);
FORMATS_READ(q5_1);
FORMATS_WRITE(q5_1);
FORMATS_READ(q8_0);
FORMATS_WRITE(q8_0);
FORMATS_READ(q2_k);
FORMATS_WRITE(q2_k);
FORMATS_READ(q3_k);
FORMATS_WRITE(q3_k);
FORMATS_READ(q4_k);
FORMATS_WRITE(q4_k);
FORMATS_READ(q5_k);
FORMATS_WRITE(q5_k);
FORMATS_READ(q6_k);
FORMATS_WRITE(q6_k);
FORMATS_READ(iq1_s);
FORMATS_WRITE(iq1_s);
FORMATS_READ(iq1_m);
FORMATS_WRITE(iq1_m);
FORMATS_READ(iq2_xxs);
FORMATS_WRITE(iq2_xxs);
FORMATS_READ(iq2_xs);
FORMATS_WRITE(iq2_xs);
FORMATS_READ(iq2_s);
FORMATS_WRITE(iq2_s);
FORMATS_READ(iq3_xxs);
FORMATS_WRITE(iq3_xxs);
FORMATS_READ(iq3_s);
FORMATS_WRITE(iq3_s);
FORMATS_READ(iq4_nl);
FORMATS_WRITE(iq4_nl);
FORMATS_READ(iq4_xs);
FORMATS_WRITE(iq4_xs);
FORMATS_READ(q1_0);
FORMATS_WRITE(q1_0);
FORMATS_READ(q2_0);
FORMATS_WRITE(q2_0);
FORMATS_READ(tq1_0);
FORMATS_WRITE(tq1_0);
FORMATS_READ(tq2_0);
FORMATS_WRITE(tq2_0);
FORMATS_READ(nvfp4);
FORMATS_WRITE(nvfp4);
FORMATS_READ(mxfp4);
FORMATS_WRITE(mxfp4);

static inline uint16_t load_u16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t load_u32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void store_u16(uint8_t *p, uint16_t v) { memcpy(p, &v, sizeof v); }

static inline void store_u32(uint8_t *p, uint32_t v) { memcpy(p, &v, sizeof v); }

static inline float load_f16(const uint8_t *p) { return f16_to_f32(load_u16(p)); }

/* Stores f rounded to f16 and returns what was stored. */
static inline float store_f16(uint8_t *p, float f)
{
    uint16_t h = f32_to_f16(f);
    store_u16(p, h);
    return f16_to_f32(h);
}

/* The weights of block values i.., or NULL. */
static inline const float *importance_at(const float *importance, size_t i) { return importance ? importance + i : NULL; }

#endif
