/*
 * The network that is trained: shapes, parameters with their gradients, one forward and backward pass over a batch. Owns the
 * parameters and every buffer of a pass; the layers themselves are in layers.h, the terms of the loss in loss.h, what is done
 * with the gradients in optimiser.h.
 *
 * The shape is that of qwen3moe (softmax over the scores of all experts, weights of the chosen normalised) or, without experts,
 * of qwen3, llama, and gemma3: see net_config. Names and shapes of parameters are those of GGUF.
 */
#ifndef TRAIN_NET_H
#define TRAIN_NET_H

#include "base/threads.h"
#include "dilmodeli.h"
#include "kernels/kernels.h"
#include "train/loss.h"

#define NET_MAX_TOKENS (1 << 20) /* of a pass */
#define NET_MAX_CONTEXT (1 << 16)
#define NET_MAX_EMBD (1 << 14)
#define NET_MAX_HEADS (1 << 10)
#define NET_MAX_HEAD_DIM (1 << 10)
#define NET_MAX_FF (1 << 16)
#define NET_MAX_LAYERS 64
#define NET_MAX_EXPERTS 256
#define NET_MAX_USED 8

typedef enum net_activation { NET_SWIGLU, NET_GEGLU } net_activation;

typedef struct net_config {
    int n_vocab;
    int n_context; /* tokens of a training sequence, and the context length written to files */
    int n_embd, n_layer, n_head, n_head_kv, head_dim;
    int n_ff;              /* width of a dense feed-forward network; 0 when n_experts > 0 */
    int n_experts, n_used; /* per layer; per token. 0, 0: dense */
    int n_ff_expert;       /* width of an expert */
    net_activation activation;
    bool qk_norm; /* RMS norm on each head of queries and keys */
    bool qkv_bias;
    bool post_norm; /* RMS norm on the output of each sub-layer, before it is added */
    bool tied;      /* the output matrix is the embedding's */
    rope_pairs pairs;
    float rope_base, norm_eps;
    float embd_scale; /* 1: none; Gemma: sqrt(n_embd) */
} net_config;

/* Sizes agree with each other and lie within the limits; BAD_ARGUMENT names the one that does not by its key in a run's config. */
DIL_MUST_CHECK dil_status net_config_check(const net_config *c, dil_error *err);

/* What a parameter is, for the optimiser and for export. */
typedef enum parameter_kind {
    PARAMETER_MATRIX,    /* [rows][columns]: y = W x */
    PARAMETER_EXPERTS,   /* [n][rows][columns], a matrix per expert */
    PARAMETER_EMBEDDING, /* [n_vocab][n_embd] */
    PARAMETER_ROUTER,    /* [n_experts][n_embd], stays F32 in files */
    PARAMETER_VECTOR     /* norms and biases: F32 in files, no weight decay */
} parameter_kind;

/* The linear layers of a layer. */
typedef enum net_place { NET_Q, NET_K, NET_V, NET_OUTPUT, NET_GATE, NET_UP, NET_DOWN, NET_PLACES } net_place;

typedef struct parameter {
    char name[64]; /* "blk.0.attn_q.weight" */
    parameter_kind kind;
    int n, rows, columns; /* n matrices of rows x columns; n 1 but for experts; a vector is 1 x columns */
    size_t count;         /* n * rows * columns */
    float *w, *g;         /* [n][rows][columns]: value, gradient; borrowed from the net */
} parameter;

typedef struct net net;

/* How products are computed: F32, or operands rounded to bf16 and summed in F32 where the CPU has that instruction. */
typedef enum net_compute { NET_COMPUTE_AUTO, NET_COMPUTE_F32, NET_COMPUTE_BF16 } net_compute;

/* UNSUPPORTED: BF16 without the instruction. */
DIL_MUST_CHECK dil_status net_compute_check(net_compute compute, const kernels *k, dil_error *err);

/*
 * workers and k are borrowed. n_tokens: the most of a batch, a multiple of n_context. Weights are zero until net_initialise.
 * [owned: free with net_free]
 */
DIL_MUST_CHECK dil_status net_new(net **out, const net_config *c, net_compute compute, int n_tokens, team *workers,
                                  const kernels *k, dil_error *err);
void net_free(net *n);
const net_config *net_config_of(const net *n);
net_compute net_compute_of(const net *n); /* never AUTO */
int net_n_parameters(const net *n);
parameter *net_parameter_at(net *n, int i);
size_t net_size(const net *n);   /* values of all parameters together */
float *net_values(net *n);       /* [net_size]: all of them, in the order of net_parameter_at, without gaps */
float *net_gradients(net *n);    /* [net_size] */
size_t net_active(const net *n); /* values that take part in a token: all but the experts it does not use, embedding once */
double net_flops(const net *n);  /* floating point operations of a training step per token, as usually counted: 6 * net_active */
float *net_prices(net *n);       /* [n_layer][n_experts]: prices of experts in the choice; NULL without experts */

/* Values drawn for seed: normal, deviation 0.02 (output projections divided by sqrt(2 n_layer)), norms 1, biases 0. */
void net_initialise(net *n, uint64_t seed);

/* What a pass found. Means per token unless said otherwise. */
typedef struct net_result {
    double ce;                                   /* cross-entropy, nats per token */
    double z_loss;                               /* mean squared log of the partition sum of the output */
    double total;                                /* ce and every weighted term; those of the router summed over the layers */
    loss_values router;                          /* means over the layers; violation: the worst */
    float load[NET_MAX_LAYERS][NET_MAX_EXPERTS]; /* tokens * n_used / n_experts = 1: how often an expert was chosen */
} net_result;

/*
 * One pass over n_sequences of n_context tokens. tokens [n_sequences][n_context + 1]: inputs and, shifted by one, targets.
 * Gradients of the whole loss are added to those there are (net_clear_gradients first). router NULL: cross-entropy and z_loss
 * only. Equal bits for any number of workers. A total that is not finite ends the pass before its gradients. Fails where router rows are not finite.
 */
typedef struct net_loss {
    float z_weight;            /* of the output's z_loss */
    const loss_config *router; /* weights of the terms as they are in this step; NULL: none */
} net_loss;
void net_clear_gradients(net *n);
DIL_MUST_CHECK dil_status net_train(net *n, const int32_t *tokens, int n_sequences, const net_loss *loss, net_result *out,
                                    dil_error *err);

/* Forward only. nats [n_sequences * n_context]: minus log probability of each target. */
void net_evaluate(net *n, const int32_t *tokens, int n_sequences, float *nats);

/* Logits of one sequence of n tokens (<= n_context), [n][n_vocab]. */
void net_logits(net *n, const int32_t *tokens, int n_tokens, float *logits);

/* After parameters were written to (optimiser, checkpoint): the prepared forms of the matrices are made again. */
void net_refresh(net *n);

/* The router of a layer, whose rows are the experts'; NULL for a dense net. */
const parameter *net_router(net *n, int layer);
/* Choices of the last pass: [n_tokens][n_used] expert numbers, best first; NULL for a dense net. */
const int16_t *net_choices(const net *n, int layer);
/* Scores of the last pass: [n_tokens][n_experts]. */
const float *net_scores(const net *n, int layer);

#endif
