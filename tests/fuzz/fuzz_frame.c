/* Damaged streams of frames, cut anywhere: the reader keeps its cap and its promises, and what
 * comes out is decoded as the coordinator does (ClientRequest, WorkerMessage) without harm. */
#include "proto/advprop.pb-c.h"
#include "proto/frame.h"
#include "proto/message_json.h"
#include "proto/pack.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

enum { CAP = 2048 };

static unsigned char *sound, *damaged;
static size_t sound_size;

static void add(const ProtobufCMessage *message)
{
    struct apd_err err;
    uint8_t *bytes;
    size_t size;

    fuzz_check(apd_frame_pack(message, &bytes, &size, &err) == APD_OK, "no frame");
    sound = realloc(sound, sound_size + size);
    fuzz_check(sound != NULL, "no memory");
    memcpy(sound + sound_size, bytes, size);
    sound_size += size;
    free(bytes);
}

/* One of each kind that has something in it. */
static void make_sound(void)
{
    Advprop__V1__ClientRequest request = ADVPROP__V1__CLIENT_REQUEST__INIT;
    Advprop__V1__GetEvents events = ADVPROP__V1__GET_EVENTS__INIT;
    Advprop__V1__WorkerMessage message = ADVPROP__V1__WORKER_MESSAGE__INIT;
    Advprop__V1__Join join = ADVPROP__V1__JOIN__INIT;
    Advprop__V1__StepReport step = ADVPROP__V1__STEP_REPORT__INIT;
    Advprop__V1__CheckpointWritten written = ADVPROP__V1__CHECKPOINT_WRITTEN__INIT;
    Advprop__V1__CheckpointInfo info = ADVPROP__V1__CHECKPOINT_INFO__INIT;
    uint64_t shard_samples[] = {100, 200, UINT64_MAX, 0};
    uint8_t secret[32] = {1, 2, 3};

    request.id = 5;
    request.kind_case = ADVPROP__V1__CLIENT_REQUEST__KIND_GET_EVENTS;
    request.get_events = &events;
    events.after = 300;
    add(&request.base);
    message.generation = 3;
    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_JOIN;
    message.join = &join;
    join.secret.data = secret;
    join.secret.len = sizeof secret;
    join.rank = 2;
    join.host = "host";
    join.layout = "conv1.weight";
    join.n_shard_samples = 4;
    join.shard_samples = shard_samples;
    add(&message.base);
    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_STEP;
    message.step = &step;
    step.step = 7;
    step.loss_clean = 2.5;
    add(&message.base);
    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_WRITTEN;
    message.written = &written;
    written.info = &info;
    written.reason = "drain";
    info.path = "checkpoints/1";
    info.sha256 = "00ff";
    add(&message.base);
}

static void decode(const uint8_t *frame, size_t size)
{
    Advprop__V1__ClientRequest *request = advprop__v1__client_request__unpack(NULL, size, frame);
    Advprop__V1__WorkerMessage *message = advprop__v1__worker_message__unpack(NULL, size, frame);

    if (request != NULL) {
        json_decref(apd_message_json(&request->base));
        advprop__v1__client_request__free_unpacked(request, NULL);
    }
    if (message != NULL) {
        json_t *json = apd_message_json(&message->base);

        fuzz_check(json != NULL, "a message that is no JSON");
        json_decref(json);
        advprop__v1__worker_message__free_unpacked(message, NULL);
    }
}

static void one(struct test_random *random)
{
    struct apd_frame_reader reader = {.cap = CAP};
    size_t size = fuzz_damage(random, sound, sound_size, damaged), at = 0;
    struct apd_err err = {0};

    while (at < size) {
        size_t piece = 1 + test_below(random, 40), used, frame_size;
        const uint8_t *frame;

        if (piece > size - at)
            piece = size - at;
        if (apd_frame_feed(&reader, damaged + at, piece, &used, &frame, &frame_size, &err) !=
            APD_OK) {
            fuzz_check(err.code == APD_PROTO && err.msg[0] != '\0', "an error without a reason");
            break; /* the connection would be closed */
        }
        fuzz_check(used > 0 && used <= piece, "no progress");
        fuzz_check(reader.allocated <= CAP, "more memory than the cap");
        fuzz_check(frame == NULL || frame_size <= CAP, "a frame over the cap");
        at += used;
        if (frame != NULL)
            decode(frame, frame_size);
    }
    apd_frame_reader_fini(&reader);
}

int main(int argc, char **argv)
{
    int status;

    make_sound();
    damaged = malloc(2 * sound_size + 64);
    fuzz_check(damaged != NULL, "no memory");
    status = fuzz_main(argc, argv, one);
    free(sound);
    free(damaged);
    return status;
}
