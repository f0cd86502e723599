/*
 * A float model walked layer by layer over a text: only one layer's weights are in memory, the state of all tokens is carried from layer
 * to layer. What every matrix meets can be seen, and matrices can be replaced on the way, so that later ones see what the
 * replaced ones make. For the architectures the trainer knows.
 */
#ifndef QUANTIZE_WALK_H
#define QUANTIZE_WALK_H

#include "file/gguf.h"
#include "model/hparams.h"
#include "train/net.h"

/* Matrices by what they read. Values are read through attention: an error of theirs reaches an answer as the mean over the tokens it attends
 * to, so what counts as their input is that mean, head by head. */
typedef enum walk_stage { WALK_QK, WALK_VALUES, WALK_OUTPUT, WALK_GATE_UP, WALK_DOWN, WALK_STAGES } walk_stage;

typedef struct walk walk;

/* in, workers, k are borrowed; tokens [n_sequences][n_context] are copied. UNSUPPORTED: an architecture the trainer does not know.
 * [owned: free with walk_free] */
DIL_MUST_CHECK dil_status walk_new(walk **out, const gguf *in, const int32_t *tokens, int n_sequences, int n_context, team *workers,
                                   const kernels *k, dil_error *err);
void walk_free(walk *w);
/* Values of a tensor come from fn, [all of its values], instead of the file. For walk_distil. */
typedef void (*walk_read_fn)(void *ctx, const gguf_tensor *t, float *out);
void walk_read_by(walk *w, walk_read_fn fn, void *ctx);
const hparams *walk_hparams(const walk *w);
int64_t walk_n_tokens(const walk *w);

/* The embedding and the output matrix become those of the file again. */
DIL_MUST_CHECK dil_status walk_restart(walk *w, dil_error *err);
/* The state of all tokens becomes their embeddings. */
DIL_MUST_CHECK dil_status walk_begin(walk *w, dil_error *err);
/* Reads the weights of a layer. */
DIL_MUST_CHECK dil_status walk_load(walk *w, int layer, dil_error *err);
/* Matrices of the layer at hand: values [n][rows][columns], n 1 but for experts. After writing to them: walk_changed. */
typedef struct walk_matrix {
    float *w;
    int n, rows, columns;
} walk_matrix;
walk_matrix walk_matrix_at(walk *w, net_place place);
walk_stage walk_stage_of(net_place place);
const char *walk_tensor_name(const walk *w, net_place place); /* behind "blk.N." */
void walk_changed(walk *w);

/* Stages in order. h [n][groups][parts][part][part] is overwritten with weighted means of x x^T over what this stage's matrices read:
 * for each of n weightings of the tokens (weight[i] [n_tokens] or NULL: 1) and each group: the experts, the heads of the values (the rows of the
 * matrix in equal parts), else all tokens. Where that were too much memory, columns are taken in equal parts and what they have in common with
 * those of other parts is not looked at. */
#define WALK_MOST_LOOKS 2
int walk_width(const walk *w, walk_stage stage);
int walk_groups(const walk *w, walk_stage stage);
int walk_looks(const walk *w, walk_stage stage);           /* that its matrices need: 2 where they weigh tokens differently */
int walk_parts(const walk *w, walk_stage stage);           /* 1 but for wide layers and many experts; part = width / parts */
size_t walk_group_floats(const walk *w, walk_stage stage); /* parts * part * part */
/* How many floats h may have, 2^28 unless told otherwise; parts do not get narrower than the widest block of a format. */
void walk_limit(walk *w, size_t most_floats);
void walk_look(walk *w, walk_stage stage, const float *const *weights, int n, float *h);
/* Until the next call: looks add the unweighted squares of what the stage reads to sums [groups][width], and how many rows they were to
 * counts [groups]. NULL, NULL: off. */
void walk_count_squares(walk *w, float *sums, float *counts);
/* The state after the layer, when all stages were looked at. */
void walk_advance(walk *w);
/* After the last layer: the same for what the output matrix reads. */
void walk_look_head(walk *w, const float *weights, float *h);

/* Experts of the layer at hand that are not chosen, until another layer is loaded: absent [n_experts]; at least n_used are not absent. */
void walk_without(walk *w, const bool *absent);

/* Which experts can go at least cost, when their tokens go to the best of the others. */
typedef struct walk_removal {
    const float *token_weight; /* [n_tokens], and */
    const float *row_weight;   /* [n_experts][n_embd]: of NET_DOWN, as in walk_fisher */
    int n_remove;              /* n_used experts are left at least */
    int32_t *removed;          /* [out] [n_remove]: experts in the order they went; of two alike the lower first */
    double *cost;              /* [out] [n_remove]: expected divergence in nats per token of all removed so far, together */
} walk_removal;
/* Of the layer at hand, when WALK_GATE_UP was looked at: one by one, the cheapest of those left after those before have gone and their tokens
 * have chosen again. The removed ones are absent from now on. NO_MEMORY. */
DIL_MUST_CHECK dil_status walk_remove_experts(walk *w, const walk_removal *r, dil_error *err);

/* States x [n_tokens][n_embd], any, through the whole layer at hand, in place. */
void walk_forward(walk *w, float *x);
/* Those of walk_begin. */
const float *walk_states(const walk *w);
/* What answers from states x behind the last layer have lost against those from states from, n_tokens of them: mean divergence, nats per token. */
double walk_divergence(walk *w, const float *from, const float *x, int64_t n_tokens);

/* Between walk_begin and the last layer nobody needs the values of the embedding and of the output matrix, which may be larger than all else: they leave
 * memory. walk_meet_words, or walk_restart, brings them back, as they are in the file; behind the last layer only. */
void walk_leave_words(walk *w);
DIL_MUST_CHECK dil_status walk_meet_words(walk *w, dil_error *err);
/* The embedding's values, [n_vocab][n_embd], of the walk alone: the head's are another matrix unless the model ties them. */
float *walk_embedding(walk *w, int *n_rows, int *n_columns);
float *walk_head(walk *w);

/*
 * How much the model's answers depend on each matrix's outputs: gradients dy of random directions of the logits, drawn with the
 * curvature of the divergence, so that the mean of (dy . error)^2 / 2 over tokens is the divergence that the error makes, to second order.
 */
typedef struct walk_fisher {
    int n_layer;
    int32_t *done;            /* [1]: sequences that went back so far; all of them: the rest are means, and final */
    float *token[NET_PLACES]; /* [n_layer][n_tokens]: |dy| of the place, mean 1 over the tokens */
    float *row[NET_PLACES];   /* [n_layer][n][rows of the place]: mean over the tokens of dy^2, an expert's where it was chosen */
    float *vocabulary;        /* [n_vocab]: mean of the squared gradient of the logits, p (1 - p) */
    float *head_token;        /* [n_tokens]: its sum over the words, mean 1 */
    float *used;              /* [n_vocab]: share of the tokens that are this word */
    float *input;             /* [n_embd][n_embd]: mean of dx dx^T at the embeddings */
    void *block;              /* all of the above, in one piece of n bytes that may be saved and read back */
    size_t n_bytes;
} walk_fisher;
/* All zero. [owned: free with walk_fisher_free] */
DIL_MUST_CHECK dil_status walk_fisher_new(walk *w, walk_fisher *out, dil_error *err);
void walk_fisher_free(walk_fisher *f);
/* The next batch forward and backward through the float model as it is in the file; the state is as after walk_begin and stays. */
DIL_MUST_CHECK dil_status walk_look_back(walk *w, uint64_t seed, walk_fisher *f, dil_error *err);

/* Through all layers and the last norm: a teacher. Nothing else can be done with the walk then. */
DIL_MUST_CHECK dil_status walk_to_end(walk *w, dil_progress_fn progress, void *user, dil_error *err);
/*
 * The mean divergence, in nats per token, of w's answers to n_sequences of the teacher's tokens, from `first` on, from the teacher's: w is of
 * a model with the same words, over at least as many sequences of its own, whose tokens are forgotten. With fn, gradients
 * g of the sum of divergences by the values of every parameter's tensor; a layer is read anew before it goes back, so that fn may change
 * what walk_read_by gives as soon as it sees a gradient.
 */
typedef void (*walk_gradient_fn)(void *ctx, const gguf_tensor *t, const float *g);
DIL_MUST_CHECK dil_status walk_distil(walk *w, walk *teacher, int first, int n_sequences, walk_gradient_fn fn, void *ctx,
                                      double *kld, dil_error *err);

#endif
