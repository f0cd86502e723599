/*
 * Private to machine: kernels at work on operands of their own, as jobs to be timed. Each worker has tokens in every form, panels and
 * pages at hand, and far_bytes of panels far away; what a job does is told by the fields, amount times over. Knows no seconds.
 */
#ifndef MACHINE_KERNEL_WORK_H
#define MACHINE_KERNEL_WORK_H

#include "machine/job.h"

#define WORK_COLUMNS 2048 /* most */
#define WORK_TOKENS 256   /* most */
#define WORK_PANELS 8     /* of a call */
#define WORK_ROWS 8       /* of WORK_COLUMNS values, in the small jobs */
#define WORK_QUERIES 96   /* most rows of attention */
#define WORK_HEAD_DIM 128 /* most */
#define WORK_ROPE_DIM 64

typedef struct work_operands work_operands;

typedef struct kernel_work {
    const kernels *k;
    dil_type type;
    int64_t columns;               /* of panels; of a head */
    int n;                         /* tokens, or rows of queries */
    int n_panels;                  /* of a call with far panels */
    size_t jump;                   /* from call to call, in calls; without a factor in common with their number all are visited */
    size_t far_bytes;              /* of one worker */
    work_operands *of;             /* [workers] */
    uint8_t *scratch;              /* [workers][scratch_bytes] */
    uint8_t *far;                  /* [workers][far_bytes] */
    size_t scratch_bytes, n_bytes; /* of one; of all that was mapped */
} kernel_work;

/* For n workers, w->far_bytes in all, or what the machine has for that. false: there is no memory. */
bool work_take_room(kernel_work *w, const machine *m, size_t n);
void work_give_room(kernel_work *w);

/* job.work with a kernel_work as ctx. Before anything else: */
void work_fill(job *j, int worker);
void work_fill_far(job *j, int worker);
void work_fill_panels(job *j, int worker); /* of the type */
void work_fill_pages(job *j, int worker);
/* WORK_PANELS panels at hand; all far ones, n_panels a call, or nothing but read. */
void work_gemv(job *j, int worker);
void work_gemm(job *j, int worker);
void work_gemv_far(job *j, int worker);
void work_gemm_far(job *j, int worker);
void work_read_far(job *j, int worker);
/* ATTN_CHUNK pages of K and of V; KV_PAGE tokens of both. */
void work_attend(job *j, int worker);
void work_store(job *j, int worker);
/* WORK_ROWS rows of WORK_COLUMNS values. */
void work_norm(job *j, int worker);
void work_round_rows(job *j, int worker);
void work_add_rows(job *j, int worker);
void work_silu(job *j, int worker);
void work_gelu(job *j, int worker);
void work_swiglu_oai(job *j, int worker);
void work_rotate(job *j, int worker);
void work_quantize(job *j, int worker);
void work_hadamard(job *j, int worker);
void work_angles(job *j, int worker);

#endif
