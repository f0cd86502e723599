/* Reading what another engine's llama-bench prints: JSON, JSON lines, CSV or a Markdown table. Untrusted text. */
#ifndef EVALUATE_PEER_H
#define EVALUATE_PEER_H

#include "dilmodeli.h"
#include "evaluate/bench.h"

typedef struct peer_row {
    int32_t n_prompt, n_gen, depth;
    double tokens_per_second;
} peer_row;

/* Fills rows[0..*n), at most `most`; lines around the table do not matter. FORMAT when there is no row. */
DIL_MUST_CHECK dil_status peer_parse(const char *text, peer_row *rows, int32_t most, int32_t *n, dil_error *err);

#endif
