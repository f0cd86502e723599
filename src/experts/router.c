/* The exact choice: selection values, groups, ranks, weights. */
#include "experts/router.h"

#include "experts/router_internal.h"

float router_sigmoid(float z) { return 1.0f / (1.0f + expf(-z)); }

/* exp(z - max), 1 at the maximum even where that is infinite. */
static float above(float z, float max) { return z == max ? 1.0f : expf(z - max); }

static router_norm softmax_norm(const float *scores, uint32_t n)
{
    router_norm norm = {-INFINITY, 0.0f};
    for (uint32_t i = 0; i < n; i++)
        norm.max = scores[i] > norm.max ? scores[i] : norm.max;
    for (uint32_t i = 0; i < n; i++)
        norm.sum += above(router_clean(scores[i]), norm.max);
    return norm;
}

static float probability(const router_rule *r, router_norm norm, float z)
{
    switch (r->gating) {
    case GATING_SOFTMAX: return above(z, norm.max) / norm.sum;
    case GATING_SIGMOID: return router_sigmoid(z);
    default: return z;
    }
}

float router_value(const router_rule *r, uint32_t expert, float score)
{
    float z = router_clean(score);
    return r->bias ? router_clean(probability(r, (router_norm){0}, z) + r->bias[expert]) : z;
}

/* ---- groups ---- */

/* The sum of the two best. */
static float group_worth(const float *values, uint32_t n)
{
    float first = -INFINITY, second = -INFINITY;
    for (uint32_t i = 0; i < n; i++) {
        float v = values[i];
        second = v > first ? first : v > second ? v : second;
        first = v > first ? v : first;
    }
    return n > 1 ? router_clean(first + second) : first;
}

/* A group is used when fewer than n_groups_used are better: no list needed. */
static void drop_groups(const router_rule *r, float *values, float *worth)
{
    uint32_t size = r->n_experts / r->n_groups;
    for (uint32_t g = 0; g < r->n_groups; g++)
        worth[g] = group_worth(values + g * size, size);
    for (uint32_t g = 0; g < r->n_groups; g++) {
        uint32_t better = 0;
        for (uint32_t h = 0; h < r->n_groups; h++)
            better += worth[h] > worth[g] || (worth[h] == worth[g] && h < g);
        for (uint32_t i = 0; better >= r->n_groups_used && i < size; i++)
            values[g * size + i] = -INFINITY;
    }
}

/* ---- the steps ---- */

router_norm router_values(const router_rule *r, const float *scores, float *values, float *spare)
{
    bool by_score = router_by_score(r);
    router_norm norm = {0};
    if (r->gating == GATING_SOFTMAX && !(by_score && r->normalise))
        norm = softmax_norm(scores, r->n_experts);
    for (uint32_t i = 0; i < r->n_experts; i++) {
        float z = router_clean(scores[i]);
        values[i] = by_score ? z : router_clean(probability(r, norm, z) + (r->bias ? r->bias[i] : 0.0f));
    }
    if (r->n_groups > 1)
        drop_groups(r, values, spare);
    return norm;
}

void router_pick(const float *values, uint32_t n, uint32_t k, uint16_t *chosen)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < n; i++) {
        float v = values[i];
        if (found == k && !(v > values[chosen[k - 1]]))
            continue;
        uint32_t at = found < k ? found++ : k - 1;
        for (; at > 0 && v > values[chosen[at - 1]]; at--)
            chosen[at] = chosen[at - 1];
        chosen[at] = (uint16_t)i;
    }
}

/* Softmax over the chosen; also the normalised softmax over all: the sum over all cancels, and the k best of at most 16384 hold
 * more than ROUTER_LEAST_SUM. */
static void weigh_among(const float *scores, const uint16_t *chosen, uint32_t n, float *weights)
{
    float max = -INFINITY, sum = 0.0f;
    for (uint32_t i = 0; i < n; i++)
        max = scores[chosen[i]] > max ? scores[chosen[i]] : max;
    for (uint32_t i = 0; i < n; i++) {
        weights[i] = above(router_clean(scores[chosen[i]]), max);
        sum += weights[i];
    }
    for (uint32_t i = 0; i < n; i++)
        weights[i] /= sum;
}

static void weigh_each(const router_rule *r, const float *scores, router_norm norm, const uint16_t *chosen, float *weights)
{
    float sum = 0.0f;
    for (uint32_t i = 0; i < r->n_used; i++) {
        weights[i] = probability(r, norm, router_clean(scores[chosen[i]]));
        sum += weights[i];
    }
    sum = sum > ROUTER_LEAST_SUM ? sum : ROUTER_LEAST_SUM;
    for (uint32_t i = 0; r->normalise && i < r->n_used; i++)
        weights[i] /= sum;
}

void router_weigh(const router_rule *r, const float *scores, router_norm norm, const uint16_t *chosen, float *weights)
{
    bool among = r->gating == GATING_SOFTMAX_CHOSEN || (r->gating == GATING_SOFTMAX && r->normalise && router_by_score(r));
    if (among)
        weigh_among(scores, chosen, r->n_used, weights);
    else
        weigh_each(r, scores, norm, chosen, weights);
    for (uint32_t i = 0; i < r->n_used; i++)
        weights[i] *= r->scale;
}

void router_exact(const router_rule *r, const float *scores, uint16_t *chosen, float *weights, float *scratch)
{
    router_norm norm = router_values(r, scores, scratch, scratch + r->n_experts);
    router_pick(scratch, r->n_experts, r->n_used, chosen);
    router_weigh(r, scores, norm, chosen, weights);
}

/* ---- sets ---- */

bool router_holds(const uint16_t *set, uint32_t n, uint32_t expert)
{
    for (uint32_t i = 0; i < n; i++)
        if (set[i] == expert)
            return true;
    return false;
}

uint32_t router_common(const uint16_t *a, const uint16_t *b, uint32_t n)
{
    uint32_t common = 0;
    for (uint32_t i = 0; i < n; i++)
        common += router_holds(b, n, a[i]);
    return common;
}

void router_rank(const float *values, uint32_t n, uint16_t *chosen)
{
    for (uint32_t i = 1; i < n; i++) {
        uint16_t e = chosen[i];
        uint32_t at = i;
        for (; at > 0 && (values[e] > values[chosen[at - 1]] || (values[e] == values[chosen[at - 1]] && e < chosen[at - 1])); at--)
            chosen[at] = chosen[at - 1];
        chosen[at] = e;
    }
}

/* The weight of an expert in a set, 0 outside of it. */
static double weight_in(const uint16_t *set, const float *weights, uint32_t n, uint32_t expert)
{
    for (uint32_t i = 0; i < n; i++)
        if (set[i] == expert)
            return (double)weights[i];
    return 0.0;
}

double router_change(const uint16_t *old_set, const float *before, const uint16_t *new_set, const float *now, uint32_t n)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < n; i++) {
        sum += fabs((double)now[i] - weight_in(old_set, before, n, new_set[i]));
        sum += router_holds(new_set, n, old_set[i]) ? 0.0 : fabs((double)before[i]);
    }
    return sum;
}
