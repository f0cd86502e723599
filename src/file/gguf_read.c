/*
 * One shard: bytes -> header, metadata entries, tensor directory. Nothing is believed before it is
 * compared with the bytes that remain. In checking mode reading goes on after a defect as long as
 * the next item can still be found.
 *
 * Layout (little-endian): "GGUF", u32 version, u64 tensor count, u64 key count;
 *   per key: u64 length, bytes, u32 kind, value
 *     (string: u64 length, bytes; array: u32 kind, u64 count, elements);
 *   per tensor: u64 length, bytes, u32 dimensions, u64 each, u32 type, u64 offset in the data;
 *   padding to general.alignment (32 unless set), then the data.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/checked.h"
#include "base/status.h"
#include "file/gguf_internal.h"

typedef struct reader {
    gguf *g;
    gguf_shard *s;
    gguf_sink *sink;
    uint64_t at;                   /* always <= s->size_bytes */
    char subject[GGUF_SHOWN + 32]; /* "key 'general.name'", for messages */
} reader;

/* ---- telling ---- */

/* The end of a path: what tells files apart, short enough to leave room for the message. */
static const char *short_path(const char *path)
{
    size_t n = strlen(path);
    return n > 120 ? path + n - 120 : path;
}

static void tell(gguf_sink *sink, const gguf_shard *s, uint64_t offset, const char *text_format, va_list args)
{
    char text[400], line[560];
    vsnprintf(text, sizeof text, status_text(text_format), args);
    sink->n_defects++;
    if (sink->report) {
        snprintf(line, sizeof line, "%s: %s", short_path(s->path), text);
        sink->report(sink->ctx, offset, sink->many_shards ? line : text);
    } else {
        (void)DIL_FAIL(sink->err, DIL_FORMAT, "%s: byte offset %" PRIu64 ": %s", short_path(s->path), offset, text);
    }
}

dil_status gguf_defect(gguf_sink *sink, const gguf_shard *s, uint64_t offset, const char *text_format, ...)
{
    va_list args;
    va_start(args, text_format);
    tell(sink, s, offset, text_format, args);
    va_end(args);
    return sink->report ? DIL_OK : DIL_FORMAT;
}

void gguf_tell(gguf_sink *sink, const gguf_shard *s, uint64_t offset, const char *text_format, ...)
{
    va_list args;
    va_start(args, text_format);
    tell(sink, s, offset, text_format, args);
    va_end(args);
}

const char *gguf_show(str name, char out[GGUF_SHOWN])
{
    static const char digits[] = "0123456789abcdef";
    size_t n = 0;
    out[n++] = '\'';
    for (size_t i = 0; i < name.n; i++) {
        unsigned char c = (unsigned char)name.p[i];
        if (n > GGUF_SHOWN - 10) {
            memcpy(out + n, "...", 3);
            n += 3;
            break;
        }
        if (c >= 0x20 && c < 0x7f && c != '\\') {
            out[n++] = (char)c;
        } else {
            out[n++] = '\\';
            out[n++] = 'x';
            out[n++] = digits[c >> 4];
            out[n++] = digits[c & 15];
        }
    }
    out[n++] = '\'';
    out[n] = '\0';
    return out;
}

const char *gguf_kind_name(gguf_kind kind)
{
    static const char *const names[] = {"U8",   "I8",     "U16",   "I16", "U32", "I32", "F32",
                                        "BOOL", "STRING", "ARRAY", "U64", "I64", "F64"};
    return (unsigned)kind <= GGUF_F64 ? names[kind] : "?";
}

uint32_t gguf_kind_bytes(gguf_kind kind)
{
    static const uint8_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return (unsigned)kind <= GGUF_F64 ? bytes[kind] : 0;
}

static dil_status no_memory(reader *r)
{
    return DIL_FAIL(r->sink->err, DIL_NO_MEMORY, "%s: no memory for %s", short_path(r->s->path), r->subject);
}

/* ---- the cursor ---- */

static uint64_t remaining(const reader *r) { return r->s->size_bytes - r->at; }

static dil_status take(reader *r, uint64_t n, const char *field, const uint8_t **out)
{
    if (n > remaining(r))
        return gguf_fatal(r->sink, r->s, r->at, "%s: %s: wanted %" PRIu64 " bytes, found %" PRIu64 " before the end of the file",
                          r->subject, _(field), n, remaining(r));
    *out = r->s->bytes + r->at;
    r->at += n;
    return DIL_OK;
}

static dil_status take_u32(reader *r, const char *field, uint32_t *out)
{
    const uint8_t *p;
    DIL_TRY(take(r, sizeof *out, field, &p));
    memcpy(out, p, sizeof *out);
    return DIL_OK;
}

static dil_status take_u64(reader *r, const char *field, uint64_t *out)
{
    const uint8_t *p;
    DIL_TRY(take(r, sizeof *out, field, &p));
    memcpy(out, p, sizeof *out);
    return DIL_OK;
}

static dil_status take_str(reader *r, const char *field, str *out)
{
    uint64_t n, start = r->at;
    const uint8_t *p;
    DIL_TRY(take_u64(r, field, &n));
    if (n > GGUF_MAX_STRING)
        return gguf_fatal(r->sink, r->s, start, "%s: %s: string length: wanted at most %u, found %" PRIu64, r->subject, _(field),
                          GGUF_MAX_STRING, n);
    DIL_TRY(take(r, n, field, &p));
    *out = (str){(const char *)p, (size_t)n};
    return DIL_OK;
}

/* ---- header ---- */

static dil_status read_version(reader *r, uint32_t *out)
{
    const uint8_t *magic;
    uint32_t version;
    snprintf(r->subject, sizeof r->subject, "%s", _("header"));
    DIL_TRY(take(r, 4, N_("magic"), &magic));
    if (memcmp(magic, "GGUF", 4) != 0)
        return gguf_fatal(r->sink, r->s, 0, "header: magic: wanted 'GGUF', found bytes %02x %02x %02x %02x: not a GGUF file%s",
                          magic[0], magic[1], magic[2], magic[3],
                          memcmp(magic, "FUGG", 4) == 0 ? _(" (big-endian files are not supported)") : "");
    DIL_TRY(take_u32(r, N_("version"), &version));
    if (version != 0 && (version & 0xffff) == 0)
        return gguf_fatal(r->sink, r->s, 4,
                          "header: version: wanted 2 or 3, found 0x%08x: this is a big-endian file, which is not "
                          "supported; convert it to little-endian",
                          version);
    if (version != 2 && version != 3)
        return gguf_fatal(r->sink, r->s, 4, "header: version: wanted 2 or 3, found %u", version);
    *out = version;
    return DIL_OK;
}

static dil_status check_count(reader *r, uint64_t offset, const char *what, uint64_t found, uint64_t max, uint64_t min_bytes)
{
    uint64_t fit = remaining(r) / min_bytes;
    if (found > fit)
        return gguf_fatal(r->sink, r->s, offset,
                          "header: %s: wanted at most %" PRIu64 " (what the %" PRIu64 " remaining bytes can hold), found %" PRIu64,
                          what, fit, remaining(r), found);
    if (found > max)
        return gguf_fatal(r->sink, r->s, offset, "header: %s: wanted at most %" PRIu64 ", found %" PRIu64, what, max, found);
    return DIL_OK;
}

static dil_status read_header(reader *r)
{
    gguf_shard *s = r->s;
    uint64_t n_tensors, n_values;
    DIL_TRY(read_version(r, &s->version));
    DIL_TRY(take_u64(r, N_("tensor count"), &n_tensors));
    DIL_TRY(take_u64(r, N_("key count"), &n_values));
    DIL_TRY(check_count(r, 8, N_("tensor count"), n_tensors, GGUF_MAX_TENSORS, GGUF_MIN_TENSOR_BYTES));
    DIL_TRY(check_count(r, 16, N_("key count"), n_values, GGUF_MAX_VALUES, GGUF_MIN_VALUE_BYTES));
    s->entries = arena_calloc(r->g->memory, (size_t)n_values, sizeof *s->entries);
    s->tensors = arena_calloc(r->g->memory, (size_t)n_tensors, sizeof *s->tensors);
    if (!s->entries || !s->tensors || !name_index_init(&s->keys, r->g->memory, (uint32_t)n_values))
        return no_memory(r);
    s->n_tensors = n_tensors;
    s->n_values = n_values;
    return DIL_OK;
}

/* ---- metadata ---- */

static dil_status check_name(reader *r, const char *field, str name, uint64_t offset, uint64_t max)
{
    if (name.n == 0)
        DIL_TRY(
            gguf_defect(r->sink, r->s, offset, "%s: %s: wanted at least one character, found an empty one", r->subject, _(field)));
    if (name.n > max)
        DIL_TRY(gguf_defect(r->sink, r->s, offset, "%s: %s: wanted at most %" PRIu64 " bytes, found %zu", r->subject, _(field), max,
                            name.n));
    if (!utf8_valid(name))
        DIL_TRY(gguf_defect(r->sink, r->s, offset, "%s: %s: wanted valid UTF-8, found other bytes", r->subject, _(field)));
    return DIL_OK;
}

static dil_status read_kind(reader *r, const char *field, gguf_kind *out)
{
    uint32_t kind;
    uint64_t start = r->at;
    DIL_TRY(take_u32(r, field, &kind));
    if (kind > GGUF_F64)
        return gguf_fatal(r->sink, r->s, start, "%s: %s: wanted 0 to 12, found %u", r->subject, _(field), kind);
    *out = (gguf_kind)kind;
    return DIL_OK;
}

static dil_status read_strings(reader *r, gguf_value *v)
{
    if (v->count > remaining(r) / sizeof(uint64_t))
        return gguf_fatal(r->sink, r->s, r->at,
                          "%s: array: wanted at most %" PRIu64 " strings (what the remaining bytes can hold), "
                          "found %" PRIu64,
                          r->subject, remaining(r) / (uint64_t)sizeof(uint64_t), v->count);
    str *strings = arena_alloc(r->g->memory, (size_t)v->count * sizeof *strings);
    if (!strings)
        return no_memory(r);
    for (uint64_t i = 0; i < v->count; i++)
        DIL_TRY(take_str(r, N_("array of strings"), &strings[i]));
    v->data = strings;
    return DIL_OK;
}

static dil_status read_numbers(reader *r, gguf_value *v)
{
    uint64_t start = r->at, size = gguf_kind_bytes(v->element);
    const uint8_t *p;
    if (v->count > remaining(r) / size)
        return gguf_fatal(r->sink, r->s, start,
                          "%s: value: wanted %" PRIu64 " %s of %" PRIu64 " bytes, found %" PRIu64
                          " bytes before the end of the file",
                          r->subject, v->count, gguf_kind_name(v->element), size, remaining(r));
    DIL_TRY(take(r, v->count * size, N_("value"), &p));
    v->data = p;
    for (uint64_t i = 0; v->element == GGUF_BOOL && i < v->count; i++) {
        if (p[i] > 1) {
            DIL_TRY(gguf_defect(r->sink, r->s, start + i, "%s: BOOL: wanted 0 or 1, found %u", r->subject, p[i]));
            break;
        }
    }
    return DIL_OK;
}

static dil_status read_array(reader *r, gguf_value *v)
{
    uint64_t start = r->at;
    DIL_TRY(read_kind(r, N_("kind of the array's elements"), &v->element));
    if (v->element == GGUF_ARRAY)
        return gguf_fatal(r->sink, r->s, start,
                          "%s: array: wanted numbers or strings, found an array of arrays, which is not supported", r->subject);
    DIL_TRY(take_u64(r, N_("array length"), &v->count));
    return v->element == GGUF_STRING ? read_strings(r, v) : read_numbers(r, v);
}

static dil_status read_value(reader *r, uint64_t number)
{
    gguf_entry *e = &r->s->entries[number];
    gguf_value *v = &e->v;
    char shown[GGUF_SHOWN];
    v->offset = r->at;
    snprintf(r->subject, sizeof r->subject, _("key number %" PRIu64), number);
    DIL_TRY(take_str(r, N_("name"), &v->key));
    DIL_TRY(check_name(r, N_("name"), v->key, v->offset, GGUF_MAX_KEY));
    snprintf(r->subject, sizeof r->subject, "key %s", gguf_show(v->key, shown));
    uint32_t first = name_index_add(&r->s->keys, v->key);
    if (first != number)
        DIL_TRY(gguf_defect(r->sink, r->s, v->offset, "%s: wanted once, found a second time (first at byte %" PRIu64 ")",
                            r->subject, r->s->entries[first].v.offset));
    DIL_TRY(read_kind(r, N_("kind"), &v->kind));
    v->element = v->kind;
    v->count = 1;
    if (v->kind == GGUF_ARRAY)
        return read_array(r, v);
    if (v->kind != GGUF_STRING)
        return read_numbers(r, v);
    v->data = &e->text;
    return take_str(r, N_("value"), &e->text);
}

static dil_status read_alignment(reader *r)
{
    gguf_shard *s = r->s;
    uint32_t alignment, i = name_index_find(&s->keys, STR("general.alignment"));
    s->alignment = GGUF_DEFAULT_ALIGNMENT;
    if (i == NAME_INDEX_NONE)
        return DIL_OK;
    const gguf_value *v = &s->entries[i].v;
    if (v->kind != GGUF_U32)
        return gguf_defect(r->sink, s, v->offset, "key 'general.alignment': wanted U32, found %s", gguf_kind_name(v->kind));
    memcpy(&alignment, v->data, sizeof alignment);
    if (alignment < GGUF_MIN_ALIGNMENT || (alignment & (alignment - 1)) != 0)
        return gguf_defect(r->sink, s, v->offset, "key 'general.alignment': wanted a power of two, at least 8, found %u",
                           alignment);
    s->alignment = alignment;
    return DIL_OK;
}

/* ---- tensors ---- */

/* Dimensions of t; *good is cleared by a defect. Reading goes on behind them. */
static dil_status read_shape(reader *r, gguf_tensor *t, bool *good)
{
    uint32_t n_dims;
    uint64_t start = r->at, n_values = 1;
    const uint8_t *skipped;
    DIL_TRY(take_u32(r, N_("number of dimensions"), &n_dims));
    for (int i = 0; i < GGUF_MAX_DIMS; i++)
        t->ne[i] = 1;
    if (n_dims == 0 || n_dims > GGUF_MAX_DIMS) {
        *good = false;
        DIL_TRY(gguf_defect(r->sink, r->s, start, "%s: number of dimensions: wanted 1 to 4, found %u", r->subject, n_dims));
        return take(r, (uint64_t)n_dims * sizeof(uint64_t), N_("dimensions"), &skipped);
    }
    t->n_dims = (int)n_dims;
    for (uint32_t i = 0; i < n_dims; i++) {
        start = r->at;
        DIL_TRY(take_u64(r, N_("dimension"), &t->ne[i]));
        if (*good && (t->ne[i] == 0 || t->ne[i] > INT64_MAX)) {
            *good = false;
            DIL_TRY(gguf_defect(r->sink, r->s, start, "%s: dimension %u: wanted a positive number, found %" PRId64, r->subject, i,
                                (int64_t)t->ne[i]));
        }
        if (*good && (!checked_mul_u64(n_values, t->ne[i], &n_values) || n_values > INT64_MAX)) {
            *good = false;
            DIL_TRY(gguf_defect(r->sink, r->s, start, "%s: dimension %u: the number of elements overflows 63 bits with %" PRIu64,
                                r->subject, i, t->ne[i]));
        }
    }
    return DIL_OK;
}

static dil_status check_type(reader *r, gguf_tensor *t, uint32_t type, uint64_t offset, bool *good)
{
    const format *f = type < DIL_TYPE_COUNT ? format_get((dil_type)type) : NULL;
    uint64_t row_bytes;
    if (!f || !f->name || f->block_values == 0) {
        *good = false;
        return gguf_defect(r->sink, r->s, offset, "%s: type: wanted a known tensor type, found number %u", r->subject, type);
    }
    t->type = (dil_type)type;
    if (!*good)
        return DIL_OK;
    if (t->ne[0] % f->block_values != 0) {
        *good = false;
        return gguf_defect(r->sink, r->s, offset, "%s: row length: wanted a multiple of %u for type %s, found %" PRIu64, r->subject,
                           f->block_values, f->name, t->ne[0]);
    }
    if (!format_row_bytes(t->type, t->ne[0], &row_bytes) ||
        !checked_mul_u64(row_bytes, t->ne[1] * t->ne[2] * t->ne[3], &t->size_bytes) || t->size_bytes > INT64_MAX) {
        *good = false;
        t->size_bytes = 0;
        return gguf_defect(r->sink, r->s, offset,
                           "%s: size: wanted less than 2^63 bytes, found %" PRIu64 " rows of %" PRIu64 " values of type %s",
                           r->subject, t->ne[1] * t->ne[2] * t->ne[3], t->ne[0], f->name);
    }
    return DIL_OK;
}

/* Reads one directory entry. t->offset stays relative to the data section; t->size_bytes is 0 after
 * a defect. */
static dil_status read_tensor(reader *r, uint64_t number)
{
    gguf_tensor *t = &r->s->tensors[number];
    char shown[GGUF_SHOWN];
    uint64_t start = r->at;
    uint32_t type;
    bool good = true;
    snprintf(r->subject, sizeof r->subject, _("tensor number %" PRIu64), number);
    DIL_TRY(take_str(r, N_("name"), &t->name));
    DIL_TRY(check_name(r, N_("name"), t->name, start, GGUF_MAX_NAME));
    snprintf(r->subject, sizeof r->subject, "tensor %s", gguf_show(t->name, shown));
    t->shard = r->s->number;
    DIL_TRY(read_shape(r, t, &good));
    start = r->at;
    DIL_TRY(take_u32(r, N_("type"), &type));
    DIL_TRY(check_type(r, t, type, start, &good));
    start = r->at;
    DIL_TRY(take_u64(r, N_("offset"), &t->offset));
    if (t->offset % r->s->alignment != 0) {
        good = false;
        DIL_TRY(gguf_defect(r->sink, r->s, start, "%s: offset: wanted a multiple of the alignment %" PRIu64 ", found %" PRIu64,
                            r->subject, r->s->alignment, t->offset));
    }
    if (!good)
        t->size_bytes = 0;
    return DIL_OK;
}

/* Where the directory entry of t begins. */
static uint64_t entry_offset(const gguf_shard *s, const gguf_tensor *t)
{
    return (uint64_t)((const uint8_t *)t->name.p - s->bytes) - sizeof(uint64_t);
}

/* Relative offsets -> absolute ones and pointers; every byte of every tensor must be in the file.
 */
static dil_status place_tensors(reader *r)
{
    gguf_shard *s = r->s;
    char shown[GGUF_SHOWN];
    uint64_t end;
    if (!checked_round_up_u64(r->at, s->alignment, &s->data_offset))
        return gguf_fatal(r->sink, s, r->at, "data section: its beginning overflows with alignment %" PRIu64, s->alignment);
    for (uint64_t i = 0; i < s->n_tensors; i++) {
        gguf_tensor *t = &s->tensors[i];
        if (t->size_bytes == 0)
            continue;
        uint64_t relative = t->offset;
        if (!checked_add_u64(s->data_offset, relative, &t->offset) || !checked_add_u64(t->offset, t->size_bytes, &end) ||
            end > s->size_bytes) {
            DIL_TRY(gguf_defect(r->sink, s, entry_offset(s, t),
                                "tensor %s: data: wanted %" PRIu64 " bytes from byte %" PRIu64
                                " of the data section, found a file of %" PRIu64 " bytes",
                                gguf_show(t->name, shown), t->size_bytes, relative, s->size_bytes));
            t->size_bytes = 0;
            continue;
        }
        t->data = r->g->header_only ? NULL : s->bytes + t->offset;
    }
    return DIL_OK;
}

/* Restores the heap property below root: order[] holds tensor numbers, the one with the largest
 * offset on top. */
static void sift_down(const gguf_tensor *t, uint32_t *order, uint64_t root, uint64_t n)
{
    for (uint64_t child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && t[order[child + 1]].offset > t[order[child]].offset)
            child++;
        if (t[order[root]].offset >= t[order[child]].offset)
            return;
        uint32_t swap = order[root];
        order[root] = order[child];
        order[child] = swap;
    }
}

/* Heap sort by offset: no allocation, no bad case. */
static void sort_by_offset(const gguf_tensor *t, uint32_t *order, uint64_t n)
{
    for (uint64_t i = n / 2; i-- > 0;)
        sift_down(t, order, i, n);
    for (uint64_t i = n; i-- > 1;) {
        uint32_t swap = order[0];
        order[0] = order[i];
        order[i] = swap;
        sift_down(t, order, 0, i);
    }
}

static dil_status check_overlap(reader *r)
{
    const gguf_tensor *t = r->s->tensors;
    char shown[2][GGUF_SHOWN];
    arena_mark mark = arena_mark_get(r->g->memory);
    uint32_t *order = arena_alloc(r->g->memory, (size_t)r->s->n_tensors * sizeof *order);
    uint64_t n = 0;
    if (!order)
        return no_memory(r);
    for (uint64_t i = 0; i < r->s->n_tensors; i++)
        if (t[i].size_bytes > 0)
            order[n++] = (uint32_t)i;
    sort_by_offset(t, order, n);
    dil_status st = DIL_OK;
    for (uint64_t i = 1; i < n && st == DIL_OK; i++) {
        const gguf_tensor *a = &t[order[i - 1]], *b = &t[order[i]];
        if (b->offset < a->offset + a->size_bytes)
            st = gguf_defect(r->sink, r->s, entry_offset(r->s, b),
                             "tensor %s: data: wanted to begin at byte %" PRIu64 " or later, found an overlap "
                             "with tensor %s",
                             gguf_show(b->name, shown[0]), a->offset + a->size_bytes, gguf_show(a->name, shown[1]));
    }
    arena_reset(r->g->memory, mark);
    return st;
}

dil_status gguf_read_shard(gguf *g, gguf_shard *s, gguf_sink *sink)
{
    reader r = {.g = g, .s = s, .sink = sink};
    DIL_TRY(read_header(&r));
    for (uint64_t i = 0; i < s->n_values; i++)
        DIL_TRY(read_value(&r, i));
    DIL_TRY(read_alignment(&r));
    for (uint64_t i = 0; i < s->n_tensors; i++)
        DIL_TRY(read_tensor(&r, i));
    DIL_TRY(place_tensors(&r));
    DIL_TRY(check_overlap(&r));
    s->complete = true;
    return DIL_OK;
}
