/* Instruction sets that inner loops are compiled for, and which of them this machine has. */
#ifndef APD_BASE_ISA_H
#define APD_BASE_ISA_H

enum apd_isa {
    APD_ISA_BASELINE, /* x86-64 */
    APD_ISA_AVX2,     /* x86-64-v3 */
    APD_ISA_AVX512,   /* x86-64-v4 */
};

int apd_isa_supported(enum apd_isa isa);

#endif
