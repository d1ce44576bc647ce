/* Messages as JSON: names, enums, absent parts, numbers JSON has no word for. */
#include "proto/advprop.pb-c.h"
#include "proto/message_json.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void assert_json(const ProtobufCMessage *message, const char *expected)
{
    json_t *made = apd_message_json(message), *want = json_loads(expected, 0, NULL);
    char *text = json_dumps(made, JSON_SORT_KEYS);

    assert_non_null(made);
    assert_non_null(want);
    if (!json_equal(made, want))
        fail_msg("made %s, expected %s", text, expected);
    free(text);
    json_decref(made);
    json_decref(want);
}

static void nested_messages_keep_their_names(void **state)
{
    Advprop__V1__Shards shards = ADVPROP__V1__SHARDS__INIT;
    Advprop__V1__WorkerShards worker = ADVPROP__V1__WORKER_SHARDS__INIT, *workers[] = {&worker};
    Advprop__V1__LaneShards lane = ADVPROP__V1__LANE_SHARDS__INIT, *lanes[] = {&lane};
    uint32_t list[] = {3, 1};

    (void)state;
    shards.n_worker = 1;
    shards.worker = workers;
    worker.rank = 1;
    worker.n_lane = 1;
    worker.lane = lanes;
    lane.epoch = 2;
    lane.n_shard = 2;
    lane.shard = list;
    lane.truncated = 1;
    assert_json(&shards.base, "{\"worker\":[{\"rank\":1,\"lane\":[{\"lane\":0,\"epoch\":2,"
                              "\"samples\":0,\"shard\":[3,1],\"truncated\":true}]}]}");
}

static void enums_lose_their_prefix(void **state)
{
    Advprop__V1__Heartbeat beat = ADVPROP__V1__HEARTBEAT__INIT;

    (void)state;
    beat.phase = ADVPROP__V1__PHASE__PHASE_NOISE_PASS;
    assert_json(&beat.base, "{\"phase\":\"noise_pass\",\"step\":0,\"images_per_s\":0.0,\"rss_"
                            "bytes\":0,\"detail\":\"\",\"data_wait_share\":0.0}");
    beat.phase = (Advprop__V1__Phase)99; /* from a newer worker */
    assert_json(&beat.base, "{\"phase\":99,\"step\":0,\"images_per_s\":0.0,\"rss_bytes\":0,"
                            "\"detail\":\"\",\"data_wait_share\":0.0}");
}

static void sums_are_hex_and_not_finite_is_null(void **state)
{
    Advprop__V1__Receipt receipt = ADVPROP__V1__RECEIPT__INIT;
    Advprop__V1__Evaluation evaluation = ADVPROP__V1__EVALUATION__INIT;

    (void)state;
    receipt.sum = UINT64_C(0xf0e1d2c3b4a59687);
    assert_json(&receipt.base,
                "{\"epoch\":0,\"samples\":0,\"samples_expected\":0,\"sum\":\"f0e1d2c3b4a59687\","
                "\"sum_expected\":\"0000000000000000\",\"complete\":false,\"match\":false}");
    evaluation.loss = NAN;
    evaluation.name = "main";
    assert_json(&evaluation.base, "{\"epoch\":0,\"step\":0,\"name\":\"main\",\"images\":0,"
                                  "\"top1\":0,\"top5\":0,\"loss\":null}");
}

static void unset_oneof_and_absent_messages_are_left_out(void **state)
{
    Advprop__V1__ServerReply reply = ADVPROP__V1__SERVER_REPLY__INIT;
    Advprop__V1__Ack ack = ADVPROP__V1__ACK__INIT;

    (void)state;
    assert_json(&reply.base, "{\"id\":0}");
    reply.kind_case = ADVPROP__V1__SERVER_REPLY__KIND_ACK;
    reply.ack = &ack;
    assert_json(&reply.base, "{\"id\":0,\"ack\":{}}");
}

static void text_that_is_no_utf8_is_kept_readable(void **state)
{
    Advprop__V1__Refused refused = ADVPROP__V1__REFUSED__INIT;
    char text[] = "rank \xff ends";

    (void)state;
    refused.text = text;
    assert_json(&refused.base, "{\"text\":\"rank ? ends\"}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nested_messages_keep_their_names),
        cmocka_unit_test(enums_lose_their_prefix),
        cmocka_unit_test(sums_are_hex_and_not_finite_is_null),
        cmocka_unit_test(unset_oneof_and_absent_messages_are_left_out),
        cmocka_unit_test(text_that_is_no_utf8_is_kept_readable),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
