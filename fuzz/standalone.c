/*
 * Replaces libFuzzer where there is none (gcc): runs LLVMFuzzerTestOneInput on every file of the
 * directories and files given, then on seeded mutations of them. Understands -runs=N (0: only
 * replay), -max_total_time=SECONDS, -seed=N; ignores other options. The input that is running lies
 * in crash-standalone when the program ends badly.
 */
#include <dirent.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define MAX_BYTES ((size_t)1 << 20)
#define MAX_FILES 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct input {
    uint8_t *p;
    size_t n;
} input;

static input corpus[MAX_FILES];
static size_t n_corpus;
static uint64_t random_state = 1;

static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static size_t below(size_t n) { return n ? (size_t)(next_random() % n) : 0; }

static void add_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    uint8_t *p = f && n_corpus < MAX_FILES ? malloc(MAX_BYTES) : NULL;
    if (p) {
        size_t n = fread(p, 1, MAX_BYTES, f);
        uint8_t *exact = realloc(p, n ? n : 1);
        corpus[n_corpus++] = (input){exact ? exact : p, n};
    }
    if (f)
        fclose(f);
}

static void add_path(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir) {
        add_file(path);
        return;
    }
    for (struct dirent *entry; (entry = readdir(dir));) {
        char name[4096];
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        if (entry->d_name[0] != '.')
            add_file(name);
    }
    closedir(dir);
}

static size_t change(uint8_t *p, size_t n)
{
    static const uint64_t odd[] = {0,          1,
                                   2,          3,
                                   4,          8,
                                   31,         32,
                                   33,         64,
                                   127,        128,
                                   255,        256,
                                   0x7fff,     0x8000,
                                   0xffff,     0x10000,
                                   0x7fffffff, 0x80000000,
                                   0xffffffff, (uint64_t)1 << 32,
                                   INT64_MAX,  (uint64_t)1 << 63,
                                   UINT64_MAX, UINT64_MAX - 31};
    size_t at = below(n + 1), width = (size_t)1 << below(4), length;
    uint64_t value = odd[below(sizeof odd / sizeof *odd)];
    switch (below(7)) {
    case 0:
        if (at < n)
            p[at] ^= (uint8_t)(1 << below(8));
        break;
    case 1:
        if (at < n)
            p[at] = (uint8_t)next_random();
        break;
    case 2:
        if (at + width <= n)
            memcpy(p + at, &value, width);
        break;
    case 3: /* add or subtract a little */
        if (at + 4 <= n) {
            uint32_t v;
            memcpy(&v, p + at, 4);
            v += (uint32_t)below(33) - 16;
            memcpy(p + at, &v, 4);
        }
        break;
    case 4: n = below(8) ? n : at; break; /* cut */
    case 5:                               /* remove */
        length = below(64);
        if (at + length <= n) {
            memmove(p + at, p + at + length, n - at - length);
            n -= length;
        }
        break;
    default: /* repeat */
        length = below(64);
        if (at + length <= n && n + length <= MAX_BYTES) {
            memmove(p + at + length, p + at, n - at);
            n += length;
        }
        break;
    }
    return n;
}

/* ---- keeping what crashed ---- */

static const uint8_t *running;
static size_t running_bytes;

static void keep_input(void)
{
    FILE *f = running ? fopen("crash-standalone", "wb") : NULL;
    if (f) {
        fwrite(running, 1, running_bytes, f);
        fclose(f);
        fprintf(stderr, "the input is in crash-standalone\n");
    }
    running = NULL;
}

static void on_signal(int sig)
{
    keep_input();
    signal(sig, SIG_DFL);
    raise(sig);
}

/* There when a sanitizer is linked in. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void run(const uint8_t *p, size_t n)
{
    running = p;
    running_bytes = n;
    LLVMFuzzerTestOneInput(p, n);
    running = NULL;
}

int main(int argc, char **argv)
{
    static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    static uint8_t work[MAX_BYTES];
    long long runs = -1, seconds = 0, done = 0;
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        signal(signals[i], on_signal);
    if (__sanitizer_set_death_callback)
        __sanitizer_set_death_callback(keep_input);
    for (int i = 1; i < argc; i++) {
        unsigned long long seed;
        if (sscanf(argv[i], "-runs=%lld", &runs) == 1 || sscanf(argv[i], "-max_total_time=%lld", &seconds) == 1)
            continue;
        if (sscanf(argv[i], "-seed=%llu", &seed) == 1)
            random_state = seed * 2 + 1;
        else if (argv[i][0] != '-')
            add_path(argv[i]);
    }
    for (size_t i = 0; i < n_corpus; i++, done++)
        run(corpus[i].p, corpus[i].n);
    time_t end = time(NULL) + (time_t)seconds;
    while (n_corpus > 0 && (seconds > 0 ? time(NULL) < end : done < runs)) {
        const input *seed = &corpus[below(n_corpus)];
        size_t n = seed->n;
        memcpy(work, seed->p, n);
        for (size_t k = 1 + below(6); k > 0; k--)
            n = change(work, n);
        run(work, n);
        done++;
    }
    fprintf(stderr, "stat::number_of_executed_units: %lld\n", done);
    for (size_t i = 0; i < n_corpus; i++)
        free(corpus[i].p);
    return 0;
}
