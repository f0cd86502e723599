/* Birds, their neighbours and the token on a canvas. */
#ifndef VIEW_FLOCK_BIRDS_H
#define VIEW_FLOCK_BIRDS_H

#include "view/canvas.h"
#include "view/flock.h"

/* What loads and prices are measured with: the greatest of the steps. */
typedef struct flock_scale {
    double load, price;    /* price: of its magnitude; 0: nothing is known */
    double least_price;    /* -price, or 0 where none is negative */
    double x0, y0, x1, y1; /* the box around all homes and targets */
} flock_scale;
/* Without steps or what a step would tell the values are 0. */
flock_scale flock_scale_of(const flock_scene *s, const flock_layer *l);

/* The radius of the bird with the greatest load, where n birds have that much room. */
double flock_radius(double w, double h, int32_t n);
/* A share of that radius: the area is as large as the load. */
double flock_size(const flock_scale *scale, double load);
canvas_colour flock_colour(const canvas *c, const flock_scale *scale, double price);

/* The outline of a bird that flies to the right, its wings one wide on each side: a polygon, the same in every picture. */
#define FLOCK_OUTLINE 50
const double (*flock_outline(void))[2];
/* A line between neighbours; strength: 0..1; fade: 1, less where there are very many. */
void flock_stroke(canvas *c, const double x[2], const double y[2], double strength, double fade);
/* For that many edges. */
double flock_fade(int64_t n_edges);
/* heading: radians, 0 to the right, downwards positive. */
void flock_draw_bird(canvas *c, double x, double y, double radius, double heading, canvas_colour colour);
/* All of them as they are at step (steps counted from 0; without steps: at home). */
DIL_MUST_CHECK dil_status flock_draw(canvas *c, box at, const flock_scene *s, const flock_layer *l, uint32_t step, dil_error *err);
/* The name of a bird: its own, or its number; returns out. */
char *flock_name(const flock_scene *s, int32_t bird, char out[FLOCK_NAME_BYTES]);

#endif
