/* See step.h. A worker runs its lanes one after another, each a BN group of its own: the noise pass
 * of each, the shuffle, then the clean and adv pass of each. With bn.sync: full the lanes are
 * coupled layer by layer and run as one batch with a segment per lane ("slice" below: the lanes of
 * one execution).
 *
 *   slice's batch in P1:  [ aux of lane 0 | aux of lane 1 | ... ]
 *   slice's batch in P2:  [ clean of lane 0 | adv of lane 0 | clean of lane 1 | ... ]
 *
 * Each slice has its own gradient; they are summed over lanes and workers in tree order. */
#include "worker/step_private.h"

static void tell(const struct apd_step *step, Advprop__V1__Phase phase, const char *name)
{
    if (step->on_phase != NULL)
        step->on_phase(step->ctx, phase);
    if (step->be->ops->mark != NULL)
        step->be->ops->mark(step->be, name);
}

/* ---------------------------------------------------------------- the passes */

static enum apd_code forward_backward(struct apd_step *step, const struct apd_pass *pass,
                                      struct apd_err *err)
{
    APD_TRY(apd_net_forward(step->net, pass, err));
    return apd_net_backward(step->net, pass, err);
}

static enum apd_code record(struct apd_step *step, const struct apd_pass *pass,
                            struct apd_recording **out, struct apd_err *err)
{
    struct apd_recording *incomplete = NULL;
    struct apd_err ignored;
    enum apd_code rc;

    APD_TRY(step->be->ops->record_begin(step->be, err));
    APD_GO(forward_backward(step, pass, err));
    /* A recording has to hold the ends of the sums that begin in it. */
    if (pass->on_gradient != NULL)
        APD_GO(step->comm->ops->sum_wait(step->comm, err));
    return step->be->ops->record_end(step->be, out, err);
done:
    if (step->be->ops->record_end(step->be, &incomplete, &ignored) == APD_OK)
        step->be->ops->recording_destroy(step->be, &incomplete);
    return rc;
}

static enum apd_code replay(struct apd_step *step, const struct apd_pass *pass,
                            struct apd_recording **recording, struct apd_err *err)
{
    if (*recording == NULL)
        APD_TRY(record(step, pass, recording, err));
    else if (pass->on_gradient != NULL)
        apd_gradients_replayed(step->gradients);
    return step->be->ops->replay(step->be, *recording, err);
}

/* The network on a batch: noise pass k of a slice, or (k = noise_passes) its train pass. Arguments
 * are those of the step before, so where the backend can, the work is recorded once - after a plain
 * run, which leaves nothing to be made ready - and replayed from then on. */
static enum apd_code execute(struct apd_step *step, int slice, int k, const struct apd_pass *pass,
                             struct apd_err *err)
{
    struct apd_step_execution *at = &step->executions[slice * (step->noise_passes + 1) + k];
    enum apd_code rc;

    if (step->be->ops->record_begin == NULL || at->runs++ == 0)
        return forward_backward(step, pass, err);
    rc = replay(step, pass, &at->recording, err);
    if (rc != APD_OK && pass->on_gradient != NULL)
        step->is_stranded = 1;
    return rc;
}

/* Forward and backward on the perturbed images and one attack step; K times. */
static enum apd_code noise_pass(struct apd_step *step, int slice, struct apd_err *err)
{
    const struct apd_backend_ops *ops = step->be->ops;
    int n = step->aux * step->slice_lanes;
    size_t offset = (size_t)slice * (size_t)n * step->pixels * step->be->elem_bytes;
    void *at = (char *)step->x_attack + offset, *clean = (char *)step->x_aux + offset;
    const int32_t *send_rows = apd_shuffle_send_rows(step->shuffle) + slice * n;
    struct apd_targets targets;

    for (int k = 0; k < step->noise_passes; k++) {
        int last = k == step->noise_passes - 1;
        struct apd_pass pass = {.n = n,
                                .seg = step->noise_segments,
                                .segments = step->slice_lanes,
                                .batch_stats = step->config.attack.bn_mode == APD_BN_MODE_TRAIN,
                                .targets = &targets};

        if (step->config.attack.reuse_gradients)
            pass.d_weights = apd_gradients_of(step->gradients, slice);
        apd_tally_noise_pass(step->tally, slice * step->slice_lanes, k, &pass);
        APD_TRY(apd_step_noise_input(step, slice, k, at, &pass, &targets, err));
        APD_TRY(execute(step, slice, k, &pass, err));
        APD_TRY(apd_step_image_gradient(step, slice, k, err));
        /* The last one leaves the images where the shuffle sends them from. */
        APD_TRY(ops->attack_step(step->be, n, step->pixels, clean, at, step->d_attack,
                                 step->attack_step, step->eps, last ? send_rows : NULL,
                                 last ? apd_shuffle_send(step->shuffle) : at, err));
    }
    return APD_OK;
}

static enum apd_code train_pass(struct apd_step *step, int slice, const struct apd_step_data *data,
                                struct apd_err *err)
{
    struct apd_targets targets;
    int per_lane = step->aux > 0 ? 2 : 1;
    struct apd_pass pass = {.n = (step->clean + step->aux) * step->slice_lanes,
                            .seg = step->train_segments,
                            .segments = per_lane * step->slice_lanes,
                            .images = step->batch,
                            .batch_stats = 1,
                            .pool = apd_step_is_full(step) ? &step->pool : NULL,
                            .targets = &targets,
                            .d_weights = apd_gradients_of(step->gradients, slice)};

    if (slice == step->slices - 1) {
        pass.on_gradient = apd_gradients_ready;
        pass.ctx = step->gradients;
    }
    apd_tally_train_pass(step->tally, slice * step->slice_lanes, &pass);
    APD_TRY(apd_step_fill_batch(step, slice, data, &targets, err));
    return execute(step, slice, step->noise_passes, &pass, err);
}

/* ---------------------------------------------------------------- update */

/* Images of a branch that counted, over all lanes and repetitions. */
static double images_of(const struct apd_step *step, enum apd_branch branch)
{
    struct apd_loss loss;

    apd_tally_get_loss(step->tally, branch, &loss);
    return (double)loss.images;
}

double apd_step_count(const struct apd_step *step, enum apd_set set)
{
    double clean = images_of(step, APD_CLEAN) * step->config.train.weight_clean;
    double noise = images_of(step, APD_NOISE) * step->config.train.weight_noise;
    double adv = images_of(step, APD_ADV) * step->config.train.weight_adv;

    if (!step->config.attack.reuse_gradients)
        noise = 0;
    switch (set) {
    case APD_SET_MAIN:
        return clean;
    case APD_SET_AUX:
        return noise + adv;
    case APD_SET_SHARED:
    case APD_SETS:
        break;
    }
    return clean + noise + adv;
}

static enum apd_code update_weights(struct apd_step *step, double lr, struct apd_err *err)
{
    const double factor[APD_SETS] = {step->config.optim.lr_factor_shared,
                                     step->config.optim.lr_factor_main,
                                     step->config.optim.lr_factor_aux};
    struct apd_params *params = step->params;
    double scale = apd_loss_scale_of(step->loss_scale);

    for (enum apd_set set = 0; set < APD_SETS; set++) {
        struct apd_range range = params->set[set];
        double count = apd_step_count(step, set);
        struct apd_sgd sgd = {.grad_scale = count > 0 ? 1 / (count * scale) : 0,
                              .lr = lr * factor[set],
                              .momentum = step->config.optim.momentum,
                              .weight_decay = step->config.optim.weight_decay,
                              .nesterov = (int)step->config.optim.nesterov};

        if (range.count > 0)
            APD_TRY(step->be->ops->sgd(step->be, range.count, &sgd,
                                       apd_at(params, apd_step_gradient(step), range.first),
                                       apd_at(params, params->weights, range.first),
                                       apd_at(params, params->momentum, range.first), err));
    }
    return APD_OK;
}

static enum apd_code update_statistics(struct apd_step *step, struct apd_err *err)
{
    int lanes = step->config.bn.sync == APD_BN_SYNC_NONE ? 1 : step->lanes;

    return apd_tally_update_running(step->tally, (double)lanes * step->clean,
                                    (double)lanes * step->aux, step->config.bn.momentum, err);
}

static enum apd_code update(struct apd_step *step, double lr, struct apd_err *err)
{
    tell(step, ADVPROP__V1__PHASE__PHASE_UPDATE, "update");
    APD_TRY(update_weights(step, lr, err));
    APD_TRY(update_statistics(step, err));
    return apd_params_average(step->params, step->config.optim.ema_decay, err);
}

/* ---------------------------------------------------------------- the step */

/* What this worker does by itself before the shuffle. */
static enum apd_code attack_lanes(struct apd_step *step, const struct apd_step_data *data,
                                  struct apd_err *err)
{
    tell(step, ADVPROP__V1__PHASE__PHASE_NOISE_PASS, "noise pass");
    APD_TRY(apd_step_pack_aux(step, data, err));
    for (int slice = 0; slice < step->slices; slice++)
        APD_TRY(noise_pass(step, slice, err));
    return APD_OK;
}

static enum apd_code train_lanes(struct apd_step *step, const struct apd_step_data *data,
                                 struct apd_err *err)
{
    tell(step, ADVPROP__V1__PHASE__PHASE_TRAIN_PASS, "train pass");
    for (int slice = 0; slice < step->slices; slice++)
        APD_TRY(train_pass(step, slice, data, err));
    return APD_OK;
}

static enum apd_code stage(struct apd_step *step, const struct apd_step_data *data,
                           const uint8_t **out, struct apd_err *err)
{
    return step->be->ops->stage(step->be, data->pixels,
                                (size_t)step->lane_count * data->lane_batch * step->pixels,
                                (const void **)out, err);
}

/* The next step's images set out while this one computes. What fails here is not used, and fails
 * again in the step that needs it. */
static void look_ahead(struct apd_step *step)
{
    const struct apd_step_data *data = step->next != NULL ? step->next(step->ctx) : NULL;
    struct apd_err ignored;

    if (data == NULL || stage(step, data, &step->ahead, &ignored) != APD_OK)
        step->ahead = NULL;
    step->ahead_number = step->number + 1;
}

static enum apd_code start_step(struct apd_step *step, const struct apd_step_data *data,
                                struct apd_err *err)
{
    uint64_t batch = (uint64_t)step->config.train.batch;

    apd_tally_receipts(step->tally, data, (uint32_t)(step->number * batch / step->samples));
    if (step->ahead != NULL && step->ahead_number == step->number)
        step->staged = step->ahead;
    else
        APD_TRY(stage(step, data, &step->staged, err));
    return apd_gradients_reset(step->gradients, err);
}

/* A worker may be late, for its data for one, and lives: heartbeats tell. What waits on a device
 * for others has a deadline, so they wait for each other on the host before. */
static enum apd_code meet(struct apd_step *step, struct apd_err *err)
{
    double nothing = 0;

    if (step->comm == step->host_comm || step->comm->size == 1)
        return APD_OK;
    return apd_comm_sum(step->host_comm, &nothing, 1, APD_SUM_F64, err);
}

/* What this worker's own part of a step came to. */
struct own_part {
    enum apd_code rc;
    struct apd_err err;
};

/* A worker that failed still takes part in the collectives, so that nobody waits for it in vain;
 * the commit tells everybody. */
static enum apd_code run(struct apd_step *step, const struct apd_step_data *data,
                         struct own_part *own, double lr, unsigned flags,
                         struct apd_step_result *out, struct apd_err *err)
{
    if (own->rc == APD_OK)
        own->rc = start_step(step, data, &own->err);
    if (step->noise_passes > 0) {
        apd_shuffle_plan(step->shuffle, (uint64_t)step->config.seed, step->number,
                         (int)step->config.attack.shuffle);
        if (own->rc == APD_OK)
            own->rc = attack_lanes(step, data, &own->err);
    }
    APD_TRY(meet(step, err));
    if (step->noise_passes > 0) {
        tell(step, ADVPROP__V1__PHASE__PHASE_SHUFFLE, "shuffle");
        APD_TRY(apd_shuffle_labels(step->shuffle, step->aux_label, step->shuffled_label, err));
        APD_TRY(apd_shuffle_exchange(step->shuffle, err));
    }
    if (own->rc == APD_OK)
        own->rc = train_lanes(step, data, &own->err);
    /* SyncBN exchanges sums in the middle of a pass, as replays do those of the gradient: a worker
     * that failed there left the others waiting in it, and only ending the job frees them. */
    if (own->rc != APD_OK && (apd_step_is_full(step) || step->is_stranded))
        return own->rc;

    tell(step, ADVPROP__V1__PHASE__PHASE_EXCHANGE, "exchange");
    APD_TRY(apd_gradients_sum(step->gradients, err));
    if (own->rc == APD_OK)
        look_ahead(step);
    apd_tally_flags(step->tally, flags | (own->rc != APD_OK ? APD_FLAG_FAILED : 0));
    APD_TRY(apd_tally_sum(step->tally, apd_step_gradient(step), step->params->count, err));
    out->flags = apd_tally_get_flags(step->tally);
    if (own->rc != APD_OK)
        return own->rc;
    if (out->flags & APD_FLAG_FAILED)
        return apd_fail(err, APD_PEER, "step %llu: another worker failed",
                        (unsigned long long)step->number);
    out->skipped = !apd_tally_is_finite(step->tally);
    if (!out->skipped)
        APD_TRY(update(step, lr, err));
    if (!apd_loss_scale_update(step->loss_scale, !out->skipped))
        return apd_fail(err, APD_CONFIG,
                        "step %llu: the gradient is not finite: training has diverged; "
                        "lower optim.lr or lengthen schedule.warmup_epochs",
                        (unsigned long long)step->number);
    for (int branch = 0; branch < APD_BRANCHES; branch++)
        apd_tally_get_loss(step->tally, branch, &out->loss[branch]);
    apd_tally_get_receipts(step->tally, out->receipt);
    return APD_OK;
}

enum apd_code apd_step_run(struct apd_step *step, uint64_t number, const struct apd_step_data *data,
                           const struct apd_err *failure, double lr, unsigned flags,
                           struct apd_step_result *out, struct apd_err *err)
{
    struct own_part own = {0};
    enum apd_code rc;

    if (failure != NULL)
        own = (struct own_part){failure->code, *failure};
    step->number = number;
    rc = run(step, data, &own, lr, flags, out, err);
    if (own.rc == APD_OK)
        return rc;
    *err = own.err; /* what failed later may have done so because of it */
    return own.rc;
}

void *apd_step_gradient(struct apd_step *step)
{
    return apd_gradients_of(step->gradients, 0);
}

void apd_step_bytes(const struct apd_step *step, size_t *out_activations, size_t *out_gradients)
{
    *out_activations = apd_net_arena_bytes(step->net);
    *out_gradients = (size_t)step->slices * step->params->count * step->be->elem_bytes;
}

struct apd_net *apd_step_net(struct apd_step *step)
{
    return step->net;
}
