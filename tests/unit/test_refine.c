/* Refinement: gradients of scales as finite differences find them, divergence that falls, codes that stay, the same file for any number of
 * threads and after an interruption. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/threads.h"
#include "leaks.h"
#include "quantize/convert.h"
#include "quantize/refine.h"
#include "quantize/walk.h"
#include "tiny_model.h"

enum { CONTEXT = 32, SEQUENCES = 4 };

static char text[3000];

static void ok(dil_status st, const dil_error *err)
{
    if (st != DIL_OK)
        fail_msg("%s", err->text);
}

static int set_up(void **state)
{
    uint32_t random = 3;
    (void)state;
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = i % 6 == 5 ? ' ' : (char)('a' + tiny_random(&random) % 26);
    return 0;
}

/* rows of 64 values, so that small formats fit */
static tiny_model wide(tiny_model m)
{
    m.n_embd = 64;
    m.n_ff = 64;
    m.n_head = 2;
    m.n_head_kv = 1;
    m.head_dim = 32;
    m.n_context = 64;
    return m;
}

/* A model and what plain rounding makes of it. */
typedef struct pair {
    char large[600], small[600], out[600], again[600];
} pair;

static void make_pair(pair *p, tiny_model m, dil_type type)
{
    dil_error err;
    convert_result r;
    const convert_options o = {.type = type, .n_threads = 1};
    m = wide(m);
    tiny_path(p->large, "large.gguf");
    tiny_path(p->small, "small.gguf");
    tiny_path(p->out, "out.gguf");
    tiny_path(p->again, "again.gguf");
    tiny_write(p->large, &m);
    ok(convert_file(&r, p->large, p->small, &o, &err), &err);
}

static void unmake(const pair *p)
{
    unlink(p->large);
    unlink(p->small);
    unlink(p->out);
    unlink(p->again);
}

/* ---- gradients ---- */

/* One block of a tensor is multiplied by 1 + `by`. */
typedef struct nudge {
    const gguf_tensor *t;
    size_t block, n;
    float by;
    double found; /* gradient of that */
} nudge;

static void read_nudged(void *ctx, const gguf_tensor *t, float *out)
{
    const nudge *k = ctx;
    format_get(t->type)->decode(t->data, out, (size_t)(t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]));
    for (size_t i = 0; t == k->t && i < k->n; i++)
        out[k->block * k->n + i] *= 1.0f + k->by;
}

static void see(void *ctx, const gguf_tensor *t, const float *g)
{
    nudge *k = ctx;
    const size_t n = (size_t)(t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]);
    float *values = t == k->t ? malloc(n * sizeof *values) : NULL;
    if (!values)
        return;
    format_get(t->type)->decode(t->data, values, n);
    for (size_t i = k->block * k->n; i < (k->block + 1) * k->n; i++)
        k->found += (double)g[i] * (double)values[i];
    free(values);
}

static void check_gradients(tiny_model m, const char *const *names, float by)
{
    pair p;
    dil_error err;
    gguf *large = NULL, *small = NULL;
    team *workers = NULL;
    kernels k;
    walk *teacher = NULL, *student = NULL;
    int32_t tokens[SEQUENCES * CONTEXT];
    uint32_t random = 5;
    make_pair(&p, m, DIL_TYPE_Q4_0);
    for (int i = 0; i < SEQUENCES * CONTEXT; i++)
        tokens[i] = (int32_t)(tiny_random(&random) % 200);
    ok(gguf_open(&large, p.large, NULL, &err), &err);
    ok(gguf_open(&small, p.small, NULL, &err), &err);
    ok(team_new(&workers, 2, &err), &err);
    ok(kernels_select(&k, "avx2", &err), &err); /* products in f32 */
    ok(walk_new(&teacher, large, tokens, SEQUENCES, CONTEXT, workers, &k, &err), &err);
    ok(walk_new(&student, small, tokens, 2, CONTEXT, workers, &k, &err), &err);
    ok(walk_to_end(teacher, NULL, NULL, &err), &err);
    for (; *names; names++) {
        nudge n = {.t = gguf_tensor_find(small, *names), .block = 1, .n = 32};
        double kld, at[4];
        assert_non_null(n.t);
        walk_read_by(student, read_nudged, &n);
        ok(walk_distil(student, teacher, 2, 2, see, &n, &kld, &err), &err);
        for (int i = 0; i < 4; i++) {
            n.by = (i % 2 ? -1.0f : 1.0f) * (i < 2 ? by : 2 * by);
            ok(walk_distil(student, teacher, 2, 2, NULL, NULL, &at[i], &err), &err);
        }
        /* of fourth order (Richardson) */
        const double found = n.found / (2 * CONTEXT), one = (at[0] - at[1]) / (2 * (double)by),
                     two = (at[2] - at[3]) / (4 * (double)by), wanted = (4 * one - two) / 3;
        if (!(fabs(found - wanted) < 0.01 * fabs(wanted) + 1e-6))
            fail_msg("%s: wanted a gradient of %g, found %g", *names, wanted, found);
    }
    walk_free(teacher);
    walk_free(student);
    team_free(workers);
    gguf_close(large);
    gguf_close(small);
    unmake(&p);
}

static void gradients_are_those_of_finite_differences(void **state)
{
    static const char *const dense[] = {"blk.0.attn_q.weight",   "blk.0.attn_v.weight",   "blk.1.attn_output.weight",
                                        "blk.1.ffn_gate.weight", "blk.0.ffn_down.weight", "blk.0.attn_norm.weight",
                                        "output_norm.weight",    "token_embd.weight",     NULL};
    static const char *const experts[] = {"blk.0.attn_k.weight", "blk.1.ffn_down_exps.weight", "output_norm.weight", NULL};
    (void)state;
    tiny_model m = tiny_llama(DIL_TYPE_F32);
    check_gradients(m, dense, 0.01f);
    m.tied = !m.tied;
    check_gradients(m, dense, 0.01f);
    check_gradients(tiny_moe(DIL_TYPE_F32, false), experts, 0.003f);
}

/* ---- learning ---- */

static refine_options options(void)
{
    return (refine_options){.text_name = "letters",
                            .text = {text, sizeof text},
                            .n_sequences = 40,
                            .n_context = CONTEXT,
                            .n_steps = 24,
                            .n_threads = 2};
}

/* Everything but scales and vectors is the same. */
static void assert_same_codes(const char *before, const char *after)
{
    dil_error err;
    gguf *a = NULL, *b = NULL;
    size_t changed = 0;
    ok(gguf_open(&a, before, NULL, &err), &err);
    ok(gguf_open(&b, after, NULL, &err), &err);
    assert_int_equal(gguf_n_tensors(a), gguf_n_tensors(b));
    assert_int_equal(gguf_n_values(a), gguf_n_values(b));
    for (uint64_t i = 0; i < gguf_n_tensors(a); i++) {
        const gguf_tensor *x = gguf_tensor_at(a, i), *y = gguf_tensor_at(b, i);
        const size_t block = format_get(x->type)->block_bytes;
        const uint8_t *p = x->data, *q = y->data;
        int at[FORMAT_MOST_SCALES], n = format_scales(x->type, at);
        assert_true(str_equal(x->name, y->name));
        assert_int_equal(x->type, y->type);
        assert_int_equal(x->size_bytes, y->size_bytes);
        for (size_t j = 0; j < x->size_bytes; j++) {
            bool scale = x->n_dims == 1;
            for (int k = 0; k < n; k++)
                scale = scale || j % block == (size_t)at[k] || j % block == (size_t)at[k] + 1;
            changed += p[j] != q[j];
            if (!scale && p[j] != q[j])
                fail_msg("byte %zu of a tensor of type %s changed", j, format_get(x->type)->name);
        }
    }
    assert_true(changed > 100);
    gguf_close(a);
    gguf_close(b);
}

static void check_learning(tiny_model m, dil_type type)
{
    pair p;
    dil_error err;
    refine_result r;
    const refine_options o = options();
    make_pair(&p, m, type);
    ok(refine_file(&r, p.large, p.small, p.out, &o, &err), &err);
    print_message("%s %s: divergence %.5f -> %.5f after %d of %d steps\n", m.arch, format_get(type)->name, r.before, r.after,
                  r.best, r.n_steps);
    assert_true(r.best > 0 && r.after < 0.98 * r.before);
    assert_same_codes(p.small, p.out);
    unmake(&p);
}

static void divergence_falls_and_codes_stay(void **state)
{
    (void)state;
    check_learning(tiny_llama(DIL_TYPE_F32), DIL_TYPE_Q4_1);
    check_learning(tiny_gemma(DIL_TYPE_F32), DIL_TYPE_Q4_0);
    check_learning(tiny_moe(DIL_TYPE_F32, false), DIL_TYPE_IQ4_NL);
}

static void assert_same_file(const char *a, const char *b)
{
    dil_error err;
    char *x = NULL, *y = NULL;
    size_t n = 0, m = 0;
    ok(os_read_all(a, (size_t)1 << 30, &x, &n, &err), &err);
    ok(os_read_all(b, (size_t)1 << 30, &y, &m, &err), &err);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    mem_free(x);
    mem_free(y);
}

static void threads_do_not_matter(void **state)
{
    pair p;
    dil_error err;
    refine_result r;
    refine_options o = options();
    (void)state;
    make_pair(&p, tiny_llama(DIL_TYPE_F32), DIL_TYPE_Q5_1);
    o.n_steps = 10;
    ok(refine_file(&r, p.large, p.small, p.out, &o, &err), &err);
    o.n_threads = 5;
    ok(refine_file(&r, p.large, p.small, p.again, &o, &err), &err);
    assert_same_file(p.out, p.again);
    unmake(&p);
}

static bool stop_at(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)total;
    return strcmp(what, "refining") != 0 || done < *(uint64_t *)user;
}

static void an_interrupted_run_ends_the_same(void **state)
{
    pair p;
    dil_error err;
    refine_result r;
    refine_options o = options();
    uint64_t stop = 3;
    (void)state;
    make_pair(&p, tiny_llama(DIL_TYPE_F32), DIL_TYPE_Q4_0);
    o.n_steps = 10;
    ok(refine_file(&r, p.large, p.small, p.out, &o, &err), &err);
    o.resume = true;
    o.progress = stop_at;
    o.user = &stop;
    for (; stop < 10; stop += 4) {
        assert_int_equal(refine_file(&r, p.large, p.small, p.again, &o, &err), DIL_CANCELLED);
        assert_false(os_exists(p.again));
    }
    ok(refine_file(&r, p.large, p.small, p.again, &o, &err), &err);
    assert_same_file(p.out, p.again);
    unmake(&p);
}

static void what_is_good_stays_as_it_is(void **state)
{
    pair p;
    dil_error err;
    refine_result r;
    const refine_options o = options();
    (void)state;
    make_pair(&p, tiny_llama(DIL_TYPE_F32), DIL_TYPE_F32);
    ok(refine_file(&r, p.large, p.small, p.out, &o, &err), &err);
    assert_true(r.before < 1e-9 && r.after <= r.before);
    assert_int_equal(r.best, 0);
    assert_true(r.n_steps < o.n_steps); /* no patience left */
    assert_same_file(p.small, p.out);
    unmake(&p);
}

static void what_does_not_fit_is_refused(void **state)
{
    pair p;
    dil_error err;
    refine_result r;
    refine_options o = options();
    tiny_model other = wide(tiny_llama(DIL_TYPE_F32));
    (void)state;
    make_pair(&p, tiny_llama(DIL_TYPE_F32), DIL_TYPE_Q4_0);
    o.text.n = 40;
    assert_int_equal(refine_file(&r, p.large, p.small, p.out, &o, &err), DIL_LIMIT);
    o = options();
    assert_int_equal(refine_file(&r, p.large, p.small, p.small, &o, &err), DIL_BAD_ARGUMENT);
    other.n_vocab += 8;
    tiny_write(p.again, &other);
    assert_int_equal(refine_file(&r, p.large, p.again, p.out, &o, &err), DIL_BAD_ARGUMENT);
    other = wide(tiny_moe(DIL_TYPE_F32, true));
    tiny_write(p.large, &other);
    assert_int_equal(refine_file(&r, p.large, p.small, p.out, &o, &err), DIL_UNSUPPORTED);
    assert_false(os_exists(p.out));
    unmake(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(gradients_are_those_of_finite_differences),
                                       cmocka_unit_test(divergence_falls_and_codes_stay),
                                       cmocka_unit_test(threads_do_not_matter),
                                       cmocka_unit_test(an_interrupted_run_ends_the_same),
                                       cmocka_unit_test(what_is_good_stays_as_it_is),
                                       cmocka_unit_test(what_does_not_fit_is_refused)};
    return leaks_run_group_tests(tests, set_up, NULL);
}
