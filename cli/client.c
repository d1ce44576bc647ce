/* See client.h. */
#include "cli/client.h"
#include "base/clock.h"
#include "proto/frame.h"
#include "proto/pack.h"
#include "proto/run_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct apd_client {
    int fd;
    struct apd_frame_reader reader;
    uint8_t bytes[16384]; /* received, not yet fed to the reader */
    size_t first, have;
    uint64_t last_id;
    char path[APD_RUN_PATH_MAX]; /* for messages */
};

/* "<run_dir>/ctl.sock" may exceed sun_path; "/proc/self/fd/N/ctl.sock" never does. */
static enum apd_code connect_socket(struct apd_client *client, const char *run_dir,
                                    struct apd_err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    enum apd_code rc = APD_OK;
    int folder = open(run_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (folder < 0)
        return apd_fail_errno(err, "run directory %s", run_dir);
    client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client->fd < 0) {
        rc = apd_fail_errno(err, "creating a socket");
        goto done;
    }
    (void)snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", folder,
                   APD_RUN_SOCKET);
    if (connect(client->fd, (const struct sockaddr *)&address, sizeof address) != 0)
        rc = apd_fail_errno(err, "no coordinator answers at %s", client->path);
done:
    close(folder);
    return rc;
}

enum apd_code apd_client_open(const char *run_dir, struct apd_client **out, struct apd_err *err)
{
    struct apd_client *client = calloc(1, sizeof *client);
    enum apd_code rc;

    if (client == NULL)
        return apd_fail(err, APD_NOMEM, "memory for a client");
    client->fd = -1;
    client->reader.cap = APD_FRAME_CAP_ACCEPTED;
    APD_GO(apd_run_dir_path(run_dir, APD_RUN_SOCKET, client->path, err));
    APD_GO(connect_socket(client, run_dir, err));
    *out = client;
    client = NULL;
done:
    apd_client_close(&client);
    return rc;
}

int apd_client_fd(const struct apd_client *client)
{
    return client->fd;
}

int apd_client_buffered(const struct apd_client *client)
{
    return client->have > 0;
}

/* The edge says 69 for "went away" as for "is not there": a client has nothing else to do. */
static enum apd_code gone(struct apd_client *client, struct apd_err *err)
{
    errno = ECONNRESET;
    return apd_fail_errno(err, "the coordinator at %s", client->path);
}

static enum apd_code wait_for(struct apd_client *client, short events, uint64_t deadline_ms,
                              struct apd_err *err)
{
    struct pollfd fd = {.fd = client->fd, .events = events};

    for (;;) {
        uint64_t now = apd_now_ms();
        int n = poll(&fd, 1, now < deadline_ms ? (int)(deadline_ms - now) : 0);

        if (n > 0)
            return APD_OK;
        if (n == 0)
            return apd_fail(err, APD_TIMEOUT, "the coordinator at %s did not answer in time",
                            client->path);
        if (errno != EINTR)
            return apd_fail_errno(err, "waiting for %s", client->path);
    }
}

enum apd_code apd_client_send(struct apd_client *client, Advprop__V1__ClientRequest *request,
                              struct apd_err *err)
{
    uint64_t deadline_ms = apd_now_ms() + APD_CLIENT_TIMEOUT_MS;
    enum apd_code rc = APD_OK;
    uint8_t *frame = NULL;
    size_t size = 0, sent = 0;

    request->id = ++client->last_id;
    APD_TRY(apd_frame_pack(&request->base, &frame, &size, err));
    while (sent < size) {
        ssize_t n;

        APD_GO(wait_for(client, POLLOUT, deadline_ms, err));
        n = send(client->fd, frame + sent, size - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            rc = apd_fail_errno(err, "sending to %s", client->path);
            goto done;
        }
        sent += n > 0 ? (size_t)n : 0;
    }
done:
    free(frame);
    return rc;
}

static enum apd_code receive(struct apd_client *client, uint64_t deadline_ms, struct apd_err *err)
{
    ssize_t n;

    APD_TRY(wait_for(client, POLLIN, deadline_ms, err));
    n = recv(client->fd, client->bytes, sizeof client->bytes, MSG_DONTWAIT);
    if (n == 0)
        return gone(client, err);
    if (n < 0 && errno != EAGAIN && errno != EINTR)
        return apd_fail_errno(err, "reading from %s", client->path);
    client->first = 0;
    client->have = n > 0 ? (size_t)n : 0;
    return APD_OK;
}

static enum apd_code unpack(struct apd_client *client, const uint8_t *frame, size_t size,
                            Advprop__V1__ServerReply **out, struct apd_err *err)
{
    Advprop__V1__ServerReply *reply = advprop__v1__server_reply__unpack(NULL, size, frame);

    if (reply == NULL)
        return apd_fail(err, APD_PROTO, "%s: a frame of %zu bytes is no reply", client->path, size);
    if (reply->kind_case == ADVPROP__V1__SERVER_REPLY__KIND_ERROR) {
        errno = 0; /* a refusal: unavailable now (69) */
        apd_fail(err, APD_IO, "the coordinator refuses (%s): %s", reply->error->code,
                 reply->error->text);
        advprop__v1__server_reply__free_unpacked(reply, NULL);
        return err->code;
    }
    *out = reply;
    return APD_OK;
}

enum apd_code apd_client_next(struct apd_client *client, int timeout_ms,
                              Advprop__V1__ServerReply **out, struct apd_err *err)
{
    uint64_t deadline_ms = apd_now_ms() + (uint64_t)timeout_ms;

    for (;;) {
        const uint8_t *frame = NULL;
        size_t used = 0, size = 0;

        if (client->have == 0)
            APD_TRY(receive(client, deadline_ms, err));
        APD_TRY(apd_frame_feed(&client->reader, client->bytes + client->first, client->have, &used,
                               &frame, &size, err));
        client->first += used;
        client->have -= used;
        if (frame != NULL)
            return unpack(client, frame, size, out, err);
    }
}

void apd_client_close(struct apd_client **client)
{
    if (*client == NULL)
        return;
    if ((*client)->fd >= 0)
        close((*client)->fd);
    apd_frame_reader_fini(&(*client)->reader);
    free(*client);
    *client = NULL;
}

enum apd_code apd_client_ask(const char *run_dir, Advprop__V1__ClientRequest *request,
                             int timeout_ms, Advprop__V1__ServerReply **out, struct apd_err *err)
{
    struct apd_client *client = NULL;
    enum apd_code rc;

    APD_GO(apd_client_open(run_dir, &client, err));
    APD_GO(apd_client_send(client, request, err));
    rc = apd_client_next(client, timeout_ms, out, err);
    if (rc == APD_TIMEOUT) { /* for a person: unavailable, not "run me again" */
        errno = ETIMEDOUT;
        err->code = rc = APD_IO;
    }
done:
    apd_client_close(&client);
    return rc;
}
