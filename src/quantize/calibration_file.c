/* Statistics in files: GGUF, as llama.cpp writes importance matrices, with what we add to them; and its older kind, without a header. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "quantize/calibration.h"

#define FINGERPRINT_BYTES 4096 /* of each end of a tensor */
#define VERSION 2              /* changes with what a full file must hold */
#define MOST_BYTES ((size_t)1 << 32)

static const char key_type[] = "general.type", key_texts[] = "imatrix.datasets", key_chunks[] = "imatrix.chunk_count",
                  key_chunk[] = "imatrix.chunk_size", key_version[] = "dilmodeli.calibration.version",
                  key_model[] = "dilmodeli.calibration.model";
static const char name_tokens[] = "dilmodeli.tokens", name_gradients[] = "dilmodeli.gradients", name_head[] = "dilmodeli.head",
                  name_costs[] = "dilmodeli.costs", name_types[] = "dilmodeli.cost_types";

/* Of the matrices' names, shapes and values: those of another model differ. */
static void fingerprint(const players *p, char out[17])
{
    uint64_t hash = VERSION;
    for (int i = 0; i < p->n; i++) {
        const gguf_tensor *t = p->p[i].tensor;
        size_t n = t->size_bytes < FINGERPRINT_BYTES ? (size_t)t->size_bytes : FINGERPRINT_BYTES;
        hash = work_hash(t->name.p, t->name.n, hash);
        hash = work_hash(t->ne, sizeof t->ne, hash);
        hash = work_hash(t->data, n, hash);
        hash = work_hash((const uint8_t *)t->data + t->size_bytes - n, n, hash);
    }
    snprintf(out, 17, "%016llx", (unsigned long long)hash);
}

/* ---- writing ---- */

static dil_status add_2d(gguf_writer *w, const char *name, dil_type type, uint64_t columns, uint64_t n_rows, dil_error *err)
{
    return gguf_writer_add_tensor(w, str_of(name), type, 2, (const uint64_t[GGUF_MAX_DIMS]){columns, n_rows, 1, 1}, err);
}

static dil_status add_importance(const players *p, const calibration *c, gguf_writer *w, bool data, dil_error *err)
{
    char name[128];
    for (int i = 0; i < p->n; i++) {
        const player *q = &p->p[i];
        const size_t columns = (size_t)q->columns, n = (size_t)q->n;
        if (!c->squares[i])
            continue;
        if (data) {
            DIL_TRY(gguf_writer_data(w, c->squares[i], n * columns * sizeof(float), err));
            DIL_TRY(gguf_writer_data(w, c->counts[i], n * sizeof(float), err));
            continue;
        }
        snprintf(name, sizeof name, "%.*s.in_sum2", STR_ARG(q->tensor->name));
        DIL_TRY(add_2d(w, name, DIL_TYPE_F32, columns, n, err));
        snprintf(name, sizeof name, "%.*s.counts", STR_ARG(q->tensor->name));
        DIL_TRY(add_2d(w, name, DIL_TYPE_F32, 1, n, err));
    }
    return DIL_OK;
}

static dil_status write_costs(const players *p, gguf_writer *w, dil_error *err)
{
    for (int i = 0; i < p->n; i++) {
        double cost[PLAYERS_MOST_CHOICES] = {0};
        for (int j = 0; j < p->p[i].n_choices; j++)
            cost[j] = p->p[i].choice[j].cost;
        DIL_TRY(gguf_writer_data(w, cost, sizeof cost, err));
    }
    for (int i = 0; i < p->n; i++) {
        int32_t type[PLAYERS_MOST_CHOICES];
        for (int j = 0; j < PLAYERS_MOST_CHOICES; j++)
            type[j] = j < p->p[i].n_choices ? (int32_t)p->p[i].choice[j].type : -1;
        DIL_TRY(gguf_writer_data(w, type, sizeof type, err));
    }
    return DIL_OK;
}

static dil_status write_all(const calibration *c, const players *p, gguf_writer *w, dil_error *err)
{
    const uint64_t n_embd = (uint64_t)players_find(p, -1, PLACE_EMBEDDING)->columns;
    str text = str_of(c->text);
    char model[17];
    fingerprint(p, model);
    DIL_TRY(gguf_writer_set_str(w, key_type, STR("imatrix"), err));
    DIL_TRY(gguf_writer_set_strings(w, key_texts, &text, 1, err));
    DIL_TRY(gguf_writer_set_u32(w, key_chunks, (uint32_t)c->n_sequences, err));
    DIL_TRY(gguf_writer_set_u32(w, key_chunk, (uint32_t)c->n_context, err));
    DIL_TRY(gguf_writer_set_u32(w, key_version, VERSION, err));
    DIL_TRY(gguf_writer_set_str(w, key_model, str_of(model), err));
    DIL_TRY(add_importance(p, c, w, false, err));
    if (c->full) {
        DIL_TRY(add_2d(w, name_tokens, DIL_TYPE_I32, (uint64_t)c->n_context, (uint64_t)c->n_sequences, err));
        DIL_TRY(add_2d(w, name_gradients, DIL_TYPE_F32, c->fisher.n_bytes / sizeof(float), 1, err));
        DIL_TRY(add_2d(w, name_head, DIL_TYPE_F32, n_embd, n_embd, err));
        DIL_TRY(add_2d(w, name_costs, DIL_TYPE_F64, PLAYERS_MOST_CHOICES, (uint64_t)p->n, err));
        DIL_TRY(add_2d(w, name_types, DIL_TYPE_I32, PLAYERS_MOST_CHOICES, (uint64_t)p->n, err));
    }
    DIL_TRY(add_importance(p, c, w, true, err));
    if (!c->full)
        return DIL_OK;
    DIL_TRY(gguf_writer_data(w, c->tokens, (size_t)c->n_sequences * (size_t)c->n_context * sizeof *c->tokens, err));
    DIL_TRY(gguf_writer_data(w, c->fisher.block, c->fisher.n_bytes / sizeof(float) * sizeof(float), err));
    DIL_TRY(gguf_writer_data(w, c->head, (size_t)(n_embd * n_embd) * sizeof *c->head, err));
    return write_costs(p, w, err);
}

dil_status calibration_write(const calibration *c, const players *p, const char *path, dil_error *err)
{
    gguf_writer *w = NULL;
    DIL_TRY(gguf_writer_new(&w, path, err));
    dil_status status = write_all(c, p, w, err);
    if (status == DIL_OK)
        return gguf_writer_finish(w, err);
    gguf_writer_abort(w);
    return status;
}

/* ---- reading ---- */

static dil_status check_squares(const char *path, str name, const float *v, size_t n, dil_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (!(v[i] >= 0.0f) || isinf(v[i]))
            return DIL_FAIL(err, DIL_FORMAT, "%s: '%.*s': wanted sums of squares, found %g at %zu", path, STR_ARG(name),
                            (double)v[i], i);
    return DIL_OK;
}

static bool take(calibration *c, const players *p, int i)
{
    size_t n = (size_t)p->p[i].n, values = n * (size_t)p->p[i].columns;
    c->squares[i] = mem_calloc(values, sizeof(float), MEM_MISC);
    c->counts[i] = mem_calloc(n, sizeof(float), MEM_MISC);
    return c->squares[i] && c->counts[i];
}

/* NULL: not there. FORMAT: of another type or shape. */
static dil_status find(const gguf *g, const char *name, dil_type type, uint64_t columns, uint64_t n_rows, const gguf_tensor **out,
                       dil_error *err)
{
    *out = gguf_tensor_find(g, name);
    if (!*out || ((*out)->type == type && (*out)->ne[0] == columns && (*out)->ne[1] * (*out)->ne[2] * (*out)->ne[3] == n_rows))
        return DIL_OK;
    return DIL_FAIL(err, DIL_BAD_ARGUMENT,
                    "%s: '%s': wanted %llu x %llu values of type %s, found %llu x %llu of %s; are they of another model?",
                    gguf_path(g), name, (unsigned long long)n_rows, (unsigned long long)columns, format_get(type)->name,
                    (unsigned long long)((*out)->ne[1] * (*out)->ne[2] * (*out)->ne[3]), (unsigned long long)(*out)->ne[0],
                    format_get((*out)->type) ? format_get((*out)->type)->name : "?");
}

static dil_status read_importance(calibration *c, const players *p, const gguf *g, dil_error *err)
{
    char name[128];
    int found = 0;
    for (int i = 0; i < p->n; i++) {
        const gguf_tensor *sums, *counts;
        const player *q = &p->p[i];
        snprintf(name, sizeof name, "%.*s.in_sum2", STR_ARG(q->tensor->name));
        DIL_TRY(find(g, name, DIL_TYPE_F32, (uint64_t)q->columns, (uint64_t)q->n, &sums, err));
        snprintf(name, sizeof name, "%.*s.counts", STR_ARG(q->tensor->name));
        DIL_TRY(find(g, name, DIL_TYPE_F32, 1, (uint64_t)q->n, &counts, err));
        if (!sums || !counts)
            continue;
        if (!take(c, p, i))
            return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for '%s'", gguf_path(g), name);
        memcpy(c->squares[i], sums->data, (size_t)sums->size_bytes);
        memcpy(c->counts[i], counts->data, (size_t)counts->size_bytes);
        DIL_TRY(check_squares(gguf_path(g), sums->name, c->squares[i], (size_t)q->n * (size_t)q->columns, err));
        DIL_TRY(check_squares(gguf_path(g), counts->name, c->counts[i], (size_t)q->n, err));
        found++;
    }
    if (found == 0)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: wanted statistics of this model's matrices, found none of them", gguf_path(g));
    return DIL_OK;
}

/* cost, type: [players][width]. Formats that were not measured are not offered. */
static void read_costs(players *p, const double *cost, const int32_t *type, size_t width)
{
    for (int i = 0; i < p->n; i++, cost += width, type += width) {
        player *q = &p->p[i];
        int n = 0;
        for (int j = 0; j < q->n_choices; j++)
            for (size_t k = 0; k < width; k++)
                if (type[k] == (int32_t)q->choice[j].type) {
                    q->choice[n] = q->choice[j];
                    q->choice[n++].cost = cost[k];
                    break;
                }
        q->n_choices = n;
    }
}

static dil_status check_full(const calibration *c, const players *p, const char *path, dil_error *err)
{
    const player *words = players_find(p, -1, PLACE_EMBEDDING);
    for (int64_t i = 0; i < (int64_t)c->n_sequences * c->n_context; i++)
        if (c->tokens[i] < 0 || c->tokens[i] >= words->rows)
            return DIL_FAIL(err, DIL_FORMAT, "%s: token %lld: wanted 0 .. %d, found %d", path, (long long)i, words->rows - 1,
                            c->tokens[i]);
    for (int i = 0; i < p->n; i++) {
        if (p->p[i].n_choices == 0)
            return DIL_FAIL(err, DIL_FORMAT, "%s: costs of %.*s: wanted those of at least one format, found none", path,
                            STR_ARG(p->p[i].tensor->name));
        for (int j = 0; j < p->p[i].n_choices; j++)
            if (!(p->p[i].choice[j].cost >= 0) || isinf(p->p[i].choice[j].cost))
                return DIL_FAIL(err, DIL_FORMAT, "%s: cost of %.*s as %s: wanted a number from 0 on, found %g", path,
                                STR_ARG(p->p[i].tensor->name), format_get(p->p[i].choice[j].type)->name, p->p[i].choice[j].cost);
    }
    return DIL_OK;
}

/* What only our own files have; without it, importance is all there is. */
static dil_status read_full(calibration *c, players *p, const gguf *g, dil_error *err)
{
    const gguf_tensor *tokens = gguf_tensor_find(g, name_tokens), *gradients = gguf_tensor_find(g, name_gradients), *head, *costs,
                      *types;
    const player *words = players_find(p, -1, PLACE_EMBEDDING);
    str model = {0};
    char mine[17];
    if (!tokens || !gradients || !words)
        return DIL_OK;
    uint32_t version = 0;
    DIL_TRY(gguf_get_u32(g, key_version, &version, err));
    if (version != VERSION)
        return DIL_FAIL(err, DIL_UNSUPPORTED,
                        "%s: wanted statistics of version %d, found version %u; make them again with dil calibrate", gguf_path(g),
                        VERSION, version);
    DIL_TRY(gguf_get_str(g, key_model, &model, err));
    fingerprint(p, mine);
    if (!str_equal(model, str_of(mine)))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: wanted statistics of this model (%s), found those of another one (%.*s)",
                        gguf_path(g), mine, STR_ARG(model));
    DIL_TRY(find(g, name_tokens, DIL_TYPE_I32, tokens->ne[0], tokens->ne[1], &tokens, err));
    DIL_TRY(find(g, name_gradients, DIL_TYPE_F32, gradients->ne[0], 1, &gradients, err));
    DIL_TRY(find(g, name_head, DIL_TYPE_F32, (uint64_t)words->columns, (uint64_t)words->columns, &head, err));
    costs = gguf_tensor_find(g, name_costs);
    const uint64_t width = costs ? costs->ne[0] : 0;
    DIL_TRY(find(g, name_costs, DIL_TYPE_F64, width, (uint64_t)p->n, &costs, err));
    DIL_TRY(find(g, name_types, DIL_TYPE_I32, width, (uint64_t)p->n, &types, err));
    if (!head || !costs || !types || tokens->size_bytes > MOST_BYTES || gradients->size_bytes > MOST_BYTES)
        return DIL_FAIL(err, DIL_FORMAT, "%s: wanted head, costs and cost types beside the gradients, found not all of them",
                        gguf_path(g));
    c->n_context = (int)tokens->ne[0];
    c->n_sequences = (int)tokens->ne[1];
    c->tokens = mem_alloc((size_t)tokens->size_bytes, MEM_MISC);
    c->head = mem_alloc((size_t)head->size_bytes, MEM_MISC);
    c->gradients_bytes = (size_t)gradients->size_bytes;
    c->gradients = mem_alloc(c->gradients_bytes, MEM_MISC);
    if (!c->tokens || !c->head || !c->gradients)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for its statistics", gguf_path(g));
    memcpy(c->tokens, tokens->data, (size_t)tokens->size_bytes);
    memcpy(c->head, head->data, (size_t)head->size_bytes);
    memcpy(c->gradients, gradients->data, c->gradients_bytes);
    read_costs(p, costs->data, types->data, (size_t)width);
    c->full = true;
    return check_full(c, p, gguf_path(g), err);
}

static dil_status read_gguf(calibration *c, players *p, const char *path, dil_error *err)
{
    gguf *g = NULL;
    const str *texts = NULL;
    uint64_t n_texts = 0;
    uint32_t chunks = 0, chunk = 0;
    dil_error ignored;
    DIL_TRY(gguf_open(&g, path, NULL, err));
    dil_status status = read_importance(c, p, g, err);
    if (status == DIL_OK && gguf_get_strings(g, key_texts, &texts, &n_texts, &ignored) == DIL_OK && n_texts)
        snprintf(c->text, sizeof c->text, "%.*s", STR_ARG(texts[0]));
    if (gguf_get_u32(g, key_chunks, &chunks, &ignored) == DIL_OK && gguf_get_u32(g, key_chunk, &chunk, &ignored) == DIL_OK) {
        c->n_sequences = (int)(chunks & INT32_MAX);
        c->n_context = (int)(chunk & INT32_MAX);
    }
    if (status == DIL_OK)
        status = read_full(c, p, g, err);
    gguf_close(g);
    return status;
}

/* ---- the older kind ---- */

typedef struct reader {
    const char *p;
    size_t left;
} reader;

static bool read_bytes(reader *r, void *out, size_t n)
{
    if (n > r->left)
        return false;
    memcpy(out, r->p, n);
    r->p += n;
    r->left -= n;
    return true;
}

/* An entry: name, calls, values; values are means times calls. */
static dil_status read_entry(calibration *c, const players *p, reader *r, const char *path, int *found, dil_error *err)
{
    int32_t length, calls, n;
    if (!read_bytes(r, &length, sizeof length) || length < 1 || (size_t)length > r->left)
        return DIL_FAIL(err, DIL_FORMAT, "%s: wanted an importance matrix, found another kind of file, or a part of one", path);
    str name = {r->p, (size_t)length};
    r->p += length;
    r->left -= (size_t)length;
    if (!read_bytes(r, &calls, sizeof calls) || !read_bytes(r, &n, sizeof n) || n < 1 || (size_t)n > r->left / sizeof(float))
        return DIL_FAIL(err, DIL_FORMAT, "%s: '%.*s': wanted its values, found the end of the file", path, STR_ARG(name));
    int i = players_named(p, name);
    if (i >= 0 && n != p->p[i].n * p->p[i].columns)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: '%.*s': wanted %d values, found %d; are they of another model?", path,
                        STR_ARG(name), p->p[i].n * p->p[i].columns, n);
    if (i >= 0 && !c->squares[i]) {
        if (!take(c, p, i))
            return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory", path);
        memcpy(c->squares[i], r->p, (size_t)n * sizeof(float));
        for (int e = 0; e < p->p[i].n; e++)
            c->counts[i][e] = calls > 0 ? (float)calls : 1.0f;
        DIL_TRY(check_squares(path, name, c->squares[i], (size_t)n, err));
        ++*found;
    }
    r->p += (size_t)n * sizeof(float);
    r->left -= (size_t)n * sizeof(float);
    return DIL_OK;
}

static dil_status read_old(calibration *c, const players *p, const char *path, dil_error *err)
{
    char *bytes = NULL;
    size_t n = 0;
    int32_t n_entries = 0;
    int found = 0;
    DIL_TRY(os_read_all(path, MOST_BYTES, &bytes, &n, err));
    reader r = {bytes, n};
    dil_status status = read_bytes(&r, &n_entries, sizeof n_entries) && n_entries > 0
                            ? DIL_OK
                            : DIL_FAIL(err, DIL_FORMAT, "%s: wanted an importance matrix, found another kind of file", path);
    for (int32_t i = 0; status == DIL_OK && i < n_entries; i++)
        status = read_entry(c, p, &r, path, &found, err);
    if (status == DIL_OK && found == 0)
        status = DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: wanted statistics of this model's matrices, found none of them", path);
    mem_free(bytes);
    return status;
}

static dil_status is_gguf(const char *path, bool *out, dil_error *err)
{
    os_file f;
    char magic[4] = {0};
    DIL_TRY(os_file_open(&f, path, err));
    dil_status status = f.size_bytes < sizeof magic ? DIL_OK : os_file_read(&f, 0, magic, sizeof magic, err);
    os_file_close(&f);
    *out = memcmp(magic, "GGUF", 4) == 0;
    return status;
}

dil_status calibration_read(calibration *out, players *p, const char *path, dil_error *err)
{
    calibration c = {.n_players = p->n};
    bool modern;
    DIL_TRY(is_gguf(path, &modern, err));
    c.squares = mem_calloc((size_t)p->n + 1, sizeof *c.squares, MEM_MISC);
    c.counts = mem_calloc((size_t)p->n + 1, sizeof *c.counts, MEM_MISC);
    dil_status status = c.squares && c.counts ? DIL_OK : DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for %d matrices", path, p->n);
    if (status == DIL_OK)
        status = modern ? read_gguf(&c, p, path, err) : read_old(&c, p, path, err);
    if (status == DIL_OK)
        *out = c;
    else
        calibration_free(&c);
    return status;
}

bool calibration_is_full(const char *path)
{
    gguf *g = NULL;
    gguf_options header = {.header_only = true};
    dil_error ignored;
    if (gguf_open(&g, path, &header, &ignored) != DIL_OK)
        return false;
    bool full = gguf_tensor_find(g, name_gradients) != NULL;
    gguf_close(g);
    return full;
}

dil_status calibration_attach(calibration *c, walk *w, dil_error *err)
{
    DIL_TRY(walk_fisher_new(w, &c->fisher, err));
    size_t n = c->fisher.n_bytes / sizeof(float) * sizeof(float);
    if (n != c->gradients_bytes)
        return DIL_FAIL(err, DIL_FORMAT, "statistics: wanted %zu bytes of gradients, found %zu", n, c->gradients_bytes);
    memcpy(c->fisher.block, c->gradients, n);
    mem_free(c->gradients);
    c->gradients = NULL;
    const float *v = c->fisher.token[0];
    for (size_t i = 0; i < (n - ((size_t)((const char *)v - (const char *)c->fisher.block))) / sizeof(float); i++)
        if (!isfinite(v[i]))
            return DIL_FAIL(err, DIL_FORMAT, "statistics: wanted finite gradients, found %g at %zu", (double)v[i], i);
    return DIL_OK;
}
