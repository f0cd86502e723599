/* Export: what a trained network becomes as a GGUF file computes in the engine what the network itself computes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/engine.h"
#include "leaks.h"
#include "tiny_run.h"
#include "train/export.h"

typedef struct rows {
    const float *wanted;
    int n_vocab;
    double worst;
} rows;

static bool compare_row(void *ctx, int32_t i, const float *logits)
{
    rows *r = ctx;
    for (int v = 0; v < r->n_vocab; v++)
        r->worst = fmax(r->worst, fabs((double)logits[v] - (double)r->wanted[(size_t)i * (size_t)r->n_vocab + (size_t)v]));
    return true;
}

static double engine_distance(const float *wanted, const int32_t *tokens, int n, int n_vocab)
{
    engine *e;
    session *s;
    engine_options o = engine_options_default();
    rows r = {wanted, n_vocab, 0};
    o.n_threads = 2;
    o.type_k = o.type_v = DIL_TYPE_F32;
    o.exact = o.no_pack_cache = true;
    o.cpu = "scalar";
    ok(engine_open(&e, out_path, &o, &err));
    assert_int_equal(engine_n_vocab(e), n_vocab);
    ok(session_new(&s, e, &err));
    ok(session_eval(s, tokens, n, NULL, compare_row, &r, &err));
    session_free(s);
    engine_close(e);
    return r.worst;
}

/* Random values of a size that makes every part matter: norms differ from 1, biases from 0, rotations and choices are sharp. */
static void shake(net *n)
{
    uint32_t seed = 7;
    for (int i = 0; i < net_n_parameters(n); i++) {
        parameter *p = net_parameter_at(n, i);
        bool bias = strstr(p->name, ".bias") != NULL, norm = p->kind == PARAMETER_VECTOR && !bias;
        float size = p->kind == PARAMETER_VECTOR ? 0.3f : 1.7f / sqrtf((float)p->columns);
        for (size_t k = 0; k < p->count; k++)
            p->w[k] = (norm ? 1.0f : 0.0f) + size * tiny_uniform(&seed);
    }
    net_refresh(n);
}

static void check_export(const net_config *c, const char *architecture)
{
    small_net sn;
    gguf *g;
    str found = STR("");
    int32_t tokens[24];
    uint32_t seed = 11;
    open_net(&sn, c);
    shake(sn.n);
    float *logits = malloc(24 * (size_t)c->n_vocab * sizeof *logits);
    assert_non_null(logits);
    for (int i = 0; i < 24; i++)
        tokens[i] = (int32_t)(tiny_random(&seed) % (uint32_t)c->n_vocab);
    net_logits(sn.n, tokens, 24, logits);
    ok(export_gguf(sn.n, "tiny", vocabulary, DIL_TYPE_F32, out_path, &err));
    ok(gguf_open(&g, out_path, NULL, &err));
    ok(gguf_get_str(g, "general.architecture", &found, &err));
    if (!str_equal(found, str_of(architecture)))
        fail_msg("wanted %s, found %.*s", architecture, STR_ARG(found));
    gguf_close(g);
    double distance = engine_distance(logits, tokens, 24, c->n_vocab);
    if (!(distance < 1e-3))
        fail_msg("%s: logits differ by %g", architecture, distance);
    free(logits);
    close_net(&sn);
}

static net_config exported(const char *architecture)
{
    net_config c = config().net;
    bool moe = strcmp(architecture, "qwen3moe") == 0, gemma = strcmp(architecture, "gemma3") == 0;
    bool plain = strcmp(architecture, "llama") == 0 || strcmp(architecture, "qwen2") == 0;
    c.n_vocab = 320;
    if (!moe) {
        c.n_experts = c.n_used = c.n_ff_expert = 0;
        c.n_ff = 48;
    }
    c.qk_norm = !plain;
    c.pairs = strcmp(architecture, "llama") == 0 ? ROPE_ADJACENT : ROPE_HALVES;
    c.qkv_bias = strcmp(architecture, "qwen2") == 0;
    c.activation = gemma ? NET_GEGLU : NET_SWIGLU;
    c.post_norm = gemma;
    c.embd_scale = gemma ? sqrtf((float)c.n_embd) : 1.0f;
    return c;
}

static void make_vocabulary(void)
{
    train_config c = config();
    train_options o = {.stop_after = 1, .cpu = "scalar", .n_threads = 1};
    forget();
    ok(train_run(&c, &o, &err));
}

static void exports(void **state)
{
    (void)state;
    static const char *const names[] = {"qwen3moe", "qwen3", "qwen2", "llama", "gemma3"};
    make_vocabulary();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (int tied = 0; tied < 2; tied++) {
            net_config c = exported(names[i]);
            c.tied = tied;
            check_export(&c, names[i]);
        }
}

/* Types of tensors and what general.file_type says; nothing else is written. */
static void types(void **state)
{
    (void)state;
    static const struct {
        dil_type type;
        uint32_t number;
    } cases[] = {{DIL_TYPE_F32, 0}, {DIL_TYPE_F16, 1}, {DIL_TYPE_BF16, 32}};
    net_config c = exported("qwen3moe");
    small_net sn;
    make_vocabulary();
    open_net(&sn, &c);
    shake(sn.n);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gguf *g;
        uint32_t number = 99;
        ok(export_gguf(sn.n, "tiny", vocabulary, cases[i].type, out_path, &err));
        ok(gguf_open(&g, out_path, &(gguf_options){.deep = true}, &err));
        ok(gguf_get_u32(g, "general.file_type", &number, &err));
        assert_int_equal(number, cases[i].number);
        assert_int_equal(gguf_tensor_find(g, "blk.1.ffn_down_exps.weight")->type, cases[i].type);
        assert_int_equal(gguf_tensor_find(g, "blk.1.ffn_down_exps.weight")->ne[2], 4);
        assert_int_equal(gguf_tensor_find(g, "blk.0.ffn_gate_inp.weight")->type, DIL_TYPE_F32);
        assert_int_equal(gguf_tensor_find(g, "blk.0.attn_q_norm.weight")->type, DIL_TYPE_F32);
        gguf_close(g);
    }
    ok(os_remove(out_path, &err));
    refuse(export_gguf(sn.n, "tiny", vocabulary, DIL_TYPE_Q8_0, out_path, &err), DIL_BAD_ARGUMENT, "Q8_0");
    refuse(export_gguf(sn.n, "tiny", texts[0], DIL_TYPE_F32, out_path, &err), DIL_FORMAT, "en.txt");
    assert_false(os_exists(out_path));
    close_net(&sn);
}

static void no_architecture(void **state)
{
    (void)state;
    net_config c = exported("qwen3moe");
    small_net sn;
    c.pairs = ROPE_ADJACENT;
    open_net(&sn, &c);
    refuse(export_gguf(sn.n, "tiny", vocabulary, DIL_TYPE_F32, out_path, &err), DIL_UNSUPPORTED,
           "qwen3moe and wants rope_pairs halves");
    close_net(&sn);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(exports), cmocka_unit_test(types), cmocka_unit_test(no_architecture)};
    return leaks_run_group_tests(tests, prepare, NULL);
}
