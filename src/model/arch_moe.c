/*
 * Families that always have experts. Probabilities of all experts choose, unless said otherwise; whether the weights of the chosen
 * are normalised belongs to the family, not to the file.
 */
#include "model/arch.h"

#include "base/status.h"

/* Without a width of their own the experts of a token share that of the dense network. */
static void share_width(hparams *h)
{
    if (h->experts.n_ff == 0)
        h->experts.n_ff = h->n_ff / h->experts.n_used;
}

/* A shared expert weighted by a gate of its own. */
dil_status arch_read_qwen2moe(hparams *h, const gguf *g, dil_error *err)
{
    DIL_TRY(arch_need_experts(h, g, err));
    if (h->experts.n_ff_shared == 0)
        h->experts.n_ff_shared = h->n_ff;
    h->experts.shared_gate = true;
    share_width(h);
    return arch_read_qwen2(h, g, err);
}

dil_status arch_read_qwen3moe(hparams *h, const gguf *g, dil_error *err)
{
    DIL_TRY(arch_need_experts(h, g, err));
    h->experts.normalise = true;
    share_width(h);
    return arch_read_qwen3(h, g, err);
}

dil_status arch_read_olmoe(hparams *h, const gguf *g, dil_error *err)
{
    DIL_TRY(arch_need_experts(h, g, err));
    h->pairs = ROPE_HALVES;
    h->qk = QK_NORM_FULL;
    return DIL_OK;
}

dil_status arch_read_granitemoe(hparams *h, const gguf *g, dil_error *err)
{
    DIL_TRY(arch_need_experts(h, g, err));
    h->experts.normalise = true;
    uint32_t n_rot = h->n_rot;
    DIL_TRY(arch_read_granite(h, g, err));
    h->n_rot = n_rot; /* those with experts have positions whatever the file says of fine-tuning */
    return DIL_OK;
}

/* Dense layers first, then shared experts; a bias that only chooses. */
dil_status arch_read_ernie_moe(hparams *h, const gguf *g, dil_error *err)
{
    expert_params *e = &h->experts;
    DIL_TRY(arch_need_experts(h, g, err));
    DIL_TRY(arch_u32(h, g, "leading_dense_block_count", &e->n_dense_lead, err));
    DIL_TRY(arch_u32(h, g, "interleave_moe_layer_step", &e->period, err));
    if (e->period < 1)
        return DIL_FAIL(err, DIL_FORMAT, "%s: interleave_moe_layer_step: wanted at least 1, found 0", gguf_path(g));
    e->normalise = true;
    h->pairs = ROPE_ADJACENT;
    return DIL_OK;
}

/* A layer without a network: its softmax chooses, its weights add up to 1. */
dil_status arch_read_lone(hparams *h, const gguf *g, dil_error *err)
{
    DIL_TRY(arch_need_experts(h, g, err));
    h->experts.normalise = true;
    return DIL_OK;
}

/* Biases everywhere, every second layer with a window, a sink per head; the scores of the chosen alone make their weights. */
dil_status arch_read_gpt_oss(hparams *h, const gguf *g, dil_error *err)
{
    DIL_TRY(arch_need_experts(h, g, err));
    h->pairs = ROPE_HALVES;
    h->act = ACTIVATION_SWIGLU_OAI;
    h->sinks = true;
    h->ffn_norm = "post_attention_norm"; /* it stands before the experts all the same */
    h->experts.gating = GATING_SOFTMAX_CHOSEN;
    DIL_TRY(arch_u32(h, g, "attention.sliding_window", &h->window, err));
    DIL_TRY(arch_f32(h, g, "rope.freq_base_swa", &h->rope[1].base, err));
    return arch_read_window_pattern(h, g, 2, err);
}
