/*
 * Who gets how many bits: the players' game for a file of a wanted size, and what other ways to choose would cost at the same size. Owns the
 * translation between players and theorem/game.h, and the baselines.
 */
#ifndef QUANTIZE_ALLOCATE_H
#define QUANTIZE_ALLOCATE_H

#include "quantize/players.h"

#define ALLOCATE_MOST_BASELINES 8

/* A way to choose: the file it makes and what that is expected to cost. n 0: no file of that kind fits. */
typedef struct allocate_baseline {
    const char *name;
    uint64_t bytes;
    double cost;
} allocate_baseline;

typedef struct allocate_report {
    double price; /* of a byte, in nats, at the end */
    double gap;   /* what any single move that fits could still gain */
    double bound; /* nothing that fits costs less */
    int n_baselines;
    allocate_baseline baseline[ALLOCATE_MOST_BASELINES];
} allocate_report;

/* Chooses for every player so that the file has at most that many bytes. LIMIT: even the smallest has more. */
DIL_MUST_CHECK dil_status allocate_size(players *p, uint64_t file_bytes, allocate_report *out, dil_error *err);
/* The smallest file, to a thousandth of its size, whose expected divergence is at most cost, in nats per token, and which has least_bytes at
 * least where formats go so high. LIMIT: even the largest costs more. */
DIL_MUST_CHECK dil_status allocate_cost(players *p, double cost, uint64_t least_bytes, allocate_report *out, dil_error *err);

#endif
