#include "daemon/history.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t number(const json_t *record, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(record, key));
}

/* 64-bit sums are 16 hex digits. */
static uint64_t sum(const json_t *record, const char *key)
{
    const char *text = json_string_value(json_object_get(record, key));

    return text == NULL ? 0 : strtoull(text, NULL, 16);
}

static void recall_receipt(const json_t *record, struct apd_coord *coord)
{
    Advprop__V1__Receipt receipt = ADVPROP__V1__RECEIPT__INIT;

    receipt.epoch = (uint32_t)number(record, "epoch");
    receipt.samples = number(record, "samples");
    receipt.samples_expected = number(record, "samples_expected");
    receipt.sum = sum(record, "sum");
    receipt.sum_expected = sum(record, "sum_expected");
    receipt.complete = json_is_true(json_object_get(record, "complete"));
    receipt.match = json_is_true(json_object_get(record, "match"));
    apd_coord_recall_receipt(coord, &receipt);
}

static void recall_evaluation(const json_t *record, struct apd_coord *coord)
{
    Advprop__V1__Evaluation evaluation = ADVPROP__V1__EVALUATION__INIT;
    const char *name = json_string_value(json_object_get(record, "name"));

    if (name == NULL)
        return;
    evaluation.name = (char *)name;
    evaluation.epoch = (uint32_t)number(record, "epoch");
    evaluation.step = number(record, "step");
    evaluation.images = number(record, "images");
    evaluation.top1 = number(record, "top1");
    evaluation.top5 = number(record, "top5");
    evaluation.loss = json_number_value(json_object_get(record, "loss"));
    apd_coord_recall_evaluation(coord, &evaluation);
}

static void recall_line(const char *line, size_t length, uint64_t step, struct apd_coord *coord)
{
    int is_receipt = strstr(line, "\"kind\":\"receipt\"") != NULL;
    int is_evaluation = strstr(line, "\"kind\":\"evaluation\"") != NULL;
    int is_bad = strstr(line, "\"kind\":\"bad_sample\"") != NULL;
    json_t *record;

    if (!is_receipt && !is_evaluation && !is_bad) /* most lines: steps */
        return;
    record = json_loadb(line, length, 0, NULL);
    if (record == NULL)
        return;
    if (is_bad)
        apd_coord_recall_bad_sample(coord, number(record, "sample"));
    else if (number(record, "step") > step)
        ; /* of steps that are done again */
    else if (is_receipt)
        recall_receipt(record, coord);
    else
        recall_evaluation(record, coord);
    json_decref(record);
}

enum apd_code apd_history_recall(const char *path, uint64_t step, struct apd_coord *coord,
                                 struct apd_err *err)
{
    FILE *file = fopen(path, "re");
    enum apd_code rc = APD_OK;
    char *line = NULL;
    size_t room = 0;
    ssize_t length;

    if (file == NULL)
        return errno == ENOENT ? APD_OK : apd_fail_errno(err, "opening %s", path);
    while ((length = getline(&line, &room, file)) > 0)
        recall_line(line, (size_t)length, step, coord);
    if (ferror(file))
        rc = apd_fail_errno(err, "reading %s", path);
    free(line);
    fclose(file);
    return rc;
}
