/* Between the files of machine: who fills cores. */
#ifndef MACHINE_MACHINE_INTERNAL_H
#define MACHINE_MACHINE_INTERNAL_H

#include "machine/machine.h"

/* Fills cores, cpus and caches of a zeroed machine whose arrays hold MACHINE_MAX_CPUS entries, from hwloc. UNSUPPORTED without
 * hwloc, and only then err stays as it is. */
DIL_MUST_CHECK dil_status machine_from_hwloc(machine *m, const machine_source *source, dil_error *err);

#endif
