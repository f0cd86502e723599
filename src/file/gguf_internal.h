/*
 * Shared by the files of this module only: the opened directory, the name index, and how a defect
 * is told. Tests and the fuzzers include it for gguf_open_memory and gguf_check_memory.
 */
#ifndef FILE_GGUF_INTERNAL_H
#define FILE_GGUF_INTERNAL_H

#include "base/mem.h"
#include "file/gguf.h"
#include "file/name_index.h"

#define GGUF_DEFAULT_ALIGNMENT 32u
#define GGUF_MIN_ALIGNMENT 8u
#define GGUF_MAX_VALUES (1u << 20)
#define GGUF_MAX_KEY 65535u
#define GGUF_MAX_NAME 64u
#define GGUF_HEADER_BYTES 24u     /* magic, version, tensor count, key count */
#define GGUF_MIN_VALUE_BYTES 14u  /* length, one character, kind, one byte */
#define GGUF_MIN_TENSOR_BYTES 33u /* length, one character, dimension count, one dimension, type, offset */
#define GGUF_SHOWN 112            /* bytes of a name prepared for a message */

typedef struct gguf_entry {
    gguf_value v;
    str text;        /* what v.data points to when it is a string */
    void *converted; /* an aligned or widened copy of an array, made when a getter first needs it */
} gguf_entry;

typedef struct gguf_shard {
    const char *path;
    os_file file;         /* fd -1: opened from memory, or absent */
    const uint8_t *bytes; /* the whole file; NULL: absent (gguf_check goes on without it) */
    uint64_t size_bytes;
    int number;
    bool complete; /* read to its end */
    uint32_t version;
    uint64_t alignment, data_offset;
    uint64_t n_values, n_tensors;
    gguf_entry *entries; /* [n_values] */
    name_index keys;
    gguf_tensor *tensors; /* [n_tensors]; size_bytes 0: found defective by gguf_check */
} gguf_shard;

struct gguf {
    arena *memory;
    const char *path;
    bool header_only;
    int n_shards;
    gguf_shard *shards; /* [n_shards]; the metadata is that of shard 0 */
    uint64_t n_tensors;
    gguf_tensor *tensors; /* [n_tensors], all shards */
    name_index names;
};

/* Where defects go: without report the first one ends the reading and fills err; with it, each is
 * reported and counted. */
typedef struct gguf_sink {
    gguf_report_fn report;
    void *ctx;
    dil_error *err;
    uint64_t n_defects;
    bool many_shards; /* reports then begin with the shard's name */
} gguf_sink;

/* A defect after which reading may go on: DIL_OK when reporting, else DIL_FORMAT. */
DIL_MUST_CHECK dil_status gguf_defect(gguf_sink *sink, const gguf_shard *s, uint64_t offset, const char *text_format, ...)
    __attribute__((format(printf, 4, 5)));
/* Reports or, without report, fills sink->err. */
void gguf_tell(gguf_sink *sink, const gguf_shard *s, uint64_t offset, const char *text_format, ...)
    __attribute__((format(printf, 4, 5)));
/* A defect after which nothing that follows can be found: always DIL_FORMAT. */
#define gguf_fatal(...) (gguf_tell(__VA_ARGS__), DIL_FORMAT)
/* A name from the file made safe for a terminal, quoted and cut; returns out. */
const char *gguf_show(str name, char out[GGUF_SHOWN]);
const char *gguf_kind_name(gguf_kind kind); /* [static] */
uint32_t gguf_kind_bytes(gguf_kind kind);   /* 0 for strings and arrays */

/* gguf_read.c: header, metadata and tensor directory of one shard. */
DIL_MUST_CHECK dil_status gguf_read_shard(gguf *g, gguf_shard *s, gguf_sink *sink);
/* gguf_open.c: all shards, then the union of their tensors. *g is set even on failure once it
 * exists; free with gguf_close. */
DIL_MUST_CHECK dil_status gguf_load(gguf **g, const char *path, const void *bytes, size_t n, bool header_only, gguf_sink *sink);
/* gguf_check.c: metadata that loaders rely on. */
DIL_MUST_CHECK dil_status gguf_check_values(const gguf *g, gguf_sink *sink);
/* gguf_scan.c: reads every tensor and looks for NaN and infinity in values and block scales. */
DIL_MUST_CHECK dil_status gguf_check_data(const gguf *g, gguf_sink *sink, dil_progress_fn progress, void *user);
/* Index of the first block of [0, n_blocks) with a scale or value that is not finite, or n_blocks.
 * type has a format. */
uint64_t gguf_scan_blocks(dil_type type, const uint8_t *data, uint64_t n_blocks);

/* gguf_get.c: the i-th integer (or BOOL) of v as sign and magnitude; false when v holds something
 * else. */
bool gguf_value_integer(const gguf_value *v, uint64_t i, bool *negative, uint64_t *magnitude);

/* A single-shard file that lies in memory [borrowed until gguf_close]; for tests and fuzzers. */
DIL_MUST_CHECK dil_status gguf_open_memory(gguf **out, const void *bytes, size_t n, const gguf_options *options, dil_error *err);
DIL_MUST_CHECK dil_status gguf_check_memory(const void *bytes, size_t n, gguf_report_fn report, void *ctx, dil_error *err);

#endif
