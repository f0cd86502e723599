/* The whole chain on tiny models of every shape the trainer knows: files that load, wanted sizes, refusals, and every failure of memory and
 * disk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "leaks.h"
#include "quantize/compress.h"
#include "quantize/importance.h"
#include "tiny_model.h"

enum { CONTEXT = 32 };

static char text[6000];

static void ok(dil_status st, const dil_error *err)
{
    if (st != DIL_OK)
        fail_msg("%s", err->text);
}

static compress_options options(void)
{
    return (compress_options){.type = DIL_TYPE_COUNT,
                              .bits = 5.0,
                              .text_name = "letters",
                              .text = {text, sizeof text},
                              .n_sequences = 12,
                              .n_context = CONTEXT,
                              .most_sweeps = 20,
                              .n_threads = 2,
                              .measure = true};
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

static void check_model(tiny_model m)
{
    char in[600], out[600];
    dil_error err;
    compress_report r;
    compress_options o = options();
    m = wide(m);
    tiny_path(in, "in.gguf");
    tiny_path(out, "out.gguf");
    tiny_write(in, &m);
    o.refine_steps = 4;
    ok(compress_file(&r, in, out, &o, &err), &err);
    assert_true(r.written && r.measured && r.allocated && r.refined.n_steps > 0 && r.refined.after <= r.refined.before);
    assert_true(r.predicted >= 0 && r.kld >= 0 && r.kld < 5);
    double values = (double)players_values(&r.players), bytes = 0;
    for (int i = 0; i < r.players.n; i++)
        bytes += (double)r.players.p[i].choice[r.players.p[i].chosen].bytes;
    assert_true(8 * bytes / values <= 5.0 && 8 * bytes / values > 3.5);
    compress_report_free(&r);
    unlink(in);
    unlink(out);
}

static void every_shape_is_made_small(void **state)
{
    (void)state;
    check_model(tiny_llama(DIL_TYPE_F32));
    check_model(tiny_gemma(DIL_TYPE_F16));
    check_model(tiny_moe(DIL_TYPE_F32, false));
}

/* With less room than a curvature needs, columns are rounded in parts: a sound file that is not much worse, and the report says so. */
static void wide_matrices_are_rounded_in_parts(void **state)
{
    char in[600], out[600];
    dil_error err;
    compress_report whole, parts;
    compress_options o = options();
    tiny_model m = wide(tiny_llama(DIL_TYPE_F32));
    (void)state;
    m.n_ff = 128;
    tiny_path(in, "in.gguf");
    tiny_path(out, "out.gguf");
    tiny_write(in, &m);
    o.bits = 0;
    o.type = DIL_TYPE_Q4_1;
    ok(compress_file(&whole, in, out, &o, &err), &err);
    o.most_curvature = 2 * 64 * 64;
    ok(compress_file(&parts, in, out, &o, &err), &err);
    for (int i = 0; i < parts.players.n; i++) {
        const player *q = &parts.players.p[i];
        const round_report *a = &whole.matrix[i].round, *b = &parts.matrix[i].round;
        if (q->place != NET_DOWN)
            continue;
        assert_int_equal(whole.matrix[i].curvature_columns, 128);
        assert_int_equal(parts.matrix[i].curvature_columns, 64);
        assert_true(b->n_codes == a->n_codes && b->cost > 0 && b->cost < b->fed && b->fed < b->plain);
        assert_true(parts.matrix[i].predicted > 0.2 * whole.matrix[i].predicted);
    }
    assert_true(parts.kld < 2 * whole.kld + 1e-4);
    compress_report_free(&whole);
    compress_report_free(&parts);
    unlink(in);
    unlink(out);
}

static void other_architectures_are_refused_by_name(void **state)
{
    char in[600], out[600];
    dil_error err;
    compress_report r;
    compress_options o = options();
    tiny_model m = wide(tiny_moe(DIL_TYPE_F32, true));
    int n = 0;
    (void)state;
    tiny_path(in, "in.gguf");
    tiny_path(out, "out.gguf");
    tiny_write(in, &m);
    assert_int_equal(compress_file(&r, in, out, &o, &err), DIL_UNSUPPORTED);
    assert_non_null(strstr(err.text, "shexp"));
    assert_false(os_exists(out));
    o.measure = false;
    ok(compress_calibrate(in, out, false, &o, &n, &err), &err); /* importance does */
    assert_int_equal(n, 12);
    assert_true(os_exists(out) && !calibration_is_full(out));
    unlink(in);
    unlink(out);
}

/* One failure after another, further and further on: an error and no file, until it works. */
static void every_failure_is_an_error(void **state)
{
    char in[600], out[600];
    dil_error err;
    compress_report r;
    compress_options o = options();
    tiny_model m = wide(tiny_llama(DIL_TYPE_F32));
    bool done = false;
    (void)state;
    m.n_layer = 1;
    o.n_sequences = 4;
    o.most_sweeps = 1;
    o.refine_steps = 2;
    tiny_path(in, "in.gguf");
    tiny_path(out, "out.gguf");
    tiny_write(in, &m);
    for (int64_t after = 0; !done && after < 100000; after += 1 + after / 8) {
        for (int disk = 0; disk < 2; disk++) {
            memset(&err, 0, sizeof err);
            if (disk)
                os_inject_failure(after);
            else
                mem_inject_failure(after);
            dil_status status = compress_file(&r, in, out, &o, &err);
            os_inject_failure(-1);
            mem_inject_failure(-1);
            done = status == DIL_OK && disk;
            if (status == DIL_OK) {
                compress_report_free(&r);
                unlink(out);
                continue;
            }
            assert_true(err.text[0] != '\0');
        }
    }
    assert_true(done);
    unlink(in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_shape_is_made_small),
                                       cmocka_unit_test(wide_matrices_are_rounded_in_parts),
                                       cmocka_unit_test(other_architectures_are_refused_by_name),
                                       cmocka_unit_test(every_failure_is_an_error)};
    return leaks_run_group_tests(tests, set_up, NULL);
}
