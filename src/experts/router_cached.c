/* Routing that prefers experts in memory: what that may change is bounded before anything is chosen. */
#include <string.h>

#include "experts/router_internal.h"

/* The slot of the smallest share that was not tried yet, n when all were; of equal ones the lowest rank goes first. */
static uint32_t cheapest(const float *share, uint32_t n)
{
    uint32_t best = n;
    for (uint32_t i = 0; i < n; i++)
        if (share[i] < INFINITY && (best == n || share[i] <= share[best]))
            best = i;
    return best;
}

/* The best resident expert outside of the set; n_experts: none. */
static uint32_t best_resident(const router_rule *r, const router_offer *o, const float *values, const uint16_t *set)
{
    uint32_t best = r->n_experts;
    for (uint32_t i = 0; i < r->n_experts; i++) {
        bool better = o->resident[i] && values[i] > (best < r->n_experts ? values[best] : -INFINITY);
        if (better && !router_holds(set, r->n_used, i))
            best = i;
    }
    return best;
}

/* Shares of the whole weight; infinite for slots that stay. */
static void shares(const router_rule *r, const router_offer *o, const uint16_t *set, const float *weights, float *share)
{
    float sum = 0.0f;
    for (uint32_t i = 0; i < r->n_used; i++)
        sum += weights[i];
    for (uint32_t i = 0; i < r->n_used; i++)
        share[i] = i < o->keep || o->resident[set[i]] || !(sum > 0.0f) ? INFINITY : weights[i] / sum;
}

void router_cached(const router_rule *r, const float *scores, const router_offer *o, uint16_t *chosen, float *weights,
                   float *scratch, router_moved *out)
{
    float *values = scratch, *share = values + r->n_experts, *before = share + r->n_experts;
    uint16_t *exact = (uint16_t *)(void *)(before + r->n_experts);
    router_norm norm = router_values(r, scores, values, share);
    router_pick(values, r->n_experts, r->n_used, chosen);
    router_weigh(r, scores, norm, chosen, before);
    memcpy(exact, chosen, r->n_used * sizeof *chosen);
    shares(r, o, chosen, before, share);
    *out = (router_moved){0};
    for (uint32_t slot; (slot = cheapest(share, r->n_used)) < r->n_used; share[slot] = INFINITY) {
        uint32_t other = best_resident(r, o, values, chosen);
        if (other == r->n_experts || !(out->mass + (double)share[slot] <= (double)o->budget))
            break;
        if (!(values[other] + o->price > values[chosen[slot]]))
            continue;
        chosen[slot] = (uint16_t)other;
        out->mass += (double)share[slot];
        out->n_changed++;
    }
    router_rank(values, r->n_used, chosen);
    router_weigh(r, scores, norm, chosen, weights);
    out->change = router_change(exact, before, chosen, weights, r->n_used);
}
