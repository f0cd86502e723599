/* The vocabulary of a GGUF file. */
#ifndef MODEL_VOCAB_LOAD_H
#define MODEL_VOCAB_LOAD_H

#include "file/gguf.h"
#include "tokens/vocab.h"

/* Reads tokenizer.ggml.* and builds the vocabulary. FORMAT names the key at fault; UNSUPPORTED the tokeniser.
 * [owned: free with vocab_free] */
DIL_MUST_CHECK dil_status vocab_from_gguf(vocab **out, const gguf *g, dil_error *err);

#endif
