/* The inside of a walk. Private to walk*.c. */
#ifndef QUANTIZE_WALK_INTERNAL_H
#define QUANTIZE_WALK_INTERNAL_H

#include "quantize/walk.h"
#include "train/net_internal.h"

#define BATCH_TOKENS 2048 /* about so many go through a layer at a time */

struct walk {
    const gguf *in;
    hparams h;
    net *n;
    int n_sequences, n_context, batch; /* sequences: all, of a batch */
    int layer;
    int32_t *tokens;
    float *x;        /* [n_tokens][n_embd]: the state, or what it is before the feed-forward network */
    float *attended; /* [n_tokens][n_head * head_dim] */
    float *weighted; /* inputs of a batch, times the roots of their weights */
    size_t weighted_bytes;
    float *heads; /* [n_head][tokens of a batch][n_embd]: what each head's values read, on the mean */
    size_t heads_bytes;
    int32_t *turns;     /* [tokens of a batch]: those whose values a head shows */
    size_t most_floats; /* walk_limit */
    walk_read_fn read;  /* NULL: the file's values */
    void *read_ctx;
    bool head_prepared;
    float price[NET_MAX_EXPERTS]; /* walk_without: what keeps an expert from being chosen */
    bool priced;
    float *squares, *counts;                 /* walk_count_squares */
    float *own_x, *own_attended, *own_x_ffn; /* buffers of the net, to be put back */
};

/* fn for all tokens in batches of whole sequences: l is the layer of the net, first counts in all tokens. */
typedef void (*walk_batch_fn)(walk *w, net_layer *l, int64_t first, int64_t n_tokens, void *ctx);
void walk_batches(walk *w, walk_batch_fn fn, void *ctx);
float *walk_state(const walk *w, int64_t token);
float *walk_attended(const walk *w, int64_t token);
/* The output matrix's prepared forms, which are large, take the place of its values for the way back; and the values theirs. */
void walk_head_prepare(walk *w);
DIL_MUST_CHECK dil_status walk_head_release(walk *w, dil_error *err);
/* Prices of the experts of the layer at hand, or NULL. */
const float *walk_price(const walk *w);
bool walk_of_layer(const parameter *p);
/* The tensor of a parameter of the net, which has one layer, for a layer of the file; NULL: there is none. */
const gguf_tensor *walk_tensor_of(const walk *w, const parameter *p, int layer);

/* The layer at hand: x [n_tokens][n_embd] -> out, another array. */
void walk_layer_forward(walk *w, float *x, int64_t n_tokens, float *out);
int64_t walk_head_tokens(const walk *w); /* whose logits are in memory at a time */

/* A batch forward and backward, with the states between layers. */
typedef struct walk_pass {
    walk *w;
    int64_t first, n; /* tokens, of whole sequences */
    int layer;        /* that goes back at present */
    float *states;    /* [n_layer + 1][n][n_embd] */
    size_t states_bytes;
} walk_pass;
typedef void (*walk_layer_fn)(void *ctx, int layer);
/* [owned: walk_pass_free] */
DIL_MUST_CHECK dil_status walk_pass_new(walk_pass *out, walk *w, int64_t first, int64_t n, dil_error *err);
void walk_pass_free(walk_pass *p);
/* From the walk's state to n->normed_last. */
DIL_MUST_CHECK dil_status walk_pass_forward(walk_pass *p, dil_error *err);
/* From n->dn, the gradient of n->normed_last, to n->dx, that of the state; done (or NULL) is called after each layer. */
DIL_MUST_CHECK dil_status walk_pass_back(walk_pass *p, walk_layer_fn done, void *ctx, dil_error *err);
/* h [width][width] += x^T x of n rows, which are pitch values apart: its upper triangle; walk_mirror makes the lower one the same. */
void walk_add_outer(const walk *w, const float *x, int64_t n, size_t pitch, int width, float *h);
void walk_mirror(float *h, int width);

#endif
