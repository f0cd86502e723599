/* The table of formats and look-ups in it. The codecs are in the files of their families. */
#include "formats/formats.h"

#include "base/checked.h"
#include "base/str.h"
#include "formats/codecs.h"

#define PLAIN(type, bytes) [DIL_TYPE_##type] = {#type, 1, (bytes), false, NULL, NULL}
#define FLOATS(type, bytes, codec) [DIL_TYPE_##type] = {#type, 1, (bytes), false, format_decode_##codec, format_encode_##codec}
#define CODED(type, values, bytes, codec) \
    [DIL_TYPE_##type] = {#type, (values), (bytes), true, format_decode_##codec, format_encode_##codec}
/* Formats of activations inside other engines: they have a size, no weights are stored in them. */
#define SIZED(type, values, bytes) [DIL_TYPE_##type] = {#type, (values), (bytes), true, NULL, NULL}

static const format formats[DIL_TYPE_COUNT] = {
    FLOATS(F32, 4, f32),
    FLOATS(F16, 2, f16),
    FLOATS(BF16, 2, bf16),
    PLAIN(F64, 8),
    PLAIN(I8, 1),
    PLAIN(I16, 2),
    PLAIN(I32, 4),
    PLAIN(I64, 8),
    CODED(Q4_0, 32, 18, q4_0),
    CODED(Q4_1, 32, 20, q4_1),
    CODED(Q5_0, 32, 22, q5_0),
    CODED(Q5_1, 32, 24, q5_1),
    CODED(Q8_0, 32, 34, q8_0),
    SIZED(Q8_1, 32, 36),
    CODED(Q2_K, 256, 84, q2_k),
    CODED(Q3_K, 256, 110, q3_k),
    CODED(Q4_K, 256, 144, q4_k),
    CODED(Q5_K, 256, 176, q5_k),
    CODED(Q6_K, 256, 210, q6_k),
    SIZED(Q8_K, 256, 292),
    CODED(IQ1_S, 256, 50, iq1_s),
    CODED(IQ1_M, 256, 56, iq1_m),
    CODED(IQ2_XXS, 256, 66, iq2_xxs),
    CODED(IQ2_XS, 256, 74, iq2_xs),
    CODED(IQ2_S, 256, 82, iq2_s),
    CODED(IQ3_XXS, 256, 98, iq3_xxs),
    CODED(IQ3_S, 256, 110, iq3_s),
    CODED(IQ4_NL, 32, 18, iq4_nl),
    CODED(IQ4_XS, 256, 136, iq4_xs),
    CODED(TQ1_0, 256, 54, tq1_0),
    CODED(TQ2_0, 256, 66, tq2_0),
    CODED(MXFP4, 32, 17, mxfp4),
    CODED(NVFP4, 64, 36, nvfp4),
    CODED(Q1_0, 128, 18, q1_0),
    CODED(Q2_0, 64, 18, q2_0),
    CODED(D3_0, 32, 14, d3_0),
    CODED(D6_0, 32, 26, d6_0),
};

bool format_is_stock(dil_type type) { return type < DIL_TYPE_D3_0; }

const format *format_get(dil_type type)
{
    /* Compared as an unsigned number: the argument may be any value a file holds. */
    if ((unsigned)type >= DIL_TYPE_COUNT || !formats[type].name)
        return NULL;
    return &formats[type];
}

bool format_find(const char *name, dil_type *out)
{
    if (!name)
        return false;
    for (unsigned i = 0; i < DIL_TYPE_COUNT; i++) {
        if (formats[i].name && str_equal_nocase(formats[i].name, name)) {
            *out = (dil_type)i;
            return true;
        }
    }
    return false;
}

bool format_row_bytes(dil_type type, uint64_t n, uint64_t *out)
{
    const format *f = format_get(type);
    if (!f || n % f->block_values != 0)
        return false;
    uint64_t bytes;
    if (!checked_mul_u64(n / f->block_values, f->block_bytes, &bytes))
        return false;
    *out = bytes;
    return true;
}

int format_scales(dil_type type, int at[FORMAT_MOST_SCALES])
{
    static const struct {
        uint8_t n, at[FORMAT_MOST_SCALES];
    } scales[DIL_TYPE_COUNT] = {
        [DIL_TYPE_Q4_0] = {1, {0}},    [DIL_TYPE_Q4_1] = {2, {0, 2}}, [DIL_TYPE_Q5_0] = {1, {0}},
        [DIL_TYPE_Q5_1] = {2, {0, 2}}, [DIL_TYPE_Q8_0] = {1, {0}},    [DIL_TYPE_Q2_K] = {2, {80, 82}},
        [DIL_TYPE_Q3_K] = {1, {108}},  [DIL_TYPE_Q4_K] = {2, {0, 2}}, [DIL_TYPE_Q5_K] = {2, {0, 2}},
        [DIL_TYPE_Q6_K] = {1, {208}},  [DIL_TYPE_IQ1_S] = {1, {0}},   [DIL_TYPE_IQ2_XXS] = {1, {0}},
        [DIL_TYPE_IQ2_XS] = {1, {0}},  [DIL_TYPE_IQ2_S] = {1, {0}},   [DIL_TYPE_IQ3_XXS] = {1, {0}},
        [DIL_TYPE_IQ3_S] = {1, {0}},   [DIL_TYPE_IQ4_NL] = {1, {0}},  [DIL_TYPE_IQ4_XS] = {1, {0}},
        [DIL_TYPE_TQ1_0] = {1, {52}},  [DIL_TYPE_TQ2_0] = {1, {64}},  [DIL_TYPE_Q1_0] = {1, {0}},
        [DIL_TYPE_Q2_0] = {1, {0}},    [DIL_TYPE_D3_0] = {1, {0}},    [DIL_TYPE_D6_0] = {1, {0}},
    };
    if ((unsigned)type >= DIL_TYPE_COUNT)
        return 0;
    for (int i = 0; i < scales[type].n; i++)
        at[i] = scales[type].at[i];
    return scales[type].n;
}
