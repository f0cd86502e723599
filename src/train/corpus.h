/*
 * Texts for training: files (plain or .zst) cut into a training and a held-out part, tokenised once into a cache, and batches
 * drawn from them by (seed, step) alone, so that a run can stop and go on anywhere.
 */
#ifndef TRAIN_CORPUS_H
#define TRAIN_CORPUS_H

#include "base/str.h"
#include "dilmodeli.h"
#include "tokens/vocab.h"

#define CORPUS_MOST_SOURCES 16

typedef struct corpus_source {
    char name[32]; /* "en"; letters, digits, '-' and '_': its tokens lie in tokens-<name>.bin; names differ */
    char path[1024];
    double weight;   /* share of the sequences of a batch, any scale; > 0 */
    double held_out; /* share of the file's end kept for evaluation, cut at a line's end; 0 .. 0.5 */
} corpus_source;

/* Names, weights and shares as promised above; corpus_open looks too. BAD_ARGUMENT names the source. */
DIL_MUST_CHECK dil_status corpus_check_sources(const corpus_source *sources, int n, dil_error *err);

/*
 * Documents are separated by the mark <|endoftext|>, which with the line ends around it becomes the vocabulary's end token; other
 * control tokens written in a text are plain text.
 */

/* The text of a source: whole file, decompressed, checked to be UTF-8. n_train: bytes before the held-out part. [owned: mem_free(*text)] */
DIL_MUST_CHECK dil_status corpus_read(const corpus_source *source, char **text, size_t *n, size_t *n_train, dil_error *err);

typedef struct corpus corpus;

/*
 * Tokenises what the cache in `directory` (made if missing) does not have yet (keyed by the source's size, time and held_out, and
 * by the vocabulary), on n_threads threads, with progress. Training and held-out part each begin and end with the end token.
 * Vocabularies of more than 65536 tokens or without an end token: UNSUPPORTED. A training part of less than context + 1 tokens:
 * BAD_ARGUMENT. v is borrowed during the call only. [owned: free with corpus_free]
 */
typedef struct corpus_options {
    const corpus_source *sources;
    int n_sources;
    const vocab *v;
    const char *directory;
    int context; /* tokens of a training sequence */
    uint64_t seed;
    int n_threads;
    dil_progress_fn progress; /* may be NULL */
    void *user;
} corpus_options;
DIL_MUST_CHECK dil_status corpus_open(corpus **out, const corpus_options *o, dil_error *err);
void corpus_free(corpus *c);

/*
 * Sequences of step `step`: tokens [n_sequences][context + 1] (the last is only a target), from [n_sequences]: source of each,
 * may be NULL. Sources take turns by weight, in one fixed order of 65536 turns with every share spread evenly. Within a source
 * the training part is cut into pieces of context tokens, for each pass from another start on and visited in another order: none
 * comes again before all have come. Depends on seed and step * n_sequences only.
 */
void corpus_batch(const corpus *c, uint64_t step, int n_sequences, int32_t *tokens, int *from);

/* Of every token of every source, in their order; never 0. Runs with the same see the same texts. */
uint32_t corpus_fingerprint(const corpus *c);

/* A part of a source: its tokens, and how many bytes of text they are, without the marks between documents. */
typedef struct corpus_part {
    const uint16_t *tokens; /* borrowed */
    size_t n, n_bytes;
} corpus_part;
/* held_out 0: no tokens. */
corpus_part corpus_held_out(const corpus *c, int source);
corpus_part corpus_training(const corpus *c, int source);

#endif
