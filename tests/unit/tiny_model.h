/* Test helper: small models with random weights and a SentencePiece vocabulary of bytes and letters, written as GGUF files. */
#ifndef TESTS_TINY_MODEL_H
#define TESTS_TINY_MODEL_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "file/gguf.h"
#include "tokens/vocab.h"

typedef struct tiny_model {
    const char *arch; /* "llama", "qwen2" (with biases), "gemma3" (with windows), "qwen2moe", "qwen3moe" */
    dil_type type;    /* of the matrices */
    uint32_t n_embd, n_layer, n_head, n_head_kv, head_dim, n_ff, n_vocab, n_context;
    uint32_t window;                         /* gemma3 */
    uint32_t n_experts, n_used, n_ff_shared; /* qwen2moe, qwen3moe: n_ff is the width of an expert */
    bool tied;
    uint32_t seed;
} tiny_model;

#define TINY_SPECIALS 3u /* <unk> <s> </s> */
#define TINY_LETTERS 27u /* the space mark and a..z */
#define TINY_LEAST_VOCAB (TINY_SPECIALS + 256u + TINY_LETTERS)

/* 0 <= value < 2^24, the same on every machine. */
static inline uint32_t tiny_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static inline float tiny_uniform(uint32_t *state) { return (float)tiny_random(state) / 8388608.0f - 1.0f; }

typedef struct tiny_writer {
    gguf_writer *w;
    const tiny_model *m;
    uint32_t random;
    bool data; /* second pass: values, after all names are known */
    dil_error err;
} tiny_writer;

static inline void tiny_ok(dil_status status, const dil_error *err)
{
    if (status == DIL_OK)
        return;
    (void)fprintf(stderr, "tiny model: %s\n", err->text);
    abort();
}

/* rows x cols values around `centre`, +- spread, of the given type, `depth` times. */
static inline void tiny_tensor_deep(tiny_writer *t, const char *name, dil_type type, int n_dims, uint64_t cols, uint64_t rows,
                                    uint64_t depth, float centre, float spread)
{
    uint64_t ne[3] = {cols, rows, depth}, row_bytes;
    if (!t->data) {
        tiny_ok(gguf_writer_add_tensor(t->w, str_of(name), type, n_dims, ne, &t->err), &t->err);
        return;
    }
    if (!format_row_bytes(type, cols, &row_bytes))
        abort();
    float *values = malloc(cols * sizeof *values);
    void *bytes = malloc(row_bytes);
    for (uint64_t r = 0; r < rows * depth && values && bytes; r++) {
        for (uint64_t i = 0; i < cols; i++)
            values[i] = centre + spread * tiny_uniform(&t->random);
        format_get(type)->encode(values, bytes, cols, NULL);
        tiny_ok(gguf_writer_data(t->w, bytes, row_bytes, &t->err), &t->err);
    }
    free(values);
    free(bytes);
}

static inline void tiny_tensor(tiny_writer *t, const char *name, dil_type type, int n_dims, uint64_t cols, uint64_t rows,
                               float centre, float spread)
{
    tiny_tensor_deep(t, name, type, n_dims, cols, rows, 1, centre, spread);
}

static inline void tiny_matrix(tiny_writer *t, uint32_t layer, const char *role, uint64_t cols, uint64_t rows)
{
    char name[64];
    (void)snprintf(name, sizeof name, "blk.%u.%s.weight", layer, role);
    tiny_tensor(t, name, t->m->type, 2, cols, rows, 0.0f, 1.7f / sqrtf((float)cols));
}

static inline void tiny_vector(tiny_writer *t, uint32_t layer, const char *name_of_tensor, uint64_t n, float centre)
{
    char name[64];
    (void)snprintf(name, sizeof name, "blk.%u.%s", layer, name_of_tensor);
    tiny_tensor(t, name, DIL_TYPE_F32, 1, n, 1, centre, 0.2f);
}

static inline void tiny_stack(tiny_writer *t, uint32_t layer, const char *role, uint64_t cols, uint64_t rows)
{
    char name[64];
    (void)snprintf(name, sizeof name, "blk.%u.%s.weight", layer, role);
    tiny_tensor_deep(t, name, t->m->type, 3, cols, rows, t->m->n_experts, 0.0f, 1.7f / sqrtf((float)cols));
}

static inline void tiny_experts(tiny_writer *t, uint32_t i)
{
    const tiny_model *m = t->m;
    char name[64];
    (void)snprintf(name, sizeof name, "blk.%u.ffn_gate_inp.weight", i);
    tiny_tensor(t, name, DIL_TYPE_F32, 2, m->n_embd, m->n_experts, 0.0f, 3.0f / sqrtf((float)m->n_embd));
    tiny_stack(t, i, "ffn_gate_exps", m->n_embd, m->n_ff);
    tiny_stack(t, i, "ffn_up_exps", m->n_embd, m->n_ff);
    tiny_stack(t, i, "ffn_down_exps", m->n_ff, m->n_embd);
    if (m->n_ff_shared == 0)
        return;
    tiny_matrix(t, i, "ffn_gate_shexp", m->n_embd, m->n_ff_shared);
    tiny_matrix(t, i, "ffn_up_shexp", m->n_embd, m->n_ff_shared);
    tiny_matrix(t, i, "ffn_down_shexp", m->n_ff_shared, m->n_embd);
    tiny_vector(t, i, "ffn_gate_inp_shexp.weight", m->n_embd, 0.0f);
}

static inline void tiny_layer(tiny_writer *t, uint32_t i)
{
    const tiny_model *m = t->m;
    uint64_t n_q = (uint64_t)m->n_head * m->head_dim, n_kv = (uint64_t)m->n_head_kv * m->head_dim;
    tiny_vector(t, i, "attn_norm.weight", m->n_embd, 1.0f);
    tiny_matrix(t, i, "attn_q", m->n_embd, n_q);
    tiny_matrix(t, i, "attn_k", m->n_embd, n_kv);
    tiny_matrix(t, i, "attn_v", m->n_embd, n_kv);
    if (strncmp(m->arch, "qwen2", 5) == 0) {
        tiny_vector(t, i, "attn_q.bias", n_q, 0.0f);
        tiny_vector(t, i, "attn_k.bias", n_kv, 0.0f);
        tiny_vector(t, i, "attn_v.bias", n_kv, 0.0f);
    }
    if (strcmp(m->arch, "gemma3") == 0 || strcmp(m->arch, "qwen3moe") == 0) {
        tiny_vector(t, i, "attn_q_norm.weight", m->head_dim, 1.0f);
        tiny_vector(t, i, "attn_k_norm.weight", m->head_dim, 1.0f);
    }
    if (strcmp(m->arch, "gemma3") == 0) {
        tiny_vector(t, i, "post_attention_norm.weight", m->n_embd, 1.0f);
        tiny_vector(t, i, "post_ffw_norm.weight", m->n_embd, 1.0f);
    }
    tiny_matrix(t, i, "attn_output", n_q, m->n_embd);
    tiny_vector(t, i, "ffn_norm.weight", m->n_embd, 1.0f);
    if (m->n_experts > 0) {
        tiny_experts(t, i);
        return;
    }
    tiny_matrix(t, i, "ffn_gate", m->n_embd, m->n_ff);
    tiny_matrix(t, i, "ffn_up", m->n_embd, m->n_ff);
    tiny_matrix(t, i, "ffn_down", m->n_ff, m->n_embd);
}

static inline void tiny_tensors(tiny_writer *t)
{
    const tiny_model *m = t->m;
    t->random = m->seed * 2654435761u + 12345u;
    tiny_tensor(t, "token_embd.weight", m->type, 2, m->n_embd, m->n_vocab, 0.0f, 0.3f);
    for (uint32_t i = 0; i < m->n_layer; i++)
        tiny_layer(t, i);
    tiny_tensor(t, "output_norm.weight", DIL_TYPE_F32, 1, m->n_embd, 1, 1.0f, 0.2f);
    if (!m->tied)
        tiny_tensor(t, "output.weight", m->type, 2, m->n_embd, m->n_vocab, 0.0f, 0.3f);
}

static inline void tiny_vocab(tiny_writer *t)
{
    const tiny_model *m = t->m;
    char(*texts)[16] = calloc(m->n_vocab, sizeof *texts);
    str *tokens = calloc(m->n_vocab, sizeof *tokens);
    float *scores = calloc(m->n_vocab, sizeof *scores);
    int32_t *types = calloc(m->n_vocab, sizeof *types);
    if (!texts || !tokens || !scores || !types || m->n_vocab < TINY_LEAST_VOCAB)
        abort();
    static const char *const specials[TINY_SPECIALS] = {"<unk>", "<s>", "</s>"};
    for (uint32_t i = 0; i < m->n_vocab; i++) {
        types[i] = i == 0 ? TOKEN_UNKNOWN : i < TINY_SPECIALS ? TOKEN_CONTROL : i < TINY_SPECIALS + 256 ? TOKEN_BYTE : TOKEN_NORMAL;
        scores[i] = -(float)i;
        if (i < TINY_SPECIALS)
            (void)snprintf(texts[i], sizeof texts[i], "%s", specials[i]);
        else if (i < TINY_SPECIALS + 256)
            (void)snprintf(texts[i], sizeof texts[i], "<0x%02X>", i - TINY_SPECIALS);
        else if (i == TINY_SPECIALS + 256)
            (void)snprintf(texts[i], sizeof texts[i], "\xe2\x96\x81");
        else if (i < TINY_LEAST_VOCAB)
            (void)snprintf(texts[i], sizeof texts[i], "%c", 'a' + (int)(i - TINY_SPECIALS - 257));
        else
            (void)snprintf(texts[i], sizeof texts[i], "token%u", i);
        tokens[i] = str_of(texts[i]);
    }
    tiny_ok(gguf_writer_set_str(t->w, "tokenizer.ggml.model", STR("llama"), &t->err), &t->err);
    tiny_ok(gguf_writer_set_strings(t->w, "tokenizer.ggml.tokens", tokens, m->n_vocab, &t->err), &t->err);
    tiny_ok(gguf_writer_set_f32_array(t->w, "tokenizer.ggml.scores", scores, m->n_vocab, &t->err), &t->err);
    tiny_ok(gguf_writer_set_i32_array(t->w, "tokenizer.ggml.token_type", types, m->n_vocab, &t->err), &t->err);
    tiny_ok(gguf_writer_set_u32(t->w, "tokenizer.ggml.unknown_token_id", 0, &t->err), &t->err);
    tiny_ok(gguf_writer_set_u32(t->w, "tokenizer.ggml.bos_token_id", 1, &t->err), &t->err);
    tiny_ok(gguf_writer_set_u32(t->w, "tokenizer.ggml.eos_token_id", 2, &t->err), &t->err);
    free(texts);
    free(tokens);
    free(scores);
    free(types);
}

static inline void tiny_number(tiny_writer *t, const char *key, uint32_t value)
{
    char name[96];
    (void)snprintf(name, sizeof name, "%s.%s", t->m->arch, key);
    tiny_ok(gguf_writer_set_u32(t->w, name, value, &t->err), &t->err);
}

static inline void tiny_values(tiny_writer *t)
{
    const tiny_model *m = t->m;
    tiny_ok(gguf_writer_set_str(t->w, "general.architecture", str_of(m->arch), &t->err), &t->err);
    tiny_number(t, "context_length", m->n_context);
    tiny_number(t, "embedding_length", m->n_embd);
    tiny_number(t, "block_count", m->n_layer);
    tiny_number(t, "feed_forward_length", m->n_ff);
    tiny_number(t, "attention.head_count", m->n_head);
    tiny_number(t, "attention.head_count_kv", m->n_head_kv);
    tiny_number(t, "attention.key_length", m->head_dim);
    tiny_number(t, "attention.value_length", m->head_dim);
    if (m->n_experts) {
        tiny_number(t, "expert_count", m->n_experts);
        tiny_number(t, "expert_used_count", m->n_used);
        tiny_number(t, "expert_feed_forward_length", m->n_ff);
        tiny_number(t, "expert_shared_feed_forward_length", m->n_ff_shared);
    }
    if (m->window) {
        tiny_number(t, "attention.sliding_window", m->window);
        tiny_number(t, "attention.sliding_window_pattern", 2);
    }
    tiny_vocab(t);
}

/* Writes the model to path, or ends the test. */
static inline void tiny_write(const char *path, const tiny_model *m)
{
    tiny_writer t = {.m = m};
    tiny_ok(gguf_writer_new(&t.w, path, &t.err), &t.err);
    tiny_values(&t);
    tiny_tensors(&t);
    t.data = true;
    tiny_tensors(&t);
    tiny_ok(gguf_writer_finish(t.w, &t.err), &t.err);
}

/* A llama with grouped heads; quantized types by blocks of 256 fit, too. */
static inline tiny_model tiny_llama(dil_type type)
{
    return (tiny_model){.arch = "llama",
                        .type = type,
                        .n_embd = 256,
                        .n_layer = 2,
                        .n_head = 8,
                        .n_head_kv = 2,
                        .head_dim = 32,
                        .n_ff = 256,
                        .n_vocab = 301,
                        .n_context = 2048,
                        .seed = 1};
}

/* 16 small experts, 3 per token; with a shared one the family without Q/K norms. */
static inline tiny_model tiny_moe(dil_type type, bool shared)
{
    tiny_model t = tiny_llama(type);
    t.arch = shared ? "qwen2moe" : "qwen3moe";
    t.n_experts = 16;
    t.n_used = 3;
    t.n_ff_shared = shared ? 256 : 0;
    t.n_layer = 3;
    t.seed = 5;
    return t;
}

/* Windows smaller than a page, heads whose columns do not fill blocks of 32, tied embeddings. */
static inline tiny_model tiny_gemma(dil_type type)
{
    return (tiny_model){.arch = "gemma3",
                        .type = type,
                        .n_embd = 96,
                        .n_layer = 3,
                        .n_head = 8,
                        .n_head_kv = 2,
                        .head_dim = 20,
                        .n_ff = 160,
                        .n_vocab = 295,
                        .n_context = 2048,
                        .window = 50,
                        .tied = true,
                        .seed = 2};
}

static char tiny_folder[500];
static long tiny_owner; /* children that are forked leave the folder alone */

static inline void tiny_remove_folder(void)
{
    dil_error ignored;
    if (tiny_owner == (long)getpid())
        (void)!os_remove_tree(tiny_folder, &ignored);
}

/* A path in a fresh folder under $TMPDIR that goes away with this process; out holds 600 bytes. */
static inline char *tiny_path(char *out, const char *name)
{
    if (!tiny_owner) {
        const char *base = getenv("TMPDIR");
        (void)snprintf(tiny_folder, sizeof tiny_folder, "%s/dil-test-XXXXXX", base && strlen(base) < 400 ? base : "/tmp");
        if (!mkdtemp(tiny_folder) || atexit(tiny_remove_folder) != 0)
            abort();
        tiny_owner = (long)getpid();
    }
    (void)snprintf(out, 600, "%s/%s", tiny_folder, name);
    return out;
}

#endif
