/*
 * Reads of one file that go on beside the caller: io_uring where the build and the system have it, else a few threads with
 * pread. Short reads are continued, interrupted ones repeated. Outside the page cache (O_DIRECT) where the file system allows
 * it, else what was read is dropped from the page cache again.
 */
#ifndef BASE_AIO_H
#define BASE_AIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/os.h"
#include "dilmodeli.h"

#define AIO_ALIGN 4096u
#define AIO_MOST_DEPTH 256

typedef struct aio aio;

/* One read, owned by the caller and left alone by it until done is called (or aio_cancel succeeds). */
typedef struct aio_read {
    uint64_t offset; /* multiple of AIO_ALIGN */
    void *to;        /* multiple of AIO_ALIGN */
    size_t bytes;    /* room at `to`, multiple of AIO_ALIGN */
    size_t least;    /* 1 .. bytes: so many must come, the file may end after them */
    /* of the queue: */
    struct aio_read *next;
    size_t got;
    bool queued, urgent;
} aio_read;

/* Called on a thread of the queue (or inside aio_start, when the system refuses). why: set unless status is DIL_OK. */
typedef void (*aio_done)(void *ctx, aio_read *r, dil_status status, const dil_error *why);

typedef struct aio_options {
    int depth; /* reads at once, at most AIO_MOST_DEPTH; 0: 16 with io_uring, 4 threads without */
    bool no_ring, no_direct;
} aio_options;

/* IO: the file cannot be opened, threads cannot be started. [out: owned: free with aio_close] */
DIL_MUST_CHECK dil_status aio_open(aio **out, const char *path, const aio_options *o, aio_done done, void *ctx, dil_error *err);
void aio_close(
    aio *a); /* reads that have not begun are dropped without a call of done, the others are waited for; NULL is allowed */

const os_file *aio_file(const aio *a); /* as it was at opening */
size_t aio_bytes(void);                /* what aio_open allocates (kernel memory and stacks apart) */
const char *aio_how(const aio *a);     /* "io_uring, direct", ... [static] */

/* Never waits: what is above the depth is queued, urgent reads before the others. */
void aio_start(aio *a, aio_read *r, bool urgent);
void aio_hurry(aio *a, aio_read *r);  /* when it is still queued: before all that are not urgent */
bool aio_cancel(aio *a, aio_read *r); /* true: it had not begun, done will not be called */

/* What happened since aio_open, for messages [static]; NULL: nothing. To the open file ("it was truncated while in use", ...;
 * content: a new time of change counts, which a mere touch gives too), and to its name. */
const char *aio_file_changed(const aio *a, bool content);
const char *aio_name_changed(const aio *a);

/* Test hook: a read brings at most `most` bytes (0: no limit; direct reads need multiples of AIO_ALIGN), and the next
 * `interruptions` are interrupted. Opens and reads fail with os_inject_failure. */
void aio_inject(size_t most, int interruptions);

/* ---- the io_uring half, os_linux_ring.c; all three used by os_linux_aio.c alone ---- */

typedef struct aio_ring aio_ring;
aio_ring *aio_ring_new(int depth); /* NULL: not in this build, or the system refuses */
void aio_ring_free(aio_ring *r);
/* Hands a read of n bytes to the system; r NULL: one that ends at once and wakes aio_ring_next. 0 or an errno. One caller at a
 * time. */
int aio_ring_submit(aio_ring *ring, int fd, uint64_t offset, void *to, size_t n, aio_read *r);
/* Waits for the next read that ended; *result: bytes or -errno. False: nothing came, ask again. */
bool aio_ring_next(aio_ring *ring, aio_read **out, int *result);

#endif
