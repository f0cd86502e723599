/* What the parts of pruning share. Private to prune*.c. */
#ifndef QUANTIZE_PRUNE_INTERNAL_H
#define QUANTIZE_PRUNE_INTERNAL_H

#include "quantize/prune.h"
#include "quantize/walk.h"

#define PRUNE_DAMPING 0.03f /* measured on the project's dense model: 0.001 .. 1 make 0.21, 0.21, 0.20, 0.20, 0.20, 0.22 nats */

typedef struct pruning {
    const prune_options *o;
    gguf *in;
    players p;
    team *workers;
    kernels k;
    walk *w;
    work *work;
    calibration c;
    prune_plan plan;
    double found; /* see prune_report */
    bool decoded; /* see prune_report */
} pruning;

/* CANCELLED: the user does not want to go on. */
DIL_MUST_CHECK dil_status prune_tell(const pruning *p, const char *what, uint64_t done, uint64_t total, dil_error *err);
/* Room for the plan's lists. */
DIL_MUST_CHECK dil_status prune_plan_new(prune_plan *out, prune_kind kind, int n_lists, int n_before, int n_removed,
                                         dil_error *err);
void prune_plan_free(prune_plan *p);
/* Walks through the model and fills p->plan. change: later layers see what the earlier ones have become, and what changes is kept. */
typedef dil_status (*prune_run_fn)(pruning *p, const char *what, bool change, dil_error *err);
/* The plan for at most n_most of n_before things of every layer, in steps (in finer ones where not one step is within the budget): all, or as many as the budget allows on the calibration
 * text. Sets p->plan and p->found. BAD_ARGUMENT: the budget does not allow one step. */
DIL_MUST_CHECK dil_status prune_settle(pruning *p, prune_kind kind, int n_before, int n_most, int step, int finer, prune_run_fn run,
                                       dil_error *err);
/* [n_before], true: stays. */
void prune_kept(const prune_plan *p, int list, bool *kept);

/* Each finds who leaves and sets p->plan. Matrices that change are kept as pieces of p->work, under their tensors' names, in the output's
 * format: see prune_down_type. */
DIL_MUST_CHECK dil_status prune_find_neurons(pruning *p, dil_error *err);
DIL_MUST_CHECK dil_status prune_find_experts(pruning *p, dil_error *err);
DIL_MUST_CHECK dil_status prune_find_layers(pruning *p, dil_error *err);
DIL_MUST_CHECK dil_status prune_find_blocks(pruning *p, dil_error *err);
/* After a walk through the pruned model: p->found, how far its answers on the calibration text are from the whole model's. */
DIL_MUST_CHECK dil_status prune_look_again(pruning *p, dil_error *err);

/* The format of a matrix whose values have changed: its own, or F16 where that was quantized. */
dil_type prune_down_type(dil_type type);

/* Bytes of the file that prune_write would write, up to its padding. */
uint64_t prune_size(const pruning *p);
uint64_t prune_stored(const pruning *p); /* the same without the blocks that are zero, with a bit for each block */
DIL_MUST_CHECK dil_status prune_check(const pruning *p, dil_error *err); /* UNSUPPORTED: a tensor nobody would know how to cut */
DIL_MUST_CHECK dil_status prune_write(const pruning *p, const char *path, dil_error *err);

#endif
