/*
 * Names -> numbers 0, 1, 2, ... in the order of adding: an open-addressed hash table. The hash is
 * keyed with random bits, so that a hostile file cannot choose names that all collide.
 */
#ifndef FILE_NAME_INDEX_H
#define FILE_NAME_INDEX_H

#include "base/mem.h"
#include "base/str.h"

#define NAME_INDEX_NONE UINT32_MAX

typedef struct name_index {
    str *names;      /* [capacity], borrowed text */
    uint32_t *slots; /* [n_slots]: number + 1, or 0 */
    uint32_t n, capacity, n_slots;
    uint64_t key[2];
} name_index;

/* Room for capacity names, from the arena; it does not grow. false: no memory. */
bool name_index_init(name_index *ix, arena *memory, uint32_t capacity);
/* Gives name the next number. Returns the number of the first equal name: the new number itself
 * unless it is a duplicate. */
uint32_t name_index_add(name_index *ix, str name);
/* NAME_INDEX_NONE when absent. */
uint32_t name_index_find(const name_index *ix, str name);

#endif
