/*
 * Test-only program: codes rows between stdin and stdout.
 *
 *     tool_formats decode TYPE           blocks in, floats out
 *     tool_formats encode TYPE           floats in, blocks out
 *     tool_formats encode-weighted TYPE  n floats then n importances in, blocks out
 *     tool_formats sizes                 lines "NAME number block_values block_bytes decode encode"
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "formats/formats.h"

static int fail(const char *text)
{
    fprintf(stderr, "tool_formats: %s\n", text);
    return 2;
}

static int print_sizes(void)
{
    for (int i = 0; i < DIL_TYPE_COUNT; i++) {
        const format *f = format_get((dil_type)i);
        if (f)
            printf("%s %d %u %u %d %d\n", f->name, i, f->block_values, f->block_bytes, f->decode != NULL, f->encode != NULL);
    }
    return 0;
}

static int decode(const format *f, const char *in, size_t size)
{
    if (!f->decode || size % f->block_bytes != 0)
        return fail("no decoder, or not whole blocks");
    size_t n = size / f->block_bytes * f->block_values;
    float *out = mem_alloc(n * sizeof *out, MEM_MISC);
    if (!out)
        return fail("out of memory");
    f->decode(in, out, n);
    bool written = fwrite(out, sizeof *out, n, stdout) == n;
    mem_free(out);
    return written ? 0 : fail("cannot write");
}

static int encode(const format *f, const char *in, size_t size, bool weighted)
{
    size_t n = size / sizeof(float) / (weighted ? 2 : 1);
    if (!f->encode || n % f->block_values != 0)
        return fail("no encoder, or not whole blocks");
    size_t out_size = n / f->block_values * f->block_bytes;
    uint8_t *out = mem_alloc(out_size, MEM_MISC);
    if (!out)
        return fail("out of memory");
    const float *x = (const float *)(const void *)in; /* mem_alloc'ed: aligned */
    f->encode(x, out, n, weighted ? x + n : NULL);
    bool written = fwrite(out, 1, out_size, stdout) == out_size;
    mem_free(out);
    return written ? 0 : fail("cannot write");
}

int main(int argc, char **argv)
{
    char *in;
    size_t size;
    dil_type type;
    dil_error err;
    if (argc == 2 && strcmp(argv[1], "sizes") == 0)
        return print_sizes();
    if (argc != 3 || !format_find(argv[2], &type))
        return fail("usage: tool_formats decode|encode|encode-weighted TYPE");
    if (os_read_stdin((size_t)1 << 30, &in, &size, &err) != DIL_OK)
        return fail(err.text);
    int result;
    if (strcmp(argv[1], "decode") == 0)
        result = decode(format_get(type), in, size);
    else
        result = encode(format_get(type), in, size, strcmp(argv[1], "encode-weighted") == 0);
    mem_free(in);
    return result;
}
