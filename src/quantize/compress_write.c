/* The compressed file: matrices from the pieces, everything else as it was. */
#include "base/mem.h"
#include "base/status.h"
#include "quantize/compress_internal.h"
#include "quantize/convert.h"

static dil_type type_of(const compression *c, const gguf_tensor *t)
{
    for (int i = 0; i < c->p.n; i++)
        if (c->p.p[i].tensor == t)
            return c->p.p[i].choice[c->p.p[i].chosen].type;
    return convert_tensor_type(t, DIL_TYPE_F16);
}

/* general.file_type: of the format with the most weights. */
static uint32_t file_type(const compression *c)
{
    uint64_t values[DIL_TYPE_COUNT] = {0}, most = 0;
    uint32_t out = 0, found;
    for (int i = 0; i < c->p.n; i++) {
        const player *q = &c->p.p[i];
        dil_type type = q->choice[q->chosen].type;
        values[type] += (uint64_t)q->n * (uint64_t)q->rows * (uint64_t)q->columns;
        if (values[type] > most && convert_file_type(type, &found)) {
            most = values[type];
            out = found;
        }
    }
    return out;
}

static dil_status write_tensor(compression *c, gguf_writer *w, const gguf_tensor *t, dil_error *err)
{
    char name[128];
    for (int i = 0; i < c->p.n; i++) {
        const player *q = &c->p.p[i];
        if (q->tensor != t)
            continue;
        size_t n = (size_t)q->choice[q->chosen].bytes;
        compress_piece_name(c, q, name);
        if (!work_load(c->work, name, c->out, sizeof(round_report) + n))
            return DIL_FAIL(err, DIL_IO, "%s: it was written, but cannot be read back; is the disk full?", name);
        return gguf_writer_data(w, c->out + sizeof(round_report), n, err);
    }
    if (type_of(c, t) == t->type)
        return gguf_writer_data(w, t->data, (size_t)t->size_bytes, err);
    size_t n = (size_t)(t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]);
    float *values = mem_alloc(n * sizeof *values, MEM_MISC);
    if (!values)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%.*s: no memory for %zu values", STR_ARG(t->name), n);
    format_get(t->type)->decode(t->data, values, n);
    dil_status status = gguf_writer_data(w, values, n * sizeof *values, err);
    mem_free(values);
    return status;
}

static dil_status write_all(compression *c, gguf_writer *w, dil_error *err)
{
    static const char *const ours[] = {"general.file_type", "general.quantization_version"};
    DIL_TRY(gguf_writer_copy_values(w, c->in, ours, 2, err));
    DIL_TRY(gguf_writer_set_u32(w, ours[0], file_type(c), err));
    DIL_TRY(gguf_writer_set_u32(w, ours[1], 2, err));
    for (uint64_t i = 0; i < gguf_n_tensors(c->in); i++) {
        const gguf_tensor *t = gguf_tensor_at(c->in, i);
        DIL_TRY(gguf_writer_add_tensor(w, t->name, type_of(c, t), t->n_dims, t->ne, err));
    }
    for (uint64_t i = 0; i < gguf_n_tensors(c->in); i++)
        DIL_TRY(write_tensor(c, w, gguf_tensor_at(c->in, i), err));
    return DIL_OK;
}

dil_status compress_write(compression *c, const char *path, dil_error *err)
{
    gguf_writer *w = NULL;
    DIL_TRY(gguf_writer_new(&w, path, err));
    dil_status status = write_all(c, w, err);
    if (status == DIL_OK)
        return gguf_writer_finish(w, err);
    gguf_writer_abort(w);
    return status;
}
