/*
 * Pictures of what a run or a model did, for people: a picture is asked for with a view_request and comes as the bytes of a
 * file. Equal requests on equal inputs give equal bytes. One file per picture (metrics.c, experts.c, bits.c); they draw with chart.h
 * and canvas.h, and page.h puts them into a web page.
 */
#ifndef VIEW_VIEW_H
#define VIEW_VIEW_H

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"
#include "dilmodeli.h"

#define VIEW_MOST_INPUTS 8 /* as many as there are colours that everybody can tell apart */
#define VIEW_MOST_BYTES ((size_t)256 << 20)

typedef enum view_format { VIEW_SVG, VIEW_PNG, VIEW_PDF, VIEW_HTML } view_format;

typedef struct view_request {
    const char *const *inputs; /* [n_inputs]: paths; the names of the picture's series are made from them */
    int n_inputs;              /* 1..VIEW_MOST_INPUTS */
    view_format format;
    bool dark;    /* light on dark instead of dark on light */
    bool turkish; /* English otherwise */
} view_request;

/* The bytes of the picture are added to out: STRBUF(VIEW_MOST_BYTES), freed by the caller. */
typedef dil_status (*view_picture)(strbuf *out, const view_request *r, dil_error *err);

/* Training curves of metrics logs: CSV files with a header line and a column `step`. */
DIL_MUST_CHECK dil_status view_metrics(strbuf *out, const view_request *r, dil_error *err);
/* Which experts serve which text: router logs of one model, one per text. */
DIL_MUST_CHECK dil_status view_experts(strbuf *out, const view_request *r, dil_error *err);

/* Bits of each matrix, and what that costs: one report of dil quantize. */
DIL_MUST_CHECK dil_status view_bits(strbuf *out, const view_request *r, dil_error *err);

/* The picture of that name, "metrics", "experts" or "bits"; NULL: none. */
view_picture view_find(const char *name);
/* The format a file's extension means; BAD_ARGUMENT for others. */
DIL_MUST_CHECK dil_status view_format_of(const char *path, view_format *out, dil_error *err);

#endif
