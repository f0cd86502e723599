/*
 * The tokens that may still be drawn, and the steps that make them fewer. Every step renormalises
 * over what is left, as a chain of independent samplers would. Owns no memory: the array is given
 * by the sampler. Internal to sampling.
 */
#ifndef SAMPLING_CANDIDATES_H
#define SAMPLING_CANDIDATES_H

#include "tokens/vocab.h"

/* key is what the list is ordered by: the logit, except inside the typical step. */
typedef struct candidate {
    float key, logit, p;
    token_id id;
} candidate;

/*
 * v: room for every token of the vocabulary; the first n are alive. sorted: by logit descending,
 * then id ascending.
 */
typedef struct candidates {
    candidate *v;
    int32_t n;
    bool sorted;
} candidates;

/*
 * The order of the list: larger key, then larger logit, then lower id. Total: no two candidates
 * share an id.
 */
static inline bool candidate_before(const candidate *a, const candidate *b)
{
    if (a->key != b->key)
        return a->key > b->key;
    if (a->logit != b->logit)
        return a->logit > b->logit;
    return a->id < b->id;
}

/*
 * Puts the best k of n first (in no order), or all in order. No allocation, O(n) and O(n log n)
 * whatever the input.
 */
void candidates_select(candidate *v, int32_t n, int32_t k);
void candidates_sort(candidate *v, int32_t n);

/*
 * All tokens with a logit above -inf (NaN counts as -inf, +inf as FLT_MAX), or only the best k of
 * them, sorted. logits: [n]
 */
void candidates_gather(candidates *c, const float *logits, int32_t n);
void candidates_gather_top_k(candidates *c, const float *logits, int32_t n, int32_t k);

/*
 * p = softmax(logit / temperature) over the list; returns the sum before division. Fills p with exp
 * only; see _normalise.
 */
double candidates_softmax(candidates *c, float temperature);

void candidates_typical(candidates *c, float p);
void candidates_top_p(candidates *c, float p);
void candidates_min_p(candidates *c, float p);
/*
 * Drops all but the least likely of the tokens with probability >= threshold, when there are at
 * least two.
 */
void candidates_xtc(candidates *c, float threshold);
/*
 * Drops what surprises by more than mu bits; the likeliest always stays. p must be set by
 * candidates_softmax.
 */
void candidates_limit_surprise(candidates *c, float mu);

/* Index of the likeliest (lowest id of equals). */
int32_t candidates_best(const candidates *c);
/*
 * Draws by p (need not sum to 1; sum is their sum) with u in [0, 1). Never a candidate with p = 0.
 * Returns an index.
 */
int32_t candidates_draw(const candidates *c, double sum, double u);

#endif
