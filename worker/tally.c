#include "worker/tally.h"

#include "base/rng.h"
#include "worker/tree.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Places in a lane's row of the vector. */
enum {
    LOSS = 0, /* [branch][ce_sum images top1 top5] */
    LOSS_FIELDS = 4,
    FLAGS = LOSS + APD_BRANCHES * LOSS_FIELDS, /* how many workers raised each flag */
    FLAG_COUNT = 3,
    RECEIPTS = FLAGS + FLAG_COUNT, /* [2][low high samples bad] */
    RECEIPT_FIELDS = 4,
    FIRST_BN = RECEIPTS + 2 * RECEIPT_FIELDS, /* [record][2][channels of all layers] */
};

struct apd_tally {
    struct apd_net *net;       /* not owned */
    struct apd_params *params; /* not owned */
    struct apd_comm *comm;     /* not owned */
    int lanes, noise_passes;
    size_t record;  /* doubles of one BN record */
    size_t stride;  /* doubles of one lane's row */
    double *rows;   /* [lanes][stride]; after the sum row 0 is the total */
    double *device; /* one layer of one record */
    uint32_t first_epoch;
};

static struct apd_shape layer_shape(const struct apd_tally *tally, int i)
{
    return tally->params->arch->layer[i].out;
}

static size_t layer_channels(const struct apd_tally *tally, int i)
{
    struct apd_backend *be = tally->params->be;

    return be->ops->channel_elems(be, layer_shape(tally, i).c);
}

enum apd_code apd_tally_create(struct apd_net *net, struct apd_params *params,
                               struct apd_comm *comm, int lanes, int noise_passes,
                               struct apd_tally **out, struct apd_err *err)
{
    struct apd_tally *tally = calloc(1, sizeof *tally);
    size_t widest = 0;
    enum apd_code rc = APD_OK;

    if (tally == NULL)
        return apd_fail(err, APD_NOMEM, "tally");
    tally->net = net;
    tally->params = params;
    tally->comm = comm;
    tally->lanes = lanes;
    tally->noise_passes = noise_passes;
    tally->record = 2 * apd_net_channels(net);
    tally->stride = FIRST_BN + (size_t)(noise_passes + 2) * tally->record;
    for (int i = 0; i < params->arch->layer_count; i++) {
        size_t c = layer_channels(tally, i);

        widest = c > widest ? c : widest;
    }
    tally->rows = malloc((size_t)lanes * tally->stride * sizeof *tally->rows);
    if (tally->rows == NULL) {
        rc = apd_fail(err, APD_NOMEM, "tally of %d lanes of %zu numbers", lanes, tally->stride);
        goto done;
    }
    APD_GO(params->be->ops->alloc(params->be, 2 * widest * sizeof(double), (void **)&tally->device,
                                  err));
    *out = tally;
    tally = NULL;
done:
    apd_tally_destroy(&tally);
    return rc;
}

void apd_tally_destroy(struct apd_tally **tally)
{
    struct apd_tally *dead = *tally;

    if (dead == NULL)
        return;
    if (dead->device != NULL)
        dead->params->be->ops->free(dead->params->be, dead->device);
    free(dead->rows);
    free(dead);
    *tally = NULL;
}

void apd_tally_reset(struct apd_tally *tally)
{
    memset(tally->rows, 0, (size_t)tally->lanes * tally->stride * sizeof *tally->rows);
}

static double *row_of(const struct apd_tally *tally, int lane)
{
    return tally->rows + (size_t)lane * tally->stride;
}

void apd_tally_loss(struct apd_tally *tally, int lane, enum apd_branch branch,
                    const struct apd_loss *loss)
{
    double *at = row_of(tally, lane) + LOSS + branch * LOSS_FIELDS;

    at[0] += loss->ce_sum;
    at[1] += (double)loss->images;
    at[2] += (double)loss->top1;
    at[3] += (double)loss->top5;
}

enum apd_code apd_tally_bn(struct apd_tally *tally, int lane, int record, const double *sums,
                           int segment, int segments, struct apd_err *err)
{
    struct apd_backend *be = tally->params->be;
    double *to = row_of(tally, lane) + FIRST_BN + (size_t)record * tally->record;
    size_t before = 0; /* channels of the layers before */

    for (int i = 0; i < tally->params->arch->layer_count; i++) {
        size_t c = layer_channels(tally, i);
        const double *from = sums + before * 2 * (size_t)segments + (size_t)segment * 2 * c;

        APD_TRY(be->ops->download(be, to + before * 2, from, 2 * c * sizeof(double), err));
        before += c;
    }
    return APD_OK;
}

void apd_tally_receipts(struct apd_tally *tally, const struct apd_step_data *data,
                        uint32_t first_epoch)
{
    uint32_t rows = data->lane_count * data->lane_batch;
    uint64_t sum[2] = {0, 0}, samples[2] = {0, 0}, bad[2] = {0, 0};
    double *at = row_of(tally, 0) + RECEIPTS;

    tally->first_epoch = first_epoch;
    for (uint32_t r = 0; r < rows; r++) {
        int next = data->epoch[r] != first_epoch;

        sum[next] += apd_receipt(data->epoch[r], data->sample[r]);
        samples[next]++;
        bad[next] += data->labels[r] < 0;
    }
    for (int e = 0; e < 2; e++, at += RECEIPT_FIELDS) {
        at[0] = (double)(uint32_t)sum[e];
        at[1] = (double)(uint32_t)(sum[e] >> 32);
        at[2] = (double)samples[e];
        at[3] = (double)bad[e];
    }
}

void apd_tally_flags(struct apd_tally *tally, unsigned flags)
{
    for (int i = 0; i < FLAG_COUNT; i++)
        row_of(tally, 0)[FLAGS + i] = (flags >> i) & 1;
}

enum apd_code apd_tally_sum(struct apd_tally *tally, struct apd_err *err)
{
    apd_tree_sum_doubles(tally->rows, tally->lanes, tally->stride, tally->stride);
    return apd_comm_sum(tally->comm, tally->rows, tally->stride, APD_SUM_F64, err);
}

void apd_tally_get_loss(const struct apd_tally *tally, enum apd_branch branch, struct apd_loss *out)
{
    const double *at = tally->rows + LOSS + branch * LOSS_FIELDS;

    out->ce_sum = at[0];
    out->images = llround(at[1]);
    out->top1 = llround(at[2]);
    out->top5 = llround(at[3]);
}

unsigned apd_tally_get_flags(const struct apd_tally *tally)
{
    unsigned flags = 0;

    for (int i = 0; i < FLAG_COUNT; i++)
        flags |= (unsigned)(tally->rows[FLAGS + i] > 0) << i;
    return flags;
}

void apd_tally_get_receipts(const struct apd_tally *tally, struct apd_step_receipt out[2])
{
    const double *at = tally->rows + RECEIPTS;

    for (unsigned e = 0; e < 2; e++, at += RECEIPT_FIELDS) {
        out[e].epoch = tally->first_epoch + e;
        out[e].sum = (uint64_t)at[0] + ((uint64_t)at[1] << 32);
        out[e].samples = (uint64_t)at[2];
        out[e].bad = (uint64_t)at[3];
    }
}

static enum apd_code update_from(struct apd_tally *tally, enum apd_bn_set set, int record,
                                 double images, double momentum, struct apd_err *err)
{
    struct apd_params *params = tally->params;
    const double *at = tally->rows + FIRST_BN + (size_t)record * tally->record;

    for (int i = 0; i < params->arch->layer_count; i++) {
        struct apd_shape shape = layer_shape(tally, i);
        size_t c = layer_channels(tally, i);

        APD_TRY(params->be->ops->upload(params->be, tally->device, at, 2 * c * sizeof *at, err));
        APD_TRY(params->be->ops->bn_update_running(
            params->be, shape.c, tally->device, images * shape.h * shape.w, momentum,
            apd_at(params, params->stats, params->layer[i].running_mean[set]),
            apd_at(params, params->stats, params->layer[i].running_var[set]), err));
        at += 2 * c;
    }
    return APD_OK;
}

enum apd_code apd_tally_update_running(struct apd_tally *tally, double main_images,
                                       double aux_images, double momentum, struct apd_err *err)
{
    int k = tally->noise_passes;

    if (main_images > 0)
        APD_TRY(update_from(tally, APD_BN_MAIN, k, main_images, momentum, err));
    for (int i = 0; aux_images > 0 && i < k; i++)
        APD_TRY(update_from(tally, APD_BN_AUX, i, aux_images, momentum, err));
    if (aux_images > 0)
        APD_TRY(update_from(tally, APD_BN_AUX, k + 1, aux_images, momentum, err));
    return APD_OK;
}
