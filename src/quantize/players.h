/*
 * The matrices of a file as players: who they are, which formats each may take, what each format takes of the file and costs the
 * model. Kernels want no two matrices equal: gate and up, or queries, keys and values, are one step, but each goes through the kernel of
 * its own format, and activations take every form that one of them reads. So a format is legal when its blocks fit the rows, whatever the
 * neighbours have; what is one tensor (experts of a layer, a tied embedding) is one player. Owns that table; the costs are measured by sense.h, the choice is made by allocate.h.
 */
#ifndef QUANTIZE_PLAYERS_H
#define QUANTIZE_PLAYERS_H

#include "file/gguf.h"
#include "train/net.h"

#define PLAYERS_MOST_CHOICES 32

/* Places beside the walk's; PLACE_OTHER: matrices it does not know. */
enum { PLACE_EMBEDDING = NET_PLACES, PLACE_HEAD, PLACE_OTHER };

typedef struct player_choice {
    dil_type type;
    uint64_t bytes;
    double cost;    /* expected divergence, nats per token; NAN: not measured */
    double seconds; /* of a generated token to go through it; 0: not known */
} player_choice;

typedef struct player {
    const gguf_tensor *tensor; /* borrowed from the file */
    int layer, place;          /* -1: not of a layer; a net_place or one of the above */
    int n, rows, columns;      /* [n][rows][columns]; n 1 but for experts */
    int n_choices, chosen;     /* choices by bytes, ascending */
    player_choice choice[PLAYERS_MOST_CHOICES];
} player;

typedef struct players {
    const gguf *file;
    int n;
    player *p;            /* in the file's order */
    uint64_t fixed_bytes; /* the rest of a file with these matrices: header, vectors, padding of each matrix not counted */
    bool tied;
} players;

/* Every matrix of the file. [owned: free with players_free] */
DIL_MUST_CHECK dil_status players_new(players *out, const gguf *file, dil_error *err);
/* UNSUPPORTED, with the name of a matrix the walk does not know, if there is one. */
DIL_MUST_CHECK dil_status players_check(const players *p, dil_error *err);
int players_named(const players *p, str name); /* -1: there is none */
void players_free(players *p);
player *players_find(const players *p, int layer, int place); /* NULL: there is none */

/* The formats that p may choose between: all whose blocks fit its rows, those that other engines do not know among them. */
void player_offer(player *p);
/* Sets the choices' seconds. weights_per_second [DIL_TYPE_COUNT]: of products with one token; n_used: experts of a token. UNSUPPORTED, with
 * the format's name, when one of them has no rate. */
DIL_MUST_CHECK dil_status players_time(players *p, const double *weights_per_second, int n_used, dil_error *err);
void player_keep_stock(player *p); /* without the latter */
/* The one format p gets: type, or the next wider one that fits. */
void player_fix(player *p, dil_type type);
uint64_t player_bytes(const player *p, dil_type type); /* 0: does not fit */

uint64_t players_padded(uint64_t bytes);         /* what a tensor of that size takes of the file */
uint64_t players_bytes(const players *p);        /* of the file with the present choices */
uint64_t players_matrix_bytes(const players *p); /* of all matrices with the present choices, without padding */
uint64_t players_values(const players *p);       /* of all matrices */
bool players_are_stock(const players *p);        /* all choices are */
double players_cost(const players *p);           /* sum of the present choices' costs */

#endif
