/* The inside of a net: layers with what a pass keeps of them. Private to net*.c. */
#ifndef TRAIN_NET_INTERNAL_H
#define TRAIN_NET_INTERNAL_H

#include "train/layers.h"
#include "train/net.h"

/* Arrays of a pass are [n_tokens][width]; those that a shape does not need are NULL. */
typedef struct net_layer {
    norm attn_norm, q_norm, k_norm, attn_post, ffn_norm, ffn_post;
    weight q, k, v, o, router;
    ffn f;
    float *x, *normed;            /* input, after attn_norm */
    float *q_raw, *k_raw;         /* before q_norm and k_norm */
    float *q_out, *k_out, *v_out; /* as attention reads them */
    float *attended, *attn_raw;   /* output of attention; of its projection before attn_post */
    float *x_ffn, *normed_ffn;    /* after attention was added; after ffn_norm */
    float *gate, *up, *ffn_raw;   /* of the slots; output before ffn_post */
    routing r;
    float *flock; /* [n_experts][n_experts] */
} net_layer;

/* A watcher sees the gradients dy [n_tokens or slots][width] of the linear layers' outputs on the way back; for values those of what attention
 * made of them, [n_head * head_dim]. */
typedef void (*net_watch_fn)(void *ctx, net_place place, const float *dy, int width);

struct net {
    net_config c;
    net_compute compute;
    crew crew;
    int n_tokens; /* the most of a pass */
    int n_parameters;
    parameter *parameters;
    size_t size;
    float *values, *gradients, *prices;
    net_layer *layers;
    norm out_norm;
    weight head;
    parameter *embedding;
    uint32_t *prepared;
    size_t prepared_bytes;
    void *buffers; /* one region: everything of a pass */
    size_t buffers_bytes;
    float *cs, *cs_back; /* [n_context][head_dim / 2][2] */
    float *x_last, *normed_last;
    int32_t *inputs, *targets;
    float *logits, *nats, *log_sum;
    /* gradients on their way */
    float *dx, *dn, *dq, *dk, *dv, *d_o, *d_raw;
    float *slot_y, *act, *dshare, *dz;
    int32_t dense_first[2];
    uint8_t *loss_scratch;
    net_watch_fn watch; /* or NULL */
    void *watch_ctx;
};

/* Cosines and sines of all positions for n->c.rope_base. */
void net_rotations(net *n);

/* The stages of a layer, in order, for n_tokens in sequences of n_context. */
void layer_attention_norm(net *n, net_layer *l, int64_t n_tokens);               /* x -> normed */
void layer_attend(net *n, net_layer *l, int64_t n_tokens, int n_context);        /* normed -> attended */
void layer_project(net *n, net_layer *l, int64_t n_tokens);                      /* attended, x -> x_ffn */
void layer_ffn_norm(net *n, net_layer *l, const float *price, int64_t n_tokens); /* x_ffn -> normed_ffn, r */
void layer_ffn(net *n, net_layer *l, int64_t n_tokens, float *out);              /* normed_ffn, x_ffn -> out */

/* And back: n->dx, the gradient of what layer_ffn made, becomes that of x_ffn; then that of x. */
void layer_ffn_back(net *n, net_layer *l, int64_t n_tokens);
void layer_attention_back(net *n, net_layer *l, int64_t n_tokens);

/* The pass forward for n->inputs of n_sequences sequences of n_tokens: n->normed_last. */
void net_forward(net *n, int n_sequences, int n_tokens);

#endif
