/* Planning a step: every buffer is made here, once, and the network and the backend are made ready
 * for the three batch sizes that occur. No collective takes place. */
#include "worker/step_private.h"

#include "worker/tree.h"

#include <stdlib.h>
#include <string.h>

static void free_device(struct apd_backend *be, void *device)
{
    if (device != NULL)
        be->ops->free(be, device);
}

void apd_step_destroy(struct apd_step **step)
{
    struct apd_step *dead = *step;

    if (dead == NULL)
        return;
    free_device(dead->be, dead->x_aux);
    free_device(dead->be, dead->x_attack);
    free_device(dead->be, dead->d_attack);
    free_device(dead->be, dead->batch);
    free_device(dead->be, dead->label);
    free_device(dead->be, dead->label2);
    free_device(dead->be, dead->keep);
    free_device(dead->be, dead->weight);
    free_device(dead->be, dead->mixed);
    free_device(dead->be, dead->d_mixed);
    free(dead->noise_segments);
    free(dead->aux_label);
    free(dead->host.label);
    free(dead->host.keep);
    free(dead->partner);
    for (int i = 0; dead->executions != NULL && i < dead->slices * (dead->noise_passes + 1); i++)
        if (dead->executions[i].recording != NULL)
            dead->be->ops->recording_destroy(dead->be, &dead->executions[i].recording);
    free(dead->executions);
    apd_shuffle_destroy(&dead->shuffle);
    apd_tally_destroy(&dead->tally);
    apd_gradients_destroy(&dead->gradients);
    apd_net_destroy(&dead->net);
    free(dead);
    *step = NULL;
}

/* bn.sync full: the sums of main segments, a row each. */
struct main_rows {
    struct apd_backend *be;
    double *sums;
    size_t n; /* doubles of a row */
};

static enum apd_code add_main(void *ctx, int dst, int src, struct apd_err *err)
{
    const struct main_rows *of = ctx;

    return of->be->ops->add_doubles(of->be, of->n, of->sums + (size_t)src * of->n,
                                    of->sums + (size_t)dst * of->n, err);
}

static enum apd_code start_pool(void *ctx, double *sums, int rows, size_t n, struct apd_err *err)
{
    struct apd_step *step = ctx;
    struct main_rows of = {step->be, sums, n};

    APD_TRY(apd_tree_sum(rows, add_main, &of, err));
    return step->comm->ops->sum_start(step->comm, sums, n, APD_SUM_F64, err);
}

static enum apd_code finish_pool(void *ctx, struct apd_err *err)
{
    struct apd_step *step = ctx;

    return step->comm->ops->sum_wait(step->comm, err);
}

static enum apd_code make_segments(struct apd_step *step, struct apd_err *err)
{
    int lanes = step->slice_lanes, per_lane = step->clean + step->aux, sets = step->aux > 0 ? 2 : 1;
    struct apd_segment *seg;

    if (lanes * sets > APD_MAX_SEGMENTS)
        return apd_fail(
            err, APD_CONFIG,
            "bn.sync full runs %d lanes of a worker as one batch, at most %d are possible: "
            "use more workers or fewer lanes",
            lanes, APD_MAX_SEGMENTS / sets);
    step->noise_segments = calloc(3 * (size_t)lanes, sizeof *seg);
    if (step->noise_segments == NULL)
        return apd_fail(err, APD_NOMEM, "segments of %d lanes", lanes);
    seg = step->train_segments = step->noise_segments + lanes;
    for (int i = 0; i < lanes; i++) {
        step->noise_segments[i] = (struct apd_segment){i * step->aux, step->aux, APD_BN_AUX};
        *seg++ = (struct apd_segment){i * per_lane, step->clean, APD_BN_MAIN};
        if (step->aux > 0)
            *seg++ = (struct apd_segment){i * per_lane + step->clean, step->aux, APD_BN_AUX};
    }
    return APD_OK;
}

static enum apd_code device_bytes(struct apd_step *step, size_t n, void *out, struct apd_err *err)
{
    return step->be->ops->alloc(step->be, n > 0 ? n : 1, out, err);
}

static enum apd_code make_buffers(struct apd_step *step, struct apd_err *err)
{
    size_t elem = step->be->elem_bytes, image = step->pixels * elem;
    size_t aux = (size_t)step->aux, lanes = (size_t)step->lane_count;
    size_t slice = (size_t)step->slice_lanes, per_lane = (size_t)(step->clean + step->aux);

    APD_TRY(device_bytes(step, lanes * aux * image, &step->x_aux, err));
    APD_TRY(device_bytes(step, lanes * aux * image, &step->x_attack, err));
    APD_TRY(device_bytes(step, slice * aux * image, &step->d_attack, err));
    APD_TRY(device_bytes(step, slice * per_lane * image, &step->batch, err));
    step->aux_label = malloc((3 * lanes * aux + 1) * sizeof(int32_t));
    if (step->aux_label == NULL)
        return apd_fail(err, APD_NOMEM, "labels of %zu lanes", lanes);
    step->shuffled_label = step->aux_label + lanes * aux;
    step->attack_label = step->shuffled_label + lanes * aux;
    return APD_OK;
}

static enum apd_code make_targets(struct apd_step *step, struct apd_err *err)
{
    size_t n = (size_t)(step->slice_lanes * (step->clean + step->aux));

    step->host.label = malloc(2 * n * sizeof *step->host.label);
    step->host.keep = malloc(2 * n * sizeof *step->host.keep);
    if (step->host.label == NULL || step->host.keep == NULL)
        return apd_fail(err, APD_NOMEM, "labels of %zu images", n);
    step->host.label2 = step->host.label + n;
    step->host.weight = step->host.keep + n;
    APD_TRY(device_bytes(step, n * sizeof *step->label, &step->label, err));
    APD_TRY(device_bytes(step, n * sizeof *step->label2, &step->label2, err));
    APD_TRY(device_bytes(step, n * step->be->elem_bytes, &step->keep, err));
    return device_bytes(step, n * step->be->elem_bytes, &step->weight, err);
}

static enum apd_code make_mixing(struct apd_step *step, struct apd_err *err)
{
    size_t clean = (size_t)step->clean, aux = (size_t)step->aux;
    size_t noise = (size_t)step->slice_lanes * aux, lane = clean > aux ? clean : aux;
    size_t image = step->pixels * step->be->elem_bytes;

    if (step->config.mix.kind == APD_MIX_NONE)
        return APD_OK;
    step->partner = malloc(2 * lane * sizeof *step->partner);
    if (step->partner == NULL)
        return apd_fail(err, APD_NOMEM, "partners of %zu images", lane);
    step->inverse = step->partner + lane;
    APD_TRY(device_bytes(step, noise * image, &step->d_mixed, err));
    return device_bytes(step, (noise > clean ? noise : clean) * image, &step->mixed, err);
}

static enum apd_code make_tally(struct apd_step *step, struct apd_err *err)
{
    struct apd_tally_setup setup = {.net = step->net,
                                    .params = step->params,
                                    .comm = step->comm,
                                    .lanes = step->lane_count,
                                    .branches = step->aux > 0 ? 2 : 1,
                                    .noise_passes = step->noise_passes,
                                    .bn_lanes = step->lane_count};

    if (step->config.attack.bn_mode == APD_BN_MODE_TRAIN)
        setup.noise_records = step->noise_passes;
    /* Lane 0 alone moves the running statistics, as rank 0 does in the authors' code. */
    if (step->config.bn.sync == APD_BN_SYNC_NONE)
        setup.bn_lanes = step->lane_first == 0 ? 1 : 0;
    return apd_tally_create(&setup, &step->tally, err);
}

static enum apd_code make_shuffle(struct apd_step *step, struct apd_err *err)
{
    int workers = step->comm->size;
    int *first;
    enum apd_code rc;

    if (step->noise_passes == 0)
        return APD_OK;
    first = malloc(((size_t)workers + 1) * sizeof *first);
    if (first == NULL)
        return apd_fail(err, APD_NOMEM, "shuffle of %d workers", workers);
    for (int w = 0; w < workers; w++) {
        uint32_t lane, count;

        apd_plan_lanes_of((uint32_t)step->lanes, (uint32_t)workers, (uint32_t)w, &lane, &count);
        first[w] = (int)lane * step->aux;
    }
    first[workers] = step->lanes * step->aux;
    rc = apd_shuffle_create(step->be, step->comm, step->host_comm, first, step->pixels,
                            &step->shuffle, err);
    free(first);
    return rc;
}

static enum apd_code make_network(struct apd_step *step, int eval_images, struct apd_err *err)
{
    int noise = step->aux * step->slice_lanes;
    int train = (step->clean + step->aux) * step->slice_lanes;
    int most = train > eval_images ? train : eval_images;

    APD_TRY(apd_net_create(step->params, most, 2 * step->slice_lanes,
                           (int)step->config.train.recompute, &step->net, err));
    apd_net_set_bn_eps(step->net, step->config.bn.eps);
    APD_TRY(apd_net_prepare(step->net, train, 1, 0, err));
    if (step->noise_passes > 0)
        APD_TRY(
            apd_net_prepare(step->net, noise, (int)step->config.attack.reuse_gradients, 1, err));
    if (eval_images == 0)
        return APD_OK;
    return apd_net_prepare(step->net, eval_images, 0, step->config.eval.attack_steps > 0, err);
}

/* The worker's images of a step: those that come in, and those that are shuffled. */
static enum apd_code prepare_images(struct apd_step *step, struct apd_err *err)
{
    size_t images = (size_t)step->config.train.batch / (size_t)step->lanes;
    int aux = step->lane_count * step->aux;
    struct apd_demand demand = {.rows = aux > step->clean ? aux : step->clean,
                                .weights = step->params->count,
                                .stage_bytes = (size_t)step->lane_count * images * step->pixels};

    return apd_prepare(step->be, &demand, err);
}

enum apd_code apd_step_create(const struct apd_step_setup *setup, struct apd_step **out,
                              struct apd_err *err)
{
    struct apd_step *step = calloc(1, sizeof *step);
    const struct apd_shape image = setup->params->arch->image;
    uint32_t clean, aux;
    enum apd_code rc;

    if (step == NULL)
        return apd_fail(err, APD_NOMEM, "step");
    step->config = *setup->config;
    step->params = setup->params;
    step->be = setup->params->be;
    step->comm = setup->comm;
    step->host_comm = setup->host_comm;
    step->on_phase = setup->on_phase;
    step->next = setup->next;
    step->ctx = setup->ctx;
    step->samples = setup->samples;
    step->loss_scale = setup->loss_scale != NULL ? setup->loss_scale : &step->no_scale;
    step->lanes = setup->lanes;
    step->lane_first = setup->lane_first;
    step->lane_count = setup->lane_count;
    step->pixels = (size_t)image.c * (size_t)image.h * (size_t)image.w;
    apd_config_lane_split(setup->config, &clean, &aux);
    step->clean = (int)clean;
    step->aux = (int)aux;
    step->aux_row = setup->config->train.mode == APD_MODE_ADVPROP ? 0 : step->clean;
    step->noise_passes = aux > 0 ? (int)setup->config->attack.steps : 0;
    step->slice_lanes = apd_step_is_full(step) ? step->lane_count : 1;
    step->slices = step->lane_count / step->slice_lanes;
    step->pool =
        (struct apd_bn_pool){start_pool, finish_pool, step, (double)step->lanes * step->clean};
    /* Pixels live in [-1, 1]: 1/255 of the 0..255 range is 2/255 here. */
    step->eps = setup->config->attack.eps * 2 / 255;
    step->attack_step = setup->config->attack.step * 2 / 255;
    if (step->attack_step < step->eps / (double)setup->config->attack.steps)
        step->attack_step = step->eps / (double)setup->config->attack.steps;
    if (setup->config->attack.goal == APD_GOAL_TARGETED)
        step->attack_step = -step->attack_step;

    step->executions =
        calloc((size_t)(step->slices * (step->noise_passes + 1)), sizeof *step->executions);
    if (step->executions == NULL) {
        rc = apd_fail(err, APD_NOMEM, "passes of a step");
        goto done;
    }
    APD_GO(make_segments(step, err));
    APD_GO(make_network(step, setup->eval_images, err));
    APD_GO(make_tally(step, err));
    APD_GO(apd_gradients_create(step->params, step->comm, step->slices, &step->gradients, err));
    APD_GO(make_buffers(step, err));
    APD_GO(make_targets(step, err));
    APD_GO(make_mixing(step, err));
    APD_GO(make_shuffle(step, err));
    APD_GO(prepare_images(step, err));
    *out = step;
    step = NULL;
done:
    apd_step_destroy(&step);
    return rc;
}
