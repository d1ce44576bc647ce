/* See restart.h. */
#include "cli/restart.h"
#include "base/err.h"
#include "cli/fields.h"

#include <string.h>
#include <sys/wait.h>

static void take_progress(struct apd_restart *restart, const json_t *status)
{
    const json_t *checkpoint = json_object_get(status, "checkpoint");
    uint64_t step = apd_field_u64(status, "step"), saved = apd_field_u64(checkpoint, "step");

    restart->without_progress++;
    if (step > restart->step || saved > restart->checkpoint_step)
        restart->without_progress = 0;
    if (step > restart->step)
        restart->step = step;
    if (saved > restart->checkpoint_step)
        restart->checkpoint_step = saved;
}

void apd_restart_init(struct apd_restart *restart, long max_restarts, const json_t *status)
{
    *restart = (struct apd_restart){.max_restarts = max_restarts};
    take_progress(restart, status);
    restart->without_progress = 0;
}

/* How a start ended. mpirun has the status of the rank that ended first, which may be one that only
 * lost its peers; the coordinator has that of the first cause. A lost rank it knows no better than
 * such a peer does, and mpirun may: by its signal. */
static int end_code(int wait_status, const json_t *status)
{
    const json_t *told = json_object_get(status, "exit_status");

    if (*apd_field_text(status, "first_cause") != '\0' && json_is_integer(told) &&
        json_integer_value(told) != APD_EXIT_RESTART)
        return (int)json_integer_value(told);
    return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : APD_EXIT_INTERNAL;
}

/* A worker or the coordinator could not begin: no GPU, no memory, no file. After a failure that is
 * worth another try - a process that was killed may hold its GPU for a moment - but not when
 * nothing went before. */
static int refused_to_begin(const struct apd_restart *restart, int code, const json_t *status)
{
    return code == APD_EXIT_UNAVAILABLE && restart->restarts == 0 &&
           restart->without_progress > 0 && *apd_field_text(status, "first_cause") != '\0';
}

/* A drained run is "done" too, but short of its steps. */
static int ended_in_order(const json_t *status)
{
    return strcmp(apd_field_text(status, "state"), "done") == 0;
}

int apd_restart_complete(const json_t *status)
{
    uint64_t total = apd_field_u64(status, "steps_total");

    return ended_in_order(status) && total > 0 && apd_field_u64(status, "step") >= total;
}

enum apd_next apd_restart_decide(struct apd_restart *restart, int wait_status, const json_t *status,
                                 int asked, int *out_exit)
{
    int code = end_code(wait_status, status);

    *out_exit = APD_EXIT_DONE;
    if (apd_restart_complete(status))
        return APD_NEXT_REPORT;
    *out_exit = APD_EXIT_RESTART;
    if (asked || ended_in_order(status))
        return APD_NEXT_LEAVE;
    *out_exit = code;
    if (code == APD_EXIT_USAGE || code == APD_EXIT_DATA || code == APD_EXIT_CONFIG)
        return APD_NEXT_LEAVE; /* the next start would end the same way */
    take_progress(restart, status);
    *out_exit = code == APD_EXIT_RESTART || code == APD_EXIT_UNAVAILABLE ? APD_EXIT_UNAVAILABLE
                                                                         : APD_EXIT_INTERNAL;
    if (restart->without_progress >= APD_RESTART_NO_PROGRESS ||
        refused_to_begin(restart, code, status))
        return APD_NEXT_LEAVE;
    *out_exit = APD_EXIT_RESTART;
    if (restart->restarts >= restart->max_restarts)
        return APD_NEXT_LEAVE;
    restart->restarts++;
    return APD_NEXT_START;
}
