/* Inside of the coordinator's loop, shared by daemon.c and daemon_world.c only. */
#ifndef APD_DAEMON_DAEMON_PRIVATE_H
#define APD_DAEMON_DAEMON_PRIVATE_H

#include "daemon/coord.h"
#include "daemon/daemon.h"
#include "daemon/disk.h"
#include "daemon/journal.h"
#include "daemon/server.h"

#include <uv.h>

#define APD_DAEMON_SIGNALS 4

struct apd_daemon {
    const struct apd_prepared *prepared;
    uv_loop_t loop;
    int loop_ready;
    uv_timer_t wake;
    uv_signal_t signal[APD_DAEMON_SIGNALS];
    int signals;
    struct apd_server workers, clients;
    struct apd_disk disk;
    struct apd_journal events, metrics, bad;
    struct apd_coord *coord;
    int status_failed; /* writing status.json failed and was told */
    int exit_status, abort;
};

/* The logic's world: sockets, files and clock of this daemon. */
struct apd_world daemon_world(struct apd_daemon *daemon);

/* Closes everything that keeps the loop alive. */
void daemon_close_all(struct apd_daemon *daemon);

#endif
