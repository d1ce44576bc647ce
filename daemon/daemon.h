/* The coordinator's loop: connects the logic (coord.h) with sockets, files, signals and the clock.
 *
 * One thread, one libuv loop; nothing on it blocks for more than some milliseconds. Knows no MPI.
 */
#ifndef APD_DAEMON_DAEMON_H
#define APD_DAEMON_DAEMON_H

#include "base/err.h"
#include "daemon/prepare.h"
#include "proto/wireup.h"

#include <stdint.h>

struct apd_daemon;

/* Listens for workers and clients and opens the records; `prepared` is borrowed for life. Fills
 * *out_wireup, which is to be sent to the workers. `with_signals`: TERM, INT, USR1 and USR2 drain.
 */
APD_MUST_USE enum apd_code apd_daemon_create(const struct apd_prepared *prepared, uint32_t workers,
                                             int local_only, int with_signals,
                                             struct apd_daemon **out, struct apd_wireup *out_wireup,
                                             struct apd_err *err);

/* Runs until the run is over. Returns the exit status; *out_abort: workers are left that cannot end
 * by themselves (status.json is on the disk by then). */
int apd_daemon_run(struct apd_daemon *daemon, int *out_abort);

void apd_daemon_destroy(struct apd_daemon **daemon);

#endif
