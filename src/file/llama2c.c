/*
 * llama2.c checkpoints (the legacy format) -> GGUF. A checkpoint is seven int32 (dim, hidden_dim,
 * n_layers, n_heads, n_kv_heads, vocab_size, seq_len), then F32 weights, each kind for all layers
 * together; a negative vocab_size says that the classifier has weights of its own. Two tables of
 * rotary frequencies lie before the classifier and are not needed. It rotates neighbouring pairs,
 * as llama does in GGUF, so no row is permuted. The vocabulary is read by llama2c_vocab.c.
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/checked.h"
#include "base/status.h"
#include "file/llama2c_vocab.h"

#define MAX_DIMENSION (1 << 24)
#define RMS_EPSILON 1e-5f
#define ROPE_BASE 10000.0f

typedef struct config {
    int32_t dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len;
} config;

/* Where each kind of weight begins, in floats from the end of the header. */
typedef struct layout {
    uint64_t embedding, attention_norm, wq, wk, wv, wo, ffn_norm, w1, w2, w3, output_norm, output;
    uint64_t end;
    uint64_t n_vocab, kv_dim;
    bool own_output;
} layout;

typedef struct import {
    const char *path;
    os_file file;
    const uint8_t *bytes; /* mapped */
    config c;
    layout at;
    llama2c_vocab vocab;
    gguf_writer *w;
    dil_error *err;
    dil_status status;
} import;

static dil_status check_field(const import *m, int index, const char *name, int32_t value, int32_t max)
{
    if (value < 1 || value > max)
        return DIL_FAIL(m->err, DIL_FORMAT, "%s: byte offset %d: %s: wanted 1 to %d, found %d: not a llama2.c checkpoint?", m->path,
                        index * 4, name, max, value);
    return DIL_OK;
}

static dil_status read_config(import *m)
{
    config *c = &m->c;
    if (m->file.size_bytes < sizeof *c)
        return DIL_FAIL(m->err, DIL_FORMAT, "%s: byte offset 0: header: wanted %zu bytes, found %" PRIu64, m->path, sizeof *c,
                        m->file.size_bytes);
    memcpy(c, m->bytes, sizeof *c);
    m->at.own_output = c->vocab_size < 0;
    m->at.n_vocab = c->vocab_size < 0 ? 0 - (uint64_t)(int64_t)c->vocab_size : (uint64_t)c->vocab_size;
    DIL_TRY(check_field(m, 0, "dim", c->dim, MAX_DIMENSION));
    DIL_TRY(check_field(m, 1, "hidden_dim", c->hidden_dim, MAX_DIMENSION));
    DIL_TRY(check_field(m, 2, "n_layers", c->n_layers, 1 << 16));
    DIL_TRY(check_field(m, 3, "n_heads", c->n_heads, c->dim));
    DIL_TRY(check_field(m, 4, "n_kv_heads", c->n_kv_heads, c->n_heads));
    DIL_TRY(check_field(m, 5, "vocab_size", m->at.n_vocab > MAX_DIMENSION ? 0 : (int32_t)m->at.n_vocab, MAX_DIMENSION));
    DIL_TRY(check_field(m, 6, "seq_len", c->seq_len, MAX_DIMENSION));
    if (c->dim % c->n_heads != 0 || c->n_heads % c->n_kv_heads != 0 || c->dim / c->n_heads % 2 != 0)
        return DIL_FAIL(m->err, DIL_FORMAT,
                        "%s: byte offset 0: header: wanted dim %d to be an even multiple of n_heads %d, and that of "
                        "n_kv_heads %d: not a llama2.c checkpoint?",
                        m->path, c->dim, c->n_heads, c->n_kv_heads);
    return DIL_OK;
}

/* *at += layers * rows * columns; *start is the old value. All factors are below 2^25: the first
 * product cannot overflow. */
static bool advance(uint64_t *at, uint64_t layers, uint64_t rows, uint64_t columns, uint64_t *start)
{
    uint64_t n;
    *start = *at;
    return checked_mul_u64(rows * columns, layers, &n) && checked_add_u64(*at, n, at) && *at < UINT64_MAX / 8;
}

static dil_status place_weights(import *m)
{
    const config *c = &m->c;
    layout *l = &m->at;
    uint64_t n = 0, skipped, dim = (uint64_t)c->dim, hidden = (uint64_t)c->hidden_dim, layers = (uint64_t)c->n_layers;
    uint64_t head_dim = dim / (uint64_t)c->n_heads;
    l->kv_dim = head_dim * (uint64_t)c->n_kv_heads;
    bool fits = advance(&n, 1, l->n_vocab, dim, &l->embedding) && advance(&n, layers, 1, dim, &l->attention_norm) &&
                advance(&n, layers, dim, dim, &l->wq) && advance(&n, layers, l->kv_dim, dim, &l->wk) &&
                advance(&n, layers, l->kv_dim, dim, &l->wv) && advance(&n, layers, dim, dim, &l->wo) &&
                advance(&n, layers, 1, dim, &l->ffn_norm) && advance(&n, layers, hidden, dim, &l->w1) &&
                advance(&n, layers, dim, hidden, &l->w2) && advance(&n, layers, hidden, dim, &l->w3) &&
                advance(&n, 1, 1, dim, &l->output_norm) && advance(&n, 1, (uint64_t)c->seq_len, head_dim, &skipped) &&
                advance(&n, 1, l->own_output ? l->n_vocab : 0, dim, &l->output);
    uint64_t wanted = fits ? sizeof *c + n * sizeof(float) : UINT64_MAX;
    if (wanted != m->file.size_bytes)
        return DIL_FAIL(m->err, DIL_FORMAT,
                        "%s: byte offset %zu: weights: wanted a file of %" PRIu64 " bytes for this header, found %" PRIu64
                        ": not a llama2.c checkpoint, or cut short",
                        m->path, sizeof *c, wanted, m->file.size_bytes);
    l->end = n;
    return DIL_OK;
}

/* ---- writing ---- */

static dil_status write_values(import *m)
{
    const config *c = &m->c;
    const llama2c_vocab *v = &m->vocab;
    gguf_writer *w = m->w;
    dil_error *err = m->err;
    DIL_TRY(gguf_writer_set_str(w, "general.architecture", STR("llama"), err));
    DIL_TRY(gguf_writer_set_str(w, "general.name", STR("llama2.c checkpoint"), err));
    DIL_TRY(gguf_writer_set_u32(w, "general.file_type", 0, err)); /* all F32 */
    DIL_TRY(gguf_writer_set_u32(w, "llama.vocab_size", (uint32_t)m->at.n_vocab, err));
    DIL_TRY(gguf_writer_set_u32(w, "llama.context_length", (uint32_t)c->seq_len, err));
    DIL_TRY(gguf_writer_set_u32(w, "llama.embedding_length", (uint32_t)c->dim, err));
    DIL_TRY(gguf_writer_set_u32(w, "llama.block_count", (uint32_t)c->n_layers, err));
    DIL_TRY(gguf_writer_set_u32(w, "llama.feed_forward_length", (uint32_t)c->hidden_dim, err));
    DIL_TRY(gguf_writer_set_u32(w, "llama.attention.head_count", (uint32_t)c->n_heads, err));
    DIL_TRY(gguf_writer_set_u32(w, "llama.attention.head_count_kv", (uint32_t)c->n_kv_heads, err));
    DIL_TRY(gguf_writer_set_f32(w, "llama.attention.layer_norm_rms_epsilon", RMS_EPSILON, err));
    DIL_TRY(gguf_writer_set_u32(w, "llama.rope.dimension_count", (uint32_t)(c->dim / c->n_heads), err));
    DIL_TRY(gguf_writer_set_f32(w, "llama.rope.freq_base", ROPE_BASE, err));
    DIL_TRY(gguf_writer_set_str(w, "tokenizer.ggml.model", STR("llama"), err));
    DIL_TRY(gguf_writer_set_strings(w, "tokenizer.ggml.tokens", v->texts, v->n, err));
    DIL_TRY(gguf_writer_set_f32_array(w, "tokenizer.ggml.scores", v->scores, v->n, err));
    DIL_TRY(gguf_writer_set_i32_array(w, "tokenizer.ggml.token_type", v->types, v->n, err));
    DIL_TRY(gguf_writer_set_u32(w, "tokenizer.ggml.bos_token_id", v->bos, err));
    DIL_TRY(gguf_writer_set_u32(w, "tokenizer.ggml.eos_token_id", v->eos, err));
    DIL_TRY(gguf_writer_set_u32(w, "tokenizer.ggml.unknown_token_id", v->unknown, err));
    DIL_TRY(gguf_writer_set_bool(w, "tokenizer.ggml.add_bos_token", true, err));
    DIL_TRY(gguf_writer_set_bool(w, "tokenizer.ggml.add_eos_token", false, err));
    return gguf_writer_set_bool(w, "tokenizer.ggml.add_space_prefix", v->add_space_prefix, err);
}

/* One tensor of the output; both passes (shapes, data) walk the same list. */
typedef dil_status (*each_tensor_fn)(import *m, const char *name, uint64_t at, uint64_t rows, uint64_t columns);

static dil_status add_shape(import *m, const char *name, uint64_t at, uint64_t rows, uint64_t columns)
{
    (void)at;
    uint64_t ne[2] = {columns, rows};
    return gguf_writer_add_tensor(m->w, str_of(name), DIL_TYPE_F32, rows > 0 ? 2 : 1, ne, m->err);
}

static dil_status add_data(import *m, const char *name, uint64_t at, uint64_t rows, uint64_t columns)
{
    (void)name;
    uint64_t n = (rows > 0 ? rows : 1) * columns * sizeof(float);
    return gguf_writer_data(m->w, m->bytes + sizeof m->c + at * sizeof(float), (size_t)n, m->err);
}

static dil_status each_layer_tensor(import *m, int i, each_tensor_fn each)
{
    const layout *l = &m->at;
    uint64_t layer = (uint64_t)i, dim = (uint64_t)m->c.dim, hidden = (uint64_t)m->c.hidden_dim;
    const struct {
        const char *name;
        uint64_t at, rows, columns;
    } list[] = {
        {"attn_norm", l->attention_norm, 0, dim}, {"attn_q", l->wq, dim, dim},      {"attn_k", l->wk, l->kv_dim, dim},
        {"attn_v", l->wv, l->kv_dim, dim},        {"attn_output", l->wo, dim, dim}, {"ffn_norm", l->ffn_norm, 0, dim},
        {"ffn_gate", l->w1, hidden, dim},         {"ffn_down", l->w2, dim, hidden}, {"ffn_up", l->w3, hidden, dim},
    };
    for (size_t k = 0; k < sizeof list / sizeof *list; k++) {
        char name[64];
        uint64_t n = (list[k].rows > 0 ? list[k].rows : 1) * list[k].columns;
        snprintf(name, sizeof name, "blk.%d.%s.weight", i, list[k].name);
        DIL_TRY(each(m, name, list[k].at + layer * n, list[k].rows, list[k].columns));
    }
    return DIL_OK;
}

static dil_status each_tensor(import *m, each_tensor_fn each)
{
    uint64_t dim = (uint64_t)m->c.dim;
    DIL_TRY(each(m, "token_embd.weight", m->at.embedding, m->at.n_vocab, dim));
    for (int i = 0; i < m->c.n_layers; i++)
        DIL_TRY(each_layer_tensor(m, i, each));
    DIL_TRY(each(m, "output_norm.weight", m->at.output_norm, 0, dim));
    return m->at.own_output ? each(m, "output.weight", m->at.output, m->at.n_vocab, dim) : DIL_OK;
}

static dil_status convert(import *m, const char *tokenizer_path, const char *out_path)
{
    DIL_TRY(read_config(m));
    DIL_TRY(place_weights(m));
    DIL_TRY(llama2c_vocab_read(&m->vocab, tokenizer_path, (uint32_t)m->at.n_vocab, m->err));
    DIL_TRY(gguf_writer_new(&m->w, out_path, m->err));
    DIL_TRY(write_values(m));
    DIL_TRY(each_tensor(m, add_shape));
    return each_tensor(m, add_data);
}

typedef struct guarded_import {
    import *m;
    const char *tokenizer_path, *out_path;
} guarded_import;

static void run_guarded_import(void *ctx)
{
    guarded_import *job = ctx;
    job->m->status = convert(job->m, job->tokenizer_path, job->out_path);
}

dil_status llama2c_import(const char *checkpoint_path, const char *tokenizer_path, const char *out_path, dil_error *err)
{
import m = {.path = checkpoint_path, .err = err };
    const void *bytes = NULL;
    DIL_TRY(os_file_open(&m.file, checkpoint_path, err));
    dil_status st = os_map_file(&m.file, &bytes, err);
    if (st != DIL_OK) {
        (void)status_prefix(err, "%s: ", checkpoint_path);
        goto done;
    }
    m.bytes = bytes;
    guarded_import job = {&m, tokenizer_path, out_path};
    st = os_guard(run_guarded_import, &job, m.bytes, (size_t)m.file.size_bytes, err);
    if (st == DIL_OK)
        st = m.status;
    if (st == DIL_OK) {
        st = gguf_writer_finish(m.w, err);
        m.w = NULL;
    }
done:
    gguf_writer_abort(m.w);
    llama2c_vocab_free(&m.vocab);
    os_unmap(bytes, (size_t)m.file.size_bytes);
    os_file_close(&m.file);
    return st;
}
