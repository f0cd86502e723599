/* What a calibrated quantization did and expects, for people. */
#ifndef CLI_QUANTIZE_REPORT_H
#define CLI_QUANTIZE_REPORT_H

#include <stdio.h>

#include "quantize/preset.h"

void quantize_report_print(FILE *out, const compress_report *r, const char *out_path, double seconds);
/* What a preset did before. */
void quantize_report_preset_print(FILE *out, const preset_report *r);
/* What refinement did, a line. */
void quantize_report_refined(FILE *out, const refine_result *r);

#endif
