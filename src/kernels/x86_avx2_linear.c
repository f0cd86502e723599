/* AVX2 linear layers of the quantized types whose weights are stored one by one. */
#include "kernels/x86_avx2_panel.h"

/* type, quants, scales, columns, header, bytes of a block's quants, sub, off, depth, signed, minimum */
#define FORM(type, quants, scales, columns, header, block, sub, off, depth, is_signed, has_min)                                  \
    ((form){DIL_TYPE_##type, QUANTS_##quants, SCALES_##scales, columns, header, (header) + (columns) / 32 * (block), block, sub, \
            off, depth, is_signed, has_min, 0})

#define FOR_FORMS(X)                                                           \
    X(Q4_0, FORM(Q4_0, 4, D, 32, 32, 256, 32, 8, 8, false, false))             \
    X(Q4_1, FORM(Q4_1, 4, D_M, 32, 64, 256, 32, 0, 8, false, true))            \
    X(Q5_0, FORM(Q5_0, 5, D, 32, 32, 320, 32, 16, 8, false, false))            \
    X(Q5_1, FORM(Q5_1, 5, D_M, 32, 64, 320, 32, 0, 4, false, true))            \
    X(Q8_0, FORM(Q8_0, 8, D, 32, 32, 512, 32, 0, 1, true, false))              \
    X(Q2_K, FORM(Q2_K, 2, Q2_K, 256, 320, 128, 16, 0, 4, false, true))         \
    X(Q3_K, FORM(Q3_K, 3, Q3_K, 256, 224, 192, 16, 4, 4, false, false))        \
    X(Q4_K, FORM(Q4_K, 4, K32, 256, 256, 256, 32, 0, 8, false, true))          \
    X(Q5_K, FORM(Q5_K, 5, K32, 256, 256, 320, 32, 0, 4, false, true))          \
    X(Q6_K, FORM(Q6_K, 6, K16, 256, 288, 384, 16, 32, 4, false, false))        \
    X(IQ4_NL, FORM(IQ4_NL, IQ4, D, 32, 32, 256, 32, 0, 1, true, false))        \
    X(IQ4_XS, FORM(IQ4_XS, IQ4, IQ4_XS, 256, 128, 256, 32, 0, 1, true, false)) \
    X(TQ1_0, FORM(TQ1_0, 2, D, 256, 32, 128, 32, 1, 8, false, false))          \
    X(TQ2_0, FORM(TQ2_0, 2, D, 256, 32, 128, 32, 1, 8, false, false))          \
    X(MXFP4, FORM(MXFP4, FP4, MXFP4, 32, 16, 256, 32, 12, 8, false, false))    \
    X(NVFP4, FORM(NVFP4, FP4, NVFP4, 64, 64, 256, 16, 12, 4, false, false))    \
    X(Q1_0, FORM(Q1_0, 1, D, 128, 32, 64, 32, 1, 8, false, false))             \
    X(Q2_0, FORM(Q2_0, 2, D, 64, 32, 128, 32, 1, 8, false, false))             \
    X(D3_0, FORM(D3_0, 3, D, 32, 32, 192, 32, 4, 8, false, false))             \
    X(D6_0, FORM(D6_0, 6, D, 32, 32, 384, 32, 32, 4, false, false))

FOR_FORMS(AVX2_LINEAR)

void avx2_add_linear(kernels *k)
{
    FOR_FORMS(AVX2_SET)
    k->panel_chunk = 2;
    k->token_chunk = 256;
    k->token_tile = 4;
}
