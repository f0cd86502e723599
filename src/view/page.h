/* What surrounds a picture: its title and names of series on the canvas, and the web page that holds the SVG and the figures. */
#ifndef VIEW_PAGE_H
#define VIEW_PAGE_H

#include "view/canvas.h"

#define PAGE_NAME_BYTES 128

/* Names of the inputs for people: the file's name without its ending, or its folder's where the file is called metrics. Equal
 * ones are numbered. */
void page_names(const view_request *r, char names[VIEW_MOST_INPUTS][PAGE_NAME_BYTES]);

/* Cells of the figures; rows are ended by page_row_end. The first row is the head. */
typedef struct page_figures {
    strbuf html;
    bool head; /* a row was ended */
} page_figures;
#define PAGE_FIGURES ((page_figures){STRBUF(VIEW_MOST_BYTES), false})
/* Text of a page: markup as numbers. */
void page_text(strbuf *out, const char *text);
void page_cell(page_figures *f, const char *text);
void page_row_end(page_figures *f);

/* Adds the finished picture to out: as canvas_finish, and for HTML one file that needs no other, the SVG with the figures as a
 * table under it. */
DIL_MUST_CHECK dil_status page_finish(canvas *c, const view_request *r, const char *title, const char *about, const page_figures *f,
                                      strbuf *out, dil_error *err);

#endif
