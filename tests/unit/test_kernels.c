/* Level choice, panel sizes and packing, against the formats. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cpu.h"
#include "kernels/packed.h"
#include "kernels/unpack.h"

static uint64_t random_state = 1;

static uint32_t random_u32(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33);
}

static void random_bytes(uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)random_u32();
}

static int is_nan(float f) { return f != f; }

/* Bit-equal, or both NaN. */
static int same(float a, float b) { return memcmp(&a, &b, sizeof a) == 0 || (is_nan(a) && is_nan(b)); }

static void rows_of_a_panel_decode_like_the_format(void **state)
{
    (void)state;
    for (int type = 0; type < DIL_TYPE_COUNT; type++) {
        const format *f = format_get((dil_type)type);
        if (!f || !f->decode)
            continue;
        for (int n_rows = 1; n_rows <= PANEL_ROWS; n_rows += 5) {
            int64_t k = f->is_quantized ? 3 * (int64_t)f->block_values : 37;
            uint64_t row_bytes;
            assert_true(format_row_bytes((dil_type)type, (uint64_t)k, &row_bytes));
            size_t bytes = panel_bytes((dil_type)type, k);
            assert_true(bytes > 0);
            uint8_t *rows = malloc(row_bytes * (size_t)n_rows), *panel = malloc(bytes);
            float *want = malloc((size_t)k * 4), *got = malloc((size_t)k * 4);
            random_bytes(rows, row_bytes * (size_t)n_rows);
            panel_pack((dil_type)type, rows, row_bytes, n_rows, k, panel);
            for (int row = 0; row < n_rows; row++) {
                f->decode(rows + row_bytes * (size_t)row, want, (size_t)k);
                panel_decode_row((dil_type)type, panel, row, k, got);
                for (int64_t c = 0; c < k; c++)
                    if (!same(want[c], got[c]))
                        fail_msg("%s row %d column %d: format %g, panel %g", f->name, row, (int)c, (double)want[c], (double)got[c]);
            }
            for (int row = n_rows; row < PANEL_ROWS; row++) {
                panel_decode_row((dil_type)type, panel, row, k, got);
                for (int64_t c = 0; c < k; c++)
                    assert_true(got[c] == 0.0f);
            }
            free(rows);
            free(panel);
            free(want);
            free(got);
        }
    }
}

/* The reading used by linear layers gives the format's values. */
static void unpacked_blocks_are_the_formats_values(void **state)
{
    (void)state;
    for (int type = 0; type < DIL_TYPE_COUNT; type++) {
        const packed_type *t = packed_type_get((dil_type)type);
        if (!t)
            continue;
        const format *f = format_get((dil_type)type);
        size_t n = t->columns, row_bytes = n / f->block_values * f->block_bytes;
        uint8_t *rows = malloc(row_bytes * PANEL_ROWS), *panel = malloc(t->group_bytes);
        float *want = malloc(n * 4);
        for (int round = 0; round < 20; round++) {
            random_bytes(rows, row_bytes * PANEL_ROWS);
            panel_pack((dil_type)type, rows, row_bytes, PANEL_ROWS, (int64_t)n, panel);
            for (int row = 0; row < PANEL_ROWS; row++) {
                f->decode(rows + row_bytes * (size_t)row, want, n);
                for (size_t c = 0; c < n; c++) {
                    unpacked block;
                    t->unpack(panel, (int)(c / 32), &block);
                    const size_t half = c % 32 / 16;
                    float got =
                        block.ws[t->sub == 16 ? half : 0][row] * (float)(block.u[c % 32 / 4][4 * row + (int)(c % 4)] - t->off);
                    if (t->n_minima)
                        got += block.nm[t->n_minima == 2 ? half : 0][row];
                    if (!same(got, want[c]))
                        fail_msg("%s row %d column %zu: format %g, unpacked %g", f->name, row, c, (double)want[c], (double)got);
                }
            }
        }
        free(rows);
        free(panel);
        free(want);
    }
}

static void panels_stay_within_their_size(void **state)
{
    (void)state;
    for (int type = 0; type < DIL_TYPE_COUNT; type++) {
        const format *f = format_get((dil_type)type);
        if (!f || !f->decode || type == DIL_TYPE_TQ1_0) /* TQ1_0 grows to 2 bits per weight */
            continue;
        int64_t k = 1024;
        uint64_t row_bytes;
        assert_true(format_row_bytes((dil_type)type, (uint64_t)k, &row_bytes));
        assert_true((double)panel_bytes((dil_type)type, k) <= 1.07 * 16.0 * (double)row_bytes);
    }
    assert_int_equal(panel_bytes(DIL_TYPE_Q4_K, 255), 0);
    assert_int_equal(panel_bytes(DIL_TYPE_Q4_0, 16), 0);
    assert_int_equal(panel_bytes(DIL_TYPE_F32, 0), 0);
    assert_int_equal(panel_bytes(DIL_TYPE_F32, -1), 0);
    assert_int_equal(panel_bytes(DIL_TYPE_I32, 32), 0);
    assert_int_equal(panel_bytes((dil_type)1000, 32), 0);
    assert_int_equal(panel_bytes(DIL_TYPE_BF16, 3), 2 * 64);
}

static void levels_are_chosen_by_name(void **state)
{
    (void)state;
    kernels k;
    dil_error err;
    assert_int_equal(kernels_select(&k, "scalar", &err), DIL_OK);
    assert_string_equal(k.name, "scalar");
    for (int type = 0; type < DIL_TYPE_COUNT; type++) {
        const format *f = format_get((dil_type)type);
        bool wanted = f && f->decode;
        assert_int_equal(k.linear[type].gemv != NULL, wanted);
        assert_int_equal(k.linear[type].gemm != NULL, wanted);
    }
    assert_int_equal(kernels_select(&k, "auto", &err), DIL_OK);
    if (cpu_features() & CPU_AVX2) {
        assert_string_not_equal(k.name, "scalar");
        assert_int_equal(kernels_select(&k, "AVX2", &err), DIL_OK);
        assert_string_equal(k.name, "avx2");
    }
    const char *before = k.name;
    assert_int_equal(kernels_select(&k, "sse9", &err), DIL_BAD_ARGUMENT);
    assert_non_null(strstr(err.text, "sse9"));
    assert_non_null(strstr(err.text, "scalar"));
    assert_ptr_equal(k.name, before);
}

static void kv_pages_have_sizes(void **state)
{
    (void)state;
    assert_int_equal(kv_page_bytes(DIL_TYPE_F32, 64), 64 * 64 * 4);
    assert_int_equal(kv_page_bytes(DIL_TYPE_F16, 80), 64 * 80 * 2);
    assert_int_equal(kv_page_bytes(DIL_TYPE_Q8_0, 80), 64 * 80 + 3 * 64 * 2);
    assert_int_equal(kv_page_bytes(DIL_TYPE_Q4_0, 64), 64 * 32 + 2 * 64 * 2);
    assert_int_equal(kv_page_bytes(DIL_TYPE_Q4_0, 27), 64 * 14 + 64 * 2);
    assert_int_equal(kv_page_bytes(DIL_TYPE_Q4_1, 64), 0);
    assert_int_equal(kv_page_bytes(DIL_TYPE_F16, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_a_panel_decode_like_the_format),
        cmocka_unit_test(unpacked_blocks_are_the_formats_values),
        cmocka_unit_test(panels_stay_within_their_size),
        cmocka_unit_test(levels_are_chosen_by_name),
        cmocka_unit_test(kv_pages_have_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
