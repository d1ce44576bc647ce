/* mpirun as a child: in a session of its own (so that a terminal's Ctrl-C reaches only us), its
 * output in a file, ended when we die; and the signals of this process as a file descriptor.
 *
 * mpirun has TERM blocked: a batch system sends it to all processes at once, and mpirun would give
 * ranks, which are saving then, two seconds. INT ends it. */
#ifndef APD_CLI_CHILD_H
#define APD_CLI_CHILD_H

#include "base/err.h"
#include "cli/launch.h"

#include <sys/types.h>

/* Blocks TERM, INT, HUP, USR1, USR2 and CHLD and opens a descriptor that reads them (signalfd). */
APD_MUST_USE enum apd_code apd_signals_open(int *out_fd, struct apd_err *err);

/* The next signal of the descriptor, 0 if there is none now. Does not block. */
int apd_signals_next(int fd);

/* Starts the line; stdin is /dev/null, stdout and stderr are appended to `log`. */
APD_MUST_USE enum apd_code apd_child_start(const struct apd_command_line *line, const char *log,
                                           pid_t *out_pid, struct apd_err *err);

/* Shared memory of Open MPI in a folder of our own below /dev/shm, so that what killed ranks leave
 * there can be removed. Where that cannot be made, Open MPI goes on with its own place. For runs on
 * this host only: ranks elsewhere would not find the folder. */
struct apd_shm {
    char path[64]; /* "" if there is none */
};

/* Also removes folders whose process has gone. */
void apd_shm_open(struct apd_shm *shm);
/* Between starts. */
void apd_shm_clean(const struct apd_shm *shm);
void apd_shm_close(struct apd_shm *shm);

#endif
