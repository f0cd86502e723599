/*
 * The layers, forward and backward side by side. Functions of arrays: they own nothing and know nothing of the network around
 * them. Arrays are [n_tokens][width] unless said otherwise. Gradients of parameters are added to those there are. Work is divided in pieces whose
 * borders do not depend on the number of workers, and every sum has one order: results are equal bits for any of them.
 */
#ifndef TRAIN_LAYERS_H
#define TRAIN_LAYERS_H

#include "base/threads.h"
#include "train/net.h"
#include "train/product.h"

/* Who computes: the workers, the kernels, and memory for what lies between. */
typedef struct crew {
    team *workers;
    product_kind kind;
    uint32_t *scratch; /* [workers][scratch_words] */
    size_t scratch_words;
    float *partial; /* sums per block of tokens on their way into gradients of vectors: [crew_blocks][width] */
} crew;

static inline uint32_t *crew_scratch(const crew *c, int worker) { return c->scratch + (size_t)worker * c->scratch_words; }
static inline int64_t crew_blocks(int64_t n) { return (n + BLOCK_TOKENS - 1) / BLOCK_TOKENS; }

/* fn(ctx, item, worker) for every item of 0 .. n_items, on all workers. */
typedef void (*crew_fn)(void *ctx, int64_t item, int worker);
void crew_items(const crew *c, int64_t n_items, crew_fn fn, void *ctx);
/* fn(ctx, first, n, worker) for blocks of BLOCK_TOKENS of n_tokens. */
typedef void (*crew_block_fn)(void *ctx, int64_t first, int n, int worker);
void crew_tokens(const crew *c, int64_t n_tokens, crew_block_fn fn, void *ctx);

/* A matrix, or one per expert, with its forms for products. */
typedef struct weight {
    float *w, *g;      /* [n][n_out][n_in] */
    const float *bias; /* [n_out] or NULL */
    float *bias_g;
    int n, n_out, n_in;
    product_kind kind;
    uint32_t *forward, *backward; /* [n] prepared operands each */
} weight;
size_t weight_forward_words(const weight *w); /* of one matrix */
size_t weight_backward_words(const weight *w);
/* Makes the prepared forms again. */
void weight_prepare(const crew *c, const weight *const *weights, int n_weights);
/* Rows first .. first + n - 1 of a single matrix, by one worker; first is a multiple of PRODUCT_COLS. */
void weight_prepare_rows(const crew *c, const weight *w, int first, int n, int worker);

/* y (+)= W x + bias */
void linear_forward(const crew *c, const weight *w, const float *x, int64_t n_tokens, float *y, bool add);
/* dx (+)= W^T dy (dx NULL: not wanted), W's gradient += dy^T x (w->g NULL: not wanted) */
void linear_backward(const crew *c, const weight *w, const float *x, const float *dy, int64_t n_tokens, float *dx, bool add);

/* RMS norm of rows of n values; per_token of them make a token (heads). dx is added to. */
typedef struct norm {
    const float *w;
    float *g;
    float eps;
    int n, per_token;
} norm;
void norm_forward(const crew *c, const norm *m, const float *x, int64_t n_tokens, float *y);
void norm_backward(const crew *c, const norm *m, const float *x, const float *dy, int64_t n_tokens, float *dx);

/* Rotates n_head heads of each token in place; token t stands at position t % n_context. cs: [n_context][head_dim / 2][2]; backward
 * is the rotation by the table with the sines negated. */
void rope_rotate(const crew *c, float *x, int n_head, int head_dim, const float *cs, int n_context, rope_pairs pairs,
                 int64_t n_tokens);

/* Causal attention within sequences of n_tokens. q [n_sequences * n_tokens][n_head * head_dim], k and v [..][n_head_kv * head_dim]. */
typedef struct attention_shape {
    int n_sequences, n_tokens, n_head, n_head_kv, head_dim;
} attention_shape;
size_t attention_scratch_words(const attention_shape *s);
void attention_forward(const crew *c, const attention_shape *s, const float *q, const float *k, const float *v, float *o);
void attention_backward(const crew *c, const attention_shape *s, const float *q, const float *k, const float *v, const float *d_o,
                        float *dq, float *dk, float *dv);

/*
 * Gated feed-forward networks, one per group: y = down(act(gate x) * up x). Slots are rows in the order of groups: group g has
 * slots first[g] .. first[g + 1]; x says which token a slot reads. A dense network is one group with every token.
 */
typedef struct ffn {
    weight gate, up, down;
    net_activation activation;
    int n_groups;
} ffn;
typedef struct ffn_slots {
    const int32_t *first; /* [n_groups + 1] */
    const int32_t *token; /* [slots] or NULL: slot i is token i */
    const float *scale;   /* [slots]: weight of the slot's output in its token's; NULL: 1 */
    float *gate, *up;     /* [slots][n_ff]: kept by forward; backward leaves their gradients there */
} ffn_slots;
size_t ffn_scratch_words(const ffn *f);
/* y [slots][n_embd], not weighted */
void ffn_forward(const crew *c, const ffn *f, const ffn_slots *s, const float *x, float *y);
/* dy [n_tokens][n_embd]; activated [slots][n_ff]: buffer; dx [slots][n_embd]; dscale [slots] (NULL with scale) */
void ffn_backward(const crew *c, const ffn *f, const ffn_slots *s, const float *x, const float *dy, float *activated, float *dx,
                  float *dscale);

/* Choice of experts from scores, the order of slots, and the way back. */
typedef struct routing {
    int n_experts, n_used;
    float *z;          /* [n_tokens][n_experts] */
    int16_t *chosen;   /* [n_tokens][n_used], best first */
    float *share;      /* [n_tokens][n_used]: softmax of z over the chosen */
    int32_t *slot;     /* [n_tokens][n_used]: where the choice stands */
    int32_t *token;    /* [slots] */
    float *slot_share; /* [slots] */
    int32_t *first;    /* [n_experts + 1] */
} routing;
/* From z and prices [n_experts] (NULL: none): chosen by z - price, ties to the lowest number; everything else of r. */
void routing_choose(const crew *c, routing *r, const float *price, int64_t n_tokens);
/* y[t] += sum over the chosen, best first, of share * slots' y. */
void routing_combine(const crew *c, const routing *r, const float *slot_y, int n_embd, int64_t n_tokens, float *y);
/* dx[t] += sum of slots' dx;  dz[t] += gradient through the shares, dshare [slots] */
void routing_back(const crew *c, const routing *r, const float *slot_dx, const float *dshare, int n_embd, int64_t n_tokens,
                  float *dx, float *dz);

/* x[t] = scale * E[token t] */
void embed_forward(const crew *c, const float *table, int n_embd, float scale, const int32_t *tokens, int64_t n_tokens, float *x);
void embed_backward(const crew *c, float *table_g, int n_embd, float scale, const int32_t *tokens, int64_t n_tokens,
                    const float *dx);

/* Another model's answers to the same tokens. */
typedef struct head_teacher {
    const weight *w; /* its output matrix, prepared, [n_vocab][its n_in] */
    const float *x;  /* [n_tokens][its n_in] */
    float *logits;   /* buffer [workers * BLOCK_TOKENS][n_vocab] */
} head_teacher;

/*
 * Output matrix and cross-entropy. nats and log_sum [n_tokens]: minus log probability of the target, log of the partition sum.
 * With dx: gradients of (sum of nats + z_weight * sum of log_sum^2) / n_tokens. logits: buffer [n_tokens][n_vocab] with dx, else
 * [workers * BLOCK_TOKENS][n_vocab]. With a teacher, nats are divergences from its probabilities, KL(teacher || these), and gradients those
 * of their sum.
 */
typedef struct head_pass {
    const weight *w;
    const float *x;
    const int32_t *targets; /* unless there is a teacher */
    const head_teacher *teacher;
    int64_t n_tokens;
    float z_weight;
    float *logits, *nats, *log_sum;
    float *dx;
    uint64_t
        draw_seed; /* with dx, not 0: instead, gradients of random directions of the logits, whose mean square is the curvature of the
                           divergence from the probabilities found; token t has the number draw_first + t */
    int64_t draw_first;
} head_pass;
void head_run(const crew *c, const head_pass *h);

#endif
