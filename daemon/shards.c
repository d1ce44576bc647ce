/* See shards.h. */
#include "daemon/shards.h"

void apd_shard_list_clear(struct apd_shard_list *list)
{
    list->lanes = 0;
    list->shards = 0;
    list->bytes = 0;
}

int apd_shard_list_add(struct apd_shard_list *list, struct apd_plan *plan, uint32_t epoch,
                       uint32_t lane, uint32_t cap)
{
    Advprop__V1__LaneShards *entry;
    uint64_t samples;
    uint32_t room, all, told;

    if (list->bytes + APD_SHARD_LANE_BYTES > APD_SHARD_LIST_BYTES)
        return 0;
    room = (uint32_t)(APD_SHARD_LIST_BYTES - list->bytes - APD_SHARD_LANE_BYTES) / APD_SHARD_BYTES;
    all = apd_plan_lane_shards(plan, epoch, lane, room < cap ? room : cap,
                               &list->shard[list->shards], &samples);
    told = all < cap ? all : cap;
    if (told > room)
        return 0;
    entry = &list->lane[list->lanes];
    advprop__v1__lane_shards__init(entry);
    entry->lane = lane;
    entry->epoch = epoch;
    entry->samples = samples;
    entry->shard = &list->shard[list->shards];
    entry->n_shard = told;
    entry->truncated = told < all;
    list->lane_at[list->lanes++] = entry;
    list->shards += told;
    list->bytes += APD_SHARD_LANE_BYTES + told * (size_t)APD_SHARD_BYTES;
    return 1;
}
