/*
 * The proposal's presets: structure leaves until a share of it is gone or the quality budget is spent, then the rest gets a number of bits.
 * Owns their figures and the order of that work; pruning and quantizing are prune.h's and compress.h's.
 */
#ifndef QUANTIZE_PRESET_H
#define QUANTIZE_PRESET_H

#include "quantize/compress.h"
#include "quantize/prune.h"

typedef struct preset {
    const char *name;
    double bits;   /* per weight: at least so many, more where the formats that fit are wider or the budget wants it */
    double share;  /* of the experts of each layer, or of its neurons where there are none: at most so much goes */
    double budget; /* divergence from the input, nats per token */
} preset;

/* "dusuk", "dengeli", "yuksek"; NULL: there is none of that name. */
const preset *preset_find(const char *name);

typedef struct preset_report {
    const preset *preset;
    double budget;         /* the one that counted */
    double quantized_cost; /* expected: of the preset's bits for the whole model */
    prune_kind kind;
    int n_before, n_removed; /* of each layer; 0 removed: the budget, or the model, does not allow it */
    double pruned_cost;      /* measured on the text's end; 0 when nothing went */
    uint64_t whole_bytes;    /* the whole model at the output's size: what it would take, */
    double whole_cost;       /* and cost, expected; NAN: formats do not go so low */
    double seconds;          /* of everything before the file itself was made */
    compress_report file;
} preset_report;

/* o: as for compress_file, with a text; bits, budget (0: the preset's), statistics and measuring are the preset's affair. What was done is kept
 * beside out_path, in a folder of its own, for o->resume. [owned: preset_report_free] */
DIL_MUST_CHECK dil_status preset_file(preset_report *out, const preset *p, const char *in_path, const char *out_path,
                                      const compress_options *o, dil_error *err);
void preset_report_free(preset_report *r);

#endif
