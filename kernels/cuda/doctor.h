/* What a machine has for the CUDA backend, told without starting anything: for `advprop doctor`. No
 * type of CUDA here. */
#ifndef APD_KERNELS_CUDA_DOCTOR_H
#define APD_KERNELS_CUDA_DOCTOR_H

#include <stddef.h>

enum { APD_CUDA_GPUS = 16 }; /* of one host; more are not told of */

struct apd_cuda_gpu {
    char name[256];
    int major, minor; /* compute capability */
    size_t total_bytes, free_bytes;
    unsigned peers;    /* bit i: reaches GPU i's memory directly */
    char problem[320]; /* why it cannot be used, in a sentence; "": it can */
};

/* Versions as CUDA writes them: 13000 is 13.0; 0: there is none. */
struct apd_cuda_report {
    int driver, runtime;
    size_t cudnn_built, cudnn_found; /* 91900 is 9.19.0 */
    char cudnn_problem[320];         /* why that cuDNN cannot be used; "": it can */
    char problem[320];               /* why there is no GPU to look at; "": there is */
    int gpus;
    struct apd_cuda_gpu gpu[APD_CUDA_GPUS];
};

/* Makes a context on each GPU for a moment, to ask for its free memory. */
void apd_cuda_look(struct apd_cuda_report *out);

/* Whether this build's kernels run on such a GPU; `need` says which it has, "8.0, 9.0 and later".
 */
int apd_cuda_has_code(int major, int minor, char need[64]);

#endif
