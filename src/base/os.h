/* Everything the project asks of the operating system. Another system is one more file beside os_linux.c. */
#ifndef BASE_OS_H
#define BASE_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dilmodeli.h"

/* Files, read only. */
typedef struct os_file {
    int fd;
    uint64_t size_bytes;
    uint64_t device, inode;
    int64_t mtime_ns;
} os_file;
DIL_MUST_CHECK dil_status os_file_open(os_file *out, const char *path, dil_error *err);
DIL_MUST_CHECK dil_status os_file_read(const os_file *f, uint64_t offset, void *out, size_t n,
                                       dil_error *err); /* all n or an error */
void os_file_close(os_file *f);
/* As os_file_open, but DIL_IO for symbolic links, files of other users and files others may write. */
DIL_MUST_CHECK dil_status os_file_open_own(os_file *out, const char *path, dil_error *err);
bool os_file_unchanged(const os_file *f); /* size and time of change are those of opening */
/* Advisory lock, gone with os_file_close or the process; a second one replaces the first. Never waits: false when somebody else
 * holds the file (shared locks get along with each other) or the file system has no locks. */
bool os_file_lock(const os_file *f, bool alone);
bool os_file_take(const os_file *f);  /* locks it alone, where the file system has locks; false: somebody else holds it */
void os_file_touch(const os_file *f); /* its time of change becomes now, where that is allowed */
/* Whole file into a mem_alloc'ed, NUL-terminated block [owned: free with mem_free]; fails with LIMIT above max_bytes. */
DIL_MUST_CHECK dil_status os_read_all(const char *path, size_t max_bytes, char **out, size_t *n, dil_error *err);
DIL_MUST_CHECK dil_status os_read_stdin(size_t max_bytes, char **out, size_t *n, dil_error *err);

/* Read-only mappings. A page that cannot be read (file truncated while mapped) raises SIGBUS: os_guard turns it into a status. */
DIL_MUST_CHECK dil_status os_map_file(const os_file *f, const void **out, dil_error *err);
void os_unmap(const void *p, size_t n);
void os_advise_sequential(const void *p, size_t n);
void os_advise_willneed(const void *p, size_t n);
void os_advise_drop(const void *p, size_t n); /* resident pages wholly inside may be dropped */
void os_advise_huge(void *p, size_t n);
void os_advise_populate(const void *p, size_t n); /* brings the pages in now, where the system can */
/* Runs fn(ctx); a SIGBUS inside [p, p+n) ends it and gives DIL_IO. Not reentrant on one thread. */
DIL_MUST_CHECK dil_status os_guard(void (*fn)(void *), void *ctx, const void *p, size_t n, dil_error *err);

/* Shared read-only mapping of n bytes from a page-aligned offset on, for many threads without a guard: p lies on a huge page's
 * boundary, and pages that cannot be read become zeros; whoever used them asks os_mapping_lost afterwards. {0} is no mapping. */
typedef struct os_mapping {
    const void *p;
    size_t size_bytes;
    int slot;
} os_mapping;
DIL_MUST_CHECK dil_status os_map_shared(os_mapping *out, const os_file *f, uint64_t offset, size_t n, dil_error *err);
bool os_mapping_lost(const os_mapping *m);
void os_mapping_close(os_mapping *m);

/* Writing: into a temporary file beside path, which appears under its name on commit only. */
typedef struct os_writer {
    int fd;
    char path[4096], temporary[4096 + 32];
    uint64_t written_bytes;
} os_writer;
DIL_MUST_CHECK dil_status os_writer_open(os_writer *out, const char *path, dil_error *err);
DIL_MUST_CHECK dil_status os_writer_write(os_writer *w, const void *bytes, size_t n, dil_error *err);
DIL_MUST_CHECK dil_status os_writer_patch(os_writer *w, uint64_t offset, const void *bytes, size_t n, dil_error *err);
DIL_MUST_CHECK dil_status os_writer_commit(os_writer *w, dil_error *err); /* fsync, rename; the writer is closed either way */
void os_writer_abort(os_writer *w);                                       /* removes the temporary file */
/* All of it at once. */
DIL_MUST_CHECK dil_status os_write_file(const char *path, const void *bytes, size_t n, dil_error *err);
/* For caches: the temporary file has a name of its own in every call and is locked alone until the writer ends, so that others see
 * whether its process lives; readable by this user only. os_writer_patch may be called by many threads. */
DIL_MUST_CHECK dil_status os_writer_open_locked(os_writer *out, const char *path, dil_error *err);
/* As commit, without waiting for the disk: after a crash of the system the file may hold anything. */
DIL_MUST_CHECK dil_status os_writer_publish(os_writer *w, dil_error *err);

/* Appends to a file over several runs (downloads that resume): out->written_bytes is what it already held. Ends with
 * os_writer_close; nothing is removed. */
DIL_MUST_CHECK dil_status os_writer_append(os_writer *out, const char *path, dil_error *err);
DIL_MUST_CHECK dil_status os_writer_close(os_writer *w, dil_error *err);
/* What was written is on the disk when it returns: for files that grow and must not lose what others count on. */
DIL_MUST_CHECK dil_status os_writer_sync(os_writer *w, dil_error *err);

/* Directories and names. */
DIL_MUST_CHECK dil_status os_data_dir(char *out, size_t n, dil_error *err);   /* $XDG_DATA_HOME/dilmodeli, made if missing */
DIL_MUST_CHECK dil_status os_cache_dir(char *out, size_t n, dil_error *err);  /* $XDG_CACHE_HOME/dilmodeli, made if missing */
DIL_MUST_CHECK dil_status os_cache_path(char *out, size_t n, dil_error *err); /* the same, whether it is there or not */
DIL_MUST_CHECK dil_status os_make_dirs(const char *path, dil_error *err);
DIL_MUST_CHECK dil_status os_remove(const char *path, dil_error *err);
DIL_MUST_CHECK dil_status os_list_dir(const char *path, void (*each)(void *ctx, const char *name, bool is_dir, uint64_t size),
                                      void *ctx, dil_error *err);
DIL_MUST_CHECK dil_status os_remove_tree(const char *path, dil_error *err); /* a directory with everything in it */
bool os_exists(const char *path);
bool os_is_dir(const char *path);
bool os_same_file(const char *a, const char *b); /* the same name, or names of one file that is there */
uint64_t os_disk_free_bytes(const char *path);   /* for this user, on the file system of path; 0 when unknown */
/* Runs a program found on PATH, without a shell, its standard output going to standard error; *exit_code is its own. */
DIL_MUST_CHECK dil_status os_run(const char *const *argv, int *exit_code, dil_error *err);
/* Runs a command line with the shell, its input empty. *out: what it wrote, NUL-terminated [owned: free with mem_free], LIMIT
 * above max_bytes; errors: the end of what it wrote to standard error, NUL-terminated. */
DIL_MUST_CHECK dil_status os_capture(const char *command, size_t max_bytes, char **out, char *errors, size_t errors_size,
                                     int *exit_code, dil_error *err);
const char *os_env(const char *name); /* NULL when unset or empty */
/* The folder this program's file lies in, without a slash behind it; false when the system does not say. */
bool os_program_dir(char *out, size_t n);
/* What the system says of an errno; in the reader's language for the usual ones (status_text). */
const char *os_error_text(int number);

/* Time, machine, terminal. */
long os_process_id(void);
uint64_t os_time_ns(void); /* monotonic */
int64_t os_wall_seconds(void);
int os_cpu_count(void);         /* usable by this process: affinity and cgroup quota */
int os_runnable_tasks(void);    /* tasks of the whole system that run or wait for a processor, the caller among them; 0: unknown */
uint64_t os_memory_bytes(void); /* physical, or the cgroup limit when lower */
/* The tightest limits of the control groups this process lies in; 0: none. root stands before every path (NULL: none, tests). */
typedef struct os_limits {
    double cpus;
    uint64_t memory_bytes;
    uint64_t
        memory_left_bytes; /* until the nearest of them is reached, cached file pages taken as free; UINT64_MAX: none, unknown */
} os_limits;
void os_limits_read(const char *root, os_limits *out);
/* Numbers of the logical processors this process may run on, ascending: how many there are; at most `most` are stored. */
int os_allowed_cpus(int *out, int most);
int os_cpu_first_sibling(int cpu);  /* the lowest-numbered processor of the same core; cpu itself when unknown */
uint64_t os_cache_bytes(int level); /* data cache of one core, level 1..3; 0: unknown */
/* Size of a huge page, and whether the system gives them: for every large region, on os_advise_huge only, or never. */
typedef enum os_huge_mode { OS_HUGE_NEVER, OS_HUGE_ADVISED, OS_HUGE_ALWAYS } os_huge_mode;
uint64_t os_huge_page_bytes(os_huge_mode *mode);
uint64_t os_peak_rss_bytes(void);
uint64_t os_rss_bytes(void);
enum { OS_STDIN = 0, OS_STDOUT = 1, OS_STDERR = 2 };
bool os_is_terminal(int fd);
int os_terminal_columns(void); /* 80 when unknown */
/* Typed characters are UTF-8 from here on, for the calling thread; numbers stay those of C. */
void os_utf8_input(void);
void os_random(void *out, size_t n);
/* Signals of a command: writing to a closed pipe or beyond a limit of sizes is an error instead of an end; after os_interrupt_install, Ctrl-C sets a flag instead of ending the process; a second one ends it. */
void os_interrupt_install(void);
bool os_interrupted(void);
void os_interrupt_clear(void);
/* Waits for one byte of standard input: 1, or 0 at its end, or -1 when Ctrl-C comes or came before (no moment is missed). */
int os_read_key(char *byte);

/* Sleeping on a word: returns when *word != expected or somebody woke it (spurious returns are possible). */
void os_futex_wait(const void *word, uint32_t expected);
void os_futex_wake_all(const void *word);

/* Processors of a thread, by system-wide thread number. Both are wishes: where the system refuses, nothing changes. */
typedef struct os_affinity {
    _Alignas(8) unsigned char mask[1024];
    size_t n_bytes;
} os_affinity; /* n_bytes 0: unknown */
long os_thread_id(void);
os_affinity os_thread_affinity(void); /* of the calling thread */
void os_thread_allow(long thread, const os_affinity *a);
void os_thread_pin(long thread, int cpu);

/* Test hook: after `after` successful opens, maps, reads, writes and thread starts every further one fails; < 0: off. */
void os_inject_failure(int64_t after);
bool os_should_fail(void); /* used by base itself */

#endif
