#include "model/arch.h"

#include <stdio.h>

#include "base/status.h"

static const arch table[] = {
    {"llama", arch_read_llama, false},
    {"qwen2", arch_read_qwen2, false},
    {"qwen3", arch_read_qwen3, false},
    {"gemma2", arch_read_gemma2, false},
    {"gemma3", arch_read_gemma3, false},
    {"phi3", arch_read_phi3, false},
    {"granite", arch_read_granite, false},
    {"olmo2", arch_read_olmo2, false},
    {"qwen2moe", arch_read_qwen2moe, false},
    {"qwen3moe", arch_read_qwen3moe, false},
    {"olmoe", arch_read_olmoe, false},
    {"granitemoe", arch_read_granitemoe, false},
    {"ernie4_5-moe", arch_read_ernie_moe, false},
    {"gpt-oss", arch_read_gpt_oss, false},
    {"deepseek2", arch_read_deepseek2, false},
    {MODEL_LONE_LAYER, arch_read_lone, true},
};
#define N_ARCHS (sizeof table / sizeof table[0])

const arch *arch_find(str name)
{
    for (size_t i = 0; i < N_ARCHS; i++)
        if (str_equal(name, str_of(table[i].name)))
            return &table[i];
    return NULL;
}

void arch_names(char *out, size_t n)
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < N_ARCHS && used < n; i++) {
        int wrote = snprintf(out + used, n - used, "%s%s", i ? ", " : "", table[i].name);
        used += wrote > 0 ? (size_t)wrote : 0;
    }
}

static dil_status full_key(const hparams *h, const char *key, char *out, size_t n, dil_error *err)
{
    int need = snprintf(out, n, "%.*s.%s", STR_ARG(h->architecture), key);
    if (need < 0 || (size_t)need >= n)
        return DIL_FAIL(err, DIL_LIMIT, "general.architecture: the name is too long");
    return DIL_OK;
}

dil_status arch_u32(const hparams *h, const gguf *g, const char *key, uint32_t *inout, dil_error *err)
{
    char name[256];
    DIL_TRY(full_key(h, key, name, sizeof name, err));
    return gguf_get_u32(g, name, inout, err);
}

dil_status arch_f32(const hparams *h, const gguf *g, const char *key, float *inout, dil_error *err)
{
    char name[256];
    DIL_TRY(full_key(h, key, name, sizeof name, err));
    return gguf_get_f32(g, name, inout, err);
}

dil_status arch_str(const hparams *h, const gguf *g, const char *key, str *inout, dil_error *err)
{
    char name[256];
    DIL_TRY(full_key(h, key, name, sizeof name, err));
    return gguf_get_str(g, name, inout, err);
}

dil_status arch_need_experts(const hparams *h, const gguf *g, dil_error *err)
{
    if (h->experts.n_experts == 0)
        return DIL_FAIL(err, DIL_FORMAT, "%s: %.*s.expert_count: wanted 1..%d, found none", gguf_path(g), STR_ARG(h->architecture),
                        MODEL_MAX_EXPERTS);
    return DIL_OK;
}

dil_status arch_read_window_pattern(hparams *h, const gguf *g, uint32_t pattern, dil_error *err)
{
    char name[256];
    const int32_t *flags;
    uint64_t n;
    DIL_TRY(full_key(h, "attention.sliding_window_pattern", name, sizeof name, err));
    const gguf_value *v = gguf_find(g, name);
    if (!v || v->kind != GGUF_ARRAY) {
        DIL_TRY(gguf_get_u32(g, name, &pattern, err));
        arch_window_pattern(h, pattern);
        return DIL_OK;
    }
    DIL_TRY(gguf_get_i32_array(g, name, &flags, &n, err));
    if (n < h->n_layer)
        return DIL_FAIL(err, DIL_FORMAT, "%s: %s: wanted a flag for each of %u layers, found %llu", gguf_path(g), name, h->n_layer,
                        (unsigned long long)n);
    for (uint32_t i = 0; i < h->n_layer; i++)
        h->windowed[i] = h->window > 0 && flags[i] != 0;
    return DIL_OK;
}

void arch_window_pattern(hparams *h, uint32_t pattern)
{
    for (uint32_t i = 0; i < h->n_layer; i++)
        h->windowed[i] = h->window > 0 && (pattern == 0 || i % pattern < pattern - 1);
}
