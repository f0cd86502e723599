/* A whole training run on a tiny text: the loss falls, a run that stopped goes on to the bit, and checkpoints that are damaged or of
 * another run are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "file/gguf.h"
#include "leaks.h"
#include "model/vocab_load.h"
#include "tiny_run.h"

#define HEAD_BYTES 112 /* of a checkpoint; the length of its config stands at 12 */

typedef struct seen {
    int n, n_prepared, stop_at; /* stop_at 0: never */
    double first, last, held_out[2], violation;
} seen;

static void prepared(void *user, const train_config *c, const net *n)
{
    seen *s = user;
    s->n_prepared++;
    assert_int_equal(c->net.n_vocab, 320);
    assert_true(net_active(n) < net_size(n) && net_flops(n) > 6.0 * (double)net_active(n) - 1);
}

/* The whole loss is its terms, with cache, swarm and nash as strong as they are at this step of the run. */
static void check_total(const train_progress *p)
{
    const train_config c = config();
    const loss_values *v = &p->result.router;
    double x = (double)(p->step - 1) / STEPS, strength = fmin(1, fmax(0, (x - c.loss_from) / (c.loss_to - c.loss_from)));
    double held = (double)c.loss.cache * v->cache + (double)c.loss.swarm * v->swarm - (double)c.loss.nash * v->nash;
    double router = (double)c.loss.balance * v->balance + (double)c.loss.z * v->z - strength * held;
    double total = p->result.ce + (double)c.z_weight * p->result.z_loss + c.net.n_layer * router;
    assert_true(v->cache > 0.01);
    assert_float_equal(p->result.total, total, 1e-6);
}

static bool step(void *user, const train_progress *p)
{
    seen *s = user;
    if (s->n++ == 0)
        s->first = p->result.ce;
    s->last = p->result.ce;
    assert_true(isfinite(p->result.total) && isfinite(p->gradient_norm) && p->tokens_per_second > 0 && p->gflops > 0);
    assert_int_equal(p->tokens, p->step * 8 * 32);
    assert_int_equal(p->evaluated, p->step % 4 == 0 || p->step == STEPS);
    check_total(p);
    double load = 0;
    for (int e = 0; e < 4; e++)
        load += (double)p->result.load[1][e];
    assert_float_equal(load, 4.0, 1e-3);
    for (int i = 0; p->evaluated && i < 2; i++)
        s->held_out[i] = p->held_out[i];
    s->violation = p->routing[0].violation;
    return s->n != s->stop_at;
}

static dil_status train(const train_config *c, bool resume, uint64_t stop_after, int n_threads, seen *s)
{
    train_options o = {.resume = resume,
                       .stop_after = stop_after,
                       .cpu = "scalar",
                       .n_threads = n_threads,
                       .prepared = prepared,
                       .step = step,
                       .user = s};
    return train_run(c, &o, &err);
}

/* ---- a run in one go and in pieces ---- */

/* Values, prices and moments: what lies between the config and the sum. */
static char *floats_of(size_t *n)
{
    uint32_t config_bytes;
    char *bytes = read_bytes(checkpoint, n);
    memcpy(&config_bytes, bytes + 12, sizeof config_bytes);
    size_t from = HEAD_BYTES + config_bytes, length = *n - from - 8;
    char *floats = malloc(length);
    assert_non_null(floats);
    memcpy(floats, bytes + from, length);
    mem_free(bytes);
    *n = length;
    return floats;
}

/* The log without its columns of time: seconds, tokens_per_second, gflops. */
static char *timeless_log(void)
{
    size_t n, used = 0;
    char *text = read_bytes(log_path, &n), *out = malloc(n + 1);
    assert_non_null(out);
    for (size_t i = 0, column = 0; i < n; i++) {
        if (column < 2 || column > 4 || text[i] == '\n')
            out[used++] = text[i];
        column = text[i] == '\n' ? 0 : column + (text[i] == ',');
    }
    out[used] = '\0';
    mem_free(text);
    return out;
}

static void check_state(uint64_t wanted)
{
    train_config c;
    checkpoint_state state;
    ok(checkpoint_open(checkpoint, &c, &state, &err));
    assert_int_equal(state.step, wanted);
    assert_int_equal(state.tokens, wanted * 8 * 32);
    assert_string_equal(state.level, "scalar f32");
    assert_int_equal(c.net.n_vocab, 320);
    assert_string_equal(c.output, folder);
}

/* Prices have fallen to nothing at the end: files hold none. */
static void check_prices(bool zero)
{
    checkpoint_state cs;
    train_config c;
    small_net sn;
    bool any = false;
    ok(checkpoint_open(checkpoint, &c, &cs, &err));
    open_net(&sn, &c.net);
    ok(checkpoint_load(checkpoint, sn.n, NULL, &err));
    for (int i = 0; i < c.net.n_layer * c.net.n_experts; i++)
        any |= fabsf(net_prices(sn.n)[i]) > 0.0f;
    assert_true(any != zero);
    close_net(&sn);
}

static void goes_on_to_the_bit(void **state)
{
    (void)state;
    train_config c = config();
    size_t n, n_again;
    seen whole = {0}, parts = {0}, stopped = {.stop_at = 2};
    forget();
    ok(train(&c, false, 0, 2, &whole));
    assert_int_equal(whole.n, STEPS);
    assert_int_equal(whole.n_prepared, 1);
    assert_true(whole.last < whole.first - 0.2);
    assert_true(whole.held_out[0] > 0.1 && whole.held_out[0] < 8 && whole.held_out[1] > 0.1 && whole.held_out[1] < 8);
    check_state(STEPS);
    check_prices(true);
    char *floats = floats_of(&n), *log = timeless_log();
    forget();
    ok(train(&c, false, 5, 1, &parts)); /* other numbers of threads: the same bits */
    assert_int_equal(parts.n, 5);
    check_state(5);
    check_prices(false);
    assert_int_equal(train(&c, true, 0, 2, &stopped), DIL_CANCELLED);
    assert_int_equal(stopped.n, 2);
    check_state(7);
    ok(train(&c, true, 0, 2, &parts));
    assert_int_equal(parts.n, STEPS - 2);
    check_state(STEPS);
    char *floats_again = floats_of(&n_again), *log_again = timeless_log();
    assert_int_equal(n, n_again);
    assert_memory_equal(floats, floats_again, n);
    assert_string_equal(log, log_again);
    ok(train(&c, true, 0, 2, &parts)); /* nothing is left to do */
    assert_int_equal(parts.n, STEPS - 2);
    free(floats);
    free(log);
    free(floats_again);
    free(log_again);
}

/* As after a crash between two checkpoints: the log is ahead, and is cut. */
static void log_ahead_of_checkpoint(void **state)
{
    (void)state;
    train_config c = config();
    seen s = {0};
    size_t n;
    forget();
    ok(train(&c, false, 5, 1, &s));
    char *bytes = read_bytes(checkpoint, &n);
    ok(train(&c, true, 2, 1, &s));
    write_bytes(checkpoint, bytes, n);
    mem_free(bytes);
    ok(train(&c, true, 0, 1, &s));
    char *log = timeless_log();
    int lines = 0;
    for (const char *p = log; *p; p++)
        lines += *p == '\n';
    assert_int_equal(lines, 1 + STEPS);
    free(log);
}

/* ---- evaluation ---- */

static vocab *open_vocab(void)
{
    gguf *g;
    vocab *v;
    gguf_options header = {.header_only = true};
    ok(gguf_open(&g, vocabulary, &header, &err));
    ok(vocab_from_gguf(&v, g, &err));
    gguf_close(g);
    return v;
}

static double bytes_of(const vocab *v, token_id id)
{
    strbuf text = STRBUF(1000);
    vocab_decode_token(v, id, false, &text);
    double n = (double)text.n;
    strbuf_free(&text);
    return n;
}

/* Nats of the whole held-out part over the bytes of its targets, sequence by sequence; choices of experts are counted. */
static double bits_by_hand(const train_config *c, net *n, uint64_t counts[2][4])
{
    corpus *texts;
    vocab *v = open_vocab();
    corpus_options o = {.sources = c->sources,
                        .n_sources = c->n_sources,
                        .v = v,
                        .directory = folder,
                        .context = 32,
                        .seed = c->seed,
                        .n_threads = 1};
    int32_t tokens[33];
    float nats[32];
    double sum = 0, bytes = 0;
    ok(corpus_open(&texts, &o, &err));
    corpus_part part = corpus_held_out(texts, 0);
    assert_true(part.n > 200);
    for (size_t at = 0; at + 33 <= part.n; at += 32) {
        for (size_t t = 0; t < 33; t++)
            tokens[t] = part.tokens[at + t];
        net_evaluate(n, tokens, 1, nats);
        for (int t = 0; t < 32; t++) {
            sum += (double)nats[t];
            bytes += bytes_of(v, tokens[t + 1]);
        }
        for (int l = 0; l < 2; l++)
            for (int i = 0; i < 64; i++)
                counts[l][net_choices(n, l)[i]]++;
    }
    corpus_free(texts);
    vocab_free(v);
    return sum / log(2) / bytes;
}

static void evaluation_by_hand(void **state)
{
    (void)state;
    train_config c = config(), found;
    checkpoint_state cs;
    seen s = {0};
    small_net sn;
    uint64_t counts[2][4] = {0};
    c.evaluate_sequences = 0;
    forget();
    ok(train(&c, false, 0, 1, &s));
    ok(checkpoint_open(checkpoint, &found, &cs, &err));
    open_net(&sn, &found.net);
    ok(checkpoint_load(checkpoint, sn.n, NULL, &err));
    assert_float_equal(s.held_out[0], bits_by_hand(&c, sn.n, counts), 1e-9);
    double worst = 0;
    for (int l = 0; l < 2; l++)
        for (int e = 0; e < 4; e++)
            worst =
                fmax(worst, 4.0 * (double)counts[l][e] / (double)(counts[l][0] + counts[l][1] + counts[l][2] + counts[l][3]) - 1);
    assert_float_equal(s.violation, worst, 1e-12);
    close_net(&sn);
}

/* A step in four passes has the gradient of the step in one: the terms of the router, which look at a pass as a whole, left out. */
static bool note_norm(void *user, const train_progress *p)
{
    *(double *)user = p->gradient_norm;
    return true;
}

static void passes_make_a_step(void **state)
{
    (void)state;
    train_config c = config();
    double norm[2];
    c.loss = (loss_config){0};
    for (int i = 0; i < 2; i++) {
        train_options o = {.stop_after = 1, .cpu = "scalar", .n_threads = 1, .step = note_norm, .user = &norm[i]};
        c.n_accumulate = i ? 4 : 1;
        forget();
        ok(train_run(&c, &o, &err));
    }
    assert_true(norm[0] > 0.01 && fabs(norm[1] - norm[0]) <= 1e-4 * norm[0]);
}

/* ---- refusals ---- */

static void other_runs(void **state)
{
    (void)state;
    train_config c = config(), other;
    seen s = {0};
    forget();
    refuse(train(&c, true, 0, 1, &s), DIL_IO, "checkpoint.bin");
    ok(train(&c, false, 2, 1, &s));
    refuse(train(&c, false, 0, 1, &s), DIL_BAD_ARGUMENT, "--resume");
    other = c;
    other.seed++;
    refuse(train(&other, true, 0, 1, &s), DIL_BAD_ARGUMENT, "seed");
    other = c;
    other.n_sources = 1;
    refuse(train(&other, true, 0, 1, &s), DIL_BAD_ARGUMENT, "corpora");
    other = c;
    other.sources[1].weight = 2;
    refuse(train(&other, true, 0, 1, &s), DIL_BAD_ARGUMENT, "corpora: weight");
    other = c;
    other.sources[1].held_out = 0.2;
    refuse(train(&other, true, 0, 1, &s), DIL_BAD_ARGUMENT, "corpora: held_out");
    other = c;
    memcpy(other.sources[1].path, c.sources[0].path, sizeof c.sources[0].path); /* another text by the same name */
    refuse(train(&other, true, 0, 1, &s), DIL_BAD_ARGUMENT, "corpora: wanted the texts");
    other = c;
    other.optimiser.muon = MUON_ALL;
    refuse(train(&other, true, 0, 1, &s), DIL_BAD_ARGUMENT, "training.muon");
    other = c;
    other.net.n_ff_expert = 64;
    refuse(train(&other, true, 0, 1, &s), DIL_BAD_ARGUMENT, "moe_intermediate_size: wanted 64, found 32");
    other = c;
    other.n_steps = 1;
    refuse(train(&other, true, 0, 1, &s), DIL_BAD_ARGUMENT, "training.steps");
    refuse(train(&c, true, 0, 0, &s), DIL_BAD_ARGUMENT, "threads");
    assert_int_equal(s.n, 2);
    check_state(2);
}

/* What can be known from the config is said before a vocabulary is learnt. */
static void early_refusals(void **state)
{
    (void)state;
    train_config c = config();
    seen s = {0};
    forget();
    (void)snprintf(c.sources[1].name, sizeof c.sources[1].name, "t/r");
    refuse(train(&c, false, 0, 1, &s), DIL_BAD_ARGUMENT, "found \"t/r\"");
    c = config();
    c.n_sequences = 1024;
    c.n_accumulate = 2;
    c.net.n_context = 65536 / 2;
    refuse(train(&c, false, 0, 1, &s), DIL_LIMIT, "gradient_accumulation_steps: wanted at most 1048576");
    c.n_sequences = 32768;
    c.net.n_context = 65536;
    refuse(train(&c, false, 0, 1, &s), DIL_LIMIT, "batch_size");
    assert_false(os_exists(vocabulary));
}

/* Every cut and a changed bit anywhere: refused, and the net stays as it was. */
static void damaged_checkpoints(void **state)
{
    (void)state;
    train_config c = config(), found;
    checkpoint_state cs;
    seen s = {0};
    small_net sn;
    size_t n;
    forget();
    ok(train(&c, false, 1, 1, &s));
    ok(checkpoint_open(checkpoint, &found, &cs, &err));
    open_net(&sn, &found.net);
    char *bytes = read_bytes(checkpoint, &n);
    for (size_t at = 0; at < n; at += at < 2000 ? 7 : n / 60) {
        bytes[at] ^= 16;
        write_bytes(checkpoint, bytes, n);
        dil_status status = checkpoint_load(checkpoint, sn.n, NULL, &err);
        assert_true(status == DIL_FORMAT || status == DIL_UNSUPPORTED);
        bytes[at] ^= 16;
    }
    for (size_t cut = 0; cut < n; cut += cut < 200 ? 13 : n / 9) {
        write_bytes(checkpoint, bytes, cut);
        refuse(checkpoint_load(checkpoint, sn.n, NULL, &err), DIL_FORMAT, "checkpoint.bin");
    }
    for (size_t i = 0; i < net_size(sn.n); i++)
        assert_true(net_values(sn.n)[i] == 0.0f);
    write_bytes(checkpoint, bytes, n);
    ok(checkpoint_load(checkpoint, sn.n, NULL, &err));
    mem_free(bytes);
    close_net(&sn);
}

/* A value that is no number: the run stops, the checkpoint it came from stays. */
static void not_finite(void **state)
{
    (void)state;
    train_config c = config(), found;
    checkpoint_state cs;
    seen s = {0};
    small_net sn;
    optimiser *o;
    size_t n, n_after;
    forget();
    ok(train(&c, false, 2, 1, &s));
    ok(checkpoint_open(checkpoint, &found, &cs, &err));
    open_net(&sn, &found.net);
    ok(optimiser_new(&o, sn.n, &found.optimiser, sn.workers, &sn.k, &err));
    ok(checkpoint_load(checkpoint, sn.n, o, &err));
    for (size_t i = 0; i < net_size(sn.n); i++)
        net_values(sn.n)[i] = NAN;
    ok(checkpoint_save(checkpoint, &found, &cs, sn.n, o, &err));
    char *before = read_bytes(checkpoint, &n);
    refuse(train(&c, true, 0, 1, &s), DIL_FORMAT, "finite");
    assert_int_equal(s.n, 2);
    char *after = read_bytes(checkpoint, &n_after);
    assert_int_equal(n, n_after);
    assert_memory_equal(before, after, n);
    mem_free(before);
    mem_free(after);
    optimiser_free(o);
    close_net(&sn);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goes_on_to_the_bit),  cmocka_unit_test(log_ahead_of_checkpoint),
        cmocka_unit_test(passes_make_a_step),  cmocka_unit_test(evaluation_by_hand),
        cmocka_unit_test(other_runs),          cmocka_unit_test(early_refusals),
        cmocka_unit_test(damaged_checkpoints), cmocka_unit_test(not_finite),
    };
    return leaks_run_group_tests(tests, prepare, NULL);
}
