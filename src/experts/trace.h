/*
 * Router logs: which experts every token chose in every layer, by rank, and how much they weighed. Written while a model runs,
 * read back for the simulator. It owns the file format; it does not know why an expert was chosen.
 *
 * File (little-endian): magic "DILROUTE", u32 version, header bytes, layers, experts used, flags (1: weights), name bytes; per
 * layer u64 bytes of an expert, u32 experts, u32 0; the name; u32 check of all that. Then one record per token: u8 flags (1: it
 * begins a pass), the experts of all layers that have some with the fewest bits each, padded to a byte, one byte per weight if
 * there are weights, u32 check of its number and itself. A finished file ends with u8 2, u64 tokens, u32 check. The check is
 * the low half of FNV-1a, which notices every single changed byte.
 */
#ifndef EXPERTS_TRACE_H
#define EXPERTS_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dilmodeli.h"

#define TRACE_MOST_LAYERS 4096
#define TRACE_MOST_EXPERTS 65535
#define TRACE_MOST_USED 1024

typedef struct trace_layer {
    uint64_t bytes;     /* of one expert, at least 1 where there are experts */
    uint32_t n_experts; /* 0: none; else at least n_used */
} trace_layer;

/* ---- reading ---- */

typedef struct trace {
    char *name; /* of the model */
    uint32_t n_layers, n_used;
    trace_layer *layers; /* [n_layers] */
    uint32_t n_places;   /* layers with experts */
    uint32_t *layer_of;  /* [n_places] */
    uint64_t n_tokens;
    uint16_t *chosen;       /* [n_tokens, n_places, n_used], by rank */
    uint8_t *weights;       /* the same shape, in 255ths; NULL: none were written */
    uint8_t *begins;        /* [n_tokens]: 1 where a pass begins */
    bool finished;          /* the writer came to its end */
    uint64_t ignored_bytes; /* of the last record, when it is incomplete */
} trace;

/* FORMAT names the byte and what was wanted; LIMIT; IO; NO_MEMORY. [out: owned: free with trace_free] */
DIL_MUST_CHECK dil_status trace_open(trace **out, const char *path, dil_error *err);
DIL_MUST_CHECK dil_status trace_parse(trace **out, const void *bytes, size_t n, dil_error *err); /* the same from memory */
void trace_free(trace *t);                                                                       /* NULL is allowed */

static inline const uint16_t *trace_chosen(const trace *t, uint64_t token, uint32_t place)
{
    return t->chosen + (token * t->n_places + place) * t->n_used;
}

/* ---- writing ---- */

typedef struct trace_writer trace_writer;

typedef struct trace_options {
    const char *name;          /* [borrowed during the call, with layers] */
    const trace_layer *layers; /* [n_layers] */
    uint32_t n_layers, n_used;
    uint32_t most_tokens; /* of a pass */
    bool weights;
} trace_options;

/* Writes beside path; the file appears there on trace_writer_commit. What was written before can be read if that never comes. */
DIL_MUST_CHECK dil_status trace_writer_open(trace_writer **out, const char *path, const trace_options *o, dil_error *err);
/* One pass: begin, put every (token, layer with experts) once, from any thread, end. experts, weights [n_used] by rank; weights
 * in 0..1, ignored (may be NULL) when none are written. */
DIL_MUST_CHECK dil_status trace_writer_begin(trace_writer *w, uint32_t n_tokens, dil_error *err);
void trace_writer_put(trace_writer *w, uint32_t token, uint32_t layer, const uint16_t *experts, const float *weights);
DIL_MUST_CHECK dil_status trace_writer_end(trace_writer *w, dil_error *err);
DIL_MUST_CHECK dil_status trace_writer_commit(trace_writer *w, dil_error *err); /* the writer is gone either way */
void trace_writer_abort(trace_writer *w);                                       /* nothing stays; NULL is allowed */

#endif
