/*
 * An exact potential game: players i with strategies s, own cost D_i(s), a cost C_ij(s, t) on the edges of a symmetric graph, and a
 * use b_i(s) of one shared resource at a price:
 *
 *     J_i(s) = D_i(s_i) + sum over neighbours of C_ij(s_i, s_j) + price * b_i(s_i)
 *     Phi(s) = sum D_i + sum over edges C_ij + price * sum b_i
 *
 * A player's move changes J_i and Phi by the same amount, so best responses end, in any order, at an equilibrium. Knows nothing of
 * what players and strategies stand for. Proofs: docs/THEOREM.md; results never depend on the number of threads.
 */
#ifndef THEOREM_GAME_H
#define THEOREM_GAME_H

#include "theorem/neighbours.h"

typedef struct game {
    int32_t n_players;
    const int32_t
        *first;         /* [n_players + 1]: player i's strategies are first[i] .. first[i + 1] - 1 of the arrays below; >= 1 each */
    const double *cost; /* D_i(s) */
    const double *use;  /* b_i(s) >= 0; NULL: nothing is used */
    const swarm_graph *graph; /* NULL: no coupling */
    const float *amount;      /* C_ij(s, t) = weight_ij * amount_i(s) * amount_j(t); NULL: */
    double (*pair)(void *ctx, int32_t i, int32_t s, int32_t j, int32_t t); /* symmetric; s, t count from 0 for each player */
    void *ctx;
} game;

/* A state is int32_t [n_players]: the strategy of each player, counted from 0. */

DIL_MUST_CHECK dil_status game_check(const game *g,
                                     dil_error *err); /* sizes, finite numbers, a symmetric graph with equal weights */
double game_player_cost(const game *g, const int32_t *state, int32_t i, int32_t s, double price); /* J_i if i played s */
double game_potential(const game *g, const int32_t *state, double price);                         /* Phi */
double game_use(const game *g, const int32_t *state);
int32_t game_best(const game *g, const int32_t *state, int32_t i, double price,
                  double *gain);                                    /* stays unless better; lowest on ties */
double game_gap(const game *g, const int32_t *state, double price); /* epsilon: the largest gain any single player still has */

/* Classes of players without edges between them: those of one class may move at the same time. */
typedef struct game_colours {
    int32_t n;
    int32_t *first;   /* [n + 1] */
    int32_t *players; /* [n_players], ascending within a class */
} game_colours;
/* [owned: free with game_colours_free] */
DIL_MUST_CHECK dil_status game_colour(const game *g, game_colours *out, dil_error *err);
void game_colours_free(game_colours *c);

/* Which way best responses go round; the end may be another equilibrium, but always is one. */
typedef struct game_options {
    uint64_t seed;               /* 0: players in order; else a random order, another one in each sweep */
    const game_colours *colours; /* not NULL: class by class, a class at once */
    team *workers;               /* with colours; NULL: the calling thread */
    int32_t most_sweeps;         /* 0: 1000 */
    double epsilon;              /* gains up to this are not worth a move */
    const int32_t *start; /* game_fit: a state to go on from if it fits and is better than what the price alone finds; NULL */
} game_options;

typedef struct game_report {
    int32_t sweeps;
    int64_t moves;
    double gap; /* as game_gap at the end */
    double potential;
    bool settled; /* nobody wants to move; false: most_sweeps were not enough */
} game_report;

/* Best responses from *state on until nobody gains. */
DIL_MUST_CHECK dil_status game_settle(const game *g, double price, const game_options *o, int32_t *state, game_report *r,
                                      dil_error *err);

/* Share of players whose neighbours could change their mind: V_i >= the gap between their best and second best of D + price * b. Near
 * 0: the neighbours do not matter, the equilibrium is unique and what everybody would do alone. */
double game_active_share(const game *g, double price);

/* The best potential of `n` settled random starts. */
DIL_MUST_CHECK dil_status game_restarts(const game *g, double price, int32_t n, uint64_t seed, double *best, dil_error *err);

typedef struct game_fit_report {
    double price, used, cost; /* cost: D + C */
    double bound;             /* no state within the budget costs less (without coupling; else -infinity) */
    double gap;               /* of single moves that fit what is left */
    double swap_gap;          /* the largest gain of any two moves together that fit */
    double active_share;
    int32_t bisections, filled, exchanged;
    game_report settled; /* of the price that was kept */
} game_fit_report;

/*
 * A state of low cost that uses at most `budget`: bisection of the price, each from the last equilibrium; then single moves by gain
 * per use into what is left; then exchanges of two players, until none helps. LIMIT: the least use of all exceeds the budget.
 */
DIL_MUST_CHECK dil_status game_fit(const game *g, double budget, const game_options *o, int32_t *state, game_fit_report *r,
                                   dil_error *err);

/*
 * The baseline for games without coupling: dynamic programming over `cells` units of the budget. *state (or NULL) is the best with
 * uses rounded up, feasible; *lower (or NULL) the cost with uses rounded down: no state within the budget costs less.
 */
DIL_MUST_CHECK dil_status game_by_cells(const game *g, double budget, int32_t cells, int32_t *state, double *cost, double *lower,
                                        dil_error *err);

/* ---- shared resources ---- */

/* Two ways to pay for a resource that n_e players use at cost c_e. */
typedef enum congestion_form {
    CONGESTION_FAIR, /* c_e / n_e each; potential: own + sum of c_e H(n_e), H harmonic */
    CONGESTION_MARGINAL /* c_e for who is alone on it, nothing for the others; potential: own + sum of c_e over used ones = what all pay */
} congestion_form;

/* Strategies are sets of resources. Negative costs: a resource is better shared by few (load) instead of by many. */
typedef struct congestion {
    int32_t n_players, n_resources;
    congestion_form form;
    const double *resource;   /* [n_resources]: c_e */
    const int32_t *first;     /* [n_players + 1], as in game */
    const double *cost;       /* own cost of each strategy */
    const int32_t *set_first; /* [strategies + 1]: the resources of strategy x are set[set_first[x]] .. */
    const int32_t *set;       /* each resource at most once in a strategy */
} congestion;

double congestion_potential(const congestion *g, const int32_t *state); /* NAN: no memory */
double congestion_player_cost(const congestion *g, const int32_t *state, int32_t i, int32_t s);
double congestion_gap(const congestion *g, const int32_t *state); /* the largest gain any single player still has */

/* Sees the state before the first move and after every one; sweep counts from 0. */
typedef struct congestion_watch {
    void (*look)(void *ctx, const int32_t *state, int32_t sweep);
    void *ctx;
} congestion_watch;
/* Best responses in order, watched (NULL: by nobody); LIMIT never: the potential falls with every move. */
DIL_MUST_CHECK dil_status congestion_settle(const congestion *g, const congestion_watch *watch, int32_t *state, game_report *r,
                                            dil_error *err);

#endif
