/* From a line and its references to counts, and from counts to scores: shared by the files of BLEU. */
#ifndef EVALUATE_BLEU_INTERNAL_H
#define EVALUATE_BLEU_INTERNAL_H

#include "evaluate/bleu.h"
#include "evaluate/ngrams.h"

/* White space as Python's str.split() sees it. */
bool bleu_is_white(uint32_t code);
/* The segment as Python's lower() makes it (bleu.h says where not). Valid UTF-8. */
void bleu_lower(str segment, strbuf *out);

typedef struct bleu_scratch {
    strbuf a, b;
    bool failed; /* no memory: words are missing */
} bleu_scratch;

/* Appends the words of a segment (valid UTF-8, which may hold line breaks), each followed by a space. */
void bleu_tokenize(str segment, bleu_tokenizer t, bleu_scratch *s, strbuf *out);

/* What one line, or the sum of many, says: scores are made from nothing else. */
enum {
    BLEU_HYP_LEN,
    BLEU_REF_LEN,
    BLEU_RIGHT,
    BLEU_ALL = BLEU_RIGHT + BLEU_ORDER,
    BLEU_CHRF = BLEU_ALL + BLEU_ORDER, /* per order: n-grams of the hypothesis, of the reference, matches */
    BLEU_COUNTS = BLEU_CHRF + 3 * BLEU_CHARACTER_ORDER
};

void bleu_score(const int64_t counts[BLEU_COUNTS], bleu_system *out); /* but for the intervals */
double bleu_chrf(const int64_t counts[3 * BLEU_CHARACTER_ORDER]);

typedef struct bleu_word {
    str text;
    uint32_t place;
} bleu_word;

/* Counts lines, with memory that they share. */
typedef struct bleu_counter {
    const bleu_options *options;
    strbuf lower, words;
    bleu_scratch scratch;
    bleu_word *word;   /* [room] */
    uint32_t *symbols; /* [room] */
    size_t room;
    ngrams matcher;
} bleu_counter;

void bleu_counter_begin(bleu_counter *c, const bleu_options *options);
void bleu_counter_end(bleu_counter *c);

/* segments[0]: the hypothesis, [1..n): its references; of at most 1 MiB. */
DIL_MUST_CHECK dil_status bleu_count(bleu_counter *c, const str *segments, int n, int32_t counts[BLEU_COUNTS], dil_error *err);

/* Intervals of one or two systems and of their difference. counts: [n_systems][n_lines][BLEU_COUNTS] */
DIL_MUST_CHECK dil_status bleu_resample(const int32_t *counts, int n_systems, int32_t n_lines, const bleu_options *o,
                                        bleu_result *out, dil_error *err);

#endif
