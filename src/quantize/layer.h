/*
 * A lone layer of experts in f32, on inputs that are known: who reads what, what its matrices would be without some neurons, what comes
 * out. Owns the inputs, the choice of experts and what pruning left; one expert is in memory at a time.
 */
#ifndef QUANTIZE_LAYER_H
#define QUANTIZE_LAYER_H

#include "base/threads.h"
#include "file/gguf.h"
#include "kernels/kernels.h"
#include "model/model.h"
#include "train/net.h"

typedef struct layer_inputs {
    const float *rows; /* [n][n_embd]; NULL: standard normal ones */
    int n;
    uint64_t seed;
} layer_inputs;

typedef struct layer layer;

/* file, k and workers are borrowed. BAD_ARGUMENT: inputs that are not finite. [owned: free with layer_free] */
DIL_MUST_CHECK dil_status layer_new(layer **out, const gguf *file, const layer_inputs *in, const kernels *k, team *workers,
                                    dil_error *err);
void layer_free(layer *l);

const hparams *layer_hparams(const layer *l);
int layer_n_ff(const layer *l); /* of an expert: what pruning left */
int layer_n_inputs(const layer *l);
const float *layer_rows(const layer *l); /* [n_inputs][n_embd] */

/* Of every expert n_removed neurons go, those whose going costs least, and the others' outputs make up for them. Once. */
DIL_MUST_CHECK dil_status layer_prune(layer *l, int n_removed, dil_error *err);
/* Matrix of an expert as pruning left it; h [columns][columns]: mean of w^2 x x^T over what it reads, w the expert's weight in the output, drawn
 * towards a sphere as far as it stands on few inputs. w or h may be NULL. */
DIL_MUST_CHECK dil_status layer_matrix(layer *l, net_place place, int expert, float *w, float *h, dil_error *err);
/* What the layer says: y [n_inputs][n_embd]. */
DIL_MUST_CHECK dil_status layer_outputs(layer *l, float *y, dil_error *err);

#endif
