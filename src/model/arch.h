/* The registry of architectures: each family fills in what differs from the common llama-like network. */
#ifndef MODEL_ARCH_H
#define MODEL_ARCH_H

#include "model/hparams.h"

typedef struct arch {
    const char *name; /* general.architecture */
    /* Called after the common keys were read; prefix-keyed getters are arch_u32 and arch_f32. */
    dil_status (*read)(hparams *h, const gguf *g, dil_error *err);
    bool lone; /* hparams.lone */
} arch;

const arch *arch_find(str name);      /* NULL when unknown */
void arch_names(char *out, size_t n); /* "llama, qwen2, ..." */

/* Getters of "<architecture>.<key>": absent leaves *inout. */
DIL_MUST_CHECK dil_status arch_u32(const hparams *h, const gguf *g, const char *key, uint32_t *inout, dil_error *err);
DIL_MUST_CHECK dil_status arch_f32(const hparams *h, const gguf *g, const char *key, float *inout, dil_error *err);
DIL_MUST_CHECK dil_status arch_str(const hparams *h, const gguf *g, const char *key, str *inout, dil_error *err);
/* Marks windowed layers, when a window is set: all but each pattern-th one (pattern 0: all). */
void arch_window_pattern(hparams *h, uint32_t pattern);
/* The same from "attention.sliding_window_pattern": a period, or a flag per layer; absent: period `pattern`. */
DIL_MUST_CHECK dil_status arch_read_window_pattern(hparams *h, const gguf *g, uint32_t pattern, dil_error *err);

DIL_MUST_CHECK dil_status arch_bound(const gguf *g, const char *what, uint32_t value, uint32_t least, uint32_t most,
                                     dil_error *err); /* FORMAT outside least..most */
/* FORMAT when the file declares no experts where its architecture has them. */
DIL_MUST_CHECK dil_status arch_need_experts(const hparams *h, const gguf *g, dil_error *err);

dil_status arch_read_llama(hparams *h, const gguf *g, dil_error *err);
dil_status arch_read_qwen2(hparams *h, const gguf *g, dil_error *err);
dil_status arch_read_qwen3(hparams *h, const gguf *g, dil_error *err);
dil_status arch_read_qwen2moe(hparams *h, const gguf *g, dil_error *err);
dil_status arch_read_qwen3moe(hparams *h, const gguf *g, dil_error *err);
dil_status arch_read_olmoe(hparams *h, const gguf *g, dil_error *err);
dil_status arch_read_granitemoe(hparams *h, const gguf *g, dil_error *err);
dil_status arch_read_ernie_moe(hparams *h, const gguf *g, dil_error *err);
dil_status arch_read_gpt_oss(hparams *h, const gguf *g, dil_error *err);
dil_status arch_read_deepseek2(hparams *h, const gguf *g, dil_error *err);
dil_status arch_read_lone(hparams *h, const gguf *g, dil_error *err);
dil_status arch_read_gemma2(hparams *h, const gguf *g, dil_error *err);
dil_status arch_read_gemma3(hparams *h, const gguf *g, dil_error *err);
dil_status arch_read_phi3(hparams *h, const gguf *g, dil_error *err);
dil_status arch_read_granite(hparams *h, const gguf *g, dil_error *err);
dil_status arch_read_olmo2(hparams *h, const gguf *g, dil_error *err);

#endif
