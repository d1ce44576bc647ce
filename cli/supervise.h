/* Keeps a run alive: starts mpirun, shows progress, passes requests to end on to the coordinator,
 * starts again after a failure. One thread, one poll loop. */
#ifndef APD_CLI_SUPERVISE_H
#define APD_CLI_SUPERVISE_H

#include "base/err.h"
#include "cli/launch.h"

#include <stdint.h>

struct apd_supervision {
    const char *name;    /* for messages */
    const char *run_dir; /* prepared, absolute */
    const struct apd_command_line *line;
    long max_restarts;
    uint64_t linger_ms; /* mpirun may live so long after the coordinator */
    int quiet;          /* no progress, only messages and the report */
    int one_host;       /* all ranks run here */
};

/* Returns when the run is complete or cannot go on. *out_exit: the exit status. The first TERM, INT
 * or HUP and any USR1 or USR2 drain the run; a second TERM, INT or HUP stops it. */
APD_MUST_USE enum apd_code apd_supervise(const struct apd_supervision *supervision, int *out_exit,
                                         struct apd_err *err);

#endif
