/*
 * Tensor number formats: the table of every format a GGUF file may hold, with scalar decode and encode. This is the written
 * truth that every kernel is checked against. Names and numbers are those of GGUF; layouts are documented beside each codec.
 */
#ifndef FORMATS_FORMATS_H
#define FORMATS_FORMATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dilmodeli.h"

typedef enum dil_type {
    DIL_TYPE_F32 = 0,
    DIL_TYPE_F16 = 1,
    DIL_TYPE_Q4_0 = 2,
    DIL_TYPE_Q4_1 = 3,
    DIL_TYPE_Q5_0 = 6,
    DIL_TYPE_Q5_1 = 7,
    DIL_TYPE_Q8_0 = 8,
    DIL_TYPE_Q8_1 = 9,
    DIL_TYPE_Q2_K = 10,
    DIL_TYPE_Q3_K = 11,
    DIL_TYPE_Q4_K = 12,
    DIL_TYPE_Q5_K = 13,
    DIL_TYPE_Q6_K = 14,
    DIL_TYPE_Q8_K = 15,
    DIL_TYPE_IQ2_XXS = 16,
    DIL_TYPE_IQ2_XS = 17,
    DIL_TYPE_IQ3_XXS = 18,
    DIL_TYPE_IQ1_S = 19,
    DIL_TYPE_IQ4_NL = 20,
    DIL_TYPE_IQ3_S = 21,
    DIL_TYPE_IQ2_S = 22,
    DIL_TYPE_IQ4_XS = 23,
    DIL_TYPE_I8 = 24,
    DIL_TYPE_I16 = 25,
    DIL_TYPE_I32 = 26,
    DIL_TYPE_I64 = 27,
    DIL_TYPE_F64 = 28,
    DIL_TYPE_IQ1_M = 29,
    DIL_TYPE_BF16 = 30,
    DIL_TYPE_TQ1_0 = 34,
    DIL_TYPE_TQ2_0 = 35,
    DIL_TYPE_MXFP4 = 39,
    DIL_TYPE_NVFP4 = 40,
    DIL_TYPE_Q1_0 = 41,
    DIL_TYPE_Q2_0 = 42,
    DIL_TYPE_D3_0 = 62, /* our own: see own.c. Numbers from the end, which GGUF has not reached */
    DIL_TYPE_D6_0 = 63,
    DIL_TYPE_COUNT = 64
} dil_type;

/*
 * Codecs of whole rows. n is a multiple of the format's block_values; exactly n floats and the bytes
 * of format_row_bytes are read or written; the block side needs no alignment; the two sides do not
 * overlap. They cannot fail: any bytes decode, any floats encode (NaN and infinities to something).
 *
 * decode is exact: the same floats, bit for bit, as the arithmetic in f32 that defines the format.
 */
typedef void (*format_decode_fn)(const void *src, float *dst, size_t n);
/*
 * importance: NULL, or n non-negative weights of the squared errors, whose sum is made small. NULL
 * means equal weights for formats with a search (k-quants, IQ4, NVFP4, Q2_0), the customary rounding
 * without a search for the others (Q4_0 to Q8_0, TQ1_0, TQ2_0, MXFP4).
 */
typedef void (*format_encode_fn)(const float *src, void *dst, size_t n, const float *importance);

typedef struct format {
    const char *name;      /* "Q4_K"; NULL in unused slots */
    uint32_t block_values; /* values per block */
    uint32_t block_bytes;  /* bytes per block */
    bool is_quantized;
    format_decode_fn decode; /* NULL for types that hold no weights (I8, ...) */
    format_encode_fn encode; /* NULL where encoding is not offered */
} format;

const format *format_get(dil_type type);           /* NULL for unknown numbers; any value is allowed */
bool format_find(const char *name, dil_type *out); /* case-insensitive: "q4_k", "BF16" */
bool format_is_stock(dil_type type);               /* other engines know it */
/* Bytes of a row of n values; false when n is not a multiple of the block or the product overflows. */
bool format_row_bytes(dil_type type, uint64_t n, uint64_t *out);

/* The f16 numbers of a block that its values are a sum of multiples of: the scale d, and m or dmin. Byte offsets into the block go to `at`;
 * returns how many, 0 where a format has none (floats, FP4, IQ1_M). */
#define FORMAT_MOST_SCALES 2
int format_scales(dil_type type, int at[FORMAT_MOST_SCALES]);

/* Scalar conversions, exact or rounded to nearest, ties to even; NaN stays NaN. */
float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);
float bf16_to_f32(uint16_t h);
uint16_t f32_to_bf16(float f);
/* Block scales of FP4, halved because the code book is doubled: 2^(e-128) of MXFP4, NVFP4's. */
float e8m0_to_f32_half(uint8_t e);
float ue4m3_to_f32(uint8_t e);

#endif
