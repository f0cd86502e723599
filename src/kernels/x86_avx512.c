/* The AVX-512 level of the kernel table; the kernels are in the x86_avx512_*.c files, by family. */
#include "kernels/x86_avx512.h"

#include <string.h>

#include "base/cpu.h"

void kernels_add_avx512(kernels *k)
{
    k->name = "avx512";
    k->ahead = strstr(cpu_name(), "AMD") ? 0 : AVX512_AHEAD;
    k->panel_chunk = 8;
    k->token_chunk = 258;
    k->token_tile = 6;
    avx512_add_legacy(k);
    avx512_add_kquants(k);
    avx512_add_small(k);
    avx512_add_grid(k);
    avx512_add_float(k);
    avx512_add_vector(k);
    avx512_add_attention(k);
    avx512_add_peak(k);
    avx512_add_training(k);
}
