/* Names beside points: each stands where nothing else does, or not at all. */
#ifndef VIEW_LABELS_H
#define VIEW_LABELS_H

#include "view/canvas.h"

typedef struct labels {
    canvas *c;
    box inside; /* nothing stands outside of it */
    box *taken; /* [most], of the caller: n_taken of them are in use */
    int32_t n_taken, most;
} labels;

/* Nothing may stand there. */
void labels_take(labels *l, box at);
/* text beside (to the right, or first to the left), above or below what reaches `apart` far around (x, y), on a ground that lets little
 * through. */
void labels_put(labels *l, double x, double y, double apart, bool left_first, const char *text, canvas_font font,
                canvas_colour colour);

#endif
