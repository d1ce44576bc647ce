#include "worker/train_private.h"

#include "base/clock.h"
#include "base/log.h"
#include "worker/device.h"
#include "worker/evaluate.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

enum apd_code run_evaluate(struct run *run, enum apd_bn_set set, int attack_steps,
                           struct apd_err *err)
{
    const struct apd_config *config = run->config;
    struct apd_sampler_settings sampler;
    struct apd_evaluation evaluation = {
        .net = apd_step_net(run->step),
        .params = run->job->params,
        .comm = run->job->comm,
        .dataset = run->job->test,
        .sampler = &sampler,
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

    apd_job_sampler(run->job, APD_SPLIT_TEST, &sampler);
    (void)snprintf(name, sizeof name, "%s", set == APD_BN_MAIN ? "main" : "aux");
    if (attack_steps > 0)
        (void)snprintf(name, sizeof name, "%s-pgd%d", set == APD_BN_MAIN ? "main" : "aux",
                       attack_steps);
    apd_link_phase(run->link, ADVPROP__V1__PHASE__PHASE_EVALUATING);
    APD_TRY(apd_params_swap_ema(run->job->params, err));
    APD_TRY(apd_evaluate(&evaluation, &result, err));
    APD_TRY(apd_params_swap_ema(run->job->params, err));
    if (set == APD_BN_MAIN && attack_steps == 0) {
        run->main_top1 = (uint64_t)result.top1;
        run->main_images = (uint64_t)result.images;
        run->main_step = run->progress.step;
    }
    report.epoch = run_epochs(run);
    report.step = run->progress.step;
    report.name = name;
    report.images = (uint64_t)result.images;
    report.top1 = (uint64_t)result.top1;
    report.top5 = (uint64_t)result.top5;
    report.loss = apd_mean_loss(&result);
    if (run->is_first)
        apd_link_report_evaluation(run->link, &report);
    apd_log(APD_LOG_INFO, "evaluated", "name=%s step=%" PRIu64 " top1=%" PRId64 " images=%" PRId64,
            name, run->progress.step, result.top1, result.images);
    if (run->evaluations++ == 0 && run->is_first)
        APD_TRY(apd_device_settled(run->job->be, err));
    return APD_OK;
}

enum apd_code run_save(struct run *run, const char *reason, int wait, struct apd_err *err)
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
           floor(run_epochs(run) / every) > floor(run->progress.evaluated_epochs / every);
}

/* An epoch is complete: evaluate if it is time, save, and go on. */
enum apd_code run_end_epoch(struct run *run, struct apd_err *err)
{
    int last = run->progress.step >= run->schedule.steps;

    if (last)
        return APD_OK; /* the end evaluates and saves */
    if (evaluation_due(run)) {
        run->progress.evaluated_epochs = run_epochs(run);
        APD_TRY(run_evaluate(run, APD_BN_MAIN, 0, err));
    }
    return run_save(run, "epoch", 1, err);
}

enum apd_code run_save_if_due(struct run *run, struct apd_err *err)
{
    double every = run->config->checkpoint.every_s;

    if (run->save_asked) {
        run->save_asked = 0;
        return run_save(run, "request", 1, err);
    }
    if (run->is_first && every > 0 && apd_now_s() - run->last_save_s >= every)
        return run_save(run, "interval", 0, err);
    return APD_OK;
}
