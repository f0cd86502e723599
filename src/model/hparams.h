/* Hyper-parameters: what a file says about its network, checked, in one struct that the compute plan is made from. */
#ifndef MODEL_HPARAMS_H
#define MODEL_HPARAMS_H

#include "dilmodeli.h"
#include "file/gguf.h"
#include "kernels/kernels.h"

#define MODEL_MAX_LAYERS 512
#define MODEL_MAX_HEAD_DIM 1024

#define MODEL_MAX_EXPERTS 1024
#define MODEL_LONE_LAYER "dil-experts" /* general.architecture of a layer of experts without a network around it */

/* SWIGLU_OAI: gate clipped at 7 from above, up to [-7, 7]: gate * sigmoid(1.702 gate) * (up + 1). */
typedef enum activation { ACTIVATION_SILU, ACTIVATION_GELU, ACTIVATION_SWIGLU_OAI } activation;

/* Normalisation of queries and keys: none, each head on its own, or the whole projection at once (OLMo 2). */
typedef enum qk_norm { QK_NORM_NONE, QK_NORM_HEAD, QK_NORM_FULL } qk_norm;

/* One way to rotate positions; models with sliding windows have a second one for the windowed layers. */
typedef struct rope_params {
    float base;          /* theta of the lowest pair */
    float scale;         /* positions are multiplied by this (1 / factor) */
    float extrapolation; /* 0: none; 1: YaRN's mix of interpolated and extrapolated angles */
    float magnitude;     /* multiplies cosine and sine */
    float beta_fast, beta_slow;
    uint32_t original_context;
    bool use_factors; /* divide the frequencies by the file's rope_freqs / rope_factors */
} rope_params;

/* How scores of experts become weights: probabilities over all, each on its own, or over those that were chosen. */
typedef enum expert_gating { GATING_SOFTMAX, GATING_SIGMOID, GATING_SOFTMAX_CHOSEN } expert_gating;

/* Mixture of experts; n_experts 0: dense. */
typedef struct expert_params {
    uint32_t n_experts, n_used;       /* of a layer; per token */
    uint32_t n_ff, n_ff_shared;       /* width of an expert; of the shared one all tokens take, 0: none */
    uint32_t n_groups, n_groups_used; /* experts are chosen within the best groups only; 1 and 1: everywhere */
    uint32_t n_dense_lead, period;    /* the first layers are dense, of the others each period-th has experts */
    expert_gating gating;
    bool normalise;   /* the weights of the chosen add up to scale */
    bool shared_gate; /* the shared expert is weighted by a sigmoid of its own */
    float scale;      /* of all weights */
} expert_params;

/* Keys and values of a token come from one short vector, its latent (multi-head latent attention); kv_rank 0: they do not. */
typedef struct latent_params {
    uint32_t kv_rank, q_rank; /* width of the latent; of compressed queries, 0: not compressed */
    uint32_t n_plain;         /* values of a query's head before its n_rot rotated ones */
    uint32_t n_value;         /* values of a head that the output projection reads */
    bool absorbed;            /* latents are cached as they are: one key and value head for all queries, widened to meet it */
} latent_params;

typedef struct hparams {
    str architecture;            /* general.architecture */
    bool lone;                   /* a layer of experts and nothing else: rows in, rows out; no vocabulary, no attention */
    uint32_t n_vocab, n_context; /* n_context: what the model was trained for */
    uint32_t n_embd, n_layer, n_ff;
    uint32_t n_head, n_head_kv, n_rot;
    uint32_t head_dim, head_dim_v; /* of queries and keys; of values: as they are cached */
    latent_params latent;
    float norm_eps;
    activation act;
    qk_norm qk;
    bool pre_norm, post_norm; /* RMS norm before each sub-layer; on its output before the residual add */
    const char *ffn_norm;     /* role of the tensor of the norm before the feed-forward network */
    rope_pairs pairs;
    rope_params rope[2]; /* [0] all layers, [1] windowed layers */
    uint32_t window;     /* tokens a windowed layer sees (itself included); 0: no windows */
    bool windowed[MODEL_MAX_LAYERS];
    expert_params experts;
    bool sinks;                        /* a learnt score per head joins every softmax of attention and takes its share of nothing */
    float attn_scale;                  /* multiplies q.k */
    float attn_softcap, logit_softcap; /* 0: none */
    float embd_scale, residual_scale, logit_scale; /* 1: none */
} hparams;

static inline bool layer_has_experts(const hparams *h, uint32_t i)
{
    return h->experts.n_experts > 0 && i >= h->experts.n_dense_lead && (i + 1) % h->experts.period == 0;
}

/* Reads and checks the keys of any known architecture; UNSUPPORTED names an unknown one and lists the known. */
DIL_MUST_CHECK dil_status hparams_read(hparams *out, const gguf *g, dil_error *err);

#endif
