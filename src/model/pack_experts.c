/* The parts of a cache file of packed weights that are read by themselves: single experts, and all the rest without them. */
#include <string.h>
#include <xxhash.h>

#include "base/checked.h"
#include "base/os.h"
#include "base/status.h"
#include "model/pack.h"
#include "model/pack_cache.h"
#include "model/weights.h"

static size_t expert_bytes(const expert_weights *x)
{
    return x->down.packed_offset + weight_bytes(&x->down) - x->gate.packed_offset;
}

/* Layers with experts before this one. */
static size_t expert_layers_before(const model *m, uint32_t layer_index)
{
    size_t n = 0;
    for (uint32_t i = 0; i < layer_index; i++)
        n += m->layers[i].moe != NULL;
    return n;
}

expert_place model_expert_place(const model *m, uint32_t layer_index)
{
    const expert_layer *e = m->layers[layer_index].moe;
    uint32_t n = m->h.experts.n_experts;
    if (!e)
        return (expert_place){0};
    size_t first = e->experts[0].gate.packed_offset, bytes = expert_bytes(&e->experts[0]);
    return (expert_place){.offset = PACK_CACHE_REGION + first,
                          .stride = n > 1 ? e->experts[1].gate.packed_offset - first : round_up_size(bytes, EXPERT_ALIGN),
                          .bytes = bytes,
                          .sums = m->expert_sums ? m->expert_sums + expert_layers_before(m, layer_index) * n : NULL};
}

typedef struct sums_job {
    const model *m;
    team *workers;
    os_file file;
    uint8_t *buffers; /* [workers][most_bytes] */
    size_t most_bytes;
    uint64_t *sums;
    dil_status status[TEAM_MAX];
    dil_error errors[TEAM_MAX];
} sums_job;

static dil_status sum_expert(sums_job *job, size_t i, uint8_t *buffer, dil_error *err)
{
    const model *m = job->m;
    size_t n = m->h.experts.n_experts, before = i / n;
    uint32_t layer_index = 0;
    while (!m->layers[layer_index].moe || before-- > 0)
        layer_index++;
    expert_place at = model_expert_place(m, layer_index);
    DIL_TRY(os_file_read(&job->file, at.offset + i % n * at.stride, buffer, at.bytes, err));
    job->sums[i] = XXH3_64bits(buffer, at.bytes);
    return DIL_OK;
}

static void sums_worker(void *ctx, int worker)
{
    sums_job *job = ctx;
    dil_status status = DIL_OK;
    for (size_t i; status == DIL_OK && (i = team_claim(job->workers)) < job->m->n_expert_sums;)
        status = sum_expert(job, i, job->buffers + (size_t)worker * job->most_bytes, &job->errors[worker]);
    job->status[worker] = status;
}

static dil_status run_sums(sums_job *job, dil_error *err)
{
    team_run(job->workers, sums_worker, job);
    for (int i = 0; i < team_size(job->workers); i++)
        if (job->status[i] != DIL_OK) {
            if (err)
                *err = job->errors[i];
            return job->status[i];
        }
    return DIL_OK;
}

dil_status pack_expert_sums(const model *m, team *workers, const char *path, uint64_t *sums, dil_error *err)
{
    if (m->n_expert_sums == 0)
        return DIL_OK;
    sums_job *job = mem_calloc(1, sizeof *job, MEM_MISC);
    if (!job)
        return DIL_FAIL(err, DIL_NO_MEMORY, "packed weights: no memory for their checksums");
    job->m = m;
    job->workers = workers;
    job->sums = sums;
    for (uint32_t i = 0; i < m->h.n_layer; i++) {
        size_t bytes = model_expert_place(m, i).bytes;
        job->most_bytes = bytes > job->most_bytes ? bytes : job->most_bytes;
    }
    size_t total = (size_t)team_size(workers) * job->most_bytes;
    job->buffers = mem_map(total, MEM_MISC);
    dil_status status = job->buffers ? os_file_open(&job->file, path, err)
                                     : DIL_FAIL(err, DIL_NO_MEMORY, "packed weights: no memory to read experts");
    if (status == DIL_OK) {
        status = run_sums(job, err);
        os_file_close(&job->file);
    }
    if (job->buffers)
        mem_unmap(job->buffers, total, MEM_MISC);
    mem_free(job);
    return status;
}

dil_status pack_read_dense(model *m, const uint64_t *table, dil_error *err)
{
    size_t chunk = pack_chunk_bytes(m), bytes = round_up_size(m->dense_bytes, chunk);
    bytes = bytes < m->packed_bytes ? bytes : m->packed_bytes; /* whole chunks: their checksums are known */
    uint8_t *region = mem_map(bytes, MEM_PACKED);
    if (!region)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for %zu bytes of packed weights", gguf_path(m->file), bytes);
    os_advise_huge(region, bytes);
    m->packed = region; /* pack_free undoes it */
    m->resident_bytes = bytes;
    for (size_t from = 0; from < bytes; from += chunk) {
        size_t n = bytes - from < chunk ? bytes - from : chunk;
        DIL_TRY(os_file_read(&m->cache_file, PACK_CACHE_REGION + from, region + from, n, err));
        if (table && XXH3_64bits_withSeed(region + from, n, from / chunk) != table[from / chunk])
            return DIL_FAIL(err, DIL_FORMAT, "packed weights: wanted the checksums that were written with them, found others");
    }
    return DIL_OK;
}
