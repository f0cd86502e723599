/* What reports for programs are made of. Values that are new references: for "o" of json_pack. */
#ifndef EVALUATE_REPORT_JSON_H
#define EVALUATE_REPORT_JSON_H

#include <jansson.h>

#include "base/str.h"

json_t *report_number(double v); /* null where nothing is known */
json_t *report_count(uint64_t v);
json_t *report_text(str s); /* of paths and names, which may be anything: bytes that are no UTF-8 become ? */

#define REPORT_FLAGS (JSON_INDENT(1) | JSON_REAL_PRECISION(9)) /* of jansson: how reports are written */

/* Writes the report to a file, [borrowed]; NULL: none could be made, which is an error. */
DIL_MUST_CHECK dil_status report_write(const char *path, json_t *report, dil_error *err);

#endif
