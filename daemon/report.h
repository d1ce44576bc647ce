/* Builds Status and Shards messages from the coordinator's state. The memory is planned once, so
 * that a report costs no allocation; the strings in it are borrowed from the coordinator. Pure. */
#ifndef APD_DAEMON_REPORT_H
#define APD_DAEMON_REPORT_H

#include "base/err.h"
#include "daemon/metrics.h"
#include "proto/advprop.pb-c.h"
#include "proto/commit_log.h"

#include <stdint.h>

struct apd_coord;

struct apd_report {
    Advprop__V1__Status status;
    Advprop__V1__WorkerStatus *worker, **worker_at; /* [workers] */
    Advprop__V1__Receipt current, *receipt_at[APD_METRICS_RECEIPTS + 1];
    Advprop__V1__Evaluation *evaluation_at[APD_METRICS_EVALUATIONS];
    Advprop__V1__StepReport last;
    Advprop__V1__CheckpointInfo checkpoint, best;
};

APD_MUST_USE enum apd_code apd_report_init(struct apd_report *report, uint32_t workers,
                                           struct apd_err *err);
void apd_report_fini(struct apd_report *report);

/* Fills report->status, within APD_FRAME_CAP_ACCEPTED bytes of a reply: the list of workers is cut
 * if it is longer than that (several hundred workers). */
void apd_report_status(struct apd_report *report, struct apd_coord *coord);

/* Borrowed strings. */
void apd_report_checkpoint(const struct apd_commit *commit, Advprop__V1__CheckpointInfo *out);

#endif
