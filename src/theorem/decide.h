/*
 * The adaptive decision, flock and game together: the candidates nearest to a task form a local group, the group settles a small
 * game for the places there are, and the group grows while the answer might still change. Every call returns its evidence.
 */
#ifndef THEOREM_DECIDE_H
#define THEOREM_DECIDE_H

#include "theorem/game.h"

#define DECIDE_MOST 64 /* candidates in a group */

/* Candidates are points; a task is a point of the same space. */
typedef struct decide_problem {
    const float *candidates; /* [n][dim] */
    const float *task;       /* [dim] */
    int32_t n, dim;
    int32_t group;    /* candidates looked at first; 0: 7 */
    int32_t n_chosen; /* places; 0: 1 */
    double overlap;   /* what two chosen ones of the same direction lose, as a share of their values' product; 0: nothing */
} decide_problem;

typedef struct decide_evidence {
    int32_t n;                    /* of the group */
    int32_t member[DECIDE_MOST];  /* nearest first */
    double distance[DECIDE_MOST]; /* to the task, each axis in units of its deviation over all candidates */
    double value[DECIDE_MOST];    /* exp(-distance^2 / (2 h^2)), h the group's median distance */
    int32_t chosen[DECIDE_MOST];  /* 1: got a place */
    double regret[DECIDE_MOST];   /* what each loses by changing alone at the price of a place: 0 or more */
    game_fit_report game;         /* price of a place, gaps, share of candidates whose neighbours matter */
    double outside;               /* largest value a candidate outside the group can have */
    int32_t n_rounds;             /* how often the group grew */
    bool certain;                 /* nobody outside could take a place at the price */
} decide_evidence;

/* 1. The local group: problem.group nearest candidates in the whitened metric, with their values. */
DIL_MUST_CHECK dil_status decide_group(const decide_problem *p, decide_evidence *out, dil_error *err);
/* 2. The equilibrium of a group that decide_group found. */
DIL_MUST_CHECK dil_status decide_equilibrium(const decide_problem *p, decide_evidence *inout, dil_error *err);
/* 3. Both, with a group that doubles until the choice is certain or everybody is in it; *best: the chosen one of highest value. */
DIL_MUST_CHECK dil_status decide_adaptive(const decide_problem *p, int32_t *best, decide_evidence *out, dil_error *err);
/* The chosen one of highest value, of equal ones the nearest; -1: nobody was chosen. */
int32_t decide_best(const decide_evidence *e);

#endif
