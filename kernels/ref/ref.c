#include "kernels/ref/ref.h"

#include <stdio.h>
#include <stdlib.h>

struct ref_backend {
    struct apd_backend base;
    struct apd_backend_ops ops;
};

static void ref_destroy(struct apd_backend *be)
{
    free(be);
}

enum apd_code REF_CREATE(struct apd_backend **out, struct apd_err *err)
{
    struct ref_backend *ref = calloc(1, sizeof *ref);

    if (ref == NULL)
        return apd_fail(err, APD_NOMEM, "no memory for a backend");
    ref->ops.destroy = ref_destroy;
    REF(memory_ops)(&ref->ops);
    REF(conv_ops)(&ref->ops);
    REF(bn_ops)(&ref->ops);
    REF(pool_ops)(&ref->ops);
    REF(linear_ops)(&ref->ops);
    REF(loss_ops)(&ref->ops);
    REF(image_ops)(&ref->ops);
    REF(flat_ops)(&ref->ops);
    ref->base.ops = &ref->ops;
    ref->base.name = REF_NAME;
    ref->base.elem_bytes = ref->base.act_bytes = sizeof(real);
    (void)snprintf(ref->base.layout, sizeof ref->base.layout, "nchw");
    *out = &ref->base;
    return APD_OK;
}
