/* The expert pool: right bytes whatever the order of requests and hints, never above the budget, never a pinned one evicted,
 * many threads waiting, files that go wrong, and every failure of the system, one after the other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "base/aio.h"
#include "base/threads.h"
#include "experts/pool.h"
#include "leaks.h"
#include "theorem/random.h"
#include "tiny_model.h"

enum { LAYERS = 5, EXPERTS = 16, USED = 3 };
static const size_t sizes[LAYERS] = {0, 5000, 8192, 12289, 20000}; /* layer 0 has none; three sizes of slots, all but one padded */

static char path[600], other_path[600];
static pool_layer layers[LAYERS];
static uint64_t sums[LAYERS][EXPERTS];
static uint64_t file_bytes;

static void ok(dil_status status, const dil_error *err)
{
    if (status != DIL_OK)
        fail_msg("%s", err->text);
}

static uint8_t byte_of(uint32_t layer, uint32_t expert, size_t i)
{
    return (uint8_t)(layer * 31 + expert * 7 + i * 13 + (i >> 8) * (expert + 3));
}

static void write_file(const char *to)
{
    uint8_t *bytes = calloc(1, file_bytes);
    for (uint32_t l = 0; l < LAYERS; l++)
        for (uint32_t e = 0; e < layers[l].n_experts; e++) {
            uint8_t *p = bytes + layers[l].offset + e * layers[l].stride;
            for (size_t i = 0; i < sizes[l]; i++)
                p[i] = byte_of(l, e, i);
            sums[l][e] = XXH3_64bits(p, sizes[l]);
        }
    int fd = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, file_bytes), file_bytes);
    assert_int_equal(close(fd), 0);
    free(bytes);
}

/* The file ends with its last expert, not with its padding. */
static int prepare(void **state)
{
    (void)state;
    uint64_t at = 4096, end = at;
    for (uint32_t l = 0; l < LAYERS; l++) {
        uint64_t stride = (sizes[l] + 4095) / 4096 * 4096 + (l == 2 ? 4096 : 0);
        layers[l] =
            (pool_layer){.offset = at, .stride = stride, .bytes = sizes[l], .n_experts = sizes[l] ? EXPERTS : 0, .sums = sums[l]};
        if (sizes[l]) {
            end = at + (EXPERTS - 1) * stride + sizes[l];
            at += EXPERTS * stride;
        }
    }
    file_bytes = end;
    tiny_path(path, "experts");
    tiny_path(other_path, "others");
    return 0;
}

static int fresh(void **state)
{
    (void)state;
    aio_inject(0, 0);
    (void)unlink(path);
    write_file(path);
    return 0;
}

static pool_options options_for(uint64_t above_least)
{
    pool_options o = {.path = path, .layers = layers, .n_layers = LAYERS, .n_used = USED};
    o.budget_bytes = pool_least_budget(&o) + above_least;
    return o;
}

static size_t held(void)
{
    size_t n = 0;
    for (int tag = 0; tag < MEM_TAGS; tag++)
        n += mem_bytes((mem_tag)tag);
    return n;
}

static bool right(const uint8_t *p, uint32_t layer, uint32_t expert)
{
    for (size_t i = 0; i < sizes[layer]; i++)
        if (p[i] != byte_of(layer, expert, i))
            return false;
    return (uintptr_t)p % POOL_ALIGN == 0;
}

static void wait_right(pool *p, uint32_t layer, uint32_t expert)
{
    dil_error err = {.code = DIL_OK};
    const uint8_t *bytes = pool_wait(p, layer, expert);
    if (!bytes)
        fail_msg("layer %u, expert %u: %s", layer, expert, pool_error(p, &err) == DIL_OK ? "NULL" : err.text);
    if (!right(bytes, layer, expert))
        fail_msg("layer %u, expert %u: other bytes", layer, expert);
}

/* ---- requests ---- */

static uint64_t seed;

static int pick(uint16_t out[EXPERTS], int n)
{
    uint16_t all[EXPERTS];
    for (uint16_t e = 0; e < EXPERTS; e++)
        all[e] = e;
    for (int i = 0; i < n; i++) {
        int j = i + (int)(random_next(&seed) % (uint64_t)(EXPERTS - i));
        out[i] = all[j];
        all[j] = all[i];
    }
    return n;
}

static void check_stats(const pool *p, uint64_t requests)
{
    pool_counts all, one, sum = {0};
    pool_stats(p, UINT32_MAX, &all);
    for (uint32_t l = 0; l < LAYERS; l++) {
        pool_stats(p, l, &one);
        sum.requests += one.requests;
        sum.hits += one.hits;
        sum.bytes_read += one.bytes_read;
    }
    assert_int_equal(all.requests, requests);
    assert_int_equal(sum.requests, requests);
    assert_int_equal(sum.hits, all.hits);
    assert_int_equal(sum.bytes_read, all.bytes_read);
    assert_true(all.hits <= all.requests && all.joined <= all.hits && all.wasted <= all.hinted);
}

/* Random passes over the layers, with hints for the next; two layers may be pinned at once when they share no slots. */
static void random_passes(pool_options o, int n_passes)
{
    pool *p;
    dil_error err;
    uint16_t now[EXPERTS], next[EXPERTS];
    uint64_t requests = 0;
    size_t before = held();
    ok(pool_new(&p, &o, &err), &err);
    pool_info info;
    pool_info_get(p, &info);
    assert_true(held() - before <= o.budget_bytes);
    assert_true(info.held_bytes <= o.budget_bytes && held() - before <= info.held_bytes + 4096);
    assert_int_equal(info.n_classes, 3);
    for (int pass = 0; pass < n_passes; pass++)
        for (uint32_t l = 1; l < LAYERS; l++) {
            int most = (int)pool_capacity(p, l), n = pick(now, 1 + (int)(random_next(&seed) % (uint64_t)most));
            pool_request(p, l, now, n);
            requests += (uint64_t)n;
            if (l + 1 < LAYERS && random_next(&seed) % 2)
                pool_hint(p, l + 1, next, pick(next, USED));
            uint8_t flags[EXPERTS];
            pool_resident(p, l, flags);
            for (int i = n; i-- > 0;) {
                assert_true(flags[now[i]]);
                wait_right(p, l, now[i]);
            }
            for (int i = 0; i < n; i++) /* still there: nothing of this layer was evicted meanwhile */
                wait_right(p, l, now[i]);
            pool_release(p, l);
            assert_true(held() - before <= o.budget_bytes);
        }
    check_stats(p, requests);
    assert_int_equal(pool_error(p, &err), DIL_OK);
    pool_free(p);
    assert_int_equal(held(), before);
}

static void random_sequences(void **state)
{
    (void)state;
    const uint64_t budgets[] = {0, 5000, 60000, 200000, 10000000};
    for (int policy = 0; policy < POLICY_BELADY; policy++)
        for (size_t b = 0; b < sizeof budgets / sizeof *budgets; b++)
            for (int way = 0; way < 4; way++) {
                pool_options o = options_for(0);
                o.policy = (policy_kind)policy;
                o.budget_bytes = pool_least_budget(&o) + budgets[b];
                o.no_ring = way & 1;
                o.no_direct = way & 2;
                o.depth = way == 0 ? 2 : 0;
                o.no_sums = b == 1;
                seed = (uint64_t)policy * 100 + b;
                random_passes(o, 12);
            }
}

/* Everything fits: the second pass reads nothing. */
static void everything_fits(void **state)
{
    (void)state;
    pool *p;
    dil_error err;
    pool_counts first, second;
    pool_options o = options_for(10000000);
    uint16_t all[EXPERTS];
    seed = 1;
    ok(pool_new(&p, &o, &err), &err);
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t l = 1; l < LAYERS; l++) {
            assert_int_equal(pool_capacity(p, l), EXPERTS);
            pool_request(p, l, all, pick(all, EXPERTS));
            for (uint32_t e = 0; e < EXPERTS; e++)
                wait_right(p, l, e);
            pool_release(p, l);
        }
        pool_stats(p, UINT32_MAX, pass ? &second : &first);
    }
    assert_int_equal(first.bytes_read, EXPERTS * (5000 + 8192 + 12289 + 20000));
    assert_int_equal(first.hits, 0);
    assert_int_equal(second.bytes_read, first.bytes_read);
    assert_int_equal(second.hits, EXPERTS * (LAYERS - 1));
    pool_free(p);
}

/* The same calls, the same experts in memory, however the reads went. */
static void same_every_time(void **state)
{
    (void)state;
    uint8_t seen[2][30][LAYERS][EXPERTS];
    memset(seen, 0, sizeof seen);
    for (int run = 0; run < 2; run++) {
        pool *p;
        dil_error err;
        uint16_t list[EXPERTS];
        pool_options o = options_for(70000);
        o.no_ring = run;
        o.depth = run ? 1 : 8;
        seed = 77;
        ok(pool_new(&p, &o, &err), &err);
        for (int pass = 0; pass < 30; pass++)
            for (uint32_t l = 1; l < LAYERS; l++) {
                pool_request(p, l, list, pick(list, USED));
                if (!run) /* one of them waits, the other does not */
                    wait_right(p, l, list[0]);
                pool_hint(p, l + 1 < LAYERS ? l + 1 : 1, list, pick(list, USED));
                pool_release(p, l);
                for (uint32_t k = 1; k < LAYERS; k++)
                    pool_resident(p, k, seen[run][pass][k]);
            }
        pool_free(p);
    }
    assert_memory_equal(seen[0], seen[1], sizeof seen[0]);
}

/* ---- hints ---- */

static void hints(void **state)
{
    (void)state;
    pool *p;
    dil_error err;
    pool_counts c;
    pool_options o = options_for(3 * 5200); /* six slots of the smallest class at most */
    ok(pool_new(&p, &o, &err), &err);
    uint32_t room = pool_capacity(p, 1);
    assert_true(room >= USED && room < EXPERTS);
    pool_request(p, 1, (const uint16_t[]){0, 1, 2}, 3);
    uint16_t wishes[EXPERTS];
    for (uint16_t e = 0; e < EXPERTS; e++)
        wishes[e] = e;
    pool_hint(p, 1, wishes + 3, EXPERTS - 3); /* far more than there is room for */
    for (uint32_t e = 0; e < 3; e++)
        wait_right(p, 1, e); /* pinned ones stay */
    pool_release(p, 1);
    pool_stats(p, 1, &c);
    assert_int_equal(c.hinted, room - 3);
    assert_int_equal(c.wasted, 0);
    if (room > 3) {
        pool_request(p, 1, (const uint16_t[]){3}, 1); /* the first wish was kept */
        wait_right(p, 1, 3);
        pool_release(p, 1);
        pool_request(p, 1, (const uint16_t[]){4}, 1); /* another portion of the same turn */
        wait_right(p, 1, 4);
        pool_release(p, 1);
        pool_stats(p, 1, &c);
        assert_int_equal(c.hits, room > 4 ? 2 : 1);
        assert_int_equal(c.wasted, 0);
        pool_request(p, 2, (const uint16_t[]){4}, 1); /* the turn is over */
        pool_stats(p, 1, &c);
        assert_int_equal(c.wasted, room > 4 ? room - 5 : 0);
    }
    pool_free(p);
}

/* ---- threads ---- */

typedef struct crowd {
    pool *p;
    team *t;
    uint16_t list[EXPERTS];
    int n;
    uint32_t layer;
    atomic_int wrong;
} crowd;

static void crowd_wait(void *ctx, int worker)
{
    crowd *c = ctx;
    for (int i = 0; i < c->n; i++) {
        uint32_t e = c->list[(i + worker) % c->n];
        const uint8_t *p = pool_wait(c->p, c->layer, e);
        if (!p || !right(p, c->layer, e))
            atomic_fetch_add(&c->wrong, 1);
    }
}

static void threads_wait(void **state)
{
    (void)state;
    for (int way = 0; way < 2; way++) {
        crowd c = {.n = 0};
        dil_error err;
        pool_options o = options_for(60000);
        o.no_ring = way;
        seed = 5;
        ok(pool_new(&c.p, &o, &err), &err);
        ok(team_new(&c.t, 4, &err), &err);
        for (int pass = 0; pass < 40; pass++)
            for (c.layer = 1; c.layer < LAYERS; c.layer++) {
                uint16_t next[EXPERTS];
                c.n = pick(c.list, USED);
                pool_request(c.p, c.layer, c.list, c.n);
                pool_hint(c.p, c.layer + 1 < LAYERS ? c.layer + 1 : 1, next, pick(next, USED));
                team_run(c.t, crowd_wait, &c);
                pool_release(c.p, c.layer);
            }
        assert_int_equal(atomic_load(&c.wrong), 0);
        team_free(c.t);
        pool_free(c.p);
    }
}

/* ---- what cannot be ---- */

static void refuses(const char *what, const pool_options *o, dil_status wanted, const char *text)
{
    pool *p = NULL;
    dil_error err = {.code = DIL_OK};
    dil_status status = pool_new(&p, o, &err);
    if (status != wanted || !strstr(err.text, text))
        fail_msg("%s: wanted '%s' and '%s', found '%s': %s", what, status_name(wanted), text, status_name(status), err.text);
    assert_null(p);
}

static void bad_options(void **state)
{
    (void)state;
    pool_layer changed[LAYERS];
    char number[40];
    pool_options o = options_for(0);
    (void)snprintf(number, sizeof number, "%llu", (unsigned long long)o.budget_bytes);
    o.budget_bytes--;
    refuses("budget", &o, DIL_NO_MEMORY, number);
    o.budget_bytes = 0;
    refuses("no budget", &o, DIL_NO_MEMORY, number);
    o = options_for(0);
    o.policy = POLICY_BELADY;
    refuses("belady", &o, DIL_BAD_ARGUMENT, "found belady");
    o = options_for(0);
    o.n_used = 0;
    refuses("none used", &o, DIL_BAD_ARGUMENT, "one used");
    o = options_for(0);
    o.path = "/nowhere/at/all";
    refuses("no file", &o, DIL_IO, "/nowhere/at/all");
    for (int i = 0; i < 5; i++) {
        memcpy(changed, layers, sizeof changed);
        o = options_for(100000);
        o.layers = changed;
        changed[2].offset += i == 0 ? 512 : i == 1 ? (uint64_t)1 << 40 : 0;
        changed[2].stride = i == 2 ? 100 : i == 3 ? UINT64_MAX / 4096 * 4096 : changed[2].stride;
        changed[2].bytes = i == 4 ? 0 : changed[2].bytes;
        refuses("layer", &o, i == 1 || i == 3 ? DIL_IO : DIL_BAD_ARGUMENT, i == 4 ? "experts" : "layer 2");
    }
    o = options_for(0);
    for (int i = 0; i < 4; i++) {
        o.identity = (pool_identity){.size_bytes = i == 0, .device = i == 1, .inode = i == 2, .mtime_ns = i == 3};
        refuses("identity", &o, DIL_IO, "found another");
    }
    struct stat st;
    pool *p;
    dil_error err;
    assert_int_equal(stat(path, &st), 0);
    o.identity =
        (pool_identity){(uint64_t)st.st_size, st.st_dev, st.st_ino, (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec};
    ok(pool_new(&p, &o, &err), &err);
    pool_free(p);
}

static void bad_calls(void **state)
{
    (void)state;
    pool *p;
    dil_error err;
    pool_options o = options_for(0);
    ok(pool_new(&p, &o, &err), &err);
    pool_request(p, 0, (const uint16_t[]){0}, 1);
    assert_int_equal(pool_error(p, &err), DIL_BAD_ARGUMENT);
    assert_int_equal(pool_error(p, &err), DIL_OK);
    pool_request(p, 1, (const uint16_t[]){EXPERTS}, 1);
    assert_int_equal(pool_error(p, &err), DIL_BAD_ARGUMENT);
    pool_hint(p, 99, (const uint16_t[]){0}, 1);
    assert_int_equal(pool_error(p, &err), DIL_BAD_ARGUMENT);
    assert_null(pool_wait(p, 1, 3));
    assert_int_equal(pool_error(p, &err), DIL_BAD_ARGUMENT);
    assert_non_null(strstr(err.text, "was requested"));
    assert_int_equal(pool_capacity(p, 0), 0);
    assert_int_equal(pool_capacity(p, 1), USED);
    pool_request(p, 1, (const uint16_t[]){0, 1, 2, 3}, 4); /* one too many */
    for (uint32_t e = 0; e < 3; e++)
        wait_right(p, 1, e);
    assert_null(pool_wait(p, 1, 3));
    assert_int_equal(pool_error(p, &err), DIL_BAD_ARGUMENT);
    assert_non_null(strstr(err.text, "at most 3 experts"));
    pool_release(p, 1);
    pool_request(p, 1, (const uint16_t[]){5, 5, 4}, 3); /* named twice */
    wait_right(p, 1, 5);
    wait_right(p, 1, 4);
    pool_release(p, 1);
    pool_request(p, 1, (const uint16_t[]){6, 7, 8}, 3);
    for (uint32_t e = 6; e < 9; e++)
        wait_right(p, 1, e);
    pool_free(p);
}

/* ---- files that go wrong ---- */

static void wants_error(pool *p, uint32_t layer, uint32_t expert, dil_status wanted, const char *text)
{
    dil_error err = {.code = DIL_OK};
    char place[64];
    (void)snprintf(place, sizeof place, "layer %u, expert %u", layer, expert);
    assert_null(pool_wait(p, layer, expert));
    dil_status status = pool_error(p, &err);
    if (status != wanted || !strstr(err.text, text) || !strstr(err.text, place))
        fail_msg("wanted '%s' and '%s', found '%s': %s", status_name(wanted), text, status_name(status), err.text);
}

static void flip(uint64_t at)
{
    uint8_t byte;
    int fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
    byte ^= 4;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
    assert_int_equal(close(fd), 0);
}

static void flipped_byte(void **state)
{
    (void)state;
    pool *p;
    dil_error err;
    pool_options o = options_for(0);
    uint64_t at = layers[3].offset + 5 * layers[3].stride;
    ok(pool_new(&p, &o, &err), &err);
    const uint64_t offsets[] = {0, 6000, 12288};
    for (size_t i = 0; i < 3; i++) {
        flip(at + offsets[i]);
        pool_request(p, 3, (const uint16_t[]){4, 5, 6}, 3);
        wait_right(p, 3, 4);
        wants_error(p, 3, 5, DIL_FORMAT, "checksum");
        wait_right(p, 3, 6);
        pool_release(p, 3);
        flip(at + offsets[i]); /* as it was: the next request reads it again */
        pool_request(p, 3, (const uint16_t[]){5}, 1);
        wait_right(p, 3, 5);
        pool_release(p, 3);
        pool_request(p, 3, (const uint16_t[]){7, 8, 9}, 3);
        pool_release(p, 3);
    }
    flip(at + 12289); /* padding is nobody's */
    pool_request(p, 3, (const uint16_t[]){5}, 1);
    wait_right(p, 3, 5);
    pool_free(p);
}

/* Without sums the time of change speaks. */
static void written_without_sums(void **state)
{
    (void)state;
    pool *p;
    dil_error err;
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1000000000}};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    pool_options o = options_for(0);
    o.no_sums = true;
    o.identity.mtime_ns = 1000000000000000000;
    ok(pool_new(&p, &o, &err), &err);
    pool_request(p, 2, (const uint16_t[]){4}, 1);
    wait_right(p, 2, 4);
    pool_release(p, 2);
    flip(layers[2].offset + 100);
    pool_request(p, 2, (const uint16_t[]){4, 0}, 2);
    wait_right(p, 2, 4); /* in memory from before */
    wants_error(p, 2, 0, DIL_IO, "it was written to");
    pool_free(p);
}

static void truncated(void **state)
{
    (void)state;
    for (int way = 0; way < 4; way++) {
        pool *p;
        dil_error err;
        fresh(NULL);
        pool_options o = options_for(0);
        o.no_ring = way & 1;
        o.no_direct = way & 2;
        ok(pool_new(&p, &o, &err), &err);
        pool_request(p, 4, (const uint16_t[]){1}, 1);
        wait_right(p, 4, 1);
        const uint64_t cuts[] = {layers[4].offset + 2 * layers[4].stride + 4097, layers[4].offset + 2 * layers[4].stride + 4096,
                                 layers[4].offset + 2 * layers[4].stride, 0};
        for (size_t i = 0; i < 4; i++) {
            assert_int_equal(truncate(path, (off_t)cuts[i]), 0);
            pool_request(p, 4, (const uint16_t[]){1, 2}, 2);
            wait_right(p, 4, 1); /* in memory */
            wants_error(p, 4, 2, DIL_IO, "it was truncated while in use");
            pool_release(p, 4);
        }
        pool_free(p);
    }
}

/* The name may go to another file: the pool goes on with the one it opened, and says so when that fails. */
static void replaced(void **state)
{
    (void)state;
    pool *p;
    dil_error err;
    pool_options o = options_for(0);
    ok(pool_new(&p, &o, &err), &err);
    write_file(other_path);
    flip(layers[1].offset);
    assert_int_equal(rename(other_path, path), 0);
    pool_request(p, 1, (const uint16_t[]){0, 1}, 2);
    wait_right(p, 1, 1);
    wants_error(p, 1, 0, DIL_FORMAT, "another file has its name now");
    assert_int_equal(unlink(path), 0);
    pool_release(p, 1);
    pool_request(p, 1, (const uint16_t[]){0, 2}, 2);
    wait_right(p, 1, 2);
    wants_error(p, 1, 0, DIL_FORMAT, "it was removed while in use");
    pool_free(p);
}

static void short_reads(void **state)
{
    (void)state;
    for (int way = 0; way < 4; way++) {
        pool_options o = options_for(30000);
        o.no_ring = way & 1;
        o.no_direct = way & 2;
        seed = 3;
        aio_inject(4096, 50);
        random_passes(o, 4);
        aio_inject(way & 2 ? 777 : 8192, 50);
        random_passes(o, 4);
    }
    aio_inject(0, 0);
}

static void read_errors(void **state)
{
    (void)state;
    for (int way = 0; way < 2; way++) {
        pool *p;
        dil_error err;
        pool_options o = options_for(0);
        char offset[40];
        o.no_ring = way;
        ok(pool_new(&p, &o, &err), &err);
        os_inject_failure(0);
        pool_request(p, 2, (const uint16_t[]){9}, 1);
        (void)snprintf(offset, sizeof offset, "byte %llu", (unsigned long long)(layers[2].offset + 9 * layers[2].stride));
        wants_error(p, 2, 9, DIL_IO, offset);
        pool_release(p, 2);
        pool_request(p, 2, (const uint16_t[]){9}, 1);
        wants_error(p, 2, 9, DIL_IO, path);
        os_inject_failure(-1);
        pool_release(p, 2);
        pool_request(p, 2, (const uint16_t[]){9}, 1);
        wait_right(p, 2, 9);
        pool_release(p, 2);
        os_inject_failure(0); /* a hint that fails is nobody's failure */
        pool_hint(p, 2, (const uint16_t[]){1}, 1);
        for (int i = 0; i < 2; i++) { /* its read is over when the slot is needed */
            pool_request(p, 2, (const uint16_t[]){9}, 1);
            pool_release(p, 2);
        }
        pool_request(p, 2, (const uint16_t[]){10, 11, 12}, 3);
        for (uint32_t e = 10; e < 13; e++)
            assert_null(pool_wait(p, 2, e));
        os_inject_failure(-1);
        pool_release(p, 2);
        assert_int_equal(pool_error(p, &err), DIL_IO);
        pool_request(p, 2, (const uint16_t[]){1, 9}, 2);
        wait_right(p, 2, 1);
        wait_right(p, 2, 9);
        assert_int_equal(pool_error(p, &err), DIL_OK);
        pool_free(p);
    }
}

/* ---- giving back ---- */

static void shrinking(void **state)
{
    (void)state;
    pool *p;
    dil_error err;
    uint16_t list[EXPERTS];
    pool_options o = options_for(10000000);
    seed = 9;
    ok(pool_new(&p, &o, &err), &err);
    for (int pass = 0; pass < 6; pass++) {
        for (uint32_t l = 1; l < LAYERS; l++) {
            uint32_t most = pool_capacity(p, l);
            int n = pick(list, (int)most);
            pool_request(p, l, list, n);
            for (int i = 0; i < n; i++)
                wait_right(p, l, list[i]);
            pool_release(p, l);
        }
        uint64_t freed = pool_shrink(p, 150000);
        assert_true(freed < 150000 + 16384);
        assert_true(pass < 3 ? freed >= 150000 : true);
    }
    for (uint32_t l = 1; l < LAYERS; l++)
        assert_int_equal(pool_capacity(p, l), USED);
    assert_int_equal(pool_shrink(p, 1), 0);
    pool_free(p);
}

static void adjusting(void **state)
{
    (void)state;
    const uint64_t mb = 1 << 20;
    pool *p;
    dil_error err;
    pool_options o = options_for(10000000);
    ok(pool_new(&p, &o, &err), &err);
    assert_int_equal(pool_adjust(p, UINT64_MAX), 0);
    assert_int_equal(pool_adjust(p, 32 * mb), 0);
    uint64_t freed = pool_adjust(p, 32 * mb - 100000);
    assert_true(freed >= 100000 && freed < 130000);
    assert_true(pool_adjust(p, 0) > 0); /* down to the least */
    for (uint32_t l = 1; l < LAYERS; l++)
        assert_int_equal(pool_capacity(p, l), USED);
    pool_free(p);
}

static void budgets(void **state)
{
    (void)state;
    const uint64_t gb = (uint64_t)1 << 30;
    assert_int_equal(pool_budget_within(16 * gb, 100 * gb, 4 * gb), 10 * gb);
    assert_int_equal(pool_budget_within(16 * gb, gb, 4 * gb), gb + gb / 64 + ((uint64_t)16 << 20));
    assert_int_equal(pool_budget_within(gb, 100 * gb, gb / 2), gb / 8 * 3);
    assert_int_equal(pool_budget_within(gb, 100 * gb, gb), 0);
    assert_int_equal(pool_budget_within(gb / 16, gb, 0), 0);
    assert_int_equal(pool_budget_within(gb, gb, UINT64_MAX), 0);
    assert_true(pool_budget_auto(gb, 0) <= os_memory_bytes());
}

/* Mixed quantization at its worst: twenty sizes share eight classes. */
static void many_sizes(void **state)
{
    (void)state;
    enum { MANY = 20 };
    residency *r;
    dil_error err;
    residency_layer of[MANY];
    for (uint32_t l = 0; l < MANY; l++)
        of[l] = (residency_layer){.bytes = 100000 + 37000 * ((l * 7) % MANY), .n_experts = 8};
    residency_options o = {.layers = of, .n_layers = MANY, .n_used = 2, .policy = POLICY_LRU};
    o.budget_bytes = residency_least(&o);
    for (int i = 0; i < 3; i++, o.budget_bytes *= 3) {
        ok(residency_new(&r, &o, &err), &err);
        assert_int_equal(r->n_classes, RESIDENCY_CLASSES);
        assert_true(r->slots_bytes + r->tables_bytes <= o.budget_bytes);
        for (uint32_t l = 0; l < MANY; l++)
            assert_true(residency_capacity(r, l) >= 2 && r->classes[r->class_of[l]].slot_bytes >= of[l].bytes);
        residency_free(r);
    }
    o.budget_bytes = residency_least(&o) - 1;
    assert_int_equal(residency_new(&r, &o, &err), DIL_NO_MEMORY);
}

/* ---- torture ---- */

static dil_status life(bool no_ring, dil_error *err)
{
    pool *p = NULL;
    uint16_t list[EXPERTS];
    pool_options o = options_for(20000);
    dil_status status = DIL_NO_MEMORY;
    if (o.budget_bytes == 20000) /* pool_least_budget found no memory */
        return DIL_FAIL(err, DIL_NO_MEMORY, "least");
    o.no_ring = no_ring;
    seed = 2;
    status = pool_new(&p, &o, err);
    if (status != DIL_OK) {
        assert_null(p);
        return status;
    }
    for (int pass = 0; pass < 3; pass++)
        for (uint32_t l = 1; l < LAYERS; l++) {
            int n = pick(list, USED);
            pool_request(p, l, list, n);
            for (int i = 0; i < n; i++) {
                const uint8_t *bytes = pool_wait(p, l, list[i]);
                assert_true(!bytes || right(bytes, l, list[i]));
            }
            pool_release(p, l);
            pool_hint(p, 1 + l % (LAYERS - 1), list, n);
        }
    status = pool_error(p, err);
    pool_free(p);
    return status;
}

static int open_files(void)
{
    int n = 0;
    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void torture(void **state)
{
    (void)state;
    void (*const inject[2])(int64_t) = {mem_inject_failure, os_inject_failure};
    size_t before = held();
    int files = open_files();
    for (int way = 0; way < 4; way++)
        for (int n = 0;; n++) {
            dil_error err = {.code = DIL_OK};
            inject[way / 2](n);
            dil_status status = life(way & 1, &err);
            inject[way / 2](-1);
            assert_int_equal(held(), before);
            assert_int_equal(open_files(), files);
            if (status == DIL_OK && n > 60)
                break;
            if (status != DIL_OK && (status != (way / 2 ? DIL_IO : DIL_NO_MEMORY) || !err.text[0]))
                fail_msg("failure %d: found '%s': %s", n, status_name(status), err.text);
            assert_true(n < 2000);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(random_sequences, fresh),
        cmocka_unit_test_setup(everything_fits, fresh),
        cmocka_unit_test_setup(same_every_time, fresh),
        cmocka_unit_test_setup(hints, fresh),
        cmocka_unit_test_setup(threads_wait, fresh),
        cmocka_unit_test_setup(bad_options, fresh),
        cmocka_unit_test_setup(bad_calls, fresh),
        cmocka_unit_test_setup(flipped_byte, fresh),
        cmocka_unit_test_setup(written_without_sums, fresh),
        cmocka_unit_test_setup(truncated, fresh),
        cmocka_unit_test_setup(replaced, fresh),
        cmocka_unit_test_setup(short_reads, fresh),
        cmocka_unit_test_setup(read_errors, fresh),
        cmocka_unit_test_setup(shrinking, fresh),
        cmocka_unit_test_setup(adjusting, fresh),
        cmocka_unit_test_setup(budgets, fresh),
        cmocka_unit_test_setup(many_sizes, fresh),
        cmocka_unit_test_setup(torture, fresh),
    };
    return leaks_run_group_tests(tests, prepare, NULL);
}
