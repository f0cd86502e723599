/* How often each word of a pre-tokeniser occurs in texts. */
#ifndef TRAIN_WORD_COUNT_H
#define TRAIN_WORD_COUNT_H

#include "base/str.h"
#include "dilmodeli.h"
#include "tokens/pretokenize.h"

#define WORD_COUNT_LONGEST 1024            /* longer words are runs of signs and data, not language: they are left out */
#define WORD_COUNT_ONE ((uint64_t)1 << 20) /* an occurrence in the text of the highest weight */

typedef struct counted_word {
    const char *p; /* in one of the texts */
    uint32_t n;
    uint32_t hash;
    uint64_t count; /* sum over its occurrences of WORD_COUNT_ONE * weight of the text / highest weight; integers: any order */
} counted_word;

/* Open addressing; zero-initialise. */
typedef struct word_count {
    counted_word *words; /* [room], in no order; count 0: free */
    size_t n, room;
} word_count;

typedef struct word_count_options {
    const str *texts;      /* valid UTF-8, borrowed as long as the words are */
    const double *weights; /* > 0, or NULL: all 1 */
    int n_texts;
    const pretokenizer *pre;
    int n_threads;
    dil_progress_fn progress; /* may be NULL */
    void *user;
} word_count_options;

/* [owned: free with word_count_free] */
DIL_MUST_CHECK dil_status word_count_texts(word_count *out, const word_count_options *o, dil_error *err);
void word_count_free(word_count *c);

#endif
