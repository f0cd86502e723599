#include "file/name_index.h"

#include "base/checked.h"
#include "base/os.h"

bool name_index_init(name_index *ix, arena *memory, uint32_t capacity)
{
    uint32_t n_slots = 8;
    while (n_slots < 2 * (uint64_t)capacity)
        n_slots *= 2;
    *ix = (name_index){.capacity = capacity, .n_slots = n_slots};
    os_random(ix->key, sizeof ix->key);
    size_t names_bytes;
    if (!checked_mul_size(capacity, sizeof *ix->names, &names_bytes))
        return false;
    ix->names = arena_alloc(memory, names_bytes);
    ix->slots = arena_calloc(memory, n_slots, sizeof *ix->slots);
    return ix->names && ix->slots;
}

/* Folds the 128-bit product: every input bit reaches the low half. */
static uint64_t mix(uint64_t a, uint64_t b)
{
    __extension__ typedef unsigned __int128 u128;
    u128 product = (u128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t hash(const name_index *ix, str name)
{
    uint64_t h = ix->key[0] ^ name.n, word;
    size_t i = 0;
    for (; i + 8 <= name.n; i += 8) {
        memcpy(&word, name.p + i, 8);
        h = mix(h ^ word, ix->key[1] | 1);
    }
    word = 0;
    if (i < name.n)
        memcpy(&word, name.p + i, name.n - i);
    return mix(h ^ word, ix->key[1] | 1) ^ ix->key[0];
}

/* The slot that holds name, or the empty one where it would go. There is always an empty one:
 * n_slots >= 2 * capacity. */
static uint32_t slot_of(const name_index *ix, str name)
{
    uint32_t at = (uint32_t)(hash(ix, name) >> 17) & (ix->n_slots - 1);
    while (ix->slots[at] && !str_equal(ix->names[ix->slots[at] - 1], name))
        at = (at + 1) & (ix->n_slots - 1);
    return at;
}

uint32_t name_index_add(name_index *ix, str name)
{
    if (ix->n >= ix->capacity)
        return NAME_INDEX_NONE;
    uint32_t at = slot_of(ix, name), number = ix->n++;
    ix->names[number] = name;
    if (ix->slots[at])
        return ix->slots[at] - 1;
    ix->slots[at] = number + 1;
    return number;
}

uint32_t name_index_find(const name_index *ix, str name)
{
    if (!ix->slots)
        return NAME_INDEX_NONE;
    uint32_t at = slot_of(ix, name);
    return ix->slots[at] ? ix->slots[at] - 1 : NAME_INDEX_NONE;
}
