/* KV pages and attention over one page, in plain C. Page layouts: kernels.h. */
#include <math.h>
#include <string.h>

#include "kernels/scalar.h"

static int round_up_16(int n) { return (n + 15) / 16 * 16; }

static int scale_blocks(int head_dim) { return (head_dim + 31) / 32; }

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

/* n <= 32 values as bytes (q[i * q_step]) and a scale rounded to f16, with which they were rounded. */
static uint16_t quantize_head_block(const float *f, int n, uint8_t *q, size_t q_step)
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
        q[(size_t)i * q_step] = (uint8_t)(int8_t)lrintf(v);
    }
    return d;
}

static void kv_store_k(dil_type type, void *page, int slot, const float *k, int head_dim)
{
    uint8_t *p = page;
    if (type != DIL_TYPE_Q8_0) {
        for (int d = 0; d < head_dim; d++)
            put_float(type, p, (size_t)d * KV_PAGE + (size_t)slot, k[d]);
        return;
    }
    uint8_t *scales = p + (size_t)head_dim * KV_PAGE;
    for (int b = 0; b < scale_blocks(head_dim); b++) {
        int n = head_dim - 32 * b < 32 ? head_dim - 32 * b : 32;
        uint16_t d = quantize_head_block(k + 32 * b, n, p + (size_t)b * 32 * KV_PAGE + (size_t)slot,
                                         KV_PAGE);
        put_half(scales, (size_t)b * KV_PAGE + (size_t)slot, d);
    }
}

static void kv_store_v(dil_type type, void *page, int slot, const float *v, int head_dim)
{
    uint8_t *p = page;
    size_t row = (size_t)slot * (size_t)head_dim;
    if (type != DIL_TYPE_Q8_0) {
        for (int d = 0; d < head_dim; d++)
            put_float(type, p, row + (size_t)d, v[d]);
        return;
    }
    uint8_t *scales = p + (size_t)head_dim * KV_PAGE;
    int blocks = scale_blocks(head_dim);
    for (int b = 0; b < blocks; b++) {
        int n = head_dim - 32 * b < 32 ? head_dim - 32 * b : 32;
        uint16_t d = quantize_head_block(v + 32 * b, n, p + row + (size_t)b * 32, 1);
        put_half(scales, (size_t)slot * (size_t)blocks + (size_t)b, d);
    }
}

static void kv_load_k(dil_type type, const void *page, int head_dim, int n_slots, float *dst)
{
    const uint8_t *p = page, *scales = p + (size_t)head_dim * KV_PAGE;
    int n = round_up_16(n_slots);
    for (int d = 0; d < head_dim; d++) {
        for (int j = 0; j < n; j++) {
            size_t at = (size_t)d * KV_PAGE + (size_t)j;
            if (type == DIL_TYPE_Q8_0)
                dst[at] = (float)(int8_t)p[at] *
                          f16_to_f32(get_half(scales, (size_t)(d / 32) * KV_PAGE + (size_t)j));
            else
                dst[at] = get_float(type, p, at);
        }
    }
}

static void kv_load_v(dil_type type, const void *page, int head_dim, int n_slots, float *dst,
                      size_t v_stride)
{
    const uint8_t *p = page, *scales = p + (size_t)head_dim * KV_PAGE;
    int n = round_up_16(n_slots), blocks = scale_blocks(head_dim);
    for (int j = 0; j < n; j++) {
        for (int d = 0; d < head_dim; d++) {
            size_t at = (size_t)j * (size_t)head_dim + (size_t)d;
            float v;
            if (type == DIL_TYPE_Q8_0)
                v = (float)(int8_t)p[at] *
                    f16_to_f32(get_half(scales, (size_t)(j * blocks + d / 32)));
            else
                v = get_float(type, p, at);
            dst[(size_t)j * v_stride + (size_t)d] = v;
        }
    }
}

static void attn_qk(const float *q, size_t q_stride, int n_q, const float *k, int head_dim,
                    int n_slots, float scale, float *s)
{
    int n = round_up_16(n_slots);
    for (int i = 0; i < n_q; i++, q += q_stride, s += KV_PAGE) {
        float acc[KV_PAGE] = {0};
        for (int d = 0; d < head_dim; d++)
            for (int j = 0; j < n; j++)
                acc[j] = fmaf(q[d], k[(size_t)d * KV_PAGE + (size_t)j], acc[j]);
        for (int j = 0; j < n; j++)
            s[j] = scale * acc[j];
    }
}

static void attn_pv(const float *s, int n_q, const float *v, size_t v_stride, int head_dim,
                    int n_slots, float *acc, size_t acc_stride)
{
    for (int i = 0; i < n_q; i++, s += KV_PAGE, acc += acc_stride)
        for (int j = 0; j < n_slots; j++)
            for (int d = 0; d < head_dim; d++)
                acc[d] = fmaf(s[j], v[(size_t)j * v_stride + (size_t)d], acc[d]);
}

static float attn_softmax(float *s, int lo, int hi, int n_slots, float cap, float *m, float *l)
{
    float max = *m, sum = 0.0f;
    for (int j = lo; j < hi; j++) {
        if (cap > 0.0f)
            s[j] = cap * tanhf(s[j] / cap);
        max = s[j] > max ? s[j] : max;
    }
    bool none = hi <= lo || max == -INFINITY;
    for (int j = 0; j < round_up_16(n_slots); j++) {
        s[j] = !none && j >= lo && j < hi ? expf(s[j] - max) : 0.0f;
        sum += s[j];
    }
    if (none)
        return 1.0f;
    float factor = expf(*m - max);
    *l = *l * factor + sum;
    *m = max;
    return factor;
}

void scalar_add_attention(kernels *k)
{
    k->kv_store_k = kv_store_k;
    k->kv_store_v = kv_store_v;
    k->kv_load_k = kv_load_k;
    k->kv_load_v = kv_load_v;
    k->attn_qk = attn_qk;
    k->attn_pv = attn_pv;
    k->attn_softmax = attn_softmax;
}
