/* The classifier: plain row-major products through oneDNN's sgemm. */
#include "kernels/cpu/cpu.h"

#include <omp.h>
#include <string.h>

static enum apd_code cpu_linear_forward(struct apd_backend *be, int n, int in, int out,
                                        const void *x, const void *w, const void *b, void *logits,
                                        struct apd_err *err)
{
    enum apd_code rc = APD_OK;

    omp_set_num_threads(cpu_of(be)->threads);
    for (int i = 0; i < n; i++)
        memcpy((float *)logits + (size_t)i * (size_t)out, b, (size_t)out * sizeof(float));
    DNNL_GO(dnnl_sgemm('N', 'T', n, out, in, 1, x, in, w, in, 1, logits, out));
done:
    return rc;
}

static enum apd_code cpu_linear_backward_data(struct apd_backend *be, int n, int in, int out,
                                              const void *d_logits, const void *w, void *d_x,
                                              struct apd_err *err)
{
    enum apd_code rc = APD_OK;

    omp_set_num_threads(cpu_of(be)->threads);
    DNNL_GO(dnnl_sgemm('N', 'N', n, in, out, 1, d_logits, out, w, in, 0, d_x, in));
done:
    return rc;
}

static enum apd_code cpu_linear_backward_weights(struct apd_backend *be, int n, int in, int out,
                                                 const void *x, const void *d_logits, void *d_w,
                                                 void *d_b, struct apd_err *err)
{
    enum apd_code rc = APD_OK;

    omp_set_num_threads(cpu_of(be)->threads);
    DNNL_GO(dnnl_sgemm('T', 'N', out, in, n, 1, d_logits, out, x, in, 1, d_w, in));
    for (int i = 0; i < n; i++)
        cpu_of(be)->simd->add((size_t)out, (const float *)d_logits + (size_t)i * (size_t)out, d_b);
done:
    return rc;
}

void cpu_linear_ops(struct apd_backend_ops *ops)
{
    ops->linear_forward = cpu_linear_forward;
    ops->linear_backward_data = cpu_linear_backward_data;
    ops->linear_backward_weights = cpu_linear_backward_weights;
}
