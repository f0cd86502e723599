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
    size_t most_floats; /* walk_limit */
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
/* h [width][width] += x^T x of n rows, which are pitch values apart. */
void walk_add_outer(const walk *w, const float *x, int64_t n, size_t pitch, int width, float *h);

#endif
