/* The coordinator's logic: one run from its start to its end. It owns the run's state, the roster,
 * the plan's lanes, the generation, checkpoint commits, metrics and events, and answers clients.
 *
 * No I/O, no threads, no clock of its own: things that happen are told by the functions below, all
 * on one thread; what is to be done goes through struct apd_world. docs/coordinator.md explains it.
 */
#ifndef APD_DAEMON_COORD_H
#define APD_DAEMON_COORD_H

#include "base/err.h"
#include "daemon/world.h"
#include "proto/config.h"
#include "proto/wireup.h"

#include <stddef.h>
#include <stdint.h>

struct apd_coord;

struct apd_coord_setup {
    const char *run_dir;             /* as shown to people; copied */
    const char *config_yaml;         /* the effective configuration; copied */
    const struct apd_config *config; /* copied */
    const char *config_digest;
    const char *version;
    uint64_t generation;
    uint32_t workers;
    const uint8_t *secret; /* [APD_SECRET_BYTES]; copied */
    /* Committed checkpoints that exist, oldest first; copied. The last one is where the run goes
     * on. */
    const struct apd_commit *commit;
    size_t commit_count;
    /* Why newer ones were passed over; becomes events. */
    char *const *skipped;
    size_t skipped_count;
};

/* Also makes the first move, to JOINING. */
APD_MUST_USE enum apd_code apd_coord_create(const struct apd_coord_setup *setup,
                                            const struct apd_world *world, struct apd_coord **out,
                                            struct apd_err *err);
void apd_coord_destroy(struct apd_coord **coord);

/* What an earlier start of the run reported, told after creation; recorded nowhere anew. */
void apd_coord_recall_receipt(struct apd_coord *coord, const Advprop__V1__Receipt *receipt);
void apd_coord_recall_evaluation(struct apd_coord *coord,
                                 const Advprop__V1__Evaluation *evaluation);
void apd_coord_recall_bad_sample(struct apd_coord *coord, uint64_t sample);

/* Workers. A connection is a number of the world's; it is known to the logic from its first
 * message. */
void apd_coord_worker_message(struct apd_coord *coord, uint64_t conn,
                              const Advprop__V1__WorkerMessage *message);
/* The peer closed or was lost, for the reason given. Not for connections that the logic closed. */
void apd_coord_worker_closed(struct apd_coord *coord, uint64_t conn, const char *reason);

/* Clients. */
void apd_coord_client_request(struct apd_coord *coord, uint64_t client,
                              const Advprop__V1__ClientRequest *request);
void apd_coord_client_closed(struct apd_coord *coord, uint64_t client);

/* The time asked for with wake_at has come. */
void apd_coord_wake(struct apd_coord *coord);

/* Somebody outside asks the run to end (a signal, by name): to drain, but the second time that it
 * is `urgent` to stop without saving. A batch system sends TERM to all processes at once, so the
 * first may come after a client's drain that was meant by the same TERM. */
void apd_coord_asked_to_end(struct apd_coord *coord, const char *who, int urgent);

/* Answers of the world; `failed` is NULL if it went well. */
void apd_coord_commit_done(struct apd_coord *coord, const struct apd_err *failed);
void apd_coord_remove_done(struct apd_coord *coord, const char *path, const struct apd_err *failed);
void apd_coord_receipt_expected(struct apd_coord *coord, uint32_t epoch, uint64_t sum);

/* Something outside the logic's sight went wrong but the run goes on (a file of records cannot be
 * written, ...). */
void apd_coord_warn(struct apd_coord *coord, const char *name, const char *text);

/* As a GetStatus would tell; valid until the next call of any function here. */
const Advprop__V1__Status *apd_coord_status(struct apd_coord *coord);

/* Exit status the run ends with, as far as known: 0, 75, or the first cause's. */
int apd_coord_exit_status(const struct apd_coord *coord);

#endif
