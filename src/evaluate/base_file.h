/*
 * The base file of divergence measurements, llama-perplexity's layout:
 *   "_logits_"  u32 context  i32 n_vocab  i32 n_chunks  i32 tokens[n_chunks * context]
 *   per scored position (context - 1 - context/2 per chunk): f32 scale, f32 least log-probability, u16 [n_vocab rounded up to
 *   even]: log-probability = scale * code + least; values more than 16 below the top are cut there.
 */
#ifndef EVALUATE_BASE_FILE_H
#define EVALUATE_BASE_FILE_H

#include "base/os.h"
#include "evaluate/evaluate.h"

typedef struct base_header {
    uint32_t context;
    int32_t n_vocab, n_chunks;
} base_header;

#define BASE_HEADER_BYTES 20

/* u16 words of one position. */
static inline size_t base_row_words(int32_t n_vocab) { return (size_t)((n_vocab + 1) / 2) * 2 + 4; }

DIL_MUST_CHECK dil_status base_read_header(const os_file *f, const char *path, base_header *out, dil_error *err);
/* Encodes one position into row [base_row_words]; returns -ln p(id). */
double base_encode(const kernels *k, const float *logits, int32_t n_vocab, token_id id, uint16_t *row);

#endif
