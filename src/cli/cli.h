/* What the commands share: names of models, opening engines, progress and errors on the terminal. Only this module prints. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "base/str.h"
#include "cli/options.h"
#include "engine/engine.h"
#include "sampling/sampler.h"
#include "tune/memory.h"

/* Exit codes. */
enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

/* Prints "dil: text" and returns CLI_FAILED. */
int cli_fail(const dil_error *err);
int cli_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* MODEL as a path: as it is when such a file exists, else <data>/<name>.gguf; an error lists what is there. */
DIL_MUST_CHECK dil_status cli_model_path(const char *name, char *out, size_t n, dil_error *err);

/* The model a command is about: its argument, or -m as elsewhere; NULL when neither was given, which is told (exit with CLI_USAGE). */
const char *cli_model_named(const cli_options *o, char **positional, int n_positional);

/* The engine the options describe; fills only what was given. */
engine_options cli_engine_options(const cli_options *o);
DIL_MUST_CHECK dil_status cli_open(engine **out, const cli_options *o, const engine_options *eo, dil_error *err);
/* With --memory, changes of eo what nobody asked for until the model fits; says what it chose, on standard error. */
DIL_MUST_CHECK dil_status cli_fit_memory(const cli_options *o, engine_options *eo, dil_error *err);
/* "-c 1024 -ctk q8_0": what a plan for less memory changed, as options. */
void cli_memory_text(char *out, size_t n, const engine_options *eo, const memory_report *r);
memory_freedom cli_memory_freedom(const cli_options *o);
DIL_MUST_CHECK dil_status cli_sampler_options(sampler_options *out, const cli_options *o, sampler_bias biases[CLI_MAX_LIST],
                                              dil_error *err);
/* The text of -p, -f or standard input [owned: free with mem_free]. */
DIL_MUST_CHECK dil_status cli_text(const cli_options *o, bool from_stdin, char **out, size_t *n, dil_error *err);

/* The text of a file, or of standard input for "-" [owned: free with mem_free]. */
DIL_MUST_CHECK dil_status cli_read_text(const char *path, char **out, size_t *n, dil_error *err);

/*
 * Before long work: BAD_ARGUMENT when the file to be written is one of those the command reads or writes besides (n of them, entries may be
 * NULL), IO when it cannot be made where it shall stand. what: "the report". A path of NULL is none.
 */
DIL_MUST_CHECK dil_status cli_check_output(const char *what, const char *path, const char *const *others, int n, dil_error *err);

/* A progress line on the terminal, with speed and remaining time; silent when standard error is not a terminal. Ctrl-C cancels. */
bool cli_progress(void *user, const char *what, uint64_t done, uint64_t total);
void cli_progress_end(void);

/* Time per kind of step since the engine was opened, or compute_times_reset (it must have been opened with timing): a table on
 * standard error; "timing": {...} on standard output. */
void cli_print_timing(engine *e);
void cli_print_json_timing(engine *e);
/* What the expert pool and the way of choosing experts did, on standard error; nothing for models that use neither. */
void cli_print_experts(engine *e);

/* JSON string escaping onto standard output. */
void cli_print_json_string(str s);

/* Options of every command that generates text, in the order of their help. */
/* clang-format off */
#define GENERATE_OPTIONS \
    "system", "n-predict", "ctx-size", "threads", "batch-size", "ubatch-size", "cache-type-k", "cache-type-v", \
    "seed", "temp", "top-k", "top-p", "min-p", "typical", "repeat-penalty", "repeat-last-n", "presence-penalty", \
    "frequency-penalty", "dry-multiplier", "dry-base", "dry-allowed-length", "dry-penalty-last-n", \
    "xtc-probability", "xtc-threshold", "mirostat", "mirostat-ent", "mirostat-lr", "logit-bias", "stop", \
    "ignore-eos", "memory", "experts-memory", "experts-policy", "route", "route-mass", "no-pack-cache", "no-profile", "cpu", "no-template", "timing", \
    "trace-events", "quiet"
/* Options of every command that only reads what a model makes of texts. */
#define EVALUATE_OPTIONS \
    "ctx-size", "threads", "batch-size", "ubatch-size", "cache-type-k", "cache-type-v", "cpu", "memory", "experts-memory", \
    "experts-policy", "route", "route-mass", "no-pack-cache", "exact", "timing", "trace-events"
/* clang-format on */

extern const cli_command command_run, command_chat, command_show, command_check, command_plan, command_tokenize, command_detokenize,
    command_eval_perplexity, command_eval_kld, command_eval_hellaswag, command_eval_logits, command_eval_bleu, command_eval_outputs,
    command_bench, command_quantize, command_refine, command_calibrate, command_pull, command_list, command_rm, command_import,
    command_theorem, command_trace, command_tune, command_route, command_train, command_export, command_view, command_prune;

#endif
