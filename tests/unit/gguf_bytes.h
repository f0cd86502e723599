/* Test helper: GGUF files built byte by byte in memory, so that tests can make every kind of wrong
 * file. */
#ifndef TESTS_GGUF_BYTES_H
#define TESTS_GGUF_BYTES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BYTES_MAX (1 << 18)

typedef struct bytes {
    uint8_t p[BYTES_MAX];
    size_t n;
} bytes;

static inline void put(bytes *b, const void *p, size_t n)
{
    if (n > sizeof b->p - b->n)
        abort();
    if (n > 0)
        memcpy(b->p + b->n, p, n);
    b->n += n;
}

static inline void put_u8(bytes *b, uint8_t v) { put(b, &v, 1); }
static inline void put_u32(bytes *b, uint32_t v) { put(b, &v, 4); }
static inline void put_u64(bytes *b, uint64_t v) { put(b, &v, 8); }
static inline void put_f32(bytes *b, float v) { put(b, &v, 4); }
static inline void put_text(bytes *b, const char *text)
{
    put_u64(b, strlen(text));
    put(b, text, strlen(text));
}

static inline void put_header(bytes *b, uint64_t n_tensors, uint64_t n_values)
{
    put(b, "GGUF", 4);
    put_u32(b, 3);
    put_u64(b, n_tensors);
    put_u64(b, n_values);
}

/* Key and kind; the value follows. */
static inline void put_key(bytes *b, const char *key, uint32_t kind)
{
    put_text(b, key);
    put_u32(b, kind);
}

static inline void put_key_u32(bytes *b, const char *key, uint32_t v)
{
    put_key(b, key, 4);
    put_u32(b, v);
}

static inline void put_key_text(bytes *b, const char *key, const char *v)
{
    put_key(b, key, 8);
    put_text(b, v);
}

static inline void put_array(bytes *b, const char *key, uint32_t element, uint64_t n)
{
    put_key(b, key, 9);
    put_u32(b, element);
    put_u64(b, n);
}

static inline void put_tensor(bytes *b, const char *name, uint32_t type, uint32_t n_dims, uint64_t ne0, uint64_t ne1,
                              uint64_t offset)
{
    put_text(b, name);
    put_u32(b, n_dims);
    put_u64(b, ne0);
    if (n_dims > 1)
        put_u64(b, ne1);
    put_u32(b, type);
    put_u64(b, offset);
}

static inline void put_padding(bytes *b)
{
    while (b->n % 32 != 0)
        put_u8(b, 0);
}

/* Additions of a test: entries behind the regular ones. */
typedef struct tiny_extra {
    int n_values, n_tensors;
    void (*values)(bytes *b);
    void (*tensors)(bytes *b);
} tiny_extra;

#define TINY_VALUES 14
#define TINY_TENSORS 3
#define TINY_DATA_BYTES 256

/*
 * A valid file: tokenizer of four tokens, tensors token_embd.weight (F32 8x4 at 0),
 * blk.0.attn_q.weight (Q8_0 32x2 at 128), blk.0.attn_norm.weight (F16 16 at 224). Its last byte
 * belongs to a tensor.
 */
static inline void put_tiny(bytes *b, const tiny_extra *extra)
{
    static const char *const tokens[] = {"<s>", "a", "b", "ab"};
    static const uint32_t types[] = {3, 1, 1, 1};
    put_header(b, TINY_TENSORS + (uint64_t)(extra ? extra->n_tensors : 0), TINY_VALUES + (uint64_t)(extra ? extra->n_values : 0));
    put_key_text(b, "general.architecture", "llama");
    put_key_text(b, "general.name", "tiny");
    put_key_u32(b, "general.alignment", 32);
    put_key_text(b, "tokenizer.ggml.model", "gpt2");
    put_array(b, "tokenizer.ggml.tokens", 8, 4);
    for (int i = 0; i < 4; i++)
        put_text(b, tokens[i]);
    put_array(b, "tokenizer.ggml.scores", 6, 4);
    for (int i = 0; i < 4; i++)
        put_f32(b, (float)-i);
    put_array(b, "tokenizer.ggml.token_type", 5, 4);
    for (int i = 0; i < 4; i++)
        put_u32(b, types[i]);
    put_array(b, "tokenizer.ggml.merges", 8, 1);
    put_text(b, "a b");
    put_key_u32(b, "tokenizer.ggml.bos_token_id", 0);
    put_key_u32(b, "tokenizer.ggml.eos_token_id", 3);
    put_key(b, "test.flag", 7);
    put_u8(b, 1);
    put_array(b, "test.flags", 7, 3);
    put(b, "\1\0\1", 3);
    put_array(b, "test.bytes", 1, 3);
    put(b, "\xff\x01\x80", 3);
    put_key(b, "test.double", 12);
    put(b, &(double){0.5}, 8);
    if (extra && extra->values)
        extra->values(b);
    put_tensor(b, "token_embd.weight", 0, 2, 8, 4, 0);
    put_tensor(b, "blk.0.attn_q.weight", 8, 2, 32, 2, 128);
    put_tensor(b, "blk.0.attn_norm.weight", 1, 1, 16, 1, 224);
    if (extra && extra->tensors)
        extra->tensors(b);
    put_padding(b);
    for (int i = 0; i < 32; i++)
        put_f32(b, (float)i);
    for (int i = 0; i < 2; i++) {
        put(b, "\x00\x3c", 2); /* scale 1 */
        for (int k = 0; k < 32; k++)
            put_u8(b, (uint8_t)k);
    }
    put_padding(b);
    for (int i = 0; i < 16; i++)
        put(b, "\x00\x3c", 2);
}

/* Where the bytes of text begin the first time they lie there with their length in front;
 * (size_t)-1 when nowhere. */
static inline size_t find_text(const bytes *b, const char *text)
{
    uint64_t n = strlen(text), length;
    for (size_t i = 8; i + n <= b->n; i++) {
        memcpy(&length, b->p + i - 8, 8);
        if (length == n && memcmp(b->p + i, text, n) == 0)
            return i;
    }
    return (size_t)-1;
}

static inline bool write_file(const char *path, const void *p, size_t n)
{
    FILE *f = fopen(path, "wb");
    bool good = f && fwrite(p, 1, n, f) == n;
    return f && fclose(f) == 0 && good;
}

/* A fresh directory under $TMPDIR; removed with remove_directory. */
static inline void make_directory(char out[256])
{
    const char *base = getenv("TMPDIR");
    snprintf(out, 256, "%s/dil-test-XXXXXX", base && strlen(base) < 200 ? base : "/tmp");
    if (!mkdtemp(out))
        abort();
}

#endif
