/* Where a status comes from: the coordinator's socket, or status.json when no coordinator runs. */
#ifndef APD_CLI_STATUS_SOURCE_H
#define APD_CLI_STATUS_SOURCE_H

#include "base/err.h"
#include "proto/advprop.pb-c.h"

#include <jansson.h>

/* The newest status.json. APD_DATA if it is damaged, APD_IO if there is none. *out: a new
 * reference. */
APD_MUST_USE enum apd_code apd_status_file(const char *run_dir, json_t **out, struct apd_err *err);

/* The coordinator's answer. APD_IO: no coordinator runs. */
APD_MUST_USE enum apd_code apd_status_ask(const char *run_dir, json_t **out, struct apd_err *err);

/* A reply's message as JSON. */
APD_MUST_USE enum apd_code apd_reply_json(const ProtobufCMessage *message, json_t **out,
                                          struct apd_err *err);

/* Requests with nothing in them. */
void apd_request_init(Advprop__V1__ClientRequest *request,
                      Advprop__V1__ClientRequest__KindCase kind, void *message);

#endif
