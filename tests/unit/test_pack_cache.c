/* The cache of packed weights: what it gives back, what makes it worthless, and that trouble with it never keeps a model from
 * loading. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "engine/engine.h"
#include "kernels/kernels.h"
#include "leaks.h"
#include "model/pack.h"
#include "model/pack_cache.h"
#include "tiny_model.h"

#define N_TOKENS 40

static char model_path[600], cache_home[600], packed_dir[700];

static void ok(dil_status status, const dil_error *err)
{
    if (status != DIL_OK)
        fail_msg("%s", err->text);
}

/* ---- the folder ---- */

typedef struct listing {
    int packs, parts, others;
    char pack[800];
} listing;

static void count_one(void *ctx, const char *name, bool is_dir, uint64_t size)
{
    listing *l = ctx;
    (void)size;
    size_t n = strlen(name);
    if (!is_dir && n == 21 && strcmp(name + 16, ".pack") == 0) {
        l->packs++;
        (void)snprintf(l->pack, sizeof l->pack, "%s/%s", packed_dir, name);
    } else if (strstr(name, ".part-")) {
        l->parts++;
    } else {
        l->others++;
    }
}

static listing list(void)
{
    listing l = {0};
    dil_error ignored;
    (void)!os_list_dir(packed_dir, count_one, &l, &ignored);
    return l;
}

static void holds(int packs, int parts)
{
    listing l = list();
    if (l.packs != packs || l.parts != parts || l.others != 0)
        fail_msg("wanted %d packs and %d parts, found %d, %d and %d other files", packs, parts, l.packs, l.parts, l.others);
}

static void write_model(uint32_t seed)
{
    tiny_model t = tiny_llama(DIL_TYPE_Q8_0);
    t.seed = seed;
    tiny_write(model_path, &t);
}

static int prepare(void **state)
{
    (void)state;
    tiny_path(model_path, "model.gguf");
    tiny_path(cache_home, "cache");
    (void)snprintf(packed_dir, sizeof packed_dir, "%s/dilmodeli/packed", cache_home);
    return setenv("XDG_CACHE_HOME", cache_home, 1);
}

static int fresh(void **state)
{
    dil_error ignored;
    (void)state;
    if (os_exists(cache_home) && os_remove_tree(cache_home, &ignored) != DIL_OK)
        return 1;
    write_model(1);
    return 0;
}

/* ---- an engine's answer ---- */

typedef struct answer {
    pack_cache_state state;
    float logits[301];
    char note[500];
} answer;

static engine_options small(void) { return (engine_options){.n_threads = 2, .context = 64, .pack_cache_least = 1}; }

static dil_status run_tokens(engine *e, session *s, const float **logits, dil_error *err)
{
    token_id tokens[N_TOKENS];
    (void)e;
    for (int i = 0; i < N_TOKENS; i++)
        tokens[i] = 3 + 5 * i;
    return session_sync(s, tokens, N_TOKENS, logits, NULL, NULL, NULL, err);
}

static dil_status ask(answer *a, const engine_options *o, dil_error *err)
{
    engine *e;
    session *s;
    const float *logits;
    DIL_TRY(engine_open(&e, model_path, o, err));
    a->state = engine_model(e)->cache_state;
    (void)snprintf(a->note, sizeof a->note, "%s", engine_model(e)->cache_note.text);
    dil_status status = session_new(&s, e, err);
    if (status == DIL_OK) {
        status = run_tokens(e, s, &logits, err);
        if (status == DIL_OK)
            memcpy(a->logits, logits, sizeof a->logits);
        session_free(s);
    }
    engine_close(e);
    return status;
}

/* What the model answers from memory, the yardstick of all others. */
static void expect(answer *a)
{
    engine_options o = small();
    dil_error err;
    o.no_pack_cache = true;
    ok(ask(a, &o, &err), &err);
    assert_int_equal(a->state, PACK_CACHE_OFF);
}

static void answers(const answer *wanted, const engine_options *o, pack_cache_state state)
{
    answer a;
    dil_error err;
    ok(ask(&a, o, &err), &err);
    if (a.state != state)
        fail_msg("wanted state %d, found %d: %s", (int)state, (int)a.state, a.note);
    assert_memory_equal(a.logits, wanted->logits, sizeof a.logits);
}

/* ---- tests ---- */

static void second_start(void **state)
{
    (void)state;
    answer a;
    engine_options o = small();
    expect(&a);
    assert_int_equal(list().packs, 0);
    answers(&a, &o, PACK_CACHE_WRITTEN);
    holds(1, 0);
    answers(&a, &o, PACK_CACHE_READ);
    o.n_threads = 3;
    answers(&a, &o, PACK_CACHE_READ);
    holds(1, 0);
}

/* Every type: the mapped region is, byte for byte, what packing into memory gives. */
static void same_bytes(void **state)
{
    (void)state;
    static const dil_type types[] = {DIL_TYPE_F32,  DIL_TYPE_F16,  DIL_TYPE_BF16, DIL_TYPE_Q4_0,
                                     DIL_TYPE_Q4_1, DIL_TYPE_Q8_0, DIL_TYPE_Q4_K, DIL_TYPE_Q6_K};
    dil_error err;
    team *workers;
    ok(team_new(&workers, 3, &err), &err);
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        tiny_model t = tiny_llama(types[i]);
        tiny_write(model_path, &t);
        model *m[3];
        for (int k = 0; k < 3; k++) {
            model_options o = {.workers = workers, .no_pack_cache = k == 0, .pack_cache_least = 1};
            ok(model_open(&m[k], model_path, &o, &err), &err);
            assert_int_equal(m[k]->cache_state, k == 0 ? PACK_CACHE_OFF : k == 1 ? PACK_CACHE_WRITTEN : PACK_CACHE_READ);
        }
        assert_true(pack_n_chunks(m[0]) > 1);
        assert_memory_equal(m[1]->packed, m[0]->packed, m[0]->packed_bytes);
        assert_memory_equal(m[2]->packed, m[0]->packed, m[0]->packed_bytes);
        for (int k = 0; k < 3; k++)
            model_close(m[k]);
    }
    team_free(workers);
}

static void switched_off(void **state)
{
    (void)state;
    answer a;
    engine_options o = small();
    expect(&a);
    assert_false(os_exists(cache_home));
    o.no_pack_cache = true; /* nor is it read */
    engine_options on = small();
    answers(&a, &on, PACK_CACHE_WRITTEN);
    answers(&a, &o, PACK_CACHE_OFF);
    o = (engine_options){.n_threads = 1, .context = 64}; /* too small to be worth a file */
    answers(&a, &o, PACK_CACHE_OFF);
}

/* ---- worthless files ---- */

static void flip(const char *path, off_t at)
{
    int fd = open(path, O_RDWR);
    uint8_t byte;
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 16;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    assert_int_equal(close(fd), 0);
}

static void corrupt(void **state)
{
    (void)state;
    answer a;
    struct stat st;
    engine_options o = small();
    expect(&a);
    answers(&a, &o, PACK_CACHE_WRITTEN);
    char path[800];
    (void)snprintf(path, sizeof path, "%s", list().pack);
    assert_int_equal(stat(path, &st), 0);
    /* magic, version, chunk size, key, bytes, chunks, hashes; table; first, middle and last byte of the region */
    const off_t at[] = {0,
                        8,
                        12,
                        16,
                        24,
                        32,
                        40,
                        48,
                        56,
                        PACK_CACHE_TABLE,
                        (off_t)PACK_CACHE_REGION,
                        ((off_t)PACK_CACHE_REGION + st.st_size) / 2,
                        st.st_size - 1};
    for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
        flip(path, at[i]);
        answers(&a, &o, PACK_CACHE_WRITTEN);
        answers(&a, &o, PACK_CACHE_READ);
    }
    const off_t sizes[] = {0, 10, 4096, (off_t)PACK_CACHE_REGION, st.st_size - 1, st.st_size + 1};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        assert_int_equal(truncate(path, sizes[i]), 0);
        answers(&a, &o, PACK_CACHE_WRITTEN);
        answers(&a, &o, PACK_CACHE_READ);
    }
    holds(1, 0);
}

/* Only a file that nobody else can have written is trusted. */
static void not_ours(void **state)
{
    (void)state;
    answer a;
    engine_options o = small();
    char path[800], aside[810];
    struct stat st;
    expect(&a);
    answers(&a, &o, PACK_CACHE_WRITTEN);
    (void)snprintf(path, sizeof path, "%s", list().pack);
    (void)snprintf(aside, sizeof aside, "%s/aside", tiny_folder);
    assert_int_equal(rename(path, aside), 0);
    assert_int_equal(symlink(aside, path), 0);
    answers(&a, &o, PACK_CACHE_WRITTEN); /* the link is replaced, what it points to is not touched */
    assert_int_equal(lstat(path, &st), 0);
    assert_true(S_ISREG(st.st_mode));
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(unlink(aside), 0);
    assert_int_equal(chmod(path, 0666), 0);
    answers(&a, &o, PACK_CACHE_WRITTEN);
    if (geteuid() == 0) {
        assert_int_equal(chown(path, 12345, (gid_t)-1), 0);
        answers(&a, &o, PACK_CACHE_WRITTEN);
    }
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0); /* cannot be replaced: nothing is kept, nothing is lost */
    answers(&a, &o, PACK_CACHE_FAILED);
    assert_int_equal(list().parts, 0);
}

/* The model's file changes in place, or another takes its name. */
static void replaced_model(void **state)
{
    (void)state;
    answer first, second;
    engine_options o = small();
    expect(&first);
    answers(&first, &o, PACK_CACHE_WRITTEN);
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1000000000, .tv_nsec = 7}};
    assert_int_equal(utimensat(AT_FDCWD, model_path, times, 0), 0);
    answers(&first, &o, PACK_CACHE_WRITTEN); /* only the time is another */
    times[1].tv_nsec = 8;
    assert_int_equal(utimensat(AT_FDCWD, model_path, times, 0), 0);
    answers(&first, &o, PACK_CACHE_WRITTEN); /* by a nanosecond */
    holds(1, 0);
    write_model(2); /* by rename: another inode */
    expect(&second);
    assert_memory_not_equal(first.logits, second.logits, sizeof first.logits);
    answers(&second, &o, PACK_CACHE_WRITTEN);
    answers(&second, &o, PACK_CACHE_READ);
}

static bool replace_while_packing(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)user, (void)total;
    if (strcmp(what, "packing weights") == 0 && done == 2)
        assert_int_equal(utimensat(AT_FDCWD, model_path, NULL, 0), 0);
    return true;
}

static void replaced_meanwhile(void **state)
{
    (void)state;
    answer a;
    engine_options o = small();
    struct timespec times[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
    expect(&a);
    assert_int_equal(utimensat(AT_FDCWD, model_path, times, 0), 0);
    o.progress = replace_while_packing;
    o.n_threads = 1;
    answers(&a, &o, PACK_CACHE_FAILED);
    holds(0, 0);
}

/* ---- the mapped file goes away ---- */

static void truncated_while_mapped(void **state)
{
    (void)state;
    engine *e;
    session *s;
    const float *logits = NULL;
    dil_error err;
    answer a;
    engine_options o = small();
    expect(&a);
    answers(&a, &o, PACK_CACHE_WRITTEN);
    for (int threads = 1; threads <= 3; threads++) {
        o.n_threads = threads;
        ok(engine_open(&e, model_path, &o, &err), &err);
        ok(session_new(&s, e, &err), &err);
        assert_int_equal(truncate(list().pack, 4096), 0);
        dil_status status = run_tokens(e, s, &logits, &err);
        if (status != DIL_IO || !strstr(err.text, "packed weights could not be read"))
            fail_msg("found %s: %s", status_name(status), err.text);
        assert_int_equal(session_n_tokens(s), 0);
        assert_int_equal(run_tokens(e, s, &logits, &err), DIL_IO); /* for good */
        session_free(s);
        engine_close(e);
        answers(&a, &o, PACK_CACHE_WRITTEN);
    }
}

/* Deleting it is no such trouble: the mapping stays. */
static void deleted_while_mapped(void **state)
{
    (void)state;
    engine *e;
    session *s;
    const float *logits;
    dil_error err;
    answer a;
    engine_options o = small();
    expect(&a);
    answers(&a, &o, PACK_CACHE_WRITTEN);
    ok(engine_open(&e, model_path, &o, &err), &err);
    ok(session_new(&s, e, &err), &err);
    assert_int_equal(unlink(list().pack), 0);
    ok(run_tokens(e, s, &logits, &err), &err);
    assert_memory_equal(logits, a.logits, sizeof a.logits);
    session_free(s);
    engine_close(e);
}

/* ---- room ---- */

/* A file of that name and size, last used that many seconds after 2001. */
static void put(const char *name, off_t bytes, time_t used, char *path, size_t n)
{
    (void)snprintf(path, n, "%s/%s", packed_dir, name);
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    struct timespec times[2] = {{.tv_sec = 1000000000 + used}, {.tv_sec = 1000000000 + used}};
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, bytes), 0);
    assert_int_equal(futimens(fd, times), 0);
    assert_int_equal(close(fd), 0);
}

static void least_recently_used(void **state)
{
    (void)state;
    answer a;
    dil_error err;
    char old[800], locked[800], young[800], other[800];
    const off_t size = 10 << 20;
    engine_options o = small();
    expect(&a);
    ok(os_make_dirs(packed_dir, &err), &err);
    put("00000000000000aa.pack", size, 0, locked, sizeof locked);
    put("00000000000000bb.pack", size, 1, old, sizeof old);
    put("00000000000000cc.pack", size, 2, young, sizeof young);
    put("notes.txt", size, 0, other, sizeof other);
    int fd = open(locked, O_RDONLY);
    assert_int_equal(flock(fd, LOCK_SH | LOCK_NB), 0);
    o.pack_cache_most = 2 * (uint64_t)size + ((uint64_t)5 << 20); /* ours takes a little more than 2 MiB */
    answers(&a, &o, PACK_CACHE_WRITTEN);
    assert_true(os_exists(locked) && os_exists(young) && os_exists(other));
    assert_false(os_exists(old));
    assert_int_equal(unlink(list().pack), 0);
    assert_int_equal(close(fd), 0);
    (void)!os_remove_tree(packed_dir, &err);
    o.pack_cache_most = 1 << 20; /* less than the model's own */
    answers(&a, &o, PACK_CACHE_FAILED);
    holds(0, 0);
}

/* Using a file makes it the youngest. */
static void use_counts(void **state)
{
    (void)state;
    answer a;
    char path[800];
    struct stat st;
    struct timespec times[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
    engine_options o = small();
    expect(&a);
    answers(&a, &o, PACK_CACHE_WRITTEN);
    (void)snprintf(path, sizeof path, "%s", list().pack);
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    answers(&a, &o, PACK_CACHE_READ);
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_mtim.tv_sec > 1000000000);
}

/* What a writer that was killed left goes with the next writing, what a living one holds stays. */
static void stale_parts(void **state)
{
    (void)state;
    answer a;
    dil_error err;
    char dead[800], alive[800];
    engine_options o = small();
    expect(&a);
    ok(os_make_dirs(packed_dir, &err), &err);
    put("00000000000000aa.pack.part-0123456789abcdef", 5000, 0, dead, sizeof dead);
    put("00000000000000aa.pack.part-fedcba9876543210", 5000, 0, alive, sizeof alive);
    int fd = open(alive, O_WRONLY);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    answers(&a, &o, PACK_CACHE_WRITTEN);
    holds(1, 1);
    assert_true(os_exists(alive));
    assert_false(os_exists(dead));
    assert_int_equal(close(fd), 0);
}

/* ---- trouble ---- */

static bool cancel(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)total;
    return strcmp(what, user) != 0 || done < 2;
}

static void cancelled(void **state)
{
    (void)state;
    answer a;
    dil_error err;
    static char packing[] = "packing weights", reading[] = "reading packed weights";
    engine_options o = small(), plain = small();
    o.n_threads = 1;
    o.progress = cancel;
    o.user = packing;
    assert_int_equal(ask(&a, &o, &err), DIL_CANCELLED);
    holds(0, 0);
    expect(&a);
    answers(&a, &plain, PACK_CACHE_WRITTEN);
    o.user = reading;
    assert_int_equal(ask(&a, &o, &err), DIL_CANCELLED);
    answers(&a, &plain, PACK_CACHE_READ);
}

static void no_place(void **state)
{
    (void)state;
    answer a;
    engine_options o = small();
    expect(&a);
    assert_int_equal(setenv("XDG_CACHE_HOME", "/dev/null/nowhere", 1), 0);
    answers(&a, &o, PACK_CACHE_FAILED);
    char *home = getenv("HOME") ? strdup(getenv("HOME")) : NULL;
    assert_int_equal(unsetenv("XDG_CACHE_HOME"), 0);
    assert_int_equal(unsetenv("HOME"), 0);
    answers(&a, &o, PACK_CACHE_FAILED);
    if (home)
        assert_int_equal(setenv("HOME", home, 1), 0);
    free(home);
    assert_int_equal(setenv("XDG_CACHE_HOME", cache_home, 1), 0);
}

static bool answers_quietly(const answer *wanted, pack_cache_state state)
{
    answer a;
    dil_error err;
    engine_options o = small();
    return ask(&a, &o, &err) == DIL_OK && a.state == state && memcmp(a.logits, wanted->logits, sizeof a.logits) == 0;
}

/* The number of the step that went wrong, or 0. Root may write anywhere, so it becomes somebody else. */
static int use_read_only(const answer *wanted)
{
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
        return 1;
    if (!answers_quietly(wanted, PACK_CACHE_WRITTEN) || chmod(packed_dir, 0500) != 0)
        return 2;
    if (!answers_quietly(wanted, PACK_CACHE_READ))
        return 3;
    if (truncate(list().pack, 5000) != 0 || !answers_quietly(wanted, PACK_CACHE_FAILED))
        return 4;
    return chmod(packed_dir, 0700) == 0 ? 0 : 5;
}

/* In a folder that cannot be written what is there is still read. */
static void read_only_folder(void **state)
{
    (void)state;
    answer a;
    int code;
    struct stat st;
    expect(&a);
    assert_int_equal(stat(tiny_folder, &st), 0);
    if (geteuid() == 0) {
        assert_int_equal(chmod(model_path, 0644), 0);
        assert_int_equal(chown(tiny_folder, 65534, 65534), 0);
    }
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(use_read_only(&a));
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_int_equal(chown(tiny_folder, st.st_uid, st.st_gid), 0);
    assert_int_equal(code, 0);
}

/* The n-th call of the operating system and all later ones fail: the model loads as ever or says IO, and no part stays. */
static void failing_calls(void **state)
{
    (void)state;
    answer a, b;
    dil_error err;
    bool read = false;
    engine_options o = small();
    expect(&a);
    o.n_threads = 1;
    for (int n = 0; n < 500 && !read; n++) {
        os_inject_failure(n);
        dil_status status = ask(&b, &o, &err);
        os_inject_failure(-1);
        assert_int_equal(list().parts, 0);
        if (status != DIL_OK) {
            assert_int_equal(status, DIL_IO);
            continue;
        }
        assert_memory_equal(a.logits, b.logits, sizeof a.logits);
        read = b.state == PACK_CACHE_READ;
    }
    assert_true(read);
}

static void failing_allocations(void **state)
{
    (void)state;
    answer a, b;
    dil_error err;
    bool read = false;
    engine_options o = small();
    expect(&a);
    o.n_threads = 1;
    for (int n = 0; n < 2000 && !read; n++) {
        mem_inject_failure(n);
        dil_status status = ask(&b, &o, &err);
        mem_inject_failure(-1);
        assert_int_equal(list().parts, 0);
        if (status != DIL_OK) {
            assert_int_equal(status, DIL_NO_MEMORY);
            continue;
        }
        assert_memory_equal(a.logits, b.logits, sizeof a.logits);
        read = b.state == PACK_CACHE_READ;
    }
    assert_true(read);
}

/* Every write from the n-th on fails, as on a full disk: nothing else does. */
static void disk_full(void **state)
{
    (void)state;
    answer a;
    engine_options o = small();
    struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
    struct rlimit limit, old;
    expect(&a);
    assert_int_equal(sigaction(SIGXFSZ, &ignore, &before), 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    limit = old;
    limit.rlim_cur = PACK_CACHE_REGION + 100000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    answers(&a, &o, PACK_CACHE_FAILED);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(sigaction(SIGXFSZ, &before, NULL), 0);
    holds(0, 0);
    answers(&a, &o, PACK_CACHE_WRITTEN);
}

/* Two processes find nothing and both write; whoever comes last wins, all answer alike. */
static void two_at_once(void **state)
{
    (void)state;
    answer a;
    engine_options o = small();
    int gate[2], code;
    char byte;
    pid_t child[2];
    expect(&a);
    for (int round = 0; round < 5; round++) {
        assert_int_equal(pipe(gate), 0);
        for (int i = 0; i < 2; i++) {
            child[i] = fork();
            assert_true(child[i] >= 0);
            if (child[i] == 0) {
                answer b;
                dil_error err;
                close(gate[1]);
                (void)!read(gate[0], &byte, 1);
                _exit(ask(&b, &o, &err) == DIL_OK && memcmp(b.logits, a.logits, sizeof a.logits) == 0 &&
                              (b.state == PACK_CACHE_WRITTEN || b.state == PACK_CACHE_READ)
                          ? 0
                          : 1);
            }
        }
        close(gate[0]);
        close(gate[1]);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(waitpid(child[i], &code, 0), child[i]);
            assert_int_equal(code, 0);
        }
        holds(1, 0);
        answers(&a, &o, PACK_CACHE_READ);
        assert_int_equal(unlink(list().pack), 0);
    }
}

/* ---- the key ---- */

/* Two types that pack alike would be told apart by their number alone; no two types may share a checksum, and it is the same twice. */
static void layouts(void **state)
{
    (void)state;
    for (int a = 0; a < DIL_TYPE_COUNT; a++) {
        if (panel_bytes((dil_type)a, 512) == 0)
            continue;
        assert_int_not_equal(pack_cache_layout((dil_type)a), 0);
        assert_true(pack_cache_layout((dil_type)a) == pack_cache_layout((dil_type)a));
        for (int b = 0; b < a; b++)
            if (panel_bytes((dil_type)b, 512) != 0)
                assert_true(pack_cache_layout((dil_type)a) != pack_cache_layout((dil_type)b));
    }
}

/* Where a weight lies, and every fact about the file, is in the key. */
static void key_covers(void **state)
{
    (void)state;
    dil_error err;
    pack_key key, other;
    model *m;
    model_options o = {.header_only = true};
    ok(model_open(&m, model_path, &o, &err), &err);
    ok(pack_cache_key(&key, m, &err), &err);
    ok(pack_cache_key(&other, m, &err), &err);
    assert_memory_equal(&key, &other, sizeof key);
    weight *w[] = {&m->layers[1].up, &m->layers[0].q, &m->head};
    for (size_t i = 0; i < 3; i++) {
        weight before = *w[i];
        w[i]->packed_offset += 64;
        ok(pack_cache_key(&other, m, &err), &err);
        assert_memory_not_equal(&key, &other, sizeof key);
        *w[i] = before;
        w[i]->first_row++;
        ok(pack_cache_key(&other, m, &err), &err);
        assert_memory_not_equal(&key, &other, sizeof key);
        *w[i] = before;
    }
    os_file *f = (os_file *)(uintptr_t)gguf_shard_file(m->file, 0), before = *f;
    for (int i = 0; i < 4; i++) {
        f->device += i == 0;
        f->inode += i == 1;
        f->size_bytes += i == 2;
        f->mtime_ns += i == 3;
        ok(pack_cache_key(&other, m, &err), &err);
        assert_memory_not_equal(&key, &other, sizeof key);
        *f = before;
    }
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(second_start, fresh),
        cmocka_unit_test_setup(same_bytes, fresh),
        cmocka_unit_test_setup(switched_off, fresh),
        cmocka_unit_test_setup(corrupt, fresh),
        cmocka_unit_test_setup(not_ours, fresh),
        cmocka_unit_test_setup(replaced_model, fresh),
        cmocka_unit_test_setup(replaced_meanwhile, fresh),
        cmocka_unit_test_setup(truncated_while_mapped, fresh),
        cmocka_unit_test_setup(deleted_while_mapped, fresh),
        cmocka_unit_test_setup(least_recently_used, fresh),
        cmocka_unit_test_setup(use_counts, fresh),
        cmocka_unit_test_setup(stale_parts, fresh),
        cmocka_unit_test_setup(cancelled, fresh),
        cmocka_unit_test_setup(no_place, fresh),
        cmocka_unit_test_setup(read_only_folder, fresh),
        cmocka_unit_test_setup(failing_calls, fresh),
        cmocka_unit_test_setup(failing_allocations, fresh),
        cmocka_unit_test_setup(disk_full, fresh),
        cmocka_unit_test_setup(two_at_once, fresh),
        cmocka_unit_test_setup(layouts, fresh),
        cmocka_unit_test_setup(key_covers, fresh),
    };
    return leaks_run_group_tests(tests, prepare, NULL);
}
