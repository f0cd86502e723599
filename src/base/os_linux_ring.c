/* Linux: reads by io_uring. Without liburing, or where the system forbids it (most containers do), there is no ring. */
#include "base/aio.h"

#ifdef DIL_HAVE_URING

#include <errno.h>
#include <liburing.h>
#include <sched.h>
#include <time.h>

#include "base/mem.h"

struct aio_ring {
    struct io_uring uring;
};

/* One entry more than reads at once, for the one that only wakes. */
aio_ring *aio_ring_new(int depth)
{
    aio_ring *r = os_should_fail() ? NULL : mem_calloc(1, sizeof *r, MEM_FILE);
    if (r && io_uring_queue_init((unsigned)depth + 1, &r->uring, 0) != 0) {
        mem_free(r);
        return NULL;
    }
    return r;
}

void aio_ring_free(aio_ring *r)
{
    if (r)
        io_uring_queue_exit(&r->uring);
    mem_free(r);
}

int aio_ring_submit(aio_ring *ring, int fd, uint64_t offset, void *to, size_t n, aio_read *r)
{
    struct io_uring_sqe *entry = io_uring_get_sqe(&ring->uring);
    int sent;
    if (!entry)
        return EBUSY;
    if (r)
        io_uring_prep_read(entry, fd, to, (unsigned)n, offset);
    else
        io_uring_prep_nop(entry);
    io_uring_sqe_set_data(entry, r);
    while ((sent = io_uring_submit(&ring->uring)) == -EAGAIN || sent == -EINTR || sent == -EBUSY)
        (void)sched_yield();
    if (sent >= 0)
        return 0;
    io_uring_prep_nop(entry); /* should the ring carry it off later, it says nothing */
    io_uring_sqe_set_data(entry, NULL);
    return -sent;
}

bool aio_ring_next(aio_ring *ring, aio_read **out, int *result)
{
    struct io_uring_cqe *entry = NULL;
    int failed = io_uring_wait_cqe(&ring->uring, &entry);
    if (failed || !entry) {
        const struct timespec moment = {.tv_nsec = 1000000};
        if (failed != -EINTR)
            (void)nanosleep(&moment, NULL);
        return false;
    }
    *out = io_uring_cqe_get_data(entry);
    *result = entry->res;
    io_uring_cqe_seen(&ring->uring, entry);
    return true;
}

#else

aio_ring *aio_ring_new(int depth)
{
    (void)depth;
    return NULL;
}

void aio_ring_free(aio_ring *r) { (void)r; }

int aio_ring_submit(aio_ring *ring, int fd, uint64_t offset, void *to, size_t n, aio_read *r)
{
    (void)ring, (void)fd, (void)offset, (void)to, (void)n, (void)r;
    return 1;
}

bool aio_ring_next(aio_ring *ring, aio_read **out, int *result)
{
    (void)ring, (void)out, (void)result;
    return false;
}

#endif
