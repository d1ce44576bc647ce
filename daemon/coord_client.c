/* What clients ask over the status socket, and the replies. */
#include "daemon/coord_private.h"

#include "proto/frame.h"

#include <string.h>

#define WATCH_DEFAULT_MS 1000
#define WATCH_LEAST_MS   50
#define EVENTS_DEFAULT   100
#define EVENTS_BYTES     (APD_FRAME_CAP_ACCEPTED - 64)

static void reply(struct apd_coord *coord, uint64_t client, uint64_t id,
                  Advprop__V1__ServerReply *message)
{
    message->id = id;
    coord->world.client_send(coord->world.ctx, client, message);
}

static void reply_error(struct apd_coord *coord, uint64_t client, uint64_t id, const char *code,
                        const char *text)
{
    Advprop__V1__ServerReply message = ADVPROP__V1__SERVER_REPLY__INIT;
    Advprop__V1__Error error = ADVPROP__V1__ERROR__INIT;

    error.code = (char *)code;
    error.text = (char *)text;
    message.kind_case = ADVPROP__V1__SERVER_REPLY__KIND_ERROR;
    message.error = &error;
    reply(coord, client, id, &message);
}

static void reply_ack(struct apd_coord *coord, uint64_t client, uint64_t id)
{
    Advprop__V1__ServerReply message = ADVPROP__V1__SERVER_REPLY__INIT;
    Advprop__V1__Ack ack = ADVPROP__V1__ACK__INIT;

    message.kind_case = ADVPROP__V1__SERVER_REPLY__KIND_ACK;
    message.ack = &ack;
    reply(coord, client, id, &message);
}

static void reply_status(struct apd_coord *coord, uint64_t client, uint64_t id)
{
    Advprop__V1__ServerReply message = ADVPROP__V1__SERVER_REPLY__INIT;

    message.kind_case = ADVPROP__V1__SERVER_REPLY__KIND_STATUS;
    message.status = (Advprop__V1__Status *)apd_coord_status(coord);
    reply(coord, client, id, &message);
}

static void reply_config(struct apd_coord *coord, uint64_t client, uint64_t id)
{
    Advprop__V1__ServerReply message = ADVPROP__V1__SERVER_REPLY__INIT;
    Advprop__V1__ConfigText config = ADVPROP__V1__CONFIG_TEXT__INIT;

    config.yaml = coord->config_yaml;
    message.kind_case = ADVPROP__V1__SERVER_REPLY__KIND_CONFIG;
    message.config = &config;
    reply(coord, client, id, &message);
}

/* The current epoch's shards; every lane gets an equal part of what a frame holds. */
static void fill_shards(struct apd_coord *coord, Advprop__V1__WorkerShards *worker)
{
    struct apd_shard_list *list = &coord->shard_list;
    uint32_t lanes = (uint32_t)coord->config.train.lanes;
    uint64_t position = coord_step(coord) * (uint64_t)coord->config.train.batch;
    uint32_t epoch = (uint32_t)(position / coord->roster.facts.samples);
    uint32_t per_lane = APD_SHARD_LIST_BYTES / lanes, cap;

    cap = per_lane > APD_SHARD_LANE_BYTES ? (per_lane - APD_SHARD_LANE_BYTES) / APD_SHARD_BYTES : 0;
    if (cap > APD_LANE_SHARDS_MAX)
        cap = APD_LANE_SHARDS_MAX;
    apd_shard_list_clear(list);
    for (uint32_t i = 0; i < coord->roster.count; i++) {
        const struct apd_worker *from = &coord->roster.worker[i];

        advprop__v1__worker_shards__init(&worker[i]);
        worker[i].rank = i + 1;
        worker[i].lane = &list->lane_at[list->lanes];
        for (uint32_t k = 0; k < from->lane_count; k++)
            worker[i].n_lane +=
                (size_t)apd_shard_list_add(list, coord->plan, epoch, from->lane_first + k, cap);
    }
}

static void reply_shards(struct apd_coord *coord, uint64_t client, uint64_t id)
{
    Advprop__V1__ServerReply message = ADVPROP__V1__SERVER_REPLY__INIT;
    Advprop__V1__Shards shards = ADVPROP__V1__SHARDS__INIT;

    if (coord->plan != NULL) {
        fill_shards(coord, coord->shard_worker);
        shards.n_worker = coord->roster.count;
        shards.worker = coord->shard_worker_at;
    }
    message.kind_case = ADVPROP__V1__SERVER_REPLY__KIND_SHARDS;
    message.shards = &shards;
    reply(coord, client, id, &message);
}

static void reply_events(struct apd_coord *coord, uint64_t client, uint64_t id,
                         const Advprop__V1__GetEvents *ask)
{
    Advprop__V1__ServerReply message = ADVPROP__V1__SERVER_REPLY__INIT;
    Advprop__V1__Events events = ADVPROP__V1__EVENTS__INIT;
    Advprop__V1__Event *list[APD_EVENT_RING], *event;
    size_t limit = ask->limit > 0 ? ask->limit : EVENTS_DEFAULT, bytes = 0;
    uint64_t first = apd_event_ring_first(&coord->events);

    if (ask->after >= first)
        first = ask->after < coord->events.count ? ask->after + 1 : coord->events.count + 1;
    while (events.n_event < limit &&
           (event = apd_event_ring_get(&coord->events, first + events.n_event)) != NULL) {
        bytes += advprop__v1__event__get_packed_size(event) + 1 + APD_FRAME_HEADER_MAX;
        if (bytes > EVENTS_BYTES)
            break; /* the client asks again after the last one it got */
        list[events.n_event++] = event;
    }
    events.event = list;
    message.kind_case = ADVPROP__V1__SERVER_REPLY__KIND_EVENTS;
    message.events = &events;
    reply(coord, client, id, &message);
}

static struct apd_coord_client *find_client(struct apd_coord *coord, uint64_t client)
{
    for (int i = 0; i < APD_COORD_CLIENTS; i++)
        if (coord->client[i].client == client)
            return &coord->client[i];
    return NULL;
}

/* The client's place, a free one if it has none yet; NULL if all are taken. */
static struct apd_coord_client *client_slot(struct apd_coord *coord, uint64_t client)
{
    struct apd_coord_client *slot = find_client(coord, client);

    if (slot == NULL && (slot = find_client(coord, 0)) != NULL)
        *slot = (struct apd_coord_client){.client = client};
    return slot;
}

static void start_watch(struct apd_coord *coord, uint64_t client, uint64_t id, uint32_t interval_ms)
{
    struct apd_coord_client *slot = client_slot(coord, client);

    if (slot == NULL) {
        reply_error(coord, client, id, "busy", "too many clients watch");
        return;
    }
    if (interval_ms == 0)
        interval_ms = WATCH_DEFAULT_MS;
    slot->watching = 1;
    slot->watch_id = id;
    slot->interval_ms = interval_ms < WATCH_LEAST_MS ? WATCH_LEAST_MS : interval_ms;
    slot->next_ms = coord_now(coord) + slot->interval_ms;
    reply_status(coord, client, id);
}

void coord_watchers(struct apd_coord *coord, int now)
{
    uint64_t at = coord_now(coord);

    for (int i = 0; i < APD_COORD_CLIENTS; i++) {
        struct apd_coord_client *slot = &coord->client[i];

        if (!slot->watching || (!now && at < slot->next_ms))
            continue;
        slot->next_ms = at + slot->interval_ms;
        reply_status(coord, slot->client, slot->watch_id);
    }
}

static void ask_checkpoint(struct apd_coord *coord, uint64_t client, uint64_t id)
{
    struct apd_coord_client *slot;

    if (coord->state != STATE(TRAINING) && coord->state != STATE(DRAINING) &&
        coord->state != STATE(SAVING)) {
        reply_error(coord, client, id, "state", "nothing is being trained");
        return;
    }
    slot = client_slot(coord, client);
    if (slot == NULL || slot->waits_for_checkpoint) {
        reply_error(coord, client, id, "busy", "a checkpoint is being waited for already");
        return;
    }
    slot->waits_for_checkpoint = 1;
    slot->checkpoint_id = id;
    slot->checkpoint_step = coord_step(coord);
    if (coord->state == STATE(TRAINING) && coord->roster.worker[0].conn != 0)
        coord_command(coord, &coord->roster.worker[0],
                      ADVPROP__V1__COMMAND_KIND__COMMAND_CHECKPOINT);
}

void coord_answer_checkpoint(struct apd_coord *coord, const struct apd_commit *commit)
{
    Advprop__V1__ServerReply message = ADVPROP__V1__SERVER_REPLY__INIT;
    Advprop__V1__CheckpointInfo info;

    apd_report_checkpoint(commit, &info);
    message.kind_case = ADVPROP__V1__SERVER_REPLY__KIND_CHECKPOINT;
    message.checkpoint = &info;
    for (int i = 0; i < APD_COORD_CLIENTS; i++) {
        struct apd_coord_client *slot = &coord->client[i];

        if (!slot->waits_for_checkpoint || commit->step < slot->checkpoint_step)
            continue;
        slot->waits_for_checkpoint = 0;
        reply(coord, slot->client, slot->checkpoint_id, &message);
    }
}

void coord_refuse_checkpoint(struct apd_coord *coord, const char *text)
{
    for (int i = 0; i < APD_COORD_CLIENTS; i++) {
        struct apd_coord_client *slot = &coord->client[i];

        if (slot->waits_for_checkpoint)
            reply_error(coord, slot->client, slot->checkpoint_id, "state", text);
        slot->waits_for_checkpoint = 0;
    }
}

/* 0 if it has no kind we know: the client speaks something else. */
static int answer(struct apd_coord *coord, uint64_t client,
                  const Advprop__V1__ClientRequest *request)
{
    switch (request->kind_case) {
    case ADVPROP__V1__CLIENT_REQUEST__KIND_GET_STATUS:
        reply_status(coord, client, request->id);
        return 1;
    case ADVPROP__V1__CLIENT_REQUEST__KIND_WATCH:
        start_watch(coord, client, request->id, request->watch->interval_ms);
        return 1;
    case ADVPROP__V1__CLIENT_REQUEST__KIND_GET_SHARDS:
        reply_shards(coord, client, request->id);
        return 1;
    case ADVPROP__V1__CLIENT_REQUEST__KIND_GET_EVENTS:
        reply_events(coord, client, request->id, request->get_events);
        return 1;
    case ADVPROP__V1__CLIENT_REQUEST__KIND_GET_CONFIG:
        reply_config(coord, client, request->id);
        return 1;
    case ADVPROP__V1__CLIENT_REQUEST__KIND_CHECKPOINT:
        ask_checkpoint(coord, client, request->id);
        return 1;
    case ADVPROP__V1__CLIENT_REQUEST__KIND_DRAIN:
        coord_drain(coord, "a client");
        reply_ack(coord, client, request->id);
        return 1;
    case ADVPROP__V1__CLIENT_REQUEST__KIND_STOP:
        coord_stop(coord, "a client");
        reply_ack(coord, client, request->id);
        return 1;
    default:
        return 0;
    }
}

void apd_coord_client_request(struct apd_coord *coord, uint64_t client,
                              const Advprop__V1__ClientRequest *request)
{
    if (coord->finished)
        return;
    if (!answer(coord, client, request)) {
        reply_error(coord, client, request->id, "protocol", "a request of no known kind");
        coord->world.client_close(coord->world.ctx, client);
    }
    coord_schedule(coord);
}

void apd_coord_client_closed(struct apd_coord *coord, uint64_t client)
{
    struct apd_coord_client *slot = find_client(coord, client);

    if (slot != NULL)
        *slot = (struct apd_coord_client){0};
}
