#include "quantize/work.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"

#define MARK ".dilmodeli" /* in every such folder, locked by who works there; hidden: os_list_dir leaves it out */

struct work {
    char folder[4000];
    uint64_t key;
    os_file mark;
    bool taken; /* mark is open */
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

/* ---- the folder ---- */

static bool has(const work *w, const char *name)
{
    char path[4096];
    work_path(w, name, path, sizeof path);
    return os_exists(path);
}

static void count_entry(void *ctx, const char *name, bool is_dir, uint64_t size)
{
    (void)name;
    (void)is_dir;
    (void)size;
    ++*(int *)ctx;
}

/* Nothing but what a run makes first. */
static bool is_empty(const work *w)
{
    int n = 0;
    dil_error ignored;
    return os_list_dir(w->folder, count_entry, &n, &ignored) == DIL_OK && n == 0;
}

/* Makes the folder ours while this process lives. */
static dil_status take(work *w, dil_error *err)
{
    char path[4096];
    os_writer o;
    work_path(w, MARK, path, sizeof path);
    if (!os_exists(path)) {
        DIL_TRY(os_writer_open(&o, path, err));
        DIL_TRY(os_writer_commit(&o, err));
    }
    DIL_TRY(os_file_open(&w->mark, path, err));
    w->taken = true;
    return os_file_take(&w->mark)
               ? DIL_OK
               : DIL_FAIL(err, DIL_IO, "%s: wanted it for this run alone, found another run at work with it", w->folder);
}

static void let_go(work *w)
{
    if (w->taken)
        os_file_close(&w->mark);
    w->taken = false;
}

/* What an earlier run has left goes, or stays when it is what this one would do. *kept: it does. */
static dil_status inherit(work *w, bool resume, bool *kept, dil_error *err)
{
    uint64_t key = 0;
    if (!has(w, MARK) && !has(w, "key") && !is_empty(w))
        return DIL_FAIL(err, DIL_IO,
                        "%s: wanted what an earlier run has left there, or nothing, found something else; move it away", w->folder);
    DIL_TRY(take(w, err));
    *kept = resume && work_load(w, "key", &key, sizeof key);
    if (*kept)
        return DIL_OK;
    if (resume && has(w, "key"))
        return DIL_FAIL(
            err, DIL_BAD_ARGUMENT,
            "%s: wanted what an interrupted run of the same input, text and options has left, found that of another one; remove "
            "it or do without --resume",
            w->folder);
    let_go(w);
    return os_remove_tree(w->folder, err);
}

static dil_status begin(work *w, bool resume, dil_error *err)
{
    bool kept = false;
    char parent[4000];
    snprintf(parent, sizeof parent, "%s", w->folder);
    char *slash = strrchr(parent, '/');
    if (slash)
        slash[slash == parent] = '\0';
    if (slash && !os_is_dir(parent))
        return DIL_FAIL(err, DIL_IO, "%s: wanted a directory to write into, found none", parent);
    if (os_exists(w->folder))
        DIL_TRY(inherit(w, resume, &kept, err));
    if (kept)
        return DIL_OK;
    DIL_TRY(os_make_dirs(w->folder, err));
    DIL_TRY(take(w, err));
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
    if (status == DIL_OK) {
        *out = w;
    } else {
        let_go(w);
        mem_free(w);
    }
    return status;
}

dil_status work_open_passing(work **out, const char *out_path, const char *what, dil_error *err)
{
    char name[4000];
    if (snprintf(name, sizeof name, "%s.%s-%ld", out_path, what, os_process_id()) >= (int)sizeof name)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: the name is too long", out_path);
    return work_open(out, name, 0, false, err);
}

/* Whether there is something to go on with. */
static bool has_pieces(const work *w)
{
    int n = 0;
    dil_error ignored;
    return os_list_dir(w->folder, count_entry, &n, &ignored) != DIL_OK || n > 1; /* more than the key */
}

void work_close(work *w, bool done)
{
    dil_error ignored;
    if (!w)
        return;
    done = done || !has_pieces(w);
    if (done && os_remove_tree(w->folder, &ignored) != DIL_OK)
        status_clear(&ignored); /* what is left takes room, nothing more */
    let_go(w);
    mem_free(w);
}

/* ---- pieces ---- */

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
