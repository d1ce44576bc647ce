/* advprop eval --suite: the parts of a suite one after another, and what they come to. */
#include "worker/tool.h"

#include "worker/show.h"
#include "worker/suite.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <sys/stat.h>

static int is_folder(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static enum apd_code eval_folder(struct apd_eval_context *context, const char *path,
                                 const char *part, enum apd_bn_set bn, struct apd_loss *out,
                                 struct apd_err *err)
{
    struct apd_eval_set set;
    enum apd_code rc;

    APD_TRY(apd_eval_set_open(context->job, path, &set, err));
    rc = apd_eval_part(context, &set, part, bn, NULL, NULL, out, err);
    apd_eval_set_close(&set);
    return rc;
}

static enum apd_code print_document(json_t *object, struct apd_err *err)
{
    enum apd_code rc = apd_show_json(object, err);

    json_decref(object);
    if (rc == APD_OK && fflush(stdout) != 0)
        rc = apd_fail_errno(err, "writing the result");
    return rc;
}

/* ---------------------------------------------------------------- imagenet-c */

static enum apd_code eval_corruptions(struct apd_eval_context *context, enum apd_bn_set bn,
                                      struct apd_suite_c *out, struct apd_err *err)
{
    char path[4096], part[64];
    int parts = 0;

    for (int c = 0; c < APD_CORRUPTIONS; c++)
        for (int s = 0; s < APD_SEVERITIES; s++) {
            (void)snprintf(part, sizeof part, "%s/%d", apd_corruptions[c].name, s + 1);
            (void)snprintf(path, sizeof path, "%.4000s/%s", context->options->data, part);
            if (!is_folder(path))
                continue;
            APD_TRY(eval_folder(context, path, part, bn, &out->part[c][s], err));
            parts++;
        }
    if (parts == 0)
        return apd_fail(err, APD_DATA, "%s: expected folders CORRUPTION/SEVERITY, found none",
                        context->options->data);
    return APD_OK;
}

static json_t *corruption_json(const struct apd_suite_c *results, int c)
{
    json_t *errors = json_array();

    for (int s = 0; s < APD_SEVERITIES; s++) {
        const struct apd_loss *part = &results->part[c][s];

        (void)json_array_append_new(errors,
                                    apd_show_real(1 - (double)part->top1 / (double)part->images));
    }
    return json_pack("{s:s,s:o,s:o}", "name", apd_corruptions[c].name, "errors", errors,
                     "mean_error", apd_show_real(apd_corruption_error(results, c)));
}

static enum apd_code print_c_json(const struct apd_suite_c *results, enum apd_bn_set bn,
                                  struct apd_err *err)
{
    json_t *list = json_array();
    int count;
    double mean = apd_suite_c_mean(results, &count);

    for (int c = 0; c < APD_CORRUPTIONS; c++)
        if (!isnan(apd_corruption_error(results, c)))
            (void)json_array_append_new(list, corruption_json(results, c));
    return print_document(json_pack("{s:s,s:s,s:o,s:i,s:o,s:o}", "name", apd_bn_names[bn], "suite",
                                    "imagenet-c", "corruptions", list, "counted", count,
                                    "mean_error", apd_show_real(mean), "mce",
                                    apd_show_real(apd_suite_c_mce(results))),
                          err);
}

static void print_c_text(const struct apd_suite_c *results, enum apd_bn_set bn)
{
    int count;
    double mean = apd_suite_c_mean(results, &count), mce = apd_suite_c_mce(results);

    printf("%s BN: error in %%\n%-18s %7s %7s %7s %7s %7s %7s\n", apd_bn_names[bn], "  severity",
           "1", "2", "3", "4", "5", "mean");
    for (int c = 0; c < APD_CORRUPTIONS; c++) {
        if (isnan(apd_corruption_error(results, c)))
            continue;
        printf("%-18s", apd_corruptions[c].name);
        for (int s = 0; s < APD_SEVERITIES; s++) {
            const struct apd_loss *part = &results->part[c][s];

            if (part->images > 0)
                printf(" %7.2f", 100 * (1 - (double)part->top1 / (double)part->images));
            else
                printf(" %7s", "-");
        }
        printf(" %7.2f\n", 100 * apd_corruption_error(results, c));
    }
    if (count > 0)
        printf("mean of %d corruptions %.2f, unnormalised\n", count, 100 * mean);
    if (!isnan(mce))
        printf("mCE %.2f\n", 100 * mce);
}

static enum apd_code eval_c(struct apd_eval_context *context, enum apd_bn_set bn,
                            struct apd_err *err)
{
    struct apd_suite_c results = {0};

    APD_TRY(eval_corruptions(context, bn, &results, err));
    if (context->job->comm->rank != 0)
        return APD_OK;
    if (context->options->chart != NULL)
        APD_TRY(apd_suite_c_chart(&results, apd_bn_names[bn], context->options->chart, err));
    if (context->options->json)
        return print_c_json(&results, bn, err);
    print_c_text(&results, bn);
    return fflush(stdout) == 0 ? APD_OK : apd_fail_errno(err, "writing the result");
}

/* ---------------------------------------------------------------- suites of one folder */

enum apd_code apd_eval_suite(struct apd_eval_context *context, enum apd_bn_set bn,
                             struct apd_err *err)
{
    const struct apd_eval_options *options = context->options;
    const char *suite = apd_suite_name(options->suite);
    struct apd_loss loss;
    double n;

    if (options->suite == APD_SUITE_C)
        return eval_c(context, bn, err);
    APD_TRY(eval_folder(context, options->data, suite, bn, &loss, err));
    if (context->job->comm->rank != 0)
        return APD_OK;
    n = (double)loss.images;
    if (options->json)
        return print_document(json_pack("{s:s,s:s,s:I,s:I,s:I,s:o,s:o}", "name", apd_bn_names[bn],
                                        "suite", suite, "images", (json_int_t)loss.images, "top1",
                                        (json_int_t)loss.top1, "top5", (json_int_t)loss.top5,
                                        "top1_accuracy", apd_show_real((double)loss.top1 / n),
                                        "loss", apd_show_real(loss.ce_sum / n)),
                              err);
    printf("%-12s %s: top-1 %6.2f %%   error %6.2f %%   %lld images\n", apd_bn_names[bn], suite,
           100 * (double)loss.top1 / n, 100 * (1 - (double)loss.top1 / n), (long long)loss.images);
    return fflush(stdout) == 0 ? APD_OK : apd_fail_errno(err, "writing the result");
}
