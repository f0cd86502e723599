#include "train/product.h"

#include <string.h>

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

size_t prepared_words(product_kind p, int64_t n_sum, int64_t n_columns)
{
    return (size_t)(product_steps(p, n_sum) * round_up(n_columns, PRODUCT_COLS));
}

/* One row as words; in bf16 an odd last value is followed by a zero. */
static void pack_row(product_kind p, const float *from, int64_t n, uint32_t *dst)
{
    if (p.bf16)
        p.k->round_bf16(from, n, (uint16_t *)dst);
    else
        memcpy(dst, from, (size_t)n * sizeof(float));
}

void pack_rows(product_kind p, rows x, int n, int64_t n_sum, uint32_t *dst)
{
    int64_t steps = product_steps(p, n_sum);
    for (int i = 0; i < n; i++)
        pack_row(p, row_at(x, i), n_sum, dst + i * steps);
}

void prepare_transposed(product_kind p, rows w, int64_t n_columns, int64_t n_sum, uint32_t *dst, uint32_t *scratch)
{
    int64_t steps = product_steps(p, n_sum);
    for (int64_t c = 0; c < n_columns; c += PRODUCT_COLS, dst += steps * PRODUCT_COLS) {
        int n = n_columns - c < PRODUCT_COLS ? (int)(n_columns - c) : PRODUCT_COLS;
        pack_rows(p, rows_from(w, c), n, n_sum, scratch);
        memset(scratch + n * steps, 0, (size_t)((PRODUCT_COLS - n) * steps) * sizeof(uint32_t));
        for (int64_t s = 0; s < steps; s++)
            for (int j = 0; j < PRODUCT_COLS; j++)
                dst[s * PRODUCT_COLS + j] = scratch[j * steps + s];
    }
}

/* One row, panel by panel: the form of `interleave` for f32. */
static void spread_row(const float *from, int64_t n, uint32_t *dst, size_t stride)
{
    for (int64_t i = 0; i < n; i += PRODUCT_COLS, dst += stride) {
        size_t here = n - i < PRODUCT_COLS ? (size_t)(n - i) : PRODUCT_COLS;
        memset(dst, 0, PRODUCT_COLS * sizeof(uint32_t));
        memcpy(dst, from + i, here * sizeof(float));
    }
}

void prepare_rows(product_kind p, rows m, int64_t n_sum, int64_t n_columns, int64_t pitch, uint32_t *dst)
{
    size_t stride = (size_t)product_steps(p, pitch) * PRODUCT_COLS;
    for (int64_t i = 0; !p.bf16 && i < n_sum; i++)
        spread_row(row_at(m, i), n_columns, dst + i * PRODUCT_COLS, stride);
    for (int64_t i = 0; p.bf16 && i < n_sum; i += 2)
        p.k->training.interleave(row_at(m, i), i + 1 < n_sum ? row_at(m, i + 1) : NULL, n_columns, dst + i / 2 * PRODUCT_COLS,
                                 stride);
}

/* A panel whose last columns are not there goes through a tile of its own. */
static void product_narrow(product_fn fn, const product_args *p, int64_t n_columns)
{
    float tile[PRODUCT_ROWS][PRODUCT_COLS];
    product_args part = *p;
    part.c = tile[0];
    part.c_row = PRODUCT_COLS;
    part.add = false;
    for (int r = 0; r < p->n_rows; r += PRODUCT_ROWS) {
        part.n_rows = p->n_rows - r < PRODUCT_ROWS ? p->n_rows - r : PRODUCT_ROWS;
        part.a = p->a + (size_t)r * p->a_row;
        fn(&part);
        for (int i = 0; i < part.n_rows; i++)
            for (int64_t j = 0; j < n_columns; j++) {
                float *c = p->c + (size_t)(r + i) * p->c_row + j;
                *c = p->add ? *c + tile[i][j] : tile[i][j];
            }
    }
}

static void product_panel(product_kind p, const product_args *a, int64_t n_columns)
{
    product_fn fn = p.bf16 ? p.k->training.product_bf16 : p.k->training.product_f32;
    if (n_columns >= PRODUCT_COLS)
        fn(a);
    else
        product_narrow(fn, a, n_columns);
}

/* A stretch of a panel that stays in L1 meets all rows before the next one does. */
void product_run(product_kind p, const product_block *b)
{
    size_t stride = (size_t)product_steps(p, b->pitch) * PRODUCT_COLS;
    int64_t steps = product_steps(p, b->n_sum);
    for (int64_t c = 0; c < b->n_columns; c += PRODUCT_COLS)
        for (int64_t s = 0; s < steps; s += PANEL_STEPS) {
            const uint32_t *panel = b->b + (size_t)(c / PRODUCT_COLS) * stride;
            product_args a = {
                b->a + s,  b->a_pitch, 1,           panel + s * PRODUCT_COLS, steps - s < PANEL_STEPS ? steps - s : PANEL_STEPS,
                b->n_rows, b->y + c,   b->y_stride, b->add || s > 0};
            product_panel(p, &a, b->n_columns - c);
        }
}

size_t outer_scratch_words(int64_t n_columns) { return (size_t)(PANEL_STEPS * (OUTER_ROWS + round_up(n_columns, PRODUCT_COLS))); }

void outer_run(product_kind p, const outer_block *b, uint32_t *scratch)
{
    uint32_t *ya = scratch, *xb = scratch + (size_t)PANEL_STEPS * OUTER_ROWS;
    rows y = b->y;
    y.p += b->first;
    const int64_t most = p.bf16 ? 2 * PANEL_STEPS : PANEL_STEPS;
    for (int64_t t = 0; t < b->n_tokens; t += most) {
        int64_t n = b->n_tokens - t < most ? b->n_tokens - t : most, steps = product_steps(p, n);
        size_t panel = (size_t)steps * PRODUCT_COLS;
        prepare_rows(p, rows_from(y, t), n, b->n_rows, n, ya);
        prepare_rows(p, rows_from(b->x, t), n, b->n_columns, n, xb);
        for (int64_t j = 0; j < b->n_columns; j += PRODUCT_COLS)
            for (int i = 0; i < b->n_rows; i += PRODUCT_COLS) {
                product_args a = {ya + (size_t)(i / PRODUCT_COLS) * panel,
                                  1,
                                  PRODUCT_COLS,
                                  xb + (size_t)(j / PRODUCT_COLS) * panel,
                                  steps,
                                  b->n_rows - i < PRODUCT_COLS ? b->n_rows - i : PRODUCT_COLS,
                                  b->c + (size_t)i * b->c_stride + j,
                                  b->c_stride,
                                  true};
                product_panel(p, &a, b->n_columns - j);
            }
    }
}
