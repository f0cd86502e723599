/*
 * The time of a pass before it is run: of every step of the plan, from the model's header and what was measured of the machine.
 *     step = together(arithmetic / threads that find work + claims, bytes / reading speed of all that a pass touches) + barrier
 * Nothing is fitted to a model: what kernels take per panel, per row and per page (machine/costs.h) is added up over its shapes.
 */
#ifndef TUNE_PREDICT_H
#define TUNE_PREDICT_H

#include "compute/compute.h"
#include "machine/facts.h"

/* What limits a step or a pass. */
typedef enum predict_bound { BOUND_ARITHMETIC, BOUND_CACHE, BOUND_MEMORY, BOUND_BARRIERS } predict_bound;
const char *predict_bound_name(predict_bound b);

typedef struct predict_step {
    double seconds;              /* of all steps of the kind in a pass: */
    double units, bytes_seconds; /* their arithmetic, on the threads that take part; their bytes */
    double bytes, macs;          /* read; multiply-adds */
    int n;                       /* steps */
} predict_step;

typedef struct prediction {
    double seconds; /* of a pass */
    predict_step steps[STEP_KINDS];
    double working_set; /* bytes a pass touches: it comes round again after so many, which tells the cache it finds them in */
    double reading;     /* bytes per second */
    double barriers;    /* seconds, all together */
    predict_bound bound;
} prediction;

typedef struct predictor {
    const model *m; /* may be open for its header only */
    const kernels *k;
    const machine *machine;
    const machine_facts *facts;
    int32_t n_threads;
    dil_type type_k, type_v;
    /* Measured just now: what others share, and clocks, have their moments. Reading over that of the facts, and what products of the
     * main types and attention take; 0 and nothing: as the facts are. */
    double reading_now;
    dil_type type_now;
    kernel_costs now;
} predictor;

/* n_tokens of each of n_sequences, which hold depth tokens already; n_outputs of all want logits. */
typedef struct predict_pass {
    int32_t n_tokens, n_sequences, depth, n_outputs;
} predict_pass;

void predict_run(prediction *out, const predictor *p, const predict_pass *pass);

/* Experts that n_rows tokens meet which choose without preference. */
double predict_distinct_experts(const expert_params *x, int32_t n_rows);

/* Speed of such products now over that of the facts. */
double predict_speed_now(const predictor *p, int32_t n_tokens);

/* Measures what is now, in the rhythm of this pass: its working set is read as often as the pass would. Under a second. */
DIL_MUST_CHECK dil_status predict_now(predictor *p, const predict_pass *pass, dil_error *err);

/* Tokens per second of a prompt of n tokens in passes of micro_batch tokens; of n_sequences that grow from depth on by n_tokens each. */
double predict_prompt(const predictor *p, int32_t n_tokens, int32_t micro_batch, int32_t depth);
double predict_generation(const predictor *p, int32_t n_tokens, int32_t n_sequences, int32_t depth);

#endif
