/* What a run needs of the device's memory is known before it starts: everything that it will make
 * is made once while the backend only measures. */
#include "worker/train_private.h"

#include "base/log.h"
#include "worker/evaluate.h"

/* No collective takes place in it, so the host's communicator stands for the device's, which is not
 * there yet. */
static enum apd_code make_all(struct run *run, struct apd_memory_plan *plan, struct apd_err *err)
{
    struct apd_job *job = run->job;
    struct apd_step_setup setup;
    size_t gradients;
    enum apd_code rc;

    APD_GO(run_make_params(run, err));
    plan->weights = job->be->ops->plan_used(job->be);
    run_step_setup(run, &setup);
    setup.comm = job->comm;
    APD_GO(apd_step_create(&setup, &run->step, err));
    apd_step_bytes(run->step, &plan->activations, &gradients);
    plan->weights += gradients;
    APD_GO(apd_evaluate_make(job->params, (int)run->config->eval.batch, err));
done:
    apd_step_destroy(&run->step);
    apd_params_destroy(&job->params);
    return rc;
}

enum apd_code run_plan_memory(struct run *run, struct apd_err *err)
{
    struct apd_backend *be = run->job->be;
    struct apd_memory_plan plan = {.workers = run->job->comm->size};
    struct apd_err ignored;
    enum apd_code rc;

    if (be->ops->plan_begin == NULL)
        return APD_OK;
    be->ops->plan_begin(be);
    rc = make_all(run, &plan, err);
    if (rc != APD_OK) {
        (void)!be->ops->plan_end(be, NULL, &ignored);
        return rc;
    }
    APD_TRY(be->ops->plan_end(be, &plan, err));
    apd_log(APD_LOG_INFO, "GPU memory planned",
            "mb=%zu activations_mb=%zu weights_mb=%zu workspace_mb=%zu other_mb=%zu kept_mb=%zu "
            "free_mb=%zu total_mb=%zu",
            plan.needed >> 20, plan.activations >> 20, plan.weights >> 20, plan.workspace >> 20,
            plan.other >> 20, plan.kept >> 20, plan.free >> 20, plan.total >> 20);
    return APD_OK;
}
