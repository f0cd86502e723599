/*
 * Importance alone: the squares of what each matrix reads, summed over a text, for every architecture the engine runs. What llama.cpp calls an
 * importance matrix.
 */
#ifndef QUANTIZE_IMPORTANCE_H
#define QUANTIZE_IMPORTANCE_H

#include "quantize/calibration.h"
#include "quantize/convert.h"

/* As calibration_make, but only squares and counts (`full` is false); the model is run as it is in the file. Of the options: text, sequences,
 * threads by `n_threads`, progress. [owned: calibration_free] */
DIL_MUST_CHECK dil_status importance_make(calibration *out, const players *p, int n_threads, const calibration_options *o,
                                          dil_error *err);

/* convert_file with the importance that a file of statistics holds, of any kind. Matrices it does not know are rounded as without. */
DIL_MUST_CHECK dil_status importance_convert(convert_result *out, const char *in_path, const char *out_path, const char *stats_path,
                                             const convert_options *o, dil_error *err);

#endif
