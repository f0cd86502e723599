/* Whole layers: a candidate's cost is the divergence that is measured when it is skipped. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "quantize/prune_internal.h"

#define MOST_TOKENS 1024 /* that candidates are measured on */

typedef struct skipping {
    pruning *p;
    walk *w; /* over few sequences */
    int n_layer;
    size_t values; /* of a state of all tokens */
    bool gone[MODEL_MAX_LAYERS];
    float *whole; /* [values]: behind the last layer of the whole model */
    float *base;  /* [values]: the same without those that are gone, as far as it has come */
    float *other; /* [n_layer][values]: and without one layer more */
    void *block;
    size_t n_bytes;
} skipping;

static void carve(skipping *s, void *base)
{
    size_t used = 0, bytes = s->values * sizeof(float);
    s->whole = mem_carve(base, &used, bytes);
    s->base = mem_carve(base, &used, bytes);
    s->other = mem_carve(base, &used, (size_t)s->n_layer * bytes);
    s->n_bytes = used;
}

/* Sequences from all over the text. */
static dil_status few_sequences(skipping *s, dil_error *err)
{
    const calibration *c = &s->p->c;
    const size_t n_context = (size_t)c->n_context;
    int n = MOST_TOKENS / c->n_context > 1 ? MOST_TOKENS / c->n_context : 1;
    n = n < c->n_sequences ? n : c->n_sequences;
    int32_t *tokens = mem_alloc((size_t)n * n_context * sizeof *tokens, MEM_MISC);
    if (!tokens)
        return DIL_FAIL(err, DIL_NO_MEMORY, "pruning: no memory for %d sequences", n);
    for (int i = 0; i < n; i++)
        memcpy(tokens + (size_t)i * n_context, c->tokens + (size_t)((int64_t)i * c->n_sequences / n) * n_context,
               n_context * sizeof *tokens);
    dil_status status = walk_new(&s->w, s->p->in, tokens, n, c->n_context, s->p->workers, &s->p->k, err);
    mem_free(tokens);
    return status;
}

static dil_status begin(skipping *s, dil_error *err)
{
    DIL_TRY(few_sequences(s, err));
    s->n_layer = (int)walk_hparams(s->w)->n_layer;
    s->values = (size_t)walk_n_tokens(s->w) * walk_hparams(s->w)->n_embd;
    carve(s, NULL);
    s->block = mem_map(s->n_bytes, MEM_ACTIVATIONS);
    if (!s->block)
        return DIL_FAIL(err, DIL_NO_MEMORY, "pruning: no memory for %d states of %lld tokens", s->n_layer,
                        (long long)walk_n_tokens(s->w));
    carve(s, s->block);
    DIL_TRY(walk_begin(s->w, err));
    memcpy(s->whole, walk_states(s->w), s->values * sizeof *s->whole);
    for (int i = 0; i < s->n_layer; i++) {
        DIL_TRY(walk_load(s->w, i, err));
        walk_forward(s->w, s->whole);
    }
    return DIL_OK;
}

static void end(skipping *s)
{
    if (s->block)
        mem_unmap(s->block, s->n_bytes, MEM_ACTIVATIONS);
    walk_free(s->w);
}

static float *other(const skipping *s, int layer) { return s->other + (size_t)layer * s->values; }

/* Each layer that is left is skipped once; every layer's weights are read once. */
static dil_status run_candidates(skipping *s, int done, int rounds, dil_error *err)
{
    DIL_TRY(walk_begin(s->w, err));
    memcpy(s->base, walk_states(s->w), s->values * sizeof *s->base);
    for (int i = 0; i < s->n_layer; i++) {
        DIL_TRY(prune_tell(s->p, "layers", (uint64_t)(done * s->n_layer + i), (uint64_t)(rounds * s->n_layer), err));
        if (s->gone[i])
            continue;
        DIL_TRY(walk_load(s->w, i, err));
        for (int k = 0; k < i; k++)
            if (!s->gone[k])
                walk_forward(s->w, other(s, k));
        memcpy(other(s, i), s->base, s->values * sizeof *s->base);
        walk_forward(s->w, s->base);
    }
    return DIL_OK;
}

static int cheapest(const skipping *s, double *cost)
{
    int best = -1;
    *cost = (double)INFINITY;
    for (int i = 0; i < s->n_layer; i++) {
        double found = s->gone[i] ? (double)INFINITY : walk_divergence(s->w, s->whole, other(s, i), walk_n_tokens(s->w));
        if (!s->gone[i] && (best < 0 || found < *cost)) {
            best = i;
            *cost = found;
        }
    }
    return best;
}

static dil_status remove_layers(skipping *s, dil_error *err)
{
    prune_plan *plan = &s->p->plan;
    const int rounds = plan->n_removed;
    for (int n = 0; n < rounds; n++) {
        double cost;
        DIL_TRY(run_candidates(s, n, rounds, err));
        int layer = cheapest(s, &cost);
        if (s->p->o->budget > 0 && cost > s->p->o->budget) {
            plan->n_removed = n;
            if (n == 0)
                return DIL_FAIL(err, DIL_LIMIT,
                                "quality budget: wanted at least %g nats per token, what the cheapest layer (%d) "
                                "costs, found %g",
                                cost, layer, s->p->o->budget);
            break;
        }
        plan->removed[n] = layer;
        plan->cost[n] = cost;
        s->gone[layer] = true;
    }
    return DIL_OK;
}

static dil_status check_layers(const pruning *p, const hparams *h, dil_error *err)
{
    const char *path = gguf_path(p->in);
    uint32_t n_blocks = h->n_layer;
    char key[160];
    snprintf(key, sizeof key, "%.*s.block_count", STR_ARG(h->architecture));
    DIL_TRY(gguf_get_u32(p->in, key, &n_blocks, err));
    if (h->window)
        return DIL_FAIL(err, DIL_UNSUPPORTED,
                        "%s: layers: wanted layers that are all alike, found windowed attention by their numbers (%.*s)", path,
                        STR_ARG(h->architecture));
    if (h->experts.n_experts && (h->experts.n_dense_lead || h->experts.period != 1))
        return DIL_FAIL(err, DIL_UNSUPPORTED, "%s: layers: wanted layers that are all alike, found dense ones by their numbers",
                        path);
    if (n_blocks != h->n_layer)
        return DIL_FAIL(err, DIL_UNSUPPORTED, "%s: layers: wanted no layers that guess further tokens, found %u", path,
                        n_blocks - h->n_layer);
    if (p->o->n_layers < 1 || p->o->n_layers >= (int)h->n_layer)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "layers: wanted 1 to %u to go, found %d", h->n_layer - 1, p->o->n_layers);
    return DIL_OK;
}

dil_status prune_find_layers(pruning *p, dil_error *err)
{
    skipping s = {.p = p};
    const hparams *h = walk_hparams(p->w);
    DIL_TRY(check_layers(p, h, err));
    DIL_TRY(prune_plan_new(&p->plan, PRUNE_LAYERS, 1, (int)h->n_layer, p->o->n_layers, err));
    dil_status status = begin(&s, err);
    if (status == DIL_OK)
        status = remove_layers(&s, err);
    end(&s);
    return status;
}
