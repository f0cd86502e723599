/* From gradients to steps: AdamW, Muon for matrices on request, clipping by the global norm, schedules. */
#ifndef TRAIN_OPTIMISER_H
#define TRAIN_OPTIMISER_H

#include "train/net.h"

typedef enum schedule_kind { SCHEDULE_COSINE, SCHEDULE_WSD } schedule_kind;

/* ALL: every matrix but the embedding, the output, and routers. */
typedef enum muon_use { MUON_NONE, MUON_ATTENTION, MUON_ALL } muon_use;

typedef struct optimiser_config {
    float lr;        /* the highest */
    float lr_router; /* times lr, for routers; likewise lr_embedding */
    float lr_embedding;
    float beta1, beta2, eps, weight_decay;
    float clip;    /* global norm of the gradient; 0: none */
    muon_use muon; /* matrices that take steps by Muon instead of AdamW */
    float muon_lr;
    schedule_kind schedule;
    double warmup, decay; /* shares of the run: linear rise; WSD's linear fall at the end */
    double lr_end;        /* share of lr at the end */
} optimiser_config;

typedef struct optimiser optimiser;

/* n is borrowed. [owned: free with optimiser_free] */
DIL_MUST_CHECK dil_status optimiser_new(optimiser **out, net *n, const optimiser_config *c, team *workers, const kernels *k,
                                        dil_error *err);
void optimiser_free(optimiser *o);
/* Factor of the learning rates at step (0-based) of n_steps. */
double optimiser_schedule(const optimiser_config *c, uint64_t step, uint64_t n_steps);
/* One step with the net's gradients; returns their global norm before clipping. A norm that is not finite changes nothing. The
 * net is refreshed. */
double optimiser_step(optimiser *o, uint64_t step, uint64_t n_steps);
/* State for checkpoints: [optimiser_state_size] floats; first and second moments in the order of net_values. */
float *optimiser_state(optimiser *o);
size_t optimiser_state_size(const optimiser *o);

#endif
