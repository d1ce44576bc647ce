/* Progress of a tool on stderr: one line that is redrawn on a terminal, a line every ten seconds
 * otherwise. Messages go through here, so that they do not end up in the middle of it. Any thread.
 */
#ifndef APD_WORKER_TOOL_PROGRESS_H
#define APD_WORKER_TOOL_PROGRESS_H

#include <pthread.h>
#include <stdint.h>

struct apd_tool_progress {
    const char *verb; /* "indexing" */
    int terminal, drawn;
    double start_s, next_s;
    uint64_t messages;
    pthread_mutex_t lock;
};

/* verb is not copied. */
void apd_tool_progress_init(struct apd_tool_progress *progress, const char *verb);

/* So many samples, and so many bytes of all (0: unknown), are done. */
void apd_tool_progress_show(struct apd_tool_progress *progress, uint64_t samples, uint64_t bytes,
                            uint64_t total_bytes);

/* A line of its own. Only the first 20 are printed; end says how many there were. */
void apd_tool_progress_say(struct apd_tool_progress *progress, const char *line);

/* Ends the redrawn line; may be called again. Returns the seconds since init. */
double apd_tool_progress_end(struct apd_tool_progress *progress);

#endif
