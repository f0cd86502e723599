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
    int32_t n_vocab, n_embd, n_layer, n_head, n_head_kv;
    int32_t n_ff; /* neurons of dense layers; where there are none, of an expert */
    int32_t n_context_trained, n_context, n_threads;
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

/* The same conversation as tokens, with the BOS the model wants: a prompt for dil_generate. *n as in dil_tokenize. */
DIL_API DIL_MUST_CHECK dil_status dil_chat_tokens(const dil_engine *e, const dil_message *messages, size_t n_messages,
                                                  int32_t *tokens, size_t max_tokens, size_t *n, dil_error *err);

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
/* Logits after each of n tokens of a text that begins here: [n][n_vocab]. LIMIT: more tokens than the context. [out] */
DIL_API DIL_MUST_CHECK dil_status dil_logits(dil_engine *e, const int32_t *tokens, size_t n, float *logits, dil_error *err);
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
    dil_progress_fn progress; /* of reading the prompt, with the same user; may be NULL */
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

/* Router logs, which dil route replays and pictures are drawn from. Writes the choices of n rows of a lone layer of experts, one after
 * the other; weights may be NULL; shapes as dil_experts_run has them. The file appears when it is complete. */
DIL_API DIL_MUST_CHECK dil_status dil_experts_log(const dil_engine *e, const char *path, const int32_t *chosen,
                                                  const float *weights, size_t n, dil_error *err);

/* A pool of experts replayed: what a cache would have found. */
typedef struct dil_replay {
    uint32_t struct_size;      /* set by the caller to sizeof(dil_replay) */
    uint64_t n_tokens, n_uses; /* of experts */
    uint64_t n_found;          /* in memory */
    uint64_t n_first;          /* uses that no cache could have found: the first of each expert */
    uint64_t read_bytes;
    int32_t n_slots; /* experts there was room for */
} dil_replay;

/* A router log against a memory for experts. policy: "swarm", "lru", "lfu", "stale", or "belady", which knows the future: no policy finds
 * more. share: of all experts, 0..1. NO_MEMORY: not even one token's experts fit. [out] */
DIL_API DIL_MUST_CHECK dil_status dil_experts_replay(const char *log_path, const char *policy, double share, dil_replay *out,
                                                     dil_error *err);

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
     * 32 weights of other files (which become 0, or as small as their format has them). */
    double prune;
    /* What all of that may cost a language model; what pruning alone may cost a lone layer. 0: no limit, or that of a language model's preset */
    double budget;
    const char *preset; /* instead of bits and prune: "dusuk" (2, 50 %), "dengeli" (4, 30 %), "yuksek" (8, 10 %); NULL */
    /* Instead of all of these: every matrix gets this stock type ("Q8_0", "Q4_K", "F16", ...) or, where its rows do not fit, a wider one. Without
     * text_path each weight is rounded by itself, at once. NULL: the game chooses. */
    const char *type;
    const char *report_path; /* of a calibrated language model: JSON for dil_view's "bits" and "metrics"; NULL: none */
    /* Of a language model: what it is calibrated on and, at the end, measured with. */
    const char *text_path;
    int32_t n_sequences, n_context; /* 0: 100 sequences of 512 tokens */
    /* Of a lone layer: [n_inputs][n_embd] rows it meets; NULL: n_inputs (0: enough for its shape) normal ones. The last eighth is not learnt
     * from: errors are measured on it. Fewer than 64 are all learnt from and measured on. */
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
 * text_path or type; LIMIT: no file is within the budget; CANCELLED. [out]
 */
DIL_API DIL_MUST_CHECK dil_status dil_quantize(const char *in_path, const char *out_path, const dil_quantize_options *options,
                                               dil_quantize_report *report, dil_quantized *matrices, size_t max_matrices,
                                               dil_error *err);

/* ---- the machine, and models on it ---- */

typedef struct dil_machine {
    uint32_t struct_size; /* set by the caller to sizeof(dil_machine) */
    char cpu[128];
    char kernels[16];                           /* the level auto chooses: "avx2", ... */
    int32_t n_cores, n_cpus, n_numa, n_threads; /* cores, logical processors, memory nodes; threads a run takes by default */
    uint64_t l1_bytes, l2_bytes, l3_bytes;      /* of one cache; 0: there is none, or it is unknown */
    int32_t l2_cores, l3_cores;                 /* cores that share one */
    uint64_t memory_bytes;                      /* physical, or what control groups leave of it */
} dil_machine;
DIL_API DIL_MUST_CHECK dil_status dil_machine_info(dil_machine *out, dil_error *err);

/* What n_threads reach, all together: bytes and multiply-adds per second, the best that was measured. 0: not there. */
typedef struct dil_machine_speed {
    uint32_t struct_size; /* set by the caller to sizeof(dil_machine_speed) */
    int32_t n_threads;
    double memory, l3, l2, l1; /* reading */
    double int8, bf16, f32;    /* arithmetic */
    double barrier_seconds;    /* threads waiting for each other once */
    bool busy;                 /* other programs ran meanwhile */
} dil_machine_speed;
/* Measured once (some seconds) and kept; again: measured now. CANCELLED by progress, which may be NULL. */
DIL_API DIL_MUST_CHECK dil_status dil_machine_measure(bool again, dil_progress_fn progress, void *user, dil_machine_speed *out,
                                                      dil_error *err);

/* What to predict: a prompt of n_prompt tokens, then n_gen tokens, after depth others; n_parallel sequences generate at once. */
typedef struct dil_workload {
    uint32_t struct_size;                       /* set by dil_workload_default */
    int32_t n_prompt, n_gen, depth, n_parallel; /* default 512, 128, 0, 1 */
} dil_workload;
DIL_API dil_workload dil_workload_default(void);

typedef struct dil_level_bytes {
    double touched, l2, l3, memory; /* bytes a pass touches, and where they come from */
} dil_level_bytes;

typedef struct dil_plan {
    uint32_t struct_size;                                                         /* set by the caller to sizeof(dil_plan) */
    uint64_t weight_bytes, expert_bytes, kv_bytes, activation_bytes, total_bytes; /* expert_bytes: part of weight_bytes */
    uint64_t experts_memory; /* the budget the experts share; 0: all are in memory */
    int32_t n_threads, n_context, n_micro_batch;
    double prompt_rate, generation_rate;            /* tokens per second, predicted */
    char prompt_bound[32], generation_bound[32];    /* what limits them: "arithmetic", "reading from memory", ... */
    int32_t best_micro_batch;                       /* smallest within a hundredth of the fastest */
    int32_t best_sequences;                         /* that generate at once: most tokens of all */
    dil_level_bytes prompt_bytes, generation_bytes; /* of one pass */
} dil_plan;
/* Memory and speed from the header of the file alone; the machine is measured when it was not yet. options, workload NULL: defaults. */
DIL_API DIL_MUST_CHECK dil_status dil_plan_make(const char *path, const dil_engine_options *options, const dil_workload *workload,
                                                dil_plan *out, dil_error *err);

typedef struct dil_tuned {
    uint32_t struct_size;                /* set by the caller to sizeof(dil_tuned) */
    bool changed;                        /* faster settings than the usual ones were found */
    double prompt_gain, generation_gain; /* speed over that of the usual settings, measured in turns; 1: the same */
    int32_t n_trials, n_kept;
    double seconds;
    char profile_path[2200]; /* where the settings were kept: dil_engine_open loads them by itself */
} dil_tuned;
/* Tries settings in turns with the usual ones for about so many seconds and keeps what is faster beyond doubt. Answers never change. */
DIL_API DIL_MUST_CHECK dil_status dil_tune(const char *path, const dil_engine_options *options, const dil_workload *workload,
                                           double seconds, dil_tuned *out, dil_error *err);

/* Speed as dil bench measures it, in tokens (of a lone layer of experts: rows) per second: the median of several runs. */
typedef struct dil_speed {
    uint32_t struct_size; /* set by the caller to sizeof(dil_speed) */
    double prompt_rate, generation_rate;
    double prompt_deviation, generation_deviation; /* of the runs, about their mean */
    double bytes_per_token;                        /* weights and KV cache that one generated token reads */
} dil_speed;
/* workload NULL: its defaults; parts of 0 tokens are left out. The engine's context must hold depth + n_prompt + n_gen. progress may be NULL. */
DIL_API DIL_MUST_CHECK dil_status dil_bench(dil_engine *e, const dil_workload *workload, int32_t n_runs, dil_progress_fn progress,
                                            void *user, dil_speed *out, dil_error *err);

typedef struct dil_perplexity {
    uint32_t struct_size;     /* set by the caller to sizeof(dil_perplexity) */
    double perplexity, error; /* error: standard error */
    int32_t n_chunks;
    int64_t n_scored; /* tokens: the second half of each chunk */
} dil_perplexity;
/* As llama-perplexity measures it: chunks of n_context tokens (0: 512), at most n_chunks (0: all). base_path or NULL: where to write the
 * log-probabilities that dil_divergence_measure compares with. progress, NULL or not, counts chunks. LIMIT: less text than one chunk. [out] */
DIL_API DIL_MUST_CHECK dil_status dil_perplexity_measure(dil_engine *e, const char *text, size_t text_bytes, int32_t n_context,
                                                         int32_t n_chunks, const char *base_path, dil_progress_fn progress,
                                                         void *user, dil_perplexity *out, dil_error *err);

typedef struct dil_divergence {
    uint32_t struct_size;                            /* set by the caller to sizeof(dil_divergence) */
    double mean_kld, kld_error, max_kld, median_kld; /* nats per token from the base model */
    double same_top;                                 /* share of tokens whose most probable successor is the same */
    double perplexity, base_perplexity;
    int64_t n_scored;
} dil_divergence;
/* base_path: of dil_perplexity_measure or llama-perplexity --kl-divergence-base; the engine's context must hold its chunks. [out] */
DIL_API DIL_MUST_CHECK dil_status dil_divergence_measure(dil_engine *e, const char *base_path, dil_progress_fn progress, void *user,
                                                         dil_divergence *out, dil_error *err);

typedef struct dil_bleu {
    uint32_t struct_size;             /* set by the caller to sizeof(dil_bleu) */
    double bleu, bleu_low, bleu_high; /* 0..100, with the 95 % interval of the bootstrap; NAN without resamples */
    double chrf, chrf_low, chrf_high;
    double precision[4]; /* percent, of words in runs of 1 to 4 */
    double brevity_penalty, ratio;
    int64_t hyp_len, ref_len; /* words */
    int32_t n_lines;
} dil_bleu;
/* How much texts agree, line by line: as sacreBLEU's defaults. UTF-8; n_resamples 0: no intervals. FORMAT: line counts differ. [out] */
DIL_API DIL_MUST_CHECK dil_status dil_bleu_measure(const char *hypothesis, size_t hypothesis_bytes, const char *reference,
                                                   size_t reference_bytes, int32_t n_resamples, dil_bleu *out, dil_error *err);

/* ---- pictures ---- */

typedef struct dil_view_options {
    uint32_t struct_size; /* set by dil_view_options_default */
    const char *theme;    /* "light", "dark"; NULL: light, or what its reader prefers where a page can know */
    const char *language; /* "en" or "tr"; NULL: "en" */
    /* Of the flock */
    int32_t layer;    /* -1 (default): the picture chooses */
    int32_t n_frames; /* steps at most; 0: as many as usual */
    uint64_t frame;   /* the last step shown, from 1; 0: the last there is */
    const char *text; /* run now, or that of the log; NULL: none [borrowed during the call] */
    size_t text_bytes;
    int32_t n_threads;        /* 0: one per processor */
    dil_progress_fn progress; /* may be NULL */
    void *user;
} dil_view_options;

DIL_API dil_view_options dil_view_options_default(void);
/* Draws what dil view draws: kind is "flock", "bits", "metrics", "experts" or "cache", inputs are the files it is about, the ending of out_path
 * says the format: .svg, .png, .pdf or .html. The file appears when it is complete. Equal inputs give equal bytes. */
DIL_API DIL_MUST_CHECK dil_status dil_view(const char *kind, const char *const *inputs, size_t n_inputs, const char *out_path,
                                           const dil_view_options *options, dil_error *err);

/* ---- the theorem: a flock, a game, and the decision that joins them ---- */

#define DIL_NEIGHBOURS 7  /* as many as a starling minds */
#define DIL_GROUP_MOST 64 /* candidates of a local group */

/* The k nearest others of each of n points [n][dim], nearest first: by Euclidean distance, or by 1 - cosine. k: 1..64, below n.
 * nearest [n][k]; distance [n][k] may be NULL. [out] */
DIL_API DIL_MUST_CHECK dil_status dil_flock_nearest(const float *points, int32_t n, int32_t dim, int32_t k, bool cosine,
                                                    int32_t *nearest, float *distance, dil_error *err);

/* How a flock flies: means over all points, with the mutual graph of the k nearest (of all others in smaller flocks). */
typedef struct dil_flock_order {
    double alignment;  /* cosine of a velocity with the neighbours' mean velocity: 1 together, 0 unrelated, -1 against */
    double cohesion;   /* distance to the centre of the neighbours */
    double separation; /* distance to the nearest neighbour */
} dil_flock_order;

/* velocities [n][dim], or NULL: alignment is 0. [out] */
DIL_API DIL_MUST_CHECK dil_status dil_flock_measure(const float *points, const float *velocities, int32_t n, int32_t dim, int32_t k,
                                                    dil_flock_order *out, dil_error *err);

/* How birds fly: v += alignment (mean v of the neighbours - v) + cohesion (their centre - x) + separation sum (x - x_j) / |x - x_j|^2
 * + pull (target - x), no faster than most_speed; then x += v. */
typedef struct dil_flock_rules {
    uint32_t struct_size; /* set by dil_flock_rules_default */
    int32_t k;            /* neighbours */
    float alignment, cohesion, separation, pull, most_speed;
    const float *target; /* [dim], or NULL: no pull [borrowed] */
} dil_flock_rules;

DIL_API dil_flock_rules dil_flock_rules_default(void);
/* One step of n birds, all at once; points and velocities [n][dim] are read and written. */
DIL_API DIL_MUST_CHECK dil_status dil_flock_step(float *points, float *velocities, int32_t n, int32_t dim,
                                                 const dil_flock_rules *rules, dil_error *err);

/*
 * An exact potential game: player i with strategy s pays
 *     J_i(s) = cost_i(s) + sum over edges to players j of weight_ij amount_i(s) amount_j(s_j) + price use_i(s)
 * Players i's strategies are first[i] .. first[i + 1] - 1 of cost, use and amount. All [borrowed during the call].
 */
typedef struct dil_game {
    uint32_t struct_size; /* set by dil_game_default */
    int32_t n_players;
    const int32_t *first; /* [n_players + 1], at least one strategy each */
    const double *cost;   /* [first[n_players]] */
    const double *use;    /* the same, 0 or more; NULL: nothing is used */
    const float *amount;  /* the same, with edges */
    int64_t n_edges;      /* 0: no coupling */
    const int32_t *edges; /* [n_edges][2]: two players, every pair once */
    const float *weights; /* [n_edges] */
    uint64_t seed;        /* 0: players move in order; else in a random order, another one in each sweep */
    int32_t most_sweeps;  /* 0: 1000 */
    double epsilon;       /* gains up to this are not worth a move */
} dil_game;

DIL_API dil_game dil_game_default(void);

typedef struct dil_game_report {
    uint32_t struct_size; /* set by the caller to sizeof(dil_game_report) */
    double price, used;   /* of the shared resource */
    double cost;          /* own and pair costs, without the price */
    double potential;     /* cost + price used: falls with every move */
    double gap;      /* the largest gain any single player still has (dil_game_fit: that fits what is left); 0 at the equilibrium */
    double swap_gap; /* dil_game_fit: of any two players together that fits */
    double bound;    /* dil_game_fit: no state within the budget costs less; without coupling, else -infinity */
    double active_share; /* of players whose neighbours could change their mind; near 0 the neighbours do not matter */
    int32_t sweeps, filled, exchanged; /* filled, exchanged: moves of dil_game_fit after the price was found */
    int64_t moves;
    bool settled; /* nobody wants to move */
} dil_game_report;

/* Best responses at that price from state [n_players] (strategies counted from 0 for each player) on, until nobody gains or
 * most_sweeps are done. state is read and written; report may be NULL. BAD_ARGUMENT names what is wrong with the game. */
DIL_API DIL_MUST_CHECK dil_status dil_game_settle(const dil_game *game, double price, int32_t *state, dil_game_report *report,
                                                  dil_error *err);
/* A state of low cost that uses at most `budget`: the price is bisected, what is left is filled and exchanged. LIMIT: even the least
 * use exceeds it. state is written. */
DIL_API DIL_MUST_CHECK dil_status dil_game_fit(const dil_game *game, double budget, int32_t *state, dil_game_report *report,
                                               dil_error *err);

/* Candidates are points and a task is a point of the same space; the nearest ones in the whitened metric form a local group, which
 * settles a game for the places there are. */
typedef struct dil_decide_options {
    uint32_t struct_size;    /* set by dil_decide_options_default */
    int32_t n, dim;          /* candidates; numbers of each */
    const float *candidates; /* [n][dim] [borrowed during the call] */
    const float *task;       /* [dim] [borrowed during the call] */
    int32_t n_group;         /* candidates looked at first, at most DIL_GROUP_MOST; default DIL_NEIGHBOURS */
    int32_t n_chosen;        /* places; default 1 */
    double overlap;          /* what two chosen ones of the same direction lose, as a share of their values' product; default 0 */
} dil_decide_options;

DIL_API dil_decide_options dil_decide_options_default(void);

typedef struct dil_decision {
    uint32_t struct_size;                      /* set by the caller to sizeof(dil_decision) */
    int32_t n;                                 /* of the group */
    int32_t member[DIL_GROUP_MOST];            /* nearest first */
    int32_t chosen[DIL_GROUP_MOST];            /* 1: got a place */
    double distance[DIL_GROUP_MOST];           /* to the task, each axis in units of its deviation over all candidates */
    double value[DIL_GROUP_MOST];              /* exp(-distance^2 / (2 h^2)), h the group's median distance */
    double regret[DIL_GROUP_MOST];             /* what each loses by changing alone at the price of a place: 0 or more */
    double price, gap, swap_gap, active_share; /* of a place; see dil_game_report */
    double outside;                            /* largest value a candidate outside the group can have */
    int32_t best;                              /* the chosen one of highest value; -1: not decided yet */
    int32_t n_rounds;                          /* how often the group grew */
    bool certain;                              /* nobody outside could take a place at the price */
} dil_decision;

/* The local group alone; the equilibrium of such a group; and both, with a group that doubles until the choice is certain or everybody
 * is in it. [out; dil_decide_equilibrium: read and written] */
DIL_API DIL_MUST_CHECK dil_status dil_decide_group(const dil_decide_options *options, dil_decision *out, dil_error *err);
DIL_API DIL_MUST_CHECK dil_status dil_decide_equilibrium(const dil_decide_options *options, dil_decision *out, dil_error *err);
DIL_API DIL_MUST_CHECK dil_status dil_decide_adaptive(const dil_decide_options *options, dil_decision *out, dil_error *err);

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
