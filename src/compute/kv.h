/*
 * The KV cache: a pool of pages of KV_PAGE tokens, shared by all sequences, reference-counted and copied on write. A page
 * number stands for that page in every layer. A sequence is a list of page numbers; page i holds positions
 * [i * KV_PAGE, (i + 1) * KV_PAGE).
 *
 *   region = [layer][page][ K of head 0 | K of head 1 | ... | V of head 0 | ... ]     layouts of a head's page: kernels.h
 */
#ifndef COMPUTE_KV_H
#define COMPUTE_KV_H

#include "model/hparams.h"

typedef struct kv_pool kv_pool;

typedef struct kv_seq {
    kv_pool *pool;
    int32_t *pages; /* [max_pages] */
    int32_t n_pages, max_pages;
    int32_t n_tokens; /* positions 0..n_tokens-1 are stored */
} kv_seq;

/* Bytes of one page over all layers. 0: the type cannot be used. */
size_t kv_bytes_per_page(const hparams *h, dil_type type_k, dil_type type_v);

/* n_pages pages (memory is taken from the system as pages are first written). [owned: free with kv_pool_free] */
DIL_MUST_CHECK dil_status kv_pool_new(kv_pool **out, const hparams *h, dil_type type_k, dil_type type_v, int32_t n_pages,
                                      dil_error *err);
void kv_pool_free(kv_pool *p);
int32_t kv_pool_free_pages(const kv_pool *p);
size_t kv_pool_bytes(const kv_pool *p);

/* An empty sequence of at most max_tokens. */
DIL_MUST_CHECK dil_status kv_seq_init(kv_seq *s, kv_pool *p, int32_t max_tokens, dil_error *err);
void kv_seq_free(kv_seq *s);
/* Makes positions n_tokens..n_tokens+n-1 writable: new pages, and a private copy of a shared partial page. LIMIT names the
 * context, NO_MEMORY the pool; nothing has changed then. */
DIL_MUST_CHECK dil_status kv_seq_reserve(kv_seq *s, int32_t n, dil_error *err);
void kv_seq_truncate(kv_seq *s, int32_t n_tokens); /* forgets positions from n_tokens on */
/* s (made empty first) shares the first n_tokens of from. */
void kv_seq_share(kv_seq *s, const kv_seq *from, int32_t n_tokens);

void *kv_k(const kv_pool *p, uint32_t layer, int32_t page, uint32_t head);
void *kv_v(const kv_pool *p, uint32_t layer, int32_t page, uint32_t head);
dil_type kv_type_k(const kv_pool *p);
dil_type kv_type_v(const kv_pool *p);
/* Whether keys and values of this type are stored turned by kernels.hadamard: outliers spread over their block before a few levels
 * are laid over it. Products with keys stay what they were when queries are turned, too; sums of values are turned back. */
bool kv_turned(dil_type type);

#endif
