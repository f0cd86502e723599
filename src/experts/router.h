/*
 * How a layer with experts turns a token's scores into a choice. Works on arrays; deterministic: nothing but its arguments decides.
 */
#ifndef EXPERTS_ROUTER_H
#define EXPERTS_ROUTER_H

#include "model/hparams.h"

typedef struct router_rule {
    expert_gating gating;
    uint32_t n_experts, n_used;
    uint32_t n_groups, n_groups_used; /* 1 and 1: all experts may be chosen */
    bool normalise;
    float scale;
    const float *bias; /* [n_experts] added to probabilities for choosing only; or NULL */
} router_rule;

/* scores [n_experts] -> chosen [n_used] by rank, weights [n_used]; scratch [2 * n_experts]. Of equals the lowest index goes first;
 * NaN counts as minus infinity. */
void router_exact(const router_rule *r, const float *scores, uint16_t *chosen, float *weights, float *scratch);

#endif
