/* What reading and writing of router logs share; the format is described in trace.h. */
#ifndef EXPERTS_TRACE_FORMAT_H
#define EXPERTS_TRACE_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#include "experts/trace.h"

#define TRACE_VERSION 1u
#define TRACE_HEAD_BYTES 32u
#define TRACE_LAYER_BYTES 16u
#define TRACE_END_BYTES 13u
#define TRACE_MOST_NAME 4096u
static const char trace_magic[8] = {'D', 'I', 'L', 'R', 'O', 'U', 'T', 'E'};

enum { TRACE_WEIGHTS = 1 };                    /* flags of the file */
enum { TRACE_BEGINS_PASS = 1, TRACE_END = 2 }; /* of a record */

#define TRACE_CHECK_START 0x811C9DC5u
static inline uint32_t trace_check(uint32_t state, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    for (size_t i = 0; i < n; i++)
        state = (state ^ p[i]) * 0x1B3u;
    return state;
}

static inline void trace_put_number(uint8_t *to, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

static inline uint64_t trace_get_number(const uint8_t *from, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++)
        value |= (uint64_t)from[i] << (8 * i);
    return value;
}

/* A record's check covers its number too: a record lost or doubled shows. */
static inline uint32_t trace_record_check(uint64_t number, const uint8_t *record, size_t n)
{
    uint8_t bytes[8];
    trace_put_number(bytes, number, 8);
    return trace_check(trace_check(TRACE_CHECK_START, bytes, 8), record, n);
}

/* Bits of one expert's number: 1 .. 16. */
static inline int trace_bits(uint32_t n_experts)
{
    int bits = 1;
    while (n_experts > 1u << bits)
        bits++;
    return bits;
}

/* Bytes of a record with its check; bounded by the limits of trace.h. */
static inline size_t trace_record_bytes(const trace_layer *layers, uint32_t n_layers, uint32_t n_used, bool weights)
{
    size_t bits = 0, places = 0;
    for (uint32_t l = 0; l < n_layers; l++)
        if (layers[l].n_experts > 0) {
            bits += (size_t)n_used * (size_t)trace_bits(layers[l].n_experts);
            places++;
        }
    return 1 + (bits + 7) / 8 + (weights ? places * n_used : 0) + 4;
}

/* Are these layers ones a log can hold? */
static inline bool trace_layers_fit(const trace_layer *layers, uint32_t n_layers, uint32_t n_used)
{
    uint32_t places = 0;
    if (n_layers == 0 || n_layers > TRACE_MOST_LAYERS || n_used == 0 || n_used > TRACE_MOST_USED)
        return false;
    for (uint32_t l = 0; l < n_layers; l++) {
        if (layers[l].n_experts == 0)
            continue;
        if (layers[l].n_experts > TRACE_MOST_EXPERTS || layers[l].n_experts < n_used || layers[l].bytes == 0 ||
            layers[l].bytes > (uint64_t)1 << 36)
            return false;
        places++;
    }
    return places > 0;
}

#endif
