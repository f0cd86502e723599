#include "model/pack_cache.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/checked.h"
#include "base/os.h"
#include "base/status.h"
#include "model/pack.h"
#include "model/weights.h"

static const char magic[8] = {'D', 'I', 'L', 'P', 'A', 'C', 'K', '\n'};

typedef struct head {
    char magic[8];
    uint32_t version, chunk_bytes;
    pack_key key;
    uint64_t region_bytes, n_chunks, n_expert_sums;
    uint64_t table_hash, expert_hash;
    uint64_t head_hash; /* of what stands before it */
} head;

#define LEAST_BYTES ((uint64_t)8 << 20)
#define MOST_BYTES ((uint64_t)32 << 30)

/* ---- the key ---- */

static void add_bytes(pack_key *key, const void *p, size_t n)
{
    for (int i = 0; i < 2; i++)
        key->word[i] = XXH3_64bits_withSeed(p, n, key->word[i]);
}

#define SAMPLE_COLUMNS 512
#define SAMPLE_ROW_BYTES (SAMPLE_COLUMNS * 4)

uint64_t pack_cache_layout(dil_type type)
{
    static const struct {
        int rows, columns;
    } samples[] = {{PANEL_ROWS, SAMPLE_COLUMNS}, {5, SAMPLE_COLUMNS}, {PANEL_ROWS, 33}};
    uint64_t hash = (uint64_t)type, row_bytes;
    uint8_t *rows = mem_alloc(2 * (size_t)PANEL_ROWS * SAMPLE_ROW_BYTES, MEM_MISC);
    if (!rows)
        return 0;
    uint8_t *panel = rows + (size_t)PANEL_ROWS * SAMPLE_ROW_BYTES;
    uint32_t state = 1;
    for (size_t i = 0; i < (size_t)PANEL_ROWS * SAMPLE_ROW_BYTES; i++) {
        state = state * 1664525u + 1013904223u;
        rows[i] = (uint8_t)(state >> 24);
    }
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        size_t bytes = panel_bytes(type, samples[i].columns);
        if (bytes == 0 || bytes > (size_t)PANEL_ROWS * SAMPLE_ROW_BYTES ||
            !format_row_bytes(type, (uint64_t)samples[i].columns, &row_bytes))
            continue;
        panel_pack(type, rows, (size_t)row_bytes, samples[i].rows, samples[i].columns, panel);
        hash = XXH3_64bits_withSeed(panel, bytes, hash);
    }
    mem_free(rows);
    return hash;
}

static bool add_layouts(pack_key *key, const model *m)
{
    bool seen[DIL_TYPE_COUNT] = {false};
    for (size_t i = 0; i < m->n_packing; i++) {
        dil_type type = m->packing[i]->type;
        if (seen[type])
            continue;
        seen[type] = true;
        uint64_t layout = pack_cache_layout(type);
        if (layout == 0)
            return false;
        add_bytes(key, &layout, sizeof layout);
    }
    return true;
}

static void add_places(pack_key *key, const model *m)
{
    for (size_t i = 0; i < m->n_packing; i++) {
        const weight *w = m->packing[i];
        uint64_t place[] = {w->packed_offset, w->panel_bytes,    (uint64_t)w->n_panels, w->rows,
                            w->cols,          (uint64_t)w->type, w->first_row};
        add_bytes(key, place, sizeof place);
        add_bytes(key, w->tensor->name.p, w->tensor->name.n);
    }
}

typedef struct key_job {
    pack_key *key;
    const model *m;
    bool good;
} key_job;

static void make_key(void *ctx)
{
    key_job *job = ctx;
    const model *m = job->m;
    const gguf *g = m->file;
    pack_key key = {{PACK_CACHE_VERSION, ~(uint64_t)PACK_CACHE_VERSION}};
    for (int i = 0; i < gguf_shards(g); i++) {
        const os_file *f = gguf_shard_file(g, i);
        str header = gguf_shard_header(g, i);
        uint64_t file[] = {f->device, f->inode, f->size_bytes, (uint64_t)f->mtime_ns};
        add_bytes(&key, file, sizeof file);
        add_bytes(&key, header.p, header.n);
    }
    add_places(&key, m);
    job->good = add_layouts(&key, m);
    *job->key = key;
}

dil_status pack_cache_key(pack_key *out, const model *m, dil_error *err)
{
    pack_key key;
    key_job job = {&key, m, false};
    DIL_TRY(os_guard(make_key, &job, NULL, SIZE_MAX, err)); /* the parts of a split file are mappings of their own */
    if (!job.good)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory to load", gguf_path(m->file));
    *out = key;
    return DIL_OK;
}

/* ---- where it lies ---- */

#define NAME_BYTES 21 /* 16 hexadecimal digits, ".pack" */
#define PART_BYTES 43 /* then ".part-" and 16 more */
#define PART_AGE 60   /* seconds: a writer makes its file first and locks it then */

typedef struct place {
    char dir[2048], path[2048 + 64];
} place;

/* Of the first part's device and inode: a model that changes in place overwrites what was kept for it. */
static dil_status find_place(place *out, const model *m, dil_error *err)
{
    const os_file *f = gguf_shard_file(m->file, 0);
    uint64_t id[] = {f->device, f->inode};
    char base[2000];
    DIL_TRY(os_cache_dir(base, sizeof base, err));
    snprintf(out->dir, sizeof out->dir, "%s/packed", base);
    DIL_TRY(os_make_dirs(out->dir, err));
    snprintf(out->path, sizeof out->path, "%s/%016llx.pack", out->dir, (unsigned long long)XXH3_64bits(id, sizeof id));
    return DIL_OK;
}

/* ---- reading ---- */

typedef struct verify_job {
    const model *m;
    const model_options *options;
    const uint64_t *table;
    uint32_t n_chunks;
    size_t chunk_bytes;
    _Atomic bool wrong, cancelled;
} verify_job;

static size_t chunk_length(const model *m, size_t chunk_bytes, uint32_t i)
{
    size_t from = (size_t)i * chunk_bytes, left = m->packed_bytes - from;
    return left < chunk_bytes ? left : chunk_bytes;
}

static void verify_worker(void *ctx, int worker)
{
    verify_job *job = ctx;
    const model_options *o = job->options;
    const uint8_t *region = job->m->cache.p;
    for (uint32_t i; !atomic_load(&job->wrong) && !atomic_load(&job->cancelled) && (i = team_claim(o->workers)) < job->n_chunks;) {
        const uint8_t *p = region + (size_t)i * job->chunk_bytes;
        size_t n = chunk_length(job->m, job->chunk_bytes, i);
        os_advise_populate(p, n);
        if (XXH3_64bits_withSeed(p, n, i) != job->table[i])
            atomic_store(&job->wrong, true);
        if (worker == 0 && o->progress && !o->progress(o->user, "reading packed weights", i, job->n_chunks))
            atomic_store(&job->cancelled, true);
    }
}

/* All bytes of the region against the table. FORMAT: they differ; CANCELLED. */
static dil_status verify(const model *m, const model_options *options, const uint64_t *table, dil_error *err)
{
    verify_job job = {.m = m, .options = options, .table = table, .n_chunks = pack_n_chunks(m), .chunk_bytes = pack_chunk_bytes(m)};
    team_run(options->workers, verify_worker, &job);
    if (atomic_load(&job.cancelled))
        return DIL_FAIL(err, DIL_CANCELLED, "%s: loading was cancelled", gguf_path(m->file));
    if (atomic_load(&job.wrong) || os_mapping_lost(&m->cache))
        return DIL_FAIL(err, DIL_FORMAT, "packed weights: wanted the checksums that were written with them, found others");
    return DIL_OK;
}

static uint64_t head_hash(const head *h) { return XXH3_64bits(h, offsetof(head, head_hash)); }

/* table [chunks], sums [experts] */
static dil_status read_tables(const os_file *f, const model *m, const pack_key *key, uint64_t *table, uint64_t *sums,
                              dil_error *err)
{
    head h;
    size_t n = (size_t)pack_n_chunks(m) * sizeof *table, n_sums = m->n_expert_sums * sizeof *sums;
    DIL_TRY(os_file_read(f, 0, &h, sizeof h, err));
    if (memcmp(h.magic, magic, sizeof magic) != 0 || h.version != PACK_CACHE_VERSION || h.head_hash != head_hash(&h) ||
        memcmp(&h.key, key, sizeof *key) != 0 || h.region_bytes != m->packed_bytes || h.chunk_bytes != pack_chunk_bytes(m) ||
        h.n_chunks != pack_n_chunks(m) || h.n_expert_sums != m->n_expert_sums ||
        f->size_bytes != PACK_CACHE_REGION + m->packed_bytes + n_sums)
        return DIL_FAIL(err, DIL_FORMAT, "packed weights: wanted those of this model, found others");
    DIL_TRY(os_file_read(f, PACK_CACHE_TABLE, table, n, err));
    if (n_sums > 0)
        DIL_TRY(os_file_read(f, PACK_CACHE_REGION + m->packed_bytes, sums, n_sums, err));
    if (XXH3_64bits(table, n) != h.table_hash || XXH3_64bits(sums, n_sums) != h.expert_hash)
        return DIL_FAIL(err, DIL_FORMAT, "packed weights: wanted the checksum of their table, found another");
    return DIL_OK;
}

static void let_go(model *m)
{
    if (m->cache.p)
        os_mapping_close(&m->cache);
    else
        mem_unmap((void *)(uintptr_t)m->packed, m->resident_bytes, MEM_PACKED);
    m->packed = NULL;
    m->resident_bytes = 0;
    os_file_close(&m->cache_file);
}

/* Maps or reads what is wanted of an open cache file; check: against the checksums. */
static dil_status take_region(model *m, const model_options *options, const uint64_t *table, bool check, dil_error *err)
{
    if (options->experts_apart)
        return pack_read_dense(m, check ? table : NULL, err);
    DIL_TRY(os_map_shared(&m->cache, &m->cache_file, PACK_CACHE_REGION, m->packed_bytes, err));
    m->packed = m->cache.p;
    m->resident_bytes = m->packed_bytes;
    return check ? verify(m, options, table, err) : DIL_OK;
}

/* Uses the file at path; check: reads all it takes. On failure nothing is held. */
static dil_status use_cache(model *m, const model_options *options, const char *path, const pack_key *key, bool check,
                            dil_error *err)
{
    uint64_t *table = mem_calloc(pack_n_chunks(m), sizeof *table, MEM_MISC);
    uint64_t *sums = arena_calloc(m->memory, m->n_expert_sums + 1, sizeof *sums);
    char *kept_path = arena_strdup(m->memory, path, strlen(path));
    if (!table || !sums || !kept_path) {
        mem_free(table);
        return DIL_FAIL(err, DIL_NO_MEMORY, "packed weights: no memory for their checksums");
    }
    dil_status status = os_file_open_own(&m->cache_file, path, err);
    if (status == DIL_OK && !os_file_lock(&m->cache_file, false))
        status = DIL_FAIL(err, DIL_IO, "%s: cannot lock", path);
    if (status == DIL_OK)
        status = read_tables(&m->cache_file, m, key, table, sums, err);
    if (status == DIL_OK)
        status = take_region(m, options, table, check, err);
    mem_free(table);
    if (status != DIL_OK) {
        let_go(m);
        return status;
    }
    os_file_touch(&m->cache_file); /* used last now */
    m->cache_path = kept_path;
    m->expert_sums = sums;
    return DIL_OK;
}

/* ---- room ---- */

typedef struct kept {
    char name[NAME_BYTES + 1];
    uint64_t size_bytes;
    int64_t used_ns;
} kept;

typedef struct survey {
    const char *dir, *own; /* the file that will be replaced is not counted */
    kept *list;
    size_t n, room;
    uint64_t bytes; /* of list */
    bool failed;
} survey;

static bool is_hex(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!((p[i] >= '0' && p[i] <= '9') || (p[i] >= 'a' && p[i] <= 'f')))
            return false;
    return true;
}

/* Removes a file unless somebody has locked it or it changed within the last least_age seconds; true when it is gone. */
static bool remove_unused(const char *dir, const char *name, int64_t least_age)
{
    char path[2048 + 64];
    os_file f;
    dil_error ignored;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (os_file_open_own(&f, path, &ignored) != DIL_OK)
        return false;
    bool old = least_age == 0 || f.mtime_ns / 1000000000 + least_age < os_wall_seconds();
    bool gone = old && os_file_lock(&f, true) && os_remove(path, &ignored) == DIL_OK;
    os_file_close(&f);
    return gone;
}

static void add_kept(survey *s, const char *name)
{
    char path[2048 + 64];
    os_file f;
    dil_error ignored;
    snprintf(path, sizeof path, "%s/%s", s->dir, name);
    if (strcmp(path, s->own) == 0 || os_file_open_own(&f, path, &ignored) != DIL_OK)
        return;
    os_file_close(&f);
    if (s->n == s->room) {
        size_t room = s->room ? 2 * s->room : 64;
        kept *more = mem_grow(s->list, room * sizeof *more, MEM_MISC);
        if (!more) {
            s->failed = true;
            return;
        }
        s->list = more;
        s->room = room;
    }
    kept *k = &s->list[s->n++];
    *k = (kept){.size_bytes = f.size_bytes, .used_ns = f.mtime_ns};
    memcpy(k->name, name, NAME_BYTES);
    s->bytes += f.size_bytes;
}

/* What dead writers left is removed on the way. */
static void survey_one(void *ctx, const char *name, bool is_dir, uint64_t size)
{
    survey *s = ctx;
    size_t n = strlen(name);
    (void)size;
    if (is_dir || n < NAME_BYTES || !is_hex(name, 16) || memcmp(name + 16, ".pack", 5) != 0)
        return;
    if (n == PART_BYTES && memcmp(name + NAME_BYTES, ".part-", 6) == 0)
        (void)remove_unused(s->dir, name, PART_AGE);
    else if (n == NAME_BYTES)
        add_kept(s, name);
}

static int by_use(const void *a, const void *b)
{
    const kept *x = a, *y = b;
    return x->used_ns < y->used_ns ? -1 : x->used_ns > y->used_ns;
}

/* The least recently used go first, until `need` more bytes are within the limit. */
static dil_status make_room(const place *p, uint64_t need, uint64_t most, dil_error *err)
{
    survey s = {.dir = p->dir, .own = p->path};
    dil_status status = os_list_dir(p->dir, survey_one, &s, err);
    if (status == DIL_OK && s.failed)
        status = DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory to list it", p->dir);
    if (status == DIL_OK && most == 0) {
        most = (os_disk_free_bytes(p->dir) + s.bytes) / 4;
        most = most < MOST_BYTES ? most : MOST_BYTES;
    }
    if (status == DIL_OK && need <= most && s.n > 0) {
        qsort(s.list, s.n, sizeof *s.list, by_use);
        for (size_t i = 0; i < s.n && s.bytes > most - need; i++)
            if (remove_unused(p->dir, s.list[i].name, 0))
                s.bytes -= s.list[i].size_bytes;
    }
    if (status == DIL_OK && (need > most || s.bytes > most - need))
        status = DIL_FAIL(err, DIL_LIMIT, "%s: packed weights of %llu bytes wanted room within %llu, found %llu in use", p->dir,
                          (unsigned long long)need, (unsigned long long)most, (unsigned long long)s.bytes);
    mem_free(s.list);
    return status;
}

/* ---- writing ---- */

typedef struct output {
    os_writer w;
    size_t chunk_bytes;
    uint64_t *table;
    _Atomic bool failed; /* the first to set it owns note */
    dil_error note;
} output;

static bool write_chunk(void *ctx, uint32_t i, const uint8_t *bytes, size_t n)
{
    output *o = ctx;
    dil_error why;
    o->table[i] = XXH3_64bits_withSeed(bytes, n, i);
    if (os_writer_patch(&o->w, PACK_CACHE_REGION + (uint64_t)i * o->chunk_bytes, bytes, n, &why) == DIL_OK)
        return true;
    if (!atomic_exchange(&o->failed, true))
        o->note = why;
    return false;
}

static dil_status finish(output *o, const model *m, const pack_key *key, const uint64_t *sums, dil_error *err)
{
    size_t n = (size_t)pack_n_chunks(m) * sizeof *o->table, n_sums = m->n_expert_sums * sizeof *sums;
    head h = {.version = PACK_CACHE_VERSION,
              .chunk_bytes = (uint32_t)o->chunk_bytes,
              .key = *key,
              .region_bytes = m->packed_bytes,
              .n_chunks = pack_n_chunks(m),
              .n_expert_sums = m->n_expert_sums,
              .table_hash = XXH3_64bits(o->table, n),
              .expert_hash = XXH3_64bits(sums, n_sums)};
    memcpy(h.magic, magic, sizeof magic);
    h.head_hash = head_hash(&h);
    for (int i = 0; i < gguf_shards(m->file); i++)
        if (!os_file_unchanged(gguf_shard_file(m->file, i)))
            return DIL_FAIL(err, DIL_IO, "%s: it changed while its weights were packed", gguf_path(m->file));
    if (n_sums > 0)
        DIL_TRY(os_writer_patch(&o->w, PACK_CACHE_REGION + m->packed_bytes, sums, n_sums, err));
    DIL_TRY(os_writer_patch(&o->w, PACK_CACHE_TABLE, o->table, n, err));
    DIL_TRY(os_writer_patch(&o->w, 0, &h, sizeof h, err));
    return os_writer_publish(&o->w, err);
}

/* Packs into a new file at p->path. Errors are the model's; *written: the file is there, else *note says why not. */
static dil_status write_cache(model *m, const model_options *options, const place *p, const pack_key *key, bool *written,
                              dil_error *note, dil_error *err)
{
    bool stopped = false;
    *written = false;
    output *o = mem_calloc(1, sizeof *o, MEM_MISC);
    uint64_t *table = o ? mem_calloc(pack_n_chunks(m) + m->n_expert_sums, sizeof *table, MEM_MISC) : NULL;
    uint64_t *sums = table + (table ? pack_n_chunks(m) : 0);
    if (!table) {
        DIL_FAIL(note, DIL_NO_MEMORY, "packed weights: no memory for their checksums");
        mem_free(o);
        return DIL_OK;
    }
    o->w.fd = -1;
    o->table = table;
    o->chunk_bytes = pack_chunk_bytes(m);
    dil_status status = DIL_OK;
    if (os_writer_open_locked(&o->w, p->path, note) == DIL_OK) {
        status = pack_chunks(m, options, NULL, write_chunk, o, &stopped, err);
        if (stopped)
            *note = o->note;
        *written = status == DIL_OK && !stopped && pack_expert_sums(m, options->workers, o->w.temporary, sums, note) == DIL_OK &&
                   finish(o, m, key, sums, note) == DIL_OK;
    }
    os_writer_abort(&o->w);
    mem_free(table);
    mem_free(o);
    return status;
}

bool pack_cache_wanted(const model *m, const model_options *options)
{
    uint64_t least = options->pack_cache_least ? options->pack_cache_least : LEAST_BYTES;
    least = options->experts_apart ? 1 : least;
    return !options->no_pack_cache && m->packed_bytes >= least && m->packed_bytes > 0 &&
           pack_n_chunks(m) <= (PACK_CACHE_REGION - PACK_CACHE_TABLE) / sizeof(uint64_t);
}

dil_status pack_cache_use(model *m, const model_options *options, dil_error *err)
{
    place p;
    pack_key key;
    dil_error *note = &m->cache_note;
    m->cache_state = PACK_CACHE_FAILED;
    DIL_TRY(pack_cache_key(&key, m, err));
    if (find_place(&p, m, note) != DIL_OK)
        return DIL_OK;
    dil_error why;
    dil_status status = use_cache(m, options, p.path, &key, true, &why);
    if (status == DIL_OK) {
        m->cache_state = PACK_CACHE_READ;
        return DIL_OK;
    }
    if (status == DIL_CANCELLED) {
        if (err)
            *err = why;
        return status;
    }
    bool written = false;
    if (make_room(&p, PACK_CACHE_REGION + m->packed_bytes + m->n_expert_sums * sizeof(uint64_t), options->pack_cache_most, note) !=
        DIL_OK)
        return DIL_OK;
    DIL_TRY(write_cache(m, options, &p, &key, &written, note, err));
    if (written && use_cache(m, options, p.path, &key, false, note) == DIL_OK)
        m->cache_state = PACK_CACHE_WRITTEN;
    return DIL_OK;
}
