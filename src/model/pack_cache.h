/*
 * Packed weights on disk, mapped on the next start: $XDG_CACHE_HOME/dilmodeli/packed/<device and inode>.pack, safe to delete at any
 * time. A file serves only the model it was made from, in the layout this build packs; anything else about it that is not as
 * expected makes it worthless and it is written anew. Trouble with the cache never keeps a model from loading.
 *
 *     0        head: magic, version, key, sizes, checksum of the head and the table
 *     4096     table: one 64-bit checksum (XXH3, seeded with the number of the chunk) per chunk of the region
 *     2 MiB    the region, as model.h lays it out
 *     after it one 64-bit checksum (XXH3) per expert, of models that have some: they can be read one by one
 *
 * Readers hold a shared lock, writers an exclusive one on their temporary file; both end with their process.
 * Private to the model module.
 */
#ifndef MODEL_PACK_CACHE_H
#define MODEL_PACK_CACHE_H

#include "model/model.h"

#define PACK_CACHE_VERSION 2u /* of this file's own layout; layouts of panels are part of the key by themselves */
#define PACK_CACHE_REGION ((size_t)2 << 20)
#define PACK_CACHE_TABLE 4096u

/* What a cache file is good for. Two files differ in it when a part of the model is another file, has another size, time of change
 * or header, when the weights lie elsewhere in the region, or when panels of a type are packed differently. */
typedef struct pack_key {
    uint64_t word[2];
} pack_key;
DIL_MUST_CHECK dil_status pack_cache_key(pack_key *out, const model *m, dil_error *err);
/* Checksum of a known matrix packed as type, whole and ragged panels: it changes when the layout does. */
uint64_t pack_cache_layout(dil_type type);

/* Checksums of the experts of the file `path`, which is read once: sums [m->n_expert_sums]. */
DIL_MUST_CHECK dil_status pack_expert_sums(const model *m, team *workers, const char *path, uint64_t *sums, dil_error *err);
/* The dense part of an open cache file into memory of ours, each chunk against its checksum (NULL: unchecked): m->packed. */
DIL_MUST_CHECK dil_status pack_read_dense(model *m, const uint64_t *table, dil_error *err);

bool pack_cache_wanted(const model *m, const model_options *options);
/* Sets m->cache, m->cache_file and m->cache_state: maps what is there or packs into a new file and maps that. OK without a mapping
 * when neither can be (m->cache_note says why). Errors are those of packing: the model itself could not be read, CANCELLED. */
DIL_MUST_CHECK dil_status pack_cache_use(model *m, const model_options *options, dil_error *err);

#endif
