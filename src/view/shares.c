#include "view/shares.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/status.h"

void shares_free(shares *s)
{
    for (uint32_t l = 0; s->layers && l < s->n_layers; l++) {
        mem_free(s->layers[l].share);
        mem_free(s->layers[l].order);
    }
    mem_free(s->layers);
    mem_free(s->model);
    *s = (shares){0};
}

/* ---- counting ---- */

static dil_status begin(shares *s, const trace *t, int n_logs, dil_error *err)
{
    size_t length = strlen(t->name) + 1;
    s->n_logs = n_logs;
    s->n_used = t->n_used;
    s->model = mem_alloc(length, MEM_MISC);
    s->layers = mem_calloc(t->n_places, sizeof *s->layers, MEM_MISC);
    if (!s->model || !s->layers)
        return DIL_FAIL(err, DIL_NO_MEMORY, "experts: no memory");
    memcpy(s->model, t->name, length);
    s->n_layers = t->n_places;
    for (uint32_t p = 0; p < t->n_places; p++) {
        shares_layer *l = &s->layers[p];
        l->layer = t->layer_of[p];
        l->n_experts = t->layers[l->layer].n_experts;
        l->share = mem_calloc((size_t)n_logs * l->n_experts, sizeof *l->share, MEM_MISC);
        l->order = mem_calloc(l->n_experts, sizeof *l->order, MEM_MISC);
        if (!l->share || !l->order)
            return DIL_FAIL(err, DIL_NO_MEMORY, "experts: no memory");
    }
    return DIL_OK;
}

static dil_status same_shape(const shares *s, const trace *t, const char *first, const char *path, dil_error *err)
{
    if (t->n_places != s->n_layers)
        return DIL_FAIL(err, DIL_FORMAT, "%s: wanted %u layers with experts, as in %s, found %u", path, s->n_layers, first,
                        t->n_places);
    for (uint32_t p = 0; p < t->n_places; p++)
        if (t->layers[t->layer_of[p]].n_experts != s->layers[p].n_experts)
            return DIL_FAIL(err, DIL_FORMAT, "%s: layer %u: wanted %u experts, as in %s, found %u", path, t->layer_of[p],
                            s->layers[p].n_experts, first, t->layers[t->layer_of[p]].n_experts);
    return DIL_OK;
}

static void count(shares *s, const trace *t, int log)
{
    s->n_tokens[log] = t->n_tokens;
    double each = 1 / ((double)t->n_tokens * (double)t->n_used);
    for (uint64_t token = 0; token < t->n_tokens; token++)
        for (uint32_t p = 0; p < t->n_places; p++) {
            const uint16_t *chosen = trace_chosen(t, token, p);
            for (uint32_t i = 0; i < t->n_used; i++)
                s->layers[p].share[(size_t)log * s->layers[p].n_experts + chosen[i]] += 1;
        }
    for (uint32_t p = 0; p < t->n_places; p++)
        for (uint32_t e = 0; e < s->layers[p].n_experts; e++)
            s->layers[p].share[(size_t)log * s->layers[p].n_experts + e] *= each;
}

static dil_status read_one(shares *s, const char *const *paths, int n, int log, dil_error *err)
{
    trace *t = NULL;
    DIL_TRY(trace_open(&t, paths[log], err));
    dil_status status = log == 0 ? begin(s, t, n, err) : same_shape(s, t, paths[0], paths[log], err);
    if (status == DIL_OK && t->n_tokens == 0)
        status = DIL_FAIL(err, DIL_FORMAT, "%s: wanted at least one token, found none", paths[log]);
    if (status == DIL_OK && t->n_places == 0)
        status = DIL_FAIL(err, DIL_FORMAT, "%s: wanted at least one layer with experts, found none", paths[log]);
    if (status == DIL_OK)
        count(s, t, log);
    trace_free(t);
    return status;
}

/* ---- figures ---- */

/* JSD(p, q) = (KL(p | m) + KL(q | m)) / 2 with m = (p + q) / 2. */
double shares_divergence(const double *p, const double *q, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        double m = (p[i] + q[i]) / 2;
        sum += p[i] > 0 ? p[i] * log2(p[i] / m) : 0;
        sum += q[i] > 0 ? q[i] * log2(q[i] / m) : 0;
    }
    return fmin(1, fmax(0, sum / 2));
}

/* Counts of N choices miss an entropy by (K - 1) / (2 N ln 2) bits on average (Miller and Madow), which leaves the divergence
 * of two equal distributions over K experts at (K - 1) (1 / N1 + 1 / N2) / (8 ln 2). */
static double chance_of(const shares *s, uint32_t experts, int a, int b)
{
    double one = 1 / ((double)s->n_tokens[a] * s->n_used), other = 1 / ((double)s->n_tokens[b] * s->n_used);
    return fmin(1, ((double)experts - 1) * (one + other) / (8 * log(2)));
}

static uint32_t used_experts(const shares_layer *l, int n_logs)
{
    uint32_t n = 0;
    for (uint32_t e = 0; e < l->n_experts; e++) {
        bool used = false;
        for (int log = 0; log < n_logs; log++)
            used = used || l->share[(size_t)log * l->n_experts + e] > 0;
        n += used;
    }
    return n;
}

static void compare(const shares *s, shares_layer *l)
{
    int pairs = 0;
    uint32_t used = used_experts(l, s->n_logs);
    for (int a = 0; a < s->n_logs; a++)
        for (int b = a + 1; b < s->n_logs; b++, pairs++) {
            const double *p = l->share + (size_t)a * l->n_experts, *q = l->share + (size_t)b * l->n_experts;
            l->divergence += shares_divergence(p, q, l->n_experts);
            l->by_chance += chance_of(s, used, a, b);
        }
    l->divergence /= pairs ? pairs : 1;
    l->by_chance /= pairs ? pairs : 1;
}

/* ---- order ---- */

typedef struct placed {
    int group;
    double key; /* greater first */
    uint32_t expert;
} placed;

static int by_place(const void *a, const void *b)
{
    const placed *x = a, *y = b;
    if (x->group != y->group)
        return x->group < y->group ? -1 : 1;
    if (x->key != y->key)
        return x->key > y->key ? -1 : 1;
    return x->expert < y->expert ? -1 : x->expert > y->expert;
}

static placed place_of(const shares *s, const shares_layer *l, uint32_t e)
{
    placed at = {.expert = e, .key = l->share[e]};
    double sum = 0, most = -1;
    if (s->n_logs == 2)
        at.key = l->share[e] - l->share[l->n_experts + e];
    for (int log = 0; s->n_logs > 2 && log < s->n_logs; log++) {
        double v = l->share[(size_t)log * l->n_experts + e];
        sum += v;
        at.group = v > most ? log : at.group;
        most = v > most ? v : most;
    }
    if (s->n_logs > 2)
        at.key = most - (sum - most) / (s->n_logs - 1);
    return at;
}

static dil_status arrange(const shares *s, shares_layer *l, dil_error *err)
{
    placed *list = mem_alloc(l->n_experts * sizeof *list, MEM_MISC);
    if (!list)
        return DIL_FAIL(err, DIL_NO_MEMORY, "experts: no memory");
    for (uint32_t e = 0; e < l->n_experts; e++)
        list[e] = place_of(s, l, e);
    qsort(list, l->n_experts, sizeof *list, by_place);
    for (uint32_t e = 0; e < l->n_experts; e++)
        l->order[e] = list[e].expert;
    mem_free(list);
    return DIL_OK;
}

dil_status shares_read(shares *out, const char *const *paths, int n, dil_error *err)
{
    shares s = {0};
    dil_status status = DIL_OK;
    for (int log = 0; log < n && status == DIL_OK; log++)
        status = read_one(&s, paths, n, log, err);
    for (uint32_t l = 0; l < s.n_layers && status == DIL_OK; l++) {
        compare(&s, &s.layers[l]);
        status = arrange(&s, &s.layers[l], err);
    }
    if (status == DIL_OK)
        *out = s;
    else
        shares_free(&s);
    return status;
}
