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
    /* Which formats: one of these five; bits beside a budget: at least so many. */
    dil_type type;       /* one for all, or the next wider one; DIL_TYPE_COUNT: not this way */
    const char *like;    /* those of another file of the same model; NULL */
    double bits;         /* per weight of the matrices; 0 */
    uint64_t size_bytes; /* of the file at most; 0 */
    double budget;       /* measured divergence at most, nats per token: the smallest file within it that a few attempts find; 0 */
    /* Speed, with bits, size_bytes or a budget. */
    const double *weights_per_second; /* [DIL_TYPE_COUNT]: as players_time takes them; NULL: not known */
    double second_price;              /* nats per token that a second per token is worth */
    const char *stats;                /* a file of dil calibrate --full; NULL: from the text */
    const char *text_name;
    str text; /* with statistics: for measuring only; may be empty */
    int n_sequences, n_context;
    int most_sweeps;       /* of best response; 0: error feedback only */
    size_t most_curvature; /* floats for what matrices read: walk_limit; 0: the walk's own limit */
    int n_threads;
    bool resume;           /* go on with what an interrupted run has left */
    bool own_formats;      /* formats that other engines do not know may be used */
    bool dry_run;          /* choose formats, write nothing */
    int refine_steps;      /* of learning scales and norms from the float model at the end; 0: none */
    bool measure;          /* divergence of the result from the input, on the end of the text that calibration does not use */
    const char *reference; /* ... from this file, which the input was made from; NULL */
    double distance;       /* divergence of the input from that file */
    dil_progress_fn progress;
    void *user;
} compress_options;

#define COMPRESS_CURVE 16
#define COMPRESS_MOST_ATTEMPTS 5

/* Of a budget: a file that was made, and what it costs. */
typedef struct compress_attempt {
    uint64_t bytes;
    double expected, found; /* nats per token; found: measured, as expected where nothing can be measured */
} compress_attempt;

/* Of one matrix. */
typedef struct compress_matrix {
    round_report round;    /* sums over its experts; 0 where it was kept as it is */
    double predicted;      /* NAN: not known */
    int curvature_columns; /* rounded in parts of so many columns, that know nothing of each other; 0: all of them */
} compress_matrix;

typedef struct compress_report {
    players players; /* with the choices made; borrows the input, which the report keeps open */
    gguf *in;
    compress_matrix *matrix;    /* [players.n] */
    allocate_report allocation; /* of a wanted size only */
    bool allocated;
    double second_price; /* of options */
    int n_attempts;      /* of a budget; the file is number `taken` of them */
    int taken;
    compress_attempt attempt[COMPRESS_MOST_ATTEMPTS];
    char text[256]; /* name of the calibration text */
    int n_curve;
    allocate_report curve[COMPRESS_CURVE]; /* the same for other sizes, ascending; of a wanted size only */
    double predicted;                      /* nats per token; NAN: not known */
    bool measured;
    char not_measured[256];          /* why, where there was a text; empty otherwise */
    double kld, kld_error, same_top; /* measured */
    refine_result refined;           /* where it was wanted */
    bool written;
    uint64_t in_bytes, out_bytes;
    int n_sequences, n_context;
    double seconds[6]; /* of gradients and costs, allocation (all attempts), rounding, writing, refining, measuring */
} compress_report;

/* LIMIT: no file is within the size or the budget. [owned: compress_report_free] */
DIL_MUST_CHECK dil_status compress_file(compress_report *out, const char *in_path, const char *out_path, const compress_options *o,
                                        dil_error *err);
/* Calibration alone. full: stats_path is a file for options.stats; else for importance only. Of the options: text, sequences, threads, resume,
 * progress. */
DIL_MUST_CHECK dil_status compress_calibrate(const char *in_path, const char *stats_path, bool full, const compress_options *o,
                                             int *n_sequences, dil_error *err);
/* Of everything a result depends on: the input, the options, the files they name. */
DIL_MUST_CHECK dil_status compress_key(uint64_t *out, const char *in_path, const compress_options *o, dil_error *err);
void compress_report_free(compress_report *r);

#endif
