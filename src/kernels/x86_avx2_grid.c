/* AVX2 linear layers of the code-book types (grid.h). */
#include "kernels/x86_avx2_panel.h"

#define BLOCK_BYTES(type, words, high, sub, marks) GRID_BLOCK_##type = GRID_BLOCK(words, high, marks),
enum { GRID_TYPES(BLOCK_BYTES) };

/* type, sub; off and depth of bytes; depth of magnitudes with signs apart, or 0 */
#define GRID(type, sub, off, depth, depth_signs)                                                                                 \
    ((form){DIL_TYPE_##type, QUANTS_GRID, SCALES_GRID, GRID_COLUMNS, GRID_HEADER(sub), GRID_HEADER(sub) + 8 * GRID_BLOCK_##type, \
            GRID_BLOCK_##type, sub, off, depth, false, false, depth_signs})

#define FOR_FORMS(X)                        \
    X(IQ1_S, GRID(IQ1_S, 32, 9, 8, 0))      \
    X(IQ1_M, GRID(IQ1_M, 16, 9, 4, 0))      \
    X(IQ2_XXS, GRID(IQ2_XXS, 32, 43, 1, 2)) \
    X(IQ2_XS, GRID(IQ2_XS, 16, 43, 1, 2))   \
    X(IQ2_S, GRID(IQ2_S, 16, 43, 1, 2))     \
    X(IQ3_XXS, GRID(IQ3_XXS, 32, 31, 4, 2)) \
    X(IQ3_S, GRID(IQ3_S, 32, 15, 8, 8))

FOR_FORMS(AVX2_LINEAR)

void avx2_add_grid(kernels *k) { FOR_FORMS(AVX2_SET) }
