/* A listening socket and its connections: frames in, frames out, caps and deadlines. The
 * coordinator has two: TCP for workers, a Unix socket for clients. Runs on the loop thread; knows
 * no messages.
 *
 * A connection is a number, never used twice. A slow or silent peer costs a bounded amount of
 * memory and is dropped; nothing here waits for one. */
#ifndef APD_DAEMON_SERVER_H
#define APD_DAEMON_SERVER_H

#include "base/err.h"

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct apd_server_rules {
    size_t cap_new, cap_accepted; /* frame caps before and after apd_server_accept */
    uint32_t connections_max;
    uint32_t strangers_max; /* connections not accepted yet */
    uint64_t stranger_ms;   /* a connection not accepted by then is closed; 0: no limit */
    uint64_t partial_ms;    /* the same for a frame that has begun and is not complete */
    uint64_t unsent_ms;     /* and for bytes the peer does not read */
    size_t unsent_bytes;    /* more than these unsent: dropped */
};

struct apd_server_events {
    void *ctx;
    /* A whole frame. Not APD_OK: the peer does not speak our protocol. */
    enum apd_code (*frame)(void *ctx, uint64_t conn, const uint8_t *payload, size_t size,
                           struct apd_err *err);
    /* The peer does not speak our protocol; what is sent now still goes out, then it is closed. */
    void (*malformed)(void *ctx, uint64_t conn, const char *text);
    /* The connection is gone. Not for those closed by apd_server_close. */
    void (*closed)(void *ctx, uint64_t conn, const char *reason);
};

struct apd_conn;

struct apd_server {
    uv_loop_t *loop;
    struct apd_server_rules rules;
    struct apd_server_events events;
    union {
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } listener;
    uv_timer_t scan; /* looks for deadlines */
    struct apd_conn *conns;
    uint32_t count, strangers;
    uint64_t last_id;
    int unix_socket, stopping;
    char *input; /* what one read brings */
};

/* Port 0 of the loopback interface or of all; *out_port is the one the system chose. Nagle is off
 * and keepalive on for every connection. On failure nothing is left open after the loop has run
 * once more. */
APD_MUST_USE enum apd_code apd_server_listen_tcp(struct apd_server *server, uv_loop_t *loop,
                                                 const struct apd_server_rules *rules,
                                                 const struct apd_server_events *events,
                                                 int local_only, uint16_t *out_port,
                                                 struct apd_err *err);

/* The socket `name` in folder `dir`; replaces one that is there (the caller holds the run's lock).
 * The path may be longer than a socket address holds. Only peers of our own user or root are let
 * in. */
APD_MUST_USE enum apd_code apd_server_listen_unix(struct apd_server *server, uv_loop_t *loop,
                                                  const struct apd_server_rules *rules,
                                                  const struct apd_server_events *events,
                                                  const char *dir, const char *name,
                                                  struct apd_err *err);

/* Queues a message. Never fails towards the caller and never calls back: a connection that is gone
 * is ignored, one that does not read is dropped at the next scan. */
void apd_server_send(struct apd_server *server, uint64_t conn, const ProtobufCMessage *message);

/* The peer has shown who it is: the larger cap holds, the stranger's deadline does not. */
void apd_server_accept(struct apd_server *server, uint64_t conn);

/* Closes after what was sent is out (at most a second later). No event follows. */
void apd_server_close(struct apd_server *server, uint64_t conn);

/* Stops listening and closes all as above; the server's handles leave the loop by themselves. */
void apd_server_stop(struct apd_server *server);

/* After the loop has ended. */
void apd_server_fini(struct apd_server *server);

#endif
