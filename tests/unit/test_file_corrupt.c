/*
 * Wrong GGUF files: a table of handcrafted kinds, truncation at every byte, every bit of the header
 * flipped. Each must end in DIL_FORMAT with a byte offset and say what it is about; nothing may
 * crash, leak, or hold much more memory than the file has bytes. Every file lies in a block of its
 * exact size, so that the sanitizers see a byte read too many.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "file/gguf_internal.h"
#include "gguf_bytes.h"

#define WHOLE ((size_t)-2)

/* ---- the machinery ---- */

typedef struct reports {
    char text[8192];
    int n;
    size_t file_bytes;
} reports;

static void collect(void *ctx, uint64_t offset, const char *text)
{
    reports *r = ctx;
    size_t used = strlen(r->text);
    snprintf(r->text + used, sizeof r->text - used, "%llu: %s\n", (unsigned long long)offset, text);
    r->n++;
    assert_true(strlen(text) > 0);
    assert_true(offset <= r->file_bytes);
    assert_true(mem_bytes(MEM_FILE) < 300000 + 64 * r->file_bytes);
}

static uint8_t *exact_copy(const uint8_t *p, size_t n)
{
    uint8_t *copy = malloc(n ? n : 1);
    assert_non_null(copy);
    if (n)
        memcpy(copy, p, n);
    return copy;
}

static void read_everything(const gguf *g)
{
    static volatile uint64_t sink;
    dil_error err;
    for (uint64_t i = 0; i < gguf_n_values(g); i++) {
        const gguf_value *v = gguf_value_at(g, i);
        char key[256];
        snprintf(key, sizeof key, "%.*s", (int)(v->key.n < 255 ? v->key.n : 255), v->key.p);
        uint32_t u = 0;
        uint64_t w = 0, n;
        int32_t d = 0;
        float f = 0;
        bool b = false;
        str s = {0};
        const str *texts;
        const float *floats;
        const int32_t *ints;
        sink += (uint64_t)gguf_get_u32(g, key, &u, &err) + gguf_get_u64(g, key, &w, &err) + gguf_get_i32(g, key, &d, &err) +
                gguf_get_f32(g, key, &f, &err) + gguf_get_bool(g, key, &b, &err) + gguf_get_str(g, key, &s, &err);
        if (gguf_get_strings(g, key, &texts, &n, &err) == DIL_OK)
            for (uint64_t k = 0; k < n; k++)
                sink += texts[k].n ? (uint8_t)texts[k].p[texts[k].n - 1] : 0;
        if (gguf_get_f32_array(g, key, &floats, &n, &err) == DIL_OK)
            for (uint64_t k = 0; k < n; k++)
                sink += floats[k] > 0;
        if (gguf_get_i32_array(g, key, &ints, &n, &err) == DIL_OK)
            for (uint64_t k = 0; k < n; k++)
                sink += (uint32_t)ints[k];
    }
    for (uint64_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        sink += t->data ? ((const uint8_t *)t->data)[t->size_bytes - 1] : 0;
    }
}

/* Opens and checks n bytes; true when opening succeeded. r gets what the check reported. */
static bool try_bytes(const uint8_t *p, size_t n, dil_error *err, reports *r)
{
    uint8_t *copy = exact_copy(p, n);
    gguf *g = NULL;
    dil_error check_err = {0};
    size_t before = mem_bytes(MEM_FILE);
    *err = (dil_error){0};
    *r = (reports){.file_bytes = n};
    dil_status opened = gguf_open_memory(&g, copy, n, NULL, err);
    if (opened == DIL_OK) {
        assert_true(mem_bytes(MEM_FILE) < 300000 + 64 * n);
        read_everything(g);
        gguf_close(g);
    } else {
        assert_null(g);
        assert_int_equal(opened, DIL_FORMAT);
        assert_non_null(strstr(err->text, "byte offset "));
    }
    dil_status checked = gguf_check_memory(copy, n, collect, r, &check_err);
    assert_int_equal(checked, r->n > 0 ? DIL_FORMAT : DIL_OK);
    if (opened != DIL_OK)
        assert_true(r->n > 0);
    assert_int_equal(mem_bytes(MEM_FILE), before);
    free(copy);
    return opened == DIL_OK;
}

/* ---- kinds that change a number in place ---- */

/* where: a name in the file, at counts from behind it (NULL: from the beginning); width bytes
 * become value. */
typedef struct patch {
    const char *kind, *where;
    int at, width;
    uint64_t value;
    const char *wanted; /* in the message */
} patch;

#define EMBD "token_embd.weight"
#define ATTN "blk.0.attn_q.weight"
#define NORM "blk.0.attn_norm.weight"

static const patch open_patches[] = {
    {"magic of another format", NULL, 3, 1, 'X', "magic: wanted 'GGUF'"},
    {"old GGML magic", NULL, 0, 4, 0x67676d6c, "magic: wanted 'GGUF'"},
    {"reversed magic", NULL, 0, 4, 0x47475546, "big-endian"},
    {"version 0", NULL, 4, 4, 0, "version: wanted 2 or 3, found 0"},
    {"version 1", NULL, 4, 4, 1, "version: wanted 2 or 3, found 1"},
    {"version 4", NULL, 4, 4, 4, "version: wanted 2 or 3, found 4"},
    {"big-endian version 3", NULL, 4, 4, 0x03000000, "big-endian"},
    {"big-endian version 2", NULL, 4, 4, 0x02000000, "big-endian"},
    {"tensor count -1", NULL, 8, 8, UINT64_MAX, "tensor count: wanted at most"},
    {"tensor count 2^63", NULL, 8, 8, (uint64_t)1 << 63, "tensor count: wanted at most"},
    {"tensor count beyond the bytes", NULL, 8, 8, 1000, "tensor count: wanted at most"},
    {"one tensor too many", NULL, 8, 8, TINY_TENSORS + 1, "tensor number 3"},
    {"key count -1", NULL, 16, 8, UINT64_MAX, "key count: wanted at most"},
    {"key count times entry size wraps", NULL, 16, 8, UINT64_MAX / 14, "key count: wanted at most"},
    {"key count beyond the bytes", NULL, 16, 8, 1000, "key count: wanted at most"},
    {"one key too many", NULL, 16, 8, TINY_VALUES + 1, "tensor number 0: name: string length"},
    {"one key too few", NULL, 16, 8, TINY_VALUES - 1, "tensor 'test.double'"},
    {"key length beyond the file", "general.name", -20, 8, 100000, "key number 1: name: wanted 100000 bytes"},
    {"key length -1", "general.name", -20, 8, UINT64_MAX, "string length: wanted at most"},
    {"key length over 64 MiB", "general.name", -20, 8, (64u << 20) + 1, "string length: wanted at most 67108864"},
    {"key not UTF-8", "general.name", -1, 1, 0xff, "wanted valid UTF-8"},
    {"kind 13", "general.name", 0, 4, 13, "kind: wanted 0 to 12, found 13"},
    {"kind -1", "general.name", 0, 4, UINT32_MAX, "kind: wanted 0 to 12, found 4294967295"},
    {"text beyond the file", "general.name", 4, 8, 1 << 20, "value: wanted 1048576 bytes"},
    {"text length wraps", "general.name", 4, 8, UINT64_MAX - 7, "string length: wanted at most"},
    {"array of arrays", "tokenizer.ggml.scores", 4, 4, 9, "array of arrays"},
    {"array of kind 13", "tokenizer.ggml.scores", 4, 4, 13, "kind of the array's elements: wanted 0 to 12, found 13"},
    {"array length wraps", "tokenizer.ggml.scores", 8, 8, ((uint64_t)1 << 62) + 1, "key 'tokenizer.ggml.scores': value: wanted"},
    {"array longer than the file", "tokenizer.ggml.scores", 8, 8, 5000, "key 'tokenizer.ggml.scores': value: wanted 5000 F32"},
    {"more strings than fit", "tokenizer.ggml.tokens", 8, 8, 1 << 20, "array: wanted at most"},
    {"string count -1", "tokenizer.ggml.tokens", 8, 8, UINT64_MAX, "array: wanted at most"},
    {"string of an array beyond the file", "tokenizer.ggml.tokens", 16, 8, 1 << 16, "array of strings: wanted 65536 bytes"},
    {"bool 2", "test.flag", 4, 1, 2, "BOOL: wanted 0 or 1, found 2"},
    {"bool 255 in an array", "test.flags", 17, 1, 255, "BOOL: wanted 0 or 1, found 255"},
    {"alignment 0", "general.alignment", 4, 4, 0, "wanted a power of two, at least 8, found 0"},
    {"alignment 4", "general.alignment", 4, 4, 4, "wanted a power of two, at least 8, found 4"},
    {"alignment 48", "general.alignment", 4, 4, 48, "wanted a power of two, at least 8, found 48"},
    {"alignment 2^31", "general.alignment", 4, 4, 1u << 31, "wanted a multiple of the alignment 2147483648"},
    {"alignment of kind I32", "general.alignment", 0, 4, 5, "key 'general.alignment': wanted U32, found I32"},
    {"0 dimensions", NORM, 0, 4, 0, "number of dimensions: wanted 1 to 4, found 0"},
    {"5 dimensions", EMBD, 0, 4, 5, "number of dimensions: wanted 1 to 4, found 5"},
    {"4294967295 dimensions", EMBD, 0, 4, UINT32_MAX, "number of dimensions: wanted 1 to 4, found 4294967295"},
    {"dimension 0", EMBD, 4, 8, 0, "dimension 0: wanted a positive number, found 0"},
    {"last dimension 0", EMBD, 12, 8, 0, "dimension 1: wanted a positive number, found 0"},
    {"dimension -1", EMBD, 12, 8, UINT64_MAX, "dimension 1: wanted a positive number, found -1"},
    {"elements overflow", EMBD, 12, 8, (uint64_t)1 << 61, "overflows 63 bits"},
    {"elements 2^63", EMBD, 12, 8, (uint64_t)1 << 60, "overflows 63 bits"},
    {"elements wrap to a small number", EMBD, 12, 8, ((uint64_t)1 << 61) + 1, "overflows 63 bits"},
    {"bytes overflow", NORM, 4, 8, (uint64_t)1 << 62, "size: wanted less than 2^63 bytes"},
    {"exabyte tensor", EMBD, 12, 8, (uint64_t)1 << 57, "tensor 'token_embd.weight': data: wanted"},
    {"tensor longer than the file", EMBD, 12, 8, 1000, "tensor 'token_embd.weight': data: wanted 32000 bytes"},
    {"last tensor one block too long", NORM, 4, 8, 17, "tensor 'blk.0.attn_norm.weight': data: wanted 34 bytes"},
    {"type removed from the format", ATTN, 20, 4, 4, "type: wanted a known tensor type, found number 4"},
    {"type in a gap", ATTN, 20, 4, 36, "type: wanted a known tensor type, found number 36"},
    {"type 1000", ATTN, 20, 4, 1000, "type: wanted a known tensor type, found number 1000"},
    {"type -1", ATTN, 20, 4, UINT32_MAX, "type: wanted a known tensor type, found number 4294967295"},
    {"row not a multiple of the block", ATTN, 4, 8, 33, "row length: wanted a multiple of 32 for type Q8_0, found 33"},
    {"row below one block", ATTN, 4, 8, 1, "row length: wanted a multiple of 32"},
    {"offset off by one", ATTN, 24, 8, 129, "offset: wanted a multiple of the alignment 32, found 129"},
    {"offset beyond the file", ATTN, 24, 8, 1 << 20, "tensor 'blk.0.attn_q.weight': data: wanted"},
    {"offset wraps", ATTN, 24, 8, UINT64_MAX - 31, "tensor 'blk.0.attn_q.weight': data: wanted"},
    {"offset wraps with the size", ATTN, 24, 8, UINT64_MAX - 2047, "tensor 'blk.0.attn_q.weight': data: wanted"},
    {"offset -2^63", ATTN, 24, 8, (uint64_t)1 << 63, "tensor 'blk.0.attn_q.weight': data: wanted"},
    {"same data twice", ATTN, 24, 8, 0, "found an overlap with tensor"},
    {"data overlaps by its end", ATTN, 24, 8, 96, "found an overlap with tensor 'token_embd.weight'"},
    {"tensor name beyond the file", ATTN, -27, 8, 1 << 20, "tensor number 1: name: wanted 1048576 bytes"},
    {"tensor name not UTF-8", ATTN, -19, 1, 0xc0, "wanted valid UTF-8"},
};

/* Wrong for a loader, though every byte can be found: only the check tells. */
static const patch check_patches[] = {
    {"token type 7", "tokenizer.ggml.token_type", 16, 4, 7, "element 0: wanted 0 to 6, found 7"},
    {"token type -1", "tokenizer.ggml.token_type", 28, 4, UINT32_MAX, "element 3: wanted 0 to 6, found -1"},
    {"token types of kind F32", "tokenizer.ggml.token_type", 4, 4, 6, "wanted an array of I32, found an array of F32"},
    {"scores of kind U32", "tokenizer.ggml.scores", 4, 4, 4, "wanted an array of F32, found an array of U32"},
    {"begin token equal to the count", "tokenizer.ggml.bos_token_id", 4, 4, 4, "wanted a token below 4, found 4"},
    {"end token -1", "tokenizer.ggml.eos_token_id", 4, 4, UINT32_MAX, "wanted a token below 4, found 4294967295"},
    {"end token I32 -1", "tokenizer.ggml.eos_token_id", 0, 8, 5 | (uint64_t)UINT32_MAX << 32, "wanted a token below 4, found -1"},
    {"end token of kind F32", "tokenizer.ggml.eos_token_id", 0, 4, 6, "wanted an integer, found F32"},
    {"merge without a space", "tokenizer.ggml.merges", 25, 1, '_', "wanted two pieces and a space between them, found 'a_b'"},
    {"merge without its second piece", "tokenizer.ggml.merges", 25, 2, 'b' | ' ' << 8, "wanted two pieces and a space"},
    {"tokenizer name not UTF-8", "tokenizer.ggml.model", 12, 1, 0xfe, "wanted text in valid UTF-8"},
    {"embedding of another count", EMBD, 12, 8, 3, "wanted 4 rows, one per token, found 3"},
    {"F32 infinity", "", 4, 4, 0x7f800000, "F32 value at element 1 (row 0): wanted finite numbers"},
    {"F32 NaN in the last row", "", 124, 4, 0xffc00000, "F32 value at element 31 (row 3)"},
    {"block scale NaN", "", 128 + 34, 2, 0x7e00, "Q8_0 block scale at element 32 (row 1)"},
    {"block scale infinity", "", 128, 2, 0xfc00, "Q8_0 block scale at element 0 (row 0)"},
    {"F16 NaN", "", 224 + 30, 2, 0x7c01, "F16 value at element 15"},
};

static size_t place_of(const bytes *b, const patch *k)
{
    if (!k->where)
        return (size_t)k->at;
    if (!*k->where)
        return b->n - TINY_DATA_BYTES + (size_t)k->at;
    size_t at = find_text(b, k->where);
    assert_true(at != (size_t)-1);
    return at + strlen(k->where) + (size_t)k->at;
}

static void expect(const char *kind, bool is_open, const char *wanted, const bytes *b)
{
    static reports r;
    dil_error err;
    bool opened = try_bytes(b->p, b->n, &err, &r);
    if (opened == is_open)
        fail_msg("%s: opening %s", kind, opened ? "succeeded" : err.text);
    if (is_open && !strstr(err.text, wanted))
        fail_msg("%s: wanted '%s', found '%s'", kind, wanted, err.text);
    if (!strstr(r.text, wanted))
        fail_msg("%s: the check: wanted '%s', found '%s'", kind, wanted, r.text);
}

static int run_patches(const patch *list, size_t n, bool is_open)
{
    static bytes b;
    int kinds = 0;
    for (size_t i = 0; i < n; i++) {
        const patch *k = &list[i];
        b.n = 0;
        put_tiny(&b, NULL);
        memcpy(b.p + place_of(&b, k), &k->value, (size_t)k->width);
        expect(k->kind, is_open, k->wanted, &b);
        kinds++;
    }
    return kinds;
}

static void test_patched_numbers(void **state)
{
    (void)state;
    int n = run_patches(open_patches, sizeof open_patches / sizeof *open_patches, true);
    n += run_patches(check_patches, sizeof check_patches / sizeof *check_patches, false);
    assert_true(n >= 60);
}

/* ---- kinds that add entries ---- */

static void add_duplicate_key(bytes *b) { put_key_u32(b, "tokenizer.ggml.eos_token_id", 1); }
static void add_empty_key(bytes *b) { put_key_u32(b, "", 1); }
static void add_overlong_key(bytes *b) { put_key_u32(b, "a\xc0\xaf", 1); }
static void add_surrogate_key(bytes *b) { put_key_u32(b, "a\xed\xa0\x80", 1); }
static void add_escape_key(bytes *b)
{
    put_key_u32(b, "\x1b[2Jx", 1);
    put_key_u32(b, "\x1b[2Jx", 1);
}
static void add_long_key(bytes *b)
{
    static char key[65537];
    memset(key, 'k', 65536);
    put_key_u32(b, key, 1);
}
static void add_deep_array(bytes *b)
{
    put_array(b, "deep", 9, 1);
    put_u32(b, 9);
    put_u64(b, 1);
}
static void add_same_tensor(bytes *b) { put_tensor(b, EMBD, 0, 1, 8, 1, 256); }
static void add_empty_name(bytes *b) { put_tensor(b, "", 0, 1, 8, 1, 0); }
static void add_long_name(bytes *b)
{
    put_tensor(b, "a23456789012345678901234567890123456789012345678901234567890123_5", 0, 1, 8, 1, 0);
}
static void add_inside(bytes *b) { put_tensor(b, "inside", 24, 1, 1, 1, 32); }
static void add_quantized_odd(bytes *b) { put_tensor(b, "odd", 12, 1, 255, 1, 0); }

static void test_added_entries(void **state)
{
    (void)state;
    static bytes b;
    static const struct {
        const char *kind;
        tiny_extra extra;
        const char *wanted;
    } list[] = {
        {"duplicate key", {1, 0, add_duplicate_key, NULL}, "key 'tokenizer.ggml.eos_token_id': wanted once, found a second time"},
        {"empty key", {1, 0, add_empty_key, NULL}, "name: wanted at least one character"},
        {"overlong UTF-8 key", {1, 0, add_overlong_key, NULL}, "wanted valid UTF-8"},
        {"surrogate in a key", {1, 0, add_surrogate_key, NULL}, "wanted valid UTF-8"},
        {"terminal escape in a key", {2, 0, add_escape_key, NULL}, "key '\\x1b[2Jx': wanted once"},
        {"key of 65536 bytes", {1, 0, add_long_key, NULL}, "name: wanted at most 65535 bytes, found 65536"},
        {"nested array", {1, 0, add_deep_array, NULL}, "array of arrays"},
        {"duplicate tensor", {0, 1, NULL, add_same_tensor}, NULL},
        {"unnamed tensor", {0, 1, NULL, add_empty_name}, "name: wanted at least one character"},
        {"tensor name of 65 bytes", {0, 1, NULL, add_long_name}, "name: wanted at most 64 bytes, found 65"},
        {"tensor inside another", {0, 1, NULL, add_inside}, "tensor 'inside': data: wanted to begin at byte"},
        {"K-quant row of 255", {0, 1, NULL, add_quantized_odd}, "row length: wanted a multiple of 256 for type Q4_K, found 255"},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        b.n = 0;
        put_tiny(&b, &list[i].extra);
        if (list[i].extra.tensors == add_same_tensor)
            for (int k = 0; k < 8; k++)
                put_f32(&b, 0);
        expect(list[i].kind, true, list[i].wanted ? list[i].wanted : "found a second tensor of that name", &b);
    }
}

/* ---- metadata that loaders rely on ---- */

static void tokens_but_no_merges(bytes *b)
{
    put_key_text(b, "general.architecture", "llama");
    put_key_text(b, "tokenizer.ggml.model", "gpt2");
    put_array(b, "tokenizer.ggml.tokens", 8, 1);
    put_text(b, "a");
}
static void no_tokens(bytes *b)
{
    put_key_text(b, "general.architecture", "llama");
    put_key_text(b, "tokenizer.ggml.model", "llama");
}
static void tokens_of_numbers(bytes *b)
{
    no_tokens(b);
    put_array(b, "tokenizer.ggml.tokens", 4, 1);
    put_u32(b, 1);
}
static void empty_tokens(bytes *b)
{
    no_tokens(b);
    put_array(b, "tokenizer.ggml.tokens", 8, 0);
}
static void short_scores(bytes *b)
{
    no_tokens(b);
    put_array(b, "tokenizer.ggml.tokens", 8, 2);
    put_text(b, "a");
    put_text(b, "b");
    put_array(b, "tokenizer.ggml.scores", 6, 1);
    put_f32(b, 0);
}
static void long_types(bytes *b)
{
    no_tokens(b);
    put_array(b, "tokenizer.ggml.tokens", 8, 1);
    put_text(b, "a");
    put_array(b, "tokenizer.ggml.token_type", 5, 2);
    put_u64(b, 0x0000000100000001);
}
static void model_of_numbers(bytes *b)
{
    put_key_text(b, "general.architecture", "llama");
    put_key_u32(b, "tokenizer.ggml.model", 1);
}
static void architecture_number(bytes *b) { put_key_u32(b, "general.architecture", 1); }
static void architecture_empty(bytes *b) { put_key_text(b, "general.architecture", ""); }
static void nothing(bytes *b) { (void)b; }

static void test_loader_metadata(void **state)
{
    (void)state;
    static bytes b;
    static const struct {
        int n;
        void (*values)(bytes *b);
        const char *wanted;
    } list[] = {
        {3, tokens_but_no_merges, "key 'tokenizer.ggml.merges': wanted for the tokenizer 'gpt2', found no such key"},
        {2, no_tokens, "key 'tokenizer.ggml.tokens': wanted the list of tokens, found no such key"},
        {3, tokens_of_numbers, "key 'tokenizer.ggml.tokens': wanted an array of STRING, found an array of U32"},
        {3, empty_tokens, "key 'tokenizer.ggml.tokens': wanted 1 to 2147483647 tokens, found 0"},
        {4, short_scores, "key 'tokenizer.ggml.scores': wanted 2 values, one per token, found 1"},
        {4, long_types, "key 'tokenizer.ggml.token_type': wanted 1 values, one per token, found 2"},
        {2, model_of_numbers, "key 'tokenizer.ggml.model': wanted STRING, found U32"},
        {1, architecture_number, "key 'general.architecture': wanted STRING, found U32"},
        {1, architecture_empty, "key 'general.architecture': wanted the name of the architecture, found an empty string"},
        {0, nothing, "key 'general.architecture': wanted the name of the architecture, found no such key"},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        b.n = 0;
        put_header(&b, 0, (uint64_t)list[i].n);
        list[i].values(&b);
        expect(list[i].wanted, false, list[i].wanted, &b);
    }
}

/* ---- every truncation, every bit ---- */

static void test_valid(void **state)
{
    (void)state;
    static bytes b;
    static reports r;
    dil_error err;
    put_tiny(&b, NULL);
    if (!try_bytes(b.p, b.n, &err, &r) || r.n > 0)
        fail_msg("%s %s", err.text, r.text);
}

static void test_truncation(void **state)
{
    (void)state;
    static bytes b;
    static reports r;
    dil_error err;
    put_tiny(&b, NULL);
    for (size_t n = 0; n < b.n; n++)
        if (try_bytes(b.p, n, &err, &r))
            fail_msg("cut to %zu of %zu bytes, it opened", n, b.n);
}

static void test_bit_flips(void **state)
{
    (void)state;
    static bytes b;
    static reports r;
    dil_error err;
    int refused = 0;
    put_tiny(&b, NULL);
    for (size_t i = 0; i < b.n - TINY_DATA_BYTES; i++)
        for (int bit = 0; bit < 8; bit++) {
            b.p[i] ^= (uint8_t)(1 << bit);
            refused += !try_bytes(b.p, b.n, &err, &r);
            b.p[i] ^= (uint8_t)(1 << bit);
        }
    assert_true(refused > (int)(b.n - TINY_DATA_BYTES) * 2); /* most numbers of a header matter */
}

/* More keys than the limit, in a file that has the bytes for them. */
static void test_limits(void **state)
{
    (void)state;
    static reports r;
    dil_error err;
    size_t n = (size_t)16 << 20;
    uint8_t *p = calloc(1, n);
    bytes *head = calloc(1, sizeof *head);
    assert_true(p && head);
    put_header(head, 0, GGUF_MAX_VALUES + 1);
    memcpy(p, head->p, head->n);
    assert_false(try_bytes(p, n, &err, &r));
    assert_non_null(strstr(err.text, "key count: wanted at most 1048576, found 1048577"));
    free(p);
    free(head);
}

/* The check goes on: three independent defects give three lines. */
static void test_check_goes_on(void **state)
{
    (void)state;
    static bytes b;
    static reports r;
    dil_error err;
    put_tiny(&b, NULL);
    b.p[find_text(&b, "test.flag") + 9 + 4] = 9;
    b.p[find_text(&b, ATTN) + strlen(ATTN) + 20] = 4;
    b.p[b.n - 1] = 0x7e;
    assert_false(try_bytes(b.p, b.n, &err, &r));
    assert_int_equal(r.n, 3);
    assert_non_null(strstr(r.text, "BOOL"));
    assert_non_null(strstr(r.text, "found number 4"));
    assert_non_null(strstr(r.text, "F16 value at element 15"));
}

/* The fields that are looked at are those that make a block not finite, for every type. */
static void test_scale_fields(void **state)
{
    (void)state;
    uint8_t block[1024];
    float values[1024];
    uint32_t seed = 12345;
    for (int type = 0; type < DIL_TYPE_COUNT; type++) {
        const format *f = format_get((dil_type)type);
        if (!f || !f->decode || type == DIL_TYPE_F32 || f->block_bytes > sizeof block || f->block_values > 1024)
            continue;
        int bad_blocks = 0;
        for (int round = 0; round < 3000; round++) {
            bool bad = false;
            for (uint32_t i = 0; i < f->block_bytes; i++) {
                seed = seed * 1664525 + 1013904223;
                block[i] = (uint8_t)(seed >> 24);
            }
            f->decode(block, values, f->block_values);
            for (uint32_t i = 0; i < f->block_values; i++)
                bad |= !(values[i] - values[i] == 0);
            bad_blocks += bad;
            if ((gguf_scan_blocks((dil_type)type, block, 1) == 0) != bad)
                fail_msg("%s: a block that is %sfinite was told apart wrongly", f->name, bad ? "not " : "");
        }
        if (type != DIL_TYPE_MXFP4 && type != DIL_TYPE_NVFP4 && f->is_quantized && bad_blocks == 0)
            fail_msg("%s: no random block was bad", f->name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_valid),           cmocka_unit_test(test_patched_numbers), cmocka_unit_test(test_added_entries),
        cmocka_unit_test(test_loader_metadata), cmocka_unit_test(test_truncation),      cmocka_unit_test(test_bit_flips),
        cmocka_unit_test(test_limits),          cmocka_unit_test(test_check_goes_on),   cmocka_unit_test(test_scale_fields),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
