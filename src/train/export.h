/* A trained net as a GGUF file: qwen3moe, or qwen3 / llama / gemma3 without experts. */
#ifndef TRAIN_EXPORT_H
#define TRAIN_EXPORT_H

#include "file/gguf.h"
#include "train/net.h"

/* Matrices as `type` (F32, F16, BF16), vectors and routers F32. vocabulary: the GGUF file whose tokenizer.* values are copied.
 * UNSUPPORTED when no known architecture has this shape (it says which property). */
DIL_MUST_CHECK dil_status export_gguf(net *n, const char *name, const char *vocabulary_path, dil_type type, const char *out_path,
                                      dil_error *err);

#endif
