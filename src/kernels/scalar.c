/* The scalar level: every entry of the table. */
#include "kernels/scalar.h"

void kernels_add_scalar(kernels *k)
{
    k->name = "scalar";
    scalar_add_linear(k);
    scalar_add_vector(k);
    scalar_add_attention(k);
    scalar_add_peak(k);
    scalar_add_training(k);
}
