/* The trainer's kernels for AVX-512. */
#include "kernels/x86_avx512_training.h"
#include "kernels/training_vector.h"

AVX512_INLINE __m512 multiply_add(__m512 acc, __m512 x, __m512 b) { return _mm512_fmadd_ps(x, b, acc); }

static void avx512_product(const product_args *p) { avx512_product_with(p, multiply_add); }

void avx512_add_training(kernels *k)
{
    k->training.product_f32 = avx512_product;
    training_add_vector(&k->training);
}
