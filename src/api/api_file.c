/* Files of tensors: what is in them, as f32. */
#include <stdio.h>
#include <string.h>

#include "api/arguments.h"
#include "base/checked.h"
#include "base/mem.h"
#include "base/os.h"
#include "file/gguf.h"

static gguf *inner(const dil_file *f) { return (gguf *)(uintptr_t)f; }

dil_status dil_file_open(dil_file **out, const char *path, dil_error *err)
{
    gguf *g;
    DIL_TRY(need(out, "dil_file_open: out", err));
    DIL_TRY(need(path, "dil_file_open: path", err));
    DIL_TRY(gguf_open(&g, path, &(gguf_options){0}, err));
    *out = (dil_file *)g;
    return DIL_OK;
}

void dil_file_close(dil_file *f) { gguf_close(inner(f)); }
size_t dil_file_n_tensors(const dil_file *f) { return f ? (size_t)gguf_n_tensors(inner(f)) : 0; }

static dil_status find(const dil_file *f, size_t index, const char *what, const gguf_tensor **out, dil_error *err)
{
    DIL_TRY(need(f, what, err));
    if (index >= gguf_n_tensors(inner(f)))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: %s: wanted a tensor of 0..%llu, found %zu", what, gguf_path(inner(f)),
                        (unsigned long long)gguf_n_tensors(inner(f)) - 1, index);
    *out = gguf_tensor_at(inner(f), index);
    return DIL_OK;
}

static uint64_t values_of(const gguf_tensor *t) { return t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]; }

dil_status dil_file_tensor(const dil_file *f, size_t index, dil_tensor *out, dil_error *err)
{
    const gguf_tensor *t = NULL;
    DIL_TRY(find(f, index, "dil_file_tensor", &t, err));
    DIL_TRY(need(out, "dil_file_tensor: out", err));
    const format *of = format_get(t->type);
    *out = (dil_tensor){.n_dims = (int32_t)t->n_dims,
                        .shape = {t->ne[0], t->ne[1], t->ne[2], t->ne[3]},
                        .n_values = values_of(t),
                        .n_bytes = t->size_bytes};
    snprintf(out->name, sizeof out->name, "%.*s", STR_ARG(t->name));
    snprintf(out->type, sizeof out->type, "%s", of ? of->name : "?");
    return DIL_OK;
}

typedef struct decoding {
    const gguf_tensor *t;
    float *to;
} decoding;

static void decode(void *ctx)
{
    const decoding *d = ctx;
    format_get(d->t->type)->decode(d->t->data, d->to, (size_t)values_of(d->t));
}

dil_status dil_file_read(const dil_file *f, size_t index, float *values, size_t n, dil_error *err)
{
    const gguf_tensor *t = NULL;
    DIL_TRY(find(f, index, "dil_file_read", &t, err));
    DIL_TRY(need(values, "dil_file_read: values", err));
    const format *of = format_get(t->type);
    if (!of || !of->decode)
        return DIL_FAIL(err, DIL_UNSUPPORTED, "%s: tensor '%.*s': type number %d cannot be decoded", gguf_path(inner(f)),
                        STR_ARG(t->name), (int)t->type);
    if (n != values_of(t))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_file_read: tensor '%.*s': wanted room for its %llu values, found %zu",
                        STR_ARG(t->name), (unsigned long long)values_of(t), n);
    decoding d = {t, values};
    return os_guard(decode, &d, t->data, (size_t)t->size_bytes, err);
}

/* ---- writing ---- */

static dil_status add_tensor(gguf_writer *w, const dil_tensor *t, dil_error *err)
{
    if (!memchr(t->name, 0, sizeof t->name) || !t->name[0])
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_file_write: a tensor's name: wanted 1..%zu bytes, found %s", sizeof t->name - 1,
                        t->name[0] ? _("more") : _("none"));
    if (t->n_dims < 1 || t->n_dims > 4)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_file_write: tensor '%s': wanted 1..4 dimensions, found %d", t->name, t->n_dims);
    return gguf_writer_add_tensor(w, str_of(t->name), DIL_TYPE_F32, t->n_dims, t->shape, err);
}

static dil_status write_values(gguf_writer *w, const dil_tensor *t, const float *values, dil_error *err)
{
    size_t n = sizeof *values;
    for (int i = 0; i < t->n_dims; i++)
        if (!checked_mul_size(n, (size_t)t->shape[i], &n))
            return DIL_FAIL(err, DIL_LIMIT, "dil_file_write: tensor '%s' is too large", t->name);
    DIL_TRY(need(values, "dil_file_write: values of a tensor", err));
    return gguf_writer_data(w, values, n, err);
}

dil_status dil_file_write(const char *path, const char *architecture, const dil_tensor *tensors, const float *const *values,
                          size_t n, dil_error *err)
{
    gguf_writer *w = NULL;
    DIL_TRY(need(path, "dil_file_write: path", err));
    DIL_TRY(need(architecture, "dil_file_write: architecture", err));
    DIL_TRY(need(tensors, "dil_file_write: tensors", err));
    DIL_TRY(need(values, "dil_file_write: values", err));
    DIL_TRY(gguf_writer_new(&w, path, err));
    dil_status status = gguf_writer_set_str(w, "general.architecture", str_of(architecture), err);
    for (size_t i = 0; status == DIL_OK && i < n; i++)
        status = add_tensor(w, &tensors[i], err);
    for (size_t i = 0; status == DIL_OK && i < n; i++)
        status = write_values(w, &tensors[i], values[i], err);
    if (status == DIL_OK)
        return gguf_writer_finish(w, err);
    gguf_writer_abort(w);
    return status;
}
