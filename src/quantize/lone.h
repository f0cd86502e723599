/*
 * A lone layer of experts in f32, on inputs that are known: who reads what, what its matrices would be without some neurons, what comes
 * out. Owns the inputs, the choice of experts and what pruning left; one expert is in memory at a time.
 */
#ifndef QUANTIZE_LONE_H
#define QUANTIZE_LONE_H

#include "base/threads.h"
#include "file/gguf.h"
#include "kernels/kernels.h"
#include "model/model.h"
#include "train/net.h"

typedef struct lone_inputs {
    const float *rows; /* [n][n_embd]; NULL: standard normal ones */
    int n;
    int n_held; /* the last of them: nothing is learnt from those, errors are measured on them; 0: measured on all of them */
    uint64_t seed;
} lone_inputs;

typedef struct lone lone;

/* file, k and workers are borrowed. BAD_ARGUMENT: inputs that are not finite. [owned: free with lone_free] */
DIL_MUST_CHECK dil_status lone_new(lone **out, const gguf *file, const lone_inputs *in, const kernels *k, team *workers,
                                   dil_error *err);
void lone_free(lone *l);

const hparams *lone_hparams(const lone *l);
int lone_n_ff(const lone *l); /* of an expert: what pruning left */
int lone_n_held(const lone *l);
const float *lone_held(const lone *l); /* [n_held][n_embd]: inputs errors are measured on */

/* Of every expert n_removed neurons go, those whose going costs least, and the others' outputs make up for them. Once. */
DIL_MUST_CHECK dil_status lone_prune(lone *l, int n_removed, dil_error *err);
/* Matrix of an expert as pruning left it; h [columns][columns]: mean of w^2 x x^T over what it reads of the inputs that are learnt from, w the expert's weight in the output, drawn
 * towards a sphere as far as it stands on few inputs. w or h may be NULL. */
DIL_MUST_CHECK dil_status lone_matrix(lone *l, net_place place, int expert, float *w, float *h, dil_error *err);
/* What the layer says to the inputs that are held: y [n_held][n_embd]. */
DIL_MUST_CHECK dil_status lone_outputs(lone *l, float *y, dil_error *err);

#endif
