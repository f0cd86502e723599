/*
 * Muon (Jordan et al. 2024): momentum made orthogonal by Newton-Schulz steps, matrix by matrix. Owns the scratch; the
 * momentum lies where AdamW would keep its first moment.
 */
#ifndef TRAIN_MUON_H
#define TRAIN_MUON_H

#include "train/net.h"

typedef struct muon muon;

/* all: experts and dense feed-forward networks too, not attention alone. [owned: free with muon_free] */
DIL_MUST_CHECK dil_status muon_new(muon **out, net *n, bool all, team *workers, const kernels *k, dil_error *err);
void muon_free(muon *m);
bool muon_takes(const muon *m, const parameter *p);
/* momentum: [net_size]. Step of every matrix: lr * 0.2 * sqrt(longer side), which has the size of AdamW's (Liu et al. 2025). */
void muon_step(muon *m, float *momentum, float lr, float weight_decay, float g_scale);

#endif
