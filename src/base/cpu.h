/* Which instruction sets this CPU has. The only place that asks; kernels are chosen from these flags. */
#ifndef BASE_CPU_H
#define BASE_CPU_H

#include <stdint.h>

enum {
    CPU_AVX2 = 1 << 0,        /* with FMA and F16C */
    CPU_AVX512 = 1 << 1,      /* F, BW, DQ, VL */
    CPU_AVX512_VNNI = 1 << 2, /* with VBMI */
    CPU_AVX512_BF16 = 1 << 3,
    CPU_AVX_VNNI = 1 << 4,
    CPU_NEON = 1 << 5,
};

uint32_t cpu_features(void);
/* The brand string, e.g. "AMD EPYC ..."; [static]. */
const char *cpu_name(void);

#endif
