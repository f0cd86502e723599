/* The kernels that measure a core: their sums equal plain arithmetic, and reading stays inside its bytes. */
#include <string.h>

#include "check.h"

static void one_tile(check *c, int64_t rounds)
{
    uint8_t a[PEAK_ROWS][64];
    int8_t b[PEAK_COLS][64];
    int64_t want = 0, want16 = 0, want32 = 0;
    uint16_t a16[PEAK_ROWS][32], b16[PEAK_COLS][32];
    float a32[PEAK_ROWS][16], b32[PEAK_COLS][16];
    for (int k = 0; k < 64; k++) {
        for (int i = 0; i < PEAK_ROWS; i++)
            a[i][k] = (uint8_t)(random_u32() % 4 ? random_u32() % 128 : 127);
        for (int j = 0; j < PEAK_COLS; j++)
            b[j][k] = (int8_t)(random_u32() % 4 ? (int)(random_u32() % 256) - 128 : -128);
    }
    /* Small whole numbers are exact in bf16 (bits of the f32, shifted), and so are their sums. */
    static const uint16_t small[5] = {0xc000, 0xbf80, 0x0000, 0x3f80, 0x4000}; /* -2 .. 2 */
    int va[PEAK_ROWS][32], vb[PEAK_COLS][32];
    for (int k = 0; k < 32; k++) {
        for (int i = 0; i < PEAK_ROWS; i++)
            a16[i][k] = small[2 + (va[i][k] = (int)(random_u32() % 5) - 2)];
        for (int j = 0; j < PEAK_COLS; j++)
            b16[j][k] = small[2 + (vb[j][k] = (int)(random_u32() % 5) - 2)];
    }
    for (int i = 0; i < PEAK_ROWS; i++)
        for (int j = 0; j < PEAK_COLS; j++)
            for (int k = 0; k < 64; k++) {
                want += a[i][k] * b[j][k];
                want16 += k < 32 ? va[i][k] * vb[j][k] : 0;
                want32 += k < 16 ? va[i][k] * vb[j][k] : 0;
            }
    for (int k = 0; k < 16; k++) {
        for (int i = 0; i < PEAK_ROWS; i++)
            a32[i][k] = (float)va[i][k];
        for (int j = 0; j < PEAK_COLS; j++)
            b32[j][k] = (float)vb[j][k];
    }
    uint32_t got = c->level->peak_int8(a[0], b[0], rounds);
    if (got != (uint32_t)(want * rounds))
        check_fail(c, "int8, %d rounds: sum %u, expected %u", (int)rounds, got, (uint32_t)(want * rounds));
    float got16 = c->level->peak_bf16(a16[0], b16[0], rounds), got32 = c->level->peak_f32(a32[0], b32[0], rounds);
    if (got16 != (float)(want16 * rounds))
        check_fail(c, "bf16, %d rounds: sum %g, expected %g", (int)rounds, (double)got16, (double)(want16 * rounds));
    if (got32 != (float)(want32 * rounds))
        check_fail(c, "f32, %d rounds: sum %g, expected %g", (int)rounds, (double)got32, (double)(want32 * rounds));
}

static void peak(check *c, int arg)
{
    (void)arg;
    static const int64_t rounds[] = {0, 1, 2, 3, 17, 1000};
    for (size_t i = 0; i < sizeof rounds / sizeof *rounds; i++)
        one_tile(c, rounds[i]);
}

static void read_stream(check *c, int arg)
{
    (void)arg;
    static const size_t sizes[] = {0, 64, 128, 448, 512, 576, 1024, 4096, 5056};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        guarded g = guarded_new(sizes[i], 64);
        uint64_t want = 0;
        for (size_t k = 0; k < sizes[i] / 8; k++) {
            uint64_t word = (uint64_t)random_u32() << 32 | random_u32();
            memcpy((uint8_t *)g.p + 8 * k, &word, 8);
            want ^= word;
        }
        uint64_t got = c->level->read_stream(g.p, sizes[i]);
        if (got != want)
            check_fail(c, "%zu bytes: %llx, expected %llx", sizes[i], (unsigned long long)got, (unsigned long long)want);
        if (!guarded_free(&g))
            check_fail(c, "wrote before an array");
    }
}

void check_peak_all(check *c)
{
    check_run(c, "peak", peak, 0);
    check_run(c, "read_stream", read_stream, 0);
}
