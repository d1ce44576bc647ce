#include "worker/tool.h"

#include "base/log.h"
#include "proto/commit_log.h"
#include "proto/run_dir.h"
#include "worker/checkpoint.h"
#include "worker/evaluate.h"
#include "worker/safetensors.h"
#include "worker/show.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const apd_bn_names[] = {[APD_BN_MAIN] = "main", [APD_BN_AUX] = "aux"};

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

/* Through one BN. */
struct result {
    const struct apd_eval_options *options;
    char name[32];
    struct apd_loss loss;
    struct apd_loss *by_class; /* [classes], or NULL: not asked for */
    int classes;
};

static json_t *attack_json(const struct apd_eval_options *options)
{
    if (options->attack_steps == 0)
        return json_null();
    return json_pack("{s:i,s:f,s:f,s:i}", "steps", options->attack_steps, "eps",
                     options->attack_eps, "step", options->attack_step, "restarts",
                     options->attack_restarts);
}

static json_t *class_json(int number, const struct apd_loss *loss)
{
    return json_pack("{s:i,s:I,s:I,s:o}", "class", number, "images", (json_int_t)loss->images,
                     "top1", (json_int_t)loss->top1, "top1_accuracy",
                     apd_show_real((double)loss->top1 / (double)loss->images));
}

static enum apd_code print_json(const struct result *result, struct apd_err *err)
{
    const struct apd_loss *loss = &result->loss;
    double n = (double)loss->images;
    json_t *list = result->by_class != NULL ? json_array() : NULL;
    json_t *object = json_pack(
        "{s:s,s:I,s:I,s:I,s:o,s:o,s:o,s:o,s:o*}", "name", result->name, "images",
        (json_int_t)loss->images, "top1", (json_int_t)loss->top1, "top5", (json_int_t)loss->top5,
        "top1_accuracy", apd_show_real((double)loss->top1 / n), "top5_accuracy",
        apd_show_real((double)loss->top5 / n), "loss", apd_show_real(loss->ce_sum / n), "attack",
        attack_json(result->options), "classes", list);
    enum apd_code rc;

    for (int c = 0; list != NULL && c < result->classes; c++)
        (void)json_array_append_new(list, class_json(c, &result->by_class[c]));
    rc = apd_show_json(object, err);
    json_decref(object);
    return rc;
}

static void print_classes(const struct result *result)
{
    printf("  class  images   right  accuracy\n");
    for (int c = 0; c < result->classes; c++) {
        const struct apd_loss *loss = &result->by_class[c];

        printf("  %5d  %6lld  %6lld  ", c, (long long)loss->images, (long long)loss->top1);
        if (loss->images > 0)
            printf("%6.2f %%\n", 100 * (double)loss->top1 / (double)loss->images);
        else
            printf("       -\n");
    }
}

static void print_text(const struct result *result)
{
    const struct apd_loss *loss = &result->loss;
    double n = (double)loss->images;

    printf("%-12s top-1 %6.2f %%   top-5 %6.2f %%   loss %.4f   %lld images", result->name,
           100 * (double)loss->top1 / n, 100 * (double)loss->top5 / n, loss->ce_sum / n,
           (long long)loss->images);
    if (result->options->attack_restarts > 1)
        printf("   worst of %d restarts", result->options->attack_restarts);
    printf("\n");
    if (result->by_class != NULL)
        print_classes(result);
}

static enum apd_code print_result(const struct result *result, struct apd_err *err)
{
    if (result->options->json)
        APD_TRY(print_json(result, err));
    else
        print_text(result);
    return fflush(stdout) == 0 ? APD_OK : apd_fail_errno(err, "writing the result");
}

/* The images of a suite or of --data, brought to the size that the network was trained with. */
static void sampler_for(const struct apd_eval_context *context, const struct apd_dataset *dataset,
                        struct apd_sampler_settings *out)
{
    const struct apd_job *job = context->job;

    apd_job_sampler(job, APD_SPLIT_TEST, out);
    if (!dataset->encoded)
        return;
    out->channels = job->image.c;
    out->size_px = job->image.h;
    /* ImageNet-C is distributed at its final size, as is what comes of sets of one size. */
    if (context->options->suite == APD_SUITE_C || !job->train->encoded)
        out->resize_px = out->size_px;
}

enum apd_code apd_eval_part(struct apd_eval_context *context, const struct apd_eval_set *set,
                            const char *part, enum apd_bn_set bn, struct apd_loss *by_class,
                            float *logits, struct apd_loss *out, struct apd_err *err)
{
    const struct apd_eval_options *options = context->options;
    struct apd_job *job = context->job;
    struct apd_sampler_settings sampler;
    struct apd_evaluation evaluation = {.net = context->net,
                                        .params = job->params,
                                        .comm = job->comm,
                                        .dataset = set != NULL ? set->dataset : job->test,
                                        .sampler = &sampler,
                                        .batch = (int)job->config.eval.batch,
                                        .images = options->images,
                                        .set = bn,
                                        .attack_steps = options->attack_steps,
                                        .attack_eps = options->attack_eps,
                                        .attack_step = options->attack_step,
                                        .restarts = options->attack_restarts,
                                        .seed = (uint64_t)job->config.seed,
                                        .logits = logits,
                                        .by_class = by_class,
                                        .label_of = set != NULL ? set->label_of : NULL};
    uint64_t images = evaluation.dataset->samples;
    enum apd_code rc;

    if (options->images > 0 && options->images < images)
        images = options->images;
    if (set != NULL && apd_suite_restricts(options->suite))
        evaluation.allowed = set->allowed;
    sampler_for(context, evaluation.dataset, &sampler);
    if (options->predictions != NULL) {
        evaluation.predictions = calloc(images, sizeof *evaluation.predictions);
        if (evaluation.predictions == NULL)
            return apd_fail(err, APD_NOMEM, "predictions of %llu images",
                            (unsigned long long)images);
    }
    rc = apd_evaluate(&evaluation, out, err);
    if (rc == APD_OK && out->images == 0)
        rc = apd_fail(err, APD_DATA, "%s: none of %llu images can be used",
                      set != NULL ? options->data : job->config.data.path,
                      (unsigned long long)images);
    if (rc == APD_OK) {
        apd_eval_file_predictions(&context->predictions, apd_bn_names[bn], part, evaluation.dataset,
                                  evaluation.predictions, images);
        apd_eval_file_part(&context->csv,
                           options->suite != APD_SUITE_NONE ? apd_suite_name(options->suite) : "",
                           apd_bn_names[bn], part, out);
    }
    free(evaluation.predictions);
    return rc;
}

static enum apd_code eval_set(struct apd_eval_context *context, const struct apd_eval_set *set,
                              enum apd_bn_set bn, struct apd_err *err)
{
    const struct apd_eval_options *options = context->options;
    struct apd_job *job = context->job;
    uint64_t images = set != NULL ? set->dataset->samples : job->test->samples;
    struct result result = {.options = options, .classes = job->arch.classes};
    size_t classes = (size_t)job->arch.classes;
    float *logits = NULL;
    enum apd_code rc = APD_OK;

    if (options->images > 0 && options->images < images)
        images = options->images;
    if (options->per_class)
        result.by_class = malloc(classes * sizeof *result.by_class);
    if (options->logits != NULL)
        logits = malloc(images * classes * sizeof *logits);
    if ((options->per_class && result.by_class == NULL) ||
        (options->logits != NULL && logits == NULL))
        APD_GO(apd_fail(err, APD_NOMEM, "results of %llu images", (unsigned long long)images));
    APD_GO(apd_eval_part(context, set, set != NULL ? "data" : "test", bn, result.by_class, logits,
                         &result.loss, err));
    (void)snprintf(result.name, sizeof result.name, "%s", apd_bn_names[bn]);
    if (options->attack_steps > 0)
        (void)snprintf(result.name, sizeof result.name, "%s-pgd%d", apd_bn_names[bn],
                       options->attack_steps);
    if (job->comm->rank == 0) {
        APD_GO(print_result(&result, err));
        if (options->logits != NULL)
            APD_GO(write_logits(job, options->logits, logits, images, err));
    }
done:
    free(result.by_class);
    free(logits);
    return rc;
}

static enum apd_code check_options(const struct apd_eval_options *options, struct apd_err *err)
{
    if (options->logits != NULL && options->sets != 1 << APD_BN_MAIN &&
        options->sets != 1 << APD_BN_AUX)
        return apd_fail(err, APD_USAGE,
                        "--logits writes one BN's logits: add --bn main or --bn aux");
    if (options->logits != NULL && options->attack_restarts > 1)
        return apd_fail(err, APD_USAGE, "--logits writes the logits of one attack, not of %d",
                        options->attack_restarts);
    if (options->suite != APD_SUITE_NONE && options->data == NULL)
        return apd_fail(err, APD_USAGE, "--suite needs --data, the suite's folder");
    if (options->suite != APD_SUITE_NONE && (options->logits != NULL || options->per_class))
        return apd_fail(err, APD_USAGE, "--logits and --per-class are of one set, not of a suite");
    if (options->chart != NULL && options->suite != APD_SUITE_C)
        return apd_fail(err, APD_USAGE, "--chart shows corruptions: it needs --suite imagenet-c");
    if (options->chart != NULL && options->sets != 1 << APD_BN_MAIN &&
        options->sets != 1 << APD_BN_AUX)
        return apd_fail(err, APD_USAGE, "--chart shows one BN: add --bn main or --bn aux");
    return APD_OK;
}

static enum apd_code make_context(struct apd_eval_context *context, struct apd_err *err)
{
    struct apd_job *job = context->job;
    char path[APD_RUN_PATH_MAX], sha256[APD_SHA256_HEX];

    APD_TRY(find_checkpoint(job, context->options, path, sha256, err));
    APD_TRY(apd_job_open_data(job, err));
    APD_TRY(apd_job_open_device(job, err));
    APD_TRY(apd_job_make_params(job, err));
    APD_TRY(apd_checkpoint_load_model(path, sha256[0] != '\0' ? sha256 : NULL,
                                      job->config.optim.ema_decay > 0, job->params, err));
    APD_TRY(apd_net_create(job->params, (int)job->config.eval.batch, 1, 1, &context->net, err));
    apd_net_set_bn_eps(context->net, job->config.bn.eps);
    if (job->comm->rank != 0)
        return APD_OK;
    APD_TRY(apd_eval_file_open(context->options->predictions, APD_PREDICTIONS_HEADER,
                               &context->predictions, err));
    return apd_eval_file_open(context->options->csv, APD_PARTS_HEADER, &context->csv, err);
}

enum apd_code apd_tool_eval(struct apd_job *job, const struct apd_eval_options *options,
                            struct apd_err *err)
{
    struct apd_eval_context context = {.job = job, .options = options};
    struct apd_eval_set set = {0};
    int is_set = options->data != NULL && options->suite == APD_SUITE_NONE;
    enum apd_code rc;

    APD_TRY(check_options(options, err));
    APD_GO(make_context(&context, err));
    if (is_set)
        APD_GO(apd_eval_set_open(job, options->data, &set, err));
    for (enum apd_bn_set bn = 0; bn < (job->params->has_aux ? APD_BN_SETS : 1); bn++) {
        if (!(options->sets & 1 << bn))
            continue;
        if (options->suite != APD_SUITE_NONE)
            APD_GO(apd_eval_suite(&context, bn, err));
        else
            APD_GO(eval_set(&context, is_set ? &set : NULL, bn, err));
    }
    APD_GO(apd_eval_file_finish(&context.predictions, err));
    APD_GO(apd_eval_file_finish(&context.csv, err));
done:
    apd_eval_file_drop(&context.predictions);
    apd_eval_file_drop(&context.csv);
    apd_eval_set_close(&set);
    apd_net_destroy(&context.net);
    return rc;
}
