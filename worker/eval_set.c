#include "worker/eval_set.h"

#include "base/log.h"
#include "worker/index/index.h"
#include "worker/index/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void say(void *context, const char *line)
{
    (void)context;
    apd_log(APD_LOG_WARN, line, "%s", "");
}

/* A manifest in the folder for temporary files, for as long as it takes to open it. */
static enum apd_code open_without_index(const char *source, uint32_t classes,
                                        struct apd_dataset **out, struct apd_err *err)
{
    const char *folder = getenv("TMPDIR");
    struct apd_reading reading = {0};
    struct apd_index_report report = {0};
    char path[4096];
    struct apd_index_settings settings = {
        .src = source, .out = path, .threads = 1, .reading = &reading, .say = say};
    enum apd_code rc;

    (void)snprintf(path, sizeof path, "%.2000s/advprop-index-XXXXXX",
                   folder != NULL ? folder : "/tmp");
    if (mkdtemp(path) == NULL)
        return apd_fail_errno(err, "making folder %s", path);
    strcat(path, "/index");
    rc = apd_index(&settings, &report, err);
    if (rc == APD_OK)
        rc = apd_dataset_open("images", path, APD_SPLIT_TEST, classes, out, err);
    (void)unlink(path);
    path[strlen(path) - strlen("/index")] = '\0';
    (void)rmdir(path);
    free(report.path);
    return rc;
}

static enum apd_code open_images(const char *source, uint32_t classes, struct apd_dataset **out,
                                 struct apd_err *err)
{
    struct apd_err none;
    char *index = NULL;
    enum apd_code rc;

    if (apd_source_find_index(source, &index, &none) != APD_OK)
        return open_without_index(source, classes, out, err);
    rc = apd_dataset_open("images", index, APD_SPLIT_TEST, classes, out, err);
    free(index);
    return rc;
}

/* The network's class of that name, or -1. */
static int32_t class_named(const struct apd_job *job, const char *name)
{
    char known[256];

    for (uint32_t c = 0; c < job->train->classes; c++) {
        apd_dataset_class(job->train, c, known, sizeof known);
        if (strcmp(known, name) == 0)
            return (int32_t)c;
    }
    return -1;
}

static enum apd_code match_classes(const struct apd_job *job, struct apd_eval_set *set,
                                   const char *source, struct apd_err *err)
{
    char name[256];

    set->label_of = calloc(set->dataset->classes, sizeof *set->label_of);
    set->allowed = calloc(job->train->classes, sizeof *set->allowed);
    if (set->label_of == NULL || set->allowed == NULL)
        return apd_fail(err, APD_NOMEM, "%u classes", set->dataset->classes);
    for (uint32_t c = 0; c < set->dataset->classes; c++) {
        int32_t known;

        apd_dataset_class(set->dataset, c, name, sizeof name);
        known = class_named(job, name);
        if (known < 0)
            return apd_fail(err, APD_DATA, "%s: class %s is none of the %u that the network knows",
                            source, name, job->train->classes);
        set->label_of[c] = known;
        set->allowed[known] = 1;
    }
    return APD_OK;
}

enum apd_code apd_eval_set_open(const struct apd_job *job, const char *source,
                                struct apd_eval_set *out, struct apd_err *err)
{
    *out = (struct apd_eval_set){0};
    /* The set's own number of classes: it may have fewer than the network, or others. */
    if (open_images(source, 0, &out->dataset, err) == APD_OK &&
        match_classes(job, out, source, err) == APD_OK)
        return APD_OK;
    apd_eval_set_close(out);
    return err->code;
}

void apd_eval_set_close(struct apd_eval_set *set)
{
    apd_dataset_close(&set->dataset);
    free(set->label_of);
    free(set->allowed);
    *set = (struct apd_eval_set){0};
}
