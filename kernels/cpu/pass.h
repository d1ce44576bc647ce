/* One direction of one convolution at one batch size: the oneDNN primitive that computes it, and
 * the layouts it wants its operands in. Who owns it: conv.c. */
#ifndef APD_KERNELS_CPU_PASS_H
#define APD_KERNELS_CPU_PASS_H

#include "kernels/cpu/cpu.h"

enum cpu_direction { CPU_FORWARD, CPU_BACKWARD_DATA, CPU_BACKWARD_WEIGHTS, CPU_DIRECTIONS };

extern const char *const cpu_direction_names[CPU_DIRECTIONS];

/* How good an implementation is; lower is better. */
enum cpu_quality { CPU_OPTIMISED, CPU_GEMM, CPU_REFERENCE, CPU_NONE };

/* An implementation that oneDNN offers for a direction. */
struct cpu_choice {
    dnnl_primitive_desc_t pd;
    const char *impl; /* oneDNN's name for it */
    enum cpu_quality quality;
    int winograd;
};

/* Finds the best implementation: Winograd first if `winograd` and there is one; then direct in our
 * own layouts; then in layouts that need a reorder around it; a gemm or reference one only if there
 * is nothing else. APD_DEVICE if oneDNN offers none at all. The caller destroys out->pd. */
APD_MUST_USE enum apd_code cpu_choose(struct cpu_backend *cpu, const struct apd_conv_shape *shape,
                                      int n, enum cpu_direction direction, int winograd,
                                      struct cpu_choice *out, struct apd_err *err);

/* One of the two activation operands. */
struct cpu_side {
    dnnl_memory_t own;        /* our layout; the address is set at each run */
    dnnl_memory_t inner;      /* the primitive's layout, in scratch memory; NULL: the same */
    dnnl_primitive_t reorder; /* into inner for an operand, out of it for a result */
};

struct cpu_pass {
    enum cpu_direction direction;
    dnnl_primitive_t primitive;
    dnnl_memory_desc_t weights; /* layout of the weights, or of their gradient, for the primitive */
    struct cpu_side src, dst;
    dnnl_memory_t scratchpad;
};

/* A pass made of `choice`; reserves the scratch it needs. On failure nothing is left. */
APD_MUST_USE enum apd_code cpu_pass_init(struct cpu_backend *cpu, struct cpu_pass *pass,
                                         const struct apd_conv_shape *shape, int n,
                                         enum cpu_direction direction,
                                         const struct cpu_choice *choice, struct apd_err *err);
void cpu_pass_fini(struct cpu_pass *pass);
/* src, dst: our tensors, one or the other written according to the direction; `weights` in the
 * layout pass->weights, written by backward weights. */
APD_MUST_USE enum apd_code cpu_pass_run(struct cpu_backend *cpu, struct cpu_pass *pass,
                                        const void *src, const void *dst, dnnl_memory_t weights,
                                        struct apd_err *err);

/* Layouts of our own tensors. `dst`: the output instead of the input. */
APD_MUST_USE enum apd_code cpu_activation_desc(const struct cpu_backend *cpu,
                                               const struct apd_conv_shape *shape, int n, int dst,
                                               dnnl_memory_desc_t *out, struct apd_err *err);
/* Canonical OIHW, or GOIHW with groups. */
APD_MUST_USE enum apd_code cpu_weights_desc(const struct apd_conv_shape *shape,
                                            dnnl_format_tag_t tag, dnnl_memory_desc_t *out,
                                            struct apd_err *err);

/* Primitive that copies between two layouts. */
APD_MUST_USE enum apd_code cpu_reorder_create(const struct cpu_backend *cpu,
                                              const dnnl_memory_desc_t *from,
                                              const dnnl_memory_desc_t *to, dnnl_primitive_t *out,
                                              struct apd_err *err);
APD_MUST_USE enum apd_code cpu_reorder_run(const struct cpu_backend *cpu, dnnl_primitive_t reorder,
                                           dnnl_memory_t from, dnnl_memory_t to,
                                           struct apd_err *err);

#endif
