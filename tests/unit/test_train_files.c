/* What a training run reads and writes beside its network: the config says what it means and names what is wrong, and prints to
 * itself; the metrics log has the columns it promises and is cut where a run goes on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "leaks.h"
#include "tiny_model.h"
#include "train/config.h"
#include "train/log.h"

static char path[600];
static dil_error err;

static void ok(dil_status status)
{
    if (status != DIL_OK)
        fail_msg("%s", err.text);
}

static int prepare(void **state)
{
    (void)state;
    tiny_path(path, "metrics.csv");
    return 0;
}

#define LEAST "\"name\": \"tiny\", \"output\": \"run\", \"corpora\": [{\"name\": \"en\", \"path\": \"en.txt\"}]"
#define TOKENS "\"tokenizer\": {\"size\": 512}"
#define STEPS "\"training\": {\"steps\": 100}"

static dil_status parse(train_config *c, const char *text) { return train_config_parse(c, str_of(text), "dir/tiny.json", &err); }

/* ---- the config ---- */

static void least_config(void **state)
{
    (void)state;
    train_config c;
    ok(parse(&c, "{" LEAST ", " TOKENS ", " STEPS "}"));
    assert_string_equal(c.name, "tiny");
    assert_string_equal(c.output, "dir/run");
    assert_int_equal(c.n_sources, 1);
    assert_string_equal(c.sources[0].path, "dir/en.txt");
    assert_int_equal(c.vocab_size, 512);
    assert_int_equal(c.n_steps, 100);
    assert_float_equal(c.optimiser.lr, 2e-3, 1e-9);
    assert_float_equal(c.loss.cache, 2e-2, 1e-9);
    assert_float_equal(c.price_end, 0.1, 1e-12);
}

/* A checkpoint keeps the config as JSON, which must be readable again. */
static void folder_of_other_bytes(void **state)
{
    (void)state;
    train_config c;
    str text = STR("{" LEAST ", " TOKENS ", " STEPS "}");
    assert_int_equal(train_config_parse(&c, text, "ku\xFE/tiny.json", &err), DIL_UNSUPPORTED);
    assert_non_null(strstr(err.text, "output: wanted a path of UTF-8"));
    ok(train_config_parse(&c, text, "ku\xC5\x9F/tiny.json", &err));
}

static const char *const everything =
    "{\"name\": \"Kuş \\\"1\\\"\", \"output\": \"/o\", \"seed\": 9007199254740991, \"tokenizer\": {\"file\": \"/v.gguf\"},"
    "\"corpora\": [{\"name\": \"en\", \"path\": \"/a.txt\", \"weight\": 2.5, \"held_out\": 0.05},"
    "{\"name\": \"tr\", \"path\": \"/b.zst\", \"weight\": 1e-3, \"held_out\": 0}],"
    "\"model\": {\"context_length\": 128, \"hidden_size\": 96, \"num_hidden_layers\": 3, \"num_attention_heads\": 6, "
    "\"num_key_value_heads\": 3, \"head_dim\": 16, \"num_experts\": 0, \"num_experts_per_tok\": 0, \"moe_intermediate_size\": 0, "
    "\"intermediate_size\": 77, \"hidden_act\": \"gelu\", \"qk_norm\": false, \"attention_bias\": true, \"post_norm\": true, "
    "\"tie_word_embeddings\": false, \"rope_pairs\": \"adjacent\", \"rope_theta\": 1e6, \"rms_norm_eps\": 1e-5, "
    "\"embedding_scale\": 9.797959},"
    "\"training\": {\"compute\": \"f32\", \"steps\": 7, \"batch_size\": 12, \"gradient_accumulation_steps\": 3, "
    "\"learning_rate\": 0.0123456789, \"muon\": \"all\", \"muon_learning_rate\": 0.1, \"lr_schedule\": \"wsd\", "
    "\"warmup_ratio\": 0.123456789012345, \"evaluate_every\": 0, \"evaluate_sequences\": 0, \"checkpoint_every\": 3},"
    "\"loss\": {\"balance_weight\": 0, \"nash_beta\": 0.7, \"price_rule\": \"proportional\", \"price_rate\": 0.01, "
    "\"warmup_from\": 0, \"warmup_to\": 0}}";

static void same_config(const train_config *a, const train_config *b)
{
    strbuf x = STRBUF(1 << 16), y = STRBUF(1 << 16);
    ok(train_config_print(a, &x, &err));
    ok(train_config_print(b, &y, &err));
    assert_string_equal(x.p, y.p);
    strbuf_free(&x);
    strbuf_free(&y);
    assert_int_equal(a->seed, b->seed);
    assert_memory_equal(&a->optimiser.lr, &b->optimiser.lr, sizeof(float));
    assert_memory_equal(&a->optimiser.warmup, &b->optimiser.warmup, sizeof(double));
    assert_memory_equal(&a->net.embd_scale, &b->net.embd_scale, sizeof(float));
    assert_memory_equal(&a->sources[1].weight, &b->sources[1].weight, sizeof(double));
}

static void round_trip(void **state)
{
    (void)state;
    train_config c, again;
    strbuf text = STRBUF(1 << 16);
    ok(parse(&c, everything));
    assert_int_equal(c.net.activation, NET_GEGLU);
    assert_int_equal(c.net.pairs, ROPE_ADJACENT);
    assert_int_equal(c.price_rule, PRICE_PROPORTIONAL);
    assert_int_equal(c.optimiser.schedule, SCHEDULE_WSD);
    assert_true(c.net.qkv_bias && c.net.post_norm && !c.net.qk_norm && !c.net.tied && c.optimiser.muon == MUON_ALL);
    ok(train_config_print(&c, &text, &err));
    ok(train_config_parse(&again, strbuf_str(&text), "printed", &err));
    same_config(&c, &again);
    assert_string_equal(again.name, "Kuş \"1\"");
    strbuf_free(&text);
}

static void architectures(void **state)
{
    (void)state;
    train_config c;
    ok(parse(&c, "{" LEAST ", " TOKENS ", " STEPS ", \"model\": {\"hidden_size\": 256, \"architecture\": \"gemma3\"}}"));
    assert_float_equal(c.net.embd_scale, 16, 0);
    assert_true(c.net.post_norm && c.net.qk_norm && c.net.activation == NET_GEGLU && c.net.n_experts == 0);
    ok(parse(&c, "{" LEAST ", " TOKENS ", " STEPS ", \"model\": {\"architecture\": \"llama\", \"intermediate_size\": 64}}"));
    assert_true(!c.net.qk_norm && c.net.pairs == ROPE_ADJACENT && c.net.n_experts == 0 && c.net.n_ff == 64);
    ok(parse(&c, "{" LEAST ", " TOKENS ", " STEPS ", \"model\": {\"num_experts\": 8, \"architecture\": \"qwen3moe\"}}"));
    assert_true(c.net.qk_norm && c.net.pairs == ROPE_HALVES && c.net.n_experts == 8);
}

/* Every defect is named; what was there before stays. */
static void refusals(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
        dil_status status;
    } cases[] = {
        {"{\"name\": 1", "line 1", DIL_FORMAT},
        {"[]", "an object", DIL_FORMAT},
        {"{\"name\": \"a\", \"name\": \"b\"}", "duplicate", DIL_FORMAT},
        {"{" LEAST ", " TOKENS ", " STEPS ", \"learning_rate\": 1}", "learning_rate: unknown key", DIL_BAD_ARGUMENT},
        {"{" LEAST ", " TOKENS ", \"training\": {\"steps\": 1, \"lr\": 1}}", "training.lr: unknown key", DIL_BAD_ARGUMENT},
        {"{" LEAST ", " TOKENS ", \"training\": 3}", "training: wanted an object", DIL_FORMAT},
        {"{" LEAST ", " TOKENS ", \"training\": {\"steps\": 1.5}}", "training.steps: wanted a whole number", DIL_FORMAT},
        {"{" LEAST ", " TOKENS ", \"training\": {\"steps\": -1}}", "training.steps", DIL_BAD_ARGUMENT},
        {"{" LEAST ", " TOKENS ", \"training\": {\"learning_rate\": \"x\"}}", "training.learning_rate: wanted a number",
         DIL_FORMAT},
        {"{" LEAST ", " TOKENS ", \"training\": {\"muon\": \"some\"}}", "training.muon: wanted one of", DIL_BAD_ARGUMENT},
        {"{" LEAST ", " TOKENS ", \"training\": {\"lr_schedule\": \"line\"}}", "\"cosine\", \"wsd\"", DIL_BAD_ARGUMENT},
        {"{" LEAST ", " TOKENS "}", "training.steps", DIL_BAD_ARGUMENT},
        {"{" LEAST ", " STEPS "}", "tokenizer", DIL_BAD_ARGUMENT},
        {"{" LEAST ", \"tokenizer\": {\"size\": 512, \"file\": \"x\"}, " STEPS "}", "found both", DIL_BAD_ARGUMENT},
        {"{" LEAST ", \"tokenizer\": {\"size\": 100}, " STEPS "}", "300..65536", DIL_BAD_ARGUMENT},
        {"{" LEAST ", " TOKENS ", " STEPS ", \"model\": {\"hidden_size\": 16385}}",
         "model.hidden_size: wanted 1..16384, found 16385", DIL_BAD_ARGUMENT},
        {"{" LEAST ", " TOKENS ", " STEPS ", \"model\": {\"context_length\": 65537}}", "model.context_length", DIL_BAD_ARGUMENT},
        {"{" LEAST ", " TOKENS ", " STEPS ", \"model\": {\"architecture\": \"gpt9\"}}", "model.architecture", DIL_BAD_ARGUMENT},
        {"{" LEAST ", " TOKENS ", " STEPS ", \"loss\": {\"warmup_from\": 0.5}}", "loss.warmup_to", DIL_BAD_ARGUMENT},
        {"{" LEAST ", " TOKENS ", " STEPS ", \"loss\": {\"cached_experts\": 99}}", "loss.cached_experts", DIL_BAD_ARGUMENT},
        {"{" LEAST ", " TOKENS ", \"training\": {\"steps\": 1, \"batch_size\": 8, \"gradient_accumulation_steps\": 3}}",
         "divisor of batch_size 8", DIL_BAD_ARGUMENT},
        {"{\"name\": \"a\", \"output\": \"b\", " TOKENS ", " STEPS "}", "corpora: wanted 1..16", DIL_BAD_ARGUMENT},
        {"{\"name\": \"a\", \"output\": \"b\", " TOKENS ", " STEPS ", \"corpora\": [{\"name\": \"x\"}]}", "found no path",
         DIL_BAD_ARGUMENT},
        {"{\"name\": \"a\", \"output\": \"b\", " TOKENS ", " STEPS
         ", \"corpora\": [{\"name\": \"x\", \"path\": \"y\", \"held_out\": 0.6}]}",
         "corpora[0].held_out", DIL_BAD_ARGUMENT},
        {"{\"name\": \"a\", \"output\": \"b\", " TOKENS ", " STEPS
         ", \"corpora\": [{\"name\": \"x\", \"path\": \"y\"}, {\"name\": \"x\", "
         "\"path\": \"z\"}]}",
         "'x' twice", DIL_BAD_ARGUMENT},
        {"{\"output\": \"b\"}", "corpora", DIL_BAD_ARGUMENT},
    };
    train_config c, before;
    ok(parse(&c, everything));
    before = c;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dil_status status = parse(&c, cases[i].text);
        if (status != cases[i].status || !strstr(err.text, cases[i].part))
            fail_msg("case %zu: wanted '%s', found %s: %s", i, cases[i].part, status_name(status), err.text);
        same_config(&c, &before);
    }
}

/* No prefix of a config and no single changed byte does worse than to be refused. */
static void damaged_config(void **state)
{
    (void)state;
    train_config c;
    size_t n = strlen(everything);
    char *copy = malloc(n + 1);
    for (size_t cut = 0; cut < n; cut++)
        assert_int_equal(train_config_parse(&c, (str){everything, cut}, NULL, &err), DIL_FORMAT);
    for (size_t at = 0; copy && at < n; at++) {
        memcpy(copy, everything, n + 1);
        copy[at] = (char)(copy[at] ^ 4);
        dil_status status = train_config_parse(&c, (str){copy, n}, NULL, &err);
        assert_true(status == DIL_OK || status == DIL_FORMAT || status == DIL_BAD_ARGUMENT);
    }
    free(copy);
}

/* ---- the metrics log ---- */

static train_config log_config(void)
{
    train_config c;
    ok(parse(&c, everything));
    c.net.n_experts = 2;
    c.net.n_layer = 2;
    return c;
}

static void add_lines(metrics *m, uint64_t first, uint64_t last)
{
    train_progress *p = calloc(1, sizeof *p);
    for (uint64_t s = first; p && s <= last; s++) {
        p->step = s;
        p->tokens = s * 64;
        p->result.total = 1.0 / (double)s;
        p->gradient_norm = NAN;
        p->result.load[1][0] = 0.5f;
        p->result.load[0][1] = 1.5f;
        p->evaluated = s % 2 == 0;
        p->held_out[0] = 1.25;
        p->held_out[1] = NAN;
        p->routing[0].hits_quarter = 0.75;
        p->routing[1].violation = 0.5;
        ok(metrics_add(m, p, &err));
    }
    free(p);
}

static char *bytes_of(size_t *n)
{
    char *text;
    ok(os_read_all(path, 1 << 20, &text, n, &err));
    return text;
}

static void columns(void **state)
{
    (void)state;
    train_config c = log_config();
    metrics *m;
    size_t n;
    uint64_t bytes;
    ok(metrics_open(&m, path, &c, 0, &err));
    add_lines(m, 1, 2);
    ok(metrics_sync(m, &bytes, &err));
    char *text = bytes_of(&n);
    assert_int_equal(bytes, n);
    assert_true(strncmp(text, "step,tokens,seconds,", 20) == 0);
    assert_non_null(strstr(text, ",load_min,load_max,bpb_en,hits_quarter_en,hits_twice_en,"));
    assert_non_null(strstr(text, ",violation_en,bpb_tr,hits_quarter_tr,"));
    assert_non_null(strstr(text, ",violation_tr\n1,64,0,0,0,0,,1,"));
    assert_non_null(strstr(text, ",0,1.5,,,,,,,,,,,,,,,,,,,,\n2,128,"));
    assert_non_null(strstr(text, ",0,1.5,1.25,0.75,0,0,0,0,0,0,0,0,,0,0,0,0,0,0,0,0,0.5\n"));
    int commas[3] = {0};
    for (size_t i = 0, line = 0; i < n; line += text[i++] == '\n')
        commas[line] += text[i] == ',';
    assert_int_equal(commas[0], commas[1]);
    assert_int_equal(commas[0], commas[2]);
    mem_free(text);
    metrics_close(m);
}

/* As many sources as there may be, with the longest names. */
static void widest_log(void **state)
{
    (void)state;
    train_config c = log_config();
    metrics *m;
    c.n_sources = CORPUS_MOST_SOURCES;
    for (int i = 0; i < c.n_sources; i++)
        (void)snprintf(c.sources[i].name, sizeof c.sources[i].name, "%0*d", (int)sizeof c.sources[i].name - 1, i);
    ok(metrics_open(&m, path, &c, 0, &err));
    add_lines(m, 1, 2);
    metrics_close(m);
}

/* Five lines, of which the checkpoint knows three, then two again: as if the run had never stopped. */
static void cut_on_resume(void **state)
{
    (void)state;
    train_config c = log_config();
    metrics *m;
    size_t n_whole, n;
    uint64_t known = 0;
    ok(metrics_open(&m, path, &c, 0, &err));
    add_lines(m, 1, 3);
    ok(metrics_sync(m, &known, &err));
    add_lines(m, 4, 5);
    metrics_close(m);
    char *whole = bytes_of(&n_whole);
    for (int again = 0; again < 2; again++) {
        ok(metrics_open(&m, path, &c, known, &err));
        char *text = bytes_of(&n);
        assert_int_equal(n, known);
        mem_free(text);
        add_lines(m, 4, 5);
        metrics_close(m);
        text = bytes_of(&n);
        assert_int_equal(n, n_whole);
        assert_memory_equal(text, whole, n);
        mem_free(text);
    }
    assert_int_equal(metrics_open(&m, path, &c, n_whole + 1, &err), DIL_FORMAT);
    assert_int_equal(metrics_open(&m, path, &c, known - 1, &err), DIL_FORMAT);
    ok(os_remove(path, &err));
    assert_int_equal(metrics_open(&m, path, &c, known, &err), DIL_IO);
    mem_free(whole);
}

/* Every call of the system that can fail does: a status, and nothing leaks. */
static void failures(void **state)
{
    (void)state;
    train_config c = log_config();
    metrics *m;
    uint64_t bytes;
    for (int64_t after = 0; after < 12; after++) {
        os_inject_failure(after);
        dil_status status = metrics_open(&m, path, &c, 0, &err);
        if (status == DIL_OK) {
            status = metrics_sync(m, &bytes, &err);
            metrics_close(m);
        }
        os_inject_failure(-1);
        assert_true(status == DIL_OK || status == DIL_IO);
    }
    for (int64_t after = 0; after < 6; after++) {
        mem_inject_failure(after);
        dil_status status = metrics_open(&m, path, &c, 0, &err);
        mem_inject_failure(-1);
        assert_true(status == DIL_OK || status == DIL_NO_MEMORY);
        if (status == DIL_OK)
            metrics_close(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(least_config),  cmocka_unit_test(folder_of_other_bytes),
        cmocka_unit_test(round_trip),    cmocka_unit_test(architectures),
        cmocka_unit_test(refusals),      cmocka_unit_test(damaged_config),
        cmocka_unit_test(columns),       cmocka_unit_test(widest_log),
        cmocka_unit_test(cut_on_resume), cmocka_unit_test(failures),
    };
    return leaks_run_group_tests(tests, prepare, NULL);
}
