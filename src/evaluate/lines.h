/* Texts line by line. */
#ifndef EVALUATE_LINES_H
#define EVALUATE_LINES_H

#include "base/str.h"

/* Takes the next line off the text, without its line break (\n or \r\n); false at the end. A break at the very end begins no line. */
bool lines_next(str *text, str *line);
size_t lines_count(str text);

#endif
