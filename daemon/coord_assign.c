/* The plan of the run and who trains which part of it: lanes of a worker, shards of a lane in an
 * epoch. Workers derive the same from the plan; the assignment lets them check it and shows it to
 * people. */
#include "daemon/coord_private.h"

#include <inttypes.h>
#include <string.h>

static enum apd_code make_plan(struct apd_coord *coord, struct apd_err *err)
{
    const struct apd_config *config = &coord->config;
    const struct apd_facts *facts = &coord->roster.facts;
    struct apd_plan_desc desc = {
        .samples = facts->samples,
        .shards = facts->shards,
        .shard_samples = facts->shard_samples,
        .lanes = (uint32_t)config->train.lanes,
        .lane_batch = (uint32_t)(config->train.batch / config->train.lanes),
        .window = (uint32_t)config->data.window,
        .seed = (uint64_t)config->seed,
        .shuffle = (int)config->data.shuffle,
    };

    memcpy(desc.data_digest, facts->data_digest, sizeof desc.data_digest);
    APD_TRY(apd_plan_create(&desc, &coord->plan, err));
    APD_TRY(apd_plan_digest(coord->plan, coord->plan_digest, err));
    coord->steps_total = apd_config_steps(config, facts->samples, NULL);
    return APD_OK;
}

static void send_assignment(struct apd_coord *coord, uint32_t index)
{
    Advprop__V1__CoordinatorMessage message = ADVPROP__V1__COORDINATOR_MESSAGE__INIT;
    Advprop__V1__Assignment assignment = ADVPROP__V1__ASSIGNMENT__INIT;
    Advprop__V1__CheckpointInfo resume;
    struct apd_worker *worker = &coord->roster.worker[index];

    apd_plan_lanes_of((uint32_t)coord->config.train.lanes, coord->roster.count, index,
                      &worker->lane_first, &worker->lane_count);
    assignment.worker = index;
    assignment.workers = coord->roster.count;
    assignment.lane_first = worker->lane_first;
    assignment.lane_count = worker->lane_count;
    assignment.plan_digest = coord->plan_digest;
    if (coord->resume) {
        apd_report_checkpoint(apd_checkpoints_newest(&coord->checkpoints), &resume);
        assignment.resume = &resume;
    }
    message.generation = coord->generation;
    message.kind_case = ADVPROP__V1__COORDINATOR_MESSAGE__KIND_ASSIGNMENT;
    message.assignment = &assignment;
    coord->world.worker_send(coord->world.ctx, worker->conn, &message);
}

static void send_list(struct apd_coord *coord, const struct apd_worker *worker)
{
    Advprop__V1__CoordinatorMessage message = ADVPROP__V1__COORDINATOR_MESSAGE__INIT;
    Advprop__V1__ShardAssignment shards = ADVPROP__V1__SHARD_ASSIGNMENT__INIT;

    shards.n_lane = coord->shard_list.lanes;
    shards.lane = coord->shard_list.lane_at;
    message.generation = coord->generation;
    message.kind_case = ADVPROP__V1__COORDINATOR_MESSAGE__KIND_SHARDS;
    message.shards = &shards;
    coord->world.worker_send(coord->world.ctx, worker->conn, &message);
    apd_shard_list_clear(&coord->shard_list);
}

/* In as many frames as the worker's lanes need. */
static void send_epoch(struct apd_coord *coord, const struct apd_worker *worker, uint32_t epoch)
{
    struct apd_shard_list *list = &coord->shard_list;

    apd_shard_list_clear(list);
    for (uint32_t k = 0; k < worker->lane_count; k++) {
        if (apd_shard_list_add(list, coord->plan, epoch, worker->lane_first + k,
                               APD_LANE_SHARDS_MAX))
            continue;
        send_list(coord, worker);
        k--; /* it fits an empty list: APD_LANE_SHARDS_MAX shards do */
    }
    send_list(coord, worker);
}

void coord_assign_shards(struct apd_coord *coord)
{
    uint64_t position = coord_step(coord) * (uint64_t)coord->config.train.batch;
    uint32_t now = (uint32_t)(position / coord->roster.facts.samples);

    if (coord->epochs_assigned < now)
        coord->epochs_assigned = now;
    for (; coord->epochs_assigned <= now + 1; coord->epochs_assigned++) {
        for (uint32_t i = 0; i < coord->roster.count; i++)
            if (coord->roster.worker[i].conn != 0)
                send_epoch(coord, &coord->roster.worker[i], coord->epochs_assigned);
        coord_event(coord, "info", "shards-assigned", "epoch %u", coord->epochs_assigned);
    }
}

void coord_assign_all(struct apd_coord *coord)
{
    struct apd_err err;

    if (make_plan(coord, &err) != APD_OK) {
        coord_fail(coord, apd_exit_status(err.code), "the plan: %s", err.msg);
        return;
    }
    for (uint32_t i = 0; i < coord->roster.count; i++)
        send_assignment(coord, i);
    coord_event(
        coord, "info", "assigned", "lanes %" PRId64 ", workers %u, steps %" PRIu64 ", plan %.16s",
        coord->config.train.lanes, coord->roster.count, coord->steps_total, coord->plan_digest);
    coord_move(coord, STATE(TRAINING));
    coord_assign_shards(coord);
}
