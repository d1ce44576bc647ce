#include "worker/evaluate.h"

#include "base/log.h"
#include "base/rng.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What becomes of one image. Doubles only: the workers add their lists, in which every image is
 * zero on all but one of them. */
struct verdict {
    double loss, top1, top5; /* of the worst restart; 0 or 1: right in all of them */
    double label;            /* -1: the image cannot be used */
    double predicted;        /* class, in the last restart */
    double workers;          /* that evaluated it */
};

#define VERDICT_DOUBLES (sizeof(struct verdict) / sizeof(double))

/* Weight of an image in an attack: of its gradient only the sign counts, and the factor keeps small
 * ones from becoming 0 in 16 bits. */
enum { ATTACK_WEIGHT = 256 };

/* Buffers of one evaluation. */
struct bench {
    const struct apd_evaluation *ev;
    struct apd_backend *be;
    struct apd_sampler *sampler;
    size_t pixels;
    uint64_t images;    /* of the data set that take part */
    void *x, *at, *d_x; /* device, [batch] */
    int32_t *label;     /* device */
    void *weight;       /* device */
    void *d_bytes;      /* device, [batch] */
    double *d_loss;     /* device, [batch][APD_LOSS_DOUBLES] */
    uint8_t *bytes;     /* host, [batch] */
    double *h_loss;     /* host, like d_loss */
    int32_t *host_label;
    float *host_weight;
    uint64_t *sample;
    uint32_t *restart;
    struct apd_loss *loss;   /* host, [batch]: each image's */
    float *logits;           /* host, [batch][classes] */
    int32_t *predicted;      /* host, [batch] */
    struct verdict *verdict; /* host, [images] */
};

static void free_bench(struct bench *bench)
{
    void *const device[] = {bench->x,      bench->at,      bench->d_x,   bench->label,
                            bench->weight, bench->d_bytes, bench->d_loss};

    for (size_t i = 0; i < sizeof device / sizeof *device; i++)
        if (device[i] != NULL)
            bench->be->ops->free(bench->be, device[i]);
    apd_sampler_destroy(&bench->sampler);
    free(bench->bytes);
    free(bench->h_loss);
    free(bench->host_label);
    free(bench->host_weight);
    free(bench->sample);
    free(bench->restart);
    free(bench->loss);
    free(bench->logits);
    free(bench->predicted);
    free(bench->verdict);
}

/* What of it lies on the device. */
static enum apd_code make_device(struct bench *bench, const struct apd_params *params, int batch,
                                 struct apd_err *err)
{
    struct apd_backend *be = bench->be = params->be;
    const struct apd_shape shape = params->arch->image;
    size_t n = (size_t)batch, image;
    struct apd_demand demand = {.rows = batch,
                                .channels = params->arch->classes,
                                .segments = batch < APD_MAX_SEGMENTS ? batch : APD_MAX_SEGMENTS};

    bench->pixels = (size_t)shape.c * (size_t)shape.h * (size_t)shape.w;
    image = bench->pixels * be->elem_bytes;
    APD_TRY(apd_prepare(be, &demand, err));
    APD_TRY(be->ops->alloc(be, n * image, &bench->x, err));
    APD_TRY(be->ops->alloc(be, n * image, &bench->at, err));
    APD_TRY(be->ops->alloc(be, n * image, &bench->d_x, err));
    APD_TRY(be->ops->alloc(be, n * sizeof(int32_t), (void **)&bench->label, err));
    APD_TRY(be->ops->alloc(be, n * be->elem_bytes, &bench->weight, err));
    APD_TRY(be->ops->alloc(be, n * bench->pixels, &bench->d_bytes, err));
    return be->ops->alloc(be, n * APD_LOSS_DOUBLES * sizeof(double), (void **)&bench->d_loss, err);
}

static enum apd_code make_bench(const struct apd_evaluation *ev, struct bench *bench,
                                struct apd_err *err)
{
    size_t n = (size_t)ev->batch;

    memset(bench, 0, sizeof *bench);
    bench->ev = ev;
    bench->images =
        ev->images > 0 && ev->images < ev->dataset->samples ? ev->images : ev->dataset->samples;
    APD_TRY(make_device(bench, ev->params, ev->batch, err));
    APD_TRY(apd_sampler_create(ev->sampler, ev->dataset, &bench->sampler, err));
    bench->bytes = malloc(n * bench->pixels);
    bench->h_loss = malloc(n * APD_LOSS_DOUBLES * sizeof *bench->h_loss);
    bench->host_label = malloc(n * sizeof *bench->host_label);
    bench->host_weight = malloc(n * sizeof *bench->host_weight);
    bench->sample = malloc(n * sizeof *bench->sample);
    bench->restart = malloc(n * sizeof *bench->restart);
    bench->loss = malloc(n * sizeof *bench->loss);
    bench->logits = malloc(n * (size_t)ev->params->arch->classes * sizeof *bench->logits);
    bench->predicted = calloc(n, sizeof *bench->predicted);
    bench->verdict = calloc(bench->images, sizeof *bench->verdict);
    if (bench->bytes == NULL || bench->h_loss == NULL || bench->host_label == NULL ||
        bench->host_weight == NULL || bench->sample == NULL || bench->restart == NULL ||
        bench->loss == NULL || bench->logits == NULL || bench->predicted == NULL ||
        bench->verdict == NULL)
        return apd_fail(err, APD_NOMEM, "evaluation of %llu images in batches of %zu",
                        (unsigned long long)bench->images, n);
    return APD_OK;
}

/* Image i of the batch; one that cannot be used weighs nothing and is told. */
static enum apd_code load_image(struct bench *bench, uint64_t sample, int i, struct apd_err *err)
{
    uint8_t *pixels = bench->bytes + (size_t)i * bench->pixels;
    enum apd_code rc =
        apd_sampler_run(bench->sampler, 0, sample, pixels, &bench->host_label[i], err);

    if (rc == APD_OK && bench->ev->label_of != NULL)
        bench->host_label[i] = bench->ev->label_of[bench->host_label[i]];
    if (rc != APD_DATA)
        return rc;
    apd_log(APD_LOG_WARN, "image left out", "sample=%" PRIu64 " error=\"%s\"", sample, err->msg);
    bench->host_weight[i] = 0;
    bench->host_label[i] = 0;
    memset(pixels, 0, bench->pixels);
    return APD_OK;
}

/* Images [first, first + count) and padding up to the batch. */
static enum apd_code read_batch(struct bench *bench, uint64_t first, int count, struct apd_err *err)
{
    const struct apd_evaluation *ev = bench->ev;
    const struct apd_backend_ops *ops = bench->be->ops;
    size_t n = (size_t)ev->batch;

    for (int i = 0; i < ev->batch; i++) {
        uint8_t *pixels = bench->bytes + (size_t)i * bench->pixels;

        bench->sample[i] = first + (uint64_t)i;
        bench->host_weight[i] = i < count ? ATTACK_WEIGHT : 0;
        bench->host_label[i] = 0;
        if (i < count)
            APD_TRY(load_image(bench, first + (uint64_t)i, i, err));
        else
            memset(pixels, 0, bench->pixels);
    }
    APD_TRY(ops->upload(bench->be, bench->d_bytes, bench->bytes, n * bench->pixels, err));
    APD_TRY(ops->upload(bench->be, bench->label, bench->host_label, n * sizeof(int32_t), err));
    return ops->upload_floats(bench->be, bench->weight, bench->host_weight, n, err);
}

/* The batch as the network gets it, at the start of the attack if there is one. */
static enum apd_code start_batch(struct bench *bench, int restart, struct apd_err *err)
{
    const struct apd_evaluation *ev = bench->ev;
    struct apd_noise noise = {.sample = bench->sample,
                              .epoch = bench->restart,
                              .seed = ev->seed,
                              .purpose = APD_RNG_EVAL_ATTACK,
                              .range = ev->attack_eps * 2 / 255};

    for (int i = 0; i < ev->batch; i++)
        bench->restart[i] = (uint32_t)restart;
    return bench->be->ops->input_pack(bench->be, ev->batch, bench->pixels, bench->d_bytes,
                                      ev->attack_steps > 0 ? &noise : NULL, bench->x, bench->at,
                                      err);
}

/* Attacks the batch; leaves its logits in the network. */
static enum apd_code run_batch(struct bench *bench, struct apd_err *err)
{
    const struct apd_evaluation *ev = bench->ev;
    struct apd_segment seg = {0, ev->batch, ev->set};
    struct apd_targets targets = {.label = bench->label, .weight = bench->weight};
    struct apd_pass pass = {.n = ev->batch,
                            .seg = &seg,
                            .segments = 1,
                            .images = bench->at,
                            .targets = &targets,
                            .loss = bench->d_loss,
                            .d_images = bench->d_x};

    for (int k = 0; k < ev->attack_steps; k++) {
        APD_TRY(apd_net_forward(ev->net, &pass, err));
        APD_TRY(apd_net_backward(ev->net, &pass, err));
        APD_TRY(bench->be->ops->attack_step(bench->be, ev->batch, bench->pixels, bench->x,
                                            bench->at, bench->d_x, ev->attack_step * 2 / 255,
                                            ev->attack_eps * 2 / 255, NULL, bench->at, err));
    }
    return apd_net_forward(ev->net, &pass, err);
}

/* The loss of every image: a segment each. */
static enum apd_code judge_batch(struct bench *bench, struct apd_err *err)
{
    const struct apd_evaluation *ev = bench->ev;
    struct apd_segment each[APD_MAX_SEGMENTS];
    int classes = ev->params->arch->classes, n;
    size_t elem = bench->be->elem_bytes;

    for (int i = 0; i < APD_MAX_SEGMENTS; i++)
        each[i] = (struct apd_segment){i, 1, ev->set};
    for (int at = 0; at < ev->batch; at += n) {
        const char *logits = apd_net_logits(ev->net), *weight = bench->weight;
        struct apd_targets targets = {.label = bench->label + at,
                                      .weight = weight + (size_t)at * elem};

        n = ev->batch - at < APD_MAX_SEGMENTS ? ev->batch - at : APD_MAX_SEGMENTS;
        logits += (size_t)at * (size_t)classes * elem;
        APD_TRY(bench->be->ops->softmax_ce(bench->be, n, classes, logits, &targets, each, n,
                                           bench->d_loss + at * APD_LOSS_DOUBLES, NULL, err));
    }
    APD_TRY(bench->be->ops->download(bench->be, bench->h_loss, bench->d_loss,
                                     (size_t)ev->batch * APD_LOSS_DOUBLES * sizeof(double), err));
    for (int i = 0; i < ev->batch; i++)
        bench->loss[i] = apd_loss_from(bench->h_loss + i * APD_LOSS_DOUBLES);
    return APD_OK;
}

/* One image by its logits alone: what softmax_ce does, as if there were only the allowed classes.
 */
static struct apd_loss judge_allowed(const struct apd_evaluation *ev, const float *logits,
                                     int32_t label)
{
    int classes = ev->params->arch->classes, before = 0;
    double most = -INFINITY, sum = 0;

    for (int c = 0; c < classes; c++)
        if (ev->allowed[c] && logits[c] > most)
            most = logits[c];
    for (int c = 0; c < classes; c++) {
        if (!ev->allowed[c])
            continue;
        sum += exp(logits[c] - most);
        before += !(logits[c] < logits[label] || (logits[c] == logits[label] && c >= label));
    }
    return (struct apd_loss){.ce_sum = log(sum) - (logits[label] - most),
                             .images = 1,
                             .top1 = before == 0,
                             .top5 = before < 5};
}

static int32_t predict(const struct apd_evaluation *ev, const float *logits)
{
    int32_t best = -1;

    for (int32_t c = 0; c < ev->params->arch->classes; c++)
        if ((ev->allowed == NULL || ev->allowed[c]) && (best < 0 || logits[c] > logits[best]))
            best = c;
    return best;
}

/* Where softmax_ce cannot tell: which class it is, or of which alone. */
static enum apd_code look_at_logits(struct bench *bench, struct apd_err *err)
{
    const struct apd_evaluation *ev = bench->ev;
    size_t classes = (size_t)ev->params->arch->classes;

    if (ev->allowed == NULL && ev->predictions == NULL)
        return APD_OK;
    APD_TRY(bench->be->ops->download_floats(bench->be, bench->logits, apd_net_logits(ev->net),
                                            (size_t)ev->batch * classes, err));
    for (int i = 0; i < ev->batch; i++) {
        const float *logits = bench->logits + (size_t)i * classes;

        bench->predicted[i] = predict(ev, logits);
        if (ev->allowed != NULL)
            bench->loss[i] = judge_allowed(ev, logits, bench->host_label[i]);
    }
    return APD_OK;
}

static void note_restart(struct verdict *verdict, const struct apd_loss *loss)
{
    if (loss->ce_sum > verdict->loss || isnan(loss->ce_sum))
        verdict->loss = loss->ce_sum;
    verdict->top1 = verdict->top1 > 0 && loss->top1 > 0;
    verdict->top5 = verdict->top5 > 0 && loss->top5 > 0;
}

static enum apd_code evaluate_batch(struct bench *bench, uint64_t first, int count,
                                    struct apd_err *err)
{
    const struct apd_evaluation *ev = bench->ev;
    size_t classes = (size_t)ev->params->arch->classes;
    int restarts = ev->restarts > 1 ? ev->restarts : 1;

    APD_TRY(read_batch(bench, first, count, err));
    for (int i = 0; i < count; i++)
        bench->verdict[first + (uint64_t)i] =
            (struct verdict){.top1 = 1,
                             .top5 = 1,
                             .label = bench->host_weight[i] > 0 ? bench->host_label[i] : -1,
                             .workers = 1};
    for (int r = 0; r < restarts; r++) {
        APD_TRY(start_batch(bench, r, err));
        APD_TRY(run_batch(bench, err));
        APD_TRY(judge_batch(bench, err));
        APD_TRY(look_at_logits(bench, err));
        for (int i = 0; i < count; i++) {
            note_restart(&bench->verdict[first + (uint64_t)i], &bench->loss[i]);
            bench->verdict[first + (uint64_t)i].predicted = bench->predicted[i];
        }
    }
    if (ev->logits == NULL)
        return APD_OK;
    return bench->be->ops->download_floats(bench->be, ev->logits + first * classes,
                                           apd_net_logits(ev->net), (size_t)count * classes, err);
}

static enum apd_code share_of_worker(struct bench *bench, struct apd_err *err)
{
    const struct apd_evaluation *ev = bench->ev;
    uint64_t rank = (uint64_t)ev->comm->rank, size = (uint64_t)ev->comm->size;
    uint64_t end = (rank + 1) * bench->images / size, batch = (uint64_t)ev->batch;

    for (uint64_t at = rank * bench->images / size; at < end; at += batch)
        APD_TRY(evaluate_batch(bench, at, (int)(end - at < batch ? end - at : batch), err));
    return APD_OK;
}

/* Every worker learns what became of all images. */
static enum apd_code exchange(struct bench *bench, struct apd_err *err)
{
    const struct apd_evaluation *ev = bench->ev;

    APD_TRY(
        apd_comm_sum(ev->comm, bench->verdict, bench->images * VERDICT_DOUBLES, APD_SUM_F64, err));
    if (ev->logits == NULL)
        return APD_OK;
    return apd_comm_sum(ev->comm, ev->logits, bench->images * (size_t)ev->params->arch->classes,
                        APD_SUM_F32, err);
}

static void add_verdict(struct apd_loss *to, const struct verdict *verdict)
{
    to->ce_sum += verdict->loss;
    to->images++;
    to->top1 += verdict->top1 > 0;
    to->top5 += verdict->top5 > 0;
}

static enum apd_code add_up(const struct bench *bench, struct apd_loss *out, struct apd_err *err)
{
    struct apd_loss *by_class = bench->ev->by_class;

    *out = (struct apd_loss){0};
    if (by_class != NULL)
        memset(by_class, 0, (size_t)bench->ev->params->arch->classes * sizeof *by_class);
    for (uint64_t i = 0; i < bench->images; i++) {
        const struct verdict *verdict = &bench->verdict[i];

        if (verdict->workers != 1)
            return apd_fail(err, APD_BUG, "image %llu was evaluated by %g workers",
                            (unsigned long long)i, verdict->workers);
        if (bench->ev->predictions != NULL)
            bench->ev->predictions[i] =
                (struct apd_prediction){(int32_t)verdict->label, (int32_t)verdict->predicted,
                                        verdict->top1 > 0, verdict->top5 > 0, verdict->loss};
        if (verdict->label < 0)
            continue;
        add_verdict(out, verdict);
        if (by_class != NULL)
            add_verdict(&by_class[(size_t)verdict->label], verdict);
    }
    return APD_OK;
}

enum apd_code apd_evaluate_make(const struct apd_params *params, int batch, struct apd_err *err)
{
    struct bench bench = {0};
    enum apd_code rc = make_device(&bench, params, batch, err);

    free_bench(&bench);
    return rc;
}

enum apd_code apd_evaluate(const struct apd_evaluation *evaluation, struct apd_loss *out,
                           struct apd_err *err)
{
    struct apd_err local_err = {0}, *local = &local_err;
    double failed; /* workers */
    struct bench bench;
    enum apd_code mine, rc;

    mine = make_bench(evaluation, &bench, local);
    if (mine == APD_OK && evaluation->logits != NULL)
        memset(evaluation->logits, 0,
               bench.images * (size_t)evaluation->params->arch->classes * sizeof(float));
    if (mine == APD_OK)
        mine = share_of_worker(&bench, local);
    failed = mine != APD_OK;
    APD_GO(apd_comm_sum(evaluation->comm, &failed, 1, APD_SUM_F64, err));
    if (mine != APD_OK) {
        rc = mine;
        *err = local_err;
        goto done;
    }
    if (failed > 0) {
        rc = apd_fail(err, APD_PEER, "evaluation: another worker failed");
        goto done;
    }
    APD_GO(exchange(&bench, err));
    APD_GO(add_up(&bench, out, err));
done:
    free_bench(&bench);
    return rc;
}
