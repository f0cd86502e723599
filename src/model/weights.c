#include "model/weights.h"

#include <math.h>
#include <stddef.h>
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

static dil_status wrong_shape(const model *m, const gguf_tensor *t, uint64_t cols, uint64_t rows, uint64_t n_matrices,
                              dil_error *err)
{
    char depth[32] = "";
    if (n_matrices != 1)
        snprintf(depth, sizeof depth, ", %llu", (unsigned long long)n_matrices);
    return DIL_FAIL(err, DIL_FORMAT, "%s: tensor '%.*s': wanted shape [%llu, %llu%s], found [%llu, %llu, %llu, %llu]",
                    gguf_path(m->file), STR_ARG(t->name), (unsigned long long)cols, (unsigned long long)rows, depth,
                    (unsigned long long)t->ne[0], (unsigned long long)t->ne[1], (unsigned long long)t->ne[2],
                    (unsigned long long)t->ne[3]);
}

/* rows rows from first_row on of a tensor with tensor_rows rows in each of n_matrices matrices. */
static dil_status bind_rows(const model *m, weight *w, const gguf_tensor *t, uint64_t cols, uint64_t tensor_rows,
                            uint64_t n_matrices, uint64_t first_row, uint64_t rows, dil_error *err)
{
    if (t->ne[0] != cols || t->ne[1] != tensor_rows || t->ne[2] != n_matrices || t->ne[3] != 1)
        return wrong_shape(m, t, cols, tensor_rows, n_matrices, err);
    if (panel_bytes(t->type, (int64_t)cols) == 0)
        return DIL_FAIL(err, DIL_UNSUPPORTED, "%s: tensor '%.*s': type %s cannot hold the weights of a matrix of %llu columns",
                        gguf_path(m->file), STR_ARG(t->name), format_get(t->type) ? format_get(t->type)->name : "?",
                        (unsigned long long)cols);
    *w = (weight){.tensor = t, .first_row = first_row, .rows = (uint32_t)rows, .cols = (uint32_t)cols, .type = t->type};
    return DIL_OK;
}

static dil_status bind_matrix(const model *m, weight *w, const gguf_tensor *t, uint64_t cols, uint64_t tensor_rows,
                              uint64_t first_row, uint64_t rows, dil_error *err)
{
    return bind_rows(m, w, t, cols, tensor_rows, 1, first_row, rows, err);
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

/* A small tensor [rows][n] as f32 in the model's arena; *out stays NULL when absent and not required. */
static dil_status load_table(model *m, const float **out, const char *name, uint64_t n, uint64_t rows, bool required,
                             dil_error *err)
{
    const gguf_tensor *t = gguf_tensor_find(m->file, name);
    if (!t)
        return required ? missing(m, name, err) : DIL_OK;
    const format *f = format_get(t->type);
    if (t->ne[0] != n || t->ne[1] != rows || t->ne[2] != 1 || t->ne[3] != 1)
        return wrong_shape(m, t, n, rows, 1, err);
    if (!f || !f->decode)
        return DIL_FAIL(err, DIL_UNSUPPORTED, "%s: tensor '%s': wanted a floating-point type, found type number %d",
                        gguf_path(m->file), name, (int)t->type);
    float *values = arena_calloc(m->memory, round_up_size((size_t)(n * rows), 64), sizeof *values); /* n, rows: below 2^25 */
    if (!values)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for tensor '%s'", gguf_path(m->file), name);
    if (t->data)
        f->decode(t->data, values, (size_t)(n * rows));
    *out = values;
    return DIL_OK;
}

static dil_status load_vector(model *m, const float **out, const char *name, uint64_t n, bool required, dil_error *err)
{
    return load_table(m, out, name, n, 1, required, err);
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
static dil_status bind_qkv(model *m, layer_weights *l, uint32_t i, dil_error *err)
{
    const hparams *h = &m->h;
    uint64_t n_q = (uint64_t)h->n_head * h->head_dim, n_k = (uint64_t)h->n_head_kv * h->head_dim,
             n_v = (uint64_t)h->n_head_kv * h->head_dim_v;
    char name[96];
    const gguf_tensor *fused = find_layer_tensor(m, i, "attn_qkv", "weight", name, sizeof name);
    if (!fused) {
        DIL_TRY(layer_matrix(m, &l->q, i, "attn_q", h->n_embd, n_q, err));
        DIL_TRY(layer_matrix(m, &l->k, i, "attn_k", h->n_embd, n_k, err));
        DIL_TRY(layer_matrix(m, &l->v, i, "attn_v", h->n_embd, n_v, err));
        DIL_TRY(layer_vector(m, &l->q_bias, i, "attn_q", "bias", n_q, false, err));
        DIL_TRY(layer_vector(m, &l->k_bias, i, "attn_k", "bias", n_k, false, err));
        return layer_vector(m, &l->v_bias, i, "attn_v", "bias", n_v, false, err);
    }
    uint64_t all = n_q + n_k + n_v;
    DIL_TRY(bind_matrix(m, &l->q, fused, h->n_embd, all, 0, n_q, err));
    DIL_TRY(bind_matrix(m, &l->k, fused, h->n_embd, all, n_q, n_k, err));
    DIL_TRY(bind_matrix(m, &l->v, fused, h->n_embd, all, n_q + n_k, n_v, err));
    const float *bias = NULL;
    DIL_TRY(layer_vector(m, &bias, i, "attn_qkv", "bias", all, false, err));
    if (bias) {
        l->q_bias = bias;
        l->k_bias = bias + n_q;
        l->v_bias = bias + n_q + n_k;
    }
    return DIL_OK;
}

/* A stack of matrices, one per head. */
static dil_status bind_heads(model *m, weight **out, uint32_t i, const char *role, uint64_t cols, uint64_t rows, dil_error *err)
{
    uint32_t n = m->h.n_head;
    char name[96];
    const gguf_tensor *t = find_layer_tensor(m, i, role, "weight", name, sizeof name);
    if (!t)
        return missing(m, name, err);
    if (!(*out = arena_calloc(m->memory, n, sizeof **out)))
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for %u heads", gguf_path(m->file), n);
    for (uint32_t head = 0; head < n; head++)
        DIL_TRY(bind_rows(m, &(*out)[head], t, cols, rows, n, head * rows, rows, err));
    return DIL_OK;
}

static dil_status bind_latent(model *m, layer_weights *l, uint32_t i, dil_error *err)
{
    const hparams *h = &m->h;
    const latent_params *p = &h->latent;
    uint64_t n_q = (uint64_t)h->n_head * (p->n_plain + h->n_rot);
    char name[96];
    latent_layer *a = l->latent = arena_calloc(m->memory, 1, sizeof *a);
    if (!a)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for layer %u", gguf_path(m->file), i);
    if (p->q_rank > 0 && find_layer_tensor(m, i, "attn_q_a", "weight", name, sizeof name)) {
        DIL_TRY(layer_matrix(m, &a->q_a, i, "attn_q_a", h->n_embd, p->q_rank, err));
        DIL_TRY(layer_vector(m, &a->q_a_norm, i, "attn_q_a_norm", "weight", p->q_rank, true, err));
        DIL_TRY(layer_matrix(m, &a->q_b, i, "attn_q_b", p->q_rank, n_q, err));
    } else {
        DIL_TRY(layer_matrix(m, &l->q, i, "attn_q", h->n_embd, n_q, err));
    }
    DIL_TRY(layer_matrix(m, &a->kv_a, i, "attn_kv_a_mqa", h->n_embd, p->kv_rank + h->n_rot, err));
    DIL_TRY(layer_vector(m, &a->kv_a_norm, i, "attn_kv_a_norm", "weight", p->kv_rank, true, err));
    if (!p->absorbed)
        return layer_matrix(m, &a->kv_b, i, "attn_kv_b", p->kv_rank, (uint64_t)h->n_head * (p->n_plain + p->n_value), err);
    DIL_TRY(bind_heads(m, &a->k_b, i, "attn_k_b", p->n_plain, p->kv_rank, err));
    return bind_heads(m, &a->v_b, i, "attn_v_b", p->kv_rank, p->n_value, err);
}

static dil_status bind_norms(model *m, layer_weights *l, uint32_t i, dil_error *err)
{
    const hparams *h = &m->h;
    if (h->pre_norm) {
        DIL_TRY(layer_vector(m, &l->attn_norm, i, "attn_norm", "weight", h->n_embd, true, err));
        DIL_TRY(layer_vector(m, &l->ffn_norm, i, h->ffn_norm, "weight", h->n_embd, true, err));
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

static dil_status bind_ffn(model *m, layer_weights *l, uint32_t i, dil_error *err)
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

static weight *expert_member(expert_layer *e, uint32_t x, size_t member) { return (weight *)((char *)&e->experts[x] + member); }

/* One matrix of every expert: where in an expert it goes, and its table of biases. */
static dil_status bind_expert_matrix(model *m, expert_layer *e, uint32_t i, const char *role, size_t member, uint64_t cols,
                                     uint64_t rows, const float **bias, dil_error *err)
{
    uint32_t n = m->h.experts.n_experts;
    char name[96];
    const gguf_tensor *t = find_layer_tensor(m, i, role, "weight", name, sizeof name);
    if (!t)
        return missing(m, name, err);
    for (uint32_t x = 0; x < n; x++)
        DIL_TRY(bind_rows(m, expert_member(e, x, member), t, cols, rows, n, x * rows, rows, err));
    snprintf(name, sizeof name, "blk.%u.%s.bias", i, role);
    return load_table(m, bias, name, rows, n, false, err);
}

/* Gate and up of every expert, from two tensors or from one that holds gate above up. */
static dil_status bind_expert_gate_up(model *m, expert_layer *e, uint32_t i, dil_error *err)
{
    const hparams *h = &m->h;
    uint32_t n = h->experts.n_experts, n_ff = h->experts.n_ff;
    char name[96];
    const gguf_tensor *fused = find_layer_tensor(m, i, "ffn_gate_up_exps", "weight", name, sizeof name);
    if (!fused) {
        DIL_TRY(bind_expert_matrix(m, e, i, "ffn_gate_exps", offsetof(expert_weights, gate), h->n_embd, n_ff, &e->gate_bias, err));
        return bind_expert_matrix(m, e, i, "ffn_up_exps", offsetof(expert_weights, up), h->n_embd, n_ff, &e->up_bias, err);
    }
    for (uint32_t x = 0; x < n; x++) {
        uint64_t first = 2ull * n_ff * x;
        DIL_TRY(bind_rows(m, &e->experts[x].gate, fused, h->n_embd, 2ull * n_ff, n, first, n_ff, err));
        DIL_TRY(bind_rows(m, &e->experts[x].up, fused, h->n_embd, 2ull * n_ff, n, first + n_ff, n_ff, err));
    }
    return DIL_OK;
}

static dil_status bind_shared_expert(model *m, layer_weights *l, uint32_t i, dil_error *err)
{
    const hparams *h = &m->h;
    uint64_t n_ff = h->experts.n_ff_shared;
    if (n_ff == 0)
        return DIL_OK;
    DIL_TRY(layer_matrix(m, &l->gate, i, "ffn_gate_shexp", h->n_embd, n_ff, err));
    DIL_TRY(layer_matrix(m, &l->up, i, "ffn_up_shexp", h->n_embd, n_ff, err));
    DIL_TRY(layer_matrix(m, &l->down, i, "ffn_down_shexp", n_ff, h->n_embd, err));
    return layer_vector(m, &l->moe->shared_gate, i, "ffn_gate_inp_shexp", "weight", h->n_embd, h->experts.shared_gate, err);
}

static dil_status bind_experts(model *m, layer_weights *l, uint32_t i, dil_error *err)
{
    const hparams *h = &m->h;
    uint32_t n = h->experts.n_experts, n_ff = h->experts.n_ff;
    expert_layer *e = l->moe = arena_calloc(m->memory, 1, sizeof *e);
    if (!e || !(e->experts = arena_calloc(m->memory, n, sizeof *e->experts)))
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for %u experts", gguf_path(m->file), n);
    DIL_TRY(layer_matrix(m, &e->router, i, "ffn_gate_inp", h->n_embd, n, err));
    DIL_TRY(layer_vector(m, &e->router_bias, i, "ffn_gate_inp", "bias", n, false, err));
    DIL_TRY(layer_vector(m, &e->choice_bias, i, "exp_probs_b", "bias", n, false, err));
    DIL_TRY(bind_expert_gate_up(m, e, i, err));
    DIL_TRY(bind_expert_matrix(m, e, i, "ffn_down_exps", offsetof(expert_weights, down), n_ff, h->n_embd, &e->down_bias, err));
    return bind_shared_expert(m, l, i, err);
}

static dil_status bind_layer(model *m, uint32_t i, dil_error *err)
{
    const hparams *h = &m->h;
    layer_weights *l = &m->layers[i];
    bool latent = h->latent.kv_rank > 0;
    DIL_TRY(latent ? bind_latent(m, l, i, err) : bind_qkv(m, l, i, err));
    uint64_t n_values = (uint64_t)h->n_head * (latent ? h->latent.n_value : h->head_dim_v);
    DIL_TRY(layer_matrix(m, &l->o, i, "attn_output", n_values, h->n_embd, err));
    DIL_TRY(layer_vector(m, &l->o_bias, i, "attn_output", "bias", h->n_embd, false, err));
    DIL_TRY(layer_vector(m, &l->sinks, i, "attn_sinks", "weight", h->n_head, h->sinks, err));
    DIL_TRY(bind_norms(m, l, i, err));
    return layer_has_experts(h, i) ? bind_experts(m, l, i, err) : bind_ffn(m, l, i, err);
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
    if (m->h.lone)
        return bind_experts(m, &m->layers[0], 0, err);
    for (uint32_t i = 0; i < m->h.n_layer; i++)
        DIL_TRY(bind_layer(m, i, err));
    return bind_head(m, err);
}

/* ---- the packed region ---- */

#define DENSE_WEIGHTS 13 /* of a layer, but those of heads */

/* The weights of a layer but its experts, in the order tokens meet them. */
static size_t dense_weights(const model *m, layer_weights *l, weight **out)
{
    latent_layer *a = l->latent, none = {0};
    a = a ? a : &none;
    weight *first[] = {&l->q, &a->q_a, &a->kv_a, &l->k, &l->v, &a->q_b, &a->kv_b};
    weight *last[] = {&l->o, l->moe ? &l->moe->router : &none.q_a, &l->gate, &l->up, &l->down};
    size_t n = 0;
    for (size_t i = 0; i < sizeof first / sizeof *first; i++)
        if (first[i]->rows)
            out[n++] = first[i];
    for (uint32_t head = 0; a->k_b && head < m->h.n_head; head++)
        out[n++] = &a->k_b[head];
    for (uint32_t head = 0; a->v_b && head < m->h.n_head; head++)
        out[n++] = &a->v_b[head];
    for (size_t i = 0; i < sizeof last / sizeof *last; i++)
        if (last[i]->rows)
            out[n++] = last[i];
    return n;
}

static size_t most_weights(const model *m)
{
    size_t heads = m->h.latent.absorbed ? 2 * (size_t)m->h.n_head : 0;
    return (size_t)m->h.n_layer * (DENSE_WEIGHTS + heads + 3 * (size_t)m->h.experts.n_experts) + 1;
}

/* Fills m->packing; returns how many of its weights are not of experts. */
static size_t list_weights(model *m)
{
    size_t n = 0;
    for (uint32_t i = 0; i < m->h.n_layer; i++)
        n += dense_weights(m, &m->layers[i], m->packing + n);
    if (m->head.rows)
        m->packing[n++] = &m->head;
    size_t n_dense = n;
    for (uint32_t i = 0; i < m->h.n_layer; i++) {
        expert_layer *e = m->layers[i].moe;
        for (uint32_t x = 0; e && x < m->h.experts.n_experts; x++) {
            m->packing[n++] = &e->experts[x].gate;
            m->packing[n++] = &e->experts[x].up;
            m->packing[n++] = &e->experts[x].down;
        }
        m->n_expert_sums += e ? m->h.experts.n_experts : 0;
    }
    m->n_packing = n;
    return n_dense;
}

dil_status weights_size(model *m, dil_error *err)
{
    size_t total = 0;
    m->packing = arena_calloc(m->memory, most_weights(m), sizeof *m->packing);
    if (!m->packing)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for the list of its weights", gguf_path(m->file));
    size_t n_dense = list_weights(m);
    for (size_t i = 0; i < m->n_packing; i++) {
        weight *w = m->packing[i];
        w->n_panels = (int)((w->rows + PANEL_ROWS - 1) / PANEL_ROWS);
        w->panel_bytes = panel_bytes(w->type, w->cols);
        if (i >= n_dense && (i - n_dense) % 3 == 0)
            total = round_up_size(total, EXPERT_ALIGN);
        w->packed_offset = total;
        size_t bytes;
        if (!checked_mul_size(w->panel_bytes, (size_t)w->n_panels, &bytes) ||
            !checked_add_size(total, round_up_size(bytes, 64), &total) || total > SIZE_MAX / 2)
            return DIL_FAIL(err, DIL_LIMIT, "%s: the weights do not fit an address space", gguf_path(m->file));
        if (i + 1 == n_dense)
            m->dense_bytes = total;
    }
    m->packed_bytes = total;
    return DIL_OK;
}

void weights_place(model *m, const uint8_t *region)
{
    for (size_t i = 0; i < m->n_packing; i++)
        m->packing[i]->panels = m->packing[i]->packed_offset < m->resident_bytes ? region + m->packing[i]->packed_offset : NULL;
}
