#include "train/config.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "train/config_table.h"

#define MOST_BYTES ((size_t)1 << 20)

typedef struct reader {
    const char *path; /* of the config file: for messages, and what relative paths are relative to */
    dil_error *err;
} reader;

/* ---- one value ---- */

static const char *kind_name(const json_t *v)
{
    static const char *const names[] = {[JSON_OBJECT] = N_("an object"), [JSON_ARRAY] = N_("an array"),
                                        [JSON_STRING] = N_("a text"),    [JSON_INTEGER] = N_("a whole number"),
                                        [JSON_REAL] = N_("a number"),    [JSON_TRUE] = "true",
                                        [JSON_FALSE] = "false",          [JSON_NULL] = "null"};
    return v ? _(names[json_typeof(v)]) : _("nothing");
}

static dil_status wrong_kind(const reader *r, const char *where, const char *wanted, const json_t *v)
{
    return DIL_FAIL(r->err, DIL_FORMAT, "%s: %s: wanted %s, found %s", r->path, where, _(wanted), kind_name(v));
}

/* A relative path is one from the config file's directory. */
static bool resolve(const char *config, const char *path, char *out, size_t n)
{
    const char *slash = strrchr(config, '/');
    int length =
        path[0] == '/' || !slash ? snprintf(out, n, "%s", path) : snprintf(out, n, "%.*s/%s", (int)(slash - config), config, path);
    return length >= 0 && (size_t)length < n;
}

static dil_status read_text(const reader *r, const config_row *row, const char *where, char *out, const json_t *v)
{
    size_t most = (size_t)row->most;
    if (!json_is_string(v))
        return wrong_kind(r, where, N_("a text"), v);
    size_t n = json_string_length(v);
    if (n < 1 || n > most || strlen(json_string_value(v)) != n)
        return DIL_FAIL(r->err, DIL_BAD_ARGUMENT, "%s: %s: wanted a text of 1..%zu bytes, found %zu bytes", r->path, where, most,
                        n);
    char text[2048];
    if (row->kind == CONFIG_TEXT)
        snprintf(text, sizeof text, "%s", json_string_value(v));
    else if (!resolve(r->path, json_string_value(v), text, sizeof text) || strlen(text) > most)
        return DIL_FAIL(r->err, DIL_BAD_ARGUMENT, "%s: %s: wanted a path of at most %zu bytes, found a longer one", r->path, where,
                        most);
    if (!utf8_valid(str_of(text))) /* the config's own path may be anything; a checkpoint keeps this text as JSON */
        return DIL_FAIL(r->err, DIL_UNSUPPORTED, "%s: %s: wanted a path of UTF-8 text, found other bytes", r->path, where);
    memcpy(out, text, strlen(text) + 1);
    return DIL_OK;
}

static dil_status read_choice(const reader *r, const config_row *row, const char *where, void *out, const json_t *v)
{
    if (!json_is_string(v))
        return wrong_kind(r, where, N_("a text"), v);
    strbuf names = STRBUF(200);
    for (unsigned i = 0; row->names[i]; i++) {
        if (strcmp(row->names[i], json_string_value(v)) == 0) {
            memcpy(out, &i, sizeof i);
            strbuf_free(&names);
            return DIL_OK;
        }
        strbuf_printf(&names, "%s\"%s\"", i ? ", " : "", row->names[i]);
    }
    DIL_FAIL(r->err, DIL_BAD_ARGUMENT, "%s: %s: wanted one of %s, found \"%.40s\"", r->path, where,
             names.p ? names.p : _("(no memory)"), json_string_value(v));
    strbuf_free(&names);
    return DIL_BAD_ARGUMENT;
}

static dil_status read_number(const reader *r, const config_row *row, const char *where, void *out, const json_t *v)
{
    bool whole = row->kind == CONFIG_INT || row->kind == CONFIG_U64;
    if (whole ? !json_is_integer(v) : !json_is_number(v))
        return wrong_kind(r, where, whole ? N_("a whole number") : N_("a number"), v);
    double value = json_number_value(v);
    if (!(value >= row->least && value <= row->most))
        return DIL_FAIL(r->err, DIL_BAD_ARGUMENT, "%s: %s: wanted %.10g..%.10g, found %.10g", r->path, where, row->least, row->most,
                        value);
    if (row->kind == CONFIG_INT)
        *(int *)out = (int)json_integer_value(v);
    else if (row->kind == CONFIG_U64)
        *(uint64_t *)out = (uint64_t)json_integer_value(v);
    else if (row->kind == CONFIG_FLOAT)
        *(float *)out = (float)value;
    else
        *(double *)out = value;
    return DIL_OK;
}

static dil_status read_value(const reader *r, const config_row *row, const char *where, void *base, const json_t *v)
{
    char *out = (char *)base + row->offset;
    switch (row->kind) {
    case CONFIG_TEXT:
    case CONFIG_PATH: return read_text(r, row, where, out, v);
    case CONFIG_CHOICE: return read_choice(r, row, where, out, v);
    case CONFIG_BOOL:
        if (!json_is_boolean(v))
            return wrong_kind(r, where, N_("true or false"), v);
        *(bool *)(void *)out = json_is_true(v);
        return DIL_OK;
    default: return read_number(r, row, where, out, v);
    }
}

/* ---- objects ---- */

static const config_row *find_row(const config_row *rows, const char *section, const char *key)
{
    for (const config_row *row = rows; row->key; row++)
        if (strcmp(row->section, section) == 0 && strcmp(row->key, key) == 0)
            return row;
    return NULL;
}

static dil_status unknown_key(const reader *r, const config_row *rows, const char *section, const char *where)
{
    strbuf names = STRBUF(400);
    for (const config_row *row = rows; row->key; row++)
        if (strcmp(row->section, section) == 0)
            strbuf_printf(&names, "%s%s", names.n ? ", " : "", row->key);
    if (!*section)
        strbuf_printf(&names, ", tokenizer, corpora, model, training, loss");
    DIL_FAIL(r->err, DIL_BAD_ARGUMENT, "%s: %.60s: unknown key; known are %s", r->path, where,
             names.p ? names.p : _("(no memory)"));
    strbuf_free(&names);
    return DIL_BAD_ARGUMENT;
}

/* The keys of one object; those of the model's "architecture" were read before. prefix: what stands before a key in messages. */
static dil_status read_object(const reader *r, const config_row *rows, const char *section, const char *prefix, void *base,
                              const json_t *object)
{
    json_t *o = (json_t *)(uintptr_t)object; /* jansson's iterators take no const */
    if (!json_is_object(object))
        return wrong_kind(r, prefix, N_("an object"), object);
    for (void *i = json_object_iter(o); i; i = json_object_iter_next(o, i)) {
        char where[128];
        const char *key = json_object_iter_key(i);
        snprintf(where, sizeof where, "%s.%.60s", prefix, key);
        const config_row *row = find_row(rows, section, key);
        if (strcmp(section, "model") == 0 && strcmp(key, "architecture") == 0)
            continue;
        if (!row)
            return unknown_key(r, rows, section, where);
        DIL_TRY(read_value(r, row, where, base, json_object_iter_value(i)));
    }
    return DIL_OK;
}

/* What an architecture fixes; single keys may say otherwise. embd_scale 0: the root of hidden_size, once that is known. */
static dil_status read_architecture(const reader *r, net_config *c, const json_t *model)
{
    const json_t *v = json_object_get(model, "architecture");
    const char *name = json_string_value(v);
    if (!v)
        return DIL_OK;
    if (!name)
        return wrong_kind(r, "model.architecture", N_("a text"), v);
    bool moe = strcmp(name, "qwen3moe") == 0, gemma = strcmp(name, "gemma3") == 0, llama = strcmp(name, "llama") == 0;
    if (!moe && !gemma && !llama && strcmp(name, "qwen3") != 0)
        return DIL_FAIL(r->err, DIL_BAD_ARGUMENT,
                        "%s: model.architecture: wanted qwen3moe, qwen3, llama or gemma3, found \"%.40s\"", r->path, name);
    c->qk_norm = !llama;
    c->pairs = llama ? ROPE_ADJACENT : ROPE_HALVES;
    c->activation = gemma ? NET_GEGLU : NET_SWIGLU;
    c->post_norm = gemma;
    c->embd_scale = gemma ? 0.0f : 1.0f;
    if (!moe)
        c->n_experts = c->n_used = c->n_ff_expert = 0;
    return DIL_OK;
}

static dil_status read_sources(const reader *r, train_config *c, const json_t *list)
{
    char where[40];
    size_t n = json_array_size(list);
    if (list && !json_is_array(list))
        return wrong_kind(r, "corpora", N_("an array"), list);
    if (n < 1 || n > CORPUS_MOST_SOURCES)
        return DIL_FAIL(r->err, DIL_BAD_ARGUMENT, "%s: corpora: wanted 1..%d of them, found %zu", r->path, CORPUS_MOST_SOURCES, n);
    for (size_t i = 0; i < n; i++) {
        corpus_source *s = &c->sources[i];
        *s = (corpus_source){.weight = 1, .held_out = 0.01};
        snprintf(where, sizeof where, "corpora[%zu]", i);
        DIL_TRY(read_object(r, config_sources, "corpora", where, s, json_array_get(list, i)));
        if (!s->name[0] || !s->path[0])
            return DIL_FAIL(r->err, DIL_BAD_ARGUMENT, "%s: %s: wanted name and path, found no %s", r->path, where,
                            s->name[0] ? "path" : "name");
        for (size_t k = 0; k < i; k++)
            if (strcmp(c->sources[k].name, s->name) == 0)
                return DIL_FAIL(r->err, DIL_BAD_ARGUMENT, "%s: %s.name: wanted a name of its own, found '%s' twice", r->path, where,
                                s->name);
    }
    c->n_sources = (int)n;
    return DIL_OK;
}

/* ---- the whole ---- */

static dil_status missing(const reader *r, const char *key)
{
    return DIL_FAIL(r->err, DIL_BAD_ARGUMENT, "%s: %s: wanted a value, found none", r->path, key);
}

static dil_status check(const reader *r, train_config *c)
{
    if (!c->name[0] || !c->output[0])
        return missing(r, c->name[0] ? "output" : "name");
    if ((c->vocab_size > 0) == (c->vocab_file[0] != '\0'))
        return DIL_FAIL(r->err, DIL_BAD_ARGUMENT, "%s: tokenizer: wanted either size or file, found %s", r->path,
                        c->vocab_size > 0 ? _("both") : _("neither"));
    if (c->n_steps < 1)
        return missing(r, "training.steps");
    if (c->n_sequences % c->n_accumulate != 0)
        return DIL_FAIL(r->err, DIL_BAD_ARGUMENT,
                        "%s: training.gradient_accumulation_steps: wanted a divisor of batch_size %d, found %d", r->path,
                        c->n_sequences, c->n_accumulate);
    if (c->loss_from > c->loss_to)
        return DIL_FAIL(r->err, DIL_BAD_ARGUMENT, "%s: loss.warmup_to: wanted at least warmup_from %g, found %g", r->path,
                        c->loss_from, c->loss_to);
    if (c->cached_experts > c->net.n_experts)
        return DIL_FAIL(r->err, DIL_BAD_ARGUMENT, "%s: loss.cached_experts: wanted at most num_experts %d, found %g", r->path,
                        c->net.n_experts, c->cached_experts);
    if (!(c->net.embd_scale > 0.0f))
        c->net.embd_scale = sqrtf((float)c->net.n_embd);
    return DIL_OK;
}

static dil_status read_section(const reader *r, train_config *c, const char *name, const json_t *root)
{
    const json_t *section = json_object_get(root, name);
    if (section && strcmp(name, "model") == 0)
        DIL_TRY(read_architecture(r, &c->net, section));
    return section ? read_object(r, config_rows, name, name, c, section) : DIL_OK;
}

static bool known_section(const char *key)
{
    static const char *const names[] = {"tokenizer", "model", "training", "loss", "corpora"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], key) == 0)
            return true;
    return false;
}

static dil_status read_root(const reader *r, train_config *c, const json_t *root)
{
    if (!json_is_object(root))
        return wrong_kind(r, _("the file"), N_("an object"), root);
    json_t *o = (json_t *)(uintptr_t)root;
    for (void *i = json_object_iter(o); i; i = json_object_iter_next(o, i)) {
        const char *key = json_object_iter_key(i);
        const config_row *row = find_row(config_rows, "", key);
        if (row)
            DIL_TRY(read_value(r, row, key, c, json_object_iter_value(i)));
        else if (!known_section(key))
            return unknown_key(r, config_rows, "", key);
    }
    DIL_TRY(read_section(r, c, "tokenizer", root));
    DIL_TRY(read_section(r, c, "model", root));
    DIL_TRY(read_section(r, c, "training", root));
    DIL_TRY(read_section(r, c, "loss", root));
    DIL_TRY(read_sources(r, c, json_object_get(root, "corpora")));
    return check(r, c);
}

dil_status train_config_parse(train_config *out, str json, const char *path, dil_error *err)
{
    json_error_t why;
    reader r = {path ? path : "config", err};
    json_t *root = json_loadb(json.p, json.n, JSON_REJECT_DUPLICATES, &why);
    if (!root)
        return DIL_FAIL(err, DIL_FORMAT, "%s: line %d, column %d: wanted JSON, found: %s", r.path, why.line, why.column, why.text);
    train_config *c = mem_alloc(sizeof *c, MEM_MISC);
    dil_status status = DIL_OK;
    if (c) {
        train_config_default(c);
        status = read_root(&r, c, root);
    } else {
        status = DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory to read it", r.path);
    }
    if (status == DIL_OK)
        *out = *c;
    json_decref(root);
    mem_free(c);
    return status;
}

dil_status train_config_read(train_config *out, const char *path, dil_error *err)
{
    char *text;
    size_t n;
    DIL_TRY(os_read_all(path, MOST_BYTES, &text, &n, err));
    dil_status status = train_config_parse(out, (str){text, n}, path, err);
    mem_free(text);
    return status;
}
