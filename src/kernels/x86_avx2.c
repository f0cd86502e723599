/* The AVX2 level (with FMA and F16C): what it has better than scalar. */
#include "kernels/x86_avx2.h"

#include <string.h>

#include "base/cpu.h"

void kernels_add_avx2(kernels *k)
{
    k->name = "avx2";
    k->ahead = strstr(cpu_name(), "AMD") ? AVX2_AHEAD / 2 : AVX2_AHEAD;
    avx2_add_linear(k);
    avx2_add_grid(k);
    avx2_add_float(k);
    avx2_add_vector(k);
    avx2_add_attention(k);
    avx2_add_peak(k);
    avx2_add_training(k);
}
