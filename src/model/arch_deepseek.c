/*
 * DeepSeek 2 and 3 and their kin: keys and values through a latent, dense layers first, then many small experts with shared ones.
 * Older files keep the matrix that expands latents (attn_kv_b); newer ones keep it as two stacks, so that latents are cached.
 */
#include "model/arch.h"

#include <math.h>
#include <stdio.h>

#include "base/status.h"

static dil_status read_latent(hparams *h, const gguf *g, dil_error *err)
{
    latent_params *a = &h->latent;
    uint32_t key = 0, value = 0;
    DIL_TRY(arch_u32(h, g, "attention.kv_lora_rank", &a->kv_rank, err));
    DIL_TRY(arch_u32(h, g, "attention.q_lora_rank", &a->q_rank, err));
    DIL_TRY(arch_u32(h, g, "attention.key_length_mla", &key, err));
    DIL_TRY(arch_u32(h, g, "attention.value_length_mla", &value, err));
    a->absorbed = key > 0 && value > 0;
    if (!a->absorbed) {
        key = h->head_dim;
        value = h->head_dim_v;
    }
    DIL_TRY(arch_bound(g, "attention.kv_lora_rank", a->kv_rank, 1, MODEL_MAX_HEAD_DIM, err));
    DIL_TRY(arch_bound(g, "attention.q_lora_rank", a->q_rank, 0, 1u << 16, err));
    DIL_TRY(arch_bound(g, "rope.dimension_count", h->n_rot, 2, key - 1, err));
    DIL_TRY(arch_bound(g, "attention.value_length_mla", value, 1, MODEL_MAX_HEAD_DIM, err));
    a->n_plain = key - h->n_rot;
    a->n_value = value;
    if (a->absorbed) {
        h->n_head_kv = 1;
        h->head_dim = a->kv_rank + h->n_rot;
        h->head_dim_v = a->kv_rank;
    } else if (h->n_head_kv != h->n_head) {
        return DIL_FAIL(err, DIL_FORMAT, "%s: attention.head_count_kv: wanted %u, as many as queries, found %u", gguf_path(g),
                        h->n_head, h->n_head_kv);
    }
    return arch_bound(g, "attention.key_length", h->head_dim, 2, MODEL_MAX_HEAD_DIM, err);
}

/* YaRN lets scores grow with the context; where the file says by how much, that stands in the scale of scores alone. */
static dil_status read_scale(hparams *h, const gguf *g, dil_error *err)
{
    float log_mul = 0.0f, attn_factor = 1.0f, growth = logf(1.0f / h->rope[0].scale);
    str type = STR("");
    DIL_TRY(arch_str(h, g, "rope.scaling.type", &type, err));
    DIL_TRY(arch_f32(h, g, "rope.scaling.yarn_log_multiplier", &log_mul, err));
    DIL_TRY(arch_f32(h, g, "rope.scaling.attn_factor", &attn_factor, err));
    bool in_scores = str_equal(type, STR("yarn")) && log_mul != 0.0f;
    if (in_scores)
        h->rope[0].magnitude = attn_factor;
    float scale = attn_factor * (in_scores ? 1.0f : 1.0f + 0.1f * growth) * (1.0f + log_mul * growth);
    h->attn_scale = scale * scale / sqrtf((float)(h->latent.n_plain + h->n_rot));
    return DIL_OK;
}

static dil_status read_gating(hparams *h, const gguf *g, dil_error *err)
{
    expert_params *e = &h->experts;
    uint32_t gating = 0, n_shared = 0;
    char name[256];
    DIL_TRY(arch_u32(h, g, "leading_dense_block_count", &e->n_dense_lead, err));
    DIL_TRY(arch_u32(h, g, "expert_shared_count", &n_shared, err));
    DIL_TRY(arch_u32(h, g, "expert_group_count", &e->n_groups, err));
    DIL_TRY(arch_u32(h, g, "expert_group_used_count", &e->n_groups_used, err));
    DIL_TRY(arch_u32(h, g, "expert_gating_func", &gating, err));
    snprintf(name, sizeof name, "%.*s.expert_weights_norm", STR_ARG(h->architecture));
    DIL_TRY(gguf_get_bool(g, name, &e->normalise, err));
    DIL_TRY(arch_f32(h, g, "expert_weights_scale", &e->scale, err));
    if (!isfinite(e->scale))
        return DIL_FAIL(err, DIL_FORMAT, "%s: expert_weights_scale: wanted a finite number, found %g", gguf_path(g),
                        (double)e->scale);
    e->scale = e->scale != 0.0f ? e->scale : 1.0f;
    DIL_TRY(arch_bound(g, "expert_gating_func", gating, 0, 3, err));
    DIL_TRY(arch_bound(g, "expert_shared_count", n_shared, 0, 64, err));
    DIL_TRY(arch_bound(g, "expert_feed_forward_length", e->n_ff, 1, 1u << 20, err));
    e->n_groups = e->n_groups > 0 ? e->n_groups : 1;
    e->n_groups_used = e->n_groups > 1 ? e->n_groups_used : 1;
    DIL_TRY(arch_bound(g, "expert_group_used_count", e->n_groups_used, 1, e->n_groups, err));
    if (e->n_experts % e->n_groups || e->n_experts / e->n_groups * e->n_groups_used < e->n_used)
        return DIL_FAIL(err, DIL_FORMAT, "%s: expert_group_count: wanted groups of %u experts that hold the %u used, found %u",
                        gguf_path(g), e->n_experts, e->n_used, e->n_groups);
    e->n_ff_shared = n_shared * e->n_ff;
    e->gating = gating == 2 ? GATING_SIGMOID : gating == 3 ? GATING_SOFTMAX_CHOSEN : GATING_SOFTMAX;
    return DIL_OK;
}

dil_status arch_read_deepseek2(hparams *h, const gguf *g, dil_error *err)
{
    DIL_TRY(arch_need_experts(h, g, err));
    h->pairs = ROPE_ADJACENT;
    DIL_TRY(read_latent(h, g, err));
    DIL_TRY(read_scale(h, g, err));
    return read_gating(h, g, err);
}
