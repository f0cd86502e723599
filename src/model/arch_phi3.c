/*
 * Phi-3: fused projections (split when the weights are bound), rotation with long and short factors. Files carry a sliding
 * window that the published weights do not need; like the reference conversion's users we leave it off.
 */
#include "model/arch.h"

dil_status arch_read_phi3(hparams *h, const gguf *g, dil_error *err)
{
    (void)g, (void)err;
    h->pairs = ROPE_HALVES;
    return DIL_OK;
}
