#include "worker/tool_progress.h"

#include "base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

enum { MESSAGES_MAX = 20, PLAIN_EVERY_S = 10 };

void apd_tool_progress_init(struct apd_tool_progress *progress, const char *verb)
{
    *progress = (struct apd_tool_progress){.verb = verb, .lock = PTHREAD_MUTEX_INITIALIZER};
    progress->terminal = isatty(STDERR_FILENO);
    progress->start_s = apd_now_s();
    progress->next_s = progress->start_s + (progress->terminal ? 0 : PLAIN_EVERY_S);
}

static void wipe(struct apd_tool_progress *progress)
{
    if (progress->drawn)
        fputs("\r\033[K", stderr);
    progress->drawn = 0;
}

void apd_tool_progress_show(struct apd_tool_progress *progress, uint64_t samples, uint64_t bytes,
                            uint64_t total_bytes)
{
    double now = apd_now_s(), seconds = now - progress->start_s;
    double done = total_bytes > 0 ? (double)bytes / (double)total_bytes : 0;
    char left[64] = "";

    if (now < progress->next_s || seconds <= 0)
        return;
    if (done > 0 && done < 1)
        (void)snprintf(left, sizeof left, ", %.0f %%, %.0f s left", 100 * done,
                       seconds / done - seconds);
    pthread_mutex_lock(&progress->lock);
    progress->next_s = now + (progress->terminal ? 0 : PLAIN_EVERY_S);
    wipe(progress);
    fprintf(stderr, "%s: %" PRIu64 " images%s, %.0f images/s, %.1f MB/s%s", progress->verb, samples,
            left, (double)samples / seconds, 1e-6 * (double)bytes / seconds,
            progress->terminal ? "" : "\n");
    progress->drawn = progress->terminal;
    fflush(stderr);
    pthread_mutex_unlock(&progress->lock);
}

void apd_tool_progress_say(struct apd_tool_progress *progress, const char *line)
{
    pthread_mutex_lock(&progress->lock);
    wipe(progress);
    if (++progress->messages <= MESSAGES_MAX)
        fprintf(stderr, "%s\n", line);
    pthread_mutex_unlock(&progress->lock);
}

double apd_tool_progress_end(struct apd_tool_progress *progress)
{
    wipe(progress);
    if (progress->messages > MESSAGES_MAX)
        fprintf(stderr, "... and %" PRIu64 " more\n", progress->messages - MESSAGES_MAX);
    progress->messages = 0;
    return apd_now_s() - progress->start_s;
}
