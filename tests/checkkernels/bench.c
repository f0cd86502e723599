/* Speed of the kernels on one core, at the call site the checks use: gemv in GB/s of packed weights, products in Gmac/s. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check.h"

enum { COLUMNS = 2048, PANELS = 8, PANELS_GEMV = 256, TOKENS = 128, BF16_STRIDE = COLUMNS + 32 };
static const double seconds_wanted = 0.03;
/* tokens per call; as the engine chooses, gemv or gemm */
static const int batches[] = {2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 24, 32, 48};

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Seconds of the fastest of several calls. */
static double fastest(linear_fn fn, const linear_args *a)
{
    double best = 1e30, end = seconds() + seconds_wanted;
    do {
        double start = seconds();
        fn(a);
        double took = seconds() - start;
        best = took < best ? took : best;
    } while (seconds() < end);
    return best;
}

static void bench_type(const kernels *k, dil_type type)
{
    uint64_t row_bytes;
    if (!format_row_bytes(type, COLUMNS, &row_bytes))
        return;
    size_t panel = panel_bytes(type, COLUMNS), blocks = COLUMNS / ACT_BLOCK;
    uint8_t *rows = malloc(row_bytes * PANEL_ROWS), *panels = aligned_alloc(64, (panel * PANELS_GEMV + 63) / 64 * 64);
    uint8_t *scratch = aligned_alloc(64, (linear_scratch_bytes(COLUMNS) + 63) / 64 * 64);
    float *f = malloc(TOKENS * COLUMNS * 4), *sums = malloc(TOKENS * blocks * 16);
    float *y = malloc((size_t)TOKENS * PANELS_GEMV * PANEL_ROWS * 4);
    int32_t *isums = malloc(TOKENS * blocks * 12);
    int8_t *q = aligned_alloc(64, TOKENS * COLUMNS);
    uint16_t *bf16 = malloc(TOKENS * BF16_STRIDE * sizeof *bf16);
    random_floats(f, TOKENS * COLUMNS, DATA_NORMAL);
    float *d = sums, *s = sums + TOKENS * blocks, *s16 = sums + 2 * TOKENS * blocks;
    int32_t *isum = isums, *isum16 = isums + TOKENS * blocks;
    k->quantize(&(quantize_args){f, COLUMNS, COLUMNS, TOKENS, q, d, s, isum, s16, isum16, COLUMNS, blocks});
    for (size_t t = 0; k->bf16_dot && t < TOKENS; t++)
        k->round_bf16(f + t * COLUMNS, COLUMNS, bf16 + t * BF16_STRIDE);
    for (size_t r = 0; r < PANEL_ROWS; r++)
        random_row(type, rows + r * row_bytes, COLUMNS, DATA_NORMAL);
    for (size_t p = 0; p < PANELS_GEMV; p++)
        panel_pack(type, rows, row_bytes, PANEL_ROWS, COLUMNS, panels + p * panel);
    act x = {f, q, d, s, isum, s16, isum16, COLUMNS, COLUMNS, blocks, bf16, BF16_STRIDE};
    linear_args a = {panels, panel, PANELS_GEMV, COLUMNS, &x, 0, 1, y, PANELS_GEMV * PANEL_ROWS, scratch, k->ahead};
    double macs = (double)PANELS_GEMV * PANEL_ROWS * COLUMNS, bytes = (double)panel * PANELS_GEMV;
    double gemv1 = fastest(k->linear[type].gemv, &a);
    printf("%-8s %-8s gemv: %6.2f GB/s %6.1f Gmac/s  batches", k->name, type_name(type), bytes / gemv1 * 1e-9, macs / gemv1 * 1e-9);
    for (size_t i = 0; i < sizeof batches / sizeof *batches; i++) {
        a.n_tokens = batches[i];
        double took = fastest(a.n_tokens < k->gemm_from[type] ? k->linear[type].gemv : k->linear[type].gemm, &a);
        printf(" %d: %.1f", a.n_tokens, a.n_tokens * macs / took * 1e-9);
    }
    a.n_panels = PANELS;
    a.n_tokens = TOKENS;
    double gemm = fastest(k->linear[type].gemm, &a);
    printf("  gemm %d: %.1f Gmac/s\n", TOKENS, macs / PANELS_GEMV * PANELS * TOKENS / gemm * 1e-9);
    fflush(stdout);
    free(rows);
    free(panels);
    free(scratch);
    free(f);
    free(sums);
    free(y);
    free(isums);
    free(q);
    free(bf16);
}

/* Nanoseconds per block of quantize and per value of the activation function. */
static void bench_vector(const kernels *k)
{
    enum { VALUES = 4096 };
    static float f[VALUES], up[VALUES], d[VALUES / 32], s[VALUES / 32], s16[VALUES / 16], y[VALUES];
    static int32_t isum[VALUES / 32], isum16[VALUES / 16];
    static int8_t q[VALUES];
    random_floats(f, VALUES, DATA_NORMAL);
    random_floats(up, VALUES, DATA_NORMAL);
    const quantize_args a = {f, VALUES, VALUES, 1, q, d, s, isum, s16, isum16, VALUES, VALUES / 32};
    double best[3] = {1e30, 1e30, 1e30};
    for (double end = seconds() + seconds_wanted; seconds() < end;) {
        double t[4] = {seconds()};
        k->quantize(&a);
        t[1] = seconds();
        k->silu_mul(f, up, y, VALUES);
        t[2] = seconds();
        k->rmsnorm(f, up, 1e-5f, VALUES, y);
        t[3] = seconds();
        for (int i = 0; i < 3; i++)
            best[i] = t[i + 1] - t[i] < best[i] ? t[i + 1] - t[i] : best[i];
    }
    printf("%-8s ns per 32 values: quantize %.1f, silu_mul %.1f, rmsnorm %.1f\n", k->name, best[0] * 1e9 * 32 / VALUES,
           best[1] * 1e9 * 32 / VALUES, best[2] * 1e9 * 32 / VALUES);
}

/* Attention of 96 rows over a chunk of full pages, Gmac/s of each product and ns per row and 64 slots of the softmax. */
static void bench_attention(const kernels *k, dil_type type, int head_dim)
{
    enum { ROWS = 96, STRIDE = ATTN_SLOTS + 16 };
    const size_t page = kv_page_bytes(type, head_dim), row = attn_row_bytes(head_dim);
    uint8_t *pages = aligned_alloc(64, page * ATTN_CHUNK), *queries = aligned_alloc(64, row * ROWS);
    float *scores = aligned_alloc(64, sizeof(float) * ROWS * STRIDE), *acc = calloc(ROWS * (size_t)head_dim, sizeof *acc), m, l;
    void *scratch = aligned_alloc(64, attn_scratch_bytes(head_dim));
    float *values = malloc((size_t)head_dim * sizeof *values);
    int32_t n_slots[ROWS];
    for (int i = 0; i < KV_PAGE * ATTN_CHUNK; i++) {
        random_floats(values, (size_t)head_dim, DATA_NORMAL);
        k->kv_store_k(type, pages + (size_t)(i / KV_PAGE) * page, i % KV_PAGE, values, head_dim);
    }
    for (int i = 0; i < ROWS; i++) {
        n_slots[i] = KV_PAGE;
        random_floats(values, (size_t)head_dim, DATA_NORMAL);
        k->attn_query(type, values, head_dim, 0.125f, queries + (size_t)i * row);
    }
    attn_page a = {.type = type, .head_dim = head_dim, .n_rows = ROWS, .n_slots = n_slots, .scratch = scratch};
    double best[3] = {1e30, 1e30, 1e30};
    for (double end = seconds() + 10 * seconds_wanted; seconds() < end;) {
        double t[4] = {seconds()};
        for (int i = 0; i < ATTN_CHUNK; i++) {
            a.page = pages + (size_t)i * page;
            a.first_slot = i * KV_PAGE;
            k->attn_qk(&a, queries, row, scores, STRIDE);
        }
        t[1] = seconds();
        for (int i = 0; i < ROWS; i++)
            k->attn_softmax(type, scores + i * STRIDE, 0, ATTN_SLOTS, ATTN_SLOTS, 0.0f, &m, &l);
        t[2] = seconds();
        for (int i = 0; i < ATTN_CHUNK; i++) { /* any bytes are values */
            a.page = pages + (size_t)i * page;
            a.first_slot = i * KV_PAGE;
            k->attn_pv(&a, scores, STRIDE, acc, (size_t)head_dim);
        }
        t[3] = seconds();
        for (int i = 0; i < 3; i++)
            best[i] = t[i + 1] - t[i] < best[i] ? t[i + 1] - t[i] : best[i];
    }
    const double macs = (double)ROWS * ATTN_SLOTS * head_dim;
    printf("%-8s attention %-5s %3d: qk %.1f Gmac/s, softmax %.1f ns, pv %.1f Gmac/s, all %.1f Gmac/s\n", k->name, type_name(type),
           head_dim, macs / best[0] * 1e-9, best[1] * 1e9 / (ROWS * ATTN_CHUNK), macs / best[2] * 1e-9,
           2 * macs / (best[0] + best[1] + best[2]) * 1e-9);
    free(pages);
    free(queries);
    free(scores);
    free(acc);
    free(scratch);
    free(values);
}

void bench_all(const kernels *level, const char *filter)
{
    static const dil_type cached[] = {DIL_TYPE_F16, DIL_TYPE_Q8_0, DIL_TYPE_Q4_0};
    for (size_t i = 0; (!filter || strcmp(filter, "attention") == 0) && i < sizeof cached / sizeof *cached; i++)
        for (int head_dim = 64; head_dim <= 256; head_dim *= 2)
            bench_attention(level, cached[i], head_dim);
    if (!filter || strcmp(filter, "vector") == 0)
        bench_vector(level);
    for (int type = 0; type < DIL_TYPE_COUNT; type++) {
        const format *f = format_get((dil_type)type);
        if (f && f->decode && (!filter || strstr(f->name, filter)))
            bench_type(level, (dil_type)type);
    }
}
