/* Kernel traces: what they touch adds up to the operands, level by level. Tiles: where the bytes of a multiply-add come from. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "cache_counts.h"
#include "leaks.h"
#include "tune/kernel_trace.h"
#include "tune/tile.h"

/* ---- kernel traces ---- */

/* A table of this level; the CPU need not have it, nothing is computed. */
static kernels level(const char *name)
{
    kernels k;
    dil_error err;
    assert_int_equal(kernels_select(&k, "scalar", &err), DIL_OK);
    k.name = name;
    k.bf16_dot = k.attn_bf16 = strcmp(name, "avx512_bf16") == 0;
    return k;
}

static void *at(uint64_t address) { return (void *)(uintptr_t)address; }

enum { COLS = 1024, TOKENS = 250, PANELS = 6 };
#define GIB ((uint64_t)1 << 30)
#define STACK (2048 / LINE)

/* Operands at addresses of their own; every row begins on a line. */
static linear_args operands(act *x, dil_type type, int n_tokens)
{
    const size_t blocks = COLS / ACT_BLOCK;
    *x = (act){.f = at(GIB), .q = at(2 * GIB), .d = at(3 * GIB), .s = at(4 * GIB), .isum = at(5 * GIB), .s16 = at(6 * GIB)};
    x->isum16 = at(7 * GIB);
    x->bf16 = at(8 * GIB);
    x->f_stride = x->q_stride = COLS;
    x->b_stride = blocks;
    x->bf16_stride = COLS + 32;
    return (linear_args){.panels = at(9 * GIB),
                         .panel_bytes = panel_bytes(type, COLS),
                         .n_panels = PANELS,
                         .k = COLS,
                         .x = x,
                         .n_tokens = n_tokens,
                         .y = at(10 * GIB),
                         .y_stride = PANELS * PANEL_ROWS,
                         .scratch = at(11 * GIB)};
}

typedef struct expected {
    const char *level;
    dil_type type;
    int n_tokens;
    uint64_t cold, touched; /* lines */
} expected;

/* Lines of one token's activations: quantized ones with one array of sums, of 16 or 32 columns, or none. */
enum { Q = COLS / LINE, D = COLS / 32 * 4 / LINE, F = COLS * 4 / LINE, H = COLS * 2 / LINE };

static void check_trace(const expected *e)
{
    const kernels k = level(e->level);
    act x;
    linear_args a = operands(&x, e->type, e->n_tokens);
    cache_model *c = new_model(LINE);
    kernel_trace_linear(c, &k, e->type, &a);
    must_hold(c);
    if (cache_model_cold(c) != e->cold || cache_model_touched(c) != e->touched)
        fail_msg("%s, type %d, %d tokens: %llu lines, %llu touched; wanted %llu, %llu", e->level, (int)e->type, e->n_tokens,
                 (unsigned long long)cache_model_cold(c), (unsigned long long)cache_model_touched(c), (unsigned long long)e->cold,
                 (unsigned long long)e->touched);
    cache_model_free(c);
}

static uint64_t panel_lines(dil_type type) { return panel_bytes(type, COLS) / LINE; }

/* Weights once per block of tokens, activations once per panel or group of panels, outputs once per part of the columns. */
static void test_linear_traces(void **state)
{
    (void)state;
    const uint64_t q4 = panel_lines(DIL_TYPE_Q4_K), q8 = panel_lines(DIL_TYPE_Q8_0), q6 = panel_lines(DIL_TYPE_Q6_K),
                   f16 = panel_lines(DIL_TYPE_F16), f32 = panel_lines(DIL_TYPE_F32), p = PANELS, n = TOKENS;
    const uint64_t record32 = COLS / 32 * (512 + 128) / LINE, record16 = COLS / 32 * (512 + 128) / LINE, tiles4 = 63, tiles6 = 42;
    const expected list[] = {
        {"avx2", DIL_TYPE_Q4_K, 1, p * q4 + Q + 2 * D + p + STACK, p * (q4 + Q + 2 * D + 1 + 8 * STACK)},
        {"avx2", DIL_TYPE_Q8_0, 4, p * q8 + 4 * (Q + D) + 4 * p + STACK, p * (q8 + 4 * (Q + D) + 4 + 8 * STACK)},
        {"avx2", DIL_TYPE_Q4_K, n, p * q4 + record32 + n * (Q + 2 * D) + n * p + STACK,
         p * (q4 + record32 + tiles4 * (record32 + 8 * STACK) + n * (Q + 2 * D + 1))},
        {"avx2", DIL_TYPE_Q6_K, n, p * q6 + record16 + n * (Q + D + 2 * D) + n * p + STACK,
         p * (q6 + record16 + tiles4 * (record16 + 8 * STACK) + n * (Q + 3 * D + 1))},
        {"avx2", DIL_TYPE_F16, n, p * f16 + 256 * 16 * 4 / LINE + n * F + n * p,
         p * (f16 + (1 + tiles6) * COLS * 64 / LINE + n * F + 7 * n)},
        {"avx2", DIL_TYPE_F32, 2, p * f32 + 2 * F + 2 * p, p * (f32 + 2) + p / 2 * 2 * F},
        {"scalar", DIL_TYPE_Q4_K, n, p * q4 + n * (Q + 2 * D) + n * p, p * (32 * q4 + n * (Q + 2 * D + 1))},
        {"scalar", DIL_TYPE_F32, 1, p * f32 + F + p, p * (f32 + F + 1)},
        {"avx512", DIL_TYPE_Q4_K, n, p * (q4 + record32) + n * (Q + 2 * D) + n * p + STACK,
         p * (q4 + record32) + tiles6 * (p * record32 + 3 * 8 * STACK) + 3 * n * (Q + 2 * D) + n * p},
        {"avx512", DIL_TYPE_Q4_K, 20, p * q4 + 20 * (Q + 2 * D) + 20 * p + STACK,
         p * (3 * (q4 + 8 * STACK) + 20 * (Q + 2 * D + 1))},
        {"avx512", DIL_TYPE_F16, n, p * f16 + 256 * 4 * 16 * 4 / LINE + n * F + n * p,
         p * f16 + (1 + tiles6) * p * COLS * 64 / LINE + 2 * n * F + 7 * n * p},
        {"avx512_bf16", DIL_TYPE_BF16, 1, p * f16 + H + p, p * (f16 + 1) + 2 * H},
        {"avx512_bf16", DIL_TYPE_F16, n, p * f16 + 256 * 4 * 16 * 2 / LINE + n * H + n * p,
         p * f16 + (1 + tiles6) * p * COLS * 32 / LINE + 2 * n * H + 7 * n * p},
        {"avx512_bf16", DIL_TYPE_F32, n, p * f32 + n * F + n * p, tiles6 * p * f32 + 2 * n * F + 7 * n * p},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        check_trace(&list[i]);
}

/* 7 tokens below gemm_from: 4 and 3, each with all panels. */
static void test_few_tokens(void **state)
{
    (void)state;
    kernels k = level("avx2");
    k.gemm_from[DIL_TYPE_Q4_K] = 8;
    act x;
    linear_args a = operands(&x, DIL_TYPE_Q4_K, 7);
    cache_model *c = new_model(LINE);
    kernel_trace_linear(c, &k, DIL_TYPE_Q4_K, &a);
    const uint64_t q4 = panel_lines(DIL_TYPE_Q4_K);
    assert_int_equal(cache_model_touched(c), PANELS * (2 * (q4 + 8 * STACK) + 7 * (Q + 2 * D + 1)));
    assert_int_equal(cache_model_cold(c), PANELS * q4 + 7 * (Q + 2 * D) + 7 * PANELS + STACK);
    assert_true(whole(c, 2 * PANELS * q4) <
                (double)(PANELS * (q4 + 8) + 7 * (Q + 2 * D) + STACK)); /* the second time from the cache */
    assert_true(whole(c, PANELS * q4 / 2) > (double)(2 * PANELS * q4));
    cache_model_free(c);
}

/* Code books stay; panels pass by. */
static void test_code_books(void **state)
{
    (void)state;
    static const char *const names[] = {"scalar", "avx2", "avx512"};
    for (size_t i = 0; i < 3; i++) {
        const kernels k = level(names[i]);
        act x;
        linear_args a = operands(&x, DIL_TYPE_IQ1_S, 1);
        cache_model *c = new_model(LINE);
        kernel_trace_linear(c, &k, DIL_TYPE_IQ1_S, &a);
        const uint64_t book = i == 2 ? 2 * 2048 / LINE : 8 * 2048 / LINE, sums = i == 0 ? 0 : D, stack = i == 0 ? 0 : STACK;
        assert_int_equal(cache_model_cold(c), PANELS * panel_lines(DIL_TYPE_IQ1_S) + Q + D + sums + PANELS + book + stack);
        const uint64_t looked_up = COLS / ACT_BLOCK * 4096 / LINE; /* per panel */
        assert_int_equal(cache_model_touched(c), PANELS * (panel_lines(DIL_TYPE_IQ1_S) + Q + D + sums + 1 + looked_up + 8 * stack));
        cache_model_free(c);
    }
}

static void trace_attention(cache_model *c, const char *name, dil_type type, int n_rows, const int32_t *n_seen)
{
    const kernels k = level(name);
    const size_t page = kv_page_bytes(type, 128);
    const void *keys[ATTN_CHUNK], *values[ATTN_CHUNK];
    for (size_t i = 0; i < ATTN_CHUNK; i++) {
        keys[i] = at(GIB + i * page);
        values[i] = at(2 * GIB + i * page);
    }
    const trace_chunk a = {.type_k = type,
                           .type_v = type,
                           .head_dim_k = 128,
                           .head_dim_v = 128,
                           .n_pages = ATTN_CHUNK,
                           .k_pages = keys,
                           .v_pages = values,
                           .n_rows = n_rows,
                           .n_seen = n_seen,
                           .queries = at(3 * GIB),
                           .query_stride = attn_row_bytes(128),
                           .scores = at(4 * GIB),
                           .acc = at(5 * GIB),
                           .score_stride = ATTN_SLOTS,
                           .acc_stride = 128,
                           .scratch = at(6 * GIB)};
    kernel_trace_attention(c, &k, &a);
    must_hold(c);
}

/* Lines of head 128: a row of queries or sums, of a page as f32, a row's scores of a page. */
enum { ROW = 8, FLOATS = 512, SCORES = 4, PAGES = ATTN_CHUNK };

static void test_attention_traces(void **state)
{
    (void)state;
    const struct {
        const char *level;
        dil_type type;
        int n_rows;
        uint64_t cold, touched;
    } list[] = {
        /* K and V through scratch: tiles of 6 and of 3 rows, the others one by one */
        {"avx2", DIL_TYPE_F16, 8, PAGES * 512 + 512 + 8 * (2 * ROW + PAGES * SCORES),
         PAGES * (512 + 2 * FLOATS + (3 + 4) * FLOATS + 8 * 2 * (ROW + SCORES)) + 8 * 2 * PAGES * SCORES},
        {"avx2", DIL_TYPE_F32, 1, PAGES * 1024 + 2 * ROW + PAGES * SCORES,
         PAGES * (1024 + 2 * (ROW + SCORES)) + 2 * PAGES * SCORES},
        {"avx2", DIL_TYPE_Q8_0, 1, PAGES * 2 * (128 + 8) + 512 + 2 * ROW + PAGES * SCORES,
         PAGES * (2 * (128 + 8) + 4 * FLOATS + 2 * (ROW + SCORES)) + 2 * PAGES * SCORES},
        /* tiles of 6 rows; few read K as it lies, and V too where it is multiplied in bf16 */
        {"avx512", DIL_TYPE_F16, 6, PAGES * 512 + 512 + 6 * (2 * ROW + PAGES * SCORES),
         PAGES * (512 + 2 * FLOATS + 6 * 2 * (ROW + SCORES)) + 6 * 2 * PAGES * SCORES},
        {"avx512_bf16", DIL_TYPE_F16, 6, PAGES * 512 + 6 * (2 * ROW + PAGES * SCORES),
         PAGES * (512 + 6 * (2 * ROW + SCORES + SCORES / 2)) + 6 * 2 * PAGES * SCORES},
        {"avx512_bf16", DIL_TYPE_F16, 12, PAGES * 512 + 512 + 12 * (2 * ROW + PAGES * SCORES),
         PAGES * (512 + 3 * FLOATS + 3 * FLOATS / 2 + 12 * (2 * ROW + SCORES + SCORES / 2)) + 12 * 2 * PAGES * SCORES},
        {"scalar", DIL_TYPE_F32, 2, PAGES * 1024 + 512 + 2 * (2 * ROW + PAGES * SCORES),
         PAGES * (1024 + 2 * FLOATS + 4 * FLOATS + 2 * 2 * (ROW + SCORES)) + 2 * 2 * PAGES * SCORES},
    };
    int32_t n_seen[12];
    for (int i = 0; i < 12; i++)
        n_seen[i] = ATTN_SLOTS;
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        cache_model *c = new_model(LINE);
        trace_attention(c, list[i].level, list[i].type, list[i].n_rows, n_seen);
        if (cache_model_cold(c) != list[i].cold || cache_model_touched(c) != list[i].touched)
            fail_msg("%s, type %d, %d rows: %llu lines, %llu touched; wanted %llu, %llu", list[i].level, (int)list[i].type,
                     list[i].n_rows, (unsigned long long)cache_model_cold(c), (unsigned long long)cache_model_touched(c),
                     (unsigned long long)list[i].cold, (unsigned long long)list[i].touched);
        cache_model_free(c);
    }
}

/* Rows that see 16 and 80 tokens: one page whole, of the next a quarter; the others are not read. */
static void test_attention_sees_less(void **state)
{
    (void)state;
    const int32_t n_seen[] = {16, 80};
    cache_model *c = new_model(LINE);
    trace_attention(c, "avx2", DIL_TYPE_F16, 2, n_seen);
    /* of K's second page 128 rows of 32 bytes; of V's 16 rows of 256 bytes; scratch as for a whole page; scores 1 + 4 + 1 */
    assert_int_equal(cache_model_cold(c), 2 * 256 + 128 + 64 + 512 + 2 * 2 * ROW + 4 + 1 + 4 + 1);
    cache_model_free(c);
}

static void test_vector_traces(void **state)
{
    (void)state;
    cache_model *c = new_model(LINE);
    kernel_trace_rmsnorm(c, at(GIB), at(2 * GIB), COLS, at(3 * GIB));
    assert_int_equal(cache_model_cold(c), 3 * F);
    assert_int_equal(cache_model_touched(c), 4 * F);
    cache_model_restart(c);
    kernel_trace_rmsnorm(c, at(GIB), NULL, COLS, at(GIB)); /* without weights, in place */
    assert_int_equal(cache_model_cold(c), 0);
    assert_int_equal(cache_model_touched(c), 3 * F);
    cache_model_restart(c);
    quantize_args a = {.f = at(4 * GIB), .f_stride = COLS, .k = COLS, .n_rows = 3, .q = at(5 * GIB), .d = at(6 * GIB)};
    a.s = at(7 * GIB);
    a.isum = at(8 * GIB);
    a.q_stride = COLS;
    a.b_stride = COLS / ACT_BLOCK;
    kernel_trace_quantize(c, &a);
    assert_int_equal(cache_model_cold(c), 3 * (F + Q + 3 * D));
    a.s16 = at(9 * GIB);
    a.isum16 = at(10 * GIB);
    kernel_trace_quantize(c, &a);
    assert_int_equal(cache_model_cold(c), 3 * (F + Q + 7 * D));
    assert_int_equal(cache_model_touched(c), 3 * (2 * (F + Q) + 10 * D));
    cache_model_restart(c);
    kernel_trace_mul(c, at(11 * GIB), at(12 * GIB), at(11 * GIB), COLS);
    assert_int_equal(cache_model_cold(c), 2 * F);
    assert_int_equal(cache_model_touched(c), 3 * F);
    cache_model_free(c);
}

/* ---- tiles ---- */

static const cache_level desktop[3] = {{48 << 10, 12}, {2 << 20, 16}, {32 << 20, 0}};

static tile_bytes measured(const char *name, dil_type type, int64_t columns, int n_panels, int n_tokens)
{
    const kernels k = level(name);
    tile_bytes t = {-1.0, -1.0, -1.0};
    dil_error err;
    const tile_shape shape = {type, columns, n_panels, n_tokens};
    if (tile_measure(&t, &k, &shape, desktop, &err) != DIL_OK)
        fail_msg("%s", err.text);
    return t;
}

/* Small enough for L2: memory gives each panel and the outputs, once. */
static void test_tile_memory(void **state)
{
    (void)state;
    static const char *const names[] = {"scalar", "avx2", "avx512"};
    for (size_t i = 0; i < 3; i++)
        for (int n_tokens = 1; n_tokens <= 256; n_tokens *= 4) {
            const tile_bytes t = measured(names[i], DIL_TYPE_Q4_K, 2048, 2, n_tokens);
            const double macs = 2048.0 * 32 * n_tokens, bytes = 2.0 * (double)panel_bytes(DIL_TYPE_Q4_K, 2048) + 128.0 * n_tokens;
            assert_true(fabs(t.memory * macs / bytes - 1.0) < 0.01);
            assert_true(t.l3 * macs < 0.01 * bytes);
        }
}

/* 4096 tokens of 16 MB leave L2 from panel to panel, 256 do not; more panels at a time do not help AVX2, which takes them singly. */
static void test_tile_levels(void **state)
{
    (void)state;
    const tile_bytes some = measured("avx2", DIL_TYPE_Q4_K, 2048, 2, 256), many = measured("avx2", DIL_TYPE_Q4_K, 2048, 2, 4096);
    assert_true(many.memory < some.memory);
    assert_true(many.l3 > 20.0 * some.l3 + 0.01);
    const tile_bytes four = measured("avx512", DIL_TYPE_Q4_K, 4096, 4, 4096),
                     eight = measured("avx512", DIL_TYPE_Q4_K, 4096, 8, 4096);
    assert_true(eight.l3 < 0.7 * four.l3); /* the tokens pass once per 8 panels */
    const tile_bytes narrow = measured("avx2", DIL_TYPE_F32, 512, 2, 256), wide = measured("avx2", DIL_TYPE_F32, 1024, 2, 256);
    assert_true(wide.l2 > 2.0 * narrow.l2); /* a panel fits L1, or passes for every tile */
    const tile_bytes short_rows = measured("avx2", DIL_TYPE_Q4_K, 1024, 2, 256),
                     rows = measured("avx2", DIL_TYPE_Q4_K, 4096, 2, 256);
    assert_true(rows.l2 < 1.5 * short_rows.l2); /* an expanded one passes in parts that fit */
}

/* What tiles take coarse granules for, line by line. */
static void test_tile_is_near(void **state)
{
    (void)state;
    static const int64_t columns[] = {1024, 1792, 2048, 3072};
    for (size_t i = 0; i < 4; i++) {
        const kernels k = level("avx2");
        const tile_bytes t = measured("avx2", DIL_TYPE_Q4_K, columns[i], 2, 128);
        act x;
        linear_args a = operands(&x, DIL_TYPE_Q4_K, 128);
        x.q_stride = (size_t)columns[i];
        x.b_stride = (size_t)columns[i] / ACT_BLOCK;
        a.k = columns[i];
        a.n_panels = 2;
        a.panel_bytes = panel_bytes(DIL_TYPE_Q4_K, columns[i]);
        cache_model *c = new_model(LINE);
        for (int pass = 0; pass < 2; pass++) {
            cache_model_restart(c);
            kernel_trace_linear(c, &k, DIL_TYPE_Q4_K, &a);
            a.panels += 2 * a.panel_bytes;
            a.y += 2 * PANEL_ROWS;
        }
        const double macs = (double)columns[i] * 32 * 128, l1 = cache_model_misses(c, desktop[0]) * LINE / macs;
        if (fabs(t.l2 + t.l3 + t.memory - l1) > 0.15 * l1)
            fail_msg("%d columns: %.4f bytes per multiply-add miss L1, line by line %.4f", (int)columns[i], t.l2 + t.l3 + t.memory,
                     l1);
        cache_model_free(c);
    }
}

static void test_tile_failures(void **state)
{
    (void)state;
    const kernels k = level("avx2");
    tile_bytes t = {-1.0, -1.0, -1.0};
    dil_error err;
    const tile_shape bad[] = {{DIL_TYPE_Q4_K, 100, 1, 1}, {DIL_TYPE_Q4_K, 256, 0, 1}, {DIL_TYPE_Q4_K, 256, 1, 0}},
                     good = {DIL_TYPE_Q4_K, 256, 1, 64};
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(tile_measure(&t, &k, &bad[i], desktop, &err), DIL_BAD_ARGUMENT);
    dil_status status = DIL_NO_MEMORY;
    for (int64_t i = 0; status != DIL_OK; i++) {
        assert_true(t.memory == -1.0);
        mem_inject_failure(i);
        status = tile_measure(&t, &k, &good, desktop, &err);
        mem_inject_failure(-1);
        assert_true(status == DIL_OK || status == DIL_NO_MEMORY);
        assert_true(i < 100);
    }
    assert_true(t.memory > 0.0);
    /* no L2 and no L3: memory gives what L1 misses */
    const cache_level one[3] = {{48 << 10, 12}};
    assert_int_equal(tile_measure(&t, &k, &good, one, &err), DIL_OK);
    assert_true(t.l2 == 0.0 && t.l3 == 0.0 && t.memory > 0.0);
    /* a share of L2 smaller than L1 gives nothing */
    const cache_level small[3] = {{48 << 10, 12}, {16 << 10, 8}};
    assert_int_equal(tile_measure(&t, &k, &good, small, &err), DIL_OK);
    assert_true(t.l2 == 0.0 && t.memory > 0.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear_traces),    cmocka_unit_test(test_few_tokens),          cmocka_unit_test(test_code_books),
        cmocka_unit_test(test_attention_traces), cmocka_unit_test(test_attention_sees_less), cmocka_unit_test(test_vector_traces),
        cmocka_unit_test(test_tile_memory),      cmocka_unit_test(test_tile_levels),         cmocka_unit_test(test_tile_is_near),
        cmocka_unit_test(test_tile_failures),
    };
    return leaks_run_group_tests(tests, NULL, NULL);
}
