#include "worker/train_private.h"

#include "base/clock.h"
#include "base/log.h"
#include "proto/run_dir.h"
#include "worker/device.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LOADER_TIMEOUT_MS = 300000 };

static enum apd_code join(struct run *run, const struct apd_wireup *wireup, int rank,
                          const struct apd_err *failure, struct apd_err *err)
{
    Advprop__V1__Join join = ADVPROP__V1__JOIN__INIT;
    char host[256] = "";
    uint64_t timeout_ms = (uint64_t)(run->config->cluster.join_timeout_s * 1000);

    if (gethostname(host, sizeof host - 1) != 0)
        return apd_fail_errno(err, "gethostname");
    join.rank = (uint32_t)rank;
    join.workers = (uint32_t)run->job->comm->size;
    join.host = host;
    join.pid = (uint32_t)getpid();
    join.plan_version = APD_PLAN_VERSION;
    if (failure != NULL) {
        join.failure = (char *)failure->msg;
        join.exit_status = apd_exit_status(failure->code);
        return apd_link_open(wireup, &join, timeout_ms, &run->link, &run->assignment, err);
    }
    join.backend = run->job->backend_text;
    join.layout = run->job->be->layout;
    join.config_digest = run->config_digest;
    join.data_digest = run->job->train->digest;
    join.samples = run->job->train->samples;
    join.classes = run->job->train->classes;
    join.n_shard_samples = run->job->train->shards;
    join.shard_samples = run->job->train->shard_samples;
    return apd_link_open(wireup, &join, timeout_ms, &run->link, &run->assignment, err);
}

/* The coordinator's view of the plan has to be ours to the letter, or samples would be lost or
 * repeated. */
static enum apd_code check_assignment(struct run *run, struct apd_err *err)
{
    uint32_t first = run->lane_first, count = run->lane_count;
    const struct apd_link_assignment *got = &run->assignment;
    int rank = run->job->comm->rank;

    if (got->worker != (uint32_t)rank || got->lane_first != first || got->lane_count != count)
        return apd_fail(
            err, APD_PROTO,
            "assignment: expected worker %d with %u lanes from %u, found worker %u with "
            "%u lanes from %u",
            rank, count, first, got->worker, got->lane_count, got->lane_first);
    if (strcmp(got->plan_digest, run->plan_digest) != 0)
        return apd_fail(err, APD_PROTO, "assignment: expected plan %s, found %s", run->plan_digest,
                        got->plan_digest);
    return APD_OK;
}

static enum apd_code init_from(struct run *run, struct apd_err *err)
{
    const char *path = run->config->init_from;
    char text[160];
    uint64_t classes;

    APD_TRY(apd_checkpoint_init_from(path, run->job->params, &classes, err));
    apd_log(APD_LOG_INFO, "initialised", "path=\"%s\"", path);
    if (classes == 0)
        return APD_OK;
    (void)snprintf(text, sizeof text,
                   "init_from has %" PRIu64 " classes, the data %d: all is taken but the "
                   "classifier, fc is initialised anew",
                   classes, run->job->arch.classes);
    apd_log(APD_LOG_INFO, text, "%s", "");
    if (run->is_first)
        apd_link_report_notice(run->link, text);
    return APD_OK;
}

static enum apd_code load_state(struct run *run, struct apd_err *err)
{
    char path[APD_RUN_PATH_MAX];
    struct apd_params *params = run->job->params;

    apd_link_phase(run->link, ADVPROP__V1__PHASE__PHASE_LOADING);
    if (run->assignment.resume) {
        APD_TRY(apd_run_dir_path(run->job->run_dir, run->assignment.resume_path, path, err));
        APD_TRY(apd_checkpoint_load(path, run->assignment.resume_sha256, run->config_digest,
                                    run->plan_digest, params, &run->progress, err));
        apd_log(APD_LOG_INFO, "resumed", "step=%" PRIu64 " path=\"%s\"", run->progress.step, path);
        return APD_OK;
    }
    APD_TRY(apd_params_init(params, (uint64_t)run->config->seed, (int)run->config->model.zero_init,
                            err));
    if (run->config->init_from[0] != '\0')
        APD_TRY(init_from(run, err));
    return apd_params_start_ema(params, err);
}

static void on_phase(void *ctx, Advprop__V1__Phase phase)
{
    apd_link_phase(((struct run *)ctx)->link, phase);
}

/* Its place in the ring is filled again once the step after it is asked for. By then its own commit
 * has waited for what read the images, and so for their copy. */
static const struct apd_step_data *next_data(void *ctx)
{
    const struct run *run = ctx;

    return run->progress.step + 1 < run->schedule.steps ? apd_loader_next(run->loader) : NULL;
}

enum apd_code run_make_params(struct run *run, struct apd_err *err)
{
    APD_TRY(apd_job_make_params(run->job, err));
    return run->config->optim.ema_decay > 0 ? apd_params_add_ema(run->job->params, err) : APD_OK;
}

void run_step_setup(struct run *run, struct apd_step_setup *out)
{
    *out = (struct apd_step_setup){.config = run->config,
                                   .params = run->job->params,
                                   .comm = run->job->device_comm,
                                   .host_comm = run->job->comm,
                                   .lanes = (int)run->plan_desc.lanes,
                                   .lane_first = (int)run->lane_first,
                                   .lane_count = (int)run->lane_count,
                                   .eval_images = (int)run->config->eval.batch,
                                   .samples = run->plan_desc.samples,
                                   .loss_scale = &run->progress.scale,
                                   .on_phase = on_phase,
                                   .next = next_data,
                                   .ctx = run};
}

static enum apd_code make_step(struct run *run, struct apd_err *err)
{
    struct apd_step_setup setup;

    APD_TRY(
        apd_device_comm(run->config, run->job->be, run->job->comm, &run->job->device_comm, err));
    if (!apd_device_scales_loss(run->config, run->job->be))
        run->progress.scale = (struct apd_loss_scale){0};
    else if (run->progress.scale.factor == 0)
        run->progress.scale.factor = (uint64_t)exp2(floor(log2(run->config->cuda.loss_scale)));
    run_step_setup(run, &setup);
    return apd_step_create(&setup, &run->step, err);
}

static void on_wait(void *ctx, const char *text)
{
    apd_link_detail(ctx, text);
}

/* Copies from pinned memory go on beside other work; without it all works the same. */
static void pin_pixels(struct run *run)
{
    struct apd_backend *be = run->job->be;
    struct apd_err err = {0};
    size_t bytes;
    void *pixels;

    if (be->ops->pin == NULL)
        return;
    for (uint32_t i = 0; (pixels = apd_loader_pixels(run->loader, i, &bytes)) != NULL; i++) {
        if (be->ops->pin(be, pixels, bytes, &err) != APD_OK) {
            apd_log(APD_LOG_WARN, "images are not pinned: copying them takes longer", "why=\"%s\"",
                    err.msg);
            return;
        }
        run->pinned++;
    }
}

static void unpin_pixels(struct run *run)
{
    size_t bytes;

    while (run->pinned > 0)
        run->job->be->ops->unpin(run->job->be,
                                 apd_loader_pixels(run->loader, --run->pinned, &bytes));
}

static enum apd_code make_loader(struct run *run, struct apd_err *err)
{
    struct apd_loader_settings settings = {.plan = &run->plan_desc,
                                           .dataset = run->job->train,
                                           .lane_first = run->lane_first,
                                           .lane_count = run->lane_count,
                                           .first_step = run->progress.step,
                                           .threads = (int)run->config->data.threads,
                                           .slots = (uint32_t)run->config->data.read_ahead + 1,
                                           .wait_timeout_ms = LOADER_TIMEOUT_MS,
                                           .on_wait = on_wait,
                                           .ctx = run->link};

    apd_job_sampler(run->job, APD_SPLIT_TRAIN, &settings.sampler);
    APD_TRY(apd_loader_create(&settings, &run->loader, err));
    pin_pixels(run);
    return APD_OK;
}

static enum apd_code make_saver(struct run *run, struct apd_err *err)
{
    if (!run->is_first)
        return APD_OK;
    run->info = (struct apd_checkpoint_info){.batch = run_batch(run),
                                             .samples = run->plan_desc.samples,
                                             .generation = run->assignment.generation,
                                             .seed = run->config->seed,
                                             .config_yaml = run->config_yaml,
                                             .config_digest = run->config_digest,
                                             .plan_digest = run->plan_digest};
    run->last_save_s = apd_now_s();
    return apd_saver_create(run->job->run_dir, &run->info, run->job->params, run->link, &run->saver,
                            err);
}

/* Everything that can be wrong with this host's configuration, data or device. */
static enum apd_code prepare(struct run *run, struct apd_err *err)
{
    const struct apd_comm *comm = run->job->comm;

    APD_TRY(apd_config_print(run->config, &run->config_yaml, err));
    APD_TRY(apd_config_digest(run->config, run->config_digest, err));
    APD_TRY(apd_job_open_data(run->job, err));
    apd_job_plan_desc(run->job, &run->plan_desc);
    apd_plan_lanes_of(run->plan_desc.lanes, (uint32_t)comm->size, (uint32_t)comm->rank,
                      &run->lane_first, &run->lane_count);
    APD_TRY(apd_plan_create(&run->plan_desc, &run->plan, err));
    APD_TRY(apd_plan_digest(run->plan, run->plan_digest, err));
    apd_lr_schedule_init(&run->schedule, run->config, run->plan_desc.samples);
    APD_TRY(apd_job_open_device(run->job, err));
    APD_TRY(run_plan_memory(run, err));
    return run_make_params(run, err);
}

enum apd_code run_start(struct run *run, const struct apd_wireup *wireup, int rank,
                        struct apd_err *err)
{
    enum apd_code rc = prepare(run, err);

    if (rc != APD_OK) {
        struct apd_err refused;

        /* The answer is a refusal: what matters is that the coordinator knows why. */
        (void)!join(run, wireup, rank, err, &refused);
        return rc;
    }
    APD_TRY(join(run, wireup, rank, NULL, err));
    APD_TRY(check_assignment(run, err));
    APD_TRY(load_state(run, err));
    APD_TRY(make_step(run, err));
    APD_TRY(make_loader(run, err));
    return make_saver(run, err);
}

void run_end(struct run *run, enum apd_code rc, const struct apd_err *err)
{
    int leaving = rc == APD_OK || rc == APD_CANCELED;

    if (leaving)
        unpin_pixels(run);
    apd_loader_destroy(&run->loader);
    apd_saver_destroy(&run->saver);
    apd_link_close(&run->link, apd_exit_status(rc), leaving ? NULL : err);
    /* After a failure the process ends at once, and nothing may wait for a device on which a sum
     * with a lost peer never ends: giving memory back does. */
    if (leaving)
        apd_step_destroy(&run->step);
    apd_plan_destroy(&run->plan);
    free(run->config_yaml);
}
