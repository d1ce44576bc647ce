/* One connection of a server: its reader, its unsent frames, its deadlines. Inside of server.c and
 * conn.c only. */
#ifndef APD_DAEMON_CONN_H
#define APD_DAEMON_CONN_H

#include "daemon/server.h"
#include "proto/frame.h"

#define APD_INPUT_BYTES 65536
#define APD_LINGER_MS   1000 /* how long a closed connection may take to send its last bytes */

struct apd_unsent {
    uv_write_t req;
    struct apd_conn *conn;
    struct apd_unsent *next;
    uint64_t queued_ms;
    size_t size;
    uint8_t *bytes;
};

struct apd_conn {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } h;
    uv_shutdown_t shutdown;
    struct apd_server *server;
    struct apd_conn *next;
    uint64_t id;
    struct apd_frame_reader reader;
    uint64_t opened_ms;
    uint64_t partial_ms;                     /* when the frame being read began */
    uint64_t closing_ms;                     /* when it was asked to close; 0: open */
    struct apd_unsent *unsent, **unsent_end; /* oldest first */
    size_t unsent_bytes;
    int accepted;
    int overrun; /* its queue is full: dropped at the next scan */
    int closed;  /* uv_close was called */
};

/* Accepts the waiting connection of the server's listener; does nothing if that fails or is not
 * allowed. */
void apd_conn_open(struct apd_server *server);

/* Sends what is queued, then closes; further input is read and thrown away. */
void apd_conn_close(struct apd_conn *conn);

/* Closes now; tells the server's user unless the connection was closing already. */
void apd_conn_drop(struct apd_conn *conn, const char *reason);

/* Takes ownership of `bytes`. */
void apd_conn_write(struct apd_conn *conn, uint8_t *bytes, size_t size);

/* Drops it if a deadline has passed. */
void apd_conn_check(struct apd_conn *conn, uint64_t now_ms);

#endif
