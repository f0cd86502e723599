#include "train/export.h"

#include <math.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/status.h"

#define PIECE_VALUES ((size_t)1 << 20)

/* ---- which architecture computes this network ---- */

/* What an architecture takes for granted. bias: 0 none, 1 wanted, 2 as the file says. */
typedef struct family {
    const char *name;
    bool experts, qk_norm, post_norm, scaled;
    net_activation activation;
    rope_pairs pairs;
    int bias;
} family;

static const family families[] = {
    {"qwen3moe", true, true, false, false, NET_SWIGLU, ROPE_HALVES, 0},
    {"qwen3", false, true, false, false, NET_SWIGLU, ROPE_HALVES, 0},
    {"qwen2", false, false, false, false, NET_SWIGLU, ROPE_HALVES, 1},
    {"llama", false, false, false, false, NET_SWIGLU, ROPE_ADJACENT, 2},
    {"gemma3", false, true, true, true, NET_GEGLU, ROPE_HALVES, 0},
};
#define N_FAMILIES (sizeof families / sizeof families[0])

/* Properties of c that f has otherwise, named in out: how many. */
static int differences(const family *f, const net_config *c, strbuf *out)
{
    float scale = f->scaled ? sqrtf((float)c->n_embd) : 1.0f;
    bool bias = f->bias == 2 || c->qkv_bias == (f->bias == 1), even = fabsf(c->embd_scale - scale) <= 1e-6f * scale;
    const struct {
        bool good;
        const char *what;
    } checks[] = {{c->qk_norm == f->qk_norm, f->qk_norm ? "qk_norm true" : "qk_norm false"},
                  {c->post_norm == f->post_norm, f->post_norm ? "post_norm true" : "post_norm false"},
                  {c->activation == f->activation, f->activation == NET_GEGLU ? "hidden_act gelu" : "hidden_act silu"},
                  {c->pairs == f->pairs, f->pairs == ROPE_HALVES ? "rope_pairs halves" : "rope_pairs adjacent"},
                  {bias, f->bias ? "attention_bias true" : "attention_bias false"},
                  {even, f->scaled ? "embedding_scale sqrt(hidden_size)" : "embedding_scale 1"}};
    int n = 0;
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++)
        if (!checks[i].good)
            strbuf_printf(out, "%s%s", n++ ? ", " : "", checks[i].what);
    return n;
}

static dil_status find_family(const family **out, const net_config *c, dil_error *err)
{
    strbuf nearest = STRBUF(300);
    const char *name = "";
    int least = INT32_MAX;
    *out = NULL;
    for (size_t i = 0; i < N_FAMILIES && least > 0; i++) {
        strbuf found = STRBUF(300);
        int n = families[i].experts == (c->n_experts > 0) ? differences(&families[i], c, &found) : INT32_MAX;
        if (n < least) {
            strbuf_free(&nearest);
            nearest = found;
            least = n;
            name = families[i].name;
            *out = &families[i];
        } else {
            strbuf_free(&found);
        }
    }
    if (least > 0)
        DIL_FAIL(err, DIL_UNSUPPORTED, "export: no architecture of GGUF has this shape; the nearest is %s and wants %s", name,
                 nearest.p ? nearest.p : _("(no memory)"));
    strbuf_free(&nearest);
    return least > 0 ? DIL_UNSUPPORTED : DIL_OK;
}

/* ---- the header ---- */

typedef struct export
{
    net *n;
    const family *f;
    gguf_writer *w;
    dil_type type;
}
export;

static dil_status set_u32(const export *e, const char *key, int v, dil_error *err)
{
    char name[96];
    snprintf(name, sizeof name, "%s.%s", e->f->name, key);
    return gguf_writer_set_u32(e->w, name, (uint32_t)v, err);
}

static dil_status set_f32(const export *e, const char *key, float v, dil_error *err)
{
    char name[96];
    snprintf(name, sizeof name, "%s.%s", e->f->name, key);
    return gguf_writer_set_f32(e->w, name, v, err);
}

static dil_status write_sizes(const export *e, dil_error *err)
{
    const net_config *c = net_config_of(e->n);
    DIL_TRY(set_u32(e, "context_length", c->n_context, err));
    DIL_TRY(set_u32(e, "embedding_length", c->n_embd, err));
    DIL_TRY(set_u32(e, "block_count", c->n_layer, err));
    DIL_TRY(set_u32(e, "feed_forward_length", c->n_experts ? c->n_ff_expert * c->n_used : c->n_ff, err));
    DIL_TRY(set_u32(e, "attention.head_count", c->n_head, err));
    DIL_TRY(set_u32(e, "attention.head_count_kv", c->n_head_kv, err));
    DIL_TRY(set_u32(e, "attention.key_length", c->head_dim, err));
    DIL_TRY(set_u32(e, "attention.value_length", c->head_dim, err));
    DIL_TRY(set_f32(e, "attention.layer_norm_rms_epsilon", c->norm_eps, err));
    DIL_TRY(set_u32(e, "rope.dimension_count", c->head_dim, err));
    DIL_TRY(set_f32(e, "rope.freq_base", c->rope_base, err));
    DIL_TRY(set_u32(e, "vocab_size", c->n_vocab, err));
    if (c->n_experts == 0)
        return DIL_OK;
    DIL_TRY(set_u32(e, "expert_count", c->n_experts, err));
    DIL_TRY(set_u32(e, "expert_used_count", c->n_used, err));
    return set_u32(e, "expert_feed_forward_length", c->n_ff_expert, err);
}

/* general.file_type as other writers number it; false: files of this type are not written. */
static bool file_type(dil_type type, uint32_t *out)
{
    *out = type == DIL_TYPE_F16 ? 1 : type == DIL_TYPE_BF16 ? 32 : 0;
    return type == DIL_TYPE_F32 || type == DIL_TYPE_F16 || type == DIL_TYPE_BF16;
}

/* Its texts go along but a chat template: what was trained here has not learnt one. */
static dil_status write_vocabulary(const export *e, const char *path, dil_error *err)
{
    gguf *g;
    gguf_options header = {.header_only = true};
    const str *tokens;
    uint64_t n = 0;
    DIL_TRY(gguf_open(&g, path, &header, err));
    dil_status status = gguf_get_strings(g, "tokenizer.ggml.tokens", &tokens, &n, err);
    if (status == DIL_OK && n != (uint64_t)net_config_of(e->n)->n_vocab)
        status = DIL_FAIL(err, DIL_FORMAT, "%s: wanted a vocabulary of %d tokens as the network has, found %llu", path,
                          net_config_of(e->n)->n_vocab, (unsigned long long)n);
    if (status == DIL_OK)
        status = gguf_writer_copy_prefixed(e->w, g, "tokenizer.", "tokenizer.chat_template", err);
    gguf_close(g);
    return status;
}

static dil_type type_of(const export *e, const parameter *p)
{
    bool single = p->kind == PARAMETER_ROUTER || p->kind == PARAMETER_VECTOR;
    return single ? DIL_TYPE_F32 : e->type;
}

static dil_status write_directory(const export *e, dil_error *err)
{
    for (int i = 0; i < net_n_parameters(e->n); i++) {
        const parameter *p = net_parameter_at(e->n, i);
        const uint64_t ne[] = {(uint64_t)p->columns, (uint64_t)p->rows, (uint64_t)p->n};
        int n_dims = p->kind == PARAMETER_VECTOR ? 1 : p->kind == PARAMETER_EXPERTS ? 3 : 2;
        DIL_TRY(gguf_writer_add_tensor(e->w, str_of(p->name), type_of(e, p), n_dims, ne, err));
    }
    return DIL_OK;
}

/* ---- the data ---- */

static dil_status write_values(const export *e, const parameter *p, void *piece, dil_error *err)
{
    const format *f = format_get(type_of(e, p));
    for (size_t done = 0, n; done < p->count; done += n) {
        n = p->count - done < PIECE_VALUES ? p->count - done : PIECE_VALUES;
        f->encode(p->w + done, piece, n, NULL);
        DIL_TRY(gguf_writer_data(e->w, piece, n * f->block_bytes / f->block_values, err));
    }
    return DIL_OK;
}

static dil_status write_all(const export *e, const char *name, const char *vocabulary_path, void *piece, dil_error *err)
{
    uint32_t number;
    if (!file_type(e->type, &number))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "export: type: wanted F32, F16 or BF16, found %s; dil quantize makes the others",
                        format_get(e->type) ? format_get(e->type)->name : _("an unknown one"));
    DIL_TRY(gguf_writer_set_str(e->w, "general.architecture", str_of(e->f->name), err));
    DIL_TRY(gguf_writer_set_str(e->w, "general.type", STR("model"), err));
    DIL_TRY(gguf_writer_set_str(e->w, "general.name", str_of(name), err));
    DIL_TRY(gguf_writer_set_u32(e->w, "general.file_type", number, err));
    DIL_TRY(write_sizes(e, err));
    DIL_TRY(write_vocabulary(e, vocabulary_path, err));
    DIL_TRY(write_directory(e, err));
    for (int i = 0; i < net_n_parameters(e->n); i++)
        DIL_TRY(write_values(e, net_parameter_at(e->n, i), piece, err));
    return DIL_OK;
}

dil_status export_gguf(net *n, const char *name, const char *vocabulary_path, dil_type type, const char *out_path, dil_error *err)
{
    export e = {.n = n, .type = type};
    DIL_TRY(find_family(&e.f, net_config_of(n), err));
    void *piece = mem_alloc(PIECE_VALUES * sizeof(float), MEM_FILE);
    if (!piece)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory to write it", out_path);
    dil_status status = gguf_writer_new(&e.w, out_path, err);
    if (status != DIL_OK)
        goto done;
    status = write_all(&e, name, vocabulary_path, piece, err);
    if (status == DIL_OK)
        status = gguf_writer_finish(e.w, err);
    else
        gguf_writer_abort(e.w);
done:
    mem_free(piece);
    return status;
}
