/*
 * Running a network: plan once (fused steps, buffers), then walk the steps for every batch. One compute object serves one
 * caller at a time; all its memory is taken when it is made, nothing is allocated per batch.
 */
#ifndef COMPUTE_COMPUTE_H
#define COMPUTE_COMPUTE_H

#include "base/events.h"
#include "base/threads.h"
#include "compute/kv.h"
#include "experts/pool.h"
#include "model/model.h"

typedef struct compute compute;

/* How experts are chosen. */
typedef enum route_mode {
    ROUTE_EXACT,      /* as the model says, from all scores */
    ROUTE_LOCAL,      /* the same choice, certified, from a part of the router's rows */
    ROUTE_NEIGHBOURS, /* from the neighbours of the last token's experts: approximate */
    ROUTE_CACHE       /* experts in memory are preferred, within a share of the weights: approximate */
} route_mode;

typedef struct route_options {
    route_mode mode;
    float mass; /* ROUTE_CACHE: the share of a token's weights that may go to other experts, 0..1 */
} route_options;
/* Of loading an expert: in scores (nats) or probabilities, whichever the model chooses by; in a batch in weights moved. The mass decides nearly alone:
 * on the project's own model lower prices with a larger mass lose more for the same hits (68 % at KLD 0.0116 with 0.1, 69 % at 0.0110 with 1). */
#define ROUTE_PRICE 1.0f

/* What choosing cost and changed since the engine began; a choice is one token in one layer. */
typedef struct route_counts {
    uint64_t n_choices;
    uint64_t n_scored, n_fell_back, read_bytes,
        full_bytes;                 /* rows scored exactly; full scans; bytes of the router, and of all of it */
    uint64_t n_changed;             /* experts taken instead of better ones */
    double mass, change, most_mass; /* sums over choices, and the largest: see router_moved */
} route_counts;

/* What some matrices are about to read (experts' down matrices: have read): rows i = 0 .. n - 1 at x + (row ? row[i] : first + i) * stride. */
typedef struct compute_input {
    const weight *readers[3]; /* all of the same width */
    int n_readers;
    const float *x;
    size_t stride;
    const int32_t *row;
    int32_t first, n;
} compute_input;

typedef struct compute_options {
    int32_t max_tokens;  /* most tokens per batch (micro-batch) */
    int32_t max_outputs; /* most tokens with logits per batch */
    int32_t context;     /* tokens a sequence may hold: chooses between long and short rope factors */
    bool timing;         /* collect time per step kind */
    events *events;      /* [borrowed] record every step of every worker, and every pass; NULL: do not */
    pool *experts;       /* [borrowed] holds the experts of a model opened with experts_apart; NULL: they are in memory */
    route_options route;
    /* Called after each choice, or NULL: chosen, weights [n_rows][n_used]; rows of the last layer are those with logits. */
    void (*on_choice)(void *ctx, uint32_t layer_index, int32_t n_rows, const uint16_t *chosen, const float *weights);
    void *choice_ctx;
    bool exact; /* f32 activations for every weight type: the yardstick for activation rounding, slow */
    /* With exact: called by one worker before the matrices read, or NULL. Rows of the last layer are those with logits. */
    void (*on_input)(void *ctx, const compute_input *in);
    void *input_ctx;
} compute_options;

/* A token to be run. Tokens of one sequence stand together, with consecutive positions that start at seq->n_tokens. */
typedef struct batch_token {
    kv_seq *seq;
    token_id id;
    bool wants_logits;
} batch_token;

typedef enum step_kind {
    STEP_INPUT,
    STEP_EMBED,
    STEP_NORM,
    STEP_QKV,
    STEP_ROPE,
    STEP_LATENT_DOWN,
    STEP_LATENT_NORM,
    STEP_LATENT_UP,
    STEP_LATENT_STORE,
    STEP_ABSORB,
    STEP_EXPAND,
    STEP_ATTENTION,
    STEP_ATTN_QUANTIZE,
    STEP_ATTN_OUT,
    STEP_ROUTE,
    STEP_CHOOSE,
    STEP_EXPERTS,
    STEP_GATE_UP,
    STEP_DOWN,
    STEP_HEAD,
    STEP_KINDS
} step_kind;

const char *step_name(step_kind kind);

/* How steps are cut into items for the workers. */
#define COMPUTE_FEW_ROWS 8     /* batches up to here have little work between two barriers */
#define COMPUTE_PART_ROWS 128  /* rows of the batch per worker that are worth expanding weights for */
#define COMPUTE_NORM_ROWS 8    /* rows a worker takes at most in a norm */
#define COMPUTE_ROPE_TOKENS 8  /* neighbours in a page share cache lines of K: one worker takes them together */
#define COMPUTE_SPLIT_TOKENS 4 /* batches up to here share a long context among all workers */

/* How matrix steps are cut, where that is not left to the kernel table: 0 is. Changes how fast a pass is, never what it gives. */
typedef struct compute_tile {
    int32_t panels, tokens; /* most of an item with many rows */
} compute_tile;
typedef struct compute_tuning {
    compute_tile tile[STEP_KINDS];
    int32_t items_few, items_many;     /* per worker, of a step with few rows (6) and with many (8) */
    int32_t threads_few, threads_many; /* that take part in passes of at most COMPUTE_FEW_ROWS rows, and of more (all) */
    int32_t part_rows;                 /* see COMPUTE_PART_ROWS */
    int32_t ahead;                     /* bytes of weights fetched before one token uses them (kernels.ahead); 1: none */
    int32_t attention_rows;            /* most query rows of an item of attention (ATTN_ROWS) */
} compute_tuning;
#define COMPUTE_ITEMS_FEW 6
#define COMPUTE_ITEMS_MANY 8
#define COMPUTE_ATTENTION_ROWS 96

/* Query heads and tokens that are attended to together, of one KV head, with at most so many rows. */
void compute_attention_tile(const hparams *h, int most_rows, int *n_heads, int *n_tokens);

/* m, k and workers are borrowed. [owned: free with compute_free] */
DIL_MUST_CHECK dil_status compute_new(compute **out, const model *m, const kernels *k, team *workers,
                                      const compute_options *options, dil_error *err);
void compute_free(compute *c);
size_t compute_bytes(const model *m, const compute_options *options, int n_workers); /* of buffers, without making them */

/* Between runs. What cannot be becomes what can be next to it. */
void compute_tune(compute *c, const compute_tuning *tuning);
const compute_tuning *compute_tuned(const compute *c);

/* Runs the batch (1 <= n <= max_tokens), storing K and V and advancing the sequences. Logits of the tokens that want them,
 * in batch order: row i at compute_logits(c, i), [n_vocab], valid until the next run. Nothing changes on failure. */
DIL_MUST_CHECK dil_status compute_run(compute *c, const batch_token *tokens, int32_t n, dil_error *err);
const float *compute_logits(const compute *c, int32_t i);

/* The same for a lone layer of experts: x [n][n_embd] -> y [n][n_embd], 1 <= n <= max_tokens. The rows are taken for a sequence that goes on
 * from call to call (routers that remember). y is untouched on failure. */
DIL_MUST_CHECK dil_status compute_run_rows(compute *c, const float *x, int32_t n, float *y, dil_error *err);
/* Of the last run's last layer with experts: [n_rows][n_used] each, valid until the next run. */
void compute_choice(const compute *c, const uint16_t **chosen, const float **weights);

/* A pass that gives every sequence of it one token, or one that reads more. */
typedef enum pass_kind { PASS_PREFILL, PASS_DECODE, PASS_KINDS } pass_kind;

/* The steps of one kind in passes of one kind. */
typedef struct step_times {
    uint64_t n;                /* steps */
    uint64_t time_ns;          /* of the caller: its work and its wait */
    uint64_t work_ns, wait_ns; /* of all workers: in the step, barriers inside it included, and at the barrier behind it */
    uint64_t weight_bytes;     /* of weights, each counted once in a pass */
} step_times;

typedef struct pass_times {
    uint64_t n, n_tokens, time_ns;
    step_times steps[STEP_KINDS];
} pass_times;

/* With timing: what passes took since the last reset. [PASS_KINDS], valid until the next run */
const pass_times *compute_times(compute *c);
void compute_times_reset(compute *c);
void compute_route_counts(const compute *c, route_counts *out);
uint64_t compute_weight_bytes(const model *m); /* that a pass of one token reads */
/* Multiply-adds of the layers' matrices for one token, by type of weight (the head, needed for few tokens, is left out). */
void compute_macs(const model *m, uint64_t macs[DIL_TYPE_COUNT]);

#endif
