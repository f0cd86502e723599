#include "tune/cache_model.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/mem.h"

/* The histogram has a bin per distance below 2 * OCTAVE_BINS lines, then OCTAVE_BINS bins for every doubling. */
#define OCTAVE_BITS 10
#define OCTAVE_BINS (1u << OCTAVE_BITS)
#define N_BINS ((33 - OCTAVE_BITS) * OCTAVE_BINS)
#define FIRST_ROOM 1024
#define MOST_ROOM (1u << 30)
#define NONE UINT32_MAX

typedef struct piece {
    uint64_t line;
    uint32_t weight; /* lines */
    uint32_t time;   /* of its last touch */
} piece;

struct cache_model {
    unsigned line_shift;
    size_t granule_bytes, most_pieces;
    dil_status status; /* the first failure */

    uint32_t room, n_pieces; /* pieces that can be known, a power of 2, and that are */
    piece *pieces;           /* [room] */
    uint32_t *slots;         /* [2 * room] hash by line: index of a piece, or NONE */
    uint32_t *piece_at;      /* [2 * room] by time: the piece touched then, NONE when it was touched again since */
    uint32_t *tree;          /* [2 * room] Fenwick tree over time: weights of the pieces in piece_at */
    uint32_t now, total;     /* time of the next touch; weight of all pieces */

    uint64_t touched, cold, runs, loose; /* lines; of runs, and of these those that do not fill rounds */
    uint64_t bins[N_BINS];               /* lines touched again, by the other lines touched since */
};

static uint32_t bin_of(uint32_t distance)
{
    if (distance < 2 * OCTAVE_BINS)
        return distance;
    const unsigned shift = 31u - (unsigned)__builtin_clz(distance) - OCTAVE_BITS;
    return shift * OCTAVE_BINS + (distance >> shift);
}

/* The least distance of a bin. */
static uint64_t bin_start(uint32_t bin)
{
    const unsigned shift = bin < 2 * OCTAVE_BINS ? 0 : bin / OCTAVE_BINS - 1;
    return (uint64_t)(bin - shift * OCTAVE_BINS) << shift;
}

/* ---- the Fenwick tree: node i, from 1 on, holds the weights of the times i - lowest bit of i .. i - 1 ---- */

static inline uint32_t lowest_bit(uint32_t i) { return i & (0u - i); }

/* weight may stand for a negative number: sums are modulo 2^32. */
static void tree_add(cache_model *c, uint32_t time, uint32_t weight)
{
    for (uint32_t i = time + 1; i <= 2 * c->room; i += lowest_bit(i))
        c->tree[i - 1] += weight;
}

/* Weights of the times up to and with `time`. */
static uint32_t tree_sum(const cache_model *c, uint32_t time)
{
    uint32_t sum = 0;
    for (uint32_t i = time + 1; i > 0; i -= lowest_bit(i))
        sum += c->tree[i - 1];
    return sum;
}

/* Times are numbered from 0 again, in their order, without those that nothing was touched at last. */
static void renumber(cache_model *c)
{
    uint32_t n = 0;
    for (uint32_t time = 0; time < c->now; time++)
        if (c->piece_at[time] != NONE) {
            c->piece_at[n] = c->piece_at[time];
            c->pieces[c->piece_at[n]].time = n;
            n++;
        }
    c->now = n;
    memset(c->tree, 0, 2 * (size_t)c->room * sizeof *c->tree);
    for (uint32_t i = 1; i <= 2 * c->room; i++) {
        if (i <= n)
            c->tree[i - 1] += c->pieces[c->piece_at[i - 1]].weight;
        if (i + lowest_bit(i) <= 2 * c->room)
            c->tree[i + lowest_bit(i) - 1] += c->tree[i - 1];
    }
}

/* ---- pieces by line ---- */

/* Where the piece stands, or would stand. */
static uint32_t *slot_of(const cache_model *c, uint64_t line)
{
    const uint32_t mask = 2 * c->room - 1;
    uint32_t i = (uint32_t)(line * 0x9E3779B97F4A7C15u >> 32) & mask;
    while (c->slots[i] != NONE && c->pieces[c->slots[i]].line != line)
        i = (i + 1) & mask;
    return &c->slots[i];
}

/* The table enlarged, what it held with it; the table as it was, and *enough false, when memory is missing. */
static void *grown(void *table, size_t n_bytes, bool *enough)
{
    void *bigger = *enough ? mem_grow(table, n_bytes, MEM_MISC) : NULL;
    *enough = bigger != NULL;
    return bigger ? bigger : table;
}

/* Room for so many pieces; false when memory is missing, and then nothing is lost. */
static bool set_room(cache_model *c, uint32_t room)
{
    const size_t n = room;
    bool enough = true;
    c->pieces = grown(c->pieces, n * sizeof *c->pieces, &enough);
    c->slots = grown(c->slots, 2 * n * sizeof *c->slots, &enough);
    c->piece_at = grown(c->piece_at, 2 * n * sizeof *c->piece_at, &enough);
    c->tree = grown(c->tree, 2 * n * sizeof *c->tree, &enough);
    if (!enough)
        return false;
    c->room = room;
    memset(c->slots, 0xff, 2 * n * sizeof *c->slots);
    for (uint32_t i = 0; i < c->n_pieces; i++)
        *slot_of(c, c->pieces[i].line) = i;
    renumber(c);
    return true;
}

/* A piece nobody has touched yet; its index, or NONE. */
static uint32_t add_piece(cache_model *c, uint64_t line)
{
    if (c->n_pieces >= c->most_pieces)
        c->status = DIL_LIMIT;
    else if (c->n_pieces == c->room && !set_room(c, 2 * c->room))
        c->status = DIL_NO_MEMORY;
    if (c->status != DIL_OK)
        return NONE;
    c->pieces[c->n_pieces].line = line;
    return *slot_of(c, line) = c->n_pieces++;
}

/* ---- touching ---- */

static void count_again(cache_model *c, const piece *p, uint32_t weight)
{
    const uint32_t others = c->total - tree_sum(c, p->time);
    c->bins[bin_of(others + weight - 1)] += weight;
}

/* The piece is the one touched last, with this weight. */
static void put_in_front(cache_model *c, uint32_t index, uint32_t weight)
{
    if (c->now == 2 * c->room)
        renumber(c);
    c->pieces[index].weight = weight;
    c->pieces[index].time = c->now;
    c->piece_at[c->now] = index;
    tree_add(c, c->now++, weight);
    c->total += weight;
}

static void take_out(cache_model *c, const piece *p)
{
    tree_add(c, p->time, 0u - p->weight);
    c->piece_at[p->time] = NONE;
    c->total -= p->weight;
}

static void touch_piece(cache_model *c, uint64_t line, uint32_t weight)
{
    uint32_t index = *slot_of(c, line);
    if (c->status != DIL_OK || weight > UINT32_MAX - c->total) {
        c->status = c->status != DIL_OK ? c->status : DIL_LIMIT;
        return;
    }
    if (index != NONE) {
        count_again(c, &c->pieces[index], weight);
        take_out(c, &c->pieces[index]);
    } else if ((index = add_piece(c, line)) != NONE) {
        c->cold += weight;
    } else {
        return;
    }
    c->touched += weight;
    put_in_front(c, index, weight);
}

void cache_model_touch(cache_model *c, uint64_t address, size_t n_bytes)
{
    const uint64_t end = address + n_bytes, lines_end = ((end - 1) >> c->line_shift) + 1;
    while (address < end) {
        const uint64_t next = (address | (c->granule_bytes - 1)) + 1, line = address >> c->line_shift;
        const uint64_t until = next < end ? next >> c->line_shift : lines_end;
        touch_piece(c, line, (uint32_t)(until - line));
        address = next;
    }
}

void cache_model_note_runs(cache_model *c, size_t n_bytes, size_t n_rows)
{
    const uint64_t lines = (n_bytes + ((size_t)1 << c->line_shift) - 1) >> c->line_shift;
    c->runs += lines * n_rows;
    c->loose += lines % CACHE_ROUND * n_rows;
}

/* ---- the model ---- */

static bool is_power(size_t n) { return n > 0 && (n & (n - 1)) == 0; }

dil_status cache_model_new(cache_model **out, size_t line_bytes, size_t granule_bytes, size_t most_pieces, dil_error *err)
{
    if (!is_power(line_bytes) || !is_power(granule_bytes) || granule_bytes < line_bytes || granule_bytes > UINT32_MAX ||
        most_pieces == 0 || most_pieces > MOST_ROOM)
        return DIL_FAIL(
            err, DIL_BAD_ARGUMENT,
            "cache model: lines of %zu bytes, granules of %zu, %zu pieces; wanted powers of 2 with granule >= line, and 1 to "
            "%u pieces",
            line_bytes, granule_bytes, most_pieces, MOST_ROOM);
    cache_model *c = mem_calloc(1, sizeof *c, MEM_MISC);
    if (!c || !set_room(c, FIRST_ROOM)) {
        cache_model_free(c);
        return DIL_FAIL(err, DIL_NO_MEMORY, "cache model: no memory for its first %d pieces", FIRST_ROOM);
    }
    c->line_shift = (unsigned)__builtin_ctzll(line_bytes);
    c->granule_bytes = granule_bytes;
    c->most_pieces = most_pieces;
    *out = c;
    return DIL_OK;
}

void cache_model_free(cache_model *c)
{
    if (!c)
        return;
    mem_free(c->pieces);
    mem_free(c->slots);
    mem_free(c->piece_at);
    mem_free(c->tree);
    mem_free(c);
}

dil_status cache_model_check(const cache_model *c, dil_error *err)
{
    if (c->status == DIL_NO_MEMORY)
        return DIL_FAIL(err, DIL_NO_MEMORY, "cache model: no memory for more than %u pieces", c->room);
    if (c->status != DIL_OK)
        return DIL_FAIL(err, c->status,
                        "cache model: %u pieces of %u lines touched; at most %zu pieces and %u lines; a coarser granule?",
                        c->n_pieces, c->total, c->most_pieces, UINT32_MAX);
    return DIL_OK;
}

void cache_model_restart(cache_model *c)
{
    c->touched = c->cold = c->runs = c->loose = 0;
    memset(c->bins, 0, sizeof c->bins);
}

size_t cache_model_granule(const cache_model *c) { return c->granule_bytes; }
uint64_t cache_model_touched(const cache_model *c) { return c->touched; }
uint64_t cache_model_cold(const cache_model *c) { return c->cold; }

/* ---- questions ---- */

double cache_model_loose(const cache_model *c) { return c->runs ? (double)c->loose / (double)c->runs : 1.0; }

double cache_set_full(uint64_t n, double n_sets, uint64_t ways)
{
    if (n < ways || ways == 0)
        return ways == 0 ? 1.0 : 0.0;
    if (n_sets <= 1.0)
        return 1.0;
    const double p = 1.0 / n_sets, odds = p / (1.0 - p);
    double term = exp((double)n * log1p(-p)), fewer = term; /* exactly i, at most i */
    for (uint64_t i = 1; i < ways; i++) {
        term *= odds * (double)(n - i + 1) / (double)i;
        fewer += term;
    }
    return fewer < 1.0 ? 1.0 - fewer : 0.0;
}

/* The same where `room` ways are left: a number between two whole ones is one or the other by chance. */
static double room_full(double n, double n_sets, double room)
{
    if (room <= 0.0)
        return 1.0;
    const double whole = floor(room), part = room - whole;
    const uint64_t lines = (uint64_t)(n + 0.5), ways = (uint64_t)whole;
    return (1.0 - part) * cache_set_full(lines, n_sets, ways) + part * cache_set_full(lines, n_sets, ways + 1);
}

/* The chance that a line misses, `others` lines after its last use. */
static double missing(double others, double n_sets, double ways, double loose)
{
    const double even = 1.0 - loose, n = loose * others;
    return loose * room_full(n, n_sets, ways - even * others / n_sets) +
           even * room_full(n, n_sets, ways + 1.0 - even * (others + 1.0) / n_sets);
}

double cache_model_misses(const cache_model *c, cache_level level)
{
    const uint64_t lines = level.size_bytes >> c->line_shift;
    const double loose = cache_model_loose(c), n_sets = level.ways > 0 ? (double)lines / level.ways : 0.0;
    double misses = (double)c->cold;
    for (uint32_t bin = 0; bin < N_BINS; bin++) {
        if (c->bins[bin] == 0)
            continue;
        const uint64_t others = bin_start(bin);
        const bool in_sets = level.ways > 0 && lines > 0;
        misses += (double)c->bins[bin] * (in_sets ? missing((double)others, n_sets, level.ways, loose) : others >= lines);
    }
    return misses;
}
