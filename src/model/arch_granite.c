/* Granite: the llama network with four scalars; logits are divided by logit_scale. Some of the family have no positions at
 * all, which files say by rope.scaling.finetuned = false. */
#include "model/arch.h"

#include <stdio.h>

#include "base/status.h"

dil_status arch_read_granite(hparams *h, const gguf *g, dil_error *err)
{
    float logit_scale = 0.0f, attn_scale = 0.0f;
    h->pairs = ROPE_ADJACENT;
    DIL_TRY(arch_f32(h, g, "logit_scale", &logit_scale, err));
    DIL_TRY(arch_f32(h, g, "residual_scale", &h->residual_scale, err));
    DIL_TRY(arch_f32(h, g, "embedding_scale", &h->embd_scale, err));
    DIL_TRY(arch_f32(h, g, "attention.scale", &attn_scale, err));
    bool rotated = true;
    char name[256];
    snprintf(name, sizeof name, "%.*s.rope.scaling.finetuned", STR_ARG(h->architecture));
    DIL_TRY(gguf_get_bool(g, name, &rotated, err));
    if (!rotated)
        h->n_rot = 0;
    if (logit_scale != 0.0f)
        h->logit_scale = 1.0f / logit_scale;
    if (attn_scale != 0.0f)
        h->attn_scale = attn_scale;
    if (h->residual_scale == 0.0f)
        h->residual_scale = 1.0f;
    if (h->embd_scale == 0.0f)
        h->embd_scale = 1.0f;
    return DIL_OK;
}
