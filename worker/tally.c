#include "worker/tally.h"

#include "base/rng.h"
#include "worker/tree.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Places in the vector of totals. What lanes have rows of is the device's, flags and receipts are
 * the host's. */
enum {
    TRAIN_LOSS = 0, /* [clean, adv][ce_sum images top1 top5] */
    NOISE_LOSS = TRAIN_LOSS + 2 * APD_LOSS_DOUBLES,
    FLAGS = NOISE_LOSS + APD_LOSS_DOUBLES, /* how many workers raised each flag */
    FLAG_COUNT = 3,
    RECEIPTS = FLAGS + FLAG_COUNT, /* [2][low high samples bad] */
    RECEIPT_FIELDS = 4,
    NONFINITE = RECEIPTS + 2 * RECEIPT_FIELDS,
    HEAD, /* then [noise_records][record], [branches][record] of BN sums */
};

struct apd_tally {
    struct apd_tally_setup is;
    size_t record; /* doubles of one BN record */
    uint32_t first_epoch;
    double head[HEAD]; /* host: flags and receipts before the sum, all totals after it */
    /* Device: */
    double *block;      /* that holds all below */
    double *train_loss; /* [lanes][branches][APD_LOSS_DOUBLES] */
    double *noise_loss; /* [noise_passes][lanes][APD_LOSS_DOUBLES] */
    double *train_bn;   /* [lanes][branches][record] */
    double *noise_bn;   /* [lanes][noise_records][record] */
    double *total;      /* [HEAD + (noise_records + branches) * record] */
    size_t totals;
};

static size_t train_row(const struct apd_tally *tally)
{
    return (size_t)tally->is.branches * tally->record;
}

static size_t noise_row(const struct apd_tally *tally)
{
    return (size_t)tally->is.noise_records * tally->record;
}

static struct apd_backend *backend_of(const struct apd_tally *tally)
{
    return tally->is.params->be;
}

enum apd_code apd_tally_create(const struct apd_tally_setup *setup, struct apd_tally **out,
                               struct apd_err *err)
{
    struct apd_tally *tally = calloc(1, sizeof *tally);
    size_t lanes = (size_t)setup->lanes, train_loss, noise_loss, all;
    enum apd_code rc;

    if (tally == NULL)
        return apd_fail(err, APD_NOMEM, "tally");
    tally->is = *setup;
    tally->record = apd_net_sums(setup->net);
    tally->totals = HEAD + train_row(tally) + noise_row(tally);
    train_loss = lanes * (size_t)setup->branches * APD_LOSS_DOUBLES;
    noise_loss = lanes * (size_t)setup->noise_passes * APD_LOSS_DOUBLES;
    all = train_loss + noise_loss + lanes * (train_row(tally) + noise_row(tally)) + tally->totals;
    APD_GO(setup->params->be->ops->alloc(setup->params->be, all * sizeof(double),
                                         (void **)&tally->block, err));
    tally->train_loss = tally->block;
    tally->noise_loss = tally->train_loss + train_loss;
    tally->train_bn = tally->noise_loss + noise_loss;
    tally->noise_bn = tally->train_bn + lanes * train_row(tally);
    tally->total = tally->noise_bn + lanes * noise_row(tally);
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
    if (dead->block != NULL)
        backend_of(dead)->ops->free(backend_of(dead), dead->block);
    free(dead);
    *tally = NULL;
}

void apd_tally_noise_pass(struct apd_tally *tally, int lane, int k, struct apd_pass *pass)
{
    pass->loss = tally->noise_loss + (size_t)(k * tally->is.lanes + lane) * APD_LOSS_DOUBLES;
    pass->sums_stride = noise_row(tally);
    if (k < tally->is.noise_records)
        pass->sums = tally->noise_bn + (size_t)lane * noise_row(tally) + (size_t)k * tally->record;
}

void apd_tally_train_pass(struct apd_tally *tally, int lane, struct apd_pass *pass)
{
    pass->loss = tally->train_loss + (size_t)(lane * tally->is.branches) * APD_LOSS_DOUBLES;
    pass->sums_stride = tally->record;
    pass->sums = tally->train_bn + (size_t)lane * train_row(tally);
}

void apd_tally_receipts(struct apd_tally *tally, const struct apd_step_data *data,
                        uint32_t first_epoch)
{
    uint32_t rows = data->lane_count * data->lane_batch;
    uint64_t sum[2] = {0, 0}, samples[2] = {0, 0}, bad[2] = {0, 0};
    double *at = tally->head + RECEIPTS;

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
        tally->head[FLAGS + i] = (flags >> i) & 1;
}

/* ---------------------------------------------------------------- the sum */

/* Rows of one kind, added over lanes. */
struct rows {
    struct apd_backend *be;
    double *at;
    size_t n; /* doubles of a row */
};

static enum apd_code add_row(void *ctx, int dst, int src, struct apd_err *err)
{
    const struct rows *rows = ctx;

    return rows->be->ops->add_doubles(rows->be, rows->n, rows->at + (size_t)src * rows->n,
                                      rows->at + (size_t)dst * rows->n, err);
}

/* total[at ...] = sum of the first `lanes` rows of n doubles. */
static enum apd_code total_of(struct apd_tally *tally, double *from, size_t n, int lanes, size_t at,
                              struct apd_err *err)
{
    struct apd_backend *be = backend_of(tally);
    struct rows rows = {be, from, n};

    if (n == 0)
        return APD_OK;
    if (lanes == 0)
        return be->ops->zero(be, tally->total + at, n * sizeof *from, err);
    APD_TRY(apd_tree_sum(lanes, add_row, &rows, err));
    return be->ops->copy(be, tally->total + at, from, n * sizeof *from, err);
}

static enum apd_code total_losses(struct apd_tally *tally, struct apd_err *err)
{
    struct apd_backend *be = backend_of(tally);
    int lanes = tally->is.lanes;
    size_t lane_losses = (size_t)lanes * APD_LOSS_DOUBLES;

    for (int k = 1; k < tally->is.noise_passes; k++)
        APD_TRY(be->ops->add_doubles(be, lane_losses, tally->noise_loss + (size_t)k * lane_losses,
                                     tally->noise_loss, err));
    if (tally->is.noise_passes > 0)
        APD_TRY(total_of(tally, tally->noise_loss, APD_LOSS_DOUBLES, lanes, NOISE_LOSS, err));
    return total_of(tally, tally->train_loss, (size_t)tally->is.branches * APD_LOSS_DOUBLES, lanes,
                    TRAIN_LOSS, err);
}

enum apd_code apd_tally_sum(struct apd_tally *tally, const void *gradient, size_t n,
                            struct apd_err *err)
{
    struct apd_backend *be = backend_of(tally);
    int bn_lanes = tally->is.bn_lanes;

    APD_TRY(total_losses(tally, err));
    APD_TRY(total_of(tally, tally->noise_bn, noise_row(tally), bn_lanes, HEAD, err));
    APD_TRY(
        total_of(tally, tally->train_bn, train_row(tally), bn_lanes, HEAD + noise_row(tally), err));
    APD_TRY(be->ops->nonfinite(be, n, gradient, tally->total + NONFINITE, err));
    APD_TRY(be->ops->upload(be, tally->total + FLAGS, tally->head + FLAGS,
                            (NONFINITE - FLAGS) * sizeof(double), err));
    APD_TRY(apd_comm_sum(tally->is.comm, tally->total, tally->totals, APD_SUM_F64, err));
    return be->ops->download(be, tally->head, tally->total, HEAD * sizeof(double), err);
}

int apd_tally_is_finite(const struct apd_tally *tally)
{
    return tally->head[NONFINITE] == 0;
}

void apd_tally_get_loss(const struct apd_tally *tally, enum apd_branch branch, struct apd_loss *out)
{
    static const int place[APD_BRANCHES] = {[APD_CLEAN] = TRAIN_LOSS,
                                            [APD_NOISE] = NOISE_LOSS,
                                            [APD_ADV] = TRAIN_LOSS + APD_LOSS_DOUBLES};

    *out = apd_loss_from(tally->head + place[branch]);
}

unsigned apd_tally_get_flags(const struct apd_tally *tally)
{
    unsigned flags = 0;

    for (int i = 0; i < FLAG_COUNT; i++)
        flags |= (unsigned)(tally->head[FLAGS + i] > 0) << i;
    return flags;
}

void apd_tally_get_receipts(const struct apd_tally *tally, struct apd_step_receipt out[2])
{
    const double *at = tally->head + RECEIPTS;

    for (unsigned e = 0; e < 2; e++, at += RECEIPT_FIELDS) {
        out[e].epoch = tally->first_epoch + e;
        out[e].sum = (uint64_t)at[0] + ((uint64_t)at[1] << 32);
        out[e].samples = (uint64_t)at[2];
        out[e].bad = (uint64_t)at[3];
    }
}

/* record: noise_records of them, then main, then adv. */
static enum apd_code update_from(struct apd_tally *tally, enum apd_bn_set set, int record,
                                 double images, double momentum, struct apd_err *err)
{
    struct apd_params *params = tally->is.params;
    struct apd_backend *be = params->be;
    const double *at = tally->total + HEAD + (size_t)record * tally->record;

    for (int i = 0; i < params->arch->layer_count; i++) {
        struct apd_shape shape = params->arch->layer[i].out;

        APD_TRY(be->ops->bn_update_running(
            be, shape.c, at, images * shape.h * shape.w, momentum,
            apd_at(params, params->stats, params->layer[i].running_mean[set]),
            apd_at(params, params->stats, params->layer[i].running_var[set]), err));
        at += 2 * be->ops->channel_elems(be, shape.c);
    }
    return APD_OK;
}

enum apd_code apd_tally_update_running(struct apd_tally *tally, double main_images,
                                       double aux_images, double momentum, struct apd_err *err)
{
    int k = tally->is.noise_records;

    if (main_images > 0)
        APD_TRY(update_from(tally, APD_BN_MAIN, k, main_images, momentum, err));
    for (int i = 0; aux_images > 0 && i < k; i++)
        APD_TRY(update_from(tally, APD_BN_AUX, i, aux_images, momentum, err));
    if (aux_images > 0)
        APD_TRY(update_from(tally, APD_BN_AUX, k + 1, aux_images, momentum, err));
    return APD_OK;
}
