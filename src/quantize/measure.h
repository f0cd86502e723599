/* What a quantized file lost, measured: both models run as users run them over a text neither was fitted to. */
#ifndef QUANTIZE_MEASURE_H
#define QUANTIZE_MEASURE_H

#include "evaluate/evaluate.h"

typedef struct measure_options {
    const char *base_file; /* where the float model's probabilities may stand meanwhile; removed */
    str text;
    int n_chunks, n_context, n_threads;
    dil_progress_fn progress;
    void *user;
} measure_options;

DIL_MUST_CHECK dil_status measure_divergence(divergence_result *out, const char *float_path, const char *path,
                                             const measure_options *o, dil_error *err);

#endif
