/*
 * A source as tokens in a file of the run's directory: made once, used as long as the source and the vocabulary are the same.
 * Internal to corpus.
 */
#ifndef TRAIN_CORPUS_TOKENS_H
#define TRAIN_CORPUS_TOKENS_H

#include "base/os.h"
#include "base/threads.h"
#include "train/corpus.h"

/* What decides whether a file may be used. */
typedef struct corpus_key {
    uint64_t source_bytes;
    int64_t source_mtime_ns;
    double held_out;
    uint64_t vocab_hash;
} corpus_key;

typedef struct corpus_tokens {
    os_mapping mapping;
    corpus_part training, held_out;
    uint64_t ids_hash; /* of both */
} corpus_tokens;

/* Over the table and, for what it does not show (merges, pre-tokeniser), over how a sample text is encoded. */
DIL_MUST_CHECK dil_status corpus_vocab_hash(uint64_t *out, const vocab *v, dil_error *err);

/* FORMAT or IO: there is none, it is damaged, it has another key, or tokens that are none of n_vocab. [owned: corpus_tokens_close] */
DIL_MUST_CHECK dil_status corpus_tokens_open(corpus_tokens *out, const char *path, const corpus_key *key, int n_vocab,
                                             dil_error *err);
void corpus_tokens_close(corpus_tokens *t);

/* Reads and tokenises a source into a new file at path. The source has changed since key was made: IO. */
DIL_MUST_CHECK dil_status corpus_tokens_write(const char *path, const corpus_key *key, const corpus_source *source, const vocab *v,
                                              team *workers, dil_progress_fn progress, void *user, dil_error *err);

#endif
