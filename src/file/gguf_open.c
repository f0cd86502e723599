/* Opening and closing: maps every shard, reads each under a guard against truncation, and joins
 * their tensors. */
#include <inttypes.h>
#include <stdio.h>

#include "base/checked.h"
#include "base/status.h"
#include "file/gguf_internal.h"

#define SPLIT_SUFFIX_BYTES 20u /* "-00001-of-00003.gguf" */

/* ---- one shard ---- */

typedef struct guarded_read {
    gguf *g;
    gguf_shard *s;
    gguf_sink *sink;
    dil_status status;
} guarded_read;

static void run_guarded_read(void *ctx)
{
    guarded_read *job = ctx;
    job->status = gguf_read_shard(job->g, job->s, job->sink);
}

static void shard_close(gguf_shard *s)
{
    if (s->file.fd >= 0) {
        os_unmap(s->bytes, (size_t)s->size_bytes);
        os_file_close(&s->file);
    }
}

/* Opens and reads path into *s, which is closed by gguf_close when s->path is set. */
static dil_status shard_open(gguf *g, gguf_shard *s, const char *path, int number, gguf_sink *sink)
{
    os_file file;
    const void *bytes;
    DIL_TRY(os_file_open(&file, path, sink->err));
    gguf_shard opened = {.path = path, .number = number, .file = {.fd = -1}};
    dil_status st;
    if (file.size_bytes == 0) {
        os_file_close(&file);
        *s = opened;
        return gguf_fatal(sink, s, 0, "header: wanted at least %u bytes, found an empty file", GGUF_HEADER_BYTES);
    }
    if ((st = os_map_file(&file, &bytes, sink->err)) != DIL_OK) {
        os_file_close(&file);
        return status_prefix(sink->err, "%s: ", path), st;
    }
    opened.file = file;
    opened.bytes = bytes;
    opened.size_bytes = file.size_bytes;
    *s = opened;
    guarded_read job = {.g = g, .s = s, .sink = sink};
    st = os_guard(run_guarded_read, &job, s->bytes, (size_t)s->size_bytes, sink->err);
    return st == DIL_OK ? job.status : (status_prefix(sink->err, "%s: ", path), st);
}

static bool shard_integer(const gguf_shard *s, const char *key, uint64_t *out)
{
    uint32_t i = name_index_find(&s->keys, str_of(key));
    bool negative;
    return i != NAME_INDEX_NONE && s->entries[i].v.kind != GGUF_ARRAY && gguf_value_integer(&s->entries[i].v, 0, &negative, out) &&
           !negative;
}

static uint64_t key_offset(const gguf_shard *s, const char *key)
{
    uint32_t i = name_index_find(&s->keys, str_of(key));
    return i == NAME_INDEX_NONE ? GGUF_HEADER_BYTES : s->entries[i].v.offset;
}

/* ---- split files ---- */

static bool five_digits(const char *p, int *out)
{
    int n = 0;
    for (int i = 0; i < 5; i++) {
        if (p[i] < '0' || p[i] > '9')
            return false;
        n = n * 10 + (p[i] - '0');
    }
    *out = n;
    return true;
}

/* "dir/name-00002-of-00003.gguf" -> 1 of 3. */
static bool split_name(const char *path, int *number, int *count)
{
    size_t n = strlen(path);
    if (n < SPLIT_SUFFIX_BYTES)
        return false;
    const char *p = path + n - SPLIT_SUFFIX_BYTES;
    if (p[0] != '-' || memcmp(p + 6, "-of-", 4) != 0 || memcmp(p + 15, ".gguf", 5) != 0)
        return false;
    if (!five_digits(p + 1, number) || !five_digits(p + 10, count) || *number < 1 || *number > *count)
        return false;
    --*number;
    return true;
}

static const char *split_path(gguf *g, const char *path, int number, int count)
{
    size_t stem = strlen(path) - SPLIT_SUFFIX_BYTES;
    char *out = arena_strdup(g->memory, path, strlen(path)), suffix[48];
    snprintf(suffix, sizeof suffix, "-%05d-of-%05d.gguf", number + 1, count); /* both below 10^5: SPLIT_SUFFIX_BYTES long */
    if (out)
        memcpy(out + stem, suffix, SPLIT_SUFFIX_BYTES);
    return out;
}

/* A shard that is not there ends opening; checking goes on without it. */
static dil_status open_sibling(gguf *g, gguf_shard *s, int number, gguf_sink *sink)
{
    const char *path = split_path(g, g->path, number, g->n_shards);
    if (!path)
        return DIL_FAIL(sink->err, DIL_NO_MEMORY, "%s: no memory for the names of its parts", g->path);
    dil_status st = shard_open(g, s, path, number, sink);
    if (st != DIL_IO || os_exists(path))
        return st;
    if (!sink->report)
        return DIL_FAIL(sink->err, DIL_IO, "part %d of %d is missing: wanted the file %s beside the others, found none", number + 1,
                        g->n_shards, path);
    status_clear(sink->err);
    *s = (gguf_shard){.path = path, .number = number, .file = {.fd = -1}};
    return gguf_defect(sink, s, 0, "part %d of %d is missing: wanted this file beside the others, found none", number + 1,
                       g->n_shards);
}

static dil_status check_split_keys(const gguf *g, gguf_sink *sink)
{
    for (int i = 0; i < g->n_shards; i++) {
        const gguf_shard *s = &g->shards[i];
        uint64_t no = UINT64_MAX, count = UINT64_MAX;
        if (!s->complete)
            continue;
        if (!shard_integer(s, "split.no", &no) || no != (uint64_t)i)
            DIL_TRY(gguf_defect(sink, s, key_offset(s, "split.no"),
                                "key 'split.no': wanted %d as the file's name says, found %" PRId64, i, (int64_t)no));
        if (!shard_integer(s, "split.count", &count) || count != (uint64_t)g->n_shards)
            DIL_TRY(gguf_defect(sink, s, key_offset(s, "split.count"),
                                "key 'split.count': wanted %d as in the other parts, found %" PRId64, g->n_shards, (int64_t)count));
    }
    return DIL_OK;
}

static dil_status open_siblings(gguf *g, gguf_sink *sink)
{
    gguf_shard *first = &g->shards[0], *all;
    uint64_t count = 1;
    int number, named;
    if (!shard_integer(first, "split.count", &count) || count <= 1)
        return DIL_OK;
    if (!split_name(first->path, &number, &named))
        return gguf_fatal(sink, first, key_offset(first, "split.count"),
                          "key 'split.count': wanted a file name that ends in "
                          "-00001-of-%05" PRIu64 ".gguf for a file of %" PRIu64 " parts, found another",
                          count, count);
    if (count > GGUF_MAX_SHARDS || count != (uint64_t)named)
        return gguf_fatal(sink, first, key_offset(first, "split.count"),
                          "key 'split.count': wanted %d as the file's name says (at most %d), "
                          "found %" PRIu64,
                          named, GGUF_MAX_SHARDS, count);
    if (!(all = arena_calloc(g->memory, (size_t)count, sizeof *all)))
        return DIL_FAIL(sink->err, DIL_NO_MEMORY, "%s: no memory for %d parts", g->path, named);
    for (int i = 0; i < named; i++)
        all[i].file.fd = -1;
    all[number] = *first;
    all[number].number = number;
    for (uint64_t i = 0; i < first->n_tensors; i++)
        first->tensors[i].shard = number;
    g->shards = all;
    g->n_shards = named;
    sink->many_shards = true;
    for (int i = 0; i < named; i++) {
        dil_status st = i == number ? DIL_OK : open_sibling(g, &all[i], i, sink);
        if (st != DIL_OK && !(st == DIL_FORMAT && sink->report))
            return st;
    }
    return check_split_keys(g, sink);
}

/* ---- the union ---- */

static dil_status check_total(const gguf *g, gguf_sink *sink)
{
    const gguf_shard *s = &g->shards[0];
    uint64_t wanted;
    for (int i = 0; i < g->n_shards; i++)
        if (!g->shards[i].complete)
            return DIL_OK;
    if (g->n_shards > 1 && shard_integer(s, "split.tensors.count", &wanted) && wanted != g->n_tensors)
        return gguf_defect(sink, s, key_offset(s, "split.tensors.count"),
                           "key 'split.tensors.count': wanted the number of tensors in all "
                           "parts, %" PRIu64 ", found %" PRIu64,
                           g->n_tensors, wanted);
    return DIL_OK;
}

static dil_status index_names(gguf *g, gguf_sink *sink)
{
    char shown[GGUF_SHOWN];
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        const gguf_tensor *t = &g->tensors[i];
        uint32_t first = name_index_add(&g->names, t->name);
        if (first != i)
            DIL_TRY(gguf_defect(sink, &g->shards[t->shard], (uint64_t)(t->name.p - (const char *)g->shards[t->shard].bytes) - 8,
                                "tensor %s: wanted a name of its own, found a second tensor of that name (numbers %u and %" PRIu64
                                ")",
                                gguf_show(t->name, shown), first, i));
    }
    return DIL_OK;
}

static dil_status join_tensors(gguf *g, gguf_sink *sink)
{
    uint64_t n = 0, at = 0;
    for (int i = 0; i < g->n_shards; i++)
        n += g->shards[i].complete ? g->shards[i].n_tensors : 0;
    if (n > GGUF_MAX_TENSORS)
        return gguf_fatal(sink, &g->shards[0], 8, "tensor count of all parts: wanted at most %u, found %" PRIu64, GGUF_MAX_TENSORS,
                          n);
    g->n_tensors = n;
    g->tensors = g->n_shards == 1 ? g->shards[0].tensors : arena_alloc(g->memory, (size_t)n * sizeof *g->tensors);
    if (!g->tensors || !name_index_init(&g->names, g->memory, (uint32_t)n))
        return DIL_FAIL(sink->err, DIL_NO_MEMORY, "%s: no memory for the names of %" PRIu64 " tensors", g->path, n);
    for (int i = 0; g->n_shards > 1 && i < g->n_shards; i++) {
        const gguf_shard *s = &g->shards[i];
        if (s->complete && s->n_tensors > 0) {
            memcpy(g->tensors + at, s->tensors, (size_t)s->n_tensors * sizeof *g->tensors);
            at += s->n_tensors;
        }
    }
    DIL_TRY(index_names(g, sink));
    return check_total(g, sink);
}

typedef struct guarded_join {
    gguf *g;
    gguf_sink *sink;
    dil_status status;
} guarded_join;

static void run_guarded_join(void *ctx)
{
    guarded_join *job = ctx;
    job->status = join_tensors(job->g, job->sink);
}

static dil_status load_memory(gguf *g, gguf_shard *s, const void *bytes, size_t n, gguf_sink *sink)
{
    *s = (gguf_shard){.path = g->path, .file = {.fd = -1}, .bytes = bytes, .size_bytes = n};
    if (n == 0)
        return gguf_fatal(sink, s, 0, "header: wanted at least %u bytes, found an empty file", GGUF_HEADER_BYTES);
    return gguf_read_shard(g, s, sink);
}

dil_status gguf_load(gguf **out, const char *path, const void *bytes, size_t n, bool header_only, gguf_sink *sink)
{
    gguf *g = mem_calloc(1, sizeof *g, MEM_FILE);
    if (!g)
        return DIL_FAIL(sink->err, DIL_NO_MEMORY, "%s: no memory to open it", path);
    *out = g;
    g->header_only = header_only;
    g->memory = arena_new(MEM_FILE, SIZE_MAX / 2);
    g->path = g->memory ? arena_strdup(g->memory, path, strlen(path)) : NULL;
    g->shards = g->path ? arena_calloc(g->memory, 1, sizeof *g->shards) : NULL;
    if (!g->shards)
        return DIL_FAIL(sink->err, DIL_NO_MEMORY, "%s: no memory to open it", path);
    g->shards[0].file.fd = -1;
    g->n_shards = 1;
    DIL_TRY(bytes ? load_memory(g, &g->shards[0], bytes, n, sink) : shard_open(g, &g->shards[0], g->path, 0, sink));
    DIL_TRY(open_siblings(g, sink));
    /* Names and keys lie in the mappings, all of which are watched: a fault anywhere ends the join.
     */
    guarded_join job = {.g = g, .sink = sink};
    dil_status st = os_guard(run_guarded_join, &job, NULL, SIZE_MAX, sink->err);
    return st == DIL_OK ? job.status : st;
}

static dil_status open_with(gguf **out, const char *path, const void *bytes, size_t n, const gguf_options *options, dil_error *err)
{
    gguf_options o = options ? *options : (gguf_options){0};
    gguf_sink sink = {.err = err};
    gguf *g = NULL;
    dil_status st = gguf_load(&g, path, bytes, n, o.header_only && !o.deep, &sink);
    if (st == DIL_OK && o.deep)
        st = gguf_check_values(g, &sink);
    if (st == DIL_OK && o.deep)
        st = gguf_check_data(g, &sink, NULL, NULL);
    if (st != DIL_OK) {
        gguf_close(g);
        return st;
    }
    *out = g;
    return DIL_OK;
}

dil_status gguf_open(gguf **out, const char *path, const gguf_options *options, dil_error *err)
{
    return open_with(out, path, NULL, 0, options, err);
}

dil_status gguf_open_memory(gguf **out, const void *bytes, size_t n, const gguf_options *options, dil_error *err)
{
    return open_with(out, "memory", bytes ? bytes : "", n, options, err);
}

void gguf_close(gguf *g)
{
    if (!g)
        return;
    for (int i = 0; i < g->n_shards; i++)
        shard_close(&g->shards[i]);
    arena_free(g->memory);
    mem_free(g);
}

/* ---- what is there ---- */

const char *gguf_path(const gguf *g) { return g->path; }
uint32_t gguf_version(const gguf *g) { return g->shards[0].version; }
void gguf_drop(const gguf *g)
{
    for (int i = 0; i < g->n_shards; i++) {
        const gguf_shard *s = &g->shards[i];
        if (s->file.fd >= 0 && s->bytes)
            os_advise_drop(s->bytes + s->data_offset, (size_t)(s->size_bytes - s->data_offset));
    }
}

int gguf_shards(const gguf *g) { return g->n_shards; }

uint64_t gguf_size_bytes(const gguf *g)
{
    uint64_t n = 0;
    for (int i = 0; i < g->n_shards; i++)
        n += g->shards[i].size_bytes;
    return n;
}

str gguf_shard_header(const gguf *g, int shard)
{
    const gguf_shard *s = &g->shards[shard];
    uint64_t n = s->data_offset < s->size_bytes ? s->data_offset : s->size_bytes;
    return (str){(const char *)s->bytes, (size_t)n};
}

const os_file *gguf_shard_file(const gguf *g, int shard)
{
    return shard >= 0 && shard < g->n_shards ? &g->shards[shard].file : NULL;
}

uint64_t gguf_n_tensors(const gguf *g) { return g->n_tensors; }
const gguf_tensor *gguf_tensor_at(const gguf *g, uint64_t i) { return i < g->n_tensors ? &g->tensors[i] : NULL; }

const gguf_tensor *gguf_tensor_find(const gguf *g, const char *name)
{
    uint32_t i = name_index_find(&g->names, str_of(name));
    return i == NAME_INDEX_NONE ? NULL : &g->tensors[i];
}
