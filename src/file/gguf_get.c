/* Metadata access: untyped entries and typed getters that compare kind and range before they hand
 * anything out. */
#include <float.h>
#include <inttypes.h>
#include <math.h>

#include "base/checked.h"
#include "base/status.h"
#include "file/gguf_internal.h"

uint64_t gguf_n_values(const gguf *g) { return g->shards[0].n_values; }

const gguf_value *gguf_value_at(const gguf *g, uint64_t i) { return i < g->shards[0].n_values ? &g->shards[0].entries[i].v : NULL; }

static gguf_entry *find(const gguf *g, const char *key)
{
    uint32_t i = name_index_find(&g->shards[0].keys, str_of(key));
    return i == NAME_INDEX_NONE ? NULL : &g->shards[0].entries[i];
}

const gguf_value *gguf_find(const gguf *g, const char *key)
{
    const gguf_entry *e = find(g, key);
    return e ? &e->v : NULL;
}

static dil_status wrong_kind(const gguf *g, const gguf_value *v, const char *wanted, dil_error *err)
{
    char shown[GGUF_SHOWN];
    bool array = v->kind == GGUF_ARRAY;
    return DIL_FAIL(err, DIL_FORMAT, "%s: byte offset %" PRIu64 ": key %s: wanted %s, found %s%s", g->path, v->offset,
                    gguf_show(v->key, shown), _(wanted), array ? _("an array of ") : "",
                    gguf_kind_name(array ? v->element : v->kind));
}

static dil_status out_of_range(const gguf *g, const gguf_value *v, const char *wanted, bool negative, uint64_t magnitude,
                               dil_error *err)
{
    char shown[GGUF_SHOWN];
    return DIL_FAIL(err, DIL_FORMAT, "%s: byte offset %" PRIu64 ": key %s: wanted %s, found %s%" PRIu64, g->path, v->offset,
                    gguf_show(v->key, shown), _(wanted), negative ? "-" : "", magnitude);
}

/* The i-th value of size bytes as raw bits. */
static uint64_t load_bits(const void *data, uint64_t i, uint32_t size)
{
    uint64_t bits = 0;
    memcpy(&bits, (const uint8_t *)data + i * size, size);
    return bits;
}

bool gguf_value_integer(const gguf_value *v, uint64_t i, bool *negative, uint64_t *magnitude)
{
    uint32_t size = gguf_kind_bytes(v->element);
    if (size == 0 || v->element == GGUF_F32 || v->element == GGUF_F64)
        return false;
    bool is_signed = v->element == GGUF_I8 || v->element == GGUF_I16 || v->element == GGUF_I32 || v->element == GGUF_I64;
    uint64_t bits = load_bits(v->data, i, size), sign = (uint64_t)1 << (8 * size - 1);
    *negative = is_signed && (bits & sign) != 0;
    *magnitude = *negative ? (0 - bits) & (sign | (sign - 1)) : bits;
    return true;
}

/* A scalar integer, not BOOL. *v NULL when the key is absent. */
static dil_status get_integer(const gguf *g, const char *key, const gguf_value **v, bool *negative, uint64_t *magnitude,
                              dil_error *err)
{
    *v = gguf_find(g, key);
    if (*v && ((*v)->kind == GGUF_BOOL || (*v)->kind == GGUF_ARRAY || !gguf_value_integer(*v, 0, negative, magnitude)))
        return wrong_kind(g, *v, N_("an integer"), err);
    return DIL_OK;
}

dil_status gguf_get_u64(const gguf *g, const char *key, uint64_t *inout, dil_error *err)
{
    const gguf_value *v;
    bool negative = false;
    uint64_t magnitude = 0;
    DIL_TRY(get_integer(g, key, &v, &negative, &magnitude, err));
    if (v && negative)
        return out_of_range(g, v, N_("a number that is not negative"), negative, magnitude, err);
    if (v)
        *inout = magnitude;
    return DIL_OK;
}

dil_status gguf_get_u32(const gguf *g, const char *key, uint32_t *inout, dil_error *err)
{
    const gguf_value *v;
    bool negative = false;
    uint64_t magnitude = 0;
    DIL_TRY(get_integer(g, key, &v, &negative, &magnitude, err));
    if (v && (negative || magnitude > UINT32_MAX))
        return out_of_range(g, v, N_("0 to 4294967295"), negative, magnitude, err);
    if (v)
        *inout = (uint32_t)magnitude;
    return DIL_OK;
}

/* Sign and magnitude -> int32; false when it does not fit. */
static bool to_i32(bool negative, uint64_t magnitude, int32_t *out)
{
    if (magnitude > (uint64_t)INT32_MAX + (negative ? 1 : 0))
        return false;
    *out = (int32_t)(negative ? -(int64_t)magnitude : (int64_t)magnitude);
    return true;
}

dil_status gguf_get_i32(const gguf *g, const char *key, int32_t *inout, dil_error *err)
{
    const gguf_value *v;
    bool negative = false;
    uint64_t magnitude = 0;
    int32_t result;
    DIL_TRY(get_integer(g, key, &v, &negative, &magnitude, err));
    if (!v)
        return DIL_OK;
    if (!to_i32(negative, magnitude, &result))
        return out_of_range(g, v, N_("-2147483648 to 2147483647"), negative, magnitude, err);
    *inout = result;
    return DIL_OK;
}

dil_status gguf_get_f32(const gguf *g, const char *key, float *inout, dil_error *err)
{
    const gguf_value *v = gguf_find(g, key);
    char shown[GGUF_SHOWN];
    double wide;
    if (!v)
        return DIL_OK;
    if (v->kind == GGUF_F32) {
        memcpy(inout, v->data, sizeof *inout);
        return DIL_OK;
    }
    if (v->kind != GGUF_F64)
        return wrong_kind(g, v, N_("F32 or F64"), err);
    memcpy(&wide, v->data, sizeof wide);
    if (isfinite(wide) && (wide > (double)FLT_MAX || wide < -(double)FLT_MAX))
        return DIL_FAIL(err, DIL_FORMAT, "%s: byte offset %" PRIu64 ": key %s: wanted the range of F32, found %g", g->path,
                        v->offset, gguf_show(v->key, shown), wide);
    *inout = (float)wide;
    return DIL_OK;
}

dil_status gguf_get_bool(const gguf *g, const char *key, bool *inout, dil_error *err)
{
    const gguf_value *v = gguf_find(g, key);
    if (!v)
        return DIL_OK;
    if (v->kind != GGUF_BOOL)
        return wrong_kind(g, v, "BOOL", err);
    *inout = load_bits(v->data, 0, 1) != 0;
    return DIL_OK;
}

dil_status gguf_get_str(const gguf *g, const char *key, str *inout, dil_error *err)
{
    const gguf_value *v = gguf_find(g, key);
    if (!v)
        return DIL_OK;
    if (v->kind != GGUF_STRING)
        return wrong_kind(g, v, "STRING", err);
    *inout = *(const str *)v->data;
    return DIL_OK;
}

/* ---- arrays ---- */

dil_status gguf_get_strings(const gguf *g, const char *key, const str **out, uint64_t *n, dil_error *err)
{
    const gguf_value *v = gguf_find(g, key);
    if (v && (v->kind != GGUF_ARRAY || v->element != GGUF_STRING))
        return wrong_kind(g, v, N_("an array of STRING"), err);
    *out = v ? v->data : NULL;
    *n = v ? v->count : 0;
    return DIL_OK;
}

/* 4-byte values where they lie, or, when they lie unaligned, a copy made once. NULL: no memory. */
static const void *aligned_words(const gguf *g, gguf_entry *e)
{
    if (e->v.count == 0 || (uintptr_t)e->v.data % sizeof(uint32_t) == 0)
        return e->v.data;
    if (!e->converted) {
        size_t size_bytes = (size_t)e->v.count * sizeof(uint32_t);
        void *copy = arena_alloc(g->memory, size_bytes);
        if (copy)
            e->converted = memcpy(copy, e->v.data, size_bytes);
    }
    return e->converted;
}

static dil_status no_room(const gguf *g, const char *key, dil_error *err)
{
    return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for the values of key '%s'", g->path, key);
}

dil_status gguf_get_f32_array(const gguf *g, const char *key, const float **out, uint64_t *n, dil_error *err)
{
    gguf_entry *e = find(g, key);
    const void *values = NULL;
    if (e && (e->v.kind != GGUF_ARRAY || e->v.element != GGUF_F32))
        return wrong_kind(g, &e->v, N_("an array of F32"), err);
    if (e && !(values = aligned_words(g, e)))
        return no_room(g, key, err);
    *out = values;
    *n = e ? e->v.count : 0;
    return DIL_OK;
}

/* Narrow elements widened to int32, once. NULL: no memory. */
static const int32_t *widened(const gguf *g, gguf_entry *e)
{
    if (e->converted)
        return e->converted;
    int32_t *copy = arena_alloc(g->memory, (size_t)e->v.count * sizeof *copy);
    for (uint64_t i = 0; copy && i < e->v.count; i++) {
        bool negative = false;
        uint64_t magnitude = 0;
        (void)gguf_value_integer(&e->v, i, &negative, &magnitude);
        (void)to_i32(negative, magnitude, &copy[i]);
    }
    return e->converted = copy;
}

dil_status gguf_get_i32_array(const gguf *g, const char *key, const int32_t **out, uint64_t *n, dil_error *err)
{
    gguf_entry *e = find(g, key);
    const int32_t *values = NULL;
    if (e) {
        const gguf_value *v = &e->v;
        uint32_t size = gguf_kind_bytes(v->element);
        if (v->kind != GGUF_ARRAY || size == 0 || size > sizeof(int32_t) || v->element == GGUF_F32)
            return wrong_kind(g, v, N_("an array of integers of at most 32 bits"), err);
        for (uint64_t i = 0; v->element == GGUF_U32 && i < v->count; i++)
            if (load_bits(v->data, i, 4) > INT32_MAX)
                return out_of_range(g, v, N_("array elements up to 2147483647"), false, load_bits(v->data, i, 4), err);
        values = size == sizeof(int32_t) ? aligned_words(g, e) : widened(g, e);
        if (!values)
            return no_room(g, key, err);
    }
    *out = values;
    *n = e ? e->v.count : 0;
    return DIL_OK;
}
