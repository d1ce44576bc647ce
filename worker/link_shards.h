/* The shards the coordinator assigned to this worker's lanes, of the two newest epochs told. Plain
 * data, no locking. */
#ifndef APD_WORKER_LINK_SHARDS_H
#define APD_WORKER_LINK_SHARDS_H

#include "proto/advprop.pb-c.h"

#include <stddef.h>
#include <stdint.h>

#define APD_LINK_EPOCHS 2

struct apd_link_lane {
    uint32_t lane, count;
    uint32_t *shard; /* [count] */
    int truncated;
};

struct apd_link_shards {
    struct {
        uint32_t epoch;
        struct apd_link_lane *lane; /* [lanes], NULL: unused */
        size_t lanes;
    } epoch[APD_LINK_EPOCHS];
};

void apd_link_shards_fini(struct apd_link_shards *shards);

/* Takes what is told of one lane; a third epoch replaces the oldest. 0 if out of memory. */
int apd_link_shards_add(struct apd_link_shards *shards, const Advprop__V1__LaneShards *told);

/* NULL if not known. */
const struct apd_link_lane *apd_link_shards_find(const struct apd_link_shards *shards,
                                                 uint32_t epoch, uint32_t lane);

#endif
