/*
 * Where the values and scales of a token lie in pages of quantized keys and values: the layouts of kernels.h, for the kernels of
 * every level. How a block of values becomes bytes is the level's own.
 */
#ifndef KERNELS_KV_PAGE_H
#define KERNELS_KV_PAGE_H

#include <string.h>

#include "kernels/kernels.h"

#define KV_BLOCK 32 /* head dims that share a scale */

static inline bool kv_quantized(dil_type type) { return type == DIL_TYPE_Q8_0 || type == DIL_TYPE_Q4_0; }

/* Bytes that n values of a token take. */
static inline size_t kv_value_bytes(dil_type type, int n) { return type == DIL_TYPE_Q4_0 ? ((size_t)n + 1) / 2 : (size_t)n; }

/* Scales of a token. */
static inline size_t kv_n_scales(int head_dim) { return ((size_t)head_dim + KV_BLOCK - 1) / KV_BLOCK; }

/* f16 scales: K [kv_n_scales][KV_PAGE], V [KV_PAGE][kv_n_scales]. */
static inline const uint8_t *kv_scales(dil_type type, const void *page, int head_dim)
{
    return (const uint8_t *)page + kv_value_bytes(type, head_dim) * KV_PAGE;
}

/* n <= KV_BLOCK values as bytes to q[KV_BLOCK], of which kv_value_bytes() count; returns their scale. */
typedef uint16_t (*kv_encode_fn)(dil_type type, const float *f, int n, uint8_t *q);

/* One token of K: value i and scale b stand i * KV_PAGE bytes and b * KV_PAGE halves behind those of dim 0. */
static inline void kv_put_k(kv_encode_fn encode, dil_type type, void *page, int slot, const float *k, int head_dim)
{
    uint8_t *values = (uint8_t *)page + slot, *scales = (uint8_t *)page + kv_value_bytes(type, head_dim) * KV_PAGE + 2 * slot;
    for (int d = 0; d < head_dim; d += KV_BLOCK, scales += 2 * KV_PAGE) {
        uint8_t q[KV_BLOCK];
        const int n = head_dim - d < KV_BLOCK ? head_dim - d : KV_BLOCK;
        const uint16_t scale = encode(type, k + d, n, q);
        memcpy(scales, &scale, sizeof scale);
        for (size_t i = 0; i < kv_value_bytes(type, n); i++, values += KV_PAGE)
            *values = q[i];
    }
}

/* One token of V. */
static inline void kv_put_v(kv_encode_fn encode, dil_type type, void *page, int slot, const float *v, int head_dim)
{
    const size_t row = kv_value_bytes(type, head_dim);
    uint8_t *values = (uint8_t *)page + (size_t)slot * row;
    uint8_t *scales = (uint8_t *)page + row * KV_PAGE + (size_t)slot * kv_n_scales(head_dim) * 2;
    for (int d = 0; d < head_dim; d += KV_BLOCK, scales += 2) {
        uint8_t q[KV_BLOCK];
        const int n = head_dim - d < KV_BLOCK ? head_dim - d : KV_BLOCK;
        const uint16_t scale = encode(type, v + d, n, q);
        memcpy(scales, &scale, sizeof scale);
        memcpy(values, q, kv_value_bytes(type, n));
        values += kv_value_bytes(type, n);
    }
}

#endif
