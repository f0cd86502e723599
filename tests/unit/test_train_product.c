/* Products of the trainer against sums in double: sizes around tiles, panels, and the stretches that stay in L1. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "leaks.h"
#include "theorem/random.h"
#include "train/layers.h"

enum { MOST = 300, MOST_TOKENS = 600 };

static kernels k;
static float a[MOST_TOKENS * MOST], b[MOST_TOKENS * MOST], y[MOST * MOST], before[MOST * MOST];
static uint32_t packed[MOST_TOKENS * MOST], prepared[(MOST + PRODUCT_COLS) * (MOST + PRODUCT_COLS)], spare[PRODUCT_COLS * MOST],
    outer[PANEL_STEPS * (OUTER_ROWS + MOST + PRODUCT_COLS)];

/* Few bits, so that bf16 rounds nothing. */
static void fill(float *x, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)((int)(random_next(&seed) % 65) - 32) / 16.0f;
}

static void expect(const char *what, bool bf16, int i, int j, float got, double want)
{
    if (!(fabs((double)got - want) <= 1e-4 * (1.0 + fabs(want))))
        fail_msg("%s, %s: [%d][%d] is %g, wanted %g", what, bf16 ? "bf16" : "f32", i, j, (double)got, want);
}

/* y (+)= x W^T and x M, rows of x by index or as they are. */
static void check_block(bool bf16, int n_rows, int n_sum, int n_columns, bool transposed, bool add)
{
    product_kind kind = {&k, bf16};
    int32_t index[MOST];
    fill(a, (size_t)MOST * (size_t)n_sum, 1);
    fill(b, (size_t)n_sum * (size_t)n_columns, 2);
    fill(y, (size_t)n_rows * (size_t)n_columns, 3);
    memcpy(before, y, sizeof before);
    for (int i = 0; i < n_rows; i++)
        index[i] = (i * 7 + 3) % n_rows;
    rows x = {a, (size_t)n_sum, add ? index : NULL};
    if (transposed)
        prepare_transposed(kind, (rows){b, (size_t)n_sum, NULL}, n_columns, n_sum, prepared, spare);
    else
        prepare_rows(kind, (rows){b, (size_t)n_columns, NULL}, n_sum, n_columns, n_sum, prepared);
    pack_rows(kind, x, n_rows, n_sum, packed);
    product_run(kind, &(product_block){packed, (size_t)product_steps(kind, n_sum), n_rows, prepared, n_sum, n_sum, n_columns, y,
                                       (size_t)n_columns, add});
    for (int i = 0; i < n_rows; i++)
        for (int j = 0; j < n_columns; j++) {
            double want = add ? (double)before[i * n_columns + j] : 0.0;
            for (int s = 0; s < n_sum; s++)
                want += (double)row_at(x, i)[s] * (double)b[transposed ? j * n_sum + s : s * n_columns + j];
            expect(transposed ? "x W^T" : "x M", bf16, i, j, y[i * n_columns + j], want);
        }
}

/* c += y^T x over tokens, columns of y from `first` on. */
static void check_outer(bool bf16, int n_tokens, int first, int n_rows, int n_columns)
{
    product_kind kind = {&k, bf16};
    int width = first + n_rows;
    fill(a, (size_t)n_tokens * (size_t)width, 4);
    fill(b, (size_t)n_tokens * (size_t)n_columns, 5);
    fill(y, (size_t)n_rows * (size_t)n_columns, 6);
    memcpy(before, y, sizeof before);
    outer_run(kind,
              &(outer_block){
                  {a, (size_t)width, NULL}, {b, (size_t)n_columns, NULL}, first, n_tokens, n_rows, n_columns, y, (size_t)n_columns},
              outer);
    for (int i = 0; i < n_rows; i++)
        for (int j = 0; j < n_columns; j++) {
            double want = (double)before[i * n_columns + j];
            for (int t = 0; t < n_tokens; t++)
                want += (double)a[t * width + first + i] * (double)b[t * n_columns + j];
            expect("dW", bf16, i, j, y[i * n_columns + j], want);
        }
}

static void products(void **state)
{
    (void)state;
    static const char *const levels[] = {"scalar", "avx2", "avx512", "avx512_bf16"};
    static const int sums[] = {1, 2, 31, 128, 129, 257, 300}, columns[] = {1, 31, 32, 70}, tokens[] = {1, 3, 128, 257, 600};
    dil_error err;
    for (int l = 0; l < 4; l++) {
        if (kernels_select(&k, levels[l], &err) != DIL_OK)
            continue;
        for (int bf16 = 0; bf16 <= (k.training.product_bf16 != NULL); bf16++) {
            for (int i = 0; i < 7; i++)
                for (int form = 0; form < 4; form++)
                    check_block(bf16, 3 + 8 * (i % 3), sums[i], columns[i % 4], form & 1, form & 2);
            for (int i = 0; i < 5; i++)
                check_outer(bf16, tokens[i], i % 3 * 5, 1 + 33 * i, columns[i % 4]);
        }
    }
}

/* A matrix prepared some rows at a time has the forms of one that is prepared at once. */
static void parts_are_prepared_as_the_whole(void **state)
{
    enum { OUT = 77, IN = 45, PART = 2 * PRODUCT_COLS };
    static uint32_t forms[4][(OUT + PRODUCT_COLS) * (IN + PRODUCT_COLS)];
    dil_error err;
    team *workers = NULL;
    (void)state;
    assert_int_equal(team_new(&workers, 1, &err), DIL_OK);
    fill(a, OUT * IN, 9);
    for (int bf16 = 0; bf16 <= (k.training.product_bf16 != NULL); bf16++) {
        weight whole = {.w = a, .n = 1, .n_out = OUT, .n_in = IN, .kind = {&k, bf16}, .forward = forms[0], .backward = forms[1]};
        weight parts = whole;
        const weight *list = &whole;
        crew c = {.workers = workers, .kind = whole.kind, .scratch = spare, .scratch_words = sizeof spare / sizeof *spare};
        parts.forward = forms[2];
        parts.backward = forms[3];
        memset(forms, 0, sizeof forms);
        weight_prepare(&c, &list, 1);
        for (int first = 0; first < OUT; first += PART)
            weight_prepare_rows(&c, &parts, first, OUT - first < PART ? OUT - first : PART, 0);
        assert_memory_equal(forms[0], forms[2], weight_forward_words(&whole) * sizeof **forms);
        assert_memory_equal(forms[1], forms[3], weight_backward_words(&whole) * sizeof **forms);
        assert_true(forms[0][0] != 0 && forms[1][0] != 0);
    }
    team_free(workers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(products), cmocka_unit_test(parts_are_prepared_as_the_whole)};
    return leaks_run_group_tests(tests, NULL, NULL);
}
