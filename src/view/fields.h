/* Fields of JSON files, read strictly: an error names file, field, what was wanted and what was found. */
#ifndef VIEW_FIELDS_H
#define VIEW_FIELDS_H

#include <jansson.h>

#include "view/page.h"

#define FIELDS_MOST_BYTES ((size_t)64 << 20)
#define FIELDS_MOST_NATS 1e9

typedef struct fields {
    const char *path;
    dil_error *err;
} fields;

/* FORMAT names line and column, or a key that stands twice. [out: owned: json_decref] */
DIL_MUST_CHECK dil_status fields_open(const char *path, json_t **out, dil_error *err);
DIL_MUST_CHECK dil_status fields_parse(const char *path, str text, json_t **out, dil_error *err); /* path: for messages */

/* FORMAT: path: where.key: wanted ..., found v. where: "" for the file itself. */
dil_status fields_wrong(const fields *r, const char *where, const char *key, const char *wanted, const json_t *v);

/* Of an object. Outputs are set, to 0, NAN or "", on failure too. */
DIL_MUST_CHECK dil_status fields_number(const fields *r, const json_t *object, const char *where, const char *key, double least,
                                        double most, double *out);
/* null, which a report says where nothing is known, is NAN. */
DIL_MUST_CHECK dil_status fields_nats(const fields *r, const json_t *object, const char *where, const char *key, double *out);
DIL_MUST_CHECK dil_status fields_text(const fields *r, const json_t *object, const char *where, const char *key, const char **out);
DIL_MUST_CHECK dil_status fields_object(const fields *r, const json_t *object, const char *key, const json_t **out);
DIL_MUST_CHECK dil_status fields_array(const fields *r, const json_t *object, const char *where, const char *key, size_t most,
                                       const json_t **out);
/* The last part of a path, without what a line of text could not show. */
DIL_MUST_CHECK dil_status fields_file_name(const fields *r, const json_t *object, const char *where, const char *key,
                                           char out[PAGE_NAME_BYTES]);

#endif
