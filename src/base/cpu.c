#include "base/cpu.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

uint32_t cpu_features(void)
{
    uint32_t f = 0;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
        f |= CPU_AVX2;
    if ((f & CPU_AVX2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        f |= CPU_AVX512;
    if ((f & CPU_AVX512) && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi"))
        f |= CPU_AVX512_VNNI;
    unsigned a, b, c, d;
    if ((f & CPU_AVX512) && __get_cpuid_count(7, 1, &a, &b, &c, &d)) {
        if (a & (1u << 5))
            f |= CPU_AVX512_BF16;
        if (a & (1u << 4))
            f |= CPU_AVX_VNNI;
    }
    return f;
}

const char *cpu_name(void)
{
    static char name[49]; /* written with the same bytes by whoever comes first */
    unsigned r[12];
    for (unsigned i = 0; i < 3; i++)
        if (!__get_cpuid(0x80000002u + i, &r[4 * i], &r[4 * i + 1], &r[4 * i + 2], &r[4 * i + 3]))
            return "x86-64";
    memcpy(name, r, 48);
    return name;
}
#else
uint32_t cpu_features(void) { return 0; }
const char *cpu_name(void) { return "unknown CPU"; }
#endif
