/* KV pages and attention: stores read back by every level, products within rounding, rows independent of how many run. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

static const int head_dims[] = {5, 8, 16, 24, 27, 32, 40, 64, 80, 96, 128, 256};
enum { N_HEAD_DIMS = sizeof head_dims / sizeof *head_dims };
static const dil_type kv_types[] = {DIL_TYPE_F32, DIL_TYPE_F16, DIL_TYPE_BF16, DIL_TYPE_Q8_0, DIL_TYPE_Q4_0};
enum { N_KV_TYPES = sizeof kv_types / sizeof *kv_types };

static int round_up_16(int n) { return (n + 15) / 16 * 16; }

static void drop(check *c, guarded *g)
{
    if (!guarded_free(g))
        check_fail(c, "wrote before an array");
}

/* What storing v in the type may lose; amax: largest of its block of 32. */
static double store_slack(dil_type type, double v, double amax)
{
    switch (type) {
    case DIL_TYPE_F32: return 0.0;
    case DIL_TYPE_F16: return fabs(v) * 0x1p-11 + 0x1p-25;
    case DIL_TYPE_BF16: return fabs(v) * 0x1p-8;
    case DIL_TYPE_Q4_0: return amax / 8.0 * 1.3 + 1e-7; /* what lies beyond level 7 or -8 is cut, and the scale fitted to all */
    default: return amax / 127.0 * 0.56 + 1e-7;         /* half a step, and the scale's own rounding */
    }
}

static double block_amax(const float *v, int at, int head_dim)
{
    double amax = 0.0;
    for (int d = at / 32 * 32; d < head_dim && d < at / 32 * 32 + 32; d++)
        amax = fabs((double)v[d]) > amax ? fabs((double)v[d]) : amax;
    return amax;
}

/* One page, K or V, n_slots tokens: stored by the level, read by it and by scalar. */
static void kv_once(check *c, dil_type type, int head_dim, int n_slots, bool is_v)
{
    size_t hd = (size_t)head_dim, stride = is_v ? hd + 3 : KV_PAGE;
    size_t read_slots = (size_t)round_up_16(n_slots);
    float *v = malloc(KV_PAGE * hd * 4);
    random_floats(v, KV_PAGE * hd, DATA_NORMAL);
    memset(v, 0, hd * 4); /* a zero vector */
    guarded page = guarded_new(kv_page_bytes(type, head_dim), 1);
    for (int j = 0; j < KV_PAGE; j++) {
        guarded in = guarded_new(hd * 4, 4);
        memcpy(in.p, v + (size_t)j * hd, hd * 4);
        (is_v ? c->level->kv_store_v : c->level->kv_store_k)(type, page.p, j, in.p, head_dim);
        drop(c, &in);
    }
    guarded out[2];
    for (int i = 0; i < 2; i++) {
        const kernels *k = i ? c->scalar : c->level;
        out[i] = guarded_new((is_v ? (read_slots - 1) * stride + hd : (hd - 1) * KV_PAGE + read_slots) * 4, 4);
        if (is_v)
            k->kv_load_v(type, page.p, head_dim, n_slots, out[i].p, stride);
        else
            k->kv_load_k(type, page.p, head_dim, n_slots, out[i].p);
    }
    for (int j = 0; j < (int)read_slots; j++) {
        for (int d = 0; d < head_dim; d++) {
            size_t at = is_v ? (size_t)j * stride + (size_t)d : (size_t)d * KV_PAGE + (size_t)j;
            const float *token = v + (size_t)j * hd;
            float got = ((float *)out[0].p)[at], scalar = ((float *)out[1].p)[at];
            if (!same_bits(got, scalar))
                check_fail(c, "%s hd %d slot %d dim %d: loads %g, scalar loads %g", type_name(type), head_dim, j, d, (double)got,
                           (double)scalar);
            if (!(fabs((double)got - (double)token[d]) <= store_slack(type, (double)token[d], block_amax(token, d, head_dim))))
                check_fail(c, "%s hd %d slot %d dim %d: %g became %g", type_name(type), head_dim, j, d, (double)token[d],
                           (double)got);
        }
    }
    drop(c, &out[0]);
    drop(c, &out[1]);
    drop(c, &page);
    free(v);
}

/* A whole page stored by the level and by scalar: the same bytes. */
static void stored_once(check *c, dil_type type, int head_dim, bool is_v, data_kind kind)
{
    guarded level = guarded_new(kv_page_bytes(type, head_dim), 1), scalar = guarded_new(kv_page_bytes(type, head_dim), 1);
    guarded in = guarded_new((size_t)head_dim * 4, 4);
    for (int j = 0; j < KV_PAGE; j++) {
        random_floats(in.p, (size_t)head_dim, kind);
        (is_v ? c->level->kv_store_v : c->level->kv_store_k)(type, level.p, j, in.p, head_dim);
        (is_v ? c->scalar->kv_store_v : c->scalar->kv_store_k)(type, scalar.p, j, in.p, head_dim);
    }
    for (size_t i = 0; i < level.bytes; i++)
        if (((uint8_t *)level.p)[i] != ((uint8_t *)scalar.p)[i]) {
            check_fail(c, "%s hd %d data %d: stores %02x at byte %zu, scalar stores %02x", type_name(type), head_dim, (int)kind,
                       ((uint8_t *)level.p)[i], i, ((uint8_t *)scalar.p)[i]);
            break;
        }
    drop(c, &in);
    drop(c, &level);
    drop(c, &scalar);
}

/* arg: 0 K, 1 V. Bits of NaN in pages of floats are the level's own. */
static void check_stored(check *c, int arg)
{
    for (int t = 0; t < N_KV_TYPES; t++)
        for (int h = 0; h < N_HEAD_DIMS; h++)
            for (int kind = 0; kind < DATA_KINDS; kind++)
                if (kind != DATA_WILD || kv_types[t] == DIL_TYPE_Q8_0 || kv_types[t] == DIL_TYPE_Q4_0)
                    stored_once(c, kv_types[t], head_dims[h], arg, (data_kind)kind);
}

/* The error of Q4_0 against that of the largest value alone deciding, d = m / -8. */
static void check_q4_error(check *c, int arg)
{
    (void)arg;
    _Alignas(64) uint8_t page[(64 / 2 + 64 / 32 * 2) * KV_PAGE];
    static float v[KV_PAGE * 64], back[KV_PAGE * 64];
    double chosen = 0.0, plain = 0.0;
    for (int i = 0; i < KV_PAGE * 64; i++)
        v[i] = random_float();
    for (int j = 0; j < KV_PAGE; j++)
        c->level->kv_store_v(DIL_TYPE_Q4_0, page, j, v + j * 64, 64);
    c->level->kv_load_v(DIL_TYPE_Q4_0, page, 64, KV_PAGE, back, 64);
    for (int i = 0; i < KV_PAGE * 64; i += 32) {
        double m = 0.0;
        for (int d = i; d < i + 32; d++)
            m = fabs((double)v[d]) > fabs(m) ? (double)v[d] : m;
        for (int d = i; d < i + 32; d++) {
            double x = (double)v[d], q = fmin(round(x / (m / -8.0)), 7.0);
            plain += pow(x - q * (m / -8.0), 2);
            chosen += pow(x - (double)back[d], 2);
        }
    }
    if (!(chosen < 0.93 * plain))
        check_fail(c, "squared error %g, the plain grid's is %g", chosen, plain);
}

/* arg: 0 K, 1 V */
static void check_kv(check *c, int arg)
{
    static const int slots[] = {1, 15, 16, 17, 33, 48, 64};
    for (int t = 0; t < N_KV_TYPES; t++)
        for (int h = 0; h < N_HEAD_DIMS; h++)
            for (size_t s = 0; s < sizeof slots / sizeof *slots; s++)
                kv_once(c, kv_types[t], head_dims[h], slots[s], arg);
}

/* What the level multiplies instead of f where it rounds to bf16 with pages of this type. */
static double operand(const check *c, dil_type type, float f)
{
    return (double)(c->level->attn_bf16 && type != DIL_TYPE_F32 ? bf16_to_f32(f32_to_bf16(f)) : f);
}

/* A page of random tokens, stored by the level, and what scalar reads: K [head_dim][KV_PAGE], V [KV_PAGE][head_dim]. */
static guarded random_page(check *c, dil_type type, int head_dim, bool is_v, float *values)
{
    guarded page = guarded_new(kv_page_bytes(type, head_dim), 64);
    float token[256];
    for (int j = 0; j < KV_PAGE; j++) {
        random_floats(token, (size_t)head_dim, DATA_NORMAL);
        (is_v ? c->level->kv_store_v : c->level->kv_store_k)(type, page.p, j, token, head_dim);
    }
    if (is_v)
        c->scalar->kv_load_v(type, page.p, head_dim, KV_PAGE, values, (size_t)head_dim);
    else
        c->scalar->kv_load_k(type, page.p, head_dim, KV_PAGE, values);
    return page;
}

/* Ascending, the last is n_slots. */
static void choose_slots(int32_t *slots, int n_rows, int n_slots)
{
    int32_t seen = n_slots;
    for (int i = n_rows; i-- > 0; seen -= (int32_t)(random_u32() % 3 * (random_u32() % 9))) {
        seen = seen < 0 ? 0 : seen;
        slots[i] = seen;
    }
}

enum { FIRST_SLOT = 2 * KV_PAGE, SCORES = FIRST_SLOT + KV_PAGE, MOST_ROWS = 16 };

static void qk_once(check *c, dil_type type, int head_dim, int n_rows, int n_slots)
{
    size_t hd = (size_t)head_dim, q_stride = attn_row_bytes(head_dim) + 64, s_stride = SCORES + 16;
    float *k = malloc(hd * KV_PAGE * 4), *plain = malloc(hd * 4);
    guarded page = random_page(c, type, head_dim, false, k), scratch = guarded_new(attn_scratch_bytes(head_dim), 64);
    guarded q = guarded_new(((size_t)n_rows - 1) * q_stride + attn_row_bytes(head_dim), 64);
    guarded s = guarded_new((((size_t)n_rows - 1) * s_stride + SCORES) * 4, 4), one = guarded_new(SCORES * 4, 4);
    int32_t slots[MOST_ROWS];
    float *queries = malloc((size_t)n_rows * hd * 4);
    choose_slots(slots, n_rows, n_slots);
    random_floats(queries, (size_t)n_rows * hd, DATA_NORMAL);
    for (size_t i = 0; i < (size_t)n_rows; i++) {
        memcpy(plain, queries + i * hd, hd * 4);
        c->level->attn_query(type, plain, head_dim, 0.3f, (char *)q.p + i * q_stride);
    }
    attn_page a = {type, page.p, head_dim, FIRST_SLOT, n_rows, slots, scratch.p};
    c->level->attn_qk(&a, q.p, q_stride, s.p, s_stride);
    for (size_t i = 0; i < (size_t)n_rows; i++) {
        attn_page alone = a;
        alone.n_rows = 1;
        alone.n_slots = slots + i;
        c->level->attn_qk(&alone, (char *)q.p + i * q_stride, q_stride, one.p, s_stride);
        for (size_t j = 0; j < (size_t)slots[i]; j++) {
            double sum = 0.0, magnitude = 0.0;
            for (size_t d = 0; d < hd; d++) {
                double product = (double)(queries[i * hd + d] * 0.3f) * (double)k[d * KV_PAGE + j];
                sum += product;
                magnitude += fabs(product);
            }
            float got = ((float *)s.p)[i * s_stride + FIRST_SLOT + j];
            if (!(fabs((double)got - sum) <= 1e-6 * (1.0 + (double)hd / 128.0) * magnitude)) /* a chain of hd roundings */
                check_fail(c, "%s hd %d rows %d slots %d: s[%zu][%zu] is %g, expected %g", type_name(type), head_dim, n_rows,
                           n_slots, i, j, (double)got, sum);
            if (!same_bits(got, ((float *)one.p)[FIRST_SLOT + j]))
                check_fail(c, "%s hd %d rows %d slots %d: row %zu depends on the others", type_name(type), head_dim, n_rows,
                           n_slots, i);
        }
    }
    drop(c, &page);
    drop(c, &scratch);
    drop(c, &q);
    drop(c, &s);
    drop(c, &one);
    free(k);
    free(plain);
    free(queries);
}

/* Weights as softmax leaves them for V of this type; f becomes what is multiplied. */
static void put_weights(const check *c, dil_type type, float *f, int n, float *row)
{
    for (int j = 0; j < n; j++) {
        f[j] = (float)operand(c, type, f[j]);
        uint16_t half = f32_to_bf16(f[j]);
        if (c->level->attn_bf16 && type != DIL_TYPE_F32)
            memcpy((uint16_t *)(void *)row + j, &half, sizeof half);
        else
            row[j] = f[j];
    }
}

static void pv_once(check *c, dil_type type, int head_dim, int n_rows, int n_slots)
{
    size_t hd = (size_t)head_dim, acc_stride = hd + 7, p_stride = SCORES + 16;
    float *v = malloc(hd * KV_PAGE * 4), *weights = calloc((size_t)n_rows * SCORES, 4);
    guarded page = random_page(c, type, head_dim, true, v), scratch = guarded_new(attn_scratch_bytes(head_dim), 64);
    guarded p = guarded_new((((size_t)n_rows - 1) * p_stride + SCORES) * 4, 64), one = guarded_new(hd * 4, 4);
    guarded acc = guarded_new((((size_t)n_rows - 1) * acc_stride + hd) * 4, 4);
    float *before = malloc(acc.bytes);
    int32_t slots[MOST_ROWS];
    choose_slots(slots, n_rows, n_slots);
    for (size_t i = 0; i < (size_t)n_rows; i++) {
        random_floats(weights + i * SCORES, (size_t)(FIRST_SLOT + slots[i]), DATA_NORMAL);
        put_weights(c, type, weights + i * SCORES, SCORES, (float *)p.p + i * p_stride);
        random_floats((float *)acc.p + i * acc_stride, hd, DATA_NORMAL);
    }
    memcpy(before, acc.p, acc.bytes);
    attn_page a = {type, page.p, head_dim, FIRST_SLOT, n_rows, slots, scratch.p};
    c->level->attn_pv(&a, p.p, p_stride, acc.p, acc_stride);
    for (size_t i = 0; i < (size_t)n_rows; i++) {
        attn_page alone = a;
        alone.n_rows = 1;
        alone.n_slots = slots + i;
        memcpy(one.p, before + i * acc_stride, hd * 4);
        c->level->attn_pv(&alone, (float *)p.p + i * p_stride, p_stride, one.p, acc_stride);
        for (size_t d = 0; d < hd; d++) {
            double sum = (double)before[i * acc_stride + d], magnitude = fabs(sum);
            for (size_t j = 0; j < (size_t)slots[i]; j++) {
                double product = (double)weights[i * SCORES + FIRST_SLOT + j] * operand(c, type, v[j * hd + d]);
                sum += product;
                magnitude += fabs(product);
            }
            float got = ((float *)acc.p)[i * acc_stride + d];
            if (!(fabs((double)got - sum) <= 1e-6 * magnitude))
                check_fail(c, "%s hd %d rows %d slots %d: acc[%zu][%zu] is %g, expected %g", type_name(type), head_dim, n_rows,
                           n_slots, i, d, (double)got, sum);
            if (!same_bits(got, ((float *)one.p)[d]))
                check_fail(c, "%s hd %d rows %d slots %d: row %zu depends on the others", type_name(type), head_dim, n_rows,
                           n_slots, i);
        }
    }
    drop(c, &page);
    drop(c, &scratch);
    drop(c, &p);
    drop(c, &acc);
    drop(c, &one);
    free(v);
    free(weights);
    free(before);
}

/* arg: 0 qk, 1 pv */
static void check_products(check *c, int arg)
{
    static const int counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 13, 16}, slots[] = {1, 7, 16, 17, 40, 63, 64};
    for (int t = 0; t < N_KV_TYPES; t++)
        for (int h = 0; h < N_HEAD_DIMS; h++)
            for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
                for (size_t j = 0; j < sizeof slots / sizeof *slots; j++)
                    (arg ? pv_once : qk_once)(c, kv_types[t], head_dims[h], counts[i], slots[j]);
}

static void softmax_once(check *c, dil_type type, int lo, int hi, int n, float cap)
{
    guarded g = guarded_new((size_t)round_up_16(n) * 4, 64);
    float *s = g.p, before[ATTN_SLOTS], m = 0.75f, l = 2.5f;
    bool halves = c->level->attn_bf16 && type != DIL_TYPE_F32;
    double slack = halves ? 0x1p-8 : 4e-6, total = 0.0;
    for (int j = lo; j < hi; j++)
        s[j] = random_float() * 8.0f; /* the others stay NaN */
    memcpy(before, s, (size_t)n * 4);
    c->level->attn_softmax(type, s, lo, hi, n, cap, &m, &l);
    double max = -INFINITY, sum = 0.0, capped[ATTN_SLOTS] = {0};
    for (int j = lo; j < hi; j++) {
        double x = (double)before[j];
        capped[j] = cap > 0.0f ? (double)cap * tanh(x / (double)cap) : x;
        max = capped[j] > max ? capped[j] : max;
    }
    for (int j = lo; j < hi; j++)
        sum += exp(capped[j] - max);
    if (hi <= lo ? m != -INFINITY : !(fabs((double)m - max) <= 2e-6 * (fabs(max) + 1)))
        check_fail(c, "[%d,%d) of %d cap %g: maximum %g, expected %g", lo, hi, n, (double)cap, (double)m, max);
    for (int j = 0; j < n; j++) {
        double want = j >= lo && j < hi ? exp(capped[j] - max) : 0.0;
        uint16_t half;
        memcpy(&half, (uint16_t *)(void *)s + j, sizeof half);
        double got = (double)(halves ? bf16_to_f32(half) : s[j]);
        total += got;
        if (!(fabs(got - want) <= slack * want))
            check_fail(c, "%s [%d,%d) of %d cap %g: s[%d] is %g, expected %g", type_name(type), lo, hi, n, (double)cap, j, got,
                       want);
    }
    if (!(fabs((double)l - sum) <= slack * sum) || !(fabs((double)l - total) <= 4e-6 * total))
        check_fail(c, "%s [%d,%d) of %d cap %g: sum %g, expected %g (of the weights %g)", type_name(type), lo, hi, n, (double)cap,
                   (double)l, sum, total);
    drop(c, &g);
}

static void check_softmax(check *c, int arg)
{
    (void)arg;
    static const int cases[][3] = {{0, 1, 1},    {0, 64, 64},     {3, 17, 17},    {5, 5, 8},       {40, 20, 64},
                                   {0, 33, 40},  {63, 64, 64},    {10, 50, 64},   {0, 16, 16},     {15, 16, 16},
                                   {0, 17, 512}, {200, 512, 512}, {77, 301, 333}, {500, 511, 512}, {0, 512, 512}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int t = 0; t < N_KV_TYPES; t++)
            for (int capped = 0; capped < 2; capped++)
                softmax_once(c, kv_types[t], cases[i][0], cases[i][1], cases[i][2], capped ? 20.0f : 0.0f);
    /* Scores that are all minus infinity leave no mark. */
    for (int t = 0; t < N_KV_TYPES; t++) {
        _Alignas(64) float s[64];
        float m = 1.0f, l = 1.0f;
        for (int j = 0; j < 64; j++)
            s[j] = -INFINITY;
        c->level->attn_softmax(kv_types[t], s, 0, 40, 64, 0.0f, &m, &l);
        if (l != 0.0f || m != -INFINITY || s[0] != 0.0f)
            check_fail(c, "all minus infinity: maximum %g sum %g", (double)m, (double)l);
    }
}

void check_attention_all(check *c)
{
    check_run(c, "kv.k", check_kv, 0);
    check_run(c, "kv.v", check_kv, 1);
    check_run(c, "kv.k.bytes", check_stored, 0);
    check_run(c, "kv.v.bytes", check_stored, 1);
    check_run(c, "kv.q4_0.error", check_q4_error, 0);
    check_run(c, "attn.qk", check_products, 0);
    check_run(c, "attn.pv", check_products, 1);
    check_run(c, "attn.softmax", check_softmax, 0);
}
