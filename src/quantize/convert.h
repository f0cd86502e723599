/*
 * One GGUF file into another whose matrices have one stock type. Owns which tensors are matrices, what a row does that
 * the type cannot hold, and the streaming of rows; the codecs are those of formats, the file those of file.
 */
#ifndef QUANTIZE_CONVERT_H
#define QUANTIZE_CONVERT_H

#include "file/gguf.h"

/* A matrix whose rows are no multiple of the wanted type's block gets the wider type `used`. */
typedef void (*convert_fallback_fn)(void *user, str tensor, uint64_t columns, dil_type used);

/* [columns]: how much an input of that expert's matrix (0: a plain one) counts; NULL: all alike. */
typedef const float *(*convert_importance_fn)(void *user, str tensor, uint64_t expert);

typedef struct convert_options {
    dil_type type;                /* of matrices; it must have an encoder and a number as general.file_type */
    int n_threads;                /* 1..TEAM_MAX */
    bool dry_run;                 /* sizes only; nothing is written */
    dil_progress_fn progress;     /* in bytes of the input's tensors; may be NULL */
    convert_fallback_fn fallback; /* may be NULL */
    void *user;
    convert_importance_fn importance; /* may be NULL */
    void *importance_user;
} convert_options;

typedef struct convert_result {
    uint64_t in_bytes, out_bytes; /* of all tensors */
    uint64_t n_values, n_matrix_values, matrix_bytes;
    uint32_t n_tensors, n_matrices;
    uint32_t n_requantized; /* matrices that were quantized already, with another type */
    uint32_t n_fallback;
} convert_result;

/* general.file_type of a file whose matrices have this type, as llama.cpp numbers them; false: files of that type
 * cannot be written. */
bool convert_file_type(dil_type type, uint32_t *out);
/* "F32, F16, ...": every type that can be written. */
void convert_type_names(strbuf *out);
/* What multiplies activations. Norms, biases and RoPE factors do not, and routers are small and touchy: they stay as they are. */
bool convert_is_matrix(const gguf_tensor *t);
/* BAD_ARGUMENT when out_path is a file of the input, which it would replace. */
DIL_MUST_CHECK dil_status convert_check_paths(const gguf *in, const char *out_path, dil_error *err);
/* The type of a tensor in the output: vectors F32, matrices `type` or a wider one, anything else as it was. */
dil_type convert_tensor_type(const gguf_tensor *t, dil_type type);

/* Metadata is kept but for general.file_type and general.quantization_version; a split input becomes one file. Needs
 * memory for a few rows only. The output appears when it is complete; it must not be the input. Does not change *out on
 * failure. */
DIL_MUST_CHECK dil_status convert_file(convert_result *out, const char *in_path, const char *out_path,
                                       const convert_options *options, dil_error *err);

#endif
