#include "train/config_table.h"

#include <float.h>
#include <stdio.h>

#include "base/status.h"

#define AT(field) offsetof(train_config, field)
#define BIG 9007199254740992.0 /* 2^53: whole in JSON everywhere */

static const char *const activations[] = {[NET_SWIGLU] = "silu", [NET_GEGLU] = "gelu", NULL};
static const char *const pairings[] = {[ROPE_ADJACENT] = "adjacent", [ROPE_HALVES] = "halves", NULL};
static const char *const computes[] = {[NET_COMPUTE_AUTO] = "auto", [NET_COMPUTE_F32] = "f32", [NET_COMPUTE_BF16] = "bf16", NULL};
static const char *const schedules[] = {[SCHEDULE_COSINE] = "cosine", [SCHEDULE_WSD] = "wsd", NULL};
static const char *const muons[] = {[MUON_NONE] = "none", [MUON_ATTENTION] = "attention", [MUON_ALL] = "all", NULL};
static const char *const rules[] = {[PRICE_SIGN] = "sign", [PRICE_PROPORTIONAL] = "proportional", NULL};

const config_row config_rows[] = {
    {"", "name", CONFIG_TEXT, AT(name), 1, sizeof((train_config *)0)->name - 1, NULL},
    {"", "output", CONFIG_PATH, AT(output), 1, sizeof((train_config *)0)->output - 1, NULL},
    {"", "seed", CONFIG_U64, AT(seed), 0, BIG, NULL},

    {"tokenizer", "size", CONFIG_INT, AT(vocab_size), 300, 65536, NULL},
    {"tokenizer", "file", CONFIG_PATH, AT(vocab_file), 1, sizeof((train_config *)0)->vocab_file - 1, NULL},

    {"model", "context_length", CONFIG_INT, AT(net.n_context), 2, NET_MAX_CONTEXT, NULL},
    {"model", "hidden_size", CONFIG_INT, AT(net.n_embd), 1, NET_MAX_EMBD, NULL},
    {"model", "num_hidden_layers", CONFIG_INT, AT(net.n_layer), 1, NET_MAX_LAYERS, NULL},
    {"model", "num_attention_heads", CONFIG_INT, AT(net.n_head), 1, NET_MAX_HEADS, NULL},
    {"model", "num_key_value_heads", CONFIG_INT, AT(net.n_head_kv), 1, NET_MAX_HEADS, NULL},
    {"model", "head_dim", CONFIG_INT, AT(net.head_dim), 2, NET_MAX_HEAD_DIM, NULL},
    {"model", "intermediate_size", CONFIG_INT, AT(net.n_ff), 0, NET_MAX_FF, NULL},
    {"model", "num_experts", CONFIG_INT, AT(net.n_experts), 0, NET_MAX_EXPERTS, NULL},
    {"model", "num_experts_per_tok", CONFIG_INT, AT(net.n_used), 0, NET_MAX_USED, NULL},
    {"model", "moe_intermediate_size", CONFIG_INT, AT(net.n_ff_expert), 0, NET_MAX_FF, NULL},
    {"model", "hidden_act", CONFIG_CHOICE, AT(net.activation), 0, 0, activations},
    {"model", "qk_norm", CONFIG_BOOL, AT(net.qk_norm), 0, 0, NULL},
    {"model", "attention_bias", CONFIG_BOOL, AT(net.qkv_bias), 0, 0, NULL},
    {"model", "post_norm", CONFIG_BOOL, AT(net.post_norm), 0, 0, NULL},
    {"model", "tie_word_embeddings", CONFIG_BOOL, AT(net.tied), 0, 0, NULL},
    {"model", "rope_pairs", CONFIG_CHOICE, AT(net.pairs), 0, 0, pairings},
    {"model", "rope_theta", CONFIG_FLOAT, AT(net.rope_base), 1.5, 1e12, NULL},
    {"model", "rms_norm_eps", CONFIG_FLOAT, AT(net.norm_eps), 1e-12, 1, NULL},
    {"model", "embedding_scale", CONFIG_FLOAT, AT(net.embd_scale), 1e-3, 1e6, NULL},

    {"training", "compute", CONFIG_CHOICE, AT(compute), 0, 0, computes},
    {"training", "steps", CONFIG_U64, AT(n_steps), 1, BIG, NULL},
    {"training", "batch_size", CONFIG_INT, AT(n_sequences), 1, 1 << 20, NULL},
    {"training", "gradient_accumulation_steps", CONFIG_INT, AT(n_accumulate), 1, 1 << 20, NULL},
    {"training", "learning_rate", CONFIG_FLOAT, AT(optimiser.lr), 0, 100, NULL},
    {"training", "router_learning_rate_factor", CONFIG_FLOAT, AT(optimiser.lr_router), 0, 1000, NULL},
    {"training", "embedding_learning_rate_factor", CONFIG_FLOAT, AT(optimiser.lr_embedding), 0, 1000, NULL},
    {"training", "adam_beta1", CONFIG_FLOAT, AT(optimiser.beta1), 0, 0.999999, NULL},
    {"training", "adam_beta2", CONFIG_FLOAT, AT(optimiser.beta2), 0, 0.999999, NULL},
    {"training", "adam_epsilon", CONFIG_FLOAT, AT(optimiser.eps), 1e-20, 1, NULL},
    {"training", "weight_decay", CONFIG_FLOAT, AT(optimiser.weight_decay), 0, 100, NULL},
    {"training", "max_grad_norm", CONFIG_FLOAT, AT(optimiser.clip), 0, 1e9, NULL},
    {"training", "muon", CONFIG_CHOICE, AT(optimiser.muon), 0, 0, muons},
    {"training", "muon_learning_rate", CONFIG_FLOAT, AT(optimiser.muon_lr), 0, 100, NULL},
    {"training", "lr_schedule", CONFIG_CHOICE, AT(optimiser.schedule), 0, 0, schedules},
    {"training", "warmup_ratio", CONFIG_DOUBLE, AT(optimiser.warmup), 0, 1, NULL},
    {"training", "decay_ratio", CONFIG_DOUBLE, AT(optimiser.decay), 0, 1, NULL},
    {"training", "min_lr_ratio", CONFIG_DOUBLE, AT(optimiser.lr_end), 0, 1, NULL},
    {"training", "evaluate_every", CONFIG_U64, AT(evaluate_every), 0, BIG, NULL},
    {"training", "evaluate_sequences", CONFIG_INT, AT(evaluate_sequences), 0, 1 << 30, NULL},
    {"training", "checkpoint_every", CONFIG_U64, AT(checkpoint_every), 0, BIG, NULL},

    {"loss", "z_weight", CONFIG_FLOAT, AT(z_weight), 0, 100, NULL},
    {"loss", "balance_weight", CONFIG_FLOAT, AT(loss.balance), 0, 100, NULL},
    {"loss", "cache_weight", CONFIG_FLOAT, AT(loss.cache), 0, 100, NULL},
    {"loss", "swarm_weight", CONFIG_FLOAT, AT(loss.swarm), 0, 100, NULL},
    {"loss", "nash_weight", CONFIG_FLOAT, AT(loss.nash), 0, 100, NULL},
    {"loss", "router_z_weight", CONFIG_FLOAT, AT(loss.z), 0, 100, NULL},
    {"loss", "nash_beta", CONFIG_FLOAT, AT(loss.beta), 0, 100, NULL},
    {"loss", "cached_experts", CONFIG_DOUBLE, AT(cached_experts), 0, NET_MAX_EXPERTS, NULL},
    {"loss", "warmup_from", CONFIG_DOUBLE, AT(loss_from), 0, 1, NULL},
    {"loss", "warmup_to", CONFIG_DOUBLE, AT(loss_to), 0, 1, NULL},
    {"loss", "price_rule", CONFIG_CHOICE, AT(price_rule), 0, 0, rules},
    {"loss", "price_rate", CONFIG_FLOAT, AT(price_rate), 0, 100, NULL},
    {"loss", "price_end", CONFIG_DOUBLE, AT(price_end), 0, 1, NULL},
    {NULL, NULL, CONFIG_INT, 0, 0, 0, NULL},
};

const config_row config_sources[] = {
    {"corpora", "name", CONFIG_TEXT, offsetof(corpus_source, name), 1, sizeof((corpus_source *)0)->name - 1, NULL},
    {"corpora", "path", CONFIG_PATH, offsetof(corpus_source, path), 1, sizeof((corpus_source *)0)->path - 1, NULL},
    {"corpora", "weight", CONFIG_DOUBLE, offsetof(corpus_source, weight), 1e-9, 1e9, NULL},
    {"corpora", "held_out", CONFIG_DOUBLE, offsetof(corpus_source, held_out), 0, 0.5, NULL},
    {NULL, NULL, CONFIG_INT, 0, 0, 0, NULL},
};

void train_config_default(train_config *c)
{
    *c = (train_config){
        .seed = 1,
        .net = {.n_context = 256,
                .n_embd = 256,
                .n_layer = 6,
                .n_head = 4,
                .n_head_kv = 2,
                .head_dim = 64,
                .n_experts = 16,
                .n_used = 2,
                .n_ff_expert = 256,
                .activation = NET_SWIGLU,
                .qk_norm = true,
                .tied = true,
                .pairs = ROPE_HALVES,
                .rope_base = 10000.0f,
                .norm_eps = 1e-6f,
                .embd_scale = 1.0f},
        .compute = NET_COMPUTE_AUTO,
        .optimiser = {.lr = 2e-3f,
                      .lr_router = 1.0f,
                      .lr_embedding = 1.0f,
                      .beta1 = 0.9f,
                      .beta2 = 0.95f,
                      .eps = 1e-8f,
                      .weight_decay = 0.1f,
                      .clip = 1.0f,
                      .muon_lr = 2e-3f,
                      .schedule = SCHEDULE_COSINE,
                      .warmup = 0.02,
                      .decay = 0.2,
                      .lr_end = 0.1},
        .n_sequences = 16,
        .n_accumulate = 1,
        .z_weight = 1e-4f,
        .loss = {.balance = 1e-2f, .cache = 2e-2f, .swarm = 1e-2f, .nash = 1e-2f, .z = 1e-3f, .beta = 0.5f},
        .loss_from = 0.1,
        .loss_to = 0.3,
        .price_rule = PRICE_SIGN,
        .price_rate = 1e-3f,
        .price_end = 0.1,
        .evaluate_every = 500,
        .checkpoint_every = 500,
        .evaluate_sequences = 64,
    };
}

/* ---- values as text ---- */

/* The shortest decimal that is the same number again: of a float where it is one. */
static void print_number(strbuf *out, double value, bool is_float)
{
    char text[40];
    for (int digits = 6; digits <= 17; digits++) {
        double back;
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (str_to_f64(text, &back) && (is_float ? (float)back == (float)value : !(back < value || back > value)))
            break;
    }
    strbuf_printf(out, "%s", text);
}

static void print_text(strbuf *out, const char *text)
{
    strbuf_add_char(out, '"');
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p == '"' || *p == '\\')
            strbuf_printf(out, "\\%c", *p);
        else if (*p < 0x20)
            strbuf_printf(out, "\\u%04x", *p);
        else
            strbuf_add_char(out, (char)*p);
    }
    strbuf_add_char(out, '"');
}

/* Enumerations are read and written as the unsigned int they are. */
static unsigned choice_at(const void *p)
{
    unsigned i;
    memcpy(&i, p, sizeof i);
    return i;
}

void config_print_value(strbuf *out, const config_row *row, const void *base)
{
    const void *p = (const char *)base + row->offset;
    switch (row->kind) {
    case CONFIG_TEXT:
    case CONFIG_PATH: print_text(out, p); return;
    case CONFIG_INT: strbuf_printf(out, "%d", *(const int *)p); return;
    case CONFIG_U64: strbuf_printf(out, "%llu", (unsigned long long)*(const uint64_t *)p); return;
    case CONFIG_FLOAT: print_number(out, (double)*(const float *)p, true); return;
    case CONFIG_DOUBLE: print_number(out, *(const double *)p, false); return;
    case CONFIG_BOOL: strbuf_printf(out, "%s", *(const bool *)p ? "true" : "false"); return;
    case CONFIG_CHOICE: print_text(out, row->names[choice_at(p)]); return;
    default: return;
    }
}

static bool left_out(const config_row *row, const train_config *c)
{
    bool file = c->vocab_file[0] != '\0';
    return (row->offset == AT(vocab_size) && file) || (row->offset == AT(vocab_file) && !file);
}

static void print_sources(const train_config *c, strbuf *out)
{
    strbuf_printf(out, "  \"corpora\": [");
    for (int i = 0; i < c->n_sources; i++) {
        strbuf_printf(out, "%s\n    {", i ? "," : "");
        for (const config_row *row = config_sources; row->key; row++) {
            strbuf_printf(out, "%s\"%s\": ", row == config_sources ? "" : ", ", row->key);
            config_print_value(out, row, &c->sources[i]);
        }
        strbuf_add_char(out, '}');
    }
    strbuf_printf(out, "\n  ]");
}

static void print_rows(const train_config *c, strbuf *out)
{
    const char *section = "";
    bool first = true;
    for (const config_row *row = config_rows; row->key; row++) {
        if (left_out(row, c))
            continue;
        bool begins = strcmp(section, row->section) != 0;
        if (begins) {
            strbuf_printf(out, "%s,\n  \"%s\": {", *section ? "\n  }" : "", row->section);
            section = row->section;
        }
        strbuf_printf(out, "%s\n%s  \"%s\": ", begins || first ? "" : ",", *section ? "  " : "", row->key);
        config_print_value(out, row, c);
        first = false;
    }
    strbuf_printf(out, "\n  },\n");
}

dil_status train_config_print(const train_config *c, strbuf *out, dil_error *err)
{
    strbuf_add_char(out, '{');
    print_rows(c, out);
    print_sources(c, out);
    strbuf_printf(out, "\n}\n");
    return out->failed ? DIL_FAIL(err, DIL_NO_MEMORY, "config: no memory for its text") : DIL_OK;
}

/* ---- comparing ---- */

const char *config_shape_difference(const net_config *a, const net_config *b, char a_text[64], char b_text[64])
{
    const char *key = a->n_vocab != b->n_vocab ? N_("vocabulary size") : NULL;
    snprintf(a_text, 64, "%d", a->n_vocab);
    snprintf(b_text, 64, "%d", b->n_vocab);
    for (const config_row *row = config_rows; row->key && !key; row++) {
        strbuf x = STRBUF(64), y = STRBUF(64);
        config_row moved = *row;
        if (strcmp(row->section, "model") != 0)
            continue;
        moved.offset -= AT(net);
        config_print_value(&x, &moved, a);
        config_print_value(&y, &moved, b);
        if (!str_equal(strbuf_str(&x), strbuf_str(&y)))
            key = row->key;
        snprintf(a_text, 64, "%.*s", STR_ARG(strbuf_str(&x)));
        snprintf(b_text, 64, "%.*s", STR_ARG(strbuf_str(&y)));
        strbuf_free(&x);
        strbuf_free(&y);
    }
    return key;
}
