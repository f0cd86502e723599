/*
 * What the kernels take on this machine, measured one by one where their data is at hand: the numbers from which the speed of any
 * model can be told. All are seconds of one thread while every thread of the team does the same, so that units and clock are shared
 * as in a run. Data from far away takes the time of its bytes instead, see machine_read_rate.
 */
#ifndef MACHINE_COSTS_H
#define MACHINE_COSTS_H

#include "base/threads.h"
#include "kernels/kernels.h"
#include "machine/machine.h"

/*
 * A panel of k columns. gemv takes n = 1..GEMV_TOKENS tokens: (row + k * value) + (n - 1) * k * more. gemm takes any n: n * output + k * g(n), where
 * g was measured at some numbers of tokens, goes straight between them and on in proportion beyond the last: kernels have other ways
 * for few tokens than for many. All 0 where the format has no kernel.
 */
#define COST_GEMM_POINTS 5
typedef struct linear_cost {
    double row, value, more;
    double output, gemm[COST_GEMM_POINTS];
    double stall,
        stall_few; /* how much of the time that far panels take to be read comes on top of arithmetic, with 1 and with 8 tokens: 0 none, 1 all */
} linear_cost;
int32_t cost_gemm_tokens(int point); /* 8, 16, 32, 64, 256 */

/* A page of KV_PAGE cached tokens (K and V of one head) met by n rows of queries of head_dim values: page + head_dim * page_value +
 * n * (row + head_dim * row_value). */
typedef struct attention_cost {
    double page, page_value, row, row_value;
} attention_cost;

/* Of one value of a row. */
typedef struct vector_cost {
    double norm, quantize, round_bf16, add, rope, hadamard;
    double act[3]; /* silu, gelu, swiglu_oai: act(gate) * up */
    double angle;  /* a cosine and a sine */
} vector_cost;

typedef struct kernel_costs {
    linear_cost linear[DIL_TYPE_COUNT];
    attention_cost attention[DIL_TYPE_COUNT]; /* by type of K and V */
    double store[DIL_TYPE_COUNT];             /* a value of K or V */
    vector_cost vector;
    double start; /* of going on with far panels somewhere else, for one token: what is fetched ahead begins anew */
} kernel_costs;

#define COSTS_FAR_BYTES ((uint64_t)96 << 20) /* panels that are far away: all threads together, less where memory is small */

/* Seconds of arithmetic that takes `units` on operands whose reading takes `bytes`, of a kernel with that stall. */
double cost_together(double units, double bytes, double stall);

/* `seconds` for each number and round; some two hundred are measured, three times. Progress may be NULL and cancels when it says false. */
DIL_MUST_CHECK dil_status costs_measure(kernel_costs *out, const machine *m, const kernels *k, team *workers, double seconds,
                                        dil_progress_fn progress, void *user, dil_error *err);

/* Two formats of weights (or twice the same) and those of K and V; so many bytes are far away, with a pause of so many seconds before each time they are read. */
typedef struct costs_wanted {
    dil_type weights[2], k, v;
    uint64_t far_bytes;
    double pause;
} costs_wanted;

/* These alone, just now: what they mostly take, not at best. The rest of out is zeroed. Some tenths of a second. */
DIL_MUST_CHECK dil_status costs_measure_now(kernel_costs *out, const machine *m, const kernels *k, team *workers,
                                            const costs_wanted *wanted, dil_error *err);

/* Seconds of one thread; n tokens through a panel of k columns as the engine chooses the kernel. */
double cost_panel(const linear_cost *l, const kernels *k, dil_type type, int64_t columns, int32_t n_tokens);
double cost_gemm(const linear_cost *l, int64_t columns, int32_t n_tokens); /* of gemm, whatever the engine would take */
double cost_stall(const linear_cost *l, int32_t n_tokens);

#endif
