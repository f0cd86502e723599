/*
 * Looks through tensor data for what no weight may be: NaN or infinity, in float values and in the
 * scales of quantized blocks (a bad scale makes the whole block NaN or infinite). Reads at memory
 * speed: only the scale fields are looked at.
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/status.h"
#include "file/gguf_internal.h"

#define NO_FIELD 255
#define CHUNK_BYTES ((uint64_t)4 << 20)
#define MAX_BLOCK_VALUES 1024

/* Byte offsets of the f16 scales in a block. Types that are not here are decoded instead. */
typedef struct scale_fields {
    dil_type type;
    uint8_t first, second;
} scale_fields;

static const scale_fields f16_scales[] = {
    {DIL_TYPE_Q4_0, 0, NO_FIELD},   {DIL_TYPE_Q4_1, 0, 2},           {DIL_TYPE_Q5_0, 0, NO_FIELD},
    {DIL_TYPE_Q5_1, 0, 2},          {DIL_TYPE_Q8_0, 0, NO_FIELD},    {DIL_TYPE_Q2_K, 80, 82},
    {DIL_TYPE_Q3_K, 108, NO_FIELD}, {DIL_TYPE_Q4_K, 0, 2},           {DIL_TYPE_Q5_K, 0, 2},
    {DIL_TYPE_Q6_K, 208, NO_FIELD}, {DIL_TYPE_IQ2_XXS, 0, NO_FIELD}, {DIL_TYPE_IQ2_XS, 0, NO_FIELD},
    {DIL_TYPE_IQ2_S, 0, NO_FIELD},  {DIL_TYPE_IQ3_XXS, 0, NO_FIELD}, {DIL_TYPE_IQ3_S, 0, NO_FIELD},
    {DIL_TYPE_IQ1_S, 0, NO_FIELD},  {DIL_TYPE_IQ4_NL, 0, NO_FIELD},  {DIL_TYPE_IQ4_XS, 0, NO_FIELD},
    {DIL_TYPE_TQ1_0, 52, NO_FIELD}, {DIL_TYPE_TQ2_0, 64, NO_FIELD},
};

static bool f16_is_bad(const uint8_t *p) { return (p[1] & 0x7c) == 0x7c; }

/* Values of `size` bytes whose top two bytes have all bits of mask set are not finite. */
static uint64_t scan_floats(const uint8_t *data, uint64_t n, uint32_t size, uint32_t mask)
{
    for (uint64_t i = 0; i < n; i++) {
        const uint8_t *top = data + i * size + size - 2;
        if (((top[0] | (uint32_t)top[1] << 8) & mask) == mask)
            return i;
    }
    return n;
}

static uint64_t scan_f32(const uint8_t *data, uint64_t n)
{
    uint64_t i = 0;
    for (; i + 1024 <= n; i += 1024) { /* without an early exit, so that the compiler uses vectors */
        uint32_t bad = 0, bits;
        for (uint64_t j = i; j < i + 1024; j++) {
            memcpy(&bits, data + j * 4, 4);
            bad |= (bits & 0x7f800000u) == 0x7f800000u;
        }
        if (bad)
            break;
    }
    return i + scan_floats(data + i * 4, n - i, 4, 0x7f80);
}

static uint64_t scan_decoded(const format *f, const uint8_t *data, uint64_t n)
{
    float values[MAX_BLOCK_VALUES];
    if (!f->decode || f->block_values > MAX_BLOCK_VALUES)
        return n;
    for (uint64_t i = 0; i < n; i++) {
        f->decode(data + i * f->block_bytes, values, f->block_values);
        if (scan_floats((const uint8_t *)values, f->block_values, 4, 0x7f80) < f->block_values)
            return i;
    }
    return n;
}

uint64_t gguf_scan_blocks(dil_type type, const uint8_t *data, uint64_t n_blocks)
{
    const format *f = format_get(type);
    switch (type) {
    case DIL_TYPE_F32: return scan_f32(data, n_blocks);
    case DIL_TYPE_F16: return scan_floats(data, n_blocks, 2, 0x7c00);
    case DIL_TYPE_BF16: return scan_floats(data, n_blocks, 2, 0x7f80);
    case DIL_TYPE_F64: return scan_floats(data, n_blocks, 8, 0x7ff0);
    default: break;
    }
    for (size_t k = 0; k < sizeof f16_scales / sizeof *f16_scales; k++) {
        const scale_fields *s = &f16_scales[k];
        if (s->type != type)
            continue;
        for (uint64_t i = 0; i < n_blocks; i++) {
            const uint8_t *block = data + i * f->block_bytes;
            if (f16_is_bad(block + s->first) || (s->second != NO_FIELD && f16_is_bad(block + s->second)))
                return i;
        }
        return n_blocks;
    }
    return scan_decoded(f, data, n_blocks);
}

/* ---- all tensors ---- */

typedef struct scan {
    const gguf *g;
    gguf_sink *sink;
    dil_progress_fn progress;
    void *user;
    uint64_t done, total;
    dil_status status;
} scan;

static dil_status scan_tensor(scan *c, const gguf_tensor *t)
{
    const gguf_shard *s = &c->g->shards[t->shard];
    const format *f = format_get(t->type);
    const uint8_t *data = s->bytes + t->offset;
    uint64_t n = t->size_bytes / f->block_bytes, step = CHUNK_BYTES / f->block_bytes;
    char shown[GGUF_SHOWN];
    for (uint64_t i = 0; i < n; i += step) {
        uint64_t m = n - i < step ? n - i : step, found = gguf_scan_blocks(t->type, data + i * f->block_bytes, m);
        c->done += m * f->block_bytes;
        if (c->progress && !c->progress(c->user, "reading tensors", c->done, c->total))
            return DIL_FAIL(c->sink->err, DIL_CANCELLED, "%s: the check was stopped", c->g->path);
        if (found == m)
            continue;
        c->done += (n - i - m) * f->block_bytes;
        uint64_t value = (i + found) * f->block_values;
        return gguf_defect(c->sink, s, t->offset + (i + found) * f->block_bytes,
                           "tensor %s: %s %s at element %" PRIu64 " (row %" PRIu64
                           "): wanted finite numbers, found NaN or infinity",
                           gguf_show(t->name, shown), f->name, f->is_quantized ? _("block scale") : _("value"), value,
                           value / t->ne[0]);
    }
    return DIL_OK;
}

static void run_scan(void *ctx)
{
    scan *c = ctx;
    c->status = DIL_OK;
    for (uint64_t i = 0; i < c->g->n_tensors && c->status == DIL_OK; i++)
        if (c->g->tensors[i].size_bytes > 0)
            c->status = scan_tensor(c, &c->g->tensors[i]);
}

dil_status gguf_check_data(const gguf *g, gguf_sink *sink, dil_progress_fn progress, void *user)
{
    scan c = {.g = g, .sink = sink, .progress = progress, .user = user};
    for (uint64_t i = 0; i < g->n_tensors; i++)
        c.total += g->tensors[i].size_bytes;
    for (int i = 0; i < g->n_shards; i++)
        if (g->shards[i].file.fd >= 0 && g->shards[i].bytes)
            os_advise_sequential(g->shards[i].bytes, (size_t)g->shards[i].size_bytes);
    DIL_TRY(os_guard(run_scan, &c, NULL, SIZE_MAX, sink->err));
    return c.status;
}
