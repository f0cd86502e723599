/* The table of grids; reading and writing blocks is in the files of the codecs. */
#include "formats/grid.h"

#include <math.h>

#include "base/once.h"
#include "formats/codebook.h"
#include "formats/codecs.h"
#include "formats/iq_tables.h"

/* Every range of consecutive levels is a part of it. */
static const int8_t range[256] = {
    -128, -127, -126, -125, -124, -123, -122, -121, -120, -119, -118, -117, -116, -115, -114, -113, -112, -111, -110, -109,
    -108, -107, -106, -105, -104, -103, -102, -101, -100, -99,  -98,  -97,  -96,  -95,  -94,  -93,  -92,  -91,  -90,  -89,
    -88,  -87,  -86,  -85,  -84,  -83,  -82,  -81,  -80,  -79,  -78,  -77,  -76,  -75,  -74,  -73,  -72,  -71,  -70,  -69,
    -68,  -67,  -66,  -65,  -64,  -63,  -62,  -61,  -60,  -59,  -58,  -57,  -56,  -55,  -54,  -53,  -52,  -51,  -50,  -49,
    -48,  -47,  -46,  -45,  -44,  -43,  -42,  -41,  -40,  -39,  -38,  -37,  -36,  -35,  -34,  -33,  -32,  -31,  -30,  -29,
    -28,  -27,  -26,  -25,  -24,  -23,  -22,  -21,  -20,  -19,  -18,  -17,  -16,  -15,  -14,  -13,  -12,  -11,  -10,  -9,
    -8,   -7,   -6,   -5,   -4,   -3,   -2,   -1,   0,    1,    2,    3,    4,    5,    6,    7,    8,    9,    10,   11,
    12,   13,   14,   15,   16,   17,   18,   19,   20,   21,   22,   23,   24,   25,   26,   27,   28,   29,   30,   31,
    32,   33,   34,   35,   36,   37,   38,   39,   40,   41,   42,   43,   44,   45,   46,   47,   48,   49,   50,   51,
    52,   53,   54,   55,   56,   57,   58,   59,   60,   61,   62,   63,   64,   65,   66,   67,   68,   69,   70,   71,
    72,   73,   74,   75,   76,   77,   78,   79,   80,   81,   82,   83,   84,   85,   86,   87,   88,   89,   90,   91,
    92,   93,   94,   95,   96,   97,   98,   99,   100,  101,  102,  103,  104,  105,  106,  107,  108,  109,  110,  111,
    112,  113,  114,  115,  116,  117,  118,  119,  120,  121,  122,  123,  124,  125,  126,  127,
};
#define FROM(lo) (range + 128 + (lo))

static const int8_t signs[2] = {-1, 1};
static const int8_t iq1_levels[6] = {-9, -7, -1, 1, 7, 9}; /* eighths: -1, 0, 1 with an eighth less or more */
static const int8_t iq2_levels[6] = {-43, -25, -8, 8, 25, 43};
static const int8_t iq3_xxs_levels[16] = {-62, -52, -44, -36, -28, -20, -12, -4, 4, 12, 20, 28, 36, 44, 52, 62};
static const int8_t iq3_s_levels[16] = {-15, -13, -11, -9, -7, -5, -3, -1, 1, 3, 5, 7, 9, 11, 13, 15};

static const int8_t fp4_levels[16] = {-12, -8, -6, -4, -3, -2, -1, 0, 0, 1, 2, 3, 4, 6, 8, 12}; /* minus zero is one of them */

enum { UE4M3_LARGEST = 0x7e };
static float ue4m3[0x80]; /* the number behind the largest counts as 0 */

/* What every row of the table says; the rest by name. */
#define PARTS(t, values, values_a_scale, levels, first, lo, hi, codec, ...)                                                 \
    {                                                                                                                       \
        .type = DIL_TYPE_##t, .block = values, .group = values_a_scale, .n_levels = levels, .level = first, .scale_lo = lo, \
        .scale_hi = hi, .read = format_read_##codec, .write = format_write_##codec, __VA_ARGS__                             \
    }
#define PLAIN .scale_step = 1, .unit = 1.0f
#define GRID(t, values, values_a_scale, levels, first, lo, hi, offsets, most, codec) \
    PARTS(t, values, values_a_scale, levels, first, lo, hi, codec, PLAIN, .offset = offsets, .min_hi = most)
#define FP4(t, values, values_a_scale, lo, hi, codec, kind, table) \
    PARTS(t, values, values_a_scale, 16, fp4_levels, lo, hi, codec, PLAIN, .number = kind, .scales = table)
#define BOOK(t, values_a_scale, levels, most, of_unit, codec)                                              \
    PARTS(t, 256, values_a_scale, sizeof levels, levels, 1, most, codec, .scale_step = 2, .unit = of_unit, \
          .book = &codebook_##codec)

static const grid grids[] = {
    GRID(Q4_0, 32, 32, 16, FROM(-8), 1, 1, GRID_NO_OFFSET, 0, q4_0),
    GRID(Q4_1, 32, 32, 16, FROM(0), 1, 1, GRID_OFFSET_OWN, 0, q4_1),
    GRID(Q5_0, 32, 32, 32, FROM(-16), 1, 1, GRID_NO_OFFSET, 0, q5_0),
    GRID(Q5_1, 32, 32, 32, FROM(0), 1, 1, GRID_OFFSET_OWN, 0, q5_1),
    GRID(Q8_0, 32, 32, 256, FROM(-128), 1, 1, GRID_NO_OFFSET, 0, q8_0),
    GRID(Q2_K, 256, 16, 4, FROM(0), 0, 15, GRID_OFFSET_STEPS, 15, q2_k),
    GRID(Q3_K, 256, 16, 8, FROM(-4), -32, 31, GRID_NO_OFFSET, 0, q3_k),
    GRID(Q4_K, 256, 32, 16, FROM(0), 0, 63, GRID_OFFSET_STEPS, 63, q4_k),
    GRID(Q5_K, 256, 32, 32, FROM(0), 0, 63, GRID_OFFSET_STEPS, 63, q5_k),
    GRID(Q6_K, 256, 16, 64, FROM(-32), -128, 127, GRID_NO_OFFSET, 0, q6_k),
    GRID(IQ4_NL, 32, 32, 16, iq4_values, 1, 1, GRID_NO_OFFSET, 0, iq4_nl),
    GRID(IQ4_XS, 256, 32, 16, iq4_values, -32, 31, GRID_NO_OFFSET, 0, iq4_xs),
    GRID(Q1_0, 128, 128, 2, signs, 1, 1, GRID_NO_OFFSET, 0, q1_0),
    GRID(D3_0, 32, 32, 8, FROM(-4), 1, 1, GRID_NO_OFFSET, 0, d3_0),
    GRID(D6_0, 32, 32, 64, FROM(-32), 1, 1, GRID_NO_OFFSET, 0, d6_0),
    GRID(Q2_0, 64, 64, 4, FROM(-1), 1, 1, GRID_NO_OFFSET, 0, q2_0),
    GRID(TQ1_0, 256, 256, 3, FROM(-1), 1, 1, GRID_NO_OFFSET, 0, tq1_0),
    GRID(TQ2_0, 256, 256, 4, FROM(-1), 1, 1, GRID_NO_OFFSET, 0, tq2_0),
    FP4(MXFP4, 32, 32, 1, 1, mxfp4, GRID_POWER, NULL),
    FP4(NVFP4, 64, 16, 0, UE4M3_LARGEST, nvfp4, GRID_ONE, ue4m3),
    BOOK(IQ1_S, 32, iq1_levels, 15, 0.125f, iq1_s),
    BOOK(IQ1_M, 16, iq1_levels, 15, 0.125f, iq1_m),
    BOOK(IQ2_XXS, 32, iq2_levels, 31, 0.125f, iq2_xxs),
    BOOK(IQ2_XS, 16, iq2_levels, 31, 0.125f, iq2_xs),
    BOOK(IQ2_S, 16, iq2_levels, 31, 0.125f, iq2_s),
    BOOK(IQ3_XXS, 32, iq3_xxs_levels, 31, 0.25f, iq3_xxs),
    BOOK(IQ3_S, 32, iq3_s_levels, 31, 1.0f, iq3_s),
};

static void prepare(void)
{
    for (int i = 0; i < 0x80; i++)
        ue4m3[i] = ue4m3_to_f32((uint8_t)i);
    codebook_prepare();
}

const grid *grid_get(dil_type type)
{
    static once prepared = ONCE;
    for (size_t i = 0; i < sizeof grids / sizeof *grids; i++)
        if (grids[i].type == type) {
            once_run(&prepared, prepare);
            return &grids[i];
        }
    return NULL;
}

static float nearest_power(float v)
{
    int exponent;
    if (!(v > 0x1p-128f))
        return 0x1p-128f;
    float fraction = frexpf(v, &exponent); /* 0.5 .. 1 */
    exponent -= fraction < 0.75f;
    return ldexpf(1.0f, exponent < 127 ? exponent : 127);
}

float grid_storable(const grid *g, float v)
{
    const float most = 65504.0f;
    if (g->number == GRID_ONE)
        return 1.0f;
    return g->number == GRID_POWER ? nearest_power(v) : f16_to_f32(f32_to_f16(v > most ? most : v < -most ? -most : v));
}

float grid_beside(const grid *g, float v, int step)
{
    if (g->number != GRID_F16)
        return grid_storable(g, ldexpf(v, step));
    int h = f32_to_f16(v), at = h & 0x8000 ? -(h & 0x7fff) : h; /* in order of value; both zeros are 0 */
    at += step;
    float other = f16_to_f32((uint16_t)(at < 0 ? 0x8000 | -at : at));
    return isfinite(other) ? other : v;
}

void grid_borders_of(const grid *g, grid_borders *out)
{
    for (int i = 0; i < g->n_levels; i++) {
        out->lower[i] = i > 0 ? 0.5f * (float)(g->level[i - 1] + g->level[i]) : -INFINITY;
        out->upper[i] = i + 1 < g->n_levels ? 0.5f * (float)(g->level[i] + g->level[i + 1]) : INFINITY;
    }
}

int grid_nearest(const grid *g, float v)
{
    const int8_t *level = g->level;
    int last = g->n_levels - 1;
    if (level[last] - level[0] == last) { /* consecutive */
        float at = v - (float)level[0];
        return at > 0.0f ? at < (float)last ? (int)(at + 0.5f) : last : 0;
    }
    int i = 0;
    while (i < last && v > 0.5f * (float)(level[i] + level[i + 1]))
        i++;
    return i;
}

void grid_values(const grid *g, const grid_block *b, float *out)
{
    for (int i = 0; i < g->block; i++) {
        int group = i / g->group;
        float v = grid_scale(g, b, group) * (float)g->level[b->code[i]];
        out[i] = g->offset == GRID_NO_OFFSET ? v : v + grid_offset_of(g, b, group);
    }
}
