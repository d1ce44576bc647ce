/* See report.h. */
#include "daemon/report.h"

#include "daemon/coord_private.h"
#include "proto/frame.h"

#include <stdlib.h>

#define REPLY_ROOM 64 /* bytes of a ServerReply around the status */

enum apd_code apd_report_init(struct apd_report *report, uint32_t workers, struct apd_err *err)
{
    *report = (struct apd_report){0};
    report->worker = calloc(workers, sizeof *report->worker);
    report->worker_at = calloc(workers, sizeof *report->worker_at);
    if (report->worker == NULL || report->worker_at == NULL) {
        apd_report_fini(report);
        return apd_fail(err, APD_NOMEM, "a report on %u workers", workers);
    }
    for (uint32_t i = 0; i < workers; i++)
        report->worker_at[i] = &report->worker[i];
    return APD_OK;
}

void apd_report_fini(struct apd_report *report)
{
    free(report->worker);
    free(report->worker_at);
    *report = (struct apd_report){0};
}

void apd_report_checkpoint(const struct apd_commit *commit, Advprop__V1__CheckpointInfo *out)
{
    advprop__v1__checkpoint_info__init(out);
    out->step = commit->step;
    out->epoch = commit->epoch;
    out->path = (char *)commit->path;
    out->sha256 = (char *)commit->sha256;
    out->bytes = commit->bytes;
    out->generation = commit->generation;
    out->date_s = commit->date_s;
}

static void fill_workers(struct apd_report *report, const struct apd_coord *coord)
{
    uint64_t now = coord_now(coord);

    for (uint32_t i = 0; i < coord->roster.count; i++) {
        const struct apd_worker *from = &coord->roster.worker[i];
        Advprop__V1__WorkerStatus *to = &report->worker[i];

        advprop__v1__worker_status__init(to);
        to->rank = i + 1;
        to->host = (char *)from->host;
        to->pid = from->pid;
        to->phase = from->phase;
        to->step = from->step;
        to->lane_first = from->lane_first;
        to->lane_count = from->lane_count;
        to->silent_ms = from->joined ? (double)(now - from->heard_ms) : 0;
        to->images_per_s = from->images_per_s;
        to->data_wait_share = from->data_wait_share;
        if (report->status.data_wait_share < to->data_wait_share)
            report->status.data_wait_share = to->data_wait_share;
        to->backend = (char *)from->backend;
        to->rss_bytes = from->rss_bytes;
        to->detail = (char *)from->detail;
        to->connected = from->conn != 0;
    }
    report->status.n_worker = coord->roster.count;
    report->status.worker = report->worker_at;
}

/* Finished epochs, then the one that is being trained. */
static void fill_receipts(struct apd_report *report, struct apd_coord *coord)
{
    Advprop__V1__Status *status = &report->status;
    struct apd_metrics *metrics = &coord->metrics;
    size_t n = 0;

    for (; n < metrics->receipts; n++)
        report->receipt_at[n] = &metrics->receipt[n];
    if (status->dataset_samples > 0 && status->step < status->steps_total) {
        advprop__v1__receipt__init(&report->current);
        report->current.epoch = status->epoch;
        report->current.samples = status->position % status->dataset_samples;
        report->current.samples_expected = status->dataset_samples;
        report->receipt_at[n++] = &report->current;
    }
    status->n_receipt = n;
    status->receipt = report->receipt_at;
}

static void fill_evaluations(struct apd_report *report, struct apd_metrics *metrics)
{
    for (uint32_t i = 0; i < metrics->evaluations; i++)
        report->evaluation_at[i] = &metrics->evaluation[i];
    report->status.n_evaluation = metrics->evaluations;
    report->status.evaluation = report->evaluation_at;
}

static void fill_checkpoints(struct apd_report *report, const struct apd_checkpoints *list)
{
    const struct apd_commit *newest = apd_checkpoints_newest(list);
    const struct apd_commit *best = apd_checkpoints_best(list);

    if (newest != NULL) {
        apd_report_checkpoint(newest, &report->checkpoint);
        report->status.checkpoint = &report->checkpoint;
    }
    if (best != NULL) {
        apd_report_checkpoint(best, &report->best);
        report->status.best = &report->best;
    }
}

static void fill_progress(struct apd_report *report, const struct apd_coord *coord)
{
    Advprop__V1__Status *status = &report->status;
    const struct apd_metrics *metrics = &coord->metrics;
    uint64_t samples = coord->roster.facts.samples;
    double epochs, milestones[APD_MILESTONES];

    apd_config_budget(&coord->config, &epochs, milestones);
    status->step = coord_step(coord);
    status->steps_total = coord->steps_total;
    status->position = status->step * (uint64_t)coord->config.train.batch;
    status->dataset_samples = samples;
    status->epoch = samples > 0 ? (uint32_t)(status->position / samples) : 0;
    status->epochs_total = (uint32_t)(epochs + 0.999999);
    status->batch = (uint32_t)coord->config.train.batch;
    status->lanes = (uint32_t)coord->config.train.lanes;
    if (metrics->steps > 0) {
        report->last = metrics->last;
        status->last = &report->last;
    }
    if (!apd_state_ended(coord->state))
        status->images_per_s = apd_metrics_images_per_s(metrics, coord_now(coord));
    if (status->images_per_s > 0 && status->steps_total > status->step)
        status->eta_s =
            (double)(status->steps_total - status->step) * status->batch / status->images_per_s;
    apd_metrics_means(metrics, &status->loss_clean_mean, &status->loss_noise_mean,
                      &status->loss_adv_mean);
}

void apd_report_status(struct apd_report *report, struct apd_coord *coord)
{
    Advprop__V1__Status *status = &report->status;

    advprop__v1__status__init(status);
    status->run_dir = coord->run_dir;
    status->state = coord->state;
    status->generation = coord->generation;
    status->mode = (char *)(uintptr_t)apd_config_mode_name(&coord->config);
    status->model = coord->config.model.arch;
    status->uptime_s = (double)(coord_now(coord) - coord->started_ms) / 1000;
    status->first_cause = coord->first_cause;
    status->notice = coord->notice;
    status->config_digest = coord->config_digest;
    status->bad_samples = coord->bad.count;
    status->version = coord->version;
    fill_progress(report, coord);
    fill_workers(report, coord);
    fill_receipts(report, coord);
    fill_evaluations(report, &coord->metrics);
    fill_checkpoints(report, &coord->checkpoints);
    while (status->n_worker > 0 &&
           advprop__v1__status__get_packed_size(status) + REPLY_ROOM > APD_FRAME_CAP_ACCEPTED)
        status->n_worker -= status->n_worker > 16 ? 16 : status->n_worker;
}
