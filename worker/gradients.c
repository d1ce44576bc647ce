#include "worker/gradients.h"

#include "worker/tree.h"

#include <stdlib.h>

struct apd_gradients {
    struct apd_params *params; /* not owned */
    struct apd_comm *comm;     /* not owned */
    int slices;
    void *block;   /* device, [slices][params->count] */
    size_t bucket; /* elements */
    size_t left;   /* the shared range from here on has left */
};

enum apd_code apd_gradients_create(struct apd_params *params, struct apd_comm *comm, int slices,
                                   struct apd_gradients **out, struct apd_err *err)
{
    struct apd_gradients *gradients = calloc(1, sizeof *gradients);
    struct apd_backend *be = params->be;
    enum apd_code rc;

    if (gradients == NULL)
        return apd_fail(err, APD_NOMEM, "gradients of %d slices", slices);
    gradients->params = params;
    gradients->comm = comm;
    gradients->slices = slices;
    gradients->left = params->set[APD_SET_SHARED].count;
    gradients->bucket = comm->bucket_bytes / be->elem_bytes;
    APD_GO(be->ops->alloc(be, (size_t)slices * params->count * be->elem_bytes, &gradients->block,
                          err));
    *out = gradients;
    gradients = NULL;
done:
    apd_gradients_destroy(&gradients);
    return rc;
}

void apd_gradients_destroy(struct apd_gradients **gradients)
{
    struct apd_gradients *dead = *gradients;

    if (dead == NULL)
        return;
    if (dead->block != NULL)
        dead->params->be->ops->free(dead->params->be, dead->block);
    free(dead);
    *gradients = NULL;
}

enum apd_code apd_gradients_reset(struct apd_gradients *gradients, struct apd_err *err)
{
    struct apd_params *params = gradients->params;
    struct apd_backend *be = params->be;

    return be->ops->zero(be, gradients->block,
                         (size_t)gradients->slices * params->count * be->elem_bytes, err);
}

void *apd_gradients_of(const struct apd_gradients *gradients, int slice)
{
    return apd_at(gradients->params, gradients->block, (size_t)slice * gradients->params->count);
}

/* A range of elements of every slice. */
struct part {
    const struct apd_gradients *gradients;
    size_t first, count;
};

static void *part_of(const struct part *part, int slice)
{
    return apd_at(part->gradients->params, apd_gradients_of(part->gradients, slice), part->first);
}

static enum apd_code add_part(void *ctx, int dst, int src, struct apd_err *err)
{
    const struct part *part = ctx;
    struct apd_backend *be = part->gradients->params->be;

    return be->ops->add(be, part->count, part_of(part, src), part_of(part, dst), err);
}

static enum apd_code send(struct apd_gradients *gradients, size_t first, size_t end,
                          struct apd_err *err)
{
    struct part part = {gradients, first, end - first};
    size_t elem = gradients->params->be->elem_bytes;

    APD_TRY(apd_tree_sum(gradients->slices, add_part, &part, err));
    return gradients->comm->ops->sum_start(gradients->comm, part_of(&part, 0), part.count,
                                           elem == sizeof(float) ? APD_SUM_F32 : APD_SUM_F64, err);
}

enum apd_code apd_gradients_ready(void *ctx, size_t from, struct apd_err *err)
{
    struct apd_gradients *gradients = ctx;

    while (gradients->left >= from + gradients->bucket) {
        size_t end = gradients->left;

        gradients->left -= gradients->bucket;
        APD_TRY(send(gradients, gradients->left, end, err));
    }
    return APD_OK;
}

void apd_gradients_replayed(struct apd_gradients *gradients)
{
    gradients->left %= gradients->bucket;
}

enum apd_code apd_gradients_sum(struct apd_gradients *gradients, struct apd_err *err)
{
    struct apd_params *params = gradients->params;
    size_t end;

    APD_TRY(apd_gradients_ready(gradients, 0, err));
    if (gradients->left > 0)
        APD_TRY(send(gradients, 0, gradients->left, err));
    for (size_t at = params->set[APD_SET_SHARED].count; at < params->count; at = end) {
        end = params->count - at > gradients->bucket ? at + gradients->bucket : params->count;
        APD_TRY(send(gradients, at, end, err));
    }
    gradients->left = params->set[APD_SET_SHARED].count; /* of the next step */
    return gradients->comm->ops->sum_wait(gradients->comm, err);
}
