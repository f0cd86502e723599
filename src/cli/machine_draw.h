/* A machine as a drawing of text: memory, caches and cores in boxes, with what was measured of them. */
#ifndef CLI_MACHINE_DRAW_H
#define CLI_MACHINE_DRAW_H

#include <stdio.h>

#include "machine/facts.h"

/* facts may be NULL: the topology alone. */
void machine_draw(FILE *out, const machine *m, const char *name, const machine_facts *facts);
void machine_draw_json(FILE *out, const machine *m, const machine_facts *facts);

#endif
