/* A byte-level BPE vocabulary learnt from texts, written as a GGUF file that holds nothing else. */
#ifndef TRAIN_TOKENIZER_H
#define TRAIN_TOKENIZER_H

#include "base/str.h"
#include "dilmodeli.h"

#define TOKENIZER_LEAST_TOKENS 300
#define TOKENIZER_MOST_TOKENS 65536

/*
 * The table: 256 bytes, then the merges' tokens in the order learnt, then as control tokens <|endoftext|> (end of text, also
 * bos, which is never added), <|im_start|>, <|im_end|> (end of a turn). Texts are cut at <|endoftext|>.
 */
typedef struct tokenizer_options {
    int n_vocab;           /* 256 bytes + special tokens + merges; 300 .. 65536 */
    const str *texts;      /* [n_texts] */
    const double *weights; /* [n_texts]: a count in text i counts this much; NULL: 1 */
    int n_texts;
    const char *pre;          /* pre-tokeniser: tokenizer.ggml.pre, "qwen2" */
    int n_threads;            /* 0: all processors; the result does not depend on it */
    dil_progress_fn progress; /* may be NULL */
    void *user;
} tokenizer_options;

/* Deterministic: ties go to the pair with the lower ids. Fewer pairs than n_vocab needs: BAD_ARGUMENT. The file appears when it is complete. */
DIL_MUST_CHECK dil_status tokenizer_train(const char *out_path, const tokenizer_options *o, dil_error *err);

#endif
