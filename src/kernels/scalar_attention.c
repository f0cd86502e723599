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
        uint16_t d = quantize_head_block(k + 32 * b, n, p + (size_t)b * 32 * KV_PAGE + (size_t)slot, KV_PAGE);
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
                dst[at] = (float)(int8_t)p[at] * f16_to_f32(get_half(scales, (size_t)(d / 32) * KV_PAGE + (size_t)j));
            else
                dst[at] = get_float(type, p, at);
        }
    }
}

static void kv_load_v(dil_type type, const void *page, int head_dim, int n_slots, float *dst, size_t v_stride)
{
    const uint8_t *p = page, *scales = p + (size_t)head_dim * KV_PAGE;
    int n = round_up_16(n_slots), blocks = scale_blocks(head_dim);
    for (int j = 0; j < n; j++) {
        for (int d = 0; d < head_dim; d++) {
            size_t at = (size_t)j * (size_t)head_dim + (size_t)d;
            float v;
            if (type == DIL_TYPE_Q8_0)
                v = (float)(int8_t)p[at] * f16_to_f32(get_half(scales, (size_t)(j * blocks + d / 32)));
            else
                v = get_float(type, p, at);
            dst[(size_t)j * v_stride + (size_t)d] = v;
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
    k->kv_store_k = kv_store_k;
    k->kv_store_v = kv_store_v;
    k->kv_load_k = kv_load_k;
    k->kv_load_v = kv_load_v;
    k->attn_query = attn_query;
    k->attn_qk = attn_qk;
    k->attn_pv = attn_pv;
    k->attn_softmax = attn_softmax;
}
