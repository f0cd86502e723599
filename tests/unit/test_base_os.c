/* Files, mappings, guards and writers: short files, truncated mappings, outputs that appear whole or not at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"

static char directory[256];

static int make_room(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    (void)snprintf(directory, sizeof directory, "%s/dil-test-XXXXXX", base && strlen(base) < 200 ? base : "/tmp");
    return mkdtemp(directory) ? 0 : -1;
}

static int clear_room(void **state)
{
    (void)state;
    dil_error err;
    return os_remove_tree(directory, &err) == DIL_OK && !os_exists(directory) && mem_bytes(MEM_TEXT) == 0 ? 0 : -1;
}

static const char *path_of(const char *name)
{
    static char paths[4][600];
    static int next;
    char *p = paths[next++ % 4];
    (void)snprintf(p, 600, "%s/%s", directory, name);
    return p;
}

static void ok(dil_status status, const dil_error *err)
{
    if (status != DIL_OK)
        fail_msg("%s", err->text);
}

static void fails(dil_status status, const dil_error *err, dil_status wanted, const char *part)
{
    if (status != wanted || (int)err->code != (int)wanted || !strstr(err->text, part))
        fail_msg("wanted %s with '%s', found %s: %s", status_name(wanted), part, status_name(status), err->text);
}

static void store(const char *path, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    for (size_t i = 0; i < n; i++)
        (void)fputc((int)(i * 31 % 251), f);
    assert_int_equal(fclose(f), 0);
}

static void content_is(const char *path, const char *wanted)
{
    dil_error err;
    char *text;
    size_t n;
    ok(os_read_all(path, 1000, &text, &n, &err), &err);
    assert_int_equal(n, strlen(wanted));
    assert_memory_equal(text, wanted, n);
    mem_free(text);
}

/* Names in the directory. */
static void count_entry(void *ctx, const char *name, bool is_dir, uint64_t size)
{
    (void)name, (void)is_dir, (void)size;
    ++*(int *)ctx;
}

static int n_entries(void)
{
    dil_error err;
    int n = 0;
    ok(os_list_dir(directory, count_entry, &n, &err), &err);
    return n;
}

/* ---- reading ---- */

static void reading(void **state)
{
    (void)state;
    dil_error err;
    os_file f = {.fd = -1};
    unsigned char out[300];
    char *text;
    size_t n;
    store(path_of("a"), 300);
    fails(os_file_open(&f, path_of("none"), &err), &err, DIL_IO, "none: cannot open: No such file");
    fails(os_file_open(&f, directory, &err), &err, DIL_IO, "not a regular file");
    ok(os_file_open(&f, path_of("a"), &err), &err);
    assert_int_equal(f.size_bytes, 300);
    ok(os_file_read(&f, 100, out, 200, &err), &err);
    for (size_t i = 0; i < 200; i++)
        assert_int_equal(out[i], (i + 100) * 31 % 251);
    fails(os_file_read(&f, 200, out, 101, &err), &err, DIL_IO, "read at byte 300: the file ends, 1 more bytes wanted");
    fails(os_file_read(&f, 5000, out, 1, &err), &err, DIL_IO, "the file ends");
    os_file_close(&f);
    os_file_close(&f);
    ok(os_read_all(path_of("a"), 300, &text, &n, &err), &err);
    assert_int_equal(n, 300);
    assert_int_equal(text[300], 0);
    mem_free(text);
    fails(os_read_all(path_of("a"), 299, &text, &n, &err), &err, DIL_LIMIT, "at most 299 bytes");
    fails(os_read_all(path_of("none"), 299, &text, &n, &err), &err, DIL_IO, "none");
    store(path_of("big"), 200000); /* grows more than once */
    ok(os_read_all(path_of("big"), 1 << 20, &text, &n, &err), &err);
    assert_int_equal(n, 200000);
    assert_int_equal((unsigned char)text[199999], 199999 * 31 % 251);
    mem_free(text);
    for (int i = 0; i < 4; i++) {
        mem_inject_failure(i);
        dil_status status = os_read_all(path_of("big"), 1 << 20, &text, &n, &err);
        mem_inject_failure(-1);
        if (status == DIL_OK)
            mem_free(text);
        else
            fails(status, &err, DIL_NO_MEMORY, "big");
    }
}

/* ---- mappings and guards ---- */

typedef struct reader {
    const volatile unsigned char *p;
    size_t n;
    uint64_t sum;
    int calls;
} reader;

static void sum_bytes(void *ctx)
{
    reader *r = ctx;
    r->calls++;
    for (size_t i = 0; i < r->n; i += 64)
        r->sum += r->p[i];
}

static const void *map_path(const char *path, size_t *n)
{
    dil_error err;
    os_file f;
    const void *p;
    ok(os_file_open(&f, path, &err), &err);
    ok(os_map_file(&f, &p, &err), &err);
    *n = (size_t)f.size_bytes;
    os_file_close(&f); /* the mapping stays */
    return p;
}

static void mapping(void **state)
{
    (void)state;
    dil_error err;
    os_file f;
    size_t n;
    const void *p = NULL;
    store(path_of("empty"), 0);
    ok(os_file_open(&f, path_of("empty"), &err), &err);
    fails(os_map_file(&f, &p, &err), &err, DIL_FORMAT, "empty");
    assert_null(p);
    os_file_close(&f);
    store(path_of("m"), 50001);
    p = map_path(path_of("m"), &n);
    const unsigned char *bytes = p;
    /* advice at odd places changes no byte */
    os_advise_sequential(bytes, n);
    os_advise_willneed(bytes + 1, 5);
    os_advise_drop(bytes + 5000, 30000);
    os_advise_drop(bytes + 1, 10);
    os_advise_drop(bytes, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(bytes[i], i * 31 % 251);
    os_unmap(p, n);
    os_unmap(NULL, 5);
    char *region = mem_map(1 << 22, MEM_TEXT);
    assert_non_null(region);
    region[1 << 21] = 5;
    os_advise_huge(region, 1 << 22);
    assert_int_equal(region[1 << 21], 5);
    mem_unmap(region, 1 << 22, MEM_TEXT);
}

static void guard(void **state)
{
    (void)state;
    dil_error err;
    size_t n;
    store(path_of("g"), 40000);
    const unsigned char *p = map_path(path_of("g"), &n);
    reader r = {.p = p, .n = n};
    ok(os_guard(sum_bytes, &r, p, n, &err), &err);
    assert_true(r.sum > 0 && r.calls == 1);
    assert_int_equal(truncate(path_of("g"), 8192), 0);
    for (int i = 0; i < 3; i++) /* again and again */
        fails(os_guard(sum_bytes, &r, p, n, &err), &err, DIL_IO, "truncated");
    r.n = 8192;
    ok(os_guard(sum_bytes, &r, p, n, &err), &err);
    assert_int_equal(r.calls, 5);
    r.n = n;
    (void)signal(SIGBUS, SIG_DFL); /* the program sets a handler of its own */
    fails(os_guard(sum_bytes, &r, p, n, &err), &err, DIL_IO, "truncated");
    os_unmap(p, n);
}

/* A fault outside the range is not ours: the process ends by the signal, as without us. */
static void fault_elsewhere(void **state)
{
    (void)state;
    size_t n;
    store(path_of("e"), 40000);
    const unsigned char *p = map_path(path_of("e"), &n);
    assert_int_equal(truncate(path_of("e"), 4096), 0);
    for (int guarded = 0; guarded < 2; guarded++) {
        (void)fflush(NULL);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            dil_error err;
            reader r = {.p = p, .n = guarded ? n : 64};
            (void)signal(SIGBUS, SIG_DFL);
            dil_status status = os_guard(sum_bytes, &r, p, 4096, &err); /* the fault is behind this */
            r.n = n;
            sum_bytes(&r);
            _exit(status == DIL_OK ? 0 : 1);
        }
        int how;
        assert_int_equal(waitpid(child, &how, 0), child);
        assert_true(WIFSIGNALED(how) || WEXITSTATUS(how) > 1); /* sanitizers report and exit */
    }
    os_unmap(p, n);
}

typedef struct guard_thread {
    const unsigned char *p;
    size_t n;
    int wrong;
} guard_thread;

static void *guard_often(void *arg)
{
    guard_thread *t = arg;
    for (int i = 0; i < 100; i++) {
        dil_error err;
        reader r = {.p = t->p, .n = i % 2 ? t->n : 4096};
        t->wrong += os_guard(sum_bytes, &r, t->p, t->n, &err) != (i % 2 ? DIL_IO : DIL_OK);
    }
    return NULL;
}

static void guards_on_threads(void **state)
{
    (void)state;
    pthread_t threads[4];
    guard_thread t[4];
    size_t n;
    store(path_of("t"), 40000);
    const unsigned char *p = map_path(path_of("t"), &n);
    assert_int_equal(truncate(path_of("t"), 4096), 0);
    for (int i = 0; i < 4; i++) {
        t[i] = (guard_thread){p, n, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, guard_often, &t[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(t[i].wrong, 0);
    }
    os_unmap(p, n);
}

/* ---- writing ---- */

static void writing(void **state)
{
    (void)state;
    dil_error err;
    os_writer w;
    const char *path = path_of("w");
    ok(os_writer_open(&w, path, &err), &err);
    ok(os_writer_write(&w, "hello ", 6, &err), &err);
    ok(os_writer_write(&w, "world", 5, &err), &err);
    ok(os_writer_patch(&w, 0, "J", 1, &err), &err);
    assert_int_equal(w.written_bytes, 11);
    assert_false(os_exists(path));
    ok(os_writer_commit(&w, &err), &err);
    content_is(path, "Jello world");
    os_writer_abort(&w); /* after the end: nothing */
    content_is(path, "Jello world");
    int entries = n_entries();
    ok(os_writer_open(&w, path, &err), &err); /* over an old file: the old one stays until the end */
    ok(os_writer_write(&w, "new", 3, &err), &err);
    content_is(path, "Jello world");
    os_writer_abort(&w);
    content_is(path, "Jello world");
    assert_int_equal(n_entries(), entries);
    fails(os_writer_open(&w, path_of("no/such/dir"), &err), &err, DIL_IO, "no/such/dir");
    static char longest[5000];
    memset(longest, 'x', sizeof longest - 1);
    fails(os_writer_open(&w, longest, &err), &err, DIL_LIMIT, "at most 4095");
    fails(os_writer_append(&w, longest, &err), &err, DIL_LIMIT, "at most 4095");
    for (int i = 0; i < 4; i++) { /* open, write, write, commit */
        os_inject_failure(i);
        dil_status status = os_writer_open(&w, path, &err);
        bool opened = status == DIL_OK;
        for (int j = 0; j < 2 && status == DIL_OK; j++)
            status = os_writer_write(&w, "bad", 3, &err);
        if (status == DIL_OK)
            status = os_writer_commit(&w, &err);
        os_inject_failure(-1);
        if (opened)
            os_writer_abort(&w);
        fails(status, &err, DIL_IO, path);
        content_is(path, "Jello world");
        assert_int_equal(n_entries(), entries);
    }
    ok(os_remove(path, &err), &err);
    fails(os_remove(path, &err), &err, DIL_IO, "cannot remove");
}

static void appending(void **state)
{
    (void)state;
    dil_error err;
    os_writer w;
    const char *path = path_of("download");
    for (int i = 0; i < 3; i++) {
        ok(os_writer_append(&w, path, &err), &err);
        assert_int_equal(w.written_bytes, 4 * i);
        ok(os_writer_write(&w, "part", 4, &err), &err);
        ok(os_writer_close(&w, &err), &err);
        ok(os_writer_close(&w, &err), &err);
    }
    content_is(path, "partpartpart");
}

static void full_disk(void **state)
{
    (void)state;
    dil_error err;
    os_writer w = {.fd = open("/dev/full", O_WRONLY | O_CLOEXEC)};
    if (w.fd < 0)
        skip();
    (void)snprintf(w.path, sizeof w.path, "/dev/full");
    fails(os_writer_write(&w, "x", 1, &err), &err, DIL_IO, "No space left");
    assert_int_equal(w.written_bytes, 0);
    (void)close(w.fd);
}

/* Killed in the middle of writing: the old file is there, the new one is not. */
static void killed_writer(void **state)
{
    (void)state;
    dil_error err;
    os_writer w;
    const char *path = path_of("k");
    ok(os_writer_open(&w, path, &err), &err);
    ok(os_writer_write(&w, "old", 3, &err), &err);
    ok(os_writer_commit(&w, &err), &err);
    for (int round = 0; round < 3; round++) {
        int ready[2];
        assert_int_equal(pipe(ready), 0);
        (void)fflush(NULL);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            static char zeros[65536];
            bool good = os_writer_open(&w, path, &err) == DIL_OK && os_writer_write(&w, zeros, sizeof zeros, &err) == DIL_OK;
            (void)!write(ready[1], good ? "y" : "n", 1);
            while (good)
                good = os_writer_patch(&w, 0, zeros, sizeof zeros, &err) == DIL_OK;
            _exit(1);
        }
        char answer = 'n';
        assert_int_equal(read(ready[0], &answer, 1), 1);
        assert_int_equal(answer, 'y');
        assert_int_equal(kill(child, SIGKILL), 0);
        int how;
        assert_int_equal(waitpid(child, &how, 0), child);
        assert_true(WIFSIGNALED(how));
        (void)close(ready[0]);
        (void)close(ready[1]);
        content_is(path, "old");
    }
}

/* ---- directories, machine ---- */

static void directories(void **state)
{
    (void)state;
    dil_error err;
    char out[600], small[8];
    ok(os_make_dirs(path_of("x/y/z"), &err), &err);
    ok(os_make_dirs(path_of("x/y/z"), &err), &err);
    assert_true(os_exists(path_of("x/y/z")));
    store(path_of("file"), 3);
    fails(os_make_dirs(path_of("file/below"), &err), &err, DIL_IO, "file/below");
    fails(os_make_dirs("", &err), &err, DIL_LIMIT, "found 0");
    ok(os_remove_tree(path_of("x"), &err), &err);
    assert_false(os_exists(path_of("x")));
    fails(os_remove_tree(path_of("x"), &err), &err, DIL_IO, "cannot remove");
    fails(os_list_dir(path_of("x"), count_entry, NULL, &err), &err, DIL_IO, "cannot list");
    assert_int_equal(setenv("XDG_CACHE_HOME", directory, 1), 0);
    ok(os_cache_dir(out, sizeof out, &err), &err);
    assert_string_equal(out, path_of("dilmodeli"));
    assert_true(os_exists(out));
    fails(os_cache_dir(small, sizeof small, &err), &err, DIL_LIMIT, "too long");
    assert_int_equal(setenv("XDG_DATA_HOME", "relative", 1), 0); /* the standard says: ignore */
    assert_int_equal(setenv("HOME", directory, 1), 0);
    ok(os_data_dir(out, sizeof out, &err), &err);
    assert_string_equal(out, path_of(".local/share/dilmodeli"));
    assert_null(os_env("DIL_NO_SUCH_VARIABLE"));
    assert_int_equal(setenv("DIL_EMPTY", "", 1), 0);
    assert_null(os_env("DIL_EMPTY"));
}

/* A command's output, the end of its complaints, its exit code. */
static void capture(void **state)
{
    (void)state;
    dil_error err;
    char *out, errors[8];
    int code;
    ok(os_capture("printf one; printf 'bad thing' >&2; exit 3", 100, &out, errors, sizeof errors, &code, &err), &err);
    assert_string_equal(out, "one");
    assert_string_equal(errors, "d thing");
    assert_int_equal(code, 3);
    mem_free(out);
    ok(os_capture("cat; for i in 1 2 3; do printf abc >&2; done; kill -9 $$", 100, &out, errors, sizeof errors, &code, &err), &err);
    assert_string_equal(out, "");
    assert_string_equal(errors, "bcabcabc" + 1);
    assert_int_equal(code, 128 + 9);
    mem_free(out);
    fails(os_capture("head -c 5000 /dev/zero", 1000, &out, errors, sizeof errors, &code, &err), &err, DIL_LIMIT,
          "more than 1000 bytes");
    os_inject_failure(0);
    dil_status status = os_capture("true", 100, &out, errors, sizeof errors, &code, &err);
    os_inject_failure(-1);
    fails(status, &err, DIL_IO, "pipe");
}

static void machine(void **state)
{
    (void)state;
    unsigned char a[64], b[64];
    uint64_t before = os_time_ns();
    assert_in_range(os_cpu_count(), 1, 4096);
    assert_true(os_memory_bytes() > (64u << 20));
    assert_true(os_rss_bytes() > 0 && os_peak_rss_bytes() > 0);
    assert_true(os_wall_seconds() > 1700000000);
    os_random(a, sizeof a);
    os_random(b, sizeof b);
    assert_memory_not_equal(a, b, sizeof a);
    assert_true(os_terminal_columns() > 0);
    assert_true(os_time_ns() > before);
    uint32_t word = 1;
    os_futex_wait(&word, 0); /* differs: returns at once */
    os_futex_wake_all(&word);
    int code = -1;
    dil_error err;
    ok(os_run((const char *const[]){"sh", "-c", "exit 3", NULL}, &code, &err), &err);
    assert_int_equal(code, 3);
    fails(os_run((const char *const[]){"no-such-program-here", NULL}, &code, &err), &err, DIL_IO, "no-such-program-here");
    os_interrupt_install();
    assert_false(os_interrupted());
    assert_int_equal(raise(SIGINT), 0);
    assert_true(os_interrupted());
    os_interrupt_clear();
    assert_false(os_interrupted());
    (void)signal(SIGINT, SIG_DFL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reading),         cmocka_unit_test(mapping),           cmocka_unit_test(guard),
        cmocka_unit_test(fault_elsewhere), cmocka_unit_test(guards_on_threads), cmocka_unit_test(writing),
        cmocka_unit_test(appending),       cmocka_unit_test(full_disk),         cmocka_unit_test(killed_writer),
        cmocka_unit_test(directories),     cmocka_unit_test(capture),           cmocka_unit_test(machine),
    };
    return cmocka_run_group_tests(tests, make_room, clear_room);
}
