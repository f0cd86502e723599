/* One pass over a batch: forward, and backward in the opposite order. */
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "train/net_internal.h"

static int n_q(const net *n) { return n->c.n_head * n->c.head_dim; }
static int n_kv(const net *n) { return n->c.n_head_kv * n->c.head_dim; }

/* ---- elementwise over all tokens ---- */

typedef struct add_run {
    const crew *c;
    float *y;
    const float *a, *b;
    int n;
} add_run;

static void add_block(void *ctx, int64_t first, int n, int worker)
{
    const add_run *r = ctx;
    int64_t at = first * r->n, count = (int64_t)n * r->n;
    (void)worker;
    if (r->y != r->a)
        memcpy(r->y + at, r->a + at, (size_t)count * sizeof(float));
    r->c->kind.k->add(r->y + at, r->b + at, count);
}

/* y = a + b, y may be a. */
static void add_all(const net *n, float *y, const float *a, const float *b, int64_t n_tokens)
{
    crew_tokens(&n->crew, n_tokens, add_block, &(add_run){&n->crew, y, a, b, n->c.n_embd});
}

/* ---- forward ---- */

static attention_shape shape_of(const net *n, int64_t n_tokens, int n_context)
{
    return (attention_shape){(int)(n_tokens / n_context), n_context, n->c.n_head, n->c.n_head_kv, n->c.head_dim};
}

void layer_attention_norm(net *n, net_layer *l, int64_t n_tokens)
{
    norm_forward(&n->crew, &l->attn_norm, l->x, n_tokens, l->normed);
}

void layer_attend(net *n, net_layer *l, int64_t n_tokens, int n_context)
{
    const crew *c = &n->crew;
    const net_config *s = &n->c;
    float *q = s->qk_norm ? l->q_raw : l->q_out, *k = s->qk_norm ? l->k_raw : l->k_out;
    linear_forward(c, &l->q, l->normed, n_tokens, q, false);
    linear_forward(c, &l->k, l->normed, n_tokens, k, false);
    linear_forward(c, &l->v, l->normed, n_tokens, l->v_out, false);
    if (s->qk_norm) {
        norm_forward(c, &l->q_norm, q, n_tokens, l->q_out);
        norm_forward(c, &l->k_norm, k, n_tokens, l->k_out);
    }
    rope_rotate(c, l->q_out, s->n_head, s->head_dim, n->cs, n_context, s->pairs, n_tokens);
    rope_rotate(c, l->k_out, s->n_head_kv, s->head_dim, n->cs, n_context, s->pairs, n_tokens);
    attention_shape shape = shape_of(n, n_tokens, n_context);
    attention_forward(c, &shape, l->q_out, l->k_out, l->v_out, l->attended);
}

void layer_project(net *n, net_layer *l, int64_t n_tokens)
{
    const crew *c = &n->crew;
    if (n->c.post_norm) {
        linear_forward(c, &l->o, l->attended, n_tokens, l->attn_raw, false);
        norm_forward(c, &l->attn_post, l->attn_raw, n_tokens, l->x_ffn);
    } else {
        linear_forward(c, &l->o, l->attended, n_tokens, l->x_ffn, false);
    }
    add_all(n, l->x_ffn, l->x_ffn, l->x, n_tokens);
}

static ffn_slots slots_of(const net *n, const net_layer *l)
{
    if (!n->c.n_experts)
        return (ffn_slots){.first = n->dense_first, .gate = l->gate, .up = l->up};
    return (ffn_slots){l->r.first, l->r.token, l->r.slot_share, l->gate, l->up};
}

void layer_ffn_norm(net *n, net_layer *l, const float *price, int64_t n_tokens)
{
    norm_forward(&n->crew, &l->ffn_norm, l->x_ffn, n_tokens, l->normed_ffn);
    n->dense_first[1] = (int32_t)n_tokens;
    if (!n->c.n_experts)
        return;
    linear_forward(&n->crew, &l->router, l->normed_ffn, n_tokens, l->r.z, false);
    routing_choose(&n->crew, &l->r, price, n_tokens);
}

void layer_ffn(net *n, net_layer *l, int64_t n_tokens, float *out)
{
    const crew *c = &n->crew;
    size_t bytes = (size_t)n_tokens * (size_t)n->c.n_embd * sizeof *out;
    float *y = n->c.post_norm ? l->ffn_raw : out;
    ffn_slots s = slots_of(n, l);
    ffn_forward(c, &l->f, &s, l->normed_ffn, n->c.n_experts ? n->slot_y : y);
    if (n->c.n_experts) {
        memset(y, 0, bytes);
        routing_combine(c, &l->r, n->slot_y, n->c.n_embd, n_tokens, y);
    }
    if (n->c.post_norm)
        norm_forward(c, &l->ffn_post, y, n_tokens, out);
    add_all(n, out, out, l->x_ffn, n_tokens);
}

void net_forward(net *n, int n_sequences, int n_context)
{
    int64_t n_tokens = (int64_t)n_sequences * n_context;
    embed_forward(&n->crew, n->embedding->w, n->c.n_embd, n->c.embd_scale, n->inputs, n_tokens, n->layers[0].x);
    for (int i = 0; i < n->c.n_layer; i++) {
        net_layer *l = &n->layers[i];
        layer_attention_norm(n, l, n_tokens);
        layer_attend(n, l, n_tokens, n_context);
        layer_project(n, l, n_tokens);
        layer_ffn_norm(n, l, n->prices ? n->prices + (size_t)i * (size_t)n->c.n_experts : NULL, n_tokens);
        layer_ffn(n, l, n_tokens, i + 1 < n->c.n_layer ? n->layers[i + 1].x : n->x_last);
    }
    norm_forward(&n->crew, &n->out_norm, n->x_last, n_tokens, n->normed_last);
}

/* ---- backward ---- */

static void watch(net *n, net_place place, const float *dy, int width)
{
    if (n->watch)
        n->watch(n->watch_ctx, place, dy, width);
}

void layer_ffn_back(net *n, net_layer *l, int64_t n_tokens)
{
    const crew *c = &n->crew;
    const size_t bytes = (size_t)n_tokens * (size_t)n->c.n_embd * sizeof(float);
    const float *dy = n->dx;
    if (n->c.post_norm) {
        memset(n->d_raw, 0, bytes);
        norm_backward(c, &l->ffn_post, l->ffn_raw, n->dx, n_tokens, n->d_raw);
        dy = n->d_raw;
    }
    watch(n, NET_DOWN, dy, n->c.n_embd);
    ffn_slots s = slots_of(n, l);
    ffn_backward(c, &l->f, &s, l->normed_ffn, dy, n->act, n->c.n_experts ? n->slot_y : n->dn, n->dshare);
    watch(n, NET_GATE, l->gate, l->f.gate.n_out);
    watch(n, NET_UP, l->up, l->f.up.n_out);
    if (n->c.n_experts) {
        memset(n->dn, 0, bytes);
        routing_back(c, &l->r, n->slot_y, n->dshare, n->c.n_embd, n_tokens, n->dn, n->dz);
        linear_backward(c, &l->router, l->normed_ffn, n->dz, n_tokens, n->dn, true);
    }
    norm_backward(c, &l->ffn_norm, l->x_ffn, n->dn, n_tokens, n->dx);
}

void layer_attention_back(net *n, net_layer *l, int64_t n_tokens)
{
    const crew *c = &n->crew;
    const net_config *s = &n->c;
    const float *dy = n->dx;
    float *dq = n->dq, *dk = n->dk;
    if (s->post_norm) {
        memset(n->dn, 0, (size_t)n_tokens * (size_t)s->n_embd * sizeof(float));
        norm_backward(c, &l->attn_post, l->attn_raw, n->dx, n_tokens, n->dn);
        dy = n->dn;
    }
    watch(n, NET_OUTPUT, dy, n->c.n_embd);
    linear_backward(c, &l->o, l->attended, dy, n_tokens, n->d_o, false);
    watch(n, NET_V, n->d_o, n_q(n));
    attention_shape shape = shape_of(n, n_tokens, s->n_context);
    attention_backward(c, &shape, l->q_out, l->k_out, l->v_out, n->d_o, n->dq, n->dk, n->dv);
    rope_rotate(c, n->dq, s->n_head, s->head_dim, n->cs_back, s->n_context, s->pairs, n_tokens);
    rope_rotate(c, n->dk, s->n_head_kv, s->head_dim, n->cs_back, s->n_context, s->pairs, n_tokens);
    if (s->qk_norm) { /* what attention read is not needed any more: its place takes the gradients */
        memset(l->q_out, 0, (size_t)n_tokens * (size_t)n_q(n) * sizeof(float));
        memset(l->k_out, 0, (size_t)n_tokens * (size_t)n_kv(n) * sizeof(float));
        norm_backward(c, &l->q_norm, l->q_raw, n->dq, n_tokens, l->q_out);
        norm_backward(c, &l->k_norm, l->k_raw, n->dk, n_tokens, l->k_out);
        dq = l->q_out;
        dk = l->k_out;
    }
    watch(n, NET_Q, dq, n_q(n));
    watch(n, NET_K, dk, n_kv(n));
    linear_backward(c, &l->q, l->normed, dq, n_tokens, n->dn, false);
    linear_backward(c, &l->k, l->normed, dk, n_tokens, n->dn, true);
    linear_backward(c, &l->v, l->normed, n->dv, n_tokens, n->dn, true);
    norm_backward(c, &l->attn_norm, l->x, n->dn, n_tokens, n->dx);
}

/* ---- the loss ---- */

/* Values of one layer's terms and their gradient in n->dz, which starts at zero. */
static dil_status router_terms(net *n, int layer, int n_sequences, const loss_config *config, loss_values *values, dil_error *err)
{
    net_layer *l = &n->layers[layer];
    memset(n->dz, 0, (size_t)n_sequences * (size_t)n->c.n_context * (size_t)n->c.n_experts * sizeof *n->dz);
    if (!config)
        return DIL_OK;
    DIL_TRY(loss_flock(l->router.w, n->c.n_experts, n->c.n_embd, l->flock, err));
    loss_input in = {n_sequences,
                     n->c.n_context,
                     n->c.n_experts,
                     n->c.n_used,
                     l->r.z,
                     l->r.chosen,
                     n->prices + (size_t)layer * (size_t)n->c.n_experts,
                     l->flock};
    loss_router(&in, config, 1.0f, n->dz, values, n->loss_scratch, n->crew.workers);
    return DIL_OK;
}

static void add_terms(net_result *out, const loss_values *v, const loss_config *c, double share)
{
    loss_values *sum = &out->router;
    sum->balance += v->balance * share;
    sum->cache += v->cache * share;
    sum->swarm += v->swarm * share;
    sum->nash += v->nash * share;
    sum->z += v->z * share;
    sum->entropy += v->entropy * share;
    sum->violation = v->violation > sum->violation ? v->violation : sum->violation;
    out->total += (double)c->balance * v->balance - (double)c->cache * v->cache - (double)c->swarm * v->swarm +
                  (double)c->nash * v->nash + (double)c->z * v->z;
}

static void split_tokens(net *n, const int32_t *tokens, int n_sequences, int n_context)
{
    const size_t context = (size_t)n_context;
    for (size_t s = 0; s < (size_t)n_sequences; s++) {
        const int32_t *from = tokens + s * (context + 1);
        memcpy(n->inputs + s * context, from, context * sizeof *from);
        memcpy(n->targets + s * context, from + 1, context * sizeof *from);
    }
}

static void measure_loads(const net *n, int64_t n_tokens, net_result *out)
{
    for (int i = 0; i < n->c.n_layer && n->c.n_experts; i++) {
        const routing *r = &n->layers[i].r;
        for (int e = 0; e < r->n_experts; e++)
            out->load[i][e] = (float)(r->first[e + 1] - r->first[e]) * (float)r->n_experts / (float)(n_tokens * r->n_used);
    }
}

dil_status net_train(net *n, const int32_t *tokens, int n_sequences, const net_loss *loss, net_result *out, dil_error *err)
{
    int64_t n_tokens = (int64_t)n_sequences * n->c.n_context;
    memset(out, 0, sizeof *out);
    split_tokens(n, tokens, n_sequences, n->c.n_context);
    net_forward(n, n_sequences, n->c.n_context);
    head_run(&n->crew, &(head_pass){.w = &n->head,
                                    .x = n->normed_last,
                                    .targets = n->targets,
                                    .n_tokens = n_tokens,
                                    .z_weight = loss->z_weight,
                                    .logits = n->logits,
                                    .nats = n->nats,
                                    .log_sum = n->log_sum,
                                    .dx = n->dn});
    for (int64_t t = 0; t < n_tokens; t++) {
        out->ce += (double)n->nats[t];
        out->z_loss += (double)n->log_sum[t] * (double)n->log_sum[t];
    }
    out->ce /= (double)n_tokens;
    out->z_loss /= (double)n_tokens;
    out->total = out->ce + (double)loss->z_weight * out->z_loss;
    measure_loads(n, n_tokens, out);
    if (!isfinite(out->total))
        return DIL_OK;
    memset(n->dx, 0, (size_t)n_tokens * (size_t)n->c.n_embd * sizeof *n->dx);
    norm_backward(&n->crew, &n->out_norm, n->x_last, n->dn, n_tokens, n->dx);
    for (int i = n->c.n_layer - 1; i >= 0; i--) {
        loss_values values;
        if (n->c.n_experts)
            DIL_TRY(router_terms(n, i, n_sequences, loss->router, &values, err));
        if (n->c.n_experts && loss->router)
            add_terms(out, &values, loss->router, 1.0 / n->c.n_layer);
        layer_ffn_back(n, &n->layers[i], n_tokens);
        layer_attention_back(n, &n->layers[i], n_tokens);
    }
    embed_backward(&n->crew, n->embedding->g, n->c.n_embd, n->c.embd_scale, n->inputs, n_tokens, n->dx);
    return DIL_OK;
}

void net_evaluate(net *n, const int32_t *tokens, int n_sequences, float *nats)
{
    int64_t n_tokens = (int64_t)n_sequences * n->c.n_context;
    split_tokens(n, tokens, n_sequences, n->c.n_context);
    net_forward(n, n_sequences, n->c.n_context);
    head_run(&n->crew, &(head_pass){.w = &n->head,
                                    .x = n->normed_last,
                                    .targets = n->targets,
                                    .n_tokens = n_tokens,
                                    .logits = n->logits,
                                    .nats = nats,
                                    .log_sum = n->log_sum});
}

void net_logits(net *n, const int32_t *tokens, int n_tokens, float *logits)
{
    memcpy(n->inputs, tokens, (size_t)n_tokens * sizeof *tokens);
    net_forward(n, 1, n_tokens);
    linear_forward(&n->crew, &n->head, n->normed_last, n_tokens, logits, false);
}
