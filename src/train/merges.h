/*
 * Byte-pair encoding learnt from counted words (Sennrich, Haddow and Birch 2016): the pair of neighbours that occurs most often
 * becomes a token, again and again. Counts of pairs are kept up to date word by word, so that a merge costs what it changes.
 */
#ifndef TRAIN_MERGES_H
#define TRAIN_MERGES_H

#include "train/word_count.h"

#define MERGES_MOST_TOKENS 65536

typedef struct learnt_merge {
    uint16_t left, right; /* token ids; merge i makes token 256 + i */
} learnt_merge;

/*
 * out [n_merges]. Ids 0 .. 255 are the bytes. Ties go to the pair with the lower left id, then the lower right id. A pair whose
 * text is one of `taken` is passed over. (Two pairs never have the same text: it would have been cut the same way.) *n_found < n_merges: no pair was left.
 */
DIL_MUST_CHECK dil_status merges_learn(learnt_merge *out, int n_merges, int *n_found, const word_count *words, const str *taken,
                                       int n_taken, dil_progress_fn progress, void *user, dil_error *err);

#endif
