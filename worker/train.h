/* A worker's run: join, take up where the newest checkpoint is, train to the end, evaluate. */
#ifndef APD_WORKER_TRAIN_H
#define APD_WORKER_TRAIN_H

#include "base/err.h"
#include "proto/wireup.h"
#include "worker/job.h"

/* job: with config, run_dir and communicator. wireup: from the coordinator. APD_CANCELED: stopped
 * by request (drained or stopped); the other codes as in err.h. Tells the coordinator how it ended.
 */
APD_MUST_USE enum apd_code apd_train(struct apd_job *job, const struct apd_wireup *wireup, int rank,
                                     struct apd_err *err);

/* Async-signal-safe: asks for a drain, a second time for a stop. */
void apd_train_signal(void);

#endif
