/* checkkernels: options, the run over the checks, crashes turned into failures that name their kernel. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { EXIT_SKIPPED = 77, LINES_PER_KERNEL = 5 };

static sigjmp_buf crash_point;
static volatile sig_atomic_t crash_armed;
static const char *current_name = "";
static int lines_printed;

static void on_crash(int signal_number)
{
    if (crash_armed)
        siglongjmp(crash_point, signal_number);
    _Exit(3);
}

static void catch_crashes(void)
{
    static uint8_t stack[64 * 1024];
    stack_t own = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_crash;
    action.sa_flags = SA_ONSTACK | SA_NODEFER;
    sigaltstack(&own, NULL);
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGILL, &action, NULL);
    sigaction(SIGFPE, &action, NULL);
}

void check_fail(check *c, const char *text, ...)
{
    c->current_failed = true;
    if (lines_printed++ >= LINES_PER_KERNEL)
        return;
    va_list args;
    va_start(args, text);
    printf("FAIL %s %s: ", c->level->name, current_name);
    vprintf(text, args);
    printf("\n");
    va_end(args);
    fflush(stdout);
}

void check_run(check *c, const char *name, void (*body)(check *c, int arg), int arg)
{
    if (c->filter && !strstr(name, c->filter))
        return;
    if (c->list) {
        printf("%s\n", name);
        return;
    }
    current_name = name;
    lines_printed = 0;
    c->current_failed = false;
    random_seed(7);
    int signal_number = sigsetjmp(crash_point, 1);
    if (signal_number == 0) {
        crash_armed = 1;
        body(c, arg);
    } else {
        check_fail(c, "crashed: %s", strsignal(signal_number));
    }
    crash_armed = 0;
    c->n_run++;
    c->n_failed += c->current_failed;
}

static void usage(void)
{
    printf("usage: checkkernels [--isa scalar|avx2|avx512|avx512_bf16|all] [--filter PART_OF_NAME] [--list] [--bench]\n"
           "Compares the kernels of a level with scalar. --bench measures them instead: GB/s of packed weights for gemv,\n"
           "Gmac/s for gemm. Exit: 0 all agree, 1 some do not, 77 this CPU lacks the level.\n");
}

/* Exit code of one level. */
static int run_level(const char *isa, const char *filter, bool list, bool bench)
{
    kernels level, scalar;
    dil_error err;
    if (kernels_select(&scalar, "scalar", &err) != DIL_OK)
        return 1;
    if (kernels_select(&level, isa, &err) != DIL_OK) {
        printf("%s: skipped, %s\n", isa, err.text);
        return EXIT_SKIPPED;
    }
    if (bench) {
        bench_all(&level, filter);
        return 0;
    }
    if (level.bf16_dot)
        kernels_add_scalar_bf16(&scalar);
    check c = {.level = &level, .scalar = &scalar, .filter = filter, .list = list};
    c.is_scalar = strcmp(level.name, "scalar") == 0;
    check_linear_all(&c);
    check_vector_all(&c);
    check_attention_all(&c);
    check_peak_all(&c);
    check_training_all(&c);
    if (!list)
        printf("%s: %d kernels, %d failed\n", level.name, c.n_run, c.n_failed);
    return c.n_failed > 0;
}

int main(int argc, char **argv)
{
    const char *isa = "all", *filter = NULL;
    bool list = false, bench = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--isa") == 0 && i + 1 < argc)
            isa = argv[++i];
        else if (strcmp(argv[i], "--filter") == 0 && i + 1 < argc)
            filter = argv[++i];
        else if (strcmp(argv[i], "--list") == 0)
            list = true;
        else if (strcmp(argv[i], "--bench") == 0)
            bench = true;
        else {
            usage();
            return strcmp(argv[i], "--help") == 0 ? 0 : 2;
        }
    }
    catch_crashes();
    if (list)
        return run_level("scalar", filter, true, false);
    if (strcmp(isa, "all") != 0)
        return run_level(isa, filter, false, bench);
    int worst = 0;
    static const char *const levels[] = {"scalar", "avx2", "avx512", "avx512_bf16"};
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
        worst |= run_level(levels[i], filter, false, bench) == 1;
    return worst;
}
