#include "base/isa.h"

int apd_isa_supported(enum apd_isa isa)
{
    switch (isa) {
    case APD_ISA_AVX512:
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl");
    case APD_ISA_AVX2:
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case APD_ISA_BASELINE:
        break;
    }
    return 1;
}
