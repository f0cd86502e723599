/* Translations as msgfmt writes them (GNU .mo), read without the C library's locale: see docs/decisions/023-turkish.md. */
#ifndef BASE_CATALOG_H
#define BASE_CATALOG_H

#include "dilmodeli.h"

typedef struct catalog catalog;

/* Reads the file and checks every length, offset and the order of its texts; FORMAT when one is wrong. [owned: catalog_close] */
DIL_MUST_CHECK dil_status catalog_open(catalog **out, const char *path, dil_error *err);
/* The translation of text, as long as the catalog is open; text itself when there is none. */
const char *catalog_text(const catalog *c, const char *text);
void catalog_close(catalog *c); /* NULL is fine */

#endif
