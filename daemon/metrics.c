/* See metrics.h. */
#include "daemon/metrics.h"

#include <stdio.h>
#include <string.h>

#define SPEED_WINDOW_MS 5000
#define MEAN_WINDOW_MS  1000

void apd_metrics_init(struct apd_metrics *metrics)
{
    memset(metrics, 0, sizeof *metrics);
    advprop__v1__step_report__init(&metrics->last);
}

int apd_metrics_step(struct apd_metrics *metrics, uint64_t now_ms,
                     const Advprop__V1__StepReport *report)
{
    struct apd_metrics_step *slot;

    if (report->step <= metrics->last.step)
        return 0;
    metrics->last = *report;
    metrics->wait_ms += report->data_wait_ms;
    metrics->wait_of_ms += report->step_ms;
    slot = &metrics->step[metrics->steps++ % APD_METRICS_STEPS];
    *slot = (struct apd_metrics_step){.at_ms = now_ms,
                                      .position = report->position,
                                      .clean = report->loss_clean,
                                      .noise = report->loss_noise,
                                      .adv = report->loss_adv};
    return 1;
}

/* The report `back` places before the newest one; NULL if it is no longer (or not yet) there. */
static const struct apd_metrics_step *step_back(const struct apd_metrics *metrics, uint64_t back)
{
    if (back >= metrics->steps || back >= APD_METRICS_STEPS)
        return NULL;
    return &metrics->step[(metrics->steps - 1 - back) % APD_METRICS_STEPS];
}

double apd_metrics_images_per_s(const struct apd_metrics *metrics, uint64_t now_ms)
{
    const struct apd_metrics_step *newest = step_back(metrics, 0), *oldest = newest, *step;
    uint64_t span_ms;

    for (uint64_t back = 1; (step = step_back(metrics, back)) != NULL; back++) {
        if (back > 1 && step->at_ms + SPEED_WINDOW_MS < now_ms)
            break;
        oldest = step;
    }
    span_ms = newest != NULL ? newest->at_ms - oldest->at_ms : 0;
    if (span_ms == 0 || newest->at_ms + SPEED_WINDOW_MS + 2 * span_ms < now_ms)
        return 0;
    return 1000.0 * (double)(newest->position - oldest->position) / (double)span_ms;
}

double apd_metrics_take_wait_share(struct apd_metrics *metrics)
{
    double share = metrics->wait_of_ms > 0 ? metrics->wait_ms / metrics->wait_of_ms : 0;

    metrics->wait_ms = metrics->wait_of_ms = 0;
    return share;
}

void apd_metrics_means(const struct apd_metrics *metrics, double *out_clean, double *out_noise,
                       double *out_adv)
{
    const struct apd_metrics_step *newest = step_back(metrics, 0), *step;
    double clean = 0, noise = 0, adv = 0, n = 0;

    for (uint64_t back = 0; (step = step_back(metrics, back)) != NULL; back++) {
        if (step->at_ms + MEAN_WINDOW_MS < newest->at_ms)
            break;
        clean += step->clean;
        noise += step->noise;
        adv += step->adv;
        n++;
    }
    *out_clean = n > 0 ? clean / n : 0;
    *out_noise = n > 0 ? noise / n : 0;
    *out_adv = n > 0 ? adv / n : 0;
}

void apd_metrics_evaluation(struct apd_metrics *metrics, const Advprop__V1__Evaluation *evaluation)
{
    uint32_t i = metrics->evaluations;

    if (i == APD_METRICS_EVALUATIONS) {
        i--;
        memmove(metrics->evaluation, metrics->evaluation + 1, i * sizeof *metrics->evaluation);
        memmove(metrics->evaluation_name, metrics->evaluation_name + 1,
                i * sizeof *metrics->evaluation_name);
    } else {
        metrics->evaluations++;
    }
    metrics->evaluation[i] = *evaluation;
    (void)snprintf(metrics->evaluation_name[i], sizeof metrics->evaluation_name[i], "%s",
                   evaluation->name);
    for (uint32_t k = 0; k < metrics->evaluations; k++) /* the names have moved */
        metrics->evaluation[k].name = metrics->evaluation_name[k];
}

Advprop__V1__Receipt *apd_metrics_find_receipt(struct apd_metrics *metrics, uint32_t epoch)
{
    for (uint32_t i = 0; i < metrics->receipts; i++)
        if (metrics->receipt[i].epoch == epoch)
            return &metrics->receipt[i];
    return NULL;
}

Advprop__V1__Receipt *apd_metrics_receipt(struct apd_metrics *metrics,
                                          const Advprop__V1__Receipt *receipt)
{
    Advprop__V1__Receipt *place = apd_metrics_find_receipt(metrics, receipt->epoch);

    if (place == NULL && metrics->receipts == APD_METRICS_RECEIPTS) {
        memmove(metrics->receipt, metrics->receipt + 1,
                (APD_METRICS_RECEIPTS - 1) * sizeof *metrics->receipt);
        metrics->receipts--;
    }
    if (place == NULL)
        place = &metrics->receipt[metrics->receipts++];
    *place = *receipt;
    return place;
}
