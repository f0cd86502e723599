/* What pruning took out and what that costs, for people and for programs. */
#ifndef CLI_PRUNE_REPORT_H
#define CLI_PRUNE_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "quantize/prune.h"

void prune_report_print(FILE *out, const prune_report *r, const char *out_path, bool written, double seconds);
/* [owned: json_decref]; NULL: no memory */
json_t *prune_report_json(const prune_report *r, const char *in_path, const char *out_path, bool written, double seconds);

#endif
