/* See control.h. */
#include "cli/control.h"
#include "cli/client.h"
#include "cli/status_source.h"

static enum apd_code ask_for(const char *run_dir, Advprop__V1__ClientRequest *request,
                             int timeout_ms, Advprop__V1__ServerReply__KindCase expected,
                             Advprop__V1__ServerReply **out, struct apd_err *err)
{
    Advprop__V1__ServerReply *reply = NULL;

    APD_TRY(apd_client_ask(run_dir, request, timeout_ms, &reply, err));
    if (reply->kind_case != expected) {
        apd_fail(err, APD_PROTO, "the coordinator answered with kind %d, expected %d",
                 (int)reply->kind_case, (int)expected);
        advprop__v1__server_reply__free_unpacked(reply, NULL);
        return err->code;
    }
    *out = reply;
    return APD_OK;
}

static enum apd_code ask_for_ack(const char *run_dir, Advprop__V1__ClientRequest__KindCase kind,
                                 void *message, struct apd_err *err)
{
    Advprop__V1__ServerReply *reply = NULL;
    Advprop__V1__ClientRequest request;

    apd_request_init(&request, kind, message);
    APD_TRY(ask_for(run_dir, &request, APD_CLIENT_TIMEOUT_MS, ADVPROP__V1__SERVER_REPLY__KIND_ACK,
                    &reply, err));
    advprop__v1__server_reply__free_unpacked(reply, NULL);
    return APD_OK;
}

enum apd_code apd_control_drain(const char *run_dir, struct apd_err *err)
{
    Advprop__V1__Drain drain = ADVPROP__V1__DRAIN__INIT;

    return ask_for_ack(run_dir, ADVPROP__V1__CLIENT_REQUEST__KIND_DRAIN, &drain, err);
}

enum apd_code apd_control_stop(const char *run_dir, struct apd_err *err)
{
    Advprop__V1__Stop stop = ADVPROP__V1__STOP__INIT;

    return ask_for_ack(run_dir, ADVPROP__V1__CLIENT_REQUEST__KIND_STOP, &stop, err);
}

enum apd_code apd_control_checkpoint(const char *run_dir, int timeout_ms,
                                     Advprop__V1__ServerReply **out, struct apd_err *err)
{
    Advprop__V1__Checkpoint checkpoint = ADVPROP__V1__CHECKPOINT__INIT;
    Advprop__V1__ClientRequest request;

    apd_request_init(&request, ADVPROP__V1__CLIENT_REQUEST__KIND_CHECKPOINT, &checkpoint);
    return ask_for(run_dir, &request, timeout_ms, ADVPROP__V1__SERVER_REPLY__KIND_CHECKPOINT, out,
                   err);
}
