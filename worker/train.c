/* See train.h. The loop is: data, step, books, and now and then a checkpoint or an evaluation. All
 * decisions that end or bend the run (drain, stop) ride the commit, so every worker takes them at
 * the same step. */
#include "worker/train.h"

#include "base/clock.h"
#include "base/log.h"
#include "worker/device.h"
#include "worker/train_private.h"

#include <inttypes.h>
#include <signal.h>

static volatile sig_atomic_t signals_seen;

void apd_train_signal(void)
{
    signals_seen++;
}

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
    if (result.skipped && run->is_first)
        apd_log(APD_LOG_WARN, "gradient overflowed: step left out",
                "step=%" PRIu64 " loss_scale=%" PRIu64, run->progress.step,
                run->progress.scale.factor);
    run->progress.step++;
    if (run->steps < SETTLED_STEPS && ++run->steps == SETTLED_STEPS && run->is_first)
        APD_TRY(apd_device_settled(run->job->be, err));
    run_report_bad(run, data);
    *out_flags = result.flags;
    run_report_step(run, &result, lr, apd_now_s() - began, wait_ms);
    APD_TRY(run_keep_receipts(run, &result, &closed, err));
    return closed ? run_end_epoch(run, err) : run_save_if_due(run, err);
}

static enum apd_code stop_here(struct run *run, unsigned flags, struct apd_err *err)
{
    if (!(flags & APD_FLAG_STOP)) {
        apd_link_phase(run->link, ADVPROP__V1__PHASE__PHASE_SAVING);
        APD_TRY(run_save(run, "drain", 1, err));
        if (run->is_first)
            APD_TRY(apd_saver_wait(run->saver, err));
    }
    return apd_fail(err, APD_CANCELED, "%s at step %" PRIu64,
                    flags & APD_FLAG_STOP ? "stopped" : "drained", run->progress.step);
}

static enum apd_code finish(struct run *run, int trained, struct apd_err *err)
{
    const struct apd_config *config = run->config;

    APD_TRY(run_evaluate(run, APD_BN_MAIN, 0, err));
    run->progress.evaluated_epochs = run_epochs(run);
    if (trained)
        APD_TRY(run_save(run, "end", 1, err));
    if (run->job->params->has_aux)
        APD_TRY(run_evaluate(run, APD_BN_AUX, 0, err));
    if (config->eval.attack_steps > 0)
        APD_TRY(run_evaluate(run, APD_BN_MAIN, (int)config->eval.attack_steps, err));
    return run->is_first ? apd_saver_wait(run->saver, err) : APD_OK;
}

static enum apd_code train(struct run *run, struct apd_err *err)
{
    unsigned flags = 0;
    int trained = 0;

    APD_TRY(run_check_shards(run, run->progress.receipt.epoch, err));
    while (run->progress.step < run->schedule.steps && flags == 0) {
        APD_TRY(one_step(run, &flags, err));
        trained = 1;
    }
    if (flags != 0 && run->progress.step < run->schedule.steps)
        return stop_here(run, flags, err);
    return finish(run, trained, err);
}

enum apd_code apd_train(struct apd_job *job, const struct apd_wireup *wireup, int rank,
                        struct apd_err *err)
{
    struct run run = {.job = job, .config = &job->config, .is_first = job->comm->rank == 0};
    enum apd_code rc = run_start(&run, wireup, rank, err);

    if (rc == APD_OK)
        rc = train(&run, err);
    run_end(&run, rc, err);
    return rc;
}
