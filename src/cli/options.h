/*
 * One table of options for all commands: names, arguments, ranges, help, environment. It is parsed by getopt_long_only, and
 * --help, shell completion and the man page are made from it.
 */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include "base/events.h"
#include "dilmodeli.h"
#include "experts/policy.h"
#include "formats/formats.h"

#define CLI_MAX_LIST 64

/* The values of an option that takes several, as bench's do: "1,2,4" or a range "1-4", "0-64+16", "1-16*2". n 0: not given. */
typedef struct cli_numbers {
    int n;
    int64_t v[CLI_MAX_LIST];
} cli_numbers;

/* Every value an option can set; commands read what they listed. */
typedef struct cli_options {
    const char *model, *prompt, *file, *system, *cpu, *output, *base, *type, *tokens, *save_base, *sha256, *compare, *policy,
        *budget, *theme, *lang, *preset, *stats, *calibration, *like, *report, *trace_events, *tokenizer;
    int64_t n_predict, context, threads, batch, micro_batch, seed, top_k, repeat_last_n, dry_allowed_length, dry_last_n, mirostat,
        chunks, tasks, prompt_tokens, gen_tokens, depth, repeats, parallel, steps, remove_layers, refine, resamples, layer, frame,
        frames;
    double temperature, top_p, min_p, typical_p, repeat_penalty, presence_penalty, frequency_penalty, dry_multiplier, dry_base,
        xtc_probability, xtc_threshold, mirostat_tau, mirostat_eta, route_mass, bits, remove_experts, remove_neurons, remove_blocks,
        quality_budget, speed_price, seconds, least_each;
    uint64_t memory_bytes, experts_memory, size_bytes;
    dil_type type_k, type_v;
    policy_kind experts_policy;
    int route; /* a route_mode */
    bool machine, explain, no_profile, json, no_template, no_special, no_pack_cache, timing, help, tensors, quiet, exact,
        ignore_eos, dry_run, no_limits, layers, resume, fast, full, no_keep_stock, lowercase;
    const char *stops[CLI_MAX_LIST];
    const char *biases[CLI_MAX_LIST];
    const char *pairs[CLI_MAX_LIST];
    const char *hypotheses[CLI_MAX_LIST];
    const char *references[CLI_MAX_LIST];
    int n_stops, n_biases, n_pairs, n_hypotheses, n_references;
    uint32_t given[8]; /* bits of the rows that were set, see options_given */
    cli_numbers prompts, gens, depths, thread_counts, micro_batches, parallels, types_k, types_v; /* commands with lists only */
    events *events; /* with trace_events, which main opens and writes: what the command's engines record */
} cli_options;

typedef enum option_kind {
    OPTION_FLAG,
    OPTION_INT,
    OPTION_FLOAT,
    OPTION_TEXT,
    OPTION_LIST,
    OPTION_BYTES,
    OPTION_BYTES_AUTO, /* or "auto": UINT64_MAX */
    OPTION_POLICY,
    OPTION_ROUTE,
    OPTION_KV_TYPE
} option_kind;

typedef struct option_row {
    const char *name;  /* "n-predict": --n-predict */
    const char *alias; /* "n": -n; NULL: none */
    const char *arg;   /* what --help calls the argument; NULL: a flag */
    option_kind kind;
    size_t offset;      /* in cli_options */
    double least, most; /* range of numbers */
    const char *help;
} option_row;

/* The row of that name; "layers=N": of those of one name, the one with this argument. NULL: none. */
const option_row *option_find(const char *name);

typedef struct cli_command {
    const char *name, *usage, *summary, *example;
    const char *const *options;            /* names from the table, NULL-terminated */
    int least_positional, most_positional; /* most -1: any */
    bool model_argument;                   /* the model may be the argument instead of -m */
    bool lists;                            /* some numbers may be lists */
    int (*run)(const cli_options *o, char **positional, int n_positional);
} cli_command;

/* Parses argv[1..] for a command; prints the reason and returns false on bad usage. Positionals are moved to the front. */
bool options_parse(cli_options *out, const cli_command *c, int argc, char **argv, int *n_positional);
/* Whether the command line or the environment set it. */
bool options_given(const cli_options *o, const char *name);
/* Sets the option of that name as the command line would; prints the reason and returns false on a bad value. */
bool options_set(cli_options *o, const char *name, const char *text);
void options_print_help(const cli_command *c);

#endif
