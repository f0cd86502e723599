/* A byte-level BPE vocabulary learnt from texts, written as a GGUF file that holds nothing else. */
#ifndef TRAIN_TOKENIZER_H
#define TRAIN_TOKENIZER_H

#include "base/str.h"
#include "dilmodeli.h"

typedef struct tokenizer_options {
    int n_vocab;           /* 256 bytes + special tokens + merges; 300 .. 65536 */
    const str *texts;      /* [n_texts] */
    const double *weights; /* [n_texts]: a count in text i counts this much; NULL: 1 */
    int n_texts;
    const char *pre;          /* pre-tokeniser: tokenizer.ggml.pre, "qwen2" */
    dil_progress_fn progress; /* may be NULL */
    void *user;
} tokenizer_options;

/* Deterministic: ties go to the pair with the lower ids. The file appears when it is complete. */
DIL_MUST_CHECK dil_status tokenizer_train(const char *out_path, const tokenizer_options *o, dil_error *err);

#endif
