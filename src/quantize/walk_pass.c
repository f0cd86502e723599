/* A batch forward and backward, layer by layer: its states are kept, everything else is computed again. */
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "quantize/walk_internal.h"

#define LOGITS (1 << 24) /* in memory at a time, about */

int64_t walk_head_tokens(const walk *w)
{
    const int64_t n = LOGITS / w->n->c.n_vocab;
    return n > BLOCK_TOKENS ? n : BLOCK_TOKENS;
}

void walk_layer_forward(walk *w, float *x, int64_t n_tokens, float *out)
{
    net *n = w->n;
    net_layer *l = &n->layers[0];
    l->x = x;
    l->attended = w->own_attended;
    l->x_ffn = w->own_x_ffn;
    layer_attention_norm(n, l, n_tokens);
    layer_attend(n, l, n_tokens, w->n_context);
    layer_project(n, l, n_tokens);
    layer_ffn_norm(n, l, walk_price(w), n_tokens);
    layer_ffn(n, l, n_tokens, out);
}

dil_status walk_pass_new(walk_pass *out, walk *w, int64_t first, int64_t n, dil_error *err)
{
    walk_pass p = {.w = w, .first = first, .n = n};
    p.states_bytes = ((size_t)w->h.n_layer + 1) * (size_t)n * w->h.n_embd * sizeof(float);
    p.states = mem_map(p.states_bytes, MEM_ACTIVATIONS);
    if (!p.states)
        return DIL_FAIL(err, DIL_NO_MEMORY, "calibration: no memory for the states of %lld tokens", (long long)n);
    *out = p;
    return DIL_OK;
}

void walk_pass_free(walk_pass *p)
{
    if (p->states)
        mem_unmap(p->states, p->states_bytes, MEM_ACTIVATIONS);
    p->states = NULL;
}

static float *state_of(const walk_pass *p, int layer) { return p->states + (size_t)layer * (size_t)p->n * p->w->h.n_embd; }

dil_status walk_pass_forward(walk_pass *p, dil_error *err)
{
    walk *w = p->w;
    const int n_layer = (int)w->h.n_layer;
    memcpy(state_of(p, 0), walk_state(w, p->first), (size_t)p->n * w->h.n_embd * sizeof(float));
    for (int i = 0; i < n_layer; i++) {
        DIL_TRY(walk_load(w, i, err));
        walk_layer_forward(w, state_of(p, i), p->n, state_of(p, i + 1));
    }
    norm_forward(&w->n->crew, &w->n->out_norm, state_of(p, n_layer), p->n, w->n->normed_last);
    return DIL_OK;
}

dil_status walk_pass_back(walk_pass *p, walk_layer_fn done, void *ctx, dil_error *err)
{
    walk *w = p->w;
    net *n = w->n;
    net_layer *l = &n->layers[0];
    const int n_layer = (int)w->h.n_layer;
    memset(n->dx, 0, (size_t)p->n * w->h.n_embd * sizeof(float));
    norm_backward(&n->crew, &n->out_norm, state_of(p, n_layer), n->dn, p->n, n->dx);
    for (p->layer = n_layer - 1; p->layer >= 0; p->layer--) {
        DIL_TRY(walk_load(w, p->layer, err));
        walk_layer_forward(w, state_of(p, p->layer), p->n, n->x_last);
        if (n->c.n_experts) /* the router's gradients are added to those of a loss, here to none */
            memset(n->dz, 0, (size_t)p->n * (size_t)n->c.n_experts * sizeof *n->dz);
        layer_ffn_back(n, l, p->n);
        layer_attention_back(n, l, p->n);
        if (done)
            done(ctx, p->layer);
    }
    return DIL_OK;
}
