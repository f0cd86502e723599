/*
 * What was said so far, as the sampler needs it: a ring of the last tokens, the counts of the
 * penalty window, and DRY's search for repetitions. Internal to sampling. All memory is taken at
 * creation.
 */
#ifndef SAMPLING_HISTORY_H
#define SAMPLING_HISTORY_H

#include "sampling/sampler.h"

/*
 * "All" tokens means this many: the longest history that is kept. Untouched pages of it cost
 * nothing.
 */
#define HISTORY_MAX (1 << 20)

/* The ring: back(0) is the latest token. */
typedef struct history {
    token_id *ring;
    int32_t capacity, n, next;
} history;

DIL_MUST_CHECK dil_status history_setup(history *h, int32_t capacity, dil_error *err);
void history_free(history *h);
void history_push(history *h, token_id id);
token_id history_back(const history *h, int32_t i);

/*
 * Which distinct tokens the last `window` tokens hold, and how often.
 * counts, slot: [n_vocab]; present: the n_present distinct ids, present[slot[id]] == id.
 */
typedef struct penalty_window {
    int32_t *counts, *slot;
    token_id *present;
    int32_t n_present, window;
} penalty_window;

DIL_MUST_CHECK dil_status penalty_init(penalty_window *w, int32_t n_vocab, int32_t window, dil_error *err);
void penalty_free(penalty_window *w);
/* Before history_push of the same id: the token that leaves the window is found in h. */
void penalty_push(penalty_window *w, const history *h, token_id id);
void penalty_reset(penalty_window *w);
void penalty_apply(const penalty_window *w, const sampler_options *o, float *logits);

/*
 * DRY ("don't repeat yourself"): a token that would continue a repetition of `length` tokens loses
 * multiplier * base^(length - allowed_length). A repetition never reaches across a breaker.
 */
typedef struct dry_breaker {
    token_id head;
    int32_t n_tail;
    token_id tail[20];
} dry_breaker;

typedef struct dry {
    dry_breaker *breakers; /* [n_breakers], by head */
    int32_t n_breakers, window;
    int32_t *z; /* [window] lengths of repetitions, by distance from the end */
    /* [n_vocab] 1 + longest repetition the token would continue; all 0 between calls */
    int32_t *longest;
    token_id *touched; /* [n_vocab] the tokens with longest > 0 */
} dry;

DIL_MUST_CHECK dil_status dry_init(dry *d, const sampler_options *o, const vocab *v, int32_t n_vocab, dil_error *err);
void dry_free(dry *d);
void dry_apply(dry *d, const history *h, const sampler_options *o, float *logits);

#endif
