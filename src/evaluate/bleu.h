/*
 * How much texts agree, line by line with their references: BLEU (Papineni et al. 2002) and chrF (Popovic 2015), equal to sacreBLEU's
 * defaults (Post 2018): exponential smoothing, orders 1 to 4, closest reference length; characters in orders 1 to 6, beta 2, without
 * white space. Intervals are of the bootstrap (Koehn 2004): lines drawn with replacement.
 */
#ifndef EVALUATE_BLEU_H
#define EVALUATE_BLEU_H

#include "base/str.h"

#define BLEU_ORDER 4
#define BLEU_CHARACTER_ORDER 6
#define BLEU_MOST_REFERENCES 64
#define BLEU_MOST_RESAMPLES 1000000
#define BLEU_RESAMPLES 1000       /* usual */
#define BLEU_SEED UINT64_C(12345) /* usual */

/* What a word is: mteval-v13a's words and marks, what stands between white space, or every character. */
typedef enum bleu_tokenizer { BLEU_13A, BLEU_NONE, BLEU_CHAR } bleu_tokenizer;

const char *bleu_tokenizer_name(bleu_tokenizer t);
bool bleu_tokenizer_find(const char *name, bleu_tokenizer *out);

/* UTF-8, one segment per line; the name stands in messages. */
typedef struct bleu_text {
    const char *name;
    str text;
} bleu_text;

typedef struct bleu_options {
    bleu_tokenizer tokenizer; /* of BLEU */
    bool lowercase;           /* Python's lower(), but for the final sigma of Greek, which becomes the other one */
    int32_t n_resamples;      /* 0: no intervals */
    uint64_t seed;            /* of the resamples: for as many lines the same ones, whatever is measured */
    dil_progress_fn progress; /* may be NULL */
    void *user;
} bleu_options;

/* low, high: 95 % interval, the order statistics sacreBLEU takes; NaN without resamples. */
typedef struct bleu_estimate {
    double value, low, high;
} bleu_estimate;

typedef struct bleu_system {
    bleu_estimate bleu, chrf; /* 0..100 */
    int64_t n_right[BLEU_ORDER], n_all[BLEU_ORDER];
    double precision[BLEU_ORDER]; /* percent, smoothed */
    double brevity_penalty, ratio;
    int64_t hyp_len, ref_len; /* words */
} bleu_system;

/*
 * The second system minus the first, over the same resamples. p: how often, of two systems between which there is no difference, resamples
 * would show one at least as large (either way); from the differences of resamples around the measured one, (count + 1) / (resamples + 1).
 */
typedef struct bleu_difference {
    bleu_estimate estimate;
    double p;
} bleu_difference;

typedef struct bleu_result {
    int32_t n_lines;
    bleu_system system[2];
    bleu_difference bleu, chrf; /* of two systems */
} bleu_result;

/*
 * One or two hypotheses against 1..BLEU_MOST_REFERENCES references, all of as many lines. FORMAT: line counts differ, there are no lines,
 * or one is no UTF-8; LIMIT: more than 2^24 lines, or one of more than 1 MiB.
 */
DIL_MUST_CHECK dil_status evaluate_bleu(const bleu_text *hypotheses, int n_hypotheses, const bleu_text *references,
                                        int n_references, const bleu_options *options, bleu_result *out, dil_error *err);

#endif
