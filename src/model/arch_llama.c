/* The common network as it is (llama, Mistral, Mixtral), and the Qwen generations: biases come with the file, Qwen 3 norms its
 * heads. */
#include "model/arch.h"

#include "base/status.h"

dil_status arch_read_llama(hparams *h, const gguf *g, dil_error *err)
{
    (void)g, (void)err;
    h->pairs = ROPE_ADJACENT;
    h->experts.normalise = true;
    return DIL_OK;
}

dil_status arch_read_qwen2(hparams *h, const gguf *g, dil_error *err)
{
    (void)g, (void)err;
    h->pairs = ROPE_HALVES;
    return DIL_OK;
}

dil_status arch_read_qwen3(hparams *h, const gguf *g, dil_error *err)
{
    h->qk = QK_NORM_HEAD;
    return arch_read_qwen2(h, g, err);
}
