#include "cli/work_progress.h"

#include <stdio.h>
#include <string.h>

#include "base/os.h"
#include "base/status.h"

bool work_progress_tell(void *user, const char *what, uint64_t done, uint64_t total)
{
    work_progress *p = user;
    uint64_t now = os_time_ns();
    if (os_interrupted())
        return false;
    if (!p->what || strcmp(p->what, what) != 0) {
        p->what = what;
        p->started_ns = now;
        p->drawn_ns = 0;
        p->began_with = done;
    }
    if (p->quiet || !os_is_terminal(OS_STDERR) || now - p->drawn_ns < 100000000u)
        return true;
    double seconds = (double)(now - p->started_ns) * 1e-9, rate = (double)(done - p->began_with) / (seconds + 1e-9);
    fprintf(stderr, "\r%s: %3.0f %%", _(what), total ? 100.0 * (double)done / (double)total : 100.0);
    if (rate > 0)
        fprintf(stderr, _(", %.0f s left"), (double)(total - done) / rate);
    fputs("\033[K", stderr);
    p->drawn_ns = now;
    p->shown = true;
    return true;
}

void work_progress_end(work_progress *p)
{
    if (p->shown)
        fputs("\r\033[K", stderr);
    p->shown = false;
}
