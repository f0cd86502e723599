/* Grids: the parts of a block are exact in both directions, and the nearest level is the nearest. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "formats/grid.h"
#include "theorem/random.h"

enum { BLOCKS = 40 };

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
    assert_true(n >= 14);
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
                                       cmocka_unit_test(the_nearest_level_is_nearest)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
