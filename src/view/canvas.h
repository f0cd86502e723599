/*
 * What a picture is drawn on: lines, rectangles and text in a theme's colours, and the file they become. The only user of
 * cairo. Lengths are pixels of a picture at its normal size (PNG files have twice as many); y grows downwards. Drawing never
 * fails: what goes wrong is said by canvas_finish.
 */
#ifndef VIEW_CANVAS_H
#define VIEW_CANVAS_H

#include <stddef.h>

#include "view/view.h"

#define CANVAS_SCALE 2 /* pixels of a PNG file per pixel */
#define CANVAS_MOST_HEIGHT 15000

typedef struct canvas canvas;

typedef struct box {
    double x, y, w, h;
} box;

/* Colours by their part in the picture; series follow from CANVAS_SERIES on, VIEW_MOST_INPUTS of them. */
enum { CANVAS_PAPER, CANVAS_PANEL, CANVAS_INK, CANVAS_FAINT_INK, CANVAS_GRID, CANVAS_AXIS, CANVAS_SERIES };

typedef struct canvas_colour {
    double r, g, b; /* 0..1 */
} canvas_colour;

typedef enum canvas_align { CANVAS_LEFT, CANVAS_CENTRE, CANVAS_RIGHT } canvas_align;

/* A picture that counts as one of r->format (HTML: SVG). UNSUPPORTED when there is no font. [out: owned: canvas_free] */
DIL_MUST_CHECK dil_status canvas_new(canvas **out, const view_request *r, double width, double height, dil_error *err);
void canvas_free(canvas *c); /* NULL is allowed */
/* Adds the finished file to out. title and about (what can be seen, names included) become the description that an SVG file
 * carries for those who cannot see it. Nothing can be drawn afterwards. */
DIL_MUST_CHECK dil_status canvas_finish(canvas *c, const char *title, const char *about, strbuf *out, dil_error *err);

canvas_colour canvas_theme(const canvas *c, int part);
canvas_colour canvas_mix(canvas_colour a, canvas_colour b, double share_of_b);

void canvas_fill(canvas *c, box at, canvas_colour colour);
void canvas_line(canvas *c, double x0, double y0, double x1, double y1, canvas_colour colour, double width);
void canvas_dot(canvas *c, double x, double y, double radius, canvas_colour colour);
void canvas_ring(canvas *c, double x, double y, double radius, canvas_colour colour, double width);
/* Through n points. opacity 0..1. */
void canvas_path(canvas *c, const double *x, const double *y, size_t n, canvas_colour colour, double width, double opacity);
/* The inside of a polygon of n points. */
void canvas_shape(canvas *c, const double *x, const double *y, size_t n, canvas_colour colour, double opacity);
/* What is drawn until canvas_unclip stays inside. */
void canvas_clip(canvas *c, box at);
void canvas_unclip(canvas *c);

/* One line of UTF-8 text, y: its base line; x: its left end, middle or right end. */
typedef struct canvas_font {
    double size;
    bool bold;
} canvas_font;
void canvas_text(canvas *c, double x, double y, const char *text, canvas_font font, canvas_align align, canvas_colour colour);
/* The same, read upwards: x is the base line, y the text's middle. */
void canvas_text_up(canvas *c, double x, double y, const char *text, canvas_font font, canvas_colour colour);
double canvas_text_width(canvas *c, const char *text, canvas_font font);
/* text into out, shortened with an ellipsis in its middle until it is at most width wide; returns out. */
char *canvas_fit(canvas *c, const char *text, canvas_font font, double width, char *out, size_t out_size);
/* Lines of at most width, broken at spaces, from the base line y on; returns the base line below the last one. With draw false
 * it only measures. */
double canvas_wrap(canvas *c, box at, const char *text, canvas_font font, canvas_colour colour, bool draw);

#endif
