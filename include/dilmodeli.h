/*
 * DilModeli: language models on ordinary CPUs.
 *
 * This is the only public header. It is plain C, without macros in signatures, so that bindings can be generated from it.
 *
 * Ownership words: [borrowed] the callee keeps the object; [owned: free with X] the caller must free it; [out] written by
 * the call, untouched on failure. Objects may be used by one thread at a time unless said otherwise.
 */
#ifndef DILMODELI_H
#define DILMODELI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DIL_VERSION "0.1.0"
#define DIL_ABI 1

#if defined(__GNUC__)
#define DIL_API __attribute__((visibility("default")))
#define DIL_MUST_CHECK __attribute__((warn_unused_result))
#else
#define DIL_API
#define DIL_MUST_CHECK
#endif

/* What a call came to. Every fallible call returns one. */
typedef enum dil_status {
    DIL_OK = 0,
    DIL_NO_MEMORY,    /* an allocation failed or a memory budget would be exceeded */
    DIL_IO,           /* the operating system refused to read or write */
    DIL_FORMAT,       /* a file or text is malformed */
    DIL_UNSUPPORTED,  /* well-formed, but not something this build can do */
    DIL_BAD_ARGUMENT, /* the caller's mistake */
    DIL_LIMIT,        /* a stated limit (context, tensor count, string length) is exceeded */
    DIL_BUSY,         /* the object is in use; try again */
    DIL_CANCELLED,    /* a progress callback asked to stop */
    DIL_INTERNAL      /* a defect of DilModeli */
} dil_status;

/* Caller-owned description of a failure; the text names the object, what was wanted, what was found, and a hint. */
typedef struct dil_error {
    dil_status code;
    char text[500];
} dil_error;

/* Called during long work. done of total (total 0: unknown) units, named by what. Returns false to cancel. */
typedef bool (*dil_progress_fn)(void *user, const char *what, uint64_t done, uint64_t total);

/* Version text of the library in use, e.g. "0.1.0" [static], and its ABI number (DIL_ABI of its header). */
DIL_API const char *dil_version(void);
DIL_API uint32_t dil_abi(void);
/* "out of memory", ... [static]. */
DIL_API const char *dil_status_name(dil_status status);

/* ---- engine: a loaded model, its threads and its KV cache; one caller at a time ---- */

typedef struct dil_engine dil_engine;
typedef struct dil_session dil_session;

typedef struct dil_engine_options {
    uint32_t struct_size;  /* sizeof(dil_engine_options), set by dil_engine_options_default */
    int32_t n_threads;     /* 0: one per physical core */
    int32_t n_context;     /* tokens per session; 0: the model's, at most 4096 */
    int32_t n_sessions;    /* full contexts the KV cache has room for; 0: 1 */
    int32_t n_micro_batch; /* tokens per pass over the weights; 0: 512 */
    uint64_t memory_bytes; /* refuse to take more than this; 0: no limit */
    const char *kv_type;   /* "f16" (default), "f32", "bf16", "q8_0", "q4_0"; NULL: default [borrowed during the call] */
    const char *cpu_level; /* "auto" (default), "scalar", "avx2", "avx512", "avx512_bf16"; NULL: auto [borrowed during the call] */
    dil_progress_fn progress; /* may be NULL */
    void *user;
    bool no_pack_cache;      /* true: packed weights are neither read from $XDG_CACHE_HOME/dilmodeli nor kept there */
    bool route_local;        /* true: experts are chosen from a part of the router's bytes; the same experts, bit for bit */
    uint64_t experts_memory; /* most bytes of experts in memory, the rest stays on disk, same answers; 0: all in memory */
    float route_mass;        /* up to this share of a token's weights may go to experts that are in memory, 0..1; 0: exact */
} dil_engine_options;

#define DIL_EXPERTS_AUTO UINT64_MAX /* for experts_memory: what can be spared; all in memory where they fit */

DIL_API dil_engine_options dil_engine_options_default(void);

/* Loads a GGUF file. options NULL: defaults. Errors: IO, FORMAT (names the byte offset, key or tensor), UNSUPPORTED,
 * NO_MEMORY, BAD_ARGUMENT, CANCELLED. [out: owned: free with dil_engine_close] */
DIL_API DIL_MUST_CHECK dil_status dil_engine_open(dil_engine **out, const char *path, const dil_engine_options *options,
                                                  dil_error *err);
/* Frees the engine; its sessions must be freed before. NULL is allowed. */
DIL_API void dil_engine_close(dil_engine *e);

typedef struct dil_model_info {
    uint32_t struct_size; /* set by the caller to sizeof(dil_model_info) */
    char architecture[64];
    uint64_t n_params, file_bytes, packed_bytes, kv_bytes;
    int32_t n_vocab, n_embd, n_layer, n_head, n_head_kv, n_ff, n_context_trained, n_context, n_threads;
    char pack_cache[12];               /* packed weights on disk: "off", "read", "written", "failed" (could not be kept) */
    int32_t n_experts, n_experts_used; /* of a layer; of them per token; 0: dense */
    uint64_t experts_memory;           /* the budget they share; 0: all are in memory */
} dil_model_info;

DIL_API DIL_MUST_CHECK dil_status dil_engine_info(const dil_engine *e, dil_model_info *out, dil_error *err);

/* ---- text and tokens ---- */

/* Writes at most max_tokens ids and the number there would be to *n; LIMIT when they do not fit (nothing is written then but
 * *n). add_special: BOS/EOS as the model wants; parse_special: "<|im_start|>" and the like become their ids. */
DIL_API DIL_MUST_CHECK dil_status dil_tokenize(const dil_engine *e, const char *text, size_t text_bytes, bool add_special,
                                               bool parse_special, int32_t *tokens, size_t max_tokens, size_t *n, dil_error *err);
/* The bytes of a token sequence, not NUL-terminated; *n as above. */
DIL_API DIL_MUST_CHECK dil_status dil_detokenize(const dil_engine *e, const int32_t *tokens, size_t n_tokens, bool special,
                                                 char *text, size_t max_bytes, size_t *n, dil_error *err);
/* Whether this token ends a generation. */
DIL_API bool dil_token_is_end(const dil_engine *e, int32_t token);

typedef struct dil_message {
    const char *role; /* "system", "user", "assistant" */
    const char *content;
} dil_message;

/* Renders a conversation by the model's chat template and opens the assistant's turn; *n as in dil_tokenize. */
DIL_API DIL_MUST_CHECK dil_status dil_apply_template(const dil_engine *e, const dil_message *messages, size_t n_messages,
                                                     char *text, size_t max_bytes, size_t *n, dil_error *err);

/* ---- sessions: one timeline of tokens each ---- */

/* [out: owned: free with dil_session_free] */
DIL_API DIL_MUST_CHECK dil_status dil_session_new(dil_session **out, dil_engine *e, dil_error *err);
DIL_API void dil_session_free(dil_session *s);

/* Makes the session hold exactly these tokens; what it (or another session) already computed is reused. *logits: [n_vocab] after
 * the last token, borrowed until the engine runs again. LIMIT: more tokens than the context. */
DIL_API DIL_MUST_CHECK dil_status dil_session_sync(dil_session *s, const int32_t *tokens, size_t n_tokens, const float **logits,
                                                   dil_error *err);
/* Appends one token to each of n different sessions in one pass; logits[i] belongs to sessions[i]. */
DIL_API DIL_MUST_CHECK dil_status dil_engine_step(dil_engine *e, dil_session *const *sessions, const int32_t *tokens, size_t n,
                                                  const float **logits, dil_error *err);
/* Tokens the session holds. */
DIL_API size_t dil_session_n_tokens(const dil_session *s);

/* ---- generation ---- */

typedef struct dil_sampling {
    uint32_t struct_size; /* set by dil_sampling_default */
    uint64_t seed;        /* the same seed gives the same text */
    float temperature;    /* 0: always the most probable token */
    int32_t top_k;        /* 0: off */
    float top_p;          /* 1: off */
    float min_p;          /* 0: off */
    float typical_p;      /* 1: off */
    float repeat_penalty; /* 1: off */
    int32_t penalty_last_n;
    float presence_penalty, frequency_penalty;
} dil_sampling;

DIL_API dil_sampling dil_sampling_default(void);

/* Receives text as it is generated: whole characters, never a part of a stop string. Returns false to stop. */
typedef bool (*dil_text_fn)(void *user, const char *text, size_t n_bytes);

typedef struct dil_generation {
    uint32_t struct_size; /* set by dil_generation_default */
    dil_sampling sampling;
    int32_t max_tokens;       /* < 0: until the model ends or the context is full */
    const char *const *stops; /* texts that end the answer [borrowed during the call] */
    int32_t n_stops;
    dil_text_fn on_text; /* may be NULL */
    void *user;
} dil_generation;

DIL_API dil_generation dil_generation_default(void);

typedef struct dil_generation_result {
    int32_t n_prompt, n_reused, n_generated;
    double prompt_seconds, generate_seconds, first_token_seconds;
    char finish[16]; /* "end", "stop", "length", "context", "cancelled" */
} dil_generation_result;

/* Continues the prompt tokens in session s. result may be NULL. */
DIL_API DIL_MUST_CHECK dil_status dil_generate(dil_session *s, const int32_t *prompt, size_t n_prompt,
                                               const dil_generation *options, dil_generation_result *result, dil_error *err);

/* ---- a layer of experts alone: rows in, rows out ---- */

/*
 * A mixture-of-experts layer without a language model around it, as a GGUF file (architecture "dil-experts"):
 *
 *     y = sum over the n_used experts e of largest score of w_e down_e (silu(gate_e x) * (up_e x)),   w = softmax of those scores
 *
 * dil_engine_open takes such a file; what needs text refuses it (UNSUPPORTED). Options that have to do with tokens count rows.
 */
typedef struct dil_experts {
    uint32_t struct_size;                    /* set by dil_experts_default */
    int32_t n_embd, n_ff, n_experts, n_used; /* n_embd, n_ff: 1..262144; n_experts: 1..1024; default 512, 1024, 8, 2 */
    uint64_t seed;                           /* of the matrices that are NULL: normal, products are as large as what they read */
    /* Each may be NULL [borrowed during the call] */
    const float *router;    /* [n_experts][n_embd] */
    const float *gate, *up; /* [n_experts][n_ff][n_embd] */
    const float *down;      /* [n_experts][n_embd][n_ff] */
} dil_experts;

DIL_API dil_experts dil_experts_default(void);
/* The file appears when it is complete. Errors: BAD_ARGUMENT (names the field), IO, NO_MEMORY. */
DIL_API DIL_MUST_CHECK dil_status dil_experts_write(const char *path, const dil_experts *layer, dil_error *err);
/* x [n][n_embd] -> y [n][n_embd]; chosen [n][n_used] by score and weights [n][n_used] may be NULL. On failure rows may have been
 * written. BAD_ARGUMENT: the engine holds another model; IO: an expert could not be read. [out] */
DIL_API DIL_MUST_CHECK dil_status dil_experts_run(dil_engine *e, const float *x, size_t n, float *y, int32_t *chosen,
                                                  float *weights, dil_error *err);

/* What choosing and loading experts came to since the engine was opened, of any mixture of experts. */
typedef struct dil_experts_counts {
    uint32_t struct_size; /* set by the caller to sizeof(dil_experts_counts) */
    uint64_t n_choices;   /* of a token (a row) in a layer */
    /* Of routers that need not be read as a whole (route_local): what was read, and what all of them would have been. */
    uint64_t router_read_bytes, router_full_bytes;
    uint64_t n_changed;          /* experts taken instead of better ones (route_mass), */
    double mean_mass, most_mass; /* and the share of a token's weights that was moved by that */
    uint64_t n_found, n_loaded;  /* experts found in memory, read from disk (experts_memory) */
    uint64_t loaded_bytes;
} dil_experts_counts;
DIL_API DIL_MUST_CHECK dil_status dil_experts_count(const dil_engine *e, dil_experts_counts *out, dil_error *err);

/* ---- files of tensors ---- */

typedef struct dil_file dil_file;
typedef struct dil_tensor {
    char name[128];
    char type[16];     /* "F32", "Q4_K", ... */
    int32_t n_dims;    /* 1..4 */
    uint64_t shape[4]; /* innermost first, as GGUF has it: {columns, rows, matrices, 1} */
    uint64_t n_values, n_bytes;
} dil_tensor;

/* A GGUF file, checked. [out: owned: free with dil_file_close] */
DIL_API DIL_MUST_CHECK dil_status dil_file_open(dil_file **out, const char *path, dil_error *err);
DIL_API void dil_file_close(dil_file *f);
DIL_API size_t dil_file_n_tensors(const dil_file *f);
DIL_API DIL_MUST_CHECK dil_status dil_file_tensor(const dil_file *f, size_t index, dil_tensor *out, dil_error *err);
/* Its values, decoded: n is n_values. [out] */
DIL_API DIL_MUST_CHECK dil_status dil_file_read(const dil_file *f, size_t index, float *values, size_t n, dil_error *err);
/* A file of F32 tensors: name, n_dims and shape of each count; architecture: a name without a meaning here, as "matrices". */
DIL_API DIL_MUST_CHECK dil_status dil_file_write(const char *path, const char *architecture, const dil_tensor *tensors,
                                                 const float *const *values, size_t n, dil_error *err);

/* ---- making models smaller ---- */

/*
 * What may be lost is counted in nats per token of divergence for language models, and as relative error of the outputs, |y' - y|^2 / |y|^2,
 * for lone layers.
 */
typedef struct dil_quantize_options {
    uint32_t struct_size; /* set by dil_quantize_options_default */
    double bits;          /* per weight of the matrices, on average; default 4 */
    /* Share of the structure that may go, 0..0.95: experts or neurons of a language model, neurons of each expert of a lone layer, blocks of
     * 32 weights of other files (which become 0). */
    double prune;
    /* What all of that may cost a language model; what pruning alone may cost a lone layer. 0: no limit, or that of a language model's preset */
    double budget;
    const char *preset; /* instead of bits and prune: "dusuk" (2, 50 %), "dengeli" (4, 30 %), "yuksek" (8, 10 %); NULL */
    /* Of a language model: what it is calibrated on and, at the end, measured with. */
    const char *text_path;
    int32_t n_sequences, n_context; /* 0: 100 sequences of 512 tokens */
    /* Of a lone layer: [n_inputs][n_embd] rows it meets; NULL: n_inputs (0: 1024) normal ones. */
    const float *inputs;
    int32_t n_inputs;
    int32_t n_threads;        /* 0: one per processor */
    bool fast;                /* fewer sweeps of best response */
    dil_progress_fn progress; /* may be NULL */
    void *user;
} dil_quantize_options;

DIL_API dil_quantize_options dil_quantize_options_default(void);

/* One matrix of the result. */
typedef struct dil_quantized {
    char name[128];
    char type[16];
    int64_t n_values;
    double bits;  /* per weight */
    double error; /* what it costs: relative error of its outputs; of a language model nats per token, expected; NAN: not known */
    double plain_error; /* relative error of rounding each weight by itself, on the same inputs; NAN: not known */
    double moved;       /* share of the codes that moved in the last sweep of best response: 0 at the equilibrium */
} dil_quantized;

typedef struct dil_quantize_report {
    uint32_t struct_size; /* set by the caller to sizeof(dil_quantize_report) */
    uint64_t in_bytes, out_bytes, n_weights;
    double bits;       /* of the result's matrices, on average */
    double price, gap; /* of the game over formats: cost of a byte at the end; what any single change that fits could still gain */
    int32_t n_structure, n_removed; /* neurons, experts or blocks before, and gone; see prune */
    double pruned_cost;             /* by them alone */
    double cost; /* measured: divergence in nats per token, or of a lone layer the relative error of its outputs; NAN: not */
    double seconds;
    size_t n_matrices;
} dil_quantize_report;

/*
 * A model, a lone layer or a file of matrices in fewer bits: formats by the game, codes and scales by best response. matrices [max_matrices]
 * or NULL gets the first of them. The file appears when it is complete. BAD_ARGUMENT: options; UNSUPPORTED: a language model without
 * text_path; LIMIT: no file is within the budget; CANCELLED. [out]
 */
DIL_API DIL_MUST_CHECK dil_status dil_quantize(const char *in_path, const char *out_path, const dil_quantize_options *options,
                                               dil_quantize_report *report, dil_quantized *matrices, size_t max_matrices,
                                               dil_error *err);

/* ---- the training loss, for programs that train routers of experts themselves ---- */

/*
 * total = cross_entropy + balance B - cache C - swarm S + nash N + z Z, with rho = softmax(router_scores), of one layer of experts:
 *     B  n_experts sum_e f_e P_e: 1 when all are used alike (f: share of the choices, P: mean of rho)
 *     C  mean of sum_e rho_e h_e, h: recency of e's last use, fading with every token: what a cache would hit
 *     S  mean cosine of rho with the mean of the last 7 rho, half of it spread over each expert's neighbours
 *     N  mean KL(rho || softmax(router_scores - price + beta h)): 0 at the equilibrium of the routing game
 *     Z  mean of (log sum_e exp router_scores_e)^2
 * f, h, the mean of the last rho and the second argument of KL count as constants in the gradient. Pointers are [borrowed during
 * the call]; rows are the tokens of sequence 0, then those of sequence 1, ...; sequences know nothing of each other.
 */
typedef struct dil_loss_options {
    uint32_t struct_size;                 /* set by dil_loss_options_default */
    int32_t n_sequences, n_tokens;        /* tokens per sequence */
    int32_t n_vocab;                      /* with logits */
    int32_t n_experts;                    /* 1..4096, with router_scores */
    int32_t n_experts_used;               /* per token */
    int32_t n_embd;                       /* with router_rows */
    const float *logits;                  /* [n_sequences * n_tokens][n_vocab], or NULL with targets: cross_entropy is 0 */
    const int32_t *targets;               /* [n_sequences * n_tokens]; -1: this token does not count */
    const float *router_scores;           /* [n_sequences * n_tokens][n_experts], or NULL: the other terms are 0 */
    const int32_t *chosen;                /* [n_sequences * n_tokens][n_experts_used], or NULL: the largest router_scores - price */
    const float *price;                   /* [n_experts], or NULL: zeros */
    const float *router_rows;             /* [n_experts][n_embd]: who is whose neighbour; NULL: nobody has any */
    float balance, cache, swarm, nash, z; /* weights; default: 0.01, 0.02, 0.01, 0.01, 0 */
    float beta;                           /* what recency is worth in N, in standard deviations of the scores; default 0.5 */
    double cached_experts;                /* room in the cache that h stands for; 0: a quarter of the experts */
} dil_loss_options;

DIL_API dil_loss_options dil_loss_options_default(void);

typedef struct dil_loss_values {
    uint32_t struct_size; /* set by the caller to sizeof(dil_loss_values) */
    double total;
    double cross_entropy;                  /* nats per token */
    double balance, cache, swarm, nash, z; /* B, C, S, N, Z, unweighted */
    double entropy;                        /* mean entropy of rho, nats: an even rho makes S large too */
    double violation;                      /* choices of the busiest expert / mean - 1 */
} dil_loss_values;

/* d_logits, d_router: gradients of total, as large as logits and router_scores, or NULL. Errors: BAD_ARGUMENT (names the
 * argument), LIMIT, NO_MEMORY. [out] */
DIL_API DIL_MUST_CHECK dil_status dil_loss_compute(const dil_loss_options *options, dil_loss_values *out, float *d_logits,
                                                   float *d_router, dil_error *err);

#endif
