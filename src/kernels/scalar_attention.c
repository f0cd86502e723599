/* KV pages and attention over one page, in plain C. Page layouts: kernels.h. */
#include <math.h>
#include <string.h>

#include "kernels/kv_page.h"
#include "kernels/scalar.h"

static int round_up_16(int n) { return (n + 15) / 16 * 16; }

static void put_half(uint8_t *p, size_t at, uint16_t h) { memcpy(p + 2 * at, &h, sizeof h); }

static uint16_t get_half(const uint8_t *p, size_t at)
{
    uint16_t h;
    memcpy(&h, p + 2 * at, sizeof h);
    return h;
}

/* Stores f as the at-th value of a page of floats. */
static void put_float(dil_type type, uint8_t *page, size_t at, float f)
{
    if (type == DIL_TYPE_F32)
        memcpy(page + 4 * at, &f, sizeof f);
    else
        put_half(page, at, type == DIL_TYPE_F16 ? f32_to_f16(f) : f32_to_bf16(f));
}

static float get_float(dil_type type, const uint8_t *page, size_t at)
{
    if (type == DIL_TYPE_F32) {
        float f;
        memcpy(&f, page + 4 * at, sizeof f);
        return f;
    }
    return type == DIL_TYPE_F16 ? f16_to_f32(get_half(page, at)) : bf16_to_f32(get_half(page, at));
}

static uint16_t encode_q8(const float *f, int n, uint8_t *q)
{
    float amax = 0.0f;
    for (int i = 0; i < n; i++)
        amax = fabsf(f[i]) > amax ? fabsf(f[i]) : amax;
    uint16_t d = f32_to_f16(amax / 127.0f);
    float scale = f16_to_f32(d), inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
    for (int i = 0; i < n; i++) {
        float v = f[i] * inverse;
        v = v > -127.0f ? v : -127.0f; /* NaN too */
        v = v < 127.0f ? v : 127.0f;
        q[i] = (uint8_t)(int8_t)lrintf(v);
    }
    return d;
}

/* Y of a block of Q4_0, zeros behind its end; returns m. */
static float fine_grid(const float *f, int n, int32_t fine[KV_BLOCK])
{
    float low = 0.0f, top = 0.0f;
    for (int i = 0; i < n; i++) {
        low = f[i] < low ? f[i] : low;
        top = f[i] > top ? f[i] : top;
    }
    float m = top > -low ? top : low, factor = -16384.0f / m;
    bool usable = fabsf(factor) <= 3.0e38f;
    for (int i = 0; i < KV_BLOCK; i++) {
        float v = usable && i < n ? f[i] * factor : 0.0f;
        fine[i] = v == v ? (int32_t)lrintf(v) : 0;
    }
    return m;
}

static uint16_t encode_q4(const float *f, int n, uint8_t *q)
{
    int32_t fine[KV_BLOCK];
    int8_t chosen[KV_BLOCK] = {0};
    int64_t best_a = 0, best_b = 0;
    float m = fine_grid(f, n, fine);
    for (int c = 0; c < KV_GRIDS; c++) {
        int8_t tried[KV_BLOCK];
        int64_t a = 0, b = 0;
        for (int i = 0; i < KV_BLOCK; i++) {
            int32_t scaled = fine[i] * (17 - c) + (1 << 14);
            scaled = (scaled - (scaled & 0x7fff)) / (1 << 15); /* towards minus infinity */
            tried[i] = (int8_t)(scaled < -8 ? -8 : scaled > 7 ? 7 : scaled);
            a += fine[i] * tried[i];
            b += tried[i] * tried[i];
        }
        if (c > 0 && a * a * best_b <= best_a * best_a * b)
            continue;
        memcpy(chosen, tried, sizeof chosen);
        best_a = a;
        best_b = b;
    }
    for (int i = 0; i < KV_BLOCK / 2; i++)
        q[i] = (uint8_t)((chosen[2 * i] + 8) | (chosen[2 * i + 1] + 8) << 4);
    return best_b > 0 ? f32_to_f16((float)best_a / (float)best_b * (m / -16384.0f)) : 0;
}

static uint16_t encode(dil_type type, const float *f, int n, uint8_t *q)
{
    return type == DIL_TYPE_Q4_0 ? encode_q4(f, n, q) : encode_q8(f, n, q);
}

void scalar_kv_store_k(dil_type type, void *page, int slot, const float *k, int head_dim)
{
    if (kv_quantized(type)) {
        kv_put_k(encode, type, page, slot, k, head_dim);
        return;
    }
    for (int d = 0; d < head_dim; d++)
        put_float(type, page, (size_t)d * KV_PAGE + (size_t)slot, k[d]);
}

void scalar_kv_store_v(dil_type type, void *page, int slot, const float *v, int head_dim)
{
    if (kv_quantized(type)) {
        kv_put_v(encode, type, page, slot, v, head_dim);
        return;
    }
    for (int d = 0; d < head_dim; d++)
        put_float(type, page, (size_t)slot * (size_t)head_dim + (size_t)d, v[d]);
}

/* Value d of a token whose value 0 is at p, the bytes of its values `step` apart, without its scale. */
static float quantized_value(dil_type type, const uint8_t *p, size_t step, int d)
{
    if (type == DIL_TYPE_Q8_0)
        return (float)(int8_t)p[(size_t)d * step];
    return (float)((p[(size_t)(d / 2) * step] >> (d % 2 * 4) & 15) - 8);
}

static void kv_load_k(dil_type type, const void *page, int head_dim, int n_slots, float *dst)
{
    const uint8_t *p = page, *scales = kv_scales(type, page, head_dim);
    int n = round_up_16(n_slots);
    for (int d = 0; d < head_dim; d++) {
        for (int j = 0; j < n; j++) {
            size_t at = (size_t)d * KV_PAGE + (size_t)j;
            if (kv_quantized(type))
                dst[at] = quantized_value(type, p + j, KV_PAGE, d) *
                          f16_to_f32(get_half(scales, (size_t)(d / KV_BLOCK) * KV_PAGE + (size_t)j));
            else
                dst[at] = get_float(type, p, at);
        }
    }
}

static void kv_load_v(dil_type type, const void *page, int head_dim, int n_slots, float *dst, size_t v_stride)
{
    const uint8_t *p = page, *scales = kv_scales(type, page, head_dim);
    size_t row = kv_value_bytes(type, head_dim), n_scales = kv_n_scales(head_dim);
    for (size_t j = 0; j < (size_t)round_up_16(n_slots); j++) {
        for (int d = 0; d < head_dim; d++) {
            float v;
            if (kv_quantized(type))
                v = quantized_value(type, p + j * row, 1, d) * f16_to_f32(get_half(scales, j * n_scales + (size_t)(d / KV_BLOCK)));
            else
                v = get_float(type, p, j * (size_t)head_dim + (size_t)d);
            dst[j * v_stride + (size_t)d] = v;
        }
    }
}

static void attn_query(dil_type type, const float *q, int head_dim, float scale, void *dst)
{
    (void)type;
    for (int d = 0; d < head_dim; d++)
        ((float *)dst)[d] = q[d] * scale;
}

static void attn_qk(const attn_page *a, const void *q, size_t q_stride, float *s, size_t s_stride)
{
    float *k = a->scratch;
    kv_load_k(a->type, a->page, a->head_dim, a->n_slots[a->n_rows - 1], k);
    for (int i = 0; i < a->n_rows; i++) {
        const float *row = (const float *)(const void *)((const char *)q + (size_t)i * q_stride);
        float acc[KV_PAGE] = {0};
        for (int d = 0; d < a->head_dim; d++)
            for (int j = 0; j < a->n_slots[i]; j++)
                acc[j] = fmaf(row[d], k[(size_t)d * KV_PAGE + (size_t)j], acc[j]);
        memcpy(s + (size_t)i * s_stride + a->first_slot, acc, (size_t)a->n_slots[i] * sizeof *s);
    }
}

static void attn_pv(const attn_page *a, const float *p, size_t p_stride, float *acc, size_t acc_stride)
{
    float *v = a->scratch;
    size_t dim = (size_t)a->head_dim;
    kv_load_v(a->type, a->page, a->head_dim, a->n_slots[a->n_rows - 1], v, dim);
    for (int i = 0; i < a->n_rows; i++, acc += acc_stride)
        for (int j = 0; j < a->n_slots[i]; j++)
            for (size_t d = 0; d < dim; d++)
                acc[d] = fmaf(p[(size_t)i * p_stride + (size_t)(a->first_slot + j)], v[(size_t)j * dim + d], acc[d]);
}

static void attn_softmax(dil_type type, float *s, int lo, int hi, int n, float cap, float *m, float *l)
{
    (void)type;
    float max = -INFINITY, sum = 0.0f;
    for (int j = lo; j < hi; j++) {
        if (cap > 0.0f)
            s[j] = cap * tanhf(s[j] / cap);
        max = s[j] > max ? s[j] : max;
    }
    for (int j = 0; j < n; j++) {
        s[j] = max > -INFINITY && j >= lo && j < hi ? expf(s[j] - max) : 0.0f;
        sum += s[j];
    }
    *m = max;
    *l = sum;
}

size_t attn_row_bytes(int head_dim) { return (size_t)round_up_16(head_dim) * sizeof(float); }

size_t attn_scratch_bytes(int head_dim) { return KV_PAGE * attn_row_bytes(head_dim); }

void scalar_add_attention(kernels *k)
{
    k->kv_store_k = scalar_kv_store_k;
    k->kv_store_v = scalar_kv_store_v;
    k->kv_load_k = kv_load_k;
    k->kv_load_v = kv_load_v;
    k->attn_query = attn_query;
    k->attn_qk = attn_qk;
    k->attn_pv = attn_pv;
    k->attn_softmax = attn_softmax;
}
