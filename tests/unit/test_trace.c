/* Router logs and their simulator: what is written is read back, cut and changed files are noticed, the figures agree with a
 * plain model, and the policies keep what they promise. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../router_trace.h"
#include "experts/flock.h"
#include "experts/simulate.h"
#include "experts/trace_format.h"
#include "leaks.h"
#include "tiny_model.h"

static char path[600];

static void ok(dil_status status, const dil_error *err)
{
    if (status != DIL_OK)
        fail_msg("%s", err->text);
}

static int prepare(void **state)
{
    (void)state;
    tiny_path(path, "log.route");
    return 0;
}

static const router_kind small = {"small", 4, 11, 3, 9, 0.7, 0.3, 0.4, 0.2, 0.05, 20000, true, true};

static trace *made(const router_kind *k, uint64_t seed, uint32_t batch, bool weights)
{
    trace *t = NULL;
    dil_error err;
    ok(router_write(k, seed, batch, weights, path, &err), &err);
    ok(trace_open(&t, path, &err), &err);
    return t;
}

/* ---- the file ---- */

static void round_trip(void **state)
{
    (void)state;
    for (int way = 0; way < 8; way++) {
        router_kind k = small;
        uint32_t batch = way & 1 ? 4 : 1;
        uint16_t wanted[TRACE_MOST_USED];
        k.n_experts = way & 4 ? 300 : 11;
        k.n_tokens = way & 4 ? 3000 : 9; /* more than the writer's buffer */
        trace *t = made(&k, 5, batch, way & 2);
        trace_layer *layers = router_layers(&k);
        assert_string_equal(t->name, "small");
        assert_true(t->finished && t->ignored_bytes == 0);
        assert_int_equal(t->n_tokens, k.n_tokens);
        assert_int_equal(t->n_places, k.n_layers - 1);
        assert_memory_equal(t->layers, layers, k.n_layers * sizeof *layers);
        assert_int_equal(t->weights != NULL, (way & 2) != 0);
        router_state s = router_begin(&k, 5);
        for (uint32_t i = 0; i < k.n_tokens; i++) {
            assert_int_equal(t->begins[i], i % batch == 0);
            for (uint32_t l = 0; l < k.n_layers; l++) {
                router_choose(&s, l, wanted);
                if (l > 0)
                    assert_memory_equal(trace_chosen(t, i, l - 1), wanted, k.n_used * sizeof *wanted);
            }
        }
        if (t->weights)
            assert_int_equal(t->weights[0], 128);
        router_end(&s);
        free(layers);
        trace_free(t);
    }
}

static uint8_t *bytes_of(size_t *n)
{
    char *text;
    dil_error err;
    ok(os_read_all(path, 1 << 24, &text, n, &err), &err);
    return (uint8_t *)text;
}

/* Every truncation: whole tokens stay, the rest is said; the header must be whole. From a block of exactly that size. */
static void cut_everywhere(const router_kind *k, bool weights)
{
    trace *whole = made(k, 1, 2, weights), *t;
    dil_error err;
    size_t n, header = TRACE_HEAD_BYTES + k->n_layers * TRACE_LAYER_BYTES + 5 + 4,
              record = trace_record_bytes(whole->layers, k->n_layers, k->n_used, weights);
    uint8_t *bytes = bytes_of(&n);
    assert_int_equal(n, header + 9 * record + TRACE_END_BYTES);
    for (size_t cut = 0; cut < n; cut++) {
        uint8_t *copy = malloc(cut ? cut : 1);
        memcpy(copy, bytes, cut);
        dil_status status = trace_parse(&t, copy, cut, &err);
        if (cut < header) {
            assert_int_equal(status, DIL_FORMAT);
        } else {
            ok(status, &err);
            assert_false(t->finished);
            uint64_t tokens = (cut - header) / record < 9 ? (cut - header) / record : 9;
            assert_int_equal(t->n_tokens, tokens);
            assert_int_equal(t->ignored_bytes, cut - header - tokens * record);
            assert_memory_equal(t->chosen, whole->chosen, tokens * t->n_places * t->n_used * sizeof *t->chosen);
            trace_free(t);
        }
        free(copy);
    }
    mem_free(bytes);
    trace_free(whole);
}

static void cut_off(void **state)
{
    (void)state;
    router_kind tiny = {"small", 1, 2, 1, 9, 0, 0, 0, 0, 0, 1, false, false}; /* a record is shorter than the mark of the end */
    cut_everywhere(&small, true);
    cut_everywhere(&tiny, false);
}

/* Every byte changed: refused, or only the mark of the end is no longer one. */
static void flipped(void **state)
{
    (void)state;
    trace *whole = made(&small, 1, 1, true), *t;
    dil_error err;
    size_t n;
    uint8_t *bytes = bytes_of(&n);
    for (size_t at = 0; at < n; at++)
        for (int bit = 0; bit < 8; bit += 3) {
            bytes[at] ^= (uint8_t)(1 << bit);
            dil_status status = trace_parse(&t, bytes, n, &err);
            bytes[at] ^= (uint8_t)(1 << bit);
            if (status == DIL_OK) {
                assert_true(at >= n - TRACE_END_BYTES && !t->finished && t->n_tokens == whole->n_tokens);
                trace_free(t);
            } else if (status != DIL_FORMAT && !(status == DIL_UNSUPPORTED && at >= 8 && at < 12)) {
                fail_msg("byte %zu: found '%s': %s", at, status_name(status), err.text);
            }
        }
    mem_free(bytes);
    trace_free(whole);
}

/* Headers with a right check and wrong contents. */
static void hostile(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        int bytes;
        uint64_t value;
    } wrong[] = {{12, 4, UINT32_MAX}, {16, 4, 0},
                 {16, 4, UINT32_MAX}, {20, 4, 0},
                 {20, 4, 12},         {20, 4, UINT32_MAX},
                 {24, 4, 2},          {28, 4, UINT32_MAX},
                 {32 + 16, 8, 0},     {32 + 16, 8, UINT64_MAX},
                 {32 + 24, 4, 2},     {32 + 24, 4, UINT32_MAX}};
    trace *t = made(&small, 1, 1, false);
    dil_error err;
    size_t n, header = TRACE_HEAD_BYTES + 4 * TRACE_LAYER_BYTES + 5 + 4;
    trace_free(t);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        uint8_t *bytes = bytes_of(&n);
        trace_put_number(bytes + wrong[i].at, wrong[i].value, wrong[i].bytes);
        trace_put_number(bytes + header - 4, trace_check(TRACE_CHECK_START, bytes, header - 4), 4);
        if (trace_parse(&t, bytes, n, &err) != DIL_FORMAT)
            fail_msg("case %zu: %s", i, err.text);
        mem_free(bytes);
    }
    uint8_t *bytes = bytes_of(&n); /* an expert twice, with a right check */
    size_t record = 1 + (3 * 3 * 4 + 7) / 8 + 4;
    bytes[header + 1] = 0x11;
    trace_put_number(bytes + header + record - 4, trace_record_check(0, bytes + header, record - 4), 4);
    assert_int_equal(trace_parse(&t, bytes, n, &err), DIL_FORMAT);
    assert_non_null(strstr(err.text, "different experts"));
    mem_free(bytes);
}

static void bad_writers(void **state)
{
    (void)state;
    trace_writer *w = NULL;
    dil_error err;
    trace_layer layers[2] = {{.bytes = 10, .n_experts = 4}, {.bytes = 0, .n_experts = 0}};
    trace_options good = {.name = "x", .layers = layers, .n_layers = 2, .n_used = 2, .most_tokens = 3}, o = good;
    o.n_used = 5;
    assert_int_equal(trace_writer_open(&w, path, &o, &err), DIL_BAD_ARGUMENT);
    o = good;
    o.most_tokens = 0;
    assert_int_equal(trace_writer_open(&w, path, &o, &err), DIL_BAD_ARGUMENT);
    o = good;
    o.n_layers = 0;
    assert_int_equal(trace_writer_open(&w, path, &o, &err), DIL_BAD_ARGUMENT);
    assert_null(w);
    assert_int_equal(trace_writer_open(&w, "/nowhere/at/all", &good, &err), DIL_IO);
    (void)unlink(path);
    ok(trace_writer_open(&w, path, &good, &err), &err);
    assert_int_equal(trace_writer_begin(w, 4, &err), DIL_BAD_ARGUMENT);
    trace_writer_abort(w);
    assert_false(os_exists(path));
    assert_int_equal(trace_open(&(trace *){NULL}, path, &err), DIL_IO);
}

static dil_status life(dil_error *err)
{
    trace *t;
    simulation s;
    simulate_reuse reuse[8];
    DIL_TRY(router_write(&small, 3, 2, true, path, err));
    DIL_TRY(trace_open(&t, path, err));
    dil_status status = simulate_measure(t, reuse, err);
    for (int k = 0; status == DIL_OK && k < POLICY_KINDS; k++)
        status = simulate(t, (policy_kind)k, simulate_all_bytes(t) * 2, &s, NULL, err);
    trace_free(t);
    return status;
}

static void torture(void **state)
{
    (void)state;
    void (*const inject[2])(int64_t) = {mem_inject_failure, os_inject_failure};
    for (int way = 0; way < 2; way++)
        for (int n = 0;; n++) {
            dil_error err = {.code = DIL_OK};
            (void)unlink(path);
            inject[way](n);
            dil_status status = life(&err);
            inject[way](-1);
            leaks_nothing_left(NULL);
            if (status == DIL_OK)
                break;
            if (status != (way ? DIL_IO : DIL_NO_MEMORY) || !err.text[0])
                fail_msg("failure %d: found '%s': %s", n, status_name(status), err.text);
            assert_true(n < 1000);
        }
}

/* ---- the flock ---- */

static void flocks(void **state)
{
    (void)state;
    enum { N = 40 };
    flock f = {0};
    uint16_t near[FLOCK_SIZE];
    float share[FLOCK_SIZE], sum = 0;
    uint64_t seed = 3;
    void *memory = mem_calloc(1, flock_bytes(N), MEM_MISC);
    flock_init(&f, N, memory);
    assert_int_equal(flock_neighbours(&f, 0, near, share), 0);
    for (int i = 0; i < 20000; i++) { /* 0 with 1..7 often, with all others now and then */
        uint16_t list[2] = {0, (uint16_t)(i % 2 ? 1 + random_next(&seed) % 7 : 8 + random_next(&seed) % (N - 8))};
        flock_note(&f, list, 2);
    }
    assert_int_equal(flock_neighbours(&f, 0, near, share), FLOCK_SIZE);
    for (int i = 0; i < FLOCK_SIZE; i++) {
        assert_true(near[i] >= 1 && near[i] <= 7);
        sum += share[i];
    }
    assert_true(fabsf(sum - 1) < 1e-5f);
    assert_int_equal(flock_neighbours(&f, 3, near, NULL), 1);
    assert_int_equal(near[0], 0);
    mem_free(memory);
}

/* ---- the simulator ---- */

/* LRU by counting: an expert is there when fewer others than slots were used since. One size, one token a pass. */
static uint64_t lru_hits(const trace *t, uint32_t n_slots)
{
    size_t n = (size_t)t->n_places * t->layers[t->layer_of[0]].n_experts;
    uint64_t *last = calloc(n, sizeof *last), clock = 0, hits = 0;
    for (uint64_t i = 0; i < t->n_tokens; i++)
        for (uint32_t p = 0; p < t->n_places; p++) {
            const uint16_t *chosen = trace_chosen(t, i, p);
            size_t first = (size_t)p * t->layers[t->layer_of[0]].n_experts;
            clock++;
            for (uint32_t k = 0; k < t->n_used; k++) {
                uint64_t when = last[first + chosen[k]], between = 0;
                for (size_t e = 0; when && e < n; e++)
                    between += last[e] >= when && e != first + chosen[k];
                hits += when && between < n_slots;
            }
            for (uint32_t k = 0; k < t->n_used; k++)
                last[first + chosen[k]] = clock;
        }
    free(last);
    return hits;
}

/* Experts of one request have the same age; with one expert a token there is nothing to choose and both must agree. */
static void plain_lru(void **state)
{
    (void)state;
    router_kind k = {"plain", 5, 20, 1, 400, 0.8, 0.3, 0.4, 0, 0.01, 1 << 20, false, false};
    trace *t = made(&k, 8, 1, false);
    for (int part = 1; part <= 8; part++) {
        simulation s;
        dil_error err;
        ok(simulate(t, POLICY_LRU, simulate_all_bytes(t) * (uint64_t)part / 8 + 300000, &s, NULL, &err), &err);
        assert_int_equal(s.total.requests, 5 * 400);
        assert_int_equal(s.total.hits, lru_hits(t, s.n_slots));
        assert_int_equal(s.total.bytes_read, (s.total.requests - s.total.hits) << 20);
    }
    trace_free(t);
}

static simulation run(const trace *t, policy_kind kind, double share)
{
    simulation s;
    dil_error err;
    residency_counts layers[64], sum = {0};
    ok(simulate(t, kind, (uint64_t)(share * (double)simulate_all_bytes(t)), &s, layers, &err), &err);
    for (uint32_t l = 0; l < t->n_layers; l++) {
        sum.requests += layers[l].requests;
        sum.hits += layers[l].hits;
    }
    assert_int_equal(sum.requests, s.total.requests);
    assert_int_equal(sum.hits, s.total.hits);
    assert_true(s.slots_bytes + s.tables_bytes <= s.budget_bytes);
    assert_true(s.total.requests - s.total.hits >= s.first.requests);
    return s;
}

/* What the policies promise on logs with reuse; Belady's is a bound for all. */
static void policies(void **state)
{
    (void)state;
    static const double shares[] = {0.10, 0.25, 0.50};
    for (int i = 0; i < ROUTER_KINDS; i++)
        for (uint64_t seed = 21; seed < 23; seed++) {
            router_kind k = router_kinds[i];
            k.n_tokens = 300;
            trace *t = made(&k, seed, 1, false);
            for (size_t b = 0; b < sizeof shares / sizeof *shares; b++) {
                uint64_t lru = run(t, POLICY_LRU, shares[b]).total.hits, swarm = run(t, POLICY_SWARM, shares[b]).total.hits,
                         best = run(t, POLICY_BELADY, shares[b]).total.hits;
                if (swarm <= lru || best < swarm || best < run(t, POLICY_LFU, shares[b]).total.hits ||
                    best < run(t, POLICY_STALE, shares[b]).total.hits)
                    fail_msg("%s at %.2f: lru %llu, swarm %llu, belady %llu hits", k.name, shares[b], (unsigned long long)lru,
                             (unsigned long long)swarm, (unsigned long long)best);
            }
            /* below what one token uses LRU never meets what it needs; the others keep a part of it */
            double little = 0.6 * (double)simulate_token_bytes(t) / (double)simulate_all_bytes(t);
            simulation swarm = run(t, POLICY_SWARM, little), stale = run(t, POLICY_STALE, little),
                       best = run(t, POLICY_BELADY, little);
            assert_int_equal(run(t, POLICY_LRU, little).total.hits, 0);
            assert_true(swarm.total.hits > stale.total.hits * 9 / 10 && swarm.total.hits * 3 > best.total.hits);
            assert_true(stale.total.hits * 3 > best.total.hits);
            trace_free(t);
        }
}

static void same_again(void **state)
{
    (void)state;
    trace *t = made(&router_kinds[2], 9, 1, false);
    simulation a = run(t, POLICY_SWARM, 0.2), b = run(t, POLICY_SWARM, 0.2);
    assert_memory_equal(&a.total, &b.total, sizeof a.total);
    trace_free(t);
}

/* Batches ask for unions, in portions when there is little room; everything is asked for once. */
static void batches(void **state)
{
    (void)state;
    router_kind k = router_kinds[0];
    k.n_tokens = 160;
    trace *t = made(&k, 4, 16, false), *alone = made(&k, 4, 1, false);
    for (int kind = 0; kind < POLICY_KINDS; kind++) {
        simulation s = run(t, (policy_kind)kind, 0.05), one = run(alone, (policy_kind)kind, 1.1);
        assert_true(s.total.requests < one.total.requests);
        assert_int_equal(s.first.requests, one.first.requests);
        assert_int_equal(one.total.requests, (uint64_t)k.n_tokens * k.n_layers * k.n_used);
        assert_int_equal(one.total.requests - one.total.hits, one.first.requests); /* all fit: every expert is read once */
    }
    trace_free(t);
    trace_free(alone);
}

static void too_small(void **state)
{
    (void)state;
    trace *t = made(&router_kinds[1], 9, 1, false);
    dil_error err;
    simulation s = {.n_slots = 77};
    uint64_t least = simulate_least(t, POLICY_SWARM);
    assert_int_equal(simulate(t, POLICY_SWARM, least - 1, &s, NULL, &err), DIL_NO_MEMORY);
    assert_int_equal(s.n_slots, 77);
    ok(simulate(t, POLICY_SWARM, least, &s, NULL, &err), &err);
    assert_int_equal(s.least_capacity, router_kinds[1].n_used);
    trace_free(t);
}

/* Against counting by hand. */
static void reuse(void **state)
{
    (void)state;
    trace *t = made(&router_kinds[0], 2, 1, false);
    simulate_reuse m[64];
    dil_error err;
    ok(simulate_measure(t, m, &err), &err);
    for (uint32_t p = 0; p < t->n_places; p += 7) {
        uint64_t within[SIMULATE_DISTANCES] = {0}, uses[64] = {0}, busiest = 0;
        for (uint64_t i = 0; i < t->n_tokens; i++)
            for (uint32_t k = 0; k < t->n_used; k++)
                uses[trace_chosen(t, i, p)[k]]++;
        for (int e = 0; e < 64; e++)
            busiest = uses[e] > busiest ? uses[e] : busiest;
        assert_int_equal(m[p].busiest, busiest);
        for (uint64_t i = 0; i < t->n_tokens; i++)
            for (uint32_t k = 0; k < t->n_used; k++)
                for (int d = 0; d < SIMULATE_DISTANCES; d++)
                    for (uint64_t back = 1; back <= 1u << d && back <= i; back++)
                        if (router_has(trace_chosen(t, i - back, p), t->n_used, trace_chosen(t, i, p)[k])) {
                            within[d]++;
                            break;
                        }
        assert_memory_equal(m[p].within, within, sizeof within);
        assert_int_equal(m[p].uses, t->n_tokens * t->n_used);
        assert_true(m[p].recalled >= m[p].within[0] && m[p].distinct <= 64);
        assert_true(m[p].candidates <= (t->n_tokens - 1) * t->n_used * (1 + FLOCK_SIZE));
    }
    trace_free(t);
}

/* Logs of the project's own model over parts of its held-out texts: the swarm keeps what is asked for again. */
static void own_model(void **state)
{
    (void)state;
    static const char *const texts[] = {"en", "tr", "mixed"};
    static const double shares[] = {0.1, 0.15, 0.25, 0.35, 0.5};
    const char *source = getenv("DIL_SOURCE_DIR");
    if (!source)
        skip();
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        trace *t = NULL;
        char name[600];
        dil_error err;
        snprintf(name, sizeof name, "%s/tests/traces/sigircik-%s.route", source, texts[i]);
        ok(trace_open(&t, name, &err), &err);
        assert_true(t->finished && t->n_tokens > 2000 && t->n_layers == 4 && t->layers[0].n_experts == 32);
        for (size_t j = 0; j < sizeof shares / sizeof *shares; j++) {
            uint64_t lru = run(t, POLICY_LRU, shares[j]).total.hits, swarm = run(t, POLICY_SWARM, shares[j]).total.hits,
                     belady = run(t, POLICY_BELADY, shares[j]).total.hits;
            if (swarm < lru || belady < swarm)
                fail_msg("%s, %.0f %% in memory: wanted hits of lru <= swarm <= belady, found %llu, %llu, %llu", texts[i],
                         100 * shares[j], (unsigned long long)lru, (unsigned long long)swarm, (unsigned long long)belady);
        }
        trace_free(t);
    }
}

static void names(void **state)
{
    (void)state;
    policy_kind found;
    for (int k = 0; k < POLICY_KINDS; k++) {
        assert_true(policy_find(policy_name((policy_kind)k), &found));
        assert_int_equal(found, k);
    }
    assert_false(policy_find("mru", &found));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),  cmocka_unit_test(cut_off),    cmocka_unit_test(flipped), cmocka_unit_test(hostile),
        cmocka_unit_test(bad_writers), cmocka_unit_test(torture),    cmocka_unit_test(flocks),  cmocka_unit_test(plain_lru),
        cmocka_unit_test(policies),    cmocka_unit_test(same_again), cmocka_unit_test(batches), cmocka_unit_test(too_small),
        cmocka_unit_test(reuse),       cmocka_unit_test(own_model),  cmocka_unit_test(names),
    };
    return leaks_run_group_tests(tests, prepare, NULL);
}
