/* A whole cluster in one process on virtual time: the coordinator's real logic, and a world of
 * simulated workers, clients and disk around it. Nothing waits; a minute of the run takes
 * microseconds.
 *
 * The world checks, whatever happens: states move only along the table; committed steps and the
 * reported step never fall; there is one first cause if the run failed and none otherwise; the run
 * finishes once and nothing is done after it; a checkpoint is never deleted before a newer one is
 * on record; every message fits a frame and carries this start's generation. A breach ends the test
 * with the seed. */
#ifndef APD_TESTS_SIM_SIM_H
#define APD_TESTS_SIM_SIM_H

#include "daemon/coord.h"
#include "tests/support/random.h"

#include <stddef.h>
#include <stdint.h>

#define SIM_WORKERS 4
#define SIM_CLIENTS 4
#define SIM_INBOX   64
#define SIM_STEP_MS 100

struct sim_inbox {
    uint64_t at_ms;
    uint8_t *bytes; /* packed CoordinatorMessage */
    size_t size;
};

struct sim_worker {
    uint32_t rank;
    uint64_t conn; /* 0: closed */
    uint64_t join_ms;
    int joined, assigned, hung, silent, gone, draining, stopped;
    int exit_status; /* with which it left; -1: it did not leave */
    uint64_t step, beat_ms;
    struct sim_inbox inbox[SIM_INBOX];
    size_t inbox_first, inbox_count;
    uint32_t epochs_assigned; /* messages of shards */
};

struct sim_disk_job {
    int kind; /* 0: none, 1: commit, 2: receipt, 3: remove */
    uint64_t at_ms;
    struct apd_commit commit;
    const struct apd_plan *plan;
    uint32_t epoch;
};

struct sim_client {
    uint64_t id;
    unsigned statuses, acks, errors, checkpoints, events, shards, configs;
    uint64_t last_checkpoint_step;
    uint32_t last_state;
    char last_error[256];
    int closed_by_server;
};

struct sim {
    struct test_random random;
    uint64_t seed;
    uint64_t now_ms, wake_ms, next_conn;
    struct apd_coord *coord;
    struct apd_config config;
    uint32_t workers;
    uint64_t generation, samples;
    uint64_t steps_total, checkpoint_every;
    struct sim_worker worker[SIM_WORKERS];
    struct sim_client client[SIM_CLIENTS];
    struct sim_disk_job disk[16];

    /* training: all workers step together */
    uint64_t step, next_step_ms, first_step;
    int saving, save_answered, save_accepted, ending;
    uint64_t save_step;
    int wants_checkpoint;
    int fail_next_commit;

    /* what was seen */
    uint32_t state;
    uint64_t committed_step, reported_step;
    unsigned first_causes, finishes, events, refused_commits, joins_refused, removed,
        receipts_matched, receipts_wrong;
    int exit_status, abort;
    char first_cause[700];
    char newest_path[APD_COMMIT_PATH];
    char last_event[32];
};

/* A run of `steps` steps by `workers` workers that join within a second. Everything derives from
 * the seed. */
void sim_init(struct sim *sim, uint64_t seed, uint32_t workers, uint64_t steps);
/* As a second start: after a committed checkpoint at `step`. */
void sim_init_resumed(struct sim *sim, uint64_t seed, uint32_t workers, uint64_t steps,
                      uint64_t step);
void sim_fini(struct sim *sim);

/* Lets time pass until the time, or until the run has finished. */
void sim_run_until(struct sim *sim, uint64_t at_ms);
/* To the end; a run that does not end within an hour is a failure. */
void sim_run(struct sim *sim);
/* Until all workers trained this step (or the end). */
void sim_run_to_step(struct sim *sim, uint64_t step);

/* Faults and visitors. */
void sim_kill(struct sim *sim, uint32_t rank); /* its connection closes, the others hang */
void sim_silence(struct sim *sim,
                 uint32_t rank); /* its connection stays, nothing comes; all hang */
void sim_fail(struct sim *sim, uint32_t rank, int exit_status);
/* A Join on a new connection; NULL secret: the right one. Returns the connection. */
uint64_t sim_join(struct sim *sim, Advprop__V1__Join *join, const uint8_t *secret);
/* What an honest worker of this rank tells. */
void sim_fill_join(struct sim *sim, uint32_t rank, Advprop__V1__Join *out);
/* A report of a written checkpoint from this rank, of any generation. */
void sim_written(struct sim *sim, uint32_t rank, uint64_t generation, uint64_t step,
                 const char *reason);

/* A report of this step from rank 1, due or not. */
void sim_report_step(struct sim *sim, uint64_t step);

/* Sends a request from client `index`, as id 1. */
void sim_request(struct sim *sim, int index, Advprop__V1__ClientRequest__KindCase kind);
void sim_client_gone(struct sim *sim, int index);

/* Ends the program, telling the seed. */
void sim_check(const struct sim *sim, int good, const char *what);

#endif
