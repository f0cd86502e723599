/* The vocabulary of a llama2.c checkpoint: tokenizer.bin of that project, or a SentencePiece model
 * (*.model). */
#ifndef FILE_LLAMA2C_VOCAB_H
#define FILE_LLAMA2C_VOCAB_H

#include "base/mem.h"
#include "file/gguf.h"

typedef struct llama2c_vocab {
    arena *memory;
    str *texts;     /* [n] with U+2581 for spaces, as GGUF wants them */
    float *scores;  /* [n] */
    int32_t *types; /* [n] GGUF token types */
    uint32_t n;
    uint32_t unknown, bos, eos;
    bool add_space_prefix;
} llama2c_vocab;

/* *out must be zeroed; free with llama2c_vocab_free even on failure. The file must hold n_wanted
 * tokens. */
DIL_MUST_CHECK dil_status llama2c_vocab_read(llama2c_vocab *out, const char *path, uint32_t n_wanted, dil_error *err);
void llama2c_vocab_free(llama2c_vocab *v);

#endif
