/* Gemma 2 and 3: scaled embeddings, GELU, norms on both sides of a sub-layer, sliding windows with their own rotation. */
#include "model/arch.h"

#include <math.h>

#include "base/status.h"

static void gemma_common(hparams *h)
{
    h->pairs = ROPE_HALVES;
    h->act = ACTIVATION_GELU;
    h->post_norm = true;
    h->embd_scale = sqrtf((float)h->n_embd);
}

/* The 27 B models scale attention by the width per head instead of the head's size. */
static void gemma_attention_scale(hparams *h, uint32_t layers_of_27b)
{
    float dims = h->n_layer == layers_of_27b ? (float)(h->n_embd / h->n_head) : (float)h->head_dim;
    h->attn_scale = 1.0f / sqrtf(dims);
}

dil_status arch_read_gemma2(hparams *h, const gguf *g, dil_error *err)
{
    gemma_common(h);
    gemma_attention_scale(h, 46);
    h->window = 4096;
    h->attn_softcap = 50.0f;
    h->logit_softcap = 30.0f;
    DIL_TRY(arch_u32(h, g, "attention.sliding_window", &h->window, err));
    DIL_TRY(arch_f32(h, g, "attn_logit_softcapping", &h->attn_softcap, err));
    DIL_TRY(arch_f32(h, g, "final_logit_softcapping", &h->logit_softcap, err));
    DIL_TRY(arch_f32(h, g, "rope.freq_base_swa", &h->rope[1].base, err));
    arch_window_pattern(h, 2);
    return DIL_OK;
}

dil_status arch_read_gemma3(hparams *h, const gguf *g, dil_error *err)
{
    gemma_common(h);
    gemma_attention_scale(h, 62);
    h->qk = QK_NORM_HEAD;
    h->rope[1] = (rope_params){.base = 10000.0f, .scale = 1, .magnitude = 1};
    DIL_TRY(arch_u32(h, g, "attention.sliding_window", &h->window, err));
    DIL_TRY(arch_f32(h, g, "final_logit_softcapping", &h->logit_softcap, err));
    DIL_TRY(arch_f32(h, g, "rope.freq_base_swa", &h->rope[1].base, err));
    return arch_read_window_pattern(h, g, 6, err);
}
