#include "engine/experts.h"

#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"

dil_status experts_budget(engine_options *o, const engine_plan *p, const char *path, dil_error *err)
{
    bool automatic = o->experts_memory == ENGINE_EXPERTS_AUTO;
    if (o->experts_memory == 0 || (automatic && p->expert_bytes == 0)) {
        o->experts_memory = 0;
        return DIL_OK;
    }
    if (p->expert_bytes == 0)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: wanted a mixture of experts for --experts-memory, found a dense model", path);
    if (!automatic)
        return DIL_OK;
    uint64_t other = p->packed_bytes - p->expert_bytes + p->kv_bytes + p->activation_bytes + p->vocab_bytes;
    o->experts_memory = pool_budget_auto(p->expert_bytes, other);
    if (o->experts_memory == 0) {
        char need[32];
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no room for experts beside %s of other things; a smaller context (-c) needs less",
                        path, str_bytes(other, need, sizeof need));
    }
    if (o->experts_memory >= p->expert_bytes)
        o->experts_memory = 0;
    return DIL_OK;
}

dil_status experts_pool(pool **out, const model *m, const engine_options *o, dil_error *err)
{
    uint32_t n = m->h.n_layer;
    pool_layer *layers = mem_calloc(n, sizeof *layers, MEM_MISC);
    if (!layers)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for its experts' places", gguf_path(m->file));
    for (uint32_t i = 0; i < n; i++) {
        expert_place at = model_expert_place(m, i);
        layers[i] = (pool_layer){at.offset, at.stride, at.bytes, at.bytes ? m->h.experts.n_experts : 0, at.sums};
    }
    pool_options po = {.path = m->cache_path,
                       .identity = {.size_bytes = m->cache_file.size_bytes,
                                    .device = m->cache_file.device,
                                    .inode = m->cache_file.inode},
                       .layers = layers,
                       .n_layers = n,
                       .n_used = m->h.experts.n_used,
                       .budget_bytes = o->experts_memory,
                       .policy = o->experts_policy};
    dil_status status = pool_new(out, &po, err);
    mem_free(layers);
    return status;
}
