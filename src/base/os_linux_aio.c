/*
 * Linux: the queue of reads. Two lists wait, urgent and later ones. With a ring the thread that starts a read, or the one
 * thread that takes finished reads from the ring, hands the next to the system; without, every thread works on one at a time.
 */
#include "base/aio.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/status.h"

#define MOST_THREADS 16

enum { LATER, URGENT };

typedef struct line { /* of waiting reads */
    aio_read *first, *last;
} line;

struct aio {
    os_file file;
    char path[4096];
    aio_done done;
    void *ctx;
    _Atomic bool direct;
    bool asked_direct;
    int depth, n_threads;
    aio_ring *ring;
    pthread_t threads[MOST_THREADS];
    pthread_mutex_t lock; /* of all below, and of handing reads to the ring */
    pthread_cond_t work;
    line lines[2];
    int in_flight; /* in the ring */
    bool quit;
    _Atomic uint64_t handed; /* reads given to the ring: C sees no order through the kernel, so this carries it */
};

static atomic_size_t inject_most;
static atomic_int inject_interruptions;

void aio_inject(size_t most, int interruptions)
{
    atomic_store(&inject_most, most);
    atomic_store(&inject_interruptions, interruptions);
}

/* What the system answered, as the tests wish. */
static int injected(int result)
{
    if (atomic_load_explicit(&inject_interruptions, memory_order_relaxed) > 0 && atomic_fetch_sub(&inject_interruptions, 1) > 0)
        return -EINTR;
    return os_should_fail() ? -EIO : result;
}

/* ---- lines ---- */

static void push(line *l, aio_read *r)
{
    r->next = NULL;
    if (l->last)
        l->last->next = r;
    else
        l->first = r;
    l->last = r;
}

static aio_read *pop(aio *a)
{
    line *l = &a->lines[a->lines[URGENT].first ? URGENT : LATER];
    aio_read *r = l->first;
    if (!r)
        return NULL;
    l->first = r->next;
    if (!l->first)
        l->last = NULL;
    r->queued = false;
    return r;
}

static void take_out(line *l, aio_read *r)
{
    aio_read *before = NULL;
    for (aio_read *i = l->first; i && i != r; i = i->next)
        before = i;
    if (before)
        before->next = r->next;
    else
        l->first = r->next;
    if (l->last == r)
        l->last = before;
}

/* ---- one read ---- */

static size_t wanted(const aio_read *r)
{
    size_t n = r->bytes - r->got, most = atomic_load_explicit(&inject_most, memory_order_relaxed);
    return most && most < n ? most : n;
}

static void stop_direct(aio *a)
{
    int flags = fcntl(a->file.fd, F_GETFL);
    atomic_store(&a->direct, false);
    if (flags >= 0)
        (void)fcntl(a->file.fd, F_SETFL, flags & ~O_DIRECT);
}

typedef enum progress { GO_ON, FINISHED } progress;

/* Takes what the system answered. GO_ON: another attempt is due; else *status and *why are the read's. */
static progress took(aio *a, aio_read *r, int result, dil_status *status, dil_error *why)
{
    bool direct = atomic_load(&a->direct);
    if (result == -EINTR || result == -EAGAIN)
        return GO_ON;
    if (result == -EINVAL && direct) { /* this file system opens so but does not read so */
        stop_direct(a);
        return GO_ON;
    }
    unsigned long long at = r->offset + r->got;
    if (result < 0) {
        *status = DIL_FAIL(why, DIL_IO, "%s: read at byte %llu: %s", a->path, at, os_error_text(-result));
        return FINISHED;
    }
    r->got += (size_t)result;
    if (r->got >= r->least) {
        if (!direct)
            (void)posix_fadvise(a->file.fd, (off_t)r->offset, (off_t)r->got, POSIX_FADV_DONTNEED);
        *status = DIL_OK;
        return FINISHED;
    }
    if (result == 0) {
        *status =
            DIL_FAIL(why, DIL_IO, "%s: read at byte %llu: the file ends, %zu more bytes wanted", a->path, at, r->least - r->got);
        return FINISHED;
    }
    if (direct && r->got % AIO_ALIGN != 0)
        stop_direct(a); /* the file ends inside a block, or so it seems: the rest byte by byte */
    return GO_ON;
}

/* ---- threads ---- */

static void read_through(aio *a, aio_read *r)
{
    dil_status status = DIL_OK;
    dil_error why = {.code = DIL_OK};
    int result;
    do {
        ssize_t n = pread(a->file.fd, (char *)r->to + r->got, wanted(r), (off_t)(r->offset + r->got));
        result = injected(n < 0 ? -errno : (int)n);
    } while (took(a, r, result, &status, &why) == GO_ON);
    a->done(a->ctx, r, status, &why);
}

static void *reader(void *arg)
{
    aio *a = arg;
    for (;;) {
        aio_read *r;
        (void)pthread_mutex_lock(&a->lock);
        while (!(r = pop(a)) && !a->quit)
            (void)pthread_cond_wait(&a->work, &a->lock);
        (void)pthread_mutex_unlock(&a->lock);
        if (!r)
            return NULL;
        read_through(a, r);
    }
}

/* ---- the ring ---- */

static int submit(aio *a, aio_read *r)
{
    uint64_t at = r->offset + r->got;
    void *to = (char *)r->to + r->got;
    size_t n = wanted(r);
    atomic_fetch_add_explicit(&a->handed, 1, memory_order_release); /* from here on the read is the other thread's */
    return aio_ring_submit(a->ring, a->file.fd, at, to, n, r);
}

/* Hands waiting reads over while there is room. The system's refusal ends a read. */
static void feed(aio *a)
{
    for (;;) {
        int refused = 0;
        (void)pthread_mutex_lock(&a->lock);
        aio_read *r = a->in_flight < a->depth ? pop(a) : NULL;
        if (r && (refused = submit(a, r)) == 0)
            a->in_flight++;
        (void)pthread_mutex_unlock(&a->lock);
        if (!r)
            return;
        if (refused) {
            dil_error why = {.code = DIL_OK};
            dil_status status =
                DIL_FAIL(&why, DIL_IO, "%s: read at byte %llu: %s", a->path, (unsigned long long)r->offset, os_error_text(refused));
            a->done(a->ctx, r, status, &why);
        }
    }
}

/* Again, for a read that the ring already counts. */
static int resubmit(aio *a, aio_read *r)
{
    (void)pthread_mutex_lock(&a->lock);
    int refused = submit(a, r);
    (void)pthread_mutex_unlock(&a->lock);
    return refused;
}

static void ring_took(aio *a, aio_read *r, int result)
{
    dil_status status = DIL_OK;
    dil_error why = {.code = DIL_OK};
    (void)atomic_load_explicit(&a->handed, memory_order_acquire);
    result = injected(result);
    while (took(a, r, result, &status, &why) == GO_ON) {
        int refused = resubmit(a, r);
        if (!refused)
            return;
        result = -(refused == EAGAIN || refused == EINTR ? EIO : refused);
    }
    (void)pthread_mutex_lock(&a->lock);
    a->in_flight--;
    (void)pthread_mutex_unlock(&a->lock);
    feed(a);
    a->done(a->ctx, r, status, &why);
}

static void *reaper(void *arg)
{
    aio *a = arg;
    for (;;) {
        aio_read *r = NULL;
        int result = 0;
        if (aio_ring_next(a->ring, &r, &result) && r)
            ring_took(a, r, result);
        (void)pthread_mutex_lock(&a->lock);
        bool over = a->quit && a->in_flight == 0;
        (void)pthread_mutex_unlock(&a->lock);
        if (over)
            return NULL;
    }
}

/* ---- opening and closing ---- */

static dil_status open_file(aio *a, const char *path, bool direct, dil_error *err)
{
    DIL_TRY(os_file_open(&a->file, path, err));
    int flags = direct ? fcntl(a->file.fd, F_GETFL) : -1;
    atomic_init(&a->direct, flags >= 0 && fcntl(a->file.fd, F_SETFL, flags | O_DIRECT) == 0);
    (void)snprintf(a->path, sizeof a->path, "%s", path);
    return DIL_OK;
}

static dil_status start_threads(aio *a, int n, void *(*body)(void *), dil_error *err)
{
    for (; a->n_threads < n; a->n_threads++)
        if (os_should_fail() || pthread_create(&a->threads[a->n_threads], NULL, body, a) != 0)
            return DIL_FAIL(err, DIL_IO, "%s: started %d of %d threads that read, the system refused more", a->path, a->n_threads,
                            n);
    return DIL_OK;
}

dil_status aio_open(aio **out, const char *path, const aio_options *o, aio_done done, void *ctx, dil_error *err)
{
    if (o->depth < 0 || o->depth > AIO_MOST_DEPTH)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "reads at once: wanted 0..%d, found %d", AIO_MOST_DEPTH, o->depth);
    aio *a = mem_calloc(1, sizeof *a, MEM_FILE);
    if (!a)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory to read it", path);
    a->file.fd = -1;
    a->done = done;
    a->ctx = ctx;
    (void)pthread_mutex_init(&a->lock, NULL);
    (void)pthread_cond_init(&a->work, NULL);
    dil_status status = open_file(a, path, !o->no_direct, err);
    if (status == DIL_OK) {
        a->depth = o->depth ? o->depth : 16;
        a->ring = o->no_ring ? NULL : aio_ring_new(a->depth);
        int n = a->ring ? 1 : o->depth == 0 ? 4 : o->depth < MOST_THREADS ? o->depth : MOST_THREADS;
        status = start_threads(a, n, a->ring ? reaper : reader, err);
    }
    if (status == DIL_OK)
        *out = a;
    else
        aio_close(a);
    return status;
}

void aio_close(aio *a)
{
    if (!a)
        return;
    (void)pthread_mutex_lock(&a->lock);
    a->quit = true;
    while (pop(a))
        ;
    if (a->ring && a->n_threads > 0)
        (void)aio_ring_submit(a->ring, -1, 0, NULL, 0, NULL);
    (void)pthread_cond_broadcast(&a->work);
    (void)pthread_mutex_unlock(&a->lock);
    for (int i = 0; i < a->n_threads; i++)
        (void)pthread_join(a->threads[i], NULL);
    aio_ring_free(a->ring);
    os_file_close(&a->file);
    (void)pthread_cond_destroy(&a->work);
    (void)pthread_mutex_destroy(&a->lock);
    mem_free(a);
}

/* ---- what callers ask ---- */

void aio_start(aio *a, aio_read *r, bool urgent)
{
    r->got = 0;
    (void)pthread_mutex_lock(&a->lock);
    r->queued = true;
    r->urgent = urgent;
    push(&a->lines[urgent ? URGENT : LATER], r);
    if (!a->ring)
        (void)pthread_cond_signal(&a->work);
    (void)pthread_mutex_unlock(&a->lock);
    if (a->ring)
        feed(a);
}

void aio_hurry(aio *a, aio_read *r)
{
    (void)pthread_mutex_lock(&a->lock);
    if (r->queued && !r->urgent) {
        take_out(&a->lines[LATER], r);
        r->urgent = true;
        push(&a->lines[URGENT], r);
    }
    (void)pthread_mutex_unlock(&a->lock);
}

bool aio_cancel(aio *a, aio_read *r)
{
    (void)pthread_mutex_lock(&a->lock);
    bool waited = r->queued;
    if (waited)
        take_out(&a->lines[r->urgent ? URGENT : LATER], r);
    r->queued = false;
    (void)pthread_mutex_unlock(&a->lock);
    return waited;
}

const os_file *aio_file(const aio *a) { return &a->file; }

size_t aio_bytes(void) { return sizeof(aio) + 4096; /* the ring's half is smaller */ }

const char *aio_how(const aio *a)
{
    bool direct = atomic_load(&a->direct);
    if (a->ring)
        return direct ? N_("io_uring, direct") : N_("io_uring, page cache");
    return direct ? N_("threads, direct") : N_("threads, page cache");
}

const char *aio_file_changed(const aio *a, bool content)
{
    struct stat st;
    if (fstat(a->file.fd, &st) != 0)
        return N_("it can no longer be asked for its size");
    if ((uint64_t)st.st_size < a->file.size_bytes)
        return N_("it was truncated while in use");
    if ((uint64_t)st.st_size > a->file.size_bytes)
        return N_("it grew while in use");
    if (content && (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec != a->file.mtime_ns)
        return N_("it was written to while in use");
    return NULL;
}

const char *aio_name_changed(const aio *a)
{
    struct stat st;
    if (stat(a->path, &st) != 0)
        return N_("it was removed while in use");
    if ((uint64_t)st.st_dev != a->file.device || (uint64_t)st.st_ino != a->file.inode)
        return N_("another file has its name now");
    return NULL;
}
