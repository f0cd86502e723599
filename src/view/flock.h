/*
 * A flock in time, as its pictures need it: where each bird is at home, who its neighbours are, and step by step where it flies, how
 * much it is used and what it costs. Birds are the experts of a layer, or the candidates of a decision; a step is a token, or a task.
 *
 *     flock_plane.c   homes and neighbours from rows of any width        flock_read.c   a model and its router log or a text
 *     flock_fly.c     load, price, flight and curves from choices        flock_json.c   the same from a JSON file
 *     flock_game.c    the choices of one batch as a game, settled        flock.c, flock_page.c   the still picture, the web page
 */
#ifndef VIEW_FLOCK_H
#define VIEW_FLOCK_H

#include "base/mem.h"
#include "theorem/neighbours.h"
#include "view/view.h"

#define FLOCK_MOST_BIRDS 1024
#define FLOCK_MOST_STEPS 10000
#define FLOCK_STEPS 512 /* unless --frames says otherwise */
#define FLOCK_NOBODY UINT16_MAX
#define FLOCK_NAME_BYTES 64

typedef struct flock_point {
    float x, y;
} flock_point;

/* How the flock flies, one number per step. */
typedef enum flock_curve {
    FLOCK_ALIGNMENT,  /* cosine of a bird's velocity with its neighbours' mean velocity */
    FLOCK_CHANCE,     /* the same for velocities dealt out to the birds by lot */
    FLOCK_COHESION,   /* distance to the centre of the neighbours, widths of the flock */
    FLOCK_SEPARATION, /* distance to the nearest neighbour, likewise */
    FLOCK_VIOLATION,  /* greatest load over the mean, - 1 */
    FLOCK_CURVES
} flock_curve;

/* Best responses of batches: what all pay together, and the largest gain any single player had, before the first move and after each. */
typedef struct flock_game {
    double *potential, *gap; /* [n]; gap may be NULL */
    size_t n;                /* moves + 1; 0: no game */
    int32_t n_players, batch, n_sweeps, n_before,
        n_after;  /* tokens, of a batch; experts that are loaded before and after; 0: not known */
    double price; /* of loading an expert, in weights; 0: not known */
} flock_game;

typedef struct flock_layer {
    int32_t index; /* of the model */
    int32_t n;     /* birds */
    /* By flock_place */
    flock_point *home;      /* [n]: 0..1, the longer side of all of them is 1; y grows downwards */
    double corner[2], side; /* of the plane before that */
    swarm_graph graph;      /* weight: likeness, 0..1 */
    int32_t n_near;         /* neighbours of each before lists were made mutual: 7, or all others; 0: others were given */
    double kept;            /* how many of them are among the n_near nearest in the plane, mean over the birds */
    /* By flock_fly, [n_steps] or [n_steps][n]; NULL: not known */
    flock_point *at, *target; /* target: where the token is, NAN: nowhere */
    float *load, *price;      /* load: mean 1 */
    uint16_t *chosen;         /* [n_steps][flock.n_used], FLOCK_NOBODY behind the last */
    double *curve[FLOCK_CURVES];
    flock_game game;
} flock_layer;

typedef struct flock_scene {
    arena *memory;
    char *title, *model;             /* NULL: as usual; the file's name */
    bool experts;                    /* tokens choose experts; false: tasks choose candidates */
    bool random;                     /* tokens are rows of random numbers */
    bool likeness;                   /* neighbours by cosine; false: by distance */
    char (*names)[FLOCK_NAME_BYTES]; /* [n of layer 0]; NULL: numbers */
    char **texts;                    /* [n_steps]: what the token says; NULL: not known */
    uint64_t n_all, first;           /* tokens; the number of the first step */
    uint32_t n_steps, n_used;
    flock_layer *layers;
    int32_t n_layers, shown; /* shown: where a picture of one layer, or a page, begins */
} flock_scene;

/* {0} is empty. [out: owned: free with flock_close] */
DIL_MUST_CHECK dil_status flock_open(flock_scene *out, const view_request *r, dil_error *err);
void flock_close(flock_scene *s);

/* Of a sequence of choices; [n_all][n_used], by rank. */
typedef struct flock_choices {
    const uint16_t *chosen; /* of token t from chosen + t * stride on; FLOCK_NOBODY: less than n_used were chosen */
    const uint8_t *weights; /* likewise; NULL: all alike */
    uint64_t n_all;
    size_t stride;
    uint32_t n_used;
} flock_choices;

#define FLOCK_PRICE_RATE 1e-3f    /* per token: the default of training, per step */
#define FLOCK_TO_TOKEN (1.0f / 3) /* share of the way a chosen bird flies towards the token */
#define FLOCK_TO_HOME 0.125f      /* share of the way all others fly home */
#define FLOCK_LOAD_TOKENS 4       /* loads fade over this many times n / n_used tokens */

/* ---- between the files ---- */

typedef struct flock_rows {
    const float *v; /* [n][dim], finite */
    int64_t dim;
    bool
        likeness; /* neighbours by the cosine of whitened rows; otherwise by their distance, and rows of one or two numbers are the plane
                      themselves */
    const uint16_t *others; /* [n][n_others], FLOCK_NOBODY behind the last: neighbours that are given; NULL: the nearest */
    size_t n_others;
} flock_rows;
/* home, graph, n_near, kept of l, whose n is set. */
DIL_MUST_CHECK dil_status flock_place(flock_scene *s, flock_layer *l, const flock_rows *rows, dil_error *err);
/* Where a further point of the rows' space is: there, if rows are the plane, otherwise amid its nearest birds, whose homes count with
 * 1 / distance^2. weight: of swarm_weights; not for likeness. */
flock_point flock_find(const flock_layer *l, const flock_rows *rows, const double *weight, const float *point);
/* Only the steps from..end - 1 of those that are kept. */
void flock_keep(flock_scene *s, uint32_t from, uint32_t end);
/* Load, price, flight and curves of a layer that has its place: all tokens are followed, s->n_steps from s->first on are kept. */
DIL_MUST_CHECK dil_status flock_fly(flock_scene *s, flock_layer *l, const flock_choices *c, dil_error *err);
/* One step further: chosen birds (n_chosen of them) go towards target, if it is somewhere, all others home. */
void flock_move(const flock_layer *l, flock_point *at, const uint16_t *chosen, uint32_t n_chosen, flock_point target);
/* Curves of what at and load say; a curve that is there stays. */
DIL_MUST_CHECK dil_status flock_measure(flock_scene *s, flock_layer *l, const flock_point *before, dil_error *err);
/* The first tokens of the steps as a batch that shares the loading of experts. */
DIL_MUST_CHECK dil_status flock_play(flock_scene *s, flock_layer *l, const flock_choices *c, dil_error *err);
DIL_MUST_CHECK dil_status flock_read_json(flock_scene *s, const view_request *r, dil_error *err);
DIL_MUST_CHECK dil_status flock_read_model(flock_scene *s, const view_request *r, dil_error *err);

/* The web page. */
DIL_MUST_CHECK dil_status flock_page(strbuf *out, const view_request *r, const flock_scene *s, dil_error *err);

#endif
