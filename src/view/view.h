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
    bool dark;      /* light on dark instead of dark on light */
    bool any_theme; /* nobody asked for one: a page that can follows its reader's */
    bool turkish;   /* English otherwise */
    /* Of the flock */
    bool one_layer;           /* show `layer`; otherwise the picture chooses */
    uint32_t layer, n_frames; /* n_frames: steps at most; 0: as many as usual */
    uint64_t frame;           /* the last step shown, counted from 1; 0: the last there is */
    const char *text;         /* run now, or that of the log; NULL: none */
    size_t text_bytes;
    int32_t n_threads; /* 0: all */
    dil_progress_fn progress;
    void *user;
} view_request;

/* The bytes of the picture are added to out: STRBUF(VIEW_MOST_BYTES), freed by the caller. */
typedef dil_status (*view_picture)(strbuf *out, const view_request *r, dil_error *err);

/* Training curves of metrics logs: CSV files with a header line and a column `step`. */
DIL_MUST_CHECK dil_status view_metrics(strbuf *out, const view_request *r, dil_error *err);
/* Which experts serve which text: router logs of one model, one per text. */
DIL_MUST_CHECK dil_status view_experts(strbuf *out, const view_request *r, dil_error *err);

/* How often experts are found in memory, by its size, for each policy: router logs, a panel each. */
DIL_MUST_CHECK dil_status view_cache(strbuf *out, const view_request *r, dil_error *err);

/* The experts of a model as a flock of birds that tokens pull at: a GGUF file and its router log or a text; or a JSON file (docs/USAGE.md). */
DIL_MUST_CHECK dil_status view_flock(strbuf *out, const view_request *r, dil_error *err);
/* One picture for each step, from the first on, number counts from 1; no HTML. bytes is [borrowed during the call]. */
typedef dil_status (*view_keep)(void *ctx, uint32_t number, uint32_t n, str bytes, dil_error *err);
DIL_MUST_CHECK dil_status view_flock_frames(const view_request *r, view_keep keep, void *ctx, dil_error *err);

/* Bits of each matrix, and what that costs: one report of dil quantize. */
DIL_MUST_CHECK dil_status view_bits(strbuf *out, const view_request *r, dil_error *err);

/* The picture of that name, "metrics", "experts", "flock", "cache" or "bits"; NULL: none. */
view_picture view_find(const char *name);
/* The first n bytes of a file, zeros where it is shorter. */
DIL_MUST_CHECK dil_status view_head(const char *path, char *out, size_t n, dil_error *err);
/* The format a file's extension means; BAD_ARGUMENT for others. */
DIL_MUST_CHECK dil_status view_format_of(const char *path, view_format *out, dil_error *err);

#endif
