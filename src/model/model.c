#include "model/model.h"

#include "base/os.h"
#include "base/status.h"
#include "model/pack.h"
#include "model/vocab_load.h"
#include "model/weights.h"

#define MODEL_ARENA_BYTES ((size_t)1 << 32)

/* A text of the file that is used long after loading: copied, so that later reads cannot meet a truncated file. */
static dil_status keep_text(model *m, str *text, dil_error *err)
{
    char *copy = text->n ? arena_strdup(m->memory, text->p, text->n) : NULL;
    if (text->n && !copy)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for %zu bytes of text", gguf_path(m->file), text->n);
    text->p = copy;
    return DIL_OK;
}

/* Everything the mapped metadata and the small tensors say. */
static dil_status read_file(model *m, const model_options *options, dil_error *err)
{
    const char *path = gguf_path(m->file);
    DIL_TRY(hparams_read(&m->h, m->file, err));
    DIL_TRY(gguf_get_str(m->file, "tokenizer.chat_template", &m->chat_template, err));
    DIL_TRY(keep_text(m, &m->h.architecture, err));
    DIL_TRY(keep_text(m, &m->chat_template, err));
    if (!options->no_vocab && !m->h.lone) {
        DIL_TRY(vocab_from_gguf(&m->words, m->file, err));
        if ((uint32_t)vocab_size(m->words) > m->h.n_vocab)
            return DIL_FAIL(err, DIL_FORMAT, "%s: tokenizer.ggml.tokens: wanted at most %u (rows of token_embd.weight), found %d",
                            path, m->h.n_vocab, vocab_size(m->words));
    }
    DIL_TRY(weights_bind(m, err));
    return weights_size(m, err);
}

typedef struct guarded_read {
    model *m;
    const model_options *options;
    dil_error *err;
    dil_status status;
} guarded_read;

static void run_read_file(void *ctx)
{
    guarded_read *job = ctx;
    job->status = read_file(job->m, job->options, job->err);
}

/* The guard covers every address, because the parts of a split file are mappings of their own. A file truncated while its
 * vocabulary is being built costs that vocabulary's memory, nothing more. */
dil_status model_read(model *m, const model_options *options, dil_error *err)
{
    guarded_read job = {m, options, err, DIL_OK};
    DIL_TRY(os_guard(run_read_file, &job, NULL, SIZE_MAX, err));
    return job.status;
}

static dil_status load(model *m, const char *path, const model_options *options, dil_error *err)
{
    gguf_options file_options = {.header_only = options->header_only};
    m->memory = arena_new(MEM_WEIGHTS, MODEL_ARENA_BYTES);
    if (!m->memory)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory to load", path);
    DIL_TRY(gguf_open(&m->file, path, &file_options, err));
    DIL_TRY(model_read(m, options, err));
    gguf_drop(m->file);
    if (options->header_only)
        return DIL_OK;
    DIL_TRY(pack_weights(m, options, err));
    gguf_drop(m->file);
    return DIL_OK;
}

dil_status model_open(model **out, const char *path, const model_options *options, dil_error *err)
{
    model *m = mem_calloc(1, sizeof *m, MEM_WEIGHTS);
    if (!m)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory to load", path);
    m->cache_file.fd = -1;
    dil_status status = load(m, path, options, err);
    if (status != DIL_OK) {
        model_close(m);
        return status;
    }
    *out = m;
    return DIL_OK;
}

void model_close(model *m)
{
    if (!m)
        return;
    pack_free(m);
    vocab_free(m->words);
    gguf_close(m->file);
    arena_free(m->memory);
    mem_free(m);
}

#define PIECE_BYTES 4096

/* Read, not mapped: a mapping would bring in, and keep, what lies around each row. */
static dil_status read_row(const gguf *g, const gguf_tensor *t, uint64_t row, float *dst, dil_error *err)
{
    const format *f = format_get(t->type);
    const uint64_t row_bytes = t->size_bytes / t->ne[1], most = PIECE_BYTES / f->block_bytes;
    uint8_t piece[PIECE_BYTES];
    for (uint64_t left = row_bytes / f->block_bytes, at = t->offset + row * row_bytes, n; left > 0; left -= n) {
        n = left < most ? left : most;
        DIL_TRY(os_file_read(gguf_shard_file(g, t->shard), at, piece, (size_t)(n * f->block_bytes), err));
        f->decode(piece, dst, (size_t)(n * f->block_values));
        dst += n * f->block_values;
        at += n * f->block_bytes;
    }
    return DIL_OK;
}

dil_status model_embed(const model *m, token_id id, float *dst, dil_error *err)
{
    uint32_t row = (uint32_t)id;
    if (!m->tied)
        return read_row(m->file, m->embd.tensor, row, dst, err);
    const weight *w = &m->head;
    panel_decode_row(w->type, w->panels + (size_t)(row / PANEL_ROWS) * w->panel_bytes, (int)(row % PANEL_ROWS), w->cols, dst);
    return DIL_OK;
}

bool model_lost(const model *m) { return os_mapping_lost(&m->cache); }

uint64_t model_n_params(const model *m)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < gguf_n_tensors(m->file); i++) {
        const gguf_tensor *t = gguf_tensor_at(m->file, i);
        n += t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
    }
    return n;
}
