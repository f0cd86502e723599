#include "model/hparams.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "model/arch.h"

/* Some files give one number per layer; a single one is taken when all agree. */
static dil_status per_layer_u32(const hparams *h, const gguf *g, const char *key, uint32_t *inout, dil_error *err)
{
    char name[256];
    snprintf(name, sizeof name, "%.*s.%s", STR_ARG(h->architecture), key);
    const gguf_value *v = gguf_find(g, name);
    if (!v || v->kind != GGUF_ARRAY)
        return arch_u32(h, g, key, inout, err);
    const int32_t *values;
    uint64_t n;
    DIL_TRY(gguf_get_i32_array(g, name, &values, &n, err));
    for (uint64_t i = 0; i < n; i++)
        if (values[i] != values[0] || values[i] < 0)
            return DIL_FAIL(err, DIL_UNSUPPORTED, "%s: %s: layers differ (%d and %d); wanted the same everywhere", gguf_path(g),
                            name, values[0], values[i]);
    if (n > 0)
        *inout = (uint32_t)values[0];
    return DIL_OK;
}

dil_status arch_bound(const gguf *g, const char *what, uint32_t value, uint32_t least, uint32_t most, dil_error *err)
{
    if (value < least || value > most)
        return DIL_FAIL(err, DIL_FORMAT, "%s: %s: wanted %u..%u, found %u", gguf_path(g), what, least, most, value);
    return DIL_OK;
}

static dil_status read_sizes(hparams *h, const gguf *g, dil_error *err)
{
    h->n_context = 2048;
    DIL_TRY(arch_u32(h, g, "context_length", &h->n_context, err));
    DIL_TRY(arch_u32(h, g, "embedding_length", &h->n_embd, err));
    uint32_t n_next = 0; /* layers that guess further tokens stand at the end and are not run */
    DIL_TRY(arch_u32(h, g, "block_count", &h->n_layer, err));
    DIL_TRY(arch_u32(h, g, "nextn_predict_layers", &n_next, err));
    DIL_TRY(per_layer_u32(h, g, "feed_forward_length", &h->n_ff, err));
    DIL_TRY(per_layer_u32(h, g, "attention.head_count", &h->n_head, err));
    DIL_TRY(arch_bound(g, "context_length", h->n_context, 1, 1u << 26, err));
    DIL_TRY(arch_bound(g, "embedding_length", h->n_embd, 1, 1u << 18, err));
    DIL_TRY(arch_bound(g, "block_count", h->n_layer, 1, MODEL_MAX_LAYERS, err));
    DIL_TRY(arch_bound(g, "nextn_predict_layers", n_next, 0, h->n_layer - 1, err));
    h->n_layer -= n_next;
    DIL_TRY(arch_bound(g, "feed_forward_length", h->n_ff, 1, 1u << 20, err));
    DIL_TRY(arch_bound(g, "attention.head_count", h->n_head, 1, 4096, err));
    h->n_head_kv = h->n_head;
    DIL_TRY(per_layer_u32(h, g, "attention.head_count_kv", &h->n_head_kv, err));
    DIL_TRY(arch_bound(g, "attention.head_count_kv", h->n_head_kv, 1, h->n_head, err));
    if (h->n_head % h->n_head_kv)
        return DIL_FAIL(err, DIL_FORMAT, "%s: attention.head_count_kv: wanted a divisor of %u heads, found %u", gguf_path(g),
                        h->n_head, h->n_head_kv);
    h->head_dim = h->n_embd / h->n_head;
    DIL_TRY(arch_u32(h, g, "attention.key_length", &h->head_dim, err));
    h->head_dim_v = h->head_dim;
    DIL_TRY(arch_u32(h, g, "attention.value_length", &h->head_dim_v, err));
    DIL_TRY(arch_bound(g, "attention.key_length", h->head_dim, 2, MODEL_MAX_HEAD_DIM, err));
    DIL_TRY(arch_bound(g, "attention.value_length", h->head_dim_v, 1, MODEL_MAX_HEAD_DIM, err));
    h->n_rot = h->head_dim;
    DIL_TRY(arch_u32(h, g, "rope.dimension_count", &h->n_rot, err));
    DIL_TRY(arch_bound(g, "rope.dimension_count", h->n_rot, 0, h->head_dim, err));
    if (h->n_rot % 2)
        return DIL_FAIL(err, DIL_FORMAT, "%s: rope.dimension_count: wanted an even number, found %u", gguf_path(g), h->n_rot);
    return DIL_OK;
}

/* Position scaling: none, linear (positions divided by a factor), YaRN, long factors. */
static dil_status read_rope(hparams *h, const gguf *g, dil_error *err)
{
    rope_params *r = &h->rope[0];
    str type = STR("linear");
    float factor = 0.0f, attn_factor = 1.0f, log_mul = 0.0f;
    *r = (rope_params){.base = 10000.0f,
                       .scale = 1,
                       .magnitude = 1,
                       .beta_fast = 32,
                       .beta_slow = 1,
                       .original_context = h->n_context,
                       .use_factors = true};
    DIL_TRY(arch_f32(h, g, "rope.freq_base", &r->base, err));
    DIL_TRY(arch_f32(h, g, "rope.scale_linear", &factor, err));
    DIL_TRY(arch_str(h, g, "rope.scaling.type", &type, err));
    DIL_TRY(arch_f32(h, g, "rope.scaling.factor", &factor, err));
    DIL_TRY(arch_u32(h, g, "rope.scaling.original_context_length", &r->original_context, err));
    DIL_TRY(arch_f32(h, g, "rope.scaling.attn_factor", &attn_factor, err));
    DIL_TRY(arch_f32(h, g, "rope.scaling.yarn_log_multiplier", &log_mul, err));
    DIL_TRY(arch_f32(h, g, "rope.scaling.yarn_beta_fast", &r->beta_fast, err));
    DIL_TRY(arch_f32(h, g, "rope.scaling.yarn_beta_slow", &r->beta_slow, err));
    if (!(r->base > 1.0f) || !isfinite(r->base) || !isfinite(factor) || factor < 0.0f)
        return DIL_FAIL(err, DIL_FORMAT,
                        "%s: rope.freq_base and rope.scaling.factor: wanted numbers above 1 and 0, found %g and %g", gguf_path(g),
                        (double)r->base, (double)factor);
    if (!isfinite(attn_factor) || !isfinite(log_mul) || !(r->beta_fast > 0.0f) || !(r->beta_slow > 0.0f) || r->original_context < 1)
        return DIL_FAIL(err, DIL_FORMAT,
                        "%s: rope.scaling.*: wanted finite factors, positive betas and a context, found %g, %g, %g, %g, %u",
                        gguf_path(g), (double)attn_factor, (double)log_mul, (double)r->beta_fast, (double)r->beta_slow,
                        r->original_context);
    bool known = str_equal(type, STR("none")) || str_equal(type, STR("linear")) || str_equal(type, STR("yarn")) ||
                 str_equal(type, STR("longrope"));
    if (!known)
        return DIL_FAIL(err, DIL_UNSUPPORTED, "%s: rope.scaling.type: wanted none, linear, yarn or longrope, found '%.*s'",
                        gguf_path(g), STR_ARG(type));
    if (factor > 0.0f && !str_equal(type, STR("none")))
        r->scale = 1.0f / factor;
    if (str_equal(type, STR("yarn"))) {
        float f = 1.0f / r->scale;
        r->extrapolation = 1.0f;
        r->magnitude = f > 1.0f ? 1.0f + 0.1f * logf(f) : 1.0f;
        if (log_mul != 0.0f && f > 1.0f)
            r->magnitude = (1.0f + 0.1f * logf(f)) / (1.0f + 0.1f * log_mul * logf(f));
    }
    r->magnitude *= attn_factor;
    h->rope[1] = *r;
    return DIL_OK;
}

/* Counts and widths of experts; how they are chosen differs by family, see arch_*.c. */
static dil_status read_experts(hparams *h, const gguf *g, dil_error *err)
{
    expert_params *e = &h->experts;
    *e = (expert_params){.n_groups = 1, .n_groups_used = 1, .period = 1, .scale = 1};
    DIL_TRY(arch_u32(h, g, "expert_count", &e->n_experts, err));
    if (e->n_experts == 0)
        return DIL_OK;
    DIL_TRY(per_layer_u32(h, g, "expert_used_count", &e->n_used, err));
    DIL_TRY(per_layer_u32(h, g, "expert_feed_forward_length", &e->n_ff, err));
    DIL_TRY(arch_u32(h, g, "expert_shared_feed_forward_length", &e->n_ff_shared, err));
    DIL_TRY(arch_bound(g, "expert_count", e->n_experts, 1, MODEL_MAX_EXPERTS, err));
    DIL_TRY(arch_bound(g, "expert_used_count", e->n_used, 1, e->n_experts, err));
    return DIL_OK;
}

/* Where neither the file nor its family says how wide experts are, they are as wide as the dense network. */
static dil_status check_widths(hparams *h, const gguf *g, dil_error *err)
{
    expert_params *e = &h->experts;
    if (e->n_experts == 0)
        return DIL_OK;
    if (e->n_ff == 0)
        e->n_ff = h->n_ff;
    DIL_TRY(arch_bound(g, "expert_feed_forward_length", e->n_ff, 1, 1u << 20, err));
    return arch_bound(g, "expert_shared_feed_forward_length", e->n_ff_shared, 0, 1u << 20, err);
}

static dil_status read_vocab_size(hparams *h, const gguf *g, dil_error *err)
{
    const gguf_tensor *t = gguf_tensor_find(g, "token_embd.weight");
    if (!t)
        return DIL_FAIL(err, DIL_FORMAT, "%s: tensor 'token_embd.weight' is missing", gguf_path(g));
    if (t->ne[1] < 1 || t->ne[1] > (1u << 24))
        return DIL_FAIL(err, DIL_FORMAT, "%s: tensor 'token_embd.weight': wanted 1..%u rows, found %llu", gguf_path(g), 1u << 24,
                        (unsigned long long)t->ne[1]);
    h->n_vocab = (uint32_t)t->ne[1];
    return DIL_OK;
}

/* What a network has around its experts, as small as the plan's arithmetic takes it. */
static dil_status read_lone(hparams *h, const gguf *g, dil_error *err)
{
    h->n_context = 1u << 16;
    DIL_TRY(arch_u32(h, g, "embedding_length", &h->n_embd, err));
    DIL_TRY(arch_bound(g, "embedding_length", h->n_embd, 1, 1u << 18, err));
    h->n_layer = h->n_head = h->n_head_kv = 1;
    h->head_dim = h->head_dim_v = 2;
    return DIL_OK;
}

dil_status hparams_read(hparams *out, const gguf *g, dil_error *err)
{
    hparams h = {
        .norm_eps = 1e-5f, .pre_norm = true, .ffn_norm = "ffn_norm", .embd_scale = 1, .residual_scale = 1, .logit_scale = 1};
    DIL_TRY(gguf_get_str(g, "general.architecture", &h.architecture, err));
    const arch *a = arch_find(h.architecture);
    if (!a) {
        char names[200];
        arch_names(names, sizeof names);
        return DIL_FAIL(err, DIL_UNSUPPORTED, "%s: general.architecture: wanted one of %s; found '%.*s'", gguf_path(g), names,
                        STR_ARG(h.architecture));
    }
    h.lone = a->lone;
    DIL_TRY(h.lone ? read_lone(&h, g, err) : read_sizes(&h, g, err));
    if (!h.lone)
        DIL_TRY(read_vocab_size(&h, g, err));
    DIL_TRY(arch_f32(&h, g, "attention.layer_norm_rms_epsilon", &h.norm_eps, err));
    if (!(h.norm_eps >= 0.0f) || !isfinite(h.norm_eps))
        return DIL_FAIL(err, DIL_FORMAT, "%s: attention.layer_norm_rms_epsilon: wanted a small positive number, found %g",
                        gguf_path(g), (double)h.norm_eps);
    h.attn_scale = 1.0f / sqrtf((float)h.head_dim);
    DIL_TRY(read_rope(&h, g, err));
    DIL_TRY(read_experts(&h, g, err));
    DIL_TRY(a->read(&h, g, err));
    DIL_TRY(check_widths(&h, g, err));
    *out = h;
    return DIL_OK;
}
