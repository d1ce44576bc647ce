/* What the worker's threads and the link thread share: how far the link is, what the coordinator
 * has told, what is to be sent. No sockets here. */
#ifndef APD_WORKER_LINK_STATE_H
#define APD_WORKER_LINK_STATE_H

#include "proto/wireup.h"
#include "worker/link.h"
#include "worker/link_queue.h"
#include "worker/link_shards.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

enum apd_link_stage {
    APD_LINK_STAGE_CONNECTING,
    APD_LINK_STAGE_JOINING,
    APD_LINK_STAGE_ASSIGNED,
    APD_LINK_STAGE_REFUSED,  /* for good, as is the next one */
    APD_LINK_STAGE_LOST,     /* or closed */
    APD_LINK_STAGE_CANCELED, /* asked to end before the assignment */
};

struct apd_link_state {
    struct apd_wireup wireup;
    struct apd_link_queue queue;

    _Atomic int phase;
    _Atomic uint64_t step;
    _Atomic double images_per_s, data_wait_share;
    _Atomic unsigned commands; /* APD_LINK_* bits */
    _Atomic int closing;

    _Atomic int has_detail;

    pthread_mutex_t mutex; /* of all below */
    char detail[128];
    pthread_cond_t changed;
    enum apd_link_stage stage;
    char text[512]; /* why REFUSED or LOST */
    struct apd_link_assignment assignment;
    struct apd_link_shards shards;
    int commit_waits, commit_answered, commit_accepted;
    uint64_t commit_step;
    char commit_text[256];
};

void apd_link_state_init(struct apd_link_state *state, const struct apd_wireup *wireup);
void apd_link_state_fini(struct apd_link_state *state);

/* Wakes whoever waits. `text` may be "". */
void apd_link_state_set(struct apd_link_state *state, enum apd_link_stage stage, const char *text);

/* Keeps the reason for a failure that may still be followed by a success. */
void apd_link_state_note(struct apd_link_state *state, const char *text);

/* Takes in what the coordinator tells; NULL, or why the connection is to be given up (valid as long
 * as the message). */
const char *apd_link_state_take(struct apd_link_state *state,
                                const Advprop__V1__CoordinatorMessage *message);

/* For pthread_cond_timedwait on `changed`. */
struct timespec apd_link_deadline(uint64_t ms);

#endif
