/* What earlier starts of the run have reported: finished epochs' receipts and evaluations, read
 * back from metrics.jsonl, and bad samples, from bad_samples.jsonl, so that status and the last
 * report cover the whole run. Blocking, before the loop runs. */
#ifndef APD_DAEMON_HISTORY_H
#define APD_DAEMON_HISTORY_H

#include "base/err.h"
#include "daemon/coord.h"

#include <stdint.h>

/* Tells `coord` the records of steps up to `step` (where the run goes on; later ones will come
 * again) and the bad samples of any step. Torn and foreign lines are passed over; no file: nothing
 * to tell. */
APD_MUST_USE enum apd_code apd_history_recall(const char *path, uint64_t step,
                                              struct apd_coord *coord, struct apd_err *err);

#endif
