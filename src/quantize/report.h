/* What a quantization did and expects, for programs. Those of language models are what dil view bits and metrics draw. */
#ifndef QUANTIZE_REPORT_H
#define QUANTIZE_REPORT_H

#include <jansson.h>

#include "quantize/matrices.h"
#include "quantize/preset.h"

/* [owned: json_decref]; NULL: no memory */
json_t *report_of_compression(const compress_report *r, const char *in_path, const char *out_path, double seconds);
/* What a preset did before, for its file's report. */
void report_add_preset(json_t *report, const preset_report *r);
/* The same for a lone layer or plain matrices: errors relative to the outputs, where those are known. */
json_t *report_of_matrices(const matrices_report *r, const char *in_path, const char *out_path);
/* A compression's and its preset's, into a file. */
DIL_MUST_CHECK dil_status report_write_compression(const char *path, const preset_report *r, const char *in_path,
                                                   const char *out_path, double seconds, dil_error *err);

#endif
