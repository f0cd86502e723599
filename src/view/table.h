/* CSV logs: a header line of names, then lines of numbers. Read as they are while a run still writes them: a last line without
 * its end does not count. */
#ifndef VIEW_TABLE_H
#define VIEW_TABLE_H

#include "base/str.h"

#define TABLE_MOST_COLUMNS 256
#define TABLE_MOST_BYTES ((size_t)1 << 30)
#define TABLE_NAME_BYTES 64

typedef struct table_column {
    char name[TABLE_NAME_BYTES];
    double *v;       /* [n_rows]; NaN: empty, "nan" or infinite */
    size_t bad_line; /* the first line with something else than a number; 0: none */
    char bad[32];    /* what stands there */
} table_column;

typedef struct table {
    char *path;
    int n_columns;
    size_t n_rows, capacity;
    table_column *columns;
} table;

/* FORMAT names line and column. {0} is an empty table. [out: owned: free with table_free] */
DIL_MUST_CHECK dil_status table_open(table *out, const char *path, dil_error *err);
DIL_MUST_CHECK dil_status table_parse(table *out, const char *path, str text, dil_error *err); /* path: for messages */
void table_free(table *t);

/* The column of that name, or -1. */
int table_find(const table *t, const char *name);
/* FORMAT when a cell of that column is not a number. */
DIL_MUST_CHECK dil_status table_check(const table *t, int column, dil_error *err);
/* Where a run was resumed its log may count some steps twice: of rows whose `column` does not rise the later ones stay. */
void table_keep_last(table *t, int column);

#endif
