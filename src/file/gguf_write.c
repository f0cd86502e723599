/*
 * The writer: metadata and tensor shapes are collected in memory as they will lie in the file; the
 * first data (or finish) writes them, then data streams through. The file appears under its name on
 * finish only (os_writer).
 */
#include <inttypes.h>

#include "base/checked.h"
#include "base/status.h"
#include "file/gguf_internal.h"

#define MAX_WRITTEN_VALUES (1u << 16)
#define MAX_HEADER_BYTES ((size_t)4 << 30)

struct gguf_writer {
    os_writer out;
    arena *memory; /* names */
    strbuf values; /* serialised metadata */
    strbuf infos;  /* serialised tensor directory */
    name_index keys, names;
    uint64_t *sizes; /* [sizes_capacity], of which names.n are set: bytes of each tensor */
    uint32_t sizes_capacity;
    uint64_t alignment;
    uint64_t data_bytes; /* of all tensors added so far, padded */
    bool started;        /* header is written */
    uint32_t current;    /* tensor that receives data */
    uint64_t received;   /* its bytes so far */
};

dil_status gguf_writer_new(gguf_writer **out, const char *path, dil_error *err)
{
    gguf_writer *w = mem_calloc(1, sizeof *w, MEM_FILE);
    if (!w)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory to write it", path);
    w->out.fd = -1;
    w->values = w->infos = STRBUF(MAX_HEADER_BYTES);
    w->alignment = GGUF_DEFAULT_ALIGNMENT;
    w->memory = arena_new(MEM_FILE, SIZE_MAX / 2);
    if (!w->memory || !name_index_init(&w->keys, w->memory, MAX_WRITTEN_VALUES)) {
        gguf_writer_abort(w);
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory to write it", path);
    }
    dil_status st = os_writer_open(&w->out, path, err);
    if (st != DIL_OK) {
        w->out.fd = -1;
        gguf_writer_abort(w);
        return st;
    }
    *out = w;
    return DIL_OK;
}

void gguf_writer_abort(gguf_writer *w)
{
    if (!w)
        return;
    os_writer_abort(&w->out);
    strbuf_free(&w->values);
    strbuf_free(&w->infos);
    mem_free(w->sizes);
    arena_free(w->memory);
    mem_free(w);
}

/* ---- metadata ---- */

static void add_u32(strbuf *b, uint32_t v) { strbuf_add(b, &v, sizeof v); }
static void add_u64(strbuf *b, uint64_t v) { strbuf_add(b, &v, sizeof v); }

static void add_text(strbuf *b, str s)
{
    add_u64(b, s.n);
    strbuf_add_str(b, s);
}

static dil_status no_memory(const gguf_writer *w, dil_error *err)
{
    return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for its header", w->out.path);
}

/* Checks key and writes it with its kind (and, for an array, the element kind and count). */
static dil_status begin_value(gguf_writer *w, str key, gguf_kind kind, gguf_kind element, uint64_t count, dil_error *err)
{
    char shown[GGUF_SHOWN];
    if (w->started)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "key %s: wanted before the first data, found after it", gguf_show(key, shown));
    if (key.n == 0 || key.n > GGUF_MAX_KEY || !utf8_valid(key))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "key %s: wanted 1 to %u bytes of UTF-8, found %zu bytes", gguf_show(key, shown),
                        GGUF_MAX_KEY, key.n);
    if (w->keys.n == w->keys.capacity)
        return DIL_FAIL(err, DIL_LIMIT, "key %s: wanted at most %u keys, found one more", gguf_show(key, shown), w->keys.capacity);
    if (name_index_find(&w->keys, key) != NAME_INDEX_NONE)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "key %s: wanted once, found a second time", gguf_show(key, shown));
    const char *copy = arena_strdup(w->memory, key.p, key.n);
    if (!copy)
        return no_memory(w, err);
    (void)name_index_add(&w->keys, (str){copy, key.n});
    add_text(&w->values, key);
    add_u32(&w->values, (uint32_t)kind);
    if (kind == GGUF_ARRAY) {
        add_u32(&w->values, (uint32_t)element);
        add_u64(&w->values, count);
    }
    return DIL_OK;
}

static dil_status end_value(const gguf_writer *w, dil_error *err) { return w->values.failed ? no_memory(w, err) : DIL_OK; }

static dil_status set_alignment(gguf_writer *w, uint32_t alignment, dil_error *err)
{
    if (alignment < GGUF_MIN_ALIGNMENT || (alignment & (alignment - 1)) != 0)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "key 'general.alignment': wanted a power of two, at least 8, found %u", alignment);
    if (w->names.n > 0 && alignment != w->alignment)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "key 'general.alignment': wanted before the first tensor, found after it");
    w->alignment = alignment;
    return DIL_OK;
}

/* n values of the kind from bytes, as a scalar (array false, n 1) or an array. */
static dil_status set_numbers(gguf_writer *w, str key, gguf_kind kind, bool array, const void *bytes, uint64_t n, dil_error *err)
{
    size_t size_bytes;
    if (!checked_mul_size((size_t)n, gguf_kind_bytes(kind), &size_bytes) || size_bytes > MAX_HEADER_BYTES)
        return DIL_FAIL(err, DIL_LIMIT, "%s: a value of %" PRIu64 " elements is too long", w->out.path, n);
    DIL_TRY(begin_value(w, key, array ? GGUF_ARRAY : kind, kind, n, err));
    if (size_bytes > 0)
        strbuf_add(&w->values, bytes, size_bytes);
    return end_value(w, err);
}

static dil_status set_texts(gguf_writer *w, str key, bool array, const str *texts, uint64_t n, dil_error *err)
{
    char shown[GGUF_SHOWN];
    for (uint64_t i = 0; i < n; i++)
        if (texts[i].n > GGUF_MAX_STRING)
            return DIL_FAIL(err, DIL_LIMIT, "key %s: string length: wanted at most %u, found %zu", gguf_show(key, shown),
                            GGUF_MAX_STRING, texts[i].n);
    DIL_TRY(begin_value(w, key, array ? GGUF_ARRAY : GGUF_STRING, GGUF_STRING, n, err));
    for (uint64_t i = 0; i < n; i++)
        add_text(&w->values, texts[i]);
    return end_value(w, err);
}

dil_status gguf_writer_set_u32(gguf_writer *w, const char *key, uint32_t v, dil_error *err)
{
    if (strcmp(key, "general.alignment") == 0)
        DIL_TRY(set_alignment(w, v, err));
    return set_numbers(w, str_of(key), GGUF_U32, false, &v, 1, err);
}

dil_status gguf_writer_set_i32(gguf_writer *w, const char *key, int32_t v, dil_error *err)
{
    return set_numbers(w, str_of(key), GGUF_I32, false, &v, 1, err);
}

dil_status gguf_writer_set_f32(gguf_writer *w, const char *key, float v, dil_error *err)
{
    return set_numbers(w, str_of(key), GGUF_F32, false, &v, 1, err);
}

dil_status gguf_writer_set_bool(gguf_writer *w, const char *key, bool v, dil_error *err)
{
    uint8_t byte = v;
    return set_numbers(w, str_of(key), GGUF_BOOL, false, &byte, 1, err);
}

dil_status gguf_writer_set_str(gguf_writer *w, const char *key, str v, dil_error *err)
{
    return set_texts(w, str_of(key), false, &v, 1, err);
}

dil_status gguf_writer_set_strings(gguf_writer *w, const char *key, const str *v, uint64_t n, dil_error *err)
{
    return set_texts(w, str_of(key), true, v, n, err);
}

dil_status gguf_writer_set_f32_array(gguf_writer *w, const char *key, const float *v, uint64_t n, dil_error *err)
{
    return set_numbers(w, str_of(key), GGUF_F32, true, v, n, err);
}

dil_status gguf_writer_set_i32_array(gguf_writer *w, const char *key, const int32_t *v, uint64_t n, dil_error *err)
{
    return set_numbers(w, str_of(key), GGUF_I32, true, v, n, err);
}

static dil_status copy_value(gguf_writer *w, const gguf_value *v, dil_error *err)
{
    uint32_t alignment;
    if (str_equal(v->key, STR("general.alignment"))) {
        memcpy(&alignment, v->data, sizeof alignment); /* the reader has checked that it is U32 */
        DIL_TRY(set_alignment(w, alignment, err));
    }
    bool array = v->kind == GGUF_ARRAY;
    if (v->element == GGUF_STRING)
        return set_texts(w, v->key, array, v->data, v->count, err);
    return set_numbers(w, v->key, v->element, array, v->data, v->count, err);
}

dil_status gguf_writer_copy_values(gguf_writer *w, const gguf *from, const char *const *except, int n_except, dil_error *err)
{
    for (uint64_t i = 0; i < gguf_n_values(from); i++) {
        const gguf_value *v = gguf_value_at(from, i);
        bool skip = str_starts(v->key, STR("split."));
        for (int k = 0; k < n_except && !skip; k++)
            skip = str_equal(v->key, str_of(except[k]));
        if (!skip)
            DIL_TRY(copy_value(w, v, err));
    }
    return DIL_OK;
}

dil_status gguf_writer_copy_prefixed(gguf_writer *w, const gguf *from, const char *prefix, const char *except, dil_error *err)
{
    for (uint64_t i = 0; i < gguf_n_values(from); i++) {
        const gguf_value *v = gguf_value_at(from, i);
        if (str_starts(v->key, str_of(prefix)) && !(except && str_starts(v->key, str_of(except))))
            DIL_TRY(copy_value(w, v, err));
    }
    return DIL_OK;
}

/* Elements at[0 .. n) of an array of strings. */
static dil_status set_some_texts(gguf_writer *w, const gguf_value *v, const uint64_t *at, uint64_t n, dil_error *err)
{
    const str *from = v->data;
    str *texts = mem_alloc((size_t)n * sizeof *texts + 1, MEM_FILE);
    if (!texts)
        return no_memory(w, err);
    for (uint64_t i = 0; i < n; i++)
        texts[i] = from[at[i]];
    dil_status status = set_texts(w, v->key, true, texts, n, err);
    mem_free(texts);
    return status;
}

dil_status gguf_writer_set_elements(gguf_writer *w, const gguf_value *v, const uint64_t *at, uint64_t n, dil_error *err)
{
    char shown[GGUF_SHOWN];
    for (uint64_t i = 0; i < n; i++)
        if (v->kind != GGUF_ARRAY || at[i] >= v->count)
            return DIL_FAIL(err, DIL_BAD_ARGUMENT,
                            "key %s: wanted an array with an element %" PRIu64 ", found %" PRIu64 " elements",
                            gguf_show(v->key, shown), at[i], v->kind == GGUF_ARRAY ? v->count : 0);
    if (v->element == GGUF_STRING)
        return set_some_texts(w, v, at, n, err);
    const size_t size = gguf_kind_bytes(v->element);
    uint8_t *bytes = mem_alloc((size_t)n * size + 1, MEM_FILE);
    if (!bytes)
        return no_memory(w, err);
    for (uint64_t i = 0; i < n; i++)
        memcpy(bytes + i * size, (const uint8_t *)v->data + at[i] * size, size);
    dil_status status = set_numbers(w, v->key, v->element, true, bytes, n, err);
    mem_free(bytes);
    return status;
}

/* ---- tensors ---- */

/* Doubles the room for tensor names and sizes; the index is rebuilt. */
static bool grow_names(gguf_writer *w)
{
    uint32_t capacity = w->sizes_capacity ? w->sizes_capacity * 2 : 256;
    uint64_t *sizes = mem_grow(w->sizes, capacity * sizeof *sizes, MEM_FILE);
    name_index bigger;
    if (!sizes)
        return false;
    w->sizes = sizes;
    if (!name_index_init(&bigger, w->memory, capacity))
        return false;
    for (uint32_t i = 0; i < w->names.n; i++)
        (void)name_index_add(&bigger, w->names.names[i]);
    w->names = bigger;
    w->sizes_capacity = capacity;
    return true;
}

static dil_status tensor_bytes(const char *shown, dil_type type, int n_dims, const uint64_t *ne, uint64_t *out, dil_error *err)
{
    const format *f = format_get(type);
    uint64_t bytes;
    if (!f)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "tensor %s: type: wanted a known tensor type, found number %d", shown, (int)type);
    if (n_dims < 1 || n_dims > GGUF_MAX_DIMS)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "tensor %s: number of dimensions: wanted 1 to 4, found %d", shown, n_dims);
    if (ne[0] == 0 || !format_row_bytes(type, ne[0], &bytes))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT,
                        "tensor %s: row length: wanted a positive multiple of %u for type %s, found %" PRIu64, shown,
                        f->block_values, f->name, ne[0]);
    for (int i = 1; i < n_dims; i++)
        if (ne[i] == 0 || !checked_mul_u64(bytes, ne[i], &bytes))
            return DIL_FAIL(err, DIL_BAD_ARGUMENT,
                            "tensor %s: dimension %d: wanted a positive number whose product fits, found %" PRIu64, shown, i,
                            ne[i]);
    *out = bytes;
    return DIL_OK;
}

dil_status gguf_writer_add_tensor(gguf_writer *w, str name, dil_type type, int n_dims, const uint64_t *ne, dil_error *err)
{
    char shown[GGUF_SHOWN];
    uint64_t bytes = 0, padded;
    gguf_show(name, shown);
    if (w->started)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "tensor %s: wanted before the first data, found after it", shown);
    if (name.n == 0 || name.n > GGUF_MAX_NAME || !utf8_valid(name))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "tensor %s: wanted a name of 1 to %u bytes of UTF-8, found %zu bytes", shown,
                        GGUF_MAX_NAME, name.n);
    DIL_TRY(tensor_bytes(shown, type, n_dims, ne, &bytes, err));
    if (!checked_round_up_u64(bytes, w->alignment, &padded) || !checked_add_u64(w->data_bytes, padded, &padded))
        return DIL_FAIL(err, DIL_LIMIT, "tensor %s: the file would be longer than 2^64 bytes", shown);
    if (name_index_find(&w->names, name) != NAME_INDEX_NONE)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "tensor %s: wanted once, found a second time", shown);
    if (w->names.n == GGUF_MAX_TENSORS)
        return DIL_FAIL(err, DIL_LIMIT, "tensor %s: wanted at most %u tensors, found one more", shown, GGUF_MAX_TENSORS);
    if (w->names.n == w->sizes_capacity && !grow_names(w))
        return no_memory(w, err);
    const char *copy = arena_strdup(w->memory, name.p, name.n);
    if (!copy)
        return no_memory(w, err);
    w->sizes[w->names.n] = bytes;
    (void)name_index_add(&w->names, (str){copy, name.n});
    add_text(&w->infos, name);
    add_u32(&w->infos, (uint32_t)n_dims);
    for (int i = 0; i < n_dims; i++)
        add_u64(&w->infos, ne[i]);
    add_u32(&w->infos, (uint32_t)type);
    add_u64(&w->infos, w->data_bytes);
    w->data_bytes = padded;
    return w->infos.failed ? no_memory(w, err) : DIL_OK;
}

/* ---- output ---- */

/* Zeros up to the next multiple of the alignment, counted from the beginning of the file. */
static dil_status pad(gguf_writer *w, dil_error *err)
{
    static const uint8_t zeros[4096];
    uint64_t n = (0 - w->out.written_bytes) & (w->alignment - 1);
    while (n > 0) {
        uint64_t part = n < sizeof zeros ? n : sizeof zeros;
        DIL_TRY(os_writer_write(&w->out, zeros, (size_t)part, err));
        n -= part;
    }
    return DIL_OK;
}

static dil_status write_header(gguf_writer *w, dil_error *err)
{
    uint8_t head[GGUF_HEADER_BYTES] = {'G', 'G', 'U', 'F', 3};
    uint64_t n_tensors = w->names.n, n_values = w->keys.n;
    if (w->values.failed || w->infos.failed)
        return no_memory(w, err);
    memcpy(head + 8, &n_tensors, sizeof n_tensors);
    memcpy(head + 16, &n_values, sizeof n_values);
    w->started = true;
    DIL_TRY(os_writer_write(&w->out, head, sizeof head, err));
    if (w->values.n > 0)
        DIL_TRY(os_writer_write(&w->out, w->values.p, w->values.n, err));
    if (w->infos.n > 0)
        DIL_TRY(os_writer_write(&w->out, w->infos.p, w->infos.n, err));
    return n_tensors > 0 ? pad(w, err) : DIL_OK;
}

dil_status gguf_writer_data(gguf_writer *w, const void *bytes, size_t n, dil_error *err)
{
    const uint8_t *p = bytes;
    if (!w->started)
        DIL_TRY(write_header(w, err));
    while (n > 0) {
        if (w->current == w->names.n)
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: wanted no more data after the last tensor, found %zu bytes", w->out.path,
                            n);
        uint64_t left = w->sizes[w->current] - w->received;
        size_t part = n < left ? n : (size_t)left;
        DIL_TRY(os_writer_write(&w->out, p, part, err));
        p += part;
        n -= part;
        w->received += part;
        if (part == left) {
            DIL_TRY(pad(w, err));
            w->current++;
            w->received = 0;
        }
    }
    return DIL_OK;
}

static dil_status finish(gguf_writer *w, dil_error *err)
{
    char shown[GGUF_SHOWN];
    if (!w->started)
        DIL_TRY(write_header(w, err));
    if (w->current < w->names.n)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "tensor %s: data: wanted %" PRIu64 " bytes before the end, found %" PRIu64,
                        gguf_show(w->names.names[w->current], shown), w->sizes[w->current], w->received);
    return os_writer_commit(&w->out, err);
}

dil_status gguf_writer_finish(gguf_writer *w, dil_error *err)
{
    dil_status st = finish(w, err);
    gguf_writer_abort(w); /* does nothing to a committed file */
    return st;
}
