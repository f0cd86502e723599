#include "model/pack.h"

#include <stdatomic.h>
#include <string.h>

#include "base/checked.h"
#include "base/os.h"
#include "base/status.h"
#include "model/pack_cache.h"
#include "model/weights.h"

#define HUGE_PAGE ((size_t)2 << 20)
#define LEAST_CHUNK ((size_t)4096)
#define MOST_SMALL_CHUNKS 64

size_t pack_chunk_bytes(const model *m)
{
    size_t bytes = LEAST_CHUNK;
    while (bytes < HUGE_PAGE && bytes * MOST_SMALL_CHUNKS < m->packed_bytes)
        bytes *= 2;
    return bytes;
}

uint32_t pack_n_chunks(const model *m)
{
    size_t chunk = pack_chunk_bytes(m);
    return (uint32_t)((m->packed_bytes + chunk - 1) / chunk);
}

typedef struct pack_job {
    model *m;
    team *workers;
    const model_options *options;
    uint8_t *region;  /* or NULL: */
    uint8_t *buffers; /* one of chunk_bytes per worker */
    uint8_t *panels;  /* one panel per worker: those that lie across a chunk's border are packed here and cut */
    size_t chunk_bytes, most_panel_bytes;
    uint32_t n_chunks;
    pack_sink sink;
    void *ctx;
    _Atomic bool over;    /* a worker failed or the sink had enough */
    _Atomic bool stopped; /* the sink had enough */
    dil_status status[TEAM_MAX];
    dil_error errors[TEAM_MAX];
} pack_job;

/* The part of a weight that lies in [from, to) of the region, whose byte `from` is at dst. */
typedef struct pack_part {
    const weight *w;
    size_t from, to;
    uint8_t *dst, *panel;
    uint32_t first, last; /* panels */
} pack_part;

static void pack_panels(void *ctx)
{
    const pack_part *c = ctx;
    const weight *w = c->w;
    size_t row_bytes = weight_row_bytes(w);
    const uint8_t *rows = (const uint8_t *)w->tensor->data + w->first_row * row_bytes;
    for (uint32_t p = c->first; p < c->last; p++) {
        uint32_t row = p * PANEL_ROWS, left = w->rows - row;
        size_t begin = w->packed_offset + p * w->panel_bytes, end = begin + w->panel_bytes;
        bool whole = begin >= c->from && end <= c->to;
        panel_pack(w->type, rows + row * row_bytes, row_bytes, left < PANEL_ROWS ? (int)left : PANEL_ROWS, w->cols,
                   whole ? c->dst + (begin - c->from) : c->panel);
        if (!whole) {
            size_t a = begin > c->from ? begin : c->from, b = end < c->to ? end : c->to;
            memcpy(c->dst + (a - c->from), c->panel + (a - begin), b - a);
        }
    }
}

/* One weight's part of a chunk, with what lies between it and the next one, which begins at `padded`; drops the file's pages it
 * came from. */
static dil_status pack_one(const pack_part *chunk, const weight *w, size_t padded, dil_error *err)
{
    size_t begin = w->packed_offset, end = begin + weight_bytes(w);
    pack_part c = *chunk;
    c.w = w;
    if (end < c.to && padded > c.from) { /* what lies between two weights is zero */
        size_t a = end > c.from ? end : c.from, b = padded < c.to ? padded : c.to;
        memset(c.dst + (a - c.from), 0, b - a);
    }
    if (end <= c.from || begin >= c.to)
        return DIL_OK;
    c.first = c.from > begin ? (uint32_t)((c.from - begin) / w->panel_bytes) : 0;
    c.last = c.to < end ? (uint32_t)((c.to - begin + w->panel_bytes - 1) / w->panel_bytes) : (uint32_t)w->n_panels;
    size_t row_bytes = weight_row_bytes(w);
    size_t from = (w->first_row + (size_t)c.first * PANEL_ROWS) * row_bytes,
           n = (size_t)(c.last - c.first) * PANEL_ROWS * row_bytes;
    if (n > w->tensor->size_bytes - from)
        n = (size_t)w->tensor->size_bytes - from;
    const uint8_t *source = (const uint8_t *)w->tensor->data + from;
    DIL_TRY(os_guard(pack_panels, &c, source, n, err));
    os_advise_drop(source, n);
    return DIL_OK;
}

/* Where the weights after number i begin. */
static size_t next_offset(const model *m, size_t i)
{
    return i + 1 < m->n_packing ? m->packing[i + 1]->packed_offset : m->packed_bytes;
}

/* The first weight with bytes at or after `offset`, or padding that ends after it. */
static size_t first_weight(const model *m, size_t offset)
{
    size_t low = 0, high = m->n_packing;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (next_offset(m, middle) > offset)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static dil_status pack_chunk(pack_job *job, int worker, uint32_t i, dil_error *err)
{
    size_t from = (size_t)i * job->chunk_bytes, to = from + job->chunk_bytes;
    if (to > job->m->packed_bytes)
        to = job->m->packed_bytes;
    uint8_t *dst = job->region ? job->region + from : job->buffers + (size_t)worker * job->chunk_bytes;
    pack_part chunk = {.from = from, .to = to, .dst = dst, .panel = job->panels + (size_t)worker * job->most_panel_bytes};
    const model *m = job->m;
    for (size_t w = first_weight(m, from); w < m->n_packing && m->packing[w]->packed_offset < to; w++)
        DIL_TRY(pack_one(&chunk, m->packing[w], next_offset(m, w), err));
    if (job->sink && !job->sink(job->ctx, i, dst, to - from)) {
        atomic_store(&job->stopped, true);
        atomic_store(&job->over, true);
    }
    return DIL_OK;
}

/* Tells how many chunks are taken: none before the first is read, all behind the last, and in between whenever the calling thread got one, which on
 * a busy machine may be never. CANCELLED when the caller wants no more. */
static dil_status pack_progress(const pack_job *job, uint32_t done, dil_error *err)
{
    const model_options *o = job->options;
    if (!o->progress || o->progress(o->user, "packing weights", done, job->n_chunks))
        return DIL_OK;
    return DIL_FAIL(err, DIL_CANCELLED, "%s: loading was cancelled", gguf_path(job->m->file));
}

static void pack_worker(void *ctx, int worker)
{
    pack_job *job = ctx;
    dil_status status = DIL_OK;
    dil_error *err = &job->errors[worker];
    for (uint32_t i; status == DIL_OK && !atomic_load(&job->over) && (i = team_claim(job->workers)) < job->n_chunks;) {
        status = pack_chunk(job, worker, i, err);
        if (status == DIL_OK && worker == 0)
            status = pack_progress(job, i + 1, err);
    }
    if (status != DIL_OK)
        atomic_store(&job->over, true);
    job->status[worker] = status;
}

static dil_status run_job(pack_job *job, bool *stopped, dil_error *err)
{
    DIL_TRY(pack_progress(job, 0, err));
    team_run(job->workers, pack_worker, job);
    for (int i = 0; i < team_size(job->workers); i++) {
        if (job->status[i] == DIL_OK)
            continue;
        if (err)
            *err = job->errors[i];
        return job->status[i];
    }
    *stopped = atomic_load(&job->stopped);
    return pack_progress(job, job->n_chunks, err);
}

dil_status pack_chunks(model *m, const model_options *options, uint8_t *region, pack_sink sink, void *ctx, bool *stopped,
                       dil_error *err)
{
    size_t n = (size_t)team_size(options->workers), buffers = 0, panels = 0;
    pack_job *job = mem_calloc(1, sizeof *job, MEM_MISC);
    if (!job)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory to load", gguf_path(m->file));
    job->m = m;
    job->workers = options->workers;
    job->options = options;
    job->region = region;
    job->sink = sink;
    job->ctx = ctx;
    job->chunk_bytes = pack_chunk_bytes(m);
    job->n_chunks = pack_n_chunks(m);
    for (size_t i = 0; i < m->n_packing; i++) {
        size_t bytes = round_up_size(m->packing[i]->panel_bytes, 64);
        job->most_panel_bytes = bytes > job->most_panel_bytes ? bytes : job->most_panel_bytes;
    }
    dil_status status = DIL_OK;
    bool fits = (region || checked_mul_size(n, job->chunk_bytes, &buffers)) &&
                checked_mul_size(n, job->most_panel_bytes, &panels) && checked_add_size(buffers, panels, &panels);
    job->buffers = fits ? mem_map(panels, MEM_PACKED) : NULL;
    if (!job->buffers)
        status = DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory to pack its weights", gguf_path(m->file));
    else
        job->panels = job->buffers + buffers;
    if (status == DIL_OK)
        status = run_job(job, stopped, err);
    if (job->buffers)
        mem_unmap(job->buffers, panels, MEM_PACKED);
    mem_free(job);
    return status;
}

static dil_status pack_into_memory(model *m, const model_options *options, dil_error *err)
{
    bool stopped;
    uint8_t *region = mem_map(m->packed_bytes, MEM_PACKED);
    if (!region)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for %zu bytes of packed weights", gguf_path(m->file), m->packed_bytes);
    os_advise_huge(region, m->packed_bytes);
    m->packed = region;
    m->resident_bytes = m->packed_bytes;
    weights_place(m, region);
    return pack_chunks(m, options, region, NULL, NULL, &stopped, err);
}

/* Experts are read one by one from the file of packed weights; there is none. */
static dil_status no_experts_apart(const model *m, const model_options *options, dil_error *err)
{
    if (options->no_pack_cache)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: experts beyond memory are read from the file of packed weights; leave out %s",
                        gguf_path(m->file), "--no-pack-cache");
    if (m->cache_note.text[0] == '\0')
        return DIL_FAIL(err, DIL_LIMIT, "%s: its packed weights are too large for a file of them", gguf_path(m->file));
    return DIL_FAIL(err, DIL_IO, "%s: experts beyond memory need the file of packed weights: %s", gguf_path(m->file),
                    m->cache_note.text);
}

dil_status pack_weights(model *m, const model_options *options, dil_error *err)
{
    m->cache_state = PACK_CACHE_OFF;
    if (pack_cache_wanted(m, options)) {
        DIL_TRY(pack_cache_use(m, options, err));
        if (m->packed) {
            weights_place(m, m->packed);
            return DIL_OK;
        }
    }
    if (options->experts_apart)
        return no_experts_apart(m, options, err);
    return pack_into_memory(m, options, err);
}

void pack_free(model *m)
{
    if (m->cache.p)
        os_mapping_close(&m->cache);
    else
        mem_unmap((void *)(uintptr_t)m->packed, m->resident_bytes, MEM_PACKED);
    os_file_close(&m->cache_file);
    m->packed = NULL;
}
