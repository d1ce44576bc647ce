/* Checkpoint files that no record names: a writer was killed before its commit. They do not exist
 * as far as the run is concerned and are removed at the next start, under the run directory's lock.
 */
#ifndef APD_DAEMON_SWEEP_H
#define APD_DAEMON_SWEEP_H

#include "base/err.h"
#include "proto/commit_log.h"

/* Removes from run_dir/checkpoints what is named like ours: step-N-gen-N.safetensors.tmp.PID
 * always, step-N-gen-N.safetensors if it is not in `all` (every record of the log) and the log is
 * sound: has records and no line that was passed over. Other files stay. Logs each removal.
 * Blocking. */
APD_MUST_USE enum apd_code apd_sweep(const char *run_dir, const struct apd_commit_list *all,
                                     struct apd_err *err);

#endif
