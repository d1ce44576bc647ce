#include "worker/eval_set.h"

#include "base/log.h"
#include "worker/index/open_images.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void say(void *context, const char *line)
{
    (void)context;
    apd_log(APD_LOG_WARN, line, "%s", "");
}

static enum apd_code open_images(const char *source, struct apd_dataset **out, struct apd_err *err)
{
    struct apd_reading reading = {0};
    struct apd_index_settings settings = {
        .src = source, .threads = 1, .reading = &reading, .say = say};

    return apd_open_images(&settings, out, err);
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
    if (open_images(source, &out->dataset, err) == APD_OK &&
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
