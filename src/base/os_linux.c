/* Linux: files, writing and directories. Mappings are in os_linux_map.c; time, machine and terminal in os_linux_machine.c. */
#include "base/os.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/mem.h"
#include "base/status.h"

static atomic_int_fast64_t inject_after = -1;

void os_inject_failure(int64_t after) { atomic_store_explicit(&inject_after, after, memory_order_relaxed); }

bool os_should_fail(void)
{
    int_fast64_t left = atomic_load_explicit(&inject_after, memory_order_relaxed);
    if (left < 0)
        return false;
    if (left == 0) {
        errno = EIO;
        return true;
    }
    atomic_store_explicit(&inject_after, left - 1, memory_order_relaxed);
    return false;
}

/* ---- reading ---- */

static void take_stat(os_file *out, int fd, const struct stat *st)
{
    out->fd = fd;
    out->size_bytes = (uint64_t)st->st_size;
    out->device = (uint64_t)st->st_dev;
    out->inode = (uint64_t)st->st_ino;
    out->mtime_ns = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

dil_status os_file_open(os_file *out, const char *path, dil_error *err)
{
    int fd = os_should_fail() ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return DIL_FAIL(err, DIL_IO, "%s: cannot open: %s", path, os_error_text(errno));
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return DIL_FAIL(err, DIL_IO, "%s: not a regular file", path);
    }
    take_stat(out, fd, &st);
    return DIL_OK;
}

/* Not blocking, so that a pipe put there does not hold us. */
dil_status os_file_open_own(os_file *out, const char *path, dil_error *err)
{
    int fd = os_should_fail() ? -1 : open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return DIL_FAIL(err, DIL_IO, "%s: cannot open: %s", path, os_error_text(errno));
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH))) {
        close(fd);
        return DIL_FAIL(err, DIL_IO, "%s: wanted a regular file that belongs to this user and that nobody else may write", path);
    }
    take_stat(out, fd, &st);
    return DIL_OK;
}

bool os_file_unchanged(const os_file *f)
{
    struct stat st;
    os_file now;
    if (os_should_fail() || fstat(f->fd, &st) != 0)
        return false;
    take_stat(&now, f->fd, &st);
    return now.size_bytes == f->size_bytes && now.mtime_ns == f->mtime_ns;
}

bool os_file_lock(const os_file *f, bool alone)
{
    return !os_should_fail() && flock(f->fd, (alone ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0;
}

bool os_file_take(const os_file *f) { return flock(f->fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK; }

void os_file_touch(const os_file *f) { (void)futimens(f->fd, NULL); }

dil_status os_file_read(const os_file *f, uint64_t offset, void *out, size_t n, dil_error *err)
{
    char *p = out;
    while (n > 0) {
        ssize_t got = os_should_fail() ? -1 : pread(f->fd, p, n, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return DIL_FAIL(err, DIL_IO, "read at byte %llu: %s", (unsigned long long)offset, os_error_text(errno));
        if (got == 0)
            return DIL_FAIL(err, DIL_IO, "read at byte %llu: the file ends, %zu more bytes wanted", (unsigned long long)offset, n);
        p += got;
        offset += (uint64_t)got;
        n -= (size_t)got;
    }
    return DIL_OK;
}

void os_file_close(os_file *f)
{
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
}

static dil_status read_fd(int fd, const char *name, size_t max_bytes, char **out, size_t *n, dil_error *err)
{
    size_t capacity = 1 << 16, used = 0;
    char *text = mem_alloc(capacity + 1, MEM_TEXT);
    while (text) {
        ssize_t got = os_should_fail() ? -1 : read(fd, text + used, capacity - used);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            mem_free(text);
            return DIL_FAIL(err, DIL_IO, "%s: cannot read: %s", name, os_error_text(errno));
        }
        used += (size_t)got;
        if (used > max_bytes) {
            mem_free(text);
            return DIL_FAIL(err, DIL_LIMIT, "%s: wanted at most %zu bytes, found more", name, max_bytes);
        }
        if (got == 0) {
            text[used] = '\0';
            *out = text;
            *n = used;
            return DIL_OK;
        }
        if (used == capacity) {
            char *bigger = mem_grow(text, capacity * 2 + 1, MEM_TEXT);
            if (!bigger)
                break;
            text = bigger;
            capacity *= 2;
        }
    }
    mem_free(text);
    return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for its text", name);
}

dil_status os_read_all(const char *path, size_t max_bytes, char **out, size_t *n, dil_error *err)
{
    int fd = os_should_fail() ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return DIL_FAIL(err, DIL_IO, "%s: cannot open: %s", path, os_error_text(errno));
    dil_status st = read_fd(fd, path, max_bytes, out, n, err);
    close(fd);
    return st;
}

dil_status os_read_stdin(size_t max_bytes, char **out, size_t *n, dil_error *err)
{
    return read_fd(STDIN_FILENO, "standard input", max_bytes, out, n, err);
}

/* ---- writing ---- */

dil_status os_writer_open_locked(os_writer *out, const char *path, dil_error *err)
{
    uint64_t unique = 0;
    if (strlen(path) >= sizeof out->path)
        return DIL_FAIL(err, DIL_LIMIT, "path: wanted at most %zu bytes, found %zu", sizeof out->path - 1, strlen(path));
    os_writer w = {.fd = -1};
    os_random(&unique, sizeof unique);
    snprintf(w.path, sizeof w.path, "%s", path);
    snprintf(w.temporary, sizeof w.temporary, "%s.part-%016llx", path, (unsigned long long)unique);
    w.fd = os_should_fail() ? -1 : open(w.temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (w.fd < 0)
        return DIL_FAIL(err, DIL_IO, "%s: cannot create: %s", path, os_error_text(errno));
    if (os_should_fail() || flock(w.fd, LOCK_EX | LOCK_NB) != 0) {
        int why = errno;
        os_writer_abort(&w);
        return DIL_FAIL(err, DIL_IO, "%s: cannot lock: %s", path, os_error_text(why));
    }
    *out = w;
    return DIL_OK;
}

dil_status os_writer_open(os_writer *out, const char *path, dil_error *err)
{
    if (strlen(path) >= sizeof out->path)
        return DIL_FAIL(err, DIL_LIMIT, "path: wanted at most %zu bytes, found %zu", sizeof out->path - 1, strlen(path));
    if (os_is_dir(path))
        return DIL_FAIL(err, DIL_IO, "%s: cannot create: there is a directory of that name", path);
    os_writer w = {.fd = -1};
    snprintf(w.path, sizeof w.path, "%s", path);
    snprintf(w.temporary, sizeof w.temporary, "%s.part-%ld", path, (long)getpid());
    w.fd = os_should_fail() ? -1 : open(w.temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (w.fd < 0)
        return DIL_FAIL(err, DIL_IO, "%s: cannot create: %s", path, os_error_text(errno));
    *out = w;
    return DIL_OK;
}

static dil_status write_at(os_writer *w, uint64_t offset, const void *bytes, size_t n, dil_error *err)
{
    const char *p = bytes;
    while (n > 0) {
        ssize_t put = os_should_fail() ? -1 : pwrite(w->fd, p, n, (off_t)offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return DIL_FAIL(err, DIL_IO, "%s: write at byte %llu: %s", w->path, (unsigned long long)offset, os_error_text(errno));
        p += put;
        offset += (uint64_t)put;
        n -= (size_t)put;
    }
    return DIL_OK;
}

dil_status os_writer_write(os_writer *w, const void *bytes, size_t n, dil_error *err)
{
    DIL_TRY(write_at(w, w->written_bytes, bytes, n, err));
    w->written_bytes += n;
    return DIL_OK;
}

dil_status os_writer_patch(os_writer *w, uint64_t offset, const void *bytes, size_t n, dil_error *err)
{
    return write_at(w, offset, bytes, n, err);
}

static dil_status commit(os_writer *w, bool wait, dil_error *err)
{
    bool good = !os_should_fail() && (!wait || fsync(w->fd) == 0);
    good = close(w->fd) == 0 && good;
    w->fd = -1;
    good = good && rename(w->temporary, w->path) == 0;
    if (!good) {
        int why = errno;
        unlink(w->temporary);
        return DIL_FAIL(err, DIL_IO, "%s: cannot finish writing: %s", w->path, os_error_text(why));
    }
    return DIL_OK;
}

dil_status os_writer_commit(os_writer *w, dil_error *err) { return commit(w, true, err); }
dil_status os_writer_publish(os_writer *w, dil_error *err) { return commit(w, false, err); }

void os_writer_abort(os_writer *w)
{
    if (w->fd < 0)
        return;
    close(w->fd);
    w->fd = -1;
    unlink(w->temporary);
}

dil_status os_write_file(const char *path, const void *bytes, size_t n, dil_error *err)
{
    os_writer w;
    DIL_TRY(os_writer_open(&w, path, err));
    dil_status status = os_writer_write(&w, bytes, n, err);
    if (status == DIL_OK)
        return os_writer_commit(&w, err);
    os_writer_abort(&w);
    return status;
}

dil_status os_writer_append(os_writer *out, const char *path, dil_error *err)
{
    if (strlen(path) >= sizeof out->path)
        return DIL_FAIL(err, DIL_LIMIT, "path: wanted at most %zu bytes, found %zu", sizeof out->path - 1, strlen(path));
    os_writer w = {.fd = os_should_fail() ? -1 : open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644)};
    off_t end = w.fd < 0 ? -1 : lseek(w.fd, 0, SEEK_END);
    if (end < 0) {
        int why = errno;
        if (w.fd >= 0)
            close(w.fd);
        return DIL_FAIL(err, DIL_IO, "%s: cannot write: %s", path, os_error_text(why));
    }
    snprintf(w.path, sizeof w.path, "%s", path);
    w.written_bytes = (uint64_t)end;
    *out = w;
    return DIL_OK;
}

dil_status os_writer_close(os_writer *w, dil_error *err)
{
    int fd = w->fd;
    w->fd = -1;
    if (fd >= 0 && close(fd) != 0)
        return DIL_FAIL(err, DIL_IO, "%s: cannot finish writing: %s", w->path, os_error_text(errno));
    return DIL_OK;
}

dil_status os_writer_sync(os_writer *w, dil_error *err)
{
    if (os_should_fail() || fsync(w->fd) != 0)
        return DIL_FAIL(err, DIL_IO, "%s: cannot write to the disk: %s", w->path, os_error_text(errno));
    return DIL_OK;
}

/* ---- directories ---- */

dil_status os_make_dirs(const char *path, dil_error *err)
{
    char part[4096];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof part)
        return DIL_FAIL(err, DIL_LIMIT, "directory name: wanted 1..%zu bytes, found %zu", sizeof part - 1, n);
    for (size_t i = 1; i <= n; i++) {
        if (i < n && path[i] != '/')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, 0755) != 0 && errno != EEXIST)
            return DIL_FAIL(err, DIL_IO, "%s: cannot make directory: %s", part, os_error_text(errno));
    }
    return DIL_OK;
}

static dil_status xdg_path(const char *variable, const char *below_home, char *out, size_t n, dil_error *err)
{
    const char *base = os_env(variable), *home = os_env("HOME");
    int need;
    if (base && base[0] == '/')
        need = snprintf(out, n, "%s/dilmodeli", base);
    else if (home)
        need = snprintf(out, n, "%s/%s/dilmodeli", home, below_home);
    else
        return DIL_FAIL(err, DIL_IO, "%s and HOME are both unset; set one of them", variable);
    if (need < 0 || (size_t)need >= n)
        return DIL_FAIL(err, DIL_LIMIT, "%s: the name is too long", variable);
    return DIL_OK;
}

dil_status os_data_dir(char *out, size_t n, dil_error *err)
{
    DIL_TRY(xdg_path("XDG_DATA_HOME", ".local/share", out, n, err));
    return os_make_dirs(out, err);
}

dil_status os_cache_path(char *out, size_t n, dil_error *err) { return xdg_path("XDG_CACHE_HOME", ".cache", out, n, err); }

dil_status os_cache_dir(char *out, size_t n, dil_error *err)
{
    DIL_TRY(os_cache_path(out, n, err));
    return os_make_dirs(out, err);
}

dil_status os_remove(const char *path, dil_error *err)
{
    if (unlink(path) != 0)
        return DIL_FAIL(err, DIL_IO, "%s: cannot remove: %s", path, os_error_text(errno));
    return DIL_OK;
}

dil_status os_list_dir(const char *path, void (*each)(void *ctx, const char *name, bool is_dir, uint64_t size), void *ctx,
                       dil_error *err)
{
    DIR *dir = opendir(path);
    if (!dir)
        return DIL_FAIL(err, DIL_IO, "%s: cannot list: %s", path, os_error_text(errno));
    for (struct dirent *entry; (entry = readdir(dir));) {
        struct stat st;
        if (entry->d_name[0] == '.' || fstatat(dirfd(dir), entry->d_name, &st, 0) != 0)
            continue;
        each(ctx, entry->d_name, S_ISDIR(st.st_mode), (uint64_t)st.st_size);
    }
    closedir(dir);
    return DIL_OK;
}

uint64_t os_disk_free_bytes(const char *path)
{
    struct statvfs fs;
    if (os_should_fail() || statvfs(path, &fs) != 0)
        return 0;
    return (uint64_t)fs.f_bavail * (uint64_t)fs.f_frsize;
}

bool os_exists(const char *path) { return access(path, F_OK) == 0; }

bool os_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool os_same_file(const char *a, const char *b)
{
    struct stat x, y;
    return strcmp(a, b) == 0 || (stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino);
}

const char *os_env(const char *name)
{
    const char *v = getenv(name);
    return v && *v ? v : NULL;
}

bool os_program_dir(char *out, size_t n)
{
    ssize_t length = readlink("/proc/self/exe", out, n);
    if (length <= 0 || (size_t)length >= n)
        return false;
    out[length] = '\0';
    char *slash = strrchr(out, '/');
    if (slash)
        *slash = '\0';
    return slash != NULL;
}

/* Texts of the C library for the errors that files and memory meet: those that catalogs translate. */
__attribute__((unused)) static const char *const error_texts[] = {
    N_("No such file or directory"),
    N_("Permission denied"),
    N_("Operation not permitted"),
    N_("Is a directory"),
    N_("Not a directory"),
    N_("File exists"),
    N_("Directory not empty"),
    N_("No space left on device"),
    N_("Disk quota exceeded"),
    N_("Read-only file system"),
    N_("File too large"),
    N_("File name too long"),
    N_("Input/output error"),
    N_("Cannot allocate memory"),
    N_("Too many open files"),
    N_("Resource temporarily unavailable"),
    N_("Invalid argument"),
    N_("Broken pipe"),
};

const char *os_error_text(int number) { return status_text(strerror(number)); }

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *walk)
{
    (void)st, (void)kind, (void)walk;
    return remove(path);
}

dil_status os_remove_tree(const char *path, dil_error *err)
{
    if (nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) != 0)
        return DIL_FAIL(err, DIL_IO, "%s: cannot remove: %s", path, os_error_text(errno));
    return DIL_OK;
}

extern char **environ;

dil_status os_run(const char *const *argv, int *exit_code, dil_error *err)
{
    posix_spawn_file_actions_t actions;
    pid_t pid;
    int state;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
    char *const *words = (char *const *)(uintptr_t)argv; /* posix_spawn does not change them */
    int failed = posix_spawnp(&pid, argv[0], &actions, NULL, words, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (failed)
        return DIL_FAIL(err, DIL_IO, "cannot run %s: %s", argv[0], os_error_text(failed));
    while (waitpid(pid, &state, 0) < 0)
        if (errno != EINTR)
            return DIL_FAIL(err, DIL_IO, "lost track of %s: %s", argv[0], os_error_text(errno));
    *exit_code = WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
    return DIL_OK;
}
