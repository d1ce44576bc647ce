/* See train.h. The loop is: data, step, books, and now and then a checkpoint or an evaluation. All
 * decisions that end or bend the run (drain, stop) ride the commit, so every worker takes them at
 * the same step. */
#include "worker/train.h"

#include "base/clock.h"
#include "base/log.h"
#include "proto/run_dir.h"
#include "worker/checkpoint.h"
#include "worker/data/loader.h"
#include "worker/evaluate.h"
#include "worker/link.h"
#include "worker/optim/schedule.h"
#include "worker/saver.h"
#include "worker/step.h"

#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LOADER_TIMEOUT_MS = 300000, SHARDS_CHECKED = 4096 };

struct run {
    struct apd_job *job;
    const struct apd_config *config;
    int is_first; /* worker 0 reports and saves for all */
    struct apd_link *link;
    struct apd_link_assignment assignment;
    struct apd_plan_desc plan_desc;
    struct apd_plan *plan;
    struct apd_lr_schedule schedule;
    struct apd_step *step;
    struct apd_loader *loader;
    struct apd_saver *saver; /* of worker 0 */
    struct apd_checkpoint_info info;
    char *config_yaml;
    char config_digest[APD_SHA256_HEX], plan_digest[APD_SHA256_HEX];
    struct apd_progress progress;
    uint32_t lane_first, lane_count;
    uint64_t main_top1, main_images, main_step; /* newest evaluation by main BN */
    double last_save_s, images_per_s;
    int save_asked;
};

static volatile sig_atomic_t signals_seen;

void apd_train_signal(void)
{
    signals_seen++;
}

static uint64_t batch_of(const struct run *run)
{
    return (uint64_t)run->config->train.batch;
}

static uint32_t epochs_complete(const struct run *run)
{
    return (uint32_t)(run->progress.step * batch_of(run) / run->plan_desc.samples);
}

/* ---------------------------------------------------------------- start */

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
    uint32_t first, count;
    const struct apd_link_assignment *got = &run->assignment;
    int rank = run->job->comm->rank;

    apd_plan_lanes_of(run->plan_desc.lanes, (uint32_t)run->job->comm->size, (uint32_t)rank, &first,
                      &count);
    if (got->worker != (uint32_t)rank || got->lane_first != first || got->lane_count != count)
        return apd_fail(
            err, APD_PROTO,
            "assignment: expected worker %d with %u lanes from %u, found worker %u with "
            "%u lanes from %u",
            rank, count, first, got->worker, got->lane_count, got->lane_first);
    if (strcmp(got->plan_digest, run->plan_digest) != 0)
        return apd_fail(err, APD_PROTO, "assignment: expected plan %s, found %s", run->plan_digest,
                        got->plan_digest);
    run->lane_first = first;
    run->lane_count = count;
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
    if (run->config->init_from[0] != '\0') {
        APD_TRY(apd_checkpoint_load_model(run->config->init_from, NULL, params, err));
        apd_log(APD_LOG_INFO, "initialised", "path=\"%s\"", run->config->init_from);
    }
    return APD_OK;
}

static void on_phase(void *ctx, Advprop__V1__Phase phase)
{
    apd_link_phase(ctx, phase);
}

static enum apd_code make_step(struct run *run, struct apd_err *err)
{
    struct apd_step_setup setup = {.config = run->config,
                                   .params = run->job->params,
                                   .comm = run->job->comm,
                                   .lanes = (int)run->plan_desc.lanes,
                                   .lane_first = (int)run->lane_first,
                                   .lane_count = (int)run->lane_count,
                                   .eval_images = (int)run->config->eval.batch,
                                   .samples = run->plan_desc.samples,
                                   .on_phase = on_phase,
                                   .ctx = run->link};

    return apd_step_create(&setup, &run->step, err);
}

static enum apd_code make_loader(struct run *run, struct apd_err *err)
{
    struct apd_loader_settings settings = {
        .plan = &run->plan_desc,
        .dataset = run->job->train,
        .augment = {.kind = (enum apd_augment)run->config->augment,
                    .crop_padding_px = (int)run->config->data.crop_padding_px,
                    .seed = (uint64_t)run->config->seed},
        .lane_first = run->lane_first,
        .lane_count = run->lane_count,
        .first_step = run->progress.step,
        .wait_timeout_ms = LOADER_TIMEOUT_MS};

    return apd_loader_create(&settings, &run->loader, err);
}

static enum apd_code make_saver(struct run *run, struct apd_err *err)
{
    if (!run->is_first)
        return APD_OK;
    run->info = (struct apd_checkpoint_info){.batch = batch_of(run),
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
    APD_TRY(apd_config_print(run->config, &run->config_yaml, err));
    APD_TRY(apd_config_digest(run->config, run->config_digest, err));
    APD_TRY(apd_job_open_data(run->job, err));
    apd_job_plan_desc(run->job, &run->plan_desc);
    APD_TRY(apd_plan_create(&run->plan_desc, &run->plan, err));
    APD_TRY(apd_plan_digest(run->plan, run->plan_digest, err));
    apd_lr_schedule_init(&run->schedule, run->config, run->plan_desc.samples);
    return apd_job_make_network(run->job, err);
}

static enum apd_code start(struct run *run, const struct apd_wireup *wireup, int rank,
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

/* ---------------------------------------------------------------- books */

/* The coordinator hands out the epoch's shards; if they are not those of our plan something is
 * badly wrong with one of the two programs. Lists that were cut to fit a frame are compared as far
 * as they go. */
static enum apd_code check_shards(struct run *run, uint32_t epoch, struct apd_err *err)
{
    uint32_t told[SHARDS_CHECKED], mine[SHARDS_CHECKED];

    for (uint32_t lane = run->lane_first; lane < run->lane_first + run->lane_count; lane++) {
        int truncated,
            n = apd_link_shards(run->link, epoch, lane, SHARDS_CHECKED, told, &truncated);
        uint32_t have = apd_plan_lane_shards(run->plan, epoch, lane, SHARDS_CHECKED, mine, NULL);
        uint32_t common = n < SHARDS_CHECKED ? (uint32_t)n : SHARDS_CHECKED;

        if (n < 0)
            continue; /* not here yet; the plan does not wait for it */
        if ((!truncated && (uint32_t)n != have) || memcmp(told, mine, common * sizeof *mine) != 0)
            return apd_fail(
                err, APD_PROTO,
                "shards of lane %u in epoch %u: expected %u as planned, found %d others", lane,
                epoch, have, n);
    }
    return APD_OK;
}

static double mean_loss(const struct apd_loss *loss)
{
    return loss->images > 0 ? loss->ce_sum / (double)loss->images : 0;
}

static void report_step(struct run *run, const struct apd_step_result *result, double lr,
                        double step_s, double wait_ms)
{
    Advprop__V1__StepReport report = ADVPROP__V1__STEP_REPORT__INIT;
    double now_per_s = (double)batch_of(run) / step_s;

    run->images_per_s =
        run->images_per_s > 0 ? 0.9 * run->images_per_s + 0.1 * now_per_s : now_per_s;
    apd_link_progress(run->link, run->progress.step,
                      run->images_per_s * run->lane_count / run->plan_desc.lanes);
    if (!run->is_first)
        return;
    report.step = run->progress.step;
    report.position = run->progress.step * batch_of(run);
    report.epoch = (uint32_t)((report.position - 1) / run->plan_desc.samples);
    report.loss_clean = mean_loss(&result->loss[APD_CLEAN]);
    report.loss_noise = mean_loss(&result->loss[APD_NOISE]);
    report.loss_adv = mean_loss(&result->loss[APD_ADV]);
    report.lr = lr;
    report.top1_clean = (uint64_t)result->loss[APD_CLEAN].top1;
    report.images_clean = (uint64_t)result->loss[APD_CLEAN].images;
    report.top1_adv = (uint64_t)result->loss[APD_ADV].top1;
    report.images_adv = (uint64_t)result->loss[APD_ADV].images;
    report.step_ms = step_s * 1000;
    report.data_wait_ms = wait_ms;
    apd_link_report_step(run->link, &report);
}

/* Adds the step's receipts; closes the epoch when its last sample is in. *out_closed: whether it
 * was. */
static enum apd_code keep_receipts(struct run *run, const struct apd_step_result *result,
                                   int *out_closed, struct apd_err *err)
{
    struct apd_step_receipt *open = &run->progress.receipt;
    Advprop__V1__Receipt receipt = ADVPROP__V1__RECEIPT__INIT;

    *out_closed = 0;
    open->samples += result->receipt[0].samples;
    open->sum += result->receipt[0].sum;
    if (open->samples < run->plan_desc.samples)
        return APD_OK;
    receipt.epoch = open->epoch;
    receipt.samples = open->samples;
    receipt.samples_expected = run->plan_desc.samples;
    receipt.sum = open->sum;
    receipt.sum_expected = apd_plan_receipt(run->plan, open->epoch);
    receipt.complete = 1;
    receipt.match = receipt.sum == receipt.sum_expected && open->samples == run->plan_desc.samples;
    if (run->is_first)
        apd_link_report_receipt(run->link, &receipt);
    if (!receipt.match)
        return apd_fail(
            err, APD_BUG,
            "epoch %u: receipt of %llu samples: expected %016llx over %llu, found %016llx",
            open->epoch, (unsigned long long)open->samples,
            (unsigned long long)receipt.sum_expected, (unsigned long long)run->plan_desc.samples,
            (unsigned long long)open->sum);
    *open = result->receipt[1];
    *out_closed = 1;
    return check_shards(run, open->epoch, err);
}

/* ---------------------------------------------------------------- evaluation and saving */

static enum apd_code evaluate(struct run *run, enum apd_bn_set set, int attack_steps,
                              struct apd_err *err)
{
    const struct apd_config *config = run->config;
    struct apd_evaluation evaluation = {
        .net = apd_step_net(run->step),
        .params = run->job->params,
        .comm = run->job->comm,
        .dataset = run->job->test,
        .batch = (int)config->eval.batch,
        .images = attack_steps > 0 ? (uint64_t)config->eval.attack_images : 0,
        .set = set,
        .attack_steps = attack_steps,
        .attack_eps = config->eval.attack_eps,
        .attack_step = config->eval.attack_step,
        .seed = (uint64_t)config->seed};
    Advprop__V1__Evaluation report = ADVPROP__V1__EVALUATION__INIT;
    struct apd_loss result;
    char name[32];

    (void)snprintf(name, sizeof name, "%s", set == APD_BN_MAIN ? "main" : "aux");
    if (attack_steps > 0)
        (void)snprintf(name, sizeof name, "%s-pgd%d", set == APD_BN_MAIN ? "main" : "aux",
                       attack_steps);
    apd_link_phase(run->link, ADVPROP__V1__PHASE__PHASE_EVALUATING);
    APD_TRY(apd_evaluate(&evaluation, &result, err));
    if (set == APD_BN_MAIN && attack_steps == 0) {
        run->main_top1 = (uint64_t)result.top1;
        run->main_images = (uint64_t)result.images;
        run->main_step = run->progress.step;
    }
    report.epoch = epochs_complete(run);
    report.step = run->progress.step;
    report.name = name;
    report.images = (uint64_t)result.images;
    report.top1 = (uint64_t)result.top1;
    report.top5 = (uint64_t)result.top5;
    report.loss = mean_loss(&result);
    if (run->is_first)
        apd_link_report_evaluation(run->link, &report);
    apd_log(APD_LOG_INFO, "evaluated", "name=%s step=%" PRIu64 " top1=%" PRId64 " images=%" PRId64,
            name, run->progress.step, result.top1, result.images);
    return APD_OK;
}

static enum apd_code save(struct run *run, const char *reason, int wait, struct apd_err *err)
{
    int started, fresh = run->main_images > 0 && run->main_step == run->progress.step;

    if (!run->is_first)
        return APD_OK;
    APD_TRY(apd_saver_start(run->saver, &run->progress, reason, fresh ? run->main_top1 : 0,
                            fresh ? run->main_images : 0, wait, &started, err));
    if (started)
        run->last_save_s = apd_now_s();
    return APD_OK;
}

static int evaluation_due(const struct run *run)
{
    double every = run->config->eval.every_epochs;

    return every > 0 &&
           floor(epochs_complete(run) / every) > floor(run->progress.evaluated_epochs / every);
}

/* An epoch is complete: evaluate if it is time, save, and go on. */
static enum apd_code end_epoch(struct run *run, struct apd_err *err)
{
    int last = run->progress.step >= run->schedule.steps;

    if (last)
        return APD_OK; /* the end evaluates and saves */
    if (evaluation_due(run)) {
        run->progress.evaluated_epochs = epochs_complete(run);
        APD_TRY(evaluate(run, APD_BN_MAIN, 0, err));
    }
    return save(run, "epoch", 1, err);
}

static enum apd_code save_if_due(struct run *run, struct apd_err *err)
{
    double every = run->config->checkpoint.every_s;

    if (run->save_asked) {
        run->save_asked = 0;
        return save(run, "request", 1, err);
    }
    if (run->is_first && every > 0 && apd_now_s() - run->last_save_s >= every)
        return save(run, "interval", 0, err);
    return APD_OK;
}

/* ---------------------------------------------------------------- the loop */

/* What this worker wants the commit to carry. Reading clears the wish for a checkpoint: it is kept.
 */
static unsigned flags_to_raise(struct run *run, unsigned commands)
{
    unsigned flags = 0;

    run->save_asked |= (commands & APD_LINK_CHECKPOINT) != 0;
    if ((commands & APD_LINK_DRAIN) || signals_seen > 0)
        flags |= APD_FLAG_DRAIN;
    if ((commands & APD_LINK_STOP) || signals_seen > 1)
        flags |= APD_FLAG_STOP;
    return flags;
}

static enum apd_code one_step(struct run *run, unsigned *out_flags, struct apd_err *err)
{
    double lr = apd_lr_schedule_at(&run->schedule, run->progress.step), wait_ms = 0;
    double began = apd_now_s();
    unsigned commands = apd_link_commands(run->link);
    const struct apd_step_data *data = NULL;
    struct apd_step_result result = {0};
    struct apd_err data_err = {0};
    int closed;
    enum apd_code got;

    if (commands & APD_LINK_LOST)
        return apd_fail(err, APD_PEER, "the coordinator is gone");
    apd_link_phase(run->link, ADVPROP__V1__PHASE__PHASE_WAITING_DATA);
    got = apd_loader_step(run->loader, run->progress.step, &data, &wait_ms, &data_err);
    APD_TRY(apd_step_run(run->step, run->progress.step, data, got == APD_OK ? NULL : &data_err, lr,
                         flags_to_raise(run, commands), &result, err));
    run->progress.step++;
    *out_flags = result.flags;
    report_step(run, &result, lr, apd_now_s() - began, wait_ms);
    APD_TRY(keep_receipts(run, &result, &closed, err));
    return closed ? end_epoch(run, err) : save_if_due(run, err);
}

static enum apd_code stop_here(struct run *run, unsigned flags, struct apd_err *err)
{
    if (!(flags & APD_FLAG_STOP)) {
        apd_link_phase(run->link, ADVPROP__V1__PHASE__PHASE_SAVING);
        APD_TRY(save(run, "drain", 1, err));
        if (run->is_first)
            APD_TRY(apd_saver_wait(run->saver, err));
    }
    return apd_fail(err, APD_CANCELED, "%s at step %" PRIu64,
                    flags & APD_FLAG_STOP ? "stopped" : "drained", run->progress.step);
}

static enum apd_code finish(struct run *run, int trained, struct apd_err *err)
{
    const struct apd_config *config = run->config;

    APD_TRY(evaluate(run, APD_BN_MAIN, 0, err));
    run->progress.evaluated_epochs = epochs_complete(run);
    if (trained)
        APD_TRY(save(run, "end", 1, err));
    if (run->job->params->has_aux)
        APD_TRY(evaluate(run, APD_BN_AUX, 0, err));
    if (config->eval.attack_steps > 0)
        APD_TRY(evaluate(run, APD_BN_MAIN, (int)config->eval.attack_steps, err));
    return run->is_first ? apd_saver_wait(run->saver, err) : APD_OK;
}

static enum apd_code train(struct run *run, struct apd_err *err)
{
    unsigned flags = 0;
    int trained = 0;

    APD_TRY(check_shards(run, run->progress.receipt.epoch, err));
    while (run->progress.step < run->schedule.steps && flags == 0) {
        APD_TRY(one_step(run, &flags, err));
        trained = 1;
    }
    if (flags != 0 && run->progress.step < run->schedule.steps)
        return stop_here(run, flags, err);
    return finish(run, trained, err);
}

static void end(struct run *run, enum apd_code rc, const struct apd_err *err)
{
    int leaving = rc == APD_OK || rc == APD_CANCELED;

    apd_loader_destroy(&run->loader);
    apd_saver_destroy(&run->saver);
    apd_link_close(&run->link, apd_exit_status(rc), leaving ? NULL : err);
    apd_step_destroy(&run->step);
    apd_plan_destroy(&run->plan);
    free(run->config_yaml);
}

enum apd_code apd_train(struct apd_job *job, const struct apd_wireup *wireup, int rank,
                        struct apd_err *err)
{
    struct run run = {.job = job, .config = &job->config, .is_first = job->comm->rank == 0};
    enum apd_code rc = start(&run, wireup, rank, err);

    if (rc == APD_OK)
        rc = train(&run, err);
    end(&run, rc, err);
    return rc;
}
