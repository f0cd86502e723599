/* The end of a text that judges what was made with its beginning: nothing of it may have been seen. */
#ifndef QUANTIZE_HELD_H
#define QUANTIZE_HELD_H

#include "base/str.h"
#include "file/gguf.h"

typedef struct held_text {
    char *bytes; /* the text, from a token's first byte on; NULL: nothing is left */
    size_t n;
    int n_sequences; /* of n_context tokens that it holds, and some words more */
} held_text;

/* Tokens [n_sequences][n_context] that statistics came from; the first of each may be the model's begin of text. */
typedef struct held_seen {
    const int32_t *tokens;
    int n_sequences, n_context;
} held_seen;

/* At most `most` sequences behind what of the text was seen: all the sequences with which it begins. A text that begins otherwise is taken
 * as another one. [owned: held_free] */
DIL_MUST_CHECK dil_status held_take(held_text *out, const gguf *file, str text, const held_seen *seen, int most, dil_error *err);
void held_free(held_text *h);

#endif
