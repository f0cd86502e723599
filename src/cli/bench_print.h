/* How dil bench shows a result: one row in the format of llama-bench, and what the machine can do at most. */
#ifndef CLI_BENCH_PRINT_H
#define CLI_BENCH_PRINT_H

#include "evaluate/bench.h"

typedef enum bench_format { BENCH_MD, BENCH_CSV, BENCH_JSON, BENCH_JSONL, BENCH_SQL } bench_format;

/* "md", "csv", ...; NULL: md. */
bool bench_find_format(const char *text, bench_format *out);

void bench_print_head(bench_format f);
/* timing: the objects of json and jsonl have the time per kind of step too. */
void bench_print_row(bench_format f, engine *e, const bench_result *r, const machine_limits *l, bool timing, bool first);
void bench_print_end(bench_format f, const machine_limits *l);

#endif
