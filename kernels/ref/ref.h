/* The reference backend: every operation as its formula, one thread, double accumulation, plain
 * NCHW activations and OIHW weights. It is the oracle of the kernel tests, so it is written to be
 * read, not to be fast. The same sources are compiled twice: elements are float (ref) or double
 * (ref64). */
#ifndef APD_KERNELS_REF_H
#define APD_KERNELS_REF_H

#include "kernels/backend.h"

#ifdef APD_REF_DOUBLE
typedef double real;
#define REF(name)  apd_ref64_##name
#define REF_CREATE apd_backend_ref64
#define REF_NAME   "ref64"
#else
typedef float real;
#define REF(name)  apd_ref_##name
#define REF_CREATE apd_backend_ref
#define REF_NAME   "ref"
#endif

/* Each family of operations fills its part of the table. */
void REF(memory_ops)(struct apd_backend_ops *ops);
void REF(conv_ops)(struct apd_backend_ops *ops);
void REF(bn_ops)(struct apd_backend_ops *ops);
void REF(pool_ops)(struct apd_backend_ops *ops);
void REF(linear_ops)(struct apd_backend_ops *ops);
void REF(loss_ops)(struct apd_backend_ops *ops);
void REF(image_ops)(struct apd_backend_ops *ops);
void REF(flat_ops)(struct apd_backend_ops *ops);

#endif
