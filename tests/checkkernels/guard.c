/* Guarded memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"

enum { BEFORE = 64 }; /* bytes in front that must stay 0xff */

guarded guarded_new(size_t bytes, size_t align)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t inner = (bytes + BEFORE + align + page - 1) / page * page;
    guarded g = {NULL, inner + page, NULL, bytes};
    g.base = mmap(NULL, g.mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.base == MAP_FAILED || mprotect(g.base + inner, page, PROT_NONE) != 0) {
        perror("checkkernels: mmap");
        exit(1);
    }
    memset(g.base, 0xff, inner);
    g.p = g.base + (inner - bytes) / align * align;
    return g;
}

bool guarded_free(guarded *g)
{
    bool clean = true;
    const uint8_t *p = g->p;
    for (int i = 1; i <= BEFORE && p - i >= g->base; i++)
        clean = clean && p[-i] == 0xff;
    munmap(g->base, g->mapped_bytes);
    *g = (guarded){NULL, 0, NULL, 0};
    return clean;
}
