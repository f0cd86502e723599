/* The steps of a choice, for the files of the router. */
#ifndef EXPERTS_ROUTER_INTERNAL_H
#define EXPERTS_ROUTER_INTERNAL_H

#include <math.h>

#include "experts/router.h"
#include "theorem/neighbours.h"

/* What the softmax over all experts needs. */
typedef struct router_norm {
    float max, sum;
} router_norm;

static inline float router_clean(float score) { return score == score ? score : -INFINITY; }

/* Selection values are the scores themselves. */
static inline bool router_by_score(const router_rule *r) { return !r->bias && r->n_groups <= 1; }

float router_sigmoid(float z);
/* Selection values of all experts, minus infinity for groups that are not used. spare [n_experts]. */
router_norm router_values(const router_rule *r, const float *scores, float *values, float *spare);
/* The selection value of one expert, for rules that suit a screen. */
float router_value(const router_rule *r, uint32_t expert, float score);
/* The k largest of values [n] (none NaN), largest first, of equal ones the lowest index. */
void router_pick(const float *values, uint32_t n, uint32_t k, uint16_t *chosen);
/* Weights of the chosen; reads their scores only. */
void router_weigh(const router_rule *r, const float *scores, router_norm norm, const uint16_t *chosen, float *weights);
/* The chosen by value, largest first, of equal ones the lowest index. */
void router_rank(const float *values, uint32_t n, uint16_t *chosen);
/* The sum of |w' - w| over all experts: old ones with their weights before, new ones with theirs now. */
double router_change(const uint16_t *old_set, const float *before, const uint16_t *new_set, const float *now, uint32_t n);
bool router_holds(const uint16_t *set, uint32_t n, uint32_t expert);

/* ---- the screen ---- */

struct router_screen {
    const kernels *k;
    const float *rows, *bias;
    uint32_t n;
    int64_t n_embd;
    int n_panels;
    size_t panel_bytes;
    uint8_t *panels; /* Q8_0 of the rows, each times a power of two */
    double *unit;    /* [n]: its inverse */
    double *by_x;    /* [n]: what the error grows by with ||x||: ||w - w~|| and the rounding of the exact score */
    double *by_rest; /* [n]: ||w~||: with what is left of x after two quantizations, and the rounding of the screen */
    double *least;   /* [n]: what is left of it when x is 0: the rounding of the bias, underflow */
    swarm_graph flock;
};

/* A work block in parts. */
typedef struct router_work {
    float *scores;     /* [n]: exact ones of the rows in `index`, minus infinity elsewhere */
    float *values;     /* [n]: their selection values */
    float *guess;      /* [n]: selection values by the screen */
    double *high;      /* [n]: no selection value is larger; may be NaN: nothing is known */
    float *y;          /* [2][n_panels * PANEL_ROWS]: the screen's scores of x and of what its quantization left over */
    float *rest;       /* [n_embd]: x minus what was quantized */
    int8_t *q;         /* [2][q_stride] */
    float *d, *s;      /* [2][n_blocks] */
    int32_t *isum;     /* [2][n_blocks] */
    uint16_t *index;   /* [n]: rows to be scored, or that were */
    const float **row; /* [n] */
    float *sums;       /* [n] */
    uint8_t *seen;     /* [n] */
} router_work;

router_work router_work_of(const router_screen *s, void *block);
/* guess and high of every expert. */
void router_bound(const router_screen *s, const router_rule *r, const float *x, router_work *w);
/* Exact scores and values of the rows index[from..to-1]; marks them as seen. */
void router_score(const router_screen *s, const router_rule *r, const float *x, router_work *w, uint32_t from, uint32_t to);
/* Nothing is scored yet. */
void router_work_clear(const router_screen *s, router_work *w);
/* The choice from the values of what was scored. */
void router_conclude(const router_screen *s, const router_rule *r, const router_work *w, uint16_t *chosen, float *weights);

#endif
