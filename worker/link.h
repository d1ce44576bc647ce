/* The worker's line to the coordinator: a thread of its own with a libuv loop.
 *
 * It joins with the job secret, sends a heartbeat every 500 ms (phase, step, speed), carries
 * reports up and brings commands down. The step thread calls the functions below; none of them
 * blocks except apd_link_open, apd_link_commit and apd_link_close, which have deadlines. Reports
 * are copied into a bounded queue; step reports are dropped (oldest first) when the coordinator
 * reads too slowly, all other messages never are. */
#ifndef APD_WORKER_LINK_H
#define APD_WORKER_LINK_H

#include "base/err.h"
#include "proto/advprop.pb-c.h"
#include "proto/wireup.h"

#include <stdint.h>

struct apd_link;

struct apd_link_assignment {
    uint64_t generation;
    uint32_t worker, workers, lane_first, lane_count;
    int resume; /* whether to start from `checkpoint` */
    uint64_t resume_step;
    char resume_path[1024]; /* as in CheckpointInfo: relative to the run directory */
    char resume_sha256[65];
    char plan_digest[65];
};

/* Connects to one of the addresses, sends `join` (secret is filled in here), waits for the
 * assignment at most timeout_ms. APD_PEER: cannot connect or lost; APD_CONFIG with the
 * coordinator's words: refused; APD_TIMEOUT. */
APD_MUST_USE enum apd_code apd_link_open(const struct apd_wireup *wireup,
                                         const Advprop__V1__Join *join, uint64_t timeout_ms,
                                         struct apd_link **out,
                                         struct apd_link_assignment *out_assignment,
                                         struct apd_err *err);

/* Atomic stores, cheap enough for every phase change. */
void apd_link_phase(struct apd_link *link, Advprop__V1__Phase phase);
void apd_link_progress(struct apd_link *link, uint64_t step, double images_per_s,
                       double data_wait_share);
/* What the phase waits for, until the next change of phase. Copied. */
void apd_link_detail(struct apd_link *link, const char *text);

void apd_link_report_step(struct apd_link *link, const Advprop__V1__StepReport *report);
void apd_link_report_receipt(struct apd_link *link, const Advprop__V1__Receipt *receipt);
void apd_link_report_evaluation(struct apd_link *link, const Advprop__V1__Evaluation *evaluation);
void apd_link_report_bad_sample(struct apd_link *link, const Advprop__V1__BadSample *bad);
/* Something that people should know about how the run began. */
void apd_link_report_notice(struct apd_link *link, const char *text);

/* Commands that have come since the last call, as a set of APD_LINK_* bits. DRAIN, STOP and LOST
 * stay set; CHECKPOINT is cleared by reading. */
enum { APD_LINK_CHECKPOINT = 1, APD_LINK_DRAIN = 2, APD_LINK_STOP = 4, APD_LINK_LOST = 8 };
unsigned apd_link_commands(struct apd_link *link);

/* Reports a written checkpoint and waits until the coordinator has committed or refused it, at most
 * timeout_ms. Called from the save thread. APD_PEER: the coordinator is gone; APD_CANCELED: refused
 * (another generation owns the run). */
APD_MUST_USE enum apd_code apd_link_commit(struct apd_link *link,
                                           const Advprop__V1__CheckpointWritten *written,
                                           uint64_t timeout_ms, struct apd_err *err);

/* The shards of one lane in one epoch as the coordinator assigned them, so that the worker can
 * check its own plan against them. Returns the number of shards (at most cap are written), -1 while
 * not known. The last two epochs assigned are kept. */
int apd_link_shards(struct apd_link *link, uint32_t epoch, uint32_t lane, uint32_t cap,
                    uint32_t *out_shards, int *out_truncated);

/* Sends Leaving (err NULL) or Failure, flushes for at most a second, joins the thread, frees. NULL
 * ok. */
void apd_link_close(struct apd_link **link, int exit_status, const struct apd_err *err);

#endif
