/* OLMo 2 (and 3): norms only after each sub-layer, queries and keys normed over the whole projection; OLMo 3 adds windows. */
#include "model/arch.h"

#include "base/status.h"

dil_status arch_read_olmo2(hparams *h, const gguf *g, dil_error *err)
{
    h->pairs = ROPE_HALVES;
    h->qk = QK_NORM_FULL;
    h->pre_norm = false;
    h->post_norm = true;
    DIL_TRY(arch_u32(h, g, "attention.sliding_window", &h->window, err));
    h->rope[1] = (rope_params){.base = h->rope[0].base, .scale = 1, .magnitude = 1};
    DIL_TRY(arch_f32(h, g, "rope.freq_base_swa", &h->rope[1].base, err));
    return arch_read_window_pattern(h, g, 4, err);
}
