#include "experts/router.h"

#include <math.h>

/* Smallest sum that weights are divided by: that of half precision. */
#define LEAST_SUM 6.103515625e-5f

static void softmax(const float *scores, uint32_t n, float *out)
{
    float most = -INFINITY, sum = 0.0f;
    for (uint32_t i = 0; i < n; i++)
        most = scores[i] > most ? scores[i] : most;
    for (uint32_t i = 0; i < n; i++) {
        out[i] = scores[i] > -INFINITY ? expf(scores[i] - most) : 0.0f;
        sum += out[i];
    }
    for (uint32_t i = 0; i < n && sum > 0.0f; i++)
        out[i] /= sum;
}

/* Experts of all but the best groups can no longer be chosen. */
static void keep_groups(const router_rule *r, float *value)
{
    uint32_t size = r->n_experts / r->n_groups;
    float group[MODEL_MAX_EXPERTS];
    for (uint32_t g = 0; g < r->n_groups; g++) {
        float first = -INFINITY, second = -INFINITY;
        for (uint32_t i = g * size; i < (g + 1) * size; i++) {
            float v = value[i];
            if (v > first) {
                second = first;
                first = v;
            } else if (v > second) {
                second = v;
            }
        }
        group[g] = size > 1 ? first + second : first;
    }
    for (uint32_t g = 0; g < r->n_groups; g++) {
        uint32_t better = 0;
        for (uint32_t o = 0; o < r->n_groups; o++)
            better += group[o] > group[g] || (group[o] == group[g] && o < g);
        for (uint32_t i = g * size; better >= r->n_groups_used && i < (g + 1) * size; i++)
            value[i] = -INFINITY;
    }
}

void router_exact(const router_rule *r, const float *scores, uint16_t *chosen, float *weights, float *scratch)
{
    float *p = scratch, *value = scratch + r->n_experts;
    if (r->gating == GATING_SOFTMAX)
        softmax(scores, r->n_experts, p);
    for (uint32_t i = 0; i < r->n_experts; i++) {
        if (r->gating == GATING_SIGMOID)
            p[i] = 1.0f / (1.0f + expf(-scores[i]));
        else if (r->gating == GATING_SOFTMAX_CHOSEN)
            p[i] = scores[i];
        value[i] = r->bias ? p[i] + r->bias[i] : p[i];
        if (isnan(value[i]))
            value[i] = -INFINITY;
    }
    if (r->n_groups > 1)
        keep_groups(r, value);
    for (uint32_t k = 0; k < r->n_used; k++) {
        uint32_t best = r->n_experts;
        for (uint32_t i = 0; i < r->n_experts; i++) {
            bool taken = false;
            for (uint32_t j = 0; j < k; j++)
                taken = taken || chosen[j] == i;
            if (!taken && (best == r->n_experts || value[i] > value[best]))
                best = i;
        }
        chosen[k] = (uint16_t)best;
    }
    for (uint32_t k = 0; k < r->n_used; k++)
        weights[k] = p[chosen[k]];
    if (r->gating == GATING_SOFTMAX_CHOSEN)
        softmax(weights, r->n_used, weights);
    float sum = 0.0f;
    for (uint32_t k = 0; k < r->n_used; k++)
        sum += weights[k];
    for (uint32_t k = 0; k < r->n_used && r->normalise; k++)
        weights[k] /= sum > LEAST_SUM ? sum : LEAST_SUM;
    for (uint32_t k = 0; k < r->n_used && r->scale != 1.0f; k++)
        weights[k] *= r->scale;
}
