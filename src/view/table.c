#include "view/table.h"

#include <math.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"

void table_free(table *t)
{
    for (int i = 0; t->columns && i < t->n_columns; i++)
        mem_free(t->columns[i].v);
    mem_free(t->columns);
    mem_free(t->path);
    *t = (table){0};
}

/* The next piece of *rest up to the separator, which is taken too. */
static str cut(str *rest, char separator)
{
    const char *end = rest->n ? memchr(rest->p, separator, rest->n) : NULL;
    str piece = {rest->p, end ? (size_t)(end - rest->p) : rest->n};
    size_t taken = piece.n + (end ? 1 : 0);
    rest->p += taken;
    rest->n -= taken;
    return piece;
}

static str trimmed(str s)
{
    while (s.n && (s.p[0] == ' ' || s.p[0] == '\t'))
        s = (str){s.p + 1, s.n - 1};
    while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t' || s.p[s.n - 1] == '\r' || s.p[s.n - 1] == '\n'))
        s.n--;
    return s;
}

static dil_status read_header(table *t, str line, dil_error *err)
{
    t->columns = mem_calloc(TABLE_MOST_COLUMNS, sizeof *t->columns, MEM_MISC);
    if (!t->columns)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory", t->path);
    for (bool more = true; more;) {
        more = line.n && memchr(line.p, ',', line.n);
        str name = trimmed(cut(&line, ','));
        if (t->n_columns == TABLE_MOST_COLUMNS)
            return DIL_FAIL(err, DIL_LIMIT, "%s: line 1: wanted at most %d columns, found more", t->path, TABLE_MOST_COLUMNS);
        if (name.n == 0 || name.n >= TABLE_NAME_BYTES || !utf8_valid(name))
            return DIL_FAIL(err, DIL_FORMAT, "%s: line 1, column %d: wanted a name of at most %d bytes, found '%.*s'", t->path,
                            t->n_columns + 1, TABLE_NAME_BYTES - 1, STR_ARG(name));
        memcpy(t->columns[t->n_columns].name, name.p, name.n);
        if (table_find(t, t->columns[t->n_columns].name) >= 0)
            return DIL_FAIL(err, DIL_FORMAT, "%s: line 1, column %d: wanted different names, found '%.*s' twice", t->path,
                            t->n_columns + 1, STR_ARG(name));
        t->n_columns++;
    }
    return DIL_OK;
}

static bool no_number(str cell)
{
    char text[16];
    if (cell.n == 0)
        return true;
    if (cell.p[0] == '-' || cell.p[0] == '+')
        cell = (str){cell.p + 1, cell.n - 1};
    if (cell.n >= sizeof text)
        return false;
    memcpy(text, cell.p, cell.n);
    text[cell.n] = '\0';
    return str_equal_nocase(text, "nan") || str_equal_nocase(text, "inf") || str_equal_nocase(text, "infinity");
}

static double read_cell(table_column *c, str cell, size_t line)
{
    char text[64];
    double v = NAN;
    if (no_number(cell))
        return NAN;
    if (cell.n < sizeof text) {
        memcpy(text, cell.p, cell.n);
        text[cell.n] = '\0';
        if (memchr(cell.p, '\0', cell.n) == NULL && str_to_f64(text, &v) && fabs(v) < 1e100)
            return v;
    }
    if (c->bad_line == 0) {
        c->bad_line = line;
        snprintf(c->bad, sizeof c->bad, "%.*s", STR_ARG(cell));
    }
    return NAN;
}

static dil_status more_rows(table *t, dil_error *err)
{
    if (t->n_rows < t->capacity)
        return DIL_OK;
    size_t capacity = t->capacity ? 2 * t->capacity : 256;
    for (int i = 0; i < t->n_columns; i++) {
        double *v = mem_grow(t->columns[i].v, capacity * sizeof *v, MEM_MISC);
        if (!v)
            return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for %zu lines", t->path, capacity);
        t->columns[i].v = v;
    }
    t->capacity = capacity;
    return DIL_OK;
}

static dil_status read_row(table *t, str line, size_t number, dil_error *err)
{
    int found = 1;
    for (size_t i = 0; i < line.n; i++)
        found += line.p[i] == ',';
    if (found != t->n_columns)
        return DIL_FAIL(err, DIL_FORMAT, "%s: line %zu: wanted %d columns, as in the header, found %d", t->path, number,
                        t->n_columns, found);
    DIL_TRY(more_rows(t, err));
    for (int i = 0; i < t->n_columns; i++)
        t->columns[i].v[t->n_rows] = read_cell(&t->columns[i], trimmed(cut(&line, ',')), number);
    t->n_rows++;
    return DIL_OK;
}

static dil_status read_lines(table *t, str text, dil_error *err)
{
    if (trimmed(text).n == 0)
        return DIL_FAIL(err, DIL_FORMAT, "%s: wanted a header line with the names of columns, found an empty file", t->path);
    DIL_TRY(read_header(t, trimmed(cut(&text, '\n')), err));
    for (size_t number = 2; text.n; number++) {
        bool ended = memchr(text.p, '\n', text.n) != NULL;
        str line = trimmed(cut(&text, '\n'));
        if (line.n > 0 && ended)
            DIL_TRY(read_row(t, line, number, err));
    }
    return DIL_OK;
}

dil_status table_parse(table *out, const char *path, str text, dil_error *err)
{
    table t = {.path = mem_alloc(strlen(path) + 1, MEM_MISC)};
    if (!t.path)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory", path);
    memcpy(t.path, path, strlen(path) + 1);
    dil_status status = read_lines(&t, text, err);
    if (status == DIL_OK)
        *out = t;
    else
        table_free(&t);
    return status;
}

dil_status table_open(table *out, const char *path, dil_error *err)
{
    char *text;
    size_t n;
    DIL_TRY(os_read_all(path, TABLE_MOST_BYTES, &text, &n, err));
    dil_status status = table_parse(out, path, (str){text, n}, err);
    mem_free(text);
    return status;
}

int table_find(const table *t, const char *name)
{
    for (int i = 0; i < t->n_columns; i++)
        if (strcmp(t->columns[i].name, name) == 0)
            return i;
    return -1;
}

dil_status table_check(const table *t, int column, dil_error *err)
{
    const table_column *c = &t->columns[column];
    if (c->bad_line == 0)
        return DIL_OK;
    return DIL_FAIL(err, DIL_FORMAT, "%s: line %zu, column '%s': wanted a number, found '%s'", t->path, c->bad_line, c->name,
                    c->bad);
}

void table_keep_last(table *t, int column)
{
    const double *key = t->columns[column].v;
    size_t kept = 0;
    for (size_t row = 0; row < t->n_rows; row++) {
        double now = key[row];
        while (kept > 0 && !(key[kept - 1] < now) && !isnan(now))
            kept--;
        if (isnan(now))
            continue;
        for (int i = 0; i < t->n_columns; i++)
            t->columns[i].v[kept] = t->columns[i].v[row];
        kept++;
    }
    t->n_rows = kept;
}
