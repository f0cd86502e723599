/* Evaluation of a run: bits per byte of the held-out parts, and what the routing of their tokens is worth to a cache of experts. */
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "train/locality.h"
#include "train/loop_internal.h"

/* ---- routing ---- */

/* The layer's measures of the n sequences of the last pass, added to *out with a share. */
static dil_status add_layer(run *r, int layer, int n, double share, train_routing *out, dil_error *err)
{
    const net_config *c = &r->c.net;
    const parameter *router = net_router(r->n, layer);
    int quarter = c->n_experts / 4 > 0 ? c->n_experts / 4 : 1, twice = 2 * c->n_used < c->n_experts ? 2 * c->n_used : c->n_experts;
    const loss_input in = {n,
                           c->n_context,
                           c->n_experts,
                           c->n_used,
                           net_scores(r->n, layer),
                           net_choices(r->n, layer),
                           net_prices(r->n) + (size_t)layer * (size_t)c->n_experts,
                           NULL};
    const locality_options o = {{quarter, twice}, 2, false, router->w, c->n_embd, r->c.loss.recency, r->c.loss.beta};
    locality l;
    DIL_TRY(locality_measure(&in, &o, &l, err));
    out->hits_quarter += share * l.lru[0];
    out->hits_twice += share * l.lru[1];
    out->belady_quarter += share * l.belady[0];
    out->distinct += share * l.distinct;
    out->inside += share * l.inside;
    out->exploitability += share * l.exploitability;
    out->agreement += share * l.agreement;
    out->entropy += share * l.entropy;
    for (int64_t i = 0; i < (int64_t)n * c->n_context * c->n_used; i++)
        r->counts[layer * NET_MAX_EXPERTS + in.chosen[i]]++;
    return DIL_OK;
}

/* The worst layer's MaxVio over all tokens of an evaluation. */
static double violation_of(const run *r)
{
    double worst = 0;
    for (int l = 0; l < r->c.net.n_layer; l++) {
        uint64_t most = 0, sum = 0;
        for (int e = 0; e < r->c.net.n_experts; e++) {
            uint64_t count = r->counts[l * NET_MAX_EXPERTS + e];
            most = count > most ? count : most;
            sum += count;
        }
        if (sum > 0)
            worst = fmax(worst, (double)most * r->c.net.n_experts / (double)sum - 1);
    }
    return worst;
}

/* ---- bits per byte ---- */

/* Nats of n sequences that begin at the given token positions, and the bytes of their targets. */
static double nats_of(run *r, const corpus_part *part, const size_t *begins, int n, double *bytes)
{
    size_t context = (size_t)r->c.net.n_context;
    double nats = 0;
    for (int i = 0; i < n; i++)
        for (size_t t = 0; t <= context; t++) {
            uint16_t id = part->tokens[begins[i] + t];
            r->tokens[(size_t)i * (context + 1) + t] = id;
            *bytes += t > 0 ? (double)r->token_bytes[id] : 0.0;
        }
    net_evaluate(r->n, r->tokens, n, r->nats);
    for (size_t i = 0; i < (size_t)n * context; i++)
        nats += (double)r->nats[i];
    return nats;
}

#define MOST_TOGETHER 64

/* Sequences lie side by side, the last token of one the first of the next, so that every token but the first is a target; when
 * fewer than all are wanted they are spread evenly. */
static dil_status evaluate_source(run *r, int source, dil_error *err)
{
    corpus_part part = corpus_held_out(r->texts, source);
    size_t context = (size_t)r->c.net.n_context, all = part.n > context ? (part.n - 1) / context : 0, wanted = all;
    size_t begins[MOST_TOGETHER], together = (size_t)r->n_pass < MOST_TOGETHER ? (size_t)r->n_pass : MOST_TOGETHER;
    double nats = 0, bytes = 0;
    train_routing *routing = &r->progress.routing[source];
    *routing = (train_routing){0};
    memset(r->counts, 0, sizeof r->counts);
    if (r->c.evaluate_sequences > 0 && (size_t)r->c.evaluate_sequences < all)
        wanted = (size_t)r->c.evaluate_sequences;
    for (size_t at = 0, n; at < wanted; at += n) {
        n = wanted - at < together ? wanted - at : together;
        for (size_t i = 0; i < n; i++)
            begins[i] = (size_t)((double)(at + i) * (double)all / (double)wanted) * context;
        nats += nats_of(r, &part, begins, (int)n, &bytes);
        for (int l = 0; l < r->c.net.n_layer && r->c.net.n_experts; l++)
            DIL_TRY(add_layer(r, l, (int)n, (double)n / (double)wanted / r->c.net.n_layer, routing, err));
    }
    routing->violation = violation_of(r);
    r->progress.held_out[source] = bytes > 0 ? nats / log(2.0) / bytes : (double)NAN;
    return DIL_OK;
}

dil_status run_evaluate(run *r, dil_error *err)
{
    for (int i = 0; i < r->c.n_sources; i++)
        DIL_TRY(evaluate_source(r, i, err));
    return DIL_OK;
}
