/* Lists of the shards that lanes read, cut so that a frame holds them. Pure; the memory is planned
 * once. */
#ifndef APD_DAEMON_SHARDS_H
#define APD_DAEMON_SHARDS_H

#include "proto/advprop.pb-c.h"
#include "proto/plan.h"

#include <stddef.h>
#include <stdint.h>

#define APD_SHARD_LIST_BYTES                                                                       \
    (56u * 1024)                  /* of a packed list at most; a frame has room for more           \
                                   */
#define APD_SHARD_LANE_BYTES  32u /* of a packed lane without its shards, at most */
#define APD_SHARD_BYTES       5u  /* of a packed shard number, at most */
#define APD_SHARD_LIST_LANES  (APD_SHARD_LIST_BYTES / APD_SHARD_LANE_BYTES)
#define APD_SHARD_LIST_SHARDS (APD_SHARD_LIST_BYTES / APD_SHARD_BYTES)
#define APD_LANE_SHARDS_MAX   4096u /* told of one lane and epoch; a longer list is cut */

struct apd_shard_list {
    Advprop__V1__LaneShards lane[APD_SHARD_LIST_LANES], *lane_at[APD_SHARD_LIST_LANES];
    uint32_t shard[APD_SHARD_LIST_SHARDS];
    size_t lanes, shards;
    size_t bytes; /* packed, at most */
};

void apd_shard_list_clear(struct apd_shard_list *list);

/* Adds a lane with at most `cap` of its shards (marked `truncated` if it has more); 0 if that does
 * not fit any more. */
int apd_shard_list_add(struct apd_shard_list *list, struct apd_plan *plan, uint32_t epoch,
                       uint32_t lane, uint32_t cap);

#endif
