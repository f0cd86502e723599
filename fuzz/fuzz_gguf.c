/*
 * links: file
 * A GGUF file of any bytes: opening, every getter, every tensor, and the full check, from a block
 * of exactly that size. Opening and checking must agree, and nothing may be held afterwards.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file/gguf_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t used;

static void read_value(const gguf *g, const gguf_value *v)
{
    char key[300];
    dil_error err;
    uint32_t u = 0;
    uint64_t w = 0, n = 0;
    int32_t d = 0;
    float f = 0;
    bool b = false;
    str s = {0};
    const str *texts = NULL;
    const float *floats = NULL;
    const int32_t *ints = NULL;
    if (v->key.n >= sizeof key)
        return;
    memcpy(key, v->key.p, v->key.n);
    key[v->key.n] = '\0';
    used += (uint64_t)gguf_get_u32(g, key, &u, &err) + u + (uint64_t)gguf_get_u64(g, key, &w, &err);
    used += w + (uint64_t)gguf_get_i32(g, key, &d, &err) + (uint64_t)(d < 0);
    used += (uint64_t)gguf_get_f32(g, key, &f, &err) + (f > 0);
    used += (uint64_t)gguf_get_bool(g, key, &b, &err) + b;
    if (gguf_get_str(g, key, &s, &err) == DIL_OK && s.n > 0)
        used += (uint8_t)s.p[0] + (uint8_t)s.p[s.n - 1];
    if (gguf_get_strings(g, key, &texts, &n, &err) == DIL_OK)
        for (uint64_t i = 0; i < n; i++)
            used += texts[i].n > 0 ? (uint8_t)texts[i].p[texts[i].n - 1] : 0;
    if (gguf_get_f32_array(g, key, &floats, &n, &err) == DIL_OK)
        for (uint64_t i = 0; i < n; i++)
            used += floats[i] > 0;
    if (gguf_get_i32_array(g, key, &ints, &n, &err) == DIL_OK)
        for (uint64_t i = 0; i < n; i++)
            used += (uint32_t)ints[i];
}

static void read_tensor(const gguf_tensor *t)
{
    const uint8_t *p = t->data;
    for (uint64_t i = 0; i < t->size_bytes; i++)
        used += p[i];
    if (t->size_bytes == 0 || t->n_dims < 1 || t->n_dims > GGUF_MAX_DIMS)
        abort();
}

static void count(void *ctx, uint64_t offset, const char *text)
{
    (void)offset;
    *(int *)ctx += strlen(text) > 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dil_error err = {0};
    gguf *g = NULL;
    int defects = 0;
    size_t held = mem_bytes(MEM_FILE);
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        return 0;
    if (size > 0)
        memcpy(copy, data, size);
    dil_status opened = gguf_open_memory(&g, copy, size, NULL, &err);
    if (opened == DIL_OK) {
        for (uint64_t i = 0; i < gguf_n_values(g); i++)
            read_value(g, gguf_value_at(g, i));
        for (uint64_t i = 0; i < gguf_n_tensors(g); i++)
            read_tensor(gguf_tensor_at(g, i));
        gguf_close(g);
    } else if (!strstr(err.text, "byte offset ")) {
        abort();
    }
    dil_status checked = gguf_check_memory(copy, size, count, &defects, &err);
    if ((checked == DIL_OK) != (defects == 0) || (opened != DIL_OK && checked == DIL_OK) || mem_bytes(MEM_FILE) != held)
        abort();
    free(copy);
    return 0;
}
