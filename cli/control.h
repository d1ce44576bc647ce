/* Requests that change a run: drain, stop, checkpoint. Used by the commands of these names and by
 * the supervisor of `advprop train`. */
#ifndef APD_CLI_CONTROL_H
#define APD_CLI_CONTROL_H

#include "base/err.h"
#include "proto/advprop.pb-c.h"

/* Answered at once. */
APD_MUST_USE enum apd_code apd_control_drain(const char *run_dir, struct apd_err *err);
APD_MUST_USE enum apd_code apd_control_stop(const char *run_dir, struct apd_err *err);

/* Waits until the checkpoint is committed, at most timeout_ms. *out belongs to the caller:
 * advprop__v1__server_reply__free_unpacked(). */
APD_MUST_USE enum apd_code apd_control_checkpoint(const char *run_dir, int timeout_ms,
                                                  Advprop__V1__ServerReply **out,
                                                  struct apd_err *err);

#endif
