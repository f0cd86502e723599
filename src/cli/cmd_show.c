/* dil show: what is in a file, whether this program can run it or not. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "cli/cli.h"
#include "cli/language.h"
#include "cli/print.h"

#define SHOWN_TEXT 100 /* bytes of a long text */
#define SHOWN_ITEMS 6  /* elements of a long array */

static void print_real(double x, bool json)
{
    if (json && !isfinite(x))
        fputs("null", stdout);
    else
        printf("%.9g", x);
}

/* Element i of a value; numbers in the file are unaligned. */
static void print_element(const gguf_value *v, uint64_t i, bool json)
{
    const uint8_t *at = v->data;
    uint64_t u64;
    int64_t i64;
    uint32_t u32;
    int32_t i32;
    uint16_t u16;
    int16_t i16;
    float f32;
    double f64;
    switch (v->element) {
    case GGUF_U8: printf("%u", at[i]); return;
    case GGUF_I8: printf("%d", (int8_t)at[i]); return;
    case GGUF_BOOL: fputs(at[i] ? "true" : "false", stdout); return;
    case GGUF_U16:
        memcpy(&u16, at + 2 * i, 2);
        printf("%u", u16);
        return;
    case GGUF_I16:
        memcpy(&i16, at + 2 * i, 2);
        printf("%d", i16);
        return;
    case GGUF_U32:
        memcpy(&u32, at + 4 * i, 4);
        printf("%" PRIu32, u32);
        return;
    case GGUF_I32:
        memcpy(&i32, at + 4 * i, 4);
        printf("%" PRId32, i32);
        return;
    case GGUF_U64:
        memcpy(&u64, at + 8 * i, 8);
        printf("%" PRIu64, u64);
        return;
    case GGUF_I64:
        memcpy(&i64, at + 8 * i, 8);
        printf("%" PRId64, i64);
        return;
    case GGUF_F32:
        memcpy(&f32, at + 4 * i, 4);
        print_real((double)f32, json);
        return;
    case GGUF_F64:
        memcpy(&f64, at + 8 * i, 8);
        print_real(f64, json);
        return;
    case GGUF_STRING:
        if (json)
            cli_print_json_string(((const str *)v->data)[i]);
        else
            print_text(stdout, ((const str *)v->data)[i], v->kind == GGUF_ARRAY ? 24 : SHOWN_TEXT);
        return;
    default: fputs(json ? "null" : "?", stdout);
    }
}

static void print_value(const gguf_value *v, bool json)
{
    bool array = v->kind == GGUF_ARRAY;
    uint64_t shown = array && !json && v->count > SHOWN_ITEMS + 2 ? SHOWN_ITEMS : v->count;
    if (array)
        putchar('[');
    for (uint64_t i = 0; i < shown; i++) {
        if (i)
            fputs(", ", stdout);
        print_element(v, i, json);
    }
    if (shown < v->count)
        printf(_(", ... %llu in all"), (unsigned long long)v->count);
    if (array)
        putchar(']');
}

/* ---- what is known of the file ---- */

typedef struct type_sum {
    uint64_t n_tensors, n_values, bytes;
} type_sum;

typedef struct facts {
    gguf *file;
    model *m; /* NULL: this program cannot run it */
    chat_template *chat;
    dil_error why;
    type_sum types[DIL_TYPE_COUNT], all;
} facts;

static dil_status collect(facts *f, const char *path, dil_error *err)
{
    gguf_options header = {.header_only = true};
    model_options mo = {.header_only = true};
    *f = (facts){0};
    DIL_TRY(gguf_open(&f->file, path, &header, err));
    for (uint64_t i = 0; i < gguf_n_tensors(f->file); i++) {
        const gguf_tensor *t = gguf_tensor_at(f->file, i);
        type_sum *sums[] = {&f->types[t->type], &f->all};
        for (int k = 0; k < 2; k++) {
            sums[k]->n_tensors++;
            sums[k]->n_values += t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
            sums[k]->bytes += t->size_bytes;
        }
    }
    if (model_open(&f->m, path, &mo, &f->why) == DIL_OK) {
        const vocab *v = f->m->words;
        dil_error ignored;
        if (!v || chat_template_new(&f->chat, f->m->chat_template, vocab_text(v, vocab_bos(v)), vocab_text(v, vocab_eos(v)), true,
                                    &ignored) != DIL_OK)
            f->chat = NULL;
    }
    return DIL_OK;
}

static void release(facts *f)
{
    chat_template_free(f->chat);
    model_close(f->m);
    gguf_close(f->file);
}

static double bits_per_value(const type_sum *s) { return s->n_values ? 8.0 * (double)s->bytes / (double)s->n_values : 0.0; }

static const char *chat_kind(const facts *f)
{
    return !f->m || f->m->chat_template.n == 0 || !f->chat ? N_("none") : chat_template_kind(f->chat);
}

static const char *vocab_kind_name(const vocab *v)
{
    static const char *const names[] = {N_("byte-level BPE"), "SentencePiece", "WordPiece", N_("unigram")};
    return names[vocab_kind_of(v)];
}

static const char *qk_name(qk_norm qk)
{
    return qk == QK_NORM_HEAD ? N_("per head") : qk == QK_NORM_FULL ? N_("whole projection") : N_("none");
}

static uint32_t n_windowed(const hparams *h)
{
    uint32_t n = 0;
    for (uint32_t i = 0; h->window && i < h->n_layer; i++)
        n += h->windowed[i];
    return n;
}

/* ---- for people ---- */

static void print_label(const char *label)
{
    fputs("  ", stdout);
    print_cell(stdout, label, 14);
}

static void print_key_line(const gguf *g, const char *label, const char *key)
{
    const gguf_value *v = gguf_find(g, key);
    if (!v)
        return;
    print_label(label);
    print_value(v, false);
    putchar('\n');
}

static void print_rope(const model *m)
{
    const hparams *h = &m->h;
    const rope_params *r = &h->rope[0];
    print_label("rope");
    printf(h->pairs == ROPE_ADJACENT ? _("base %g, %u of %u dimensions, adjacent pairs")
                                     : _("base %g, %u of %u dimensions, half-split pairs"),
           (double)r->base, h->n_rot, h->head_dim);
    if (r->scale < 1)
        printf(_(", positions x %g"), (double)r->scale);
    if (r->extrapolation > 0)
        printf(_(", YaRN from %u"), r->original_context);
    if (r->use_factors && (m->rope_freqs || m->rope_long || m->rope_short))
        printf(_(", frequency factors"));
    if (h->window)
        printf(_("; windowed layers: base %g"), (double)h->rope[1].base);
    putchar('\n');
}

static const char *activation_name(activation a)
{
    return a == ACTIVATION_SILU ? "SiLU" : a == ACTIVATION_GELU ? "GELU" : _("clipped SwiGLU");
}

static const char *gating_name(expert_gating g)
{
    return g == GATING_SOFTMAX ? "softmax" : g == GATING_SIGMOID ? "sigmoid" : _("softmax of the chosen");
}

static void print_experts(const hparams *h)
{
    const expert_params *e = &h->experts;
    if (e->n_experts == 0)
        return;
    print_label(_("experts"));
    printf(_("%u of %u per token, %u wide, by %s"), e->n_used, e->n_experts, e->n_ff, gating_name(e->gating));
    if (e->n_groups > 1)
        printf(_(", from %u of %u groups"), e->n_groups_used, e->n_groups);
    if (e->n_ff_shared > 0)
        printf(_("; a shared one, %u wide"), e->n_ff_shared);
    if (e->n_dense_lead > 0)
        printf(_("; none in the first %u layers"), e->n_dense_lead);
    putchar('\n');
}

static void print_attention(const hparams *h)
{
    const latent_params *a = &h->latent;
    print_label(_("attention"));
    if (a->kv_rank > 0) {
        printf(a->absorbed ? _("%u heads of %u through latents of %u, cached as they are")
                           : _("%u heads of %u through latents of %u, cached as keys and values"),
               h->n_head, a->n_plain + h->n_rot, a->kv_rank);
    } else {
        printf(_("%u heads of %u, %u for keys and values"), h->n_head, h->head_dim, h->n_head_kv);
        if (h->head_dim_v != h->head_dim)
            printf(_(" of %u"), h->head_dim_v);
    }
    if (h->qk != QK_NORM_NONE)
        printf(_(", Q/K norm %s"), _(qk_name(h->qk)));
    if (h->attn_softcap > 0)
        printf(_(", soft cap %g"), (double)h->attn_softcap);
    if (h->sinks)
        printf(_(", sinks"));
    putchar('\n');
}

/* A layer of experts alone has nothing else. */
static void print_lone(const hparams *h)
{
    print_label(_("width"));
    printf("%u\n", h->n_embd);
    print_experts(h);
}

static void print_model(const facts *f)
{
    const hparams *h = &f->m->h;
    const vocab *v = f->m->words;
    if (h->lone) {
        print_lone(h);
        return;
    }
    print_label(_("context"));
    printf(_("%u tokens in training"), h->n_context);
    if (h->window)
        printf(_("; %u of %u layers see the last %u"), n_windowed(h), h->n_layer, h->window);
    putchar('\n');
    print_label(_("width"));
    printf(_("%u, feed-forward %u (%s), %u layers\n"), h->n_embd, h->n_ff, activation_name(h->act), h->n_layer);
    print_experts(h);
    print_attention(h);
    print_rope(f->m);
    print_label(_("vocabulary"));
    printf(_("%d tokens, %s"), vocab_size(v), _(vocab_kind_name(v)));
    if (vocab_bos(v) != TOKEN_NONE) {
        fputs(_(", begins "), stdout);
        print_text(stdout, vocab_text(v, vocab_bos(v)), 32);
    }
    if (vocab_eos(v) != TOKEN_NONE) {
        fputs(_(", ends "), stdout);
        print_text(stdout, vocab_text(v, vocab_eos(v)), 32);
    }
    puts(f->m->tied ? _(", output tied to it") : "");
    print_label(_("chat template"));
    puts(_(chat_kind(f)));
}

static void print_tensors(const gguf *g)
{
    puts(_("\ntensors"));
    for (uint64_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        char shape[96], size[32];
        int n = snprintf(shape, sizeof shape, "%" PRIu64, t->ne[0]);
        for (int k = 1; k < t->n_dims && n < (int)sizeof shape; k++)
            n += snprintf(shape + n, sizeof shape - (size_t)n, " x %" PRIu64, t->ne[k]);
        printf("  %-8s %-18s %10s  ", format_get(t->type)->name, shape, str_bytes(t->size_bytes, size, sizeof size));
        print_text(stdout, t->name, 200);
        putchar('\n');
    }
}

static void print_types(const facts *f)
{
    char size[32];
    puts(_("\ntypes"));
    for (int i = 0; i < DIL_TYPE_COUNT; i++) {
        const type_sum *s = &f->types[i];
        if (s->n_tensors)
            printf(_("  %-8s %5llu tensors %10s  %5.1f %%  %6.3f bits per weight\n"), format_get((dil_type)i)->name,
                   (unsigned long long)s->n_tensors, str_bytes(s->bytes, size, sizeof size),
                   100.0 * (double)s->bytes / (double)f->all.bytes, bits_per_value(s));
    }
}

static void print_people(const facts *f, const char *path, bool tensors)
{
    const gguf *g = f->file;
    char size[32];
    size_t widest = 0;
    print_text(stdout, str_of(path), 4096);
    putchar('\n');
    print_key_line(g, _("name"), "general.name");
    print_key_line(g, _("licence"), "general.license");
    print_key_line(g, _("architecture"), "general.architecture");
    print_label(_("parameters"));
    printf(_("%.1f M, %.2f bits each\n"), (double)f->all.n_values * 1e-6, bits_per_value(&f->all));
    print_label(_("file"));
    printf(_("%s, GGUF v%u, %llu tensors, %llu keys"), str_bytes(gguf_size_bytes(g), size, sizeof size), gguf_version(g),
           (unsigned long long)gguf_n_tensors(g), (unsigned long long)gguf_n_values(g));
    if (gguf_shards(g) > 1)
        printf(_(", %d parts"), gguf_shards(g));
    putchar('\n');
    if (f->m) {
        print_model(f);
    } else {
        print_label(_("can run it"));
        fputs(_("no: "), stdout);
        print_text(stdout, str_of(f->why.text), sizeof f->why.text);
        putchar('\n');
    }
    print_types(f);
    puts(_("\nkeys"));
    for (uint64_t i = 0; i < gguf_n_values(g); i++)
        if (gguf_value_at(g, i)->key.n > widest)
            widest = gguf_value_at(g, i)->key.n;
    for (uint64_t i = 0; i < gguf_n_values(g); i++) {
        const gguf_value *v = gguf_value_at(g, i);
        fputs("  ", stdout);
        print_text(stdout, v->key, 100);
        printf("%*s  ", v->key.n < widest && widest < 60 ? (int)(widest - v->key.n) : 0, "");
        print_value(v, false);
        putchar('\n');
    }
    if (tensors)
        print_tensors(g);
}

/* ---- for programs: everything ---- */

static void print_json_model(const facts *f)
{
    const hparams *h = &f->m->h;
    if (h->lone) {
        printf("{\"width\": %u, \"experts\": %u, \"experts_used\": %u, \"expert_feed_forward\": %u}", h->n_embd,
               h->experts.n_experts, h->experts.n_used, h->experts.n_ff);
        return;
    }
    printf(
        "{\"context\": %u, \"layers\": %u, \"width\": %u, \"feed_forward\": %u, \"heads\": %u, \"kv_heads\": %u, \"head_dim\": %u, "
        "\"rotated_dims\": %u, \"rope_base\": %.9g, \"rope_scale\": %.9g, \"window\": %u, \"windowed_layers\": %u, \"qk_norm\": \"%s\", "
        "\"experts\": %u, \"experts_used\": %u, \"expert_feed_forward\": %u, \"shared_expert_feed_forward\": %u, \"latent\": %u, "
        "\"vocabulary\": %d, \"tokenizer\": \"%s\", \"tied\": %s, \"chat_template\": \"%s\"}",
        h->n_context, h->n_layer, h->n_embd, h->n_ff, h->n_head, h->n_head_kv, h->head_dim, h->n_rot, (double)h->rope[0].base,
        (double)h->rope[0].scale, h->window, n_windowed(h), qk_name(h->qk), h->experts.n_experts, h->experts.n_used,
        h->experts.n_ff, h->experts.n_ff_shared, h->latent.kv_rank, vocab_size(f->m->words), vocab_kind_name(f->m->words),
        f->m->tied ? "true" : "false", chat_kind(f));
}

static void print_json_tensors(const gguf *g)
{
    for (uint64_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        fputs(i ? ",\n  {\"name\": " : "\n  {\"name\": ", stdout);
        cli_print_json_string(t->name);
        printf(", \"type\": \"%s\", \"shape\": [", format_get(t->type)->name);
        for (int k = 0; k < t->n_dims; k++)
            printf("%s%" PRIu64, k ? ", " : "", t->ne[k]);
        printf("], \"bytes\": %" PRIu64 ", \"offset\": %" PRIu64 ", \"shard\": %d}", t->size_bytes, t->offset, t->shard);
    }
}

static void print_json(const facts *f, const char *path)
{
    const gguf *g = f->file;
    bool first = true;
    fputs("{\"path\": ", stdout);
    cli_print_json_string(str_of(path));
    printf(", \"version\": %u, \"bytes\": %" PRIu64 ", \"shards\": %d, \"parameters\": %" PRIu64 ", \"tensor_bytes\": %" PRIu64
           ", \"bits_per_weight\": %.4f, \"supported\": %s,\n\"reason\": ",
           gguf_version(g), gguf_size_bytes(g), gguf_shards(g), f->all.n_values, f->all.bytes, bits_per_value(&f->all),
           f->m ? "true" : "false");
    if (f->m)
        fputs("null", stdout);
    else
        cli_print_json_string(str_of(f->why.text));
    fputs(",\n\"model\": ", stdout);
    if (f->m)
        print_json_model(f);
    else
        fputs("null", stdout);
    fputs(",\n\"types\": {", stdout);
    for (int i = 0; i < DIL_TYPE_COUNT; i++) {
        if (f->types[i].n_tensors)
            printf("%s\"%s\": {\"tensors\": %" PRIu64 ", \"values\": %" PRIu64 ", \"bytes\": %" PRIu64 "}", first ? "" : ", ",
                   format_get((dil_type)i)->name, f->types[i].n_tensors, f->types[i].n_values, f->types[i].bytes);
        first = first && f->types[i].n_tensors == 0;
    }
    fputs("},\n\"keys\": {", stdout);
    for (uint64_t i = 0; i < gguf_n_values(g); i++) {
        fputs(i ? ",\n  " : "\n  ", stdout);
        cli_print_json_string(gguf_value_at(g, i)->key);
        fputs(": ", stdout);
        print_value(gguf_value_at(g, i), true);
    }
    fputs("},\n\"tensors\": [", stdout);
    print_json_tensors(g);
    puts("]}");
}

static int show(const cli_options *o, char **positional, int n_positional)
{
    dil_error err = {0};
    char path[4096];
    facts f = {0};
    const char *name = cli_model_named(o, positional, n_positional);
    if (!name)
        return CLI_USAGE;
    dil_status status = cli_model_path(name, path, sizeof path, &err);
    language_plain(o->json);
    if (status == DIL_OK)
        status = collect(&f, path, &err);
    language_plain(false);
    if (status == DIL_OK && o->json)
        print_json(&f, path);
    else if (status == DIL_OK)
        print_people(&f, path, o->tensors);
    release(&f);
    return status == DIL_OK ? CLI_OK : cli_fail(&err);
}

static const char *const show_options[] = {"model", "tensors", "json", NULL};

const cli_command command_show = {
    .name = "show",
    .usage = N_("show MODEL [--tensors] [--json]"),
    .summary = N_("Shows what is in a model file.\n\n--json is complete: every key with all its elements, every tensor."),
    .example = N_("dil show smollm2 --tensors"),
    .options = show_options,
    .most_positional = 1,
    .model_argument = true,
    .run = show};
