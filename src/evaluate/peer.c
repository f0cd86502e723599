#include "evaluate/peer.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"

#define MOST_FIELDS 128

typedef struct table {
    peer_row *rows;
    int32_t most, n;
} table;

static void add(table *t, peer_row r)
{
    bool sane = r.n_prompt >= 0 && r.n_gen >= 0 && r.depth >= 0 && r.n_prompt + r.n_gen > 0 && r.tokens_per_second > 0;
    if (sane && t->n < t->most)
        t->rows[t->n++] = r;
}

static int32_t whole(const json_t *object, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(object, key));
    return value >= 0 && value <= BENCH_MAX_TOKENS ? (int32_t)value : -1;
}

static void add_object(table *t, const json_t *object)
{
    const json_t *speed = json_object_get(object, "avg_ts");
    if (json_is_number(speed))
        add(t, (peer_row){whole(object, "n_prompt"), whole(object, "n_gen"), whole(object, "n_depth"), json_number_value(speed)});
}

/* Every JSON value of the text from the first bracket on: an array of objects, or objects line by line. */
static void read_json(table *t, const char *text)
{
    size_t left = strlen(text);
    while (left > 0) {
        json_error_t where;
        size_t skip = strcspn(text, "[{");
        text += skip;
        left -= skip;
        json_t *value = left ? json_loadb(text, left, JSON_DISABLE_EOF_CHECK, &where) : NULL;
        size_t used = value && where.position > 0 ? (size_t)where.position : 1; /* no JSON here: perhaps behind it */
        for (size_t i = 0; i < json_array_size(value); i++)
            add_object(t, json_array_get(value, i));
        if (json_is_object(value))
            add_object(t, value);
        json_decref(value);
        if (left == 0)
            return;
        used = used < left ? used : left;
        text += used;
        left -= used;
    }
}

/* Cuts a line into trimmed fields at mark (not inside quotes); quotes around a field are dropped. Changes the line. */
static int split(char *line, char mark, char **fields)
{
    int n = 0;
    for (char *p = line; p && n < MOST_FIELDS;) {
        char *end = p;
        for (bool quoted = false; *end && (quoted || *end != mark); end++)
            quoted = *end == '"' ? !quoted : quoted;
        char *next = *end ? end + 1 : NULL;
        *end = '\0';
        while (*p == ' ' || *p == '"')
            p++;
        for (end = p + strlen(p); end > p && (end[-1] == ' ' || end[-1] == '"' || end[-1] == '\r'); end--)
            end[-1] = '\0';
        fields[n++] = p;
        p = next;
    }
    return n;
}

static int find_field(char **fields, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (strcmp(fields[i], name) == 0)
            return i;
    return -1;
}

static int32_t field_number(char **fields, int n, int at)
{
    int64_t value = 0;
    if (at < 0)
        return 0; /* an older program without this column */
    return at < n && str_to_i64(fields[at], &value) && value >= 0 && value <= BENCH_MAX_TOKENS ? (int32_t)value : -1;
}

/* "pp512", "tg128", "pp512+tg128", each perhaps with " @ d4096". */
static bool read_test(const char *text, peer_row *r)
{
    int n = 0;
    if (sscanf(text, "pp%7d+tg%7d%n", &r->n_prompt, &r->n_gen, &n) == 2)
        ;
    else if (sscanf(text, "pp%7d%n", &r->n_prompt, &n) == 1)
        r->n_gen = 0;
    else if (sscanf(text, "tg%7d%n", &r->n_gen, &n) == 1)
        r->n_prompt = 0;
    else
        return false;
    if (sscanf(text + n, " @ d%8d", &r->depth) != 1)
        r->depth = 0;
    return true;
}

typedef struct columns {
    bool known;
    char mark;
    int prompt, gen, depth, speed, test;
} columns;

static void read_line(table *t, columns *c, char *line)
{
    char *fields[MOST_FIELDS];
    char mark = line[0] == '|' ? '|' : ',';
    int n = split(line, mark, fields);
    int speed = find_field(fields, n, mark == '|' ? "t/s" : "avg_ts");
    if (speed >= 0) {
        *c = (columns){true,
                       mark,
                       find_field(fields, n, "n_prompt"),
                       find_field(fields, n, "n_gen"),
                       find_field(fields, n, "n_depth"),
                       speed,
                       find_field(fields, n, "test")};
        return;
    }
    if (!c->known || c->mark != mark || c->speed >= n)
        return;
    peer_row r = {field_number(fields, n, c->prompt), field_number(fields, n, c->gen), field_number(fields, n, c->depth), 0};
    char *number = fields[c->speed];
    number[strcspn(number, " ")] = '\0'; /* "123.4 +- 0.5" */
    if (str_to_f64(number, &r.tokens_per_second) &&
        (mark == ',' || (c->test >= 0 && c->test < n && read_test(fields[c->test], &r))))
        add(t, r);
}

static void read_lines(table *t, const char *text)
{
    columns c = {0};
    char line[8192];
    for (const char *p = text; *p;) {
        size_t length = strcspn(p, "\n");
        size_t kept = length < sizeof line ? length : sizeof line - 1;
        memcpy(line, p, kept);
        line[kept] = '\0';
        read_line(t, &c, line);
        p += length + (p[length] == '\n');
    }
}

dil_status peer_parse(const char *text, peer_row *rows, int32_t most, int32_t *n, dil_error *err)
{
    table t = {rows, most, 0};
    read_json(&t, text);
    if (t.n == 0)
        read_lines(&t, text);
    if (t.n == 0)
        return DIL_FAIL(err, DIL_FORMAT, "wanted llama-bench's output (-o json, jsonl, csv or md), found '%.200s'", text);
    *n = t.n;
    return DIL_OK;
}
