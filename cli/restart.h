/* What to do when a start of a run has ended: report, leave, or start again. Pure. */
#ifndef APD_CLI_RESTART_H
#define APD_CLI_RESTART_H

#include <jansson.h>
#include <stdint.h>

enum { APD_RESTART_NO_PROGRESS = 3 }; /* starts in a row without progress that end the run */

struct apd_restart {
    long max_restarts;
    long restarts;
    int without_progress;
    uint64_t step, checkpoint_step; /* the furthest so far */
};

enum apd_next {
    APD_NEXT_REPORT, /* the run is complete */
    APD_NEXT_LEAVE,  /* with *out_exit */
    APD_NEXT_START,  /* again; counted in restart->restarts */
};

/* Where the run stands before the first start; status may be NULL. */
void apd_restart_init(struct apd_restart *restart, long max_restarts, const json_t *status);

/* Whether this status says that nothing is left to train. */
int apd_restart_complete(const json_t *status);

/* wait_status: of mpirun. status: as this start left it, or NULL if it wrote none. asked: somebody
 * asked us to end the run. Progress is a newer checkpoint or a step further than any before. A
 * first start that ends with 69, a cause and no progress is not repeated. The exit status of a
 * first cause counts before mpirun's. */
enum apd_next apd_restart_decide(struct apd_restart *restart, int wait_status, const json_t *status,
                                 int asked, int *out_exit);

#endif
