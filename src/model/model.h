/*
 * A model: hyper-parameters, vocabulary, and the file's tensors bound to the roles they play, packed for the kernels.
 * Read-only after model_open; may be shared by threads.
 */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include "base/mem.h"
#include "base/threads.h"
#include "model/hparams.h"
#include "tokens/vocab.h"

/* A matrix [rows][cols], or a run of rows of a fused one; rows == 0: absent. */
typedef struct weight {
    const gguf_tensor *tensor;
    uint64_t first_row; /* in the tensor */
    uint32_t rows, cols;
    dil_type type;
    const uint8_t *panels; /* packed; NULL until packed */
    size_t panel_bytes;
    size_t packed_offset; /* of the panels in the model's region */
    int n_panels;
} weight;

typedef struct expert_weights {
    weight gate, up, down; /* one after the other in the packed region, from a multiple of EXPERT_ALIGN on */
} expert_weights;

/* What a layer with experts has besides; its shared expert, if any, takes the place of the feed-forward network of a dense one. */
typedef struct expert_layer {
    weight router;                                /* [n_experts][n_embd] */
    const float *router_bias, *choice_bias;       /* [n_experts] or NULL: added to scores; to probabilities, only to choose */
    const float *shared_gate;                     /* [n_embd] or NULL */
    const float *gate_bias, *up_bias, *down_bias; /* [n_experts][rows] or NULL */
    expert_weights *experts;                      /* [n_experts], all of the same types and sizes */
} expert_layer;

/* Attention through latents. Queries: q, or q_b of the normed q_a; kv_a makes the latent and the rotated part of all keys. */
typedef struct latent_layer {
    weight q_a, q_b, kv_a;
    weight kv_b; /* latent -> [n_head][n_plain + n_value]: keys and values; or, where latents are cached: */
    weight *k_b,
        *v_b; /* [n_head]: [kv_rank][n_plain], queries to what meets a latent; [n_value][kv_rank], mixed latents to values */
    const float *q_a_norm, *kv_a_norm; /* [q_rank], [kv_rank] */
} latent_layer;

#define EXPERT_ALIGN 4096 /* so that a file can be read past the page cache */

typedef struct layer_weights {
    weight q, k, v, o, gate, up, down;
    expert_layer *moe;                                                  /* NULL: dense */
    latent_layer *latent;                                               /* NULL: keys and values by k and v */
    const float *sinks;                                                 /* [n_head] or NULL */
    const float *attn_norm, *attn_post_norm, *ffn_norm, *ffn_post_norm; /* [n_embd] or NULL */
    const float *q_norm, *k_norm;                                       /* [head_dim] or [n_head(_kv) * head_dim] or NULL */
    const float *q_bias, *k_bias, *v_bias, *o_bias, *gate_bias, *up_bias, *down_bias; /* or NULL */
} layer_weights;

/* What became of the cache of packed weights. */
typedef enum pack_cache_state {
    PACK_CACHE_OFF,     /* switched off, or too little to be worth a file */
    PACK_CACHE_READ,    /* the weights were found in it */
    PACK_CACHE_WRITTEN, /* the weights were packed into it */
    PACK_CACHE_FAILED   /* packed into memory: it could not be written */
} pack_cache_state;

typedef struct model {
    hparams h;
    gguf *file; /* stays open: metadata strings and the embedding rows of untied models are read from it */
    vocab *words;
    str chat_template;     /* empty when the file has none */
    arena *memory;         /* small tensors as f32, the layer array */
    layer_weights *layers; /* [n_layer] */
    weight embd, head;     /* head == embd's panels when tied */
    weight **packing; /* [n_packing]: all that are packed, in the order of the region: as tokens meet them, the head, the experts */
    size_t n_packing;
    size_t dense_bytes; /* of the region, before the first expert_weights */
    bool tied;
    const float *output_norm, *head_bias;
    const float *rope_freqs, *rope_long, *rope_short; /* [n_rot / 2] or NULL */
    const uint8_t *packed;                            /* one region for all panels: memory of ours, or mapped from the cache file */
    size_t packed_bytes;
    size_t resident_bytes; /* of the region that are in memory: all, or the dense part (experts_apart) */
    os_mapping cache;      /* the mapping, when packed is one */
    os_file cache_file;    /* open and locked while it is in use: others leave it alone; fd -1 otherwise */
    const char *cache_path;
    const uint64_t *expert_sums; /* [n_expert_sums]: XXH3 of the experts in the cache file, layer by layer; NULL when not in use */
    size_t n_expert_sums;        /* experts of all layers */
    pack_cache_state cache_state;
    dil_error cache_note; /* why nothing could be kept (PACK_CACHE_FAILED) */
} model;

typedef struct model_options {
    team *workers;             /* [borrowed] packs in parallel */
    bool header_only;          /* bind and size everything, pack nothing (plan) */
    bool no_vocab;             /* skip the vocabulary (plan, bench on files without one) */
    bool experts_apart;        /* experts stay in the cache file: their panels are NULL, see model_expert_place */
    bool no_pack_cache;        /* neither read nor write packed weights on disk */
    uint64_t pack_cache_least; /* bytes of packed weights below which no file is made; 0: 8 MiB */
    uint64_t
        pack_cache_most; /* bytes all cache files together may take; 0: 32 GiB or a quarter of the free disk, if that is less */
    dil_progress_fn progress;
    void *user;
} model_options;

/* [owned: free with model_close] */
DIL_MUST_CHECK dil_status model_open(model **out, const char *path, const model_options *options, dil_error *err);
void model_close(model *m);

/* Row `id` of the token embedding as f32 [n_embd], before embd_scale. IO: the file was truncated since it was opened. */
DIL_MUST_CHECK dil_status model_embed(const model *m, token_id id, float *dst, dil_error *err);
/* Whether packed weights that were used meanwhile could not be read (the cache file was truncated, its disk failed): asked after
 * each pass over them. */
bool model_lost(const model *m);
/* Where the experts of a layer lie in m->cache_path: expert x from offset + x * stride on, gate, up and down one after the other.
 * Offset and stride are multiples of EXPERT_ALIGN. Zeros for a dense layer. */
typedef struct expert_place {
    uint64_t offset, stride;
    size_t bytes;         /* of one */
    const uint64_t *sums; /* [n_experts], or NULL */
} expert_place;
expert_place model_expert_place(const model *m, uint32_t layer_index);
/* The same weight of an expert that was read to `base`. */
static inline weight expert_weight_at(const expert_weights *x, const weight *w, const uint8_t *base)
{
    weight at = *w;
    at.panels = base + (w->packed_offset - x->gate.packed_offset);
    return at;
}
/* Parameters and bytes of all tensors, for people. */
uint64_t model_n_params(const model *m);

#endif
