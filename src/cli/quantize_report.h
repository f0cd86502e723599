/* What a calibrated quantization did and expects, for people and for programs (dil view bits). */
#ifndef CLI_QUANTIZE_REPORT_H
#define CLI_QUANTIZE_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "quantize/preset.h"

void quantize_report_print(FILE *out, const compress_report *r, const char *out_path, double seconds);
/* [owned: json_decref]; NULL: no memory */
json_t *quantize_report_json(const compress_report *r, const char *in_path, const char *out_path, double seconds);
/* What a preset did before: printed; added to its file's report. */
void quantize_report_preset_print(FILE *out, const preset_report *r);
void quantize_report_preset_json(json_t *report, const preset_report *r);
/* What refinement did, a line. */
void quantize_report_refined(FILE *out, const refine_result *r);

#endif
