/*
 * GGUF v2/v3: untrusted bytes -> a checked directory of metadata and tensors, and back. Every
 * count, length and offset is bounded by the bytes that are really there before it is used; a bad
 * file gives DIL_FORMAT with the byte offset, the name, what was wanted and what was found. Tensor
 * data is mapped, never copied. Split files (-00001-of-000NN) open as one.
 */
#ifndef FILE_GGUF_H
#define FILE_GGUF_H

#include "base/os.h"
#include "base/str.h"
#include "dilmodeli.h"
#include "formats/formats.h"

#define GGUF_MAX_DIMS 4
#define GGUF_MAX_TENSORS (1u << 20)
#define GGUF_MAX_STRING (64u << 20)
#define GGUF_MAX_SHARDS 1024

typedef enum gguf_kind {
    GGUF_U8 = 0,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64
} gguf_kind;

/* A metadata entry, borrowed from the gguf. */
typedef struct gguf_value {
    str key;
    gguf_kind kind;
    gguf_kind element; /* of an array; else equal to kind */
    uint64_t count;    /* elements of an array; else 1 */
    const void *data;  /* numbers: unaligned little-endian values; strings: `const str *`; arrays of
                          strings likewise */
    uint64_t offset;   /* byte offset of the key in the file, for messages */
} gguf_value;

typedef struct gguf_tensor {
    str name;
    dil_type type;
    int n_dims;
    uint64_t ne[GGUF_MAX_DIMS]; /* ne[0] is the row length; unused dims are 1 */
    uint64_t size_bytes;
    uint64_t offset; /* absolute, in its shard */
    int shard;
    const void *data; /* mapped; NULL when opened without data */
} gguf_tensor;

typedef struct gguf gguf;

typedef struct gguf_options {
    bool header_only; /* tensors' data stays NULL: nobody will read it (dil plan) */
    bool deep;        /* dil check: also read every tensor and look for NaN/Inf scales and values */
} gguf_options;

/* options may be NULL. [owned: free with gguf_close] */
DIL_MUST_CHECK dil_status gguf_open(gguf **out, const char *path, const gguf_options *options, dil_error *err);
void gguf_close(gguf *g);

/* Every defect of a file, one call of report per defect, with its byte offset (text begins with the
 * part's name when the file is split); OK when none was found, else DIL_FORMAT. Goes on after a
 * defect where it can. Stopped by progress: DIL_CANCELLED. */
typedef void (*gguf_report_fn)(void *ctx, uint64_t offset, const char *text);
DIL_MUST_CHECK dil_status gguf_check(const char *path, gguf_report_fn report, void *ctx, dil_progress_fn progress, void *user,
                                     dil_error *err);

const char *gguf_path(const gguf *g);
uint32_t gguf_version(const gguf *g);
uint64_t gguf_size_bytes(const gguf *g); /* of all shards */
int gguf_shards(const gguf *g);
const os_file *gguf_shard_file(const gguf *g, int shard);
/* The bytes before the tensors' data; mapped: a truncated file faults (os_guard). */
str gguf_shard_header(const gguf *g, int shard);

/* Pages of the tensors' data that are in memory may go: they come back from the file when somebody reads them. */
void gguf_drop(const gguf *g);

uint64_t gguf_n_values(const gguf *g);
const gguf_value *gguf_value_at(const gguf *g, uint64_t i);
const gguf_value *gguf_find(const gguf *g, const char *key); /* NULL when absent */

/* Typed getters. An absent key leaves *inout as it is (the default) and is OK; a value of another
 * kind or outside the target's range is DIL_FORMAT and names the key. Integers of any width and
 * sign are accepted where they fit; floats accept F32 and F64. */
DIL_MUST_CHECK dil_status gguf_get_u32(const gguf *g, const char *key, uint32_t *inout, dil_error *err);
DIL_MUST_CHECK dil_status gguf_get_u64(const gguf *g, const char *key, uint64_t *inout, dil_error *err);
DIL_MUST_CHECK dil_status gguf_get_i32(const gguf *g, const char *key, int32_t *inout, dil_error *err);
DIL_MUST_CHECK dil_status gguf_get_f32(const gguf *g, const char *key, float *inout, dil_error *err);
DIL_MUST_CHECK dil_status gguf_get_bool(const gguf *g, const char *key, bool *inout, dil_error *err);
DIL_MUST_CHECK dil_status gguf_get_str(const gguf *g, const char *key, str *inout, dil_error *err);
/* Arrays: *out borrowed until gguf_close. An absent key gives n = 0. The two numeric ones may make
 * an aligned copy on first use: everything else of an open gguf may be read by many threads at
 * once, these by one. */
DIL_MUST_CHECK dil_status gguf_get_strings(const gguf *g, const char *key, const str **out, uint64_t *n, dil_error *err);
DIL_MUST_CHECK dil_status gguf_get_f32_array(const gguf *g, const char *key, const float **out, uint64_t *n,
                                             dil_error *err); /* element kind F32 */
DIL_MUST_CHECK dil_status gguf_get_i32_array(const gguf *g, const char *key, const int32_t **out, uint64_t *n,
                                             dil_error *err); /* I32 or U32 that fit, or BOOL/8/16 bit widened */

uint64_t gguf_n_tensors(const gguf *g);
const gguf_tensor *gguf_tensor_at(const gguf *g, uint64_t i);
const gguf_tensor *gguf_tensor_find(const gguf *g, const char *name); /* hashed; NULL when absent */

/* Writer: collects metadata and tensor shapes, then streams the data in the same order; the file
 * appears on finish only. */
typedef struct gguf_writer gguf_writer;
DIL_MUST_CHECK dil_status gguf_writer_new(gguf_writer **out, const char *path, dil_error *err);
/* All values but those named, and never the split.* ones, which describe the file read. */
DIL_MUST_CHECK dil_status gguf_writer_copy_values(gguf_writer *w, const gguf *from, const char *const *except, int n_except,
                                                  dil_error *err);
/* Those whose keys begin with prefix ("tokenizer.") and do not begin with except (NULL: none). */
DIL_MUST_CHECK dil_status gguf_writer_copy_prefixed(gguf_writer *w, const gguf *from, const char *prefix, const char *except,
                                                    dil_error *err);
/* An array of another file under its key, with elements at[0 .. n) only. BAD_ARGUMENT: not an array that has them. */
DIL_MUST_CHECK dil_status gguf_writer_set_elements(gguf_writer *w, const gguf_value *v, const uint64_t *at, uint64_t n,
                                                   dil_error *err);
DIL_MUST_CHECK dil_status gguf_writer_set_u32(gguf_writer *w, const char *key, uint32_t v, dil_error *err);
DIL_MUST_CHECK dil_status gguf_writer_set_i32(gguf_writer *w, const char *key, int32_t v, dil_error *err);
DIL_MUST_CHECK dil_status gguf_writer_set_f32(gguf_writer *w, const char *key, float v, dil_error *err);
DIL_MUST_CHECK dil_status gguf_writer_set_bool(gguf_writer *w, const char *key, bool v, dil_error *err);
DIL_MUST_CHECK dil_status gguf_writer_set_str(gguf_writer *w, const char *key, str v, dil_error *err);
DIL_MUST_CHECK dil_status gguf_writer_set_strings(gguf_writer *w, const char *key, const str *v, uint64_t n, dil_error *err);
DIL_MUST_CHECK dil_status gguf_writer_set_f32_array(gguf_writer *w, const char *key, const float *v, uint64_t n, dil_error *err);
DIL_MUST_CHECK dil_status gguf_writer_set_i32_array(gguf_writer *w, const char *key, const int32_t *v, uint64_t n, dil_error *err);
DIL_MUST_CHECK dil_status gguf_writer_add_tensor(gguf_writer *w, str name, dil_type type, int n_dims, const uint64_t *ne,
                                                 dil_error *err);
/* After the last add_tensor: data of tensor after tensor, in order, in pieces of any size; padding
 * is written for the caller. */
DIL_MUST_CHECK dil_status gguf_writer_data(gguf_writer *w, const void *bytes, size_t n, dil_error *err);
DIL_MUST_CHECK dil_status gguf_writer_finish(gguf_writer *w, dil_error *err); /* frees w either way */
void gguf_writer_abort(gguf_writer *w);                                       /* frees w; NULL allowed */

/* llama2.c checkpoints (seven int32, then F32 weights; tokeniser file with scores) -> GGUF (F32).
 */
DIL_MUST_CHECK dil_status llama2c_import(const char *checkpoint_path, const char *tokenizer_path, const char *out_path,
                                         dil_error *err);

#endif
