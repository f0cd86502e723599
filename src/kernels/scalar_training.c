/* The trainer's kernels in plain C, compiled without instruction-set flags. */
#include "kernels/scalar.h"
#include "kernels/training_vector.h"

static void scalar_product(const product_args *p)
{
    for (int r = 0; r < p->n_rows; r++) {
        float acc[PRODUCT_COLS] = {0}, *c = p->c + (size_t)r * p->c_row;
        const uint32_t *a = p->a + (size_t)r * p->a_row, *b = p->b;
        for (int64_t s = 0; s < p->n_steps; s++, a += p->a_step, b += PRODUCT_COLS) {
            float x, w[PRODUCT_COLS];
            memcpy(&x, a, sizeof x);
            memcpy(w, b, sizeof w);
            for (int j = 0; j < PRODUCT_COLS; j++)
                acc[j] += x * w[j];
        }
        for (int j = 0; j < PRODUCT_COLS; j++)
            c[j] = p->add ? c[j] + acc[j] : acc[j];
    }
}

void scalar_add_training(kernels *k)
{
    k->training.product_f32 = scalar_product;
    training_add_vector(&k->training);
}
