/*
 * A model made small: formats chosen by the game, codes and scales by best response, layer by layer on what the layers before have become.
 * Owns the order of that work, its resumption and its report.
 */
#ifndef QUANTIZE_COMPRESS_H
#define QUANTIZE_COMPRESS_H

#include "quantize/allocate.h"
#include "quantize/calibration.h"
#include "quantize/refine.h"
#include "quantize/round.h"

typedef struct compress_options {
    /* Which formats: one of these four. */
    dil_type type;       /* one for all, or the next wider one; DIL_TYPE_COUNT: not this way */
    const char *like;    /* those of another file of the same model; NULL */
    double bits;         /* per weight of the matrices; 0 */
    uint64_t size_bytes; /* of the file at most; 0 */
    const char *stats;   /* a file of dil calibrate --full; NULL: */
    const char *text_name;
    str text;
    int n_sequences, n_context;
    int most_sweeps; /* of best response; 0: error feedback only */
    int n_threads;
    bool resume;      /* go on with what an interrupted run has left */
    bool own_formats; /* formats that other engines do not know may be used */
    bool dry_run;     /* choose formats, write nothing */
    int refine_steps; /* of learning scales and norms from the float model at the end; 0: none */
    bool measure;     /* divergence of the result from the input, on the end of the text that calibration does not use */
    dil_progress_fn progress;
    void *user;
} compress_options;

#define COMPRESS_CURVE 16

/* Of one matrix. */
typedef struct compress_matrix {
    round_report round; /* sums over its experts; 0 where it was kept as it is */
    double predicted;   /* NAN: not known */
} compress_matrix;

typedef struct compress_report {
    players players; /* with the choices made; borrows the input, which the report keeps open */
    gguf *in;
    compress_matrix *matrix;    /* [players.n] */
    allocate_report allocation; /* of a wanted size only */
    bool allocated;
    char text[256]; /* name of the calibration text */
    int n_curve;
    allocate_report curve[COMPRESS_CURVE]; /* the same for other sizes, ascending; of a wanted size only */
    double predicted;                      /* nats per token; NAN: not known */
    bool measured;
    double kld, kld_error, same_top; /* measured */
    refine_result refined;           /* where it was wanted */
    bool written;
    uint64_t in_bytes, out_bytes;
    int n_sequences, n_context;
    double seconds[6]; /* of gradients and costs, allocation, rounding, writing, refining, measuring */
} compress_report;

/* [owned: compress_report_free] */
DIL_MUST_CHECK dil_status compress_file(compress_report *out, const char *in_path, const char *out_path, const compress_options *o,
                                        dil_error *err);
/* Calibration alone. full: stats_path is a file for options.stats; else for importance only. Of the options: text, sequences, threads, resume,
 * progress. */
DIL_MUST_CHECK dil_status compress_calibrate(const char *in_path, const char *stats_path, bool full, const compress_options *o,
                                             int *n_sequences, dil_error *err);
void compress_report_free(compress_report *r);

#endif
