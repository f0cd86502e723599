/*
 * links: formats
 * Decodes blocks of any bytes in every format, and encodes any floats (NaN and infinity too), with
 * and without importances; what was encoded must decode. First byte: the format; second: bit 0
 * encodes, bit 1 gives importances.
 */
#include <stdlib.h>
#include <string.h>

#include "formats/formats.h"

#define MAX_VALUES 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void decode(const format *f, const uint8_t *data, size_t size)
{
    size_t blocks = size / f->block_bytes, most = MAX_VALUES / f->block_values;
    blocks = blocks < most ? blocks : most;
    uint8_t *in = malloc(blocks * f->block_bytes + 1); /* exact sizes, so that the sanitizers see one byte too many */
    float *out = malloc(blocks * f->block_values * sizeof *out + 1);
    if (in && out && blocks > 0) {
        memcpy(in, data, blocks * f->block_bytes);
        f->decode(in, out, blocks * f->block_values);
    }
    free(in);
    free(out);
}

/* Importances are promised to be finite and not negative. */
static void make_importance(float *w, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!(w[i] >= 0 && w[i] < 1e30f))
            w[i] = (float)(i % 7);
}

static void encode(const format *f, const uint8_t *data, size_t size, bool weighted)
{
    size_t n = size / sizeof(float) / (weighted ? 2 : 1) / f->block_values * f->block_values;
    n = n < MAX_VALUES ? n : MAX_VALUES / f->block_values * f->block_values;
    size_t bytes = n / f->block_values * f->block_bytes;
    float *in = malloc(n * sizeof *in + 1), *weights = malloc(n * sizeof *weights + 1);
    uint8_t *out = malloc(bytes + 1);
    if (in && weights && out && n > 0) {
        memcpy(in, data, n * sizeof *in);
        if (weighted)
            memcpy(weights, data + n * sizeof *in, n * sizeof *weights);
        make_importance(weights, weighted ? n : 0);
        f->encode(in, out, n, weighted ? weights : NULL);
        decode(f, out, bytes);
    }
    free(in);
    free(weights);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    const format *f = format_get((dil_type)(data[0] % DIL_TYPE_COUNT));
    if (!f || f->block_values == 0 || f->block_values > MAX_VALUES)
        return 0;
    if (!(data[1] & 1) && f->decode)
        decode(f, data + 2, size - 2);
    if ((data[1] & 1) && f->encode)
        encode(f, data + 2, size - 2, data[1] & 2);
    return 0;
}
