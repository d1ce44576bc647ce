/* Who trains: the workers of this start, what they told when joining, and what is known of each
 * since. A worker joins once; all workers must agree on the network's layout, the configuration and
 * the data set. Pure. */
#ifndef APD_DAEMON_ROSTER_H
#define APD_DAEMON_ROSTER_H

#include "base/err.h"
#include "base/hash.h"
#include "proto/advprop.pb-c.h"

#include <stdint.h>

struct apd_worker {
    uint64_t conn; /* 0: not connected */
    int joined;
    int left; /* said goodbye */
    int exit_status;
    char host[256];
    uint32_t pid;
    char backend[128];
    Advprop__V1__Phase phase;
    uint64_t step;
    double images_per_s, data_wait_share;
    uint64_t rss_bytes;
    char detail[128];  /* of the phase */
    uint64_t heard_ms; /* of its last message */
    uint32_t lane_first, lane_count;
    int told_stale; /* a message of another generation was reported already */
};

/* What all workers must agree on: as told by the first one, the configuration by the coordinator.
 */
struct apd_facts {
    uint32_t told_by; /* rank, 0: nobody yet */
    char *layout;
    char config_digest[APD_SHA256_HEX];
    char data_digest[APD_SHA256_HEX];
    uint64_t samples;
    uint32_t classes;
    uint64_t *shard_samples; /* [shards] */
    uint32_t shards;
};

struct apd_roster {
    struct apd_worker *worker; /* [count], of rank index + 1 */
    uint32_t count;
    uint32_t joined, left;
    struct apd_facts facts;
};

/* APD_NOMEM. config_digest: of the coordinator. */
APD_MUST_USE enum apd_code apd_roster_init(struct apd_roster *roster, uint32_t workers,
                                           const char *config_digest, struct apd_err *err);
void apd_roster_fini(struct apd_roster *roster);

/* Takes a worker in. APD_CONFIG: this rank does not fit the run, so the run cannot start; the
 * message names rank, expected and found. APD_PROTO: only this connection is to be refused. */
APD_MUST_USE enum apd_code apd_roster_join(struct apd_roster *roster, uint64_t conn,
                                           uint64_t now_ms, const Advprop__V1__Join *join,
                                           struct apd_err *err);

/* The worker of a connection, NULL if it has not joined. */
struct apd_worker *apd_roster_find(const struct apd_roster *roster, uint64_t conn);

uint32_t apd_roster_rank(const struct apd_roster *roster, const struct apd_worker *worker);

/* Workers with a connection. */
uint32_t apd_roster_connected(const struct apd_roster *roster);

#endif
