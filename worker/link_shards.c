/* See link_shards.h. */
#include "worker/link_shards.h"

#include <stdlib.h>
#include <string.h>

static void clear(struct apd_link_shards *shards, int slot)
{
    for (size_t i = 0; i < shards->epoch[slot].lanes; i++)
        free(shards->epoch[slot].lane[i].shard);
    free(shards->epoch[slot].lane);
    shards->epoch[slot].lane = NULL;
    shards->epoch[slot].lanes = 0;
}

void apd_link_shards_fini(struct apd_link_shards *shards)
{
    for (int slot = 0; slot < APD_LINK_EPOCHS; slot++)
        clear(shards, slot);
}

/* The epoch's slot; for a new epoch a free one or the oldest. */
static int slot_of(struct apd_link_shards *shards, uint32_t epoch)
{
    int oldest = 0;

    for (int slot = 0; slot < APD_LINK_EPOCHS; slot++)
        if (shards->epoch[slot].lane != NULL && shards->epoch[slot].epoch == epoch)
            return slot;
    for (int slot = 0; slot < APD_LINK_EPOCHS; slot++)
        if (shards->epoch[slot].lane == NULL)
            return slot;
    for (int slot = 1; slot < APD_LINK_EPOCHS; slot++)
        if (shards->epoch[slot].epoch < shards->epoch[oldest].epoch)
            oldest = slot;
    clear(shards, oldest);
    return oldest;
}

static struct apd_link_lane *lane_of(const struct apd_link_shards *shards, int slot, uint32_t lane)
{
    for (size_t i = 0; i < shards->epoch[slot].lanes; i++)
        if (shards->epoch[slot].lane[i].lane == lane)
            return &shards->epoch[slot].lane[i];
    return NULL;
}

static struct apd_link_lane *new_lane(struct apd_link_shards *shards, int slot, uint32_t lane)
{
    size_t n = shards->epoch[slot].lanes;
    struct apd_link_lane *grown = realloc(shards->epoch[slot].lane, (n + 1) * sizeof *grown);

    if (grown == NULL)
        return NULL;
    grown[n] = (struct apd_link_lane){.lane = lane};
    shards->epoch[slot].lane = grown;
    shards->epoch[slot].lanes = n + 1;
    return &grown[n];
}

int apd_link_shards_add(struct apd_link_shards *shards, const Advprop__V1__LaneShards *told)
{
    int slot = slot_of(shards, told->epoch);
    uint32_t *list = malloc((told->n_shard > 0 ? told->n_shard : 1) * sizeof *list);
    struct apd_link_lane *lane;

    shards->epoch[slot].epoch = told->epoch;
    lane = lane_of(shards, slot, told->lane);
    if (lane == NULL)
        lane = new_lane(shards, slot, told->lane);
    if (lane == NULL || list == NULL) {
        free(list);
        return 0;
    }
    if (told->n_shard > 0)
        memcpy(list, told->shard, told->n_shard * sizeof *list);
    free(lane->shard);
    lane->shard = list;
    lane->count = (uint32_t)told->n_shard;
    lane->truncated = told->truncated;
    return 1;
}

const struct apd_link_lane *apd_link_shards_find(const struct apd_link_shards *shards,
                                                 uint32_t epoch, uint32_t lane)
{
    for (int slot = 0; slot < APD_LINK_EPOCHS; slot++)
        if (shards->epoch[slot].lane != NULL && shards->epoch[slot].epoch == epoch)
            return lane_of(shards, slot, lane);
    return NULL;
}
