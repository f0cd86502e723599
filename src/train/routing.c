/* The choice of experts, and sums over those a token chose. */
#include <math.h>
#include <string.h>

#include "train/layers.h"

typedef struct routing_run {
    const crew *c;
    const routing *r;
    const float *price, *slot_values, *dshare;
    int n_embd;
    float *y, *dz;
} routing_run;

/* The n_used best of z - price, best first; ties go to the lowest number. */
static void choose_token(const routing *r, const float *z, const float *price, int16_t *chosen)
{
    float score[NET_MAX_USED];
    int n = 0;
    for (int e = 0; e < r->n_experts; e++) {
        float s = z[e] - (price ? price[e] : 0.0f);
        if (n == r->n_used && !(s > score[n - 1]))
            continue;
        int i = n < r->n_used ? n++ : n - 1;
        for (; i > 0 && s > score[i - 1]; i--) {
            score[i] = score[i - 1];
            chosen[i] = chosen[i - 1];
        }
        score[i] = s;
        chosen[i] = (int16_t)e;
    }
}

/* Softmax of the scores of the chosen. */
static void share_token(const routing *r, const float *z, const int16_t *chosen, float *share)
{
    float most = z[chosen[0]], sum = 0.0f;
    for (int i = 1; i < r->n_used; i++)
        most = fmaxf(most, z[chosen[i]]);
    for (int i = 0; i < r->n_used; i++)
        sum += share[i] = expf(z[chosen[i]] - most);
    for (int i = 0; i < r->n_used; i++)
        share[i] /= sum;
}

static void choose_block(void *ctx, int64_t first, int n, int worker)
{
    const routing_run *run = ctx;
    const routing *r = run->r;
    (void)worker;
    for (int64_t t = first; t < first + n; t++) {
        choose_token(r, r->z + t * r->n_experts, run->price, r->chosen + t * r->n_used);
        share_token(r, r->z + t * r->n_experts, r->chosen + t * r->n_used, r->share + t * r->n_used);
    }
}

void routing_choose(const crew *c, routing *r, const float *price, int64_t n_tokens)
{
    int32_t next[NET_MAX_EXPERTS];
    crew_tokens(c, n_tokens, choose_block, &(routing_run){.c = c, .r = r, .price = price});
    memset(r->first, 0, (size_t)(r->n_experts + 1) * sizeof *r->first);
    for (int64_t i = 0; i < n_tokens * r->n_used; i++)
        r->first[r->chosen[i] + 1]++;
    for (int e = 0; e < r->n_experts; e++)
        r->first[e + 1] += r->first[e];
    memcpy(next, r->first, (size_t)r->n_experts * sizeof *next);
    for (int64_t i = 0; i < n_tokens * r->n_used; i++) {
        int32_t at = next[r->chosen[i]]++;
        r->slot[i] = at;
        r->token[at] = (int32_t)(i / r->n_used);
        r->slot_share[at] = r->share[i];
    }
}

static void combine_block(void *ctx, int64_t first, int n, int worker)
{
    const routing_run *run = ctx;
    const routing *r = run->r;
    (void)worker;
    for (int64_t i = first * r->n_used; i < (first + n) * r->n_used; i++)
        run->c->kind.k->add_scaled(run->y + i / r->n_used * run->n_embd, run->slot_values + (int64_t)r->slot[i] * run->n_embd,
                                   r->share[i], run->n_embd);
}

void routing_combine(const crew *c, const routing *r, const float *slot_y, int n_embd, int64_t n_tokens, float *y)
{
    crew_tokens(c, n_tokens, combine_block, &(routing_run){.c = c, .r = r, .slot_values = slot_y, .n_embd = n_embd, .y = y});
}

/* Of a softmax: dz = share (dshare - sum of share dshare). */
static void back_block(void *ctx, int64_t first, int n, int worker)
{
    const routing_run *run = ctx;
    const routing *r = run->r;
    (void)worker;
    for (int64_t t = first; t < first + n; t++) {
        float mean = 0.0f;
        for (int64_t i = t * r->n_used; i < (t + 1) * r->n_used; i++) {
            run->c->kind.k->add(run->y + t * run->n_embd, run->slot_values + (int64_t)r->slot[i] * run->n_embd, run->n_embd);
            mean += r->share[i] * run->dshare[r->slot[i]];
        }
        for (int64_t i = t * r->n_used; i < (t + 1) * r->n_used; i++)
            run->dz[t * r->n_experts + r->chosen[i]] += r->share[i] * (run->dshare[r->slot[i]] - mean);
    }
}

void routing_back(const crew *c, const routing *r, const float *slot_dx, const float *dshare, int n_embd, int64_t n_tokens,
                  float *dx, float *dz)
{
    crew_tokens(c, n_tokens, back_block,
                &(routing_run){.c = c, .r = r, .slot_values = slot_dx, .dshare = dshare, .n_embd = n_embd, .y = dx, .dz = dz});
}
