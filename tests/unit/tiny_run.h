/* Test helper: a training run on two tiny texts in a folder of its own, and networks beside it. */
#ifndef TESTS_TINY_RUN_H
#define TESTS_TINY_RUN_H

#include <cmocka.h>

#include "tiny_model.h"
#include "train/checkpoint.h"
#include "train/loop.h"

#define STEPS 10

static char texts[2][600], folder[600], checkpoint[700], vocabulary[700], log_path[700], out_path[600];
static dil_error err;

static inline void ok(dil_status status)
{
    if (status != DIL_OK)
        fail_msg("%s", err.text);
}

static inline void write_bytes(const char *path, const void *bytes, size_t n)
{
    os_writer w;
    ok(os_writer_open(&w, path, &err));
    ok(os_writer_write(&w, bytes, n, &err));
    ok(os_writer_commit(&w, &err));
}

static inline char *read_bytes(const char *path, size_t *n)
{
    char *text;
    ok(os_read_all(path, (size_t)1 << 28, &text, n, &err));
    return text;
}

/* Sentences of few words: something to learn in a few steps. */
static inline void write_text(const char *path, const char *const *words, uint32_t seed)
{
    strbuf b = STRBUF(1 << 20);
    while (b.n < 30000) {
        for (int i = 0; i < 6; i++)
            strbuf_printf(&b, "%s%s", i ? " " : "", words[tiny_random(&seed) % 12]);
        strbuf_printf(&b, ".\n");
    }
    write_bytes(path, b.p, b.n);
    strbuf_free(&b);
}

static inline int prepare(void **state)
{
    (void)state;
    static const char *const en[] = {"the",  "bird", "flies", "over", "a",     "river",
                                     "when", "rain", "falls", "and",  "seven", "neighbours"};
    static const char *const tr[] = {"kuş",  "ırmağın", "üstünden", "uçar", "yağmur", "yağınca",
                                     "yedi", "komşu",   "bir",      "sürü", "ve",     "gök"};
    write_text(tiny_path(texts[0], "en.txt"), en, 1);
    write_text(tiny_path(texts[1], "tr.txt"), tr, 2);
    tiny_path(folder, "run");
    tiny_path(out_path, "out.gguf");
    (void)snprintf(checkpoint, sizeof checkpoint, "%s/checkpoint.bin", folder);
    (void)snprintf(vocabulary, sizeof vocabulary, "%s/vocabulary.gguf", folder);
    (void)snprintf(log_path, sizeof log_path, "%s/metrics.csv", folder);
    return 0;
}

static inline train_config config(void)
{
    train_config c;
    strbuf b = STRBUF(1 << 14);
    strbuf_printf(
        &b,
        "{\"name\": \"tiny\", \"output\": \"%s\", \"seed\": 3, \"tokenizer\": {\"size\": 320},"
        "\"corpora\": [{\"name\": \"en\", \"path\": \"%s\", \"weight\": 2, \"held_out\": 0.1},"
        "{\"name\": \"tr\", \"path\": \"%s\", \"weight\": 1, \"held_out\": 0.1}],"
        "\"model\": {\"architecture\": \"qwen3moe\", \"context_length\": 32, \"hidden_size\": 32, \"num_hidden_layers\": 2,"
        "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"head_dim\": 8, \"num_experts\": 4,"
        "\"num_experts_per_tok\": 2, \"moe_intermediate_size\": 32},"
        "\"training\": {\"steps\": %d, \"batch_size\": 8, \"gradient_accumulation_steps\": 2, \"learning_rate\": 0.01,"
        "\"compute\": \"f32\", \"evaluate_every\": 4, \"evaluate_sequences\": 5, \"checkpoint_every\": 3},"
        "\"loss\": {\"price_rate\": 0.01, \"price_end\": 0.4}}",
        folder, texts[0], texts[1], STEPS);
    ok(train_config_parse(&c, strbuf_str(&b), "test", &err));
    strbuf_free(&b);
    return c;
}

static inline void forget(void)
{
    if (os_exists(folder))
        ok(os_remove_tree(folder, &err));
}

static inline void refuse(dil_status status, dil_status wanted, const char *part)
{
    if (status != wanted || !strstr(err.text, part))
        fail_msg("wanted %s with '%s', found %s: %s", status_name(wanted), part, status_name(status),
                 status == DIL_OK ? "" : err.text);
}

typedef struct small_net {
    kernels k;
    team *workers;
    net *n;
} small_net;

static inline void open_net(small_net *s, const net_config *c)
{
    ok(kernels_select(&s->k, "scalar", &err));
    ok(team_new(&s->workers, 2, &err));
    ok(net_new(&s->n, c, NET_COMPUTE_F32, c->n_context, s->workers, &s->k, &err));
}

static inline void close_net(small_net *s)
{
    net_free(s->n);
    team_free(s->workers);
}

#endif
