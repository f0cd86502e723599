#include "experts/trace.h"

#include <string.h>

#include "base/checked.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "experts/trace_format.h"

#define MOST_FILE_BYTES ((size_t)1 << 32)

typedef struct input {
    const uint8_t *p;
    size_t n, at;
    bool weights;
    size_t record_bytes;
} input;

/* ---- the header ---- */

static dil_status read_layers(trace *t, const uint8_t *p, dil_error *err)
{
    t->layers = mem_calloc(t->n_layers, sizeof *t->layers, MEM_FILE);
    t->layer_of = mem_calloc(t->n_layers, sizeof *t->layer_of, MEM_FILE);
    if (!t->layers || !t->layer_of)
        return DIL_FAIL(err, DIL_NO_MEMORY, "router log: no memory for %u layers", t->n_layers);
    for (uint32_t l = 0; l < t->n_layers; l++, p += TRACE_LAYER_BYTES) {
        t->layers[l] = (trace_layer){.bytes = trace_get_number(p, 8), .n_experts = (uint32_t)trace_get_number(p + 8, 4)};
        if (t->layers[l].n_experts > 0)
            t->layer_of[t->n_places++] = l;
    }
    if (!trace_layers_fit(t->layers, t->n_layers, t->n_used))
        return DIL_FAIL(err, DIL_FORMAT, "router log: wanted layers with %u..%u experts and their bytes, found others at byte %u",
                        t->n_used, TRACE_MOST_EXPERTS, TRACE_HEAD_BYTES);
    return DIL_OK;
}

static dil_status read_header(trace *t, input *in, dil_error *err)
{
    const uint8_t *p = in->p;
    if (in->n < TRACE_HEAD_BYTES || memcmp(p, trace_magic, sizeof trace_magic) != 0)
        return DIL_FAIL(err, DIL_FORMAT, "router log: wanted 'DILROUTE' and a header at byte 0, found something else");
    uint32_t version = (uint32_t)trace_get_number(p + 8, 4), bytes = (uint32_t)trace_get_number(p + 12, 4),
             name_bytes = (uint32_t)trace_get_number(p + 28, 4), flags = (uint32_t)trace_get_number(p + 24, 4);
    t->n_layers = (uint32_t)trace_get_number(p + 16, 4);
    t->n_used = (uint32_t)trace_get_number(p + 20, 4);
    if (version != TRACE_VERSION)
        return DIL_FAIL(err, DIL_UNSUPPORTED, "router log: wanted version %u at byte 8, found %u", TRACE_VERSION, version);
    if (t->n_layers == 0 || t->n_layers > TRACE_MOST_LAYERS || name_bytes > TRACE_MOST_NAME || flags > TRACE_WEIGHTS ||
        bytes != TRACE_HEAD_BYTES + t->n_layers * TRACE_LAYER_BYTES + name_bytes + 4)
        return DIL_FAIL(err, DIL_FORMAT,
                        "router log: wanted 1..%u layers and a header of their size at byte 12, found %u and %u bytes",
                        TRACE_MOST_LAYERS, t->n_layers, bytes);
    if (bytes > in->n)
        return DIL_FAIL(err, DIL_FORMAT, "router log: wanted a header of %u bytes, found a file of %zu", bytes, in->n);
    if (trace_check(TRACE_CHECK_START, p, bytes - 4) != trace_get_number(p + bytes - 4, 4))
        return DIL_FAIL(err, DIL_FORMAT, "router log: wanted the header's check at byte %u, found another", bytes - 4);
    DIL_TRY(read_layers(t, p + TRACE_HEAD_BYTES, err));
    t->name = mem_calloc(1, name_bytes + 1, MEM_FILE);
    if (!t->name)
        return DIL_FAIL(err, DIL_NO_MEMORY, "router log: no memory for its name");
    memcpy(t->name, p + bytes - 4 - name_bytes, name_bytes);
    in->weights = flags & TRACE_WEIGHTS;
    in->at = bytes;
    in->record_bytes = trace_record_bytes(t->layers, t->n_layers, t->n_used, in->weights);
    return DIL_OK;
}

/* ---- records ---- */

static bool distinct(const uint16_t *experts, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++)
        for (uint32_t k = 0; k < i; k++)
            if (experts[i] == experts[k])
                return false;
    return true;
}

/* The experts of one token; false: a number that is no expert's, or one twice. */
static bool unpack(const trace *t, const uint8_t *p, uint16_t *out)
{
    uint64_t buffer = 0;
    int held = 0;
    for (uint32_t place = 0; place < t->n_places; place++, out += t->n_used) {
        uint32_t n_experts = t->layers[t->layer_of[place]].n_experts;
        int bits = trace_bits(n_experts);
        for (uint32_t k = 0; k < t->n_used; k++) {
            for (; held < bits; held += 8)
                buffer |= (uint64_t)*p++ << held;
            out[k] = (uint16_t)(buffer & ((1u << bits) - 1));
            buffer >>= bits;
            held -= bits;
            if (out[k] >= n_experts)
                return false;
        }
        if (!distinct(out, t->n_used))
            return false;
    }
    return true;
}

static dil_status read_record(trace *t, const input *in, dil_error *err)
{
    const uint8_t *p = in->p + in->at;
    size_t n = in->record_bytes, per_token = (size_t)t->n_places * t->n_used;
    if (trace_record_check(t->n_tokens, p, n - 4) != trace_get_number(p + n - 4, 4) || p[0] > TRACE_BEGINS_PASS)
        return DIL_FAIL(err, DIL_FORMAT, "router log: wanted the check of token %llu's record at byte %zu, found another",
                        (unsigned long long)t->n_tokens, in->at);
    if (!unpack(t, p + 1, t->chosen + t->n_tokens * per_token))
        return DIL_FAIL(err, DIL_FORMAT,
                        "router log: wanted different experts of their layers in the record at byte %zu, found others", in->at);
    if (in->weights)
        memcpy(t->weights + t->n_tokens * per_token, p + n - 4 - per_token, per_token);
    t->begins[t->n_tokens++] = p[0] == TRACE_BEGINS_PASS;
    return DIL_OK;
}

static bool is_end(const trace *t, const input *in)
{
    const uint8_t *p = in->p + in->at;
    return in->n - in->at == TRACE_END_BYTES && p[0] == TRACE_END && trace_get_number(p + 1, 8) == t->n_tokens &&
           trace_check(TRACE_CHECK_START, p, 9) == trace_get_number(p + 9, 4);
}

static dil_status read_records(trace *t, input *in, dil_error *err)
{
    size_t most = (in->n - in->at) / in->record_bytes, per_token = (size_t)t->n_places * t->n_used, numbers;
    if (!checked_mul_size(most, per_token, &numbers) || numbers > SIZE_MAX / 4)
        return DIL_FAIL(err, DIL_LIMIT, "router log: wanted fewer than %zu tokens", most);
    t->chosen = mem_calloc(numbers, sizeof *t->chosen, MEM_FILE);
    t->begins = mem_calloc(most, 1, MEM_FILE);
    t->weights = in->weights ? mem_calloc(numbers, 1, MEM_FILE) : NULL;
    if (!t->chosen || !t->begins || (in->weights && !t->weights))
        return DIL_FAIL(err, DIL_NO_MEMORY, "router log: no memory for %zu tokens", most);
    while (in->at < in->n && !(t->finished = is_end(t, in))) {
        size_t left = in->n - in->at;
        if (left < in->record_bytes || (in->p[in->at] == TRACE_END && left < TRACE_END_BYTES)) {
            t->ignored_bytes = left;
            break;
        }
        DIL_TRY(read_record(t, in, err));
        in->at += in->record_bytes;
    }
    return DIL_OK;
}

dil_status trace_parse(trace **out, const void *bytes, size_t n, dil_error *err)
{
    input in = {.p = bytes, .n = n};
    trace *t = mem_calloc(1, sizeof *t, MEM_FILE);
    if (!t)
        return DIL_FAIL(err, DIL_NO_MEMORY, "router log: no memory");
    dil_status status = read_header(t, &in, err);
    if (status == DIL_OK)
        status = read_records(t, &in, err);
    if (status == DIL_OK)
        *out = t;
    else
        trace_free(t);
    return status;
}

dil_status trace_open(trace **out, const char *path, dil_error *err)
{
    char *bytes;
    size_t n;
    DIL_TRY(os_read_all(path, MOST_FILE_BYTES, &bytes, &n, err));
    dil_status status = trace_parse(out, bytes, n, err);
    mem_free(bytes);
    return status == DIL_OK ? DIL_OK : status_prefix(err, "%s: ", path);
}

void trace_free(trace *t)
{
    if (!t)
        return;
    mem_free(t->name);
    mem_free(t->layers);
    mem_free(t->layer_of);
    mem_free(t->chosen);
    mem_free(t->weights);
    mem_free(t->begins);
    mem_free(t);
}
