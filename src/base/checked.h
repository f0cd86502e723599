/* Checked integers: every number that comes from a file, a request or a shape goes through these. */
#ifndef BASE_CHECKED_H
#define BASE_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool checked_mul_u64(uint64_t a, uint64_t b, uint64_t *out) { return !__builtin_mul_overflow(a, b, out); }
static inline bool checked_add_u64(uint64_t a, uint64_t b, uint64_t *out) { return !__builtin_add_overflow(a, b, out); }
static inline bool checked_mul_size(size_t a, size_t b, size_t *out) { return !__builtin_mul_overflow(a, b, out); }
static inline bool checked_add_size(size_t a, size_t b, size_t *out) { return !__builtin_add_overflow(a, b, out); }

/* Rounds up to a power of two; false on overflow. */
static inline bool checked_round_up_u64(uint64_t a, uint64_t align, uint64_t *out)
{
    uint64_t padded;
    if (!checked_add_u64(a, align - 1, &padded))
        return false;
    *out = padded & ~(align - 1);
    return true;
}

/* For numbers already known to be small. */
static inline size_t round_up_size(size_t a, size_t align) { return (a + align - 1) / align * align; }

#endif
