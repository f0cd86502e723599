/* Texts of files and requests on a terminal: whatever they hold, no control character gets through. */
#ifndef CLI_PRINT_H
#define CLI_PRINT_H

#include <jansson.h>
#include <stdio.h>

#include "base/str.h"

/* At most `most` bytes on one line; newlines and tabs are shown as \n and \t, other controls and malformed bytes as ?. */
void print_text(FILE *out, str s, size_t most);

/* text, and spaces behind it up to that many columns. */
void print_cell(FILE *out, const char *text, int columns);

/* A report for programs, [borrowed]; NULL: none could be made, which is an error. */
DIL_MUST_CHECK dil_status print_report(json_t *report, dil_error *err);

#endif
