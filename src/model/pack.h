/*
 * Filling the packed region: by packing the file's tensors, or from the cache (pack_cache.h), which packing fills on the way. The
 * region is divided into chunks of chunk_bytes; workers claim them. Private to the model module.
 */
#ifndef MODEL_PACK_H
#define MODEL_PACK_H

#include "model/model.h"

/* Sets m->packed, every weight's panels and m->cache_state. */
DIL_MUST_CHECK dil_status pack_weights(model *m, const model_options *options, dil_error *err);
void pack_free(model *m); /* undoes it */

/* Least size of a chunk, a power of two, such that there are at most 64 of them or they are huge pages. */
size_t pack_chunk_bytes(const model *m);
uint32_t pack_n_chunks(const model *m);

/* Takes the packed bytes of chunk i, on any worker; false: stop. */
typedef bool (*pack_sink)(void *ctx, uint32_t i, const uint8_t *bytes, size_t n);

/* Packs chunk by chunk into buffers and hands each to sink; with sink NULL into region, which is then the packed region. *stopped:
 * sink returned false (the status is OK then). */
DIL_MUST_CHECK dil_status pack_chunks(model *m, const model_options *options, uint8_t *region, pack_sink sink, void *ctx,
                                      bool *stopped, dil_error *err);

#endif
