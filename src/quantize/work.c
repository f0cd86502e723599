#include "quantize/work.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"

struct work {
    char folder[4000];
    uint64_t key;
};

/* Before the bytes of every piece. */
typedef struct piece_head {
    uint64_t key, size, hash;
} piece_head;

uint64_t work_hash(const void *bytes, size_t n, uint64_t seed) { return XXH3_64bits_withSeed(bytes, n, seed); }

uint64_t work_hash_file(const os_file *f, uint64_t seed)
{
    const uint64_t id[3] = {f->size_bytes, (uint64_t)f->mtime_ns, f->inode};
    return work_hash(id, sizeof id, seed);
}

uint64_t work_hash_path(const char *path, uint64_t seed)
{
    os_file f;
    dil_error ignored;
    if (!path || os_file_open(&f, path, &ignored) != DIL_OK)
        return seed;
    seed = work_hash_file(&f, seed);
    os_file_close(&f);
    return work_hash(path, strlen(path), seed);
}

void work_path(const work *w, const char *name, char *out, size_t n) { snprintf(out, n, "%s/%s", w->folder, name); }

static dil_status begin(work *w, bool resume, dil_error *err)
{
    uint64_t key = 0;
    if (resume && work_load(w, "key", &key, sizeof key))
        return DIL_OK;
    if (resume && os_exists(w->folder))
        return DIL_FAIL(
            err, DIL_BAD_ARGUMENT,
            "%s: wanted what an interrupted run of the same input, text and options has left, found that of another one; remove "
            "it or do without --resume",
            w->folder);
    if (os_exists(w->folder))
        DIL_TRY(os_remove_tree(w->folder, err));
    DIL_TRY(os_make_dirs(w->folder, err));
    return work_save(w, "key", &w->key, sizeof w->key, err);
}

dil_status work_open(work **out, const char *out_path, uint64_t key, bool resume, dil_error *err)
{
    work *w = mem_calloc(1, sizeof *w, MEM_MISC);
    if (!w)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory", out_path);
    w->key = key;
    int n = snprintf(w->folder, sizeof w->folder, "%s.work", out_path);
    dil_status status = n < 0 || (size_t)n >= sizeof w->folder
                            ? DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: the name is too long", out_path)
                            : begin(w, resume, err);
    if (status == DIL_OK)
        *out = w;
    else
        mem_free(w);
    return status;
}

void work_close(work *w, bool done)
{
    dil_error ignored;
    if (w && done && os_remove_tree(w->folder, &ignored) != DIL_OK)
        status_clear(&ignored); /* what is left takes room, nothing more */
    mem_free(w);
}

bool work_load(const work *w, const char *name, void *bytes, size_t n)
{
    char path[4096];
    os_file f;
    piece_head h;
    dil_error ignored;
    work_path(w, name, path, sizeof path);
    if (!os_exists(path) || os_file_open(&f, path, &ignored) != DIL_OK)
        return false;
    bool good = f.size_bytes == sizeof h + n && os_file_read(&f, 0, &h, sizeof h, &ignored) == DIL_OK && h.key == w->key &&
                h.size == n && os_file_read(&f, sizeof h, bytes, n, &ignored) == DIL_OK && h.hash == work_hash(bytes, n, w->key);
    os_file_close(&f);
    return good;
}

dil_status work_save(work *w, const char *name, const void *bytes, size_t n, dil_error *err)
{
    char path[4096];
    os_writer o;
    piece_head h = {w->key, n, work_hash(bytes, n, w->key)};
    work_path(w, name, path, sizeof path);
    DIL_TRY(os_writer_open(&o, path, err));
    dil_status status = os_writer_write(&o, &h, sizeof h, err);
    if (status == DIL_OK)
        status = os_writer_write(&o, bytes, n, err);
    if (status == DIL_OK)
        return os_writer_commit(&o, err);
    os_writer_abort(&o);
    return status;
}
