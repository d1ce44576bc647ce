/* See status_source.h. */
#include "cli/status_source.h"
#include "base/fs.h"
#include "cli/client.h"
#include "proto/message_json.h"
#include "proto/run_dir.h"

#include <stdlib.h>

#define STATUS_FILE_CAP (4u << 20)

enum apd_code apd_status_file(const char *run_dir, json_t **out, struct apd_err *err)
{
    char path[APD_RUN_PATH_MAX];
    json_error_t error;
    char *text = NULL;
    size_t size = 0;
    json_t *json;

    APD_TRY(apd_run_dir_path(run_dir, APD_RUN_STATUS, path, err));
    APD_TRY(apd_read_file(path, STATUS_FILE_CAP, &text, &size, err));
    json = json_loadb(text, size, 0, &error);
    free(text);
    if (!json_is_object(json)) {
        json_decref(json);
        return apd_fail(err, APD_DATA, "%s:%d: expected a JSON object: %s", path, error.line,
                        error.text);
    }
    *out = json;
    return APD_OK;
}

enum apd_code apd_reply_json(const ProtobufCMessage *message, json_t **out, struct apd_err *err)
{
    json_t *json;

    if (message == NULL)
        return apd_fail(err, APD_PROTO, "the coordinator answered something else than was asked");
    json = apd_message_json(message);
    if (json == NULL)
        return apd_fail(err, APD_NOMEM, "memory for a reply as JSON");
    *out = json;
    return APD_OK;
}

void apd_request_init(Advprop__V1__ClientRequest *request,
                      Advprop__V1__ClientRequest__KindCase kind, void *message)
{
    advprop__v1__client_request__init(request);
    request->kind_case = kind;
    request->get_status = message; /* all members of the union are pointers to messages */
}

enum apd_code apd_status_ask(const char *run_dir, json_t **out, struct apd_err *err)
{
    Advprop__V1__GetStatus get = ADVPROP__V1__GET_STATUS__INIT;
    Advprop__V1__ServerReply *reply = NULL;
    Advprop__V1__ClientRequest request;
    enum apd_code rc;

    apd_request_init(&request, ADVPROP__V1__CLIENT_REQUEST__KIND_GET_STATUS, &get);
    APD_TRY(apd_client_ask(run_dir, &request, APD_CLIENT_TIMEOUT_MS, &reply, err));
    rc = apd_reply_json(
        reply->kind_case == ADVPROP__V1__SERVER_REPLY__KIND_STATUS ? &reply->status->base : NULL,
        out, err);
    advprop__v1__server_reply__free_unpacked(reply, NULL);
    return rc;
}
