/* Grids: the parts of a block are exact in both directions, the nearest level is the nearest, and so are the nearest words of a book. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "formats/codebook.h"
#include "theorem/random.h"

enum { BLOCKS = 40 };

static float uniform(uint64_t *seed) { return (float)(random_next(seed) >> 40) * 0x1p-24f - 0.5f; }

static const grid *next_grid(int *type)
{
    for (; *type < DIL_TYPE_COUNT; ++*type)
        if (grid_get((dil_type)*type))
            return grid_get((dil_type)(*type)++);
    return NULL;
}

static void check_block(const grid *g, const uint8_t *bytes)
{
    const format *f = format_get(g->type);
    grid_block b;
    uint8_t again[512];
    float values[GRID_MAX_BLOCK], decoded[GRID_MAX_BLOCK];
    g->read(bytes, &b);
    memset(again, 0xA5, sizeof again);
    g->write(&b, again);
    assert_memory_equal(again, bytes, f->block_bytes);
    grid_values(g, &b, values);
    f->decode(bytes, decoded, (size_t)g->block);
    for (int i = 0; i < g->block; i++) {
        assert_true(b.code[i] < g->n_levels);
        if (memcmp(&values[i], &decoded[i], sizeof values[i]) != 0 && !(isnan(values[i]) && isnan(decoded[i])))
            fail_msg("%s: value %d: wanted %g, found %g", f->name, i, (double)decoded[i], (double)values[i]);
    }
}

static void reading_writing_and_values_are_exact(void **state)
{
    uint64_t seed = 3;
    int type = 0, n = 0;
    (void)state;
    for (const grid *g = next_grid(&type); g; g = next_grid(&type), n++) {
        const format *f = format_get(g->type);
        assert_int_equal(f->block_values, g->block);
        for (int i = 0; i < BLOCKS; i++) {
            float x[GRID_MAX_BLOCK];
            uint8_t bytes[512];
            for (int j = 0; j < g->block; j++)
                x[j] = ((float)(random_next(&seed) >> 40) * 0x1p-24f - 0.4f) * (i % 4 == 0 ? 1e-6f : i % 4 == 1 ? 300.0f : 1.0f);
            if (i == 7)
                memset(x, 0, sizeof x);
            f->encode(x, bytes, (size_t)g->block, NULL);
            check_block(g, bytes);
        }
    }
    assert_int_equal(n, 27);
}

/* d is kept by the bytes, and no number beside it is nearer to what was wanted. */
static void stored_numbers_are_the_nearest(void **state)
{
    uint64_t seed = 7;
    int type = 0;
    (void)state;
    for (const grid *g = next_grid(&type); g; g = next_grid(&type))
        for (int i = 0; i < BLOCKS && g->number != GRID_ONE; i++) {
            uint8_t bytes[512];
            float v = ldexpf(uniform(&seed) + 0.51f, (int)(random_next(&seed) % 28) - 13), d = grid_storable(g, v);
            uint16_t half = f32_to_f16(d);
            float below = g->number == GRID_POWER ? d * 0.5f : f16_to_f32((uint16_t)(half - 1));
            float above = g->number == GRID_POWER ? d * 2.0f : f16_to_f32((uint16_t)(half + 1));
            grid_block b = {.d = d};
            assert_true(grid_storable(g, d) == d && fabsf(v - d) <= fabsf(v - below) && fabsf(v - d) <= fabsf(v - above));
            for (int k = 0; k < g->block / g->group; k++)
                b.scale[k] = (int8_t)g->scale_hi;
            for (int k = 0; g->book && k < g->block; k += g->book->width)
                codebook_read(g->book, 0, 0, b.code + k);
            g->write(&b, bytes);
            g->read(bytes, &b);
            assert_true(b.d == d);
        }
    assert_true(grid_storable(grid_get(DIL_TYPE_Q4_0), -1e9f) == -65504.0f);
    assert_true(grid_storable(grid_get(DIL_TYPE_MXFP4), -1.0f) == 0x1p-128f);
    assert_true(grid_storable(grid_get(DIL_TYPE_MXFP4), 0x1.fp127f) == 0x1p127f);
}

/* Every word, sign and scale can be read and written. */
static void any_bytes_of_a_book_are_exact(void **state)
{
    uint64_t seed = 5;
    int type = 0;
    (void)state;
    for (const grid *g = next_grid(&type); g; g = next_grid(&type)) {
        for (int i = 0; i < BLOCKS && g->book; i++) {
            uint8_t bytes[512];
            for (size_t k = 0; k < sizeof bytes; k++)
                bytes[k] = (uint8_t)(random_next(&seed) >> 32);
            bytes[g->type == DIL_TYPE_IQ1_M ? 55 : 1] &= 0x3f; /* d: finite, at most 2 */
            check_block(g, bytes);
        }
    }
}

typedef struct brute {
    const grid *g;
    const codebook_wish *w;
    uint8_t code[CODEBOOK_MAX_UNIT];
    float best;
} brute;

static float cost_of(const brute *b)
{
    float target[CODEBOOK_MAX_UNIT], sum = 0;
    int unit = b->g->book->unit;
    memcpy(target, b->w->target, (size_t)unit * sizeof *target);
    for (int j = 0; j < unit; j++) {
        float e = target[j] - b->w->scale * (float)b->g->level[b->code[j]];
        sum += b->w->weight[j] * e * e;
        for (int k = j + 1; k < unit && b->w->share; k++)
            target[k] -= e * b->w->share[(size_t)j * b->w->stride + (size_t)k];
    }
    return sum;
}

/* All words and signs from value `at` of a unit on. */
static void try_all(brute *b, int at)
{
    const codebook *book = b->g->book;
    if (at == book->unit) {
        int negative = 0;
        for (int j = 0; j < book->unit; j++)
            negative += b->code[j] < book->n_magnitudes;
        float cost = book->even && negative % 2 ? INFINITY : cost_of(b);
        b->best = cost < b->best ? cost : b->best;
        return;
    }
    bool first_of_two = at + book->width < book->unit; /* then some of them will do */
    for (unsigned word = 0; word < (unsigned)book->n_words; word += first_of_two ? 40 : 1)
        for (unsigned signs = 0; signs < (book->shifted ? 2 : 1u << book->width); signs++) {
            codebook_read(book, word, signs, b->code + at);
            if (book->shifted && b->w->shift != CODEBOOK_SHIFT_EITHER && b->w->shift != codebook_shift(b->code[at]))
                continue;
            try_all(b, at + book->width);
        }
}

static void check_wish(const grid *g, const codebook_wish *w)
{
    brute b = {.g = g, .w = w, .best = INFINITY};
    uint8_t code[CODEBOOK_MAX_UNIT], again[CODEBOOK_MAX_UNIT];
    float found = codebook_nearest(g, w, code);
    memcpy(b.code, code, sizeof code);
    assert_true(fabsf(found - cost_of(&b)) <= 1e-4f * found);
    try_all(&b, 0);
    assert_true(found <= b.best * (1 + 1e-4f));
    if (g->book->unit == g->book->width)
        assert_true(found >= b.best * (1 - 1e-4f));
    codebook_wish less = *w;
    less.bound = found * 0.999f;
    memset(again, 77, sizeof again);
    assert_true(codebook_nearest(g, &less, again) == less.bound && again[0] == 77);
    less.bound = found * 1.001f;
    assert_true(fabsf(codebook_nearest(g, &less, again) - found) <= 1e-5f * found);
    assert_memory_equal(again, code, (size_t)g->book->unit);
}

static void the_nearest_words_are_nearest(void **state)
{
    uint64_t seed = 7;
    int type = 0;
    (void)state;
    for (const grid *g = next_grid(&type); g; g = next_grid(&type))
        for (int i = 0; i < 9 && g->book; i++) {
            float target[CODEBOOK_MAX_UNIT], weight[CODEBOOK_MAX_UNIT], share[CODEBOOK_MAX_UNIT * CODEBOOK_MAX_UNIT];
            for (int j = 0; j < CODEBOOK_MAX_UNIT; j++) {
                target[j] = uniform(&seed);
                weight[j] = uniform(&seed) + 0.6f;
            }
            for (int j = 0; j < CODEBOOK_MAX_UNIT * CODEBOOK_MAX_UNIT; j++)
                share[j] = uniform(&seed);
            codebook_wish w = {.target = target,
                               .weight = weight,
                               .share = i % 2 ? share : NULL,
                               .stride = CODEBOOK_MAX_UNIT,
                               .scale = 0.4f / (float)g->level[g->n_levels - 1],
                               .bound = INFINITY,
                               .shift = i % 3};
            check_wish(g, &w);
        }
}

static void wishes_without_an_answer_are_left(void **state)
{
    const grid *g = grid_get(DIL_TYPE_IQ3_S);
    float target[4] = {1, NAN, 1, 1}, weight[4] = {1, 1, 1, 1}, share[16] = {0};
    uint8_t code[4] = {3, 3, 3, 3};
    codebook_wish w = {.target = target, .weight = weight, .scale = 1, .bound = INFINITY};
    (void)state;
    for (int i = 0; i < 2; i++, w.share = share) {
        w.scale = 1;
        target[1] = NAN;
        assert_true(codebook_nearest(g, &w, code) == INFINITY);
        target[1] = INFINITY;
        assert_true(codebook_nearest(g, &w, code) == INFINITY);
        target[1] = 1;
        w.scale = 0;
        assert_true(codebook_nearest(g, &w, code) == INFINITY);
        w.scale = NAN;
        assert_true(codebook_nearest(g, &w, code) == INFINITY);
    }
    assert_int_equal(code[0], 3);
}

static void the_nearest_level_is_nearest(void **state)
{
    int type = 0;
    (void)state;
    for (const grid *g = next_grid(&type); g; g = next_grid(&type)) {
        grid_borders borders;
        grid_borders_of(g, &borders);
        for (float v = (float)g->level[0] - 3.1f; v < (float)g->level[g->n_levels - 1] + 3.0f; v += 0.0703f) {
            int found = grid_nearest(g, v);
            for (int i = 0; i < g->n_levels; i++)
                assert_true(fabsf(v - (float)g->level[found]) <= fabsf(v - (float)g->level[i]) + 1e-5f);
            assert_true(v >= borders.lower[found] - 1e-5f && v <= borders.upper[found] + 1e-5f);
        }
        assert_int_equal(grid_nearest(g, NAN), 0);
        assert_int_equal(grid_nearest(g, INFINITY), g->n_levels - 1);
        assert_int_equal(grid_nearest(g, -INFINITY), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(reading_writing_and_values_are_exact),
                                       cmocka_unit_test(stored_numbers_are_the_nearest),
                                       cmocka_unit_test(any_bytes_of_a_book_are_exact),
                                       cmocka_unit_test(the_nearest_level_is_nearest),
                                       cmocka_unit_test(the_nearest_words_are_nearest),
                                       cmocka_unit_test(wishes_without_an_answer_are_left)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
