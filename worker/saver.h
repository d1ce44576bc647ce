/* The saver: writes checkpoints in the background, thread "save". The step thread only copies the
 * state into a snapshot; hashing, writing, fsync and the coordinator's commit happen beside the
 * training. A failed save throws its file away and is logged; the checkpoint before it stays. */
#ifndef APD_WORKER_SAVER_H
#define APD_WORKER_SAVER_H

#include "base/err.h"
#include "worker/checkpoint.h"
#include "worker/link.h"

struct apd_saver;

/* run_dir, info and its texts have to outlive the saver. link may not be NULL. */
APD_MUST_USE enum apd_code apd_saver_create(const char *run_dir,
                                            const struct apd_checkpoint_info *info,
                                            const struct apd_params *params, struct apd_link *link,
                                            struct apd_saver **out, struct apd_err *err);

/* Takes a snapshot now and writes it in the background. While one is being written: wait = 0
 * returns at once with *out_started = 0, wait = 1 waits for it first. main_top1 of main_images:
 * newest evaluation at this step, images 0: none. Step thread. */
APD_MUST_USE enum apd_code apd_saver_start(struct apd_saver *saver,
                                           const struct apd_progress *progress, const char *reason,
                                           uint64_t main_top1, uint64_t main_images, int wait,
                                           int *out_started, struct apd_err *err);

/* Waits until nothing is being written; returns what the last save came to. */
APD_MUST_USE enum apd_code apd_saver_wait(struct apd_saver *saver, struct apd_err *err);

/* Waits, joins the thread, frees. NULL ok. */
void apd_saver_destroy(struct apd_saver **saver);

#endif
