/* Guarded memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"

enum { BEFORE = 64, KEPT = 64 }; /* bytes in front that must stay 0xff; mappings */

/* What was given back, for the next arrays of that size: to map and to unmap takes longer than most checks. */
static struct {
    uint8_t *base;
    size_t bytes;
} kept[KEPT];

/* inner bytes and a page behind them that traps. */
static uint8_t *map(size_t inner, size_t page)
{
    for (int i = 0; i < KEPT; i++)
        if (kept[i].base && kept[i].bytes == inner + page) {
            uint8_t *base = kept[i].base;
            kept[i].base = NULL;
            return base;
        }
    uint8_t *base = mmap(NULL, inner + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED || mprotect(base + inner, page, PROT_NONE) != 0) {
        perror("checkkernels: mmap");
        exit(1);
    }
    return base;
}

static void unmap(uint8_t *base, size_t bytes)
{
    for (int i = 0; i < KEPT; i++)
        if (!kept[i].base) {
            kept[i].base = base;
            kept[i].bytes = bytes;
            return;
        }
    munmap(base, bytes);
}

guarded guarded_new(size_t bytes, size_t align)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t inner = (bytes + BEFORE + align + page - 1) / page * page;
    guarded g = {map(inner, page), inner + page, NULL, bytes};
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
    unmap(g->base, g->mapped_bytes);
    *g = (guarded){NULL, 0, NULL, 0};
    return clean;
}
