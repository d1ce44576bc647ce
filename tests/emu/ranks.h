/* Runs a scenario on several ranks, each a process: settings come from the environment, faults kill
 * processes, and nothing of it may reach the test. */
#ifndef APD_TESTS_EMU_RANKS_H
#define APD_TESTS_EMU_RANKS_H

#include "worker/comm.h"

enum { RANKS_MAX = 8 };

struct ranks_run;

/* How the ranks ended. */
struct ranks_end {
    int status[RANKS_MAX];      /* exit status, minus the signal, or RANKS_STUCK */
    char text[RANKS_MAX][2048]; /* what it wrote to stderr */
};
enum { RANKS_STUCK = -1000 };

/* host: a communicator on host memory. The result is the exit status. */
typedef int ranks_scenario(struct apd_comm *host, void *arg);

/* Starts n ranks. settings: "NAME=value", NULL at the end, or NULL. */
struct ranks_run *ranks_start(int n, ranks_scenario *scenario, void *arg,
                              const char *const *settings);

/* Waits for them, for at most 20 s; frees run. */
struct ranks_end ranks_wait(struct ranks_run *run);

#endif
