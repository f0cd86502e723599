/* Where the time of passes went, for people and for programs. */
#include <inttypes.h>
#include <stdio.h>

#include "base/status.h"
#include "cli/cli.h"

static const char *const pass_names[PASS_KINDS] = {[PASS_PREFILL] = "prefill", [PASS_DECODE] = "decode"};

static double ratio(uint64_t part, uint64_t of) { return of > 0 ? (double)part / (double)of : 0.0; }

/* Bytes only where weights are read once for few rows: elsewhere arithmetic decides. */
static void print_row(const char *name, const step_times *t, const pass_times *p, bool bytes)
{
    fprintf(stderr, "  %-14s %8" PRIu64 " %10.3f %6.1f %% %6.1f %%", name, t->n, 1e-6 * ratio(t->time_ns, p->n),
            100.0 * ratio(t->time_ns, p->time_ns), 100.0 * ratio(t->wait_ns, t->work_ns + t->wait_ns));
    if (bytes && t->weight_bytes > 0)
        fprintf(stderr, " %10.3f %8.2f", 1e-6 * ratio(t->weight_bytes, p->n), ratio(t->weight_bytes, t->time_ns));
    fputc('\n', stderr);
}

static void print_pass(const pass_times *p, const char *name, bool bytes)
{
    step_times all = {0};
    fprintf(stderr,
            p->n == 1 ? _("%s: %llu pass of %.1f tokens, %.3f ms each\n") : _("%s: %llu passes of %.1f tokens, %.3f ms each\n"),
            name, (unsigned long long)p->n, ratio(p->n_tokens, p->n), 1e-6 * ratio(p->time_ns, p->n));
    fprintf(stderr, "%s%s\n", _("  step              calls    ms/pass    share  waiting"), bytes ? _("    MB/pass     GB/s") : "");
    for (int i = 0; i < STEP_KINDS; i++) {
        const step_times *t = &p->steps[i];
        if (t->n == 0)
            continue;
        print_row(step_name((step_kind)i), t, p, bytes);
        all.n += t->n;
        all.time_ns += t->time_ns;
        all.work_ns += t->work_ns;
        all.wait_ns += t->wait_ns;
        all.weight_bytes += t->weight_bytes;
    }
    print_row(_("all"), &all, p, bytes);
}

void cli_print_timing(engine *e)
{
    const pass_times *times = compute_times(engine_compute(e));
    int n = engine_n_threads(e);
    fprintf(stderr,
            n == 1 ? _("time per kind of step, %d worker; waiting: the workers' time at barriers\n")
                   : _("time per kind of step, %d workers; waiting: the workers' time at barriers\n"),
            n);
    for (int i = 0; i < PASS_KINDS; i++)
        if (times[i].n > 0)
            print_pass(&times[i], pass_names[i], i == PASS_DECODE);
}

static void print_json_step(const step_times *t, const char *name, bool first)
{
    printf("%s{\"step\": \"%s\", \"calls\": %" PRIu64 ", \"seconds\": %.9f, \"work_seconds\": %.9f, \"wait_seconds\": %.9f, "
           "\"weight_bytes\": %" PRIu64 "}",
           first ? "" : ", ", name, t->n, 1e-9 * (double)t->time_ns, 1e-9 * (double)t->work_ns, 1e-9 * (double)t->wait_ns,
           t->weight_bytes);
}

static void print_json_pass(const pass_times *p, const char *name)
{
    bool first = true;
    printf(", \"%s\": {\"passes\": %" PRIu64 ", \"tokens\": %" PRIu64 ", \"seconds\": %.9f, \"steps\": [", name, p->n, p->n_tokens,
           1e-9 * (double)p->time_ns);
    for (int i = 0; i < STEP_KINDS; i++)
        if (p->steps[i].n > 0) {
            print_json_step(&p->steps[i], step_name((step_kind)i), first);
            first = false;
        }
    printf("]}");
}

void cli_print_json_timing(engine *e)
{
    const pass_times *times = compute_times(engine_compute(e));
    printf("\"timing\": {\"workers\": %d", engine_n_threads(e));
    for (int i = 0; i < PASS_KINDS; i++)
        if (times[i].n > 0)
            print_json_pass(&times[i], pass_names[i]);
    printf("}");
}
