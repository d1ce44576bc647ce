#include "worker/tool.h"

#include "base/log.h"
#include "proto/commit_log.h"
#include "proto/run_dir.h"
#include "worker/checkpoint.h"
#include "worker/evaluate.h"
#include "worker/safetensors.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const set_names[] = {[APD_BN_MAIN] = "main", [APD_BN_AUX] = "aux"};

/* Path and hash of the checkpoint to evaluate. */
static enum apd_code find_checkpoint(const struct apd_job *job,
                                     const struct apd_eval_options *options,
                                     char path[APD_RUN_PATH_MAX], char sha256[APD_SHA256_HEX],
                                     struct apd_err *err)
{
    struct apd_commit_list list = {0};
    enum apd_code rc = APD_OK;

    sha256[0] = '\0';
    if (options->checkpoint != NULL) {
        if (snprintf(path, APD_RUN_PATH_MAX, "%s", options->checkpoint) >= APD_RUN_PATH_MAX)
            return apd_fail(err, APD_USAGE, "--checkpoint: path is too long");
        return APD_OK;
    }
    APD_TRY(apd_commit_log_newest_good(job->run_dir, &list, err));
    for (size_t i = 0; i < list.skipped_count; i++)
        apd_log(APD_LOG_WARN, "checkpoint passed over", "reason=\"%s\"", list.skipped[i]);
    if (list.count == 0) {
        rc = apd_fail(err, APD_DATA, "%s has no sound checkpoint yet", job->run_dir);
        goto done;
    }
    APD_GO(apd_run_dir_path(job->run_dir, list.commit[0].path, path, err));
    memcpy(sha256, list.commit[0].sha256, APD_SHA256_HEX);
done:
    apd_commit_list_fini(&list);
    return rc;
}

static enum apd_code write_logits(const struct apd_job *job, const char *path, const float *logits,
                                  uint64_t images, struct apd_err *err)
{
    const struct apd_tensor tensor = {.name = "logits",
                                      .dtype = APD_DTYPE_F32,
                                      .dims = 2,
                                      .shape = {images, (uint64_t)job->arch.classes},
                                      .data = logits};
    const struct apd_meta meta = {"format", "advpropd-logits"};
    char sha256[APD_SHA256_HEX];
    uint64_t bytes;

    return apd_safetensors_write(path, &tensor, 1, &meta, 1, &bytes, sha256, err);
}

static enum apd_code print_result(const char *name, const struct apd_loss *loss, int json,
                                  struct apd_err *err)
{
    double n = loss->images > 0 ? (double)loss->images : 1;

    if (json) {
        json_t *object =
            json_pack("{s:s,s:I,s:I,s:I,s:f,s:f,s:f}", "name", name, "images",
                      (json_int_t)loss->images, "top1", (json_int_t)loss->top1, "top5",
                      (json_int_t)loss->top5, "top1_accuracy", (double)loss->top1 / n,
                      "top5_accuracy", (double)loss->top5 / n, "loss", loss->ce_sum / n);
        int failed = object == NULL || json_dumpf(object, stdout, JSON_COMPACT) != 0;

        json_decref(object);
        if (failed)
            return apd_fail_errno(err, "writing the result");
        putchar('\n');
    } else {
        printf("%-12s top-1 %6.2f %%   top-5 %6.2f %%   loss %.4f   %lld images\n", name,
               100 * (double)loss->top1 / n, 100 * (double)loss->top5 / n, loss->ce_sum / n,
               (long long)loss->images);
    }
    return fflush(stdout) == 0 ? APD_OK : apd_fail_errno(err, "writing the result");
}

static enum apd_code eval_set(struct apd_job *job, struct apd_net *net,
                              const struct apd_eval_options *options, enum apd_bn_set set,
                              struct apd_err *err)
{
    struct apd_evaluation evaluation = {.net = net,
                                        .params = job->params,
                                        .comm = job->comm,
                                        .dataset = job->test,
                                        .batch = (int)job->config.eval.batch,
                                        .images = options->images,
                                        .set = set,
                                        .attack_steps = options->attack_steps,
                                        .attack_eps = options->attack_eps,
                                        .attack_step = options->attack_step,
                                        .seed = (uint64_t)job->config.seed};
    uint64_t images = options->images > 0 && options->images < job->test->samples
                          ? options->images
                          : job->test->samples;
    struct apd_loss loss;
    char name[32];
    enum apd_code rc;

    if (options->logits != NULL) {
        evaluation.logits = malloc(images * (size_t)job->arch.classes * sizeof(float));
        if (evaluation.logits == NULL)
            return apd_fail(err, APD_NOMEM, "logits of %llu images", (unsigned long long)images);
    }
    APD_GO(apd_evaluate(&evaluation, &loss, err));
    (void)snprintf(name, sizeof name, "%s", set_names[set]);
    if (options->attack_steps > 0)
        (void)snprintf(name, sizeof name, "%s-pgd%d", set_names[set], options->attack_steps);
    if (job->comm->rank == 0) {
        APD_GO(print_result(name, &loss, options->json, err));
        if (options->logits != NULL)
            APD_GO(write_logits(job, options->logits, evaluation.logits, images, err));
    }
done:
    free(evaluation.logits);
    return rc;
}

enum apd_code apd_tool_eval(struct apd_job *job, const struct apd_eval_options *options,
                            struct apd_err *err)
{
    char path[APD_RUN_PATH_MAX], sha256[APD_SHA256_HEX];
    struct apd_net *net = NULL;
    enum apd_code rc;

    if (options->logits != NULL && options->sets != 1 << APD_BN_MAIN &&
        options->sets != 1 << APD_BN_AUX)
        return apd_fail(err, APD_USAGE,
                        "--logits writes one BN's logits: add --bn main or --bn aux");
    APD_TRY(find_checkpoint(job, options, path, sha256, err));
    APD_TRY(apd_job_open_data(job, err));
    APD_TRY(apd_job_make_network(job, err));
    APD_TRY(apd_checkpoint_load_model(path, sha256[0] != '\0' ? sha256 : NULL,
                                      job->config.optim.ema_decay > 0, job->params, err));
    APD_GO(apd_net_create(job->params, (int)job->config.eval.batch, 1, &net, err));
    apd_net_set_bn_eps(net, job->config.bn.eps);
    for (int set = 0; set < (job->params->has_aux ? APD_BN_SETS : 1); set++)
        if (options->sets & 1 << set)
            APD_GO(eval_set(job, net, options, set, err));
done:
    apd_net_destroy(&net);
    return rc;
}
