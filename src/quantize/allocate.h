/*
 * Who gets how many bits: the players' game for a file of a wanted size, and what other ways to choose would cost at the same size. Owns the
 * translation between players and theorem/game.h, and the baselines.
 */
#ifndef QUANTIZE_ALLOCATE_H
#define QUANTIZE_ALLOCATE_H

#include "quantize/recipe.h"

#define ALLOCATE_MOST_BASELINES 8

/* A way to choose: the file it makes and what that is expected to cost. n 0: no file of that kind fits. */
typedef struct allocate_baseline {
    const char *name;
    const char *recipe; /* which of llama.cpp's mixtures; NULL: none of them */
    uint64_t bytes;
    double cost, seconds; /* per token: nats; of generating one, 0: not known */
} allocate_baseline;

typedef struct allocate_report {
    double price; /* of a byte, in nats, at the end; here and below a second costs goal.second_price beside the divergence */
    double gap;   /* what any single move that fits could still gain */
    double bound; /* nothing that fits costs less */
    int n_baselines;
    allocate_baseline baseline[ALLOCATE_MOST_BASELINES];
} allocate_report;

/* What is wanted. */
typedef struct allocate_goal {
    uint64_t file_bytes; /* at most */
    double second_price; /* nats per token that a second per token is worth; 0: only divergence counts */
    recipe_model model;  /* for llama.cpp's mixtures; n_layer 0: not among the baselines */
} allocate_goal;

/* Chooses for every player so that the file is no larger than wanted. LIMIT: even the smallest is. */
DIL_MUST_CHECK dil_status allocate_size(players *p, const allocate_goal *goal, allocate_report *out, dil_error *err);
/* The smallest file, to a thousandth of its size, whose expected divergence is at most cost, in nats per token, and which has at least
 * goal->file_bytes where formats go so high. LIMIT: even the largest costs more. */
DIL_MUST_CHECK dil_status allocate_cost(players *p, double cost, const allocate_goal *goal, allocate_report *out, dil_error *err);

#endif
