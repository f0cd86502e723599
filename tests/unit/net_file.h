/* Test helper: the trainer's networks as GGUF files, and back. Names and shapes are GGUF's already. */
#ifndef TESTS_NET_FILE_H
#define TESTS_NET_FILE_H

#include <stdio.h>

#include "base/status.h"
#include "file/gguf.h"
#include "train/net.h"

static inline dil_status net_file_values(gguf_writer *w, const net_config *c, dil_error *err)
{
    const char *arch = c->n_experts ? "qwen3moe" : "llama";
    char key[64];
    const struct {
        const char *name;
        int value;
    } numbers[] = {{"context_length", c->n_context},
                   {"embedding_length", c->n_embd},
                   {"block_count", c->n_layer},
                   {"feed_forward_length", c->n_experts ? c->n_ff_expert : c->n_ff},
                   {"attention.head_count", c->n_head},
                   {"attention.head_count_kv", c->n_head_kv},
                   {"attention.key_length", c->head_dim},
                   {"attention.value_length", c->head_dim},
                   {"rope.dimension_count", c->head_dim},
                   {"vocab_size", c->n_vocab},
                   {"expert_count", c->n_experts},
                   {"expert_used_count", c->n_used},
                   {"expert_feed_forward_length", c->n_ff_expert}};
    DIL_TRY(gguf_writer_set_str(w, "general.architecture", str_of(arch), err));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        snprintf(key, sizeof key, "%s.%s", arch, numbers[i].name);
        if (numbers[i].value)
            DIL_TRY(gguf_writer_set_u32(w, key, (uint32_t)numbers[i].value, err));
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", arch);
    DIL_TRY(gguf_writer_set_f32(w, key, c->norm_eps, err));
    snprintf(key, sizeof key, "%s.rope.freq_base", arch);
    DIL_TRY(gguf_writer_set_f32(w, key, c->rope_base, err));
    int32_t numbered[NET_MAX_LAYERS]; /* a list with something for each layer, and one that is as long by chance */
    for (int i = 0; i < c->n_layer; i++)
        numbered[i] = i;
    snprintf(key, sizeof key, "%s.test.layer_numbers", arch);
    DIL_TRY(gguf_writer_set_i32_array(w, key, numbered, (uint64_t)c->n_layer, err));
    return gguf_writer_set_i32_array(w, "general.test_numbers", numbered, (uint64_t)c->n_layer, err);
}

static inline dil_status net_file_write(net *n, const char *path, dil_error *err)
{
    gguf_writer *w = NULL;
    DIL_TRY(gguf_writer_new(&w, path, err));
    dil_status status = net_file_values(w, net_config_of(n), err);
    for (int i = 0; status == DIL_OK && i < net_n_parameters(n); i++) {
        const parameter *p = net_parameter_at(n, i);
        const uint64_t ne[GGUF_MAX_DIMS] = {(uint64_t)p->columns, (uint64_t)p->rows, (uint64_t)p->n, 1};
        status = gguf_writer_add_tensor(w, str_of(p->name), DIL_TYPE_F32, p->n > 1 ? 3 : p->rows > 1 ? 2 : 1, ne, err);
    }
    for (int i = 0; status == DIL_OK && i < net_n_parameters(n); i++)
        status = gguf_writer_data(w, net_parameter_at(n, i)->w, net_parameter_at(n, i)->count * sizeof(float), err);
    if (status == DIL_OK)
        return gguf_writer_finish(w, err);
    gguf_writer_abort(w);
    return status;
}

/* The file's values into a network of its shape. */
static inline dil_status net_file_read(net *n, const gguf *file, dil_error *err)
{
    for (int i = 0; i < net_n_parameters(n); i++) {
        parameter *p = net_parameter_at(n, i);
        const gguf_tensor *t = gguf_tensor_find(file, p->name);
        if (!t || t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3] != p->count)
            return DIL_FAIL(err, DIL_FORMAT, "%s: wanted %zu values", p->name, p->count);
        format_get(t->type)->decode(t->data, p->w, p->count);
    }
    net_refresh(n);
    return DIL_OK;
}

#endif
