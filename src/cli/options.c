#include "cli/options.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "base/str.h"
#include "cli/language.h"
#include "cli/print.h"
#include "compute/compute.h"
#include "evaluate/bleu.h"
#include "sampling/sampler.h"

#define AT(field) offsetof(cli_options, field)
#define BIG 9e15

static const option_row table[] = {
    {"model", "m", N_("MODEL"), OPTION_TEXT, AT(model), 0, 0, N_("a GGUF file, or the name of a fetched model (smollm2, gemma3)")},
    {"prompt", "p", N_("TEXT"), OPTION_TEXT, AT(prompt), 0, 0, N_("the prompt")},
    {"file", "f", N_("FILE"), OPTION_TEXT, AT(file), 0, 0, N_("read the text from a file (- : standard input)")},
    {"system", "sys", N_("TEXT"), OPTION_TEXT, AT(system), 0, 0, N_("the system message")},
    {"n-predict", "n", "N", OPTION_INT, AT(n_predict), -1, 1e9,
     N_("tokens to generate at most (-1: until the model stops; default)")},
    {"ctx-size", "c", "N", OPTION_INT, AT(context), 0, 1 << 26,
     N_("context in tokens (0: the model's, at most 4096; calibrating: 512)")},
    {"threads", "t", "N", OPTION_INT, AT(threads), 0, 256, N_("threads (0: one per physical core)")},
    {"batch-size", "b", "N", OPTION_INT, AT(batch), 1, 1 << 20, N_("accepted for compatibility: see --ubatch-size")},
    {"ubatch-size", "ub", "N", OPTION_INT, AT(micro_batch), 0, 1 << 16, N_("tokens per pass over the weights (0: 512)")},
    {"cache-type-k", "ctk", N_("TYPE"), OPTION_KV_TYPE, AT(type_k), 0, 0, N_("K cache: f32, f16 (default), bf16, q8_0, q4_0")},
    {"cache-type-v", "ctv", N_("TYPE"), OPTION_KV_TYPE, AT(type_v), 0, 0, N_("V cache: the same")},
    {"seed", "s", "N", OPTION_INT, AT(seed), -1, BIG, N_("random seed (-1: a new one each time)")},
    {"temp", NULL, "X", OPTION_FLOAT, AT(temperature), 0, 100, N_("temperature (0: always the most probable token)")},
    {"top-k", NULL, "K", OPTION_INT, AT(top_k), 0, 1 << 24, N_("keep the K most probable tokens (0: off)")},
    {"top-p", NULL, "P", OPTION_FLOAT, AT(top_p), 0, 1, N_("keep the fewest tokens of total probability P (1: off)")},
    {"min-p", NULL, "P", OPTION_FLOAT, AT(min_p), 0, 1, N_("drop tokens below P times the most probable (0: off)")},
    {"typical", NULL, "P", OPTION_FLOAT, AT(typical_p), 0, 1, N_("locally typical sampling (1: off)")},
    {"repeat-penalty", NULL, "R", OPTION_FLOAT, AT(repeat_penalty), 0, 100, N_("penalty on repeated tokens (1: off)")},
    {"repeat-last-n", NULL, "N", OPTION_INT, AT(repeat_last_n), -1, BIG, N_("tokens the penalties look back on (-1: all)")},
    {"presence-penalty", NULL, "X", OPTION_FLOAT, AT(presence_penalty), -100, 100, N_("penalty on tokens that occurred (0: off)")},
    {"frequency-penalty", NULL, "X", OPTION_FLOAT, AT(frequency_penalty), -100, 100, N_("penalty per occurrence (0: off)")},
    {"dry-multiplier", NULL, "X", OPTION_FLOAT, AT(dry_multiplier), 0, 100, N_("DRY: penalty on repeated sequences (0: off)")},
    {"dry-base", NULL, "X", OPTION_FLOAT, AT(dry_base), 1, 100, N_("DRY: growth per token")},
    {"dry-allowed-length", NULL, "N", OPTION_INT, AT(dry_allowed_length), 0, 1e6, N_("DRY: repeats up to N tokens are free")},
    {"dry-penalty-last-n", NULL, "N", OPTION_INT, AT(dry_last_n), -1, BIG, N_("DRY: tokens looked back on (-1: all)")},
    {"xtc-probability", NULL, "P", OPTION_FLOAT, AT(xtc_probability), 0, 1, N_("XTC: chance to exclude top choices (0: off)")},
    {"xtc-threshold", NULL, "P", OPTION_FLOAT, AT(xtc_threshold), 0, 1, N_("XTC: what counts as a top choice")},
    {"mirostat", NULL, "N", OPTION_INT, AT(mirostat), 0, 2, N_("2: mirostat version 2 (0: off)")},
    {"mirostat-ent", NULL, "X", OPTION_FLOAT, AT(mirostat_tau), 0, 100, N_("mirostat: target entropy")},
    {"mirostat-lr", NULL, "X", OPTION_FLOAT, AT(mirostat_eta), 0, 10, N_("mirostat: learning rate")},
    {"logit-bias", NULL, "ID(+|-)X", OPTION_LIST, AT(biases), 0, 0, N_("add X to the logit of token ID (repeatable)")},
    {"stop", "r", N_("TEXT"), OPTION_LIST, AT(stops), 0, 0, N_("stop when this text comes (repeatable)")},
    {"ignore-eos", NULL, NULL, OPTION_FLAG, AT(ignore_eos), 0, 0, N_("go on after the model's end of text")},
    {"memory", NULL, N_("BYTES"), OPTION_BYTES, AT(memory_bytes), 0, 0,
     N_("take no more memory than this (e.g. 2G): run and chat choose context, KV types and passes that fit")},
    {"experts-memory", NULL, N_("BYTES"), OPTION_BYTES_AUTO, AT(experts_memory), 0, 0,
     N_("keep experts on disk and at most this much of them in memory (e.g. 4G, or auto)")},
    {"experts-policy", NULL, N_("POLICY"), OPTION_POLICY, AT(experts_policy), 0, 0,
     N_("which experts stay in memory: swarm (default), lru, lfu, stale")},
    {"route", NULL, N_("WAY"), OPTION_ROUTE, AT(route), 0, 0,
     N_("how experts are chosen: exact (default), local (the same from fewer bytes), neighbours, cache")},
    {"route-mass", NULL, "TAU", OPTION_FLOAT, AT(route_mass), 0, 1,
     N_("--route cache: share of a token's weights that may go to experts in memory (0.1)")},
    {"no-pack-cache", NULL, NULL, OPTION_FLAG, AT(no_pack_cache), 0, 0, N_("do not read or keep packed weights on disk")},
    {"cpu", NULL, N_("LEVEL"), OPTION_TEXT, AT(cpu), 0, 0, N_("kernels: auto (default), scalar, avx2, avx512, avx512_bf16")},
    {"no-template", NULL, NULL, OPTION_FLAG, AT(no_template), 0, 0, N_("give the prompt to the model as it is")},
    {"no-special", NULL, NULL, OPTION_FLAG, AT(no_special), 0, 0, N_("no BOS/EOS, special tokens in the text are plain text")},
    {"json", NULL, NULL, OPTION_FLAG, AT(json), 0, 0, N_("answer as JSON")},
    {"timing", NULL, NULL, OPTION_FLAG, AT(timing), 0, 0, N_("print the time per kind of step")},
    {"least-each", NULL, "X", OPTION_FLOAT, AT(least_each), 0, 1e6,
     N_("plan: how many sequences may generate at once, if each keeps X tokens/s")},
    {"explain", NULL, NULL, OPTION_FLAG, AT(explain), 0, 0, N_("tell how the figures come about")},
    {"seconds", NULL, "S", OPTION_FLOAT, AT(seconds), 1, 86400, N_("tune: stop after about so long (45)")},
    {"no-profile", NULL, NULL, OPTION_FLAG, AT(no_profile), 0, 0, N_("do not load the tuned settings of the model (dil tune)")},
    {"machine", NULL, NULL, OPTION_FLAG, AT(machine), 0, 0, N_("tune: measure the machine, without a model")},
    {"trace-events", NULL, N_("FILE"), OPTION_TEXT, AT(trace_events), 0, 0,
     N_("write when each step ran on each worker, for chrome://tracing or Perfetto")},
    {"tensors", NULL, NULL, OPTION_FLAG, AT(tensors), 0, 0, N_("list the tensors too")},
    {"quiet", "q", NULL, OPTION_FLAG, AT(quiet), 0, 0, N_("no progress and no figures")},
    {"chunks", NULL, "N", OPTION_INT, AT(chunks), 0, 1e9, N_("chunks to evaluate (0: all); sequences to calibrate with (0: 100)")},
    {"tasks", NULL, "N", OPTION_INT, AT(tasks), 0, 1e9, N_("tasks to evaluate (0: all)")},
    {"save-base", NULL, N_("FILE"), OPTION_TEXT, AT(save_base), 0, 0, N_("write the log-probabilities, as llama-perplexity does")},
    {"base", NULL, N_("FILE"), OPTION_TEXT, AT(base), 0, 0, N_("log-probabilities to compare with")},
    {"exact", NULL, NULL, OPTION_FLAG, AT(exact), 0, 0, N_("f32 activations: the yardstick for their rounding (slow)")},
    {"hyp", NULL, N_("FILE"), OPTION_LIST, AT(hypotheses), 0, 0,
     N_("what is scored, one answer per line; twice: two of them are compared (second minus first)")},
    {"ref", NULL, N_("FILE"), OPTION_LIST, AT(references), 0, 0,
     N_("what it is compared with, line by line (repeatable: several references)")},
    {"tokenize", NULL, N_("NAME"), OPTION_TEXT, AT(tokenizer), 0, 0, N_("words of BLEU: 13a (default), none, char")},
    {"lowercase", NULL, NULL, OPTION_FLAG, AT(lowercase), 0, 0, N_("compare in small letters")},
    {"resamples", NULL, "N", OPTION_INT, AT(resamples), 0, 1e6,
     N_("bootstrap resamples for the intervals of 95 % (1000; 0: no intervals)")},
    {"tokens", NULL, N_("IDS"), OPTION_TEXT, AT(tokens), 0, 0, N_("token ids, separated by commas")},
    {"output", "o", N_("OUT"), OPTION_TEXT, AT(output), 0, 0,
     N_("where to write, or the output format (md, csv, json, jsonl, sql)")},
    {"n-prompt", "p", "N", OPTION_INT, AT(prompt_tokens), 0, 1e6, N_("tokens of the prompt test")},
    {"n-gen", "n", "N", OPTION_INT, AT(gen_tokens), 0, 1e6, N_("tokens of the generation test")},
    {"depth", "d", "N", OPTION_INT, AT(depth), 0, 1e7, N_("tokens already in the context")},
    {"prompt-gen", "pg", "P,N", OPTION_LIST, AT(pairs), 0, 0,
     N_("bench: a prompt of P tokens and N generated ones, timed together (repeatable)")},
    {"parallel", "npl", "N", OPTION_INT, AT(parallel), 1, 256, N_("sequences that generate at once")},
    {"compare", NULL, N_("COMMAND"), OPTION_TEXT, AT(compare), 0, 0,
     N_("bench: run this llama-bench command in turns with ours, print ratios")},
    {"no-limits", NULL, NULL, OPTION_FLAG, AT(no_limits), 0, 0, N_("bench: do not measure what the machine can do at most")},
    {"repetitions", "r", "N", OPTION_INT, AT(repeats), 1, 1000, N_("bench: runs per test")},
    {"type", NULL, N_("TYPE"), OPTION_TEXT, AT(type), 0, 0, N_("type of the matrices: F32, F16, BF16, Q8_0, Q6_K, Q4_K, ...")},
    {"bpw", NULL, N_("BITS"), OPTION_FLOAT, AT(bits), 0.5, 32, N_("bits per weight of the matrices, on average")},
    {"size", NULL, N_("BYTES"), OPTION_BYTES, AT(size_bytes), 0, 0, N_("size of the file at most (e.g. 80M)")},
    {"speed-price", NULL, N_("NATS"), OPTION_FLOAT, AT(speed_price), 0, 1e6,
     N_("quantize: nats of divergence that a millisecond per token is worth (0: only show speeds)")},
    {"like", NULL, "GGUF", OPTION_TEXT, AT(like), 0, 0, N_("give every matrix the type it has in this file")},
    {"calib", NULL, N_("FILE"), OPTION_TEXT, AT(calibration), 0, 0,
     N_("a text like those the model will meet: errors are put where they do not hurt")},
    {"stats", NULL, N_("FILE"), OPTION_TEXT, AT(stats), 0, 0, N_("what dil calibrate found out of such a text")},
    {"report", NULL, N_("FILE"), OPTION_TEXT, AT(report), 0, 0, N_("write what was done, and what it should cost, as JSON")},
    {"full", NULL, NULL, OPTION_FLAG, AT(full), 0, 0, N_("curvature and gradients too, not only importance")},
    {"no-keep-stock", NULL, NULL, OPTION_FLAG, AT(no_keep_stock), 0, 0,
     N_("formats of 3 and 6 bits of our own may be used; other engines cannot read them")},
    {"fast", NULL, NULL, OPTION_FLAG, AT(fast), 0, 0, N_("less calibration: minutes become seconds, at some loss")},
    {"dry-run", NULL, NULL, OPTION_FLAG, AT(dry_run), 0, 0, N_("say what would be written, write nothing")},
    {"sha256", NULL, "HEX", OPTION_TEXT, AT(sha256), 0, 0, N_("refuse the file unless it has this SHA-256")},
    {"policy", NULL, N_("NAME"), OPTION_TEXT, AT(policy), 0, 0, N_("lru, lfu, stale, swarm, belady, or all (default)")},
    {"budget", NULL, N_("SIZES"), OPTION_TEXT, AT(budget), 0, 0,
     N_("memory for experts: sizes or parts of all, separated by commas (10%,25%,50%)")},
    {"layer", NULL, "N", OPTION_INT, AT(layer), 0, 1e6, N_("the layer that is shown (one whose neighbours are near)")},
    {"frame", NULL, "N", OPTION_INT, AT(frame), 1, BIG, N_("the token after which the flock is drawn (the last)")},
    {"frames", NULL, "N", OPTION_INT, AT(frames), 1, 10000, N_("how many tokens up to there are followed (512)")},
    {"layers", NULL, NULL, OPTION_FLAG, AT(layers), 0, 0, N_("figures of every layer too")},
    {"layers", NULL, "N", OPTION_INT, AT(remove_layers), 1, 1e4, N_("how many layers go")},
    {"experts", NULL, "F", OPTION_FLOAT, AT(remove_experts), 0, 1, N_("share of every layer's experts that go (0.25)")},
    {"neurons", NULL, "F", OPTION_FLOAT, AT(remove_neurons), 0, 1, N_("share of every layer's neurons that go (0.25)")},
    {"blocks", NULL, "F", OPTION_FLOAT, AT(remove_blocks), 0, 1,
     N_("share of every matrix's blocks of 32 weights that become zero")},
    {"quality-budget", NULL, "KLD", OPTION_FLOAT, AT(quality_budget), 0, 100,
     N_("divergence from the input, in nats per token, at most: the file becomes as small as that allows")},
    {"preset", NULL, N_("NAME"), OPTION_TEXT, AT(preset), 0, 0,
     N_("dusuk (2 bits, half of the structure), dengeli (4 bits, 30 %) or yuksek (8 bits, 10 %), within budgets of 1, 0.1, 0.02")},
    {"resume", NULL, NULL, OPTION_FLAG, AT(resume), 0, 0, N_("go on with what an interrupted run has left")},
    {"refine", NULL, "N", OPTION_INT, AT(refine), 1, 1000000,
     N_("then N steps in which scales and norms learn the float model's answers (48 is a good number)")},
    {"steps", NULL, "N", OPTION_INT, AT(steps), 0, BIG,
     N_("train: stop after N steps of this call, with a checkpoint (0: at the end); refine: N steps at most (48)")},
    {"theme", NULL, N_("NAME"), OPTION_TEXT, AT(theme), 0, 0, N_("light (default) or dark")},
    {"lang", NULL, N_("NAME"), OPTION_LANGUAGE, AT(lang), 0, 0,
     N_("language of messages and pictures: tr or en (otherwise that of DIL_LANG, else the system's)")},
    {"help", "h", NULL, OPTION_FLAG, AT(help), 0, 0, N_("this text")},
};
#define N_ROWS ((int)(sizeof table / sizeof table[0]))

const option_row *option_find(const char *name)
{
    const size_t n = strcspn(name, "=");
    const char *arg = name[n] ? name + n + 1 : NULL;
    for (int i = 0; i < N_ROWS; i++) {
        const option_row *row = &table[i];
        if (strncmp(row->name, name, n) == 0 && row->name[n] == '\0' && (!arg || (row->arg && strcmp(row->arg, arg) == 0)))
            return row;
    }
    return NULL;
}

static cli_options defaults(void)
{
    sampler_options s = sampler_options_default();
    return (cli_options){.n_predict = -1,
                         .seed = -1,
                         .temperature = (double)s.temperature,
                         .top_k = s.top_k,
                         .top_p = (double)s.top_p,
                         .min_p = (double)s.min_p,
                         .typical_p = (double)s.typical_p,
                         .repeat_penalty = (double)s.repeat_penalty,
                         .repeat_last_n = s.penalty_last_n,
                         .dry_base = (double)s.dry_base,
                         .dry_allowed_length = s.dry_allowed_length,
                         .dry_last_n = s.dry_last_n,
                         .xtc_threshold = (double)s.xtc_threshold,
                         .mirostat_tau = (double)s.mirostat_tau,
                         .mirostat_eta = (double)s.mirostat_eta,
                         .type_k = DIL_TYPE_F16,
                         .type_v = DIL_TYPE_F16,
                         .prompt_tokens = 512,
                         .gen_tokens = 128,
                         .repeats = 5,
                         .route_mass = 0.1,
                         .speed_price = -1,
                         .resamples = BLEU_RESAMPLES,
                         .seconds = 45,
                         .batch = 512,
                         .parallel = 1};
}

static bool store_route(int *out, const char *text)
{
    static const char *const names[] = {
        [ROUTE_EXACT] = "exact", [ROUTE_LOCAL] = "local", [ROUTE_NEIGHBOURS] = "neighbours", [ROUTE_CACHE] = "cache"};
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++)
        if (strcmp(text, names[i]) == 0) {
            *out = i;
            return true;
        }
    return false;
}

static bool bad_value(const option_row *row, const char *wanted, const char *found)
{
    fprintf(stderr, _("dil: --%s: wanted %s, found '%s'; see --help\n"), row->name, wanted, found);
    return false;
}

static bool store_number(cli_options *o, const option_row *row, const char *text)
{
    char wanted[96];
    int64_t whole = 0;
    double real = 0;
    bool good = row->kind == OPTION_INT ? str_to_i64(text, &whole) : str_to_f64(text, &real);
    if (row->kind == OPTION_INT)
        real = (double)whole;
    if (!good || real < row->least || real > row->most) {
        snprintf(wanted, sizeof wanted, row->kind == OPTION_INT ? _("a whole number in %g..%g") : _("a number in %g..%g"),
                 row->least, row->most);
        return bad_value(row, wanted, text);
    }
    void *at = (char *)o + row->offset;
    if (row->kind == OPTION_INT)
        *(int64_t *)at = whole;
    else
        *(double *)at = real;
    return true;
}

/* Every row of kind OPTION_LIST has its list here. */
static bool store_list(cli_options *o, const option_row *row, const char *text)
{
    const struct {
        const char **list;
        int *n;
    } lists[] = {{o->stops, &o->n_stops},
                 {o->biases, &o->n_biases},
                 {o->pairs, &o->n_pairs},
                 {o->hypotheses, &o->n_hypotheses},
                 {o->references, &o->n_references}};
    int i = 0;
    while ((const char *)lists[i].list != (const char *)o + row->offset)
        i++;
    if (*lists[i].n == CLI_MAX_LIST)
        return bad_value(row, _("at most 64 of them"), text);
    lists[i].list[(*lists[i].n)++] = text;
    return true;
}

static bool store_kv_type(cli_options *o, const option_row *row, const char *text)
{
    dil_type *at = (dil_type *)(void *)((char *)o + row->offset), type;
    if (!format_find(text, &type) || kv_page_bytes(type, KV_PAGE) == 0)
        return bad_value(row, _("f32, f16, bf16, q8_0 or q4_0"), text);
    *at = type;
    return true;
}

static bool store_language(cli_options *o, const option_row *row, const char *text)
{
    o->lang = text;
    return language_choose(text) || bad_value(row, _("tr or en"), text);
}

static bool store(cli_options *o, const option_row *row, const char *text)
{
    void *at = (char *)o + row->offset;
    switch (row->kind) {
    case OPTION_FLAG: *(bool *)at = true; return true;
    case OPTION_INT:
    case OPTION_FLOAT: return store_number(o, row, text);
    case OPTION_TEXT: *(const char **)at = text; return true;
    case OPTION_LIST: return store_list(o, row, text);
    case OPTION_BYTES: return str_to_bytes(text, at) || bad_value(row, _("a size such as 800M or 2G"), text);
    case OPTION_BYTES_AUTO:
        if (strcmp(text, "auto") != 0)
            return str_to_bytes(text, at) || bad_value(row, _("a size such as 800M or 2G, or auto"), text);
        *(uint64_t *)at = UINT64_MAX;
        return true;
    case OPTION_POLICY:
        return (policy_find(text, at) && *(policy_kind *)at != POLICY_BELADY) ||
               bad_value(row, _("swarm, lru, lfu or stale"), text);
    case OPTION_ROUTE: return store_route(at, text) || bad_value(row, _("exact, local, neighbours or cache"), text);
    case OPTION_KV_TYPE: return store_kv_type(o, row, text);
    case OPTION_LANGUAGE: return store_language(o, row, text);
    default: return false;
    }
}

/* Where the values of an option go in commands that take lists. */
static cli_numbers *numbers_of(cli_options *o, const option_row *row)
{
    const struct {
        size_t scalar;
        cli_numbers *list;
    } places[] = {{AT(prompt_tokens), &o->prompts},
                  {AT(gen_tokens), &o->gens},
                  {AT(depth), &o->depths},
                  {AT(threads), &o->thread_counts},
                  {AT(micro_batch), &o->micro_batches},
                  {AT(parallel), &o->parallels},
                  {AT(type_k), &o->types_k},
                  {AT(type_v), &o->types_v}};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (places[i].scalar == row->offset)
            return places[i].list;
    return NULL;
}

/* Adds the value text names; "A-B", "A-B+S" and "A-B*F" name several. */
static bool store_values(cli_options *o, const option_row *row, cli_numbers *list, char *text)
{
    char *to = row->kind == OPTION_INT ? strchr(text + 1, '-') : NULL, *step = to ? strpbrk(to, "+*") : NULL;
    int64_t last = 0, by = 1;
    char how = step ? *step : '+', whole[64];
    snprintf(whole, sizeof whole, "%s", text);
    if (step) {
        *step = '\0';
        if (!str_to_i64(step + 1, &by) || by < (how == '*' ? 2 : 1))
            return bad_value(row, _("a step such as +16 or *2"), step + 1);
    }
    if (to) {
        *to = '\0';
        if (!store(o, row, to + 1))
            return false;
        (void)str_to_i64(to + 1, &last);
    }
    if (!store(o, row, text))
        return false;
    const void *at = (const char *)o + row->offset;
    int64_t value = row->kind == OPTION_KV_TYPE ? (int64_t) * (const dil_type *)at : *(const int64_t *)at;
    if (to && how == '*' && value == 0)
        return bad_value(row, _("a range with * that does not start at 0"), whole);
    do {
        if (list->n == CLI_MAX_LIST)
            return bad_value(row, _("at most 64 values"), whole);
        list->v[list->n++] = value;
        value = how == '*' ? value * by : value + by;
    } while (to && value <= last);
    return true;
}

static bool store_numbers(cli_options *o, const option_row *row, cli_numbers *list, const char *text)
{
    char copy[1024];
    if (strlen(text) >= sizeof copy)
        return bad_value(row, _("a shorter list"), text);
    memcpy(copy, text, strlen(text) + 1);
    list->n = 0;
    for (char *rest = copy, *word; (word = strsep(&rest, ","));)
        if (!store_values(o, row, list, word))
            return false;
    return true;
}

/* For a command that takes lists, the options that may hold one do. */
static bool store_for(cli_options *o, const cli_command *c, const option_row *row, const char *text)
{
    cli_numbers *list = c->lists ? numbers_of(o, row) : NULL;
    const size_t i = (size_t)(row - table);
    o->given[i / 32] |= UINT32_C(1) << i % 32;
    return list ? store_numbers(o, row, list, text) : store(o, row, text);
}

_Static_assert(sizeof table / sizeof table[0] <= 8 * 32, "cli_options.given has a bit for every row");

bool options_given(const cli_options *o, const char *name)
{
    const option_row *row = option_find(name);
    const size_t i = row ? (size_t)(row - table) : 0;
    return row && (o->given[i / 32] >> i % 32 & 1);
}

bool options_set(cli_options *o, const char *name, const char *text)
{
    const option_row *row = option_find(name);
    return row && store(o, row, text);
}

/* DIL_ARG_CTX_SIZE=2048 is --ctx-size 2048, under what the command line says. */
static bool store_environment(cli_options *o, const cli_command *c, const option_row *row)
{
    char name[64] = "DIL_ARG_";
    size_t n = strlen(name);
    for (const char *p = row->name; *p && n + 1 < sizeof name; p++)
        name[n++] = (char)(*p == '-' ? '_' : *p >= 'a' && *p <= 'z' ? *p - 32 : *p);
    name[n] = '\0';
    const char *value = os_env(name);
    return !value || store_for(o, c, row, value);
}

#define MAX_LONG 160

#define FIRST_ROW 256 /* above the characters getopt answers with */

const char *const options_of_all[] = {"lang", "help", NULL};

static int add_long(const option_row *row, struct option *out)
{
    const int has_arg = row->arg ? required_argument : no_argument, val = FIRST_ROW + (int)(row - table);
    out[0] = (struct option){row->name, has_arg, NULL, val};
    if (row->alias)
        out[1] = (struct option){row->alias, has_arg, NULL, val};
    return row->alias ? 2 : 1;
}

/* The command's rows as getopt wants them: each under its name and its alias; val is FIRST_ROW + the row's index. */
static void build_long(const cli_command *c, struct option *out, cli_options *o, bool *good)
{
    const char *const *const lists[] = {c->options, options_of_all};
    int n = 0;
    for (int l = 0; l < 2; l++)
        for (const char *const *name = lists[l]; *name; name++) {
            const option_row *row = option_find(*name);
            if (!row || n + 3 > MAX_LONG)
                continue;
            n += add_long(row, out + n);
            *good = *good && store_environment(o, c, row);
        }
    out[n] = (struct option){0};
}

bool options_parse(cli_options *out, const cli_command *c, int argc, char **argv, int *n_positional)
{
    struct option long_options[MAX_LONG + 1];
    bool good = true;
    *out = defaults();
    build_long(c, long_options, out, &good);
    optind = 1;
    opterr = 0;
    while (good) {
        int at = optind ? optind : 1;
        int val = getopt_long_only(argc, argv, "", long_options, NULL);
        if (val == -1)
            break;
        if (val == '?') {
            const char *what = optind > at || optind >= argc ? argv[optind - 1] : argv[optind];
            fprintf(stderr, _("dil %s: option '%s': unknown, ambiguous or without its argument; see dil %s --help\n"), c->name,
                    what, c->name);
            return false;
        }
        good = store_for(out, c, &table[val - FIRST_ROW], optarg);
    }
    if (!good || out->help)
        return good;
    *n_positional = argc - optind;
    memmove(argv, argv + optind, (size_t)*n_positional * sizeof *argv);
    if (*n_positional < c->least_positional || (c->most_positional >= 0 && *n_positional > c->most_positional)) {
        fprintf(stderr,
                *n_positional < c->least_positional ? _("dil %s: an argument is missing; usage: dil %s\n")
                                                    : _("dil %s: too many arguments; usage: dil %s\n"),
                c->name, _(c->usage));
        return false;
    }
    return true;
}

static void print_option(const option_row *row)
{
    char left[96];
    snprintf(left, sizeof left, "%s%s%s--%s%s%s", row->alias ? "-" : "", row->alias ? row->alias : "", row->alias ? ", " : "    ",
             row->name, row->arg ? " " : "", row->arg ? _(row->arg) : "");
    fputs("  ", stdout);
    print_cell(stdout, left, 32);
    printf(" %s\n", _(row->help));
}

void options_print_help(const cli_command *c)
{
    const char *const *const lists[] = {c->options, options_of_all};
    printf("dil %s\n\n%s\n\n", _(c->usage), _(c->summary));
    for (int l = 0; l < 2; l++)
        for (const char *const *name = lists[l]; *name; name++)
            if (option_find(*name))
                print_option(option_find(*name));
    printf(_("\nExample:\n  %s\n"), _(c->example));
}
