/* What a calibrated quantization did and expects, for programs: dil view bits and metrics read it. */
#ifndef QUANTIZE_REPORT_H
#define QUANTIZE_REPORT_H

#include <jansson.h>

#include "quantize/preset.h"

/* [owned: json_decref]; NULL: no memory */
json_t *report_of_compression(const compress_report *r, const char *in_path, const char *out_path, double seconds);
/* What a preset did before, for its file's report. */
void report_add_preset(json_t *report, const preset_report *r);
/* Both, into a file. */
DIL_MUST_CHECK dil_status report_write_compression(const char *path, const preset_report *r, const char *in_path,
                                                   const char *out_path, double seconds, dil_error *err);

#endif
