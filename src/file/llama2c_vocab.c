/*
 * tokenizer.bin: i32 longest token, then per token f32 score, i32 length, bytes (spaces for U+2581;
 * bos and eos written as
 * "\n<s>\n" and "\n</s>\n"). *.model: a SentencePiece ModelProto, of which the pieces, the special
 * ids and the space rule are read. Both are small files from the outside: every length is compared
 * with what remains.
 */
#include "file/llama2c_vocab.h"

#include <inttypes.h>

#include "base/status.h"

#define MAX_VOCAB_BYTES ((size_t)256 << 20)
#define TYPE_NORMAL 1
#define TYPE_UNKNOWN 2
#define TYPE_CONTROL 3
#define TYPE_BYTE 6

typedef struct reader {
    const char *path;
    const uint8_t *bytes;
    size_t n, at;
    dil_error *err;
} reader;

static dil_status bad(const reader *r, size_t offset, const char *what)
{
    return DIL_FAIL(r->err, DIL_FORMAT, "%s: byte offset %zu: %s", r->path, offset, _(what));
}

static dil_status make_room(llama2c_vocab *v, const reader *r, uint32_t n)
{
    v->texts = arena_calloc(v->memory, n, sizeof *v->texts);
    v->scores = arena_calloc(v->memory, n, sizeof *v->scores);
    v->types = arena_calloc(v->memory, n, sizeof *v->types);
    if (!v->texts || !v->scores || !v->types)
        return DIL_FAIL(r->err, DIL_NO_MEMORY, "%s: no memory for %u tokens", r->path, n);
    v->n = n;
    return DIL_OK;
}

static dil_status wrong_count(const reader *r, uint64_t wanted, uint64_t found)
{
    return DIL_FAIL(r->err, DIL_FORMAT, "%s: byte offset %zu: tokens: wanted %" PRIu64 " as the checkpoint says, found %s%" PRIu64,
                    r->path, r->at, wanted, found > wanted ? _("at least ") : "", found);
}

/* "<0x0A>" */
static bool is_byte_token(str s)
{
    return s.n == 6 && memcmp(s.p, "<0x", 3) == 0 && strchr("0123456789ABCDEF", s.p[3]) && strchr("0123456789ABCDEF", s.p[4]) &&
           s.p[3] && s.p[4] && s.p[5] == '>';
}

/* ---- tokenizer.bin ---- */

/* Copies with spaces turned into U+2581 (three bytes). */
static bool copy_spaced(llama2c_vocab *v, const uint8_t *p, size_t n, str *out)
{
    char *copy = arena_alloc(v->memory, 3 * n + 1);
    size_t k = 0;
    if (!copy)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == ' ') {
            memcpy(copy + k, "\xe2\x96\x81", 3);
            k += 3;
        } else {
            copy[k++] = (char)p[i];
        }
    }
    *out = (str){copy, k};
    return true;
}

static dil_status bin_token(llama2c_vocab *v, reader *r, uint32_t i)
{
    int32_t length;
    if (r->n - r->at < 8)
        return wrong_count(r, v->n, i);
    memcpy(&v->scores[i], r->bytes + r->at, 4);
    memcpy(&length, r->bytes + r->at + 4, 4);
    if (length < 0 || (size_t)length > r->n - r->at - 8)
        return DIL_FAIL(r->err, DIL_FORMAT, "%s: byte offset %zu: length of token %u: wanted 0 to %zu, found %d", r->path,
                        r->at + 4, i, r->n - r->at - 8, length);
    if (!copy_spaced(v, r->bytes + r->at + 8, (size_t)length, &v->texts[i]))
        return DIL_FAIL(r->err, DIL_NO_MEMORY, "%s: no memory for token %u", r->path, i);
    v->types[i] = is_byte_token(v->texts[i]) ? TYPE_BYTE : TYPE_NORMAL;
    r->at += 8 + (size_t)length;
    return DIL_OK;
}

static void set_special(llama2c_vocab *v, uint32_t id, str text, int32_t type)
{
    v->texts[id] = text;
    v->types[id] = type;
}

static dil_status read_bin(llama2c_vocab *v, reader *r, uint32_t n)
{
    if (n < 3)
        return bad(r, 0, "tokens: wanted at least 3 (unknown, begin, end), found fewer");
    if (r->n < 4 || n > (r->n - 4) / 8)
        return wrong_count(r, n, r->n < 4 ? 0 : (r->n - 4) / 8);
    DIL_TRY(make_room(v, r, n));
    r->at = 4;
    for (uint32_t i = 0; i < n; i++)
        DIL_TRY(bin_token(v, r, i));
    if (r->at != r->n)
        return wrong_count(r, n, (uint64_t)n + 1);
    v->unknown = 0;
    v->bos = 1;
    v->eos = 2;
    set_special(v, 0, STR("<unk>"), TYPE_UNKNOWN);
    set_special(v, 1, STR("<s>"), TYPE_CONTROL);
    set_special(v, 2, STR("</s>"), TYPE_CONTROL);
    v->add_space_prefix = true;
    return DIL_OK;
}

/* ---- SentencePiece ---- */

typedef struct field {
    uint32_t number, wire;
    uint64_t value;      /* wire 0 and 5 */
    const uint8_t *data; /* wire 2 */
    size_t n;
} field;

static dil_status take_varint(reader *r, uint64_t *out)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (r->at == r->n)
            return bad(r, r->at, "a number is cut by the end of the file");
        uint8_t byte = r->bytes[r->at++];
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *out = v;
            return DIL_OK;
        }
    }
    return bad(r, r->at, "a number has more than ten bytes: not a SentencePiece model");
}

static dil_status take_field(reader *r, field *out)
{
    uint64_t tag = 0, n = 0;
    size_t start = r->at;
    DIL_TRY(take_varint(r, &tag));
    *out = (field){.number = (uint32_t)(tag >> 3), .wire = (uint32_t)(tag & 7)};
    switch (out->wire) {
    case 0: return take_varint(r, &out->value);
    case 1: n = 8; break;
    case 2: DIL_TRY(take_varint(r, &n)); break;
    case 5: n = 4; break;
    default: return bad(r, start, "a field of unknown kind: not a SentencePiece model");
    }
    if (n > r->n - r->at)
        return bad(r, start, "a field is longer than what remains: the file is cut short or not a SentencePiece model");
    out->data = r->bytes + r->at;
    out->n = (size_t)n;
    if (out->wire == 5)
        memcpy(&out->value, out->data, 4);
    r->at += (size_t)n;
    return DIL_OK;
}

/* A reader over the inside of a length-delimited field, with offsets still those of the file. */
static reader inside(const reader *r, const field *f)
{
    reader in = *r;
    in.at = (size_t)(f->data - r->bytes);
    in.n = in.at + f->n;
    return in;
}

static dil_status read_piece(llama2c_vocab *v, const reader *outer, const field *message, uint32_t i)
{
    reader r = inside(outer, message);
    field f;
    v->types[i] = TYPE_NORMAL;
    while (r.at < r.n) {
        size_t start = r.at;
        DIL_TRY(take_field(&r, &f));
        if (f.number == 1 && f.wire == 2) {
            v->texts[i].p = arena_strdup(v->memory, (const char *)f.data, f.n);
            v->texts[i].n = f.n;
            if (!v->texts[i].p)
                return DIL_FAIL(r.err, DIL_NO_MEMORY, "%s: no memory for token %u", r.path, i);
        } else if (f.number == 2 && f.wire == 5) {
            uint32_t bits = (uint32_t)f.value;
            memcpy(&v->scores[i], &bits, 4);
        } else if (f.number == 3 && f.wire == 0) {
            if (f.value < TYPE_NORMAL || f.value > TYPE_BYTE)
                return bad(&r, start, "type of a piece: wanted 1 to 6, found another number");
            v->types[i] = (int32_t)f.value; /* the numbers are the same in GGUF */
        }
    }
    return DIL_OK;
}

/* TrainerSpec: only the ids and the kind of model (3: 1 unigram, 2 byte pairs). */
static dil_status read_trainer(llama2c_vocab *v, const reader *outer, const field *message)
{
    reader r = inside(outer, message);
    field f;
    while (r.at < r.n) {
        size_t start = r.at;
        DIL_TRY(take_field(&r, &f));
        if (f.wire != 0)
            continue;
        if (f.number == 3 && f.value != 2)
            return DIL_FAIL(r.err, DIL_UNSUPPORTED, "%s: byte offset %zu: kind of model: wanted byte pairs (2), found %" PRIu64,
                            r.path, start, f.value);
        if (f.number == 40)
            v->unknown = (uint32_t)f.value;
        else if (f.number == 41)
            v->bos = (uint32_t)f.value;
        else if (f.number == 42)
            v->eos = (uint32_t)f.value;
    }
    return DIL_OK;
}

static dil_status read_normalizer(llama2c_vocab *v, const reader *outer, const field *message)
{
    reader r = inside(outer, message);
    field f;
    while (r.at < r.n) {
        DIL_TRY(take_field(&r, &f));
        if (f.number == 3 && f.wire == 0)
            v->add_space_prefix = f.value != 0;
    }
    return DIL_OK;
}

static dil_status read_model(llama2c_vocab *v, reader *r, uint32_t n)
{
    uint32_t found = 0;
    field f;
    if (n > r->n / 2) /* a piece takes at least two bytes */
        return wrong_count(r, n, r->n / 2);
    DIL_TRY(make_room(v, r, n));
    v->unknown = 0;
    v->bos = 1;
    v->eos = 2;
    v->add_space_prefix = true;
    while (r->at < r->n) {
        DIL_TRY(take_field(r, &f));
        if (f.wire != 2)
            continue;
        if (f.number == 1 && found == n)
            return wrong_count(r, n, (uint64_t)n + 1);
        if (f.number == 1)
            DIL_TRY(read_piece(v, r, &f, found++));
        else if (f.number == 2)
            DIL_TRY(read_trainer(v, r, &f));
        else if (f.number == 3)
            DIL_TRY(read_normalizer(v, r, &f));
    }
    if (found != n)
        return wrong_count(r, n, found);
    if (v->unknown >= n || v->bos >= n || v->eos >= n)
        return bad(r, r->n,
                   "special tokens: wanted the ids of unknown, begin and end to be below the number of tokens, found another");
    return DIL_OK;
}

/* ---- both ---- */

dil_status llama2c_vocab_read(llama2c_vocab *out, const char *path, uint32_t n_wanted, dil_error *err)
{
    char *text = NULL;
    reader r = {.path = path, .err = err};
    DIL_TRY(os_read_all(path, MAX_VOCAB_BYTES, &text, &r.n, err));
    r.bytes = (const uint8_t *)text;
    dil_status st;
    if (!(out->memory = arena_new(MEM_FILE, SIZE_MAX / 2)))
        st = DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory to read it", path);
    else
        st = str_ends(str_of(path), STR(".model")) ? read_model(out, &r, n_wanted) : read_bin(out, &r, n_wanted);
    mem_free(text);
    return st;
}

void llama2c_vocab_free(llama2c_vocab *v)
{
    arena_free(v->memory);
    *v = (llama2c_vocab){0};
}
