/* Hyper-parameters: what a file says about its network, checked, in one struct that the compute plan is made from. */
#ifndef MODEL_HPARAMS_H
#define MODEL_HPARAMS_H

#include "dilmodeli.h"
#include "file/gguf.h"
#include "kernels/kernels.h"

#define MODEL_MAX_LAYERS 512
#define MODEL_MAX_HEAD_DIM 1024

typedef enum activation { ACTIVATION_SILU, ACTIVATION_GELU } activation;

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

typedef struct hparams {
    str architecture;            /* general.architecture */
    uint32_t n_vocab, n_context; /* n_context: what the model was trained for */
    uint32_t n_embd, n_layer, n_ff;
    uint32_t n_head, n_head_kv, head_dim, n_rot;
    float norm_eps;
    activation act;
    qk_norm qk;
    bool pre_norm, post_norm; /* RMS norm before each sub-layer; on its output before the residual add */
    rope_pairs pairs;
    rope_params rope[2]; /* [0] all layers, [1] windowed layers */
    uint32_t window;     /* tokens a windowed layer sees (itself included); 0: no windows */
    bool windowed[MODEL_MAX_LAYERS];
    float attn_scale;                              /* multiplies q.k */
    float attn_softcap, logit_softcap;             /* 0: none */
    float embd_scale, residual_scale, logit_scale; /* 1: none */
} hparams;

/* Reads and checks the keys of any known architecture; UNSUPPORTED names an unknown one and lists the known. */
DIL_MUST_CHECK dil_status hparams_read(hparams *out, const gguf *g, dil_error *err);

#endif
