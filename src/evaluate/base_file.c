#include "evaluate/base_file.h"

#include <math.h>
#include <string.h>

#include "base/status.h"

dil_status base_read_header(const os_file *f, const char *path, base_header *out, dil_error *err)
{
    char head[BASE_HEADER_BYTES];
    DIL_TRY(os_file_read(f, 0, head, sizeof head, err));
    if (memcmp(head, "_logits_", 8) != 0)
        return DIL_FAIL(err, DIL_FORMAT,
                        "%s: wanted a base file of log-probabilities (starts with '_logits_'), found something else", path);
    memcpy(&out->context, head + 8, 4);
    memcpy(&out->n_vocab, head + 12, 4);
    memcpy(&out->n_chunks, head + 16, 4);
    if (out->context < 4 || out->context > 1u << 20 || out->n_vocab < 1 || out->n_vocab > 1 << 24 || out->n_chunks < 1)
        return DIL_FAIL(err, DIL_FORMAT, "%s: byte 8: context %u, vocabulary %d, chunks %d are out of range", path, out->context,
                        out->n_vocab, out->n_chunks);
    uint64_t scored = out->context - 1 - out->context / 2;
    uint64_t chunk_bytes = 4ull * out->context + scored * base_row_words(out->n_vocab) * 2;
    if ((uint64_t)out->n_chunks > (f->size_bytes - BASE_HEADER_BYTES) / chunk_bytes)
        return DIL_FAIL(err, DIL_FORMAT, "%s: wanted %d chunks of %llu bytes, the file has %llu bytes: it was cut off", path,
                        out->n_chunks, (unsigned long long)chunk_bytes, (unsigned long long)f->size_bytes);
    return DIL_OK;
}

double base_encode(const kernels *k, const float *logits, int32_t n_vocab, token_id id, uint16_t *row)
{
    float top, least = logits[0];
    double log_sum;
    double log_p = evaluate_log_probability(k, logits, n_vocab, id, &top, &log_sum);
    for (int32_t i = 1; i < n_vocab; i++)
        least = logits[i] < least ? logits[i] : least;
    least = least > top - 16.0f ? least : top - 16.0f;
    float head[2] = {(top - least) / 65535.0f, (float)((double)(least - top) - log_sum)};
    memcpy(row, head, sizeof head);
    float inverse = head[0] > 0.0f ? 1.0f / head[0] : 0.0f;
    for (int32_t i = 0; i < n_vocab; i++) {
        float code = rintf((logits[i] - least) * inverse);
        row[4 + i] = !(code > 0.0f) ? 0 : code > 65535.0f ? 65535 : (uint16_t)code;
    }
    return -log_p;
}
