/*
 * The router of a mixture-of-experts layer: from the scores of N experts to the k that are used and their weights.
 *
 *     router_exact      the choice as the model defines it, from all scores
 *     router_certified  the same choice and weights, bit for bit, from a part of the router's bytes
 *     router_local      from the neighbours of the last token's experts only: approximate
 *     router_cached     experts in memory are preferred, within a budget that bounds what changes
 *     router_batch      tokens of a batch agree on experts, within the same budget
 *
 * Owns the choice. Knows nothing of the plan, of files and of where experts lie. All calls depend on their arguments alone; none
 * but *_new, router_screen_flock and router_batch allocates.
 */
#ifndef EXPERTS_ROUTER_H
#define EXPERTS_ROUTER_H

#include "base/threads.h"
#include "dilmodeli.h"
#include "kernels/kernels.h"
#include "model/hparams.h"

/* ---- the rule of a layer ---- */

typedef struct router_rule {
    expert_gating gating; /* softmax of all scores; sigmoid; scores themselves, and weights are their softmax over the chosen */
    uint32_t n_experts;   /* 1..16384 */
    uint32_t n_used;      /* 1..n_experts */
    uint32_t n_groups, n_groups_used; /* experts in n_groups runs of the same length; n_groups <= 1: no groups */
    bool normalise;                   /* weights are divided by their sum, at least ROUTER_LEAST_SUM */
    float scale;                      /* then multiplied by this, > 0 */
    const float *bias;                /* [n_experts], added to p for choosing only; NULL: none */
} router_rule;

#define ROUTER_LEAST_SUM 6.103515625e-5f

/*
 * Experts are ranked by their selection value: p + bias where there is a bias or there are groups, the score itself elsewhere (every
 * p rises with it). With groups only experts of the n_groups_used best groups come in question; a group is worth the sum of its two
 * best values. Of equal values the lowest index wins; a score that is NaN counts as minus infinity.
 * scores [n_experts], finite or not -> chosen [n_used] by rank, all different, and weights [n_used]. scratch [2 * n_experts].
 */
void router_exact(const router_rule *r, const float *scores, uint16_t *chosen, float *weights, float *scratch);

/* How many of a's experts are among b's; both [n]. */
uint32_t router_common(const uint16_t *a, const uint16_t *b, uint32_t n);

/* ---- choosing without reading all rows ---- */

/* A layer's router: its F32 rows, the same rows in 8 bits, and how far a score of 8 bits can be from the exact one. */
typedef struct router_screen router_screen;

typedef struct router_evidence {
    uint32_t n_scored; /* rows read as F32 */
    bool fell_back;    /* router_local: scored all rows after all */
    uint64_t read_bytes, full_bytes;
} router_evidence;

/* Whether a choice and its weights follow from the best scores alone: no groups, and softmax only if normalised and without bias. */
bool router_screen_suits(const router_rule *r);

/*
 * rows [n_experts][n_embd] and bias [n_experts] (added to the scores; NULL: none) are borrowed, and so is k. [owned: free with
 * router_screen_free] BAD_ARGUMENT: sizes.
 */
DIL_MUST_CHECK dil_status router_screen_new(router_screen **out, const kernels *k, const float *rows, const float *bias,
                                            uint32_t n_experts, int64_t n_embd, dil_error *err);
/* The 7 nearest neighbours of every row by the angle between whitened rows, made mutual: for router_local only. Compares every row
 * with every other. workers may be NULL. */
DIL_MUST_CHECK dil_status router_screen_flock(router_screen *s, team *workers, dil_error *err);
void router_screen_free(router_screen *s);
/* Of the work block of the calls below: 64-byte aligned, private to the caller. */
size_t router_work_bytes(const router_screen *s);

/* x [n_embd] -> what router_exact makes of kernels.linear[DIL_TYPE_F32] of the rows (plus bias), for a rule that suits. */
void router_certified(const router_screen *s, const router_rule *r, const float *x, void *work, uint16_t *chosen, float *weights,
                      router_evidence *e);

/* What the local mode remembers of one sequence in one layer. */
typedef struct router_memory router_memory;
typedef struct router_memory_options {
    uint32_t n_hot;   /* often used experts that are always candidates */
    float margin;     /* all rows are scored when the k-th candidate is this many deviations below the running mean of k-th values;
                         -inf: always, +inf: never for that reason */
    uint32_t refresh; /* and every so many tokens, because neighbours of neighbours need not lead everywhere; 0: never */
} router_memory_options;
/* [owned: free with router_memory_free] */
DIL_MUST_CHECK dil_status router_memory_new(router_memory **out, const router_rule *r, const router_memory_options *o,
                                            dil_error *err);
void router_memory_clear(router_memory *m); /* a new sequence */
void router_memory_free(router_memory *m);

/* Candidates are the last token's experts, their neighbours and the hot ones; the best k of them are chosen. All rows are scored
 * when they look weak, now and then, and for the first tokens (e->fell_back: the choice is exact). s has its flock, the rule suits. */
void router_local(const router_screen *s, const router_rule *r, const float *x, router_memory *m, void *work, uint16_t *chosen,
                  float *weights, router_evidence *e);

/* ---- experts that cost something to load ---- */

typedef struct router_offer {
    const uint8_t *resident; /* [n_experts]: not 0: in memory already. router_batch: NULL: none */
    float price;             /* router_cached: what a resident expert's value is raised by. router_batch: mass per loaded expert */
    float budget;            /* of mass per token: the largest share of the exact weights that may be taken away, 0..1 */
    uint32_t keep;           /* the best `keep` ranks always stay */
    bool alone; /* router_batch: best responses only, no expert leaves for all its tokens at once: worse, for comparison */
} router_offer;

/* ||y' - y|| <= change * max ||f_e(x)||, y the layer's exact output and f_e the experts. */
typedef struct router_moved {
    double mass;        /* share of the exact weights that was taken away: at most the budget */
    double change;      /* sum over all experts of |w' - w|: 2 * mass * scale for a normalised softmax, to rounding */
    uint32_t n_changed; /* experts replaced */
} router_moved;

/* Chooses by value + price for resident experts: lowest weights first, each against the best resident expert left, while the mass
 * stays within the budget. weights are those of the rule for the new set, ranked by value. scratch [4 * n_experts]. */
void router_cached(const router_rule *r, const float *scores, const router_offer *o, uint16_t *chosen, float *weights,
                   float *scratch, router_moved *out);

typedef struct router_batch_report {
    uint32_t n_before, n_after;         /* different experts that must be loaded */
    double potential_before, potential; /* sum of masses + price * experts loaded: what all pay */
    double most_mass;                   /* of one token */
    uint32_t sweeps, moves;             /* of best responses */
    bool settled;                       /* no token gains by changing alone */
} router_batch_report;

/*
 * A congestion game (theorem/game.h, CONGESTION_MARGINAL): tokens are players; a strategy is the exact set with some of its ranks
 * from `keep` on exchanged for experts outside of it, within the budget; it costs its mass, and the price of each expert nobody else
 * loads. From the exact sets experts are taken out of the whole batch while that pays, then best responses until settled.
 * scores [n_tokens][stride] -> chosen, weights [n_tokens][n_used]; moved [n_tokens]: each token's evidence, or NULL.
 */
DIL_MUST_CHECK dil_status router_batch(const router_rule *r, const float *scores, size_t stride, uint32_t n_tokens,
                                       const router_offer *o, uint16_t *chosen, float *weights, router_moved *moved,
                                       router_batch_report *out, dil_error *err);

#endif
