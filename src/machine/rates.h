/*
 * The speed of each format on this machine, measured once and kept, so that what depends on it is the same every time. Owns the file:
 * $XDG_CACHE_HOME/dilmodeli/rates/, one for each processor, level of kernels and number of threads, safe to delete at any time.
 */
#ifndef MACHINE_RATES_H
#define MACHINE_RATES_H

#include "machine/limits.h"

/*
 * Rates with the threads a run takes by default; measured (some seconds) if there is no file of them or it is damaged. Errors are those of
 * measuring and of keeping: rates that cannot be kept would be others the next time.
 */
DIL_MUST_CHECK dil_status machine_rates_get(machine_rates *out, const kernels *k, dil_error *err);

#endif
