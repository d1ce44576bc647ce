/* status.json: what GetStatus tells, plus where the coordinator listens and how it ended. */
#ifndef APD_DAEMON_STATUS_FILE_H
#define APD_DAEMON_STATUS_FILE_H

#include "base/err.h"
#include "proto/advprop.pb-c.h"

/* Replaces run_dir/status.json; readers see the old or the new one. Without fsync. `exit_status` is
 * written only if the run has ended. */
APD_MUST_USE enum apd_code apd_status_file_write(const char *run_dir,
                                                 const Advprop__V1__Status *status, double date_s,
                                                 int exit_status, struct apd_err *err);

#endif
