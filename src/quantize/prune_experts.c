/* Experts of mixtures: a row of the router, a slice of gate, up and down. */
#include "base/status.h"
#include "quantize/prune_internal.h"

/* Removals are judged by letting tokens choose among all that are left: where choices or shares follow other rules, that would be wrong. */
static dil_status check_experts(const pruning *p, const expert_params *e, dil_error *err)
{
    const char *path = gguf_path(p->in);
    if (e->n_experts == 0)
        return DIL_FAIL(err, DIL_UNSUPPORTED, "%s: experts: wanted a mixture of experts, found dense layers; use --neurons", path);
    if (e->n_groups > 1)
        return DIL_FAIL(err, DIL_UNSUPPORTED, "%s: experts: wanted one group, found %u", path, e->n_groups);
    if (!e->normalise || e->gating == GATING_SIGMOID)
        return DIL_FAIL(err, DIL_UNSUPPORTED,
                        "%s: experts: wanted shares of the chosen that add up to one by softmax, found others", path);
    if (e->n_ff_shared || e->n_dense_lead || e->period != 1)
        return DIL_FAIL(err, DIL_UNSUPPORTED, "%s: experts: wanted them in all layers and none shared, found dense parts", path);
    return DIL_OK;
}

static dil_status prune_layer(pruning *p, int layer, bool change, dil_error *err)
{
    const hparams *h = walk_hparams(p->w);
    const size_t n_rows = (size_t)h->experts.n_experts * h->n_embd, at = (size_t)layer * (size_t)p->plan.n_removed;
    const bool all_stay[MODEL_MAX_EXPERTS] = {false};
    float none;
    DIL_TRY(walk_load(p->w, layer, err));
    for (int stage = 0; stage < WALK_DOWN; stage++)
        walk_look(p->w, (walk_stage)stage, NULL, 0, &none);
    walk_removal r = {.token_weight = p->c.fisher.token[NET_DOWN] + (size_t)layer * (size_t)walk_n_tokens(p->w),
                      .row_weight = p->c.fisher.row[NET_DOWN] + (size_t)layer * n_rows,
                      .n_remove = p->plan.n_removed,
                      .removed = p->plan.removed + at,
                      .cost = p->plan.cost + at};
    DIL_TRY(walk_remove_experts(p->w, &r, err));
    if (!change)
        walk_without(p->w, all_stay);
    walk_advance(p->w);
    return DIL_OK;
}

/* A prune_run_fn. */
static dil_status prune_layers(pruning *p, const char *what, bool change, dil_error *err)
{
    DIL_TRY(walk_begin(p->w, err));
    for (int i = 0; i < p->plan.n_lists; i++) {
        DIL_TRY(prune_tell(p, what, (uint64_t)i, (uint64_t)p->plan.n_lists, err));
        DIL_TRY(prune_layer(p, i, change, err));
    }
    return DIL_OK;
}

dil_status prune_find_experts(pruning *p, dil_error *err)
{
    const hparams *h = walk_hparams(p->w);
    const expert_params *e = &h->experts;
    DIL_TRY(check_experts(p, e, err));
    const int n_experts = (int)e->n_experts, most = (int)(e->n_experts - e->n_used);
    int n = (int)(p->o->share * n_experts + 1e-9);
    if (n == 0)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "experts: wanted a share of at least %.4f (1 of %d), found %g", 1.0 / n_experts,
                        n_experts, p->o->share);
    if (n > most && p->o->budget > 0)
        n = most;
    if (n > most)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT,
                        "experts: wanted a share of at most %.4f, which leaves the %u that a token uses, found %g",
                        (double)most / n_experts, e->n_used, p->o->share);
    return prune_settle(p, PRUNE_EXPERTS, n_experts, n, 1, 1, prune_layers, err);
}
