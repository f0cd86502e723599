/* What the step functions share: buffers, the batch at hand, per-worker scratch. Private to the compute module. */
#ifndef COMPUTE_EXEC_H
#define COMPUTE_EXEC_H

#include <stdatomic.h>

#include "compute/compute.h"
#include "experts/router.h"

/* Activations as f32 and quantized, one row per token (see act in kernels.h). */
typedef struct act_buffer {
    act view;
    float *f;
    int8_t *q;
    float *d, *s, *s16;
    int32_t *isum, *isum16;
    uint16_t *bf16;
    int64_t k;
    bool quantized; /* somebody reads q */
    bool halves;    /* and the sums of half blocks */
    bool rounded;   /* somebody reads bf16 */
    bool floats;    /* somebody reads f */
} act_buffer;

/* Tokens that take the same expert: a run of slots, where a slot is one of a token's places (token, rank). */
typedef struct expert_block {
    uint32_t expert;
    int32_t slot, n;
} expert_block;

/* Who takes which expert in the layer at hand; step_choose fills it. */
typedef struct expert_batch {
    size_t score_stride;  /* floats */
    float *scores;        /* [max_tokens][score_stride] */
    uint16_t *chosen;     /* [max_tokens][n_used]: experts by rank */
    float *weights;       /* [max_tokens][n_used] */
    float *shared_weight; /* [max_tokens]: of the shared expert_weights */
    int32_t *slot_of;     /* [max_tokens][n_used] */
    int32_t *row_of;      /* [max_tokens * n_used]: whose place a slot is */
    int32_t *first_slot;  /* [n_experts + 1] */
    expert_block *blocks; /* those of an expert together */
    int32_t n_blocks;
    act_buffer hidden;     /* [slots]: act(gate) * up of each */
    float *out;            /* [slots][x_stride]: what its expert says of each */
    atomic_uint n_through; /* workers that have chosen for all their rows */
    /* Rounds: experts that can be in memory at the same time; one where all are. */
    int32_t *round_first; /* [n_rounds + 1]: their blocks */
    int32_t n_rounds;
    int32_t part_block[TEAM_QUEUES + 1]; /* part p of a round: blocks part_block[p] .. part_block[p + 1] - 1 */
    /* With a pool only: */
    int64_t held_layer;      /* whose experts are pinned; -1: none */
    uint8_t *resident;       /* [n_experts] */
    uint16_t *wanted;        /* [n_experts] */
    uint64_t hinted, wasted; /* reads the last guesses of the next layer began, and those nobody asked for, when last looked at */
    int32_t silent;          /* layers to come in which nothing is guessed */
    float *ahead;            /* [COMPUTE_FEW_ROWS][x_stride]: what the next router would see */
    atomic_bool lost;        /* an expert could not be read */
} expert_batch;

/* Attention through latents: what stands between its matrices. */
typedef struct latent_batch {
    size_t q_a_stride, kv_stride, raw_q_stride, expanded_stride; /* floats */
    float *q_a;                                                  /* [max_tokens][q_rank] */
    float *kv;               /* [max_tokens][kv_rank + n_rot]: latent, rotated part of the keys */
    float *raw_q;            /* [max_tokens][n_head][n_plain + n_rot]; c->q where nothing is absorbed */
    float *expanded;         /* [max_tokens][n_head][n_plain + n_value] */
    act_buffer q_latent;     /* [max_tokens]: normed q_a */
    act_buffer kv_latent;    /* [max_tokens]: normed latents, for kv_b */
    act_buffer plain, mixed; /* [max_tokens][n_head]: n_plain values of queries, for k_b; weighted sums of latents, for v_b */
} latent_batch;

/* A run of batch tokens of one sequence. */
typedef struct batch_run {
    kv_seq *seq;
    int32_t first, n;              /* in the batch */
    int32_t position;              /* of the first token */
    uint32_t items_before;         /* attention work items of earlier runs */
    uint32_t items_before_outputs; /* the same in the last layer, where only outputs are asked */
    uint32_t n_splits;             /* items per attention block: 1, or its chunks */
} batch_run;

/* One step of the plan; all workers run it, then meet at the barrier. */
typedef struct step {
    step_kind kind;
    uint32_t layer;
    const float *post_weight; /* STEP_NORM: x += residual_scale * rmsnorm(tmp, post_weight) first */
    const float *pre_weight;  /* STEP_NORM: norm into `nrm`; NULL with copy: nrm = x */
    bool normalise;           /* STEP_NORM: false: nrm = x as it is (models without a norm before a sub-layer) */
    bool on_outputs;          /* rows are the batch's outputs, not all its tokens (after the last attention) */
    bool quantize;            /* STEP_NORM: the reader of nrm wants it quantized */
    uint64_t weight_bytes;    /* of the matrices it reads; STEP_EXPERTS: of one expert */
} step;

/* What a worker spent on the steps of one kind. */
typedef struct worker_times {
    uint64_t n, work_ns, wait_ns, weight_bytes; /* bytes on worker 0 only */
} worker_times;

typedef struct worker_scratch {
    uint8_t *linear;     /* linear_scratch_bytes(largest k) */
    float *exact;        /* exact mode: [16][k] rows and their [k][16] panel */
    float *rows;         /* [COMPUTE_NORM_ROWS][n_embd]: normalised rows on their way to their quantized form */
    float *gate, *up;    /* [ffn_room]: [rows][panels * PANEL_ROWS] */
    act_buffer gathered; /* [at most GEMM_TOKENS_MOST]: rows of nrm that take the same expert_weights */
    float *choosing;     /* [4 * n_experts] */
    void *routing;       /* [routing_bytes]: of routers that read a part of their rows */
    route_counts routed;
    float *head;          /* [HEAD_ROWS][head_out_stride]: what a head's matrix gives; one key */
    float *queries;       /* [ATTN_ROWS][attn_row_bytes] */
    float *page;          /* attn_scratch_bytes */
    float *scores;        /* [ATTN_ROWS][ATTN_SCORE_STRIDE] */
    float *chunk, *total; /* [ATTN_ROWS][head_stride] */
    worker_times times[PASS_KINDS][STEP_KINDS];
} worker_scratch;

#define FFN_CHUNK 8          /* panels of gate and up a worker takes at most; even, so that 32-value blocks are its own */
#define FFN_CHUNK_FEW 64     /* the same where rows are so few that reading counts: long runs of memory */
#define LEAST_TOKEN_CHUNK 32 /* of any level's token_chunk */
#define HEAD_ROWS 64         /* rows that go through a matrix of one head together */
#define ATTN_ROWS COMPUTE_ATTENTION_ROWS
#define ATTN_SCORE_STRIDE (ATTN_SLOTS + 16) /* rows apart in cache sets */

struct compute {
    const model *m;
    const hparams *h;
    const kernels *k;
    team *workers;
    compute_options options;
    arena *memory;
    uint8_t *region; /* all large buffers */
    size_t region_bytes;

    compute_tuning tuning; /* nothing left to others: see compute_tune */
    step *steps;
    size_t n_steps;

    size_t x_stride, q_stride, k_stride, v_stride, logit_stride; /* floats */
    float *x, *tmp;    /* [max_tokens][x_stride]: residual stream; output of a sub-layer before its norm */
    float *q, *kk, *v; /* [max_tokens][...] */
    act_buffer nrm, attn, hidden;
    expert_batch moe;
    latent_batch latent;
    /* Ways of choosing that are not exact, or not from all scores; [n_layer] each or NULL. */
    router_screen **screens;
    router_memory **memories;
    const kv_seq *routed_seq; /* whose tokens the memories have seen last, */
    int32_t routed_end;       /* and the position after them */
    router_moved *moved;      /* [max_tokens] */
    size_t routing_bytes;
    float *cs[2];                 /* [max_tokens][n_rot]: cosine and sine per rope variant */
    double *inverse_frequency[2]; /* [n_rot / 2] */
    double *correction[2];        /* [n_rot / 2]: YaRN share of the extrapolated angle */
    float *logits;                /* [max_outputs][logit_stride] */
    worker_scratch *scratch;      /* [workers] */
    int heads_per_item;           /* query heads of one KV head handled together */
    int tokens_per_item;
    size_t head_stride;       /* floats: head_dim_v rounded up to whole vectors */
    size_t ffn_room;          /* floats of a worker's gate and of its up */
    size_t head_out_stride;   /* floats: kv_rank, n_value or a key, rounded up to whole panels */
    size_t max_chunks;        /* of ATTN_CHUNK pages in a context */
    float *partials;          /* [COMPUTE_SPLIT_TOKENS][n_head][max_chunks][head_stride + 16] */
    atomic_uint *chunks_done; /* [COMPUTE_SPLIT_TOKENS * n_head]: per block whose chunks are items */

    /* the batch */
    const batch_token *tokens;
    const float *input; /* [n][n_embd]: of a lone layer */
    int32_t n, n_outputs;
    int n_workers;     /* that take part */
    int n_parts;       /* of the work of every step; a worker takes items of its own part while there are any: their data is near */
    int32_t part_rows; /* rows of the batch in a part; the last ones may have fewer or none */
    bool by_rows;      /* matrix steps are divided by rows of the batch, else by panels of weights */
    int32_t *position; /* [max_tokens] */
    int32_t *run_of;   /* [max_tokens] */
    int32_t *output_of; /* [max_tokens]: output row, or -1 */
    int32_t *token_of;  /* [max_outputs] */
    batch_run *runs;    /* [max_tokens] */
    int32_t n_runs;
    atomic_bool unreadable; /* a worker met a page of the file that cannot be read */
    pass_kind pass;
    pass_times times[PASS_KINDS]; /* their steps lie with the workers */
};

static inline const expert_layer *layer_experts(const compute *c, const step *s) { return c->m->layers[s->layer].moe; }

/* compute_options.on_input for the matrices of a step. */
void observe_before(const compute *c, const step *s);
void observe_after(const compute *c, const step *s);

uint64_t step_weight_bytes(const compute *c, const step *s); /* for the plan */
static inline bool is_measured(const compute *c) { return c->options.timing || c->options.events; }
/* A worker began a step at `start`, had done its part at `done`, and went on behind the barrier at `end` (os_time_ns). */
void timing_add_step(compute *c, const step *s, int worker, uint64_t start, uint64_t done, uint64_t end);
void timing_add_pass(compute *c, uint64_t start, uint64_t end);

/* Rows a step works on. */
static inline int32_t step_rows(const compute *c, const step *s) { return s->on_outputs ? c->n_outputs : c->n; }

/* A worker's way through the items of a step: those of its own part of the rows, then those the other workers have left. */
typedef struct claims {
    compute *c;
    int part, n_left; /* parts with items left, as far as this worker knows */
} claims;

static inline claims claims_begin(compute *c, int worker) { return (claims){c, worker % c->n_parts, c->n_parts}; }

/* The next item, an index below n_items[part], of part cl->part; false when there is none. */
static inline bool claims_next(claims *cl, const uint32_t n_items[TEAM_QUEUES], uint32_t *index)
{
    for (; cl->n_left > 0; cl->n_left--, cl->part = (cl->part + 1) % cl->c->n_parts) {
        *index = team_claim_from(cl->c->workers, cl->part);
        if (*index < n_items[cl->part])
            return true;
    }
    return false;
}

/* Rows of a part, of n rows in all. */
static inline int32_t part_first(const compute *c, int part) { return part * c->part_rows; }
static inline int32_t part_size(const compute *c, int part, int32_t n)
{
    int32_t left = n - part_first(c, part);
    return left < 0 ? 0 : left < c->part_rows ? left : c->part_rows;
}

/* n_items of every part where `unit` rows make `per_unit` items. */
static inline void count_items(const compute *c, int32_t n, int32_t unit, uint32_t per_unit, uint32_t n_items[TEAM_QUEUES])
{
    for (int p = 0; p < c->n_parts; p++)
        n_items[p] = (uint32_t)((part_size(c, p, n) + unit - 1) / unit) * per_unit;
}

void step_input(compute *c, const step *s, int worker);
void step_embed(compute *c, const step *s, int worker);
void step_norm(compute *c, const step *s, int worker);
void step_qkv(compute *c, const step *s, int worker);
void step_rope(compute *c, const step *s, int worker);
void step_latent_down(compute *c, const step *s, int worker);
void step_latent_norm(compute *c, const step *s, int worker);
void step_latent_up(compute *c, const step *s, int worker);
void step_latent_store(compute *c, const step *s, int worker);
void step_absorb(compute *c, const step *s, int worker);
void step_expand(compute *c, const step *s, int worker);
void step_attention(compute *c, const step *s, int worker);
void step_attn_quantize(compute *c, const step *s, int worker);
void step_attn_out(compute *c, const step *s, int worker);
void step_route(compute *c, const step *s, int worker);
void step_choose(compute *c, const step *s, int worker);
void step_experts(compute *c, const step *s, int worker);
router_rule route_rule(const compute *c, uint32_t layer_index);
DIL_MUST_CHECK dil_status route_new(compute *c, dil_error *err); /* what the way of choosing needs */
void route_free(compute *c);
void route_begin(
    compute *c); /* a batch was described: if it does not go on where the last one ended, what routers remember is forgotten */
void moe_prepare(compute *c, const step *s); /* after the choice, on one worker: what step_experts works on */
void moe_release(compute *c);                /* no expert is in use any longer */
void step_gate_up(compute *c, const step *s, int worker);
void step_down(compute *c, const step *s, int worker);
void step_head(compute *c, const step *s, int worker);

/*
 * How the output of a matrix is cut into items, blocks of rows by chunks of panels: few enough that every worker gets several,
 * enough that an item is worth its atomic and its expanded weights. The parts of the work are parts of the rows when there are
 * many; else parts of the panels, so that each worker reads one run of memory.
 */
typedef struct split {
    int n_panels, chunk;   /* panels in all and of an item */
    int32_t n_rows, block; /* rows in all and of an item */
    uint32_t first_chunk[TEAM_QUEUES + 1], n_items[TEAM_QUEUES];
} split;

/* What a worker takes of a matrix: panels [panel, panel + n_panels), rows [row, row + n_rows). */
typedef struct tile {
    int panel, n_panels;
    int32_t row, n_rows;
} tile;

/* most: panels of an item; unit: chunks are multiples of it. */
split split_matrix(const compute *c, step_kind kind, int n_panels, int most, int unit, int32_t n_rows, size_t bytes_per_panel);
tile split_tile(const compute *c, const split *s, int part, uint32_t index);

/* y[t][..] for panels [panel, panel + n_panels) and rows [first, first + n) of x; t counts from first. */
void linear(const compute *c, const weight *w, const act *x, int panel, int n_panels, int32_t first, int32_t n, float *y,
            size_t y_stride, worker_scratch *ws);
/* Some matrices in one step: y = w x + bias for all rows of the batch. */
#define PROJECTIONS_MOST 3
typedef struct projection {
    const weight *w;
    const float *bias; /* or NULL */
    const act *x;
    float *y;
    size_t y_stride;
} projection;
void project_all(compute *c, step_kind kind, int worker, const projection *list, int n);
/* Panels of gate and up, or of experts' outputs, that a worker computes at a time when it holds so many rows of them. */
int ffn_chunk(const compute *c, const step *s, int32_t held);
/* y += bias of the n_values from first_row on, in n rows; bias NULL: nothing. */
void add_bias(float *y, size_t y_stride, const float *bias, int first_row, int n_values, int32_t n, const kernels *k);
/* Values of a chunk of panels that exist: the last panel may be padded. */
int chunk_values(const weight *w, int panel, int n_panels);
/* hidden = act(gate) * up of the item's rows and values, from ws->gate and ws->up, whose rows are `stride` apart. */
void finish_hidden(compute *c, act_buffer *hidden, const tile *it, int values, size_t stride, worker_scratch *ws);

/* Makes of f what its readers take, q or bf16, for columns [from, from + n) of some rows; from is a multiple of ACT_BLOCK. */
void act_quantize(const compute *c, act_buffer *a, int32_t row, int32_t n_rows, int64_t from, int64_t n);
/* The same with values that lie elsewhere: f[n_rows][f_stride]. */
void act_quantize_from(const compute *c, act_buffer *a, const float *f, size_t f_stride, int32_t row, int32_t n_rows, int64_t from,
                       int64_t n);
/* Items an attention block of the run is split into; needs c->n. */
uint32_t attention_splits(const compute *c, const batch_run *run);
/* Work items of attention over n tokens of a run; needs its n_splits. */
uint32_t attention_items(const compute *c, const batch_run *run, int32_t n_tokens);
void rope_prepare(compute *c);
/* Key and value of one head of token t, with their positions, to the cache: k[head_dim], v[head_dim_v], which do not overlap and
 * may be changed. */
void store_kv(const compute *c, uint32_t layer_index, int32_t t, uint32_t kv_head, float *k, float *v);

#endif
