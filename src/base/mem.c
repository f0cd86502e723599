#include "base/mem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/checked.h"

/* In front of every block: what mem_free must know. Keeps the 64-byte alignment of what follows. */
typedef struct header {
    size_t size_bytes;
    mem_tag tag;
} header;

#define HEADER_BYTES 64
#define ARENA_MIN_BLOCK ((size_t)64 << 10)

static atomic_size_t held_bytes[MEM_TAGS];
static atomic_uint_fast64_t n_calls;
static atomic_int_fast64_t inject_after = -1; /* test hook; relaxed: tests set it while nothing else runs */

static bool should_fail(void)
{
    atomic_fetch_add_explicit(&n_calls, 1, memory_order_relaxed);
    int_fast64_t left = atomic_load_explicit(&inject_after, memory_order_relaxed);
    if (left < 0)
        return false;
    if (left == 0)
        return true;
    atomic_store_explicit(&inject_after, left - 1, memory_order_relaxed);
    return false;
}

void *mem_alloc(size_t size_bytes, mem_tag tag)
{
    size_t total;
    if (should_fail() || !checked_add_size(size_bytes, HEADER_BYTES + 63, &total))
        return NULL;
    char *raw = aligned_alloc(64, total & ~(size_t)63);
    if (!raw)
        return NULL;
    *(header *)(void *)raw = (header){size_bytes, tag};
    atomic_fetch_add_explicit(&held_bytes[tag], size_bytes, memory_order_relaxed);
    return raw + HEADER_BYTES;
}

void *mem_calloc(size_t count, size_t size_bytes, mem_tag tag)
{
    size_t total;
    if (!checked_mul_size(count, size_bytes, &total))
        return NULL;
    void *block = mem_alloc(total, tag);
    if (block)
        memset(block, 0, total);
    return block;
}

void *mem_grow(void *block, size_t new_size_bytes, mem_tag tag)
{
    void *bigger = mem_alloc(new_size_bytes, tag);
    if (!bigger || !block)
        return bigger;
    const header *h = (const header *)(const void *)((const char *)block - HEADER_BYTES);
    memcpy(bigger, block, h->size_bytes < new_size_bytes ? h->size_bytes : new_size_bytes);
    mem_free(block);
    return bigger;
}

void mem_free(void *block)
{
    if (!block)
        return;
    header *h = (header *)(void *)((char *)block - HEADER_BYTES);
    atomic_fetch_sub_explicit(&held_bytes[h->tag], h->size_bytes, memory_order_relaxed);
    free(h);
}

void *mem_map(size_t size_bytes, mem_tag tag)
{
    if (should_fail() || size_bytes == 0)
        return NULL;
    void *p = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    atomic_fetch_add_explicit(&held_bytes[tag], size_bytes, memory_order_relaxed);
    return p;
}

void mem_unmap(void *region, size_t size_bytes, mem_tag tag)
{
    if (!region)
        return;
    munmap(region, size_bytes);
    atomic_fetch_sub_explicit(&held_bytes[tag], size_bytes, memory_order_relaxed);
}

size_t mem_bytes(mem_tag tag) { return atomic_load_explicit(&held_bytes[tag], memory_order_relaxed); }

const char *mem_tag_name(mem_tag tag)
{
    static const char *const names[MEM_TAGS] = {"misc",     "file",        "vocabulary", "weights", "packed weights",
                                                "kv cache", "activations", "sampling",   "text"};
    return (unsigned)tag < MEM_TAGS ? names[tag] : "?";
}

uint64_t mem_calls(void) { return atomic_load_explicit(&n_calls, memory_order_relaxed); }

void mem_inject_failure(int64_t after) { atomic_store_explicit(&inject_after, after, memory_order_relaxed); }

/* Arenas: an array of blocks; each new one at least doubles what there is, up to max_bytes. */
#define ARENA_BLOCKS 64

struct arena {
    mem_tag tag;
    size_t max_bytes, held;
    size_t n_blocks;
    struct {
        char *p;
        size_t size, used;
    } blocks[ARENA_BLOCKS];
};

arena *arena_new(mem_tag tag, size_t max_bytes)
{
    arena *a = mem_calloc(1, sizeof *a, tag);
    if (a) {
        a->tag = tag;
        a->max_bytes = max_bytes;
    }
    return a;
}

static bool arena_add_block(arena *a, size_t at_least)
{
    size_t size = a->held > ARENA_MIN_BLOCK ? a->held : ARENA_MIN_BLOCK;
    size_t room = a->max_bytes - a->held;
    if (size > room)
        size = room;
    if (size < at_least)
        size = at_least;
    if (a->n_blocks == ARENA_BLOCKS || size > room)
        return false;
    char *p = mem_alloc(size, a->tag);
    if (!p)
        return false;
    a->blocks[a->n_blocks].p = p;
    a->blocks[a->n_blocks].size = size;
    a->blocks[a->n_blocks].used = 0;
    a->n_blocks++;
    a->held += size;
    return true;
}

void *arena_alloc(arena *a, size_t size_bytes)
{
    uint64_t padded;
    if (!checked_round_up_u64(size_bytes ? size_bytes : 1, 64, &padded))
        return NULL;
    size_t i = a->n_blocks;
    if (i == 0 || a->blocks[i - 1].size - a->blocks[i - 1].used < padded) {
        if (padded > a->max_bytes || !arena_add_block(a, padded))
            return NULL;
        i = a->n_blocks;
    }
    void *p = a->blocks[i - 1].p + a->blocks[i - 1].used;
    a->blocks[i - 1].used += padded;
    return p;
}

void *arena_calloc(arena *a, size_t count, size_t size_bytes)
{
    size_t total;
    if (!checked_mul_size(count, size_bytes, &total))
        return NULL;
    void *p = arena_alloc(a, total);
    if (p)
        memset(p, 0, total);
    return p;
}

char *arena_strdup(arena *a, const char *text, size_t length)
{
    size_t total;
    if (!checked_add_size(length, 1, &total))
        return NULL;
    char *copy = arena_alloc(a, total);
    if (copy) {
        if (length)
            memcpy(copy, text, length);
        copy[length] = '\0';
    }
    return copy;
}

arena_mark arena_mark_get(const arena *a) { return (arena_mark){a->n_blocks, a->n_blocks ? a->blocks[a->n_blocks - 1].used : 0}; }

void arena_reset(arena *a, arena_mark mark)
{
    while (a->n_blocks > mark.block) {
        a->n_blocks--;
        a->held -= a->blocks[a->n_blocks].size;
        mem_free(a->blocks[a->n_blocks].p);
    }
    if (a->n_blocks)
        a->blocks[a->n_blocks - 1].used = mark.used;
}

size_t arena_bytes(const arena *a) { return a->held; }

void arena_free(arena *a)
{
    if (!a)
        return;
    arena_reset(a, (arena_mark){0, 0});
    mem_free(a);
}
