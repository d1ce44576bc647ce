/* Inside of the coordinator's logic, shared by the coord_*.c files only. */
#ifndef APD_DAEMON_COORD_PRIVATE_H
#define APD_DAEMON_COORD_PRIVATE_H

#include "daemon/bad_samples.h"
#include "daemon/checkpoints.h"
#include "daemon/coord.h"
#include "daemon/event_ring.h"
#include "daemon/metrics.h"
#include "daemon/report.h"
#include "daemon/roster.h"
#include "daemon/shards.h"
#include "daemon/state.h"

#define APD_COORD_CLIENTS 64 /* connections of clients at a time */

#define STATE(name) ADVPROP__V1__RUN_STATE__RUN_STATE_##name

struct apd_coord_client {
    uint64_t client; /* 0: free */
    int watching;
    uint64_t watch_id;
    uint32_t interval_ms;
    uint64_t next_ms;
    int waits_for_checkpoint;
    uint64_t checkpoint_id;
    uint64_t checkpoint_step; /* the commit must be of this step at least */
};

struct apd_coord {
    struct apd_world world;
    struct apd_config config;
    char *run_dir, *config_yaml;
    char config_digest[APD_SHA256_HEX];
    char version[32];
    uint8_t secret[APD_SECRET_BYTES];
    uint64_t generation;

    Advprop__V1__RunState state;
    uint64_t started_ms;
    uint64_t join_deadline_ms;
    int drain_asked, urgent_asked, stop_asked;
    char first_cause[APD_EVENT_TEXT];
    char notice[APD_EVENT_TEXT]; /* of rank 1 */
    int failed_status;
    uint64_t grace_deadline_ms; /* when the end is waited for no longer; 0: not ending */
    int finished;

    struct apd_roster roster;
    struct apd_plan *plan; /* NULL until all have joined */
    char plan_digest[APD_SHA256_HEX];
    uint64_t steps_total, first_step;
    uint32_t epochs_assigned; /* epochs below this one have been assigned to the workers */

    struct apd_metrics metrics;
    struct apd_bad_samples bad;
    unsigned receipts_asked; /* of the world, not answered yet */
    uint64_t recorded_ms;    /* when the last step record was written */
    struct apd_event_ring events;

    struct apd_checkpoints checkpoints;
    int resume; /* the newest checkpoint is where this start began */
    int committing;
    struct apd_commit commit; /* in flight */

    struct apd_coord_client client[APD_COORD_CLIENTS];
    uint64_t publish_ms; /* when status.json is due */

    struct apd_report report;
    struct apd_shard_list shard_list; /* scratch of assignments and replies */
    Advprop__V1__WorkerShards *shard_worker, **shard_worker_at; /* [workers] */
};

/* coord.c */
void coord_event(struct apd_coord *coord, const char *level, const char *name, const char *format,
                 ...) __attribute__((format(printf, 4, 5)));
void coord_move(struct apd_coord *coord, Advprop__V1__RunState to);
/* Records what went wrong; the first time it becomes the first cause and the run fails. */
void coord_fail(struct apd_coord *coord, int exit_status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void coord_drain(struct apd_coord *coord, const char *who);
void coord_stop(struct apd_coord *coord, const char *who);
/* Ends the run if nothing is left to wait for. */
void coord_end_if_over(struct apd_coord *coord);
/* Asks the world for the next wake-up; at the end of everything that may have moved a deadline. */
void coord_schedule(struct apd_coord *coord);
uint64_t coord_now(const struct apd_coord *coord);
/* Steps committed, as far as known: the newest report's or where this start began. */
uint64_t coord_step(const struct apd_coord *coord);

/* coord_worker.c */
void coord_command(struct apd_coord *coord, const struct apd_worker *worker,
                   Advprop__V1__CommandKind kind);
void coord_command_all(struct apd_coord *coord, Advprop__V1__CommandKind kind);
void coord_check_silence(struct apd_coord *coord);

/* coord_assign.c: the plan, the lanes and the shards. */
void coord_assign_all(struct apd_coord *coord);
/* Assigns the shards of the current and the next epoch where that has not been done. */
void coord_assign_shards(struct apd_coord *coord);

/* coord_commit.c */
void coord_written(struct apd_coord *coord, const struct apd_worker *worker, uint64_t generation,
                   const Advprop__V1__CheckpointWritten *written);

/* coord_client.c */
void coord_watchers(struct apd_coord *coord, int now); /* now: not only the ones that are due */
void coord_answer_checkpoint(struct apd_coord *coord, const struct apd_commit *commit);
void coord_refuse_checkpoint(struct apd_coord *coord, const char *text);

#endif
