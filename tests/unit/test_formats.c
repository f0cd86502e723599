/* formats: exact scalar conversions, the table, and what encode followed by decode loses. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "formats/formats.h"
#include "formats/iq_tables.h"

enum { N = 8192, LONGEST_ROW = 4 * N, GUARD = 64 };

static uint32_t bits_of(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* A small generator for test data: splitmix64, and a sum of 12 uniforms as a normal variate. */
static double uniform(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static float gaussian(uint64_t *state)
{
    double sum = -6.0;
    for (int i = 0; i < 12; i++)
        sum += uniform(state);
    return (float)sum;
}

/* A float of a sign, an exponent field and a mantissa field, by arithmetic. */
static double value_of(unsigned sign, int exponent, unsigned mantissa, int bits, int bias)
{
    unsigned whole = exponent == 0 ? mantissa : (1u << bits) + mantissa;
    double magnitude = ldexp((double)whole, (exponent == 0 ? 1 : exponent) - bias - bits);
    return sign ? -magnitude : magnitude;
}

static void test_f16_decode(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 65536; h++) {
        float f = f16_to_f32((uint16_t)h);
        unsigned sign = h >> 15, exponent = h >> 10 & 31, mantissa = h & 1023;
        if (exponent == 31 && mantissa) {
            assert_true(isnan(f));
            continue;
        }
        double expected = exponent == 31 ? (sign ? -INFINITY : INFINITY) : value_of(sign, (int)exponent, mantissa, 10, 15);
        assert_true((double)f == expected);
        assert_int_equal(signbit(f) != 0, sign);
    }
}

static void test_f16_encode(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 65536; h++) {
        float f = f16_to_f32((uint16_t)h);
        if (isnan(f)) {
            assert_int_equal(f32_to_f16(f), h | 0x200); /* quiet, payload kept */
            continue;
        }
        assert_int_equal(f32_to_f16(f), h);
        if ((h & 0x7fff) >= 0x7c00)
            continue;
        /* Half way to the next one away from zero; after the largest comes 65536. */
        bool largest = (h & 0x7fff) == 0x7bff;
        float next = largest ? copysignf(65536.0f, f) : f16_to_f32((uint16_t)(h + 1));
        float middle = f + (next - f) / 2;
        assert_int_equal(f32_to_f16(middle), h + (h & 1)); /* to even */
        assert_int_equal(f32_to_f16(nextafterf(middle, f)), h);
        assert_int_equal(f32_to_f16(nextafterf(middle, next)), h + 1);
    }
    assert_int_equal(f32_to_f16(1e30f), 0x7c00);
    assert_int_equal(f32_to_f16(-1e-30f), 0x8000);
}

static void test_bf16(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 65536; h++) {
        float f = bf16_to_f32((uint16_t)h);
        assert_int_equal(bits_of(f), (uint32_t)h << 16);
        if (isnan(f)) {
            assert_int_equal(f32_to_bf16(f), h | 0x40);
            continue;
        }
        assert_int_equal(f32_to_bf16(f), h);
        if ((h & 0x7fff) >= 0x7f80)
            continue;
        float middle, above;
        uint32_t bits = (uint32_t)h << 16 | 0x8000, more = bits + 1;
        memcpy(&middle, &bits, sizeof middle);
        memcpy(&above, &more, sizeof above);
        assert_int_equal(f32_to_bf16(middle), h + (h & 1));
        assert_int_equal(f32_to_bf16(nextafterf(middle, f)), h);
        assert_int_equal(f32_to_bf16(above), h + 1);
    }
    float nan;
    uint32_t bits = 0x7f800001; /* its upper half looks like infinity */
    memcpy(&nan, &bits, sizeof nan);
    assert_int_equal(f32_to_bf16(nan), 0x7fc0);
}

static void test_small_scales(void **state)
{
    (void)state;
    for (int e = 0; e < 256; e++)
        assert_true((double)e8m0_to_f32_half((uint8_t)e) == ldexp(1.0, e - 128));
    for (unsigned e = 0; e < 256; e++) {
        double expected = e == 0x7f ? 0.0 : value_of(0, (int)(e >> 3 & 15), e & 7, 3, 7) / 2;
        assert_true((double)ue4m3_to_f32((uint8_t)e) == expected);
    }
}

static void test_find(void **state)
{
    (void)state;
    dil_type type = DIL_TYPE_Q4_0;
    assert_true(format_find("q4_k", &type));
    assert_int_equal(type, DIL_TYPE_Q4_K);
    assert_true(format_find("BF16", &type));
    assert_int_equal(type, DIL_TYPE_BF16);
    assert_true(format_find("iq2_XXS", &type));
    assert_int_equal(type, DIL_TYPE_IQ2_XXS);
    assert_false(format_find("", &type));
    assert_false(format_find("Q4_", &type));
    assert_false(format_find("Q4_K ", &type));
    assert_false(format_find(NULL, &type));
    assert_int_equal(type, DIL_TYPE_IQ2_XXS); /* untouched on failure */
    for (int i = 0; i < DIL_TYPE_COUNT; i++) {
        const format *f = format_get((dil_type)i);
        if (!f)
            continue;
        assert_true(format_find(f->name, &type));
        assert_int_equal(type, i);
    }
}

static void test_get(void **state)
{
    (void)state;
    static const int unknown[] = {-1, 4, 5, 31, 33, 36, 38, 43, 61, 64, 1 << 20, INT32_MAX, INT32_MIN};
    uint64_t bytes = 7;
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        assert_null(format_get((dil_type)unknown[i]));
        assert_false(format_row_bytes((dil_type)unknown[i], 256, &bytes));
    }
    assert_int_equal(bytes, 7);
    assert_string_equal(format_get(DIL_TYPE_Q6_K)->name, "Q6_K");
    assert_null((void *)(uintptr_t)format_get(DIL_TYPE_I32)->decode);
    assert_false(format_get(DIL_TYPE_BF16)->is_quantized);
    assert_true(format_get(DIL_TYPE_TQ1_0)->is_quantized);
}

static void test_row_bytes(void **state)
{
    (void)state;
    uint64_t bytes = 7;
    assert_true(format_row_bytes(DIL_TYPE_Q4_K, 4096, &bytes));
    assert_int_equal(bytes, 4096 / 256 * 144);
    assert_true(format_row_bytes(DIL_TYPE_F16, 3, &bytes));
    assert_int_equal(bytes, 6);
    assert_true(format_row_bytes(DIL_TYPE_Q8_0, 0, &bytes));
    assert_int_equal(bytes, 0);
    bytes = 7;
    assert_false(format_row_bytes(DIL_TYPE_Q4_K, 4095, &bytes));
    assert_false(format_row_bytes(DIL_TYPE_Q4_0, 33, &bytes));
    assert_false(format_row_bytes(DIL_TYPE_F64, UINT64_MAX / 8 + 1, &bytes));
    assert_false(format_row_bytes(DIL_TYPE_Q8_0, UINT64_MAX - 31, &bytes)); /* 34 bytes per 32 */
    assert_int_equal(bytes, 7);
    assert_true(format_row_bytes(DIL_TYPE_F64, UINT64_MAX / 8, &bytes));
    assert_true(format_row_bytes(DIL_TYPE_Q4_0, UINT64_MAX - 31, &bytes));
}

/*
 * Root of the (weighted) mean squared error on the normal values and importances below, measured.
 * An encoder may become better; 0.1 % worse is a failure.
 */
static const struct {
    dil_type type;
    double plain, weighted;
} measured[] = {
    {DIL_TYPE_F32, 0, 0},
    {DIL_TYPE_F16, 0.000209079, 0.000246161},
    {DIL_TYPE_BF16, 0.00166841, 0.00157682},
    {DIL_TYPE_Q4_0, 0.0850595, 0.0575711},
    {DIL_TYPE_Q4_1, 0.0783589, 0.0442769},
    {DIL_TYPE_Q5_0, 0.0427406, 0.0285872},
    {DIL_TYPE_Q5_1, 0.0376766, 0.0218233},
    {DIL_TYPE_Q8_0, 0.00531262, 0.00361041},
    {DIL_TYPE_Q2_K, 0.264809, 0.154117},
    {DIL_TYPE_Q3_K, 0.141791, 0.100198},
    {DIL_TYPE_Q4_K, 0.0696658, 0.0451894},
    {DIL_TYPE_Q5_K, 0.0343892, 0.0234718},
    {DIL_TYPE_Q6_K, 0.0169788, 0.0117489},
    {DIL_TYPE_IQ4_NL, 0.0726296, 0.0485332},
    {DIL_TYPE_IQ4_XS, 0.0732754, 0.0494129},
    {DIL_TYPE_TQ1_0, 0.793829, 0.378774},
    {DIL_TYPE_TQ2_0, 0.793829, 0.378774},
    {DIL_TYPE_MXFP4, 0.115453, 0.116938},
    {DIL_TYPE_NVFP4, 0.0853652, 0.0593004},
    {DIL_TYPE_Q1_0, 0.599406, 0.518363},
    {DIL_TYPE_Q2_0, 0.35016, 0.276747},
    {DIL_TYPE_IQ2_XXS, 0.332612, 0.198733},
    {DIL_TYPE_IQ2_XS, 0.290885, 0.16454},
    {DIL_TYPE_IQ2_S, 0.23898, 0.156906},
    {DIL_TYPE_IQ3_XXS, 0.17991, 0.086699},
    {DIL_TYPE_IQ3_S, 0.129107, 0.07213},
};

static void fill_gaussian(float *x, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++)
        x[i] = gaussian(&seed);
}

static double weighted_error(const float *x, const float *y, const float *w)
{
    double sum = 0.0;
    for (int i = 0; i < N; i++) {
        double difference = (double)x[i] - (double)y[i];
        sum += (w ? (double)w[i] : 1.0) * difference * difference;
    }
    return sum;
}

static float x[N], y[N], w[N];
static uint8_t blocks[LONGEST_ROW + GUARD + 1], other_blocks[LONGEST_ROW + GUARD + 1];

static void code(const format *f, const float *importance)
{
    f->encode(x, blocks, N, importance);
    f->decode(blocks, y, N);
}

static void fill_importance(uint64_t seed)
{
    for (int i = 0; i < N; i++)
        w[i] = expf(2.0f * gaussian(&seed));
}

static double weighted_rmse(const float *importance)
{
    double sum = 0.0;
    for (int i = 0; i < N; i++)
        sum += importance ? (double)importance[i] : 1.0;
    return sqrt(weighted_error(x, y, importance) / sum);
}

static void check_rmse(const char *name, const char *what, double rmse, double expected)
{
    if (rmse > 1.001 * expected || rmse < 0.9 * expected)
        fail_msg("%s, %s: rmse %.6f, measured before: %.6f", name, what, rmse, expected);
}

static void test_rmse(void **state)
{
    (void)state;
    fill_gaussian(x, N, 1);
    fill_importance(3);
    for (size_t i = 0; i < sizeof measured / sizeof *measured; i++) {
        const format *f = format_get(measured[i].type);
        code(f, NULL);
        check_rmse(f->name, "plain", weighted_rmse(NULL), measured[i].plain);
        code(f, w);
        check_rmse(f->name, "weighted", weighted_rmse(w), measured[i].weighted);
    }
}

/* The error in units of the data must not depend on their unit. */
static void test_scale_free(void **state)
{
    (void)state;
    fill_gaussian(x, N, 1);
    for (int k = 0; k < N; k++)
        x[k] *= 0.03125f;
    for (size_t i = 0; i < sizeof measured / sizeof *measured; i++) {
        const format *f = format_get(measured[i].type);
        code(f, NULL);
        double rmse = 32 * weighted_rmse(NULL);
        if (rmse > 1.02 * measured[i].plain)
            fail_msg("%s: rmse %.6f for small values", f->name, rmse);
    }
}

static void test_importance(void **state)
{
    (void)state;
    fill_gaussian(x, N, 2);
    fill_importance(4);
    for (int t = 0; t < DIL_TYPE_COUNT; t++) {
        const format *f = format_get((dil_type)t);
        if (!f || !f->encode || f->block_values == 1)
            continue;
        code(f, NULL);
        double plain = weighted_error(x, y, w);
        code(f, w);
        double weighted = weighted_error(x, y, w);
        if (!(weighted < 0.99 * plain))
            fail_msg("%s: weighted error %g with importance, %g without", f->name, weighted, plain);
    }
}

/*
 * Importance only in every second 16 values of the first half, none in the second half. It fits
 * where it counts, an outlier that does not count changes little, and the rest stays sane.
 */
static void test_sparse_importance(void **state)
{
    (void)state;
    fill_gaussian(x, N, 4);
    for (int i = 0; i < N; i++)
        w[i] = i < N / 2 && i / 16 % 2 == 0 && i % 16 ? 1.0f : 0.0f;
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < sizeof measured / sizeof *measured; i++) {
            const format *f = format_get(measured[i].type);
            if (f->block_values == 1)
                continue;
            code(f, w);
            if (weighted_rmse(w) > (round ? 1.1 : 1.03) * measured[i].plain)
                fail_msg("%s: rmse %g where it counts", f->name, weighted_rmse(w));
            if (round == 0 && weighted_rmse(NULL) > 1.5 * measured[i].plain + 0.15)
                fail_msg("%s: rmse %g everywhere", f->name, weighted_rmse(NULL));
        }
        for (int i = 0; i < N / 2; i += 16)
            x[i] *= 4.0f;
    }
}

static void test_zeros_and_constants(void **state)
{
    (void)state;
    for (int t = 0; t < DIL_TYPE_COUNT; t++) {
        const format *f = format_get((dil_type)t);
        if (!f || !f->encode)
            continue;
        memset(x, 0, sizeof x);
        code(f, NULL);
        for (int i = 0; i < N; i++)
            assert_true(y[i] == 0.0f);
        for (int i = 0; i < N; i++)
            x[i] = i / 512 % 2 ? -0.75f : 0.75f;
        code(f, NULL);
        for (int i = 0; i < N; i++) {
            if (fabsf(y[i] - x[i]) > 0.02f * fabsf(x[i]))
                fail_msg("%s: %g became %g", f->name, (double)x[i], (double)y[i]);
        }
    }
}

static void test_ternary_is_exact(void **state)
{
    (void)state;
    static const dil_type types[] = {DIL_TYPE_TQ1_0, DIL_TYPE_TQ2_0, DIL_TYPE_Q2_0};
    uint64_t seed = 5;
    for (int i = 0; i < N; i++)
        x[i] = 0.375f * (float)((int)(uniform(&seed) * 3.0) - 1);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        code(format_get(types[i]), NULL);
        for (int k = 0; k < N; k++)
            assert_true(x[k] == y[k]);
    }
}

/* Codecs write their row and nothing else, need no alignment, and treat blocks one by one. */
static void test_extents(void **state)
{
    (void)state;
    fill_gaussian(x, N, 6);
    for (int t = 0; t < DIL_TYPE_COUNT; t++) {
        const format *f = format_get((dil_type)t);
        uint64_t row, block = 0;
        if (!f || !f->encode)
            continue;
        assert_true(format_row_bytes((dil_type)t, N, &row));
        assert_true(row <= LONGEST_ROW);
        memset(blocks, 0xa5, sizeof blocks);
        f->encode(x, blocks + 1, N, NULL);
        assert_int_equal(blocks[0], 0xa5);
        for (uint64_t i = row + 1; i < sizeof blocks; i++)
            assert_int_equal(blocks[i], 0xa5);
        for (size_t i = 0; i < N; i += f->block_values, block += f->block_bytes)
            f->encode(x + i, other_blocks + block, f->block_values, NULL);
        assert_int_equal(block, row);
        assert_memory_equal(blocks + 1, other_blocks, row);
        f->decode(blocks + 1, y, N);
        y[N - f->block_values] = 123.0f;
        f->decode(other_blocks, w, N - f->block_values);
        assert_memory_equal(y, w, (N - f->block_values) * sizeof *y);
        f->decode(other_blocks, y, N - f->block_values);
        assert_true(y[N - f->block_values] == 123.0f);
    }
}

/* Every decoder reads blocks of any bytes, one by one as in a row. */
static void test_decode_any_bytes(void **state)
{
    (void)state;
    uint64_t seed = 8;
    for (size_t i = 0; i < sizeof blocks; i++)
        blocks[i] = (uint8_t)(uniform(&seed) * 256.0);
    int n_decoders = 0;
    for (int t = 0; t < DIL_TYPE_COUNT; t++) {
        const format *f = format_get((dil_type)t);
        if (!f || !f->decode)
            continue;
        n_decoders++;
        f->decode(blocks + 1, y, N);
        for (size_t i = 0, block = 1; i < N; i += f->block_values, block += f->block_bytes)
            f->decode(blocks + block, w + i, f->block_values);
        assert_memory_equal(y, w, sizeof y);
    }
    assert_int_equal(n_decoders, 30);
}

static void test_code_books(void **state)
{
    (void)state;
    for (int i = 0; i < 128; i++) {
        assert_int_equal(iq_signs[i] & 127, i);
        assert_int_equal(__builtin_popcount(iq_signs[i]) % 2, 0);
        for (int k = 0; k < 8; k++)
            assert_int_equal(iq_sign_masks[i] >> (8 * k) & 255, iq_signs[i] >> k & 1 ? 255 : 0);
    }
    for (int i = 1; i < 16; i++)
        assert_true(iq4_values[i - 1] < iq4_values[i]);
    for (int i = 0; i < 2048; i++) {
        for (int k = 0; k < 8; k++)
            assert_in_range((int8_t)(iq1_grid[i] >> (8 * k) & 255) + 1, 0, 2);
    }
    assert_int_equal((uintptr_t)iq2_s_grid % 64, 0);
    assert_int_equal((uintptr_t)iq4_values % 64, 0);
}

/* Values of random codes with these scales. */
static void decode_scaled(dil_type type, const uint8_t *codes, float d, float m, float *out)
{
    const format *f = format_get(type);
    uint8_t block[300];
    const uint16_t scales[FORMAT_MOST_SCALES] = {f32_to_f16(d), f32_to_f16(m)};
    int at[FORMAT_MOST_SCALES], n = format_scales(type, at);
    memcpy(block, codes, f->block_bytes);
    for (int i = 0; i < n; i++)
        memcpy(block + at[i], &scales[i], sizeof scales[i]);
    f->decode(block, out, f->block_values);
}

/* Values are d * something + m * something, and nothing else of a block is a scale. */
static void test_scales(void **state)
{
    uint64_t random = 11;
    (void)state;
    for (int type = 0; type < DIL_TYPE_COUNT; type++) {
        const format *f = format_get((dil_type)type);
        int at[FORMAT_MOST_SCALES], n = format_scales((dil_type)type, at);
        if (!f || !f->decode || !f->is_quantized || n == 0) {
            assert_true(n == 0);
            assert_true(!f || !f->decode || !f->is_quantized || type == DIL_TYPE_MXFP4 || type == DIL_TYPE_NVFP4 ||
                        type == DIL_TYPE_IQ1_M);
            continue;
        }
        uint8_t codes[300];
        float one[256], two[256], both[256], none[256], d[256], m[256];
        for (size_t i = 0; i < sizeof codes; i++)
            codes[i] = (uint8_t)(256 * uniform(&random));
        decode_scaled((dil_type)type, codes, 1.0f, 0.0f, one);
        decode_scaled((dil_type)type, codes, 2.0f, 0.0f, two);
        decode_scaled((dil_type)type, codes, 0.5f, 0.75f, both);
        decode_scaled((dil_type)type, codes, 0.5f, 0.0f, d);
        decode_scaled((dil_type)type, codes, 0.0f, 0.75f, m);
        decode_scaled((dil_type)type, codes, 0.0f, 0.0f, none);
        double square = 0, of_m = 0;
        for (uint32_t i = 0; i < f->block_values; i++) {
            assert_true(none[i] == 0.0f);
            assert_true(two[i] == 2.0f * one[i]);
            assert_float_equal(both[i], d[i] + m[i], 1e-4f * (fabsf(d[i]) + fabsf(m[i])));
            square += (double)one[i] * (double)one[i];
            of_m += fabs((double)m[i]);
        }
        assert_true(square > 0);
        assert_int_equal(of_m > 0, n > 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f16_decode),
        cmocka_unit_test(test_f16_encode),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_small_scales),
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_get),
        cmocka_unit_test(test_row_bytes),
        cmocka_unit_test(test_rmse),
        cmocka_unit_test(test_scale_free),
        cmocka_unit_test(test_importance),
        cmocka_unit_test(test_sparse_importance),
        cmocka_unit_test(test_zeros_and_constants),
        cmocka_unit_test(test_ternary_is_exact),
        cmocka_unit_test(test_extents),
        cmocka_unit_test(test_decode_any_bytes),
        cmocka_unit_test(test_scales),
        cmocka_unit_test(test_code_books),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
