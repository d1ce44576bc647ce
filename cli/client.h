/* A client of the coordinator's status socket: connect, send one request, read replies, all with
 * deadlines. Blocking; one thread. */
#ifndef APD_CLI_CLIENT_H
#define APD_CLI_CLIENT_H

#include "base/err.h"
#include "proto/advprop.pb-c.h"

#include <stdint.h>

#define APD_CLIENT_TIMEOUT_MS 10000

struct apd_client;

/* Connects to run_dir/ctl.sock; run_dir may be longer than a socket address holds. APD_IO (exit
 * 69): no coordinator runs there. */
APD_MUST_USE enum apd_code apd_client_open(const char *run_dir, struct apd_client **out,
                                           struct apd_err *err);

/* For poll(2). */
int apd_client_fd(const struct apd_client *client);

/* Sends a request; its id is filled in. `kind` as in CLIENT_REQUEST__KIND_*, for requests without
 * fields of their own `message` is an initialised one. */
APD_MUST_USE enum apd_code apd_client_send(struct apd_client *client,
                                           Advprop__V1__ClientRequest *request,
                                           struct apd_err *err);

/* Waits for the next reply. *out belongs to the caller:
 * advprop__v1__server_reply__free_unpacked(*out, NULL). An Error reply becomes an error with the
 * coordinator's words. APD_TIMEOUT: none came in time. */
APD_MUST_USE enum apd_code apd_client_next(struct apd_client *client, int timeout_ms,
                                           Advprop__V1__ServerReply **out, struct apd_err *err);

/* Whether a reply lies in memory already, so that poll(2) would wait in vain. */
int apd_client_buffered(const struct apd_client *client);

void apd_client_close(struct apd_client **client);

/* Open, send, one reply, close. */
APD_MUST_USE enum apd_code apd_client_ask(const char *run_dir, Advprop__V1__ClientRequest *request,
                                          int timeout_ms, Advprop__V1__ServerReply **out,
                                          struct apd_err *err);

#endif
