/*
 * The balancing loss of the theorem, for one layer of experts:
 *     L = L_CE + l1 L_balance - l2 R_cache - l3 R_swarm + l4 L_nash  (+ lz router z-loss)
 * with rho_t = softmax(z_t), a_t the chosen set of token t, sequences apart from each other:
 *     L_balance = N sum_e f_e P_e        f_e share of all choices that fell on e, P_e mean of rho_te: 1 when even
 *     R_cache   = mean_t sum_e rho_te h_te                  h_te = g max(a_(t-1)e, h_(t-1)e), h_0 = 0: recency
 *     R_swarm   = mean_t cos(rho_t, A mean of the last 7 rho)    A = 1/2 I + 1/2 (row-normalised neighbour graph of the router)
 *     L_nash    = mean_t KL(rho_t || softmax(z_t - price + beta h_t))     0 at the quantal-response equilibrium
 *     L_z       = mean_t (log sum_e exp z_te)^2
 * In R_swarm a token without predecessors counts as 0; the deviation in beta is that of all scores of the batch together.
 * f, h, A mean(rho), and the target of L_nash are constants to the gradient. Knows nothing of the network around it.
 */
#ifndef TRAIN_LOSS_H
#define TRAIN_LOSS_H

#include "base/threads.h"
#include "dilmodeli.h"

#define LOSS_SWARM_TOKENS 7

/* Weights as they apply in a step, after warm-up. 0 switches a term off; its value is reported all the same. */
typedef struct loss_config {
    float balance, cache, swarm, nash, z;
    float recency; /* g */
    float beta;    /* of L_nash, in deviations of the scores (0.5): beta = this * standard deviation of z over the batch */
} loss_config;

/* Values of the terms, unweighted. */
typedef struct loss_values {
    double balance, cache, swarm, nash, z;
    double entropy;   /* mean entropy of rho, nats: uniform rho maximises R_swarm too */
    double violation; /* MaxVio: load of the busiest expert / mean load - 1 */
} loss_values;

/* Recency factor g of an LRU cache of `cached` of n experts when each token uses n_used: exp(-1/T), T the time an expert
 * stays, from cached = n (1 - exp(-T n_used / n)) (Che's approximation, even loads). cached >= n: 1; cached <= 0: 0. */
float loss_recency(int n, int n_used, double cached);

typedef struct loss_input {
    int n_sequences, n_tokens; /* tokens per sequence */
    int n_experts, n_used;
    const float *z;        /* [n_sequences * n_tokens][n_experts] */
    const int16_t *chosen; /* [n_sequences * n_tokens][n_used] */
    const float *price;    /* [n_experts], or NULL: zeros */
    const float *flock;    /* A [n_experts][n_experts], or NULL: identity */
} loss_input;

/* Bytes of scratch loss_router needs for inputs of these sizes; the arrays, flock among them, may come later. */
size_t loss_scratch_bytes(const loss_input *in);

/*
 * Values of all terms and, where dz is not NULL, the gradient of  l1 L_balance - l2 R_cache - l3 R_swarm + l4 L_nash + lz L_z
 * by z, times grad_scale, ADDED to dz [n_sequences * n_tokens][n_experts]. workers NULL: the calling thread. Equal bits for any number of workers.
 */
void loss_router(const loss_input *in, const loss_config *c, float grad_scale, float *dz, loss_values *out, void *scratch,
                 team *workers);

/* A of router rows [n_experts][n_embd]: 7 nearest by cosine (fewer when there are fewer experts), symmetrised, rows normalised. */
DIL_MUST_CHECK dil_status loss_flock(const float *rows, int n_experts, int n_embd, float *flock, dil_error *err);

#endif
