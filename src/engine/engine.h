/*
 * The one path everybody uses: an engine is a loaded model with its threads, kernels and KV pool; a session is one timeline
 * of tokens on it. Callers give the whole token prefix, session_sync reuses, extends or rebuilds what is stored: its own
 * tokens first, then the longest common prefix of any other session (whole pages are shared, not copied).
 *
 * An engine serves one caller at a time (its sessions included); several engines may live in one process.
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "compute/compute.h"
#include "engine/profile.h"
#include "experts/pool.h"
#include "model/model.h"
#include "tokens/chat.h"

typedef struct engine engine;
typedef struct session session;

typedef struct engine_options {
    int32_t n_threads;       /* 0: one per physical core that may be used (machine_default_threads) */
    int32_t context;         /* tokens per session; 0: the smaller of the model's and 4096 */
    int32_t n_sessions;      /* how many full contexts the KV pool has room for; 0: 1 */
    int32_t micro_batch;     /* tokens per pass; 0: 512, or what the model's profile says */
    int32_t max_outputs;     /* tokens with logits per pass; 0: 8 */
    dil_type type_k, type_v; /* KV cache: DIL_TYPE_F16 (default), F32, BF16, Q8_0, Q4_0 */
    const char *cpu;         /* kernel level, NULL: auto */
    uint64_t memory_bytes;   /* most memory for weights, KV and buffers; 0: no limit of our own */
    bool timing, exact, no_vocab;
    events *events;             /* [borrowed] compute.h; besides, what is done between passes; NULL: record nothing */
    uint64_t experts_memory;    /* most memory for experts, the rest stays on disk; 0: all in memory; ENGINE_EXPERTS_AUTO */
    policy_kind experts_policy; /* which experts stay */
    route_options route;        /* how experts are chosen */
    void (*on_choice)(void *ctx, uint32_t layer_index, int32_t n_rows, const uint16_t *chosen,
                      const float *weights); /* compute.h */
    void *choice_ctx;
    void (*on_input)(void *ctx, const compute_input *in); /* compute.h; with exact */
    void *input_ctx;
    bool lone;          /* a layer of experts alone may be opened, for engine_rows; otherwise such files are refused */
    bool no_profile;    /* tuned settings of the model are not loaded */
    bool no_pack_cache; /* packed weights are neither read from disk nor kept there (model.h has the next two) */
    uint64_t pack_cache_least, pack_cache_most;
    dil_progress_fn progress;
    void *user;
} engine_options;

#define ENGINE_MICRO_BATCH 512 /* tokens per pass where nobody says otherwise */
/* As much memory for experts as the machine or the control group can spare; none is set aside where all fit. */
#define ENGINE_EXPERTS_AUTO UINT64_MAX

engine_options engine_options_default(void);

/* [owned: free with engine_close, after its sessions] */
DIL_MUST_CHECK dil_status engine_open(engine **out, const char *path, const engine_options *options, dil_error *err);
void engine_close(engine *e);

/* What engine_open would take, from the header alone. */
typedef struct engine_plan {
    uint64_t file_bytes, packed_bytes, kv_bytes, activation_bytes, vocab_bytes;
    uint64_t program_bytes;  /* what the process takes already: code, libraries, what is open */
    uint64_t total_bytes;    /* of the process, all together */
    uint64_t expert_bytes;   /* of packed_bytes: all experts */
    uint64_t experts_memory; /* the budget they share; 0: they are in memory */
    uint64_t kv_bytes_per_token, weight_bytes_per_token;
    int32_t n_threads, context, micro_batch;
} engine_plan;
DIL_MUST_CHECK dil_status engine_plan_file(engine_plan *out, const char *path, const engine_options *options, dil_error *err);

DIL_MUST_CHECK dil_status engine_plan_model(engine_plan *out, const model *m, const engine_options *options, dil_error *err);

const model *engine_model(const engine *e);
/* Whether a profile is in use; *why (may be NULL) tells why a stale one is not. */
profile_state engine_profile(const engine *e, const char **why);
/* Other tuned settings from the next pass on; p->micro_batch up to that of opening (0: as opened). */
void engine_tune(engine *e, const profile *p);
const vocab *engine_vocab(const engine *e); /* NULL with no_vocab */
const chat_template *engine_chat(const engine *e);
const kernels *engine_kernels(const engine *e);
compute *engine_compute(engine *e);
events *engine_events(const engine *e); /* NULL: nothing is recorded */
pool *engine_experts(const engine *e);  /* NULL: all experts are in memory */
int32_t engine_context(const engine *e);
int32_t engine_n_threads(const engine *e);
int32_t engine_micro_batch(const engine *e);
int32_t engine_max_outputs(const engine *e);
int32_t engine_n_vocab(const engine *e);
dil_type engine_type_k(const engine *e);
dil_type engine_type_v(const engine *e);
size_t engine_kv_bytes(const engine *e);
size_t engine_kv_bytes_per_token(const engine *e); /* over all layers */

/* [owned: free with session_free] */
DIL_MUST_CHECK dil_status session_new(session **out, engine *e, dil_error *err);
void session_free(session *s);
engine *session_engine(const session *s);
int32_t session_n_tokens(const session *s);
const token_id *session_tokens(const session *s);

/* Makes the session hold exactly these n >= 1 tokens and *logits those after the last of them (borrowed until the engine runs
 * again). *n_reused (may be NULL): tokens that did not have to be computed. On failure or cancellation the session holds a
 * shorter prefix. progress may be NULL. */
DIL_MUST_CHECK dil_status session_sync(session *s, const token_id *tokens, int32_t n, const float **logits, int32_t *n_reused,
                                       dil_progress_fn progress, void *user, dil_error *err);
/* Appends tokens[0..n) and calls each(ctx, i, logits) for those with wants[i] (wants NULL: all), in order, while it returns true. */
DIL_MUST_CHECK dil_status session_eval(session *s, const token_id *tokens, int32_t n, const bool *wants,
                                       bool (*each)(void *ctx, int32_t i, const float *logits), void *ctx, dil_error *err);
/* One token appended to each of n different sessions in one pass; logits[i] belongs to sessions[i]. */
DIL_MUST_CHECK dil_status engine_step(engine *e, session *const *sessions, const token_id *tokens, int32_t n, const float **logits,
                                      dil_error *err);
/* A lone layer of experts: x [n][n_embd] -> y [n][n_embd], any n >= 1, in passes of the micro-batch. chosen, weights
 * [n][n_used], or NULL. On failure y is what it was but for passes that were done. */
DIL_MUST_CHECK dil_status engine_rows(engine *e, const float *x, int32_t n, float *y, uint16_t *chosen, float *weights,
                                      dil_error *err);
/* Forgets everything after the first n tokens. */
void session_truncate(session *s, int32_t n);

#endif
