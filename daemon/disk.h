/* Work that may take long (fsync, unlink, sums over all samples), done on libuv's pool threads; the
 * answers come back on the loop thread. */
#ifndef APD_DAEMON_DISK_H
#define APD_DAEMON_DISK_H

#include "base/err.h"
#include "proto/commit_log.h"
#include "proto/plan.h"

#include <stdint.h>
#include <uv.h>

/* Answers; `failed` is NULL if it went well. */
struct apd_disk_events {
    void *ctx;
    void (*committed)(void *ctx, const struct apd_err *failed);
    void (*removed)(void *ctx, const char *path, const struct apd_err *failed);
    void (*receipt)(void *ctx, uint32_t epoch, uint64_t sum);
};

struct apd_disk_job;

struct apd_disk {
    uv_loop_t *loop;
    const char *run_dir;
    struct apd_disk_events events;
    struct apd_disk_job *commit; /* there in advance: a commit is always answered */
};

/* Borrows run_dir. */
APD_MUST_USE enum apd_code apd_disk_init(struct apd_disk *disk, uv_loop_t *loop,
                                         const char *run_dir, const struct apd_disk_events *events,
                                         struct apd_err *err);
/* After the loop has ended. */
void apd_disk_fini(struct apd_disk *disk);

/* Checks that the file is there with its size, then appends the record to the commit log, durably.
 * One at a time. */
void apd_disk_commit(struct apd_disk *disk, const struct apd_commit *commit);

/* Deletes run_dir/path; a file that is not there is no failure. */
void apd_disk_remove(struct apd_disk *disk, const char *path);

/* The plan must live until the answer. */
void apd_disk_receipt(struct apd_disk *disk, const struct apd_plan *plan, uint32_t epoch);

#endif
