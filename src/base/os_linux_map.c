/* Linux: mappings of files, and what happens when their pages cannot be read (SIGBUS). */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/os.h"
#include "base/status.h"

#define HUGE_PAGE ((size_t)2 << 20)

dil_status os_map_file(const os_file *f, const void **out, dil_error *err)
{
    if (f->size_bytes == 0)
        return DIL_FAIL(err, DIL_FORMAT, "the file is empty");
    void *p = os_should_fail() ? MAP_FAILED : mmap(NULL, f->size_bytes, PROT_READ, MAP_SHARED, f->fd, 0);
    if (p == MAP_FAILED)
        return DIL_FAIL(err, DIL_IO, "cannot map %llu bytes: %s", (unsigned long long)f->size_bytes, os_error_text(errno));
    *out = p;
    return DIL_OK;
}

/* munmap and madvise take non-const pointers but change nothing the caller can see. */
static void *writable(const void *p) { return (void *)(uintptr_t)p; }

void os_unmap(const void *p, size_t n)
{
    if (p)
        munmap(writable(p), n);
}

static void advise(const void *p, size_t n, int advice, bool inside)
{
    uintptr_t page = 4096, from = (uintptr_t)p, to = from + n;
    from = inside ? (from + page - 1) & ~(page - 1) : from & ~(page - 1);
    to = to & ~(page - 1);
    if (to > from)
        madvise(writable((const void *)from), to - from, advice);
}

void os_advise_sequential(const void *p, size_t n) { advise(p, n, MADV_SEQUENTIAL, false); }
void os_advise_willneed(const void *p, size_t n) { advise(p, n, MADV_WILLNEED, false); }
void os_advise_drop(const void *p, size_t n) { advise(p, n, MADV_DONTNEED, true); }
void os_advise_huge(void *p, size_t n) { advise(p, n, MADV_HUGEPAGE, true); }

void os_advise_populate(const void *p, size_t n)
{
#ifdef MADV_POPULATE_READ
    advise(p, n, MADV_POPULATE_READ, false);
#else
    advise(p, n, MADV_WILLNEED, false);
#endif
}

/* ---- mappings that may lose pages while many threads read them ---- */

#define SHARED_MAPPINGS 64

static struct shared {
    _Atomic bool taken;
    _Atomic uintptr_t from, to; /* from == 0: not mapped; to is the end of its last page */
    _Atomic bool lost;
} shared[SHARED_MAPPINGS];

/* In the signal handler. From the page at `at` on zeros take the mapping's place: a truncated file lost all of that, and after a
 * disk failure nobody will use the result either. */
static bool replace_lost(uintptr_t at)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < SHARED_MAPPINGS; i++) {
        uintptr_t from = atomic_load(&shared[i].from), to = atomic_load(&shared[i].to);
        if (from == 0 || at < from || at >= to)
            continue;
        atomic_store(&shared[i].lost, true);
        uintptr_t first = at & ~(page - 1);
        void *zeros = mmap(writable((const void *)first), to - first, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        return zeros != MAP_FAILED;
    }
    return false;
}

static _Thread_local sigjmp_buf *guard_jump; /* set while this thread is inside os_guard */
static _Thread_local uintptr_t guard_from, guard_to;

static struct sigaction sigbus_before; /* whoever handled SIGBUS before us; written before our handler is installed */

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
    uintptr_t at = (uintptr_t)info->si_addr;
    if (replace_lost(at))
        return;
    if (guard_jump && at >= guard_from && at < guard_to)
        siglongjmp(*guard_jump, 1);
    if ((sigbus_before.sa_flags & SA_SIGINFO) && sigbus_before.sa_sigaction) {
        sigbus_before.sa_sigaction(sig, info, context);
        return;
    }
    signal(sig, SIG_DFL);
    raise(sig);
}

/* For good: guards on several threads overlap, so nobody may take the handler away again. The program may still set one of its
 * own at any time (Python's faulthandler does); then ours goes back on top of it. */
static void ensure_sigbus(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    struct sigaction now, ours = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGBUS, NULL, &now);
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_sigbus)
        return;
    sigemptyset(&ours.sa_mask);
    pthread_mutex_lock(&lock);
    sigaction(SIGBUS, NULL, &now);
    if (!(now.sa_flags & SA_SIGINFO) || now.sa_sigaction != on_sigbus) {
        sigbus_before = now;
        sigaction(SIGBUS, &ours, NULL);
    }
    pthread_mutex_unlock(&lock);
}

dil_status os_guard(void (*fn)(void *), void *ctx, const void *p, size_t n, dil_error *err)
{
    ensure_sigbus();
    sigjmp_buf jump;
    volatile bool faulted = true;
    guard_from = (uintptr_t)p;
    guard_to = guard_from + n;
    if (sigsetjmp(jump, 1) == 0) { /* with the mask: whoever called our handler (a sanitizer, another handler) may have blocked */
        guard_jump = &jump;
        fn(ctx);
        faulted = false;
    }
    guard_jump = NULL;
    if (faulted)
        return DIL_FAIL(err, DIL_IO, "a mapped file could not be read: it was truncated or its disk failed");
    return DIL_OK;
}

/* Address space for n bytes that begins on a huge page's boundary; MAP_FAILED when there is none. */
static void *reserve_aligned(size_t n)
{
    size_t room;
    if (os_should_fail() || !checked_add_size(n, HUGE_PAGE, &room))
        return MAP_FAILED;
    char *p = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return MAP_FAILED;
    size_t head = (HUGE_PAGE - (uintptr_t)p % HUGE_PAGE) % HUGE_PAGE;
    if (head)
        munmap(p, head);
    munmap(p + head + n, room - head - n);
    return p + head;
}

static int take_slot(void)
{
    for (int i = 0; i < SHARED_MAPPINGS; i++)
        if (!atomic_exchange(&shared[i].taken, true))
            return i;
    return -1;
}

dil_status os_map_shared(os_mapping *out, const os_file *f, uint64_t offset, size_t n, dil_error *err)
{
    if (n == 0 || offset > f->size_bytes || n > f->size_bytes - offset)
        return DIL_FAIL(err, DIL_FORMAT, "mapping: wanted %zu bytes from byte %llu on, the file has %llu", n,
                        (unsigned long long)offset, (unsigned long long)f->size_bytes);
    size_t pages = round_up_size(n, (size_t)sysconf(_SC_PAGESIZE));
    int slot = take_slot();
    if (slot < 0)
        return DIL_FAIL(err, DIL_LIMIT, "mapping: wanted at most %d at once, found more", SHARED_MAPPINGS);
    void *at = reserve_aligned(pages);
    void *p = at == MAP_FAILED ? at : mmap(at, n, PROT_READ, MAP_SHARED | MAP_FIXED, f->fd, (off_t)offset);
    if (p == MAP_FAILED) {
        int why = errno;
        if (at != MAP_FAILED)
            munmap(at, pages);
        atomic_store(&shared[slot].taken, false);
        return DIL_FAIL(err, DIL_IO, "cannot map %zu bytes: %s", n, os_error_text(why));
    }
    advise(p, n, MADV_HUGEPAGE, false); /* read-ahead then takes huge pages where the file system has them */
    ensure_sigbus();
    atomic_store(&shared[slot].lost, false);
    atomic_store(&shared[slot].to, (uintptr_t)p + (uintptr_t)pages);
    atomic_store(&shared[slot].from, (uintptr_t)p);
    *out = (os_mapping){.p = p, .size_bytes = n, .slot = slot};
    return DIL_OK;
}

bool os_mapping_lost(const os_mapping *m)
{
    if (!m->p)
        return false;
    ensure_sigbus(); /* for the next pass: the program may have set a handler of its own since */
    return atomic_load(&shared[m->slot].lost);
}

void os_mapping_close(os_mapping *m)
{
    if (!m->p)
        return;
    atomic_store(&shared[m->slot].from, 0);
    munmap(writable(m->p), m->size_bytes);
    atomic_store(&shared[m->slot].taken, false);
    *m = (os_mapping){.p = NULL};
}
