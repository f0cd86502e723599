#include "view/fields.h"

#include <math.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"

static const char *found_text(const json_t *v, char *out, size_t n)
{
    static const char *const names[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "an array", [JSON_TRUE] = "true", [JSON_FALSE] = "false", [JSON_NULL] = "null"};
    if (json_is_string(v))
        snprintf(out, n, "\"%.40s\"", json_string_value(v));
    else if (json_is_number(v))
        snprintf(out, n, "%.9g", json_number_value(v));
    else
        snprintf(out, n, "%s", v ? names[json_typeof(v)] : "nothing");
    return out;
}

dil_status fields_wrong(const fields *r, const char *where, const char *key, const char *wanted, const json_t *v)
{
    char found[80];
    return DIL_FAIL(r->err, DIL_FORMAT, "%s: %s%s%s: wanted %s, found %s", r->path, where, *where && *key ? "." : "", key, wanted,
                    found_text(v, found, sizeof found));
}

dil_status fields_number(const fields *r, const json_t *object, const char *where, const char *key, double least, double most,
                         double *out)
{
    char wanted[80];
    const json_t *v = json_object_get(object, key);
    double found = json_number_value(v);
    *out = 0;
    snprintf(wanted, sizeof wanted, "a number from %.9g to %.9g", least, most);
    if (!json_is_number(v) || !(found >= least && found <= most))
        return fields_wrong(r, where, key, wanted, v);
    *out = found;
    return DIL_OK;
}

/* null, which the report says where nothing is known, is NAN. */
dil_status fields_nats(const fields *r, const json_t *object, const char *where, const char *key, double *out)
{
    *out = NAN;
    return json_is_null(json_object_get(object, key))
               ? DIL_OK
               : fields_number(r, object, where, key, -FIELDS_MOST_NATS, FIELDS_MOST_NATS, out);
}

dil_status fields_text(const fields *r, const json_t *object, const char *where, const char *key, const char **out)
{
    const json_t *v = json_object_get(object, key);
    *out = "";
    if (!json_is_string(v))
        return fields_wrong(r, where, key, "a text", v);
    *out = json_string_value(v);
    return DIL_OK;
}

dil_status fields_object(const fields *r, const json_t *object, const char *key, const json_t **out)
{
    *out = json_object_get(object, key);
    return json_is_object(*out) ? DIL_OK : fields_wrong(r, "", key, "an object", *out);
}

dil_status fields_array(const fields *r, const json_t *object, const char *where, const char *key, size_t most, const json_t **out)
{
    *out = json_object_get(object, key);
    if (!json_is_array(*out))
        return fields_wrong(r, where, key, "an array", *out);
    if (json_array_size(*out) > most)
        return DIL_FAIL(r->err, DIL_FORMAT, "%s: %s%s%s: wanted at most %zu of them, found %zu", r->path, where, *where ? "." : "",
                        key, most, json_array_size(*out));
    return DIL_OK;
}

/* The last part of a path, without what a line of text could not show. */
dil_status fields_file_name(const fields *r, const json_t *object, const char *where, const char *key, char out[PAGE_NAME_BYTES])
{
    const char *text;
    DIL_TRY(fields_text(r, object, where, key, &text));
    const char *slash = strrchr(text, '/');
    str name = str_of(slash && slash[1] ? slash + 1 : text);
    if (name.n > PAGE_NAME_BYTES - 1)
        name.n = PAGE_NAME_BYTES - 1;
    name.n -= utf8_incomplete_tail(name);
    for (size_t i = 0; i < name.n; i++)
        out[i] = (unsigned char)name.p[i] < ' ' ? '?' : name.p[i];
    out[name.n] = '\0';
    return DIL_OK;
}

dil_status fields_parse(const char *path, str text, json_t **out, dil_error *err)
{
    json_error_t why;
    json_t *found = json_loadb(text.p, text.n, JSON_REJECT_DUPLICATES, &why);
    if (!found)
        return DIL_FAIL(err, DIL_FORMAT, "%s: line %d, column %d: wanted JSON, found: %s", path, why.line, why.column, why.text);
    *out = found;
    return DIL_OK;
}

dil_status fields_open(const char *path, json_t **out, dil_error *err)
{
    char *text;
    size_t n;
    DIL_TRY(os_read_all(path, FIELDS_MOST_BYTES, &text, &n, err));
    dil_status status = fields_parse(path, (str){text, n}, out, err);
    mem_free(text);
    return status;
}
