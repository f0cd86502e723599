/* Linux: time, processors, memory, terminal, signals, futex. */
#include <errno.h>
#include <linux/futex.h>
#include <locale.h>
#include <math.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/os.h"
#include "base/str.h"

long os_process_id(void) { return (long)getpid(); }

uint64_t os_time_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int64_t os_wall_seconds(void) { return (int64_t)time(NULL); }

/* First line of a small file of /sys or /proc; false when it cannot be read. */
static bool read_line(const char *path, char *out, size_t n)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    bool good = fgets(out, (int)n, f) != NULL;
    fclose(f);
    return good;
}

int os_allowed_cpus(int *out, int most)
{
    cpu_set_t set;
    int n = 0;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 0;
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &set)) {
            if (n < most)
                out[n] = (int)cpu;
            n++;
        }
    return n;
}

int os_cpu_count(void)
{
    os_limits limits;
    int n = os_allowed_cpus(NULL, 0);
    os_limits_read(NULL, &limits);
    if (limits.cpus > 0 && limits.cpus < n)
        n = (int)ceil(limits.cpus);
    return n > 0 ? n : 1;
}

int os_cpu_first_sibling(int cpu)
{
    char path[128], line[256];
    int first;
    (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    return read_line(path, line, sizeof line) && sscanf(line, "%d", &first) == 1 ? first : cpu;
}

uint64_t os_cache_bytes(int level)
{
    for (int i = 0; i < 8; i++) {
        char path[128], number[64], kind[64], size[64];
        uint64_t bytes;
        (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/level", i);
        if (!read_line(path, number, sizeof number))
            return 0;
        (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/type", i);
        if (number[0] - '0' != level || !read_line(path, kind, sizeof kind) || kind[0] == 'I')
            continue;
        (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", i);
        if (!read_line(path, size, sizeof size))
            return 0;
        size[strcspn(size, "\n")] = '\0';
        return str_to_bytes(size, &bytes) ? bytes : 0;
    }
    return 0;
}

uint64_t os_huge_page_bytes(os_huge_mode *mode)
{
    char line[128];
    long long bytes = 0;
    *mode = OS_HUGE_NEVER;
    if (read_line("/sys/kernel/mm/transparent_hugepage/enabled", line, sizeof line))
        *mode = strstr(line, "[always]") ? OS_HUGE_ALWAYS : strstr(line, "[madvise]") ? OS_HUGE_ADVISED : OS_HUGE_NEVER;
    if (read_line("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", line, sizeof line) && sscanf(line, "%lld", &bytes) == 1 &&
        bytes > 0)
        return (uint64_t)bytes;
    return 0;
}

int os_runnable_tasks(void)
{
    char line[128];
    int running;
    return read_line("/proc/loadavg", line, sizeof line) && sscanf(line, "%*s %*s %*s %d/", &running) == 1 ? running : 0;
}

long os_thread_id(void) { return syscall(SYS_gettid); }

os_affinity os_thread_affinity(void)
{
    os_affinity a = {0};
    long n = syscall(SYS_sched_getaffinity, 0, sizeof a.mask, a.mask); /* the raw call tells how many bytes there are */
    a.n_bytes = n > 0 ? (size_t)n : 0;
    return a;
}

void os_thread_allow(long thread, const os_affinity *a)
{
    if (a->n_bytes)
        syscall(SYS_sched_setaffinity, thread, a->n_bytes, a->mask);
}

void os_thread_pin(long thread, int cpu)
{
    os_affinity a = {.n_bytes = sizeof a.mask};
    if (cpu < 0 || (size_t)cpu / 8 >= sizeof a.mask)
        return;
    a.mask[cpu / 8] = (unsigned char)(1u << cpu % 8);
    os_thread_allow(thread, &a);
}

uint64_t os_memory_bytes(void)
{
    os_limits limits;
    uint64_t bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    os_limits_read(NULL, &limits);
    return limits.memory_bytes && limits.memory_bytes < bytes ? limits.memory_bytes : bytes;
}

uint64_t os_peak_rss_bytes(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}

uint64_t os_rss_bytes(void)
{
    char line[128];
    long long total, resident;
    if (!read_line("/proc/self/statm", line, sizeof line) || sscanf(line, "%lld %lld", &total, &resident) != 2)
        return 0;
    return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

bool os_is_terminal(int fd) { return isatty(fd) == 1; }

int os_terminal_columns(void)
{
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return 80;
}

void os_utf8_input(void)
{
    locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    if (utf8)
        uselocale(utf8); /* for the life of the process: nothing to free */
}

void os_random(void *out, size_t n)
{
    char *p = out;
    while (n > 0) {
        ssize_t got = getrandom(p, n, 0);
        if (got < 0 && errno != EINTR)
            return;
        if (got > 0) {
            p += got;
            n -= (size_t)got;
        }
    }
}

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig)
{
    if (interrupted) {
        signal(sig, SIG_DFL);
        raise(sig);
    }
    interrupted = 1;
}

void os_interrupt_install(void)
{
    struct sigaction action = {.sa_handler = on_interrupt};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
}

int os_read_key(char *byte)
{
    sigset_t interrupt, before;
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    pthread_sigmask(SIG_BLOCK, &interrupt, &before); /* between looking at the flag and waiting nothing may come */
    int ready = -1;
    while (!interrupted) {
        struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
        ready = ppoll(&input, 1, NULL, &before);
        if (ready > 0 || (ready < 0 && errno != EINTR))
            break;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (interrupted)
        return -1;
    return ready > 0 && read(STDIN_FILENO, byte, 1) == 1 ? 1 : 0;
}

bool os_interrupted(void) { return interrupted != 0; }
void os_interrupt_clear(void) { interrupted = 0; }

void os_futex_wait(const void *word, uint32_t expected) { syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0); }

void os_futex_wake_all(const void *word) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0); }
