/* What the parts of compressing a model share. Private to compress*.c. */
#ifndef QUANTIZE_COMPRESS_INTERNAL_H
#define QUANTIZE_COMPRESS_INTERNAL_H

#include "quantize/compress.h"
#include "quantize/held.h"
#include "quantize/walk.h"

typedef struct compression {
    const compress_options *o;
    gguf *in;
    players p;
    team *workers;
    kernels k;
    walk *w;
    work *work;
    calibration c;
    compress_matrix *matrix;
    int attempt;    /* of a budget */
    held_text held; /* for measuring */
    float *h;       /* for looks */
    uint8_t *out;   /* room for the report and the bytes of the largest matrix */
    size_t out_bytes;
} compression;

/* CANCELLED: the user does not want to go on. */
DIL_MUST_CHECK dil_status compress_tell(const compression *c, const char *what, uint64_t done, uint64_t total, dil_error *err);
/* Room for what was chosen; zeroes c->matrix but for its predictions. */
DIL_MUST_CHECK dil_status compress_take_room(compression *c, dil_error *err);
/* Divergence of the file from the float one goes to r; nothing happens when no text was held back. */
DIL_MUST_CHECK dil_status compress_measure(compression *c, compress_report *r, const char *in_path, const char *out_path,
                                           dil_error *err);

/* compress_choose.c: formats as the options say; allowed: expected divergence, of a budget. */
DIL_MUST_CHECK dil_status compress_choose(compression *c, double allowed, compress_report *r, dil_error *err);
/* Of a budget: estimates are corrected by what was measured, until it is spent or the attempts are. Leaves the choice of the best one, whose
 * pieces are there. */
DIL_MUST_CHECK dil_status compress_spend_budget(compression *c, compress_report *r, const char *in_path, dil_error *err);

/* compress_round.c: every matrix in its format, kept as a piece of c->work under this name of this attempt. */
void compress_piece_name(const compression *c, const player *q, char out[128]);
DIL_MUST_CHECK dil_status compress_settle(compression *c, dil_error *err);
/* What rounding reported of pieces that were made before goes to c->matrix. */
DIL_MUST_CHECK dil_status compress_load_reports(compression *c, dil_error *err);

/* compress_write.c: the file, from the pieces. */
DIL_MUST_CHECK dil_status compress_write(compression *c, const char *path, dil_error *err);

#endif
