/*
 * Memory: the only place that calls malloc. Allocations carry a tag so that plans and tests can say who holds what.
 * Two forms: single blocks (mem_*) for things that grow, and arenas for everything with one of the four lifetimes
 * model, session, scratch, request. Tests can make the n-th allocation fail and can count calls.
 */
#ifndef BASE_MEM_H
#define BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum mem_tag {
    MEM_MISC,
    MEM_FILE,
    MEM_VOCAB,
    MEM_WEIGHTS,
    MEM_PACKED,
    MEM_KV,
    MEM_ACTIVATIONS,
    MEM_SAMPLING,
    MEM_TEXT,
    MEM_TAGS
} mem_tag;

/* All return NULL on failure; alignment is 64 bytes; size 0 gives a valid block. Freed with mem_free. */
void *mem_alloc(size_t size_bytes, mem_tag tag);
void *mem_calloc(size_t count, size_t size_bytes, mem_tag tag); /* zeroed; checks the product */
void *mem_grow(void *block, size_t new_size_bytes,
               mem_tag tag); /* keeps the contents; block may be NULL; on failure block stays valid */
void mem_free(void *block);  /* NULL is allowed */

/* Large page-aligned regions from the system (weights, KV); untouched pages cost nothing. NULL on failure. */
void *mem_map(size_t size_bytes, mem_tag tag);
void mem_unmap(void *region, size_t size_bytes, mem_tag tag);

size_t mem_bytes(mem_tag tag); /* bytes held now under the tag, by the process */
const char *mem_tag_name(mem_tag tag);
uint64_t mem_calls(void); /* allocation calls so far (all kinds) */

/* Test hook: after `after` successful calls every further one fails; after < 0 switches it off. */
void mem_inject_failure(int64_t after);

/* An arena is a growing list of blocks, freed together. */
typedef struct arena arena;
typedef struct arena_mark {
    size_t block, used;
} arena_mark;

arena *arena_new(mem_tag tag, size_t max_bytes);               /* NULL on failure; max_bytes bounds its growth */
void *arena_alloc(arena *a, size_t size_bytes);                /* 64-byte aligned, uninitialised; NULL on failure */
void *arena_calloc(arena *a, size_t count, size_t size_bytes); /* zeroed, product checked */
char *arena_strdup(arena *a, const char *text, size_t length); /* NUL-terminated copy */
arena_mark arena_mark_get(const arena *a);
void arena_reset(arena *a, arena_mark mark); /* gives back everything allocated since the mark */
size_t arena_bytes(const arena *a);
void arena_free(arena *a); /* NULL is allowed */

/* Hands out pieces of one block, each on a cache line: *used grows by bytes rounded up. base NULL: only counts, returns NULL. */
static inline void *mem_carve(void *base, size_t *used, size_t bytes)
{
    void *p = base ? (char *)base + *used : NULL;
    *used += (bytes + 63) & ~(size_t)63;
    return p;
}

#endif
