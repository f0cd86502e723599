#include "compute/kv.h"

#include <string.h>

#include "base/checked.h"
#include "base/mem.h"
#include "base/status.h"

struct kv_pool {
    dil_type type_k, type_v;
    uint32_t n_layer, n_head_kv;
    int32_t n_pages, n_free;
    size_t k_bytes, v_bytes; /* of one head's page */
    size_t layer_page_bytes; /* of one page in one layer */
    uint8_t *region;
    size_t region_bytes;
    int32_t *free_list;  /* [n_pages], the first n_free are free */
    int32_t *references; /* [n_pages] */
};

size_t kv_bytes_per_page(const hparams *h, dil_type type_k, dil_type type_v)
{
    size_t k = kv_page_bytes(type_k, (int)h->head_dim), v = kv_page_bytes(type_v, (int)h->head_dim_v);
    return k && v ? (k + v) * h->n_head_kv * h->n_layer : 0;
}

dil_status kv_pool_new(kv_pool **out, const hparams *h, dil_type type_k, dil_type type_v, int32_t n_pages, dil_error *err)
{
    size_t page = kv_bytes_per_page(h, type_k, type_v), total;
    if (page == 0)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "kv cache: wanted types f32, f16, bf16, q8_0 or q4_0, found type numbers %d and %d",
                        (int)type_k, (int)type_v);
    if (n_pages < 1 || !checked_mul_size(page, (size_t)n_pages, &total))
        return DIL_FAIL(err, DIL_LIMIT, "kv cache: %d pages of %zu bytes are too many", n_pages, page);
    kv_pool *p = mem_calloc(1, sizeof *p, MEM_KV);
    if (!p)
        return DIL_FAIL(err, DIL_NO_MEMORY, "kv cache: no memory");
    p->type_k = type_k;
    p->type_v = type_v;
    p->n_layer = h->n_layer;
    p->n_head_kv = h->n_head_kv;
    p->n_pages = p->n_free = n_pages;
    p->k_bytes = kv_page_bytes(type_k, (int)h->head_dim);
    p->v_bytes = kv_page_bytes(type_v, (int)h->head_dim_v);
    p->layer_page_bytes = page / h->n_layer;
    p->region_bytes = total;
    p->region = mem_map(total, MEM_KV);
    p->free_list = mem_alloc((size_t)n_pages * sizeof *p->free_list, MEM_KV);
    p->references = mem_calloc((size_t)n_pages, sizeof *p->references, MEM_KV);
    if (!p->region || !p->free_list || !p->references) {
        kv_pool_free(p);
        return DIL_FAIL(err, DIL_NO_MEMORY, "kv cache: no memory for %zu bytes; a smaller context (-c) needs less", total);
    }
    for (int32_t i = 0; i < n_pages; i++)
        p->free_list[i] = n_pages - 1 - i; /* page 0 is handed out first */
    *out = p;
    return DIL_OK;
}

void kv_pool_free(kv_pool *p)
{
    if (!p)
        return;
    mem_unmap(p->region, p->region_bytes, MEM_KV);
    mem_free(p->free_list);
    mem_free(p->references);
    mem_free(p);
}

int32_t kv_pool_free_pages(const kv_pool *p) { return p->n_free; }
size_t kv_pool_bytes(const kv_pool *p) { return p->region_bytes; }
dil_type kv_type_k(const kv_pool *p) { return p->type_k; }
dil_type kv_type_v(const kv_pool *p) { return p->type_v; }
bool kv_turned(dil_type type) { return type == DIL_TYPE_Q8_0 || type == DIL_TYPE_Q4_0; }

static uint8_t *layer_page(const kv_pool *p, uint32_t layer, int32_t page)
{
    return p->region + ((size_t)layer * (size_t)p->n_pages + (size_t)page) * p->layer_page_bytes;
}

void *kv_k(const kv_pool *p, uint32_t layer, int32_t page, uint32_t head) { return layer_page(p, layer, page) + head * p->k_bytes; }

void *kv_v(const kv_pool *p, uint32_t layer, int32_t page, uint32_t head)
{
    return layer_page(p, layer, page) + p->n_head_kv * p->k_bytes + head * p->v_bytes;
}

static int32_t take_page(kv_pool *p)
{
    int32_t page = p->free_list[--p->n_free];
    p->references[page] = 1;
    return page;
}

static void release_page(kv_pool *p, int32_t page)
{
    if (--p->references[page] == 0)
        p->free_list[p->n_free++] = page;
}

dil_status kv_seq_init(kv_seq *s, kv_pool *p, int32_t max_tokens, dil_error *err)
{
    int32_t max_pages = (max_tokens + KV_PAGE - 1) / KV_PAGE;
    int32_t *pages = mem_alloc((size_t)max_pages * sizeof *pages, MEM_KV);
    if (!pages)
        return DIL_FAIL(err, DIL_NO_MEMORY, "session: no memory for its page list");
    *s = (kv_seq){.pool = p, .pages = pages, .max_pages = max_pages};
    return DIL_OK;
}

void kv_seq_free(kv_seq *s)
{
    if (!s->pages)
        return;
    kv_seq_truncate(s, 0);
    mem_free(s->pages);
    s->pages = NULL;
}

dil_status kv_seq_reserve(kv_seq *s, int32_t n, dil_error *err)
{
    kv_pool *p = s->pool;
    if (n > s->max_pages * KV_PAGE - s->n_tokens)
        return DIL_FAIL(err, DIL_LIMIT, "context: wanted room for %lld tokens, it holds %d; use a larger context (-c)",
                        (long long)s->n_tokens + n, s->max_pages * KV_PAGE);
    int32_t need = (s->n_tokens + n + KV_PAGE - 1) / KV_PAGE - s->n_pages;
    bool partial = s->n_tokens % KV_PAGE != 0;
    bool copy = n > 0 && partial && p->references[s->pages[s->n_tokens / KV_PAGE]] > 1;
    if (need + copy > p->n_free)
        return DIL_FAIL(err, DIL_NO_MEMORY,
                        "kv cache: wanted %d pages of %d tokens, %d are free; close sessions or use a larger context", need + copy,
                        KV_PAGE, p->n_free);
    if (copy) {
        int32_t *slot = &s->pages[s->n_tokens / KV_PAGE], fresh = take_page(p);
        for (uint32_t layer = 0; layer < p->n_layer; layer++)
            memcpy(layer_page(p, layer, fresh), layer_page(p, layer, *slot), p->layer_page_bytes);
        release_page(p, *slot);
        *slot = fresh;
    }
    for (; need > 0; need--)
        s->pages[s->n_pages++] = take_page(p);
    return DIL_OK;
}

void kv_seq_truncate(kv_seq *s, int32_t n_tokens)
{
    int32_t keep = (n_tokens + KV_PAGE - 1) / KV_PAGE;
    while (s->n_pages > keep)
        release_page(s->pool, s->pages[--s->n_pages]);
    if (s->n_tokens > n_tokens)
        s->n_tokens = n_tokens;
}

void kv_seq_share(kv_seq *s, const kv_seq *from, int32_t n_tokens)
{
    int32_t n_pages = (n_tokens + KV_PAGE - 1) / KV_PAGE;
    kv_seq_truncate(s, 0);
    for (int32_t i = 0; i < n_pages; i++) {
        s->pages[i] = from->pages[i];
        s->pool->references[s->pages[i]]++;
    }
    s->n_pages = n_pages;
    s->n_tokens = n_tokens;
}
