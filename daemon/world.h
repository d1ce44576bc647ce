/* Everything the coordinator's logic can do to the outside, as a table: the daemon fills it with
 * sockets, files and the clock (daemon.c), tests/sim with a cluster in one process on virtual time.
 *
 * No function of the table may call back into the logic before it returns, except for reading it
 * (apd_coord_status, apd_coord_exit_status). Messages passed are only valid during the call.
 * Connections and clients are named by numbers that are never used twice. */
#ifndef APD_DAEMON_WORLD_H
#define APD_DAEMON_WORLD_H

#include "proto/advprop.pb-c.h"
#include "proto/commit_log.h"
#include "proto/plan.h"

#include <stdint.h>

struct apd_world {
    void *ctx;

    uint64_t (*now_ms)(void *ctx); /* monotonic */
    double (*date_s)(void *ctx);   /* since 1970 */
    /* Calls apd_coord_wake at this time; replaces the time asked for before. */
    void (*wake_at)(void *ctx, uint64_t at_ms);

    void (*worker_send)(void *ctx, uint64_t conn, const Advprop__V1__CoordinatorMessage *message);
    /* The peer has proven who it is: deadlines for strangers no longer apply. */
    void (*worker_accept)(void *ctx, uint64_t conn);
    /* Closes after what was sent is out; nothing more comes from this connection. */
    void (*worker_close)(void *ctx, uint64_t conn);

    void (*client_send)(void *ctx, uint64_t client, const Advprop__V1__ServerReply *reply);
    void (*client_close)(void *ctx, uint64_t client); /* as worker_close */

    /* Checks that the file is there with its size and appends the record durably; answered by
     * apd_coord_commit_done. One at a time. */
    void (*commit)(void *ctx, const struct apd_commit *commit);
    /* Deletes a file below the run directory; answered by apd_coord_remove_done. */
    void (*remove)(void *ctx, const char *path);
    /* Computes apd_plan_receipt; answered by apd_coord_receipt_expected. The plan stays valid. */
    void (*receipt)(void *ctx, const struct apd_plan *plan, uint32_t epoch);

    /* One record of events.jsonl (and of the log). */
    void (*event)(void *ctx, const Advprop__V1__Event *event);
    /* One record of metrics.jsonl; `kind` is "step", "receipt", "evaluation" or "checkpoint"; or,
     * as "bad_sample", of bad_samples.jsonl. */
    void (*metric)(void *ctx, const char *kind, uint64_t step, const ProtobufCMessage *body);
    /* Something is worth showing: writes status.json and flushes the records. */
    void (*publish)(void *ctx);

    /* The run is over. `abort`: workers are left that cannot end by themselves. Called once, last.
     */
    void (*finish)(void *ctx, int exit_status, int abort);
};

#endif
