#include "worker/evaluate.h"

#include "base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Buffers of one evaluation. */
struct bench {
    const struct apd_evaluation *ev;
    struct apd_backend *be;
    size_t pixels;
    uint64_t images;    /* of the data set that take part */
    void *x, *at, *d_x; /* device, [batch] */
    int32_t *label;     /* device */
    void *weight;       /* device */
    uint8_t *bytes;     /* host, [batch] */
    int32_t *host_label;
    float *host_weight;
    uint64_t *sample;
    uint32_t *epoch;
};

static void free_bench(struct bench *bench)
{
    void *const device[] = {bench->x, bench->at, bench->d_x, bench->label, bench->weight};

    for (size_t i = 0; i < sizeof device / sizeof *device; i++)
        if (device[i] != NULL)
            bench->be->ops->free(bench->be, device[i]);
    free(bench->bytes);
    free(bench->host_label);
    free(bench->host_weight);
    free(bench->sample);
    free(bench->epoch);
}

static enum apd_code make_bench(const struct apd_evaluation *ev, struct bench *bench,
                                struct apd_err *err)
{
    struct apd_backend *be = ev->params->be;
    size_t n = (size_t)ev->batch, image;

    memset(bench, 0, sizeof *bench);
    bench->ev = ev;
    bench->be = be;
    bench->pixels = apd_dataset_image_bytes(ev->dataset);
    bench->images =
        ev->images > 0 && ev->images < ev->dataset->samples ? ev->images : ev->dataset->samples;
    image = bench->pixels * be->elem_bytes;
    APD_TRY(be->ops->alloc(be, n * image, &bench->x, err));
    APD_TRY(be->ops->alloc(be, n * image, &bench->at, err));
    APD_TRY(be->ops->alloc(be, n * image, &bench->d_x, err));
    APD_TRY(be->ops->alloc(be, n * sizeof(int32_t), (void **)&bench->label, err));
    APD_TRY(be->ops->alloc(be, n * be->elem_bytes, &bench->weight, err));
    bench->bytes = malloc(n * bench->pixels);
    bench->host_label = malloc(n * sizeof *bench->host_label);
    bench->host_weight = malloc(n * sizeof *bench->host_weight);
    bench->sample = malloc(n * sizeof *bench->sample);
    bench->epoch = calloc(n, sizeof *bench->epoch);
    if (bench->bytes == NULL || bench->host_label == NULL || bench->host_weight == NULL ||
        bench->sample == NULL || bench->epoch == NULL)
        return apd_fail(err, APD_NOMEM, "evaluation batch of %zu images", n);
    return APD_OK;
}

/* Images [first, first + count) and padding up to the batch. */
static enum apd_code load_batch(struct bench *bench, uint64_t first, int count, struct apd_err *err)
{
    const struct apd_evaluation *ev = bench->ev;
    const struct apd_backend_ops *ops = bench->be->ops;
    size_t n = (size_t)ev->batch;
    struct apd_noise noise = {.sample = bench->sample,
                              .epoch = bench->epoch,
                              .seed = ev->seed,
                              .purpose = APD_RNG_EVAL_ATTACK,
                              .range = ev->attack_eps * 2 / 255};

    for (int i = 0; i < ev->batch; i++) {
        uint8_t *pixels = bench->bytes + (size_t)i * bench->pixels;

        bench->sample[i] = first + (uint64_t)i;
        bench->host_weight[i] = i < count ? 1 : 0;
        bench->host_label[i] = 0;
        if (i < count)
            APD_TRY(apd_dataset_read(ev->dataset, first + (uint64_t)i, pixels,
                                     &bench->host_label[i], err));
        else
            memset(pixels, 0, bench->pixels);
    }
    APD_TRY(ops->upload(bench->be, bench->label, bench->host_label, n * sizeof(int32_t), err));
    APD_TRY(ops->upload_floats(bench->be, bench->weight, bench->host_weight, n, err));
    return ops->input_pack(bench->be, ev->batch, bench->pixels, bench->bytes,
                           ev->attack_steps > 0 ? &noise : NULL, bench->x, bench->at, err);
}

static enum apd_code run_batch(struct bench *bench, struct apd_loss *out, struct apd_err *err)
{
    const struct apd_evaluation *ev = bench->ev;
    struct apd_segment seg = {0, ev->batch, ev->set};
    struct apd_targets targets = {.label = bench->label, .weight = bench->weight};
    struct apd_pass pass = {.n = ev->batch,
                            .seg = &seg,
                            .segments = 1,
                            .images = bench->at,
                            .targets = &targets,
                            .d_images = bench->d_x};

    for (int k = 0; k < ev->attack_steps; k++) {
        APD_TRY(apd_net_forward(ev->net, &pass, err));
        APD_TRY(apd_net_backward(ev->net, &pass, out, err));
        APD_TRY(bench->be->ops->attack_step(bench->be, (size_t)ev->batch * bench->pixels, bench->x,
                                            bench->at, bench->d_x, ev->attack_step * 2 / 255,
                                            ev->attack_eps * 2 / 255, bench->at, err));
    }
    pass.d_images = NULL;
    APD_TRY(apd_net_forward(ev->net, &pass, err));
    return apd_net_backward(ev->net, &pass, out, err);
}

static enum apd_code add_batch(struct bench *bench, uint64_t first, int count, double totals[4],
                               struct apd_err *err)
{
    const struct apd_evaluation *ev = bench->ev;
    size_t classes = (size_t)ev->params->arch->classes;
    struct apd_loss loss;

    APD_TRY(load_batch(bench, first, count, err));
    APD_TRY(run_batch(bench, &loss, err));
    if (ev->logits != NULL)
        APD_TRY(bench->be->ops->download_floats(bench->be, ev->logits + first * classes,
                                                apd_net_logits(ev->net), (size_t)count * classes,
                                                err));
    totals[0] += loss.ce_sum;
    totals[1] += (double)loss.images;
    totals[2] += (double)loss.top1;
    totals[3] += (double)loss.top5;
    return APD_OK;
}

static enum apd_code share_of_worker(struct bench *bench, double totals[4], struct apd_err *err)
{
    const struct apd_evaluation *ev = bench->ev;
    uint64_t rank = (uint64_t)ev->comm->rank, size = (uint64_t)ev->comm->size;
    uint64_t end = (rank + 1) * bench->images / size, batch = (uint64_t)ev->batch;

    for (uint64_t at = rank * bench->images / size; at < end; at += batch)
        APD_TRY(add_batch(bench, at, (int)(end - at < batch ? end - at : batch), totals, err));
    return APD_OK;
}

enum apd_code apd_evaluate(const struct apd_evaluation *evaluation, struct apd_loss *out,
                           struct apd_err *err)
{
    double totals[5] = {0}; /* ce_sum images top1 top5, workers that failed */
    struct apd_err local_err = {0}, *local = &local_err;
    struct bench bench;
    enum apd_code mine, rc;

    mine = make_bench(evaluation, &bench, local);
    if (mine == APD_OK && evaluation->logits != NULL)
        memset(evaluation->logits, 0,
               bench.images * (size_t)evaluation->params->arch->classes * sizeof(float));
    if (mine == APD_OK)
        mine = share_of_worker(&bench, totals, local);
    totals[4] = mine != APD_OK;
    APD_GO(apd_comm_sum(evaluation->comm, totals, 5, APD_SUM_F64, err));
    if (mine != APD_OK) {
        rc = mine;
        *err = local_err;
        goto done;
    }
    if (totals[4] > 0) {
        rc = apd_fail(err, APD_PEER, "evaluation: another worker failed");
        goto done;
    }
    /* Each image's row is zero on all workers but one. */
    if (evaluation->logits != NULL)
        APD_GO(apd_comm_sum(evaluation->comm, evaluation->logits,
                            bench.images * (size_t)evaluation->params->arch->classes, APD_SUM_F32,
                            err));
    out->ce_sum = totals[0];
    out->images = llround(totals[1]);
    out->top1 = llround(totals[2]);
    out->top5 = llround(totals[3]);
done:
    free_bench(&bench);
    return rc;
}
