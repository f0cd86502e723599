/* Writing router logs: a pass is gathered unpacked, so that any thread may put its part, and packed when it ends. */
#include <string.h>

#include "base/checked.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "experts/trace_format.h"

#define BUFFER_BYTES ((size_t)64 << 10)

struct trace_writer {
    os_writer file;
    trace_layer *layers; /* [n_layers] */
    uint32_t *place_of;  /* [n_layers] */
    uint32_t n_layers, n_used, n_places, most_tokens, n_pass;
    bool weights;
    size_t record_bytes, buffered;
    uint64_t n_tokens;
    uint16_t *chosen; /* [most_tokens, n_places, n_used] of this pass */
    uint8_t *parts;   /* the same shape */
    uint8_t *buffer;  /* [BUFFER_BYTES + record_bytes] */
};

static void release(trace_writer *w)
{
    mem_free(w->layers);
    mem_free(w->place_of);
    mem_free(w->chosen);
    mem_free(w->parts);
    mem_free(w->buffer);
    mem_free(w);
}

static dil_status flush(trace_writer *w, dil_error *err)
{
    size_t n = w->buffered;
    w->buffered = 0;
    return n ? os_writer_write(&w->file, w->buffer, n, err) : DIL_OK;
}

/* ---- the header ---- */

static dil_status write_header(trace_writer *w, const char *name, dil_error *err)
{
    size_t name_bytes = strlen(name), n = TRACE_HEAD_BYTES + w->n_layers * TRACE_LAYER_BYTES + name_bytes + 4;
    uint8_t *head = mem_calloc(1, n, MEM_FILE), *p = head;
    if (!head)
        return DIL_FAIL(err, DIL_NO_MEMORY, "router log: no memory");
    const uint32_t numbers[] = {TRACE_VERSION,       (uint32_t)n, w->n_layers, w->n_used, w->weights ? TRACE_WEIGHTS : 0,
                                (uint32_t)name_bytes};
    memcpy(p, trace_magic, sizeof trace_magic);
    p += sizeof trace_magic;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++, p += 4)
        trace_put_number(p, numbers[i], 4);
    for (uint32_t l = 0; l < w->n_layers; l++, p += TRACE_LAYER_BYTES) {
        trace_put_number(p, w->layers[l].bytes, 8);
        trace_put_number(p + 8, w->layers[l].n_experts, 4);
    }
    memcpy(p, name, name_bytes);
    trace_put_number(head + n - 4, trace_check(TRACE_CHECK_START, head, n - 4), 4);
    dil_status status = os_writer_write(&w->file, head, n, err);
    mem_free(head);
    return status;
}

static dil_status allocate(trace_writer *w, const trace_options *o, dil_error *err)
{
    w->layers = mem_calloc(o->n_layers, sizeof *w->layers, MEM_FILE);
    w->place_of = mem_calloc(o->n_layers, sizeof *w->place_of, MEM_FILE);
    for (uint32_t l = 0; w->layers && w->place_of && l < o->n_layers; l++) {
        w->layers[l] = o->layers[l];
        w->place_of[l] = w->n_places;
        w->n_places += o->layers[l].n_experts > 0;
    }
    w->record_bytes = trace_record_bytes(o->layers, o->n_layers, o->n_used, o->weights);
    size_t numbers = (size_t)o->most_tokens * w->n_places, all;
    if (!w->place_of || !checked_mul_size(numbers, o->n_used, &all))
        return DIL_FAIL(err, DIL_NO_MEMORY, "router log: no memory");
    w->chosen = mem_calloc(all, sizeof *w->chosen, MEM_FILE);
    w->parts = mem_calloc(all, 1, MEM_FILE);
    w->buffer = mem_alloc(BUFFER_BYTES + w->record_bytes, MEM_FILE);
    if (!w->layers || !w->chosen || !w->parts || !w->buffer)
        return DIL_FAIL(err, DIL_NO_MEMORY, "router log: no memory for passes of %u tokens", o->most_tokens);
    return DIL_OK;
}

dil_status trace_writer_open(trace_writer **out, const char *path, const trace_options *o, dil_error *err)
{
    if (!trace_layers_fit(o->layers, o->n_layers, o->n_used) || o->most_tokens == 0 || strlen(o->name) > TRACE_MOST_NAME)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "router log: wanted layers of %u..%u experts and their bytes, found others",
                        o->n_used, TRACE_MOST_EXPERTS);
    trace_writer *w = mem_calloc(1, sizeof *w, MEM_FILE);
    if (!w)
        return DIL_FAIL(err, DIL_NO_MEMORY, "router log: no memory");
    *w = (trace_writer){
        .file = {.fd = -1}, .n_layers = o->n_layers, .n_used = o->n_used, .most_tokens = o->most_tokens, .weights = o->weights};
    dil_status status = allocate(w, o, err);
    if (status == DIL_OK)
        status = os_writer_open(&w->file, path, err);
    if (status == DIL_OK)
        status = write_header(w, o->name, err);
    if (status == DIL_OK)
        *out = w;
    else
        trace_writer_abort(w);
    return status;
}

/* ---- passes ---- */

dil_status trace_writer_begin(trace_writer *w, uint32_t n_tokens, dil_error *err)
{
    if (n_tokens == 0 || n_tokens > w->most_tokens)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "router log: wanted a pass of 1..%u tokens, found %u", w->most_tokens, n_tokens);
    w->n_pass = n_tokens;
    return DIL_OK;
}

void trace_writer_put(trace_writer *w, uint32_t token, uint32_t layer, const uint16_t *experts, const float *weights)
{
    size_t at = ((size_t)token * w->n_places + w->place_of[layer]) * w->n_used;
    memcpy(w->chosen + at, experts, w->n_used * sizeof *experts);
    for (uint32_t k = 0; w->weights && weights && k < w->n_used; k++) {
        float x = weights[k] * 255 + 0.5f;
        w->parts[at + k] = x >= 255 ? 255 : x > 0 ? (uint8_t)x : 0;
    }
}

static uint8_t *pack(const trace_writer *w, const uint16_t *chosen, uint8_t *to)
{
    uint64_t buffer = 0;
    int held = 0;
    for (uint32_t l = 0; l < w->n_layers; l++) {
        if (w->layers[l].n_experts == 0)
            continue;
        int bits = trace_bits(w->layers[l].n_experts);
        for (uint32_t k = 0; k < w->n_used; k++) {
            buffer |= (uint64_t)*chosen++ << held;
            for (held += bits; held >= 8; held -= 8, buffer >>= 8)
                *to++ = (uint8_t)buffer;
        }
    }
    if (held > 0)
        *to++ = (uint8_t)buffer;
    return to;
}

dil_status trace_writer_end(trace_writer *w, dil_error *err)
{
    size_t per_token = (size_t)w->n_places * w->n_used;
    for (uint32_t i = 0; i < w->n_pass; i++) {
        uint8_t *record = w->buffer + w->buffered, *p = record;
        *p++ = i == 0 ? TRACE_BEGINS_PASS : 0;
        p = pack(w, w->chosen + i * per_token, p);
        if (w->weights)
            memcpy(p, w->parts + i * per_token, per_token);
        trace_put_number(record + w->record_bytes - 4, trace_record_check(w->n_tokens, record, w->record_bytes - 4), 4);
        w->n_tokens++;
        w->buffered += w->record_bytes;
        if (w->buffered >= BUFFER_BYTES)
            DIL_TRY(flush(w, err));
    }
    w->n_pass = 0;
    return DIL_OK;
}

dil_status trace_writer_commit(trace_writer *w, dil_error *err)
{
    uint8_t end[TRACE_END_BYTES] = {TRACE_END};
    trace_put_number(end + 1, w->n_tokens, 8);
    trace_put_number(end + 9, trace_check(TRACE_CHECK_START, end, 9), 4);
    dil_status status = flush(w, err);
    if (status == DIL_OK)
        status = os_writer_write(&w->file, end, sizeof end, err);
    if (status == DIL_OK)
        status = os_writer_commit(&w->file, err);
    else
        os_writer_abort(&w->file);
    release(w);
    return status;
}

void trace_writer_abort(trace_writer *w)
{
    if (!w)
        return;
    os_writer_abort(&w->file);
    release(w);
}
