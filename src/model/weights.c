#include "model/weights.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/status.h"

/* ---- finding tensors ---- */

static const gguf_tensor *find_layer_tensor(const model *m, uint32_t i, const char *role, const char *suffix, char *name, size_t n)
{
    snprintf(name, n, "blk.%u.%s.%s", i, role, suffix);
    return gguf_tensor_find(m->file, name);
}

static dil_status missing(const model *m, const char *name, dil_error *err)
{
    return DIL_FAIL(err, DIL_FORMAT, "%s: tensor '%s' is missing; architecture '%.*s' needs it", gguf_path(m->file), name,
                    STR_ARG(m->h.architecture));
}

static dil_status wrong_shape(const model *m, const gguf_tensor *t, uint64_t cols, uint64_t rows, dil_error *err)
{
    return DIL_FAIL(err, DIL_FORMAT, "%s: tensor '%.*s': wanted shape [%llu, %llu], found [%llu, %llu, %llu, %llu]",
                    gguf_path(m->file), STR_ARG(t->name), (unsigned long long)cols, (unsigned long long)rows,
                    (unsigned long long)t->ne[0], (unsigned long long)t->ne[1], (unsigned long long)t->ne[2],
                    (unsigned long long)t->ne[3]);
}

/* rows rows from first_row on of a tensor with tensor_rows rows. */
static dil_status bind_matrix(const model *m, weight *w, const gguf_tensor *t, uint64_t cols, uint64_t tensor_rows,
                              uint64_t first_row, uint64_t rows, dil_error *err)
{
    if (t->ne[0] != cols || t->ne[1] != tensor_rows || t->ne[2] != 1 || t->ne[3] != 1)
        return wrong_shape(m, t, cols, tensor_rows, err);
    if (panel_bytes(t->type, (int64_t)cols) == 0)
        return DIL_FAIL(err, DIL_UNSUPPORTED, "%s: tensor '%.*s': type %s cannot hold the weights of a matrix of %llu columns",
                        gguf_path(m->file), STR_ARG(t->name), format_get(t->type) ? format_get(t->type)->name : "?",
                        (unsigned long long)cols);
    *w = (weight){.tensor = t, .first_row = first_row, .rows = (uint32_t)rows, .cols = (uint32_t)cols, .type = t->type};
    return DIL_OK;
}

static dil_status layer_matrix(const model *m, weight *w, uint32_t i, const char *role, uint64_t cols, uint64_t rows,
                               dil_error *err)
{
    char name[96];
    const gguf_tensor *t = find_layer_tensor(m, i, role, "weight", name, sizeof name);
    if (!t)
        return missing(m, name, err);
    return bind_matrix(m, w, t, cols, rows, 0, rows, err);
}

/* A 1-D tensor as f32 in the model's arena; *out stays NULL when absent and not required. */
static dil_status load_vector(model *m, const float **out, const char *name, uint64_t n, bool required, dil_error *err)
{
    const gguf_tensor *t = gguf_tensor_find(m->file, name);
    if (!t)
        return required ? missing(m, name, err) : DIL_OK;
    const format *f = format_get(t->type);
    if (t->ne[0] != n || t->ne[1] != 1 || t->ne[2] != 1 || t->ne[3] != 1)
        return wrong_shape(m, t, n, 1, err);
    if (!f || !f->decode)
        return DIL_FAIL(err, DIL_UNSUPPORTED, "%s: tensor '%s': wanted a floating-point type, found type number %d",
                        gguf_path(m->file), name, (int)t->type);
    float *values = arena_calloc(m->memory, round_up_size((size_t)n, 64), sizeof *values);
    if (!values)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for tensor '%s'", gguf_path(m->file), name);
    if (t->data)
        f->decode(t->data, values, (size_t)n);
    *out = values;
    return DIL_OK;
}

static dil_status layer_vector(model *m, const float **out, uint32_t i, const char *role, const char *suffix, uint64_t n,
                               bool required, dil_error *err)
{
    char name[96];
    snprintf(name, sizeof name, "blk.%u.%s.%s", i, role, suffix);
    return load_vector(m, out, name, n, required, err);
}

/* ---- layers ---- */

/* Three projections, from three tensors or from one that holds them one below the other. */
static dil_status bind_qkv(model *m, layer *l, uint32_t i, dil_error *err)
{
    const hparams *h = &m->h;
    uint64_t n_q = (uint64_t)h->n_head * h->head_dim, n_kv = (uint64_t)h->n_head_kv * h->head_dim;
    char name[96];
    const gguf_tensor *fused = find_layer_tensor(m, i, "attn_qkv", "weight", name, sizeof name);
    if (!fused) {
        DIL_TRY(layer_matrix(m, &l->q, i, "attn_q", h->n_embd, n_q, err));
        DIL_TRY(layer_matrix(m, &l->k, i, "attn_k", h->n_embd, n_kv, err));
        DIL_TRY(layer_matrix(m, &l->v, i, "attn_v", h->n_embd, n_kv, err));
        DIL_TRY(layer_vector(m, &l->q_bias, i, "attn_q", "bias", n_q, false, err));
        DIL_TRY(layer_vector(m, &l->k_bias, i, "attn_k", "bias", n_kv, false, err));
        return layer_vector(m, &l->v_bias, i, "attn_v", "bias", n_kv, false, err);
    }
    uint64_t all = n_q + 2 * n_kv;
    DIL_TRY(bind_matrix(m, &l->q, fused, h->n_embd, all, 0, n_q, err));
    DIL_TRY(bind_matrix(m, &l->k, fused, h->n_embd, all, n_q, n_kv, err));
    DIL_TRY(bind_matrix(m, &l->v, fused, h->n_embd, all, n_q + n_kv, n_kv, err));
    const float *bias = NULL;
    DIL_TRY(layer_vector(m, &bias, i, "attn_qkv", "bias", all, false, err));
    if (bias) {
        l->q_bias = bias;
        l->k_bias = bias + n_q;
        l->v_bias = bias + n_q + n_kv;
    }
    return DIL_OK;
}

static dil_status bind_norms(model *m, layer *l, uint32_t i, dil_error *err)
{
    const hparams *h = &m->h;
    if (h->pre_norm) {
        DIL_TRY(layer_vector(m, &l->attn_norm, i, "attn_norm", "weight", h->n_embd, true, err));
        DIL_TRY(layer_vector(m, &l->ffn_norm, i, "ffn_norm", "weight", h->n_embd, true, err));
    }
    if (h->post_norm) {
        DIL_TRY(layer_vector(m, &l->attn_post_norm, i, "post_attention_norm", "weight", h->n_embd, true, err));
        DIL_TRY(layer_vector(m, &l->ffn_post_norm, i, "post_ffw_norm", "weight", h->n_embd, true, err));
    }
    if (h->qk == QK_NORM_NONE)
        return DIL_OK;
    uint64_t n_q = h->qk == QK_NORM_HEAD ? h->head_dim : (uint64_t)h->n_head * h->head_dim;
    uint64_t n_k = h->qk == QK_NORM_HEAD ? h->head_dim : (uint64_t)h->n_head_kv * h->head_dim;
    DIL_TRY(layer_vector(m, &l->q_norm, i, "attn_q_norm", "weight", n_q, true, err));
    return layer_vector(m, &l->k_norm, i, "attn_k_norm", "weight", n_k, true, err);
}

static dil_status bind_ffn(model *m, layer *l, uint32_t i, dil_error *err)
{
    const hparams *h = &m->h;
    char name[96];
    if (find_layer_tensor(m, i, "ffn_gate", "weight", name, sizeof name)) {
        DIL_TRY(layer_matrix(m, &l->gate, i, "ffn_gate", h->n_embd, h->n_ff, err));
        DIL_TRY(layer_matrix(m, &l->up, i, "ffn_up", h->n_embd, h->n_ff, err));
        DIL_TRY(layer_vector(m, &l->gate_bias, i, "ffn_gate", "bias", h->n_ff, false, err));
        DIL_TRY(layer_vector(m, &l->up_bias, i, "ffn_up", "bias", h->n_ff, false, err));
    } else { /* gate above up in one tensor */
        const gguf_tensor *fused = find_layer_tensor(m, i, "ffn_up", "weight", name, sizeof name);
        if (!fused)
            return missing(m, name, err);
        DIL_TRY(bind_matrix(m, &l->gate, fused, h->n_embd, 2ull * h->n_ff, 0, h->n_ff, err));
        DIL_TRY(bind_matrix(m, &l->up, fused, h->n_embd, 2ull * h->n_ff, h->n_ff, h->n_ff, err));
    }
    DIL_TRY(layer_matrix(m, &l->down, i, "ffn_down", h->n_ff, h->n_embd, err));
    return layer_vector(m, &l->down_bias, i, "ffn_down", "bias", h->n_embd, false, err);
}

static dil_status bind_layer(model *m, uint32_t i, dil_error *err)
{
    const hparams *h = &m->h;
    layer *l = &m->layers[i];
    DIL_TRY(bind_qkv(m, l, i, err));
    DIL_TRY(layer_matrix(m, &l->o, i, "attn_output", (uint64_t)h->n_head * h->head_dim, h->n_embd, err));
    DIL_TRY(layer_vector(m, &l->o_bias, i, "attn_output", "bias", h->n_embd, false, err));
    DIL_TRY(bind_norms(m, l, i, err));
    return bind_ffn(m, l, i, err);
}

/* Frequencies are divided by these. */
static dil_status check_factors(const model *m, const char *name, const float *factors, dil_error *err)
{
    for (uint32_t i = 0; factors && gguf_tensor_find(m->file, name)->data && i < m->h.n_rot / 2; i++)
        if (!(factors[i] > 0.0f) || !isfinite(factors[i]))
            return DIL_FAIL(err, DIL_FORMAT, "%s: tensor '%s': wanted positive numbers, found %g at %u", gguf_path(m->file), name,
                            (double)factors[i], i);
    return DIL_OK;
}

static dil_status bind_head(model *m, dil_error *err)
{
    const hparams *h = &m->h;
    const gguf_tensor *embd = gguf_tensor_find(m->file, "token_embd.weight");
    const gguf_tensor *head = gguf_tensor_find(m->file, "output.weight");
    if (!embd)
        return missing(m, "token_embd.weight", err);
    DIL_TRY(bind_matrix(m, &m->embd, embd, h->n_embd, h->n_vocab, 0, h->n_vocab, err));
    m->tied = head == NULL;
    DIL_TRY(bind_matrix(m, &m->head, head ? head : embd, h->n_embd, h->n_vocab, 0, h->n_vocab, err));
    DIL_TRY(load_vector(m, &m->output_norm, "output_norm.weight", h->n_embd, true, err));
    DIL_TRY(load_vector(m, &m->head_bias, "output.bias", h->n_vocab, false, err));
    DIL_TRY(load_vector(m, &m->rope_freqs, "rope_freqs.weight", h->n_rot / 2, false, err));
    DIL_TRY(load_vector(m, &m->rope_long, "rope_factors_long.weight", h->n_rot / 2, false, err));
    DIL_TRY(load_vector(m, &m->rope_short, "rope_factors_short.weight", h->n_rot / 2, false, err));
    DIL_TRY(check_factors(m, "rope_freqs.weight", m->rope_freqs, err));
    DIL_TRY(check_factors(m, "rope_factors_long.weight", m->rope_long, err));
    return check_factors(m, "rope_factors_short.weight", m->rope_short, err);
}

dil_status weights_bind(model *m, dil_error *err)
{
    m->layers = arena_calloc(m->memory, m->h.n_layer, sizeof *m->layers);
    if (!m->layers)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for %u layers", gguf_path(m->file), m->h.n_layer);
    for (uint32_t i = 0; i < m->h.n_layer; i++)
        DIL_TRY(bind_layer(m, i, err));
    return bind_head(m, err);
}

/* ---- the packed region ---- */

#define WEIGHTS_PER_LAYER 7

static weight *layer_weight(layer *l, int i)
{
    weight *all[WEIGHTS_PER_LAYER] = {&l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down};
    return all[i];
}

weight *weights_nth(model *m, size_t i)
{
    if (i == (size_t)m->h.n_layer * WEIGHTS_PER_LAYER)
        return &m->head;
    return layer_weight(&m->layers[i / WEIGHTS_PER_LAYER], (int)(i % WEIGHTS_PER_LAYER));
}

size_t weights_count(const model *m) { return (size_t)m->h.n_layer * WEIGHTS_PER_LAYER + 1; }

dil_status weights_size(model *m, dil_error *err)
{
    size_t total = 0;
    for (size_t i = 0; i < weights_count(m); i++) {
        weight *w = weights_nth(m, i);
        w->n_panels = (int)((w->rows + PANEL_ROWS - 1) / PANEL_ROWS);
        w->panel_bytes = panel_bytes(w->type, w->cols);
        w->packed_offset = total;
        size_t bytes;
        if (!checked_mul_size(w->panel_bytes, (size_t)w->n_panels, &bytes) ||
            !checked_add_size(total, round_up_size(bytes, 64), &total))
            return DIL_FAIL(err, DIL_LIMIT, "%s: the weights do not fit an address space", gguf_path(m->file));
    }
    m->packed_bytes = total;
    return DIL_OK;
}

void weights_place(model *m, const uint8_t *region)
{
    m->packed = region;
    for (size_t i = 0; i < weights_count(m); i++) {
        weight *w = weights_nth(m, i);
        w->panels = region + w->packed_offset;
    }
}
