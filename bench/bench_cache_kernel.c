/*
 * One kernel on fixed data, for bench/cache_table.py: run under a cache simulator, or traced by the cache model.
 *     bench_cache_kernel run KERNEL N                          runs it N times, at level avx2, from cold caches
 *     bench_cache_kernel model KERNEL N D1,WAYS LL,WAYS        the model's counts as JSON: lines touched, cold, and for both caches the
 *                                                              misses of a fully associative one and of one with ways
 * KERNEL: gemv_q4_k gemv_q8_0 gemm_q4_k gemm_q4_k_wide attention norm silu_mul
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "theorem/random.h"
#include "tune/kernel_trace.h"

enum { ATTN_TOKENS = 2048, ATTN_QUERIES = 96, HEAD = 128, KV_HEADS = 2 };
enum { NORM_N = 2048, NORM_ALL = 512, NORM_TOGETHER = 8 };
#define FLUSH_BYTES ((size_t)16 << 20)
#define MOST_PIECES ((size_t)1 << 24)

static void *new_bytes(size_t n)
{
    void *p = mem_alloc(n, MEM_MISC);
    if (!p) {
        fprintf(stderr, "bench_cache_kernel: no memory\n");
        exit(1);
    }
    return p;
}

/* Small whole numbers and halves of them: no kernel meets a special value, bytes of weights are what they happen to be. */
static float *new_floats(size_t n)
{
    float *f = new_bytes(n * sizeof *f);
    uint64_t seed = 1;
    for (size_t i = 0; i < n; i++)
        f[i] = (float)(random_next(&seed) >> 60) / 2.0f - 3.5f;
    return f;
}

static void *new_random(size_t n)
{
    uint64_t *p = new_bytes((n + 7) / 8 * 8), seed = 2;
    for (size_t i = 0; i < (n + 7) / 8; i++)
        p[i] = random_next(&seed);
    return p;
}

/* ---- matrices ---- */

typedef struct product {
    dil_type type;
    act x;
    linear_args a; /* a tile */
    int n_tiles;   /* one after the other, other panels each */
} product;

static product new_product(const kernels *k, dil_type type, int64_t cols, int n_panels, int n_tiles, int n_tokens)
{
    const size_t n = (size_t)n_tokens, blocks = (size_t)cols / ACT_BLOCK, all = (size_t)(n_panels * n_tiles);
    product p = {.type = type, .n_tiles = n_tiles, .x = {.f_stride = (size_t)cols, .q_stride = (size_t)cols, .b_stride = blocks}};
    float *d = new_bytes(n * blocks * sizeof *d), *s = new_bytes(n * blocks * sizeof *s);
    int32_t *isum = new_bytes(n * blocks * sizeof *isum);
    int8_t *q = new_bytes(n * (size_t)cols);
    quantize_args quantize = {.f = new_floats(n * (size_t)cols),
                              .f_stride = (size_t)cols,
                              .k = cols,
                              .n_rows = n_tokens,
                              .q = q,
                              .d = d,
                              .s = s,
                              .isum = isum,
                              .q_stride = (size_t)cols,
                              .b_stride = blocks};
    k->quantize(&quantize);
    p.x.q = q;
    p.x.d = d;
    p.x.s = s;
    p.x.isum = isum;
    p.a = (linear_args){.panel_bytes = panel_bytes(type, cols), .n_panels = n_panels, .k = cols, .n_tokens = n_tokens};
    p.a.panels = new_random(all * p.a.panel_bytes);
    p.a.y_stride = all * PANEL_ROWS;
    p.a.y = new_bytes(n * p.a.y_stride * sizeof(float));
    p.a.scratch = new_bytes(linear_scratch_bytes(cols));
    return p;
}

/* c NULL: computes, else traces. */
static void do_product(const kernels *k, const product *p, cache_model *c)
{
    for (int i = 0; i < p->n_tiles; i++) {
        linear_args a = p->a;
        a.x = &p->x;
        a.panels += (size_t)(i * a.n_panels) * a.panel_bytes;
        a.y += i * a.n_panels * PANEL_ROWS;
        if (c)
            kernel_trace_linear(c, k, p->type, &a);
        else if (a.n_tokens >= k->gemm_from[p->type])
            k->linear[p->type].gemm(&a);
        else
            k->linear[p->type].gemv(&a);
    }
}

/* ---- attention: rows that see all tokens, of some heads ---- */

typedef struct attention {
    uint8_t *keys, *values; /* [KV_HEADS][pages] */
    float *queries, *scores, *acc;
    void *scratch;
} attention;

#define SCORE_STRIDE (ATTN_SLOTS + 16)

static attention new_attention(void)
{
    const size_t pages = KV_HEADS * ATTN_TOKENS / KV_PAGE, page = kv_page_bytes(DIL_TYPE_F16, HEAD);
    return (attention){.keys = mem_calloc(pages, page, MEM_MISC),
                       .values = mem_calloc(pages, page, MEM_MISC),
                       .queries = new_floats(ATTN_QUERIES * HEAD),
                       .scores = new_floats(ATTN_QUERIES * SCORE_STRIDE),
                       .acc = new_floats(ATTN_QUERIES * HEAD),
                       .scratch = new_bytes(attn_scratch_bytes(HEAD))};
}

static void attend(const kernels *k, const trace_chunk *t)
{
    int32_t n_slots[ATTN_QUERIES];
    for (int i = 0; i < t->n_rows; i++)
        n_slots[i] = KV_PAGE;
    attn_page p = {.type = DIL_TYPE_F16, .head_dim = HEAD, .n_rows = t->n_rows, .n_slots = n_slots, .scratch = t->scratch};
    for (int i = 0; i < t->n_pages; i++) {
        p.page = t->k_pages[i];
        p.first_slot = i * KV_PAGE;
        k->attn_qk(&p, t->queries, t->query_stride, t->scores, t->score_stride);
    }
    for (int row = 0; row < t->n_rows; row++) {
        float m, l;
        k->attn_softmax(DIL_TYPE_F16, t->scores + (size_t)row * t->score_stride, 0, ATTN_SLOTS, ATTN_SLOTS, 0.0f, &m, &l);
    }
    for (int i = 0; i < t->n_pages; i++) {
        p.page = t->v_pages[i];
        p.first_slot = i * KV_PAGE;
        k->attn_pv(&p, t->scores, t->score_stride, t->acc, t->acc_stride);
    }
}

static void do_attention(const kernels *k, const attention *a, cache_model *c)
{
    const size_t page = kv_page_bytes(DIL_TYPE_F16, HEAD);
    const void *keys[ATTN_CHUNK], *values[ATTN_CHUNK];
    int32_t n_seen[ATTN_QUERIES];
    for (int i = 0; i < ATTN_QUERIES; i++)
        n_seen[i] = ATTN_SLOTS;
    for (size_t first = 0; first < KV_HEADS * ATTN_TOKENS / KV_PAGE; first += ATTN_CHUNK) {
        for (size_t i = 0; i < ATTN_CHUNK; i++) {
            keys[i] = a->keys + (first + i) * page;
            values[i] = a->values + (first + i) * page;
        }
        const trace_chunk t = {.type_k = DIL_TYPE_F16,
                               .type_v = DIL_TYPE_F16,
                               .head_dim_k = HEAD,
                               .head_dim_v = HEAD,
                               .n_pages = ATTN_CHUNK,
                               .k_pages = keys,
                               .v_pages = values,
                               .n_rows = ATTN_QUERIES,
                               .n_seen = n_seen,
                               .queries = a->queries,
                               .query_stride = attn_row_bytes(HEAD),
                               .scores = a->scores,
                               .acc = a->acc,
                               .score_stride = SCORE_STRIDE,
                               .acc_stride = HEAD,
                               .scratch = a->scratch};
        if (c)
            kernel_trace_attention(c, k, &t);
        else
            attend(k, &t);
    }
}

/* ---- vectors: norm and quantize, some rows at a time; silu_mul ---- */

typedef struct norm {
    float *x, *w, *rows;
    quantize_args out;
} norm;

static norm new_norm(void)
{
    const size_t all = NORM_ALL, blocks = NORM_N / ACT_BLOCK;
    norm n = {.x = new_floats(all * NORM_N), .w = new_floats(NORM_N), .rows = new_floats(NORM_TOGETHER * NORM_N)};
    n.out = (quantize_args){
        .f = n.rows, .f_stride = NORM_N, .k = NORM_N, .n_rows = NORM_TOGETHER, .q_stride = NORM_N, .b_stride = blocks};
    n.out.q = new_bytes(all * NORM_N);
    n.out.d = new_bytes(all * blocks * sizeof *n.out.d);
    n.out.s = new_bytes(all * blocks * sizeof *n.out.s);
    n.out.isum = new_bytes(all * blocks * sizeof *n.out.isum);
    return n;
}

static void do_norm(const kernels *k, const norm *n, cache_model *c)
{
    for (size_t first = 0; first < NORM_ALL; first += NORM_TOGETHER) {
        quantize_args out = n->out;
        out.q += first * out.q_stride;
        out.d += first * out.b_stride;
        out.s += first * out.b_stride;
        out.isum += first * out.b_stride;
        for (size_t i = 0; i < NORM_TOGETHER; i++) {
            const float *x = n->x + (first + i) * NORM_N;
            float *y = n->rows + i * NORM_N;
            if (c)
                kernel_trace_rmsnorm(c, x, n->w, NORM_N, y);
            else
                k->rmsnorm(x, n->w, 1e-5f, NORM_N, y);
        }
        if (c)
            kernel_trace_quantize(c, &out);
        else
            k->quantize(&out);
    }
}

static void do_silu_mul(const kernels *k, float *gate, const float *up, cache_model *c)
{
    for (size_t row = 0; row < NORM_ALL; row++, gate += NORM_N, up += NORM_N) {
        if (c)
            kernel_trace_mul(c, gate, up, gate, NORM_N);
        else
            k->silu_mul(gate, up, gate, NORM_N);
    }
}

/* ---- the command ---- */

typedef struct job {
    const kernels *k;
    product p;
    attention a;
    norm n;
    float *gate, *up; /* [NORM_ALL][NORM_N] */
} job;

static bool new_job(job *j, const kernels *k, const char *name)
{
    *j = (job){.k = k};
    if (strcmp(name, "gemv_q4_k") == 0)
        j->p = new_product(k, DIL_TYPE_Q4_K, 4096, 128, 1, 1);
    else if (strcmp(name, "gemv_q8_0") == 0)
        j->p = new_product(k, DIL_TYPE_Q8_0, 2048, 128, 1, 4);
    else if (strcmp(name, "gemm_q4_k") == 0)
        j->p = new_product(k, DIL_TYPE_Q4_K, 2048, k->panel_chunk, 4, 256);
    else if (strcmp(name, "gemm_q4_k_wide") == 0)
        j->p = new_product(k, DIL_TYPE_Q4_K, 4096, k->panel_chunk, 4, 256);
    else if (strcmp(name, "attention") == 0)
        j->a = new_attention();
    else if (strcmp(name, "norm") == 0)
        j->n = new_norm();
    else if (strcmp(name, "silu_mul") == 0)
        *j = (job){.k = k, .gate = new_floats(NORM_ALL * NORM_N), .up = new_floats(NORM_ALL * NORM_N)};
    else
        return false;
    return true;
}

static void do_job(const job *j, int n, cache_model *c)
{
    for (int i = 0; i < n; i++) {
        if (j->p.n_tiles)
            do_product(j->k, &j->p, c);
        else if (j->a.keys)
            do_attention(j->k, &j->a, c);
        else if (j->n.x)
            do_norm(j->k, &j->n, c);
        else
            do_silu_mul(j->k, j->gate, j->up, c);
    }
}

/* Reads more than the caches hold. */
static void flush(void)
{
    const volatile char *p = new_random(FLUSH_BYTES);
    for (size_t i = 0; i < FLUSH_BYTES; i += 64)
        (void)p[i];
}

static cache_level read_level(const char *text)
{
    char *end;
    const unsigned long long size = strtoull(text, &end, 10);
    return (cache_level){.size_bytes = size, .ways = *end == ',' ? (int)strtol(end + 1, NULL, 10) : 0};
}

static int print_model(const job *j, int n, cache_level d1, cache_level ll)
{
    cache_model *c;
    dil_error err;
    dil_status status = cache_model_new(&c, 64, 64, MOST_PIECES, &err);
    if (status == DIL_OK) {
        do_job(j, n, c);
        status = cache_model_check(c, &err);
    }
    if (status != DIL_OK) {
        fprintf(stderr, "bench_cache_kernel: %s\n", err.text);
        return 1;
    }
    const cache_level whole[2] = {{d1.size_bytes, 0}, {ll.size_bytes, 0}};
    printf("{\"touched\": %llu, \"cold\": %llu, \"d1\": %.0f, \"d1_ways\": %.0f, \"ll\": %.0f, \"ll_ways\": %.0f}\n",
           (unsigned long long)cache_model_touched(c), (unsigned long long)cache_model_cold(c), cache_model_misses(c, whole[0]),
           cache_model_misses(c, d1), cache_model_misses(c, whole[1]), cache_model_misses(c, ll));
    cache_model_free(c);
    return 0;
}

int main(int argc, char **argv)
{
    kernels k;
    dil_error err;
    job j;
    const bool model = argc == 6 && strcmp(argv[1], "model") == 0;
    if (!model && !(argc == 4 && strcmp(argv[1], "run") == 0)) {
        fprintf(stderr, "usage: bench_cache_kernel run KERNEL N | model KERNEL N D1,WAYS LL,WAYS\n");
        return 2;
    }
    if (kernels_select(&k, "avx2", &err) != DIL_OK) {
        fprintf(stderr, "bench_cache_kernel: %s\n", err.text);
        return 1;
    }
    if (!new_job(&j, &k, argv[2])) {
        fprintf(stderr, "bench_cache_kernel: no kernel '%s'\n", argv[2]);
        return 2;
    }
    const int n = (int)strtol(argv[3], NULL, 10);
    if (model)
        return print_model(&j, n, read_level(argv[4]), read_level(argv[5]));
    flush();
    do_job(&j, n, NULL);
    return 0;
}
