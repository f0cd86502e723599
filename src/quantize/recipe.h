/*
 * The mixtures of llama.cpp's llama-quantize: which format each of its file types gives each matrix, with an importance matrix. Owns that
 * description, which is the baseline of our own choice; mixtures of formats that are not offered here (IQ1 to IQ3, ternary ones) are left out.
 * Checked against the program itself by tests/python/test_recipe_peer.py.
 */
#ifndef QUANTIZE_RECIPE_H
#define QUANTIZE_RECIPE_H

#include "model/hparams.h"
#include "quantize/players.h"

/* What a mixture looks at beside names and shapes. */
typedef struct recipe_model {
    int n_layer, n_head, n_head_kv, n_experts; /* n_experts 0: dense */
    bool tied;                                 /* the embedding is the output matrix too */
} recipe_model;

recipe_model recipe_model_of(const hparams *h, const players *p);

int recipe_count(void);
const char *recipe_name(int recipe); /* "Q4_K_M"; recipe: 0 .. recipe_count() - 1 */
/* The format of a matrix; one that narrower blocks replace where the rows are no multiple of its block. */
dil_type recipe_type(int recipe, const recipe_model *m, const player *p);

#endif
