/* KV pages and attention: stores read back by every level, products within rounding, rows independent of how many run. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

static const int head_dims[] = {8, 16, 24, 32, 40, 64, 80, 96, 128, 256};
enum { N_HEAD_DIMS = sizeof head_dims / sizeof *head_dims };
static const dil_type kv_types[] = {DIL_TYPE_F32, DIL_TYPE_F16, DIL_TYPE_BF16, DIL_TYPE_Q8_0};
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
    default: return amax / 127.0 * 0.56 + 1e-7; /* half a step, and the scale's own rounding */
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
        out[i] = guarded_new(
            (is_v ? (read_slots - 1) * stride + hd : (hd - 1) * KV_PAGE + read_slots) * 4, 4);
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
                check_fail(c, "%s hd %d slot %d dim %d: loads %g, scalar loads %g", type_name(type),
                           head_dim, j, d, (double)got, (double)scalar);
            if (!(fabs((double)got - (double)token[d]) <=
                  store_slack(type, (double)token[d], block_amax(token, d, head_dim))))
                check_fail(c, "%s hd %d slot %d dim %d: %g became %g", type_name(type), head_dim, j,
                           d, (double)token[d], (double)got);
        }
    }
    drop(c, &out[0]);
    drop(c, &out[1]);
    drop(c, &page);
    free(v);
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

static void qk_once(check *c, int head_dim, int n_q, int n_slots)
{
    size_t hd = (size_t)head_dim, q_stride = hd + 5, read_slots = (size_t)round_up_16(n_slots);
    guarded q = guarded_new((((size_t)n_q - 1) * q_stride + hd) * 4, 4);
    guarded k = guarded_new(((hd - 1) * KV_PAGE + read_slots) * 4, 4);
    guarded s = guarded_new((((size_t)n_q - 1) * KV_PAGE + read_slots) * 4, 4);
    guarded one = guarded_new(read_slots * 4, 4);
    for (int i = 0; i < n_q; i++)
        random_floats((float *)q.p + (size_t)i * q_stride, hd, DATA_NORMAL);
    for (size_t d = 0; d < hd; d++)
        random_floats((float *)k.p + d * KV_PAGE, (size_t)n_slots, DATA_NORMAL);
    float scale = 0.125f;
    c->level->attn_qk(q.p, q_stride, n_q, k.p, head_dim, n_slots, scale, s.p);
    for (size_t i = 0; i < (size_t)n_q; i++) {
        c->level->attn_qk((float *)q.p + i * q_stride, q_stride, 1, k.p, head_dim, n_slots, scale,
                          one.p);
        for (size_t j = 0; j < (size_t)n_slots; j++) {
            double sum = 0.0, magnitude = 0.0;
            for (size_t d = 0; d < hd; d++) {
                double product = (double)((float *)q.p)[i * q_stride + d] *
                                 (double)((float *)k.p)[d * KV_PAGE + j];
                sum += product;
                magnitude += fabs(product);
            }
            float got = ((float *)s.p)[i * KV_PAGE + j];
            if (!(fabs((double)got - 0.125 * sum) <= 1e-6 * magnitude))
                check_fail(c, "hd %d n_q %d slots %d: s[%zu][%zu] is %g, expected %g", head_dim,
                           n_q, n_slots, i, j, (double)got, 0.125 * sum);
            if (!same_bits(got, ((float *)one.p)[j]))
                check_fail(c, "hd %d n_q %d slots %d: row %zu depends on n_q", head_dim, n_q,
                           n_slots, i);
        }
    }
    drop(c, &q);
    drop(c, &k);
    drop(c, &s);
    drop(c, &one);
}

static void pv_once(check *c, int head_dim, int n_q, int n_slots)
{
    size_t hd = (size_t)head_dim, v_stride = hd + 3, acc_stride = hd + 7, slots = (size_t)n_slots;
    guarded s = guarded_new((((size_t)n_q - 1) * KV_PAGE + slots) * 4, 4);
    guarded v = guarded_new(((slots - 1) * v_stride + hd) * 4, 4);
    guarded acc = guarded_new((((size_t)n_q - 1) * acc_stride + hd) * 4, 4);
    guarded one = guarded_new(hd * 4, 4);
    float *before = malloc(acc.bytes);
    for (size_t j = 0; j < slots; j++)
        random_floats((float *)v.p + j * v_stride, hd, DATA_NORMAL);
    for (size_t i = 0; i < (size_t)n_q; i++) {
        random_floats((float *)s.p + i * KV_PAGE, slots, DATA_NORMAL);
        random_floats((float *)acc.p + i * acc_stride, hd, DATA_NORMAL);
    }
    memcpy(before, acc.p, acc.bytes);
    c->level->attn_pv(s.p, n_q, v.p, v_stride, head_dim, n_slots, acc.p, acc_stride);
    for (size_t i = 0; i < (size_t)n_q; i++) {
        memcpy(one.p, before + i * acc_stride, hd * 4);
        c->level->attn_pv((float *)s.p + i * KV_PAGE, 1, v.p, v_stride, head_dim, n_slots, one.p,
                          acc_stride);
        for (size_t d = 0; d < hd; d++) {
            double sum = (double)before[i * acc_stride + d], magnitude = fabs(sum);
            for (size_t j = 0; j < slots; j++) {
                double product = (double)((float *)s.p)[i * KV_PAGE + j] *
                                 (double)((float *)v.p)[j * v_stride + d];
                sum += product;
                magnitude += fabs(product);
            }
            float got = ((float *)acc.p)[i * acc_stride + d];
            if (!(fabs((double)got - sum) <= 1e-6 * magnitude))
                check_fail(c, "hd %d n_q %d slots %d: acc[%zu][%zu] is %g, expected %g", head_dim,
                           n_q, n_slots, i, d, (double)got, sum);
            if (!same_bits(got, ((float *)one.p)[d]))
                check_fail(c, "hd %d n_q %d slots %d: row %zu depends on n_q", head_dim, n_q,
                           n_slots, i);
        }
    }
    free(before);
    drop(c, &s);
    drop(c, &v);
    drop(c, &acc);
    drop(c, &one);
}

/* arg: 0 qk, 1 pv */
static void check_products(check *c, int arg)
{
    static const int counts[] = {1, 2, 3, 4, 5, 7, 8, 9, 16}, slots[] = {1, 7, 16, 17, 40, 63, 64};
    for (int h = 0; h < N_HEAD_DIMS; h++)
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
            for (size_t j = 0; j < sizeof slots / sizeof *slots; j++)
                (arg ? pv_once : qk_once)(c, head_dims[h], counts[i], slots[j]);
}

static void softmax_once(check *c, int lo, int hi, int n_slots, float cap, bool first)
{
    size_t n = (size_t)round_up_16(n_slots);
    guarded g = guarded_new(n * 4, 4);
    float *s = g.p, before[KV_PAGE], m = first ? -INFINITY : 0.75f, l = first ? 0.0f : 2.5f,
          m_old = m, l_old = l;
    for (int j = lo; j < hi; j++)
        s[j] = random_float() * 8.0f; /* the others stay NaN */
    memcpy(before, s, n * 4);
    float factor = c->level->attn_softmax(s, lo, hi, n_slots, cap, &m, &l);
    double max = (double)m_old, sum = 0.0, capped[KV_PAGE] = {0};
    for (int j = lo; j < hi; j++) {
        double x = (double)before[j];
        capped[j] = cap > 0.0f ? (double)cap * tanh(x / (double)cap) : x;
        max = capped[j] > max ? capped[j] : max;
    }
    for (int j = lo; j < hi; j++)
        sum += exp(capped[j] - max);
    double want_f = hi <= lo ? 1.0 : first ? 0.0 : exp((double)m_old - max);
    double want_l = hi <= lo ? (double)l_old : (double)l_old * want_f + sum;
    if (hi <= lo ? !same_bits(m, m_old) : fabs((double)m - max) > 2e-6 * (fabs(max) + 1))
        check_fail(c, "[%d,%d) of %d cap %g: maximum %g, expected %g", lo, hi, n_slots, (double)cap,
                   (double)m, max);
    if (fabs((double)factor - want_f) > 4e-6 * want_f || fabs((double)l - want_l) > 4e-6 * want_l)
        check_fail(c, "[%d,%d) of %d cap %g: factor %g sum %g, expected %g %g", lo, hi, n_slots,
                   (double)cap, (double)factor, (double)l, want_f, want_l);
    for (int j = 0; j < (int)n; j++) {
        double want = j >= lo && j < hi ? exp(capped[j] - max) : 0.0;
        if (!(fabs((double)s[j] - want) <= 4e-6 * want))
            check_fail(c, "[%d,%d) of %d cap %g: s[%d] is %g, expected %g", lo, hi, n_slots,
                       (double)cap, j, (double)s[j], want);
    }
    drop(c, &g);
}

static void check_softmax(check *c, int arg)
{
    (void)arg;
    static const int cases[][3] = {{0, 1, 1},    {0, 64, 64}, {3, 17, 17},  {5, 5, 8},
                                   {40, 20, 64}, {0, 33, 40}, {63, 64, 64}, {10, 50, 64},
                                   {0, 16, 16},  {15, 16, 16}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int variant = 0; variant < 4; variant++)
            softmax_once(c, cases[i][0], cases[i][1], cases[i][2], variant % 2 ? 20.0f : 0.0f,
                         variant / 2);
    /* Scores that are all minus infinity leave no mark. */
    float s[16], m = -INFINITY, l = 0.0f;
    for (int j = 0; j < 16; j++)
        s[j] = -INFINITY;
    float factor = c->level->attn_softmax(s, 0, 16, 16, 0.0f, &m, &l);
    if (isnan(factor) || isnan(l) || isnan(s[0]) || l != 0.0f)
        check_fail(c, "all minus infinity: factor %g sum %g", (double)factor, (double)l);
}

void check_attention_all(check *c)
{
    check_run(c, "kv.k", check_kv, 0);
    check_run(c, "kv.v", check_kv, 1);
    check_run(c, "attn.qk", check_products, 0);
    check_run(c, "attn.pv", check_products, 1);
    check_run(c, "attn.softmax", check_softmax, 0);
}
