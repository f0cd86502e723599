/* The report of dil quantize, read. */
#ifndef VIEW_REPORT_H
#define VIEW_REPORT_H

#include "formats/formats.h"
#include "view/page.h"

#define REPORT_MOST_BYTES 1e15

enum { REPORT_MOST_LAYERS = 512, REPORT_KINDS = 7, REPORT_HEADS = 2, REPORT_MOST_CURVE = 64, REPORT_MOST_ATTEMPTS = 32 };

/* The matrices of a layer, and those of no layer. */
extern const char *const report_kinds[REPORT_KINDS], *const report_heads[REPORT_HEADS];

/* Ways to choose the formats, in the order of their colours; what people call them, in English and Turkish. */
enum { REPORT_GAME, REPORT_CELLS, REPORT_GREEDY, REPORT_UNIFORM, REPORT_RANDOM, REPORT_PEER, REPORT_WAYS };
extern const char *const report_way_titles[REPORT_WAYS][2];
extern const double report_way_widths[REPORT_WAYS]; /* of lines: where some agree those below show at the sides; drawn backwards */

/* NAN where nothing is known. */
typedef struct report_matrix {
    bool there;
    dil_type type;
    int n_experts;
    double bits, divergence;    /* bits: of a weight */
    double plain, fed, settled; /* error of the outputs with plain rounding, with error feedback, at equilibrium */
    double sweeps, moved;       /* of best response; share of the codes that moved in the last one */
} report_matrix;

/* Files one way makes, by size. */
typedef struct report_way {
    double bytes[REPORT_MOST_CURVE + 1], divergence[REPORT_MOST_CURVE + 1];
    size_t n;
} report_way;

typedef struct report {
    char input[PAGE_NAME_BYTES], output[PAGE_NAME_BYTES], text[PAGE_NAME_BYTES];
    double n_sequences, n_tokens, in_bytes, out_bytes, bits, divergence, kld, kld_error, same_top, price, gap, seconds, memory;
    bool measured, allocated; /* kld, kld_error, same_top are there; price, gap */
    report_matrix head[REPORT_HEADS], of[REPORT_MOST_LAYERS][REPORT_KINDS];
    int n_layers;
    report_way ways[REPORT_WAYS]; /* none: n 0 in all of them */
    double chosen[REPORT_WAYS];   /* divergence of each way at the file's own size; NAN: not known */
    double codes, restless; /* looked at at the end, and those of them that could still do better alone; codes 0: not looked */
    double expected[REPORT_MOST_ATTEMPTS], found[REPORT_MOST_ATTEMPTS]; /* divergence of each attempt; NAN: not known */
    int n_attempts;
} report;

/* FORMAT names the field. */
DIL_MUST_CHECK dil_status report_read(report *out, const char *path, dil_error *err);

#endif
