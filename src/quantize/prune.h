/*
 * A model with less structure: neurons of feed-forward networks, experts, or layers taken out where that costs least, each removal judged by
 * what the ones before it have left. Owns the order of that work, its file and its report.
 */
#ifndef QUANTIZE_PRUNE_H
#define QUANTIZE_PRUNE_H

#include "quantize/allocate.h"
#include "quantize/calibration.h"

typedef enum prune_kind {
    PRUNE_NEURONS, /* of every layer the same number */
    PRUNE_EXPERTS, /* of every layer the same number */
    PRUNE_LAYERS,
    PRUNE_BLOCKS /* of 32 weights of a row, in every matrix of every layer: zero, but there */
} prune_kind;

typedef struct prune_options {
    prune_kind kind;
    double share;  /* blocks: so much of each matrix; neurons, experts: at most so much of them; 1: as many as the budget allows */
    int n_layers;  /* layers: at most so many */
    double budget; /* not of blocks: divergence on the calibration text in nats per token, at most; 0: no limit */
    const char *stats; /* a file of dil calibrate for this very file */
    const char *text_name;
    str text;              /* the result is measured on its end; n 0: not measured */
    size_t most_curvature; /* floats for what matrices read: walk_limit; 0: the walk's own limit */
    int n_threads;
    bool dry_run; /* everything is found out, nothing is written */
    dil_progress_fn progress;
    void *user;
} prune_options;

/* Who leaves: lists (one per layer; layers: a single one) of n_removed things out of n_before each. Costs of neurons and experts are estimates
 * to second order, layer by layer: prune_report's `found` says how far they hold. */
typedef struct prune_plan {
    prune_kind kind; /* blocks: no lists, the numbers are of all of them */
    int n_lists, n_before, n_removed;
    int32_t *removed; /* [n_lists][n_removed]: in the order they go */
    double *cost; /* [n_lists][n_removed]: expected divergence of the list's removals so far, nats per token; of layers: measured */
} prune_plan;

typedef struct prune_report {
    prune_plan plan;
    int n_layer;
    double expected;           /* nats per token, the lists' sum */
    uint64_t stored_bytes;     /* of blocks: the file's size if none of them were stored, only which they are */
    double found;              /* what it is on the calibration text, or on as much of it as is looked at */
    bool decoded;              /* matrices had been quantized, were changed, and are F16 now */
    bool compared;             /* what follows is there */
    allocate_report quantized; /* the input quantized, not pruned, at the output's size, of blocks at stored_bytes */
    bool measured;
    char not_measured[256]; /* why, where there was a text; empty otherwise */
    double kld, kld_error, same_top;
    uint64_t in_bytes, out_bytes;
    int n_sequences, n_context; /* of the statistics */
    char text[256];             /* their text's name */
    double seconds[3];          /* of finding, writing, measuring */
} prune_report;

/* Of a model of which only the amount is said: experts where there are some, else neurons. */
DIL_MUST_CHECK dil_status prune_default_kind(prune_kind *out, const char *path, dil_error *err);

/* UNSUPPORTED: the model has no such structure, or none that can be taken out. BAD_ARGUMENT: the share is less than one step, or too much would
 * go. LIMIT: the budget allows nothing. [owned: prune_report_free] */
DIL_MUST_CHECK dil_status prune_file(prune_report *out, const char *in_path, const char *out_path, const prune_options *o,
                                     dil_error *err);
void prune_report_free(prune_report *r);

#endif
