/*
 * Matrices made small without a language model around them: a lone layer of experts (model/hparams.h), whose inputs are known or drawn, or a
 * file of any matrices, whose inputs are not. Formats are chosen by the game of allocate.h, codes and scales by best response (round.h).
 * Owns the order of that work; what a layer's matrices read is layer.h's.
 */
#ifndef QUANTIZE_MATRICES_H
#define QUANTIZE_MATRICES_H

#include "quantize/allocate.h"
#include "quantize/round.h"

typedef struct matrices_options {
    double bits; /* of a weight, on average, at most; where formats that fit are all wider: the narrowest of them */
    /* Of a lone layer: at most so many of each expert's neurons go; of other matrices: so many blocks of 32 weights become 0. 0..0.95 */
    double prune;
    double budget; /* of a lone layer: relative error of its outputs that pruning alone may cost; 0: no limit */
    /* Of a lone layer: [n_inputs][n_embd]; NULL: n_inputs standard normal ones (0: enough for its shape). The last eighth of them is
     * not learnt from: errors are measured on it; fewer than 64 are all learnt from and measured on. */
    const float *inputs;
    int n_inputs;
    uint64_t seed;   /* of inputs that are drawn */
    int most_sweeps; /* of best response */
    int n_threads;   /* 1..TEAM_MAX */
    dil_progress_fn progress;
    void *user;
} matrices_options;

typedef struct matrices_report {
    players players; /* with the choices made; borrows the input, which the report keeps open */
    gguf *in;
    round_report *round; /* [players.n]: sums over their experts */
    allocate_report allocation;
    bool lone;
    int n_before, n_removed;                /* neurons of an expert, or blocks */
    double pruned_error;                    /* relative: |y' - y|^2 / |y|^2, of a lone layer after pruning, */
    double error;                           /* and of the file that was written */
    uint64_t in_bytes, out_bytes, n_values; /* of the files; weights of the input's matrices */
    double seconds;
} matrices_report;

/* Whether a file is for this: a lone layer, or matrices without a known network. */
DIL_MUST_CHECK dil_status matrices_suit(bool *out, const char *path, dil_error *err);
/* BAD_ARGUMENT: options, inputs that are not finite; FORMAT: no matrices. [owned: matrices_report_free] */
DIL_MUST_CHECK dil_status matrices_file(matrices_report *out, const char *in_path, const char *out_path, const matrices_options *o,
                                        dil_error *err);
void matrices_report_free(matrices_report *r);

#endif
