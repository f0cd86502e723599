/* metrics.csv: a header line, then a line per step, in the file as soon as the step is done. */
#ifndef TRAIN_LOG_H
#define TRAIN_LOG_H

#include "train/loop.h"

typedef struct metrics metrics;

/*
 * Columns: step, tokens, seconds, tokens_per_second, gflops, lr, gradient_norm, loss, ce, z_loss, balance, cache, swarm, nash,
 * router_z, entropy, violation, load_min, load_max; for every source bpb_<source> (bits per byte of its held-out part) and the measures of train_routing; a cell is empty where
 * nothing was measured. keep_bytes 0: a new file replaces what there is. Else the run goes on: the file is cut to keep_bytes;
 * FORMAT when it is shorter, IO when it is missing. n_experts 0: the columns of experts stay empty. [owned: free with metrics_close]
 */
DIL_MUST_CHECK dil_status metrics_open(metrics **out, const char *path, const train_config *c, uint64_t keep_bytes, dil_error *err);
DIL_MUST_CHECK dil_status metrics_add(metrics *m, const train_progress *p, dil_error *err);
/* All lines so far are on the disk; *bytes: the file's length. */
DIL_MUST_CHECK dil_status metrics_sync(metrics *m, uint64_t *bytes, dil_error *err);
void metrics_close(metrics *m); /* NULL is allowed */

#endif
