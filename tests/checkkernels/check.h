/*
 * What the files of checkkernels share: the level under test, names and failures, guarded memory, random data.
 * A check compares kernels of the level with scalar (scalar itself with arithmetic in double), on memory that ends at a page
 * without access, and reports by check_fail. Checks never stop at the first failure of another kernel.
 */
#ifndef CHECK_H
#define CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

typedef struct check {
    const kernels *level;  /* under test */
    const kernels *scalar; /* the reference */
    bool is_scalar;
    const char *filter; /* only names that hold this; NULL: all */
    bool list;          /* print names, run nothing */
    int n_run, n_failed;
    bool current_failed;
} check;

/* Runs body(c, arg) as the check `name` with crashes caught. */
void check_run(check *c, const char *name, void (*body)(check *c, int arg), int arg);
/* One line about the current kernel; only the first few are printed. */
void check_fail(check *c, const char *text, ...) __attribute__((format(printf, 2, 3)));

void check_linear_all(check *c);
void check_vector_all(check *c);
void check_attention_all(check *c);
void check_peak_all(check *c);
void check_training_all(check *c);
void bench_all(const kernels *level, const char *filter);

/* ---- guarded memory: the last byte is the last of its page, behind it lies a page without access ---- */
typedef struct guarded {
    uint8_t *base; /* of the mapping */
    size_t mapped_bytes;
    void *p;
    size_t bytes;
} guarded;

/* align: 1, 4 or 64; the end is moved forward by less than align. Filled with 0xff: NaN as floats, -1 as bytes. */
guarded guarded_new(size_t bytes, size_t align);
/* Frees. False when the bytes before p were written. */
bool guarded_free(guarded *g);

/* ---- random data ---- */
typedef enum data_kind {
    DATA_NORMAL,
    DATA_MAX,    /* the largest quants and scales, signs alternating */
    DATA_ZERO,   /* all bits 0 */
    DATA_TINY,   /* subnormal scales */
    DATA_TOP,    /* every quant bit set, activations all the same: sums as large as they get */
    DATA_BOTTOM, /* quant bytes 0x80, activations all the same and negative */
    DATA_EDGE,   /* products at the smallest normal number: 2^-126, +-2^-138, 2^-150 */
    DATA_WILD,   /* every bit random: infinities and NaN too */
    DATA_KINDS
} data_kind;

uint32_t random_u32(void);
float random_float(void); /* roughly normal */
void random_seed(uint64_t seed);
void random_floats(float *f, size_t n, data_kind kind);
/* n values of a row in GGUF layout, n a multiple of the type's block. */
void random_row(dil_type type, void *row, size_t n, data_kind kind);

bool same_bits(float a, float b); /* or both NaN */
const char *type_name(dil_type type);

#endif
